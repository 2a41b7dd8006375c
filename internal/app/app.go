// Package app is the composition root: it builds roles from the configuration, starts them in order and stops them in reverse.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"kilonova/internal/bus/nats"
	"kilonova/internal/compute/agent"
	"kilonova/internal/compute/metadata"
	"kilonova/internal/config"
	"kilonova/internal/db"
	identityremote "kilonova/internal/identity/remote"
	"kilonova/internal/operation"
)

// Role is a part of the cloud that can run in a process of its own.
type Role string

// The roles.
const (
	Identity   Role = "identity"
	Image      Role = "image"
	Network    Role = "network"
	Placement  Role = "placement"
	ComputeAPI Role = "compute-api"
	Scheduler  Role = "scheduler"
	Conductor  Role = "conductor"
	Agent      Role = "agent"
	Console    Role = "console"
	Metadata   Role = "metadata"
)

// AllRoles is what `kilonova up` runs.
func AllRoles() []Role {
	return []Role{Identity, Image, Network, Placement, ComputeAPI, Scheduler, Conductor, Agent, Console, Metadata}
}

// App is a running set of roles.
type App struct {
	cfg   *config.Config
	roles []Role
	log   *slog.Logger

	secrets *secrets
	db      *db.DB
	bus     *nats.Bus
	parts   parts
	web     *web
	heap    *tender

	identities map[string]*identityremote.Identity // by URL
	vendor     *metadata.Vendor                    // nil: no services are asked for vendor data

	mu     sync.Mutex
	closed bool
	stops  []stop
	failed chan error
	onLink []func() // called when the bus was reconnected
	agents []*agent.Agent
}

type stop struct {
	name string
	f    func(ctx context.Context) error
}

// Start builds and starts the roles. When it fails everything that was started is stopped again.
func Start(ctx context.Context, cfg *config.Config, roles ...Role) (_ *App, err error) {
	if len(roles) == 0 {
		roles = AllRoles()
	}
	a := &App{cfg: cfg, roles: roles, log: slog.Default(), failed: make(chan error, 16), heap: newTender()}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Stop(context.WithoutCancel(ctx)))
		}
	}()
	if err := os.MkdirAll(cfg.Default.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if a.secrets, err = openSecrets(cfg); err != nil {
		return nil, err
	}
	if err := a.openBus(); err != nil {
		return nil, err
	}
	if a.any(Identity, Image, Network, Placement, ComputeAPI, Scheduler, Conductor, Console, Metadata) {
		if a.db, err = a.openDB(ctx, "database", cfg.Database.Connection); err != nil {
			return nil, err
		}
	}
	if a.web, err = listen(a); err != nil {
		return nil, err
	}
	for _, part := range []struct {
		name  string
		start func(context.Context) error
		roles []Role
	}{
		{"identity", a.startIdentity, []Role{Identity, Image, Network, Placement, ComputeAPI, Console, Metadata}},
		{"image", a.startImage, []Role{Image, ComputeAPI, Conductor, Scheduler, Agent}},
		{"network", a.startNetwork, []Role{Network, ComputeAPI, Conductor, Scheduler}},
		{"placement", a.startPlacement, []Role{Placement, ComputeAPI, Conductor, Scheduler}},
		{"compute store", a.startStore, []Role{ComputeAPI, Scheduler, Conductor, Console, Metadata}},
		{"scheduler", a.startScheduler, []Role{Scheduler}},
		{"conductor", a.startConductor, []Role{Conductor}},
		{"compute API", a.startComputeAPI, []Role{ComputeAPI}},
		{"console proxy", a.startConsole, []Role{Console}},
		{"metadata", a.startMetadata, []Role{Metadata}},
		{"agent", a.startAgents, []Role{Agent}},
	} {
		if !a.any(part.roles...) {
			continue
		}
		began := time.Now()
		if err := part.start(ctx); err != nil {
			return nil, fmt.Errorf("start %s: %w", part.name, err)
		}
		a.log.Debug("started", "part", part.name, "took", time.Since(began))
	}
	if a.has(Identity) {
		if err := a.writeClientFiles(); err != nil {
			return nil, err
		}
	}
	a.web.serve()
	a.background("heap", a.heap.run)
	return a, nil
}

func (a *App) has(r Role) bool { return slices.Contains(a.roles, r) }

func (a *App) any(rs ...Role) bool { return slices.ContainsFunc(rs, a.has) }

func (a *App) onStop(name string, f func(ctx context.Context) error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stops = append(a.stops, stop{name, f})
}

// background runs f until the part is stopped. A return before that ends the process: see Failed.
func (a *App) background(name string, f func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		err := f(ctx)
		if ctx.Err() == nil {
			a.failed <- fmt.Errorf("%s ended: %w", name, errors.Join(err, errors.New("it should run until the process ends")))
		}
		done <- err
	}()
	a.onStop(name, func(context.Context) error {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	})
}

// Failed gives an error when a part that should run for ever has ended.
func (a *App) Failed() <-chan error { return a.failed }

// URL is the root of the REST services.
func (a *App) URL() string { return a.web.url() }

// Operations is the engine of this process; nil without one.
func (a *App) Operations() *operation.Engine { return a.parts.engine }

// Stop ends everything in reverse order. Running guests go on.
func (a *App) Stop(ctx context.Context) error {
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		return nil
	}
	a.closed = true
	stops := slices.Clone(a.stops)
	a.mu.Unlock()
	slices.Reverse(stops)
	var errs []error
	for _, s := range stops {
		if err := s.f(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", s.name, err))
		}
	}
	return errors.Join(errs...)
}

// openDB opens a database that is closed when the process stops.
func (a *App) openDB(ctx context.Context, name, url string) (*db.DB, error) {
	d, err := db.Open(ctx, url)
	if err != nil {
		return nil, err
	}
	a.onStop(name, func(context.Context) error { return d.Close() })
	a.heap.rests = append(a.heap.rests, d.Rest)
	return d, nil
}

func (a *App) openBus() error {
	token := a.cfg.Bus.Token
	if token == "" {
		var err error
		if token, err = a.secrets.get("bus_token"); err != nil {
			return err
		}
	}
	b, err := nats.Open(nats.Config{URL: a.cfg.Bus.URL, Listen: a.cfg.Bus.Listen, Token: token, Name: a.cfg.Compute.Host}, func() {
		a.mu.Lock()
		hooks := slices.Clone(a.onLink)
		a.mu.Unlock()
		for _, f := range hooks {
			f()
		}
	})
	if err != nil {
		return err
	}
	a.bus = b
	a.onStop("bus", func(context.Context) error { return b.Close() })
	return nil
}
