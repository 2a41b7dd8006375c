package agent_test

import (
	"context"
	"sync"
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
