package filter

import (
	"fmt"
	"slices"
	"strings"

	"kilonova/internal/compute/scheduler"
)

// aggregateImageIsolation compares image properties with aggregate metadata of the same key, where the image has the property.
func aggregateImageIsolation(c *scheduler.Config, r *scheduler.Request) (*scheduler.Check, error) {
	prefix := ""
	if c.ImageIsolationNamespace != "" {
		prefix = c.ImageIsolationNamespace + c.ImageIsolationSeparator
	}
	failing := func(h *scheduler.HostState) string {
		for _, a := range h.Aggregates {
			for key := range a.Metadata {
				want, ok := r.Image.Props[key]
				if !ok || want == "" || !strings.HasPrefix(key, prefix) {
					continue
				}
				if !slices.Contains(h.MetadataValues(key), want) {
					return key
				}
			}
		}
		return ""
	}
	return &scheduler.Check{
		Pass: func(h *scheduler.HostState) bool { return failing(h) == "" },
		Why: func(h *scheduler.HostState) string {
			key := failing(h)
			return fmt.Sprintf("its aggregates want %s in %s, the image has %s", key, strings.Join(h.MetadataValues(key), ", "), r.Image.Props[key])
		},
	}, nil
}
