package local

import (
	"crypto/sha256"
	"sync"
	"time"

	"kilonova/internal/auth"
	"kilonova/internal/clock"
	"kilonova/internal/identity"
)

type tokenKey [sha256.Size]byte

// verified is a token that was found valid.
type verified struct {
	token  *identity.Token
	caller auth.Caller
	until  time.Time // the end of belief: CacheTTL, or the token's own expiry when that is sooner
}

// cache keeps verified tokens in two generations: when the young one is full it becomes the old one, and what was not asked for since is gone.
type cache struct {
	limit int // of one generation
	ttl   time.Duration

	mu         sync.RWMutex
	young, old map[tokenKey]*verified
	version    uint64 // rises with every change that may make an entry wrong
}

func newCache(size int, ttl time.Duration) *cache {
	return &cache{limit: max(size/2, 1), ttl: ttl, young: map[tokenKey]*verified{}, old: map[tokenKey]*verified{}}
}

// get gives the entry of a token, nil when there is none that holds now.
func (c *cache) get(k tokenKey) *verified {
	c.mu.RLock()
	v, fresh := c.young[k]
	if !fresh {
		v = c.old[k]
	}
	c.mu.RUnlock()
	if v == nil || !clock.Now().Before(v.until) {
		return nil
	}
	if !fresh {
		c.mu.Lock()
		if c.old[k] == v { // not dropped meanwhile
			c.add(k, v)
		}
		c.mu.Unlock()
	}
	return v
}

// begin gives the version before the database is read for an entry.
func (c *cache) begin() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.version
}

// put remembers a token unless something changed since begin gave version.
func (c *cache) put(k tokenKey, t *identity.Token, version uint64) *verified {
	v := &verified{token: t, caller: *t.Caller(), until: clock.Now().Add(c.ttl)}
	if t.ExpiresAt.Before(v.until) {
		v.until = t.ExpiresAt
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version == version {
		c.add(k, v)
	}
	return v
}

func (c *cache) add(k tokenKey, v *verified) {
	if len(c.young) >= c.limit {
		c.old, c.young = c.young, make(map[tokenKey]*verified, c.limit/4)
	}
	c.young[k] = v
}

// drop forgets the tokens for which hit is true.
func (c *cache) drop(hit func(*identity.Token) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version++
	for _, m := range []map[tokenKey]*verified{c.young, c.old} {
		for k, v := range m {
			if hit(v.token) {
				delete(m, k)
			}
		}
	}
}

// unless runs keep when nothing changed since begin gave version.
func (c *cache) unless(version uint64, keep func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version == version {
		keep()
	}
}
