package filter

import (
	"fmt"
	"slices"
	"strings"

	"kilonova/internal/compute/scheduler"
)

// aggregateTypeAffinity keeps hosts whose aggregates name flavors (instance_type) for those flavors.
func aggregateTypeAffinity(_ *scheduler.Config, r *scheduler.Request) (*scheduler.Check, error) {
	return &scheduler.Check{
		Pass: func(h *scheduler.HostState) bool {
			list := h.MetadataValues("instance_type")
			return len(list) == 0 || slices.Contains(list, r.Flavor.Name)
		},
		Why: func(h *scheduler.HostState) string {
			return fmt.Sprintf("it is kept for the flavors %s", strings.Join(h.MetadataValues("instance_type"), ", "))
		},
	}, nil
}
