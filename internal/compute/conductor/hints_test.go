package conductor_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"kilonova/internal/compute"
	"kilonova/internal/compute/scheduler"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/operation"
)

// TestHintsChooseTheHost: servers go where the hints of their requests say, on a real control plane; a forced host is not judged by filters, a requested one is.
func TestHintsChooseTheHost(t *testing.T) {
	c := newCloud(t, options{planner: func(cfg *scheduler.Config) {
		cfg.EnabledFilters = append(cfg.EnabledFilters, "SameHostFilter", "DifferentHostFilter", "SimpleCIDRAffinityFilter", "JsonFilter")
	}})
	sizes := map[string]fake.Config{"h1": {VCPUs: 64, MemoryMB: 65536, DiskGB: 900}, "h2": {VCPUs: 32, MemoryMB: 32768, DiskGB: 900}, "h3": {VCPUs: 8, MemoryMB: 8192, DiskGB: 900}}
	at := map[string]string{}
	for _, h := range []string{"h1", "h2", "h3"} {
		c.host(h, sizes[h])
		s := c.record(nil)
		c.ends(c.create(s, compute.CreateInput{ForceHost: h}), operation.Done)
		at[h] = s.ID
	}
	for _, k := range []struct {
		name  string
		hints map[string]any
		in    compute.CreateInput
		want  []string // hosts, any of them; none: no host is found
	}{
		{"no hint", nil, compute.CreateInput{}, []string{"h1"}},
		{"beside one", map[string]any{"same_host": at["h3"]}, compute.CreateInput{}, []string{"h3"}},
		{"beside one of several", map[string]any{"same_host": []any{at["h2"], at["h3"]}}, compute.CreateInput{}, []string{"h2", "h3"}},
		{"away from two", map[string]any{"different_host": []any{at["h1"], at["h3"]}}, compute.CreateInput{}, []string{"h2"}},
		{"away from all", map[string]any{"different_host": []any{at["h1"], at["h2"], at["h3"]}}, compute.CreateInput{}, nil},
		{"beside one and away from another", map[string]any{"same_host": []any{at["h1"], at["h2"]}, "different_host": at["h1"]}, compute.CreateInput{}, []string{"h2"}},
		{"near", map[string]any{"build_near_host_ip": "127.0.0.9", "cidr": "/24"}, compute.CreateInput{}, []string{"h1"}},
		{"far", map[string]any{"build_near_host_ip": "192.0.2.1"}, compute.CreateInput{}, nil},
		{"a query", map[string]any{"query": `["and", ["<", "$vcpus_total", 64], [">", "$vcpus_total", 8]]`}, compute.CreateInput{}, []string{"h2"}},
		{"a query that nothing fits", map[string]any{"query": []any{"=", "$host", "h9"}}, compute.CreateInput{}, nil},
		{"a query by name", map[string]any{"query": []any{"in", "$host", "h3", "h9"}}, compute.CreateInput{}, []string{"h3"}},
		{"a requested host", nil, compute.CreateInput{Host: "h3"}, []string{"h3"}},
		{"a requested host that a filter refuses", map[string]any{"different_host": at["h3"]}, compute.CreateInput{Host: "h3"}, nil},
		{"a forced host", map[string]any{"different_host": at["h3"]}, compute.CreateInput{ForceHost: "h3"}, []string{"h3"}},
	} {
		s := c.record(func(s *compute.Server) { s.Hints = k.hints })
		end := operation.Done
		if k.want == nil {
			end = operation.Undone
		}
		c.ends(c.create(s, k.in), end)
		got := c.get(s.ID)
		if k.want == nil {
			if got.Host != "" || got.Fault == nil || !strings.HasPrefix(got.Fault.Message, "No valid host was found.") {
				t.Errorf("%s: on %q, %+v", k.name, got.Host, got.Fault)
			}
		} else if !slices.Contains(k.want, got.Host) {
			t.Errorf("%s: on %s, want %s (%s)", k.name, got.Host, k.want, fmt.Sprint(k.hints))
		}
	}
	c.healthy()
}
