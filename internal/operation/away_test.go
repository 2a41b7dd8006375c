package operation_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"kilonova/internal/db"
	"kilonova/internal/db/dbtest"
	"kilonova/internal/fault"
	"kilonova/internal/operation"
)

// away is the error of a database that is away, as another process would tell it.
func away() error {
	return fault.Wrap(fault.ErrAway, fault.Unavailable, "The database cannot be reached. Try again.")
}

// busy is an operation that goes on until its test ends: the engine that has it renews leases.
func busy(over <-chan struct{}) operation.Flow {
	return operation.Flow{Kind: "busy", Steps: []operation.Step{{Name: "wait", Deadline: time.Hour, Do: func(ctx context.Context, _ *operation.Run) error {
		select {
		case <-over:
		case <-ctx.Done():
		}
		return ctx.Err()
	}}}}
}

// renewed waits for an operation's end while the engine's leases, none of which runs out by itself, are renewed.
func (r *rig) renewed(e *operation.Engine, op string) *operation.Record {
	r.t.Helper()
	for began := time.Now(); time.Since(began) < 5*time.Minute; time.Sleep(20 * time.Millisecond) {
		e.Renew(r.t.Context())
		rec, err := e.Show(r.t.Context(), op)
		if err != nil {
			r.t.Fatal(err)
		}
		if !rec.Finished.IsZero() || rec.State == operation.Attention {
			return rec
		}
	}
	r.t.Fatalf("operation %s was not taken up again", op)
	return nil
}

// What the database's absence interrupted is taken up again by an engine that goes on renewing its leases because it is busy with others.
func TestInterruptedOperationsAreTakenUpAgain(t *testing.T) {
	over, back := make(chan struct{}), atomic.Bool{}
	r := newRig(t, func(w *world) []operation.Flow {
		f := w.flow("make")
		do := f.Steps[1].Do
		f.Steps[1].Retries = 1
		f.Steps[1].Do = func(ctx context.Context, r *operation.Run) error {
			if err := do(ctx, r); err != nil || back.Load() {
				return err
			}
			return away()
		}
		return []operation.Flow{f, busy(over)}
	})
	t.Cleanup(func() { close(over) })
	e := r.engine(nil)
	if _, err := r.accept(e, operation.Spec{Kind: "busy", ObjectType: "server", Object: "s0"}); err != nil {
		t.Fatal(err)
	}
	op, err := r.accept(e, operation.Spec{Kind: "make", ObjectType: "server", Object: "s1"})
	if err != nil {
		t.Fatal(err)
	}
	calls := func() (n int) {
		r.w.mu.Lock()
		defer r.w.mu.Unlock()
		for _, c := range r.w.calls {
			if c == "do two" {
				n++
			}
		}
		return n
	}
	for calls() < 2 {
		time.Sleep(time.Millisecond)
	}
	back.Store(true)
	rec := r.renewed(e, op)
	if rec.State != operation.Done || slices.Contains(r.w.calls, "undo one") {
		t.Errorf("%s (%s): %v", rec.State, rec.Cause, r.w.calls)
	}
}

// An acceptance whose outcome its caller never learned is carried out if it has happened.
func TestAcceptedWithoutAnAnswer(t *testing.T) {
	d, way := dbtest.Cables(t, db.Postgres)
	over := make(chan struct{})
	r := rigOn(t, d, func(w *world) []operation.Flow { return []operation.Flow{w.flow("make"), busy(over)} })
	t.Cleanup(func() { close(over) })
	r.sweep = time.Hour // no commit but those of the test
	e := r.engine(nil)
	if _, err := r.accept(e, operation.Spec{Kind: "busy", ObjectType: "server", Object: "s0"}); err != nil {
		t.Fatal(err)
	}
	for _, carriedOut := range []bool{false, true} {
		var op string
		lost := (<-chan struct{})(nil)
		err := d.Write(t.Context(), func(tx *db.Tx) (err error) {
			lost = way.LoseCommit(carriedOut)
			op, err = e.Accept(t.Context(), tx, operation.Spec{Kind: "make", ObjectType: "server", Object: "s1"})
			return err
		})
		<-lost
		if !db.IsAway(err) {
			t.Fatalf("carried out: %t: %v", carriedOut, err)
		}
		if !carriedOut {
			if _, err := e.Show(t.Context(), op); fault.KindOf(err) != fault.NotFound {
				t.Errorf("an operation that was not accepted is there: %v", err)
			}
			continue
		}
		e.Renew(t.Context())
		e.Renew(t.Context()) // now nobody has it
		again := r.engine(nil)
		if rec := r.wait(again, op); rec.State != operation.Done {
			t.Errorf("%s: %s", rec.State, rec.Cause)
		}
	}
}

// The undo of what a delete took over is not given up because the database was away for long.
func TestTheUndoOfATakenOverOperationWaitsForTheDatabase(t *testing.T) {
	left := atomic.Int64{}
	left.Store(8)
	over := make(chan struct{})
	r := newRig(t, func(w *world) []operation.Flow {
		f := w.flow("make")
		undo := f.Steps[0].Undo
		f.Steps[0].Undo = func(ctx context.Context, r *operation.Run) error {
			if left.Add(-1) >= 0 {
				return away()
			}
			return undo(ctx, r)
		}
		f.Steps[1] = busy(over).Steps[0]
		return []operation.Flow{f, {Kind: "delete", Removes: true, Steps: []operation.Step{{Name: "gone", Do: w.do("gone")}}}}
	})
	t.Cleanup(func() { close(over) })
	r.limit = time.Nanosecond // whatever fails for another reason is given up at once
	e := r.engine(nil)
	if _, err := r.accept(e, operation.Spec{Kind: "make", ObjectType: "server", Object: "s1"}); err != nil {
		t.Fatal(err)
	}
	for made := false; !made; time.Sleep(time.Millisecond) {
		r.w.mu.Lock()
		made = slices.Contains(r.w.effects["s1"], "one")
		r.w.mu.Unlock()
	}
	op, err := r.accept(e, operation.Spec{Kind: "delete", ObjectType: "server", Object: "s1", TakeOver: true})
	if err != nil {
		t.Fatal(err)
	}
	rec := r.wait(e, op)
	if rec.State != operation.Done || slices.Contains(r.w.effects["s1"], "one") {
		t.Errorf("%s (%s): %v is left", rec.State, rec.Cause, r.w.effects["s1"])
	}
}
