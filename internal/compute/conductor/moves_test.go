package conductor_test

import (
	"testing"

	"kilonova/internal/compute"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/db"
	"kilonova/internal/id"
	"kilonova/internal/operation"
)

// TestMovesKeepTheGroupsPolicy lets the members of an anti-affinity group move at the same moment to the one host that is free: whoever comes too late stays where it is.
func TestMovesKeepTheGroupsPolicy(t *testing.T) {
	for kind, in := range map[string]any{
		compute.OpResize:      compute.ResizeInput{Migrate: true},
		compute.OpLiveMigrate: compute.LiveMigrateInput{},
	} {
		t.Run(kind, func(t *testing.T) {
			c := newCloud(t, options{})
			for i := range 4 {
				c.host(name(i), fake.Config{})
			}
			g := &compute.ServerGroup{ID: id.UUID(), Name: "g", ProjectID: "p", UserID: "u", Policy: "anti-affinity"}
			c.must(c.db.Write(c.ctx, func(tx *db.Tx) error { return c.store.InsertGroup(c.ctx, tx, g) }))
			var servers []*compute.Server
			for range 3 {
				s := c.record(func(s *compute.Server) { s.GroupID = g.ID })
				servers = append(servers, s)
				c.ends(c.create(s, compute.CreateInput{}), operation.Done)
			}
			moved := 0
			for round := 0; round < 3; round++ {
				var ops []string
				for _, s := range servers {
					ops = append(ops, c.accept(kind, s.ID, in))
				}
				for i, op := range ops {
					r, err := c.engine.Wait(c.ctx, op)
					c.must(err)
					if r.State == operation.Done {
						moved++
						if kind == compute.OpResize {
							c.ends(c.accept(compute.OpConfirmResize, servers[i].ID, nil), operation.Done)
						}
					}
				}
				on := map[string]string{}
				for _, s := range servers {
					h := c.get(s.ID).Host
					if on[h] != "" {
						t.Fatalf("round %d: %s and %s are both on %s", round, on[h], s.ID, h)
					}
					on[h] = s.ID
				}
			}
			if moved == 0 {
				t.Error("nobody moved")
			}
			c.healthy()
		})
	}
}

// TestForcedMoveAgainstTheGroup: a destination that passes over the filters does not pass over the policy of the group, and the operation ends.
func TestForcedMoveAgainstTheGroup(t *testing.T) {
	c := newCloud(t, options{})
	c.host("h0", fake.Config{})
	c.host("h1", fake.Config{})
	g := &compute.ServerGroup{ID: id.UUID(), Name: "g", ProjectID: "p", UserID: "u", Policy: "anti-affinity"}
	c.must(c.db.Write(c.ctx, func(tx *db.Tx) error { return c.store.InsertGroup(c.ctx, tx, g) }))
	var servers []*compute.Server
	for range 2 {
		s := c.record(func(s *compute.Server) { s.GroupID = g.ID })
		servers = append(servers, s)
		c.ends(c.create(s, compute.CreateInput{}), operation.Done)
	}
	was, other := c.get(servers[0].ID).Host, c.get(servers[1].ID).Host
	r := c.ends(c.accept(compute.OpLiveMigrate, servers[0].ID, compute.LiveMigrateInput{Host: other, Force: true}), operation.Undone)
	if got := c.get(servers[0].ID); got.Host != was || got.VMState != compute.VMActive {
		t.Errorf("%s is %s on %s (%s)", got.ID, got.VMState, got.Host, r.Cause)
	}
	late := c.record(func(s *compute.Server) { s.GroupID = g.ID })
	c.ends(c.create(late, compute.CreateInput{ForceHost: other}), operation.Undone)
	c.healthy()
}
