package filter_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"kilonova/internal/compute"
	"kilonova/internal/compute/scheduler"
	"kilonova/internal/compute/scheduler/filter"
	"kilonova/internal/placement"
)

func specs(kv ...string) compute.Flavor {
	f := compute.Flavor{Name: "m1.small", VCPUs: 2, RAMMB: 2048, RootGB: 20, ExtraSpecs: map[string]string{}}
	for i := 0; i < len(kv); i += 2 {
		f.ExtraSpecs[kv[i]] = kv[i+1]
	}
	return f
}

func image(kv ...string) scheduler.Image {
	i := scheduler.Image{ID: "img", Props: map[string]string{}}
	for k := 0; k < len(kv); k += 2 {
		i.Props[kv[k]] = kv[k+1]
	}
	return i
}

func in(kv ...string) []*scheduler.Aggregate {
	a := &scheduler.Aggregate{UUID: "agg", Name: "agg", Metadata: map[string]string{}}
	for i := 0; i < len(kv); i += 2 {
		a.Metadata[kv[i]] = kv[i+1]
	}
	return []*scheduler.Aggregate{a}
}

func on(ids ...string) map[string]scheduler.ServerOn {
	m := map[string]scheduler.ServerOn{}
	for _, id := range ids {
		m[id] = scheduler.ServerOn{}
	}
	return m
}

func hints(text string) map[string]any {
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		panic(err)
	}
	return m
}

type (
	req    = scheduler.Request
	host   = scheduler.HostState
	config = scheduler.Config
)

var oneNode = &scheduler.NUMA{Cells: []scheduler.NUMACell{{ID: 0, CPUs: []int{0, 1, 2, 3}, PCPUs: []int{4, 5, 6, 7}, Siblings: [][]int{{4, 5}, {6, 7}}, MemoryMB: 8192,
	Pages: []scheduler.Pages{{SizeKB: 4, Total: 1 << 20}, {SizeKB: 2048, Total: 512}}}}}

// Each case is one host before one filter; why is part of what is told when it does not pass.
func TestFilters(t *testing.T) {
	kvm := [][3]string{{"x86_64", "kvm", "hvm"}, {"x86_64", "qemu", "hvm"}, {"aarch64", "qemu", "hvm"}}
	cases := []struct {
		filter string
		name   string
		config func(*config)
		req    req
		host   host
		why    string // "" passes
	}{
		{"AllHostsFilter", "anything", nil, req{}, host{}, ""},
		{"ComputeFilter", "enabled and up", nil, req{}, host{Enabled: true, Up: true}, ""},
		{"ComputeFilter", "disabled", nil, req{}, host{Up: true}, "disabled"},
		{"ComputeFilter", "silent", nil, req{}, host{Enabled: true}, "not been heard of"},
		{"ComputeFilter", "forced down", nil, req{}, host{Enabled: true, ForcedDown: true}, "forced down"},

		{"ComputeCapabilitiesFilter", "no specs", nil, req{Flavor: specs()}, host{}, ""},
		{"ComputeCapabilitiesFilter", "unknown key without namespace", nil, req{Flavor: specs("foo", "bar")}, host{}, ""},
		{"ComputeCapabilitiesFilter", "unknown scoped key", nil, req{Flavor: specs("capabilities:foo", "bar")}, host{}, "has no foo"},
		{"ComputeCapabilitiesFilter", "other namespaces", nil, req{Flavor: specs("hw:cpu_policy", "shared")}, host{}, ""},
		{"ComputeCapabilitiesFilter", "equal text", nil, req{Flavor: specs("hypervisor_type", "QEMU")}, host{HypervisorType: "QEMU"}, ""},
		{"ComputeCapabilitiesFilter", "other text", nil, req{Flavor: specs("hypervisor_type", "QEMU")}, host{HypervisorType: "fake"}, "hypervisor_type is fake"},
		{"ComputeCapabilitiesFilter", "at least", nil, req{Flavor: specs("capabilities:vcpus", "= 8")}, host{VCPUs: 16}, ""},
		{"ComputeCapabilitiesFilter", "too few", nil, req{Flavor: specs("capabilities:vcpus", ">= 8")}, host{VCPUs: 4}, "vcpus is 4"},
		{"ComputeCapabilitiesFilter", "nested", nil, req{Flavor: specs("capabilities:cpu_info:vendor", "<or> Intel <or> AMD")},
			host{CPUInfo: map[string]any{"vendor": "AMD"}}, ""},
		{"ComputeCapabilitiesFilter", "features", nil, req{Flavor: specs("capabilities:cpu_info:features", "<all-in> aes vmx")},
			host{CPUInfo: map[string]any{"features": []any{"aes", "sse", "vmx"}}}, ""},
		{"ComputeCapabilitiesFilter", "one feature is missing", nil, req{Flavor: specs("capabilities:cpu_info:features", "<all-in> aes svm")},
			host{CPUInfo: map[string]any{"features": []any{"aes", "sse", "vmx"}}}, "features"},
		{"ComputeCapabilitiesFilter", "stats", nil, req{Flavor: specs("capabilities:gpu", "s== yes")}, host{Stats: map[string]string{"gpu": "yes"}}, ""},
		{"ComputeCapabilitiesFilter", "address bits", nil, req{Flavor: specs("hw:maxphysaddr_bits", "46")},
			host{CPUInfo: map[string]any{"maxphysaddr": map[string]any{"bits": 40.0}}}, "asked is >= 46"},

		{"ImagePropertiesFilter", "nothing asked", nil, req{}, host{}, ""},
		{"ImagePropertiesFilter", "supported", nil, req{Image: image("hw_architecture", "x86_64", "img_hv_type", "kvm", "hw_vm_mode", "hvm")}, host{Supported: kvm}, ""},
		{"ImagePropertiesFilter", "not together", nil, req{Image: image("hw_architecture", "aarch64", "img_hv_type", "kvm")}, host{Supported: kvm}, "does not support"},
		{"ImagePropertiesFilter", "under a former name", nil, req{Image: image("architecture", "aarch64", "hypervisor_type", "kvm")}, host{Supported: kvm}, "does not support"},
		{"ImagePropertiesFilter", "spelled otherwise", nil, req{Image: image("hw_architecture", "AMD64")}, host{Supported: kvm}, ""},
		{"ImagePropertiesFilter", "default architecture", func(c *config) { c.DefaultArchitecture = "ppc64" }, req{}, host{Supported: kvm}, "ppc64"},
		{"ImagePropertiesFilter", "version", nil, req{Image: image("img_hv_requested_version", ">=7.2, <8")}, host{HypervisorVersion: 7002000}, ""},
		{"ImagePropertiesFilter", "version of a host that reports none", nil, req{Image: image("img_hv_requested_version", ">=7.2")}, host{}, ""},
		{"ImagePropertiesFilter", "narrow addresses", nil, req{Image: image("hw_maxphysaddr_bits", "46")}, host{CPUInfo: map[string]any{"maxphysaddr": map[string]any{"bits": 40.0}}}, "less than 46"},
		{"ImagePropertiesFilter", "modes under their other names", nil, req{Image: image("hw_vm_mode", "hv")}, host{Supported: kvm}, ""},
		{"ImagePropertiesFilter", "older version", nil, req{Image: image("img_hv_requested_version", ">=7.2.1")}, host{HypervisorVersion: 7002000}, "7.2.0"},

		{"AggregateImagePropertiesIsolation", "image without the property", nil, req{Image: image()}, host{Aggregates: in("os_type", "linux")}, ""},
		{"AggregateImagePropertiesIsolation", "equal", nil, req{Image: image("os_type", "linux")}, host{Aggregates: in("os_type", "linux, bsd")}, ""},
		{"AggregateImagePropertiesIsolation", "other", nil, req{Image: image("os_type", "windows")}, host{Aggregates: in("os_type", "linux")}, "os_type"},
		{"AggregateImagePropertiesIsolation", "outside the namespace", func(c *config) { c.ImageIsolationNamespace = "iso" }, req{Image: image("os_type", "windows")},
			host{Aggregates: in("os_type", "linux")}, ""},

		{"AggregateImagePropertiesIsolation", "in the namespace", func(c *config) { c.ImageIsolationNamespace = "iso" }, req{Image: image("iso.os_type", "windows")},
			host{Aggregates: in("iso.os_type", "linux")}, "iso.os_type"},
		{"AggregateImagePropertiesIsolation", "other separator", func(c *config) { c.ImageIsolationNamespace, c.ImageIsolationSeparator = "iso", "_" }, req{Image: image("iso_os_type", "windows", "iso.os_type", "windows")},
			host{Aggregates: in("iso.os_type", "linux")}, ""},

		{"AggregateInstanceExtraSpecsFilter", "no specs", nil, req{Flavor: specs("hw:x", "1")}, host{}, ""},
		{"AggregateInstanceExtraSpecsFilter", "scoped and matching", nil, req{Flavor: specs("aggregate_instance_extra_specs:ssd", "true")},
			host{Aggregates: in("ssd", "true")}, ""},
		{"AggregateInstanceExtraSpecsFilter", "no such key", nil, req{Flavor: specs("ssd", "true")}, host{Aggregates: in()}, "no aggregate"},
		{"AggregateInstanceExtraSpecsFilter", "one of several values", nil, req{Flavor: specs("gen", ">= 3")}, host{Aggregates: in("gen", "1,3")}, ""},
		{"AggregateInstanceExtraSpecsFilter", "none of the values", nil, req{Flavor: specs("gen", ">= 4")}, host{Aggregates: in("gen", "1,3")}, "asked is >= 4"},

		{"AggregateMultiTenancyIsolation", "free host", nil, req{ProjectID: "p"}, host{Aggregates: in("x", "y")}, ""},
		{"AggregateMultiTenancyIsolation", "own", nil, req{ProjectID: "p"}, host{Aggregates: in("filter_tenant_id3", "q, p")}, ""},
		{"AggregateMultiTenancyIsolation", "of others", nil, req{ProjectID: "p"}, host{Aggregates: in("filter_tenant_id", "q")}, "other projects"},

		{"AggregateTypeAffinityFilter", "listed", nil, req{Flavor: specs()}, host{Aggregates: in("instance_type", "m1.tiny,m1.small")}, ""},
		{"AggregateTypeAffinityFilter", "not listed", nil, req{Flavor: specs()}, host{Aggregates: in("instance_type", "m1.tiny")}, "m1.tiny"},

		{"IoOpsFilter", "below", nil, req{}, host{IOOps: 7}, ""},
		{"IoOpsFilter", "at the bound", nil, req{}, host{IOOps: 8}, "8 are allowed"},
		{"AggregateIoOpsFilter", "bound of the aggregate", nil, req{}, host{IOOps: 3, Aggregates: in("max_io_ops_per_host", "3")}, "3 are allowed"},
		{"AggregateIoOpsFilter", "without one", nil, req{}, host{IOOps: 7}, ""},
		{"IoOpsFilter", "other bound", func(c *config) { c.MaxIOOpsPerHost = 2 }, req{}, host{IOOps: 2}, "2 are allowed"},
		{"AggregateIoOpsFilter", "smallest bound of several", nil, req{}, host{IOOps: 4, Aggregates: append(in("max_io_ops_per_host", "9"), in("max_io_ops_per_host", "4")...)}, "4 are allowed"},
		{"NumInstancesFilter", "below", func(c *config) { c.MaxInstancesPerHost = 2 }, req{}, host{NumServers: 1}, ""},
		{"NumInstancesFilter", "at the default bound", nil, req{}, host{NumServers: 50}, "50 are allowed"},
		{"AggregateNumInstancesFilter", "smaller bound of the aggregate", nil, req{}, host{NumServers: 3, Aggregates: in("max_instances_per_host", "3")}, "3 are allowed"},
		{"NumInstancesFilter", "at the bound", func(c *config) { c.MaxInstancesPerHost = 2 }, req{}, host{NumServers: 2}, "2 are allowed"},
		{"AggregateNumInstancesFilter", "larger bound of the aggregate", func(c *config) { c.MaxInstancesPerHost = 2 }, req{},
			host{NumServers: 2, Aggregates: in("max_instances_per_host", "5")}, ""},

		{"IsolatedHostsFilter", "image for isolated hosts", func(c *config) { c.IsolatedImages = []string{"img"} }, req{Image: image()}, host{Host: "h"}, "isolated hosts"},
		{"IsolatedHostsFilter", "its host", func(c *config) { c.IsolatedImages, c.IsolatedHosts = []string{"img"}, []string{"h"} }, req{Image: image()}, host{Host: "h"}, ""},
		{"IsolatedHostsFilter", "other image", func(c *config) { c.IsolatedHosts = []string{"h"} }, req{Image: image()}, host{Host: "h"}, "isolated images"},
		{"IsolatedHostsFilter", "other image, not restricted", func(c *config) { c.IsolatedHosts, c.RestrictIsolatedHosts = []string{"h"}, false }, req{Image: image()}, host{Host: "h"}, ""},

		{"DifferentHostFilter", "away", nil, req{Hints: hints(`{"different_host": ["a", "b"]}`)}, host{Servers: on("c")}, ""},
		{"DifferentHostFilter", "beside", nil, req{Hints: hints(`{"different_host": "a"}`)}, host{Servers: on("a")}, "different_host"},
		{"SameHostFilter", "beside one", nil, req{Hints: hints(`{"same_host": ["a", "b"]}`)}, host{Servers: on("b")}, ""},
		{"SameHostFilter", "beside none", nil, req{Hints: hints(`{"same_host": ["a"]}`)}, host{Servers: on("b")}, "same_host"},

		{"SimpleCIDRAffinityFilter", "no hint", nil, req{}, host{}, ""},
		{"SimpleCIDRAffinityFilter", "near", nil, req{Hints: hints(`{"build_near_host_ip": "10.1.2.3"}`)}, host{HostIP: "10.1.2.77"}, ""},
		{"SimpleCIDRAffinityFilter", "far", nil, req{Hints: hints(`{"build_near_host_ip": "10.1.2.3", "cidr": "/28"}`)}, host{HostIP: "10.1.2.77"}, "10.1.2.0/28"},

		{"JsonFilter", "true", nil, req{Hints: hints(`{"query": "[\"and\", [\">=\", \"$free_ram_mb\", 1024], [\"=\", \"$hypervisor_type\", \"QEMU\"]]"}`)},
			host{MemoryMB: 2048, HypervisorType: "QEMU"}, ""},
		{"JsonFilter", "false", nil, req{Hints: hints(`{"query": [">=", "$free_ram_mb", 4096]}`)}, host{MemoryMB: 2048}, "not true"},
		{"JsonFilter", "in", nil, req{Hints: hints(`{"query": ["in", "$host", "a", "b"]}`)}, host{Host: "b"}, ""},
		{"JsonFilter", "not", nil, req{Hints: hints(`{"query": ["not", ["<", "$vcpus", 4]]}`)}, host{VCPUs: 2}, "not true"},
		{"JsonFilter", "texts in order", nil, req{Hints: hints(`{"query": ["<", "$host", "n"]}`)}, host{Host: "m"}, ""},
		{"JsonFilter", "or", nil, req{Hints: hints(`{"query": ["or", ["<", "$vcpus", 4], [">", "$vcpus", 100]]}`)}, host{VCPUs: 2}, ""},

		{"MetricsFilter", "all there", func(c *config) { c.MetricsSetting = map[string]float64{"cpu.load": 1} }, req{}, host{Metrics: map[string]float64{"cpu.load": 0.2}}, ""},
		{"MetricsFilter", "nothing weighed", nil, req{}, host{}, ""},
		{"MetricsFilter", "one missing", func(c *config) { c.MetricsSetting = map[string]float64{"cpu.load": 1} }, req{}, host{}, "cpu.load"},

		{"NUMATopologyFilter", "nothing asked", nil, req{Flavor: specs()}, host{}, ""},
		{"NUMATopologyFilter", "host without topology", nil, req{Flavor: specs("hw:cpu_policy", "dedicated")}, host{}, "no NUMA topology"},
		{"NUMATopologyFilter", "pinned", nil, req{Flavor: specs("hw:cpu_policy", "dedicated")}, host{NUMA: oneNode}, ""},
		{"NUMATopologyFilter", "too many nodes", nil, req{Flavor: specs("hw:numa_nodes", "2")}, host{NUMA: oneNode}, "the host has 1"},
		{"NUMATopologyFilter", "pages", nil, req{Flavor: specs("hw:mem_page_size", "2MB")}, host{NUMA: oneNode}, "pages of size 2048"},
		{"NUMATopologyFilter", "small pages", nil, req{Flavor: specs("hw:mem_page_size", "small")}, host{NUMA: oneNode}, ""},

		{"PciPassthroughFilter", "there", nil, req{PCI: []scheduler.PCIRequest{{Alias: "gpu", Count: 1, Specs: []map[string]string{{"vendor_id": "10de"}}}}},
			host{PCI: []scheduler.PCIPool{{Tags: map[string]string{"vendor_id": "10de", "product_id": "1"}, Count: 2}}}, ""},
		{"PciPassthroughFilter", "too few", nil, req{PCI: []scheduler.PCIRequest{{Alias: "gpu", Count: 3, Specs: []map[string]string{{"vendor_id": "10de"}}}}},
			host{PCI: []scheduler.PCIPool{{Tags: map[string]string{"vendor_id": "10de"}, Count: 2}}}, "3 asked, 2 free"},

		{"PciPassthroughFilter", "of the provider that placement found", nil, req{PCI: []scheduler.PCIRequest{{ID: "r", Alias: "gpu", Count: 1, Class: "GPU", Specs: []map[string]string{{}}}}},
			host{PCI: []scheduler.PCIPool{{Provider: "p2", Count: 1}}, Offers: []placement.Candidate{{Mappings: map[string][]string{"r-0": {"p1"}}}, {Mappings: map[string][]string{"r-0": {"p2"}}}}}, ""},
		{"PciPassthroughFilter", "no device of those providers", nil, req{PCI: []scheduler.PCIRequest{{ID: "r", Alias: "gpu", Count: 1, Class: "GPU", Specs: []map[string]string{{}}}}},
			host{PCI: []scheduler.PCIPool{{Provider: "p2", Count: 1}}, Offers: []placement.Candidate{{Mappings: map[string][]string{"r-0": {"p1"}}}}}, "1 asked, 0 free"},
		{"PciPassthroughFilter", "port that is a device", nil, req{Ports: []scheduler.Port{{ID: "p", VNICType: "direct"}}, PCI: scheduler.PortRequests([]compute.PortDevice{{PortID: "p", VNICType: "direct", PhysicalNetwork: "net"}}, "")},
			host{PCI: []scheduler.PCIPool{{Tags: map[string]string{"physical_network": "net", "dev_type": "type-VF"}, Count: 1}}}, ""},
		{"PciPassthroughFilter", "port of another physical network", nil, req{Ports: []scheduler.Port{{ID: "p", VNICType: "direct"}}, PCI: scheduler.PortRequests([]compute.PortDevice{{PortID: "p", VNICType: "direct"}}, "")},
			host{PCI: []scheduler.PCIPool{{Tags: map[string]string{"physical_network": "net", "dev_type": "type-VF"}, Count: 1}}}, "port p: no free device"},
		{"PciPassthroughFilter", "alias that nobody resolved", nil, req{Flavor: specs("pci_passthrough:alias", "gpu:1")}, host{}, "alias gpu:1"},
		{"PciPassthroughFilter", "port of a device", nil, req{Ports: []scheduler.Port{{VNICType: "normal"}, {VNICType: "direct"}}}, host{}, "type direct"},
		{"PciPassthroughFilter", "ordinary port", nil, req{Ports: []scheduler.Port{{VNICType: "normal"}}}, host{}, ""},

		{"ServerGroupAffinityFilter", "empty group", nil, req{Group: &scheduler.Group{Policy: "affinity"}}, host{Host: "h"}, ""},
		{"ServerGroupAffinityFilter", "elsewhere", nil, req{Group: &scheduler.Group{ID: "g", Policy: "affinity", Hosts: map[string]int{"x": 1}}}, host{Host: "h"}, "group g"},
		{"ServerGroupAffinityFilter", "together", nil, req{Group: &scheduler.Group{Policy: "affinity", Hosts: map[string]int{"h": 1}}}, host{Host: "h"}, ""},
		{"ServerGroupAffinityFilter", "on its way", nil, req{Group: &scheduler.Group{ID: "g", Policy: "affinity", Hosts: map[string]int{"h": 1, "x": 1}, Moving: 1}}, host{Host: "h"}, "on its way"},
		{"ServerGroupAffinityFilter", "other policy", nil, req{Group: &scheduler.Group{Policy: "anti-affinity", Hosts: map[string]int{"x": 1}}}, host{Host: "h"}, ""},
		{"ServerGroupAntiAffinityFilter", "apart", nil, req{Group: &scheduler.Group{Policy: "anti-affinity", Hosts: map[string]int{"x": 1}}}, host{Host: "h"}, ""},
		{"ServerGroupAntiAffinityFilter", "together", nil, req{Group: &scheduler.Group{Policy: "anti-affinity", Hosts: map[string]int{"h": 1}}}, host{Host: "h"}, "1 are allowed"},
		{"ServerGroupAntiAffinityFilter", "rule of two", nil, req{Group: &scheduler.Group{Policy: "anti-affinity", MaxPerHost: 2, Hosts: map[string]int{"h": 1}}}, host{Host: "h"}, ""},
		{"ServerGroupAntiAffinityFilter", "own host", nil, req{Group: &scheduler.Group{Policy: "anti-affinity", OwnHost: "h", Hosts: map[string]int{"h": 1}}}, host{Host: "h"}, ""},
	}
	all := filter.All()
	passed, refused := map[string]bool{"AllHostsFilter": true}, map[string]bool{"AllHostsFilter": true}
	for _, c := range cases {
		if c.why == "" {
			passed[c.filter] = true
		} else {
			refused[c.filter] = true
		}
		t.Run(c.filter+"/"+c.name, func(t *testing.T) {
			cfg := scheduler.Defaults()
			if c.config != nil {
				c.config(&cfg)
			}
			check, err := all[c.filter].Compile(&cfg, &c.req)
			if err != nil {
				t.Fatal(err)
			}
			why, pass := "", check == nil || check.Pass(&c.host)
			if !pass && check.Why != nil {
				why = check.Why(&c.host)
			}
			if pass != (c.why == "") || !strings.Contains(why, c.why) {
				t.Fatalf("passes: %v, %q; want %q", pass, why, c.why)
			}
		})
	}
	if len(all) != 22 {
		t.Errorf("%d filters, nova has 22", len(all))
	}
	for n := range all {
		if !passed[n] || !refused[n] {
			t.Errorf("%s has a case that passes %v, and one that does not %v", n, passed[n], refused[n])
		}
	}
}

// What cannot be understood is refused as a whole, before any host is looked at.
func TestBadRequests(t *testing.T) {
	cases := map[string]req{
		"ImagePropertiesFilter":    {Image: image("img_hv_requested_version", "7.2")},
		"SimpleCIDRAffinityFilter": {Hints: hints(`{"build_near_host_ip": "here"}`)},
		"JsonFilter":               {Hints: hints(`{"query": ["drop", "table"]}`)},
		"NUMATopologyFilter":       {Flavor: specs("hw:numa_nodes", "3")},
	}
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		r := cases[name]
		cfg := scheduler.Defaults()
		if _, err := filter.All()[name].Compile(&cfg, &r); err == nil {
			t.Errorf("%s took a bad request", name)
		}
	}
}

func TestOperators(t *testing.T) {
	cases := []struct {
		value, requirement string
		want               bool
	}{
		{"4", "= 4", true}, {"5", "= 4", true}, {"3", "= 4", false}, {"4", "== 4.0", true}, {"5", "!= 4", true}, {"4", "<= 4", true}, {"5", "<= 4", false},
		{"b", "s> a", true}, {"b", "s>= b", true}, {"b", "s< a", false}, {"b", "s<= b", true}, {"b", "s!= b", false}, {"b", "s== b", true},
		{"abc", "<in> bc", true}, {"abc", "<in> x", false}, {"x", "<or> y <or> x", true}, {"x", "<or> y <or> z", false}, {"x y", "x y", true},
		{"text", "= 4", false}, {"", "", true},
	}
	cfg := scheduler.Defaults()
	for _, c := range cases {
		r := req{Flavor: specs("capabilities:k", c.requirement)}
		check, err := filter.All()["ComputeCapabilitiesFilter"].Compile(&cfg, &r)
		if err != nil {
			t.Fatal(err)
		}
		if got := check.Pass(&host{Stats: map[string]string{"k": c.value}}); got != c.want {
			t.Errorf("%q against %q: %v", c.value, c.requirement, got)
		}
	}
}
