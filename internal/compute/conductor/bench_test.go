package conductor_test

import (
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"kilonova/internal/compute"
	"kilonova/internal/compute/virt/fake"
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
