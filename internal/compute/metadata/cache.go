package metadata

import (
	"context"
	"sync"
	"time"

	"kilonova/internal/clock"
)

// cacheFor is how long a guest may see old content. Guests ask for dozens of files in a row when they boot.
const cacheFor = 15 * time.Second

// cache keeps contents by key. Several requests for the same key share one look-up. Failures are not kept.
type cache struct {
	mu   sync.Mutex
	max  int
	m    map[Key]*entry
	last time.Time // when old entries were dropped
}

type entry struct {
	done    chan struct{} // closed when content or err is there
	content *Content
	err     error
	until   time.Time
}

func newCache(size int) *cache { return &cache{max: size, m: map[Key]*entry{}} }

func (c *cache) get(ctx context.Context, k Key, l Lookup) (*Content, error) {
	if c.max < 0 {
		return l.Lookup(ctx, k)
	}
	for {
		e, mine := c.claim(k)
		if mine {
			return c.fill(ctx, k, e, l)
		}
		select {
		case <-e.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if e.err == nil {
			return e.content, nil
		}
		// The one who looked failed, perhaps because his own request was cut off: look again.
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// claim gives the entry of a key, and whether the caller must fill it.
func (c *cache) claim(k Key) (*entry, bool) {
	now := clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.m[k]; e != nil && (e.until.IsZero() || now.Before(e.until)) {
		return e, false
	}
	if len(c.m) >= c.max || now.Sub(c.last) > cacheFor {
		c.drop(now)
	}
	e := &entry{done: make(chan struct{})}
	c.m[k] = e
	return e, true
}

// drop removes what is old and, when that is not enough, whatever comes first.
func (c *cache) drop(now time.Time) {
	c.last = now
	for k, e := range c.m {
		if !e.until.IsZero() && now.After(e.until) {
			delete(c.m, k)
		}
	}
	for k, e := range c.m {
		if len(c.m) < c.max {
			return
		}
		if !e.until.IsZero() {
			delete(c.m, k)
		}
	}
}

func (c *cache) fill(ctx context.Context, k Key, e *entry, l Lookup) (*Content, error) {
	finished := false
	defer func() {
		c.mu.Lock()
		if e.err != nil || !finished {
			if c.m[k] == e {
				delete(c.m, k)
			}
			if !finished { // the look-up panicked: let the others try
				e.err = context.Canceled
			}
		}
		e.until = clock.Now().Add(cacheFor)
		c.mu.Unlock()
		close(e.done)
	}()
	e.content, e.err = l.Lookup(ctx, k)
	finished = true
	return e.content, e.err
}

func (c *cache) forget(serverID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, e := range c.m {
		select {
		case <-e.done:
		default:
			continue // still being looked up
		}
		if k.ServerID == serverID || e.content != nil && e.content.ServerID() == serverID {
			delete(c.m, k)
		}
	}
}
