// Package conductor is the only road from a host to the database: it runs every multi-step operation to its end (the engine of package operation with
// the flows of package flow), answers what agents ask, chooses and claims hosts, and runs the reconcile loops.
//
// What it promises: an accepted operation is carried on whichever conductor lives; a conductor keeps nothing that another could not find in the database,
// apart from heartbeats not older than beatEvery. A guest that the cloud does not know is never ordered to be destroyed.
package conductor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"kilonova/internal/bus"
	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/flow"
	"kilonova/internal/compute/owed"
	"kilonova/internal/compute/reconcile"
	"kilonova/internal/compute/scheduler"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/image"
	"kilonova/internal/network"
	"kilonova/internal/operation"
	"kilonova/internal/placement"
)

// Config of a conductor.
type Config struct {
	// Host is where the conductor runs, for os-services: it shows as nova-conductor and, because it schedules, as nova-scheduler. "": not shown.
	Host      string
	DB        *db.DB
	Bus       bus.Bus
	Store     *store.Store
	Engine    *operation.Engine // without flows: New registers them
	Network   network.Service
	Image     image.Service
	Placement placement.Service
	// Metadata makes the input of the metadata service and the config drive for a server; files are those given at create.
	Metadata func(ctx context.Context, s *compute.Server, files map[string][]byte) (json.RawMessage, error)

	// Flow and Reconcile hold their packages' options; the parts named above are put in by New.
	Flow      flow.Config
	Reconcile reconcile.Config
	// PCIAliases are the names under which flavors ask for PCI devices.
	PCIAliases []compute.PCIAlias
	// Planner ranks hosts: scheduler.New with the registries of packages filter and weigher.
	Planner *scheduler.Planner
	// Schedulers tells that hosts are chosen by schedulers in other processes (RunScheduler), over the bus.
	Schedulers bool

	ServiceDownTime time.Duration // a host silent for longer is down; 0: 60 s
	Log             *slog.Logger
}

// Conductor is one conductor.
type Conductor struct {
	cfg     Config
	log     *slog.Logger
	hosts   *hostTable
	owed    *owed.Book
	rec     *reconcile.Loops
	planner *scheduler.Planner
	dirty   dirtyHosts
	started time.Time
}

// New makes a conductor and registers the flows with its engine. Nothing runs before Run.
func New(ctx context.Context, cfg Config) (*Conductor, error) {
	if cfg.Planner == nil {
		return nil, errors.New("conductor: no planner")
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.ServiceDownTime == 0 {
		cfg.ServiceDownTime = time.Minute
	}
	book, err := owed.New(ctx, cfg.DB)
	if err != nil {
		return nil, err
	}
	c := &Conductor{cfg: cfg, log: cfg.Log, owed: book, planner: cfg.Planner, started: clock.Now()}
	c.hosts = newHostTable(cfg.Store, cfg.ServiceDownTime, c.started)
	c.hosts.needServers, c.hosts.track = needsServers(cfg.Planner.Config()), cfg.Planner.Config().TrackInstanceChanges
	fc := cfg.Flow
	fc.Store, fc.Network, fc.Image, fc.Placement, fc.Owed, fc.Metadata, fc.Log = cfg.Store, cfg.Network, cfg.Image, cfg.Placement, book, cfg.Metadata, cfg.Log
	fc.Agents, fc.Placer = &command.Client{Bus: cfg.Bus}, c
	if cfg.Schedulers {
		fc.Placer = busPlacer{c}
	}
	cfg.Engine.Register(flow.All(fc)...)
	rc := cfg.Reconcile
	rc.Store, rc.Engine, rc.Network, rc.Image, rc.Placement, rc.Owed, rc.Log = cfg.Store, cfg.Engine, cfg.Network, cfg.Image, cfg.Placement, book, cfg.Log
	rc.Agents, rc.Hosts = fc.Agents, c
	c.rec = reconcile.New(rc)
	return c, nil
}

// needsServers tells whether a filter or weigher in use looks at the single servers of hosts: JSON queries may name them, and their images may be weighed.
func needsServers(c *scheduler.Config) bool {
	return c.TrackInstanceChanges && (c.ImagePropsMultiplier != 0 || slices.Contains(c.EnabledFilters, "JsonFilter"))
}

// Reconcile gives the loops, for tests and commands that run one at once.
func (c *Conductor) Reconcile() *reconcile.Loops { return c.rec }

// Owed gives the book of debts.
func (c *Conductor) Owed() *owed.Book { return c.owed }

// Run serves until ctx ends. ready, when not nil, is called once agents and operations are served.
func (c *Conductor) Run(ctx context.Context, ready func()) error {
	if err := c.hosts.load(ctx); err != nil {
		return err
	}
	stop, err := c.serve()
	if err != nil {
		return err
	}
	defer stop()
	var wg sync.WaitGroup
	loops, cancel := context.WithCancel(ctx)
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { c.rec.Run(loops) })
	wg.Go(func() { c.hosts.beat(loops, c.log) })
	wg.Go(func() { c.refreshDirty(loops) })
	if c.cfg.Host != "" {
		wg.Go(func() { Announce(loops, c.cfg.Store, BinaryConductor, c.cfg.Host, c.log) })
		wg.Go(func() { Announce(loops, c.cfg.Store, BinaryScheduler, c.cfg.Host, c.log) })
	}
	if ready != nil {
		ready()
	}
	if err := c.cfg.Engine.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("operations: %w", err)
	}
	return nil
}
