package rabbit_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kilonova/internal/compute"
	"kilonova/internal/compute/notify"
	"kilonova/internal/compute/notify/rabbit"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/db/dbtest"
	"kilonova/internal/operation"
	"kilonova/test/process"
)

// world is a store that tells of its key pairs, published on a broker.
type world struct {
	t     *testing.T
	db    *db.DB
	store *store.Store
	n     *notify.Notifier
}

func newWorld(t *testing.T, cfg rabbit.Config) *world {
	t.Helper()
	w := &world{t: t, db: dbtest.Open(t)}
	must(t, second(operation.New(t.Context(), operation.Config{DB: w.db})))
	var err error
	w.store, err = store.New(t.Context(), w.db)
	must(t, err)
	s, err := rabbit.New(cfg)
	must(t, err)
	t.Cleanup(func() { _ = s.Close() })
	w.n, err = notify.New(t.Context(), notify.Config{DB: w.db, Store: w.store, Host: "h", Sinks: []notify.Sink{s}, Poll: 20 * time.Millisecond, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	must(t, err)
	w.store.Watch(w.n)
	return w
}

func second[T any](_ T, err error) error { return err }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// run publishes until the test ends or stop is called.
func (w *world) run() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = w.n.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	w.t.Cleanup(stop)
	return stop
}

func (w *world) key(name string) {
	w.t.Helper()
	must(w.t, w.db.Write(w.t.Context(), func(tx *db.Tx) error {
		return w.store.InsertKeyPair(w.t.Context(), tx, &compute.KeyPair{Name: name, UserID: "u", Type: "ssh", PublicKey: "ssh-ed25519 AAAA x", Fingerprint: "aa"}, -1)
	}))
}

// ends counts how often the end of each key pair's import was told, and by how many ids.
func ends(all []heard) (times, ids map[string]int) {
	times, ids = map[string]int{}, map[string]int{}
	seen := map[string]bool{}
	for _, h := range all {
		if h.Event != "keypair.import.end" {
			continue
		}
		name := h.Payload.Data["name"].(string)
		times[name]++
		if !seen[h.ID] {
			ids[name]++
		}
		seen[h.ID] = true
	}
	return times, ids
}

func TestRabbitMQ(t *testing.T) {
	if testing.Short() {
		t.Skip("a broker takes ten seconds and more to start; run without -short")
	}
	b := startBroker(t)
	t.Run("before anybody listens, to oslo.messaging", func(t *testing.T) { b.in(t, (*broker).early) })
	t.Run("a process killed while servers are made", func(t *testing.T) { b.in(t, (*broker).killedProcess) })
	t.Run("the broker killed and started again", func(t *testing.T) { b.in(t, (*broker).killedBroker) })
}

func (b *broker) in(t *testing.T, f func(*broker)) {
	sub := *b
	sub.t = t
	f(&sub)
	b.proc, b.done = sub.proc, sub.done
}

// early: what is told before there is any consumer waits in the queue, and oslo.messaging reads it.
func (b *broker) early() {
	t := b.t
	w := newWorld(t, rabbit.Config{URL: b.url("rabbit")})
	w.run()
	w.key("k0")
	for more := true; more; {
		var n int
		must(t, w.db.QueryRow(t.Context(), "SELECT COUNT(*) FROM compute_notifications").Scan(&n))
		more = n > 0
		time.Sleep(5 * time.Millisecond)
	}
	l := b.listen()
	w.key("k1")
	got := l.until("two key pairs", func(h []heard) bool { return len(h) == 4 })
	h := got[slices.IndexFunc(got, func(h heard) bool { return h.Payload.Data["name"] == "k0" && h.Event == "keypair.import.end" })]
	if h.Event != "keypair.import.end" || h.Priority != "info" || h.Publisher != "nova-api:h" || h.Payload.Name != "KeypairPayload" || h.Payload.Version != "1.0" ||
		h.Payload.Data["name"] != "k0" || h.Payload.Data["fingerprint"] != "aa" || len(h.ID) != 36 {
		t.Errorf("%+v", h)
	}
	if _, ok := h.Context["request_id"]; !ok {
		t.Errorf("the context is %v", h.Context)
	}
	// oslo.messaging drops what it has had: what it has acknowledged, which a repeat after a crash finds done.
	s, err := rabbit.New(rabbit.Config{URL: b.url("rabbit")})
	must(t, err)
	defer func() { _ = s.Close() }()
	inner := `{"message_id":"m","publisher_id":"p","event_type":"e","priority":"INFO","payload":{},"timestamp":"t","_unique_id":"u"}`
	m := notify.Message{ID: "m", Routing: "versioned_notifications.info", Body: fmt.Appendf(nil, `{"oslo.version":"2.0","oslo.message":%q}`, inner)}
	for _, after := range []string{"ka", "kb"} {
		if n, err := s.Send(t.Context(), []notify.Message{m}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		w.key(after) // what comes later is heard when the listener has acknowledged what came before
		l.until("a key pair after the message", func(h []heard) bool { times, _ := ends(h); return times[after] == 1 })
	}
	w.key("k2")
	got = l.until("a third key pair", func(h []heard) bool { times, _ := ends(h); return times["k2"] == 1 })
	if n := len(slices.DeleteFunc(got, func(h heard) bool { return h.Event != "e" })); n != 1 {
		t.Errorf("the repeated message was heard %d times", n)
	}
}

// killedBroker: while there is no broker messages wait; all come when it is there again.
func (b *broker) killedBroker() {
	t := b.t
	// The listener's client library declares what it reads as it is: another exchange keeps this apart from the queues that are not durable.
	w := newWorld(t, rabbit.Config{URL: b.url("rabbit"), Exchange: "lasting", Durable: true})
	b.kill()
	b.start()
	w.run()
	w.key("k0")
	first := b.listen("durable")
	first.until("the first", func(h []heard) bool { times, _ := ends(h); return times["k0"] == 1 })
	b.kill()
	for i := range 20 {
		w.key(fmt.Sprint("dark", i))
	}
	b.start()
	w.key("k1")
	got := first.until("those of the dark", func(h []heard) bool { times, _ := ends(h); return len(times) == 22 })
	_, ids := ends(got)
	for name, n := range ids {
		if n != 1 {
			t.Errorf("%s was told under %d ids", name, n)
		}
	}
}

// killedProcess: a whole Kilonova is killed while it makes and deletes servers; started again, it has told of the end of each once.
func (b *broker) killedProcess() {
	t := b.t
	l := b.listen()
	binary, err := process.Build(t.Context(), t.TempDir())
	must(t, err)
	p := process.Program{Path: binary, Dir: t.TempDir()}
	port := freePort(t)
	start := func() (*process.Proc, *process.Client) {
		t.Helper()
		x, err := p.Start(t.Context(), "up", "--compute-driver", "fake", "--listen", net.JoinHostPort("127.0.0.1", fmt.Sprint(port)), "--set", "identity.bcrypt_cost=4", "--set", "quota.instances=-1",
			"--set", "quota.cores=-1", "--set", "quota.ram=-1", "--set", "notifications.notification_format=versioned", "--set", "notifications.transport_url="+b.url("rabbit"))
		must(t, err)
		t.Cleanup(func() { _ = x.Kill() })
		c, err := process.Login(t.Context(), x.URL, p.Dir, "admin")
		must(t, err)
		return x, c
	}
	x, c := start()
	call := func(method, path string, body, out any) error {
		_, _, err := c.Do(t.Context(), method, "compute", path, body, out)
		return err
	}
	type doc = map[string]any
	must(t, call("POST", "/flavors", doc{"flavor": doc{"id": "n", "name": "n", "vcpus": 1, "ram": 64, "disk": 0}}, nil))
	var img struct{ ID string }
	must(t, second3(c.Do(t.Context(), "POST", "image", "/images", doc{"name": "i", "disk_format": "raw", "container_format": "bare"}, &img)))
	must(t, second3(c.Do(t.Context(), "PUT", "image", "/images/"+img.ID+"/file", make([]byte, 4096), nil)))
	accepted := map[string]bool{}
	for round := range 3 {
		const enough = 5
		var mu sync.Mutex
		busy, before := make(chan struct{}), len(accepted)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for {
					var out struct{ Server struct{ ID string } }
					if call("POST", "/servers", doc{"server": doc{"name": "s", "flavorRef": "n", "imageRef": img.ID, "networks": "none"}}, &out) != nil {
						return // killed
					}
					mu.Lock()
					if accepted[out.Server.ID] = true; len(accepted) == before+enough {
						close(busy)
					}
					mu.Unlock()
				}
			})
		}
		select {
		case <-busy:
		case <-time.After(patience):
			t.Fatal("hardly a server was accepted")
		}
		time.Sleep(time.Duration(50+100*round) * time.Millisecond) // somewhere among the boots; where does not matter
		must(t, x.Kill())
		wg.Wait()
		x, c = start()
	}
	finished := func(all []heard) map[string]map[string]bool {
		out := map[string]map[string]bool{}
		for _, h := range all {
			if h.Event != "instance.create.end" {
				continue
			}
			server := h.Payload.Data["uuid"].(string)
			if out[server] == nil {
				out[server] = map[string]bool{}
			}
			out[server][h.ID] = true
		}
		return out
	}
	got := finished(l.until("the end of every boot", func(all []heard) bool {
		f := finished(all)
		for id := range accepted {
			if f[id] == nil {
				return false
			}
		}
		return true
	}))
	for id, ids := range got {
		if len(ids) != 1 {
			t.Errorf("the end of server %s was told under %d ids", id, len(ids))
		}
	}
	t.Logf("%d servers accepted over three kills, %d ends told", len(accepted), len(got))
	if len(accepted) < 10 {
		t.Errorf("only %d servers were accepted: too few to show anything", len(accepted))
	}
	must(t, x.Stop())
}

func second3[A, B any](_ A, _ B, err error) error { return err }

func TestURL(t *testing.T) {
	for _, bad := range []string{"host", "http://u:secret@h/", "rabbit:///v", "rabbit://u:secret@h:port/", "rabbit://u:secret@h/v?heartbeat=1"} {
		_, err := rabbit.New(rabbit.Config{URL: bad})
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	for _, good := range []string{"rabbit://h/", "rabbit://u:p@h:1,u:p@[::1]:2/nova", "rabbit://u:p@h//", "amqps://h", "kombu://h/%2F?ssl=1"} {
		if _, err := rabbit.New(rabbit.Config{URL: good}); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}

// TestNobodyThere: a broker that is not there is an error at once, which does not tell the password.
func TestNobodyThere(t *testing.T) {
	s, err := rabbit.New(rabbit.Config{URL: fmt.Sprintf("rabbit://u:secret@127.0.0.1:%d/", freePort(t))})
	must(t, err)
	for range 2 {
		n, err := s.Send(t.Context(), []notify.Message{{Routing: "t.info"}})
		if n != 0 || err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%d %v", n, err)
		}
	}
}
