package conductor

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// refreshAtMost is up to how many servers a host may have for its interfaces to be looked at as soon as its network changes; the loop over all servers
// reaches the others.
const refreshAtMost = 100

// dirtyHosts are those whose network changed.
type dirtyHosts struct {
	mu    sync.Mutex
	names map[string]bool
}

func (d *dirtyHosts) add(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names == nil {
		d.names = map[string]bool{}
	}
	d.names[name] = true
}

func (d *dirtyHosts) take() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := slices.Collect(maps.Keys(d.names))
	clear(d.names)
	return out
}

// networkChanged notes that the network of a host changed.
func (c *Conductor) networkChanged(_ context.Context, _ string, msg []byte) ([]byte, error) {
	if len(msg) > 0 {
		c.dirty.add(string(msg))
	}
	return nil, nil
}

// refreshDirty brings the cached interfaces of servers on changed hosts up to date, until ctx ends: at most once a second, and one host after the other with pauses
// between them, so that in a large cloud, where a change of one network concerns every host, it never takes more than a sixteenth of a processor from what else is
// to be done.
func (c *Conductor) refreshDirty(ctx context.Context) {
	pause := func(d time.Duration) bool {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-ctx.Done():
			return false
		case <-t.C:
			return true
		}
	}
	for pause(time.Second) {
		for _, name := range c.dirty.take() {
			began := time.Now()
			if h, ok := c.hosts.get(name); !ok || h.load.Servers > refreshAtMost {
				continue
			}
			ss, err := c.cfg.Store.ServersOnHost(ctx, c.cfg.DB, name)
			if err == nil {
				err = c.rec.RefreshInterfaces(ctx, ss...)
			}
			if err != nil && ctx.Err() == nil {
				c.log.Warn("cached interfaces could not be renewed", "host", name, "error", err)
			}
			if !pause(15 * time.Since(began)) {
				return
			}
		}
	}
}
