package filter

import "kilonova/internal/compute/scheduler"

// pciPassthrough asks that the host has the PCI devices.
func pciPassthrough(_ *scheduler.Config, r *scheduler.Request) (*scheduler.Check, error) {
	if len(r.PCI) == 0 {
		return nil, nil //nolint:nilnil // nothing to check
	}
	why := func(h *scheduler.HostState) string { return scheduler.FitPCI(h.PCI, r.PCI, nil) }
	return &scheduler.Check{Pass: func(h *scheduler.HostState) bool { return why(h) == "" }, Why: why}, nil
}
