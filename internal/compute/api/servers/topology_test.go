package servers_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
)

// TestTopologyShowsTheClaim: everybody who may see the server sees its NUMA nodes, operators also where they lie.
func TestTopologyShowsTheClaim(t *testing.T) {
	w := newWorld(t)
	s := w.boot(func(s *compute.Server) {
		s.SetClaim(&compute.Claim{Cells: []compute.ClaimedCell{
			{Node: 0, CPUs: []int{0, 1}, MemoryMB: 1024, PageKB: 4, Pins: map[int]int{0: 0, 1: 5}, Siblings: [][]int{{0, 1}}},
			{Node: 1, CPUs: []int{2, 3}, MemoryMB: 2048, PageKB: 4, Pins: map[int]int{2: 1, 3: 8}},
		}})
	})
	node := func(mem float64, siblings []any, cpus ...any) map[string]any {
		return map[string]any{"memory_mb": mem, "siblings": siblings, "vcpu_set": cpus}
	}
	want := map[string]any{"pagesize_kb": 4.0, "nodes": []any{node(1024, []any{[]any{0.0, 1.0}}, 0.0, 1.0), node(2048, []any{}, 2.0, 3.0)}}
	if d := cmp.Diff(want, w.ask("reader", "GET", "/servers/"+s.ID+"/topology", "", 78, 200)); d != "" {
		t.Error(d)
	}
	nodes := want["nodes"].([]any)
	for i, more := range []map[string]any{{"cpu_pinning": map[string]any{"0": 0.0, "1": 5.0}, "host_node": 0.0}, {"cpu_pinning": map[string]any{"2": 1.0, "3": 8.0}, "host_node": 1.0}} {
		for k, v := range more {
			nodes[i].(map[string]any)[k] = v
		}
	}
	if d := cmp.Diff(want, w.ask("admin", "GET", "/servers/"+s.ID+"/topology", "", 78, 200)); d != "" {
		t.Error(d)
	}
}

// TestWhatNoHostCanGiveIsRefused: contradictions of flavor and image, and aliases that nobody defined, are refused when the server is asked for.
func TestWhatNoHostCanGiveIsRefused(t *testing.T) {
	w := newWorld(t, func(o *backend.Options) {
		o.PCIAliases = []compute.PCIAlias{{Name: "gpu", VendorID: "10de"}}
		o.Quota = store.Limits{"cores": -1, "instances": -1, "ram": -1}
	})
	for i, c := range []struct {
		specs map[string]string
		code  int
		text  string
	}{
		{map[string]string{"pci_passthrough:alias": "gpu:1"}, 202, ""},
		{map[string]string{"pci_passthrough:alias": "nic:1"}, 400, "PCI alias nic is not defined"},
		{map[string]string{"hw:numa_nodes": "3"}, 400, "NUMA"},
		{map[string]string{"hw:cpu_thread_policy": "isolate"}, 400, "thread policy"},
		{map[string]string{"hw:cpu_policy": "mixed"}, 400, "mask"},
		{map[string]string{"hw:mem_page_size": "tiny"}, 400, "Invalid memory page size"},
		{map[string]string{"hw:cpu_policy": "dedicated", "hw:mem_page_size": "large"}, 202, ""},
	} {
		id := string(rune('a'+i)) + "-exact"
		w.write(func(tx *db.Tx) error {
			return w.store.InsertFlavor(t.Context(), tx, &compute.Flavor{FlavorID: id, Name: id, VCPUs: 2, RAMMB: 512, RootGB: 1, Public: true, RXTX: 1, ExtraSpecs: c.specs})
		})
		body := strings.Replace(create(onA), `"flavorRef":"1"`, `"flavorRef":"`+id+`"`, 1)
		if c.code == 202 {
			w.ask("member", "POST", "/servers", body, 37, 202)
		} else if got := w.refused("member", "POST", "/servers", body, 37, c.code); !strings.Contains(got, c.text) {
			t.Errorf("%v: %s", c.specs, got)
		}
	}
}
