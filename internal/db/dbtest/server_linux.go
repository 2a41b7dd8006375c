package dbtest

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"kilonova/internal/db"
)

// Server is a database server of a test's own.
type Server struct {
	URL string // of a database in it, whose user may make others

	end    syscall.Signal      // what ends it at once
	user   *syscall.Credential // nil: whoever runs the test
	dir    string
	daemon []string
	cmd    *exec.Cmd
	gone   chan struct{}
}

// Own starts a database server of the test's own and gives its URL. It goes with the test. Without its programs the test is skipped.
func Own(t testing.TB, kind db.Dialect) string {
	t.Helper()
	return NewServer(t, kind, false).URL
}

// NewServer makes a server in a directory of its own and starts it. It is stopped and removed with the test. A durable one keeps what was committed when it is crashed; others are
// faster. Without its programs the test is skipped.
func NewServer(t testing.TB, kind db.Dialect, durable bool) *Server {
	t.Helper()
	programs := map[db.Dialect]string{db.Postgres: "/usr/lib/postgresql/*/bin/initdb", db.MySQL: "/usr/bin/mariadb-install-db"}
	found, err := filepath.Glob(programs[kind])
	if err != nil || len(found) == 0 {
		t.Skipf("there is no %s", programs[kind])
	}
	dir, err := os.MkdirTemp("", "kd") // a short name, for the socket's sake
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s := &Server{dir: dir}
	if os.Geteuid() == 0 { // they refuse to run as root
		const nobody = 65534
		s.user = &syscall.Credential{Uid: nobody, Gid: nobody}
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := s.command(s.programs(kind, found[len(found)-1], freePort(t), durable)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { s.Crash(t) })
	s.Start(t)
	return s
}

// programs notes how the server is run and gives what makes its files.
func (s *Server) programs(kind db.Dialect, initial, port string, durable bool) (install []string) {
	data := filepath.Join(s.dir, "data")
	if kind == db.MySQL {
		s.URL, s.end = "mysql://k:@127.0.0.1:"+port+"/test", syscall.SIGKILL
		s.daemon = []string{"/usr/sbin/mariadbd", "--no-defaults", "--skip-grant-tables", "--datadir=" + data, "--socket=" + filepath.Join(s.dir, "s"),
			"--pid-file=" + filepath.Join(s.dir, "pid"), "--bind-address=127.0.0.1", "--port=" + port, "--max-connections=500"}
		if !durable {
			s.daemon = append(s.daemon, "--innodb-flush-log-at-trx-commit=0")
		}
		return []string{initial, "--no-defaults", "--datadir=" + data, "--auth-root-authentication-method=normal"}
	}
	s.URL, s.end = "postgres://k@127.0.0.1:"+port+"/postgres?sslmode=disable", syscall.SIGQUIT // its helpers end with it
	s.daemon = []string{filepath.Join(filepath.Dir(initial), "postgres"), "-D", data, "-h", "127.0.0.1", "-p", port, "-k", s.dir}
	install = []string{initial, "-D", data, "-U", "k", "--auth=trust", "-E", "UTF8", "--no-locale"}
	if !durable {
		s.daemon, install = append(s.daemon, "-F"), append(install, "--no-sync")
	}
	return install
}

func (s *Server) command(args []string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Env = s.dir, append(os.Environ(), "HOME="+s.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.user, Pdeathsig: s.end}
	return cmd
}

// Start starts the server again after Crash and waits until it answers: it first makes good its own log.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	for try := 0; !s.started(t); try++ { // what it left may still be in the way
		if try == 100 {
			log, _ := os.ReadFile(s.log())
			t.Fatalf("the database's server does not start: %s", log)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

func (s *Server) log() string { return filepath.Join(s.dir, "log") }

// started starts the server once; false when it ended before it answered.
func (s *Server) started(t testing.TB) bool {
	t.Helper()
	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd, gone := s.command(s.daemon), make(chan struct{})
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(gone); _ = cmd.Wait() }() // it tells of its end by an error
	s.cmd, s.gone = cmd, gone
	for {
		d, err := db.Open(t.Context(), s.URL)
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

// Crash ends the server at once, with all that it had not brought to the disk.
func (s *Server) Crash(t testing.TB) {
	t.Helper()
	if s.cmd == nil {
		return
	}
	if err := s.cmd.Process.Signal(s.end); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	<-s.gone
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
