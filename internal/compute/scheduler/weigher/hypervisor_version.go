package weigher

import "kilonova/internal/compute/scheduler"

// hypervisorVersion prefers newer hypervisors.
func hypervisorVersion() scheduler.Weigher {
	return scheduler.Weigher{
		Multiplier: func(c *scheduler.Config) float64 { return c.HypervisorVersionMult },
		Key:        "hypervisor_version_weight_multiplier",
		Compile:    always(func(h *scheduler.HostState) float64 { return float64(h.HypervisorVersion) }),
	}
}
