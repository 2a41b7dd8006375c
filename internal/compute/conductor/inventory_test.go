package conductor_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute"
	"kilonova/internal/compute/agent"
	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/operation"
	"kilonova/internal/placement"
)

// The configuration of a host, not that of a conductor, says what may be promised of it; ratios that it leaves open are an operator's to set in placement.
func TestInventoryIsTheHosts(t *testing.T) {
	c := newCloud(t, options{})
	size := fake.Config{VCPUs: 8, MemoryMB: 8192, DiskGB: 100}
	inventory := func(offer *virt.Offer) map[string]placement.Inventory {
		t.Helper()
		c.tune = func(a *agent.Config) { a.Offer = offer }
		c.host("h1", size)() // it has told placement when it is up, and is stopped again
		p, err := c.place.Provider(c.ctx, c.nodes["h1"])
		c.must(err)
		return p.Inventory
	}
	want := func(cpu, ram, disk float64, cpus, mb, gb int64) map[string]placement.Inventory {
		one := func(total, reserved int64, ratio float64) placement.Inventory {
			return placement.Inventory{Total: total, Reserved: reserved, MinUnit: 1, MaxUnit: total, StepSize: 1, AllocationRatio: ratio}
		}
		return map[string]placement.Inventory{"VCPU": one(8, cpus, cpu), "MEMORY_MB": one(8192, mb, ram), "DISK_GB": one(100, gb, disk)}
	}
	same := func(when string, got, want map[string]placement.Inventory) {
		t.Helper()
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", when, d)
		}
	}
	same("an agent that does not tell", inventory(nil), want(4, 1, 1, 0, 512, 0))
	same("ratios of the beginning count for new inventories only", inventory(&virt.Offer{InitialCPURatio: 16, ReservedMemoryMB: 1024}), want(4, 1, 1, 0, 1024, 0))
	same("the host's ratios", inventory(&virt.Offer{CPURatio: 2, RAMRatio: 1.5, ReservedCPUs: 1, ReservedDiskMB: 1025}), want(2, 1.5, 1, 1, 0, 2))

	changed := want(2, 1.5, 1, 1, 0, 2)["DISK_GB"]
	changed.AllocationRatio = 3
	_, err := c.place.PutInventory(c.ctx, c.nodes["h1"], "DISK_GB", nil, changed)
	c.must(err)
	same("an operator's ratio stays", inventory(&virt.Offer{CPURatio: 2, ReservedCPUs: 2}), want(2, 1.5, 3, 2, 0, 0))
	same("until the host has one", inventory(&virt.Offer{CPURatio: 2, DiskRatio: 1, ReservedCPUs: 2}), want(2, 1.5, 1, 2, 0, 0))
	delete(c.nodes, "h1") // as if it were another machine
	same("a new host begins with them", func() map[string]placement.Inventory {
		c.tune = func(a *agent.Config) {
			a.Offer = &virt.Offer{InitialCPURatio: 16, InitialRAMRatio: 1.2, InitialDiskRatio: 2}
		}
		c.host("h2", size)
		p, err := c.place.Provider(c.ctx, c.nodes["h2"])
		c.must(err)
		return p.Inventory
	}(), want(16, 1.2, 2, 0, 0, 0))
}

// What operators add to a host's providers is there beside what the host reports, servers can ask for it, and it goes when the file goes.
func TestProviderConfigs(t *testing.T) {
	c := inPlacement(t)
	gpu := "h1_0000:3B:00.0"
	files := []virt.ProviderConfig{
		{File: "all.yaml", UUID: virt.EveryNode, Inventory: map[string]virt.ProviderInventory{"CUSTOM_LICENSE": {Total: 5, Reserved: 1, MaxUnit: 3}}, Traits: []string{"CUSTOM_RACK_7"}},
		{File: "gpu.yaml", Name: gpu, Inventory: map[string]virt.ProviderInventory{"CUSTOM_SLICE": {Total: 4, AllocationRatio: 2}}, Traits: []string{"CUSTOM_HOT"}},
		{File: "none.yaml", Name: "elsewhere", Traits: []string{"CUSTOM_NOWHERE"}},
	}
	with := func(list []virt.ProviderConfig) (placement.Provider, placement.Provider) {
		t.Helper()
		c.tune = func(a *agent.Config) { a.Providers = list }
		c.host("h1", cards())()
		root, err := c.place.Provider(c.ctx, c.nodes["h1"])
		c.must(err)
		return *root, c.deviceProviders("h1")[gpu]
	}
	root, card := with(files)
	license := placement.Inventory{Total: 5, Reserved: 1, MinUnit: 1, MaxUnit: 3, StepSize: 1, AllocationRatio: 1}
	if root.Inventory["CUSTOM_LICENSE"] != license || root.Inventory["VCPU"].Total != 64 || !hasAll(root.Traits, "CUSTOM_RACK_7", "COMPUTE_NODE") {
		t.Errorf("the host has %+v and %v", root.Inventory, root.Traits)
	}
	slices := placement.Inventory{Total: 4, MinUnit: 1, MaxUnit: placement.MaxInt, StepSize: 1, AllocationRatio: 2}
	if card.Inventory["CUSTOM_SLICE"] != slices || card.Inventory["CUSTOM_GPU"].Total != 1 || !hasAll(card.Traits, "CUSTOM_HOT", "OWNER_NOVA") {
		t.Errorf("the card has %+v and %v", card.Inventory, card.Traits)
	}

	// Whoever is named is not every node.
	own := append(files[:2:2], virt.ProviderConfig{File: "own.yaml", UUID: c.nodes["h1"], Traits: []string{"CUSTOM_RACK_8"}})
	root, _ = with(own)
	if _, has := root.Inventory["CUSTOM_LICENSE"]; has || !hasAll(root.Traits, "CUSTOM_RACK_8") {
		t.Errorf("the named host has %+v and %v", root.Inventory, root.Traits)
	}
	root, card = with(nil)
	if _, has := card.Inventory["CUSTOM_SLICE"]; has || len(root.Inventory) != 3 || hasAll(card.Traits, "CUSTOM_HOT") {
		t.Errorf("without files the host has %+v, its card %+v with %v", root.Inventory, card.Inventory, card.Traits)
	}

	// Servers can ask for it.
	c.tune = func(a *agent.Config) { a.Providers = files }
	c.host("h1", cards())
	asks := func(s *compute.Server) {
		s.Flavor.ExtraSpecs = map[string]string{"resources:CUSTOM_LICENSE": "3", "trait:CUSTOM_RACK_7": "required"}
	}
	one := c.record(asks)
	c.ends(c.create(one, compute.CreateInput{}), operation.Done)
	held, _, err := c.place.Of(c.ctx, one.ID)
	c.must(err)
	if held[c.nodes["h1"]]["CUSTOM_LICENSE"] != 3 {
		t.Errorf("the server holds %v", held)
	}
	c.ends(c.create(c.record(asks), compute.CreateInput{}), operation.Undone)
}

func hasAll(list []string, all ...string) bool {
	have := map[string]bool{}
	for _, s := range list {
		have[s] = true
	}
	for _, s := range all {
		if !have[s] {
			return false
		}
	}
	return true
}

// A trait of an ability that a host does not have any more goes; an operator's stays.
func TestAbilitiesGoAwayFromPlacement(t *testing.T) {
	c := newCloud(t, options{})
	size := fake.Config{VCPUs: 8, MemoryMB: 8192, DiskGB: 100}
	c.host("h1", size)()
	for _, trait := range []string{"CUSTOM_KILONOVA_LEVITATION", "COMPUTE_MIGRATE_POST_COPY", "HW_CPU_X86_SGX", "CUSTOM_OPERATORS", "COMPUTE_STATUS_DISABLED"} {
		c.must(c.place.SetTrait(c.ctx, c.nodes["h1"], trait, true))
	}
	size.VCPUs = 9 // news
	c.host("h1", size)()
	p, err := c.place.Provider(c.ctx, c.nodes["h1"])
	c.must(err)
	if !hasAll(p.Traits, "CUSTOM_OPERATORS", "CUSTOM_KILONOVA_PAUSE", "COMPUTE_NODE", "OWNER_NOVA") {
		t.Errorf("some are missing: %v", p.Traits)
	}
	for _, gone := range []string{"CUSTOM_KILONOVA_LEVITATION", "COMPUTE_MIGRATE_POST_COPY", "HW_CPU_X86_SGX", "COMPUTE_STATUS_DISABLED"} {
		if hasAll(p.Traits, gone) {
			t.Errorf("%s stays: %v", gone, p.Traits)
		}
	}
}
