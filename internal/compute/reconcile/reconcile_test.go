package reconcile

import (
	"context"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/auth"
	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/flow"
	"kilonova/internal/compute/owed"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/network"
	"kilonova/internal/operation"
	"kilonova/internal/placement"
)

// bench is a database with everything the loops look at; operations are accepted and not carried out.
type bench struct {
	t      *testing.T
	db     *db.DB
	store  *store.Store
	owed   *owed.Book
	engine *operation.Engine
	loops  *Loops
	down   map[string]bool
	heard  map[string]bool // hosts that are down and speak
	asked  []command.Command
	answer map[string]error // by host
	place  *providers
	nets   *ports
}

func newBench(t *testing.T, change func(c *Config)) *bench {
	t.Helper()
	ctx := t.Context()
	d, err := db.Open(ctx, "sqlite:"+filepath.Join(t.TempDir(), "k.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	b := &bench{t: t, db: d, down: map[string]bool{}, answer: map[string]error{}, place: &providers{held: map[string]placement.Allocations{}}, nets: &ports{m: map[string]network.VIF{}}}
	if b.engine, err = operation.New(ctx, operation.Config{DB: d, Owner: "t"}); err != nil {
		t.Fatal(err)
	}
	if b.store, err = store.New(ctx, d); err != nil {
		t.Fatal(err)
	}
	if b.owed, err = owed.New(ctx, d); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Store: b.store, Engine: b.engine, Network: b.nets, Placement: b.place, Owed: b.owed, Agents: b, Hosts: b, Settle: time.Nanosecond}
	if change != nil {
		change(&cfg)
	}
	b.loops = New(cfg)
	return b
}

func (b *bench) Do(_ context.Context, host string, c command.Command, _, _ any) error {
	b.asked = append(b.asked, c)
	return b.answer[host]
}
func (b *bench) Down(_ context.Context, host string) bool { return b.down[host] }

func (b *bench) Heard(_ context.Context, host string) bool       { return b.heard[host] }
func (b *bench) Living(map[string]*compute.Host) map[string]bool { return nil }

func (b *bench) write(fn func(tx *db.Tx) error) {
	b.t.Helper()
	if err := b.db.Write(b.t.Context(), fn); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// server makes a record that was last changed an hour ago.
func (b *bench) server(change func(s *compute.Server)) *compute.Server {
	b.t.Helper()
	ago := clock.Now().Add(-time.Hour)
	s := &compute.Server{ID: id.UUID(), ProjectID: "p", UserID: "u", VMState: compute.VMActive, PowerState: compute.PowerRunning, Host: "h1", Flavor: compute.Flavor{VCPUs: 1, RAMMB: 512},
		Created: ago, Updated: ago, Launched: ago}
	if change != nil {
		change(s)
	}
	b.write(func(tx *db.Tx) error { return b.store.InsertServer(b.t.Context(), tx, s) })
	return s
}

func (b *bench) get(server string) *compute.Server {
	b.t.Helper()
	s, err := b.store.ServerAny(b.t.Context(), b.db, server)
	b.must(err)
	return s
}

// open gives the kind of the open operation of a server, "" when there is none.
func (b *bench) open(server string) string {
	b.t.Helper()
	var kind string
	err := b.db.QueryRow(b.t.Context(), "SELECT kind FROM operations WHERE holds = ?", server).Scan(&kind)
	if err != nil && !db.IsNoRows(err) {
		b.t.Fatal(err)
	}
	return kind
}

func ago(d time.Duration) string {
	return strconv.FormatInt(clock.Micros(clock.Now().Add(-d)), 10)
}

func TestPowerSyncRules(t *testing.T) {
	type row struct {
		vm    string
		power int
		stop  bool
	}
	for _, c := range []row{
		{compute.VMActive, compute.PowerRunning, false}, {compute.VMActive, compute.PowerShutdown, true}, {compute.VMActive, compute.PowerCrashed, true},
		{compute.VMActive, compute.PowerSuspended, true}, {compute.VMActive, compute.PowerPaused, false}, {compute.VMActive, compute.PowerNone, false},
		{compute.VMStopped, compute.PowerRunning, true}, {compute.VMStopped, compute.PowerPaused, true}, {compute.VMStopped, compute.PowerShutdown, false},
		{compute.VMPaused, compute.PowerShutdown, true}, {compute.VMPaused, compute.PowerCrashed, true}, {compute.VMPaused, compute.PowerRunning, false},
		{compute.VMSoftDeleted, compute.PowerRunning, false}, {compute.VMSuspended, compute.PowerShutdown, false}, {compute.VMError, compute.PowerShutdown, false},
		{compute.VMResized, compute.PowerShutdown, false}, {compute.VMRescued, compute.PowerShutdown, false}, {compute.VMBuilding, compute.PowerRunning, false},
	} {
		if got := NeedsStop(c.vm, c.power); got != c.stop {
			t.Errorf("%s with power state %d: stop is %v, want %v", c.vm, c.power, got, c.stop)
		}
	}
}

func TestPowerOfAGuest(t *testing.T) {
	for _, c := range []struct {
		name   string
		server func(s *compute.Server)
		host   string
		power  int
		record int
		open   string
	}{
		{"shut itself down", nil, "h1", compute.PowerShutdown, compute.PowerShutdown, compute.OpStop},
		{"runs as on record", nil, "h1", compute.PowerRunning, compute.PowerRunning, ""},
		{"is somewhere else", nil, "h2", compute.PowerShutdown, compute.PowerRunning, ""},
		{"in a state that is not watched", func(s *compute.Server) { s.VMState = compute.VMResized }, "h1", compute.PowerShutdown, compute.PowerRunning, ""},
		{"paused by somebody", nil, "h1", compute.PowerPaused, compute.PowerPaused, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, nil)
			s := b.server(c.server)
			b.must(b.loops.Power(t.Context(), c.host, s.ID, c.power))
			if got := b.get(s.ID); got.PowerState != c.record || b.open(s.ID) != c.open {
				t.Errorf("power state %d and operation %q; want %d and %q", got.PowerState, b.open(s.ID), c.record, c.open)
			}
		})
	}
}

func TestPowerLeavesHeldServersAlone(t *testing.T) {
	b := newBench(t, nil)
	s := b.server(nil)
	b.must(b.loops.start(t.Context(), s, compute.OpReboot, "reboot", compute.TaskRebooting, nil))
	b.must(b.loops.Power(t.Context(), "h1", s.ID, compute.PowerShutdown))
	if got := b.get(s.ID); got.PowerState != compute.PowerRunning || b.open(s.ID) != compute.OpReboot {
		t.Errorf("power state %d, operation %s", got.PowerState, b.open(s.ID))
	}
	b.must(b.loops.Power(t.Context(), "h1", id.UUID(), compute.PowerShutdown)) // a server that is not there
}

func TestMissingGuestIsRecordedAndNothingElse(t *testing.T) {
	b := newBench(t, nil)
	s := b.server(nil)
	b.must(b.loops.Missing(t.Context(), "h1", s))
	if got := b.get(s.ID); got.PowerState != compute.PowerNone || got.VMState != compute.VMActive || b.open(s.ID) != "" {
		t.Errorf("power %d, %s, operation %q", got.PowerState, got.VMState, b.open(s.ID))
	}
}

func TestDebts(t *testing.T) {
	owe := func(b *bench, host, server string) {
		b.write(func(tx *db.Tx) error {
			return b.owed.Add(t.Context(), tx, owed.Debt{Host: host, Server: server, Operation: "op", Epoch: 7, Verb: command.Destroy})
		})
	}
	for _, c := range []struct {
		name   string
		down   bool
		answer error
		asked  int
		left   int
	}{
		{"paid", false, nil, 1, 0},
		{"the guest is gone already", false, fault.New(fault.NotFound, "no guest"), 1, 0},
		{"the host knows better", false, fault.New(fault.Conflict, "old").WithCode("stale-epoch"), 1, 0},
		{"the host does not answer", false, fault.New(fault.Unavailable, "silent"), 1, 1},
		{"the host cannot", false, fault.New(fault.Internal, "the disk is stuck"), 1, 1},
		{"the host is down", true, nil, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, nil)
			owe(b, "h1", "s1")
			b.down["h1"], b.answer["h1"] = c.down, c.answer
			b.must(b.loops.Debts(t.Context()))
			left, err := b.owed.All(t.Context(), b.db)
			b.must(err)
			if len(b.asked) != c.asked || len(left) != c.left {
				t.Errorf("asked %d times, %d debts left; want %d and %d", len(b.asked), len(left), c.asked, c.left)
			}
			if c.asked > 0 && (b.asked[0].Epoch != 7 || b.asked[0].Verb != command.Destroy || b.asked[0].Operation != "op") {
				t.Errorf("asked %+v", b.asked[0])
			}
		})
	}
}

func TestPaidEvacuationIsCompleted(t *testing.T) {
	for _, c := range []struct {
		name        string
		down, heard bool
		status      string // of the evacuation
		want        string
	}{
		{"the host is up", false, true, "done", "completed"},
		{"the host is silent", true, false, "done", "done"},
		{"an operator has called the host down, and it speaks", true, true, "done", "completed"},
		{"so, while the evacuation goes on", true, true, "pre-migrating", "pre-migrating"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, nil)
			b.down["h1"], b.heard = c.down, map[string]bool{"h1": c.heard}
			s := b.server(func(s *compute.Server) { s.Host = "h2" })
			m := &compute.Migration{UUID: id.UUID(), ServerID: s.ID, Type: "evacuation", Status: c.status, SourceHost: "h1", DestHost: "h2"}
			b.write(func(tx *db.Tx) error { return b.store.InsertMigration(t.Context(), tx, m) })
			b.write(func(tx *db.Tx) error {
				return b.owed.Add(t.Context(), tx, owed.Debt{Host: "h1", Server: s.ID, Epoch: 2, Verb: command.Destroy})
			})
			b.must(b.loops.Debts(t.Context()))
			got, err := b.store.Migration(t.Context(), b.db, m.UUID)
			if err != nil || got.Status != c.want {
				t.Errorf("the migration is %+v (%v)", got, err)
			}
		})
	}
}

func TestDueServers(t *testing.T) {
	for _, c := range []struct {
		name  string
		state string
		key   string
		run   func(l *Loops, ctx context.Context) error
		kind  string
	}{
		{"reclaim", compute.VMSoftDeleted, flow.SysSoftDeletedAt, (*Loops).Reclaim, compute.OpDelete},
		{"confirm", compute.VMResized, flow.SysResizedAt, (*Loops).Confirm, compute.OpConfirmResize},
		{"offload", compute.VMShelved, flow.SysShelvedAt, (*Loops).Offload, compute.OpShelveOffload},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, func(cfg *Config) {
				cfg.ReclaimAfter, cfg.ConfirmAfter, cfg.OffloadAfter = time.Hour, time.Hour, time.Hour
			})
			at := func(d time.Duration) *compute.Server {
				return b.server(func(s *compute.Server) { s.VMState, s.System = c.state, map[string]string{c.key: ago(d)} })
			}
			due, early, undated := at(2*time.Hour), at(time.Minute), b.server(func(s *compute.Server) { s.VMState = c.state })
			b.must(c.run(b.loops, t.Context()))
			if b.open(due.ID) != c.kind || b.open(early.ID) != "" || b.open(undated.ID) != "" {
				t.Errorf("due: %q, early: %q, without a time: %q", b.open(due.ID), b.open(early.ID), b.open(undated.ID))
			}
			b.must(c.run(b.loops, t.Context())) // held now: left for the next round
			off := New(Config{Store: b.store, Engine: b.engine})
			late := at(3 * time.Hour)
			b.must(c.run(off, t.Context()))
			if b.open(late.ID) != "" {
				t.Errorf("switched off, and yet %s was started", b.open(late.ID))
			}
		})
	}
}

func TestBuildOfNobody(t *testing.T) {
	b := newBench(t, nil)
	building := func(s *compute.Server) { s.VMState, s.Host = compute.VMBuilding, "" }
	lost, held := b.server(building), b.server(building)
	b.must(b.loops.start(t.Context(), held, compute.OpCreate, "create", compute.TaskScheduling, nil))
	fresh := b.server(func(s *compute.Server) { building(s); s.Updated = clock.Now() })
	b.must(b.loops.Builds(t.Context()))
	if s := b.get(lost.ID); s.VMState != compute.VMError || s.Fault == nil {
		t.Errorf("the lost build is %s, fault %+v", s.VMState, s.Fault)
	}
	for _, s := range []*compute.Server{held, fresh} {
		if got := b.get(s.ID); got.VMState != compute.VMBuilding {
			t.Errorf("a build that is under way or fresh is %s", got.VMState)
		}
	}
}

func TestPurgeForgetsServersAndTheirOperations(t *testing.T) {
	b := newBench(t, func(c *Config) { c.KeepDeleted = time.Hour })
	old, fresh, alive := b.server(nil), b.server(nil), b.server(nil)
	for _, s := range []*compute.Server{old, fresh} {
		b.write(func(tx *db.Tx) error {
			if _, err := b.engine.Accept(t.Context(), tx, operation.Spec{Kind: "lock", ObjectType: "server", Object: s.ID, Action: "lock", Finished: true}); err != nil {
				return err
			}
			return b.store.DeleteServer(t.Context(), tx, s.ID)
		})
	}
	b.write(func(tx *db.Tx) error {
		then := clock.Now().Add(-2 * time.Hour)
		if err := b.store.UpdateServer(t.Context(), tx, old.ID, func(s *compute.Server) error { s.Deleted = then; return nil }); err != nil {
			return err
		}
		_, err := tx.Exec(t.Context(), "UPDATE compute_servers SET updated_at = ? WHERE id = ?", clock.Micros(then), old.ID)
		return err
	})
	b.must(b.loops.Purge(t.Context()))
	if _, err := b.store.ServerAny(t.Context(), b.db, old.ID); fault.KindOf(err) != fault.NotFound || err == nil {
		t.Errorf("the old server is still on record: %v", err)
	}
	if ops, err := b.engine.ByObject(t.Context(), old.ID); err != nil || len(ops) != 0 {
		t.Errorf("its operations: %v (%v)", ops, err)
	}
	for _, s := range []*compute.Server{fresh, alive} {
		b.get(s.ID)
	}
	if ops, err := b.engine.ByObject(t.Context(), fresh.ID); err != nil || len(ops) != 1 {
		t.Errorf("operations of the fresh one: %v (%v)", ops, err)
	}
}

func TestQuotaDifferenceIsTold(t *testing.T) {
	b := newBench(t, nil)
	b.server(nil)
	b.must(b.loops.Quota(t.Context()))
	b.write(func(tx *db.Tx) error {
		_, err := tx.Exec(t.Context(), "UPDATE compute_servers SET vcpus = vcpus + 1")
		if err != nil {
			return err
		}
		return nil
	})
	counted, err := b.store.Counted(t.Context(), b.db)
	b.must(err)
	recount, err := b.store.Recount(t.Context(), b.db)
	b.must(err)
	if err := b.loops.Quota(t.Context()); (err == nil) != cmp.Equal(counted, recount) {
		t.Errorf("counted %v, recount %v, and the loop says %v", counted, recount, err)
	}
}

func TestAggregatesAndStatusReachPlacement(t *testing.T) {
	b := newBench(t, nil)
	node, foreign := id.UUID(), id.UUID()
	h := &compute.Host{Name: "h1", NodeID: node}
	b.write(func(tx *db.Tx) error { return b.store.SaveHost(t.Context(), tx, h, "h1") })
	a := &compute.Aggregate{Name: "east", Metadata: map[string]string{"availability_zone": "east"}}
	b.write(func(tx *db.Tx) error {
		if err := b.store.InsertAggregate(t.Context(), tx, a); err != nil {
			return err
		}
		return b.store.AddAggregateHost(t.Context(), tx, a.ID, "h1")
	})
	b.place.list = []placement.Provider{{UUID: node, Aggregates: []string{foreign}}}
	b.must(b.loops.SyncAll(t.Context()))
	want := slices.Sorted(slices.Values([]string{foreign, a.UUID}))
	if diff := cmp.Diff(want, b.place.list[0].Aggregates); diff != "" {
		t.Error(diff)
	}
	yes := true
	b.write(func(tx *db.Tx) error { return b.store.SetServiceState(t.Context(), tx, h.ServiceID, &yes, nil, nil) })
	b.write(func(tx *db.Tx) error { return b.store.RemoveAggregateHost(t.Context(), tx, a.ID, "h1") })
	b.must(b.loops.SyncHosts(t.Context(), "h1"))
	if diff := cmp.Diff([]string{foreign}, b.place.list[0].Aggregates); diff != "" {
		t.Error(diff)
	}
	if !slices.Contains(b.place.list[0].Traits, statusDisabled) {
		t.Errorf("traits %v", b.place.list[0].Traits)
	}
	calls := b.place.calls
	b.must(b.loops.SyncAll(t.Context()))
	if b.place.calls != calls {
		t.Error("a second look wrote again")
	}
}

func TestOrphansOfASupersededOperation(t *testing.T) {
	b := newBench(t, nil)
	s := b.server(nil)
	var op string
	b.write(func(tx *db.Tx) error {
		var err error
		op, err = b.engine.Accept(t.Context(), tx, operation.Spec{Kind: compute.OpCreate, ObjectType: "server", Object: s.ID, Action: "create"})
		return err
	})
	b.write(func(tx *db.Tx) error {
		_, err := b.engine.Accept(t.Context(), tx, operation.Spec{Kind: compute.OpDelete, ObjectType: "server", Object: s.ID, Action: "delete", TaskState: compute.TaskDeleting, TakeOver: true})
		return err
	})
	made, given := id.Derived(s.ID, "nic", "0"), id.UUID()
	b.place.held[s.ID] = placement.Allocations{"rp": {"VCPU": 1}}
	b.place.held[id.Derived(op, "migration")] = placement.Allocations{"rp": {"VCPU": 1}}
	b.place.held["somebody else"] = placement.Allocations{"rp": {"VCPU": 1}}
	b.nets.device = []network.Port{{ID: made, DeviceID: s.ID}, {ID: given, DeviceID: s.ID}}
	b.must(b.loops.Orphans(t.Context()))
	if len(b.place.held) != 3 {
		t.Errorf("while the delete is under way: %v", b.place.held)
	}
	b.write(func(tx *db.Tx) error {
		if _, err := tx.Exec(t.Context(), "UPDATE operations SET state = 'done', holds = NULL, finished = updated WHERE kind = 'delete'"); err != nil {
			return err
		}
		return b.store.DeleteServer(t.Context(), tx, s.ID)
	})
	b.must(b.loops.Orphans(t.Context()))
	if len(b.place.held) != 1 || b.place.held["somebody else"] == nil {
		t.Errorf("allocations left: %v", b.place.held)
	}
	if !slices.Equal(b.nets.deleted, []string{made}) || !slices.Equal(b.nets.unbound, []string{given}) {
		t.Errorf("deleted %v, unbound %v", b.nets.deleted, b.nets.unbound)
	}
}

func TestInterfacesFollowTheNetwork(t *testing.T) {
	b := newBench(t, nil)
	keep, lost := id.UUID(), id.UUID()
	s := b.server(func(s *compute.Server) {
		s.VIFs = []network.VIF{{PortID: keep, Tag: "nic1", Created: true, FixedIPs: []network.VIFAddr{{Address: "10.0.0.2", Version: 4}}}, {PortID: lost}}
	})
	b.nets.m[keep] = network.VIF{PortID: keep, FixedIPs: []network.VIFAddr{{Address: "10.0.0.2", Version: 4}}, Floating: []network.VIFAddr{{Address: "203.0.113.9", Version: 4, Fixed: "10.0.0.2"}}}
	b.must(b.loops.Interfaces(t.Context()))
	got := b.get(s.ID)
	if len(got.VIFs) != 1 || got.VIFs[0].Tag != "nic1" || !got.VIFs[0].Created || len(got.VIFs[0].Floating) != 1 {
		t.Fatalf("interfaces %+v", got.VIFs)
	}
	b.must(b.loops.Interfaces(t.Context()))
	if again := b.get(s.ID); !again.Updated.Equal(got.Updated) {
		t.Error("a second look wrote again")
	}
}

// providers is placement without rules.
type providers struct {
	placement.Service
	list  []placement.Provider
	held  map[string]placement.Allocations
	calls int
}

func (p *providers) Providers(_ context.Context, uuids ...string) ([]placement.Provider, error) {
	var out []placement.Provider
	for _, e := range p.list {
		if len(uuids) == 0 || slices.Contains(uuids, e.UUID) {
			out = append(out, e)
		}
	}
	return out, nil
}

func (p *providers) SetAggregates(_ context.Context, uuid string, aggregates []string) error {
	p.calls++
	for i := range p.list {
		if p.list[i].UUID == uuid {
			p.list[i].Aggregates = aggregates
		}
	}
	return nil
}

func (p *providers) SetTrait(_ context.Context, uuid, trait string, on bool) error {
	p.calls++
	for i := range p.list {
		if p.list[i].UUID == uuid && on {
			p.list[i].Traits = append(p.list[i].Traits, trait)
		}
	}
	return nil
}

func (p *providers) Of(_ context.Context, consumer string) (placement.Allocations, *placement.Consumer, error) {
	return p.held[consumer], nil, nil
}

func (p *providers) Release(_ context.Context, consumer string) error {
	delete(p.held, consumer)
	return nil
}

// ports is a network service without rules.
type ports struct {
	network.Service
	m                map[string]network.VIF
	device           []network.Port
	deleted, unbound []string
}

func (p *ports) VIFs(_ context.Context, ids ...string) ([]network.VIF, error) {
	var out []network.VIF
	for _, i := range ids {
		if v, ok := p.m[i]; ok {
			out = append(out, v)
		}
	}
	return out, nil
}

func (p *ports) DevicePorts(context.Context, *auth.Caller, string) ([]network.Port, error) {
	return p.device, nil
}

func (p *ports) DeletePort(_ context.Context, _ *auth.Caller, port string) error {
	p.deleted = append(p.deleted, port)
	return nil
}

func (p *ports) BindPort(_ context.Context, _ *auth.Caller, port, device, _, _ string) (*network.Port, error) {
	if device == "" {
		p.unbound = append(p.unbound, port)
	}
	return &network.Port{ID: port}, nil
}
