package scheduler_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute"
	"kilonova/internal/compute/scheduler"
)

func TestViewOfAReport(t *testing.T) {
	if scheduler.Cells(nil) != nil {
		t.Error("a host that reports nothing has NUMA nodes")
	}
	got := scheduler.Cells([]compute.HostCell{{ID: 3, Socket: 1, CPUs: []int{0}, PCPUs: []int{1}, Pinned: []int{1}, MemoryMB: 10, MemoryUsedMB: 4, Pages: []compute.HostPages{{SizeKB: 4, Total: 9, Used: 2, Reserved: 1}}}})
	want := &scheduler.NUMA{Cells: []scheduler.NUMACell{{ID: 3, Socket: 1, CPUs: []int{0}, PCPUs: []int{1}, Pinned: []int{1}, MemoryMB: 10, MemoryUsedMB: 4,
		Pages: []scheduler.Pages{{SizeKB: 4, Total: 9, Used: 2, Reserved: 1}}}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	pools := scheduler.Pools([]compute.HostDevice{
		{Address: "a", VendorID: "1", ProductID: "2", Type: compute.PCIWhole, Node: 0},
		{Address: "b", VendorID: "1", ProductID: "2", Type: compute.PCIWhole, Node: 0},
		{Address: "c", VendorID: "1", ProductID: "2", Type: compute.PCIWhole, Node: 0, Server: "s"},
		{Address: "d", VendorID: "1", ProductID: "2", Type: compute.PCIWhole, Node: 1, Tags: map[string]string{"physical_network": "p"}},
	})
	tags := map[string]string{"vendor_id": "1", "product_id": "2", "dev_type": compute.PCIWhole}
	wantPools := []scheduler.PCIPool{{Tags: tags, NUMA: 0, Count: 2},
		{Tags: map[string]string{"vendor_id": "1", "product_id": "2", "dev_type": compute.PCIWhole, "physical_network": "p"}, NUMA: 1, Count: 1}}
	if d := cmp.Diff(wantPools, pools); d != "" {
		t.Error(d)
	}
	wants, err := compute.PCIWants([]compute.PCIAlias{{Name: "x", VendorID: "1"}}, map[string]string{"pci_passthrough:alias": "x:2"}, "")
	if err != nil {
		t.Fatal(err)
	}
	req := scheduler.PCIRequests("s", wants, false)
	if why := scheduler.FitPCI(pools, req, nil); why != "" {
		t.Error(why)
	}
	if why := scheduler.FitPCI(pools, req, []int{1}); why == "" {
		t.Error("two devices near node 1, where one is")
	}
}
