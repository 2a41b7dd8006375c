package conductor_test

import (
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"kilonova/internal/compute"
	"kilonova/internal/compute/virt/fake"
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
	work := make(chan *compute.Server)
	ops := make(chan string, b.N)
	b.ResetTimer()
	began := time.Now()
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for s := range work {
				ops <- c.create(s, compute.CreateInput{})
			}
		})
	}
	for range b.N {
		work <- c.record(nil)
	}
	close(work)
	wg.Wait()
	close(ops)
	for op := range ops {
		if _, err := c.engine.Wait(b.Context(), op); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "servers/s")
}
