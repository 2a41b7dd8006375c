package scheduler

import (
	"regexp"
	"slices"
	"strconv"

	"kilonova/internal/fault"
)

// cpuPolicy is how a server's virtual CPUs sit on those of its host.
type cpuPolicy struct {
	pinned  []int  // vCPUs that have a host CPU of their own, in order
	threads string // prefer, isolate, require; "": prefer
	isolate bool   // one more pinned CPU for the emulator threads
}

const hyperthreading = "trait:HW_CPU_HYPERTHREADING"

// cpuPolicyOf reads the policy from the flavor and the image. Amounts of the class PCPU, and the trait of hyperthreads, say the same as a CPU policy and a thread policy:
// one or the other may be given. Contradictions are fault.Invalid.
func cpuPolicyOf(r *Request) (*cpuPolicy, error) {
	policy, bad := r.FlavorOrImage("cpu_policy")
	if bad {
		return nil, conflict("hw:cpu_policy", "hw_cpu_policy")
	}
	threads, bad := r.FlavorOrImage("cpu_thread_policy")
	if bad {
		return nil, conflict("hw:cpu_thread_policy", "hw_cpu_thread_policy")
	}
	p := &cpuPolicy{threads: threads, isolate: r.Spec("hw:emulator_threads_policy") == "isolate"}
	floating, pinned := namedCPUs(r)
	switch {
	case policy != "" && floating+pinned > 0:
		return nil, fault.New(fault.Invalid, "The extra specs resources:VCPU and resources:PCPU cannot be given together with the CPU policy %s: use one or the other.", policy)
	case floating > 0 && pinned > 0:
		return nil, fault.New(fault.Invalid, "The extra specs resources:VCPU and resources:PCPU cannot be given together.")
	case pinned > 0:
		want := int64(r.Flavor.VCPUs)
		if p.isolate {
			want++
		}
		if pinned != want {
			return nil, fault.New(fault.Invalid, "The flavor has %d vCPUs and needs exactly %d PCPU, one more than vCPUs with hw:emulator_threads_policy isolate; it asks for %d.",
				r.Flavor.VCPUs, want, pinned)
		}
		policy = "dedicated"
	}
	if trait := r.Spec(hyperthreading) + r.Prop(hyperthreading); trait != "" {
		if threads != "" {
			return nil, fault.New(fault.Invalid, "The trait HW_CPU_HYPERTHREADING cannot be asked for together with a CPU thread policy: use one or the other.")
		}
		p.threads = map[string]string{"forbidden": "isolate", "required": "require"}[trait]
	}
	rt, err := realtimeCPUs(r)
	if err != nil {
		return nil, err
	}
	if err := p.pin(r, policy, rt); err != nil {
		return nil, err
	}
	switch {
	case len(p.pinned) > 0:
		return p, nil
	case len(rt) > 0:
		return nil, fault.New(fault.Invalid, "hw:cpu_realtime needs the CPU policy dedicated or mixed.")
	case p.threads != "":
		return nil, fault.New(fault.Invalid, "A CPU thread policy is asked for without the CPU policy dedicated or mixed.")
	case p.isolate:
		return nil, fault.New(fault.Invalid, "hw:emulator_threads_policy isolate needs the CPU policy dedicated or mixed.")
	}
	return p, nil
}

// pin chooses the vCPUs that are pinned.
func (p *cpuPolicy) pin(r *Request, policy string, rt []int) error {
	mask := r.Spec("hw:cpu_dedicated_mask")
	switch policy {
	case "", "shared", "dedicated":
		if mask != "" {
			return fault.New(fault.Invalid, "hw:cpu_dedicated_mask needs the CPU policy mixed.")
		}
		if policy == "dedicated" {
			p.pinned = everyCPU(r)
		}
		return nil
	case "mixed":
	default:
		return fault.New(fault.Invalid, "The CPU policy must be shared, dedicated or mixed, not %s.", policy)
	}
	if (mask == "") == (len(rt) == 0) {
		return fault.New(fault.Invalid, "The CPU policy mixed needs hw:cpu_dedicated_mask or a realtime mask, and not both.")
	}
	if mask == "" {
		p.pinned = rt
		return nil
	}
	set, err := CPUSet(mask, everyCPU(r))
	if err != nil {
		return err
	}
	if len(set) == 0 || len(set) == r.Flavor.VCPUs {
		return fault.New(fault.Invalid, "The mask %s must pin some vCPUs and leave some, with the CPU policy mixed.", mask)
	}
	p.pinned = set
	return nil
}

// realtimeCPUs gives the vCPUs that run with real-time priority; none without hw:cpu_realtime. One at least must not, unless the emulator has CPUs of its own.
func realtimeCPUs(r *Request) ([]int, error) {
	if !True(r.Spec("hw:cpu_realtime")) {
		return nil, nil
	}
	all := everyCPU(r)
	set := all
	if mask, _ := r.FlavorOrImage("cpu_realtime_mask"); mask != "" {
		var err error
		if set, err = CPUSet(mask, all); err != nil {
			return nil, err
		}
	}
	if len(set) == 0 || len(set) == len(all) && r.Spec("hw:emulator_threads_policy") == "" {
		return nil, fault.New(fault.Invalid, "Realtime policy needs vCPU(s) mask configured with at least 1 RT vCPU and 1 ordinary vCPU. See hw:cpu_realtime_mask or hw_cpu_realtime_mask.")
	}
	return set, nil
}

func everyCPU(r *Request) []int {
	all := make([]int, r.Flavor.VCPUs)
	for i := range all {
		all[i] = i
	}
	return all
}

var cpuClass = regexp.MustCompile(`^resources[A-Za-z0-9_-]*:(VCPU|PCPU)$`)

// namedCPUs gives the amounts of VCPU and PCPU that the flavor's extra specs name, in any group.
func namedCPUs(r *Request) (vcpus, pcpus int64) {
	for key, value := range r.Flavor.ExtraSpecs {
		m := cpuClass.FindStringSubmatch(key)
		n, err := strconv.ParseInt(value, 10, 64)
		if m == nil || err != nil { // what is no number is refused where groups are read
			continue
		}
		if m[1] == "VCPU" {
			vcpus += n
		} else {
			pcpus += n
		}
	}
	return vcpus, pcpus
}

// PinnedCPUs gives the virtual CPUs that a request wants pinned, in order.
func PinnedCPUs(r *Request) ([]int, error) {
	p, err := cpuPolicyOf(r)
	if err != nil {
		return nil, err
	}
	return slices.Clone(p.pinned), nil
}
