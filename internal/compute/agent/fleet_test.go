package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"kilonova/internal/compute/agent"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/fault"
	"kilonova/internal/id"
)

// desk plays the conductor of a fleet.
type desk struct {
	mu      sync.Mutex
	known   map[string]bool             // hosts that have registered
	beats   map[string]int              // reports of each, whole ones and bare ones
	trouble map[string]string           // what hosts last said
	refuse  map[string]string           // answers to come
	fail    map[string]*command.Failure // answers to come
	destroy map[string]string           // by host: the guest that is to go
	asked   map[string]command.MineRequest
	kinds   []int // of each whole message
	sizes   []int
}

func (d *desk) serve(t *testing.T, r *rig) {
	d.known, d.beats, d.trouble, d.asked = map[string]bool{}, map[string]int{}, map[string]string{}, map[string]command.MineRequest{}
	_, e1 := r.bus.Serve(command.ReportsSubject, "conductor", func(_ context.Context, _ string, m []byte) ([]byte, error) { return d.reports(m) })
	_, e2 := r.bus.Serve(command.MineManySubject, "conductor", func(_ context.Context, _ string, m []byte) ([]byte, error) { return d.mine(m) })
	if err := errors.Join(e1, e2); err != nil {
		t.Fatal(err)
	}
}

func (d *desk) reports(m []byte) ([]byte, error) {
	var in command.HostReports
	if err := json.Unmarshal(m, &in); err != nil {
		return nil, err
	}
	all, err := in.Each()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(in.Kinds) > 0 {
		d.kinds, d.sizes = append(d.kinds, len(in.Kinds)), append(d.sizes, len(all))
	}
	out := command.ReportsReply{Failed: map[string]*command.Failure{}, Refused: map[string]string{}}
	for _, h := range all {
		d.trouble[h.Host] = h.Trouble
		if why := d.refuse[h.Host]; why != "" {
			out.Refused[h.Host] = why
			continue
		}
		if why := d.fail[h.Host]; why != nil {
			delete(d.fail, h.Host)
			out.Failed[h.Host] = why
			continue
		}
		if h.Info == nil && !d.known[h.Host] {
			out.Failed[h.Host] = &command.Failure{Kind: fault.Unavailable, Text: "Not registered."}
			continue
		}
		if h.Info != nil && h.Info.Hostname == h.Host {
			d.known[h.Host] = true
		}
		d.beats[h.Host]++
	}
	return json.Marshal(out)
}

func (d *desk) mine(m []byte) ([]byte, error) {
	var in []command.MineRequest
	if err := json.Unmarshal(m, &in); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]command.MineReply, len(in))
	for i, q := range in {
		d.asked[q.Host] = q
		if g := d.destroy[q.Host]; g != "" {
			out[i].Servers = []command.MineServer{{ID: g, Epoch: 9, Verdict: "destroy"}}
		}
	}
	return json.Marshal(out)
}

// see looks at the desk.
func (d *desk) see(f func() bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return f()
}

func hostsOf(r *rig, n int, f func(host, verb string) error) []agent.Host {
	out := make([]agent.Host, n)
	for i := range out {
		name := fmt.Sprintf("h%d", i)
		out[i] = agent.Host{Name: name, NodeID: id.UUID(), Driver: fake.New(fake.Config{DB: r.hyper, Host: name, Fault: func(verb, _ string) error { return f(name, verb) }})}
	}
	return out
}

func runFleet(t *testing.T, cfg agent.Config, hosts []agent.Host) (f *agent.Fleet, ready chan struct{}, done chan error) {
	t.Helper()
	f, err := agent.NewFleet(cfg, hosts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done = make(chan struct{}), make(chan error, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		done <- f.Run(ctx, func() { close(ready) })
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return f, ready, done
}

func noFault(string, string) error { return nil }

// Each host of a fleet has its own commands, journal and failures, and loses none of its guests to another.
func TestHostsOfAFleetAreApart(t *testing.T) {
	r, d := newRig(t), &desk{}
	d.serve(t, r)
	broken := errors.New("no heat")
	hosts := hostsOf(r, 1200, func(host, verb string) error {
		if host == "h7" && verb == "spawn" {
			return broken
		}
		return nil
	})
	_, ready, done := runFleet(t, agent.Config{Bus: r.bus, DB: r.journal, Dir: t.TempDir(), Report: 50 * time.Millisecond}, hosts)
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	d.see(func() bool {
		if len(d.known) != len(hosts) || len(d.asked) != len(hosts) {
			t.Fatalf("%d hosts are registered and %d have asked, of %d", len(d.known), len(d.asked), len(hosts))
		}
		for i := range d.kinds[:3] {
			if d.kinds[i] != 1 || d.sizes[i] > 500 {
				t.Fatalf("%d hosts are described as %d kinds in one message", d.sizes[i], d.kinds[i])
			}
		}
		return true
	})
	s := id.UUID()
	for _, host := range []string{"h3", "h1100"} {
		if err := r.do(host, command.Command{Operation: "op-" + host, Step: "build", Attempt: 1, Epoch: 5, Server: s, Verb: command.Spawn}, spawnOf(s)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.do("h7", command.Command{Operation: "op", Step: "build", Attempt: 1, Epoch: 1, Server: s, Verb: command.Spawn}, spawnOf(s)); err == nil {
		t.Fatal("h7 has made a guest")
	}
	if err := r.do("h3", command.Command{Operation: "op2", Step: "stop", Attempt: 1, Epoch: 6, Server: s, Verb: command.PowerOff}, command.PowerOffArgs{}); err != nil {
		t.Fatal(err)
	}
	if a, b := r.power("h3", s), r.power("h1100", s); a != virt.Shutdown || b != virt.Running {
		t.Fatalf("h3's guest is %d and h1100's %d", a, b)
	}
	// h3 has seen epoch 6, h1100 only 5.
	late := command.Command{Operation: "op3", Step: "stop", Attempt: 1, Epoch: 5, Server: s, Verb: command.PowerOff}
	if err := r.do("h3", late, command.PowerOffArgs{}); !errors.Is(err, fault.Conflict) {
		t.Fatalf("an old epoch on h3: %v", err)
	}
	if err := r.do("h1100", late, command.PowerOffArgs{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		return d.see(func() bool {
			for _, h := range hosts {
				if d.beats[h.Name] < 3 {
					return false
				}
			}
			return true
		})
	})
}

// What a conductor does not know any more, or could not take, is told anew; what concerns one host keeps no other from its own.
func TestFleetTellsAgainWhatWasNotTaken(t *testing.T) {
	r, d := newRig(t), &desk{fail: map[string]*command.Failure{"h2": {Kind: fault.Internal, Text: "The disk is full."}}}
	d.serve(t, r)
	hosts := hostsOf(r, 4, noFault)
	f, ready, done := runFleet(t, agent.Config{Bus: r.bus, DB: r.journal, Dir: t.TempDir(), Report: 20 * time.Millisecond}, hosts)
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	if !d.see(func() bool { return len(d.known) == 4 }) {
		t.Fatal("ready before all hosts were taken")
	}
	d.see(func() bool { delete(d.known, "h1"); delete(d.known, "h3"); return true })
	waitFor(t, func() bool { return d.see(func() bool { return d.known["h1"] && d.known["h3"] }) })
	d.see(func() bool { clear(d.asked); return true })
	f.Reconnected()
	waitFor(t, func() bool { return d.see(func() bool { return len(d.asked) == 4 }) })
}

// A guest that is owed to be destroyed on one host stays on another.
func TestFleetSettlesWhatIsMine(t *testing.T) {
	r, d, s := newRig(t), &desk{}, id.UUID()
	d.serve(t, r)
	for _, host := range []string{"h0", "h1"} {
		if err := fake.New(fake.Config{DB: r.hyper, Host: host}).Spawn(t.Context(), &virt.Spec{ID: s, Name: "instance-1"}); err != nil {
			t.Fatal(err)
		}
	}
	d.destroy = map[string]string{"h1": s}
	_, ready, done := runFleet(t, agent.Config{Bus: r.bus, DB: r.journal, Dir: t.TempDir()}, hostsOf(r, 3, noFault))
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	left := fake.New(fake.Config{DB: r.hyper, Host: "h1"})
	waitFor(t, func() bool { _, err := left.Guest(t.Context(), s); return errors.Is(err, fault.NotFound) })
	if p := r.power("h0", s); p != virt.Running {
		t.Fatalf("h0's guest is %d", p)
	}
	d.see(func() bool {
		if n0, n1, n2 := len(d.asked["h0"].Guests), len(d.asked["h1"].Guests), len(d.asked["h2"].Guests); n0 != 1 || n1 != 1 || n2 != 0 {
			t.Errorf("the hosts told of %d, %d and %d guests", n0, n1, n2)
		}
		return true
	})
}

// A process one of whose hosts belongs to another agent ends, and says which.
func TestFleetEndsWhenANameIsTaken(t *testing.T) {
	r, d := newRig(t), &desk{refuse: map[string]string{"h1": "Host name h1 belongs to another."}}
	d.serve(t, r)
	_, ready, done := runFleet(t, agent.Config{Bus: r.bus, DB: r.journal, Dir: t.TempDir()}, hostsOf(r, 3, noFault))
	select {
	case <-ready:
		t.Fatal("it is ready")
	case err := <-done:
		if !errors.Is(err, fault.Conflict) {
			t.Fatalf("it ended with %v", err)
		}
	}
}

// silent is a host whose hypervisor does not answer for a while.
type silent struct {
	*fake.Driver
	mu  sync.Mutex
	err error
}

func (s *silent) Info(ctx context.Context) (*virt.HostInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	return s.Driver.Info(ctx)
}

// A host whose hypervisor does not answer holds up the start, tells why, and none of the others.
func TestFleetWaitsForAHypervisor(t *testing.T) {
	r, d := newRig(t), &desk{}
	d.serve(t, r)
	hosts := hostsOf(r, 3, noFault)
	bad := &silent{Driver: hosts[1].Driver.(*fake.Driver), err: errors.New("it sleeps")}
	hosts[1].Driver = bad
	_, ready, done := runFleet(t, agent.Config{Bus: r.bus, DB: r.journal, Dir: t.TempDir()}, hosts)
	waitFor(t, func() bool {
		return d.see(func() bool { return d.known["h0"] && d.known["h2"] && d.trouble["h1"] == "it sleeps" })
	})
	select {
	case <-ready:
		t.Fatal("ready without h1")
	default:
	}
	bad.mu.Lock()
	bad.err = nil
	bad.mu.Unlock()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	if !d.see(func() bool { return d.known["h1"] }) {
		t.Fatal("h1 is not registered")
	}
}

func TestFleetOfTheWrongKind(t *testing.T) {
	r := newRig(t)
	two := hostsOf(r, 2, noFault)
	two[1].Name = two[0].Name
	for name, c := range map[string]struct {
		cfg   agent.Config
		hosts []agent.Host
	}{
		"no hosts":     {agent.Config{Bus: r.bus, DB: r.journal}, nil},
		"no bus":       {agent.Config{DB: r.journal}, hostsOf(r, 1, noFault)},
		"one name":     {agent.Config{Bus: r.bus, DB: r.journal}, two},
		"no node":      {agent.Config{Bus: r.bus, DB: r.journal}, []agent.Host{{Name: "h", Driver: two[0].Driver}}},
		"bad monitor":  {agent.Config{Bus: r.bus, DB: r.journal, Monitors: []string{"x"}}, hostsOf(r, 1, noFault)},
		"no directory": {agent.Config{Bus: r.bus, DB: r.journal}, []agent.Host{{Name: "h", NodeID: id.UUID(), Driver: struct{ virt.Driver }{two[0].Driver}}}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := agent.NewFleet(c.cfg, c.hosts); err == nil {
				t.Fatal("it was made")
			}
		})
	}
}
