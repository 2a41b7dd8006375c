package filter_test

import (
	"encoding/json"
	"testing"

	"kilonova/internal/compute/scheduler"
	"kilonova/internal/compute/scheduler/filter"
)

// TestQueryOperators: every operator of the hint query on both sides of its border, with several arguments, without any, and nested.
func TestQueryOperators(t *testing.T) {
	h := host{Host: "compute7", MemoryMB: 2048, MemoryUsedMB: 1024, VCPUs: 8, HypervisorType: "QEMU", CPUInfo: map[string]any{"vendor": "AMD"}, Stats: map[string]string{"rack": "r1"}}
	for query, want := range map[string]bool{
		`["=", "$vcpus", 8]`: true, `["=", "$vcpus", 7]`: false, `["=", "$vcpus", 8, 8]`: true, `["=", "$vcpus", 8, 9]`: false, `["=", "$hypervisor_type", "QEMU"]`: true,
		`["<", "$vcpus", 9]`: true, `["<", "$vcpus", 8]`: false, `["<", "$vcpus", 9, 10]`: true, `["<", "$vcpus", 9, 8]`: false,
		`[">", "$vcpus", 7]`: true, `[">", "$vcpus", 8]`: false, `[">", "$vcpus", 7, 8]`: false,
		`["<=", "$vcpus", 8]`: true, `["<=", "$vcpus", 7]`: false,
		`[">=", "$vcpus", 8]`: true, `[">=", "$vcpus", 9]`: false, `[">=", "$free_ram_mb", 1024]`: true, `[">=", "$free_ram_mb", 1025]`: false,
		`["in", "$host", "compute1", "compute7"]`: true, `["in", "$host", "compute1"]`: false, `["in", "$host"]`: false,
		`["not", ["=", "$vcpus", 7]]`: true, `["not", ["=", "$vcpus", 8]]`: false, `["not", ["not", ["=", "$vcpus", 8]]]`: true,
		`["or", ["=", "$vcpus", 7], ["=", "$vcpus", 8]]`: true, `["or", ["=", "$vcpus", 7], ["=", "$vcpus", 9]]`: false,
		`["and", ["=", "$vcpus", 8], ["=", "$host", "compute7"]]`: true, `["and", ["=", "$vcpus", 8], ["=", "$host", "x"]]`: false,
		`["and", ["or", ["=", "$vcpus", 1], [">", "$vcpus", 4]], ["not", ["in", "$host", "compute1"]]]`: true,
		`["=", "$vcpus"]`: false, `["=", "$no_such_attribute", 1]`: false, `["<", "$vcpus", "$free_ram_mb"]`: true, `["=", "$cpu_info.vendor", "AMD"]`: true, `["=", "$stats.rack", "r2"]`: false,
	} {
		var list any
		if err := json.Unmarshal([]byte(query), &list); err != nil {
			t.Fatal(err)
		}
		for form, hint := range map[string]any{"as a list": list, "as a text": query} { // clients send both
			cfg, r := scheduler.Defaults(), req{Hints: map[string]any{"query": hint}}
			check, err := filter.All()["JsonFilter"].Compile(&cfg, &r)
			if err != nil {
				t.Fatalf("%s: %v", query, err)
			}
			if got := check.Pass(&h); got != want {
				t.Errorf("%s %s: %v", query, form, got)
			}
		}
	}
}
