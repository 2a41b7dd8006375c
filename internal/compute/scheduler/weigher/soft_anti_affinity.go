package weigher

import "kilonova/internal/compute/scheduler"

// softAntiAffinity prefers hosts with fewer members of the server's group.
func softAntiAffinity() scheduler.Weigher {
	return scheduler.Weigher{
		Multiplier: func(c *scheduler.Config) float64 { return c.SoftAntiAffinityMult },
		Key:        "soft_anti_affinity_weight_multiplier",
		Compile:    members("soft-anti-affinity", -1),
	}
}
