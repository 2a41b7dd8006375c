package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// sample runs f n times by so many callers at once and gives the sorted times and the wall time.
func sample(n, callers int, f func(i int) error) ([]time.Duration, time.Duration, error) {
	times := make([]time.Duration, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first error
	began := time.Now()
	for range callers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				t := time.Now()
				if err := f(i); err != nil {
					mu.Lock()
					if first == nil {
						first = err
					}
					mu.Unlock()
					return
				}
				times[i] = time.Since(t)
			}
		})
	}
	wg.Wait()
	wall := time.Since(began)
	slices.Sort(times)
	return times, wall, first
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func quantile(t []time.Duration, q float64) float64 {
	return ms(t[min(len(t)-1, int(q*float64(len(t))))])
}

func (f figures) latencies(name string, t []time.Duration, wall time.Duration) {
	f.put(name+" p50", quantile(t, .5), "ms")
	f.put(name+" p99", quantile(t, .99), "ms")
	f.put(name+" rate", float64(len(t))/wall.Seconds(), "/s")
}

// measureServers boots, reads and deletes servers on ten hosts.
func measureServers(ctx context.Context, o options, out figures) (err error) {
	c, _, err := startCloud(o, filepath.Join(o.dir, "servers"), 10)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	cl, err := login(ctx, c)
	if err != nil {
		return err
	}
	if err := cl.prepare(ctx); err != nil {
		return err
	}
	if err := cl.bootAndDelete(ctx, 20, 4); err != nil { // warm
		return err
	}
	for _, callers := range []int{1, 8, 32} {
		n := o.servers
		if callers == 1 {
			n = min(n, 300)
		}
		name := fmt.Sprintf("POST /servers, %d callers,", callers)
		cpu := c.cpu()
		ids := make([]string, n)
		began := time.Now()
		t, wall, err := sample(n, callers, func(i int) (err error) { ids[i], err = cl.create(ctx, fmt.Sprintf("s%d", i)); return err })
		if err != nil {
			return err
		}
		out.latencies(name, t, wall)
		if err := cl.waitActive(ctx, n); err != nil {
			return err
		}
		out.put(fmt.Sprintf("%d servers to ACTIVE, %d callers", n, callers), float64(n)/time.Since(began).Seconds(), "/s")
		out.put(fmt.Sprintf("CPU of a boot, %d callers", callers), 1000*(c.cpu()-cpu)/float64(n), "ms")
		if callers == 32 {
			if err := cl.reads(ctx, out, ids); err != nil {
				return err
			}
			m, err := c.memory()
			if err != nil {
				return err
			}
			out.put(fmt.Sprintf("memory (PSS) with %d servers", n), m, "MiB")
		}
		if err := cl.deletes(ctx, out, ids, callers); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) reads(ctx context.Context, out figures, ids []string) error {
	for _, r := range []struct {
		name, service, path string
		n, callers          int
	}{
		{"GET /servers/detail?limit=1000", "compute", "/servers/detail?limit=1000", 30, 1},
		{"GET /servers/detail?limit=100", "compute", "/servers/detail?limit=100", 200, 1},
		{"GET /servers/detail?limit=100, 8 callers,", "compute", "/servers/detail?limit=100", 400, 8},
		{"GET /servers/{id}", "compute", "/servers/" + ids[0], 1000, 1},
		{"GET /servers/{id}, 8 callers,", "compute", "/servers/" + ids[0], 4000, 8},
		{"GET /flavors/detail", "compute", "/flavors/detail", 1000, 1},
	} {
		t, wall, err := sample(r.n, r.callers, func(int) error { return c.do(ctx, "GET", r.service, r.path, nil, nil) })
		if err != nil {
			return err
		}
		out.latencies(r.name, t, wall)
	}
	t, wall, err := sample(12, 1, func(int) error { return c.authenticate(ctx) })
	if err != nil {
		return err
	}
	out.latencies("token issue (bcrypt cost 12)", t, wall)
	return nil
}

func (c *client) deletes(ctx context.Context, out figures, ids []string, callers int) error {
	began := time.Now()
	t, wall, err := sample(len(ids), callers, func(i int) error { return c.do(ctx, "DELETE", "compute", "/servers/"+ids[i], nil, nil) })
	if err != nil {
		return err
	}
	out.latencies(fmt.Sprintf("DELETE /servers/{id}, %d callers,", callers), t, wall)
	if err := c.waitGone(ctx); err != nil {
		return err
	}
	out.put(fmt.Sprintf("%d servers deleted, %d callers", len(ids), callers), float64(len(ids))/time.Since(began).Seconds(), "/s")
	return nil
}

// measureCandidates asks placement with many providers.
func measureCandidates(ctx context.Context, o options, out figures, hosts int) (err error) {
	c, took, err := startCloud(o, filepath.Join(o.dir, fmt.Sprintf("hosts%d", hosts)), hosts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	out.put(fmt.Sprintf("start with %d hosts registered", hosts), ms(took), "ms")
	cl, err := login(ctx, c)
	if err != nil {
		return err
	}
	for _, limit := range []string{"", "&limit=10"} {
		path := "/allocation_candidates?resources=VCPU:1,MEMORY_MB:512,DISK_GB:1" + limit
		t, wall, err := sample(50, 1, func(int) error { return cl.do(ctx, "GET", "placement", path, nil, nil) })
		if err != nil {
			return err
		}
		out.latencies(fmt.Sprintf("allocation candidates, %d hosts%s", hosts, limit), t, wall)
	}
	m, err := c.memory()
	if err != nil {
		return err
	}
	out.put(fmt.Sprintf("memory (PSS) with %d hosts", hosts), m, "MiB")
	return nil
}

// measureHosts boots servers on many hosts and says how far the memory grew and what of it is given back.
func measureHosts(ctx context.Context, o options, out figures) (err error) {
	c, took, err := startCloud(o, filepath.Join(o.dir, "manyhosts"), o.hosts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	name := fmt.Sprintf("%d hosts", o.hosts)
	out.put("start with "+name, ms(took), "ms")
	cl, err := login(ctx, c)
	if err != nil {
		return err
	}
	if err := cl.prepare(ctx); err != nil {
		return err
	}
	if err := cl.bootAndDelete(ctx, 4, 4); err != nil { // warm
		return err
	}
	time.Sleep(10 * time.Second)
	before, err := c.memory()
	if err != nil {
		return err
	}
	out.put("memory (PSS) with "+name+" at rest", before, "MiB")
	if _, err := c.peak(); err != nil {
		return err
	}
	began, cpu := time.Now(), c.cpu()
	t, wall, err := sample(o.servers, 32, func(i int) error { _, err := cl.create(ctx, fmt.Sprintf("s%d", i)); return err })
	if err != nil {
		return err
	}
	out.latencies("POST /servers, "+name+", 32 callers,", t, wall)
	if err := cl.waitActive(ctx, o.servers); err != nil {
		return err
	}
	out.put(fmt.Sprintf("%d servers to ACTIVE, %s", o.servers, name), float64(o.servers)/time.Since(began).Seconds(), "/s")
	out.put("CPU of a boot, "+name, 1000*(c.cpu()-cpu)/float64(o.servers), "ms")
	most, err := c.peak()
	if err != nil {
		return err
	}
	out.put("most memory (RSS) during the boots, "+name, most, "MiB")
	time.Sleep(30 * time.Second)
	after, err := c.memory()
	out.put("memory (PSS) half a minute later, "+name, after, "MiB")
	return err
}
