package filter

import "kilonova/internal/compute/scheduler"

// groupAffinity keeps the members of an affinity group together. The first member may go anywhere; beside one that moves there is no place until it has arrived.
func groupAffinity(_ *scheduler.Config, r *scheduler.Request) (*scheduler.Check, error) {
	if r.Group == nil || r.Group.Policy != "affinity" || len(r.Group.Hosts) == 0 {
		return nil, nil //nolint:nilnil // nothing to check
	}
	if r.Group.Moving > 0 {
		return &scheduler.Check{
			Pass: func(*scheduler.HostState) bool { return false },
			Why: func(*scheduler.HostState) string {
				return "a member of the server group " + r.Group.ID + " is on its way to another host, and nobody knows yet where it will be"
			},
		}, nil
	}
	return &scheduler.Check{
		Pass: func(h *scheduler.HostState) bool { return r.Group.Hosts[h.Host] > 0 },
		Why:  func(*scheduler.HostState) string { return "it has no member of the server group " + r.Group.ID },
	}, nil
}
