package scheduler_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kilonova/internal/compute"
	"kilonova/internal/compute/scheduler"
)

func numaRequest(vcpus int, ram int64, kv ...string) *scheduler.Request {
	f := compute.Flavor{VCPUs: vcpus, RAMMB: ram, ExtraSpecs: map[string]string{}}
	for i := 0; i < len(kv); i += 2 {
		f.ExtraSpecs[kv[i]] = kv[i+1]
	}
	return &scheduler.Request{ServerID: "s", Flavor: f}
}

func TestTopologyOf(t *testing.T) {
	cases := []struct {
		name string
		req  *scheduler.Request
		want *scheduler.Topology
	}{
		{"nothing", numaRequest(4, 1024), nil},
		{"shared is nothing", numaRequest(4, 1024, "hw:cpu_policy", "shared"), nil},
		{"even", numaRequest(4, 1024, "hw:numa_nodes", "2"), &scheduler.Topology{Cells: []scheduler.GuestCell{{CPUs: []int{0, 1}, MemoryMB: 512}, {CPUs: []int{2, 3}, MemoryMB: 512}}}},
		{"told", numaRequest(4, 1024, "hw:numa_nodes", "2", "hw:numa_cpus.0", "0-2", "hw:numa_mem.0", "768", "hw:numa_cpus.1", "3", "hw:numa_mem.1", "256"),
			&scheduler.Topology{Cells: []scheduler.GuestCell{{CPUs: []int{0, 1, 2}, MemoryMB: 768}, {CPUs: []int{3}, MemoryMB: 256}}}},
		{"pinned", numaRequest(2, 512, "hw:cpu_policy", "dedicated", "hw:cpu_thread_policy", "isolate", "hw:emulator_threads_policy", "isolate"),
			&scheduler.Topology{ThreadPolicy: "isolate", Isolate: true, Cells: []scheduler.GuestCell{{CPUs: []int{0, 1}, Pinned: 2, MemoryMB: 512}}}},
		{"mixed", numaRequest(4, 512, "hw:cpu_policy", "mixed", "hw:cpu_dedicated_mask", "0,3"),
			&scheduler.Topology{Cells: []scheduler.GuestCell{{CPUs: []int{0, 1, 2, 3}, Pinned: 2, MemoryMB: 512}}}},
		{"pages", numaRequest(1, 512, "hw:mem_page_size", "1GiB"), &scheduler.Topology{PageSize: "1048576", Cells: []scheduler.GuestCell{{CPUs: []int{0}, MemoryMB: 512}}}},
	}
	for _, c := range cases {
		got, err := scheduler.TopologyOf(c.req)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
	bad := map[string]*scheduler.Request{
		"uneven":                     numaRequest(3, 1024, "hw:numa_nodes", "2"),
		"told in part":               numaRequest(4, 1024, "hw:numa_nodes", "2", "hw:numa_cpus.0", "0-1", "hw:numa_mem.0", "512"),
		"cpus without memory":        numaRequest(4, 1024, "hw:numa_nodes", "2", "hw:numa_cpus.0", "0-1"),
		"more than the flavor":       numaRequest(2, 1024, "hw:numa_nodes", "1", "hw:numa_cpus.0", "0-3", "hw:numa_mem.0", "1024"),
		"threads without pinning":    numaRequest(2, 1024, "hw:cpu_thread_policy", "require"),
		"emulator without pinning":   numaRequest(2, 1024, "hw:numa_nodes", "1", "hw:emulator_threads_policy", "isolate"),
		"page size of nothing":       numaRequest(2, 1024, "hw:mem_page_size", "huge"),
		"realtime without pinning":   numaRequest(2, 1024, "hw:cpu_realtime", "yes"),
		"locked without page size":   numaRequest(2, 1024, "hw:locked_memory", "true"),
		"more nodes than vCPUs":      numaRequest(2, 1024, "hw:numa_nodes", "1000000000"),
		"mask of all":                numaRequest(2, 1024, "hw:cpu_policy", "mixed", "hw:cpu_dedicated_mask", "0-1"),
		"policy that does not exist": numaRequest(2, 1024, "hw:cpu_policy", "greedy"),
	}
	for name, r := range bad {
		if got, err := scheduler.TopologyOf(r); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	image := numaRequest(1, 512)
	image.Image.Props = map[string]string{"hw_mem_page_size": "2048"}
	if _, err := scheduler.TopologyOf(image); err == nil {
		t.Error("an image chose its page size although the flavor does not let it")
	}
	image.Flavor.ExtraSpecs["hw:mem_page_size"] = "large"
	if got, err := scheduler.TopologyOf(image); err != nil || got.PageSize != "2048" {
		t.Errorf("with the flavor's leave: %+v %v", got, err)
	}
}

func drawCells(t *rapid.T) (cells []compute.HostCell) {
	cpu := 0
	for i := range rapid.IntRange(1, 3).Draw(t, "nodes") {
		c := compute.HostCell{ID: i, MemoryMB: rapid.Int64Range(256, 4096).Draw(t, "memory"), MemoryUsedMB: rapid.Int64Range(0, 256).Draw(t, "used")}
		for range rapid.IntRange(0, 3).Draw(t, "shared") {
			c.CPUs = append(c.CPUs, cpu)
			cpu++
		}
		for range rapid.IntRange(0, 3).Draw(t, "cores") {
			c.PCPUs = append(c.PCPUs, cpu, cpu+1)
			c.Siblings = append(c.Siblings, []int{cpu, cpu + 1})
			if rapid.IntRange(0, 3).Draw(t, "taken") == 0 {
				c.Pinned = append(c.Pinned, cpu)
			}
			cpu += 2
		}
		c.Pages = []compute.HostPages{{SizeKB: 4, Total: c.MemoryMB * 256}, {SizeKB: 2048, Total: rapid.Int64Range(0, 1024).Draw(t, "pages"), Reserved: 1}}
		cells = append(cells, c)
	}
	return cells
}

// A fit keeps every promise: nodes are different, pinned CPUs are free and of the node, thread policies hold, memory and pages suffice; and
// what a claim takes is not given twice.
func TestFitKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cells := drawCells(t)
		nodes := rapid.IntRange(1, 2).Draw(t, "guest nodes")
		specs := []string{"hw:numa_nodes", []string{"", "1", "2"}[nodes]}
		if rapid.Bool().Draw(t, "pinned") {
			specs = append(specs, "hw:cpu_policy", "dedicated", "hw:cpu_thread_policy", rapid.SampledFrom([]string{"prefer", "isolate", "require"}).Draw(t, "threads"))
		}
		if rapid.Bool().Draw(t, "pages") {
			specs = append(specs, "hw:mem_page_size", rapid.SampledFrom([]string{"small", "large", "any", "2048"}).Draw(t, "size"))
		}
		for i := range 4 {
			r := numaRequest(nodes*rapid.IntRange(1, 2).Draw(t, "vcpus"), int64(nodes)*rapid.SampledFrom([]int64{128, 256, 512}).Draw(t, "ram"), specs...)
			r.ServerID = string(rune('a' + i))
			topology, err := scheduler.TopologyOf(r)
			if err != nil {
				t.Fatal(err)
			}
			before := slices.Clone(cells)
			for k := range before {
				before[k].Pinned = slices.Clone(cells[k].Pinned) // Use sorts in place
			}
			host := scheduler.Cells(before)
			placed, why := host.Fit(topology)
			if (why == "") != (placed != nil) {
				t.Fatalf("fit %v with reason %q", placed, why)
			}
			if why != "" {
				break
			}
			seen := map[int]bool{}
			for k, p := range placed {
				cell := host.Cells[p.Cell]
				if seen[p.Cell] {
					t.Fatal("two guest nodes on one host node")
				}
				seen[p.Cell] = true
				if len(p.Pinned) != topology.Cells[k].Pinned {
					t.Fatalf("%d CPUs for %d pinned vCPUs", len(p.Pinned), topology.Cells[k].Pinned)
				}
				checkPinned(t, &cell, p.Pinned, topology.ThreadPolicy)
				if topology.PageSize == "" && topology.Cells[k].MemoryMB > cell.MemoryMB-cell.MemoryUsedMB {
					t.Fatal("more memory than is free")
				}
				if topology.PageSize == "large" && p.PageKB != 2048 {
					t.Fatalf("large pages of %d kB", p.PageKB)
				}
			}
			claim, why, err := scheduler.Take(r, cells, nil, 1, 1)
			if err != nil || why != "" || len(claim.Cells) != len(placed) {
				t.Fatalf("it fits, but what is taken is %+v: %q %v", claim, why, err)
			}
			compute.Use(cells, nil, map[string][]compute.Claim{r.ServerID: {*claim}})
			for k, p := range placed {
				for _, cpu := range p.Pinned {
					if !slices.Contains(cells[p.Cell].Pinned, cpu) || slices.Contains(host.Cells[p.Cell].Pinned, cpu) {
						t.Fatalf("CPU %d of guest node %d: taken %v, before %v", cpu, k, cells[p.Cell].Pinned, host.Cells[p.Cell].Pinned)
					}
				}
			}
		}
	})
}

func checkPinned(t *rapid.T, cell *scheduler.NUMACell, pinned []int, policy string) {
	for _, cpu := range pinned {
		if !slices.Contains(cell.PCPUs, cpu) || slices.Contains(cell.Pinned, cpu) {
			t.Fatalf("CPU %d is not free", cpu)
		}
	}
	for _, core := range cell.Siblings {
		n, taken := 0, 0
		for _, cpu := range core {
			if slices.Contains(pinned, cpu) {
				n++
			}
			if slices.Contains(cell.Pinned, cpu) {
				taken++
			}
		}
		if policy == "isolate" && n > 0 && (n > 1 || taken > 0) {
			t.Fatalf("isolate shares core %v", core)
		}
	}
}

// Where any assignment of guest nodes to host nodes works, Fit finds one: each guest node is tried on each host node, in every order.
func TestFitFindsWhatExists(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := &scheduler.NUMA{}
		for i := range rapid.IntRange(1, 4).Draw(t, "host nodes") {
			n.Cells = append(n.Cells, scheduler.NUMACell{ID: i, CPUs: []int{0, 1, 2, 3}, MemoryMB: rapid.Int64Range(1, 4).Draw(t, "memory")})
		}
		topology := &scheduler.Topology{}
		for range rapid.IntRange(1, 4).Draw(t, "guest nodes") {
			topology.Cells = append(topology.Cells, scheduler.GuestCell{CPUs: []int{0}, MemoryMB: rapid.Int64Range(1, 4).Draw(t, "asked")})
		}
		var exists func(i int, used map[int]bool) bool
		exists = func(i int, used map[int]bool) bool {
			if i == len(topology.Cells) {
				return true
			}
			for c := range n.Cells {
				if used[c] || n.Cells[c].MemoryMB < topology.Cells[i].MemoryMB {
					continue
				}
				used[c] = true
				if exists(i+1, used) {
					return true
				}
				used[c] = false
			}
			return false
		}
		placed, why := n.Fit(topology)
		if want := exists(0, map[int]bool{}); want != (why == "") || want != (placed != nil) {
			t.Fatalf("possible: %v, found: %v %q", want, placed, why)
		}
	})
}

// Extra specs and image properties are what operators and tenants write: nothing in them may bring the scheduler down.
func FuzzTopologyOf(f *testing.F) {
	f.Add("2", "0-1,^0", "512", "2MB", "mixed", "^0-1", uint8(4))
	f.Add("-1", "^", "", "1GiB", "dedicated", "0-99999999999", uint8(0))
	f.Fuzz(func(t *testing.T, nodes, cpus, mem, page, policy, mask string, vcpus uint8) {
		r := numaRequest(int(vcpus), 1024, "hw:numa_nodes", nodes, "hw:numa_cpus.0", cpus, "hw:numa_mem.0", mem, "hw:mem_page_size", page, "hw:cpu_policy", policy, "hw:cpu_dedicated_mask", mask)
		topology, err := scheduler.TopologyOf(r)
		if err != nil || topology == nil {
			return
		}
		total := 0
		for _, c := range topology.Cells {
			total += len(c.CPUs)
		}
		if total != int(vcpus) {
			t.Fatalf("%d of %d vCPUs are placed", total, vcpus)
		}
	})
}
