package notify_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute"
	"kilonova/internal/compute/notify"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/db/dbtest"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/operation"
)

// world is a database with servers and operations but no cloud around, and a sink that the test looks into.
type world struct {
	t     *testing.T
	db    *db.DB
	store *store.Store
	cfg   notify.Config // of the notifiers of engines
	n     *notify.Notifier
	sink  *sink
}

// sink takes messages as told.
type sink struct {
	mu     sync.Mutex
	notes  []note
	topics []string
	take   func(m notify.Message) error // nil: takes all
}

func (s *sink) Name() string { return "test" }

func (s *sink) Send(_ context.Context, messages []notify.Message) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, m := range messages {
		if s.take != nil {
			if err := s.take(m); err != nil {
				return i, err
			}
		}
		n, err := decode(m.Body)
		if err != nil {
			return i, err
		}
		n.subject = notify.Subject(m.Routing)
		s.notes, s.topics = append(s.notes, n), append(s.topics, m.Routing)
	}
	return len(messages), nil
}

func (s *sink) short() string { return strings.Join(short(s.notes), "; ") }

func newWorld(t *testing.T) *world {
	t.Helper()
	return worldOn(t, dbtest.Open(t))
}

func worldOn(t *testing.T, d *db.DB) *world {
	t.Helper()
	w := &world{t: t, db: d, sink: &sink{}}
	if _, err := operation.New(t.Context(), operation.Config{DB: w.db}); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.store, err = store.New(t.Context(), w.db); err != nil {
		t.Fatal(err)
	}
	return w
}

// notifier makes a notifier of the world and has the store tell it.
func (w *world) notifier(cfg notify.Config) *notify.Notifier {
	w.t.Helper()
	cfg.DB, cfg.Store, cfg.Host = w.db, w.store, "h"
	n, err := notify.New(w.t.Context(), cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.store.Watch(n)
	return n
}

func (w *world) write(f func(tx *db.Tx) error) {
	w.t.Helper()
	if err := w.db.Write(w.t.Context(), f); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) publish(n *notify.Notifier) {
	w.t.Helper()
	for more := true; more; {
		var err error
		if more, err = n.Publish(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) waiting() (n int) {
	w.t.Helper()
	if err := w.db.QueryRow(w.t.Context(), "SELECT COUNT(*) FROM compute_notifications").Scan(&n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

func (w *world) server(change func(*compute.Server)) *compute.Server {
	w.t.Helper()
	s := &compute.Server{ID: id.UUID(), Name: "s", Hostname: "s", ProjectID: "p", UserID: "u", VMState: compute.VMActive, PowerState: compute.PowerRunning, Host: "c1", Node: "c1",
		ImageID: "img", DiskConfig: "AUTO", Flavor: compute.Flavor{ID: 1, FlavorID: "1", Name: "tiny", VCPUs: 1, RAMMB: 512}}
	if change != nil {
		change(s)
	}
	w.write(func(tx *db.Tx) error { return w.store.InsertServer(w.t.Context(), tx, s) })
	return s
}

// key makes a key pair: two notifications.
func (w *world) key(name string) {
	w.t.Helper()
	w.write(func(tx *db.Tx) error {
		return w.store.InsertKeyPair(w.t.Context(), tx, &compute.KeyPair{Name: name, UserID: "u", Type: "ssh", PublicKey: publicKey, Fingerprint: "aa"}, -1)
	})
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// TestCrashesLoseNothing kills the engine at each point of a step. Whoever carries the operation on, its start and its end are told once each.
func TestCrashesLoseNothing(t *testing.T) {
	for _, at := range []operation.Point{operation.BeforeDo, operation.AfterDo, operation.AfterJournal} {
		t.Run(string(at), func(t *testing.T) {
			w := newWorld(t)
			s := w.server(nil)
			crashed := make(chan struct{})
			once := sync.OnceFunc(func() { close(crashed) })
			first := w.engine(func(_ context.Context, p operation.Point, _ string, _ *operation.Run) error {
				if p == at {
					once()
					return operation.ErrCrash
				}
				return nil
			})
			op := w.accept(first.e, s.ID)
			<-crashed
			first.stop()
			w.publish(w.n)
			second := w.engine(nil)
			if r, err := second.e.Wait(t.Context(), op); err != nil || r.State != operation.Done {
				t.Fatal(r, err)
			}
			w.publish(w.n)
			if got := w.sink.short(); got != "instance.pause.start nova-compute:c1; instance.pause.end nova-compute:c1" {
				t.Error(got)
			}
			if w.sink.notes[0].Payload.Data["task_state"] != "pausing" || w.sink.notes[1].Payload.Data["task_state"] != nil || w.sink.notes[1].Payload.Data["state"] != "paused" {
				t.Error("the payloads show other states than those that the transactions left")
			}
		})
	}
}

type engine struct {
	e    *operation.Engine
	stop func()
}

// engine runs operations with a flow of one step, as a process of its own would.
func (w *world) engine(inject func(context.Context, operation.Point, string, *operation.Run) error) engine {
	w.t.Helper()
	e, err := operation.New(w.t.Context(), operation.Config{DB: w.db, Owner: "test", Sole: true, Private: true, Sweep: 5 * time.Millisecond, Inject: inject, Log: quiet()})
	if err != nil {
		w.t.Fatal(err)
	}
	e.Register(operation.Flow{Kind: compute.OpPause, Steps: []operation.Step{{Name: "pause", TaskState: compute.TaskPausing, Do: func(context.Context, *operation.Run) error { return nil }}},
		Done: func(ctx context.Context, tx *db.Tx, r *operation.Run) error {
			return w.store.UpdateServer(ctx, tx, r.Object, func(s *compute.Server) error { s.VMState = compute.VMPaused; return nil })
		}})
	cfg := w.cfg
	cfg.Sinks = []notify.Sink{w.sink}
	w.n = w.notifier(cfg)
	e.Watch(w.n)
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			w.t.Errorf("engine: %v", err)
		}
	})
	w.t.Cleanup(stop)
	return engine{e, stop}
}

func (w *world) accept(e *operation.Engine, server string) (op string) {
	w.t.Helper()
	w.write(func(tx *db.Tx) error {
		var err error
		op, err = e.Accept(w.t.Context(), tx, operation.Spec{Kind: compute.OpPause, ObjectType: "server", Object: server, Action: "pause", Project: "p", User: "u", RequestID: id.Request()})
		return err
	})
	return op
}

// TestPublisherDiesBeforeItRemoves: what was sent and not removed is sent again by the next publisher, with the same id.
func TestPublisherDiesBeforeItRemoves(t *testing.T) {
	w := newWorld(t)
	n := w.notifier(notify.Config{Sinks: []notify.Sink{w.sink}})
	w.key("k")
	ctx, kill := context.WithCancel(t.Context())
	w.sink.take = func(notify.Message) error { kill(); return nil }
	if _, err := n.Publish(ctx); err == nil {
		t.Fatal("the publisher lived on")
	}
	w.sink.take = nil
	w.publish(w.notifier(notify.Config{Sinks: []notify.Sink{w.sink}}))
	if len(w.sink.notes) != 4 || w.sink.notes[0].ID != w.sink.notes[2].ID || w.sink.notes[1].ID != w.sink.notes[3].ID || w.sink.notes[0].ID == w.sink.notes[1].ID {
		t.Error(w.sink.short())
	}
	if w.waiting() != 0 {
		t.Error("published messages stay")
	}
}

// TestOneSinkFails: the others get everything once, the failing one when it works again; in order, under each topic.
func TestOneSinkFails(t *testing.T) {
	w := newWorld(t)
	other := &sink{}
	left := 3
	w.sink.take = func(notify.Message) error {
		if left--; left < 0 {
			return fault.New(fault.Unavailable, "full")
		}
		return nil
	}
	n := w.notifier(notify.Config{Sinks: []notify.Sink{w.sink, other}, Topics: []string{"a", "b.c"}})
	w.key("k1")
	if _, err := n.Publish(t.Context()); err == nil || !strings.Contains(err.Error(), "full") {
		t.Fatal(err)
	}
	w.key("k2")
	if w.waiting() != 3 {
		t.Errorf("%d messages wait, want the three that not all sinks have", w.waiting())
	}
	w.sink.take = nil
	w.publish(n)
	want := "keypair.import.start; keypair.import.start; keypair.import.end; keypair.import.end; keypair.import.start; keypair.import.start; keypair.import.end; keypair.import.end"
	if got := strings.ReplaceAll(other.short(), " nova-api:h", ""); got != want {
		t.Error(got)
	}
	// The third message went under one of its topics before the sink failed: it goes under both again.
	if got := strings.ReplaceAll(w.sink.short(), " nova-api:h", ""); got != strings.Replace(want, "keypair.import.end; ", "keypair.import.end; keypair.import.end; ", 1) {
		t.Error(got)
	}
	if !slices.Equal(other.topics[:4], []string{"a.info", "b%2ec.info", "a.info", "b%2ec.info"}) {
		t.Error(other.topics)
	}
}

// TestRetention: what nobody takes does not stay for ever.
func TestRetention(t *testing.T) {
	w := newWorld(t)
	w.sink.take = func(notify.Message) error { return fault.New(fault.Unavailable, "gone") }
	n := w.notifier(notify.Config{Sinks: []notify.Sink{w.sink}, Retention: time.Nanosecond, Log: quiet()})
	w.key("k")
	if _, err := n.Publish(t.Context()); err == nil {
		t.Fatal("no error")
	}
	if w.waiting() != 0 {
		t.Errorf("%d messages wait", w.waiting())
	}
}

// TestOnePublishes: of two publishers one has the lease; the other takes over when it ends.
func TestOnePublishes(t *testing.T) {
	w := newWorld(t)
	other := &sink{}
	run := func(s *sink) (stop func()) {
		n := w.notifier(notify.Config{Sinks: []notify.Sink{s}, Poll: 2 * time.Millisecond, Lease: time.Hour})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = n.Run(ctx) }()
		return sync.OnceFunc(func() { cancel(); <-done })
	}
	count := func(s *sink) int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.notes)
	}
	until := func(s *sink, want int) {
		t.Helper()
		for end := time.Now().Add(patience); count(s) < want; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d of %d messages came", count(s), want)
			}
		}
	}
	w.key("k0") // made before there is anybody: nobody tells of it
	stop := run(w.sink)
	w.key("k1")
	until(w.sink, 2)
	stop2 := run(other)
	defer stop2()
	w.key("k2")
	until(w.sink, 4)
	stop()
	w.key("k3")
	until(other, 2)
	if count(w.sink) != 4 {
		t.Errorf("the first got %d", count(w.sink))
	}
}

// TestStateChanges: instance.update tells of states when asked to, and of tags always.
func TestStateChanges(t *testing.T) {
	const start, end = "instance.pause.start nova-compute:c1", "instance.pause.end nova-compute:c1"
	for _, c := range []struct {
		mode string
		want []string
	}{
		{"", []string{start, end, "paused-paused -"}},
		{notify.OnVMState, []string{start, "active-paused pausing-pausing", end, "paused-paused -"}},
		{notify.OnTaskState, []string{start, "active-active -pausing", "active-paused pausing-pausing", end, "paused-paused pausing-", "paused-paused -"}},
	} {
		w := newWorld(t)
		w.cfg.StateChange = c.mode
		e := w.engine(nil)
		s := w.server(nil)
		if r, err := e.e.Wait(t.Context(), w.accept(e.e, s.ID)); err != nil || r.State != operation.Done {
			t.Fatal(r, err)
		}
		w.write(func(tx *db.Tx) error {
			return w.store.UpdateServer(t.Context(), tx, s.ID, func(s *compute.Server) error { s.Tags = []string{"a"}; return nil })
		})
		w.publish(w.n)
		var got []string
		for _, n := range w.sink.notes {
			n.check(t, known(t))
			line := n.Event + " " + n.Publisher
			if n.Event == "instance.update" {
				d := n.Payload.Data["state_update"].(map[string]any)["nova_object.data"].(map[string]any)
				text := func(k string) string { v, _ := d[k].(string); return v }
				line = text("old_state") + "-" + text("state") + " " + text("old_task_state") + "-" + text("new_task_state")
			}
			got = append(got, line)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", c.mode, diff)
		}
	}
}

// TestAudit: each server of a period is told of once, whenever the audit is interrupted.
func TestAudit(t *testing.T) {
	w := newWorld(t)
	period, err := compute.ParseAuditPeriod("hour")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now() // one for all: an hour may end meanwhile
	_, end := period.Last(now)
	before := end.Add(-10 * time.Minute)
	var want []string
	for range 130 {
		want = append(want, w.server(func(s *compute.Server) { s.Created = before }).ID)
	}
	gone := w.server(func(s *compute.Server) { s.Created, s.Deleted, s.Terminated = before.Add(-3*time.Hour), before, before })
	want = append(want, gone.ID)
	w.server(func(s *compute.Server) {
		s.Created, s.Deleted, s.Terminated = before.Add(-4*time.Hour), before.Add(-3*time.Hour), before.Add(-3*time.Hour)
	})
	w.server(nil) // made after the period
	for _, h := range []string{"c1", "empty"} {
		w.write(func(tx *db.Tx) error { return w.store.SaveHost(t.Context(), tx, &compute.Host{Name: h}, h) })
	}
	for range 3 {
		n := w.notifier(notify.Config{Sinks: []notify.Sink{w.sink}, Audit: "hour"})
		if err := n.Audit(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		w.publish(n)
	}
	var got []string
	for _, n := range w.sink.notes {
		n.check(t, known(t))
		got = append(got, n.Payload.Data["uuid"].(string))
		p := n.Payload.Data["audit_period"].(map[string]any)["nova_object.data"].(map[string]any)
		if p["audit_period_ending"] != end.Format(time.RFC3339) || p["audit_period_beginning"] != end.Add(-time.Hour).Format(time.RFC3339) {
			t.Fatal(p)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	audits, err := w.store.Audits(t.Context(), w.db, end)
	if err != nil {
		t.Fatal(err)
	}
	for i := range audits {
		audits[i].Took = 0
	}
	if diff := cmp.Diff([]store.Audit{{Host: "c1", Servers: 131, Done: true}, {Host: "empty", Done: true}}, audits); diff != "" {
		t.Error(diff)
	}
}
