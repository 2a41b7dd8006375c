package conductor_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute"
	"kilonova/internal/compute/scheduler"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/network"
	netlocal "kilonova/internal/network/local"
	"kilonova/internal/operation"
	"kilonova/internal/placement"
)

// routed is a cloud of four hosts, h0 and h1 joined to one segment of the network routed, h2 and h3 to the other; segments and subnets are by physical network.
func routedCloud(t *testing.T, ask bool) (c *cloud, net string, segments, subnets map[string]string) {
	c = newCloud(t, options{planner: func(cfg *scheduler.Config) { cfg.QueryPlacementForRoutedNetworkAggregate = ask }})
	for i, physical := range []string{"east", "east", "west", "west"} {
		c.host(name(i), fake.Config{})
		c.must(c.nets.SetPhysical(c.ctx, name(i), []string{physical}))
	}
	segments, subnets = map[string]string{}, map[string]string{}
	c.must(c.nets.Do(c.ctx, func(ch *netlocal.Change) error {
		n := &network.Network{Name: "routed", ProjectID: "p", AdminStateUp: true, PortSecurity: true, ProviderType: "flat", ProviderPhysical: "east",
			Segments: []network.Segment{{Type: "flat", Physical: "east"}, {Type: "flat", Physical: "west"}}}
		if err := ch.CreateNetwork(n); err != nil {
			return err
		}
		net = n.ID
		for i, s := range n.Segments {
			segments[s.Physical] = s.ID
			sub, err := ch.CreateSubnet(&netlocal.SubnetRequest{Subnet: network.Subnet{ProjectID: "p", NetworkID: n.ID, CIDR: []string{"10.1.0.0/24", "10.2.0.0/24"}[i], DHCP: true, SegmentID: s.ID}})
			if err != nil {
				return err
			}
			subnets[s.Physical] = sub.ID
		}
		return nil
	}))
	return c, net, segments, subnets
}

// side is the physical network of a host.
func side(host string) string {
	if host == "h0" || host == "h1" {
		return "east"
	}
	return "west"
}

// fits demands that a server's address is of the segment of its host, and gives the physical network of that.
func (c *cloud) fits(server string, subnets map[string]string) string {
	c.t.Helper()
	s := c.get(server)
	for _, v := range s.VIFs {
		vifs, err := c.nets.VIFs(c.ctx, v.PortID)
		c.must(err)
		if len(vifs) != 1 || len(vifs[0].FixedIPs) != 1 || vifs[0].FixedIPs[0].SubnetID != subnets[side(s.Host)] {
			c.t.Errorf("%s on %s has %+v", server, s.Host, vifs)
		}
	}
	if len(s.VIFs) != 1 {
		c.t.Errorf("%s has interfaces %v", server, s.VIFs)
	}
	return side(s.Host)
}

// TestRoutedNetworkIsMirrored: a segment is an aggregate of its hosts and a provider of addresses in it, until its subnets go.
func TestRoutedNetworkIsMirrored(t *testing.T) {
	c, _, segments, subnets := routedCloud(t, true)
	seen := func(physical string) (hosts []string, p *placement.Provider) {
		aggs, err := c.store.Aggregates(c.ctx, c.db)
		c.must(err)
		i := slices.IndexFunc(aggs, func(a compute.Aggregate) bool { return a.Name == "Neutron segment id "+segments[physical] })
		ps, err := c.place.Providers(c.ctx, segments[physical])
		c.must(err)
		if i < 0 || len(ps) == 0 || !slices.Contains(ps[0].Aggregates, aggs[i].UUID) {
			return nil, nil
		}
		hosts = slices.Sorted(slices.Values(aggs[i].Hosts))
		for _, h := range hosts { // their providers are in the aggregate too
			on, err := c.place.Providers(c.ctx, c.nodes[h])
			c.must(err)
			if len(on) != 1 || !slices.Contains(on[0].Aggregates, aggs[i].UUID) {
				return nil, nil
			}
		}
		return hosts, &ps[0]
	}
	c.eventually("the segments are mirrored", func() bool {
		east, _ := seen("east")
		west, _ := seen("west")
		return slices.Equal(east, []string{"h0", "h1"}) && slices.Equal(west, []string{"h2", "h3"})
	})
	_, p := seen("east")
	want := map[string]placement.Inventory{"IPV4_ADDRESS": {Total: 254, Reserved: 2, MinUnit: 1, MaxUnit: 1, StepSize: 1, AllocationRatio: 1}}
	if d := cmp.Diff(want, p.Inventory); d != "" || p.Name != "Neutron segment id "+segments["east"] {
		t.Errorf("provider %s: %s", p.Name, d)
	}
	c.must(c.nets.SetPhysical(c.ctx, "h1", []string{"west"}))
	c.eventually("a host goes to another segment", func() bool {
		east, _ := seen("east")
		west, _ := seen("west")
		return slices.Equal(east, []string{"h0"}) && slices.Equal(west, []string{"h1", "h2", "h3"})
	})
	c.must(c.nets.Do(c.ctx, func(ch *netlocal.Change) error { return ch.DeleteSubnet(subnets["west"]) }))
	c.eventually("a segment without subnets is forgotten", func() bool {
		aggs, err := c.store.Aggregates(c.ctx, c.db)
		c.must(err)
		ps, err := c.place.Providers(c.ctx)
		c.must(err)
		return len(aggs) == 1 && !slices.ContainsFunc(ps, func(p placement.Provider) bool { return p.UUID == segments["west"] })
	})
}

// TestServersOnRoutedNetworks: with the request filter, a server goes to a host of a segment, has an address of it, and moves within it.
func TestServersOnRoutedNetworks(t *testing.T) {
	c, net, _, subnets := routedCloud(t, true)
	c.host("h4", fake.Config{}) // joined to nothing
	nics := []compute.NICRequest{{NetworkID: net}}
	var servers []*compute.Server
	for range 6 {
		s := c.record(nil)
		c.ends(c.create(s, compute.CreateInput{NICs: nics}), operation.Done)
		c.fits(s.ID, subnets)
		servers = append(servers, s)
	}
	west := c.record(nil)
	c.ends(c.create(west, compute.CreateInput{NICs: []compute.NICRequest{{NetworkID: net, FixedIP: "10.2.0.77"}}}), operation.Done)
	if got := c.fits(west.ID, subnets); got != "west" {
		t.Errorf("the server with an address of west is on %s", got)
	}
	s := servers[0]
	home := c.fits(s.ID, subnets)
	away := "h2"
	if home == "west" {
		away = "h0"
	}
	for kind, in := range map[string]any{compute.OpResize: compute.ResizeInput{Migrate: true}, compute.OpLiveMigrate: compute.LiveMigrateInput{}} {
		was := c.get(s.ID).Host
		c.ends(c.accept(kind, s.ID, in), operation.Done)
		if kind == compute.OpResize {
			c.ends(c.accept(compute.OpConfirmResize, s.ID, nil), operation.Done)
		}
		if got := c.get(s.ID).Host; got == was || c.fits(s.ID, subnets) != home {
			t.Errorf("%s: from %s to %s", kind, was, got)
		}
	}
	was := c.get(s.ID).Host
	r := c.ends(c.accept(compute.OpLiveMigrate, s.ID, compute.LiveMigrateInput{Host: away}), operation.Undone)
	if !strings.Contains(r.Cause, "No valid host") || c.get(s.ID).Host != was {
		t.Errorf("a move to another segment: %s, on %s", r.Cause, c.get(s.ID).Host)
	}
	r = c.ends(c.accept(compute.OpLiveMigrate, s.ID, compute.LiveMigrateInput{Host: away, Force: true}), operation.Undone)
	if c.get(s.ID).Host != was || c.get(s.ID).VMState != compute.VMActive {
		t.Errorf("a forced move to another segment: %s, on %s", r.Cause, c.get(s.ID).Host)
	}
	c.fits(s.ID, subnets)
	c.ends(c.accept(compute.OpShelve, s.ID, compute.ShelveInput{Offload: true}), operation.Done)
	c.ends(c.accept(compute.OpUnshelve, s.ID, compute.UnshelveInput{}), operation.Done)
	if got := c.fits(s.ID, subnets); got != home {
		t.Errorf("unshelved to %s, from %s", got, home)
	}
	dead := c.get(s.ID).Host
	c.forceDown(dead, true)
	c.ends(c.accept(compute.OpEvacuate, s.ID, compute.EvacuateInput{}), operation.Done)
	if got := c.get(s.ID).Host; got == dead || c.fits(s.ID, subnets) != home {
		t.Errorf("evacuated from %s to %s", dead, got)
	}
	c.forceDown(dead, false)
	c.eventually("the host removed what left it", func() bool { _, still := c.guests(dead)[s.ID]; return !still })
	c.healthy()
}

// TestRoutedNetworkWithoutTheFilter: hosts are chosen without a look at segments; a host that is joined to none is given up for another, and a move to another segment is
// refused and taken back.
func TestRoutedNetworkWithoutTheFilter(t *testing.T) {
	c, net, _, subnets := routedCloud(t, false)
	for _, h := range []string{"h1", "h3"} {
		c.disable(h, true)
	}
	c.host("h4", fake.Config{VCPUs: 4000, MemoryMB: 16_000_000, DiskGB: 6_000_000}) // the best of all, but joined to nothing
	nics := []compute.NICRequest{{NetworkID: net}}
	s := c.record(nil)
	c.ends(c.create(s, compute.CreateInput{NICs: nics}), operation.Done)
	was := c.get(s.ID).Host
	if was == "h4" {
		t.Fatal("the server is on a host that is joined to nothing")
	}
	c.fits(s.ID, subnets)
	c.ends(c.create(c.record(nil), compute.CreateInput{NICs: nics, ForceHost: "h4"}), operation.Undone)
	r := c.ends(c.accept(compute.OpLiveMigrate, s.ID, compute.LiveMigrateInput{}), operation.Undone)
	if got := c.get(s.ID); got.Host != was || got.VMState != compute.VMActive {
		t.Errorf("%s on %s after %s", got.VMState, got.Host, r.Cause)
	}
	c.fits(s.ID, subnets)
	away := map[string]string{"h0": "h2", "h2": "h0"}[was]
	r = c.ends(c.accept(compute.OpLiveMigrate, s.ID, compute.LiveMigrateInput{Host: away, Force: true}), operation.Undone)
	if !strings.Contains(r.Cause, "is not connected to a segment") || c.get(s.ID).Host != was {
		t.Errorf("a forced move to %s: %s, on %s", away, r.Cause, c.get(s.ID).Host)
	}
	c.fits(s.ID, subnets)
	c.ends(c.accept(compute.OpResize, s.ID, compute.ResizeInput{Migrate: true}), operation.Undone)
	if got := c.get(s.ID); got.Host != was || got.VMState != compute.VMActive {
		t.Errorf("%s on %s after a cold migration", got.VMState, got.Host)
	}
	c.fits(s.ID, subnets)
	c.healthy()
}
