package app

import (
	"cmp"
	"context"
	"log/slog"
	"maps"

	"kilonova/internal/compute/conductor"
	"kilonova/internal/compute/store"
	"kilonova/internal/config"
	imagelocal "kilonova/internal/image/local"
	networklocal "kilonova/internal/network/local"
	"kilonova/internal/operation"
)

// Explain tells the story of a server beside whatever runs the cloud. With hosts it adds what placement and each filter say of every host today, or of the one
// named by host.
func Explain(ctx context.Context, cfg *config.Config, server string, hosts bool, host string) (string, error) {
	var text string
	err := withConductor(ctx, cfg, func(_ *App, c *conductor.Conductor) error {
		var err error
		if text, err = c.Explain(ctx, server); err != nil || !hosts && host == "" {
			return err
		}
		more, err := c.ExplainHosts(ctx, server, host)
		text += "\n" + more
		return err
	})
	return text, err
}

// Trial is a server that somebody thinks of.
type Trial struct {
	Flavor, Image, Zone, Host, Project string
	Properties                         map[string]string // of the image, beside those that it has
	Hints                              map[string]any
	Only                               string // explain this host only
}

// ExplainPlacement tells where a server would go now, and why not elsewhere. Nothing is claimed.
func ExplainPlacement(ctx context.Context, cfg *config.Config, t Trial) (string, error) {
	var text string
	err := withConductor(ctx, cfg, func(a *App, c *conductor.Conductor) error {
		f, err := a.parts.store.Flavor(ctx, a.db, t.Flavor, "")
		if err != nil {
			return err
		}
		props := maps.Clone(t.Properties)
		if props == nil {
			props = map[string]string{}
		}
		if t.Image != "" {
			have, err := imagelocal.Properties(ctx, a.db, t.Image)
			if err != nil {
				return err
			}
			for k, v := range have {
				if _, given := props[k]; !given {
					props[k] = v
				}
			}
		}
		w := conductor.WantOf(t.Project, *f, cmp.Or(t.Image, "none"), props, t.Hints)
		w.Zone, w.Host = t.Zone, t.Host
		text, err = c.ExplainWant(ctx, w, t.Only)
		return err
	})
	return text, err
}

// withConductor gives f a conductor on the configured database that runs nothing.
func withConductor(ctx context.Context, cfg *config.Config, f func(a *App, c *conductor.Conductor) error) error {
	a := &App{cfg: cfg, log: slog.Default(), failed: make(chan error, 1)}
	d, err := OpenCloud(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	a.db = d
	if a.parts.engine, err = operation.New(ctx, operation.Config{DB: d, Owner: "explain"}); err != nil {
		return err
	}
	if a.parts.store, err = store.New(ctx, d); err != nil {
		return err
	}
	a.parts.store.Zone = a.cfg.Compute.DefaultZone
	if a.parts.network, err = networklocal.New(ctx, networklocal.Config{DB: d}); err != nil {
		return err
	}
	if a.parts.placement, err = besidePlacement(ctx, cfg, d); err != nil {
		return err
	}
	c, err := a.newConductor(ctx, false)
	if err != nil {
		return err
	}
	return f(a, c)
}

// Heal gives servers the allocations that they lack on their hosts; without names all servers. With dry it only tells what it would do.
func Heal(ctx context.Context, cfg *config.Config, dry bool, servers ...string) ([]conductor.Healed, error) {
	var out []conductor.Healed
	err := withConductor(ctx, cfg, func(_ *App, c *conductor.Conductor) error {
		var err error
		out, err = c.Heal(ctx, dry, servers...)
		return err
	})
	return out, err
}
