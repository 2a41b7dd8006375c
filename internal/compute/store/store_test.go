package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/network"
	"kilonova/internal/operation"
)

// open gives a store on a new SQLite database, with the operation engine that owns the table "operations".
func open(t testing.TB) (*store.Store, *operation.Engine) {
	t.Helper()
	d := database(t)
	e, err := operation.New(t.Context(), operation.Config{DB: d})
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.New(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	return s, e
}

func write(t testing.TB, s *store.Store, fn func(tx *db.Tx) error) {
	t.Helper()
	if err := s.DB.Write(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

func server(project string, n int) *compute.Server {
	d := fmt.Sprint("number ", n)
	return &compute.Server{ID: id.UUID(), Name: fmt.Sprintf("server-%03d", n), Description: &d, Hostname: "h", ProjectID: project, UserID: "u1", VMState: compute.VMActive,
		PowerState: compute.PowerRunning, Host: "c1", Node: "c1.example", AvailabilityZone: "nova", DiskConfig: "MANUAL",
		Flavor:  compute.Flavor{ID: 7, FlavorID: "1", Name: "m1.tiny", VCPUs: 2, RAMMB: 512, RootGB: 1, ExtraSpecs: map[string]string{"a": "b"}},
		ImageID: "img", Metadata: map[string]string{"k": "v"}, Tags: []string{"t1", "t2"},
		VIFs:    []network.VIF{{PortID: "p", MAC: "fa:16:3e:00:00:01", NetworkName: "net", FixedIPs: []network.VIFAddr{{Address: fmt.Sprintf("10.0.0.%d", n), Version: 4}, {Address: fmt.Sprintf("fd00::%x", n), Version: 6}}}},
		Created: clock.FromMicros(int64(1_700_000_000_000_000 + n*1_000_000)), Launched: clock.FromMicros(1_700_000_000_000_000)}
}

func names(vs []*compute.Server) string {
	var out []string
	for _, v := range vs {
		out = append(out, strings.TrimPrefix(v.Name, "server-"))
	}
	return strings.Join(out, " ")
}

func TestServerRoundTrip(t *testing.T) {
	s, e := open(t)
	ctx := t.Context()
	old := compute.Flavor{ID: 3, FlavorID: "o", Name: "old", VCPUs: 1}
	v := server("p1", 1)
	v.OldFlavor = &old
	write(t, s, func(tx *db.Tx) error {
		if err := s.InsertServer(ctx, tx, v); err != nil {
			return err
		}
		_, err := e.Accept(ctx, tx, operation.Spec{Kind: "reboot", Object: v.ID, ObjectType: "server", Action: "reboot", TaskState: "rebooting"})
		return err
	})
	got, err := s.Server(ctx, s.DB, v.ID)
	if err != nil {
		t.Fatal(err)
	}
	want := *v
	want.TaskState = "rebooting"
	if diff := cmp.Diff(&want, got); diff != "" {
		t.Fatal(diff)
	}
	if got.Number == 0 || got.Flavor.ID != 7 || got.OldFlavor.ID != 3 {
		t.Fatalf("row numbers lost: %d %d %d", got.Number, got.Flavor.ID, got.OldFlavor.ID)
	}
}

func TestUpdateMovesQuotaTagsAndTime(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	v := server("p1", 1)
	write(t, s, func(tx *db.Tx) error { return s.InsertServer(ctx, tx, v) })
	write(t, s, func(tx *db.Tx) error {
		return s.UpdateServer(ctx, tx, v.ID, func(v *compute.Server) error {
			v.Flavor.VCPUs, v.Flavor.RAMMB, v.Tags, v.Metadata = 5, 1024, []string{"t9"}, map[string]string{"n": "m"}
			return nil
		})
	})
	u, err := s.Usage(ctx, s.DB, "p1", "u1")
	if err != nil || u != (store.Usage{Instances: 1, Cores: 5, RAM: 1024}) {
		t.Fatal(u, err)
	}
	for f, n := range map[string]store.ListFilter{"t9": {Tags: []string{"t9"}}, "t1 gone": {Tags: []string{"t1"}}} {
		got, err := s.ListServers(ctx, s.DB, n)
		if err != nil || (len(got) == 1) == strings.HasSuffix(f, "gone") {
			t.Fatal(f, len(got), err)
		}
		if len(got) == 1 && !got[0].Updated.After(v.Updated) {
			t.Fatal("updated stands still")
		}
	}
	refused := errors.New("no")
	if err := s.DB.Write(ctx, func(tx *db.Tx) error {
		return s.UpdateServer(ctx, tx, v.ID, func(v *compute.Server) error { v.Name = "x"; return refused })
	}); !errors.Is(err, refused) {
		t.Fatal(err)
	}
	if err := s.DB.Write(ctx, func(tx *db.Tx) error {
		return s.UpdateServer(ctx, tx, "nobody", func(*compute.Server) error { return nil })
	}); !errors.Is(err, fault.NotFound) {
		t.Fatal(err)
	}
}

func TestDeleteReleasesAndPurgeRemoves(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	g := &compute.ServerGroup{ID: id.UUID(), Name: "g", ProjectID: "p1", UserID: "u1", Policy: "affinity"}
	v := server("p1", 1)
	v.GroupID = g.ID
	write(t, s, func(tx *db.Tx) error {
		if err := s.InsertGroup(ctx, tx, g); err != nil {
			return err
		}
		return s.InsertServer(ctx, tx, v)
	})
	for range 2 { // repeating is harmless
		write(t, s, func(tx *db.Tx) error { return s.DeleteServer(ctx, tx, v.ID) })
	}
	if _, err := s.Server(ctx, s.DB, v.ID); !errors.Is(err, fault.NotFound) {
		t.Fatal(err)
	}
	any, err := s.ServerAny(ctx, s.DB, v.ID)
	if err != nil || any.VMState != compute.VMDeleted || any.Deleted.IsZero() || any.Terminated.IsZero() {
		t.Fatal(any, err)
	}
	if u, _ := s.Usage(ctx, s.DB, "p1", ""); u != (store.Usage{ServerGroups: 1}) {
		t.Fatal(u)
	}
	if got, _ := s.Group(ctx, s.DB, g.ID); len(got.Members) != 0 {
		t.Fatal(got.Members)
	}
	var n int
	write(t, s, func(tx *db.Tx) (err error) {
		n, err = s.PurgeServers(ctx, tx, clock.Now().Add(time.Second), 10)
		return
	})
	if _, err := s.ServerAny(ctx, s.DB, v.ID); n != 1 || !errors.Is(err, fault.NotFound) {
		t.Fatal(n, err)
	}
}

// TestQuotaIsExact lets 200 callers at once ask for room where 50 fit.
func TestQuotaIsExact(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	limits := store.Limits{"instances": 50, "cores": 1000, "ram": -1}
	var wg sync.WaitGroup
	var mu sync.Mutex
	made, refused := 0, 0
	for i := range 200 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			err := s.DB.Write(ctx, func(tx *db.Tx) error {
				if _, err := s.Reserve(ctx, tx, store.Want{Defaults: limits, Project: "p1", User: fmt.Sprint("u", i%3), Each: store.Usage{Instances: 1, Cores: 2, RAM: 512}}); err != nil {
					return err
				}
				v := server("p1", i)
				v.UserID = fmt.Sprint("u", i%3)
				return s.InsertServer(ctx, tx, v)
			})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				made++
			case errors.Is(err, fault.Forbidden) && strings.Contains(fault.PublicText(err), "Quota exceeded for instances: Requested 1, but already used 50 of 50 instances"):
				refused++
			default:
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	if made != 50 || refused != 150 {
		t.Fatalf("%d made, %d refused", made, refused)
	}
	counted, err := s.Counted(ctx, s.DB)
	if err != nil {
		t.Fatal(err)
	}
	recount, err := s.Recount(ctx, s.DB)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(recount, counted); diff != "" {
		t.Fatal(diff)
	}
}

func TestReserveLowersAndNames(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	each := store.Usage{Instances: 1, Cores: 2, RAM: 512}
	write(t, s, func(tx *db.Tx) error { return s.InsertServer(ctx, tx, server("p1", 1)) })
	for name, c := range map[string]struct {
		set     func(tx *db.Tx) error
		want    store.Want
		granted int64
		text    string
	}{
		"fits":     {want: store.Want{Min: 2, Count: 3}, granted: 3},
		"lowered":  {want: store.Want{Min: 1, Count: 30}, granted: 9},
		"too many": {want: store.Want{Min: 10, Count: 30}, text: "Quota exceeded for cores, instances: Requested 20, 10, but already used 2, 1 of 20, 10 cores, instances"},
		"user":     {set: func(tx *db.Tx) error { return s.SetLimits(ctx, tx, "p1", "u1", store.Limits{"cores": 3}) }, want: store.Want{Min: 1}, text: "Quota exceeded for cores: Requested 2, but already used 2 of 3 cores"},
		"project":  {set: func(tx *db.Tx) error { return s.SetLimits(ctx, tx, "p1", "", store.Limits{"ram": 600}) }, want: store.Want{Min: 1}, text: "Quota exceeded for ram: Requested 512, but already used 512 of 600 ram"},
		"class":    {set: func(tx *db.Tx) error { return s.SetClassLimits(ctx, tx, "default", store.Limits{"instances": 2}) }, want: store.Want{Min: 1, Count: 5}, granted: 1},
		"unlimited": {set: func(tx *db.Tx) error {
			return s.SetLimits(ctx, tx, "p1", "", store.Limits{"instances": -1, "cores": -1, "ram": -1})
		}, want: store.Want{Min: 1, Count: 500}, granted: 500},
	} {
		t.Run(name, func(t *testing.T) {
			undo := errors.New("undo")
			err := s.DB.Write(ctx, func(tx *db.Tx) error {
				if c.set != nil {
					if err := c.set(tx); err != nil {
						return err
					}
				}
				c.want.Defaults, c.want.Project, c.want.User, c.want.Each = store.Limits{"instances": 10, "cores": 20, "ram": 51200}, "p1", "u1", each
				n, err := s.Reserve(ctx, tx, c.want)
				if err == nil && n == c.granted {
					return undo
				}
				return fmt.Errorf("granted %d: %w", n, err)
			})
			if c.text == "" && !errors.Is(err, undo) || c.text != "" && (!errors.Is(err, fault.Forbidden) || fault.PublicText(err) != c.text) {
				t.Fatal(err)
			}
		})
	}
}

func TestListFilters(t *testing.T) {
	s, e := open(t)
	ctx := t.Context()
	var ids []string
	write(t, s, func(tx *db.Tx) error {
		for n := range 6 {
			v := server([]string{"p1", "p2"}[n/4], n)
			switch n {
			case 1:
				v.VMState, v.Tags = compute.VMStopped, []string{"t1"}
			case 2:
				v.LockedBy, v.Locked, v.Host = "owner", true, "c2"
			case 3:
				v.Tags, v.Metadata, v.VMState = nil, nil, compute.VMSoftDeleted
			}
			if err := s.InsertServer(ctx, tx, v); err != nil {
				return err
			}
			ids = append(ids, v.ID)
		}
		if _, err := e.Accept(ctx, tx, operation.Spec{Kind: "reboot", Object: ids[0], ObjectType: "server", TaskState: "rebooting"}); err != nil {
			return err
		}
		return s.DeleteServer(ctx, tx, ids[5])
	})
	yes, no := true, false
	for name, c := range map[string]struct {
		f    store.ListFilter
		want string
	}{
		"all, newest first":   {store.ListFilter{}, "004 003 002 001 000"},
		"project":             {store.ListFilter{ProjectID: "p1"}, "003 002 001 000"},
		"deleted":             {store.ListFilter{Deleted: &yes}, "005"},
		"changes":             {store.ListFilter{ChangesSince: clock.Now().Add(-time.Minute)}, "005"},
		"changes, not gone":   {store.ListFilter{ChangesBefore: clock.Now().Add(-time.Minute), Deleted: &no}, "004 003 002 001 000"},
		"name":                {store.ListFilter{Name: "SERVER-00[12]"}, "002 001"},
		"name, limit":         {store.ListFilter{Name: "server", Limit: 2}, "004 003"},
		"ip":                  {store.ListFilter{IP: "10.0.0.[34]"}, "004 003"},
		"ip6":                 {store.ListFilter{IP6: "FD00::2$"}, "002"},
		"ip not six":          {store.ListFilter{IP: "fd00"}, ""},
		"vm state":            {store.ListFilter{VMStates: []string{"stopped"}}, "001"},
		"task":                {store.ListFilter{TaskStates: []string{"rebooting"}}, "000"},
		"idle":                {store.ListFilter{TaskStates: []string{""}}, "004 003 002 001"},
		"locked":              {store.ListFilter{Locked: &yes}, "002"},
		"tags":                {store.ListFilter{Tags: []string{"t1", "t2"}}, "004 002 000"},
		"tags any":            {store.ListFilter{TagsAny: []string{"t1", "x"}}, "004 002 001 000"},
		"not tags":            {store.ListFilter{NotTags: []string{"t1", "t2"}}, "003 001"},
		"not tags any":        {store.ListFilter{NotTagsAny: []string{"t1", "t2"}}, "003"},
		"host":                {store.ListFilter{Equal: map[string][]any{"host": {"c2"}}}, "002"},
		"flavor":              {store.ListFilter{Equal: map[string][]any{"flavor": {"1", "2"}}, Limit: 1}, "004"},
		"ids":                 {store.ListFilter{IDs: []string{ids[3], ids[1]}}, "003 001"},
		"sort":                {store.ListFilter{Sort: []store.SortKey{{Key: "host", Desc: true}, {Key: "display_name"}}}, "002 000 001 003 004"},
		"sort by task":        {store.ListFilter{Sort: []store.SortKey{{Key: "task_state", Desc: true}}, Limit: 2}, "000 004"},
		"marker":              {store.ListFilter{Marker: ids[2]}, "001 000"},
		"marker, sorted":      {store.ListFilter{Marker: ids[2], Sort: []store.SortKey{{Key: "host", Desc: true}}}, "004 003 001 000"},
		"marker, equal keys":  {store.ListFilter{Marker: ids[1], Sort: []store.SortKey{{Key: "hostname"}}, Limit: 2}, "002 003"},
		"ip part":             {store.ListFilter{IP: "0.0.3"}, "003"},
		"match":               {store.ListFilter{Match: map[string]string{"host": "^C2", "node": "example"}}, "002"},
		"match a number":      {store.ListFilter{Match: map[string]string{"power_state": "^(1|4)$"}}, "004 003 002 001 000"},
		"match no number":     {store.ListFilter{Match: map[string]string{"power_state": "x"}}, ""},
		"match a time":        {store.ListFilter{Match: map[string]string{"created_at": "^2023-11-14T22:13:2[01]"}, Limit: 1}, "001"},
		"match no time":       {store.ListFilter{Match: map[string]string{"terminated_at": "."}}, ""},
		"time":                {store.ListFilter{Times: map[string][2]time.Time{"created_at": {time.Unix(1_700_000_002, 0), time.Unix(1_700_000_003, 0)}}}, "002"},
		"soft deleted too":    {store.ListFilter{Deleted: &yes, SoftDeleted: &yes}, "005 003"},
		"not soft deleted":    {store.ListFilter{SoftDeleted: &no}, "004 002 001 000"},
		"user":                {store.ListFilter{UserID: "nobody"}, ""},
		"usage, still there":  {store.ListFilter{TerminatedSince: clock.Now().Add(time.Hour), LaunchedBefore: clock.Now()}, "004 003 002 001 000"},
		"usage, ended within": {store.ListFilter{TerminatedSince: clock.Now().Add(-time.Hour), LaunchedBefore: clock.Now()}, "005 004 003 002 001 000"},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // the second time from the cache
				got, err := s.ListServers(ctx, s.DB, c.f)
				if err != nil || names(got) != c.want {
					t.Fatalf("%q, want %q (%v)", names(got), c.want, err)
				}
			}
		})
	}
	for name, f := range map[string]store.ListFilter{"sort key": {Sort: []store.SortKey{{Key: "doc"}}}, "column": {Equal: map[string][]any{"doc": {1}}},
		"matched column": {Match: map[string]string{"doc": "1"}}, "matched pattern": {Match: map[string]string{"host": "("}}, "no time": {Times: map[string][2]time.Time{"host": {}}}, "pattern": {Name: "("}, "marker": {Marker: "x"}, "foreign marker": {Marker: ids[4], ProjectID: "p1"}} {
		if _, err := s.ListServers(ctx, s.DB, f); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCacheSeesEveryChange reads through the cache after each kind of change, and after one that was rolled back.
func TestCacheSeesEveryChange(t *testing.T) {
	s, e := open(t)
	ctx := t.Context()
	v := server("p1", 1)
	write(t, s, func(tx *db.Tx) error { return s.InsertServer(ctx, tx, v) })
	look := func() *compute.Server {
		t.Helper()
		got, err := s.ListServers(ctx, s.DB, store.ListFilter{})
		if err != nil || len(got) != 1 {
			t.Fatal(len(got), err)
		}
		return got[0]
	}
	look()
	undo := errors.New("undo")
	_ = s.DB.Write(ctx, func(tx *db.Tx) error {
		_ = s.UpdateServer(ctx, tx, v.ID, func(v *compute.Server) error { v.Name = "wrong"; return nil })
		if got, err := s.ListServers(ctx, tx, store.ListFilter{}); err != nil || got[0].Name != "wrong" {
			t.Error("a transaction does not see its own change", err)
		}
		return undo
	})
	write(t, s, func(tx *db.Tx) error {
		return s.UpdateServer(ctx, tx, v.ID, func(v *compute.Server) error { v.Name = "right"; return nil })
	})
	if got := look(); got.Name != "right" {
		t.Fatal(got.Name)
	}
	write(t, s, func(tx *db.Tx) error {
		_, err := e.Accept(ctx, tx, operation.Spec{Kind: "stop", Object: v.ID, ObjectType: "server", TaskState: "powering-off"})
		return err
	})
	if got := look(); got.TaskState != "powering-off" {
		t.Fatal(got.TaskState)
	}
}

func BenchmarkList1000(b *testing.B) {
	s, _ := open(b)
	write(b, s, func(tx *db.Tx) error {
		for n := range 1000 {
			if err := s.InsertServer(context.Background(), tx, server("p1", n)); err != nil {
				return err
			}
		}
		return nil
	})
	for b.Loop() {
		vs, err := s.ListServers(b.Context(), s.DB, store.ListFilter{ProjectID: "p1", Limit: 1000})
		if err != nil || len(vs) != 1000 {
			b.Fatal(len(vs), err)
		}
	}
}

func BenchmarkShow(b *testing.B) {
	s, _ := open(b)
	v := server("p1", 1)
	write(b, s, func(tx *db.Tx) error { return s.InsertServer(context.Background(), tx, v) })
	for b.Loop() {
		if _, err := s.Server(b.Context(), s.DB, v.ID); err != nil {
			b.Fatal(err)
		}
	}
}
