package weigher

import "kilonova/internal/compute/scheduler"

// numInstances counts servers; a negative multiplier spreads, a positive one packs.
func numInstances() scheduler.Weigher {
	return scheduler.Weigher{
		Multiplier: func(c *scheduler.Config) float64 { return c.NumInstancesMultiplier },
		Key:        "num_instances_weight_multiplier",
		Compile:    always(func(h *scheduler.HostState) float64 { return float64(h.NumServers) }),
	}
}
