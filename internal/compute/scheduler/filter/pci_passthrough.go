package filter

import (
	"slices"

	"kilonova/internal/compute/scheduler"
)

// pciPassthrough asks that the host has the PCI devices, from the providers that placement found when it was asked for them. Devices that are asked for by an alias or a kind
// of port which nobody resolved into a request are on no host.
func pciPassthrough(_ *scheduler.Config, r *scheduler.Request) (*scheduler.Check, error) {
	what := ""
	if alias := r.Spec("pci_passthrough:alias"); alias != "" && len(r.PCI) == 0 {
		what = "the PCI alias " + alias
	}
	if i := slices.IndexFunc(r.Ports, func(p scheduler.Port) bool { return p.NeedsDevice() && !resolved(r, p) }); i >= 0 {
		what = "a port of type " + r.Ports[i].VNICType
	}
	switch {
	case what != "":
		return &scheduler.Check{Pass: func(*scheduler.HostState) bool { return false },
			Why: func(*scheduler.HostState) string { return "it has no device for " + what }}, nil
	case len(r.PCI) == 0:
		return nil, nil //nolint:nilnil // nothing to check
	}
	why := func(h *scheduler.HostState) string {
		return h.FitsDevices(r, func(want []scheduler.PCIRequest) string { return scheduler.FitPCI(h.PCI, want, nil) })
	}
	return &scheduler.Check{Pass: func(h *scheduler.HostState) bool { return why(h) == "" }, Why: why}, nil
}

// resolved tells whether the port has a request for its device.
func resolved(r *scheduler.Request, p scheduler.Port) bool {
	return p.ID != "" && slices.ContainsFunc(r.PCI, func(q scheduler.PCIRequest) bool { return q.ID == p.ID })
}
