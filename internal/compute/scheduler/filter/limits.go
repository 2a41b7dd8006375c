package filter

import (
	"fmt"
	"strconv"

	"kilonova/internal/compute/scheduler"
)

// below passes hosts whose count is under the limit, which aggregates may set under key (the smallest value counts).
func below(noun, key string, standard int, count func(*scheduler.HostState) int) *scheduler.Check {
	limit := func(h *scheduler.HostState) int {
		if key == "" {
			return standard
		}
		out, found := standard, false
		for _, v := range h.MetadataValues(key) {
			if n, err := strconv.Atoi(v); err == nil && (!found || n < out) {
				out, found = n, true
			}
		}
		return out
	}
	return &scheduler.Check{
		Pass: func(h *scheduler.HostState) bool { return count(h) < limit(h) },
		Why: func(h *scheduler.HostState) string {
			return fmt.Sprintf("it has %d %s, %d are allowed", count(h), noun, limit(h))
		},
		Near: func(h *scheduler.HostState) float64 { return float64(count(h) - limit(h)) },
	}
}
