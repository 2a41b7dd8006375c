package scheduler

import (
	"reflect"
	"slices"

	"kilonova/internal/compute"
)

// mostFits bounds how many ways to lay a server's NUMA nodes are tried for the sake of its devices.
const mostFits = 10000

// FitHost is NUMA.Fit with the server's PCI devices near its nodes, as their affinity policies want.
func FitHost(n *NUMA, pools []PCIPool, t *Topology, want []PCIRequest) (placed []Placed, why string) {
	if placed, why = n.Fit(t); why != "" || len(want) == 0 {
		return placed, why
	}
	sockets := map[int]int{}
	for i := range n.Cells {
		sockets[n.Cells[i].ID] = n.Cells[i].Socket
	}
	if _, why = choose(pools, want, n.place(placed, sockets)); why == "" {
		return placed, ""
	}
	// The first way to lay the nodes has the devices too far away: try the others.
	fits := make([][]*Placed, len(t.Cells))
	for i := range t.Cells {
		fits[i] = make([]*Placed, len(n.Cells))
		for c := range n.Cells {
			if p, reason := n.fit(c, &t.Cells[i], t, i == 0 && t.Isolate); reason == "" {
				p.Cell = c
				fits[i][c] = &p
			}
		}
	}
	tries, used := 0, make([]bool, len(n.Cells))
	way := make([]Placed, len(t.Cells))
	var lay func(i int) bool
	lay = func(i int) bool {
		if i == len(way) {
			tries++
			_, reason := choose(pools, want, n.place(way, sockets))
			return reason == ""
		}
		for c, p := range fits[i] {
			if p == nil || used[c] || tries >= mostFits {
				continue
			}
			used[c], way[i] = true, *p
			if lay(i + 1) {
				return true
			}
			used[c] = false
		}
		return false
	}
	if lay(0) {
		return way, ""
	}
	return nil, why + " near its NUMA nodes"
}

// place is where the nodes of a fit lie.
func (n *NUMA) place(placed []Placed, sockets map[int]int) where {
	w := where{sockets: sockets}
	for _, p := range placed {
		w.nodes = append(w.nodes, n.Cells[p.Cell].ID)
	}
	return w
}

// Needs tells whether a request asks for parts of a host by name: NUMA nodes, pinned CPUs, page sizes, PCI devices or, perhaps, parts of these.
func Needs(r *Request) (bool, error) {
	t, err := TopologyOf(r)
	return t != nil || len(r.PCI) > 0 || compute.AsksMediated(&r.Flavor), err
}

// SameTopology tells whether servers of a flavor ask for the same NUMA nodes, pinned CPUs and pages with either image's properties. What is contradictory is the same
// as anything.
func SameTopology(f *compute.Flavor, was, now map[string]string) bool {
	a, e1 := TopologyOf(&Request{Flavor: *f, Image: Image{Props: was}})
	b, e2 := TopologyOf(&Request{Flavor: *f, Image: Image{Props: now}})
	return e1 != nil || e2 != nil || reflect.DeepEqual(a, b)
}

// Take chooses the parts of a host that a request asks for among what nobody holds: cells and devices have what is held in them (compute.Use). why says what is
// missing when there is not enough; a request that asks for nothing of the kind gets nil.
func Take(r *Request, cells []compute.HostCell, devices []compute.HostDevice, cpuRatio, ramRatio float64) (claim *compute.Claim, why string, err error) {
	t, err := TopologyOf(r)
	if err != nil || t == nil && len(r.PCI)+len(r.Mediated) == 0 {
		return nil, "", err
	}
	free, names := single(devices)
	claim = &compute.Claim{Mediated: r.Mediated}
	at := where{}
	if t != nil {
		n := Cells(cells)
		if n == nil {
			return nil, "it reports no NUMA topology", nil
		}
		n.CPURatio, n.RAMRatio = cpuRatio, ramRatio
		placed, why := FitHost(n, free, t, r.PCI)
		if why != "" {
			return nil, why, nil
		}
		pinned, err := PinnedCPUs(r)
		if err != nil {
			return nil, "", err
		}
		lay(claim, n, t, placed, pinned)
		sockets := map[int]int{}
		for i := range n.Cells {
			sockets[n.Cells[i].ID] = n.Cells[i].Socket
		}
		at = n.place(placed, sockets)
	}
	chosen, why := pick(devices, names, free, r.PCI, at)
	if why != "" {
		return nil, why, nil
	}
	take(claim, r.PCI, chosen)
	for i := range devices {
		if devices[i].Tags[compute.TagManaged] == "false" && slices.Contains(claim.Addresses(), devices[i].Address) {
			claim.Unmanaged = append(claim.Unmanaged, devices[i].Address)
		}
	}
	return claim, "", nil
}

// lay writes where each node of the server lies.
func lay(claim *compute.Claim, n *NUMA, t *Topology, placed []Placed, pinned []int) {
	for i, p := range placed {
		host, guest := &n.Cells[p.Cell], &t.Cells[i]
		cell := compute.ClaimedCell{Node: host.ID, CPUs: guest.CPUs, MemoryMB: guest.MemoryMB, PageKB: p.PageKB, Blocked: p.Blocked}
		given := p.Pinned
		for _, cpu := range guest.CPUs {
			if slices.Contains(pinned, cpu) {
				if cell.Pins == nil {
					cell.Pins = map[int]int{}
				}
				cell.Pins[cpu], given = given[0], given[1:]
			}
		}
		cell.Siblings = siblings(host, guest.CPUs, cell.Pins)
		claim.Emulator = append(claim.Emulator, given...)
		if len(cell.Pins) < len(cell.CPUs) {
			cell.Float = host.CPUs
		}
		for _, s := range host.Pages {
			cell.Large = cell.Large || p.PageKB > s.SizeKB
		}
		claim.Cells = append(claim.Cells, cell)
	}
}

// siblings groups virtual CPUs by the core on which their threads are.
func siblings(host *NUMACell, cpus []int, pins map[int]int) [][]int {
	var out [][]int
	for _, core := range host.Siblings {
		var group []int
		for _, v := range cpus {
			if at, ok := pins[v]; ok && slices.Contains(core, at) {
				group = append(group, v)
			}
		}
		if len(group) > 1 {
			out = append(out, group)
		}
	}
	return out
}

// TakePort chooses the device of one more port for a server that is on the host and holds a claim there; devices have what is held in them.
func TakePort(r PCIRequest, claim *compute.Claim, cells []compute.HostCell, devices []compute.HostDevice) (address, why string) {
	at := where{sockets: map[int]int{}}
	for _, c := range cells {
		at.sockets[c.ID] = c.Socket
	}
	if claim != nil {
		for _, c := range claim.Cells {
			at.nodes = append(at.nodes, c.Node)
		}
	}
	free, names := single(devices)
	chosen, why := pick(devices, names, free, []PCIRequest{r}, at)
	if why != "" {
		return "", why
	}
	return chosen[0][0], ""
}

// single gives a pool for each device that can be had, and which device it is.
func single(devices []compute.HostDevice) (free []PCIPool, names []int) {
	for i := range devices {
		if compute.Available(devices, i) {
			free = append(free, PCIPool{Tags: devices[i].Facts(), NUMA: devices[i].Node, Count: 1, Provider: devices[i].Provider})
			names = append(names, i)
		}
	}
	return free, names
}

// take writes the chosen devices, by request, into a claim.
func take(c *compute.Claim, want []PCIRequest, chosen [][]string) {
	for i, addresses := range chosen {
		if want[i].Alias != "" {
			c.Devices = append(c.Devices, addresses...)
			continue
		}
		if c.Ports == nil {
			c.Ports = map[string]string{}
		}
		c.Ports[want[i].ID] = addresses[0]
	}
}

// pick chooses devices by address for each request; of a device and its functions it takes one or the other.
func pick(devices []compute.HostDevice, names []int, free []PCIPool, want []PCIRequest, at where) (addresses [][]string, why string) {
	chosen, why := choose(free, want, at)
	if why != "" {
		return nil, why
	}
	taken := slices.Concat(chosen...) // indexes of free
	for i, a := range taken {
		for _, b := range taken[:i] {
			if !devices[names[a]].Excludes(&devices[names[b]]) {
				continue
			}
			for _, without := range []int{a, b} {
				rest := slices.Clone(free)
				rest[without].Count = 0
				if got, reason := pick(devices, names, rest, want, at); reason == "" {
					return got, ""
				}
			}
			return nil, "a PCI device and a function of it cannot both be had"
		}
	}
	addresses = make([][]string, len(chosen))
	for i, units := range chosen {
		for _, k := range units {
			addresses[i] = append(addresses[i], devices[names[k]].Address)
		}
	}
	return addresses, ""
}
