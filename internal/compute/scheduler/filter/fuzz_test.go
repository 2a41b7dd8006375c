package filter_test

import (
	"encoding/json"
	"testing"

	"kilonova/internal/compute/scheduler"
	"kilonova/internal/compute/scheduler/filter"
)

// Hints, extra specs and image properties come from outside: whatever they say, filters judge or refuse, and a repeated judgement is the same.
func FuzzFilters(f *testing.F) {
	f.Add(`["and", [">=", "$free_ram_mb", 1024], ["in", "$host", ["a"]]]`, "capabilities:cpu_info:vendor", "<or> a <or> b", ">=1.2, <3", "10.0.0.1", "/24")
	f.Add(`[[]]`, ":", "<all-in>", ",", "::1", "/129")
	f.Add(`["not"]`, "x", "= ", "==7", "", "")
	f.Fuzz(func(t *testing.T, query, key, value, version, ip, cidr string) {
		var parsed any = query
		if json.Valid([]byte(query)) {
			_ = json.Unmarshal([]byte(query), &parsed) // valid: it cannot fail
		}
		r := scheduler.Request{Flavor: specs(key, value), Image: image("img_hv_requested_version", version, key, value),
			Hints: map[string]any{"query": parsed, "build_near_host_ip": ip, "cidr": cidr, "same_host": parsed}}
		h := scheduler.HostState{Host: "h", HostIP: "10.0.0.7", HypervisorVersion: 7002000, Stats: map[string]string{"x": "1"}, Aggregates: in(key, value),
			CPUInfo: map[string]any{"vendor": "Intel", "features": []any{"aes"}, "topology": map[string]any{"cores": 2.0}}}
		cfg := scheduler.Defaults()
		for name, fl := range filter.All() {
			c, err := fl.Compile(&cfg, &r)
			if err != nil || c == nil {
				continue
			}
			first := c.Pass(&h)
			if !first && c.Why != nil && c.Why(&h) == "" {
				t.Errorf("%s refuses without a reason", name)
			}
			if c.Pass(&h) != first {
				t.Errorf("%s judges the same host differently", name)
			}
		}
	})
}
