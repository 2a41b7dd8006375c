package app

import (
	"context"
	"log/slog"

	"kilonova/internal/compute/store"
	"kilonova/internal/config"
	"kilonova/internal/db"
	networklocal "kilonova/internal/network/local"
	"kilonova/internal/operation"
	placementlocal "kilonova/internal/placement/local"
)

// Explain tells the story of a server beside whatever runs the cloud. With hosts it adds what placement and each filter say of every host today, or of the one
// named by host.
func Explain(ctx context.Context, cfg *config.Config, server string, hosts bool, host string) (string, error) {
	a := &App{cfg: cfg, log: slog.Default(), failed: make(chan error, 1)}
	d, err := db.Open(ctx, cfg.Database.Connection)
	if err != nil {
		return "", err
	}
	defer func() { _ = d.Close() }()
	a.db = d
	if a.parts.engine, err = operation.New(ctx, operation.Config{DB: d, Owner: "explain"}); err != nil {
		return "", err
	}
	if a.parts.store, err = store.New(ctx, d); err != nil {
		return "", err
	}
	if a.parts.network, err = networklocal.New(ctx, networklocal.Config{DB: d}); err != nil {
		return "", err
	}
	if a.parts.placement, err = placementlocal.New(ctx, placementlocal.Config{DB: d}); err != nil {
		return "", err
	}
	c, err := a.newConductor(ctx, false)
	if err != nil {
		return "", err
	}
	text, err := c.Explain(ctx, server)
	if err != nil || !hosts && host == "" {
		return text, err
	}
	more, err := c.ExplainHosts(ctx, server, host)
	if err != nil {
		return "", err
	}
	return text + "\n" + more, nil
}
