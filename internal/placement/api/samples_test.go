package api

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// samplesDir is where the published samples of the API lie, outside of this repository.
const samplesDir = "../../../../shared/spec/api_samples/placement"

// dynamic are keys that name things: UUIDs, classes, traits, consumer types, suffixes.
var dynamic = regexp.MustCompile(`^([0-9a-f-]{36}|[A-Z0-9_]*|_NET[0-9]|unknown)$`)

// shape is a document without its values: what keys and types it has. Objects whose keys name things become {"*": shape of all values}.
func shape(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			if dynamic.MatchString(k) {
				k = "*"
			}
			out[k] = join(out[k], shape(e))
		}
		return out
	case []any:
		var all any
		for _, e := range v {
			all = join(all, shape(e))
		}
		return []any{all}
	case string:
		return "string"
	case float64:
		return "number"
	}
	return nil // null goes with anything
}

func join(a, b any) any {
	if a == nil {
		return b
	}
	x, ok1 := a.(map[string]any)
	y, ok2 := b.(map[string]any)
	if ok1 && ok2 {
		for k, e := range y {
			x[k] = join(x[k], e)
		}
		return x
	}
	if l, ok := b.([]any); ok && len(l) == 1 {
		if k, ok := a.([]any); ok {
			return []any{join(k[0], l[0])}
		}
	}
	return a
}

// without drops what only one side can say because the other is empty there.
func without(a, b any) any {
	if b == nil {
		return nil
	}
	switch a := a.(type) {
	case map[string]any:
		m, ok := b.(map[string]any)
		if !ok {
			return a
		}
		out := map[string]any{}
		for k, e := range a {
			other, there := m[k]
			if k == "*" && !there || there && other == nil {
				continue
			}
			out[k] = without(e, other)
		}
		return out
	case []any:
		l, ok := b.([]any)
		if !ok || l[0] == nil || a[0] == nil {
			return []any{nil}
		}
		return []any{without(a[0], l[0])}
	}
	return a
}

var versioned = regexp.MustCompile(`-1\.(\d+)\.json$`)

// samples reads the samples; the minor is that of the file's name, or the first of the route.
func samples(t *testing.T) map[string]any {
	files, err := filepath.Glob(filepath.Join(samplesDir, "*", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skipf("the published samples are not at %s", samplesDir)
	}
	out := map[string]any{}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		out[strings.TrimPrefix(strings.TrimPrefix(f, filepath.Clean(samplesDir)), "/")] = v
	}
	return out
}

func minorOf(file string, first int) int {
	if m := versioned.FindStringSubmatch(file); m != nil {
		n, _ := strconv.Atoi(m[1])
		return n
	}
	return first
}

// scenario has everything that the samples show: a tree, traits, aggregates, custom names, allocations with and without type.
func scenario(t *testing.T) *cloud {
	c := start(t)
	c.host(hostA, "a", 100)
	c.must(200, "POST", "/resource_providers", o{"name": "child", "uuid": hostB, "parent_provider_uuid": hostA})
	c.must(200, "PUT", "/resource_providers/"+hostB+"/inventories", o{"resource_provider_generation": 0, "inventories": o{"DISK_GB": o{"total": 1000}}})
	c.must(201, "PUT", "/traits/CUSTOM_HW_FPGA_CLASS1", nil)
	c.must(201, "PUT", "/traits/CUSTOM_HW_FPGA_CLASS3", nil)
	c.must(201, "POST", "/resource_classes", o{"name": "CUSTOM_FPGA"})
	c.must(200, "PUT", "/resource_providers/"+hostA+"/traits", o{"resource_provider_generation": 1, "traits": []string{"CUSTOM_HW_FPGA_CLASS1"}})
	c.at(1).must(200, "PUT", "/resource_providers/"+hostA+"/aggregates", []string{agg})
	c.must(204, "PUT", "/allocations/"+server, o{"allocations": o{hostA: o{"resources": o{"VCPU": 1}}}, "project_id": "p", "user_id": "u", "consumer_generation": nil, "consumer_type": "INSTANCE"})
	return c
}

func TestResponsesHaveTheShapeOfTheSamples(t *testing.T) {
	rp := "/resource_providers/" + hostA
	// Files of answers: how to get one, and the first version when the name has none.
	routes := map[string]struct {
		first  int
		method string
		path   string
		body   any
	}{
		"aggregates/get-aggregates":                                       {1, "GET", rp + "/aggregates", nil},
		"aggregates/update-aggregates":                                    {1, "PUT", rp + "/aggregates", nil},
		"allocation_candidates/get-allocation_candidates":                 {10, "GET", "/allocation_candidates?resources=VCPU:1", nil},
		"allocations/get-allocations":                                     {12, "GET", "/allocations/" + server, nil},
		"inventories/get-inventories":                                     {0, "GET", rp + "/inventories", nil},
		"inventories/get-inventory":                                       {0, "GET", rp + "/inventories/VCPU", nil},
		"inventories/update-inventories":                                  {0, "GET", rp + "/inventories", nil},
		"inventories/update-inventory":                                    {0, "GET", rp + "/inventories/VCPU", nil},
		"resource_classes/get-resource_class":                             {2, "GET", "/resource_classes/VCPU", nil},
		"resource_classes/get-resource_classes":                           {2, "GET", "/resource_classes", nil},
		"resource_classes/update-resource_class":                          {2, "PUT", "/resource_classes/CUSTOM_FPGA", o{"name": "CUSTOM_FPGA_V2"}},
		"resource_provider_allocations/get-resource_provider_allocations": {0, "GET", rp + "/allocations", nil},
		"resource_provider_traits/get-resource_provider-traits":           {6, "GET", rp + "/traits", nil},
		"resource_provider_traits/update-resource_provider-traits":        {6, "GET", rp + "/traits", nil},
		"resource_provider_usages/get-resource_provider_usages":           {0, "GET", rp + "/usages", nil},
		"resource_providers/create-resource_provider":                     {20, "POST", "/resource_providers", o{"name": "x", "parent_provider_uuid": hostA}},
		"resource_providers/get-resource_provider":                        {14, "GET", "/resource_providers/" + hostB, nil},
		"resource_providers/get-resource_providers":                       {14, "GET", "/resource_providers", nil},
		"resource_providers/update-resource_provider":                     {14, "PUT", "/resource_providers/" + hostB, o{"name": "y", "parent_provider_uuid": hostA}},
		"root/get-root":     {0, "GET", "/", nil},
		"traits/get-traits": {6, "GET", "/traits", nil},
		"usages/get-usages": {9, "GET", "/usages?project_id=p", nil},
	}
	seen := 0
	for file, sample := range samples(t) {
		name := strings.TrimSuffix(file, ".json")
		if i := strings.LastIndex(name, "-1."); i > 0 {
			name = name[:i]
		}
		r, ok := routes[name]
		if !ok {
			if !strings.Contains(file, "request") && !strings.HasPrefix(file, "reshaper/") {
				t.Errorf("no route gives %s", file)
			}
			continue
		}
		seen++
		t.Run(file, func(t *testing.T) {
			c := scenario(t).at(minorOf(file, r.first))
			body := r.body
			if name == "aggregates/update-aggregates" {
				body = []string{agg}
				if c.minor >= 19 {
					body = o{"aggregates": []string{agg}, "resource_provider_generation": 3}
				}
			}
			a := c.do(r.method, r.path, body)
			if a.status != 200 {
				t.Fatalf("%d: %s", a.status, a.text)
			}
			want, got := shape(sample), shape(any(a.body))
			if d := cmp.Diff(without(want, got), without(got, want)); d != "" {
				t.Fatalf("shape (-sample +answer):\n%s", d)
			}
		})
	}
	if seen == 0 {
		t.Fatal("no sample was compared")
	}
}

// Each request of the samples is taken as it stands, once the things that it names are there.
func TestRequestsOfTheSamples(t *testing.T) {
	uuids := regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
	for file, sample := range samples(t) {
		if !strings.Contains(file, "request") && !strings.HasPrefix(file, "reshaper/") {
			continue
		}
		t.Run(file, func(t *testing.T) {
			raw, _ := json.Marshal(sample)
			c := start(t).as("admin")
			provide := func(uuid string) {
				c.do("POST", "/resource_providers", o{"name": uuid, "uuid": uuid})
				c.do("PUT", "/resource_providers/"+uuid+"/inventories", o{"resource_provider_generation": 0,
					"inventories": o{"VCPU": o{"total": 100}, "MEMORY_MB": o{"total": 100000}, "DISK_GB": o{"total": 10000}}})
			}
			first := map[string]int{"aggregates": 1, "allocations": 8, "inventories": 0, "reshaper": 30, "resource_classes": 2, "resource_provider_traits": 6, "resource_providers": 14}
			c = c.at(newest)
			kind := strings.Split(file, "/")[0]
			minor := minorOf(file, first[kind])
			for _, u := range slices.Compact(uuids.FindAllString(string(raw), -1)) {
				if kind != "resource_providers" || u != dig(sample, "uuid") {
					provide(u)
				}
			}
			host := func() string { provide(hostA); return "/resource_providers/" + hostA }
			generation := func(v any, n int) any { // the samples know generations of their own clouds
				m, ok := v.(map[string]any)
				if _, has := m["resource_provider_generation"]; ok && has {
					m["resource_provider_generation"] = n
				}
				return v
			}
			switch name := filepath.Base(file); {
			case kind == "aggregates":
				c.at(minor).must(200, "PUT", host()+"/aggregates", generation(sample, 1))
			case strings.HasPrefix(name, "manage-allocations"):
				if minor < 13 {
					minor = 13
				}
				for _, v := range sample.(map[string]any) { // made by others before
					if m := v.(map[string]any); m["consumer_generation"] != nil {
						m["consumer_generation"] = nil
					}
				}
				c.at(minor).must(204, "POST", "/allocations", sample)
			case kind == "allocations":
				m := sample.(map[string]any)
				if m["consumer_generation"] != nil {
					m["consumer_generation"] = nil
				}
				c.at(minor).must(204, "PUT", "/allocations/"+server, sample)
			case kind == "reshaper":
				m := sample.(map[string]any)
				for _, v := range m["inventories"].(map[string]any) {
					v.(map[string]any)["resource_provider_generation"] = 1
				}
				for _, v := range m["allocations"].(map[string]any) {
					v.(map[string]any)["consumer_generation"] = nil
				}
				c.at(minor).as("service").must(204, "POST", "/reshaper", sample)
			case strings.HasPrefix(name, "update-inventories"):
				c.must(200, "PUT", host()+"/inventories", generation(sample, 1))
			case strings.HasPrefix(name, "update-inventory"):
				c.must(200, "PUT", host()+"/inventories/VCPU", generation(sample, 1))
			case strings.HasPrefix(name, "create-resource_classes"):
				c.at(minor).must(201, "POST", "/resource_classes", sample)
			case strings.HasPrefix(name, "update-resource_class"):
				c.must(201, "PUT", "/resource_classes/CUSTOM_FPGA", nil)
				c.at(minor).must(200, "PUT", "/resource_classes/CUSTOM_FPGA", sample)
			case kind == "resource_provider_traits":
				for _, n := range sample.(map[string]any)["traits"].([]any) {
					c.must(201, "PUT", "/traits/"+n.(string), nil)
				}
				c.at(minor).must(200, "PUT", host()+"/traits", generation(sample, 1))
			case strings.HasPrefix(name, "create-resource_provider"):
				c.at(minor).must(201, "POST", "/resource_providers", sample)
			case strings.HasPrefix(name, "update-resource_provider"):
				c.must(200, "PUT", host(), sample)
			default:
				t.Errorf("nothing sends %s", file)
			}
		})
	}
}
