package fake

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"kilonova/internal/compute"
	"kilonova/internal/compute/virt"
	"kilonova/internal/db"
	"kilonova/internal/fault"
)

// Hardware is what a fake host plays beyond amounts; the zero value plays no NUMA nodes and no devices.
type Hardware struct {
	// Nodes is the number of NUMA nodes (one socket each) over which CPUs, memory, pages and devices are spread evenly; 0: the host reports none.
	Nodes int
	// Threads of a core; 0: 1.
	Threads int
	// Dedicated are the CPUs for pinned virtual CPUs, Shared those for others; without Shared these are all that are not dedicated.
	Dedicated, Shared []int
	// Pages is the stock of large pages of the whole host by size in KiB.
	Pages map[int64]int64
	// Metrics are what the host measures.
	Metrics map[string]float64
	// Devices are PCI devices; one without an address gets one, one without a NUMA node (-1 is "unknown") is spread over the nodes.
	Devices []compute.HostDevice
	// Mediated are devices of which servers may have parts.
	Mediated []compute.HostMediated
}

// cells plays the NUMA nodes of a host with so many CPUs and so much memory.
func (h *Hardware) cells(cpus int, memoryMB int64) []compute.HostCell {
	if h.Nodes <= 0 {
		return nil
	}
	threads := max(h.Threads, 1)
	out := make([]compute.HostCell, h.Nodes)
	per := (cpus + h.Nodes - 1) / h.Nodes
	per = (per + threads - 1) / threads * threads // a core's threads are of one node
	for n := range out {
		c := compute.HostCell{ID: n, Socket: n, MemoryMB: memoryMB / int64(h.Nodes)}
		for cpu := n * per; cpu < min((n+1)*per, cpus); cpu++ {
			switch {
			case slices.Contains(h.Dedicated, cpu):
				c.PCPUs = append(c.PCPUs, cpu)
			case len(h.Shared) == 0 || slices.Contains(h.Shared, cpu):
				c.CPUs = append(c.CPUs, cpu)
			}
			if core := (cpu - n*per) / threads; threads > 1 && core < len(c.Siblings) {
				c.Siblings[core] = append(c.Siblings[core], cpu)
			} else if threads > 1 {
				c.Siblings = append(c.Siblings, []int{cpu})
			}
		}
		left := c.MemoryMB << 10
		for _, size := range sizes(h.Pages) {
			total := h.Pages[size] / int64(h.Nodes)
			c.Pages = append(c.Pages, compute.HostPages{SizeKB: size, Total: total})
			left -= size * total
		}
		c.Pages = slices.Insert(c.Pages, 0, compute.HostPages{SizeKB: 4, Total: max(left, 0) / 4})
		out[n] = c
	}
	return out
}

func sizes(pages map[int64]int64) []int64 {
	var out []int64
	for s := range pages {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

// devices plays the PCI devices.
func (h *Hardware) devices() []compute.HostDevice {
	out := slices.Clone(h.Devices)
	for i := range out {
		d := &out[i]
		if d.Address == "" {
			d.Address = fmt.Sprintf("0000:%02x:%02x.0", 0x80+i/32, i%32)
		}
		if d.Type == "" {
			d.Type = compute.PCIWhole
		}
		if d.Node == 0 && h.Nodes > 0 {
			d.Node = i % h.Nodes
		} else if h.Nodes == 0 {
			d.Node = -1
		}
	}
	return out
}

// plugged demands, as a hypervisor would, that a running guest's interfaces that are PCI devices are devices of its host.
func (d *Driver) plugged(host string, g *guest) error {
	if g.Power != virt.Running || host != d.cfg.Host {
		return nil
	}
	for _, v := range compute.DevicesOf(g.Spec.VIFs) {
		address := ""
		if g.Spec.Claim != nil {
			address = g.Spec.Claim.Ports[v.PortID]
		}
		if !slices.ContainsFunc(d.cfg.devices(), func(h compute.HostDevice) bool { return h.Address == address }) {
			return fault.New(fault.Conflict, "The port %s is no PCI device of host %s (%q).", v.PortID, host, address)
		}
	}
	return nil
}

// divided demands, as a hypervisor would, that the parts of devices that a guest is made with are of this host, and that no device is divided further than it can be.
func (d *Driver) divided(ctx context.Context, q db.Querier, spec *virt.Spec) error {
	if spec.Claim.LacksVGPU(spec.ExtraSpecs) {
		return fault.New(fault.Conflict, "No virtual GPU of the host was set aside for the server.")
	}
	if spec.Claim == nil || len(spec.Claim.Mediated) == 0 {
		return nil
	}
	left := map[string]int64{}
	for _, m := range d.cfg.Mediated {
		left[m.Address+" "+m.Type] = m.Total
	}
	taken := map[string]bool{}
	guests, err := d.others(ctx, q, spec.ID)
	if err != nil {
		return err
	}
	for _, g := range append(guests, &guest{ID: spec.ID, doc: doc{Spec: *spec}}) {
		if g.Spec.Claim == nil {
			continue
		}
		for _, m := range g.Spec.Claim.Mediated {
			if taken[m.UUID] {
				return fault.New(fault.Conflict, "The mediated device %s is given twice.", m.UUID)
			}
			taken[m.UUID] = true
			if left[m.Parent+" "+m.Type]--; left[m.Parent+" "+m.Type] < 0 {
				return fault.New(fault.Conflict, "The device %s of host %s has no more parts of the type %s.", m.Parent, d.host, m.Type)
			}
		}
	}
	return nil
}

// others gives the guests of the host but one.
func (d *Driver) others(ctx context.Context, q db.Querier, but string) (out []*guest, err error) {
	rows, err := q.Query(ctx, "SELECT id, doc FROM fake_guests WHERE host = ? AND id <> ?", d.host, but)
	if err != nil {
		return nil, fmt.Errorf("fake guests: %w", err)
	}
	defer func() {
		if e := rows.Close(); err == nil {
			err = e
		}
	}()
	for rows.Next() {
		g, text := &guest{}, ""
		if err := rows.Scan(&g.ID, &text); err != nil {
			return nil, fmt.Errorf("fake guests: %w", err)
		}
		if err := json.Unmarshal([]byte(text), &g.doc); err != nil {
			return nil, fmt.Errorf("fake guest %s: %w", g.ID, err)
		}
		out = append(out, g)
	}
	return out, rows.Err()
}

// Spec gives what a guest was made of, as it is now: what a look into a real hypervisor would show.
func (d *Driver) Spec(ctx context.Context, id string) (*virt.Spec, error) {
	g, err := d.present(ctx, d.cfg.DB, id)
	if err != nil {
		return nil, err
	}
	return &g.Spec, nil
}
