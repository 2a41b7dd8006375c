package filter

import "kilonova/internal/compute/scheduler"

// differentHost keeps the server away from the servers of the hint different_host.
func differentHost(_ *scheduler.Config, r *scheduler.Request) (*scheduler.Check, error) {
	list := r.HintList("different_host")
	if len(list) == 0 {
		return nil, nil //nolint:nilnil // nothing to check
	}
	return &scheduler.Check{
		Pass: func(h *scheduler.HostState) bool { return !hasAny(h, list) },
		Why:  func(*scheduler.HostState) string { return "it has a server of the hint different_host" },
	}, nil
}

func hasAny(h *scheduler.HostState, ids []string) bool {
	for _, id := range ids {
		if _, ok := h.Servers[id]; ok {
			return true
		}
	}
	return false
}
