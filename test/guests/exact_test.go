package guests_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/test/apart"
	"kilonova/test/process"
)

const largePages = "/sys/kernel/mm/hugepages/hugepages-2048kB/"

// exact: a host that sets a CPU aside and has large pages gives them to a server by name: QEMU's threads are where the API says, its memory is of such
// pages, and the next server that asks for the same finds no host.
func (c *cloud) exact(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("the machine has one CPU")
	}
	had := number(t, largePages+"nr_hugepages")
	write := func(n int) error {
		return os.WriteFile(largePages+"nr_hugepages", []byte(strconv.Itoa(n)), 0o644)
	}
	t.Cleanup(func() {
		if err := write(had); err != nil {
			t.Error(err)
		}
	})
	const pages = 72 // 144 MiB
	if err := write(had + pages); err != nil || number(t, largePages+"free_hugepages") < pages {
		t.Skipf("the machine has no %d large pages to give: %v", pages, err)
	}
	if err := c.proc.Stop(); err != nil {
		t.Fatal(err)
	}
	c.start(t, "--set", "compute.cpu_dedicated_set=1", "--set", "compute.cpu_shared_set=0",
		"--set", "filter_scheduler.enabled_filters=ComputeFilter,ImagePropertiesFilter,NUMATopologyFilter")
	var f struct{ Flavor process.Thing }
	apart.Must(t, c.admin, "POST", "compute", "/flavors", map[string]any{"flavor": map[string]any{"name": "exact", "vcpus": 2, "ram": 144, "disk": 1}}, &f)
	apart.Must(t, c.admin, "POST", "compute", "/flavors/"+f.Flavor.ID+"/os-extra_specs", map[string]any{"extra_specs": map[string]string{"hw:cpu_policy": "mixed",
		"hw:cpu_dedicated_mask": "1", "hw:mem_page_size": "2MB", "hw:numa_nodes": "1"}}, nil)
	g := c.boot(t, "exact", map[string]any{"flavorRef": f.Flavor.ID})
	g.wait(t, "ACTIVE")
	if d := cmp.Diff(map[string]string{"CPU 0/TCG": "0", "CPU 1/TCG": "1"}, threads(t, g.qemu(t))); d != "" {
		t.Errorf("where QEMU's virtual CPUs may run:\n%s", d)
	}
	if kib := inLargePages(t, g.qemu(t)); kib != pages*2048 {
		t.Errorf("%d KiB of QEMU's memory are in large pages", kib)
	}
	var topology struct {
		Nodes []struct {
			Pinning map[string]int `json:"cpu_pinning"`
			CPUs    []int          `json:"vcpu_set"`
			Memory  int            `json:"memory_mb"`
		}
		Page int `json:"pagesize_kb"`
	}
	apart.Must(t, c.admin, "GET", "compute", "/servers/"+g.id+"/topology", nil, &topology)
	if len(topology.Nodes) != 1 || !cmp.Equal(topology.Nodes[0].Pinning, map[string]int{"1": 1}) || len(topology.Nodes[0].CPUs) != 2 || topology.Nodes[0].Memory != 144 || topology.Page != 2048 {
		t.Errorf("the API tells %+v", topology)
	}
	var held struct {
		Allocations map[string]struct{ Resources map[string]int }
	}
	apart.Must(t, c.admin, "GET", "placement", "/allocations/"+g.id, nil, &held)
	for _, a := range held.Allocations {
		if a.Resources["PCPU"] != 1 || a.Resources["VCPU"] != 1 {
			t.Errorf("allocated: %v", a.Resources)
		}
	}
	c.impossible(t, map[string]any{"flavorRef": f.Flavor.ID}, "PCPU")
	g.ready(t)
	if out := g.run(t, "nproc; ls -d /sys/devices/system/node/node[0-9]* | wc -l"); out != "2\n1" {
		t.Errorf("the guest has %q CPUs and nodes", out)
	}
	g.act(t, "reboot", map[string]any{"type": "HARD"}, "ACTIVE")
	if d := cmp.Diff(map[string]string{"CPU 0/TCG": "0", "CPU 1/TCG": "1"}, threads(t, g.qemu(t))); d != "" {
		t.Errorf("after a hard reboot:\n%s", d)
	}
	g.delete(t)
}

func number(t *testing.T, path string) int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Skip(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// inLargePages tells how much of a process's memory is in large pages, in KiB.
func inLargePages(t *testing.T, pid int) (kib int) {
	t.Helper()
	for line := range strings.Lines(string(apart.ReadFile(t, fmt.Sprintf("/proc/%d/smaps_rollup", pid)))) {
		if f := strings.Fields(line); len(f) == 3 && strings.HasSuffix(f[0], "_Hugetlb:") {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			kib += n
		}
	}
	return kib
}

// threads tells on which CPUs of the host the virtual CPUs of a QEMU may run.
func threads(t *testing.T, pid int) map[string]string {
	t.Helper()
	out := map[string]string{}
	dirs, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		name, err := os.ReadFile(filepath.Join(d, "comm"))
		if err != nil || !strings.HasPrefix(string(name), "CPU ") {
			continue // a thread that has ended, or another one
		}
		status, err := os.ReadFile(filepath.Join(d, "status"))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(status), "Cpus_allowed_list:")
		list, _, _ := strings.Cut(rest, "\n")
		out[strings.TrimSpace(string(name))] = strings.TrimSpace(list)
	}
	return out
}
