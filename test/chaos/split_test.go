package chaos_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"kilonova/test/process"
)

// fleet is a cloud whose roles are processes of their own: one with identity, image, placement and network, one with the compute API, conductors and
// schedulers twice each, and an agent for each of three hosts.
type fleet struct {
	t      *testing.T
	ctx    context.Context
	prog   process.Program
	config string
	args   map[string][]string
	procs  map[string]*process.Proc
	order  []string
	log    []string
	admin  *process.Client
}

func newFleet(t *testing.T, ctx context.Context, prog process.Program) *fleet {
	t.Helper()
	nats, first, second := freePort(t), freePort(t), freePort(t)
	f := &fleet{t: t, ctx: ctx, prog: prog, config: filepath.Join(t.TempDir(), "kilonova.conf"), args: map[string][]string{}, procs: map[string]*process.Proc{}}
	level := "info"
	if os.Getenv("KILONOVA_KEEP") != "" {
		level = "debug"
	}
	text := fmt.Sprintf("[DEFAULT]\nlog_level = %s\n[api]\npublic_url = http://127.0.0.1:%d\n[bus]\nurl = nats://127.0.0.1:%d\n[compute]\ndriver = fake\nreport_interval = 1\nservice_down_time = 60\n"+
		"shutdown_timeout = 1\n[identity]\nbcrypt_cost = 4\n[quota]\ninstances = 60\ncores = -1\nram = -1\n", level, first, nats)
	if err := os.WriteFile(f.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.stop)
	f.add("base", "run", "identity", "image", "placement", "network", "--listen", fmt.Sprintf("127.0.0.1:%d", first), "--set", "bus.url=",
		"--set", fmt.Sprintf("bus.listen=127.0.0.1:%d", nats))
	for i := range 2 {
		f.add(fmt.Sprintf("conductor-%d", i), "conductor")
		f.add(fmt.Sprintf("scheduler-%d", i), "scheduler")
	}
	f.add("api", "compute-api", "--listen", fmt.Sprintf("127.0.0.1:%d", second))
	for i := range 3 {
		f.add(fmt.Sprintf("agent-%d", i), "agent", "--set", fmt.Sprintf("compute.host=fake-%d", i+1), "--set", fmt.Sprintf("image.url=http://127.0.0.1:%d/image", first))
	}
	var err error
	if f.admin, err = process.Login(ctx, fmt.Sprintf("http://127.0.0.1:%d", first), prog.Dir, "admin"); err != nil {
		t.Fatal(err)
	}
	f.admin.Roots["compute"] = fmt.Sprintf("http://127.0.0.1:%d/compute/v2.1", second)
	return f
}

func (f *fleet) add(name string, args ...string) {
	f.t.Helper()
	f.args[name], f.order = append(args, "--config", f.config), append(f.order, name)
	f.start(name)
}

func (f *fleet) start(name string) {
	f.t.Helper()
	x, err := f.prog.Start(f.ctx, f.args[name]...)
	if err != nil {
		f.t.Fatalf("start %s: %v", name, err)
	}
	f.procs[name] = x
}

func (f *fleet) kill(name string) {
	f.t.Helper()
	x := f.procs[name]
	checkLog(f.t, x.Output())
	f.log = append(f.log, "--- "+name+" was killed\n"+x.Output())
	if err := x.Kill(); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) stop() {
	for i := len(f.order) - 1; i >= 0; i-- {
		if x := f.procs[f.order[i]]; x != nil {
			checkLog(f.t, x.Output())
			if err := x.Stop(); err != nil {
				f.t.Error(err)
			}
		}
	}
}

func (f *fleet) keep() {
	for name, x := range f.procs {
		f.log = append(f.log, "--- "+name+" runs\n"+x.Output())
	}
	keep(f.t, f.prog, f.log)
}

func (f *fleet) waitHosts(n int) {
	f.t.Helper()
	for up := -1; up != n; {
		var l struct{ Hypervisors []struct{ State string } }
		if _, _, err := f.admin.Do(f.ctx, http.MethodGet, "compute", "/os-hypervisors", nil, &l); err != nil {
			f.t.Fatal(err)
		}
		up = 0
		for _, h := range l.Hypervisors {
			if h.State == "up" {
				up++
			}
		}
		wait(f.ctx, 50*time.Millisecond)
	}
}

// TestOnlyAgentsKilled kills agents, one or all, while the rest of the cloud lives on.
func TestOnlyAgentsKilled(t *testing.T) {
	splitStorm(t, times(t, 12, 100), func(f *fleet, rnd *rand.Rand) int {
		names := []string{"agent-0", "agent-1", "agent-2"}
		if rnd.IntN(6) != 0 {
			names = []string{names[rnd.IntN(3)]}
		}
		for _, n := range names {
			f.kill(n)
		}
		if rnd.IntN(2) == 0 { // the host stays away for a while
			time.Sleep(time.Duration(rnd.IntN(700)) * time.Millisecond)
		}
		for _, n := range names {
			f.start(n)
		}
		return len(names)
	})
}

// TestOnlyConductorsAndSchedulersKilled kills conductors and schedulers, one or both of a kind. In a slow run some conductors are stopped for longer than their
// leases last, and then go on as if nothing had happened: what they still want to do must have no effect.
func TestOnlyConductorsAndSchedulersKilled(t *testing.T) {
	frozen := 0
	splitStorm(t, times(t, 8, 60), func(f *fleet, rnd *rand.Rand) int {
		if slow() && frozen < 4 && rnd.IntN(8) == 0 {
			frozen++
			name := fmt.Sprintf("conductor-%d", rnd.IntN(2))
			f.freeze(name, time.Duration(16+rnd.IntN(6))*time.Second)
			return 0
		}
		kind := []string{"conductor", "conductor", "scheduler"}[rnd.IntN(3)]
		names := []string{kind + "-0", kind + "-1"}
		if rnd.IntN(4) != 0 {
			names = []string{names[rnd.IntN(2)]}
		}
		for _, n := range names {
			f.kill(n)
		}
		for _, n := range names {
			f.start(n)
		}
		return len(names)
	})
}

func (f *fleet) freeze(name string, d time.Duration) {
	f.t.Helper()
	if err := f.procs[name].Signal(syscall.SIGSTOP); err != nil {
		f.t.Fatal(err)
	}
	wait(f.ctx, d)
	if err := f.procs[name].Signal(syscall.SIGCONT); err != nil {
		f.t.Fatal(err)
	}
}

// splitStorm lets clients work on a fleet while strike kills processes of it, and judges.
func splitStorm(t *testing.T, kills int, strike func(f *fleet, rnd *rand.Rand) int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(kills)*20*time.Second+25*time.Minute)
	defer cancel()
	seed := seeded(t)
	rnd := rand.New(rand.NewPCG(seed, 1<<32))
	f := newFleet(t, ctx, program(t))
	ground, flavors, bigger := furnish(t, f.admin, "fake-1")
	f.waitHosts(3)
	s := &storm{ledger: newLedger(), ground: ground, flavors: flavors, bigger: bigger, seed: seed, pause: 60 * time.Millisecond, moves: allMoves}
	stormCtx, calm := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); s.run(stormCtx, 6, func() *process.Client { return sameSession(f.admin) }) }()
	defer func() { calm(); <-done }()
	began, n, at := time.Now(), 0, []time.Time{}
	for n < kills {
		s.works(ctx, t, 3)
		time.Sleep(time.Duration(50+rnd.IntN(750)) * time.Millisecond)
		at = append(at, time.Now())
		n += strike(f, rnd)
	}
	time.Sleep(300 * time.Millisecond)
	calm()
	<-done
	stormed := time.Since(began)
	j := &judge{t: t, prog: f.prog, config: []string{"--config", f.config}, admin: f.admin, ledger: s.ledger, ground: ground}
	ops := j.settle(ctx, patience)
	settled := time.Since(began)
	j.healthy(ctx, patience)
	j.all(ctx, ops)
	if t.Failed() {
		f.keep()
	}
	hit, inside := struck(ops, at)
	t.Logf("%d kills, %d of them inside %d operations; storm %s, settled after %s; %d operations (%s)%s", n, hit, inside, stormed.Round(time.Second),
		(settled - stormed).Round(time.Millisecond), len(ops), states(ops), s.ledger.summary())
	if hit*3 < len(at) {
		t.Errorf("only %d of %d strikes were inside an operation: the storm is too weak to show anything", hit, len(at))
	}
	j.clear(ctx)
}
