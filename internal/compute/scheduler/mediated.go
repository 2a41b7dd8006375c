package scheduler

import (
	"slices"
	"strconv"
	"strings"

	"kilonova/internal/compute"
	"kilonova/internal/id"
	"kilonova/internal/placement"
)

// Parts of devices (mediated devices, virtual GPUs for the most part) in placement: each device that is divided stands below its host as a resource provider, whose inventory
// are the parts. Amounts are all that is claimed of it: which part is whose follows from the server and the device.

// MediatedProvider is the resource provider of a device that is divided.
type MediatedProvider struct {
	UUID, Name string
	compute.HostMediated
}

// MediatedProviders gives the providers of a node's divided devices, sorted by name.
func MediatedProviders(node, hostname string, devices []compute.HostMediated) []MediatedProvider {
	var out []MediatedProvider
	for _, d := range devices {
		out = append(out, MediatedProvider{UUID: mediatedUUID(node, d.Address), Name: hostname + mediatedInfix + strings.NewReplacer(":", "_", ".", "_").Replace(d.Address), HostMediated: d})
	}
	slices.SortFunc(out, func(a, b MediatedProvider) int { return strings.Compare(a.Name, b.Name) })
	return out
}

const mediatedInfix = "_pci_"

func mediatedUUID(node, address string) string { return id.Derived(node, "mdev", address) }

// IsMediatedProvider tells whether a provider stands for a divided device of a node, also of one that is divided no more.
func IsMediatedProvider(node, hostname string, p *placement.Provider) bool {
	address, ok := strings.CutPrefix(p.Name, hostname+mediatedInfix)
	parts := strings.Split(address, "_")
	return ok && len(parts) == 4 && p.UUID == mediatedUUID(node, parts[0]+":"+parts[1]+":"+parts[2]+"."+parts[3])
}

// Inventory is what the provider has of its class; reserved is what an operator keeps back.
func (p *MediatedProvider) Inventory(reserved int64) map[string]placement.Inventory {
	return map[string]placement.Inventory{p.Class: {Total: p.Total, Reserved: min(reserved, p.Total), MinUnit: 1, MaxUnit: p.Total, StepSize: 1, AllocationRatio: 1}}
}

// partsOf gives the parts of the host's devices that a server has with an allocation. Asked again it gives the same.
func (h *HostState) partsOf(server string, a placement.Allocations) []compute.MediatedDevice {
	var out []compute.MediatedDevice
	for i := range h.Mediated {
		p := &h.Mediated[i]
		for n := range a[p.UUID][p.Class] {
			out = append(out, compute.MediatedDevice{UUID: id.Derived(server, "mdev", p.UUID, strconv.FormatInt(n, 10)), Parent: p.Address, Type: p.Type})
		}
	}
	return out
}

// inParts splits ways whose candidates give the server different parts of the host's devices.
func inParts(ways []Way, h *HostState) []Way {
	if len(h.Mediated) == 0 {
		return ways
	}
	var out []Way
	for _, w := range ways {
		for i := range w.Candidates {
			one := *w.Request
			one.Mediated = h.partsOf(one.ServerID, w.Candidates[i].Allocations)
			out = append(out, Way{&one, w.Candidates[i : i+1]})
		}
	}
	return out
}
