package filter

import "kilonova/internal/compute/scheduler"

// sameHost puts the server beside one of the servers of the hint same_host.
func sameHost(_ *scheduler.Config, r *scheduler.Request) (*scheduler.Check, error) {
	list := r.HintList("same_host")
	if len(list) == 0 {
		return nil, nil //nolint:nilnil // nothing to check
	}
	return &scheduler.Check{
		Pass: func(h *scheduler.HostState) bool { return hasAny(h, list) },
		Why:  func(*scheduler.HostState) string { return "it has no server of the hint same_host" },
	}, nil
}
