package operation

import (
	"context"

	"kilonova/internal/db"
)

// Watcher is told of the turns of operations inside the transactions that journal them, so what it writes there is as durable as the turn itself and no more
// often. An error undoes the transaction. It must not wait for anything but the database.
type Watcher interface {
	Turned(ctx context.Context, tx *db.Tx, t Turn) error
}

// Moment names a turn.
type Moment string

// The moments. Those of steps are told once for each journalled try; steps that are left out have none.
const (
	Accepted    Moment = "accepted"     // the operation's row is being written
	Overtaken   Moment = "overtaken"    // another operation took the object over; Step is what was open
	Began       Moment = "began"        // a step
	Succeeded   Moment = "succeeded"    // a step, after its Commit
	Failed      Moment = "failed"       // a step; Err says why
	UndoBegan   Moment = "undo-began"   // a step's undo
	UndoDone    Moment = "undo-done"    // a step's undo
	Ended       Moment = "ended"        // the whole operation, after its Done or Undone; Err is the cause when it was undone
	TaskChanged Moment = "task-changed" // the task state, from Was to TaskState
)

// Turn is one event in the life of an operation.
type Turn struct {
	Moment Moment
	Step   string // "" for turns of the whole operation
	// Run is the operation with the variables that the transaction writes. Host is where the step ran, when it has.
	Run            *Run
	TaskState, Was string // Was: only with TaskChanged
	Holds          bool   // it holds its object: TaskState is that of the object
	Err            error
	Again          bool // Failed: an earlier step is gone back to
}

// Watch sets who is told of every turn; nil: nobody. It must be called before the first Accept and before Run.
func (e *Engine) Watch(w Watcher) { e.watcher = w }

// turned tells the watcher. r nil: made of o.
func (e *Engine) turned(ctx context.Context, tx *db.Tx, m Moment, step string, o *row, r *Run, cause error, more ...func(*Turn)) error {
	if e.watcher == nil {
		return nil
	}
	if r == nil {
		r = o.run()
	}
	t := Turn{Moment: m, Step: step, Run: r, TaskState: o.TaskState, Holds: o.Holds != "", Err: cause}
	for _, f := range more {
		f(&t)
	}
	return e.watcher.Turned(ctx, tx, t)
}

// taskTurned tells the watcher when the task state of a held object differs from what it was.
func (e *Engine) taskTurned(ctx context.Context, tx *db.Tx, was string, o *row) error {
	if e.watcher == nil || o.Holds == "" || was == o.TaskState {
		return nil
	}
	return e.turned(ctx, tx, TaskChanged, "", o, nil, nil, func(t *Turn) { t.Was = was })
}

// overtaken tells the watcher of an operation that another one takes over.
func (e *Engine) overtaken(ctx context.Context, tx *db.Tx, op string) error {
	if e.watcher == nil {
		return nil
	}
	o, err := loadRow(ctx, tx, op, "")
	if err != nil {
		return err
	}
	step := ""
	if f := e.flows[o.Kind]; f != nil && o.State == Running && o.Position >= 0 && int(o.Position) < len(f.Steps) {
		step = f.Steps[o.Position].Name
	}
	return e.turned(ctx, tx, Overtaken, step, o, nil, nil)
}

type runKey struct{}

// watched puts the operation into the context of what writes for it, for watchers of other tables.
func (e *Engine) watched(ctx context.Context, r *Run) context.Context {
	if e.watcher == nil {
		return ctx
	}
	return context.WithValue(ctx, runKey{}, r)
}

// RunOf gives the operation whose end, or whose step's Commit, runs with ctx while there is a watcher; nil otherwise.
func RunOf(ctx context.Context) *Run {
	r, _ := ctx.Value(runKey{}).(*Run)
	return r
}
