package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"kilonova/internal/bus"
	"kilonova/internal/bus/nats"
	"kilonova/internal/compute/agent"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
)

// patience is how long tests wait for what must come: no test is about how soon.
const patience = 5 * time.Minute

// rig is a bus with a conductor's answers, a journal and a fake hypervisor; agents come and go on it.
type rig struct {
	reached chan struct{}
	dir     string
	resume  bool // agents start guests again
	plane   agent.Plane
	t       *testing.T
	bus     bus.Bus
	journal *db.DB
	hyper   *db.DB
	client  *command.Client

	mu       sync.Mutex
	verdicts []command.MineServer
	spawns   map[string]int
	hold     map[string]chan struct{} // verb -> holds until closed
	delay    func(verb, server string) time.Duration
	finished []command.Finished
	asked    []command.MineRequest
	reports  []command.HostReport
}

func newRig(t *testing.T) *rig {
	b, err := nats.Open(nats.Config{Name: "t"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, bus: b, client: &command.Client{Bus: b}, spawns: map[string]int{}, hold: map[string]chan struct{}{}}
	for _, d := range []**db.DB{&r.journal, &r.hyper} {
		if *d, err = db.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "x.db")); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(agent.Prepare(t.Context(), r.journal), fake.Prepare(t.Context(), r.hyper)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(b.Close(), r.journal.Close(), r.hyper.Close()); err != nil {
			t.Error(err)
		}
	})
	answer := func(subject string, f func(msg []byte) any) {
		if _, err := b.Serve(subject, "conductor", func(_ context.Context, _ string, m []byte) ([]byte, error) { return json.Marshal(f(m)) }); err != nil {
			t.Fatal(err)
		}
	}
	answer(command.RegisterSubject, func(m []byte) any {
		var rep command.HostReport
		_ = json.Unmarshal(m, &rep)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.reports = append(r.reports, rep)
		return command.RegisterReply{}
	})
	answer(command.MineSubject, func(m []byte) any {
		var req command.MineRequest
		_ = json.Unmarshal(m, &req)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.asked = append(r.asked, req)
		return command.MineReply{Servers: r.verdicts}
	})
	answer(command.FinishedSubject, func(m []byte) any {
		var f command.Finished
		_ = json.Unmarshal(m, &f)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.finished = append(r.finished, f)
		return nil
	})
	return r
}

// agent starts an agent for host and gives the function that kills it: its commands are cut off and nothing is tidied up.
func (r *rig) agent(host string) (stop func()) {
	a, err := agent.New(agent.Config{Host: host, NodeID: id.UUID(), Bus: r.bus, DB: r.journal, Dir: r.dir, Look: time.Hour, ResumeGuests: r.resume, Plane: r.plane,
		Driver: fake.New(fake.Config{DB: r.hyper, Host: host, Delay: r.delay, Fault: func(verb, server string) error {
			r.mu.Lock()
			if verb == "spawn" {
				r.spawns[server]++
			}
			hold := r.hold[verb]
			r.mu.Unlock()
			if hold != nil && r.reached != nil {
				r.reached <- struct{}{}
			}
			if hold != nil {
				<-hold
			}
			return nil
		}})})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- a.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		r.t.Fatalf("agent: %v", err)
	}
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				r.t.Error(err)
			}
		})
	}
	r.t.Cleanup(stop)
	return stop
}

func (r *rig) do(host string, c command.Command, args any) error {
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	return r.client.Do(ctx, host, c, args, nil)
}

func spawnOf(server string) command.SpawnArgs {
	return command.SpawnArgs{Spec: virt.Spec{ID: server, Name: "instance-" + server[:8], VCPUs: 1, MemoryMB: 64}}
}

func (r *rig) power(host, server string) virt.PowerState {
	r.t.Helper()
	var g virt.GuestState
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	if err := r.client.Do(ctx, host, command.Command{Verb: command.QueryGuest, Server: server}, nil, &g); err != nil {
		r.t.Fatal(err)
	}
	return g.Power
}

func TestRepeatsAreDroppedAlsoAfterARestart(t *testing.T) {
	r := newRig(t)
	stop := r.agent("h1")
	s := id.UUID()
	c := command.Command{Operation: "op1", Step: "build", Attempt: 1, Epoch: 3, Server: s, Verb: command.Spawn}
	for range 3 {
		if err := r.do("h1", c, spawnOf(s)); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	r.agent("h1")
	c.Epoch = 4 // another conductor took the operation over
	if err := r.do("h1", c, spawnOf(s)); err != nil {
		t.Fatal(err)
	}
	if r.spawns[s] != 1 || r.power("h1", s) != virt.Running {
		t.Fatalf("spawned %d times", r.spawns[s])
	}
	c.Attempt = 2 // the operation was sent back and comes again
	if err := r.do("h1", c, spawnOf(s)); err != nil {
		t.Fatal(err)
	}
	if r.spawns[s] != 2 {
		t.Fatalf("a new attempt was not carried out: %d", r.spawns[s])
	}
}

func TestStaleEpochIsRefusedAlsoAfterARestart(t *testing.T) {
	r := newRig(t)
	stop := r.agent("h1")
	s := id.UUID()
	if err := r.do("h1", command.Command{Operation: "op2", Step: "gone", Attempt: 1, Epoch: 9, Server: s, Verb: command.Destroy}, command.DestroyArgs{}); err != nil {
		t.Fatal(err)
	}
	late := command.Command{Operation: "op1", Step: "build", Attempt: 1, Epoch: 8, Server: s, Verb: command.Spawn}
	for range 2 {
		err := r.do("h1", late, spawnOf(s))
		var f *fault.Error
		if !errors.As(err, &f) || f.Code != "stale-epoch" {
			t.Fatalf("late spawn: %v", err)
		}
		stop()
		r.agent("h1")
	}
	if r.spawns[s] != 0 {
		t.Fatal("a fenced command had an effect")
	}
}

func TestHigherEpochCutsTheRunningCommandOff(t *testing.T) {
	r := newRig(t)
	begun := make(chan struct{}, 1)
	r.delay = func(verb, _ string) time.Duration {
		if verb != "spawn" {
			return 0
		}
		begun <- struct{}{}
		return 24 * time.Hour // far longer than anybody waits
	}
	r.agent("h1")
	s := id.UUID()
	first := make(chan error, 1)
	go func() {
		first <- r.do("h1", command.Command{Operation: "op1", Step: "build", Attempt: 1, Epoch: 1, Server: s, Verb: command.Spawn}, spawnOf(s))
	}()
	<-begun
	if err := r.do("h1", command.Command{Operation: "op2", Step: "gone", Attempt: 1, Epoch: 2, Server: s, Verb: command.Destroy}, command.DestroyArgs{}); err != nil {
		t.Fatalf("destroy: %v", err)
	}
	if err := <-first; !errors.Is(err, fault.Unavailable) && !errors.Is(err, fault.Conflict) {
		t.Fatalf("the command that was cut off: %v", err)
	}
	if r.spawns[s] != 0 {
		t.Fatal("the command that was cut off had an effect")
	}
	if err := r.do("h1", command.Command{Verb: command.QueryGuest, Server: s}, nil); !errors.Is(err, fault.NotFound) {
		t.Fatalf("the guest is there: %v", err)
	}
}

// A look with an epoch waits for what a command with a lower one may still do, so that what it finds stays so; the command itself has no further effect.
func TestALookWithAHigherEpochIsAFence(t *testing.T) {
	r := newRig(t)
	stop := r.agent("h1")
	s := id.UUID()
	if err := r.do("h1", command.Command{Operation: "op1", Step: "build", Attempt: 1, Epoch: 1, Server: s, Verb: command.Spawn}, spawnOf(s)); err != nil {
		t.Fatal(err)
	}
	hold, reached := make(chan struct{}), make(chan struct{}, 1)
	r.mu.Lock()
	r.hold["destroy"], r.reached = hold, reached
	r.mu.Unlock()
	destroyed := make(chan error, 1)
	destroy := command.Command{Operation: "op2", Step: "offload", Attempt: 1, Epoch: 2, Server: s, Verb: command.Destroy}
	go func() { destroyed <- r.do("h1", destroy, command.DestroyArgs{}) }()
	<-reached
	looked := make(chan error, 1)
	go func() {
		looked <- r.do("h1", command.Command{Operation: "op2", Step: "look", Attempt: 1, Epoch: 3, Server: s, Verb: command.QueryGuest}, nil)
	}()
	select {
	case err := <-looked:
		t.Errorf("the look did not wait for the command: %v", err)
		looked <- err
	case <-time.After(100 * time.Millisecond):
	}
	close(hold)
	<-destroyed
	err := <-looked
	hyper := fake.New(fake.Config{DB: r.hyper, Host: "h1"})
	if _, now := hyper.Guest(t.Context(), s); errors.Is(err, fault.NotFound) != errors.Is(now, fault.NotFound) {
		t.Errorf("the look found %v, and then it was %v", err, now)
	}
	stop()
	r.agent("h1") // the fence outlives the agent
	for _, c := range []command.Command{destroy, {Operation: "op2", Step: "look", Attempt: 1, Epoch: 2, Server: s, Verb: command.QueryGuest}} {
		if err := r.do("h1", c, nil); !errors.Is(err, fault.Conflict) {
			t.Errorf("%s with a stale epoch: %v", c.Verb, err)
		}
	}
}

func TestUnheardResultIsReportedAndRepeated(t *testing.T) {
	r := newRig(t)
	r.agent("h1")
	s := id.UUID()
	hold := make(chan struct{})
	r.hold["spawn"] = hold
	c := command.Command{Operation: "op1", Step: "build", Attempt: 1, Epoch: 1, Server: s, Verb: command.Spawn}
	ctx, cancel := context.WithCancel(t.Context())
	lost := make(chan error, 1)
	go func() { lost <- r.client.Do(ctx, "h1", c, spawnOf(s), nil) }()
	waitFor(t, func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.spawns[s] == 1 })
	cancel() // the conductor dies
	if err := <-lost; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	close(hold)
	c.Epoch = 2
	if err := r.do("h1", c, spawnOf(s)); err != nil {
		t.Fatal(err)
	}
	if r.spawns[s] != 1 {
		t.Fatalf("spawned %d times", r.spawns[s])
	}
}

func TestVerdictsAtStart(t *testing.T) {
	r := newRig(t)
	stop := r.agent("h1")
	owed, kept, unknown := id.UUID(), id.UUID(), id.UUID()
	for _, s := range []string{owed, kept, unknown} {
		if err := r.do("h1", command.Command{Operation: "op-" + s, Step: "build", Attempt: 1, Epoch: 1, Server: s, Verb: command.Spawn}, spawnOf(s)); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	r.mu.Lock()
	r.verdicts = []command.MineServer{{ID: owed, Epoch: 5, Verdict: "destroy"}, {ID: kept, Epoch: 1, Verdict: "keep", Want: virt.Running}}
	r.mu.Unlock()
	r.agent("h1")
	var all []virt.GuestState
	if err := r.client.Do(t.Context(), "h1", command.Command{Verb: command.QueryGuests}, nil, &all); err != nil || len(all) < 2 {
		t.Errorf("guests %v: %v", all, err)
	}
	hyper := fake.New(fake.Config{DB: r.hyper, Host: "h1"})
	waitFor(t, func() bool { _, err := hyper.Guest(t.Context(), owed); return errors.Is(err, fault.NotFound) })
	for _, s := range []string{kept, unknown} {
		if g, err := hyper.Guest(t.Context(), s); err != nil || g.Power != virt.Running {
			t.Fatalf("%s: %+v %v", s, g, err)
		}
	}
}

// A host that went down and came up again, twice: each time the guests that ran are started, and no others.
func TestGuestsThatRanAreStartedWhenTheHostComesUp(t *testing.T) {
	r := newRig(t)
	r.resume = true
	stop := r.agent("h1")
	ran, stopped, unwanted := id.UUID(), id.UUID(), id.UUID()
	guests := []string{ran, stopped, unwanted}
	for _, s := range guests {
		if err := r.do("h1", command.Command{Operation: "op-" + s, Step: "build", Attempt: 1, Epoch: 1, Server: s, Verb: command.Spawn}, spawnOf(s)); err != nil {
			t.Fatal(err)
		}
	}
	r.mu.Lock()
	r.verdicts = []command.MineServer{{ID: ran, Epoch: 1, Verdict: "keep", Want: virt.Running}, {ID: stopped, Epoch: 1, Verdict: "keep", Want: virt.Shutdown},
		{ID: unwanted, Epoch: 1, Verdict: "busy", Want: virt.Running}}
	r.mu.Unlock()
	hyper := fake.New(fake.Config{DB: r.hyper, Host: "h1"})
	for range 2 {
		stop()
		for _, s := range guests {
			if err := hyper.PowerOff(t.Context(), s, 0); err != nil {
				t.Fatal(err)
			}
		}
		r.mu.Lock()
		r.asked = nil
		r.mu.Unlock()
		stop = r.agent("h1")
		waitFor(t, func() bool { return r.power("h1", ran) == virt.Running })
		for _, s := range []string{stopped, unwanted} {
			if p := r.power("h1", s); p != virt.Shutdown {
				t.Errorf("a guest that should stay as it is has power state %v", p)
			}
		}
		r.mu.Lock()
		if len(r.asked) == 0 || !r.asked[0].Resume {
			t.Errorf("the agent does not say that it starts guests: %+v", r.asked)
		}
		r.mu.Unlock()
	}
}

// What a killed agent left of its snapshots goes when the next one starts; those of another host in the same directory stay.
func TestHalfMadeSnapshotsAreRemovedAtStart(t *testing.T) {
	r := newRig(t)
	r.dir = t.TempDir()
	file := func(host string) string { return filepath.Join(r.dir, "snapshots", host, "snapshot-1", "disk") }
	for _, host := range []string{"alpha", "beta"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(file(host)), 0o700), os.WriteFile(file(host), []byte("half"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	r.agent("alpha")
	if _, err := os.Stat(file("alpha")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the half-made snapshot is still there: %v", err)
	}
	if _, err := os.Stat(file("beta")); err != nil {
		t.Errorf("the snapshot of another host: %v", err)
	}
}

func TestDisksTravelBetweenHosts(t *testing.T) {
	r := newRig(t)
	r.agent("h1")
	r.agent("h2")
	s := id.UUID()
	steps := []struct {
		host string
		verb command.Verb
		args any
	}{
		{"h1", command.Spawn, spawnOf(s)},
		{"h1", command.PrepareResize, command.PowerOffArgs{}},
		{"h1", command.SendDisks, command.SendDisksArgs{Host: "h2"}},
		{"h2", command.FinishResize, command.SpecArgs{Spec: spawnOf(s).Spec}},
		{"h1", command.ConfirmResize, nil},
	}
	for i, st := range steps {
		if err := r.do(st.host, command.Command{Operation: "op", Step: string(st.verb), Attempt: 1, Epoch: int64(i + 1), Server: s, Verb: st.verb}, st.args); err != nil {
			t.Fatalf("%s: %v", st.verb, err)
		}
	}
	if r.power("h2", s) != virt.Running {
		t.Fatal("not running at the destination")
	}
	if err := r.do("h1", command.Command{Verb: command.QueryGuest, Server: s}, nil); !errors.Is(err, fault.NotFound) {
		t.Fatalf("still at the source: %v", err)
	}
	err := r.do("h1", command.Command{Operation: "op", Step: "x", Attempt: 1, Epoch: 9, Server: s, Verb: command.SendDisks}, command.SendDisksArgs{Host: "nowhere"})
	if err == nil {
		t.Fatal("disks of a guest that is not there were sent to a host that is not there")
	}
}

func TestMalformedAndUnknownCommands(t *testing.T) {
	r := newRig(t)
	r.agent("h1")
	if _, err := r.bus.Call(t.Context(), command.Subject("h1"), []byte("{")); !errors.Is(err, fault.Invalid) {
		t.Fatalf("%v", err)
	}
	if err := r.do("h1", command.Command{Operation: "o", Step: "s", Epoch: 1, Server: id.UUID(), Verb: "dance"}, nil); !errors.Is(err, fault.NotImplemented) {
		t.Fatalf("%v", err)
	}
	if err := r.do("h1", command.Command{Epoch: 1, Server: id.UUID(), Verb: command.Pause}, nil); !errors.Is(err, fault.Invalid) {
		t.Fatalf("%v", err)
	}
	if err := r.do("h9", command.Command{Verb: command.QueryUptime}, nil); !errors.Is(err, fault.Unavailable) {
		t.Fatalf("%v", err)
	}
}

func waitFor(t *testing.T, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatal("it did not happen")
}
