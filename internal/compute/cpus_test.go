package compute_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute"
)

func TestParseCPUs(t *testing.T) {
	for s, want := range map[string][]int{"": nil, "0": {0}, "0-3,^2,8": {0, 1, 3, 8}, " 1 , 3": {1, 3}, "^2,1-3": {1, 2, 3}, "0-0,": {0}, "1,^1": nil} {
		got, err := compute.ParseCPUs(s)
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%q: %v %s", s, err, d)
		}
	}
	for _, s := range []string{"a", "3-1", "-1", "0-99999999", "1-", "0x1"} {
		if got, err := compute.ParseCPUs(s); err == nil {
			t.Errorf("%q is taken as %v", s, got)
		}
	}
}
