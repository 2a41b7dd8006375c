package weigher_test

import (
	"testing"

	"kilonova/internal/compute/scheduler"
	"kilonova/internal/compute/scheduler/weigher"
)

type (
	req    = scheduler.Request
	host   = scheduler.HostState
	config = scheduler.Config
)

// Of each pair the weigher must prefer the better host.
func TestWeighers(t *testing.T) {
	group := func(policy string) *scheduler.Group {
		return &scheduler.Group{Policy: policy, Hosts: map[string]int{"a": 2, "b": 1}}
	}
	cases := []struct {
		weigher       string
		config        func(*config)
		req           req
		better, worse host
	}{
		{"RAMWeigher", nil, req{}, host{MemoryMB: 100}, host{MemoryMB: 200, MemoryUsedMB: 150}},
		{"CPUWeigher", nil, req{}, host{VCPUs: 8, CPURatio: 4}, host{VCPUs: 16, CPURatio: 1}},
		{"DiskWeigher", nil, req{}, host{DiskGB: 10}, host{DiskGB: 20, DiskUsedGB: 15}},
		{"IoOpsWeigher", nil, req{}, host{IOOps: 1}, host{IOOps: 2}},
		{"NumInstancesWeigher", func(c *config) { c.NumInstancesMultiplier = -1 }, req{}, host{}, host{NumServers: 1}},
		{"PCIWeigher", nil, req{}, host{}, host{PCI: []scheduler.PCIPool{{Count: 3}}}},
		{"ServerGroupSoftAffinityWeigher", nil, req{Group: group("soft-affinity")}, host{Host: "a"}, host{Host: "b"}},
		{"ServerGroupSoftAntiAffinityWeigher", nil, req{Group: group("soft-anti-affinity")}, host{Host: "b"}, host{Host: "a"}},
		{"BuildFailureWeigher", nil, req{}, host{}, host{FailedBuilds: 1}},
		{"CrossCellWeigher", nil, req{SourceCell: "c1"}, host{Cell: "c1"}, host{Cell: "c2"}},
		{"HypervisorVersionWeigher", nil, req{}, host{HypervisorVersion: 8000000}, host{HypervisorVersion: 7002000}},
		{"ImagePropertiesWeigher", func(c *config) { c.ImagePropsMultiplier, c.ImagePropsSetting = 1, map[string]float64{"os_distro": 2} },
			req{Image: scheduler.Image{Props: map[string]string{"os_distro": "debian", "x": "y"}}},
			host{Servers: map[string]scheduler.ServerOn{"s": {ImageProps: map[string]string{"os_distro": "debian"}}}},
			host{Servers: map[string]scheduler.ServerOn{"s": {ImageProps: map[string]string{"os_distro": "fedora", "x": "y"}}}}},
		{"MetricsWeigher", func(c *config) { c.MetricsSetting = map[string]float64{"load": -1} }, req{}, host{Metrics: map[string]float64{"load": 0.1}},
			host{Metrics: map[string]float64{"load": 0.9}}},
		{"MetricsWeigher", func(c *config) { c.MetricsSetting, c.MetricsRequired = map[string]float64{"load": -1}, false }, req{},
			host{Metrics: map[string]float64{"load": 0.9}}, host{}},
	}
	all := weigher.All()
	covered := map[string]bool{}
	for _, c := range cases {
		covered[c.weigher] = true
		cfg := scheduler.Defaults()
		if c.config != nil {
			c.config(&cfg)
		}
		w := all[c.weigher]
		value := w.Compile(&cfg, &c.req)
		if value == nil {
			t.Errorf("%s has nothing to say", c.weigher)
			continue
		}
		if m := w.Multiplier(&cfg); m*value(&c.better) <= m*value(&c.worse) {
			t.Errorf("%s: %g for the better host, %g for the worse", c.weigher, m*value(&c.better), m*value(&c.worse))
		}
	}
	if len(all) != 13 {
		t.Errorf("%d weighers, nova has 13", len(all))
	}
	for n := range all {
		if !covered[n] {
			t.Errorf("%s has no case", n)
		}
	}
}

// Weighers about groups, moves between cells, images and metrics keep out of requests that they do not concern.
func TestWeighersThatDoNotApply(t *testing.T) {
	cfg := scheduler.Defaults()
	for _, n := range []string{"ServerGroupSoftAffinityWeigher", "ServerGroupSoftAntiAffinityWeigher", "CrossCellWeigher", "ImagePropertiesWeigher", "MetricsWeigher"} {
		if weigher.All()[n].Compile(&cfg, &req{}) != nil {
			t.Errorf("%s weighs a request that it does not concern", n)
		}
	}
}
