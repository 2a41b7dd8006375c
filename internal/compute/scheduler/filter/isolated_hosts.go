package filter

import (
	"slices"

	"kilonova/internal/compute/scheduler"
)

// isolatedHosts puts isolated images on isolated hosts only and, when so configured, nothing else there.
func isolatedHosts(c *scheduler.Config, r *scheduler.Request) (*scheduler.Check, error) {
	if len(c.IsolatedHosts) == 0 && len(c.IsolatedImages) == 0 {
		return nil, nil //nolint:nilnil // nothing to check
	}
	image := slices.Contains(c.IsolatedImages, r.Image.ID)
	return &scheduler.Check{
		Pass: func(h *scheduler.HostState) bool {
			host := slices.Contains(c.IsolatedHosts, h.Host)
			if image {
				return host
			}
			return !host || !c.RestrictIsolatedHosts
		},
		Why: func(*scheduler.HostState) string {
			if image {
				return "the image is for isolated hosts"
			}
			return "it is kept for isolated images"
		},
	}, nil
}
