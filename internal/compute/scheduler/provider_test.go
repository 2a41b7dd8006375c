package scheduler_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kilonova/internal/compute"
	"kilonova/internal/compute/scheduler"
	"kilonova/internal/placement"
)

const node = "11111111-0000-4000-8000-000000000001"

func vf(n, parent string, tags map[string]string) compute.HostDevice {
	return compute.HostDevice{Address: n, Parent: parent, VendorID: "8086", ProductID: "10ed", Type: compute.PCIVirtual, Tags: tags}
}

func TestDeviceProviders(t *testing.T) {
	got, err := scheduler.DeviceProviders(node, "h", []compute.HostDevice{
		{Address: "0000:3b:00.0", VendorID: "10de", ProductID: "1eb8", Type: compute.PCIWhole, Tags: map[string]string{"resource_class": "PGPU", "traits": "HW_GPU_API_VULKAN, my-own gpu", "live_migratable": "true"}},
		vf("0000:0a:10.1", "0000:0a:00.0", nil), vf("0000:0a:10.0", "0000:0a:00.0", nil),
		vf("0000:0b:10.0", "0000:0b:00.0", map[string]string{"physical_network": "p"}),
	})
	if err != nil {
		t.Fatal(err)
	}
	devices := []compute.HostDevice{vf("0000:0a:10.0", "0000:0a:00.0", nil), {Address: "0000:3b:00.0"}, vf("0000:0b:10.0", "0000:0b:00.0", map[string]string{"physical_network": "p"})}
	scheduler.Track(node, devices)
	want := []scheduler.DeviceProvider{
		{UUID: devices[0].Provider, Name: "h_0000:0A:00.0", Class: "CUSTOM_PCI_8086_10ED", Traits: []string{"COMPUTE_MANAGED_PCI_DEVICE", "OWNER_NOVA"}, Devices: []string{"0000:0a:10.1", "0000:0a:10.0"}},
		{UUID: devices[1].Provider, Name: "h_0000:3B:00.0", Class: "PGPU", Traits: []string{"COMPUTE_MANAGED_PCI_DEVICE", "CUSTOM_MY_OWN_GPU", "HW_GPU_API_VULKAN", "HW_PCI_LIVE_MIGRATABLE", "OWNER_NOVA"},
			Devices: []string{"0000:3b:00.0"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if devices[0].Provider == devices[1].Provider || devices[2].Provider != "" {
		t.Errorf("%+v", devices)
	}
	if d := cmp.Diff(map[string]placement.Inventory{"PGPU": {Total: 1, Reserved: 1, MinUnit: 1, MaxUnit: 1, StepSize: 1, AllocationRatio: 1}}, got[1].Inventory(5)); d != "" {
		t.Error(d)
	}
	for what, bad := range map[string][]compute.HostDevice{
		"the one or the others": {{Address: "a", Type: compute.PCIPhysical}, vf("b", "a", nil)},
		"resource classes":      {vf("b", "a", map[string]string{"resource_class": "x"}), vf("c", "a", nil)},
		"different traits":      {vf("b", "a", map[string]string{"traits": "x"}), vf("c", "a", nil)},
	} {
		if _, err := scheduler.DeviceProviders(node, "h", bad); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestDeviceQuery(t *testing.T) {
	wants := []compute.PCIWant{{Alias: "gpu", Count: 2, Specs: []map[string]string{{"vendor_id": "10de", "product_id": "1eb8"}}}, {Alias: "fast", Count: 1, Class: "big card", Traits: []string{"a b"}, Specs: []map[string]string{{"live_migratable": "true"}}},
		{Alias: "fixed", Count: 1, Class: "x", Specs: []map[string]string{{"live_migratable": "false"}}}}
	cfg := scheduler.Defaults()
	cfg.PCIInPlacement = true
	req := &scheduler.Request{Flavor: flavor(), PCI: append(scheduler.PCIRequests("s", wants, true), scheduler.PortRequests([]compute.PortDevice{{PortID: "p", VNICType: "direct"}, {VNICType: "normal"}}, "")...)}
	got, err := scheduler.Queries(&cfg, req, &scheduler.Cloud{})
	if err != nil {
		t.Fatal(err)
	}
	a, b, c := req.PCI[0].ID, req.PCI[1].ID, req.PCI[2].ID
	want := plainly(func(q *placement.Query) {
		q.GroupPolicy = "none"
		q.Groups = append(q.Groups,
			placement.Group{Suffix: a + "-0", Resources: placement.Resources{"CUSTOM_PCI_10DE_1EB8": 1}, Required: [][]string{{"OWNER_NOVA"}}},
			placement.Group{Suffix: a + "-1", Resources: placement.Resources{"CUSTOM_PCI_10DE_1EB8": 1}, Required: [][]string{{"OWNER_NOVA"}}},
			placement.Group{Suffix: b + "-0", Resources: placement.Resources{"CUSTOM_BIG_CARD": 1}, Required: [][]string{{"OWNER_NOVA"}, {"CUSTOM_A_B"}, {"HW_PCI_LIVE_MIGRATABLE"}}},
			placement.Group{Suffix: c + "-0", Resources: placement.Resources{"CUSTOM_X": 1}, Required: [][]string{{"OWNER_NOVA"}}, Forbidden: []string{"HW_PCI_LIVE_MIGRATABLE"}})
	})
	if len(got) != 1 {
		t.Fatalf("%d queries", len(got))
	}
	if d := cmp.Diff(want, got[0]); d != "" {
		t.Error(d)
	}
	off := &scheduler.Request{Flavor: flavor(), PCI: scheduler.PCIRequests("s", wants, false)}
	if got, err = scheduler.Queries(&cfg, off, &scheduler.Cloud{}); err != nil || len(got[0].Groups) != 1 {
		t.Errorf("%+v %v", got, err)
	}
}

// TestClaimsAgreeWithPlacement: whatever placement offers on a host, what is claimed for a way is of the providers that it chose, and every way that fits can be claimed.
func TestClaimsAgreeWithPlacement(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var devices []compute.HostDevice
		cards := rapid.IntRange(1, 4).Draw(t, "cards")
		for c := range cards {
			parent := string(rune('a' + c))
			for f := range rapid.IntRange(1, 3).Draw(t, "functions") {
				d := vf(parent+string(rune('0'+f)), parent, nil)
				if rapid.IntRange(0, 3).Draw(t, "held") == 0 {
					d.Server = "other"
				}
				devices = append(devices, d)
			}
		}
		scheduler.Track(node, devices)
		providers, err := scheduler.DeviceProviders(node, "h", devices)
		if err != nil {
			t.Fatal(err)
		}
		n := rapid.IntRange(1, 3).Draw(t, "asked")
		req := &scheduler.Request{ServerID: "s", Flavor: compute.Flavor{VCPUs: 1},
			PCI: scheduler.PCIRequests("s", []compute.PCIWant{{Alias: "vf", Count: n, Specs: []map[string]string{{"vendor_id": "8086", "product_id": "10ed"}}}}, true)}
		on := scheduler.Ranked{Host: &scheduler.HostState{Host: "h", PCI: scheduler.Pools(devices)}}
		for range rapid.IntRange(1, 4).Draw(t, "candidates") {
			cand := placement.Candidate{Root: node, Allocations: placement.Allocations{node: {"VCPU": 1}}, Mappings: map[string][]string{}}
			for k := range n {
				p := providers[rapid.IntRange(0, len(providers)-1).Draw(t, "provider")]
				cand.Mappings[req.PCI[0].ID+"-"+string(rune('0'+k))] = []string{p.UUID}
				if cand.Allocations[p.UUID] == nil {
					cand.Allocations[p.UUID] = placement.Resources{}
				}
				cand.Allocations[p.UUID][p.Class]++
			}
			on.Candidates = append(on.Candidates, cand)
		}
		for _, way := range scheduler.Ways(req, &on) {
			claim, why, err := scheduler.Take(way.Request, nil, slices.Clone(devices), 1, 1)
			if err != nil || why != "" {
				t.Fatalf("a way that fits cannot be claimed: %s %v", why, err)
			}
			if len(claim.Devices) != n || len(slices.Compact(slices.Clone(claim.Devices))) != n {
				t.Fatalf("claimed %v, asked %d", claim.Devices, n)
			}
			if d := cmp.Diff(way.Candidates[0].Allocations, scheduler.WithDevices(placement.Allocations{node: {"VCPU": 1}}, claim, providers)); d != "" {
				t.Fatal(d)
			}
		}
	})
}
