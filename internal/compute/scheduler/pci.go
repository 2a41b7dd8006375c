package scheduler

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"kilonova/internal/compute"
	"kilonova/internal/id"
	"kilonova/internal/network"
)

// PCIPool is a host's stock of devices that are alike.
type PCIPool struct {
	Tags  map[string]string // vendor_id, product_id, dev_type, physical_network …
	NUMA  int               // node; -1: the host does not say
	Count int               // free devices
	// Provider is the uuid of the resource provider that has them in placement; "": they are not reported there.
	Provider string
}

// Pools counts the devices of a host that can be had by what they are and where.
func Pools(devices []compute.HostDevice) []PCIPool {
	var out []PCIPool
	for i := range devices {
		d := &devices[i]
		if !compute.Available(devices, i) {
			continue
		}
		facts := d.Facts()
		k := slices.IndexFunc(out, func(p PCIPool) bool { return p.NUMA == d.Node && p.Provider == d.Provider && maps.Equal(p.Tags, facts) })
		if k < 0 {
			out = append(out, PCIPool{Tags: facts, NUMA: d.Node, Provider: d.Provider})
			k = len(out) - 1
		}
		out[k].Count++
	}
	return out
}

// PCIRequests makes requests of what a flavor wants; inPlacement (option pci_in_placement) has them go through placement. server is the server's id.
func PCIRequests(server string, wants []compute.PCIWant, inPlacement bool) []PCIRequest {
	var out []PCIRequest
	for i, w := range wants {
		r := PCIRequest{ID: id.Derived(server, "pci", strconv.Itoa(i)), Alias: w.Alias, Count: w.Count, Specs: w.Specs, NUMAPolicy: w.NUMAPolicy}
		if inPlacement && len(w.Specs) > 0 {
			r.Class, r.Traits = deviceClass(w.Class, w.Specs[0]["vendor_id"], w.Specs[0]["product_id"]), deviceTraits(w.Traits)
		}
		out = append(out, r)
	}
	return out
}

// PortRequests makes requests of the ports that are PCI devices; policy is the NUMA affinity policy of flavor and image, for ports without one of their own.
func PortRequests(ports []compute.PortDevice, policy string) []PCIRequest {
	var out []PCIRequest
	for i := range ports {
		if p := &ports[i]; network.IsDevice(p.VNICType) {
			out = append(out, PCIRequest{ID: p.PortID, Count: 1, Specs: []map[string]string{p.Facts()}, NUMAPolicy: cmp.Or(p.NUMAPolicy, policy)})
		}
	}
	return out
}

func (p *PCIPool) matches(r *PCIRequest) bool {
	return (r.Provider == "" || r.Provider == p.Provider) && compute.Matches(r.Specs, p.Tags)
}

// FitPCI tells, in words, why the pools do not have what is asked; "" when they have. nodes are the host NUMA nodes of the server; nil: no
// NUMA placement.
func FitPCI(pools []PCIPool, want []PCIRequest, nodes []int) string {
	_, why := choose(pools, want, where{nodes: nodes})
	return why
}

// where is where a server's NUMA nodes lie on a host; the zero value: nowhere in particular.
type where struct {
	nodes   []int
	sockets map[int]int // socket of each node of the host
}

// choose finds pools for all devices that are asked for, by request and unit; a device that several requests could have goes where all get theirs. why says what is
// missing when there is no way.
func choose(pools []PCIPool, want []PCIRequest, at where) (chosen [][]int, why string) {
	type unit struct{ request, n int }
	holders := make([][]unit, len(pools)) // who has what of a pool
	chosen = make([][]int, len(want))
	var give func(u unit, tried []bool) bool
	give = func(u unit, tried []bool) bool {
		r := &want[u.request]
		for k := range pools {
			if tried[k] || pools[k].Count == 0 || !pools[k].matches(r) || !at.near(pools[k].NUMA, r.NUMAPolicy) {
				continue
			}
			tried[k] = true
			if len(holders[k]) < pools[k].Count {
				holders[k] = append(holders[k], u)
				chosen[u.request][u.n] = k
				return true
			}
			for i, other := range holders[k] {
				if give(other, tried) {
					holders[k][i] = u
					chosen[u.request][u.n] = k
					return true
				}
			}
		}
		return false
	}
	for i := range want {
		chosen[i] = make([]int, want[i].Count)
		for n := range want[i].Count {
			if !give(unit{i, n}, make([]bool, len(pools))) {
				return nil, want[i].missing(n)
			}
		}
	}
	return chosen, ""
}

// missing says that only so many of the devices can be had.
func (r *PCIRequest) missing(free int) string {
	if r.Alias == "" {
		return fmt.Sprintf("port %s: no free device of its physical network", r.ID)
	}
	return fmt.Sprintf("PCI alias %s: %d asked, %d free", r.Alias, r.Count, free)
}

// near applies the NUMA affinity policy to a device on a node.
func (w where) near(node int, policy string) bool {
	if policy != "socket" || len(w.nodes) == 0 {
		return near(node, w.nodes, policy)
	}
	socket, known := w.sockets[node]
	return known && slices.ContainsFunc(w.nodes, func(n int) bool { return w.sockets[n] == socket })
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
