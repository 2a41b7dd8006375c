package weigher

import "kilonova/internal/compute/scheduler"

// metrics sums the host's metrics by their ratios of weight_setting. A host that lacks one gets weight_of_unavailable unless the metrics
// are required: then MetricsFilter is what keeps it out, and its weight is that of nothing.
func metrics() scheduler.Weigher {
	return scheduler.Weigher{
		Multiplier: func(c *scheduler.Config) float64 { return c.MetricsMultiplier },
		Key:        "metrics_weight_multiplier",
		Compile: func(c *scheduler.Config, _ *scheduler.Request) func(*scheduler.HostState) float64 {
			if len(c.MetricsSetting) == 0 {
				return nil
			}
			return func(h *scheduler.HostState) float64 {
				sum := 0.0
				for name, ratio := range c.MetricsSetting {
					v, ok := h.Metrics[name]
					if !ok {
						if !c.MetricsRequired {
							return c.MetricsWeightUnavailable
						}
						continue
					}
					sum += v * ratio
				}
				return sum
			}
		},
	}
}
