package conductor

import (
	"testing"

	"kilonova/internal/compute/virt"
)

// A small host that emulates can run the classic flavors; one with hardware CPUs gives a server no more of them than it has.
func TestCPUsOfOneServer(t *testing.T) {
	o := InventoryOptions{}
	inventoryDefaults(&o)
	for virtType, want := range map[string]int64{"qemu": 8, "kvm": 2, "": 2} {
		got := inventoryOf(&virt.HostInfo{VCPUs: 2, MemoryMB: 4096, DiskGB: 10, Stats: map[string]string{"virt_type": virtType}}, o)
		if got["VCPU"].MaxUnit != want || got["VCPU"].Total != 2 || got["MEMORY_MB"].MaxUnit != 4096 {
			t.Errorf("%q: %+v", virtType, got)
		}
	}
}
