package operation

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"kilonova/internal/clock"
	"kilonova/internal/db"
	"kilonova/internal/fault"
)

func (o *row) record(e *Engine) Record {
	r := Record{ID: o.ID, Kind: o.Kind, ObjectType: o.ObjectType, Object: o.Object, Action: o.Action, Project: o.Project, User: o.User, RequestID: o.RequestID,
		State: o.State, TaskState: o.TaskState, Cause: o.Cause, Owner: o.Owner, Epoch: o.Epoch, Accepted: clock.FromMicros(o.Accepted),
		Updated: clock.FromMicros(o.Updated), Finished: clock.FromMicros(o.Finished), LeaseUntil: clock.FromMicros(o.Lease), Input: o.Input, Vars: o.Vars}
	if f := e.flows[o.Kind]; f != nil && o.Position >= 0 && int(o.Position) < len(f.Steps) {
		r.Step = f.Steps[o.Position].Name
	}
	return r
}

func (e *Engine) records(rows *sql.Rows, err error) ([]Record, error) {
	if err != nil {
		return nil, fmt.Errorf("read operations: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var out []Record
	for rows.Next() {
		o, err := scanRow(rows)
		if err != nil {
			return nil, fmt.Errorf("read operations: %w", err)
		}
		out = append(out, o.record(e))
	}
	return out, rows.Err()
}

// ByObject implements Reader.
func (e *Engine) ByObject(ctx context.Context, object string) ([]Record, error) {
	return e.records(e.cfg.DB.Query(ctx, "SELECT "+columns+" FROM operations WHERE object = ? AND action <> '' ORDER BY accepted DESC, id DESC", object))
}

// Held tells whether an open operation holds the object, one that needs attention among them.
func (e *Engine) Held(ctx context.Context, object string) (bool, error) {
	var op string
	err := e.cfg.DB.QueryRow(ctx, "SELECT id FROM operations WHERE holds = ?", object).Scan(&op)
	if db.IsNoRows(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read operations: %w", err)
	}
	return true, nil
}

// List implements Reader.
func (e *Engine) List(ctx context.Context, states []State, limit int) ([]Record, error) {
	q, args := "SELECT "+columns+" FROM operations", []any{}
	if len(states) > 0 {
		names := make([]string, len(states))
		for i, s := range states {
			names[i] = string(s)
		}
		q += " WHERE state IN (" + db.In(len(states)) + ")"
		args = append(args, db.Args(names)...)
	}
	q += " ORDER BY id DESC"
	if limit > 0 {
		q += fmt.Sprintf(" LIMIT %d", limit)
	}
	return e.records(e.cfg.DB.Query(ctx, q, args...))
}

// Show implements Reader.
func (e *Engine) Show(ctx context.Context, op string) (*Record, error) {
	o, err := loadRow(ctx, e.cfg.DB, op, "")
	if db.IsNoRows(err) {
		return nil, fault.New(fault.NotFound, "There is no operation %s.", op)
	}
	if err != nil {
		return nil, fmt.Errorf("read operation: %w", err)
	}
	r := o.record(e)
	steps, err := e.StepsOf(ctx, op)
	if err != nil {
		return nil, err
	}
	r.Steps = steps[op]
	return &r, nil
}

// StepsOf gives the journalled steps of several operations with one query.
func (e *Engine) StepsOf(ctx context.Context, ops ...string) (map[string][]StepRecord, error) {
	out := map[string][]StepRecord{}
	if len(ops) == 0 {
		return out, nil
	}
	rows, err := e.cfg.DB.Query(ctx, "SELECT operation, id, name, event, is_undo, attempt, epoch, host, started, finished, succeeded, error, public FROM operation_steps WHERE operation IN ("+db.In(len(ops))+") ORDER BY id", db.Args(ops)...)
	if err != nil {
		return nil, fmt.Errorf("read steps: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var s StepRecord
		var op string
		var started, finished int64
		if err := rows.Scan(&op, &s.Seq, &s.Name, &s.Event, &s.Undo, &s.Attempt, &s.Epoch, &s.Host, &started, &finished, &s.Succeeded, &s.Error, &s.Public); err != nil {
			return nil, fmt.Errorf("read steps: %w", err)
		}
		s.Started, s.Finished = clock.FromMicros(started), clock.FromMicros(finished)
		out[op] = append(out[op], s)
	}
	return out, rows.Err()
}

// Forget removes the finished operations of objects that are gone for good. Objects with an open operation are left alone.
func (e *Engine) Forget(ctx context.Context, tx *db.Tx, objects ...string) error {
	for len(objects) > 0 {
		n := min(len(objects), 200)
		marks, args := db.In(n), db.Args(objects[:n])
		objects = objects[n:]
		for _, q := range []string{
			"DELETE FROM operation_steps WHERE operation IN (SELECT id FROM operations WHERE object IN (%s) AND finished <> 0)",
			"DELETE FROM operations WHERE object IN (%s) AND finished <> 0",
		} {
			if _, err := tx.Exec(ctx, strings.Replace(q, "%s", marks, 1), append([]any{}, args...)...); err != nil {
				return fmt.Errorf("forget operations: %w", err)
			}
		}
	}
	return nil
}
