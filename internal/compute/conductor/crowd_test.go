package conductor_test

import (
	"sync"
	"testing"

	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/flow"
	"kilonova/internal/compute/virt"
	"kilonova/internal/id"
)

// TestACrowdFindsTheLastHosts: as many servers as hosts, each of which has room for one, ask for a place at the same moment. Each finds one, however many of the best
// were taken before it.
func TestACrowdFindsTheLastHosts(t *testing.T) {
	c := newCloud(t, options{})
	const n = 40
	for i := range n {
		info := &virt.HostInfo{Hostname: name(i), VCPUs: 64, MemoryMB: 262144, DiskGB: 10000, HypervisorType: "fake", HypervisorVersion: 1}
		ask[command.RegisterReply](c, command.RegisterSubject, command.HostReport{Host: name(i), NodeID: id.UUID(), Start: "x", Info: info})
	}
	want := func() flow.Want {
		s := c.record(func(s *compute.Server) { s.Flavor.RAMMB = 200000 })
		return flow.Want{Server: s, Flavor: s.Flavor}
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	on := map[string]int{}
	for range n {
		wg.Go(func() {
			p, err := c.con.Place(c.ctx, want())
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
				return
			}
			on[p.Host]++
		})
	}
	wg.Wait()
	if len(on) != n {
		t.Errorf("%d hosts have a server, want %d: %v", len(on), n, on)
	}
	if p, err := c.con.Place(c.ctx, want()); err == nil {
		t.Errorf("one more found a place on %s", p.Host)
	}
}
