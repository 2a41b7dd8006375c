package host

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"kilonova/internal/compute"
)

// Cells gives the host's NUMA nodes. dedicated are the CPUs set aside for pinned virtual CPUs, shared those on which others float (nil: all when none are
// dedicated, none otherwise). reserved are pages, by node and size in KiB, that servers may not have.
func Cells(c *Capabilities, dedicated, shared []int, reserved map[int]map[int64]int64) []compute.HostCell {
	var out []compute.HostCell
	for _, x := range c.Host.Topology.Cells {
		cell := compute.HostCell{ID: x.ID, MemoryMB: x.Memory.Value >> 10}
		seen := map[string]bool{}
		for i, cpu := range x.CPUs {
			if i == 0 {
				cell.Socket = cpu.Socket
			}
			if slices.Contains(dedicated, cpu.ID) {
				cell.PCPUs = append(cell.PCPUs, cpu.ID)
			}
			if slices.Contains(shared, cpu.ID) || len(shared) == 0 && len(dedicated) == 0 {
				cell.CPUs = append(cell.CPUs, cpu.ID)
			}
			if set, err := compute.ParseCPUs(cpu.Siblings); err == nil && len(set) > 1 && !seen[cpu.Siblings] {
				seen[cpu.Siblings] = true
				cell.Siblings = append(cell.Siblings, set)
			}
		}
		if len(cell.Siblings) > 0 { // cores with one thread, beside those with two, are cores as well
			for _, cpu := range x.CPUs {
				if !slices.ContainsFunc(cell.Siblings, func(s []int) bool { return slices.Contains(s, cpu.ID) }) {
					cell.Siblings = append(cell.Siblings, []int{cpu.ID})
				}
			}
		}
		for _, p := range x.Pages {
			if p.Count > 0 {
				cell.Pages = append(cell.Pages, compute.HostPages{SizeKB: p.Size, Total: p.Count, Reserved: reserved[x.ID][p.Size]})
			}
		}
		out = append(out, cell)
	}
	return out
}

// ParseReservedPages reads the option reserved_huge_pages: "node:0,size:2048,count:64", several separated by semicolons. Sizes are KiB, or have a unit.
func ParseReservedPages(text string) (map[int]map[int64]int64, error) {
	out := map[int]map[int64]int64{}
	for one := range strings.SplitSeq(text, ";") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		v := map[string]int64{}
		for pair := range strings.SplitSeq(one, ",") {
			key, value, _ := strings.Cut(strings.TrimSpace(pair), ":")
			n, err := kib(value)
			if err != nil || !slices.Contains([]string{"node", "size", "count"}, key) {
				return nil, fmt.Errorf("reserved_huge_pages %q: write it as node:0,size:2048,count:64", one)
			}
			v[key] = n
		}
		if len(v) != 3 || v["size"] <= 0 {
			return nil, fmt.Errorf("reserved_huge_pages %q: node, size and count are needed", one)
		}
		node := int(v["node"])
		if out[node] == nil {
			out[node] = map[int64]int64{}
		}
		out[node][v["size"]] = v["count"]
	}
	return out, nil
}

// kib reads a number with an optional unit.
func kib(s string) (int64, error) {
	unit := int64(1)
	for suffix, u := range map[string]int64{"KB": 1, "KiB": 1, "MB": 1 << 10, "MiB": 1 << 10, "GB": 1 << 20, "GiB": 1 << 20} {
		if t, ok := strings.CutSuffix(s, suffix); ok {
			s, unit = t, u
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is no number", s)
	}
	return n * unit, nil
}
