package dbtest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"kilonova/internal/db"
)

// Own starts a database server of the test's own and gives its URL. It goes with the test. Without its programs the test is skipped.
func Own(t testing.TB, kind db.Dialect) string {
	t.Helper()
	programs := map[db.Dialect]string{db.Postgres: "/usr/lib/postgresql/*/bin/initdb", db.MySQL: "/usr/bin/mariadb-install-db"}
	found, err := filepath.Glob(programs[kind])
	if err != nil || len(found) == 0 {
		t.Skipf("there is no %s", programs[kind])
	}
	dir, err := os.MkdirTemp("", "kdb") // a short name, for the socket's sake
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	var user *syscall.Credential
	if os.Geteuid() == 0 { // they refuse to run as root
		const nobody = 65534
		user = &syscall.Credential{Uid: nobody, Gid: nobody}
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	command := func(end syscall.Signal, args ...string) *exec.Cmd {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "HOME="+dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user, Pdeathsig: end}
		return cmd
	}
	initial, data, port, end := found[len(found)-1], filepath.Join(dir, "data"), freePort(t), syscall.SIGQUIT
	where, install, daemon := "", []string{}, []string{}
	switch kind {
	case db.MySQL:
		end, where = syscall.SIGKILL, "mysql://k:@127.0.0.1:"+port+"/test"
		install = []string{initial, "--no-defaults", "--datadir=" + data, "--auth-root-authentication-method=normal"}
		daemon = []string{"/usr/sbin/mariadbd", "--no-defaults", "--skip-grant-tables", "--datadir=" + data, "--socket=" + filepath.Join(dir, "s"), "--pid-file=" + filepath.Join(dir, "pid"),
			"--bind-address=127.0.0.1", "--port=" + port, "--innodb-flush-log-at-trx-commit=0"}
	default:
		where = "postgres://k@127.0.0.1:" + port + "/postgres?sslmode=disable"
		install = []string{initial, "-D", data, "-U", "k", "--auth=trust", "-E", "UTF8", "--no-locale", "--no-sync"}
		daemon = []string{filepath.Join(filepath.Dir(initial), "postgres"), "-D", data, "-h", "127.0.0.1", "-p", port, "-k", dir, "-F"}
	}
	if out, err := command(end, install...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	run, out := command(end, daemon...), filepath.Join(dir, "log")
	log, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	run.Stdout, run.Stderr = log, log
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() { defer close(gone); _ = run.Wait() }() // it tells of its end by an error
	t.Cleanup(func() { _ = run.Process.Signal(end); <-gone })
	for {
		d, err := db.Open(t.Context(), where)
		if err == nil {
			_ = d.Close()
			return where
		}
		select {
		case <-gone:
			text, _ := os.ReadFile(out)
			t.Fatalf("the database's server ended: %s", text)
		case <-t.Context().Done():
			t.Fatal(fmt.Errorf("the database's server does not answer: %w", err))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
