package scheduler

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"kilonova/internal/compute"
	"kilonova/internal/fault"
)

// NUMA is the topology of a host with what is taken of it.
type NUMA struct {
	Cells []NUMACell
	// CPURatio and RAMRatio are how often floating CPUs, and memory of no particular page size, are given out; 0: once.
	CPURatio, RAMRatio float64
}

// NUMACell is one NUMA node of a host.
type NUMACell struct {
	ID           int
	Socket       int
	CPUs         []int   // for floating vCPUs
	PCPUs        []int   // for pinned vCPUs
	Pinned       []int   // of PCPUs, taken
	Siblings     [][]int // threads of one core each; empty: no hyperthreads
	MemoryMB     int64
	MemoryUsedMB int64
	CPUsUsed     int // floating vCPUs of servers with a topology
	Pages        []Pages
}

// Pages is the stock of one page size.
type Pages struct {
	SizeKB, Total, Used, Reserved int64
}

// Topology is what a server asks of NUMA, pinning and pages.
type Topology struct {
	Cells        []GuestCell
	ThreadPolicy string // prefer, isolate, require; "" prefer
	Isolate      bool   // one more pinned CPU for the emulator threads
	PageSize     string // "", small, large, any or kilobytes
}

// GuestCell is one NUMA node of a server.
type GuestCell struct {
	CPUs     []int // all its vCPUs
	Pinned   int   // how many of them are pinned
	MemoryMB int64
}

// TopologyOf reads what the flavor and the image ask for; nil when nothing is asked. Contradictions are fault.Invalid.
func TopologyOf(r *Request) (*Topology, error) {
	cpus, err := cpuPolicyOf(r)
	if err != nil {
		return nil, err
	}
	pages, err := pageSize(r)
	if err != nil {
		return nil, err
	}
	nodes, bad := r.FlavorOrImage("numa_nodes")
	if bad {
		return nil, conflict("hw:numa_nodes", "hw_numa_nodes")
	}
	if locked, _ := r.FlavorOrImage("locked_memory"); True(locked) && pages == "" {
		return nil, fault.New(fault.Invalid, "hw:locked_memory needs hw:mem_page_size.")
	}
	if nodes == "" && pages == "" && len(cpus.pinned) == 0 {
		return nil, nil //nolint:nilnil // nothing asked
	}
	n := max(atoi(nodes), 1)
	if n > int64(r.Flavor.VCPUs) {
		return nil, fault.New(fault.Invalid, "%d NUMA nodes are asked for %d vCPUs; each needs at least one.", n, r.Flavor.VCPUs)
	}
	t := &Topology{ThreadPolicy: cpus.threads, PageSize: pages, Isolate: cpus.isolate}
	if t.Cells, err = guestCells(r, int(n)); err != nil {
		return nil, err
	}
	for i := range t.Cells {
		for _, c := range t.Cells[i].CPUs {
			if slices.Contains(cpus.pinned, c) {
				t.Cells[i].Pinned++
			}
		}
	}
	return t, nil
}

// Cells makes the scheduler's view of the NUMA nodes that a host reports; nil when it reports none.
func Cells(in []compute.HostCell) *NUMA {
	if len(in) == 0 {
		return nil
	}
	out := &NUMA{Cells: make([]NUMACell, len(in))}
	for i, c := range in {
		cell := NUMACell{ID: c.ID, Socket: c.Socket, CPUs: c.CPUs, PCPUs: c.PCPUs, Pinned: c.Pinned, Siblings: c.Siblings, MemoryMB: c.MemoryMB, MemoryUsedMB: c.MemoryUsedMB,
			CPUsUsed: c.CPUsUsed}
		for _, p := range c.Pages {
			cell.Pages = append(cell.Pages, Pages{SizeKB: p.SizeKB, Total: p.Total, Used: p.Used, Reserved: p.Reserved})
		}
		out.Cells[i] = cell
	}
	return out
}

func conflict(flavor, image string) error {
	return fault.New(fault.Invalid, "The image property %s differs from the flavor's %s.", image, flavor)
}

// pageSize: the image may only choose where the flavor says large or any.
func pageSize(r *Request) (string, error) {
	f, i := r.Spec("hw:mem_page_size"), r.Prop("hw_mem_page_size")
	switch {
	case i == "":
		return kilobytes(f)
	case f == "large" || f == "any":
		return kilobytes(i)
	}
	return "", fault.New(fault.Forbidden, "Page size %s forbidden against '%s': the flavor lets images choose only with large or any.", i, f)
}

// kilobytes normalises a page size: words stay, sizes become kilobytes.
func kilobytes(s string) (string, error) {
	switch s {
	case "", "small", "large", "any":
		return s, nil
	}
	digits := strings.TrimRight(s, "kKMGTibB ")
	unit := strings.ToLower(s[len(digits):])
	factor := map[string]int64{"": 1, "k": 1, "kb": 1, "kib": 1, "m": 1 << 10, "mb": 1 << 10, "mib": 1 << 10, "g": 1 << 20, "gb": 1 << 20, "gib": 1 << 20}[unit]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || factor == 0 || n <= 0 {
		return "", fault.New(fault.Invalid, "Invalid memory page size '%s'", s)
	}
	return strconv.FormatInt(n*factor, 10), nil
}

// CPUSet reads "0-3,^2" as a subset of all. A set that begins with ^ leaves out of all.
func CPUSet(s string, all []int) ([]int, error) {
	in := map[int]bool{}
	last := -1
	if len(all) > 0 {
		last = slices.Max(all)
	}
	if strings.HasPrefix(s, "^") {
		for _, c := range all {
			in[c] = true
		}
	}
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		not := strings.HasPrefix(part, "^")
		low, high, isRange := strings.Cut(strings.TrimPrefix(part, "^"), "-")
		a, e1 := strconv.Atoi(low)
		b := a
		var e2 error
		if isRange {
			b, e2 = strconv.Atoi(high)
		}
		if e1 != nil || e2 != nil || a < 0 || b < a {
			return nil, fault.New(fault.Invalid, "%q is not a set of CPUs; write it as 0-3,^2.", s)
		}
		if b > last {
			return nil, fault.New(fault.Invalid, "The set %q names vCPU %d, which the flavor does not have.", s, b)
		}
		for c := a; c <= b; c++ {
			in[c] = !not
		}
	}
	var out []int
	for c, yes := range in {
		if !yes {
			continue
		}
		if !slices.Contains(all, c) {
			return nil, fault.New(fault.Invalid, "The set %q names vCPU %d, which the flavor does not have.", s, c)
		}
		out = append(out, c)
	}
	slices.Sort(out)
	return out, nil
}

// guestCells spreads vCPUs and memory over the nodes, as told or evenly.
func guestCells(r *Request, n int) ([]GuestCell, error) {
	all := make([]int, r.Flavor.VCPUs)
	for i := range all {
		all[i] = i
	}
	cells := make([]GuestCell, n)
	explicit := 0
	cpus, memory := 0, int64(0)
	for i := range cells {
		set, _ := r.FlavorOrImage("numa_cpus." + strconv.Itoa(i))
		mem, _ := r.FlavorOrImage("numa_mem." + strconv.Itoa(i))
		if set != "" && mem != "" {
			explicit++
			var err error
			if cells[i].CPUs, err = CPUSet(set, all); err != nil {
				return nil, err
			}
			cells[i].MemoryMB = atoi(mem)
			cpus += len(cells[i].CPUs)
			memory += cells[i].MemoryMB
		} else if set != "" || mem != "" {
			return nil, fault.New(fault.Invalid, "NUMA node %d needs both hw:numa_cpus.%d and hw:numa_mem.%d.", i, i, i)
		}
	}
	switch {
	case explicit == 0 && (r.Flavor.VCPUs%n != 0 || r.Flavor.RAMMB%int64(n) != 0):
		return nil, fault.New(fault.Invalid, "%d vCPUs and %d MB do not divide into %d NUMA nodes; give hw:numa_cpus.N and hw:numa_mem.N.", r.Flavor.VCPUs, r.Flavor.RAMMB, n)
	case explicit == 0:
		each := r.Flavor.VCPUs / n
		for i := range cells {
			cells[i] = GuestCell{CPUs: all[i*each : (i+1)*each], MemoryMB: r.Flavor.RAMMB / int64(n)}
		}
	case explicit != n:
		return nil, fault.New(fault.Invalid, "hw:numa_cpus.N and hw:numa_mem.N must be given for all %d NUMA nodes or for none.", n)
	case cpus != r.Flavor.VCPUs || memory != r.Flavor.RAMMB:
		return nil, fault.New(fault.Invalid, "The NUMA nodes have %d vCPUs and %d MB, the flavor %d and %d.", cpus, memory, r.Flavor.VCPUs, r.Flavor.RAMMB)
	}
	return cells, nil
}

// Placed is where one guest node goes.
type Placed struct {
	Cell   int   // index into NUMA.Cells
	Pinned []int // host CPUs for its pinned vCPUs, the emulator's last
	// Blocked are threads beside pinned CPUs that the thread policy isolate keeps free.
	Blocked []int
	PageKB  int64 // 0: whatever the host uses
}

// Fit finds a host node for each guest node; why says what is missing when there is none.
func (n *NUMA) Fit(t *Topology) (placed []Placed, why string) {
	if len(t.Cells) > len(n.Cells) {
		return nil, fmt.Sprintf("%d NUMA nodes asked, the host has %d", len(t.Cells), len(n.Cells))
	}
	m := matching{guest: make([][]*Placed, len(t.Cells)), of: make([]int, len(n.Cells))}
	for c := range m.of {
		m.of[c] = -1
	}
	for i := range t.Cells {
		m.guest[i] = make([]*Placed, len(n.Cells))
		for c := range n.Cells {
			p, reason := n.fit(c, &t.Cells[i], t, i == 0 && t.Isolate)
			if reason != "" {
				why = fmt.Sprintf("NUMA node %d: %s", n.Cells[c].ID, reason)
				continue
			}
			p.Cell = c
			m.guest[i][c] = &p
		}
		if !m.place(i, make([]bool, len(n.Cells))) {
			if why == "" {
				why = fmt.Sprintf("its NUMA nodes hold %d of the server's %d at once", i, len(t.Cells))
			}
			return nil, why
		}
	}
	placed = make([]Placed, len(t.Cells))
	for c, i := range m.of {
		if i >= 0 {
			placed[i] = *m.guest[i][c]
		}
	}
	return placed, ""
}

// matching gives guest nodes different host nodes: a guest node takes a host node from another when that one finds a new one.
type matching struct {
	guest [][]*Placed // by guest and host node; nil: does not fit
	of    []int       // guest node on each host node, -1: none
}

func (m *matching) place(i int, tried []bool) bool {
	for c, p := range m.guest[i] {
		if p == nil || tried[c] {
			continue
		}
		tried[c] = true
		if m.of[c] < 0 || m.place(m.of[c], tried) {
			m.of[c] = i
			return true
		}
	}
	return false
}

func (n *NUMA) fit(cell int, g *GuestCell, t *Topology, emulator bool) (p Placed, why string) {
	c := &n.Cells[cell]
	pinned := g.Pinned
	if emulator {
		pinned++
	}
	if floating, all := len(g.CPUs)-g.Pinned, int(float64(len(c.CPUs))*ratio(n.CPURatio)); floating > len(c.CPUs) || floating > 0 && c.CPUsUsed+floating > all {
		return p, fmt.Sprintf("%d floating vCPUs asked, it has %d CPUs for them and gave out %d of %d", floating, len(c.CPUs), c.CPUsUsed, all)
	}
	if p.Pinned = c.pin(pinned, t.ThreadPolicy); len(p.Pinned) < pinned {
		return p, fmt.Sprintf("%d pinned CPUs asked, %d free under thread policy %s", pinned, len(p.Pinned), orPrefer(t.ThreadPolicy))
	}
	if t.ThreadPolicy == "isolate" {
		p.Blocked = c.beside(p.Pinned)
	}
	if t.PageSize == "" {
		if free := int64(float64(c.MemoryMB)*ratio(n.RAMRatio)) - c.MemoryUsedMB; g.MemoryMB > free || g.MemoryMB > c.MemoryMB {
			return p, fmt.Sprintf("%d MB asked, %d free", g.MemoryMB, free)
		}
		return p, ""
	}
	p.PageKB = c.page(g.MemoryMB, t.PageSize)
	if p.PageKB == 0 {
		return p, fmt.Sprintf("%d MB in pages of size %s are not free", g.MemoryMB, t.PageSize)
	}
	return p, ""
}

func orPrefer(s string) string {
	if s == "" {
		return "prefer"
	}
	return s
}

// pin picks free CPUs for n pinned vCPUs by the thread policy; fewer than n when there are not enough.
func (c *NUMACell) pin(n int, policy string) []int {
	if n == 0 {
		return nil
	}
	free := func(cpu int) bool { return slices.Contains(c.PCPUs, cpu) && !slices.Contains(c.Pinned, cpu) }
	var out []int
	cores := c.Siblings
	if len(cores) == 0 {
		for _, cpu := range c.PCPUs {
			cores = append(cores, []int{cpu})
		}
	}
	for _, core := range cores {
		var threads []int
		for _, cpu := range core {
			if free(cpu) {
				threads = append(threads, cpu)
			}
		}
		switch {
		case policy == "isolate" && len(threads) == len(core):
			out = append(out, threads[0])
		case policy == "require" && len(threads) > 1:
			out = append(out, threads[:len(threads)/2*2]...)
		case policy == "prefer" || policy == "":
			out = append(out, threads...)
		}
	}
	return out[:min(n, len(out))]
}

// beside gives the other threads of the cores that CPUs are on.
func (c *NUMACell) beside(cpus []int) []int {
	var out []int
	for _, core := range c.Siblings {
		if !slices.ContainsFunc(core, func(t int) bool { return slices.Contains(cpus, t) }) {
			continue
		}
		for _, t := range core {
			if !slices.Contains(cpus, t) {
				out = append(out, t)
			}
		}
	}
	return out
}

// page finds a page size that holds the memory: the largest for large, the smallest that does otherwise; 0 when none does.
func (c *NUMACell) page(mb int64, want string) int64 {
	sizes := slices.Clone(c.Pages)
	slices.SortFunc(sizes, func(a, b Pages) int { return int(a.SizeKB - b.SizeKB) })
	if len(sizes) == 0 {
		return 0
	}
	smallest := sizes[0].SizeKB
	if want == "large" || want == "any" {
		slices.Reverse(sizes)
	}
	for _, p := range sizes {
		switch want {
		case "small":
			if p.SizeKB != smallest {
				continue
			}
		case "large":
			if p.SizeKB == smallest {
				continue
			}
		case "any":
		default:
			if strconv.FormatInt(p.SizeKB, 10) != want {
				continue
			}
		}
		if kb := mb * 1024; kb%p.SizeKB == 0 && kb/p.SizeKB <= p.Total-p.Reserved-p.Used {
			return p.SizeKB
		}
	}
	return 0
}
