package scheduler_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kilonova/internal/compute"
	"kilonova/internal/compute/scheduler"
	"kilonova/internal/compute/scheduler/filter"
	"kilonova/internal/compute/scheduler/weigher"
	"kilonova/internal/placement"
)

func planner(t testing.TB, edit func(*scheduler.Config)) *scheduler.Planner {
	t.Helper()
	c := scheduler.Defaults()
	if edit != nil {
		edit(&c)
	}
	p, err := scheduler.New(c, filter.All(), weigher.All())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func hosts(n int) []*scheduler.HostState {
	out := make([]*scheduler.HostState, n)
	for i := range out {
		name := fmt.Sprintf("compute-%d", i)
		out[i] = &scheduler.HostState{Host: name, Node: name, Provider: "rp-" + name, Enabled: true, Up: true, VCPUs: 16, CPURatio: 4, MemoryMB: 65536, DiskGB: 1000,
			HypervisorVersion: 7002000, Supported: [][3]string{{"x86_64", "kvm", "hvm"}}, Servers: map[string]scheduler.ServerOn{}}
	}
	return out
}

func small() *scheduler.Request {
	return &scheduler.Request{ServerID: "s", ProjectID: "p", Flavor: compute.Flavor{Name: "m1.small", VCPUs: 1, RAMMB: 2048, RootGB: 20}}
}

func names(plan *scheduler.Plan) []string {
	out := make([]string, len(plan.Hosts))
	for i, h := range plan.Hosts {
		out[i] = h.Host.Host
	}
	return out
}

func TestPlanRanksAndExplains(t *testing.T) {
	p := planner(t, nil)
	hs := hosts(4)
	hs[0].MemoryUsedMB = 60000
	hs[1].Up, hs[1].Down = false, "compute-1 has been silent for 90 s"
	hs[3].FailedBuilds = 1
	plan, err := p.Plan(small(), hs, nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"compute-2", "compute-0", "compute-3"}, names(plan)); d != "" {
		t.Fatalf("ranking (-want +got):\n%s", d)
	}
	want := []scheduler.Removal{{Constraint: "ComputeFilter", Removed: 1, Hosts: []string{"compute-1"}, Nearest: "compute-1: compute-1 has been silent for 90 s"}}
	if d := cmp.Diff(want, plan.Explanation.Removed); d != "" {
		t.Fatalf("removed (-want +got):\n%s", d)
	}
}

func TestPlanOnlyTakesWhatPlacementOffers(t *testing.T) {
	p := planner(t, nil)
	c := &placement.Candidates{Candidates: []placement.Candidate{{Root: "rp-compute-2"}, {Root: "rp-compute-2"}, {Root: "rp-gone"}},
		Rejected: []placement.Rejection{{Constraint: "resource VCPU: 1 asked", Removed: 2, Nearest: "compute-0 has 0 of 1"}}}
	plan, err := p.Plan(small(), hosts(3), c)
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Hosts) != 1 || len(plan.Hosts[0].Candidates) != 2 {
		t.Fatalf("plan: %+v", plan.Hosts)
	}
	c.Candidates = nil
	plan, err = p.Plan(small(), hosts(3), c)
	if err != nil {
		t.Fatal(err)
	}
	text := plan.Explanation.NoValidHost().Error()
	if !strings.Contains(text, "No valid host was found. There are not enough hosts available.") || !strings.Contains(text, "resource VCPU: 1 asked removed 2 (nearest: compute-0 has 0 of 1)") {
		t.Fatalf("explanation: %s", text)
	}
}

func TestDestinations(t *testing.T) {
	p := planner(t, nil)
	cases := []struct {
		name string
		edit func(*scheduler.Request, []*scheduler.HostState)
		want []string
	}{
		{"requested host", func(r *scheduler.Request, _ []*scheduler.HostState) { r.Host = "compute-1" }, []string{"compute-1"}},
		{"requested host that is disabled", func(r *scheduler.Request, h []*scheduler.HostState) { r.Host, h[1].Enabled = "compute-1", false }, []string{}},
		{"forced host that is disabled", func(r *scheduler.Request, h []*scheduler.HostState) { r.ForceHost, h[1].Enabled = "compute-1", false }, []string{"compute-1"}},
		{"ignored", func(r *scheduler.Request, _ []*scheduler.HostState) { r.Ignore = []string{"compute-0", "compute-2"} }, []string{"compute-1"}},
		{"forced with pinned CPUs and no topology", func(r *scheduler.Request, _ []*scheduler.HostState) {
			r.ForceHost, r.Flavor.ExtraSpecs = "compute-1", map[string]string{"hw:cpu_policy": "dedicated"}
		}, []string{}},
		{"PCI devices without the filter enabled", func(r *scheduler.Request, _ []*scheduler.HostState) {
			r.PCI = []scheduler.PCIRequest{{Alias: "gpu", Count: 1, Specs: []map[string]string{{}}}}
		}, []string{}},
		{"rebuild passes the service filter over", func(r *scheduler.Request, h []*scheduler.HostState) {
			r.Rebuild, r.Host, h[1].Enabled = true, "compute-1", false
		}, []string{"compute-1"}},
		{"rebuild with an image of another architecture", func(r *scheduler.Request, _ []*scheduler.HostState) {
			r.Rebuild, r.Host, r.Image.Props = true, "compute-1", map[string]string{"hw_architecture": "aarch64"}
		}, []string{}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r, hs := small(), hosts(3)
			c.edit(r, hs)
			plan, err := p.Plan(r, hs, nil)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, names(plan)); d != "" {
				t.Fatalf("hosts (-want +got):\n%s\n%s", d, plan.Explanation.Text())
			}
		})
	}
}

func TestMultipliersOfAggregates(t *testing.T) {
	p := planner(t, func(c *scheduler.Config) { c.WeightClasses = []string{"RAMWeigher"} })
	hs := hosts(2)
	hs[0].MemoryMB = 100000
	lonely := &scheduler.Aggregate{Metadata: map[string]string{"ram_weight_multiplier": "-1"}}
	hs[0].Aggregates = []*scheduler.Aggregate{lonely, {Metadata: map[string]string{"ram_weight_multiplier": "2"}}}
	plan, err := p.Plan(small(), hs, nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"compute-1", "compute-0"}, names(plan)); d != "" {
		t.Fatalf("the smallest multiplier of the aggregates did not count:\n%s", d)
	}
}

func TestSubsetAndShuffle(t *testing.T) {
	p := planner(t, func(c *scheduler.Config) { c.HostSubsetSize, c.ShuffleBest = 3, true })
	first := map[string]int{}
	for range 300 {
		plan, err := p.Plan(small(), hosts(5), nil)
		if err != nil {
			t.Fatal(err)
		}
		first[plan.Hosts[0].Host.Host]++
		got := names(plan)
		slices.Sort(got)
		if len(slices.Compact(got)) != 5 {
			t.Fatalf("a host was lost: %v", names(plan))
		}
	}
	if len(first) < 3 {
		t.Fatalf("the first host is always among %v", first)
	}
}

func TestVerdictsJudgeByEveryFilter(t *testing.T) {
	p := planner(t, func(c *scheduler.Config) { c.EnabledFilters = append(c.EnabledFilters, "IoOpsFilter") })
	h := hosts(1)[0]
	h.Enabled, h.IOOps = false, 9
	v, err := p.Verdicts(small(), h)
	if err != nil {
		t.Fatal(err)
	}
	want := []scheduler.Verdict{{Constraint: "ComputeFilter", Why: "its compute service is disabled"}, {Constraint: "IoOpsFilter", Why: "it has 9 I/O operations, 8 are allowed"}}
	if d := cmp.Diff(want, v); d != "" {
		t.Fatalf("verdicts (-want +got):\n%s", d)
	}
	if w := p.Weights(small(), h, hosts(2)); len(w) < 6 {
		t.Fatalf("weights: %v", w)
	}
}

func TestUnknownNames(t *testing.T) {
	c := scheduler.Defaults()
	c.EnabledFilters = []string{"ComputFilter"}
	if _, err := scheduler.New(c, filter.All(), weigher.All()); err == nil || !strings.Contains(err.Error(), "ComputeFilter") {
		t.Fatalf("a misspelled filter: %v", err)
	}
	c = scheduler.Defaults()
	c.WeightClasses = []string{"nova.RAM"}
	if _, err := scheduler.New(c, filter.All(), weigher.All()); err == nil {
		t.Fatal("a misspelled weigher was taken")
	}
}

// For any hosts: every ranked host passes every verdict, every other fails one, the weights never rise down the ranking, and the explanation
// accounts for all that is missing.
func TestPlanProperties(t *testing.T) {
	p := planner(t, func(c *scheduler.Config) {
		c.EnabledFilters = append(c.EnabledFilters, "IoOpsFilter", "NumInstancesFilter", "DifferentHostFilter", "AggregateMultiTenancyIsolation")
	})
	rapid.Check(t, func(t *rapid.T) {
		hs := hosts(rapid.IntRange(0, 6).Draw(t, "hosts"))
		for _, h := range hs {
			h.Enabled, h.Up = rapid.Bool().Draw(t, "enabled"), rapid.Bool().Draw(t, "up")
			h.IOOps = rapid.IntRange(0, 10).Draw(t, "ops")
			h.MemoryUsedMB = rapid.Int64Range(0, 70000).Draw(t, "ram")
			if rapid.Bool().Draw(t, "has a") {
				h.Servers["a"] = scheduler.ServerOn{}
			}
			if rapid.Bool().Draw(t, "tenant") {
				h.Aggregates = []*scheduler.Aggregate{{Metadata: map[string]string{"filter_tenant_id": rapid.SampledFrom([]string{"p", "q"}).Draw(t, "of")}}}
			}
		}
		r := small()
		if rapid.Bool().Draw(t, "hint") {
			r.Hints = map[string]any{"different_host": []any{"a"}}
		}
		if rapid.Bool().Draw(t, "group") {
			r.Group = &scheduler.Group{Policy: rapid.SampledFrom([]string{"affinity", "anti-affinity", "soft-affinity"}).Draw(t, "policy"), Hosts: map[string]int{"compute-1": 1}}
		}
		plan, err := p.Plan(r, hs, nil)
		if err != nil {
			t.Fatal(err)
		}
		ranked := names(plan)
		for _, h := range hs {
			v, err := p.Verdicts(r, h)
			if err != nil {
				t.Fatal(err)
			}
			pass := !slices.ContainsFunc(v, func(v scheduler.Verdict) bool { return !v.Pass })
			if pass != slices.Contains(ranked, h.Host) {
				t.Fatalf("%s is ranked: %v, its verdicts: %v", h.Host, !pass, v)
			}
		}
		removed := 0
		for _, x := range plan.Explanation.Removed {
			removed += x.Removed
		}
		if removed+len(ranked) != len(hs) {
			t.Fatalf("%d removed and %d ranked of %d", removed, len(ranked), len(hs))
		}
		for i := 1; i < len(plan.Hosts); i++ {
			if plan.Hosts[i].Weight > plan.Hosts[i-1].Weight {
				t.Fatalf("the weights rise: %v", plan.Hosts)
			}
		}
	})
}

func BenchmarkPlan(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		hs := hosts(n)
		for i, h := range hs {
			h.MemoryUsedMB = int64(i % 100 * 512)
		}
		p := planner(b, nil)
		b.Run(fmt.Sprintf("hosts=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.Plan(small(), hs, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
		nobody := planner(b, func(c *scheduler.Config) {
			c.MaxIOOpsPerHost, c.EnabledFilters = 0, append(c.EnabledFilters, "IoOpsFilter")
		})
		b.Run(fmt.Sprintf("none of hosts=%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := nobody.Plan(small(), hs, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestPlanTakesEachHostsCandidates: in whatever order placement offers them; and the best of a plan are copies, with the count of all that will do.
func TestPlanTakesEachHostsCandidates(t *testing.T) {
	p := planner(t, nil)
	states := hosts(3)
	offer := func(i, disk int) placement.Candidate {
		return placement.Candidate{Root: states[i].Provider, Allocations: placement.Allocations{states[i].Provider: {"DISK_GB": int64(disk)}}}
	}
	all := &placement.Candidates{Candidates: []placement.Candidate{offer(0, 1), offer(0, 2), offer(1, 3), offer(0, 4), offer(2, 5), offer(1, 6)}}
	plan, err := p.Plan(small(), states, all)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]int64{}
	for _, r := range plan.Hosts {
		for _, c := range r.Candidates {
			got[r.Host.Host] = append(got[r.Host.Host], c.Allocations[r.Host.Provider]["DISK_GB"])
		}
	}
	if diff := cmp.Diff(map[string][]int64{states[0].Host: {1, 2, 4}, states[1].Host: {3, 6}, states[2].Host: {5}}, got); diff != "" {
		t.Error(diff)
	}
	if all.Candidates[2].Allocations[states[1].Provider] == nil || all.Candidates[3].Root != states[0].Provider {
		t.Errorf("placement's answer was changed: %+v", all.Candidates)
	}
	best := plan.Best(2)
	if best.Fit != 3 || len(best.Hosts) != 2 || best.Explanation != plan.Explanation {
		t.Fatalf("%+v", best)
	}
	for i, r := range best.Hosts {
		was := plan.Hosts[i]
		if r.Host == was.Host || cmp.Diff(*was.Host, *r.Host) != "" || cmp.Diff(was.Candidates, r.Candidates) != "" || &r.Candidates[0] == &was.Candidates[0] {
			t.Errorf("number %d is %+v, want a copy of %+v", i, r, was)
		}
	}
	if all := plan.Best(10); len(all.Hosts) != 3 || all.Fit != 3 {
		t.Errorf("%+v", all)
	}
}
