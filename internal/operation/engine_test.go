package operation_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/operation"
)

// world is what the steps of the test flows act on: sets of effects by object, as a hypervisor would keep them, outside the database.
type world struct {
	mu      sync.Mutex
	effects map[string][]string // object -> names of the steps whose effect is there
	calls   []string
	fenced  map[string]int64
}

func (w *world) do(name string) func(context.Context, *operation.Run) error {
	return func(_ context.Context, r *operation.Run) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.calls = append(w.calls, "do "+name)
		if r.Epoch < w.fenced[r.Object] {
			return fmt.Errorf("stale epoch %d", r.Epoch)
		}
		w.fenced[r.Object] = r.Epoch
		if !slices.Contains(w.effects[r.Object], name) {
			w.effects[r.Object] = append(w.effects[r.Object], name)
		}
		return nil
	}
}

func (w *world) undo(name string) func(context.Context, *operation.Run) error {
	return func(_ context.Context, r *operation.Run) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.calls = append(w.calls, "undo "+name)
		w.effects[r.Object] = slices.DeleteFunc(w.effects[r.Object], func(s string) bool { return s == name })
		return nil
	}
}

func (w *world) flow(kind string) operation.Flow {
	f := operation.Flow{Kind: kind}
	for _, n := range []string{"one", "two", "three"} {
		f.Steps = append(f.Steps, operation.Step{Name: n, Event: "ev_" + n, TaskState: "task_" + n, Do: w.do(n), Undo: w.undo(n), Deadline: time.Hour})
	}
	return f
}

type rig struct {
	t     *testing.T
	db    *db.DB
	w     *world
	flows func(*world) []operation.Flow
	stops []func()
	sole  bool
	sweep time.Duration // 0: 20 ms
	limit time.Duration // of undos, and of what can only go forward; 0: an hour, which no pause of the machine uses up
}

func newRig(t *testing.T, flows func(*world) []operation.Flow) *rig {
	d, err := db.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "op.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return rigOn(t, d, flows)
}

func rigOn(t *testing.T, d *db.DB, flows func(*world) []operation.Flow) *rig {
	r := &rig{t: t, db: d, w: &world{effects: map[string][]string{}, fenced: map[string]int64{}}, flows: flows}
	t.Cleanup(func() {
		for _, s := range r.stops {
			s()
		}
	})
	return r
}

// engine starts one more engine on the same database, as another process would. Its leases do not end by themselves, however long the machine pauses: expire ends them.
func (r *rig) engine(inject func(context.Context, operation.Point, string, *operation.Run) error) *operation.Engine {
	e, err := operation.New(r.t.Context(), operation.Config{DB: r.db, Owner: "t", Sole: r.sole, Lease: time.Hour, Sweep: cmp.Or(r.sweep, 20*time.Millisecond),
		Pause: time.Millisecond, UndoLimit: cmp.Or(r.limit, time.Hour), Unknown: 50 * time.Millisecond, Inject: inject})
	if err != nil {
		r.t.Fatal(err)
	}
	e.Register(r.flows(r.w)...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	var once sync.Once
	r.stops = append(r.stops, func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				r.t.Error(err)
			}
		})
	})
	return e
}

// expire ends the lease of an operation whose engine has crashed.
func (r *rig) expire(op string) {
	r.t.Helper()
	if err := r.db.Write(r.t.Context(), func(tx *db.Tx) error {
		_, err := tx.Exec(r.t.Context(), "UPDATE operations SET lease_until = 0 WHERE id = ? AND finished = 0", op)
		return err
	}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) accept(e *operation.Engine, s operation.Spec) (string, error) {
	var op string
	err := r.db.Write(r.t.Context(), func(tx *db.Tx) error {
		var err error
		op, err = e.Accept(r.t.Context(), tx, s)
		return err
	})
	return op, err
}

func (r *rig) wait(e *operation.Engine, op string) *operation.Record {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Minute)
	defer cancel()
	rec, err := e.Wait(ctx, op)
	if err != nil {
		r.t.Fatalf("operation %s: %v (%+v)", op, err, rec)
	}
	return rec
}

func one(w *world) []operation.Flow { return []operation.Flow{w.flow("make")} }

func TestStepsRunInOrderAndAreJournalled(t *testing.T) {
	r := newRig(t, one)
	e := r.engine(nil)
	op, err := r.accept(e, operation.Spec{Kind: "make", ObjectType: "server", Object: "s1", Action: "create", RequestID: "req-1", TaskState: "waiting", Input: 7})
	if err != nil {
		t.Fatal(err)
	}
	rec := r.wait(e, op)
	if rec.State != operation.Done || !slices.Equal(r.w.effects["s1"], []string{"one", "two", "three"}) {
		t.Fatalf("%+v %v", rec, r.w.effects)
	}
	if len(rec.Steps) != 3 || rec.Steps[1].Event != "ev_two" || !rec.Steps[1].Succeeded || rec.Steps[1].Finished.IsZero() || rec.TaskState != "" {
		t.Fatalf("%+v", rec)
	}
}

// Every step x every kind of failure: the operation ends done with every effect once, or undone with none, whoever carries it on.
func TestEveryStepEveryFailure(t *testing.T) {
	for _, step := range []string{"one", "two", "three"} {
		for _, p := range []operation.Point{operation.BeforeDo, operation.AfterDo, operation.AfterJournal} {
			for _, crash := range []bool{true, false} {
				if !crash && p == operation.AfterJournal {
					continue // a failure after the journal is the next step's
				}
				t.Run(fmt.Sprintf("%s %s crash=%v", step, p, crash), func(t *testing.T) {
					t.Parallel()
					r := newRig(t, one)
					reached := 0
					var mu sync.Mutex
					inject := func(_ context.Context, at operation.Point, s string, _ *operation.Run) error {
						mu.Lock()
						defer mu.Unlock()
						if at == p && s == step && reached == 0 {
							reached++
							if crash {
								return operation.ErrCrash
							}
							return errors.New("injected failure")
						}
						return nil
					}
					e := r.engine(inject)
					op, err := r.accept(e, operation.Spec{Kind: "make", Object: "s1"})
					if err != nil {
						t.Fatal(err)
					}
					if crash {
						for hit := 0; hit == 0; time.Sleep(time.Millisecond) { // or the second engine might be the first to run it
							if t.Context().Err() != nil {
								t.Fatal("the injected point was not reached")
							}
							mu.Lock()
							hit = reached
							mu.Unlock()
						}
						r.expire(op)
						e = r.engine(nil) // the one that finds the expired lease
					}
					rec := r.wait(e, op)
					mu.Lock()
					defer mu.Unlock()
					if reached != 1 {
						t.Fatal("the injected point was not reached")
					}
					want := []string{"one", "two", "three"}
					state := operation.Done
					if !crash {
						want, state = []string{}, operation.Undone
					}
					if rec.State != state || !slices.Equal(append([]string{}, r.w.effects["s1"]...), want) {
						t.Fatalf("state %s effects %v calls %v", rec.State, r.w.effects["s1"], r.w.calls)
					}
				})
			}
		}
	}
}

func TestCrashDuringUndoIsRepeated(t *testing.T) {
	for _, p := range []operation.Point{operation.BeforeUndo, operation.AfterUndo} {
		r := newRig(t, func(w *world) []operation.Flow {
			f := w.flow("make")
			f.Steps[2].Do = func(context.Context, *operation.Run) error { return fault.New(fault.Conflict, "No.") }
			return []operation.Flow{f}
		})
		hit := make(chan struct{})
		var once sync.Once
		e := r.engine(func(_ context.Context, at operation.Point, s string, _ *operation.Run) (err error) {
			if at == p && s == "two" {
				once.Do(func() { close(hit); err = operation.ErrCrash })
			}
			return err
		})
		op, err := r.accept(e, operation.Spec{Kind: "make", Object: "s1"})
		if err != nil {
			t.Fatal(err)
		}
		<-hit
		r.expire(op)
		rec := r.wait(r.engine(nil), op)
		if rec.State != operation.Undone || len(r.w.effects["s1"]) != 0 || rec.Cause == "" {
			t.Fatalf("%+v %v", rec, r.w.effects)
		}
	}
}

func TestBackRunsAgainWithWhatItLearned(t *testing.T) {
	r := newRig(t, func(w *world) []operation.Flow {
		f := w.flow("make")
		do := f.Steps[0].Do
		f.Steps[0].Do = func(ctx context.Context, r *operation.Run) error {
			var bad []string
			r.Get("bad", &bad)
			r.Set("host", fmt.Sprintf("h%d", len(bad)))
			return do(ctx, r)
		}
		f.Steps[1].Do = func(_ context.Context, r *operation.Run) error {
			var host string
			r.Get("host", &host)
			r.Host = host
			if host == "h2" {
				return nil
			}
			var bad []string
			r.Get("bad", &bad)
			r.Set("bad", append(bad, host))
			return operation.Back("one", fmt.Errorf("%s is broken", host))
		}
		return []operation.Flow{f}
	})
	e := r.engine(nil)
	op, err := r.accept(e, operation.Spec{Kind: "make", Object: "s1"})
	if err != nil {
		t.Fatal(err)
	}
	rec := r.wait(e, op)
	var host string
	if rec.State != operation.Done || len(rec.Vars["host"]) == 0 || string(rec.Vars["host"]) != `"h2"` {
		t.Fatalf("%+v %s", rec, host)
	}
	if n := len(slices.DeleteFunc(slices.Clone(r.w.calls), func(s string) bool { return s != "undo one" })); n != 2 {
		t.Fatalf("undo one ran %d times: %v", n, r.w.calls)
	}
}

func TestOneHolderAndTakeOver(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	r := newRig(t, func(w *world) []operation.Flow {
		f := w.flow("make")
		do := f.Steps[1].Do
		f.Steps[1].Do = func(ctx context.Context, r *operation.Run) error {
			if err := do(ctx, r); err != nil {
				return err
			}
			close(begun)
			select {
			case <-release:
			case <-ctx.Done():
			}
			return ctx.Err()
		}
		del := operation.Flow{Kind: "delete", Removes: true, Steps: []operation.Step{{Name: "gone", Do: w.do("gone")}}}
		return []operation.Flow{f, del}
	})
	e := r.engine(nil)
	first, err := r.accept(e, operation.Spec{Kind: "make", Object: "s1", TaskState: "making"})
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	_, err = r.accept(e, operation.Spec{Kind: "make", Object: "s1"})
	var held *operation.HeldError
	if !errors.As(err, &held) || held.TaskState != "task_two" || fault.KindOf(err) != fault.Conflict {
		t.Fatalf("second holder: %v", err)
	}
	del, err := r.accept(e, operation.Spec{Kind: "delete", Object: "s1", TakeOver: true})
	if err != nil {
		t.Fatal(err)
	}
	again, err := r.accept(e, operation.Spec{Kind: "delete", Object: "s1", TakeOver: true})
	if err == nil && again != del {
		t.Log("the first delete had ended already")
	}
	rec := r.wait(e, del)
	close(release)
	if rec.State != operation.Done || !slices.Equal(r.w.effects["s1"], []string{"gone"}) {
		t.Fatalf("%+v %v", rec, r.w.effects)
	}
	old, err := e.Show(t.Context(), first)
	if err != nil || old.State != operation.Superseded || old.Epoch >= rec.Epoch {
		t.Fatalf("%+v %v", old, err)
	}
}

// A delete is not held up by an operation whose undo can never succeed: what cannot be restored is removed. The undos before it still run.
func TestTakeOverGoesOnWhenAnUndoFails(t *testing.T) {
	begun := make(chan struct{})
	r := newRig(t, func(w *world) []operation.Flow {
		f := w.flow("make")
		f.Steps[1].Undo = func(context.Context, *operation.Run) error {
			return fault.New(fault.NotFound, "There is nothing to restore.")
		}
		f.Steps[2].Do = func(ctx context.Context, _ *operation.Run) error {
			close(begun)
			<-ctx.Done()
			return ctx.Err()
		}
		return []operation.Flow{f, {Kind: "delete", Removes: true, Steps: []operation.Step{{Name: "gone", Do: w.do("gone")}}}}
	})
	r.limit = 50 * time.Millisecond
	e := r.engine(nil)
	if _, err := r.accept(e, operation.Spec{Kind: "make", Object: "s1"}); err != nil {
		t.Fatal(err)
	}
	<-begun
	del, err := r.accept(e, operation.Spec{Kind: "delete", Object: "s1", TakeOver: true})
	if err != nil {
		t.Fatal(err)
	}
	if rec := r.wait(e, del); rec.State != operation.Done {
		t.Fatalf("the delete is %s: %s", rec.State, rec.Cause)
	}
	if got := r.w.effects["s1"]; !slices.Equal(got, []string{"two", "gone"}) {
		t.Errorf("effects %v", got)
	}
}

// TestAStepThatIsTriedAgainSaysWhy looks at an operation while its step, and then its undo, waits for what is not there.
func TestAStepThatIsTriedAgainSaysWhy(t *testing.T) {
	var mu sync.Mutex
	waits := map[operation.Point]bool{operation.BeforeDo: true, operation.BeforeUndo: true}
	r := newRig(t, func(w *world) []operation.Flow {
		f := w.flow("make")
		f.Steps[1].Retries = 1 << 30
		f.Steps[2].Do = func(context.Context, *operation.Run) error { return errors.New("broken") }
		return []operation.Flow{f}
	})
	e := r.engine(func(_ context.Context, p operation.Point, step string, run *operation.Run) error {
		mu.Lock()
		defer mu.Unlock()
		if step != "two" || !waits[p] {
			return nil
		}
		run.Host = "h7"
		return fault.New(fault.Unavailable, "Host h7 does not answer %s.", p)
	})
	op, err := r.accept(e, operation.Spec{Kind: "make", Object: "s1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []operation.Point{operation.BeforeDo, operation.BeforeUndo} {
		want := "Host h7 does not answer " + string(p) + "."
		for end := time.Now().Add(5 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
			rec, err := e.Show(t.Context(), op)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(rec.Steps); n > 0 { // none yet while the operation is pending
				last := rec.Steps[n-1]
				if last.Name == "two" && last.Public == want && last.Host == "h7" && last.Undo == (p == operation.BeforeUndo) && last.Finished.IsZero() {
					break
				}
			}
			if time.Now().After(end) {
				t.Fatalf("nothing says %q: %+v", want, rec.Steps)
			}
		}
		mu.Lock()
		waits[p] = false
		mu.Unlock()
	}
	rec := r.wait(e, op)
	for _, s := range rec.Steps {
		if s.Name == "two" && (!s.Succeeded || s.Error != "" || s.Public != "") {
			t.Errorf("a step that succeeded in the end says %+v", s)
		}
	}
}

func TestPastNoReturnGoesForwardOrNeedsAttention(t *testing.T) {
	var fail sync.Map
	fail.Store("on", true)
	r := newRig(t, func(w *world) []operation.Flow {
		f := w.flow("make")
		f.Steps[1].NoReturn = true
		do := f.Steps[2].Do
		f.Steps[2].Do = func(ctx context.Context, r *operation.Run) error {
			if _, on := fail.Load("on"); on {
				return errors.New("still broken")
			}
			return do(ctx, r)
		}
		return []operation.Flow{f}
	})
	r.limit = 50 * time.Millisecond
	e := r.engine(nil)
	op, err := r.accept(e, operation.Spec{Kind: "make", Object: "s1"})
	if err != nil {
		t.Fatal(err)
	}
	if rec := r.wait(e, op); rec.State != operation.Attention || !slices.Equal(r.w.effects["s1"], []string{"one", "two"}) {
		t.Fatalf("%+v %v", rec, r.w.effects)
	}
	fail.Delete("on")
	if err := e.Retry(t.Context(), op); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if rec := r.wait(e, op); rec.State == operation.Done {
			if len(r.w.effects["s1"]) != 3 {
				t.Fatal(r.w.effects)
			}
			return
		}
	}
	t.Fatal("retry did not end the operation")
}

func TestRefusedCommitUndoes(t *testing.T) {
	r := newRig(t, func(w *world) []operation.Flow {
		f := w.flow("make")
		f.Steps[2].Commit = func(context.Context, *db.Tx, *operation.Run) error { return fault.New(fault.Forbidden, "Quota.") }
		return []operation.Flow{f}
	})
	e := r.engine(nil)
	op, err := r.accept(e, operation.Spec{Kind: "make", Object: "s1"})
	if err != nil {
		t.Fatal(err)
	}
	if rec := r.wait(e, op); rec.State != operation.Undone || len(r.w.effects["s1"]) != 0 {
		t.Fatalf("%+v %v", rec, r.w.effects)
	}
}

func TestSkippedStepsLeaveNoEventAndFailingOnesMay(t *testing.T) {
	r := newRig(t, func(w *world) []operation.Flow {
		f := w.flow("make")
		f.Steps[0].Skip = func(*operation.Run) bool { return true }
		f.Steps[1].Skip = f.Steps[0].Skip
		f.Steps[2].Event, f.Steps[2].FailEvent = "", "went_wrong"
		f.Steps[2].Do = func(context.Context, *operation.Run) error { return fault.New(fault.Conflict, "No.") }
		return []operation.Flow{f}
	})
	e := r.engine(nil)
	op, err := r.accept(e, operation.Spec{Kind: "make", Object: "s1"})
	if err != nil {
		t.Fatal(err)
	}
	rec := r.wait(e, op)
	var events []string
	for _, s := range rec.Steps {
		if !s.Undo {
			events = append(events, s.Event)
		}
	}
	if rec.State != operation.Undone || !slices.Equal(events, []string{"went_wrong"}) {
		t.Fatalf("%s %v %+v", rec.State, events, rec.Steps)
	}
}

func TestFinishedAndSharedDoNotHold(t *testing.T) {
	r := newRig(t, one)
	e := r.engine(nil)
	for _, s := range []operation.Spec{{Kind: "lock", Object: "s1", Action: "lock", Finished: true}, {Kind: "make", Object: "s1", Shared: true}, {Kind: "make", Object: "s1"}} {
		if _, err := r.accept(e, s); err != nil {
			t.Fatal(err)
		}
	}
	recs, err := e.ByObject(t.Context(), "s1")
	if err != nil || len(recs) != 1 || recs[0].Action != "lock" || recs[0].State != operation.Done {
		t.Fatalf("%+v %v", recs, err)
	}
}

func BenchmarkOperation(b *testing.B) {
	d, err := db.Open(b.Context(), "sqlite:"+filepath.Join(b.TempDir(), "op.db"))
	if err != nil {
		b.Fatal(err)
	}
	e, err := operation.New(b.Context(), operation.Config{DB: d, Owner: "b"})
	if err != nil {
		b.Fatal(err)
	}
	w := &world{effects: map[string][]string{}, fenced: map[string]int64{}}
	e.Register(w.flow("make"))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	time.Sleep(50 * time.Millisecond)
	b.SetParallelism(32)
	n := 0
	var mu sync.Mutex
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			mu.Lock()
			n++
			obj := fmt.Sprint("s", n)
			mu.Unlock()
			var op string
			if err := d.Write(ctx, func(tx *db.Tx) (err error) {
				op, err = e.Accept(ctx, tx, operation.Spec{Kind: "make", Object: obj})
				return err
			}); err != nil {
				b.Error(err)
			}
			if rec, err := e.Wait(ctx, op); err != nil || rec.State != operation.Done {
				b.Error(err, rec)
			}
		}
	})
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	if err := d.Close(); err != nil {
		b.Fatal(err)
	}
}

// An operation that nothing carries out is refused where that is known, and otherwise lets go of its object after a while.
func TestUnknownKind(t *testing.T) {
	r := newRig(t, one)
	e := r.engine(nil)
	if _, err := r.accept(e, operation.Spec{Kind: "other", Object: "s1"}); !errors.Is(err, fault.NotImplemented) {
		t.Errorf("an engine with flows accepted an operation that it has no flow for: %v", err)
	}
	door, err := operation.New(t.Context(), operation.Config{DB: r.db, Owner: "door"})
	if err != nil {
		t.Fatal(err)
	}
	op, err := r.accept(door, operation.Spec{Kind: "other", Object: "s1", TaskState: "waiting"})
	if err != nil {
		t.Fatal(err)
	}
	if rec := r.wait(e, op); rec.State != operation.Undone || rec.TaskState != "" {
		t.Errorf("%+v", rec)
	}
	op, err = r.accept(e, operation.Spec{Kind: "make", Object: "s1"})
	if err != nil {
		t.Fatalf("the object is still held: %v", err)
	}
	if rec := r.wait(e, op); rec.State != operation.Done {
		t.Errorf("%+v", rec)
	}
}
