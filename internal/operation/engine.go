package operation

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"kilonova/internal/bus"
	"kilonova/internal/clock"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
)

//go:embed migrations
var migrations embed.FS

// DueSubject is where acceptors that run no operations themselves wake those who do. The message is the operation's id.
const DueSubject = "operation.due"

// Config of an engine.
type Config struct {
	DB  *db.DB
	Bus bus.Bus // nil: no wake-ups between processes; the sweep finds the work
	// Owner names this engine in leases. A random part is added: an owner never comes back.
	Owner string
	// Lease is how long an engine may be silent before others take its operations; 0: 15 s. It is renewed three times as often.
	Lease time.Duration
	// Sweep is how often due operations are looked for; 0: 1 s.
	Sweep time.Duration
	// Workers bounds how many operations run at once; 0: 512.
	Workers int
	// Sole promises that no other engine lives on this database when this one starts: leases of former owners are taken at once.
	Sole bool
	// Private promises that none lives there as long as this one does: what steps write needs no guard against who has taken over meanwhile.
	Private bool
	// UndoLimit is how long an undo is retried before the operation needs attention; 0: 10 min.
	UndoLimit time.Duration
	// Unknown is how long an operation of a kind that no engine carries out may wait for one that does, an upgrade for instance; 0: 1 min.
	Unknown time.Duration
	// Pause is the first pause between two tries of a step; it doubles. 0: 100 ms.
	Pause time.Duration
	// Inject is called at each Point of each step; tests make faults with it. Returning ErrCrash makes the engine forget the operation at
	// that instant, as a killed process would; any other error is taken for the step's own.
	Inject func(ctx context.Context, p Point, step string, r *Run) error
	Log    *slog.Logger
}

// Point is a place in the life of a step.
type Point string

// The points.
const (
	BeforeDo     Point = "before-do"     // journalled as started, nothing done
	AfterDo      Point = "after-do"      // effect there, not journalled
	AfterJournal Point = "after-journal" // journalled as done
	BeforeUndo   Point = "before-undo"
	AfterUndo    Point = "after-undo"
)

// ErrCrash is what Inject returns to play a killed process.
var ErrCrash = errors.New("operation: injected crash")

var errFenced = errors.New("operation: somebody else has the lease")

// Engine accepts operations, carries them out and reads them.
type Engine struct {
	cfg     Config
	owner   string
	flows   map[string]*Flow
	watcher Watcher
	slots   chan struct{}

	mu      sync.Mutex
	active  bool // Run is on: accepted operations are leased to this engine at once
	local   map[string]*localRun
	waiters map[string][]chan struct{}
	stray   map[string]int64 // epochs of operations leased to this engine that nothing here was carrying out when it last looked
	next    chan struct{}    // closed when the operations that wait for each other begin; nil: none waits
	began   time.Time        // when some last began
	last    time.Time        // when one was last accepted or taken over
	wg      sync.WaitGroup
	runCtx  context.Context
}

type localRun struct {
	epoch  int64
	cancel context.CancelCauseFunc
}

// New makes an engine and brings its tables up to date.
func New(ctx context.Context, cfg Config) (*Engine, error) {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	if err := cfg.DB.Migrate(ctx, "operation", sub); err != nil {
		return nil, err
	}
	setDefault(&cfg.Lease, 15*time.Second)
	setDefault(&cfg.Sweep, time.Second)
	setDefault(&cfg.UndoLimit, 10*time.Minute)
	setDefault(&cfg.Pause, 100*time.Millisecond)
	setDefault(&cfg.Workers, 512)
	setDefault(&cfg.Unknown, time.Minute)
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	return &Engine{cfg: cfg, owner: cfg.Owner + "/" + id.Secret(6), flows: map[string]*Flow{}, slots: make(chan struct{}, cfg.Workers),
		local: map[string]*localRun{}, waiters: map[string][]chan struct{}{}}, nil
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Register adds a flow. It must be called before Run; two flows of one kind or two steps of one name are programming errors and panic.
func (e *Engine) Register(flows ...Flow) {
	for _, f := range flows {
		if _, ok := e.flows[f.Kind]; ok || f.Kind == "" {
			panic("operation: flow " + f.Kind + " registered twice or without a kind")
		}
		seen := map[string]bool{}
		for _, s := range f.Steps {
			if seen[s.Name] || s.Do == nil || s.Name == "" {
				panic("operation: flow " + f.Kind + " step " + s.Name + " has no Do or stands twice")
			}
			seen[s.Name] = true
		}
		e.flows[f.Kind] = &f
	}
}

// Accept implements Acceptor.
func (e *Engine) Accept(ctx context.Context, tx *db.Tx, s Spec) (string, error) {
	input, err := json.Marshal(s.Input)
	if err != nil {
		return "", fmt.Errorf("accept %s: %w", s.Kind, err)
	}
	if len(e.flows) > 0 && e.flows[s.Kind] == nil && !s.Finished {
		return "", fault.New(fault.NotImplemented, "This cloud has nothing that carries out the operation %s.", s.Kind)
	}
	now := clock.Now()
	o := &row{ID: id.Ordered(), Kind: s.Kind, ObjectType: s.ObjectType, Object: s.Object, Action: s.Action, Project: s.Project, User: s.User,
		RequestID: s.RequestID, State: Pending, TaskState: s.TaskState, UndoTo: -1, Epoch: 1, Due: clock.Micros(now), Input: input,
		Accepted: clock.Micros(now), Updated: clock.Micros(now)}
	if !s.NotBefore.IsZero() {
		o.Due = clock.Micros(s.NotBefore)
	}
	if !s.Shared && !s.Finished {
		o.Holds = s.Object
	}
	before := ""
	if !s.First {
		existing, was, err := e.follow(ctx, tx, o, s)
		if err != nil || existing != "" {
			return existing, err
		}
		before = was
	}
	if err := e.turned(ctx, tx, Accepted, "", o, nil, nil); err != nil {
		return "", err
	}
	if s.Finished {
		o.State, o.Finished = Done, o.Updated
		return o.ID, o.insertFinished(ctx, tx, s.Event)
	}
	flow := e.flows[s.Kind]
	mine := flow != nil && e.isActive() && o.Due <= clock.Micros(now)
	if mine {
		o.Owner, o.Lease = e.owner, clock.Micros(now.Add(e.cfg.Lease))
		o.State = Running
		if o.Position == 0 {
			if err := e.openStep(ctx, tx, flow, o); err != nil {
				return "", err
			}
		}
	}
	if err := e.taskTurned(ctx, tx, before, o); err != nil {
		return "", err
	}
	if err := o.insert(ctx, tx); err != nil {
		if db.IsDuplicate(err) {
			return "", &HeldError{Object: s.Object, Kind: "another"}
		}
		return "", fmt.Errorf("accept %s: %w", s.Kind, err)
	}
	tx.AfterCommit(func() {
		if mine {
			e.start(o)
		} else {
			e.wake(o.ID)
		}
	})
	return o.ID, nil
}

// follow gives o an epoch above those of all operations that the object had, and the object itself.
func (e *Engine) follow(ctx context.Context, tx *db.Tx, o *row, s Spec) (existing, was string, err error) {
	var top int64
	if err := tx.QueryRow(ctx, "SELECT COALESCE(MAX(epoch), 0) FROM operations WHERE object = ?", s.Object).Scan(&top); err != nil {
		return "", "", fmt.Errorf("accept %s: %w", s.Kind, err)
	}
	o.Epoch = top + 1
	if o.Holds == "" {
		return "", "", nil
	}
	return e.clearHolder(ctx, tx, o, s)
}

// clearHolder makes room for o: it fails when another operation holds the object, or supersedes that one when o takes over. A take-over that
// yields to the holder gives the holder's id instead. was is the task state of the superseded one.
func (e *Engine) clearHolder(ctx context.Context, tx *db.Tx, o *row, s Spec) (existing, was string, err error) {
	var h HeldError
	err = tx.QueryRow(ctx, "SELECT id, kind, task_state FROM operations WHERE holds = ?"+tx.ForUpdate(), s.Object).Scan(&h.Operation, &h.Kind, &h.TaskState)
	if db.IsNoRows(err) {
		return "", "", nil
	}
	if err != nil {
		return "", "", fmt.Errorf("accept %s: %w", s.Kind, err)
	}
	h.Object = s.Object
	if !s.TakeOver {
		return "", "", &h
	}
	if h.Kind == s.Kind || slices.Contains(s.Yields, h.Kind) {
		tx.AfterCommit(func() { e.again(h.Operation) })
		return h.Operation, "", nil
	}
	if err := e.overtaken(ctx, tx, h.Operation); err != nil {
		return "", "", err
	}
	if _, err := tx.Exec(ctx, "UPDATE operations SET state = ?, holds = NULL, task_state = '', epoch = ?, owner = '', finished = ?, updated = ? WHERE id = ?",
		string(Superseded), o.Epoch, o.Updated, o.Updated, h.Operation); err != nil {
		return "", "", fmt.Errorf("supersede %s: %w", h.Operation, err)
	}
	if _, err := tx.Exec(ctx, "UPDATE operation_steps SET finished = ?, error = 'superseded', public = 'superseded' WHERE operation = ? AND finished = 0", o.Updated, h.Operation); err != nil {
		return "", "", fmt.Errorf("supersede %s: %w", h.Operation, err)
	}
	o.Epoch++
	o.Supersedes, o.Position = h.Operation, -1
	tx.AfterCommit(func() { e.stopLocal(h.Operation) })
	return "", h.TaskState, nil
}

// again gives an operation that needs attention another try, because it was asked for once more.
func (e *Engine) again(op string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := e.Retry(ctx, op); err != nil && !errors.Is(err, fault.Conflict) && !errors.Is(err, fault.NotFound) {
		e.cfg.Log.Warn("an operation that was asked for again could not be woken", "operation", op, "error", err)
	}
}

func (e *Engine) isActive() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.active
}

func (e *Engine) wake(op string) {
	if e.cfg.Bus != nil {
		// A lost wake-up costs one sweep.
		_ = e.cfg.Bus.Cast(context.Background(), DueSubject, []byte(op))
	}
}

// Wake looks at an operation now instead of at the next sweep: its pause ends.
func (e *Engine) Wake(op string) { e.wake(op) }

// Run carries out operations until ctx ends, then lets running steps end for at most the lease and gives the rest back.
func (e *Engine) Run(ctx context.Context) error {
	runCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	e.mu.Lock()
	e.active, e.runCtx = true, runCtx
	e.mu.Unlock()
	if e.cfg.Sole {
		if err := e.cfg.DB.Write(ctx, func(tx *db.Tx) error {
			_, err := tx.Exec(ctx, "UPDATE operations SET lease_until = 0 WHERE owner <> '' AND owner <> ? AND finished = 0", e.owner)
			return err
		}); err != nil {
			return fmt.Errorf("take leases: %w", err)
		}
	}
	if e.cfg.Bus != nil {
		stop, err := e.cfg.Bus.Serve(DueSubject, "conductor", func(ctx context.Context, _ string, msg []byte) ([]byte, error) {
			e.claim(ctx, string(msg))
			return nil, nil
		})
		if err != nil {
			return fmt.Errorf("serve %s: %w", DueSubject, err)
		}
		defer stop()
	}
	sweep, renew := time.NewTicker(e.cfg.Sweep), time.NewTicker(e.cfg.Lease/3)
	defer sweep.Stop()
	defer renew.Stop()
	e.sweep(runCtx)
	for {
		select {
		case <-ctx.Done():
			e.shutdown(cancel)
			return nil
		case <-sweep.C:
			e.sweep(runCtx)
		case <-renew.C:
			e.renew(runCtx)
		}
	}
}

// shutdown stops leasing, cancels the running steps (each journals nothing: whoever comes next repeats it), waits for them and gives all leases back.
func (e *Engine) shutdown(cancel context.CancelFunc) {
	e.mu.Lock()
	e.active = false
	e.mu.Unlock()
	cancel()
	e.wg.Wait()
	ctx, done := context.WithTimeout(context.Background(), 30*time.Second)
	defer done()
	err := e.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE operations SET lease_until = 0 WHERE owner = ? AND finished = 0", e.owner)
		return err
	})
	if err != nil { // they run out by themselves: nothing is wrong but that others wait so long
		e.cfg.Log.Warn("the leases of operations could not be given back", "error", err)
	}
}

func (e *Engine) sweep(ctx context.Context) {
	now := clock.Micros(clock.Now())
	rows, err := e.cfg.DB.Query(ctx, "SELECT id FROM operations WHERE finished = 0 AND state IN ('pending','running','undoing') AND lease_until < ? AND due <= ? ORDER BY due LIMIT 500", now, now)
	if err != nil {
		if ctx.Err() == nil {
			e.cfg.Log.Error("operation sweep failed", "error", err)
		}
		return
	}
	var ids []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err == nil {
			ids = append(ids, s)
		}
	}
	_ = errors.Join(rows.Err(), rows.Close()) // what is missing is found by the next sweep
	var wg sync.WaitGroup
	for _, op := range ids {
		wg.Go(func() { e.claim(ctx, op) })
	}
	wg.Wait()
}

// free tells whether the engine may take an operation: it runs, and does not carry that one out already. The lease of one that it does carry out
// may have run out on a busy machine; it is prolonged unless somebody else was quicker.
func (e *Engine) free(op string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.active && e.local[op] == nil
}

// claim takes the lease of a due operation, if it is free, and starts it.
func (e *Engine) claim(ctx context.Context, op string) {
	if !e.free(op) {
		return
	}
	var o *row
	err := e.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		var err error
		if o, err = loadRow(ctx, tx, op, tx.ForUpdate()); err != nil {
			return err
		}
		now := clock.Now()
		if o.Finished != 0 || o.State == Attention || o.Lease >= clock.Micros(now) || o.Due > clock.Micros(now) {
			o = nil
			return nil
		}
		flow := e.flows[o.Kind]
		if flow == nil {
			err := e.giveUp(ctx, tx, o, now)
			o = nil
			return err
		}
		o.Epoch++
		o.Owner, o.Lease, o.Updated = e.owner, clock.Micros(now.Add(e.cfg.Lease)), clock.Micros(now)
		was := o.TaskState
		if o.State == Pending {
			o.State = Running
		}
		if n, err := tx.Exec(ctx, "UPDATE operation_steps SET epoch = ? WHERE operation = ? AND finished = 0", o.Epoch, o.ID); err != nil {
			return err
		} else if n == 0 && o.State == Running && o.Position >= 0 {
			if err := e.openStep(ctx, tx, flow, o); err != nil {
				return err
			}
		}
		if err := e.taskTurned(ctx, tx, was, o); err != nil {
			return err
		}
		return o.update(ctx, tx, nil)
	})
	if err != nil && ctx.Err() == nil && !db.IsNoRows(err) {
		e.cfg.Log.Error("operation claim failed", "operation", op, "error", err)
	}
	if err == nil && o != nil {
		e.start(o)
	}
}

// giveUp ends an operation of a kind that this engine does not carry out, when nobody else has taken it for Config.Unknown: one that has not begun is undone and lets
// go of its object, one that has begun needs attention.
func (e *Engine) giveUp(ctx context.Context, tx *db.Tx, o *row, now time.Time) error {
	since := clock.FromMicros(max(o.Due, o.Updated))
	if now.Sub(since) < e.cfg.Unknown {
		return nil
	}
	o.Cause = "nothing carries out operations of the kind " + o.Kind
	o.Public = "This cloud has nothing that carries out the operation " + o.Kind + "."
	o.Epoch++
	o.Owner, o.Lease = "", 0
	if o.State == Pending {
		o.State, o.TaskState, o.Finished = Undone, "", clock.Micros(now)
	} else {
		o.State = Attention
	}
	e.cfg.Log.Error("operation given up", "operation", o.ID, "kind", o.Kind, "object", o.Object, "state", string(o.State), "error", o.Cause)
	return o.update(ctx, tx, nil)
}

// renew prolongs all leases of this engine in one statement, and stops runs whose lease somebody else took. A lease that nothing here has used from one renewal to the next is
// given back: the database was away while the operation was accepted, claimed or journalled, and what is to be done is in the journal.
func (e *Engine) renew(ctx context.Context) {
	if left := e.prolong(ctx); len(left) > 0 {
		e.giveBack(ctx, left)
	}
}

// prolong is renew, and gives the operations whose leases are of no use.
func (e *Engine) prolong(ctx context.Context) (left []string) {
	e.mu.Lock()
	before := maps.Clone(e.local)
	e.mu.Unlock()
	if len(before) == 0 { // what is left runs out by itself
		e.stray = nil
		return nil
	}
	mine := map[string]int64{}
	until := clock.Micros(clock.Now().Add(e.cfg.Lease))
	err := e.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		clear(mine)
		if _, err := tx.Exec(ctx, "UPDATE operations SET lease_until = ? WHERE finished = 0 AND owner = ? AND state IN ('running','undoing')", until, e.owner); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, "SELECT id, epoch FROM operations WHERE finished = 0 AND owner = ? AND state IN ('running','undoing')", e.owner)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var op string
			var epoch int64
			if err := rows.Scan(&op, &epoch); err != nil {
				return err
			}
			mine[op] = epoch
		}
		return rows.Err()
	})
	if err != nil {
		if ctx.Err() == nil {
			e.cfg.Log.Error("lease renewal failed", "error", err)
		}
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for op, l := range before {
		if epoch, ok := mine[op]; e.local[op] == l && (!ok || epoch > l.epoch) {
			l.cancel(errFenced)
			delete(e.local, op)
		}
	}
	return e.strays(mine)
}

// strays gives those of the operations leased to this engine that nothing here carries out, nor did when it was last called. e.mu is held.
func (e *Engine) strays(mine map[string]int64) (left []string) {
	now := map[string]int64{}
	for op, epoch := range mine {
		if e.local[op] != nil {
			continue
		}
		if now[op] = epoch; e.stray[op] == epoch {
			left = append(left, op)
		}
	}
	e.stray = now
	return left
}

// giveBack ends the leases of operations that this engine does not carry out: the next sweep, of whichever engine, takes them.
func (e *Engine) giveBack(ctx context.Context, ops []string) {
	for part := range slices.Chunk(ops, 100) {
		e.cfg.Log.Warn("operations that were interrupted begin again from the last journalled step", "operations", part)
		err := e.cfg.DB.Write(ctx, func(tx *db.Tx) error {
			_, err := tx.Exec(ctx, "UPDATE operations SET lease_until = 0 WHERE owner = ? AND finished = 0 AND id IN ("+db.In(len(part))+")", append([]any{e.owner}, db.Args(part)...)...)
			return err
		})
		if err != nil && ctx.Err() == nil {
			e.cfg.Log.Error("leases could not be given back; it is tried again", "error", err)
			return
		}
	}
}

// Wait blocks until the operation has ended (or needs attention) and gives its record. Between processes it looks again every 50 ms.
func (e *Engine) Wait(ctx context.Context, op string) (*Record, error) {
	for {
		c := make(chan struct{})
		e.mu.Lock()
		e.waiters[op] = append(e.waiters[op], c)
		e.mu.Unlock()
		r, err := e.Show(ctx, op)
		if err != nil {
			return nil, err
		}
		if !r.Finished.IsZero() || r.State == Attention {
			return r, nil
		}
		t := time.NewTimer(50 * time.Millisecond)
		select {
		case <-c:
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return r, ctx.Err()
		}
		t.Stop()
	}
}

// Retry puts an operation that needs attention back to work, from the step it stopped at.
func (e *Engine) Retry(ctx context.Context, op string) error {
	err := e.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		o, err := loadRow(ctx, tx, op, tx.ForUpdate())
		if db.IsNoRows(err) {
			return fault.New(fault.NotFound, "There is no operation %s.", op)
		}
		if err != nil {
			return err
		}
		if o.State != Attention {
			return fault.New(fault.Conflict, "Operation %s is %s: only one that needs attention can be retried.", op, o.State)
		}
		o.State = Running
		if o.Undoing {
			o.State = Undoing
		}
		o.Lease, o.Due = 0, clock.Micros(clock.Now())
		return o.update(ctx, tx, nil)
	})
	if err == nil {
		e.wake(op)
	}
	return err
}
