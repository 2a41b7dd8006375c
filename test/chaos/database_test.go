package chaos_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"kilonova/internal/db"
	"kilonova/test/process"
)

// server is a database server of a test's own.
type server struct {
	url    string
	end    syscall.Signal      // what ends it at once
	user   *syscall.Credential // nil: whoever runs the test
	dir    string
	daemon []string
	cmd    *exec.Cmd
	gone   chan struct{}
}

// newServer makes a server in a directory of its own and starts it. It is stopped and removed with the test.
func newServer(t *testing.T, kind db.Dialect) *server {
	t.Helper()
	programs := map[db.Dialect]string{db.Postgres: "/usr/lib/postgresql/*/bin/initdb", db.MySQL: "/usr/bin/mariadb-install-db"}
	found, err := filepath.Glob(programs[kind])
	if err != nil || len(found) == 0 {
		t.Skipf("there is no %s", programs[kind])
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
	p := &server{dir: dir}
	if os.Geteuid() == 0 { // they refuse to run as root
		const nobody = 65534
		p.user = &syscall.Credential{Uid: nobody, Gid: nobody}
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	initial, data, port := found[len(found)-1], filepath.Join(dir, "data"), strconv.Itoa(freePort(t))
	var install []string
	switch kind {
	case db.Postgres:
		p.url, p.end = "postgres://k@127.0.0.1:"+port+"/postgres?sslmode=disable", syscall.SIGQUIT // its helpers end with it
		install = []string{initial, "-D", data, "-U", "k", "--auth=trust", "-E", "UTF8", "--no-locale"}
		p.daemon = []string{filepath.Join(filepath.Dir(initial), "postgres"), "-D", data, "-h", "127.0.0.1", "-p", port, "-k", dir}
	case db.MySQL:
		p.url, p.end = "mysql://k:@127.0.0.1:"+port+"/test", syscall.SIGKILL
		install = []string{initial, "--no-defaults", "--datadir=" + data, "--auth-root-authentication-method=normal"}
		p.daemon = []string{"/usr/sbin/mariadbd", "--no-defaults", "--skip-grant-tables", "--datadir=" + data, "--socket=" + filepath.Join(dir, "s"), "--pid-file=" + filepath.Join(dir, "pid"),
			"--bind-address=127.0.0.1", "--port=" + port, "--max-connections=500"}
	}
	if out, err := p.command(install).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { p.crash(t) })
	p.start(t)
	return p
}

func (p *server) command(args []string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Env = p.dir, append(os.Environ(), "HOME="+p.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.user, Pdeathsig: p.end}
	return cmd
}

// start waits until the server answers: after a crash it first makes good its own log.
func (p *server) start(t *testing.T) {
	t.Helper()
	for try := 0; !p.started(t); try++ { // what it left may still be in the way
		if try == 100 {
			log, _ := os.ReadFile(p.log())
			t.Fatalf("the database's server does not start: %s", log)
		}
		wait(t.Context(), 200*time.Millisecond)
	}
}

func (p *server) log() string { return filepath.Join(p.dir, "log") }

// started starts the server once; false when it ended before it answered.
func (p *server) started(t *testing.T) bool {
	t.Helper()
	log, err := os.OpenFile(p.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd, gone := p.command(p.daemon), make(chan struct{})
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(gone); _ = cmd.Wait() }() // it tells of its end by an error
	p.cmd, p.gone = cmd, gone
	for {
		d, err := db.Open(t.Context(), p.url)
		if err == nil {
			_ = d.Close()
			return true
		}
		select {
		case <-gone:
			return false
		case <-t.Context().Done():
			t.Fatal(err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// crash ends the server at once, with all that it had not brought to the disk.
func (p *server) crash(t *testing.T) {
	t.Helper()
	if p.cmd == nil {
		return
	}
	if err := p.cmd.Process.Signal(p.end); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	<-p.gone
}

// TestDatabaseServerKilled crashes the database's server again and again while clients work on a cloud that lives on. It is away for a while, and what was being committed when it
// went is there or not. (RELIABILITY: every accepted request finished, every invariant kept.)
func TestDatabaseServerKilled(t *testing.T) {
	for _, kind := range []db.Dialect{db.Postgres, db.MySQL} {
		t.Run(string(kind), func(t *testing.T) { serverStorm(t, kind) })
	}
}

func serverStorm(t *testing.T, kind db.Dialect) {
	t.Helper()
	kills := times(t, 5, 40)
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(kills)*30*time.Second+20*time.Minute)
	defer cancel()
	seed := seeded(t)
	rnd := rand.New(rand.NewPCG(seed, 1<<32))
	store := newServer(t, kind)
	p, where := program(t), []string{"--set", "database.connection=" + store.url}
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
		if slow() && len(at) == (kills+1)/2 { // once for longer than leases last
			wait(ctx, 20*time.Second)
		}
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
	for _, o := range ops {
		if o.State == "undone" && !strings.Contains(o.Cause, "the guest") { // the guests that this storm has cannot be built, or grow, by their flavor
			t.Errorf("%s of %s was undone at step %s although only the database was away: %s", o.Kind, o.Object, o.Step, o.Cause)
		}
	}
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
