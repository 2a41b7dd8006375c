package store_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
)

// TestListsUseIndexes explains the query of each list on a database with rows and statistics: none may scan the table of servers, migrations or
// operations, and the everyday lists may not sort either.
func TestListsUseIndexes(t *testing.T) {
	s, _ := open(t)
	if s.DB.Dialect() != db.SQLite {
		t.Skip("the plans of SQLite are judged")
	}
	ctx := t.Context()
	write(t, s, func(tx *db.Tx) error {
		for n := range 300 {
			v := server(fmt.Sprint("p", n%20), n)
			v.Host = fmt.Sprint("c", n%10)
			if err := s.InsertServer(ctx, tx, v); err != nil {
				return err
			}
			if err := s.InsertMigration(ctx, tx, &compute.Migration{ServerID: v.ID, Type: "resize", Status: "done", SourceHost: v.Host, ProjectID: v.ProjectID}); err != nil {
				return err
			}
		}
		return nil
	})
	marker, err := s.ListServers(ctx, s.DB, store.ListFilter{ProjectID: "p1", Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	no := false
	for name, c := range map[string]struct {
		f      store.ListFilter
		sorted bool // by an index alone
	}{
		"all projects":    {store.ListFilter{Limit: 100}, true},
		"project":         {store.ListFilter{ProjectID: "p1", Limit: 100}, true},
		"project, marker": {store.ListFilter{ProjectID: "p1", Marker: marker[0].ID, Limit: 100}, true},
		"project, name":   {store.ListFilter{ProjectID: "p1", Name: "x"}, true},
		"project, status": {store.ListFilter{ProjectID: "p1", VMStates: []string{"active"}, TaskStates: []string{"x"}}, true},
		"project, tags":   {store.ListFilter{ProjectID: "p1", Tags: []string{"x"}}, true},
		"host":            {store.ListFilter{Equal: map[string][]any{"host": {"c1"}}, Deleted: &no}, false},
		"ids":             {store.ListFilter{IDs: []string{"a", "b"}}, false},
		"reservation":     {store.ListFilter{Equal: map[string][]any{"reservation_id": {"r"}}}, false},
		"changes":         {store.ListFilter{ProjectID: "p1", ChangesSince: clock.Now()}, false},
		"usage":           {store.ListFilter{ProjectID: "p1", TerminatedSince: clock.Now(), LaunchedBefore: clock.Now()}, false},
		"sorted by name":  {store.ListFilter{ProjectID: "p1", Sort: []store.SortKey{{Key: "display_name"}}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			q := &recorder{DB: s.DB}
			if _, err := s.ListServers(ctx, q, c.f); err != nil {
				t.Fatal(err)
			}
			at := slices.IndexFunc(q.queries, func(q string) bool { return strings.Contains(q, "ORDER BY") })
			plan := q.explain(t, at)
			if strings.Contains(plan, "SCAN s\n") || strings.Contains(plan, "SCAN o") || c.sorted && strings.Contains(plan, "TEMP B-TREE") {
				t.Fatalf("%s\n%s", q.queries[at], plan)
			}
			if n := len(q.queries); n > 3 { // the list, where its marker is, and the documents
				t.Fatal(n, "queries")
			}
		})
	}
	reads := map[string]func(q db.Querier) error{
		"server":      func(q db.Querier) error { _, err := s.Server(ctx, q, "x"); return notFound(err) },
		"on host":     func(q db.Querier) error { _, err := s.ServersOnHost(ctx, q, "c1"); return err },
		"by id":       func(q db.Querier) error { _, err := s.ServersByID(ctx, q, "a", "b"); return err },
		"refs":        func(q db.Querier) error { _, err := s.ServerRefs(ctx, q, "c1"); return err },
		"host":        func(q db.Querier) error { _, err := s.Host(ctx, q, "c1"); return notFound(err) },
		"group":       func(q db.Querier) error { _, err := s.Group(ctx, q, "g"); return notFound(err) },
		"group hosts": func(q db.Querier) error { _, err := s.GroupPlaces(ctx, q, "g", "anti-affinity"); return err },
		"keys":        func(q db.Querier) error { _, err := s.KeyPairs(ctx, q, "u", "", 10); return err },
		"flavor":      func(q db.Querier) error { _, err := s.Flavor(ctx, q, "1", ""); return notFound(err) },
		"usage":       func(q db.Querier) error { _, err := s.Usage(ctx, q, "p", ""); return err },
		"token":       func(q db.Querier) error { _, err := s.ConsoleToken(ctx, q, "t"); return notFound(err) },
		"migrations": func(q db.Querier) error {
			_, err := s.Migrations(ctx, q, store.MigrationFilter{ServerID: "x"})
			return err
		},
		"all migrations": func(q db.Querier) error { _, err := s.Migrations(ctx, q, store.MigrationFilter{Limit: 10}); return err },
	}
	for name, read := range reads {
		t.Run(name, func(t *testing.T) {
			q := &recorder{DB: s.DB}
			if err := read(q); err != nil {
				t.Fatal(err)
			}
			for i := range q.queries {
				plan := q.explain(t, i)
				for _, line := range strings.Split(plan, "\n") {
					if strings.HasPrefix(line, "SCAN") && !strings.Contains(line, "USING") && !strings.Contains(line, "SCAN h") {
						t.Fatalf("%s\n%s", q.queries[i], plan)
					}
				}
			}
		})
	}
}

func TestHosts(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	h := &compute.Host{Name: "c1", NodeID: "n1", Version: 3, Info: []byte(`{"vcpus":4}`)}
	ctl := &compute.Host{Name: "ctl", Binary: "nova-conductor"}
	write(t, s, func(tx *db.Tx) error {
		if err := s.SaveHost(ctx, tx, h, "c1.example"); err != nil {
			return err
		}
		return s.SaveHost(ctx, tx, ctl, "")
	})
	first := h.ServiceID
	yes, why := true, "repair"
	write(t, s, func(tx *db.Tx) error { return s.SetServiceState(ctx, tx, first, &yes, &why, &yes) })
	write(t, s, func(tx *db.Tx) error { // a later report keeps what operators decided
		return s.SaveHost(ctx, tx, &compute.Host{Name: "c1", NodeID: "n1", Version: 4}, "c1.example")
	})
	got, err := s.Host(ctx, s.DB, "c1")
	if err != nil || got.ServiceID != first || got.Version != 4 || !got.Disabled || got.DisabledReason != "repair" || !got.ForcedDown || got.Zone != store.DefaultZone {
		t.Fatal(got, err)
	}
	all, err := s.Services(ctx, s.DB)
	if err != nil || len(all) != 2 || all[1].Zone != store.InternalZone {
		t.Fatal(all, err)
	}
	seen := clock.Now().Add(time.Minute)
	write(t, s, func(tx *db.Tx) error { return s.Heartbeat(ctx, tx, "c1", store.ComputeBinary, seen) })
	states, err := s.HostStates(ctx, s.DB, "c1", "c9")
	if err != nil || len(states) != 1 || !states["c1"].LastSeen.Equal(seen) || !states["c1"].Disabled {
		t.Fatal(states, err)
	}
	if err := s.DB.Write(ctx, func(tx *db.Tx) error { return s.Heartbeat(ctx, tx, "c9", store.ComputeBinary, seen) }); notFound(err) != nil || err == nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		ok   bool
		want int64
	}{{false, 1}, {false, 2}, {true, 0}, {true, 0}, {false, 1}} {
		write(t, s, func(tx *db.Tx) error { return s.CountBuild(ctx, tx, "c1", c.ok) })
		if got, err := s.Host(ctx, s.DB, "c1"); err != nil || got.FailedBuilds != c.want {
			t.Fatalf("after build %d: %v, %v; want %d failed", i+1, got, err, c.want)
		}
	}
	v := server("p", 1)
	write(t, s, func(tx *db.Tx) error { return s.InsertServer(ctx, tx, v) })
	loads, err := s.HostLoads(ctx, s.DB)
	if err != nil || loads["c1"] != (store.HostLoad{Servers: 1, VCPUs: 2, RAMMB: 512, DiskGB: 1}) {
		t.Fatal(loads, err)
	}
	remove := func() error {
		return s.DB.Write(ctx, func(tx *db.Tx) error { return s.DeleteHost(ctx, tx, first) })
	}
	if err := remove(); !isConflict(err) {
		t.Fatal(err)
	}
	write(t, s, func(tx *db.Tx) error { return s.DeleteServer(ctx, tx, v.ID) })
	if err := remove(); err != nil {
		t.Fatal(err)
	}
	if err := remove(); err == nil || notFound(err) != nil {
		t.Fatal(err)
	}
}

func TestAggregatesMakeZones(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	a := &compute.Aggregate{Name: "fast", Metadata: map[string]string{"availability_zone": "az1", "ssd": "true"}}
	write(t, s, func(tx *db.Tx) error {
		if err := s.SaveHost(ctx, tx, &compute.Host{Name: "c1", NodeID: "n1"}, ""); err != nil {
			return err
		}
		if err := s.InsertAggregate(ctx, tx, a); err != nil {
			return err
		}
		return s.AddAggregateHost(ctx, tx, a.ID, "c1")
	})
	if h, err := s.Host(ctx, s.DB, "c1"); err != nil || h.Zone != "az1" {
		t.Fatal(h, err)
	}
	got, err := s.Aggregate(ctx, s.DB, a.ID)
	if err != nil || got.Metadata["ssd"] != "true" || len(got.Hosts) != 1 || !got.Updated.After(time.Time{}) {
		t.Fatal(got, err)
	}
	for name, f := range map[string]func(tx *db.Tx) error{
		"name taken": func(tx *db.Tx) error { return s.InsertAggregate(ctx, tx, &compute.Aggregate{Name: "fast"}) },
		"host twice": func(tx *db.Tx) error { return s.AddAggregateHost(ctx, tx, a.ID, "c1") },
	} {
		if err := s.DB.Write(ctx, f); !isConflict(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.DB.Write(ctx, func(tx *db.Tx) error { return s.DeleteAggregate(ctx, tx, a.ID) }); err == nil {
		t.Fatal("an aggregate with hosts was removed")
	}
	write(t, s, func(tx *db.Tx) error {
		if err := s.RemoveAggregateHost(ctx, tx, a.ID, "c1"); err != nil {
			return err
		}
		return s.DeleteAggregate(ctx, tx, a.ID)
	})
	if _, err := s.Aggregate(ctx, s.DB, a.ID); err == nil || notFound(err) != nil {
		t.Fatal(err)
	}
}

func TestFlavors(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	secret := &compute.Flavor{FlavorID: "s", Name: "secret", VCPUs: 1, RAMMB: 100}
	write(t, s, func(tx *db.Tx) error {
		for i := range 3 {
			if err := s.InsertFlavor(ctx, tx, &compute.Flavor{FlavorID: fmt.Sprint(i), Name: fmt.Sprint("f", 9-i), VCPUs: i, RAMMB: int64(i * 512), RootGB: int64(i), Public: true}); err != nil {
				return err
			}
		}
		if err := s.InsertFlavor(ctx, tx, secret); err != nil {
			return err
		}
		return s.AddFlavorAccess(ctx, tx, secret, "friend")
	})
	ids := func(f store.FlavorFilter) (out string) {
		t.Helper()
		fs, err := s.Flavors(ctx, s.DB, f)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range fs {
			out += f.FlavorID
		}
		return out
	}
	no := false
	for want, f := range map[string]store.FlavorFilter{"012": {Project: "p"}, "012s": {Project: "friend"}, "s": {All: true, Public: &no}, "12": {Project: "p", MinRAM: 512}, "2": {Project: "p", MinDisk: 2},
		"210": {Project: "p", Sort: []store.SortKey{{Key: "name"}}}, "01": {Project: "p", Limit: 2}, "1": {Project: "p", Limit: 1, Marker: "0"}, "0": {Project: "p", Name: "f9"},
		"10": {Project: "p", Marker: "2", Sort: []store.SortKey{{Key: "vcpus", Desc: true}}}} {
		if got := ids(f); got != want {
			t.Errorf("%+v: %s, want %s", f, got, want)
		}
	}
	if _, err := s.Flavor(ctx, s.DB, "s", "p"); err == nil || notFound(err) != nil {
		t.Fatal(err)
	}
	if f, err := s.Flavor(ctx, s.DB, "s", "friend"); err != nil || f.ID != secret.ID {
		t.Fatal(f, err)
	}
	for _, f := range []*compute.Flavor{{FlavorID: "s", Name: "new"}, {FlavorID: "new", Name: "secret"}} {
		if err := s.DB.Write(ctx, func(tx *db.Tx) error { return s.InsertFlavor(ctx, tx, f) }); !isConflict(err) {
			t.Errorf("%+v: %v", f, err)
		}
	}
	write(t, s, func(tx *db.Tx) error {
		_, err := s.UpdateFlavor(ctx, tx, "s", func(f *compute.Flavor) error { f.ExtraSpecs["hw:x"] = "1"; return nil })
		return err
	})
	if f, _ := s.Flavor(ctx, s.DB, "s", ""); f == nil || f.ExtraSpecs["hw:x"] != "1" {
		t.Fatal(f)
	}
	write(t, s, func(tx *db.Tx) error {
		if err := s.RemoveFlavorAccess(ctx, tx, secret, "friend"); err != nil {
			return err
		}
		return s.DeleteFlavor(ctx, tx, "s")
	})
	if got := ids(store.FlavorFilter{All: true}); got != "012" {
		t.Fatal(got)
	}
}

func TestKeyPairsGroupsTokens(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	for _, name := range []string{"b", "a", "c"} {
		write(t, s, func(tx *db.Tx) error {
			return s.InsertKeyPair(ctx, tx, &compute.KeyPair{Name: name, UserID: "u", Type: "ssh"}, 3)
		})
	}
	if err := s.DB.Write(ctx, func(tx *db.Tx) error { return s.InsertKeyPair(ctx, tx, &compute.KeyPair{Name: "d", UserID: "u"}, 3) }); !isForbidden(err) {
		t.Fatal(err)
	}
	if err := s.DB.Write(ctx, func(tx *db.Tx) error { return s.InsertKeyPair(ctx, tx, &compute.KeyPair{Name: "a", UserID: "u"}, -1) }); !isConflict(err) {
		t.Fatal(err)
	}
	page, err := s.KeyPairs(ctx, s.DB, "u", "a", 1)
	if err != nil || len(page) != 1 || page[0].Name != "b" {
		t.Fatal(page, err)
	}
	write(t, s, func(tx *db.Tx) error { return s.DeleteKeyPair(ctx, tx, "u", "b") })
	g := &compute.ServerGroup{ID: "g", Name: "g", ProjectID: "p", UserID: "u", Policy: "anti-affinity", MaxPerHost: 2}
	v := server("p", 1)
	v.GroupID = "g"
	write(t, s, func(tx *db.Tx) error {
		if err := s.InsertGroup(ctx, tx, g); err != nil {
			return err
		}
		if err := s.ReserveMembers(ctx, tx, "g", "u1", 1, 1); err != nil {
			return err
		}
		return s.InsertServer(ctx, tx, v)
	})
	if err := s.DB.Write(ctx, func(tx *db.Tx) error { return s.ReserveMembers(ctx, tx, "g", "u1", 1, 1) }); !isForbidden(err) {
		t.Fatal(err)
	}
	if at, err := s.GroupPlaces(ctx, s.DB, "g", "affinity"); err != nil || len(at) != 1 || !slices.Equal(at[v.ID], []string{"c1"}) {
		t.Fatal(at, err)
	}
	if gs, err := s.Groups(ctx, s.DB, "p", 0, 10); err != nil || len(gs) != 1 || gs[0].Members[0] != v.ID || gs[0].MaxPerHost != 2 {
		t.Fatal(gs, err)
	}
	counted, _ := s.Counted(ctx, s.DB)
	recount, _ := s.Recount(ctx, s.DB)
	if len(counted) != len(recount) || counted[[2]string{"", "u"}].KeyPairs != 2 {
		t.Fatal(counted, recount)
	}
	write(t, s, func(tx *db.Tx) error { return s.DeleteGroup(ctx, tx, "g") })

	write(t, s, func(tx *db.Tx) error {
		if err := s.InsertConsoleToken(ctx, tx, "secret", store.ConsoleToken{ServerID: v.ID, Kind: "novnc", Host: "h", Port: 5900, Agent: "c1", Expires: clock.Now().Add(time.Hour)}); err != nil {
			return err
		}
		return s.InsertConsoleToken(ctx, tx, "old", store.ConsoleToken{ServerID: v.ID, Expires: clock.Now().Add(-time.Hour)})
	})
	if _, err := s.ConsoleToken(ctx, s.DB, "old"); err == nil || notFound(err) != nil {
		t.Fatal(err)
	}
	use := func() error {
		return s.DB.Write(ctx, func(tx *db.Tx) error {
			c, err := s.UseConsoleToken(ctx, tx, "secret")
			if err == nil && c.Port != 5900 {
				t.Error(c)
			}
			return err
		})
	}
	if err := use(); err != nil {
		t.Fatal(err)
	}
	if err := use(); err == nil || notFound(err) != nil {
		t.Fatal("used twice", err)
	}
}

func TestMigrations(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	var ms []*compute.Migration
	for i := range 4 {
		m := &compute.Migration{ServerID: fmt.Sprint("s", i%2), Type: []string{"resize", "live-migration"}[i%2], Status: "running", SourceHost: "a", DestHost: fmt.Sprint("d", i), ProjectID: "p"}
		write(t, s, func(tx *db.Tx) error { return s.InsertMigration(ctx, tx, m) })
		ms = append(ms, m)
	}
	again := &compute.Migration{UUID: ms[0].UUID, Status: "other"}
	write(t, s, func(tx *db.Tx) error { return s.InsertMigration(ctx, tx, again) })
	if again.ID != ms[0].ID || again.Status != "running" {
		t.Fatal(again)
	}
	write(t, s, func(tx *db.Tx) error {
		return s.UpdateMigration(ctx, tx, ms[1].UUID, func(m *compute.Migration) error { m.Status, m.MemoryTotal = "completed", 7; return nil })
	})
	for name, c := range map[string]struct {
		f    store.MigrationFilter
		want string
	}{"all": {store.MigrationFilter{}, "d3 d2 d1 d0"}, "server": {store.MigrationFilter{ServerID: "s1"}, "d3 d1"}, "oldest": {store.MigrationFilter{Oldest: true, Limit: 2}, "d0 d1"}, "host": {store.MigrationFilter{Host: "d2"}, "d2"},
		"status": {store.MigrationFilter{Status: []string{"completed", "x"}}, "d1"}, "type": {store.MigrationFilter{Type: "resize"}, "d2 d0"}, "marker": {store.MigrationFilter{Marker: ms[2].UUID}, "d1 d0"},
		"changed": {store.MigrationFilter{ChangesSince: clock.Now().Add(time.Minute)}, ""}} {
		got, err := s.Migrations(ctx, s.DB, c.f)
		var hosts []string
		for _, m := range got {
			hosts = append(hosts, m.DestHost)
		}
		if err != nil || strings.Join(hosts, " ") != c.want {
			t.Errorf("%s: %v (%v)", name, hosts, err)
		}
	}
	if m, err := s.Migration(ctx, s.DB, ms[1].UUID); err != nil || m.MemoryTotal != 7 {
		t.Fatal(m, err)
	}
}
