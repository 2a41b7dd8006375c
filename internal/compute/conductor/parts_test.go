package conductor_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"kilonova/internal/compute"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/fault"
	"kilonova/internal/operation"
	"kilonova/internal/placement"
	placelocal "kilonova/internal/placement/local"
)

// machine has two NUMA nodes of 8 threads; CPUs 4 to 7 and 12 to 15 are dedicated.
func machine() fake.Config {
	return fake.Config{VCPUs: 16, MemoryMB: 16384, DiskGB: 1000, Hardware: fake.Hardware{Nodes: 2, Threads: 2, Dedicated: []int{4, 5, 6, 7, 12, 13, 14, 15}, Pages: map[int64]int64{2048: 1024},
		Devices: []compute.HostDevice{{VendorID: "10de", ProductID: "1eb8"}, {VendorID: "10de", ProductID: "1eb8"}, {VendorID: "10de", ProductID: "1eb8"}}}}
}

var errNoLuck = errors.New("no luck")

func gpus() []compute.PCIAlias {
	return []compute.PCIAlias{{Name: "gpu", VendorID: "10de", ProductID: "1eb8"}}
}

func pinned(vcpus int, specs ...string) func(*compute.Server) {
	return func(s *compute.Server) {
		s.Flavor.VCPUs, s.Flavor.ExtraSpecs = vcpus, map[string]string{"hw:cpu_policy": "dedicated"}
		for i := 0; i < len(specs); i += 2 {
			s.Flavor.ExtraSpecs[specs[i]] = specs[i+1]
		}
	}
}

// exclusive demands that nothing on any host is held twice and gives who holds how many CPUs and devices.
func (c *cloud) exclusive() (cpus, devices int) {
	c.t.Helper()
	held, err := c.store.HostClaims(c.ctx, c.db)
	c.must(err)
	who := map[string]string{}
	take := func(host, what, consumer string) {
		key := host + " " + what
		if who[key] != "" {
			c.t.Fatalf("%s is held by %s and %s", key, who[key], consumer)
		}
		who[key] = consumer
	}
	for _, h := range held {
		for _, cell := range h.Claim.Cells {
			for _, cpu := range cell.Pins {
				take(h.Host, fmt.Sprint("cpu ", cpu), h.Consumer)
				cpus++
			}
		}
		for _, d := range h.Claim.Addresses() {
			take(h.Host, d, h.Consumer)
			devices++
		}
	}
	return cpus, devices
}

// TestPartsOfHostsAreHeldOnce lets 40 servers ask for pinned CPUs, pages and devices at once where 16 CPUs and 6 devices are.
func TestPartsOfHostsAreHeldOnce(t *testing.T) {
	c := newCloud(t, options{aliases: gpus()})
	c.host("h1", machine())
	c.host("h2", machine())
	type want struct {
		s  *compute.Server
		op string
	}
	var all []want
	for i := range 40 {
		change := pinned(1, "hw:mem_page_size", "large")
		switch i % 4 {
		case 0:
			change = pinned(2, "hw:cpu_thread_policy", "require")
		case 1:
			change = pinned(1, "pci_passthrough:alias", "gpu:1", "hw:pci_numa_affinity_policy", "required")
		}
		s := c.record(change)
		all = append(all, want{s, c.create(s, compute.CreateInput{})})
	}
	built := 0
	for _, w := range all {
		r, err := c.engine.Wait(c.ctx, w.op)
		c.must(err)
		got := c.get(w.s.ID)
		switch {
		case r.State == operation.Done && got.Claim() == nil:
			t.Errorf("%s was built without its parts", w.s.ID)
		case r.State == operation.Done:
			built += got.Flavor.VCPUs
		case got.Claim() != nil || got.Fault == nil || !strings.Contains(got.Fault.Message, "No valid host"):
			t.Errorf("%s failed with %+v and holds %+v", w.s.ID, got.Fault, got.Claim())
		}
	}
	cpus, devices := c.exclusive()
	if cpus != built || cpus < 12 || devices > 6 || devices == 0 {
		t.Errorf("%d CPUs and %d devices are held, servers with %d CPUs were built", cpus, devices, built)
	}
	for _, w := range all {
		c.ends(c.accept(compute.OpDelete, w.s.ID, nil), operation.Done)
	}
	if cpus, devices := c.exclusive(); cpus+devices != 0 {
		t.Errorf("%d CPUs and %d devices are held after all servers are gone", cpus, devices)
	}
	s := c.record(pinned(4, "hw:numa_nodes", "1"))
	c.ends(c.create(s, compute.CreateInput{}), operation.Done)
	c.healthy()
}

// TestPartsOnTheMove: resize, revert, migration, evacuation, shelving and rebuild keep and free what belongs to the server.
func TestPartsOnTheMove(t *testing.T) {
	c := newCloud(t, options{aliases: gpus()})
	c.host("h1", machine())
	c.host("h2", machine())
	s := c.record(pinned(2, "pci_passthrough:alias", "gpu:1"))
	c.ends(c.create(s, compute.CreateInput{}), operation.Done)
	first := c.get(s.ID)
	expect := func(what string, cpus, devices int) *compute.Server {
		t.Helper()
		got := c.get(s.ID)
		hadCPUs, hadDevices := c.exclusive()
		if hadCPUs != cpus || hadDevices != devices {
			t.Fatalf("%s: %d CPUs and %d devices are held, want %d and %d", what, hadCPUs, hadDevices, cpus, devices)
		}
		c.healthy()
		return got
	}
	expect("built", 2, 1)
	large := first.Flavor
	large.FlavorID, large.Name, large.VCPUs = "2", "large", 4
	c.ends(c.accept(compute.OpResize, s.ID, compute.ResizeInput{Flavor: large}), operation.Done)
	expect("resized", 6, 2)
	c.ends(c.accept(compute.OpRevertResize, s.ID, nil), operation.Done)
	if got := expect("reverted", 2, 1); !slices.Equal(got.Claim().Devices, first.Claim().Devices) || got.Claim().Cells[0].Pins[0] != first.Claim().Cells[0].Pins[0] {
		t.Errorf("after the revert it holds %+v, before %+v", got.Claim(), first.Claim())
	}
	plain := large
	plain.FlavorID, plain.ExtraSpecs = "3", nil
	c.ends(c.accept(compute.OpResize, s.ID, compute.ResizeInput{Flavor: large}), operation.Done)
	c.ends(c.accept(compute.OpConfirmResize, s.ID, nil), operation.Done)
	if got := expect("confirmed", 4, 1); len(got.Claim().Cells[0].Pins) != 4 {
		t.Errorf("%+v", got.Claim())
	}
	r := c.ends(c.accept(compute.OpLiveMigrate, s.ID, compute.LiveMigrateInput{}), operation.Undone)
	if !strings.Contains(r.Cause, "PCI devices") {
		t.Errorf("live migration with a device: %s", r.Cause)
	}
	c.fault("h1", "finish-resize", errNoLuck)
	c.fault("h2", "finish-resize", errNoLuck)
	c.ends(c.accept(compute.OpResize, s.ID, compute.ResizeInput{Migrate: true, Flavor: large}), operation.Undone)
	expect("failed migration", 4, 1)
	c.fault("h1", "finish-resize", nil)
	c.fault("h2", "finish-resize", nil)
	c.ends(c.accept(compute.OpShelve, s.ID, compute.ShelveInput{Offload: true}), operation.Done)
	expect("offloaded", 0, 0)
	c.ends(c.accept(compute.OpUnshelve, s.ID, compute.UnshelveInput{}), operation.Done)
	expect("unshelved", 4, 1)
	c.ends(c.accept(compute.OpResize, s.ID, compute.ResizeInput{Flavor: plain}), operation.Done)
	expect("resized to a flavor without parts", 4, 1)
	c.ends(c.accept(compute.OpConfirmResize, s.ID, nil), operation.Done)
	if got := expect("nothing left", 0, 0); got.Claim() != nil {
		t.Errorf("%+v", got.Claim())
	}
}

// TestPartsOfServersThatLeaveRunning: a live migration and an evacuation take the pinned CPUs at the destination and free those that were left.
func TestPartsOfServersThatLeaveRunning(t *testing.T) {
	c := newCloud(t, options{})
	kill := map[string]func(){"h1": c.host("h1", machine()), "h2": c.host("h2", machine())}
	s := c.record(pinned(2, "hw:cpu_thread_policy", "isolate"))
	c.ends(c.create(s, compute.CreateInput{}), operation.Done)
	was := c.get(s.ID).Host
	where := func(cpus int) string {
		t.Helper()
		if n, _ := c.exclusive(); n != cpus {
			t.Fatalf("%d CPUs are held, want %d", n, cpus)
		}
		held, err := c.store.HostClaims(c.ctx, c.db)
		c.must(err)
		if len(held) != 1 || len(held[0].Claim.Cells) != 1 || len(held[0].Claim.Cells[0].Blocked) != 2 {
			t.Fatalf("held %+v", held)
		}
		return held[0].Host
	}
	c.ends(c.accept(compute.OpLiveMigrate, s.ID, compute.LiveMigrateInput{}), operation.Done)
	now := c.get(s.ID)
	if now.Host == was || where(2) != now.Host || now.Claim() == nil {
		t.Fatalf("moved from %s to %s, its CPUs are on %s", was, now.Host, where(2))
	}
	c.dies(now.Host, kill[now.Host])
	c.ends(c.accept(compute.OpEvacuate, s.ID, compute.EvacuateInput{}), operation.Done)
	if got := c.get(s.ID); got.Host != was || where(2) != was {
		t.Errorf("evacuated to %s, its CPUs are on %s", got.Host, where(2))
	}
}

// forgetful is a placement service that carries out the next claim of a move and then loses its database before it can say so.
type forgetful struct {
	*placelocal.Service
	lose *atomic.Bool
}

func (f forgetful) ClaimAll(ctx context.Context, cs []placement.Consumer, as []placement.Allocations) error {
	err := f.Service.ClaimAll(ctx, cs, as)
	if err == nil && len(cs) > 1 && f.lose.CompareAndSwap(true, false) {
		return fault.Wrap(fault.ErrAway, fault.Unavailable, "The database cannot be reached. Try again.")
	}
	return err
}

// TestPartsOfAClaimWithoutAnAnswer: a claim that was made although nobody heard of it has its parts.
func TestPartsOfAClaimWithoutAnAnswer(t *testing.T) {
	lose := &atomic.Bool{}
	c := newCloud(t, options{place: func(s *placelocal.Service) placement.Service { return forgetful{s, lose} }})
	c.host("h1", machine())
	s := c.record(pinned(2))
	c.ends(c.create(s, compute.CreateInput{}), operation.Done)
	large := c.get(s.ID).Flavor
	large.FlavorID, large.Name, large.VCPUs = "2", "large", 4
	lose.Store(true)
	c.ends(c.accept(compute.OpResize, s.ID, compute.ResizeInput{Flavor: large}), operation.Done)
	if cpus, _ := c.exclusive(); cpus != 6 || lose.Load() {
		t.Errorf("%d CPUs are held, want the 2 before and the 4 after the resize", cpus)
	}
	if got := c.get(s.ID).Claim(); got == nil || len(got.Cells) != 1 || len(got.Cells[0].Pins) != 4 {
		t.Errorf("the server has %+v", got)
	}
	c.ends(c.accept(compute.OpConfirmResize, s.ID, nil), operation.Done)
	c.healthy()
}
