package conductor_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/conductor"
	"kilonova/internal/compute/flow"
	"kilonova/internal/compute/store"
	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/db"
	"kilonova/internal/operation"
)

func TestServerOnARealControlPlane(t *testing.T) {
	c := newCloud(t, options{})
	c.host("h1", fake.Config{})
	c.host("h2", fake.Config{})
	s := c.record(nil)
	c.ends(c.create(s, compute.CreateInput{}), operation.Done)
	got := c.get(s.ID)
	if got.VMState != compute.VMActive || got.Host == "" || len(got.VIFs) != 1 || len(got.VIFs[0].FixedIPs) != 1 {
		t.Fatalf("after create: %+v", got)
	}
	if g := c.guests(got.Host); g[s.ID] != virt.Running {
		t.Errorf("guests of %s: %v", got.Host, g)
	}
	big := compute.Flavor{ID: 2, FlavorID: "2", Name: "big", VCPUs: 2, RAMMB: 1024, RootGB: 2}
	for _, step := range []struct {
		kind  string
		in    any
		state string
	}{
		{compute.OpStop, nil, compute.VMStopped}, {compute.OpStart, nil, compute.VMActive},
		{compute.OpResize, compute.ResizeInput{Flavor: big, Host: got.Host}, compute.VMResized}, {compute.OpRevertResize, nil, compute.VMActive},
		{compute.OpResize, compute.ResizeInput{Flavor: big, Host: got.Host}, compute.VMResized}, {compute.OpConfirmResize, nil, compute.VMActive},
		{compute.OpResize, compute.ResizeInput{Migrate: true}, compute.VMResized}, {compute.OpRevertResize, nil, compute.VMActive},
		{compute.OpResize, compute.ResizeInput{Migrate: true}, compute.VMResized}, {compute.OpConfirmResize, nil, compute.VMActive},
		{compute.OpLiveMigrate, compute.LiveMigrateInput{}, compute.VMActive},
		{compute.OpPause, nil, compute.VMPaused}, {compute.OpUnpause, nil, compute.VMActive},
		{compute.OpSuspend, nil, compute.VMSuspended}, {compute.OpResume, nil, compute.VMActive},
		{compute.OpReboot, compute.RebootInput{Hard: true}, compute.VMActive},
		{compute.OpRebuild, compute.RebuildInput{ImageID: s.ImageID}, compute.VMActive},
	} {
		c.ends(c.accept(step.kind, s.ID, step.in), operation.Done)
		now := c.get(s.ID)
		if now.VMState != step.state {
			t.Fatalf("after %s: %s, want %s", step.kind, now.VMState, step.state)
		}
		held, _, err := c.place.Of(c.ctx, s.ID)
		if err != nil || len(held) != 1 || held[now.ComputeID]["VCPU"] != int64(now.Flavor.VCPUs) {
			t.Fatalf("after %s: on %s with %d VCPU, allocations %v (%v)", step.kind, now.Host, now.Flavor.VCPUs, held, err)
		}
		if g := c.guests(now.Host); len(g) != 1 {
			t.Fatalf("after %s: guests of %s: %v", step.kind, now.Host, g)
		}
		if step.kind == compute.OpResize || step.kind == compute.OpLiveMigrate {
			c.healthy()
		}
	}
	c.ends(c.accept(compute.OpDelete, s.ID, nil), operation.Done)
	for _, h := range []string{"h1", "h2"} {
		if g := c.guests(h); len(g) != 0 {
			t.Errorf("guests of %s after delete: %v", h, g)
		}
	}
	ports, err := c.nets.DevicePorts(c.ctx, nil, s.ID)
	if err != nil || len(ports) != 0 {
		t.Errorf("ports after delete: %v (%v)", ports, err)
	}
	c.healthy()
	text, err := c.con.Explain(c.ctx, s.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"deleted", "create, operation", "schedule", "build", "done in", "[" + got.Host + "]", "migrate-disk", "epoch"} {
		if !strings.Contains(text, want) {
			t.Errorf("the story does not say %q:\n%s", want, text)
		}
	}
}

func TestNoValidHostNamesWhatIsMissing(t *testing.T) {
	c := newCloud(t, options{})
	c.host("h1", fake.Config{VCPUs: 2, MemoryMB: 4096, DiskGB: 100})
	s := c.record(func(s *compute.Server) { s.Flavor.RAMMB = 100000 })
	c.ends(c.create(s, compute.CreateInput{}), operation.Undone)
	got := c.get(s.ID)
	if got.VMState != compute.VMError || got.Fault == nil {
		t.Fatalf("%s, %+v", got.VMState, got.Fault)
	}
	for _, want := range []string{"No valid host was found.", "MEMORY_MB", "removed 1", "h1"} {
		if !strings.Contains(got.Fault.Message+got.Fault.Details, want) {
			t.Errorf("the fault does not say %q: %s", want, got.Fault.Message)
		}
	}
	text, err := c.con.ExplainHosts(c.ctx, s.ID, "")
	if err != nil || !strings.Contains(text, "h1: no") || !strings.Contains(text, "ComputeFilter") {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestClaimsNeverExceedAHost(t *testing.T) {
	c := newCloud(t, options{})
	c.host("h1", fake.Config{VCPUs: 1, MemoryMB: 1 << 20, DiskGB: 1000}) // 4 VCPU by its ratio
	c.host("h2", fake.Config{VCPUs: 1, MemoryMB: 1 << 20, DiskGB: 1000})
	var ops, ids []string
	for range 12 {
		s := c.record(nil)
		ids = append(ids, s.ID)
		ops = append(ops, c.create(s, compute.CreateInput{}))
	}
	done := 0
	for _, op := range ops {
		r, err := c.engine.Wait(c.ctx, op)
		c.must(err)
		if r.State == operation.Done {
			done++
		}
	}
	if done != 8 {
		t.Errorf("%d of 12 servers were built on two hosts for 4 each", done)
	}
	for _, h := range []string{"h1", "h2"} {
		if g := c.guests(h); len(g) != 4 {
			t.Errorf("%s has %d guests", h, len(g))
		}
	}
	for _, s := range ids {
		if got := c.get(s); got.VMState == compute.VMError && (got.Fault == nil || !strings.Contains(got.Fault.Message, "No valid host")) {
			t.Errorf("fault of a server that did not fit: %+v", got.Fault)
		}
	}
}

func TestAntiAffinity(t *testing.T) {
	c := newCloud(t, options{})
	for i := range 3 {
		c.host(name(i), fake.Config{})
	}
	g := &compute.ServerGroup{ID: "11111111-1111-4111-8111-111111111111", Name: "g", ProjectID: "p", UserID: "u", Policy: "anti-affinity"}
	c.must(c.db.Write(c.ctx, func(tx *db.Tx) error { return c.store.InsertGroup(c.ctx, tx, g) }))
	var ops []string
	var servers []*compute.Server
	for range 3 {
		s := c.record(func(s *compute.Server) { s.GroupID = g.ID })
		servers = append(servers, s)
		ops = append(ops, c.create(s, compute.CreateInput{}))
	}
	on := map[string]int{}
	for i, op := range ops {
		r, err := c.engine.Wait(c.ctx, op)
		c.must(err)
		if r.State == operation.Done {
			on[c.get(servers[i].ID).Host]++
		}
	}
	for h, n := range on {
		if n > 1 {
			t.Errorf("%s has %d servers of an anti-affinity group", h, n)
		}
	}
	if len(on) == 0 {
		t.Error("no server of the group was built")
	}
}

func TestADisabledHostTakesNothing(t *testing.T) {
	c := newCloud(t, options{})
	c.host("h1", fake.Config{})
	h, err := c.store.Host(c.ctx, c.db, "h1")
	c.must(err)
	yes := true
	why := "new disks"
	c.must(c.db.Write(c.ctx, func(tx *db.Tx) error { return c.store.SetServiceState(c.ctx, tx, h.ServiceID, &yes, &why, nil) }))
	_, err = c.con.ExplainWant(c.ctx, conductor.WantOf("p", compute.Flavor{FlavorID: "x", Name: "x", VCPUs: 1, RAMMB: 1}, "none", nil, nil), "") // reads the hosts again
	c.must(err)
	s := c.record(nil)
	c.ends(c.create(s, compute.CreateInput{}), operation.Undone)
	if f := c.get(s.ID).Fault; f == nil || !strings.Contains(f.Message, "COMPUTE_STATUS_DISABLED") {
		t.Errorf("fault %+v", f)
	}
}

func TestZoneIsKnownToPlacementAtOnce(t *testing.T) {
	c := newCloud(t, options{})
	c.host("h1", fake.Config{})
	c.host("h2", fake.Config{})
	a := &compute.Aggregate{Name: "east", Metadata: map[string]string{"availability_zone": "east"}}
	c.must(c.db.Write(c.ctx, func(tx *db.Tx) error {
		if err := c.store.InsertAggregate(c.ctx, tx, a); err != nil {
			return err
		}
		return c.store.AddAggregateHost(c.ctx, tx, a.ID, "h2")
	}))
	s := c.record(nil)
	c.ends(c.create(s, compute.CreateInput{Zone: "east"}), operation.Done)
	if got := c.get(s.ID); got.Host != "h2" || got.AvailabilityZone != "east" {
		t.Errorf("the server is on %s in %s", got.Host, got.AvailabilityZone)
	}
}

func TestDeadHostPaysWhenItReturns(t *testing.T) {
	c := newCloud(t, options{})
	kill := c.host("h1", fake.Config{})
	s, e := c.record(nil), c.record(nil)
	c.ends(c.create(s, compute.CreateInput{}), operation.Done)
	c.ends(c.create(e, compute.CreateInput{}), operation.Done)
	c.host("h2", fake.Config{})
	c.dies("h1", kill)
	c.ends(c.accept(compute.OpDelete, s.ID, nil), operation.Done)
	c.ends(c.accept(compute.OpEvacuate, e.ID, compute.EvacuateInput{}), operation.Done)
	if got := c.get(e.ID); got.Host != "h2" || got.VMState != compute.VMActive {
		t.Errorf("evacuated: %s on %s", got.VMState, got.Host)
	}
	if g := c.guests("h1"); len(g) != 2 {
		t.Fatalf("the dead host still has its guests: %v", g)
	}
	c.host("h1", fake.Config{})
	c.eventually("h1 removed what it owed", func() bool { return len(c.guests("h1")) == 0 })
	if g := c.guests("h2"); g[e.ID] != virt.Running {
		t.Errorf("guests of h2: %v", g)
	}
	c.healthy()
	c.eventually("nothing is owed", func() bool {
		all, err := c.con.Owed().All(c.ctx, c.db)
		return errors.Join(err, c.con.Reconcile().Debts(c.ctx)) == nil && len(all) == 0
	})
}

func TestAbortedLiveMigrationLeavesTheServerWhereItIs(t *testing.T) {
	c := newCloud(t, options{})
	slow := fake.Config{Delay: func(verb, _ string) time.Duration {
		if verb == "live-migrate" {
			return time.Hour
		}
		return 0
	}}
	c.host("h1", slow)
	s := c.record(nil)
	c.ends(c.create(s, compute.CreateInput{}), operation.Done)
	c.host("h2", slow)
	move := c.accept(compute.OpLiveMigrate, s.ID, compute.LiveMigrateInput{})
	var m compute.Migration
	c.eventually("the migration runs", func() bool {
		ms, err := c.store.Migrations(c.ctx, c.db, store.MigrationFilter{ServerID: s.ID, Status: []string{"running"}})
		if err != nil || len(ms) != 1 {
			return false
		}
		m = ms[0]
		return true
	})
	var abort string
	c.must(c.db.Write(c.ctx, func(tx *db.Tx) error {
		var err error
		abort, err = c.engine.Accept(c.ctx, tx, operation.Spec{Kind: flow.OpAbortLive, ObjectType: "server", Object: s.ID, Action: "live_migration_cancel", Shared: true})
		return err
	}))
	c.ends(abort, operation.Done)
	c.ends(move, operation.Undone)
	got, err := c.store.Migration(c.ctx, c.db, m.UUID)
	if err != nil || got.Status != "cancelled" {
		t.Errorf("the migration is %s (%v)", got.Status, err)
	}
	if now := c.get(s.ID); now.Host != "h1" || now.VMState != compute.VMActive || c.guests("h1")[s.ID] != virt.Running || len(c.guests("h2")) != 0 {
		t.Errorf("%s on %s; guests of h1 %v, of h2 %v", now.VMState, now.Host, c.guests("h1"), c.guests("h2"))
	}
	c.healthy()
}

func TestVerdicts(t *testing.T) {
	c := newCloud(t, options{})
	c.host("h1", fake.Config{})
	kept, gone := c.record(nil), c.record(nil)
	c.ends(c.create(kept, compute.CreateInput{}), operation.Done)
	c.ends(c.create(gone, compute.CreateInput{}), operation.Done)
	c.ends(c.accept(compute.OpDelete, gone.ID, nil), operation.Done)
	const stranger = "99999999-9999-4999-8999-999999999999"
	reply := ask[command.MineReply](c, command.MineSubject, command.MineRequest{Host: "h1", Guests: []virt.GuestState{
		{ID: kept.ID, Power: virt.Running}, {ID: gone.ID, Power: virt.Running}, {ID: stranger, Power: virt.Running}}})
	verdicts := map[string]string{}
	for _, s := range reply.Servers {
		verdicts[s.ID] = s.Verdict
	}
	if verdicts[kept.ID] != "keep" || verdicts[gone.ID] != "destroy" {
		t.Errorf("verdicts %v", verdicts)
	}
	if v, named := verdicts[stranger]; named {
		t.Errorf("a guest that the cloud does not know gets the verdict %q", v)
	}
	elsewhere := ask[command.MineReply](c, command.MineSubject, command.MineRequest{Host: "h9", Guests: []virt.GuestState{{ID: kept.ID, Power: virt.Running}}})
	if len(elsewhere.Servers) != 0 {
		t.Errorf("a guest of a server that lives elsewhere gets %v", elsewhere.Servers)
	}
}

func TestGuestThatStoppedByItself(t *testing.T) {
	c := newCloud(t, options{})
	c.host("h1", fake.Config{})
	s := c.record(nil)
	c.ends(c.create(s, compute.CreateInput{}), operation.Done)
	c.must(fake.New(fake.Config{DB: c.hyper, Host: "h1"}).PowerOff(c.ctx, s.ID, 0))
	ask[any](c, command.GuestSubject, command.GuestReport{Host: "h1", ID: s.ID, Power: virt.Shutdown})
	c.eventually("the server is stopped", func() bool {
		got := c.get(s.ID)
		return got.VMState == compute.VMStopped && got.PowerState == compute.PowerShutdown && got.TaskState == ""
	})
}

func TestSecondAgentOfOneHostIsRefused(t *testing.T) {
	c := newCloud(t, options{})
	node := "22222222-2222-4222-8222-222222222222"
	info := &virt.HostInfo{Hostname: "h1", VCPUs: 1, MemoryMB: 1024, DiskGB: 10}
	report := func(start string) command.RegisterReply {
		return ask[command.RegisterReply](c, command.RegisterSubject, command.HostReport{Host: "h1", NodeID: node, Start: start, Info: info})
	}
	if r := report("first"); r.Refused != "" {
		t.Fatal(r.Refused)
	}
	if r := report("second"); r.Refused != "" {
		t.Fatalf("a restarted agent is refused: %s", r.Refused)
	}
	if r := report("first"); r.Refused == "" {
		t.Error("the agent that was taken over from is not told so")
	}
	ps, err := c.place.Providers(c.ctx, node)
	if err != nil || len(ps) != 1 || ps[0].Inventory["VCPU"].AllocationRatio != 4 || ps[0].Inventory["MEMORY_MB"].Reserved != 512 {
		t.Errorf("provider %+v (%v)", ps, err)
	}
}
