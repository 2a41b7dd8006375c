package filter

import (
	"slices"

	"kilonova/internal/compute/scheduler"
)

// pciPassthrough asks that the host has the PCI devices. Devices that are asked for by an alias or a kind of port which nobody resolved into a
// request are on no host.
func pciPassthrough(_ *scheduler.Config, r *scheduler.Request) (*scheduler.Check, error) {
	what := ""
	if alias := r.Spec("pci_passthrough:alias"); alias != "" && len(r.PCI) == 0 {
		what = "the PCI alias " + alias
	}
	if i := slices.IndexFunc(r.Ports, needsDevice); i >= 0 {
		what = "a port of type " + r.Ports[i].VNICType
	}
	switch {
	case what != "":
		return &scheduler.Check{Pass: func(*scheduler.HostState) bool { return false },
			Why: func(*scheduler.HostState) string { return "it has no device for " + what }}, nil
	case len(r.PCI) == 0:
		return nil, nil //nolint:nilnil // nothing to check
	}
	why := func(h *scheduler.HostState) string { return scheduler.FitPCI(h.PCI, r.PCI, nil) }
	return &scheduler.Check{Pass: func(h *scheduler.HostState) bool { return why(h) == "" }, Why: why}, nil
}

// needsDevice tells whether a port is a part of a PCI device.
func needsDevice(p scheduler.Port) bool {
	switch p.VNICType {
	case "direct", "macvtap", "direct-physical", "virtio-forwarder", "vdpa", "remote-managed":
		return true
	}
	return false
}
