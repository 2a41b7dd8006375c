package filter

import "kilonova/internal/compute/scheduler"

func servers(h *scheduler.HostState) int { return h.NumServers }

// numInstances bounds how many servers a host may have.
func numInstances(c *scheduler.Config, _ *scheduler.Request) (*scheduler.Check, error) {
	return below("servers", "", c.MaxInstancesPerHost, servers), nil
}
