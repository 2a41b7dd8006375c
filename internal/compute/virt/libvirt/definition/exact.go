package definition

import (
	"encoding/xml"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"kilonova/internal/compute"
)

// MemoryBacking is the element <memoryBacking>.
type MemoryBacking struct {
	Huge     *HugePages `xml:"hugepages"`
	Unshared *Present   `xml:"nosharepages"`
	Locked   *Present   `xml:"locked"`
}

// HugePages is the element <hugepages>.
type HugePages struct {
	Pages []Page `xml:"page"`
}

// Page is the element <page>.
type Page struct {
	Size    int64  `xml:"size,attr"`
	Unit    string `xml:"unit,attr"`
	NodeSet string `xml:"nodeset,attr,omitempty"`
}

// CPUTune is the element <cputune>.
type CPUTune struct {
	Shares   int64   `xml:"shares,omitempty"`
	Period   int64   `xml:"period,omitempty"`
	Quota    int64   `xml:"quota,omitempty"`
	Pins     []Pin   `xml:"vcpupin"`
	Emulator *Pin    `xml:"emulatorpin"`
	Sched    []Sched `xml:"vcpusched"`
}

// Pin is the element <vcpupin>.
type Pin struct {
	VCPU   *int   `xml:"vcpu,attr"`
	CPUSet string `xml:"cpuset,attr"`
}

// Sched is the element <vcpusched>.
type Sched struct {
	VCPUs     string `xml:"vcpus,attr"`
	Scheduler string `xml:"scheduler,attr"`
	Priority  int    `xml:"priority,attr,omitempty"`
}

// NUMATune is the element <numatune>.
type NUMATune struct {
	Memory Bound   `xml:"memory"`
	Nodes  []Bound `xml:"memnode"`
}

// Bound is the element <memory> or <memnode> of <numatune>.
type Bound struct {
	Cell    *int   `xml:"cellid,attr"`
	Mode    string `xml:"mode,attr"`
	NodeSet string `xml:"nodeset,attr"`
}

// HostDev is the element <hostdev> of a PCI device.
type HostDev struct {
	XMLName xml.Name   `xml:"hostdev"`
	Mode    string     `xml:"mode,attr"`
	Type    string     `xml:"type,attr"`
	Model   string     `xml:"model,attr,omitempty"` // of a mediated device
	Managed string     `xml:"managed,attr,omitempty"`
	Address PCIAddress `xml:"source>address"`
	Alias   *Alias     `xml:"alias"`
}

// PCIAddress is the element <address> of a device.
type PCIAddress struct {
	Type     string `xml:"type,attr,omitempty"`
	Domain   string `xml:"domain,attr,omitempty"`
	Bus      string `xml:"bus,attr,omitempty"`
	Slot     string `xml:"slot,attr,omitempty"`
	Function string `xml:"function,attr,omitempty"`
	UUID     string `xml:"uuid,attr,omitempty"` // of a mediated device, which has no place on a bus
}

// Modelled is an element that has only a model: <sound>, <iommu>.
type Modelled struct {
	Model string `xml:"model,attr"`
}

// JoinInts writes a set of CPUs or nodes.
func JoinInts(n []int) string {
	s := make([]string, len(n))
	for i := range n {
		s[i] = strconv.Itoa(n[i])
	}
	return strings.Join(s, ",")
}

// Settle puts what the server holds of its host into the definition: its NUMA nodes and where they lie, pins, pages, devices. Its options say what is asked
// beyond that.
func (x *Domain) Settle(c *compute.Claim, o *Options) {
	for _, d := range c.Devices {
		if h := Device(d, c); h != nil {
			x.Devices.HostDevs = append(x.Devices.HostDevs, *h)
		}
	}
	for _, m := range c.Mediated {
		x.Devices.HostDevs = append(x.Devices.HostDevs, HostDev{Mode: "subsystem", Type: mdevType, Model: "vfio-pci", Address: PCIAddress{UUID: m.UUID}})
	}
	if len(c.Cells) == 0 {
		return
	}
	if x.CPU == nil {
		x.CPU = &CPU{}
	}
	if x.CPUTune == nil {
		x.CPUTune = &CPUTune{}
	}
	x.CPU.NUMA = &NUMA{}
	var nodes, all []int
	x.NUMATune = &NUMATune{Memory: Bound{Mode: "strict"}}
	for i, cell := range c.Cells {
		x.CPU.NUMA.Cells = append(x.CPU.NUMA.Cells, Cell{ID: i, CPUs: JoinInts(cell.CPUs), Memory: cell.MemoryMB, Unit: "MiB"})
		x.NUMATune.Nodes = append(x.NUMATune.Nodes, Bound{Cell: &i, Mode: "strict", NodeSet: strconv.Itoa(cell.Node)})
		nodes = append(nodes, cell.Node)
		for _, v := range cell.CPUs {
			set := JoinInts(cell.Float)
			if cpu, pinned := cell.Pins[v]; pinned {
				set = strconv.Itoa(cpu)
			}
			if set != "" {
				x.CPUTune.Pins = append(x.CPUTune.Pins, Pin{VCPU: &v, CPUSet: set})
			}
		}
		all = append(append(all, cell.Float...), slices.Sorted(maps.Values(cell.Pins))...)
		if cell.Large {
			x.backing().addPages(Page{Size: cell.PageKB, Unit: "KiB", NodeSet: strconv.Itoa(i)})
		}
	}
	if n, vcpus := threads(c); n > 1 && o.Topology == nil {
		x.CPU.Topology = &Topology{Sockets: vcpus / n, Cores: 1, Threads: n}
	}
	slices.Sort(nodes)
	x.NUMATune.Memory.NodeSet = JoinInts(nodes)
	if len(c.Emulator) > 0 {
		all = c.Emulator
	}
	slices.Sort(all)
	if all = slices.Compact(all); len(all) > 0 {
		x.CPUTune.Emulator = &Pin{CPUSet: JoinInts(all)}
	}
	if len(o.Realtime) > 0 {
		x.CPUTune.Sched = []Sched{{VCPUs: JoinInts(o.Realtime), Scheduler: "fifo", Priority: 1}}
		x.backing().Locked, x.backing().Unshared = &Present{}, &Present{}
	}
	if o.Locked {
		x.backing().Locked = &Present{}
	}
}

const mdevType = "mdev"

// Mediated gives the parts of devices that a definition has, by uuid; no definition has none.
func (x *Domain) Mediated() (out []string) {
	if x == nil {
		return nil
	}
	for _, h := range x.Devices.HostDevs {
		if h.Type == mdevType {
			out = append(out, h.Address.UUID)
		}
	}
	return out
}

// Device gives a guest a PCI device of its host; nil: the address is none. c is the claim that holds it.
func Device(address string, c *compute.Claim) *HostDev {
	a := Address(address)
	if a == nil {
		return nil
	}
	return &HostDev{Mode: "subsystem", Type: "pci", Managed: managed(address, c), Address: *a}
}

// DeviceInterface gives a guest a virtual function as an interface: the hypervisor sets its MAC and VLAN before.
func DeviceInterface(address string, c *compute.Claim) *Interface {
	a := Address(address)
	if a == nil {
		return nil
	}
	a.Type = "pci"
	return &Interface{Type: "hostdev", Managed: managed(address, c), Source: InterfaceSource{Address: a}}
}

func managed(address string, c *compute.Claim) string {
	if c != nil && slices.Contains(c.Unmanaged, address) {
		return "no"
	}
	return "yes"
}

// Address reads a PCI address as 0000:0a:00.1; nil: it is none.
func Address(text string) *PCIAddress {
	n := len(text)
	if n < 12 {
		return nil
	}
	part := func(from, to int) string { return "0x" + text[from:to] }
	return &PCIAddress{Domain: part(0, n-8), Bus: part(n-7, n-5), Slot: part(n-4, n-2), Function: part(n-1, n)}
}

// threads tells how many threads a core of the guest has, when all its CPUs are pinned to threads of the host's cores in like manner: 0, 1 on one core, 2, 3
// on the next. 1 otherwise.
func threads(c *compute.Claim) (n, vcpus int) {
	covered := 0
	for _, cell := range c.Cells {
		vcpus += len(cell.CPUs)
		for _, set := range cell.Siblings {
			if n == 0 {
				n = len(set)
			}
			for i, v := range set {
				if len(set) != n || v%n != i || v-i != set[0] {
					return 1, 0
				}
			}
			covered += len(set)
		}
	}
	if covered != vcpus {
		return 1, vcpus
	}
	return n, vcpus
}

func (x *Domain) backing() *MemoryBacking {
	if x.Backing == nil {
		x.Backing = &MemoryBacking{}
	}
	return x.Backing
}

func (m *MemoryBacking) addPages(p Page) {
	if m.Huge == nil {
		m.Huge = &HugePages{}
	}
	m.Huge.Pages = append(m.Huge.Pages, p)
}

// parseRealtime reads which virtual CPUs run in real time: those pinned, or those of the mask ("^0" leaves out the first).
func parseRealtime(mask string, vcpus int) ([]int, error) {
	if mask == "" {
		mask = fmt.Sprintf("0-%d", vcpus-1)
	}
	if strings.HasPrefix(strings.TrimSpace(mask), "^") {
		mask = fmt.Sprintf("0-%d,%s", vcpus-1, mask)
	}
	set, err := parseCPUSet(mask, vcpus)
	if err != nil {
		return nil, fmt.Errorf("the mask of real-time CPUs %q %w", mask, err)
	}
	return set, nil
}
