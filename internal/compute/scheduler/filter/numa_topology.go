package filter

import "kilonova/internal/compute/scheduler"

// numaTopology asks that the server's NUMA nodes, pinned CPUs and memory pages fit the host, and its PCI devices near them.
func numaTopology(_ *scheduler.Config, r *scheduler.Request) (*scheduler.Check, error) {
	t, err := scheduler.TopologyOf(r)
	if err != nil || t == nil {
		return nil, err
	}
	why := func(h *scheduler.HostState) string {
		if h.NUMA == nil {
			return "it reports no NUMA topology, which pinned CPUs, page sizes and NUMA nodes need"
		}
		return h.FitsDevices(r, func(want []scheduler.PCIRequest) string {
			_, why := scheduler.FitHost(h.NUMA, h.PCI, t, want)
			return why
		})
	}
	return &scheduler.Check{Pass: func(h *scheduler.HostState) bool { return why(h) == "" }, Why: why}, nil
}
