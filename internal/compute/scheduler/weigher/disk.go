package weigher

import "kilonova/internal/compute/scheduler"

// disk prefers hosts with more free disk.
func disk() scheduler.Weigher {
	return scheduler.Weigher{
		Multiplier: func(c *scheduler.Config) float64 { return c.DiskWeightMultiplier },
		Key:        "disk_weight_multiplier",
		Min:        zero(),
		Compile:    always(func(h *scheduler.HostState) float64 { return float64(h.FreeDiskMB()) }),
	}
}
