package weigher

import "kilonova/internal/compute/scheduler"

// ioOps counts servers in the making; its multiplier is negative, so busy hosts lose.
func ioOps() scheduler.Weigher {
	return scheduler.Weigher{
		Multiplier: func(c *scheduler.Config) float64 { return c.IOOpsWeightMultiplier },
		Key:        "io_ops_weight_multiplier",
		Compile:    always(func(h *scheduler.HostState) float64 { return float64(h.IOOps) }),
	}
}
