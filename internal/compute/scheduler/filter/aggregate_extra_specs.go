package filter

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"kilonova/internal/compute/scheduler"
)

// aggregateExtraSpecs asks that the host's aggregates have a matching value for each extra spec without namespace or with
// aggregate_instance_extra_specs.
func aggregateExtraSpecs(_ *scheduler.Config, r *scheduler.Request) (*scheduler.Check, error) {
	type requirement struct{ key, value string }
	var list []requirement
	for _, key := range slices.Sorted(maps.Keys(r.Flavor.ExtraSpecs)) {
		name, scoped := strings.CutPrefix(key, "aggregate_instance_extra_specs:")
		if scoped || !strings.Contains(key, ":") && key != "group_policy" && key != "hide_hypervisor_id" {
			list = append(list, requirement{name, r.Flavor.ExtraSpecs[key]})
		}
	}
	if len(list) == 0 {
		return nil, nil //nolint:nilnil // nothing to check
	}
	failing := func(h *scheduler.HostState) *requirement {
		for i := range list {
			if !slices.ContainsFunc(h.MetadataValues(list[i].key), func(v string) bool { return matches(v, list[i].value) }) {
				return &list[i]
			}
		}
		return nil
	}
	return &scheduler.Check{
		Pass: func(h *scheduler.HostState) bool { return failing(h) == nil },
		Why: func(h *scheduler.HostState) string {
			q := failing(h)
			if have := h.MetadataValues(q.key); len(have) > 0 {
				return fmt.Sprintf("its aggregates have %s %s, asked is %s", q.key, strings.Join(have, ", "), q.value)
			}
			return fmt.Sprintf("no aggregate of it has %s", q.key)
		},
	}, nil
}
