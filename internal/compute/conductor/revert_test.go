package conductor_test

import (
	"strings"
	"testing"

	"kilonova/internal/compute"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/operation"
)

// policyHolds demands that the places of the living members of a group keep its policy.
func (g groupRace) policyHolds(c *cloud, members []*compute.Server) {
	c.t.Helper()
	on := map[string]int{}
	for _, s := range members {
		if s.Host != "" && s.Deleted.IsZero() {
			on[s.Host]++
		}
	}
	for h, n := range on {
		if g.policy == "anti-affinity" && n > max(g.most, 1) {
			c.t.Errorf("%d members are on %s: %v", n, h, on)
		}
	}
	if g.policy == "affinity" && len(on) > 1 {
		c.t.Errorf("members of the group are on several hosts: %v", on)
	}
}

// now reads servers again.
func (c *cloud) now(servers []*compute.Server) []*compute.Server {
	c.t.Helper()
	out := make([]*compute.Server, len(servers))
	for i, s := range servers {
		out[i] = c.get(s.ID)
	}
	return out
}

// migrated makes a member that was migrated and waits to be confirmed, and gives where it was.
func (c *cloud) migrated(group string) (s *compute.Server, was string) {
	c.t.Helper()
	s = c.member(group)
	was = c.get(s.ID).Host
	c.ends(c.accept(compute.OpResize, s.ID, compute.ResizeInput{Migrate: true}), operation.Done)
	return s, was
}

// more builds servers of a group at the same moment and gives those that have a place.
func (c *cloud) more(group string, n int) (ops []string, servers []*compute.Server) {
	c.t.Helper()
	for range n {
		s := c.record(func(s *compute.Server) { s.GroupID = group })
		servers, ops = append(servers, s), append(ops, c.create(s, compute.CreateInput{}))
	}
	return ops, servers
}

func (c *cloud) done(ops []string, servers []*compute.Server) (out []*compute.Server) {
	c.t.Helper()
	for i, op := range ops {
		r, err := c.engine.Wait(c.ctx, op)
		c.must(err)
		if r.State == operation.Done {
			out = append(out, servers[i])
		}
	}
	return out
}

// TestARevertKeepsTheGroupsPolicy builds members while one waits to be confirmed, which then goes back. What must not meet is kept away from its old host; what must be
// together is built where it is, and it goes back only when it is alone.
func TestARevertKeepsTheGroupsPolicy(t *testing.T) {
	for _, c := range []struct {
		groupRace
		refused bool
	}{
		{groupRace: groupRace{policy: "anti-affinity", members: 3, hosts: 3, done: 1}},
		{groupRace: groupRace{policy: "anti-affinity", most: 2, members: 4, hosts: 2, done: 2}},
		{groupRace: groupRace{policy: "affinity", members: 2, hosts: 3, done: 2}, refused: true},
		{groupRace: groupRace{policy: "soft-affinity", members: 3, hosts: 3, done: 3}},
		{groupRace: groupRace{policy: "soft-anti-affinity", members: 3, hosts: 3, done: 3}},
	} {
		t.Run(c.String(), func(t *testing.T) {
			cl := newCloud(t, options{})
			for i := range c.hosts {
				cl.host(name(i), fake.Config{})
			}
			group := cl.group(c.groupRace)
			s, was := cl.migrated(group)
			there := cl.get(s.ID).Host
			built := cl.done(cl.more(group, c.members))
			if len(built) != c.done {
				t.Errorf("%d of %d members were built, want %d", len(built), c.members, c.done)
			}
			all := append([]*compute.Server{s}, built...)
			c.policyHolds(cl, cl.now(all))
			if c.refused {
				r := cl.ends(cl.accept(compute.OpRevertResize, s.ID, nil), operation.Undone)
				v := cl.get(s.ID)
				if v.Host != there || v.VMState != compute.VMResized || cl.guests(there)[s.ID] != 1 || v.Fault == nil || !strings.Contains(v.Fault.Message, "cannot go back to host "+was+", because of other members of its server group") {
					t.Errorf("after the refused revert (%s) the server is %s on %s: %+v; guests there %v", r.Cause, v.VMState, v.Host, v.Fault, cl.guests(there))
				}
				cl.healthy()
				for _, b := range built {
					cl.ends(cl.accept(compute.OpDelete, b.ID, nil), operation.Done)
				}
			}
			cl.ends(cl.accept(compute.OpRevertResize, s.ID, nil), operation.Done)
			if v := cl.get(s.ID); v.Host != was || v.VMState != compute.VMActive {
				t.Errorf("the server is %s on %s, want it back on %s", v.VMState, v.Host, was)
			}
			c.policyHolds(cl, cl.now(all))
			cl.healthy()
			if c.done < c.members { // what was kept for the server is free again
				more := cl.done(cl.more(group, c.members))
				if len(more) == 0 {
					t.Error("nothing more could be built")
				}
				c.policyHolds(cl, cl.now(append(all, more...)))
			}
		})
	}
}

// TestAConfirmedResizeKeepsNoPlace: once confirmed, the old host is open to other members.
func TestAConfirmedResizeKeepsNoPlace(t *testing.T) {
	c := newCloud(t, options{})
	c.host("h0", fake.Config{})
	c.host("h1", fake.Config{})
	g := groupRace{policy: "anti-affinity"}
	group := c.group(g)
	s, was := c.migrated(group)
	if built := c.done(c.more(group, 1)); len(built) != 0 {
		t.Errorf("a member was built on %s", c.get(built[0].ID).Host)
	}
	c.ends(c.accept(compute.OpConfirmResize, s.ID, nil), operation.Done)
	if built := c.done(c.more(group, 1)); len(built) != 1 || c.get(built[0].ID).Host != was {
		t.Errorf("built %v, want one on %s", built, was)
	}
}

// TestRevertsRaceWithBuilds reverts and builds at the same moment: whoever comes second gives way.
func TestRevertsRaceWithBuilds(t *testing.T) {
	for _, g := range groupRaces() {
		t.Run(g.String(), func(t *testing.T) {
			c := newCloud(t, options{})
			for i := range g.hosts {
				c.host(name(i), fake.Config{})
			}
			for range 4 {
				group := c.group(g)
				s, _ := c.migrated(group)
				ops, servers := c.more(group, 2)
				back := c.accept(compute.OpRevertResize, s.ID, nil)
				more, others := c.more(group, 2)
				built := c.done(append(ops, more...), append(servers, others...))
				r, err := c.engine.Wait(c.ctx, back)
				c.must(err)
				if r.State != operation.Done && (g.policy != "affinity" || len(built) == 0) {
					t.Errorf("the revert ended as %s: %s", r.State, r.Cause)
				}
				g.policyHolds(c, c.now(append(built, s)))
				if r.State == operation.Undone {
					c.ends(c.accept(compute.OpConfirmResize, s.ID, nil), operation.Done)
				}
				for _, m := range append(append(servers, others...), s) {
					c.ends(c.accept(compute.OpDelete, m.ID, nil), operation.Done)
				}
			}
			c.healthy()
		})
	}
}

// TestMovesRaceWithBuildsOfTheirGroup migrates the only member of a group, live and cold, while others are built: the policy holds whichever comes first.
func TestMovesRaceWithBuildsOfTheirGroup(t *testing.T) {
	for _, g := range groupRaces() {
		t.Run(g.String(), func(t *testing.T) {
			c := newCloud(t, options{})
			for i := range g.hosts {
				c.host(name(i), fake.Config{})
			}
			for kind, in := range map[string]any{compute.OpLiveMigrate: compute.LiveMigrateInput{}, compute.OpResize: compute.ResizeInput{Migrate: true}} {
				for range 3 {
					group := c.group(g)
					s := c.member(group)
					ops, servers := c.more(group, 1)
					move := c.accept(kind, s.ID, in)
					more, others := c.more(group, 3)
					built := c.done(append(ops, more...), append(servers, others...))
					if _, err := c.engine.Wait(c.ctx, move); err != nil {
						t.Fatal(err)
					}
					g.policyHolds(c, c.now(append(built, s)))
					for _, m := range append(append(servers, others...), s) {
						c.ends(c.accept(compute.OpDelete, m.ID, nil), operation.Done)
					}
				}
			}
			c.healthy()
		})
	}
}
