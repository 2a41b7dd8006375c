package local

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"kilonova/internal/db"
	"kilonova/internal/db/dbtest"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/placement"
)

// open gives a placement on an empty database.
func open(t testing.TB) *Service {
	t.Helper()
	return on(t, dbtest.Open(t))
}

func on(t testing.TB, d *db.DB) *Service {
	t.Helper()
	s, err := New(t.Context(), Config{DB: d})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func stock(vcpu, ram int64) map[string]placement.Inventory {
	return map[string]placement.Inventory{"VCPU": {Total: vcpu}, "MEMORY_MB": {Total: ram}}
}

func addHost(t testing.TB, s *Service, name string, inv map[string]placement.Inventory) string {
	t.Helper()
	uuid := id.UUID()
	if _, err := s.EnsureProvider(t.Context(), uuid, name); err != nil {
		t.Fatal(err)
	}
	if err := s.Report(t.Context(), uuid, inv, nil, nil); err != nil {
		t.Fatal(err)
	}
	return uuid
}

func who(uuid string, generation int64) placement.Consumer {
	c := placement.Consumer{UUID: uuid, ProjectID: "p", UserID: "u", Type: "INSTANCE"}
	if generation > 0 {
		c.Generation = &generation
	}
	return c
}

func take(host string, vcpu, ram int64) placement.Allocations {
	return placement.Allocations{host: {"VCPU": vcpu, "MEMORY_MB": ram}}
}

// audit compares the counters with the allocations, and the snapshot with the tables.
func audit(ctx context.Context, s *Service) error {
	rows, err := s.db.Query(ctx, `SELECT i.provider, i.class, i.used, i.capacity, COALESCE((SELECT SUM(a.amount) FROM placement_allocations a
		WHERE a.provider = i.provider AND a.class = i.class), 0) FROM placement_inventories i`)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var provider, class string
		var used, capacity, sum int64
		if err := rows.Scan(&provider, &class, &used, &capacity, &sum); err != nil {
			return err
		}
		if used != sum {
			return fmt.Errorf("%s of %s: the counter says %d, the allocations %d", class, provider, used, sum)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	var orphans int
	if err := s.db.QueryRow(ctx, `SELECT COUNT(*) FROM placement_consumers WHERE uuid NOT IN (SELECT consumer FROM placement_allocations)`).Scan(&orphans); err != nil {
		return err
	}
	if orphans > 0 {
		return fmt.Errorf("%d consumers without allocations", orphans)
	}
	want, err := load(ctx, s.db)
	if err != nil {
		return err
	}
	v, err := s.snap.view(ctx, false)
	if err != nil {
		return err
	}
	if v.Len() != len(want) {
		return fmt.Errorf("the snapshot has %d providers, the table %d", v.Len(), len(want))
	}
	for _, w := range want {
		got, _ := v.Get(w.UUID)
		if d := cmp.Diff(w, got, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(placement.Provider{}, "UpdatedAt")); d != "" {
			return fmt.Errorf("snapshot of %s (-table +snapshot):\n%s", w.UUID, d)
		}
	}
	return nil
}

func code(err error) string {
	var e *fault.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func TestClaimRules(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	host := addHost(t, s, "a", map[string]placement.Inventory{"VCPU": {Total: 8, Reserved: 1, AllocationRatio: 1.5}, "MEMORY_MB": {Total: 4096, MinUnit: 64, MaxUnit: 2048, StepSize: 64}})
	one, two := id.UUID(), id.UUID()
	steps := []struct {
		name string
		c    placement.Consumer
		a    placement.Allocations
		code string
		kind fault.Kind
	}{
		{"fits", who(one, 0), take(host, 6, 1024), "", 0},
		{"the same again", who(one, 0), take(host, 6, 1024), "", 0},
		{"another without a generation", who(one, 0), take(host, 5, 1024), placement.CodeConcurrentUpdate, fault.Conflict},
		{"stale generation", who(one, 7), take(host, 5, 1024), placement.CodeConcurrentUpdate, fault.Conflict},
		{"over the capacity of 10", who(two, 0), take(host, 5, 1024), placement.CodeUndefined, fault.Conflict},
		{"up to the capacity", who(two, 0), take(host, 4, 1024), "", 0},
		{"below min_unit", who(one, 1), take(host, 6, 32), placement.CodeUndefined, fault.Conflict},
		{"above max_unit", who(one, 1), take(host, 6, 2112), placement.CodeUndefined, fault.Conflict},
		{"not a multiple of step_size", who(one, 1), take(host, 6, 1000), placement.CodeUndefined, fault.Conflict},
		{"replaced", who(one, 1), take(host, 2, 64), "", 0},
		{"unknown provider", who(one, 2), take(id.UUID(), 1, 64), placement.CodeUndefined, fault.Invalid},
		{"unknown class", who(one, 2), placement.Allocations{host: {"CUSTOM_NONE": 1}}, "", fault.Invalid},
		{"class without inventory", who(one, 2), placement.Allocations{host: {"DISK_GB": 1}}, placement.CodeUndefined, fault.Conflict},
		{"generation of nobody", who(id.UUID(), 3), take(host, 1, 64), placement.CodeConcurrentUpdate, fault.Conflict},
	}
	for _, st := range steps {
		t.Run(st.name, func(t *testing.T) {
			err := s.Claim(ctx, st.c, st.a)
			if (err == nil) != (st.kind == 0) || err != nil && (fault.KindOf(err) != st.kind || code(err) != st.code) {
				t.Fatalf("got %v (%s), want kind %v code %q", err, code(err), st.kind, st.code)
			}
			if err := audit(ctx, s); err != nil {
				t.Fatal(err)
			}
		})
	}
	got, owner, err := s.Of(ctx, one)
	if err != nil {
		t.Fatal(err)
	}
	gen := int64(2)
	if d := cmp.Diff(take(host, 2, 64), got); d != "" {
		t.Fatal(d)
	}
	if d := cmp.Diff(&placement.Consumer{UUID: one, ProjectID: "p", UserID: "u", Type: "INSTANCE", Generation: &gen}, owner); d != "" {
		t.Fatal(d)
	}
	if err := errors.Join(s.Release(ctx, one), s.Release(ctx, one)); err != nil {
		t.Fatal(err)
	}
	if got, owner, err := s.Of(ctx, one); err != nil || owner != nil || len(got) != 0 {
		t.Fatalf("after release: %v %v %v", got, owner, err)
	}
}

// However many claim at once, exactly as many succeed as fit.
func TestParallelClaimsNeverPassCapacity(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	hosts := []string{addHost(t, s, "a", stock(20, 100000)), addHost(t, s, "b", stock(15, 100000))}
	var won, lost atomic.Int64
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for k := range 4 {
				err := s.Claim(ctx, who(id.UUID(), 0), take(hosts[(i+k)%2], 1, 64))
				switch {
				case err == nil:
					won.Add(1)
				case fault.KindOf(err) == fault.Conflict && code(err) == placement.CodeUndefined:
					lost.Add(1)
				default:
					t.Errorf("claim: %v", err)
				}
				if _, err := s.Candidates(ctx, placement.Query{Groups: []placement.Group{{Resources: placement.Resources{"VCPU": 1}}}}); err != nil {
					t.Errorf("candidates: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if won.Load() != 35 || lost.Load() != 221 {
		t.Fatalf("%d claims won and %d lost, want 35 and 221", won.Load(), lost.Load())
	}
	if err := audit(ctx, s); err != nil {
		t.Fatal(err)
	}
	got, err := s.Candidates(ctx, placement.Query{Groups: []placement.Group{{Resources: placement.Resources{"VCPU": 1}}}})
	if err != nil || len(got.Candidates) != 0 {
		t.Fatalf("full hosts are still candidates: %v %v", got.Candidates, err)
	}
}

// One consumer, many writers with the same generation: one wins.
func TestOneWriterWinsAGeneration(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	host := addHost(t, s, "a", stock(1000, 1000000))
	consumer := id.UUID()
	if err := s.Claim(ctx, who(consumer, 0), take(host, 1, 64)); err != nil {
		t.Fatal(err)
	}
	var won atomic.Int64
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			err := s.Claim(ctx, who(consumer, 1), take(host, int64(i+2), 64))
			if err == nil {
				won.Add(1)
			} else if code(err) != placement.CodeConcurrentUpdate {
				t.Errorf("claim: %v", err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Fatalf("%d writers won", won.Load())
	}
	if err := audit(ctx, s); err != nil {
		t.Fatal(err)
	}
}

// Random histories of claims, moves, releases and inventory changes keep every counter equal to its sum, never let a claim pass the capacity
// of a simple model, and leave the snapshot equal to the tables.
func TestHistoriesAgainstModel(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	round := 0
	rapid.Check(t, func(t *rapid.T) {
		round++
		hosts := make([]string, 2)
		capacity := map[string]int64{}
		for i := range hosts {
			hosts[i] = id.UUID()
			capacity[hosts[i]] = 6
			if _, err := s.EnsureProvider(ctx, hosts[i], fmt.Sprintf("h%d-%d", round, i)); err != nil {
				t.Fatal(err)
			}
			if err := s.Report(ctx, hosts[i], map[string]placement.Inventory{"VCPU": {Total: 6}}, nil, nil); err != nil {
				t.Fatal(err)
			}
		}
		consumers := []string{id.UUID(), id.UUID(), id.UUID()}
		have := map[string]placement.Allocations{}
		generation := map[string]int64{}
		used := func(host, but string) (n int64) {
			for c, a := range have {
				if c != but {
					n += a[host]["VCPU"]
				}
			}
			return n
		}
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			c := rapid.SampledFrom(consumers).Draw(t, "consumer")
			switch rapid.SampledFrom([]string{"claim", "claim", "claim", "release", "resize", "shrink all"}).Draw(t, "what") {
			case "claim":
				a := placement.Allocations{}
				fits := true
				for _, h := range hosts {
					if n := rapid.Int64Range(0, 4).Draw(t, "n"); n > 0 {
						a[h] = placement.Resources{"VCPU": n}
						grows := n > have[c][h]["VCPU"]
						fits = fits && (!grows || used(h, c)+n <= capacity[h])
					}
				}
				err := s.Claim(ctx, who(c, generation[c]), a)
				if (err == nil) != fits {
					t.Fatalf("claim %v: %v, the model says fits=%v", a, err, fits)
				}
				if err == nil {
					if !equal(have[c], a) {
						generation[c]++
					}
					have[c] = a
					if len(a) == 0 {
						generation[c] = 0
					}
				}
			case "release":
				if err := s.Release(ctx, c); err != nil {
					t.Fatal(err)
				}
				delete(have, c)
				generation[c] = 0
			case "resize":
				h := rapid.SampledFrom(hosts).Draw(t, "host")
				capacity[h] = rapid.Int64Range(1, 8).Draw(t, "total")
				if err := s.Report(ctx, h, map[string]placement.Inventory{"VCPU": {Total: capacity[h]}}, nil, nil); err != nil {
					t.Fatal(err)
				}
			case "shrink all":
				h := rapid.SampledFrom(hosts).Draw(t, "host")
				err := s.Report(ctx, h, map[string]placement.Inventory{"MEMORY_MB": {Total: 5}}, nil, nil)
				if inUse := used(h, "") > 0; inUse != (code(err) == placement.CodeInventoryInUse) {
					t.Fatalf("inventory removed with use %v: %v", inUse, err)
				}
				if err == nil {
					if err := s.Report(ctx, h, map[string]placement.Inventory{"VCPU": {Total: capacity[h]}}, nil, nil); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		if err := audit(ctx, s); err != nil {
			t.Fatal(err)
		}
		for _, c := range consumers {
			got, _, err := s.Of(ctx, c)
			if err != nil || !equal(got, have[c]) && len(got)+len(have[c]) > 0 {
				t.Fatalf("consumer has %v, the model %v (%v)", got, have[c], err)
			}
		}
	})
}

// All or nothing over several consumers, as a move between a server and its migration needs.
func TestClaimAllMovesBetweenConsumers(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	a, b := addHost(t, s, "a", stock(4, 4096)), addHost(t, s, "b", stock(4, 4096))
	server, migration := id.UUID(), id.UUID()
	if err := s.Claim(ctx, who(server, 0), take(a, 4, 1024)); err != nil {
		t.Fatal(err)
	}
	move := func() error {
		return s.ClaimAll(ctx, []placement.Consumer{who(migration, 0), who(server, 1)}, []placement.Allocations{take(a, 4, 1024), take(b, 4, 1024)})
	}
	if err := move(); err != nil {
		t.Fatal(err)
	}
	if err := move(); err != nil {
		t.Fatalf("repeated: %v", err)
	}
	back := s.ClaimAll(ctx, []placement.Consumer{who(migration, 1), who(server, 2)}, []placement.Allocations{nil, take(a, 5, 1024)})
	if code(back) != placement.CodeUndefined {
		t.Fatalf("too large a claim: %v", back)
	}
	if got, _, _ := s.Of(ctx, migration); !equal(got, take(a, 4, 1024)) {
		t.Fatalf("the failed move took the migration's allocations: %v", got)
	}
	if err := audit(ctx, s); err != nil {
		t.Fatal(err)
	}
}

func TestReleaseTxRollsBackWithItsTransaction(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	host := addHost(t, s, "a", stock(4, 4096))
	server := id.UUID()
	if err := s.Claim(ctx, who(server, 0), take(host, 1, 64)); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	err := s.db.Write(ctx, func(tx *db.Tx) error {
		if err := s.ReleaseTx(ctx, tx, server); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if got, _, _ := s.Of(ctx, server); !equal(got, take(host, 1, 64)) {
		t.Fatalf("released although rolled back: %v", got)
	}
	if err := audit(ctx, s); err != nil {
		t.Fatal(err)
	}
	if err := s.db.Write(ctx, func(tx *db.Tx) error { return s.ReleaseTx(ctx, tx, server) }); err != nil {
		t.Fatal(err)
	}
	if err := audit(ctx, s); err != nil {
		t.Fatal(err)
	}
}

// Two services on one database stand for two processes: what one commits the other sees after a look.
func TestSnapshotSeesOtherProcesses(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	other := on(t, s.db)
	host := addHost(t, s, "a", stock(4, 4096))
	gone := addHost(t, s, "b", stock(4, 4096))
	look := func() {
		t.Helper()
		if _, err := other.snap.view(ctx, true); err != nil {
			t.Fatal(err)
		}
		if err := audit(ctx, other); err != nil {
			t.Fatal(err)
		}
	}
	look()
	if err := s.Claim(ctx, who(id.UUID(), 0), take(host, 3, 64)); err != nil {
		t.Fatal(err)
	}
	if err := other.Claim(ctx, who(id.UUID(), 0), take(host, 1, 64)); err != nil { // on top of a version that it has not seen
		t.Fatal(err)
	}
	if err := audit(ctx, other); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteProvider(ctx, gone); err != nil {
		t.Fatal(err)
	}
	look()
	child, err := s.CreateProvider(ctx, placement.Provider{UUID: id.UUID(), Name: "child", Parent: host})
	if err != nil {
		t.Fatal(err)
	}
	look()
	if err := s.SetTrait(ctx, child.UUID, "CUSTOM_NEW", true); err != nil {
		t.Fatal(err)
	}
	look()
}

func TestProviderTrees(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	make := func(name, parent string) string {
		t.Helper()
		p, err := s.CreateProvider(ctx, placement.Provider{UUID: id.UUID(), Name: name, Parent: parent})
		if err != nil {
			t.Fatal(err)
		}
		return p.UUID
	}
	root := make("root", "")
	child := make("child", root)
	leaf := make("leaf", child)
	other := make("other", "")
	if err := s.DeleteProvider(ctx, child); code(err) != placement.CodeHasChildren {
		t.Fatalf("delete of a parent: %v", err)
	}
	if _, err := s.UpdateProvider(ctx, child, "child", &leaf, true); fault.KindOf(err) != fault.Invalid {
		t.Fatalf("loop: %v", err)
	}
	if _, err := s.UpdateProvider(ctx, child, "child", &other, false); fault.KindOf(err) != fault.Invalid {
		t.Fatalf("new parent without leave: %v", err)
	}
	if _, err := s.UpdateProvider(ctx, child, "child", &other, true); err != nil {
		t.Fatal(err)
	}
	if p, err := s.Provider(ctx, leaf); err != nil || p.Root != other || p.Parent != child {
		t.Fatalf("the leaf did not follow: %+v %v", p, err)
	}
	if _, err := s.CreateProvider(ctx, placement.Provider{UUID: id.UUID(), Name: "leaf"}); code(err) != placement.CodeDuplicateName {
		t.Fatalf("duplicate name: %v", err)
	}
	if _, err := s.CreateProvider(ctx, placement.Provider{UUID: leaf, Name: "new"}); fault.KindOf(err) != fault.Conflict {
		t.Fatalf("duplicate uuid: %v", err)
	}
	if err := audit(ctx, s); err != nil {
		t.Fatal(err)
	}
	list, err := s.List(ctx, placement.Filter{InTree: leaf})
	if err != nil || len(list) != 3 {
		t.Fatalf("tree of the leaf: %v %v", list, err)
	}
}

func TestReportKeepsOperatorsTraits(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	host := addHost(t, s, "a", stock(4, 4096))
	managed := []string{"COMPUTE_NODE", "COMPUTE_ACCELERATORS"}
	report := func(traits ...string) {
		t.Helper()
		if err := s.Report(ctx, host, stock(4, 4096), traits, managed); err != nil {
			t.Fatal(err)
		}
	}
	report("COMPUTE_NODE", "COMPUTE_ACCELERATORS")
	if err := s.SetTrait(ctx, host, "CUSTOM_GOLD", true); err != nil {
		t.Fatal(err)
	}
	report("COMPUTE_NODE")
	p, err := s.Provider(ctx, host)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"COMPUTE_NODE", "CUSTOM_GOLD"}, p.Traits); d != "" {
		t.Fatal(d)
	}
	before := p.Generation
	report("COMPUTE_NODE")
	if p, _ = s.Provider(ctx, host); p.Generation != before {
		t.Fatal("a report without news changed the generation")
	}
	if err := s.Report(ctx, host, stock(4, 4096), []string{"NO_SUCH_TRAIT"}, nil); fault.KindOf(err) != fault.Invalid {
		t.Fatalf("unknown trait: %v", err)
	}
}

func TestReshapeMovesInventoryAndAllocations(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	host := addHost(t, s, "a", stock(4, 4096))
	child, err := s.CreateProvider(ctx, placement.Provider{UUID: id.UUID(), Name: "numa0", Parent: host})
	if err != nil {
		t.Fatal(err)
	}
	server := id.UUID()
	if err := s.Claim(ctx, who(server, 0), take(host, 3, 64)); err != nil {
		t.Fatal(err)
	}
	p, _ := s.Provider(ctx, host)
	moved := placement.Allocations{host: {"MEMORY_MB": 64}, child.UUID: {"VCPU": 3}}
	reshape := func(generation int64) error {
		return s.Reshape(ctx, []placement.NewInventory{
			{Provider: host, Generation: generation, Inventory: map[string]placement.Inventory{"MEMORY_MB": {Total: 4096}}},
			{Provider: child.UUID, Generation: child.Generation, Inventory: map[string]placement.Inventory{"VCPU": {Total: 4}}},
		}, []placement.Change{{Consumer: who(server, 1), Allocations: moved}})
	}
	if err := reshape(p.Generation + 1); code(err) != placement.CodeConcurrentUpdate {
		t.Fatalf("stale: %v", err)
	}
	if err := reshape(p.Generation); err != nil {
		t.Fatal(err)
	}
	if got, _, _ := s.Of(ctx, server); !equal(got, moved) {
		t.Fatalf("allocations: %v", got)
	}
	if err := audit(ctx, s); err != nil {
		t.Fatal(err)
	}
}
