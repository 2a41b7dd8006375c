package conductor_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/scheduler"
	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/operation"
	"kilonova/internal/placement"
)

// cards is a host with two cards of the class of gpus and a device with four virtual functions.
func cards() fake.Config {
	c := fake.Config{VCPUs: 64, MemoryMB: 65536, DiskGB: 1000}
	for i := range 2 {
		c.Devices = append(c.Devices, compute.HostDevice{Address: fmt.Sprintf("0000:3b:0%d.0", i), VendorID: "10de", ProductID: "1eb8", Tags: map[string]string{"resource_class": "gpu", "traits": "HW_GPU_API_VULKAN,big one"}})
	}
	for i := range 4 {
		c.Devices = append(c.Devices, compute.HostDevice{Address: fmt.Sprintf("0000:0a:10.%d", i), VendorID: "8086", ProductID: "10ed", Type: compute.PCIVirtual, Parent: "0000:0a:00.0"})
	}
	return c
}

// inPlacement is a cloud whose flavors' devices are chosen by placement.
func inPlacement(t *testing.T) *cloud {
	t.Helper()
	aliases, err := compute.ParsePCIAliases(`[{"name":"gpu","resource_class":"GPU","traits":"big-one"},{"name":"vf","vendor_id":"8086","product_id":"10ed","device_type":"type-VF"}]`, true)
	if err != nil {
		t.Fatal(err)
	}
	c := newCloud(t, options{aliases: aliases, planner: func(c *scheduler.Config) { c.PCIInPlacement = true }})
	c.report = true
	return c
}

func asking(alias string) func(s *compute.Server) {
	return func(s *compute.Server) { s.Flavor.ExtraSpecs = map[string]string{"pci_passthrough:alias": alias} }
}

// deviceProviders gives what the providers of a host's devices have, by name.
func (c *cloud) deviceProviders(host string) map[string]placement.Provider {
	c.t.Helper()
	tree, err := c.place.Tree(c.ctx, c.nodes[host])
	c.must(err)
	out := map[string]placement.Provider{}
	for _, p := range tree {
		if p.UUID != c.nodes[host] {
			out[p.Name] = p
		}
	}
	return out
}

// allocated gives how many devices of the hosts consumers have in placement.
func (c *cloud) allocated() (devices int) {
	c.t.Helper()
	for host := range c.nodes {
		for _, p := range c.deviceProviders(host) {
			held, err := c.place.HeldOn(c.ctx, p.UUID)
			c.must(err)
			for _, h := range held {
				for _, n := range h.Resources {
					devices += int(n)
				}
			}
		}
	}
	return devices
}

// TestDevicesInPlacement: what placement is told of devices, and that claims agree with it while servers are made, resized, moved, shelved and deleted.
func TestDevicesInPlacement(t *testing.T) {
	c := inPlacement(t)
	c.host("h1", cards())
	c.host("h2", cards())
	got := c.deviceProviders("h1")
	if d := cmp.Diff([]string{"h1_0000:0A:00.0", "h1_0000:3B:00.0", "h1_0000:3B:01.0"}, slices.Sorted(maps.Keys(got))); d != "" {
		t.Fatal(d)
	}
	card, functions := got["h1_0000:3B:00.0"], got["h1_0000:0A:00.0"]
	if d := cmp.Diff([]string{"COMPUTE_MANAGED_PCI_DEVICE", "CUSTOM_BIG_ONE", "HW_GPU_API_VULKAN", "OWNER_NOVA"}, card.Traits); d != "" || card.Inventory["CUSTOM_GPU"].Total != 1 || card.Root != c.nodes["h1"] {
		t.Errorf("%s %+v", d, card)
	}
	if n := functions.Inventory["CUSTOM_PCI_8086_10ED"]; n.Total != 4 || n.MaxUnit != 4 || len(functions.Inventory) != 1 {
		t.Errorf("%+v", functions.Inventory)
	}
	expect := func(what string, devices int) {
		t.Helper()
		if _, claimed := c.exclusive(); claimed != devices || c.allocated() != devices {
			t.Fatalf("%s: %d devices are claimed and %d allocated, want %d", what, claimed, c.allocated(), devices)
		}
		c.healthy()
	}
	s := c.record(asking("gpu:1,vf:2"))
	c.ends(c.create(s, compute.CreateInput{}), operation.Done)
	expect("created", 3)
	more := c.get(s.ID).Flavor
	more.FlavorID, more.ExtraSpecs = "2", map[string]string{"pci_passthrough:alias": "gpu:2"}
	c.ends(c.accept(compute.OpResize, s.ID, compute.ResizeInput{Flavor: more}), operation.Done)
	expect("resized", 5)
	c.ends(c.accept(compute.OpRevertResize, s.ID, nil), operation.Done)
	expect("reverted", 3)
	c.ends(c.accept(compute.OpResize, s.ID, compute.ResizeInput{Flavor: more}), operation.Done)
	c.ends(c.accept(compute.OpConfirmResize, s.ID, nil), operation.Done)
	expect("confirmed", 2)
	c.ends(c.accept(compute.OpShelve, s.ID, compute.ShelveInput{Offload: true}), operation.Done)
	expect("offloaded", 0)
	c.ends(c.accept(compute.OpUnshelve, s.ID, compute.UnshelveInput{}), operation.Done)
	expect("unshelved", 2)
	c.fault("h1", "finish-resize", errNoLuck)
	c.fault("h2", "finish-resize", errNoLuck)
	c.ends(c.accept(compute.OpResize, s.ID, compute.ResizeInput{Migrate: true}), operation.Undone)
	expect("failed migration", 2)
	rich := c.record(asking("gpu:3"))
	if r := c.ends(c.create(rich, compute.CreateInput{}), operation.Undone); !strings.Contains(r.Cause, "No valid host") {
		t.Errorf("three cards of hosts that have two: %s", r.Cause)
	}
	for _, id := range []string{s.ID, rich.ID} {
		c.ends(c.accept(compute.OpDelete, id, nil), operation.Done)
	}
	expect("deleted", 0)
	c.fault("h1", "spawn", errNoLuck)
	again := c.record(asking("gpu:2,vf:4"))
	c.ends(c.create(again, compute.CreateInput{}), operation.Done)
	if got := c.get(again.ID); got.Host != "h2" {
		t.Errorf("built on %s", got.Host)
	}
	expect("built where the first host failed, or at once", 6)
}

// TestDevicesAreRacedFor lets many servers at once be made, resized and deleted where devices are scarce: no device has two holders, and placement says the same as the claims.
func TestDevicesAreRacedFor(t *testing.T) {
	c := inPlacement(t)
	for i := range 3 {
		c.host(name(i), cards())
	}
	kinds := []string{"gpu:1", "vf:1", "vf:3", "gpu:1,vf:1", "gpu:2"}
	var wg sync.WaitGroup
	for w := range 8 {
		rng := rand.New(rand.NewPCG(7, uint64(w)))
		wg.Go(func() {
			for range 5 {
				s := c.record(asking(kinds[rng.IntN(len(kinds))]))
				r, err := c.engine.Wait(c.ctx, c.create(s, compute.CreateInput{}))
				if err == nil && r.State == operation.Done && rng.IntN(2) == 0 {
					flavor := s.Flavor
					flavor.FlavorID, flavor.ExtraSpecs = "2", map[string]string{"pci_passthrough:alias": kinds[rng.IntN(len(kinds))]}
					if r, err = c.engine.Wait(c.ctx, c.accept(compute.OpResize, s.ID, compute.ResizeInput{Flavor: flavor})); err == nil && r.State == operation.Done {
						_, err = c.engine.Wait(c.ctx, c.accept(compute.OpConfirmResize, s.ID, nil))
					}
				}
				if err == nil && rng.IntN(3) > 0 {
					_, err = c.engine.Wait(c.ctx, c.accept(compute.OpDelete, s.ID, nil))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if _, claimed := c.exclusive(); claimed != c.allocated() || claimed == 0 {
		t.Errorf("%d devices are claimed and %d allocated", claimed, c.allocated())
	}
	c.healthy()
}

// TestDevicesComeAndGo: servers that had devices before placement was told of them get the allocations; devices that are held stay on record when the host does not offer
// them any more; reporting cannot be switched off; devices that cannot be told of are refused.
func TestDevicesComeAndGo(t *testing.T) {
	c := inPlacement(t)
	c.report = false
	plain, err := compute.ParsePCIAliases(`{"name":"gpu","vendor_id":"10de","product_id":"1eb8"}`, false)
	c.must(err)
	c.stop()
	o := options{aliases: plain}
	c.stop = c.control(o)
	kill := c.host("h1", cards())
	s := c.record(asking("gpu:1"))
	c.ends(c.create(s, compute.CreateInput{}), operation.Done)
	if c.allocated() != 0 || len(c.deviceProviders("h1")) != 0 {
		t.Fatal("placement knows of devices that nobody told it of")
	}
	kill()
	c.report = true
	kill = c.host("h1", cards())
	c.eventually("the server has its device in placement", func() bool { return c.allocated() == 1 })
	c.healthy()
	held := c.get(s.ID).Claim().Devices[0]
	// With reporting on and pci_in_placement off, claims are allocated all the same.
	second := c.record(asking("gpu:1"))
	c.ends(c.create(second, compute.CreateInput{}), operation.Done)
	if c.allocated() != 2 {
		t.Errorf("%d devices are allocated, want 2", c.allocated())
	}
	c.healthy()
	c.ends(c.accept(compute.OpDelete, second.ID, nil), operation.Done)
	kill()
	none := cards()
	none.Devices = none.Devices[2:]
	kill = c.host("h1", none)
	c.eventually("the free card is gone", func() bool { return len(c.deviceProviders("h1")) == 2 })
	if _, there := c.deviceProviders("h1")["h1_"+strings.ToUpper(held)]; !there || c.allocated() != 1 {
		t.Errorf("the card that the server holds is gone: %v", slices.Sorted(maps.Keys(c.deviceProviders("h1"))))
	}
	c.healthy()
	third := c.record(asking("gpu:1"))
	c.ends(c.create(third, compute.CreateInput{}), operation.Undone)
	c.ends(c.accept(compute.OpDelete, s.ID, nil), operation.Done)
	c.ends(c.create(c.record(asking("gpu:1")), compute.CreateInput{}), operation.Undone)
	kill()
	c.host("h1", none)
	c.eventually("the card that nobody holds is gone", func() bool { return len(c.deviceProviders("h1")) == 1 })
	refused := func(what string, info *virt.HostInfo) {
		t.Helper()
		msg, err := json.Marshal(command.HostReport{Host: "h1", NodeID: c.nodes["h1"], Start: "other", Info: info})
		c.must(err)
		if _, err := c.bus.Call(c.ctx, command.RegisterSubject, msg); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%q: %v", what, err)
		}
	}
	refused("report_in_placement", &virt.HostInfo{Hostname: "h1", VCPUs: 1})
	refused("virtual functions", &virt.HostInfo{Hostname: "h1", VCPUs: 1, PCIPlacement: true, PCI: []compute.HostDevice{{Address: "0000:0a:00.0", Type: compute.PCIPhysical},
		{Address: "0000:0a:10.0", Type: compute.PCIVirtual, Parent: "0000:0a:00.0"}}})
}

// TestDevicesThatMoveAlong: a running server leaves its host with devices that bear that, and only to a host that has such.
func TestDevicesThatMoveAlong(t *testing.T) {
	aliases, err := compute.ParsePCIAliases(`{"name":"gpu","resource_class":"GPU"}`, true)
	if err != nil {
		t.Fatal(err)
	}
	c := newCloud(t, options{aliases: aliases, planner: func(c *scheduler.Config) { c.PCIInPlacement = true }})
	c.report = true
	movable := func(yes bool) fake.Config {
		m := cards()
		for i := range m.Devices {
			tags := maps.Clone(m.Devices[i].Tags)
			if tags != nil && yes {
				tags["live_migratable"] = "true"
			}
			m.Devices[i].Tags = tags
		}
		return m
	}
	c.host("h1", movable(true))
	s := c.record(asking("gpu:2"))
	c.ends(c.create(s, compute.CreateInput{}), operation.Done)
	c.host("h2", movable(false))
	if r := c.ends(c.accept(compute.OpLiveMigrate, s.ID, compute.LiveMigrateInput{}), operation.Undone); !strings.Contains(r.Cause, "No valid host") {
		t.Errorf("to a host whose devices cannot be moved: %s", r.Cause)
	}
	c.host("h3", movable(true))
	c.ends(c.accept(compute.OpLiveMigrate, s.ID, compute.LiveMigrateInput{}), operation.Done)
	if got := c.get(s.ID); got.Host != "h3" || len(got.Claim().Devices) != 2 || c.allocated() != 2 {
		t.Errorf("on %s with %+v, %d devices are allocated", got.Host, got.Claim(), c.allocated())
	}
	c.healthy()
}
