package filter

import (
	"fmt"
	"net/netip"

	"kilonova/internal/compute/scheduler"
	"kilonova/internal/fault"
)

// cidrAffinity keeps the server to hosts whose address is near the one of the hint build_near_host_ip.
func cidrAffinity(_ *scheduler.Config, r *scheduler.Request) (*scheduler.Check, error) {
	ip := r.Hint("build_near_host_ip")
	if ip == "" {
		return nil, nil //nolint:nilnil // nothing to check
	}
	mask := r.Hint("cidr")
	if mask == "" {
		mask = "/24"
	}
	near, err := netip.ParsePrefix(ip + mask)
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "The hints build_near_host_ip %s and cidr %s are no network.", ip, mask)
	}
	near = near.Masked()
	return &scheduler.Check{
		Pass: func(h *scheduler.HostState) bool {
			a, err := netip.ParseAddr(h.HostIP)
			return err == nil && near.Contains(a.Unmap())
		},
		Why: func(h *scheduler.HostState) string { return fmt.Sprintf("its address %s is not in %s", h.HostIP, near) },
	}, nil
}
