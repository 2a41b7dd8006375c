package filter

import "kilonova/internal/compute/scheduler"

// aggregateIoOps is ioOps with a bound that aggregates may set.
func aggregateIoOps(c *scheduler.Config, _ *scheduler.Request) (*scheduler.Check, error) {
	return below("I/O operations", "max_io_ops_per_host", c.MaxIOOpsPerHost, operations), nil
}
