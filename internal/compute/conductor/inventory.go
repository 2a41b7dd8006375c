package conductor

import (
	"math"
	"slices"
	"strings"

	"kilonova/internal/compute"
	"kilonova/internal/compute/virt"
	"kilonova/internal/fault"
	"kilonova/internal/placement"
)

// cpusOf counts the CPUs on which virtual ones float and those that are set aside to be pinned.
func cpusOf(i *virt.HostInfo) (shared, dedicated int64) {
	if !slices.ContainsFunc(i.NUMA, func(c compute.HostCell) bool { return len(c.PCPUs) > 0 }) {
		return int64(i.VCPUs), 0
	}
	for _, c := range i.NUMA {
		shared, dedicated = shared+int64(len(c.CPUs)), dedicated+int64(len(c.PCPUs))
	}
	return shared, dedicated
}

// offerOf is what the host's configuration says, or the defaults when its agent did not tell.
func offerOf(i *virt.HostInfo) virt.Offer {
	o := virt.Offer{ReservedMemoryMB: 512}
	if i.Offer != nil {
		o = *i.Offer
	}
	for _, r := range []struct {
		initial *float64
		least   float64
	}{{&o.InitialCPURatio, 4}, {&o.InitialRAMRatio, 1}, {&o.InitialDiskRatio, 1}} {
		if *r.initial == 0 {
			*r.initial = r.least
		}
	}
	return o
}

// inventoryOf gives what may be promised of a host.
func inventoryOf(i *virt.HostInfo) map[string]placement.Inventory {
	o, out := offerOf(i), map[string]placement.Inventory{}
	put := func(class string, total, reserved int64, ratio, initial float64) {
		if total <= 0 {
			return
		}
		inv := placement.Inventory{Total: total, Reserved: max(min(reserved, total-1), 0), MinUnit: 1, MaxUnit: total, StepSize: 1, AllocationRatio: ratio}
		if ratio == 0 {
			inv.AllocationRatio, inv.KeepRatio = initial, true
		}
		out[class] = inv
	}
	shared, dedicated := cpusOf(i)
	put("PCPU", dedicated, 0, 1, 1)
	put("VCPU", shared, o.ReservedCPUs, o.CPURatio, o.InitialCPURatio)
	if inv, ok := out["VCPU"]; ok && i.Stats["virt_type"] == "qemu" {
		// An emulated CPU is a thread like others: one server may have all that the host gives out. With hardware CPUs, no more than there are.
		inv.MaxUnit = max(inv.MaxUnit, int64(float64(inv.Total-inv.Reserved)*inv.AllocationRatio))
		out["VCPU"] = inv
	}
	put("MEMORY_MB", i.MemoryMB, o.ReservedMemoryMB, o.RAMRatio, o.InitialRAMRatio)
	put("DISK_GB", i.DiskGB, int64(math.Ceil(float64(o.ReservedDiskMB)/1024)), o.DiskRatio, o.InitialDiskRatio)
	return out
}

// addition finds what operators add to a provider, nil when nothing; node: it is the host's own.
func addition(configs []virt.ProviderConfig, uuid, name string, node bool) (*virt.ProviderConfig, error) {
	var found, every *virt.ProviderConfig
	for i := range configs {
		switch p := &configs[i]; {
		case p.UUID == virt.EveryNode:
			every = p
		case p.UUID != "" && strings.EqualFold(p.UUID, uuid), p.Name != "" && p.Name == name:
			if found != nil {
				return nil, fault.New(fault.Invalid, "Provider configurations %s and %s name the same provider, once as %s and once as %s. Keep one of them.",
					found.File, p.File, found.ID(), p.ID())
			}
			found = p
		}
	}
	if found == nil && node {
		found = every
	}
	return found, nil
}

// extend adds to the inventory and traits of a provider what operators' files say. Classes that are the host's own cannot be added.
func extend(configs []virt.ProviderConfig, uuid, name string, node bool, inv map[string]placement.Inventory, traits []string) ([]string, error) {
	p, err := addition(configs, uuid, name, node)
	if p == nil {
		return traits, err
	}
	for class, i := range p.Inventory {
		if _, taken := inv[class]; taken {
			return nil, fault.New(fault.Invalid, "Provider configuration %s adds the inventory %s to %s, which the host itself reports. Remove it from the file.", p.File, class, p.ID())
		}
		inv[class] = placement.Inventory{Total: i.Total, Reserved: i.Reserved, MinUnit: i.MinUnit, MaxUnit: i.MaxUnit, StepSize: i.StepSize, AllocationRatio: i.AllocationRatio}
	}
	return append(slices.Clip(traits), p.Traits...), nil
}

// absent are the entries of operators' files that name none of the host's providers.
func absent(info *virt.HostInfo, node string, children []string) (names []string) {
	for i := range info.Providers {
		p := &info.Providers[i]
		if p.UUID != virt.EveryNode && !strings.EqualFold(p.UUID, node) && p.Name != info.Hostname && !slices.Contains(children, p.ID()) {
			names = append(names, p.ID())
		}
	}
	return names
}
