package conductor

import (
	"context"
	"maps"
	"slices"
	"strings"

	"kilonova/internal/compute/flow"
	"kilonova/internal/compute/scheduler"
)

// checkTraits judges the traits that an image requires of the providers which the server has its allocations of: a rebuild stays where it is, so placement is not asked
// for candidates. A flavor that forbids such a trait contradicts the image.
func (c *Conductor) checkTraits(ctx context.Context, w flow.Want, req *scheduler.Request) error {
	missing := map[string]bool{}
	for key, value := range req.Image.Props {
		t, ok := strings.CutPrefix(key, "trait:")
		if !ok || value != "required" {
			continue
		}
		if req.Spec(key) == "forbidden" {
			return flow.NoValidHost("No valid host was found. The image requires the trait " + t + ", which the flavor of the server forbids.")
		}
		missing[t] = true
	}
	if len(missing) == 0 {
		return nil
	}
	held, _, err := c.cfg.Placement.Of(ctx, w.Server.ID)
	if err != nil || len(held) == 0 {
		return err
	}
	providers, err := c.cfg.Placement.Providers(ctx, slices.Sorted(maps.Keys(held))...)
	if err != nil {
		return err
	}
	for i := range providers {
		for _, t := range providers[i].Traits {
			delete(missing, t)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return flow.NoValidHost("No valid host was found. The resource providers of the server do not have the traits that the image requires: " +
		strings.Join(slices.Sorted(maps.Keys(missing)), ", ") + ". Rebuild with another image, or make a new server of this one.")
}
