package conductor_test

import (
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/flow"
	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/id"
	"kilonova/internal/operation"
)

// BenchmarkCreate is how many servers a second become ACTIVE: accepted by 32 callers, built by fake hosts. KILONOVA_BENCH_HOSTS sets how many hosts.
func BenchmarkCreate(b *testing.B) {
	c := newCloud(b, options{})
	hosts := 10
	if n, err := strconv.Atoi(os.Getenv("KILONOVA_BENCH_HOSTS")); err == nil {
		hosts = n
	}
	for i := range hosts {
		c.host(name(i), fake.Config{})
	}
	b.ResetTimer()
	c.pour(b, func() string { return c.create(c.record(nil), compute.CreateInput{}) })
}

// BenchmarkDelete is how many servers a second are gone.
func BenchmarkDelete(b *testing.B) {
	c := newCloud(b, options{})
	for i := range 10 {
		c.host(name(i), fake.Config{})
	}
	ids := make(chan string, b.N)
	c.pour(b, func() string {
		s := c.record(nil)
		ids <- s.ID
		return c.create(s, compute.CreateInput{})
	})
	b.ResetTimer()
	c.pour(b, func() string { return c.accept(compute.OpDelete, <-ids, nil) })
}

// pour accepts b.N operations from 32 callers and waits for all of them.
func (c *cloud) pour(b *testing.B, accept func() string) {
	work := make(chan bool)
	ops := make(chan string, b.N)
	began := time.Now()
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for range work {
				ops <- accept()
			}
		})
	}
	for range b.N {
		work <- true
	}
	close(work)
	wg.Wait()
	close(ops)
	for op := range ops {
		r, err := c.engine.Wait(b.Context(), op)
		if err != nil || r.State != operation.Done {
			b.Fatalf("%+v: %v", r, err)
		}
	}
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "servers/s")
}

// BenchmarkPlace is the choice of a host and its claim, by the number of hosts that are up.
func BenchmarkPlace(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			c := newCloud(b, options{})
			for i := range n {
				info := &virt.HostInfo{Hostname: name(i), VCPUs: 64, MemoryMB: 262144, DiskGB: 10000, HypervisorType: "fake", HypervisorVersion: 1}
				ask[command.RegisterReply](c, command.RegisterSubject, command.HostReport{Host: name(i), NodeID: id.UUID(), Start: "x", Info: info})
			}
			b.ResetTimer()
			for range b.N {
				s := c.record(nil)
				if _, err := c.con.Place(c.ctx, flow.Want{Server: s, Flavor: s.Flavor}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
