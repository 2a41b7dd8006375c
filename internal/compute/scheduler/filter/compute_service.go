package filter

import "kilonova/internal/compute/scheduler"

// computeService passes hosts whose service is enabled and heard of.
func computeService(*scheduler.Config, *scheduler.Request) (*scheduler.Check, error) {
	return &scheduler.Check{
		Pass: func(h *scheduler.HostState) bool { return h.Enabled && h.Up },
		Why: func(h *scheduler.HostState) string {
			switch {
			case h.Down != "":
				return h.Down
			case !h.Enabled:
				return "its compute service is disabled"
			case h.ForcedDown:
				return "its compute service is forced down"
			}
			return "its compute service has not been heard of for too long"
		},
	}, nil
}
