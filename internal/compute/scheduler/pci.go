package scheduler

import (
	"fmt"
	"maps"
	"slices"

	"kilonova/internal/compute"
)

// PCIPool is a host's stock of devices that are alike.
type PCIPool struct {
	Tags  map[string]string // vendor_id, product_id, dev_type, physical_network …
	NUMA  int               // node; -1: the host does not say
	Count int               // free devices
}

// Pools counts the devices of a host that nobody holds by what they are and where.
func Pools(devices []compute.HostDevice) []PCIPool {
	var out []PCIPool
	for i := range devices {
		d := &devices[i]
		if d.Server != "" {
			continue
		}
		facts := d.Facts()
		k := slices.IndexFunc(out, func(p PCIPool) bool { return p.NUMA == d.Node && maps.Equal(p.Tags, facts) })
		if k < 0 {
			out = append(out, PCIPool{Tags: facts, NUMA: d.Node})
			k = len(out) - 1
		}
		out[k].Count++
	}
	return out
}

// PCIRequests makes requests of what a flavor wants.
func PCIRequests(wants []compute.PCIWant) []PCIRequest {
	var out []PCIRequest
	for _, w := range wants {
		out = append(out, PCIRequest{Alias: w.Alias, Count: w.Count, Specs: w.Specs, NUMAPolicy: w.NUMAPolicy})
	}
	return out
}

// Near tells whether a device on a NUMA node (-1: unknown) may be given to a server on nodes, under an affinity policy.
func Near(node int, nodes []int, policy string) bool { return near(node, nodes, policy) }

func (p *PCIPool) matches(r *PCIRequest) bool {
	return slices.ContainsFunc(r.Specs, func(spec map[string]string) bool {
		for k, v := range spec {
			if p.Tags[k] != v {
				return false
			}
		}
		return true
	})
}

// FitPCI tells, in words, why the pools do not have what is asked; "" when they have. nodes are the host NUMA nodes of the server; nil: no
// NUMA placement.
func FitPCI(pools []PCIPool, want []PCIRequest, nodes []int) string {
	_, why := takeNear(pools, want, nodes)
	return why
}

func takePCI(pools []PCIPool, want []PCIRequest) ([]PCIPool, string) {
	return takeNear(pools, want, nil)
}

func takeNear(pools []PCIPool, want []PCIRequest, nodes []int) ([]PCIPool, string) {
	left := slices.Clone(pools)
	for i := range want {
		need := want[i].Count
		for k := range left {
			if need == 0 {
				break
			}
			if !left[k].matches(&want[i]) || !near(left[k].NUMA, nodes, want[i].NUMAPolicy) {
				continue
			}
			n := min(need, left[k].Count)
			left[k].Count -= n
			need -= n
		}
		if need > 0 {
			return nil, fmt.Sprintf("PCI alias %s: %d asked, %d free", want[i].Alias, want[i].Count, want[i].Count-need)
		}
	}
	return left, ""
}

// near applies the NUMA affinity policy: required takes only devices of the server's nodes, legacy also those of unknown place, preferred all.
func near(node int, nodes []int, policy string) bool {
	switch {
	case len(nodes) == 0 || policy == "preferred" || slices.Contains(nodes, node):
		return true
	case policy == "required" || policy == "socket":
		return false
	}
	return node < 0
}
