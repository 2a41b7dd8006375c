package operation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/db"
	"kilonova/internal/fault"
)

// execute carries an operation on until it ends, needs attention, is fenced off, or ctx ends.
func (e *Engine) execute(ctx context.Context, o *row) {
	flow := e.flows[o.Kind]
	r := o.run()
	var err error
	for err == nil && o.Finished == 0 && o.State != Attention {
		switch {
		case o.Position < 0 && o.State == Running:
			err = e.endSuperseded(ctx, o, flow)
		case o.State == Running:
			err = e.forward(ctx, o, flow, r)
		default:
			err = e.backward(ctx, o, flow, r)
		}
	}
	if err != nil && !cutOff(ctx, err) {
		// The journal could not be read or written. The lease runs out and somebody, perhaps this engine, begins again from the last journalled step.
		e.cfg.Log.Error("operation interrupted", "operation", o.ID, "kind", o.Kind, "object", o.Object, "request", o.RequestID, "error", err)
	}
}

func (o *row) run() *Run {
	return &Run{ID: o.ID, Kind: o.Kind, Object: o.Object, ObjectType: o.ObjectType, Project: o.Project, User: o.User, RequestID: o.RequestID,
		Action: o.Action, Epoch: o.Epoch, Attempt: int(o.Round) + 1, Input: o.Input, Vars: maps.Clone(o.Vars)}
}

// forward does the step at o.Position.
func (e *Engine) forward(ctx context.Context, o *row, f *Flow, r *Run) error {
	if int(o.Position) >= len(f.Steps) {
		return e.finish(ctx, o, f, r, nil)
	}
	s := &f.Steps[o.Position]
	done := s.Skip == nil || !s.Skip(r)
	if done {
		if err := e.attempt(ctx, o, s, r); err != nil {
			if cutOff(ctx, err) {
				return stopCause(ctx, err)
			}
			return e.turn(ctx, o, f, r, err)
		}
	} else {
		r.StepName, r.Host, r.Details = s.Name, "", ""
	}
	next := *o
	next.Position++
	next.Vars = r.Vars
	next.Cause, next.Public = "", ""
	if s.NoReturn || o.UndoTo == goingForward {
		next.UndoTo = goingForward
	}
	last := int(next.Position) == len(f.Steps)
	err := e.write(ctx, o, &next, func(tx *db.Tx) error {
		if err := closeStep(ctx, tx, o, r.Host, r.Details, nil, ""); err != nil {
			return err
		}
		if s.Commit != nil {
			if err := s.Commit(e.watched(ctx, r), tx, r); err != nil {
				return fmt.Errorf("commit of step %s: %w", s.Name, err)
			}
			next.Vars = r.Vars
		}
		if done {
			if err := e.turned(ctx, tx, Succeeded, s.Name, &next, r, nil); err != nil {
				return err
			}
		}
		if last {
			return e.finishTx(ctx, tx, &next, f, r, nil)
		}
		return e.openStep(ctx, tx, f, &next)
	})
	if err != nil {
		if errors.Is(err, errFenced) || ctx.Err() != nil {
			return stopCause(ctx, err)
		}
		return e.turn(ctx, o, f, r, err) // a refused Commit is the step's failure
	}
	return e.inject(ctx, AfterJournal, s.Name, r)
}

// attempt runs Do with its deadline, again after errors that may pass.
func (e *Engine) attempt(ctx context.Context, o *row, s *Step, r *Run) error {
	retries := s.Retries
	if retries == 0 {
		retries = 5
	}
	began, pause, waits := time.Now(), e.cfg.Pause, ""
	for try := 0; ; try++ {
		r.StepName, r.Attempt, r.Host, r.Details = s.Name, int(o.Round)+1, "", ""
		err := e.inject(ctx, BeforeDo, s.Name, r)
		if err == nil {
			err = e.bounded(e.fenced(ctx, o), s, s.Do, r)
			if err == nil {
				err = e.inject(ctx, AfterDo, s.Name, r)
			}
		}
		e.cfg.Log.Debug("step", "operation", o.ID, "kind", o.Kind, "object", o.Object, "step", s.Name, "epoch", o.Epoch, "request", o.RequestID, "error", err)
		again := Transient(err) && try < retries
		if o.UndoTo == goingForward { // past the point of no return there is only this way
			if db.IsAway(err) {
				began = time.Now() // nothing could be tried meanwhile
			}
			again = db.IsAway(err) || time.Since(began) < e.cfg.UndoLimit
		}
		if err == nil || errors.Is(err, ErrCrash) || !again || ctx.Err() != nil {
			return err
		}
		waits = e.waitsFor(ctx, o, r, err, waits)
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, 5*time.Second)
	}
}

// fenced makes what a step of o writes to the database fail once somebody else has o's lease. A private engine needs no such guard: whoever takes over from
// it is itself, and cancels the step first.
func (e *Engine) fenced(ctx context.Context, o *row) context.Context {
	if e.cfg.Private {
		return ctx
	}
	if o.under != nil {
		o = o.under
	}
	id, epoch := o.ID, o.Epoch
	return db.Guarded(ctx, func(tx *db.Tx) error {
		var now, finished int64
		err := tx.QueryRow(ctx, "SELECT epoch, finished FROM operations WHERE id = ?"+tx.ForUpdate(), id).Scan(&now, &finished)
		if err == nil && (now != epoch || finished != 0) || db.IsNoRows(err) {
			return errFenced
		}
		return err
	})
}

func (e *Engine) bounded(ctx context.Context, s *Step, f func(context.Context, *Run) error, r *Run) (err error) {
	deadline := s.Deadline
	if deadline == 0 {
		deadline = time.Minute
	}
	one, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			e.cfg.Log.Error("step panicked", "operation", r.ID, "step", s.Name, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("step %s panicked: %v", s.Name, p)
		}
	}()
	err = f(one, r)
	if err != nil && ctx.Err() == nil && errors.Is(one.Err(), context.DeadlineExceeded) {
		err = fault.Wrap(err, fault.Unavailable, "Step %s did not end within %s.", s.Name, deadline)
	}
	return err
}

// turn decides what follows a failed step: back to an earlier one, undo, or, past the point of no return, later again. Nothing follows when it was the database that was away: what
// the journal says is then to be read anew.
func (e *Engine) turn(ctx context.Context, o *row, f *Flow, r *Run, cause error) error {
	if db.IsAway(cause) {
		return cause
	}
	public := fault.PublicText(cause)
	next := *o
	next.Vars = r.Vars
	var back *BackError
	switch {
	case errors.As(cause, &back):
		next.State, next.UndoTo, next.Cause, next.Public = Undoing, stepIndex(f, back.To), back.Cause.Error(), fault.PublicText(back.Cause)
		if next.UndoTo < 0 || next.UndoTo > o.Position {
			return e.attention(ctx, o, r, fmt.Errorf("flow %s cannot go back from %s to %q", o.Kind, r.StepName, back.To))
		}
	case o.UndoTo == goingForward:
		return e.attention(ctx, o, r, cause)
	default:
		next.State, next.UndoTo, next.Cause, next.Public = Undoing, -1, cause.Error(), public
	}
	e.cfg.Log.Warn("operation turns back", "operation", o.ID, "kind", o.Kind, "object", o.Object, "step", r.StepName, "epoch", o.Epoch, "request", o.RequestID, "error", cause)
	event := ""
	if o.Position < int64(len(f.Steps)) {
		event = f.Steps[o.Position].FailEvent
	}
	return e.write(ctx, o, &next, func(tx *db.Tx) error {
		if err := closeStepAs(ctx, tx, o, event, r.Host, "", cause, public); err != nil {
			return err
		}
		if err := e.turned(ctx, tx, Failed, r.StepName, &next, r, cause, func(t *Turn) { t.Again = back != nil }); err != nil {
			return err
		}
		return e.openUndo(ctx, tx, f, &next)
	})
}

func stepIndex(f *Flow, name string) int64 {
	for i := range f.Steps {
		if f.Steps[i].Name == name {
			return int64(i)
		}
	}
	return -1
}

// openUndo journals the undo of the step at next.Position, unless that step has none.
func (e *Engine) openUndo(ctx context.Context, tx *db.Tx, f *Flow, next *row) error {
	if next.Position >= 0 && f.Steps[next.Position].Undo != nil {
		return e.openStep(ctx, tx, f, next)
	}
	return nil
}

// backward undoes the step at o.Position and turns round or ends when the way back is at its end.
func (e *Engine) backward(ctx context.Context, o *row, f *Flow, r *Run) error {
	stop := max(o.UndoTo, 0)
	if o.Position < stop {
		if o.UndoTo < 0 {
			return e.finish(ctx, o, f, r, cause(o))
		}
		next := *o
		next.State, next.Position, next.UndoTo, next.Cause, next.Public = Running, o.UndoTo, -1, "", ""
		next.Round++
		next.Vars = r.Vars
		return e.write(ctx, o, &next, func(tx *db.Tx) error { return e.openStep(ctx, tx, f, &next) })
	}
	s := &f.Steps[o.Position]
	if s.Undo != nil {
		if err := e.undo(ctx, o, s, r, e.cfg.UndoLimit, e.cfg.UndoLimit); err != nil {
			if cutOff(ctx, err) {
				return stopCause(ctx, err)
			}
			return e.attention(ctx, o, r, fmt.Errorf("undo of %s: %w (after: %s)", s.Name, err, o.Cause))
		}
	}
	next := *o
	next.Position--
	next.Vars = r.Vars
	return e.write(ctx, o, &next, func(tx *db.Tx) error {
		if s.Undo != nil {
			if err := closeStep(ctx, tx, o, r.Host, r.Details, nil, ""); err != nil {
				return err
			}
			if err := e.turned(ctx, tx, UndoDone, s.Name, &next, r, nil); err != nil {
				return err
			}
		}
		if next.Position >= stop {
			return e.openUndo(ctx, tx, f, &next)
		}
		return nil
	})
}

// undo repeats a step's Undo until it succeeds or the limit has passed; errors that do not pass by themselves are retried no longer than hopeless. The time for which the database was
// away does not count.
func (e *Engine) undo(ctx context.Context, o *row, s *Step, r *Run, limit, hopeless time.Duration) error {
	began, pause, waits := time.Now(), e.cfg.Pause, ""
	for {
		r.StepName, r.Attempt, r.Host, r.Details = s.Name, int(o.Round)+1, "", ""
		err := e.inject(ctx, BeforeUndo, s.Name, r)
		if err == nil {
			err = e.bounded(e.fenced(ctx, o), s, s.Undo, r)
			if err == nil {
				err = e.inject(ctx, AfterUndo, s.Name, r)
			}
		}
		if err == nil || cutOff(ctx, err) {
			return err
		}
		if db.IsAway(err) {
			began = time.Now() // nothing could be tried meanwhile
		} else if time.Since(began) > limit || !Transient(err) && time.Since(began) > hopeless {
			return err
		}
		e.cfg.Log.Warn("undo failed, trying again", "operation", o.ID, "kind", o.Kind, "object", o.Object, "step", s.Name, "error", err)
		waits = e.waitsFor(ctx, o, r, err, waits)
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, 15*time.Second)
	}
}

// attention parks the operation: it keeps its object and says why. A database that was away needs no person: whoever takes the lease begins again from the last journalled step.
func (e *Engine) attention(ctx context.Context, o *row, r *Run, why error) error {
	if db.IsAway(why) {
		return why
	}
	e.cfg.Log.Error("operation needs attention", "operation", o.ID, "kind", o.Kind, "object", o.Object, "step", r.StepName, "request", o.RequestID, "error", why)
	next := *o
	next.State, next.Cause, next.Public, next.Lease, next.Owner = Attention, why.Error(), fault.PublicText(why), 0, ""
	next.Vars = r.Vars
	if o.State == Running {
		next.UndoTo = goingForward // Retry goes on from here
	}
	return e.write(ctx, o, &next, func(tx *db.Tx) error {
		if err := closeStep(ctx, tx, o, r.Host, "", why, fault.PublicText(why)); err != nil || o.State != Running {
			return err
		}
		return e.turned(ctx, tx, Failed, r.StepName, &next, r, why)
	})
}

// finish ends the operation in a transaction of its own.
func (e *Engine) finish(ctx context.Context, o *row, f *Flow, r *Run, cause error) error {
	next := *o
	next.Vars = r.Vars
	err := e.write(ctx, o, &next, func(tx *db.Tx) error {
		next.Vars = r.Vars
		return e.finishTx(ctx, tx, &next, f, r, cause)
	})
	if err != nil && !errors.Is(err, errFenced) && ctx.Err() == nil {
		return e.attention(ctx, o, r, err)
	}
	return err
}

func (e *Engine) finishTx(ctx context.Context, tx *db.Tx, next *row, f *Flow, r *Run, cause error) error {
	next.Lease, next.Owner, next.TaskState = 0, "", ""
	next.Finished = clock.Micros(clock.Now())
	if cause == nil {
		next.State = Done
		if f.Done != nil {
			if err := f.Done(e.watched(ctx, r), tx, r); err != nil {
				return fmt.Errorf("end of %s: %w", f.Kind, err)
			}
		}
		return e.turned(ctx, tx, Ended, "", next, r, nil)
	}
	next.State = Undone
	if f.Undone != nil {
		if err := f.Undone(e.watched(ctx, r), tx, r, cause); err != nil {
			return fmt.Errorf("end of undone %s: %w", f.Kind, err)
		}
	}
	return e.turned(ctx, tx, Ended, "", next, r, cause)
}

// cause gives the reason why an operation is being undone, with its public text.
func cause(o *row) error {
	return &fault.Error{Kind: fault.Internal, Text: o.Public, Cause: errors.New(o.Cause)}
}

// write commits a change of the operation, fenced by its epoch, and then takes it over into o. more runs first in the same transaction and may still
// change next.
func (e *Engine) write(ctx context.Context, o, next *row, more func(tx *db.Tx) error) error {
	keep := *next
	err := e.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		*next = keep // the transaction may run more than once
		if err := more(tx); err != nil {
			return err
		}
		if err := e.taskTurned(ctx, tx, o.TaskState, next); err != nil {
			return err
		}
		return next.update(ctx, tx, o)
	})
	if err != nil {
		return err
	}
	*o = *next
	return nil
}

func (e *Engine) inject(ctx context.Context, p Point, step string, r *Run) error {
	if e.cfg.Inject == nil {
		return nil
	}
	return e.cfg.Inject(ctx, p, step, r)
}

// cutOff tells whether err is no outcome of a step, but the end of this engine's work on it: it was killed, has lost the lease, or is to stop.
func cutOff(ctx context.Context, err error) bool {
	return errors.Is(err, ErrCrash) || errors.Is(err, errFenced) || ctx.Err() != nil
}

func stopCause(ctx context.Context, err error) error {
	if errors.Is(err, ErrCrash) {
		return err
	}
	if c := context.Cause(ctx); c != nil {
		return c
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
