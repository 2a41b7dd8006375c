package weigher

import "kilonova/internal/compute/scheduler"

// ram prefers hosts with more free memory.
func ram() scheduler.Weigher {
	return scheduler.Weigher{
		Multiplier: func(c *scheduler.Config) float64 { return c.RAMWeightMultiplier },
		Key:        "ram_weight_multiplier",
		Min:        zero(),
		Compile:    always(func(h *scheduler.HostState) float64 { return float64(h.FreeRAMMB()) }),
	}
}
