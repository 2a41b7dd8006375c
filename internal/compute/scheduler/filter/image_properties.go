package filter

import (
	"fmt"
	"strconv"
	"strings"

	"kilonova/internal/compute/scheduler"
	"kilonova/internal/fault"
)

// imageProperties asks for a host that supports the image's architecture, hypervisor type and mode together, and its hypervisor version.
func imageProperties(c *scheduler.Config, r *scheduler.Request) (*scheduler.Check, error) {
	arch, hv, mode := architecture(r.Prop("hw_architecture")), hypervisor(r.Prop("img_hv_type")), vmMode(r.Prop("hw_vm_mode"))
	if arch == "" {
		arch = architecture(c.DefaultArchitecture)
	}
	version, err := parsePredicates(r.Prop("img_hv_requested_version"))
	if err != nil {
		return nil, err
	}
	bits, _ := strconv.Atoi(r.Prop("hw_maxphysaddr_bits"))
	if arch == "" && hv == "" && mode == "" && version == nil && bits == 0 {
		return nil, nil //nolint:nilnil // nothing to check
	}
	supported := func(h *scheduler.HostState) bool {
		if arch == "" && hv == "" && mode == "" {
			return true
		}
		for _, s := range h.Supported {
			if (arch == "" || architecture(s[0]) == arch) && (hv == "" || hypervisor(s[1]) == hv) && (mode == "" || vmMode(s[2]) == mode) {
				return true
			}
		}
		return false
	}
	wide := func(h *scheduler.HostState) bool {
		if bits == 0 {
			return true
		}
		v, ok := attribute(h, []string{"cpu_info", "maxphysaddr", "bits"})
		return !ok || matches(text(v), ">= "+strconv.Itoa(bits)) // a host that does not report them is not judged by them
	}
	return &scheduler.Check{
		Pass: func(h *scheduler.HostState) bool { return supported(h) && version.hold(h.HypervisorVersion) && wide(h) },
		Why: func(h *scheduler.HostState) string {
			switch {
			case !supported(h):
				return fmt.Sprintf("it does not support architecture %s, hypervisor %s and mode %s together", orAny(arch), orAny(hv), orAny(mode))
			case !wide(h):
				return fmt.Sprintf("its CPU has physical addresses of less than %d bits", bits)
			}
			return fmt.Sprintf("its hypervisor version is %s, asked is %s", dotted(h.HypervisorVersion), r.Prop("img_hv_requested_version"))
		},
	}, nil
}

func lower(s string) string { return strings.ToLower(strings.TrimSpace(s)) }

func orAny(s string) string {
	if s == "" {
		return "(any)"
	}
	return s
}

// architecture brings the usual spellings together.
func architecture(s string) string {
	switch s = lower(s); s {
	case "amd64", "x64":
		return "x86_64"
	case "i386", "i486", "i586", "x86":
		return "i686"
	case "arm64":
		return "aarch64"
	}
	return s
}

// hypervisor and vmMode do the same for theirs.
func hypervisor(s string) string {
	if s = lower(s); s == "xapi" {
		return "xen"
	}
	return s
}

func vmMode(s string) string {
	switch s = lower(s); s {
	case "pv":
		return "xen"
	case "hv", "baremetal":
		return "hvm"
	}
	return s
}

// predicate is one comparison of a version.
type predicate struct {
	op      string
	version []int
}

type predicates []predicate

// parsePredicates reads ">=1.2.0, <3"; nil for an empty text.
func parsePredicates(s string) (predicates, error) {
	var out predicates
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		op := ""
		for _, o := range []string{"<=", ">=", "==", "!=", "<", ">"} {
			if strings.HasPrefix(part, o) {
				op = o
				break
			}
		}
		p := predicate{op: op}
		for n := range strings.SplitSeq(strings.TrimSpace(part[len(op):]), ".") {
			i, err := strconv.Atoi(n)
			if err != nil || op == "" {
				return nil, fault.New(fault.Invalid, "The image property img_hv_requested_version is %q; write it as >=1.2.0, <3.", s)
			}
			p.version = append(p.version, i)
		}
		out = append(out, p)
	}
	return out, nil
}

// hold compares with a version number of the form 7002000 (7.2.0). A host that reports none is not judged by it.
func (p predicates) hold(have int) bool {
	if have == 0 {
		return true
	}
	v := []int{have / 1000000, have / 1000 % 1000, have % 1000}
	for _, q := range p {
		d := compare(v, q.version)
		ok := map[string]bool{"<": d < 0, "<=": d <= 0, ">": d > 0, ">=": d >= 0, "==": d == 0, "!=": d != 0}[q.op]
		if !ok {
			return false
		}
	}
	return true
}

func compare(a, b []int) int {
	for i := range max(len(a), len(b)) {
		x, y := 0, 0
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			return x - y
		}
	}
	return 0
}

func dotted(v int) string { return fmt.Sprintf("%d.%d.%d", v/1000000, v/1000%1000, v%1000) }
