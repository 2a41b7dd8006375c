package compute

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ParseCPUs reads a set of CPUs such as "0-3,8,^2", in order; "" is the empty set. A part with ^ takes out what parts before it put in.
func ParseCPUs(s string) ([]int, error) {
	in := map[int]bool{}
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		on := !strings.HasPrefix(part, "^")
		first, last, isRange := strings.Cut(strings.TrimPrefix(part, "^"), "-")
		a, err := strconv.Atoi(first)
		b := a
		if err == nil && isRange {
			b, err = strconv.Atoi(last)
		}
		if err != nil || a < 0 || b < a || b > 1<<16 {
			return nil, fmt.Errorf("%q is no set of CPUs: write it as 0-3,8,^2", s)
		}
		for i := a; i <= b; i++ {
			in[i] = on
		}
	}
	var out []int
	for i, on := range in {
		if on {
			out = append(out, i)
		}
	}
	slices.Sort(out)
	return out, nil
}
