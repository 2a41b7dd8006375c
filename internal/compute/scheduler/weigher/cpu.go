package weigher

import "kilonova/internal/compute/scheduler"

// cpu prefers hosts with more free vCPUs.
func cpu() scheduler.Weigher {
	return scheduler.Weigher{
		Multiplier: func(c *scheduler.Config) float64 { return c.CPUWeightMultiplier },
		Key:        "cpu_weight_multiplier",
		Min:        zero(),
		Compile:    always(func(h *scheduler.HostState) float64 { return h.FreeVCPUs() }),
	}
}
