package filter

import "kilonova/internal/compute/scheduler"

// groupAffinity keeps the members of an affinity group together. The first member may go anywhere.
func groupAffinity(_ *scheduler.Config, r *scheduler.Request) (*scheduler.Check, error) {
	if r.Group == nil || r.Group.Policy != "affinity" || len(r.Group.Hosts) == 0 {
		return nil, nil //nolint:nilnil // nothing to check
	}
	return &scheduler.Check{
		Pass: func(h *scheduler.HostState) bool { return r.Group.Hosts[h.Host] > 0 },
		Why:  func(*scheduler.HostState) string { return "it has no member of the server group " + r.Group.ID },
	}, nil
}
