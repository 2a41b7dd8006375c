package app

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/config"
	"kilonova/internal/placement/candidate"
	"kilonova/internal/placement/local"
)

func TestPlacementOptions(t *testing.T) {
	for _, c := range []struct {
		max      int
		strategy string
		want     candidate.Options
		wrong    bool
	}{
		{-1, "depth-first", candidate.Options{}, false},
		{0, "depth-first", candidate.Options{}, false},
		{7, "breadth-first", candidate.Options{Max: 7, BreadthFirst: true}, false},
		{-1, "sideways", candidate.Options{}, true},
	} {
		cfg := &config.Config{}
		cfg.Placement.Max, cfg.Placement.Strategy, cfg.Placement.Project, cfg.Placement.User = c.max, c.strategy, "p", "u"
		got, err := placementOptions(cfg)
		if (err != nil) != c.wrong {
			t.Errorf("%+v: %v", c, err)
		}
		if d := cmp.Diff(local.Config{Search: c.want, IncompleteProject: "p", IncompleteUser: "u"}, got); d != "" {
			t.Errorf("%+v (-want +got):\n%s", c, d)
		}
	}
}
