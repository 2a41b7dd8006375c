package filter

import "kilonova/internal/compute/scheduler"

// aggregateNumInstances is numInstances with a bound that aggregates may set.
func aggregateNumInstances(c *scheduler.Config, _ *scheduler.Request) (*scheduler.Check, error) {
	return below("servers", "max_instances_per_host", c.MaxInstancesPerHost, servers), nil
}
