package conductor_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute"
	"kilonova/internal/compute/store"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/operation"
)

// What is seen of moves and rebuilds that fail: the server's state, its fault, the migration record, and the events of its action.

// zone makes an availability zone of hosts.
func (c *cloud) zone(name string, hosts ...string) {
	c.t.Helper()
	a := &compute.Aggregate{Name: name, Metadata: map[string]string{"availability_zone": name}}
	c.must(c.db.Write(c.ctx, func(tx *db.Tx) error {
		if err := c.store.InsertAggregate(c.ctx, tx, a); err != nil {
			return err
		}
		for _, h := range hosts {
			if err := c.store.AddAggregateHost(c.ctx, tx, a.ID, h); err != nil {
				return err
			}
		}
		return nil
	}))
}

// migrations gives the records of a server, oldest first, as "type status".
func (c *cloud) migrations(server string) (out []string) {
	c.t.Helper()
	ms, err := c.store.Migrations(c.ctx, c.db, store.MigrationFilter{ServerID: server})
	c.must(err)
	for _, m := range ms {
		out = append([]string{m.Type + " " + m.Status}, out...)
	}
	return out
}

// events gives the events of an operation's steps, "!" before those that failed.
func (c *cloud) events(op string) (out []string) {
	c.t.Helper()
	r, err := c.engine.Show(c.ctx, op)
	c.must(err)
	for _, s := range r.Steps {
		if s.Event == "" || s.Undo {
			continue
		}
		if !s.Succeeded {
			s.Event = "!" + s.Event
		}
		out = append(out, s.Event)
	}
	return out
}

// holds demands that a server has an allocation on one host only.
func (c *cloud) holds(server, host string) {
	c.t.Helper()
	held, _, err := c.place.Of(c.ctx, server)
	if err != nil || len(held) != 1 || held[c.nodes[host]] == nil {
		c.t.Errorf("allocations of %s: %v (%v), want some on %s (%s) alone", server, held, err, host, c.nodes[host])
	}
}

func TestEvacuationKeepsToTheZone(t *testing.T) {
	c := newCloud(t, options{})
	c.host("h1", fake.Config{})
	c.host("h2", fake.Config{})
	c.zone("east", "h1")
	east := "east"
	s := c.record(func(s *compute.Server) { s.PinnedZone = &east })
	c.ends(c.create(s, compute.CreateInput{Zone: east}), operation.Done)
	c.forceDown("h1", true)
	op := c.accept(compute.OpEvacuate, s.ID, compute.EvacuateInput{})
	c.ends(op, operation.Undone)
	got := c.get(s.ID)
	if got.Host != "h1" || got.VMState != compute.VMError || got.Fault == nil || !strings.HasPrefix(got.Fault.Message, "No valid host was found.") {
		t.Errorf("after an evacuation that found no host: %s on %s, fault %+v", got.VMState, got.Host, got.Fault)
	}
	if diff := cmp.Diff([]string{"!rebuild_server"}, c.events(op)); diff != "" {
		t.Error(diff)
	}
	c.holds(s.ID, "h1")
	// Who names the host by force passes over the zone.
	c.ends(c.accept(compute.OpEvacuate, s.ID, compute.EvacuateInput{Host: "h2", Force: true}), operation.Done)
	if got := c.get(s.ID); got.Host != "h2" || got.VMState != compute.VMActive {
		t.Errorf("after a forced evacuation: %s on %s", got.VMState, got.Host)
	}
	c.holds(s.ID, "h2")
	if diff := cmp.Diff([]string{"evacuation error", "evacuation done"}, c.migrations(s.ID)); diff != "" {
		t.Error(diff)
	}
}

func TestForcedEvacuationWithoutRoomLeavesTheServer(t *testing.T) {
	c := newCloud(t, options{})
	c.host("h1", fake.Config{})
	s := c.record(nil)
	c.ends(c.create(s, compute.CreateInput{}), operation.Done)
	c.host("h2", fake.Config{VCPUs: 1, MemoryMB: 100, DiskGB: 10})
	c.forceDown("h1", true)
	c.ends(c.accept(compute.OpEvacuate, s.ID, compute.EvacuateInput{Host: "h2", Force: true}), operation.Undone)
	if got := c.get(s.ID); got.Host != "h1" || got.VMState != compute.VMActive || got.Fault == nil {
		t.Errorf("after a forced evacuation to a full host: %s on %s, fault %+v", got.VMState, got.Host, got.Fault)
	}
	c.holds(s.ID, "h1")
	c.forceDown("h1", false)
	c.healthy()
}

// TestFailedMovesAreSeen: a move that no host was found for is in error, one that a host has begun with has failed; the server and what it holds are as before.
func TestFailedMovesAreSeen(t *testing.T) {
	broken := fault.New(fault.Internal, "it broke")
	big := compute.Flavor{ID: 2, FlavorID: "2", Name: "big", VCPUs: 100000, RAMMB: 512, RootGB: 1}
	for _, m := range []struct {
		name, kind string
		in         any
		verb       string // that the other host fails
		down       bool   // the server's host is
		state      string
		migration  string
		events     []string
	}{
		{"resize, no host", compute.OpResize, compute.ResizeInput{Flavor: big}, "", false, compute.VMActive, "resize error", []string{"!conductor_migrate_server cold_migrate"}},
		{"resize, broken", compute.OpResize, compute.ResizeInput{Migrate: true, Host: "h2"}, "finish-resize", false, compute.VMActive, "migration error",
			[]string{"conductor_migrate_server cold_migrate", "compute_prep_resize", "compute_resize_instance", "!compute_finish_resize"}},
		{"live, no host", compute.OpLiveMigrate, compute.LiveMigrateInput{Host: "h3"}, "", false, compute.VMActive, "live-migration error", []string{"!conductor_live_migrate_instance"}},
		{"live, from a host that is down", compute.OpLiveMigrate, compute.LiveMigrateInput{}, "", true, compute.VMActive, "live-migration error", []string{"!conductor_live_migrate_instance"}},
		{"live, broken", compute.OpLiveMigrate, compute.LiveMigrateInput{Host: "h2"}, "pre-live-migrate", false, compute.VMActive, "live-migration failed",
			[]string{"conductor_live_migrate_instance", "!compute_pre_live_migration"}},
		{"evacuation, broken", compute.OpEvacuate, compute.EvacuateInput{Host: "h2"}, "spawn", true, compute.VMError, "evacuation failed", []string{"rebuild_server", "!compute_rebuild_instance"}},
		{"evacuation, of a host that lives", compute.OpEvacuate, compute.EvacuateInput{}, "", false, compute.VMActive, "", []string{"!rebuild_server"}},
	} {
		t.Run(m.name, func(t *testing.T) {
			c := newCloud(t, options{})
			c.host("h1", fake.Config{})
			s := c.record(nil)
			c.ends(c.create(s, compute.CreateInput{}), operation.Done)
			c.host("h2", fake.Config{})
			if m.verb != "" {
				c.fault("h2", m.verb, broken)
			}
			if m.down {
				c.forceDown("h1", true)
			}
			op := c.accept(m.kind, s.ID, m.in)
			c.ends(op, operation.Undone)
			got := c.get(s.ID)
			if got.Host != "h1" || got.VMState != m.state || got.Fault == nil || got.Flavor.Name != "tiny" {
				t.Errorf("%s with %s on %s, fault %+v; want %s on h1", got.VMState, got.Flavor.Name, got.Host, got.Fault, m.state)
			}
			c.holds(s.ID, "h1")
			if diff := cmp.Diff(m.migration, strings.Join(c.migrations(s.ID), ", ")); diff != "" {
				t.Errorf("migrations: %s", diff)
			}
			if named := m.in == any(compute.LiveMigrateInput{Host: "h3"}); named {
				ms, err := c.store.Migrations(c.ctx, c.db, store.MigrationFilter{ServerID: s.ID})
				if err != nil || len(ms) != 1 || ms[0].DestHost != "h3" {
					t.Errorf("the host that was asked for is not on record: %+v (%v)", ms, err)
				}
			}
			if diff := cmp.Diff(m.events, c.events(op)); diff != "" {
				t.Errorf("events: %s", diff)
			}
			if m.down {
				c.forceDown("h1", false)
			}
			c.healthy()
		})
	}
}

// TestRebuildIsJudgedWhereTheServerIs: an image whose properties or traits the host does not have is refused, and who waits for the rebuild sees it.
func TestRebuildIsJudgedWhereTheServerIs(t *testing.T) {
	const trait = "HW_CPU_X86_VMX"
	for _, m := range []struct {
		name  string
		has   bool // the host has the trait
		specs map[string]string
		props map[string]string
		ok    bool
		fault string
	}{
		{"a trait that the host lacks", false, nil, map[string]string{"trait:" + trait: "required"}, false, trait},
		{"a trait that it has", true, nil, map[string]string{"trait:" + trait: "required"}, true, ""},
		{"a trait that the flavor forbids", true, map[string]string{"trait:" + trait: "forbidden"}, map[string]string{"trait:" + trait: "required"}, false, "forbids"},
		{"an architecture that it does not have", false, nil, map[string]string{"hw_architecture": "s390x"}, false, "ImagePropertiesFilter"},
	} {
		t.Run(m.name, func(t *testing.T) {
			c := newCloud(t, options{})
			c.host("h1", fake.Config{})
			s := c.record(func(s *compute.Server) { s.Flavor.ExtraSpecs = m.specs })
			c.ends(c.create(s, compute.CreateInput{}), operation.Done)
			if m.has {
				c.must(c.place.SetTrait(c.ctx, c.nodes["h1"], trait, true))
			}
			op := c.accept(compute.OpRebuild, s.ID, compute.RebuildInput{ImageID: "other", ImageProps: m.props, NewImage: true})
			if m.ok {
				c.ends(op, operation.Done)
				if got := c.get(s.ID); got.VMState != compute.VMActive || got.ImageID != "other" {
					t.Errorf("%s of %s", got.VMState, got.ImageID)
				}
				return
			}
			c.ends(op, operation.Undone)
			got := c.get(s.ID)
			if got.VMState != compute.VMError || got.ImageID != s.ImageID || got.Fault == nil || !strings.HasPrefix(got.Fault.Message, "No valid host was found.") ||
				!strings.Contains(got.Fault.Message, m.fault) {
				t.Errorf("%s of %s, fault %+v", got.VMState, got.ImageID, got.Fault)
			}
			c.holds(s.ID, "h1")
			// The guest was not touched: another rebuild mends the state.
			c.ends(c.accept(compute.OpRebuild, s.ID, compute.RebuildInput{ImageID: s.ImageID}), operation.Done)
			if got := c.get(s.ID); got.VMState != compute.VMActive || got.Fault != nil {
				t.Errorf("%s, fault %+v", got.VMState, got.Fault)
			}
			c.healthy()
		})
	}
}

func TestUnshelveWithoutItsImage(t *testing.T) {
	c := newCloud(t, options{})
	c.host("h1", fake.Config{})
	s := c.record(nil)
	c.ends(c.create(s, compute.CreateInput{}), operation.Done)
	c.must(c.db.Write(c.ctx, func(tx *db.Tx) error {
		return c.store.UpdateServer(c.ctx, tx, s.ID, func(s *compute.Server) error {
			s.VMState, s.PowerState = compute.VMStopped, compute.PowerShutdown
			return nil
		})
	}))
	c.ends(c.accept(compute.OpShelve, s.ID, compute.ShelveInput{Offload: true}), operation.Done)
	c.must(c.db.Write(c.ctx, func(tx *db.Tx) error {
		return c.store.UpdateServer(c.ctx, tx, s.ID, func(s *compute.Server) error {
			s.System = map[string]string{"shelved_image_id": "6a6a6a6a-0000-4000-8000-000000000000"}
			return nil
		})
	}))
	op := c.accept(compute.OpUnshelve, s.ID, compute.UnshelveInput{})
	c.ends(op, operation.Undone)
	got := c.get(s.ID)
	if got.VMState != compute.VMError || got.Host != "" || got.Fault == nil || !strings.Contains(got.Fault.Message, "cannot be found") {
		t.Errorf("%s on %q, fault %+v", got.VMState, got.Host, got.Fault)
	}
	if diff := cmp.Diff([]string{"!get_image_info"}, c.events(op)); diff != "" {
		t.Error(diff)
	}
	if held, _, err := c.place.Of(c.ctx, s.ID); err != nil || len(held) != 0 {
		t.Errorf("allocations %v (%v)", held, err)
	}
}

// TestAServerThatLostItsAllocationsMoves: it moves with what it gets, and has nothing on a host that it comes back from.
func TestAServerThatLostItsAllocationsMoves(t *testing.T) {
	larger := compute.Flavor{ID: 2, FlavorID: "2", Name: "larger", VCPUs: 2, RAMMB: 1024, RootGB: 2}
	for name, end := range map[string]func(c *cloud, server string){
		"reverted": func(c *cloud, server string) {
			c.ends(c.accept(compute.OpResize, server, compute.ResizeInput{Migrate: true}), operation.Done)
			c.ends(c.accept(compute.OpRevertResize, server, nil), operation.Done)
		},
		"failed": func(c *cloud, server string) {
			c.fault("h2", "finish-resize", fault.New(fault.Internal, "it broke"))
			c.ends(c.accept(compute.OpResize, server, compute.ResizeInput{Migrate: true}), operation.Undone)
		},
		"reverted on its host": func(c *cloud, server string) {
			c.ends(c.accept(compute.OpResize, server, compute.ResizeInput{Flavor: larger, Host: "h1"}), operation.Done)
			c.holds(server, "h1")
			c.ends(c.accept(compute.OpRevertResize, server, nil), operation.Done)
		},
		"failed on its host": func(c *cloud, server string) {
			c.fault("h1", "finish-resize", fault.New(fault.Internal, "it broke"))
			c.ends(c.accept(compute.OpResize, server, compute.ResizeInput{Flavor: larger, Host: "h1"}), operation.Undone)
		},
		"confirmed": func(c *cloud, server string) {
			c.ends(c.accept(compute.OpResize, server, compute.ResizeInput{Migrate: true}), operation.Done)
			c.ends(c.accept(compute.OpConfirmResize, server, nil), operation.Done)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCloud(t, options{})
			c.host("h1", fake.Config{})
			s := c.record(nil)
			c.ends(c.create(s, compute.CreateInput{}), operation.Done)
			c.host("h2", fake.Config{})
			c.must(c.place.Release(c.ctx, s.ID))
			end(c, s.ID)
			if name == "confirmed" {
				c.holds(s.ID, "h2")
				return
			}
			held, _, err := c.place.Of(c.ctx, s.ID)
			if got := c.get(s.ID); got.Host != "h1" || len(held) != 0 || err != nil {
				t.Errorf("it is on %s and holds %v (%v)", got.Host, held, err)
			}
		})
	}
}
