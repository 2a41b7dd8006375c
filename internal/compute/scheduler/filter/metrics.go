package filter

import (
	"maps"
	"slices"

	"kilonova/internal/compute/scheduler"
)

// metrics asks that the host reports every metric of weight_setting.
func metrics(c *scheduler.Config, _ *scheduler.Request) (*scheduler.Check, error) {
	names := slices.Sorted(maps.Keys(c.MetricsSetting))
	if len(names) == 0 {
		return nil, nil //nolint:nilnil // nothing to check
	}
	missing := func(h *scheduler.HostState) string {
		for _, n := range names {
			if _, ok := h.Metrics[n]; !ok {
				return n
			}
		}
		return ""
	}
	return &scheduler.Check{
		Pass: func(h *scheduler.HostState) bool { return missing(h) == "" },
		Why:  func(h *scheduler.HostState) string { return "it does not report the metric " + missing(h) },
	}, nil
}
