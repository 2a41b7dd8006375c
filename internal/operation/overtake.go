package operation

import (
	"context"
	"fmt"

	"kilonova/internal/db"
	"kilonova/internal/fault"
)

// What an operation does, before its own first step, with the one that it took over.

func (e *Engine) endSuperseded(ctx context.Context, o *row, f *Flow) error {
	if f.Removes {
		return e.undoSuperseded(ctx, o, f)
	}
	return e.concludeSuperseded(ctx, o, f)
}

// undoSuperseded undoes, under o's lease and epoch, what the operation that o took over from had done, as far back as its last point of no return. All of
// it is repeated after a crash: every undo may be. An undo that fails, or waits for what does not come, does not hold up whoever took over for long: that one removes the object
// anyway, and what is to be restored of it need not be.
func (e *Engine) undoSuperseded(ctx context.Context, o *row, f *Flow) error {
	if err := e.undoChain(ctx, o.Supersedes, o); err != nil {
		if cutOff(ctx, err) {
			return stopCause(ctx, err)
		}
		return e.attention(ctx, o, o.run(), err)
	}
	next := *o
	next.Position, next.UndoTo = 0, goingForward // half of the object is gone already
	return e.write(ctx, o, &next, func(tx *db.Tx) error { return e.openStep(ctx, tx, f, &next) })
}

func (e *Engine) undoChain(ctx context.Context, op string, by *row) error {
	old, err := loadRow(ctx, e.cfg.DB, op, "")
	if db.IsNoRows(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("load superseded operation: %w", err)
	}
	if old.Position < 0 { // it had not yet undone its own predecessor
		return e.undoChain(ctx, old.Supersedes, by)
	}
	f := e.flows[old.Kind]
	if f == nil {
		return fmt.Errorf("superseded operation %s has the unknown kind %s", op, old.Kind)
	}
	old.Epoch, old.under = by.Epoch, by
	r := old.run()
	for i := min(old.Position, int64(len(f.Steps))-1); i >= 0; i-- {
		s := &f.Steps[i]
		if s.NoReturn && i < old.Position {
			break
		}
		if s.Undo == nil {
			continue
		}
		if err := e.undo(ctx, old, s, r, e.cfg.UndoLimit/5, e.cfg.UndoLimit/100); err != nil {
			if cutOff(ctx, err) {
				return err
			}
			e.cfg.Log.Error("undo of a superseded operation was given up", "operation", op, "kind", old.Kind, "object", old.Object, "step", s.Name, "by", by.ID, "error", err)
		}
	}
	return nil
}

// concludeSuperseded brings the operation that o took over to the end that it would have had: everything undone, or, past its point of no return,
// everything done. Its end is written in the transaction that lets o begin.
func (e *Engine) concludeSuperseded(ctx context.Context, o *row, f *Flow) error {
	old, err := e.begun(ctx, o.Supersedes)
	var end func(context.Context, *db.Tx) error
	if err == nil && old != nil {
		end, err = e.conclude(ctx, old, o)
	}
	if err != nil {
		if cutOff(ctx, err) {
			return stopCause(ctx, err)
		}
		return e.attention(ctx, o, o.run(), fmt.Errorf("end of the operation before: %w", err))
	}
	next := *o
	next.Position = 0
	return e.write(ctx, o, &next, func(tx *db.Tx) error {
		if end != nil {
			if err := end(ctx, tx); err != nil {
				return err
			}
		}
		return e.openStep(ctx, tx, f, &next)
	})
}

// begun gives the operation op, or the one that op had taken over and not yet ended; nil when there is nothing to end.
func (e *Engine) begun(ctx context.Context, op string) (*row, error) {
	for op != "" {
		old, err := loadRow(ctx, e.cfg.DB, op, "")
		if db.IsNoRows(err) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("load superseded operation: %w", err)
		}
		if old.Position >= 0 || old.Undoing || old.Supersedes == "" {
			return old, nil
		}
		op = old.Supersedes
	}
	return nil, nil
}

// conclude runs what is left of old under by's lease and gives what its end writes.
func (e *Engine) conclude(ctx context.Context, old, by *row) (func(context.Context, *db.Tx) error, error) {
	f := e.flows[old.Kind]
	if f == nil {
		return nil, fmt.Errorf("superseded operation %s has the unknown kind %s", old.ID, old.Kind)
	}
	old.Epoch, old.under = by.Epoch, by
	r := old.run()
	if old.Undoing || !pastReturn(f, old.Position) {
		for i := min(old.Position, int64(len(f.Steps))-1); i >= 0; i-- {
			if s := &f.Steps[i]; s.Undo != nil {
				if err := e.undo(ctx, old, s, r, e.cfg.UndoLimit, e.cfg.UndoLimit); err != nil {
					return nil, err
				}
			}
		}
		if f.Undone == nil {
			return nil, nil
		}
		return func(ctx context.Context, tx *db.Tx) error {
			return f.Undone(e.watched(ctx, r), tx, r, fault.New(fault.Conflict, "A later request took the server over."))
		}, nil
	}
	old.UndoTo = goingForward
	for int(old.Position) < len(f.Steps) {
		if err := e.carryOn(ctx, old, by, &f.Steps[old.Position], r); err != nil {
			return nil, err
		}
	}
	if f.Done == nil {
		return nil, nil
	}
	return func(ctx context.Context, tx *db.Tx) error { return f.Done(e.watched(ctx, r), tx, r) }, nil
}

// pastReturn tells whether a step before the one at position let no way back.
func pastReturn(f *Flow, position int64) bool {
	for i := range min(position, int64(len(f.Steps))) {
		if f.Steps[i].NoReturn {
			return true
		}
	}
	return false
}

// carryOn does one step of old under by's lease and remembers that it is done.
func (e *Engine) carryOn(ctx context.Context, old, by *row, s *Step, r *Run) error {
	if s.Skip == nil || !s.Skip(r) {
		if err := e.attempt(ctx, old, s, r); err != nil {
			return err
		}
	}
	same := *by
	err := e.write(ctx, by, &same, func(tx *db.Tx) error {
		if s.Commit != nil {
			if err := s.Commit(e.watched(ctx, r), tx, r); err != nil {
				return fmt.Errorf("commit of step %s: %w", s.Name, err)
			}
		}
		done := *old
		done.Vars = r.Vars
		if _, err := tx.Exec(ctx, "UPDATE operations SET position = ?, vars = ? WHERE id = ?", old.Position+1, done.varsText(), old.ID); err != nil {
			return fmt.Errorf("journal operation %s: %w", old.ID, err)
		}
		return nil
	})
	if err == nil {
		old.Position++
	}
	return err
}
