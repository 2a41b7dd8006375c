package operation_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"kilonova/internal/db"
	"kilonova/internal/operation"
)

// TestLeasesThatCannotBeGivenBack run out by themselves: a process that ends while its database is away ends well.
func TestLeasesThatCannotBeGivenBack(t *testing.T) {
	r := newRig(t, func(w *world) []operation.Flow { return []operation.Flow{w.flow("make")} })
	log := &strings.Builder{}
	e, err := operation.New(t.Context(), operation.Config{DB: r.db, Owner: "t", Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.db.Write(t.Context(), func(tx *db.Tx) error {
		_, err := tx.Exec(t.Context(), "ALTER TABLE operations RENAME TO elsewhere")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Run(ctx); err != nil {
		t.Errorf("the end of the process: %v", err)
	}
	if !strings.Contains(log.String(), "could not be given back") {
		t.Errorf("the log does not tell of it: %s", log)
	}
}

// overtaken runs "make" until it is inside the step at, takes it over with kind, and gives both as they ended.
func overtaken(t *testing.T, at int, noReturn int, kind string, more ...operation.Flow) (r *rig, first, second *operation.Record) {
	t.Helper()
	begun := make(chan struct{})
	r = newRig(t, func(w *world) []operation.Flow {
		f := w.flow("make")
		if noReturn >= 0 {
			f.Steps[noReturn].NoReturn = true
		}
		do, times := f.Steps[at].Do, 0
		f.Steps[at].Do = func(ctx context.Context, r *operation.Run) error {
			if times++; times > 1 {
				return do(ctx, r)
			}
			close(begun)
			<-ctx.Done()
			return ctx.Err()
		}
		end := func(name string) func(context.Context, *db.Tx, *operation.Run) error {
			return func(_ context.Context, _ *db.Tx, r *operation.Run) error {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.calls = append(w.calls, name)
				return nil
			}
		}
		f.Done = end("done")
		f.Undone = func(ctx context.Context, tx *db.Tx, r *operation.Run, _ error) error {
			return end("undone")(ctx, tx, r)
		}
		return append([]operation.Flow{f, {Kind: "hide", Steps: []operation.Step{{Name: "hidden", Do: w.do("hidden")}}}}, more...)
	})
	e := r.engine(nil)
	op, err := r.accept(e, operation.Spec{Kind: "make", Object: "s1"})
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	by, err := r.accept(e, operation.Spec{Kind: kind, Object: "s1", TakeOver: true})
	if err != nil {
		t.Fatal(err)
	}
	second = r.wait(e, by)
	if first, err = e.Show(t.Context(), op); err != nil || first.State != operation.Superseded {
		t.Fatalf("%+v %v", first, err)
	}
	return r, first, second
}

// What does not remove its object ends what it takes over properly: the way back to its end.
func TestTakeOverThatStaysUndoesWhatCameBefore(t *testing.T) {
	r, _, rec := overtaken(t, 1, -1, "hide")
	if rec.State != operation.Done || !slices.Equal(r.w.effects["s1"], []string{"hidden"}) {
		t.Errorf("%s %v", rec.State, r.w.effects)
	}
	if want := []string{"do one", "undo two", "undo one", "undone", "do hidden"}; !slices.Equal(r.w.calls, want) {
		t.Errorf("calls %v, want %v", r.w.calls, want)
	}
}

// Past the point of no return it is the way forward.
func TestTakeOverThatStaysCompletesWhatCannotGoBack(t *testing.T) {
	r, _, rec := overtaken(t, 2, 1, "hide")
	if rec.State != operation.Done || !slices.Equal(r.w.effects["s1"], []string{"one", "two", "three", "hidden"}) {
		t.Errorf("%s %v", rec.State, r.w.effects)
	}
	if want := []string{"do one", "do two", "do three", "done", "do hidden"}; !slices.Equal(r.w.calls, want) {
		t.Errorf("calls %v, want %v", r.w.calls, want)
	}
}

// A removal that has undone half of what was there is not undone itself.
func TestRemovalDoesNotTurnBackOnceItTookOver(t *testing.T) {
	tries := 0
	remove := operation.Flow{Kind: "delete", Removes: true, Steps: []operation.Step{{Name: "gone", Do: func(context.Context, *operation.Run) error {
		if tries++; tries < 3 {
			return errors.New("not yet")
		}
		return nil
	}}}}
	r, _, rec := overtaken(t, 1, -1, "delete", remove)
	if rec.State != operation.Done || tries != 3 || len(r.w.effects["s1"]) != 0 {
		t.Errorf("%s after %d tries, %v", rec.State, tries, r.w.effects)
	}
}

func TestTakeOverYields(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	r := newRig(t, func(w *world) []operation.Flow {
		return []operation.Flow{{Kind: "delete", Removes: true, Steps: []operation.Step{{Name: "gone", Do: func(ctx context.Context, _ *operation.Run) error {
			close(begun)
			<-release
			return nil
		}}}}, {Kind: "hide", Steps: []operation.Step{{Name: "hidden", Do: w.do("hidden")}}}}
	})
	e := r.engine(nil)
	del, err := r.accept(e, operation.Spec{Kind: "delete", Object: "s1"})
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	got, err := r.accept(e, operation.Spec{Kind: "hide", Object: "s1", TakeOver: true, Yields: []string{"delete"}})
	close(release)
	if err != nil || got != del {
		t.Errorf("accepted as %s (%v), want the delete %s", got, err, del)
	}
	if rec := r.wait(e, del); rec.State != operation.Done {
		t.Errorf("the delete is %s", rec.State)
	}
}

// A step whose engine lost the lease without knowing writes nothing to the database any more, also when that engine was the only one at its start.
func TestStepsAreFencedInTheDatabase(t *testing.T) {
	for name, sole := range map[string]bool{"one of several": false, "the first of several": true} {
		t.Run(name, func(t *testing.T) { stepIsFenced(t, sole) })
	}
}

func stepIsFenced(t *testing.T, sole bool) {
	t.Helper()
	begun, taken := make(chan struct{}), make(chan struct{})
	wrote := make(chan error, 1)
	r := newRig(t, nil)
	r.sole = sole
	r.flows = func(w *world) []operation.Flow {
		f := w.flow("make")
		times := 0
		f.Steps[1].Do = func(ctx context.Context, _ *operation.Run) error {
			if times++; times > 1 {
				return nil
			}
			close(begun)
			<-taken
			wrote <- r.db.Write(context.WithoutCancel(ctx), func(tx *db.Tx) error {
				_, err := tx.Exec(ctx, "DELETE FROM operation_steps")
				return err
			})
			return nil
		}
		return []operation.Flow{f}
	}
	e := r.engine(nil)
	op, err := r.accept(e, operation.Spec{Kind: "make", Object: "s1"})
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	err = r.db.Write(t.Context(), func(tx *db.Tx) error { // as another engine does
		_, err := tx.Exec(t.Context(), "UPDATE operations SET epoch = epoch + 1, owner = 'other', lease_until = ? WHERE id = ?", time.Now().Add(time.Hour).UnixMicro(), op)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	close(taken)
	if err := <-wrote; err == nil {
		t.Error("the step wrote although another engine has its lease")
	}
	r.expire(op)
	if rec := r.wait(e, op); rec.State != operation.Done || len(rec.Steps) == 0 {
		t.Errorf("%s, %d steps", rec.State, len(rec.Steps))
	}
}
