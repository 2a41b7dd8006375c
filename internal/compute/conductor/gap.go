package conductor

import (
	"sync"
	"time"

	"kilonova/internal/db"
)

// gap is the last time for which the database was away. Heartbeats that went to other processes meanwhile are not on record, and are not at once when it is back: hosts of which
// nothing was heard for that reason count as they did before.
type gap struct {
	mu     sync.RWMutex
	open   bool
	read   time.Time // when the hosts were last read
	began  time.Time // when they were last read before it
	closed time.Time // when they could be read again
}

// settled is how long after the database's return every host that lives is on record again.
const settled = 2 * beatEvery

// tried takes how a reading ended.
func (g *gap) tried(err error, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case err == nil:
		if g.open {
			g.open, g.closed = false, now
		}
		g.read = now
	case db.IsAway(err) && !g.open:
		if g.open = true; now.Sub(g.closed) > settled { // else it is the same gap
			g.began = g.read
		}
	}
}

// silence is for how long nothing has been heard of a host although it could have been.
func (g *gap) silence(seen, now time.Time) time.Duration {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if (g.open || now.Sub(g.closed) <= settled) && !g.began.IsZero() {
		now = g.began
	}
	return now.Sub(seen)
}
