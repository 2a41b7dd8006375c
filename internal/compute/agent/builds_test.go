package agent_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kilonova/internal/compute/agent"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/id"
)

// crowded is the fake driver; it counts the guests that it is making.
type crowded struct {
	*fake.Driver
	mu        sync.Mutex
	now, most int
}

func (c *crowded) Spawn(ctx context.Context, s *virt.Spec) error {
	c.mu.Lock()
	c.now++
	c.most = max(c.most, c.now)
	c.mu.Unlock()
	time.Sleep(10 * time.Millisecond) // long enough for others to come, were they let in
	defer func() {
		c.mu.Lock()
		c.now--
		c.mu.Unlock()
	}()
	return c.Driver.Spawn(ctx, s)
}

func TestGuestsMadeAtOnce(t *testing.T) {
	r := newRig(t)
	d := &crowded{Driver: fake.New(fake.Config{DB: r.hyper, Host: "h"})}
	a, err := agent.New(agent.Config{Host: "h", NodeID: id.UUID(), Bus: r.bus, DB: r.journal, Look: time.Hour, Driver: d, MaxBuilds: 2})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- a.Run(ctx, func() { close(ready) }) }()
	<-ready
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			server := id.UUID()
			c := command.Command{Operation: "op", Step: "build", Attempt: 1, Epoch: 1, Server: server, Verb: command.Spawn}
			if err := r.client.Do(ctx, "h", c, command.SpawnArgs{Spec: virt.Spec{ID: server, Name: "i", VCPUs: 1, MemoryMB: 64}}, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if d.most > 2 {
		t.Errorf("%d guests were made at once", d.most)
	}
}

// mute is a driver whose hypervisor does not answer once it was told so.
type mute struct {
	*fake.Driver
	silent atomic.Bool
}

func (m *mute) Info(ctx context.Context) (*virt.HostInfo, error) {
	if m.silent.Load() {
		return nil, errors.New("no socket")
	}
	return m.Driver.Info(ctx)
}

func TestAHypervisorThatDoesNotAnswerIsReported(t *testing.T) {
	r := newRig(t)
	d := &mute{Driver: fake.New(fake.Config{DB: r.hyper, Host: "h"})}
	a, err := agent.New(agent.Config{Host: "h", NodeID: id.UUID(), Bus: r.bus, DB: r.journal, Look: time.Hour, Report: 2 * time.Millisecond, Driver: d, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- a.Run(ctx, func() { close(ready) }) }()
	<-ready
	d.silent.Store(true)
	waitFor(t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		last := r.reports[len(r.reports)-1]
		return last.Trouble == "no socket" && last.Info == nil && last.Host == "h"
	})
	d.silent.Store(false)
	waitFor(t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		last := r.reports[len(r.reports)-1]
		return last.Trouble == "" && last.Info != nil
	})
	cancel()
	if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
