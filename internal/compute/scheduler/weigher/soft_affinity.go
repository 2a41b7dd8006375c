package weigher

import "kilonova/internal/compute/scheduler"

// softAffinity prefers hosts with more members of the server's group.
func softAffinity() scheduler.Weigher {
	return scheduler.Weigher{
		Multiplier: func(c *scheduler.Config) float64 { return c.SoftAffinityMultiplier },
		Key:        "soft_affinity_weight_multiplier",
		Compile:    members("soft-affinity", 1),
	}
}

// members gives the number of group members on a host, times sign, when the group has the policy.
func members(policy string, sign float64) func(*scheduler.Config, *scheduler.Request) func(*scheduler.HostState) float64 {
	return func(_ *scheduler.Config, r *scheduler.Request) func(*scheduler.HostState) float64 {
		if r.Group == nil || r.Group.Policy != policy {
			return nil
		}
		return func(h *scheduler.HostState) float64 { return sign * float64(r.Group.Hosts[h.Host]) }
	}
}
