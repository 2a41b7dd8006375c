package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"kilonova/test/process"
)

func slow() bool { return os.Getenv("KILONOVA_SLOW") == "1" }

// patience is how long an operation may take to end, and the loops that tidy up to do so, on a busy machine. Only what never comes is a fault.
const patience = 5 * time.Minute

// seeded gives the seed of this run and prints it.
func seeded(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("KILONOVA_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("KILONOVA_SEED: %v", err)
		}
	}
	t.Logf("KILONOVA_SEED=%d", seed)
	return seed
}

// times is how often to kill: few in a short run, many in a slow one.
func times(t *testing.T, few, many int) int {
	t.Helper()
	n := few
	if slow() {
		n = many
	}
	if s := os.Getenv("KILONOVA_KILLS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatalf("KILONOVA_KILLS: %v", err)
		}
	}
	return n
}

func freePort(t *testing.T) int {
	t.Helper()
	port, err := process.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// workshop is where the program is built, once for all tests.
type workshop struct {
	once sync.Once
	dir  string
	bin  string
	err  error
}

var shop workshop

func TestMain(m *testing.M) {
	code := m.Run()
	if shop.dir != "" {
		if err := os.RemoveAll(shop.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// program gives the program with a new state directory.
func program(t *testing.T) process.Program {
	t.Helper()
	shop.once.Do(func() {
		if shop.dir, shop.err = os.MkdirTemp("", "kc"); shop.err == nil { // short: sockets have their place in it
			shop.bin, shop.err = process.Build(context.Background(), shop.dir)
		}
	})
	if shop.err != nil {
		t.Fatal(shop.err)
	}
	return process.Program{Path: shop.bin, Dir: filepath.Join(t.TempDir(), "state")}
}

// furnish makes what the storm needs: flavors of guests that are slow, that fail on one host, and that fail everywhere.
func furnish(t *testing.T, admin *process.Client, hosts ...string) (process.Ground, []string, []string) {
	t.Helper()
	ctx := t.Context()
	g, err := admin.Prepare(ctx)
	if err != nil {
		t.Fatal(err)
	}
	flavor := func(name string, ram int, specs map[string]string) string {
		t.Helper()
		var f struct{ Flavor process.Thing }
		_, _, err := admin.Do(ctx, "POST", "compute", "/flavors", map[string]any{"flavor": map[string]any{"name": name, "ram": ram, "vcpus": 1, "disk": 1}}, &f)
		if err == nil && len(specs) > 0 {
			_, _, err = admin.Do(ctx, "POST", "compute", "/flavors/"+f.Flavor.ID+"/os-extra_specs", map[string]any{"extra_specs": specs}, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		return f.Flavor.ID
	}
	tough := flavor("slow", 96, map[string]string{"fake:delay": "40ms"})
	shy := flavor("shy", 80, map[string]string{"fake:fail:spawn": "this host does not like the guest;hosts=" + hosts[0], "fake:delay": "15ms"})
	bad := flavor("bad", 80, map[string]string{"fake:fail:spawn": "no host likes the guest"})
	stiff := flavor("stiff", 160, map[string]string{"fake:fail:finish-resize": "the guest cannot grow", "fake:delay": "15ms"})
	return g, []string{g.Flavor, g.Flavor, tough, tough, tough, shy, bad}, []string{g.Bigger, g.Bigger, tough, stiff}
}

// TestWholeProcessKilled kills a whole cloud at random moments while clients work. (RELIABILITY: every accepted request finished, every invariant kept.)
func TestWholeProcessKilled(t *testing.T) {
	kills := times(t, 15, 120)
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(kills)*20*time.Second+20*time.Minute)
	defer cancel()
	seed := seeded(t)
	rnd := rand.New(rand.NewPCG(seed, 1<<32))
	p := program(t)
	args := []string{"up", "--listen", fmt.Sprintf("127.0.0.1:%d", freePort(t)), "--compute-driver", "fake", "--fake-hosts", "4", "--set", "compute.host=fake",
		"--set", "identity.bcrypt_cost=4", "--set", "quota.instances=60", "--set", "quota.cores=-1", "--set", "quota.ram=-1", "--set", "compute.shutdown_timeout=1s"}
	if os.Getenv("KILONOVA_KEEP") != "" {
		args = append(args, "--set", "DEFAULT.log_level=debug")
	}
	var x *process.Proc
	t.Cleanup(func() {
		if x != nil {
			if err := x.Kill(); err != nil {
				t.Error(err)
			}
		}
	})
	began := time.Now()
	var err error
	if x, err = p.Start(ctx, args...); err != nil {
		t.Fatal(err)
	}
	url := x.URL
	login := func(user string) *process.Client {
		t.Helper()
		c, err := process.Login(ctx, url, p.Dir, user)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	admin := login("admin")
	ground, flavors, bigger := furnish(t, admin, "fake-1")
	s := &storm{ledger: newLedger(), ground: ground, flavors: flavors, bigger: bigger, seed: seed, pause: 25 * time.Millisecond, moves: allMoves}
	stormCtx, calm := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); s.run(stormCtx, 8, func() *process.Client { return sameSession(admin) }) }()
	defer func() { calm(); <-done }()

	var at []time.Time
	var log []string
	early := 0
	for len(at) < kills {
		s.works(ctx, t, 3)
		time.Sleep(time.Duration(50+rnd.IntN(750)) * time.Millisecond)
		checkLog(t, x.Output())
		at = append(at, time.Now())
		log = append(log, x.Output())
		if err := x.Kill(); err != nil {
			t.Fatal(err)
		}
		for len(at) < kills && rnd.IntN(8) == 0 { // it is killed while it starts
			short, cancel := context.WithTimeout(ctx, time.Duration(5+rnd.IntN(250))*time.Millisecond)
			y, err := p.Start(short, args...)
			cancel()
			if err == nil {
				err = y.Kill()
			} else if errors.Is(err, context.DeadlineExceeded) {
				err = nil
			}
			if err != nil {
				t.Fatal(err)
			}
			at = append(at, time.Now())
			early++
		}
		if x, err = p.Start(ctx, args...); err != nil {
			t.Fatalf("after %d kills: %v", len(at), err)
		}
	}
	time.Sleep(300 * time.Millisecond)
	calm()
	<-done
	stormed := time.Since(began)
	j := &judge{t: t, prog: p, admin: admin, ledger: s.ledger, ground: ground}
	ops := j.settle(ctx, patience)
	settled := time.Since(began)
	j.healthy(ctx, patience)
	j.all(ctx, ops)
	if t.Failed() {
		log = append(log, x.Output())
		keep(t, p, log)
	}
	hit, inside := struck(ops, at)
	t.Logf("%d kills (%d of them while starting), %d of them inside %d operations; storm %s, settled after %s; %d operations (%s)%s", len(at), early, hit, inside,
		stormed.Round(time.Second), (settled - stormed).Round(time.Millisecond), len(ops), states(ops), s.ledger.summary())
	if hit*3 < len(at) {
		t.Errorf("only %d of %d kills were inside an operation: the storm is too weak to show anything", hit, len(at))
	}
	j.clear(ctx)
	checkLog(t, x.Output())
	if err := x.Stop(); err != nil {
		t.Error(err)
	}
}

// TestKilledAtItsFirstStart kills a new cloud again and again while it makes its keys, secrets, tables and first users. Then it starts, and works.
func TestKilledAtItsFirstStart(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()
	rnd := rand.New(rand.NewPCG(seeded(t), 1<<32))
	p := program(t)
	early, ready := 0, 0
	for range times(t, 4, 40) {
		p.Dir = filepath.Join(t.TempDir(), "state")
		args := []string{"up", "--listen", "127.0.0.1:0", "--compute-driver", "fake", "--set", "identity.bcrypt_cost=4"}
		for range 4 {
			short, cancel := context.WithTimeout(ctx, time.Duration(5+rnd.IntN(300))*time.Millisecond)
			x, err := p.Start(short, args...)
			cancel()
			switch {
			case err == nil:
				ready++
				err = x.Kill()
			case errors.Is(err, context.DeadlineExceeded):
				early++
				err = nil
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		x, err := p.Start(ctx, args...)
		if err != nil {
			t.Fatal(err)
		}
		func() {
			defer func() {
				if err := x.Stop(); err != nil {
					t.Error(err)
				}
			}()
			admin, err := process.Login(ctx, x.URL, p.Dir, "admin")
			if err != nil {
				t.Fatal(err)
			}
			g, err := admin.Prepare(ctx)
			if err != nil {
				t.Fatal(err)
			}
			id, err := admin.Boot(ctx, "first", g)
			if err == nil {
				_, err = admin.WaitStatus(ctx, id, "ACTIVE")
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := process.Login(ctx, x.URL, p.Dir, "demo"); err != nil {
				t.Error(err)
			}
		}()
	}
	t.Logf("killed %d times before it was ready and %d times then", early, ready)
	if early == 0 {
		t.Error("it was never killed while it started")
	}
}

// struck counts the kills that fell into operations, and those operations.
func struck(ops []operation, kills []time.Time) (hit, inside int) {
	for _, k := range kills {
		n := 0
		for _, o := range ops {
			if o.Accepted.Before(k) && o.Finished.After(k) {
				n++
			}
		}
		if inside += n; n > 0 {
			hit++
		}
	}
	return hit, inside
}

func states(ops []operation) string {
	n := map[string]int{}
	for _, o := range ops {
		n[o.State]++
	}
	return fmt.Sprintf("%d done, %d undone, %d superseded, %d else", n["done"], n["undone"], n["superseded"], len(ops)-n["done"]-n["undone"]-n["superseded"])
}

// sameSession gives a client with its own connections and the same token.
func sameSession(c *process.Client) *process.Client {
	d := *c
	return &d
}

func checkLog(t *testing.T, log string) {
	t.Helper()
	for line := range strings.Lines(log) {
		if strings.Contains(line, "panicked") || strings.Contains(line, "level=ERROR") && strings.Contains(line, "needs attention") {
			t.Errorf("log: %s", line)
		}
	}
}

// keep copies the state and the logs of a failed run to the directory in KILONOVA_KEEP, to be looked at.
func keep(t *testing.T, p process.Program, log []string) {
	t.Helper()
	dir := os.Getenv("KILONOVA_KEEP")
	if dir == "" {
		return
	}
	err := os.CopyFS(dir, os.DirFS(p.Dir))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "log"), []byte(strings.Join(log, "--- killed\n")), 0o600)
	}
	if err != nil {
		t.Log(err)
	}
}
