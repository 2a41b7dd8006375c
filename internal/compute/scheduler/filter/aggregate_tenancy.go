package filter

import (
	"slices"
	"strings"

	"kilonova/internal/compute/scheduler"
)

// aggregateTenancy keeps hosts whose aggregates name projects (filter_tenant_id*) for those projects.
func aggregateTenancy(_ *scheduler.Config, r *scheduler.Request) (*scheduler.Check, error) {
	return &scheduler.Check{
		Pass: func(h *scheduler.HostState) bool {
			named, own := false, false
			for _, a := range h.Aggregates {
				for key, value := range a.Metadata {
					if !strings.HasPrefix(key, "filter_tenant_id") {
						continue
					}
					named = true
					own = own || slices.ContainsFunc(strings.Split(value, ","), func(s string) bool { return strings.TrimSpace(s) == r.ProjectID })
				}
			}
			return !named || own
		},
		Why: func(*scheduler.HostState) string { return "it is kept for other projects" },
	}, nil
}
