package filter

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"kilonova/internal/compute/scheduler"
)

// capabilities compares host attributes with the extra specs that have no namespace or the namespace capabilities. A name without
// namespace that the host does not know is not a requirement; hw:maxphysaddr_bits asks that much of the CPU.
func capabilities(_ *scheduler.Config, r *scheduler.Request) (*scheduler.Check, error) {
	type requirement struct {
		key, value string
		path       []string
		scoped     bool
	}
	var list []requirement
	for _, key := range slices.Sorted(maps.Keys(r.Flavor.ExtraSpecs)) {
		value := r.Flavor.ExtraSpecs[key]
		path := strings.Split(key, ":")
		switch {
		case key == "hw:maxphysaddr_bits":
			list = append(list, requirement{key, ">= " + value, []string{"cpu_info", "maxphysaddr", "bits"}, true})
		case path[0] == "capabilities" && len(path) > 1:
			list = append(list, requirement{key, value, path[1:], true})
		case len(path) == 1 && key != "group_policy" && key != "hide_hypervisor_id":
			list = append(list, requirement{key, value, path, false})
		}
	}
	if len(list) == 0 {
		return nil, nil //nolint:nilnil // nothing to check
	}
	failing := func(h *scheduler.HostState) *requirement {
		for i := range list {
			q := &list[i]
			v, ok := attribute(h, q.path)
			if !ok {
				if q.scoped {
					return q
				}
				continue
			}
			if !matches(text(v), q.value) {
				return q
			}
		}
		return nil
	}
	return &scheduler.Check{
		Pass: func(h *scheduler.HostState) bool { return failing(h) == nil },
		Why: func(h *scheduler.HostState) string {
			q := failing(h)
			if v, ok := attribute(h, q.path); ok {
				return fmt.Sprintf("%s is %s, asked is %s", strings.Join(q.path, ":"), text(v), q.value)
			}
			return fmt.Sprintf("it has no %s, asked is %s", strings.Join(q.path, ":"), q.value)
		},
	}, nil
}
