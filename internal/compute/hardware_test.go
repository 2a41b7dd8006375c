package compute_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute"
	"kilonova/internal/fault"
)

func TestUse(t *testing.T) {
	cells := []compute.HostCell{
		{ID: 0, CPUs: []int{0}, PCPUs: []int{1, 2, 3}, MemoryMB: 1024, Pages: []compute.HostPages{{SizeKB: 4, Total: 1000}, {SizeKB: 2048, Total: 100}}},
		{ID: 1, PCPUs: []int{4, 5}, MemoryMB: 1024},
	}
	devices := []compute.HostDevice{{Address: "0000:00:01.0"}, {Address: "0000:00:02.0"}}
	compute.Use(cells, devices, map[string][]compute.Claim{
		"a": {{Cells: []compute.ClaimedCell{{Node: 0, CPUs: []int{0, 1}, MemoryMB: 64, PageKB: 2048, Pins: map[int]int{0: 3, 1: 2}}}, Emulator: []int{1}, Devices: []string{"0000:00:02.0"}}},
		"b": {{Cells: []compute.ClaimedCell{{Node: 1, CPUs: []int{0}, MemoryMB: 128}, {Node: 9, MemoryMB: 1}}}},
	})
	want := []compute.HostCell{
		{ID: 0, CPUs: []int{0}, PCPUs: []int{1, 2, 3}, Pinned: []int{1, 2, 3}, MemoryMB: 1024, MemoryUsedMB: 64, Pages: []compute.HostPages{{SizeKB: 4, Total: 1000}, {SizeKB: 2048, Total: 100, Used: 32}}},
		{ID: 1, PCPUs: []int{4, 5}, MemoryMB: 1024, MemoryUsedMB: 128, CPUsUsed: 1},
	}
	if d := cmp.Diff(want, cells); d != "" {
		t.Error(d)
	}
	if devices[0].Server != "" || devices[1].Server != "a" {
		t.Errorf("%+v", devices)
	}
}

func TestDeviceSpecs(t *testing.T) {
	d := &compute.HostDevice{Address: "0000:0a:00.1", VendorID: "8086", ProductID: "10ed", Type: compute.PCIVirtual, Parent: "0000:0a:00.0"}
	for text, want := range map[string]bool{
		`{"vendor_id":"8086"}`:                          true,
		`{"vendor_id":"0x8086","product_id":"10ED"}`:    true,
		`{"vendor_id":"1af4"}`:                          false,
		`{"address":"0000:0a:00.1"}`:                    true,
		`{"address":"0000:0a:00.0"}`:                    true, // its device
		`{"address":"0a:00.1"}`:                         true,
		`{"address":"0000:0a:*"}`:                       true,
		`{"address":"*:0a:00.*"}`:                       true,
		`{"address":"*:0b:00.*"}`:                       false,
		`{"address":{"bus":"0[a-c]","function":"[1]"}}`: true,
		`{"address":{"bus":"0b"}}`:                      false,
		`{"address":":0a:00."}`:                         true,
		`{"address":"00.1"}`:                            true,
		`{"address":"*:*:1f.*"}`:                        false,
		`{"address":"0000:0a:00.*"}`:                    true,
		`{"devname":"eth1"}`:                            true,
		`{"devname":"eth2"}`:                            false,
		`[{"vendor_id":"1af4"},{"product_id":"*","physical_network":"p"}]`: true,
	} {
		specs, err := compute.ParseDeviceSpecs(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		got := false
		for i := range specs {
			got = got || specs[i].Match(d, "eth1")
		}
		if got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	for _, text := range []string{"x", `{"vendor_id":1}`, `{"address":{"planet":"x"}}`, `{"address":{"bus":"("}}`, `{"address":"a","devname":"b"}`, `{"address":"["}`,
		`{"address":"1:2:3:4.5"}`, `{"address":"0000:0a:20.0"}`, `{"address":"0000:0a:00.8"}`, `{"vendor_id":"fffff"}`, `{"trusted":"perhaps"}`, `{"vendor_id":null}`, `{"devname":true}`} {
		if _, err := compute.ParseDeviceSpecs(text); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
}

func TestPCIWants(t *testing.T) {
	aliases, err := compute.ParsePCIAliases(`[{"name":"gpu","vendor_id":"10de","product_id":"1eb8","numa_policy":"preferred"},{"name":"gpu","vendor_id":"10de","product_id":"20b0","numa_policy":"preferred"},
		{"name":"vf","vendor_id":"8086","device_type":"type-VF","resource_class":"fast","traits":"a,b","live_migratable":"Yes"}]`, false)
	if err != nil {
		t.Fatal(err)
	}
	got, err := compute.PCIWants(aliases, map[string]string{"pci_passthrough:alias": "gpu:2, vf:1"}, "")
	if err != nil {
		t.Fatal(err)
	}
	want := []compute.PCIWant{
		{Alias: "gpu", Count: 2, NUMAPolicy: "preferred", Specs: []map[string]string{{"vendor_id": "10de", "product_id": "1eb8"}, {"vendor_id": "10de", "product_id": "20b0"}}},
		{Alias: "vf", Count: 1, Specs: []map[string]string{{"vendor_id": "8086", "dev_type": "type-VF", "live_migratable": "true"}}, Class: "fast", Traits: []string{"a", "b"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	vf := compute.HostDevice{VendorID: "8086", ProductID: "1", Type: compute.PCIVirtual, Tags: map[string]string{"live_migratable": "true"}}
	whole, pf := compute.HostDevice{VendorID: "8086", Type: compute.PCIWhole}, compute.HostDevice{VendorID: "10de", ProductID: "1eb8", Type: compute.PCIPhysical}
	far := compute.HostDevice{VendorID: "10de", ProductID: "1eb8", Type: compute.PCIWhole, Tags: map[string]string{"remote_managed": "true"}}
	if !compute.Matches(got[1].Specs, vf.Facts()) || compute.Matches(got[1].Specs, whole.Facts()) || compute.Matches(got[0].Specs, pf.Facts()) || compute.Matches(got[0].Specs, far.Facts()) {
		t.Error("matching is wrong")
	}
	for _, bad := range []string{"nic:1", "gpu:0", "gpu:x"} {
		if _, err := compute.PCIWants(aliases, map[string]string{"pci_passthrough:alias": bad}, ""); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	for _, bad := range []string{`{"vendor_id":"1"}`, `{"name":"x"}`, `{"name":"x","vendor_id":"1","device_type":"usb"}`, `{"name":"x","vendor_id":"1","numa_policy":"far"}`, `{"name":"x","colour":"red"}`,
		`{"name":"x","resource_class":"y"}`, `{"name":"x","vendor_id":"zzzz"}`, `{"name":"x","vendor_id":"1","live_migratable":"maybe"}`, `{"name":"x","vendor_id":"1","capability_type":"usb"}`,
		`[{"name":"x","vendor_id":"1"},{"name":"x","vendor_id":"1","device_type":"type-VF"}]`, `[{"name":"x","vendor_id":"1"},{"name":"x","vendor_id":"1","numa_policy":"required"}]`} {
		if _, err := compute.ParsePCIAliases(bad, false); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}
