package scheduler

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute"
	"kilonova/internal/fault"
	"kilonova/internal/placement"
)

// TestCPUPolicies: what may be asked of the CPUs, which of them are pinned, and what placement is asked for.
func TestCPUPolicies(t *testing.T) {
	type m = map[string]string
	for name, c := range map[string]struct {
		specs, props m
		pinned       []int
		want         placement.Resources // of VCPU and PCPU
		threads      string
		bad          string
	}{
		"nothing":                               {want: placement.Resources{"VCPU": 4}},
		"dedicated":                             {specs: m{"hw:cpu_policy": "dedicated"}, pinned: []int{0, 1, 2, 3}, want: placement.Resources{"PCPU": 4}},
		"PCPU named":                            {specs: m{"resources:PCPU": "4"}, pinned: []int{0, 1, 2, 3}, want: placement.Resources{"PCPU": 4}},
		"PCPU named, emulator isolated":         {specs: m{"resources:PCPU": "5", "hw:emulator_threads_policy": "isolate"}, pinned: []int{0, 1, 2, 3}, want: placement.Resources{"PCPU": 5}},
		"PCPU named, other than the flavor's":   {specs: m{"resources:PCPU": "3"}, bad: "needs exactly 4 PCPU"},
		"PCPU named, none for the emulator":     {specs: m{"resources:PCPU": "4", "hw:emulator_threads_policy": "isolate"}, bad: "needs exactly 5 PCPU"},
		"PCPU named in a group":                 {specs: m{"resources1:PCPU": "4"}, pinned: []int{0, 1, 2, 3}, want: placement.Resources{}},
		"VCPU named, other than the flavor's":   {specs: m{"resources:VCPU": "2"}, want: placement.Resources{"VCPU": 2}},
		"both named":                            {specs: m{"resources:VCPU": "2", "resources:PCPU": "2"}, bad: "cannot be given together."},
		"PCPU named and a policy":               {specs: m{"resources:PCPU": "4", "hw:cpu_policy": "dedicated"}, bad: "use one or the other"},
		"VCPU named and a policy":               {specs: m{"resources:VCPU": "4"}, props: m{"hw_cpu_policy": "shared"}, bad: "use one or the other"},
		"hyperthreads by trait":                 {specs: m{"hw:cpu_policy": "dedicated", "trait:HW_CPU_HYPERTHREADING": "required"}, pinned: []int{0, 1, 2, 3}, want: placement.Resources{"PCPU": 4}, threads: "require"},
		"none by trait":                         {specs: m{"resources:PCPU": "4", "trait:HW_CPU_HYPERTHREADING": "forbidden"}, pinned: []int{0, 1, 2, 3}, want: placement.Resources{"PCPU": 4}, threads: "isolate"},
		"hyperthreads by the image's trait":     {specs: m{"hw:cpu_policy": "dedicated"}, props: m{"trait:HW_CPU_HYPERTHREADING": "required"}, pinned: []int{0, 1, 2, 3}, want: placement.Resources{"PCPU": 4}, threads: "require"},
		"hyperthreads by trait and policy":      {specs: m{"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": "prefer", "trait:HW_CPU_HYPERTHREADING": "required"}, bad: "use one or the other"},
		"hyperthreads by trait, floating":       {specs: m{"trait:HW_CPU_HYPERTHREADING": "forbidden"}, bad: "without the CPU policy"},
		"emulator isolated, floating":           {specs: m{"hw:emulator_threads_policy": "isolate"}, bad: "hw:emulator_threads_policy isolate needs"},
		"mask without mixed":                    {specs: m{"hw:cpu_policy": "dedicated", "hw:cpu_dedicated_mask": "0"}, bad: "needs the CPU policy mixed"},
		"mixed":                                 {specs: m{"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "^0"}, pinned: []int{1, 2, 3}, want: placement.Resources{"VCPU": 1, "PCPU": 3}},
		"mixed by real time":                    {specs: m{"hw:cpu_policy": "mixed", "hw:cpu_realtime": "yes"}, props: m{"hw_cpu_realtime_mask": "0-1"}, pinned: []int{0, 1}, want: placement.Resources{"VCPU": 2, "PCPU": 2}},
		"mixed by both":                         {specs: m{"hw:cpu_policy": "mixed", "hw:cpu_realtime": "yes", "hw:cpu_realtime_mask": "0", "hw:cpu_dedicated_mask": "0"}, bad: "and not both"},
		"mixed by neither":                      {specs: m{"hw:cpu_policy": "mixed"}, bad: "needs hw:cpu_dedicated_mask"},
		"real time, floating":                   {specs: m{"hw:cpu_realtime": "yes", "hw:cpu_realtime_mask": "^0"}, bad: "needs the CPU policy"},
		"real time for all":                     {specs: m{"hw:cpu_policy": "dedicated", "hw:cpu_realtime": "yes"}, bad: "1 RT vCPU and 1 ordinary vCPU"},
		"real time for all, emulator elsewhere": {specs: m{"hw:cpu_policy": "dedicated", "hw:cpu_realtime": "yes", "hw:emulator_threads_policy": "share"}, pinned: []int{0, 1, 2, 3}, want: placement.Resources{"PCPU": 4}},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Request{Flavor: compute.Flavor{VCPUs: 4, RAMMB: 512, RootGB: 1, ExtraSpecs: c.specs}, Image: Image{Props: c.props}}
			top, err := TopologyOf(r)
			if c.bad != "" {
				if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.bad) {
					t.Fatalf("%v, want %q", err, c.bad)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			pinned, err := PinnedCPUs(r)
			if d := cmp.Diff(c.pinned, pinned); d != "" || err != nil {
				t.Errorf("pinned: %s (%v)", d, err)
			}
			if (top != nil) != (len(c.pinned) > 0) || top != nil && top.ThreadPolicy != c.threads {
				t.Errorf("topology %+v, want threads %q", top, c.threads)
			}
			cfg := Defaults()
			cfg.ImageMetadataPrefilter = false
			q, err := Queries(&cfg, r, &Cloud{})
			if err != nil {
				t.Fatal(err)
			}
			got := maps.Clone(q[0].Groups[0].Resources)
			delete(got, "MEMORY_MB")
			delete(got, "DISK_GB")
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
			if needs := compute.NeedsClaim(&r.Flavor, c.props); top != nil && !needs {
				t.Error("a server with a topology is not seen to hold parts of its host")
			}
		})
	}
}
