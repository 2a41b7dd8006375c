package flow

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"kilonova/internal/bus"
	"kilonova/internal/bus/nats"
	"kilonova/internal/compute/agent"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/db"
	"kilonova/internal/id"
)

// realHosts are agents with fake hypervisors instead of the model's hosts.
type realHosts struct {
	w      *world
	bus    bus.Bus
	db     *db.DB
	dir    string
	client *command.Client
	stops  map[string]func()
	nodes  map[string]string
}

// makeReal puts real agents in the place of the model's hosts.
func (w *world) makeReal() {
	w.t.Helper()
	b, err := nats.Open(nats.Config{Name: "t"}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	dir := w.t.TempDir()
	d, err := db.Open(w.t.Context(), "sqlite:"+filepath.Join(dir, "hosts.db"))
	if err != nil {
		w.t.Fatal(err)
	}
	if err := errors.Join(agent.Prepare(w.t.Context(), d), fake.Prepare(w.t.Context(), d)); err != nil {
		w.t.Fatal(err)
	}
	h := &realHosts{w: w, bus: b, db: d, dir: dir, client: &command.Client{Bus: b}, stops: map[string]func(){}, nodes: map[string]string{}}
	for _, subject := range []string{command.RegisterSubject, command.MineSubject, command.FinishedSubject, command.GuestSubject, command.PortStatusSubject, command.MetadataSubject} {
		if _, err := b.Serve(subject, "conductor", func(context.Context, string, []byte) ([]byte, error) { return []byte("{}"), nil }); err != nil {
			w.t.Fatal(err)
		}
	}
	w.t.Cleanup(func() {
		for host := range w.hosts {
			h.kill(host)
		}
		if err := errors.Join(b.Close(), d.Close()); err != nil {
			w.t.Error(err)
		}
	})
	w.real = h
	for host := range w.hosts {
		h.nodes[host] = id.UUID()
		h.start(host)
	}
}

func (h *realHosts) driver(host string) *fake.Driver {
	return fake.New(fake.Config{DB: h.db, Host: host})
}

func (h *realHosts) start(host string) {
	a, err := agent.New(agent.Config{Host: host, NodeID: h.nodes[host], Bus: h.bus, DB: h.db, Driver: h.driver(host), Images: h.w.imgs, Dir: filepath.Join(h.dir, host),
		Look: time.Hour, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		h.w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(h.w.t.Context()))
	up, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- a.Run(ctx, func() { close(up) }) }()
	h.stops[host] = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			h.w.t.Errorf("agent of %s: %v", host, err)
		}
	})
	select {
	case <-up:
	case <-time.After(patience):
		h.w.t.Fatalf("agent of %s did not come up", host)
	}
}

func (h *realHosts) kill(host string) {
	if stop := h.stops[host]; stop != nil {
		stop()
	}
}

func (h *realHosts) guests(host string) map[string]virt.PowerState {
	gs, err := h.driver(host).Guests(context.Background())
	if err != nil {
		h.w.t.Fatal(err)
	}
	out := map[string]virt.PowerState{}
	for _, g := range gs {
		out[g.ID] = g.Power
	}
	return out
}

// restartAgents kills every agent and starts those of hosts that are up again.
func (w *world) restartAgents() {
	if w.real == nil {
		return
	}
	for host := range w.hosts {
		w.real.kill(host)
		if !w.down[host] {
			w.real.start(host)
		}
	}
}
