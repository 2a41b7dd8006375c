package weigher

import "kilonova/internal/compute/scheduler"

// buildFailure puts hosts on which builds failed of late behind all others.
func buildFailure() scheduler.Weigher {
	return scheduler.Weigher{
		Multiplier: func(c *scheduler.Config) float64 { return -c.BuildFailureMultiplier },
		Key:        "build_failure_weight_multiplier",
		Compile:    always(func(h *scheduler.HostState) float64 { return float64(h.FailedBuilds) }),
	}
}
