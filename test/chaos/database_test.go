package chaos_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"kilonova/internal/db"
	"kilonova/test/process"
)

// server is a PostgreSQL server of a test's own.
type server struct {
	bin, dir string
	port     int
	user     *syscall.Credential // nil: whoever runs the test
	cmd      *exec.Cmd
}

// newServer makes a server and starts it. It is stopped and removed with the test.
func newServer(t *testing.T) *server {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		t.Skip("PostgreSQL's server is not installed")
	}
	dir, err := os.MkdirTemp("", "kd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	p := &server{bin: filepath.Dir(found[len(found)-1]), dir: dir, port: freePort(t)}
	if os.Geteuid() == 0 { // it refuses to run as root
		const nobody = 65534
		p.user = &syscall.Credential{Uid: nobody, Gid: nobody}
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := p.command("initdb", "-D", filepath.Join(dir, "data"), "-U", "k", "--auth=trust", "-E", "UTF8", "--no-locale").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { p.crash(t) })
	p.start(t)
	return p
}

func (p *server) url() string {
	return fmt.Sprintf("postgres://k@127.0.0.1:%d/postgres?sslmode=disable", p.port)
}

func (p *server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, name), args...)
	cmd.Dir = p.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.user, Pdeathsig: syscall.SIGQUIT}
	return cmd
}

// start waits until the server answers: after a crash it first makes good its own log.
func (p *server) start(t *testing.T) {
	t.Helper()
	p.cmd = p.command("postgres", "-D", filepath.Join(p.dir, "data"), "-h", "127.0.0.1", "-p", strconv.Itoa(p.port), "-k", p.dir)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for {
		d, err := db.Open(t.Context(), p.url())
		if err == nil {
			_ = d.Close()
			return
		}
		if wait(t.Context(), 20*time.Millisecond); t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
}

// crash ends the server at once, with all that it had not brought to the disk.
func (p *server) crash(t *testing.T) {
	t.Helper()
	if p.cmd == nil {
		return
	}
	if err := p.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Error(err)
	}
	_ = p.cmd.Wait() // it tells of its end by an error
	p.cmd = nil
}

// TestDatabaseServerKilled crashes the database's server again and again while clients work on a cloud that lives on. It is away for a while, and what was being committed when it
// went is there or not. (RELIABILITY: every accepted request finished, every invariant kept.)
func TestDatabaseServerKilled(t *testing.T) {
	kills := times(t, 5, 40)
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(kills)*30*time.Second+20*time.Minute)
	defer cancel()
	seed := seeded(t)
	rnd := rand.New(rand.NewPCG(seed, 1<<32))
	store := newServer(t)
	p, where := program(t), []string{"--set", "database.connection=" + store.url()}
	x, err := p.Start(ctx, append([]string{"up", "--listen", "127.0.0.1:0", "--compute-driver", "fake", "--fake-hosts", "4", "--set", "compute.host=fake", "--set", "identity.bcrypt_cost=4",
		"--set", "quota.instances=60", "--set", "quota.cores=-1", "--set", "quota.ram=-1", "--set", "compute.shutdown_timeout=1s"}, where...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Kill(); err != nil {
			t.Error(err)
		}
	})
	admin, err := process.Login(ctx, x.URL, p.Dir, "admin")
	if err != nil {
		t.Fatal(err)
	}
	ground, flavors, bigger := furnish(t, admin, "fake-1")
	s := &storm{ledger: newLedger(), ground: ground, flavors: flavors, bigger: bigger, seed: seed, pause: 40 * time.Millisecond, moves: allMoves}
	stormCtx, calm := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); s.run(stormCtx, 6, func() *process.Client { return sameSession(admin) }) }()
	defer func() { calm(); <-done }()
	began, at := time.Now(), []time.Time{}
	for range kills {
		s.works(ctx, t, 3)
		wait(ctx, time.Duration(50+rnd.IntN(750))*time.Millisecond)
		at = append(at, time.Now())
		store.crash(t)
		wait(ctx, time.Duration(rnd.IntN(700))*time.Millisecond)
		store.start(t)
	}
	s.works(ctx, t, 3)
	calm()
	<-done
	stormed := time.Since(began)
	j := &judge{t: t, prog: p, config: where, admin: admin, ledger: s.ledger, ground: ground}
	ops := j.settle(ctx, patience)
	settled := time.Since(began)
	j.healthy(ctx, patience)
	j.all(ctx, ops)
	if t.Failed() {
		keep(t, p, []string{x.Output()})
	}
	hit, inside := struck(ops, at)
	t.Logf("%d crashes, %d of them inside %d operations; storm %s, settled after %s; %d operations (%s)%s", len(at), hit, inside, stormed.Round(time.Second),
		(settled - stormed).Round(time.Millisecond), len(ops), states(ops), s.ledger.summary())
	if hit*3 < len(at) {
		t.Errorf("only %d of %d crashes were inside an operation: the storm is too weak to show anything", hit, len(at))
	}
	j.clear(ctx)
	checkLog(t, x.Output())
	if err := x.Stop(); err != nil {
		t.Error(err)
	}
}
