package conductor_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute"
	"kilonova/internal/compute/scheduler"
	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/operation"
	"kilonova/internal/placement"
)

func divided(total int64) fake.Config {
	return fake.Config{Hardware: fake.Hardware{Mediated: []compute.HostMediated{{Address: "0000:84:00.0", Type: "nvidia-35", Class: compute.ClassVGPU, Total: total},
		{Address: "0000:85:00.0", Type: "nvidia-36", Class: "CUSTOM_SMALL", Total: 1}}}}
}

func wanting(class, n string) func(*compute.Server) {
	return func(s *compute.Server) { s.Flavor.ExtraSpecs = map[string]string{"resources:" + class: n} }
}

// parts gives how many parts of devices are allocated, and how many the guests that are there have.
func (c *cloud) parts(hosts ...string) (allocated, given int) {
	c.t.Helper()
	for _, h := range hosts {
		tree, err := c.place.Tree(c.ctx, c.nodes[h])
		c.must(err)
		for _, p := range tree {
			for _, class := range []string{compute.ClassVGPU, "CUSTOM_SMALL"} {
				allocated += int(p.Used[class])
			}
		}
		d := fake.New(fake.Config{DB: c.hyper, Host: h})
		for g := range c.guests(h) {
			spec, err := d.Spec(c.ctx, g)
			c.must(err)
			if spec.Claim != nil {
				given += len(spec.Claim.Mediated)
			}
		}
	}
	return allocated, given
}

// TestVirtualGPUs: devices that hosts divide are providers below them; a server's parts are allocated and told to its host wherever it goes.
func TestVirtualGPUs(t *testing.T) {
	c := newCloud(t, options{})
	c.host("h1", divided(2))
	c.host("h2", divided(2))
	tree, err := c.place.Tree(c.ctx, c.nodes["h1"])
	c.must(err)
	got := map[string]map[string]placement.Inventory{}
	for _, p := range tree {
		if p.Parent != "" {
			got[p.Name] = p.Inventory
		}
	}
	one := func(class string, n int64) map[string]placement.Inventory {
		return map[string]placement.Inventory{class: {Total: n, MinUnit: 1, MaxUnit: n, StepSize: 1, AllocationRatio: 1}}
	}
	if d := cmp.Diff(map[string]map[string]placement.Inventory{"h1_pci_0000_84_00_0": one(compute.ClassVGPU, 2), "h1_pci_0000_85_00_0": one("CUSTOM_SMALL", 1)}, got); d != "" {
		t.Fatal(d)
	}
	expect := func(what string, allocated, given int) {
		t.Helper()
		if a, g := c.parts("h1", "h2"); a != allocated || g != given {
			t.Fatalf("%s: %d parts are allocated and %d with guests, want %d and %d", what, a, g, allocated, given)
		}
		c.healthy()
	}
	s := c.record(wanting(compute.ClassVGPU, "1"))
	c.ends(c.create(s, compute.CreateInput{}), operation.Done)
	expect("created", 1, 1)
	claim := c.get(s.ID).Claim()
	if claim == nil || len(claim.Mediated) != 1 || claim.Mediated[0].Parent != "0000:84:00.0" || claim.Mediated[0].Type != "nvidia-35" || claim.Mediated[0].UUID == "" {
		t.Fatalf("%+v", claim)
	}
	more := c.get(s.ID).Flavor
	more.FlavorID, more.ExtraSpecs = "2", map[string]string{"resources:" + compute.ClassVGPU: "2"}
	c.ends(c.accept(compute.OpResize, s.ID, compute.ResizeInput{Flavor: more}), operation.Done)
	expect("resized", 3, 3)
	c.ends(c.accept(compute.OpRevertResize, s.ID, nil), operation.Done)
	expect("reverted", 1, 1)
	if d := cmp.Diff(claim, c.get(s.ID).Claim()); d != "" {
		t.Errorf("after the revert it holds something else: %s", d)
	}
	c.ends(c.accept(compute.OpResize, s.ID, compute.ResizeInput{Migrate: true}), operation.Done)
	c.ends(c.accept(compute.OpConfirmResize, s.ID, nil), operation.Done)
	expect("migrated", 1, 1)
	if r := c.ends(c.accept(compute.OpLiveMigrate, s.ID, compute.LiveMigrateInput{}), operation.Undone); !strings.Contains(r.Cause, "virtual GPUs") {
		t.Errorf("live migration: %s", r.Cause)
	}
	c.ends(c.accept(compute.OpRebuild, s.ID, compute.RebuildInput{ImageID: s.ImageID}), operation.Done)
	c.ends(c.accept(compute.OpReboot, s.ID, compute.RebootInput{Hard: true}), operation.Done)
	expect("rebuilt", 1, 1)
	c.ends(c.accept(compute.OpShelve, s.ID, compute.ShelveInput{Offload: true}), operation.Done)
	expect("offloaded", 0, 0)
	c.ends(c.accept(compute.OpUnshelve, s.ID, compute.UnshelveInput{}), operation.Done)
	expect("unshelved", 1, 1)
	was := c.get(s.ID).Host
	c.forceDown(was, true)
	c.ends(c.accept(compute.OpEvacuate, s.ID, compute.EvacuateInput{}), operation.Done)
	if now := c.get(s.ID); now.Host == was || len(now.Claim().Mediated) != 1 {
		t.Errorf("evacuated to %s with %+v", now.Host, now.Claim())
	}
	c.forceDown(was, false)
	small, second := c.record(wanting("CUSTOM_SMALL", "1")), c.record(wanting(compute.ClassVGPU, "3"))
	c.ends(c.create(small, compute.CreateInput{}), operation.Done)
	if m := c.get(small.ID).Claim().Mediated; len(m) != 1 || m[0].Type != "nvidia-36" {
		t.Errorf("a part of another class: %+v", m)
	}
	c.ends(c.create(second, compute.CreateInput{}), operation.Undone)
	c.ends(c.accept(compute.OpResize, s.ID, compute.ResizeInput{Flavor: c.record(nil).Flavor}), operation.Done)
	c.ends(c.accept(compute.OpConfirmResize, s.ID, nil), operation.Done)
	if claim := c.get(s.ID).Claim(); claim != nil {
		t.Errorf("without the flavor's wish it holds %+v", claim)
	}
}

// TestVirtualGPUsUnderARace: many servers at once share what there is, and no part is given twice.
func TestVirtualGPUsUnderARace(t *testing.T) {
	c := newCloud(t, options{})
	hosts := []string{"h1", "h2", "h3"}
	for _, h := range hosts {
		c.host(h, divided(3))
	}
	var servers []*compute.Server
	var ops []string
	for range 16 {
		s := c.record(wanting(compute.ClassVGPU, "1"))
		servers, ops = append(servers, s), append(ops, c.create(s, compute.CreateInput{}))
	}
	built := 0
	for i, op := range ops {
		r, err := c.engine.Wait(c.ctx, op)
		c.must(err)
		if r.State == operation.Done {
			built++
		} else if s := c.get(servers[i].ID); s.VMState != compute.VMError || s.Claim() != nil {
			t.Errorf("%s is %s with %+v", s.ID, s.VMState, s.Claim())
		}
	}
	if a, g := c.parts(hosts...); built != 9 || a != 9 || g != 9 {
		t.Errorf("%d servers were built; %d parts are allocated and %d with guests; want 9", built, a, g)
	}
	c.healthy()
	for _, s := range servers {
		c.ends(c.accept(compute.OpDelete, s.ID, nil), operation.Done)
	}
	if a, g := c.parts(hosts...); a != 0 || g != 0 {
		t.Errorf("after delete %d parts are allocated and %d with guests", a, g)
	}
}

// TestDividedNoMore: a device that its host divides no more goes from placement, unless servers have parts of it; what an operator keeps back and what traits he gives stay.
func TestDividedNoMore(t *testing.T) {
	c := newCloud(t, options{})
	kill := c.host("h1", divided(2))
	s := c.record(wanting(compute.ClassVGPU, "1"))
	c.ends(c.create(s, compute.CreateInput{}), operation.Done)
	of := scheduler.MediatedProviders(c.nodes["h1"], "h1", divided(2).Mediated)
	for _, p := range of {
		c.must(c.place.Report(c.ctx, p.UUID, p.Inventory(1), []string{"OWNER_NOVA", "CUSTOM_FAST"}, []string{"OWNER_NOVA", "CUSTOM_FAST"}))
	}
	kill()
	next := divided(3)
	next.Mediated = next.Mediated[:1]
	kill = c.host("h1", next)
	look := func(n int, check func(p *placement.Provider) bool) func() bool {
		return func() bool {
			ps, err := c.place.Providers(c.ctx, of[n].UUID)
			c.must(err)
			if len(ps) == 0 {
				return check(nil)
			}
			return check(&ps[0])
		}
	}
	c.eventually("the device has grown and keeps what the operator gave it", look(0, func(p *placement.Provider) bool {
		return p != nil && p.Inventory[compute.ClassVGPU].Total == 3 && p.Inventory[compute.ClassVGPU].Reserved == 1 && len(p.Traits) == 2
	}))
	c.eventually("the other device is gone", look(1, func(p *placement.Provider) bool { return p == nil }))
	kill()
	c.host("h1", fake.Config{})
	c.eventually("the host says that it divides nothing", func() bool {
		h, err := c.store.Host(c.ctx, c.db, "h1")
		c.must(err)
		return !strings.Contains(string(h.Info), "mediated")
	})
	if !look(0, func(p *placement.Provider) bool { return p != nil && p.Used[compute.ClassVGPU] == 1 })() {
		t.Error("the provider of a device that a server has a part of is gone")
	}
	if g := c.guests("h1"); g[s.ID] != virt.Running {
		t.Errorf("guests: %v", g)
	}
}
