package filter

import "kilonova/internal/compute/scheduler"

func operations(h *scheduler.HostState) int { return h.IOOps }

// ioOps bounds how many servers of a host may be in the making or on the move.
func ioOps(c *scheduler.Config, _ *scheduler.Request) (*scheduler.Check, error) {
	return below("I/O operations", "", c.MaxIOOpsPerHost, operations), nil
}
