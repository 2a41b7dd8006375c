package filter

import (
	"fmt"

	"kilonova/internal/compute/scheduler"
)

// groupAntiAffinity bounds the members of an anti-affinity group on a host. The host that the server is on already passes.
func groupAntiAffinity(_ *scheduler.Config, r *scheduler.Request) (*scheduler.Check, error) {
	if r.Group == nil || r.Group.Policy != "anti-affinity" {
		return nil, nil //nolint:nilnil // nothing to check
	}
	most := max(r.Group.MaxPerHost, 1)
	return &scheduler.Check{
		Pass: func(h *scheduler.HostState) bool {
			return r.Group.OwnHost != "" && h.Host == r.Group.OwnHost || r.Group.Hosts[h.Host] < most
		},
		Why: func(h *scheduler.HostState) string {
			return fmt.Sprintf("it has, or awaits, %d members of the server group %s, %d are allowed", r.Group.Hosts[h.Host], r.Group.ID, most)
		},
		Near: func(h *scheduler.HostState) float64 { return float64(r.Group.Hosts[h.Host]) },
	}, nil
}
