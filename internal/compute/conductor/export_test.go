package conductor

import (
	"context"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
)

// Silent has the conductor and the record believe that a host was last heard of so long ago. Tests kill an agent and call it instead of shortening
// service_down_time: hosts that live are then not given up when the machine pauses.
func (c *Conductor) Silent(ctx context.Context, name string, since time.Duration) error {
	then := clock.Now().Add(-since)
	err := c.cfg.DB.Write(ctx, func(tx *db.Tx) error { return c.cfg.Store.Heartbeat(ctx, tx, name, store.ComputeBinary, then) })
	if err != nil {
		return err
	}
	c.hosts.mu.Lock()
	defer c.hosts.mu.Unlock()
	c.hosts.since = then // as if the conductor had run all the while
	if h := c.hosts.byName[name]; h != nil {
		h.seen, h.written, h.put = then, then, time.Time{}
	}
	return nil
}
