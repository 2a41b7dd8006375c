package rabbit_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"kilonova/test/process"
)

// patience is how long tests wait for what must come: a busy machine takes minutes to start a broker.
const patience = 10 * time.Minute

// broker is a RabbitMQ of the test's own: its own node, ports and directories.
type broker struct {
	t    *testing.T
	dir  string
	port int
	env  []string
	proc *exec.Cmd
	done chan struct{}
}

func freePort(t *testing.T) int {
	t.Helper()
	port, err := process.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

const server = "/usr/lib/rabbitmq/bin/rabbitmq-server" // the wrapper in /usr/sbin wants another user

// startBroker skips the test where RabbitMQ is not installed.
func startBroker(t *testing.T) *broker {
	t.Helper()
	if _, err := os.Stat(server); err != nil {
		t.Skip("RabbitMQ is not installed (apt-get install rabbitmq-server)")
	}
	epmd, err := exec.LookPath("epmd")
	if err != nil {
		t.Skip("Erlang's epmd is not there")
	}
	b := &broker{t: t, dir: t.TempDir(), port: freePort(t)}
	names := strconv.Itoa(freePort(t))
	for name, text := range map[string]string{"env": "", "plugins": "[].", "rabbit.conf": ""} {
		if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(b.dir, name) }
	b.env = append(os.Environ(), "HOME="+b.dir, "RABBITMQ_NODENAME=kn"+names+"@localhost", "RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", "RABBITMQ_NODE_PORT="+strconv.Itoa(b.port),
		"RABBITMQ_DIST_PORT="+strconv.Itoa(freePort(t)), "ERL_EPMD_PORT="+names, "ERL_EPMD_ADDRESS=127.0.0.1", "RABBITMQ_MNESIA_BASE="+at("mnesia"), "RABBITMQ_LOG_BASE="+at("log"),
		"RABBITMQ_LOGS=-", "RABBITMQ_ENABLED_PLUGINS_FILE="+at("plugins"), "RABBITMQ_CONF_ENV_FILE="+at("env"), "RABBITMQ_CONFIG_FILE="+at("rabbit"),
		"RABBITMQ_GENERATED_CONFIG_DIR="+at("generated"), "RABBITMQ_PID_FILE="+at("pid"))
	register := exec.Command(epmd, "-port", names, "-address", "127.0.0.1")
	register.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := register.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = register.Process.Kill()
		_ = register.Wait()
	})
	b.start()
	return b
}

// start runs the broker and waits until it answers.
func (b *broker) start() {
	b.t.Helper()
	log, err := os.OpenFile(filepath.Join(b.dir, "out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	b.proc = exec.Command(server)
	b.proc.Env, b.proc.Stdout, b.proc.Stderr = b.env, log, log
	b.proc.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := b.proc.Start(); err != nil {
		b.t.Fatal(err)
	}
	proc, done := b.proc, make(chan struct{})
	b.done = done
	go func() { _ = proc.Wait(); close(done) }()
	b.t.Cleanup(func() { kill(proc, done) })
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		if c, err := amqp.Dial(b.url("amqp")); err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-done:
			b.t.Fatalf("the broker ended: %s", b.output())
		default:
		}
		if time.Now().After(end) {
			b.t.Fatalf("the broker did not start: %s", b.output())
		}
	}
}

func (b *broker) output() []byte {
	text, _ := os.ReadFile(filepath.Join(b.dir, "out"))
	return text[max(0, len(text)-3000):]
}

// kill ends a process group at once, as a power cut would.
func kill(proc *exec.Cmd, done chan struct{}) {
	_ = syscall.Kill(-proc.Process.Pid, syscall.SIGKILL)
	<-done
}

func (b *broker) kill() { kill(b.proc, b.done) }

func (b *broker) url(scheme string) string {
	return fmt.Sprintf("%s://guest:guest@127.0.0.1:%d/", scheme, b.port)
}

// heard is a notification as oslo.messaging's listener hands it on.
type heard struct {
	Priority  string         `json:"priority"`
	Context   map[string]any `json:"context"`
	Publisher string         `json:"publisher_id"`
	Event     string         `json:"event_type"`
	ID        string         `json:"message_id"`
	Timestamp string         `json:"timestamp"`
	Payload   struct {
		Name    string         `json:"nova_object.name"`
		Version string         `json:"nova_object.version"`
		Data    map[string]any `json:"nova_object.data"`
	} `json:"payload"`
}

// listener is a program of Python that reads notifications with oslo.messaging.
type listener struct {
	t  *testing.T
	mu sync.Mutex
	l  []heard
}

// listen skips the test where oslo.messaging is not installed.
func (b *broker) listen(durable ...string) *listener {
	b.t.Helper()
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import oslo_messaging").Run(); err != nil {
		b.t.Skip("oslo.messaging is not installed (apt-get install python3-oslo.messaging)")
	}
	cmd := exec.Command(python, append([]string{"testdata/listener.py", b.url("rabbit")}, durable...)...)
	cmd.Env = append(os.Environ(), "PYTHONWARNINGS=ignore", "PATH=/usr/bin:/bin")
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	l := &listener{t: b.t}
	ready, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for once := sync.OnceFunc(func() { close(ready) }); lines.Scan(); once() {
			var h heard
			if err := json.Unmarshal(lines.Bytes(), &h); err != nil {
				b.t.Errorf("the listener printed %.200q", lines.Text())
			}
			if h.Event != "" {
				l.mu.Lock()
				l.l = append(l.l, h)
				l.mu.Unlock()
			}
		}
	}()
	b.t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill() // it hangs at its end when the broker is gone
		<-ended
		_ = cmd.Wait()
	})
	select {
	case <-ready:
	case <-ended:
		b.t.Fatalf("the listener ended: %s", complaints.String())
	case <-time.After(patience):
		b.t.Fatal("the listener is not ready")
	}
	return l
}

func (l *listener) all() []heard {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]heard(nil), l.l...)
}

// until waits until what was heard is enough.
func (l *listener) until(what string, enough func([]heard) bool) []heard {
	l.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got := l.all()
		if enough(got) {
			return got
		}
		if time.Now().After(end) {
			l.t.Fatalf("%s: heard only %d notifications", what, len(got))
		}
	}
}
