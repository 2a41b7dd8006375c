package compute

import (
	"maps"
	"slices"
	"strings"
)

// HostCell is one NUMA node of a host, what it has (the host's agent reports it) and what servers hold of it (conductors add it from the claims).
type HostCell struct {
	ID           int         `json:"id"`
	Socket       int         `json:"socket"`
	CPUs         []int       `json:"cpus"`             // on which virtual CPUs float
	PCPUs        []int       `json:"pcpus,omitempty"`  // set aside for pinned virtual CPUs
	Pinned       []int       `json:"pinned,omitempty"` // of PCPUs, held by servers
	Siblings     [][]int     `json:"siblings,omitempty"`
	MemoryMB     int64       `json:"memory_mb"`
	MemoryUsedMB int64       `json:"memory_used_mb"`      // by servers with a topology of their own
	CPUsUsed     int         `json:"cpus_used,omitempty"` // virtual CPUs of such servers that float on CPUs
	Pages        []HostPages `json:"pages,omitempty"`
}

// HostPages is a NUMA node's stock of memory pages of one size.
type HostPages struct {
	SizeKB   int64 `json:"size_kb"`
	Total    int64 `json:"total"`
	Used     int64 `json:"used"`
	Reserved int64 `json:"reserved"`
}

// The types of PCI devices.
const (
	PCIWhole    = "type-PCI" // a device of its own
	PCIPhysical = "type-PF"  // a device that has virtual functions, or may have
	PCIVirtual  = "type-VF"  // a virtual function
)

// HostDevice is a PCI device of a host that servers may have.
type HostDevice struct {
	Address   string            `json:"address"` // 0000:0a:00.1
	VendorID  string            `json:"vendor_id"`
	ProductID string            `json:"product_id"`
	Type      string            `json:"type"`             // PCIWhole, PCIPhysical, PCIVirtual
	Node      int               `json:"node"`             // NUMA node; -1: the host does not say
	Parent    string            `json:"parent,omitempty"` // address of a virtual function's device
	Tags      map[string]string `json:"tags,omitempty"`   // physical_network and what else the operator says of it
	Server    string            `json:"server,omitempty"` // who holds it
	MAC       string            `json:"mac,omitempty"`    // of its network interface
	// Gone tells that the host does not offer the device any more; it stays on record while a server holds it.
	Gone bool `json:"gone,omitempty"`
	// Provider is the uuid of the resource provider in placement that has the device; "": it is not reported there.
	Provider string `json:"-"`
}

// Facts are what requests are matched with: vendor_id, product_id, dev_type and the tags.
func (d *HostDevice) Facts() map[string]string {
	out := map[string]string{"vendor_id": d.VendorID, "product_id": d.ProductID, "dev_type": d.Type}
	for k, v := range d.Tags {
		out[k] = v
	}
	return out
}

// Claim is what a server holds of its host beyond amounts: CPUs, pages and devices by name. The conductor takes it, in a transaction that no
// two servers pass together, before the guest is made; it goes to the agent in the guest's specification.
type Claim struct {
	Cells []ClaimedCell `json:"cells,omitempty"`
	// Emulator are the CPUs for the hypervisor's own threads, when they have some apart.
	Emulator []int    `json:"emulator,omitempty"`
	Devices  []string `json:"devices,omitempty"` // PCI addresses, in the order in which the flavor asks for them
	// Ports are the devices (PCI addresses) that are network interfaces, by port.
	Ports map[string]string `json:"ports,omitempty"`
	// Unmanaged are those of the devices that the operator binds to their driver himself (tag managed).
	Unmanaged []string `json:"unmanaged,omitempty"`
	// Mediated are parts of devices, virtual GPUs for one.
	Mediated []MediatedDevice `json:"mediated,omitempty"`
}

// Addresses are all devices of the claim: those of the flavor and those of ports.
func (c *Claim) Addresses() []string {
	out := slices.Clone(c.Devices)
	for _, port := range slices.Sorted(maps.Keys(c.Ports)) {
		out = append(out, c.Ports[port])
	}
	return out
}

// Empty tells whether nothing is held.
func (c *Claim) Empty() bool {
	return len(c.Cells)+len(c.Emulator)+len(c.Devices)+len(c.Ports)+len(c.Mediated) == 0
}

// ClaimedCell is one NUMA node of a server and where it lies.
type ClaimedCell struct {
	Node     int         `json:"node"` // of the host
	CPUs     []int       `json:"cpus"` // virtual CPUs of the node
	MemoryMB int64       `json:"memory_mb"`
	PageKB   int64       `json:"page_kb,omitempty"` // 0: the host's usual pages
	Pins     map[int]int `json:"pins,omitempty"`    // virtual CPU -> CPU of the host
	Float    []int       `json:"float,omitempty"`   // CPUs of the host for those that are not pinned
	// Siblings are virtual CPUs that are pinned to threads of one core.
	Siblings [][]int `json:"siblings,omitempty"`
	// Blocked are threads beside pinned CPUs that the thread policy isolate keeps free.
	Blocked []int `json:"blocked,omitempty"`
	// Large tells that PageKB is more than the smallest page of the host, which takes pages set aside.
	Large bool `json:"large,omitempty"`
}

// Use puts what claims hold into a host's cells and devices, which are changed. It is how the scheduler's view of a host comes about.
func Use(cells []HostCell, devices []HostDevice, claims map[string][]Claim) {
	at := map[int]*HostCell{}
	for i := range cells {
		at[cells[i].ID] = &cells[i]
	}
	for server, all := range claims {
		for _, c := range all {
			for _, part := range c.Cells {
				if cell := at[part.Node]; cell != nil {
					cell.hold(&part)
				}
			}
			for i := range cells {
				for _, cpu := range c.Emulator {
					cells[i].pin(cpu)
				}
			}
			if len(c.Devices)+len(c.Ports) == 0 {
				continue
			}
			held := c.Addresses()
			for i := range devices {
				if slices.Contains(held, devices[i].Address) {
					devices[i].Server = server
				}
			}
		}
	}
	for i := range cells {
		slices.Sort(cells[i].Pinned)
	}
}

func (c *HostCell) hold(p *ClaimedCell) {
	for _, cpu := range p.Pins {
		c.pin(cpu)
	}
	for _, cpu := range p.Blocked {
		c.pin(cpu)
	}
	c.CPUsUsed += len(p.CPUs) - len(p.Pins)
	c.MemoryUsedMB += p.MemoryMB
	for i := range c.Pages {
		if c.Pages[i].SizeKB == p.PageKB {
			c.Pages[i].Used += p.MemoryMB << 10 / p.PageKB
		}
	}
}

func (c *HostCell) pin(cpu int) {
	if slices.Contains(c.PCPUs, cpu) && !slices.Contains(c.Pinned, cpu) {
		c.Pinned = append(c.Pinned, cpu)
	}
}

// Available tells whether the device at i can be had: the host has it and nobody holds it, nor the device whose function it is, nor any function of it.
func Available(devices []HostDevice, i int) bool {
	if devices[i].Server != "" || devices[i].Gone {
		return false
	}
	for k := range devices {
		if devices[k].Server != "" && devices[i].Excludes(&devices[k]) {
			return false
		}
	}
	return true
}

// Excludes tells whether one of two devices is a function of the other: only one of them can be had.
func (d *HostDevice) Excludes(o *HostDevice) bool {
	return d.Parent != "" && d.Parent == o.Address || o.Parent != "" && o.Parent == d.Address
}

// NeedsClaim tells whether a server of a flavor and an image with these properties may hold parts of its host by name. It is quick and errs on the side of yes.
func NeedsClaim(f *Flavor, props map[string]string) bool {
	for k := range f.ExtraSpecs {
		switch k {
		case "hw:cpu_policy", "hw:numa_nodes", "hw:mem_page_size", "pci_passthrough:alias":
			return true
		}
		if strings.HasPrefix(k, "resources") && strings.HasSuffix(k, ":PCPU") {
			return true
		}
	}
	if AsksMediated(f) {
		return true
	}
	for _, k := range []string{"hw_cpu_policy", "hw_numa_nodes", "hw_mem_page_size"} {
		if props[k] != "" {
			return true
		}
	}
	return false
}
