// Package reconcile brings back into line what no operation is responsible for: guests that stopped by themselves, hosts that come back with debts,
// what a superseded operation left, records that are due to be reclaimed, confirmed or purged.
//
// Each loop is one file. A loop has no input, keeps no state that matters, may run on several conductors at once and may be run again at any moment:
// it looks, and acts only on a difference. Whatever changes a server goes through an operation.
package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/owed"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/id"
	"kilonova/internal/image"
	"kilonova/internal/network"
	"kilonova/internal/operation"
	"kilonova/internal/placement"
)

// Agents carries commands to hosts.
type Agents interface {
	Do(ctx context.Context, host string, cmd command.Command, args, out any) error
}

// Hosts knows how hosts are.
type Hosts interface {
	Down(ctx context.Context, host string) bool
	// Heard tells whether a host's agent has spoken lately, also when an operator has said that the host is down.
	Heard(ctx context.Context, host string) bool
	// Living gives those of the hosts, whose records were just read, that may be given work.
	Living(records map[string]*compute.Host) map[string]bool
}

// Engine is what loops need of the operation engine.
type Engine interface {
	Held(ctx context.Context, object string) (bool, error)
	operation.Acceptor
	operation.Reader
	Forget(ctx context.Context, tx *db.Tx, objects ...string) error
}

// Config of the loops. Times of zero switch the loop off where it says so.
type Config struct {
	Store     *store.Store
	Engine    Engine
	Network   network.Service
	Image     image.Service // nil: images are not looked at
	Placement placement.Service
	Owed      *owed.Book
	Agents    Agents
	Hosts     Hosts
	Log       *slog.Logger

	ReclaimAfter  time.Duration // reclaim_instance_interval; 0: soft-deleted servers stay
	ConfirmAfter  time.Duration // resize_confirm_window; 0: resizes wait for ever
	OffloadAfter  time.Duration // shelved_offload_time; 0: offloaded when shelved, negative: never
	BuildTimeout  time.Duration // instance_build_timeout; 0: 10 min
	KeepDeleted   time.Duration // records of deleted servers and their operations; 0: 24 h, negative: for ever
	Settle        time.Duration // how long after an operation a guest's report is not believed; 0: 5 s
	OrphanHorizon time.Duration // how far back ended operations are looked at for leftovers; 0: 30 min
	QueuedImages  time.Duration // how old the queued image of a snapshot must be to count as left behind; 0: 1 min
}

// Loops runs the loops.
type Loops struct {
	cfg    Config
	log    *slog.Logger
	list   []loop
	kicks  map[string]chan struct{}
	ctx    context.Context // ends with Run
	wg     sync.WaitGroup
	swept  sync.Map // ended operations that the orphan sweep has looked at
	turn   sync.Mutex
	mirror sync.Mutex      // one mirroring of segments at a time
	next   string          // server at which the interface cache goes on
	up     map[string]bool // hosts as the last look found them
}

type loop struct {
	name  string
	every time.Duration
	run   func(ctx context.Context) error
}

// New makes the loops. Nothing runs before Run.
func New(cfg Config) *Loops {
	for _, d := range []struct {
		v *time.Duration
		d time.Duration
	}{{&cfg.BuildTimeout, 10 * time.Minute}, {&cfg.KeepDeleted, 24 * time.Hour}, {&cfg.Settle, 5 * time.Second}, {&cfg.OrphanHorizon, 30 * time.Minute},
		{&cfg.QueuedImages, time.Minute}} {
		if *d.v == 0 {
			*d.v = d.d
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	l := &Loops{cfg: cfg, log: cfg.Log, kicks: map[string]chan struct{}{}, ctx: context.Background(), up: map[string]bool{}}
	l.list = []loop{
		{"health", 5 * time.Second, l.Health},
		{"debts", 10 * time.Second, l.Debts},
		{"aggregates", 10 * time.Second, l.SyncAll},
		{"orphans", 20 * time.Second, l.Orphans},
		{"claims", 30 * time.Second, l.Claims},
		{"images", 20 * time.Second, l.Images},
		{"quota", 10 * time.Minute, l.Quota},
		{"reclaim", time.Minute, l.Reclaim},
		{"confirm", time.Minute, l.Confirm},
		{"offload", time.Minute, l.Offload},
		{"builds", time.Minute, l.Builds},
		{"purge", 5 * time.Minute, l.Purge},
		{"interfaces", 10 * time.Second, l.Interfaces},
	}
	for _, e := range l.list {
		l.kicks[e.name] = make(chan struct{}, 1)
	}
	return l
}

// Kick makes a loop run now instead of at its time.
func (l *Loops) Kick(name string) {
	select {
	case l.kicks[name] <- struct{}{}:
	default: // it is about to run anyway
	}
}

// Run runs all loops until ctx ends.
func (l *Loops) Run(ctx context.Context) {
	l.ctx = ctx
	for _, e := range l.list {
		l.wg.Go(func() { l.runOne(ctx, e) })
	}
	l.wg.Wait()
}

func (l *Loops) runOne(ctx context.Context, e loop) {
	t := time.NewTimer(rand.N(e.every)) // conductors that start together do not sweep together
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-l.kicks[e.name]:
		}
		if err := e.run(ctx); err != nil && ctx.Err() == nil {
			l.log.Error("reconcile loop failed; it runs again later", "loop", e.name, "error", err)
		}
		t.Reset(e.every)
	}
}

// All runs every loop once, one after the other.
func (l *Loops) All(ctx context.Context) error {
	var errs []error
	for _, e := range l.list {
		errs = append(errs, e.run(ctx))
	}
	return errors.Join(errs...)
}

// owner is who shows as the user of operations that loops start.
const owner = "kilonova"

// start accepts an operation on a server. A server that is held, or gone, is left for the next round.
func (l *Loops) start(ctx context.Context, s *compute.Server, kind, action, task string, input any) error {
	err := l.cfg.Store.DB.Write(ctx, func(tx *db.Tx) error {
		_, err := l.cfg.Engine.Accept(ctx, tx, operation.Spec{Kind: kind, ObjectType: "server", Object: s.ID, Action: action, TaskState: task,
			Project: s.ProjectID, User: owner, RequestID: id.Request(), Input: input})
		return err
	})
	var held *operation.HeldError
	if errors.As(err, &held) {
		return nil
	}
	return err
}
