package conductor_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/operation"
	"kilonova/internal/placement"
)

// TestHealAllocations: servers that have lost their allocations get those that they had, with what they hold by name; others are left alone.
func TestHealAllocations(t *testing.T) {
	c := newCloud(t, options{})
	size := divided(2)
	size.Nodes, size.Dedicated, size.VCPUs, size.MemoryMB, size.DiskGB = 1, []int{1, 2}, 8, 8192, 100
	c.host("h1", size)
	other := c.record(nil)
	c.ends(c.create(other, compute.CreateInput{}), operation.Done)
	had := map[string]placement.Allocations{}
	var servers []*compute.Server
	for _, specs := range []map[string]string{nil, {"hw:cpu_policy": "dedicated"}, {"resources:VGPU": "1"}} {
		s := c.record(func(s *compute.Server) { s.Flavor.ExtraSpecs = specs })
		c.ends(c.create(s, compute.CreateInput{}), operation.Done)
		held, _, err := c.place.Of(c.ctx, s.ID)
		c.must(err)
		had[s.ID] = held
		servers = append(servers, s)
		c.must(c.place.Release(c.ctx, s.ID))
	}
	c.host("h2", fake.Config{})
	me := placement.Consumer{UUID: servers[0].ID, ProjectID: "p", UserID: "u", Type: "INSTANCE"}
	c.must(c.place.Claim(c.ctx, me, placement.Allocations{c.nodes["h2"]: {"VCPU": 1}})) // an allocation where the server is not
	for _, dry := range []bool{true, false} {
		got, err := c.con.Heal(c.ctx, dry)
		if err != nil || len(got) != len(servers) {
			t.Fatalf("%+v (%v)", got, err)
		}
		for _, h := range got {
			if d := cmp.Diff(had[h.Server], h.Allocations); d != "" || h.Problem != "" || h.Host != "h1" {
				t.Errorf("%+v: %s", h, d)
			}
			held, _, err := c.place.Of(c.ctx, h.Server)
			c.must(err)
			if healed := cmp.Equal(had[h.Server], held); healed == dry {
				t.Errorf("dry %v: %s holds %v", dry, h.Server, held)
			}
		}
	}
	c.healthy()
	if got, err := c.con.Heal(c.ctx, false); err != nil || len(got) != 0 {
		t.Errorf("there is nothing left to heal: %+v (%v)", got, err)
	}
	// One that is named, and has no room any more.
	c.must(c.place.Release(c.ctx, servers[0].ID))
	c.must(c.place.Release(c.ctx, other.ID))
	c.must(c.place.Claim(c.ctx, placement.Consumer{UUID: c.nodes["h2"], ProjectID: "p", UserID: "u", Type: "INSTANCE"}, placement.Allocations{c.nodes["h1"]: {"MEMORY_MB": 6400}}))
	got, err := c.con.Heal(c.ctx, false, servers[0].ID)
	if err != nil || len(got) != 1 || got[0].Server != servers[0].ID || !strings.Contains(got[0].Problem, "MEMORY_MB") {
		t.Errorf("%+v (%v)", got, err)
	}
}
