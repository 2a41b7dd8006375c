package operation

import (
	"context"
	"encoding/json"
	"fmt"

	"kilonova/internal/clock"
	"kilonova/internal/db"
	"kilonova/internal/fault"
)

// row is an operation as the engine works on it.
type row struct {
	ID, Kind, ObjectType, Object, Holds, Action, Project, User, RequestID string
	State                                                                 State
	TaskState                                                             string
	Position                                                              int64 // step to do, or to undo; -1: the superseded operation is undone first
	UndoTo                                                                int64 // while undoing: go on from here again; -1: undo everything and end
	Round                                                                 int64 // how often the operation was sent back
	Epoch                                                                 int64
	Owner                                                                 string
	Lease, Due                                                            int64
	Supersedes                                                            string
	Input                                                                 json.RawMessage
	Vars                                                                  map[string]json.RawMessage
	Cause, Public                                                         string
	Accepted, Updated, Finished                                           int64
	Undoing                                                               bool // a cause is there: in attention, which way it was going
	under                                                                 *row // the operation that took this one over and ends it under its own lease
}

const columns = "id, kind, object_type, object, COALESCE(holds, ''), action, project, user_id, request_id, state, task_state, position, undo_to, round, epoch, owner, lease_until, due, supersedes, input, vars, cause, public_cause, accepted, updated, finished"

type scanner interface{ Scan(dest ...any) error }

func scanRow(s scanner) (*row, error) {
	o := &row{}
	var input, vars string
	if err := s.Scan(&o.ID, &o.Kind, &o.ObjectType, &o.Object, &o.Holds, &o.Action, &o.Project, &o.User, &o.RequestID, &o.State, &o.TaskState, &o.Position,
		&o.UndoTo, &o.Round, &o.Epoch, &o.Owner, &o.Lease, &o.Due, &o.Supersedes, &input, &vars, &o.Cause, &o.Public, &o.Accepted, &o.Updated, &o.Finished); err != nil {
		return nil, err
	}
	o.Input = json.RawMessage(input)
	o.Undoing = o.Cause != "" && o.UndoTo != goingForward
	if vars != "" {
		if err := json.Unmarshal([]byte(vars), &o.Vars); err != nil {
			return nil, fmt.Errorf("operation %s: variables: %w", o.ID, err)
		}
	}
	return o, nil
}

// goingForward in undo_to marks an operation past its point of no return, whose cause is an error to be retried.
const goingForward = -2

func loadRow(ctx context.Context, q db.Querier, op, suffix string) (*row, error) {
	return scanRow(q.QueryRow(ctx, "SELECT "+columns+" FROM operations WHERE id = ?"+suffix, op))
}

func (o *row) varsText() string {
	if len(o.Vars) == 0 {
		return ""
	}
	b, err := json.Marshal(o.Vars)
	if err != nil { // values are raw JSON that Set made
		panic("operation variables: " + err.Error())
	}
	return string(b)
}

func (o *row) insert(ctx context.Context, tx *db.Tx) error {
	var holds any
	if o.Holds != "" {
		holds = o.Holds
	}
	_, err := tx.Exec(ctx, "INSERT INTO operations (id, kind, object_type, object, holds, action, project, user_id, request_id, state, task_state, position, undo_to, round, epoch, owner, lease_until, due, supersedes, input, vars, cause, public_cause, accepted, updated, finished) VALUES ("+db.In(26)+")",
		o.ID, o.Kind, o.ObjectType, o.Object, holds, o.Action, o.Project, o.User, o.RequestID, string(o.State), o.TaskState, o.Position, o.UndoTo, o.Round, o.Epoch, o.Owner,
		o.Lease, o.Due, o.Supersedes, string(o.Input), o.varsText(), o.Cause, o.Public, o.Accepted, o.Updated, o.Finished)
	return err
}

var changing = []string{"holds", "state", "task_state", "position", "undo_to", "round", "epoch", "owner", "lease_until", "due", "cause", "public_cause", "finished"}

func (o *row) changingArgs() []any {
	holds := any(o.Holds)
	if o.Holds == "" || o.Finished != 0 {
		holds = nil
	}
	return []any{holds, string(o.State), o.TaskState, o.Position, o.UndoTo, o.Round, o.Epoch, o.Owner, o.Lease, o.Due, o.Cause, o.Public, o.Finished}
}

// update writes what differs from old, which the row is known to hold; a lease that was prolonged meanwhile thus stays so. It is fenced: it fails with errFenced
// unless the row still has old's epoch and is unfinished. Without old the row was read in the same transaction and is written whole.
func (o *row) update(ctx context.Context, tx *db.Tx, old *row) error {
	o.Updated = clock.Micros(clock.Now())
	before, fence, fenced := make([]any, len(changing)), "", []any{o.ID}
	if old != nil {
		before, fence, fenced = old.changingArgs(), " AND epoch = ? AND finished = 0", append(fenced, old.Epoch)
	} else {
		for i := range before {
			before[i] = struct{}{} // equals no value
		}
	}
	set, args := db.Changed(changing, before, o.changingArgs())
	if set != "" {
		set += ", "
	}
	n, err := tx.Exec(ctx, "UPDATE operations SET "+set+"vars = ?, updated = ? WHERE id = ?"+fence, append(append(args, o.varsText(), o.Updated), fenced...)...)
	if err != nil {
		return fmt.Errorf("journal operation %s: %w", o.ID, err)
	}
	if n == 0 {
		return errFenced
	}
	return nil
}

// insertFinished writes an operation that was complete at acceptance, with the one event that it has.
func (o *row) insertFinished(ctx context.Context, tx *db.Tx, event string) error {
	if err := o.insert(ctx, tx); err != nil || event == "" {
		return err
	}
	if _, err := tx.Exec(ctx, "INSERT INTO operation_steps (operation, name, event, is_undo, attempt, epoch, host, started, finished, succeeded, error, public) VALUES ("+db.In(12)+")",
		o.ID, "", event, false, 1, o.Epoch, "", o.Accepted, o.Finished, true, "", ""); err != nil {
		return fmt.Errorf("journal event %s: %w", event, err)
	}
	return nil
}

// openStep journals that the step at o.Position begins, and sets the task state.
func (e *Engine) openStep(ctx context.Context, tx *db.Tx, f *Flow, o *row) error {
	if o.Position < 0 || int(o.Position) >= len(f.Steps) {
		return nil
	}
	s := &f.Steps[o.Position]
	if o.State == Running && s.Skip != nil && s.Skip(o.run()) {
		return nil // what is left out leaves no event
	}
	if o.State == Running && s.TaskState != "" {
		o.TaskState = s.TaskState
	}
	if _, err := tx.Exec(ctx, "INSERT INTO operation_steps (operation, name, event, is_undo, attempt, epoch, host, started, finished, succeeded, error, public) VALUES ("+db.In(12)+")",
		o.ID, s.Name, s.Event, o.State == Undoing, o.Round+1, o.Epoch, "", clock.Micros(clock.Now()), 0, 0, "", ""); err != nil {
		return fmt.Errorf("journal step %s: %w", s.Name, err)
	}
	m := Began
	if o.State == Undoing {
		m = UndoBegan
	}
	return e.turned(ctx, tx, m, s.Name, o, nil, nil)
}

// closeStep journals how the open step of o ended.
func closeStep(ctx context.Context, tx *db.Tx, o *row, host, details string, cause error, public string) error {
	return closeStepAs(ctx, tx, o, "", host, details, cause, public)
}

// closeStepAs also gives the step an event that it did not have.
func closeStepAs(ctx context.Context, tx *db.Tx, o *row, event, host, details string, cause error, public string) error {
	if event != "" {
		if _, err := tx.Exec(ctx, "UPDATE operation_steps SET event = ? WHERE operation = ? AND finished = 0 AND event = ''", event, o.ID); err != nil {
			return fmt.Errorf("journal step: %w", err)
		}
	}
	text := ""
	if cause != nil {
		text = cause.Error()
	} else {
		public = details
	}
	if _, err := tx.Exec(ctx, "UPDATE operation_steps SET host = ?, finished = ?, succeeded = ?, error = ?, public = ? WHERE operation = ? AND finished = 0",
		host, clock.Micros(clock.Now()), cause == nil, text, public, o.ID); err != nil {
		return fmt.Errorf("journal step: %w", err)
	}
	return nil
}

// waitsFor journals at the open step why it is tried again, unless that is the reason told last, and gives the reason: who looks at an operation that takes long sees what
// it waits for. The steps of an operation that was taken over are closed.
func (e *Engine) waitsFor(ctx context.Context, o *row, r *Run, why error, told string) string {
	text := why.Error()
	if text == told || o.under != nil {
		return told
	}
	err := e.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE operation_steps SET host = ?, error = ?, public = ? WHERE operation = ? AND epoch = ? AND finished = 0", r.Host, text, fault.PublicText(why), o.ID, o.Epoch)
		return err
	})
	if err != nil && ctx.Err() == nil {
		e.cfg.Log.Warn("what a step waits for could not be journalled", "operation", o.ID, "error", err)
	}
	return text
}
