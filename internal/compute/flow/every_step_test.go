package flow

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"kilonova/internal/compute"
	"kilonova/internal/fault"
	"kilonova/internal/image"
	"kilonova/internal/operation"
)

// The exhaustive failure test (level L1): every step of every flow, read from the tables themselves, with every kind of failure. Each case demands
// that the failure happened at its step, that the operation ended, and that the world is whole.

// hurt is one kind of failure.
type hurt struct {
	name  string
	point operation.Point
	err   error
	crash bool
	// second is a further failure, at a point of the way back.
	second operation.Point
	undo   bool // only for steps that have an Undo
}

var hurts = []hurt{
	{name: "fails before its effect", point: operation.BeforeDo, err: fault.New(fault.Internal, "injected")},
	{name: "fails after its effect", point: operation.AfterDo, err: fault.New(fault.Internal, "injected")},
	{name: "killed before its effect", point: operation.BeforeDo, err: operation.ErrCrash, crash: true},
	{name: "killed after its effect, before the journal", point: operation.AfterDo, err: operation.ErrCrash, crash: true},
	{name: "killed after the journal", point: operation.AfterJournal, err: operation.ErrCrash, crash: true},
	{name: "repeated: the answer was lost", point: operation.AfterDo, err: fault.New(fault.Unavailable, "injected: no answer")},
	{name: "killed before its undo", point: operation.AfterDo, err: fault.New(fault.Internal, "injected"), second: operation.BeforeUndo, crash: true, undo: true},
	{name: "undo repeated", point: operation.AfterDo, err: fault.New(fault.Internal, "injected"), second: operation.AfterUndo, crash: true, undo: true},
	{name: "undone without its effect, twice", point: operation.BeforeDo, err: fault.New(fault.Internal, "injected"), second: operation.AfterUndo, crash: true, undo: true},
}

// scene brings a server into the state that a kind of operation starts from and gives the operation's input.
type scene struct {
	kind, variant string
	input         func(w *world) any
	before        func(w *world, e *operation.Engine) *compute.Server
	// skips are the steps that this variant leaves out.
	skips []string
}

func running(w *world, e *operation.Engine) *compute.Server { return w.active(e) }

// after runs operations on an active server first.
func after(kinds ...any) func(w *world, e *operation.Engine) *compute.Server {
	return func(w *world, e *operation.Engine) *compute.Server {
		s := w.active(e)
		for i := 0; i < len(kinds); i += 2 {
			w.ended(w.do(e, kinds[i].(string), s.ID, kinds[i+1]), operation.Done)
		}
		return s
	}
}

// stray resizes a server, which then goes into ERROR.
func stray(in compute.ResizeInput) func(w *world, e *operation.Engine) *compute.Server {
	return func(w *world, e *operation.Engine) *compute.Server {
		s := after(compute.OpResize, in)(w, e)
		w.change(s.ID, func(s *compute.Server) { s.VMState = compute.VMError })
		return s
	}
}

func plain(v any) func(*world) any { return func(*world) any { return v } }

func withImage(status string, v func(id string) any) func(w *world) any {
	return func(w *world) any { w.imgs.add("new-image", status, nil); return v("new-image") }
}

func scenes() []scene {
	big := compute.Flavor{ID: 2, FlavorID: "2", Name: "big", VCPUs: 4, RAMMB: 2048, RootGB: 2}
	here, there := compute.ResizeInput{Flavor: big, Host: "h1"}, compute.ResizeInput{Flavor: big, Host: "h2"}
	nics := compute.CreateInput{NICs: []compute.NICRequest{{NetworkID: "net"}, {PortID: "given"}}}
	shelf := func(offload bool) func(w *world, e *operation.Engine) *compute.Server {
		return func(w *world, e *operation.Engine) *compute.Server {
			w.imgs.add("shelf", image.Queued, nil)
			return after(compute.OpShelve, compute.ShelveInput{ImageID: "shelf", Offload: offload})(w, e)
		}
	}
	return []scene{
		{kind: compute.OpCreate, input: plain(nics), before: func(w *world, _ *operation.Engine) *compute.Server {
			w.nets.givePort("given")
			return w.server(nil)
		}},
		{kind: compute.OpDelete, input: plain(nil), before: running},
		{kind: compute.OpDelete, variant: "while resized to another host", input: plain(nil), before: after(compute.OpResize, there)},
		{kind: compute.OpSoftDelete, input: plain(nil), before: running},
		{kind: compute.OpSoftDelete, variant: "while resized on one host", input: plain(nil), before: after(compute.OpResize, here)},
		{kind: compute.OpSoftDelete, variant: "while resized to another host", input: plain(nil), before: after(compute.OpResize, there)},
		{kind: compute.OpStop, variant: "in error while resized", input: plain(nil), before: stray(there)},
		{kind: compute.OpRebuild, variant: "in error while resized", input: plain(compute.RebuildInput{ImageID: "img2", NewImage: true}), before: stray(here)},
		{kind: compute.OpConfirmResize, variant: "in error while resized", input: plain(nil), before: stray(there)},
		{kind: compute.OpRestore, input: plain(nil), before: after(compute.OpSoftDelete, nil)},
		{kind: compute.OpRestore, variant: "on no host", input: plain(nil), before: func(w *world, e *operation.Engine) *compute.Server {
			s := shelf(true)(w, e)
			w.ended(w.do(e, compute.OpSoftDelete, s.ID, nil), operation.Done)
			return s
		}},
		{kind: compute.OpStart, input: plain(nil), before: after(compute.OpStop, nil)},
		{kind: compute.OpStop, input: plain(nil), before: running},
		{kind: compute.OpReboot, input: plain(compute.RebootInput{}), before: running},
		{kind: compute.OpPause, input: plain(nil), before: running},
		{kind: compute.OpUnpause, input: plain(nil), before: after(compute.OpPause, nil)},
		{kind: compute.OpSuspend, input: plain(nil), before: running},
		{kind: compute.OpResume, input: plain(nil), before: after(compute.OpSuspend, nil)},
		{kind: compute.OpRescue, input: plain(compute.RescueInput{ImageID: "img"}), before: running},
		{kind: compute.OpUnrescue, input: plain(nil), before: after(compute.OpRescue, compute.RescueInput{ImageID: "img"})},
		{kind: compute.OpPassword, input: plain(compute.PasswordInput{Password: "x"}), before: running},
		{kind: compute.OpCrashDump, input: plain(nil), before: running},
		{kind: compute.OpRebuild, input: plain(compute.RebuildInput{ImageID: "img2", NewImage: true}), before: running},
		{kind: compute.OpResize, variant: "on one host", input: plain(here), before: running},
		{kind: compute.OpResize, variant: "to another host", input: plain(there), before: running},
		{kind: compute.OpConfirmResize, variant: "on one host", input: plain(nil), before: after(compute.OpResize, here)},
		{kind: compute.OpConfirmResize, variant: "from another host", input: plain(nil), before: after(compute.OpResize, there)},
		{kind: compute.OpRevertResize, variant: "on one host", input: plain(nil), before: after(compute.OpResize, here)},
		{kind: compute.OpRevertResize, variant: "to another host", input: plain(nil), before: after(compute.OpResize, there)},
		{kind: compute.OpLiveMigrate, input: plain(compute.LiveMigrateInput{}), before: running},
		{kind: compute.OpEvacuate, input: plain(compute.EvacuateInput{}), before: func(w *world, e *operation.Engine) *compute.Server {
			s := w.active(e)
			w.fall("h1")
			return s
		}},
		{kind: compute.OpShelve, variant: "staying", input: withImage(image.Queued, func(id string) any { return compute.ShelveInput{ImageID: id} }), before: running, skips: []string{"offload", "leave"}},
		{kind: compute.OpShelve, variant: "leaving", input: withImage(image.Queued, func(id string) any { return compute.ShelveInput{ImageID: id, Offload: true} }), before: running},
		{kind: compute.OpShelveOffload, input: plain(nil), before: shelf(false)},
		{kind: compute.OpUnshelve, variant: "on its host", input: plain(compute.UnshelveInput{}), before: shelf(false), skips: []string{"image", "schedule", "spawn"}},
		{kind: compute.OpUnshelve, variant: "elsewhere", input: plain(compute.UnshelveInput{}), before: shelf(true), skips: []string{"power-on"}},
		{kind: compute.OpSnapshot, input: withImage(image.Queued, func(id string) any { return compute.SnapshotInput{ImageID: id} }), before: running},
		{kind: compute.OpBackup, input: withImage(image.Queued, func(id string) any { return compute.SnapshotInput{ImageID: id, BackupType: "daily", Rotation: 1} }), before: running},
		{kind: compute.OpAttachNIC, variant: "a new port", input: plain(compute.NICInput{NICRequest: compute.NICRequest{NetworkID: "net2"}, NewPortID: "new-port"}), before: running},
		{kind: compute.OpAttachNIC, variant: "a given port", input: plain(compute.NICInput{NICRequest: compute.NICRequest{PortID: "given"}}), before: func(w *world, e *operation.Engine) *compute.Server {
			w.nets.givePort("given")
			return w.active(e)
		}},
		{kind: compute.OpDetachNIC, input: plain(compute.NICInput{NICRequest: compute.NICRequest{PortID: "new-port"}}),
			before: after(compute.OpAttachNIC, compute.NICInput{NICRequest: compute.NICRequest{NetworkID: "net2"}, NewPortID: "new-port"})},
	}
}

// beside are the kinds that hold nothing: they run beside the operation that they are about and are tested with it.
var beside = map[string]bool{OpAbortLive: true, OpForceLive: true}

func TestEveryStepWithEveryFailure(t *testing.T) { everyStep(t, false) }

// TestEveryStepOnRealAgents is the same with real agents and fake hypervisors on a real bus. A killed process is here the conductor and all agents at once.
func TestEveryStepOnRealAgents(t *testing.T) {
	if testing.Short() {
		t.Skip("several hundred cases with real agents take about a minute; run without -short")
	}
	everyStep(t, true)
}

func everyStep(t *testing.T, realAgents bool) {
	covered := everyScene(t, scenes(), realAgents)
	for _, f := range All(Config{}) {
		for _, s := range f.Steps {
			if !beside[f.Kind] && !covered[f.Kind][s.Name] {
				t.Errorf("no scene reaches step %s of %s", s.Name, f.Kind)
			}
		}
	}
}

// everyScene runs scenes and gives the steps that they reach, by kind.
func everyScene(t *testing.T, all []scene, realAgents bool) (covered map[string]map[string]bool) {
	tables := map[string]operation.Flow{}
	for _, f := range All(Config{}) {
		tables[f.Kind] = f
	}
	covered = map[string]map[string]bool{}
	for _, sc := range all {
		flow, ok := tables[sc.kind]
		if !ok {
			t.Fatalf("no flow of kind %s", sc.kind)
		}
		if covered[sc.kind] == nil {
			covered[sc.kind] = map[string]bool{}
		}
		for _, step := range flow.Steps {
			if contains(sc.skips, step.Name) {
				continue
			}
			covered[sc.kind][step.Name] = true
			for _, h := range hurts {
				if h.undo && step.Undo == nil {
					continue
				}
				t.Run(fmt.Sprintf("%s %s/%s %s", sc.kind, sc.variant, step.Name, h.name), func(t *testing.T) {
					t.Parallel()
					oneHurt(t, sc, step, h, realAgents)
				})
			}
		}
	}
	return covered
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

func oneHurt(t *testing.T, sc scene, step operation.Step, h hurt, realAgents bool) {
	w := newWorld(t)
	if realAgents {
		w.makeReal()
	}
	calm, stop := w.engine(nil)
	s := sc.before(w, calm)
	in := sc.input(w)
	was := w.get(s.ID)
	stop()

	var mu sync.Mutex
	var first, second bool
	crashed := make(chan struct{})
	e, stopHurt := w.engine(func(_ context.Context, p operation.Point, name string, r *operation.Run) error {
		mu.Lock()
		defer mu.Unlock()
		if r.Kind != sc.kind || name != step.Name {
			return nil
		}
		if !first && p == h.point {
			first = true
			if h.crash && h.second == "" {
				close(crashed)
			}
			return h.err
		}
		if first && !second && h.second != "" && p == h.second {
			second = true
			close(crashed)
			return operation.ErrCrash
		}
		return nil
	})
	op, err := w.accept(e, sc.kind, s.ID, sc.kind == compute.OpDelete, in)
	if err != nil {
		t.Fatal(err)
	}
	if h.crash {
		ended := make(chan struct{})
		go func() { // nothing to crash in: said below
			defer close(ended)
			_, _ = e.Wait(t.Context(), op)
		}()
		select {
		case <-crashed:
		case <-ended:
		}
		stopHurt()
		w.restartAgents()
		e, _ = w.engine(nil) // another process takes the expired lease
	}
	r := w.wait(e, op)

	mu.Lock()
	if !first || (h.second != "" && !second) {
		t.Fatalf("the failure did not happen at step %s (first %v, second %v); the operation is %s: %s", step.Name, first, second, r.State, r.Cause)
	}
	mu.Unlock()
	if r.State == operation.Attention && !past(sc.kind, step.Name) {
		t.Fatalf("needs attention: %s", r.Cause)
	}
	if r.State == operation.Attention {
		if err := e.Retry(t.Context(), op); err != nil {
			t.Fatal(err)
		}
		r = w.waitEnd(e, op)
	}
	if (h.crash && h.second == "" || h.err == hurts[5].err) && r.State != operation.Done {
		t.Errorf("a %s step ended the operation as %s: %s", h.name, r.State, r.Cause)
	}
	w.rise(e)
	for _, b := range w.whole() {
		t.Errorf("%s (operation %s: %s)", b, r.State, r.Cause)
	}
	if r.State == operation.Undone && sc.kind != compute.OpCreate && sc.kind != compute.OpDelete && string(r.Vars[varPassed]) != "true" {
		got := w.get(s.ID)
		if got.Host != was.Host || got.Flavor.Name != was.Flavor.Name {
			t.Errorf("undone, but the server is on %s with %s; it was on %s with %s", got.Host, got.Flavor.Name, was.Host, was.Flavor.Name)
		}
	}
	for id, img := range w.imgs.m {
		if img.Status == image.Queued {
			t.Errorf("image %s is left queued after the operation ended as %s", id, r.State)
		}
	}
}

// past tells whether a step comes after its flow's point of no return: failing there may leave the operation waiting for a person.
func past(kind, step string) bool {
	forward := false
	for _, f := range All(Config{}) {
		if f.Kind != kind {
			continue
		}
		for _, s := range f.Steps {
			if s.Name == step {
				return forward
			}
			forward = forward || s.NoReturn
		}
	}
	return false
}
