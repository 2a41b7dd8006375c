package conductor_test

import (
	"strings"
	"testing"

	"kilonova/internal/compute"
	"kilonova/internal/compute/conductor"
	"kilonova/internal/compute/scheduler"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/operation"
)

// TestExplainPlacement: a server that nobody made is weighed on every host, and nothing of it stays.
func TestExplainPlacement(t *testing.T) {
	c := newCloud(t, options{planner: func(c *scheduler.Config) {
		c.ImagePropsMultiplier = 2
		c.EnabledFilters = append(c.EnabledFilters, "NumInstancesFilter")
		c.MaxInstancesPerHost = 2
	}})
	c.host("h1", fake.Config{VCPUs: 8, MemoryMB: 8192, DiskGB: 100})
	c.host("h2", fake.Config{VCPUs: 8, MemoryMB: 8192, DiskGB: 100})
	c.host("h3", fake.Config{VCPUs: 1, MemoryMB: 1024, DiskGB: 100})
	debian := map[string]string{"os_distro": "debian"}
	for range 2 {
		s := c.record(func(s *compute.Server) { s.ImageProps = debian })
		c.ends(c.create(s, compute.CreateInput{ForceHost: "h1"}), operation.Done)
	}
	one := c.record(func(s *compute.Server) { s.ImageProps = debian })
	c.ends(c.create(one, compute.CreateInput{ForceHost: "h2"}), operation.Done)
	flavor := compute.Flavor{FlavorID: "x", Name: "x", VCPUs: 1, RAMMB: 1024, RootGB: 1}
	text, err := c.con.ExplainWant(c.ctx, conductor.WantOf("p", flavor, "none", debian, nil), "")
	c.must(err)
	for _, want := range []string{"It would go to h2.", "h1: no", "NumInstancesFilter                 refuses: it has 2 servers, 2 are allowed", "h2: number 1 of 1", "ImagePropertiesWeigher             1, scaled",
		"BuildFailureWeigher                0, scaled 0.000 x -1000000 = 0.000\n",
		"h3: no\n  placement                          does not offer it", "MEMORY_MB: 1024 asked"} {
		if !strings.Contains(text, want) {
			t.Errorf("the explanation does not say %q:\n%s", want, text)
		}
	}
	held, err := c.place.Providers(c.ctx)
	c.must(err)
	for _, p := range held {
		if p.Used["VCPU"] > 2 {
			t.Errorf("%s has %v in use", p.Name, p.Used)
		}
	}
	small := flavor
	small.RAMMB = 128
	text, err = c.con.ExplainWant(c.ctx, conductor.WantOf("p", small, "none", nil, nil), "h2")
	if err != nil || !strings.Contains(text, "NumInstancesFilter removed 1") || strings.Contains(text, "offered none") {
		t.Errorf("%v\n%s", err, text)
	}
	text, err = c.con.ExplainWant(c.ctx, conductor.WantOf("p", flavor, "none", nil, map[string]any{"different_host": one.ID}), "h1")
	if err != nil || strings.Contains(text, "h2:") {
		t.Errorf("%v\n%s", err, text)
	}
	if _, err := c.con.ExplainWant(c.ctx, conductor.WantOf("p", flavor, "none", nil, nil), "h9"); err == nil {
		t.Error("a host that is not there was explained")
	}
}

// TestMetricsAreWeighed: what hosts measure reaches the scheduler.
func TestMetricsAreWeighed(t *testing.T) {
	c := newCloud(t, options{planner: func(c *scheduler.Config) {
		c.EnabledFilters = append(c.EnabledFilters, "MetricsFilter")
		c.MetricsSetting, c.MetricsMultiplier = map[string]float64{"cpu.percent": -1}, 1000
	}})
	for host, busy := range map[string]float64{"h1": 0.9, "h2": 0.1} {
		c.host(host, fake.Config{Hardware: fake.Hardware{Metrics: map[string]float64{"cpu.percent": busy}}})
	}
	c.host("h3", fake.Config{})
	text, err := c.con.ExplainWant(c.ctx, conductor.WantOf("p", compute.Flavor{FlavorID: "x", Name: "x", VCPUs: 1, RAMMB: 1}, "none", nil, nil), "")
	c.must(err)
	for _, want := range []string{"It would go to h2.", "MetricsWeigher                     -0.9, scaled 0.000", "does not report the metric cpu.percent"} {
		if !strings.Contains(text, want) {
			t.Errorf("the explanation does not say %q:\n%s", want, text)
		}
	}
}

// TestFailedBuildsCount: a host on which a build failed comes last, for every conductor, until one succeeds there. It holds also for a conductor that comes
// after the failure, and for one that has never heard of the host before.
func TestFailedBuildsCount(t *testing.T) {
	c := newCloud(t, options{several: true})
	_, other, _ := c.conductor(options{several: true})
	c.host("h1", fake.Config{VCPUs: 64, MemoryMB: 65536, DiskGB: 1000})
	c.host("h2", fake.Config{VCPUs: 8, MemoryMB: 8192, DiskGB: 100})
	flavor := compute.Flavor{FlavorID: "x", Name: "x", VCPUs: 1, RAMMB: 512, RootGB: 1}
	first := func(con *conductor.Conductor) string {
		text, err := con.ExplainWant(c.ctx, conductor.WantOf("p", flavor, "none", nil, nil), "")
		c.must(err)
		_, rest, _ := strings.Cut(text, "It would go to ")
		host, _, _ := strings.Cut(rest, ".")
		return host
	}
	if got := first(c.con); got != "h1" {
		t.Fatalf("the larger host is not the first: %s", got)
	}
	c.fault("h1", "spawn", errNoLuck)
	s := c.record(nil)
	c.ends(c.create(s, compute.CreateInput{}), operation.Done)
	if got := c.get(s.ID).Host; got != "h2" {
		t.Fatalf("built on %s", got)
	}
	_, late, _ := c.conductor(options{several: true})
	all := []*conductor.Conductor{c.con, other, late}
	for i, con := range all {
		if got := first(con); got != "h2" {
			t.Fatalf("conductor %d does not avoid the host: %s", i, got)
		}
	}
	c.fault("h1", "spawn", nil)
	s = c.record(nil)
	c.ends(c.create(s, compute.CreateInput{ForceHost: "h1"}), operation.Done)
	for i, con := range all {
		if got := first(con); got != "h1" {
			t.Fatalf("conductor %d does not use the host again: %s", i, got)
		}
	}
}
