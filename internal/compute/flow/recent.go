package flow

import (
	"sync"

	"kilonova/internal/compute"
)

// recent keeps, for a few operations that are being carried out, the server as a step has just read it, so that the steps behind it need not read it
// again. It is only a saving: it may forget at any time.
type recent struct {
	mu sync.Mutex
	m  map[string]*compute.Server // by operation
}

const mostRecent = 2048

func (c *recent) keep(op string, s *compute.Server) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.m) >= mostRecent {
		for k := range c.m { // any: operations that were cut off leave theirs behind
			delete(c.m, k)
			break
		}
	}
	c.m[op] = s
}

func (c *recent) get(op string) *compute.Server {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m[op]
}

func (c *recent) drop(op string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.m, op)
}
