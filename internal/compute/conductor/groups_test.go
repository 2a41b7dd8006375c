package conductor_test

import (
	"fmt"
	"testing"

	"kilonova/internal/compute"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/db"
	"kilonova/internal/id"
	"kilonova/internal/operation"
)

// groupRace is a group whose members come back to hosts at the same moment, and what its policy leaves of that.
type groupRace struct {
	policy  string
	most    int // rule max_server_per_host
	members int
	hosts   int // to which they can go
	done    int // how many get a place
}

func groupRaces() []groupRace {
	return []groupRace{
		{policy: "affinity", members: 4, hosts: 3, done: 4},
		{policy: "anti-affinity", members: 4, hosts: 3, done: 3},
		{policy: "anti-affinity", most: 2, members: 6, hosts: 2, done: 4},
		{policy: "soft-affinity", members: 4, hosts: 3, done: 4},
		{policy: "soft-anti-affinity", members: 4, hosts: 3, done: 4},
	}
}

func (g groupRace) String() string {
	if g.most > 0 {
		return fmt.Sprintf("%s of %d", g.policy, g.most)
	}
	return g.policy
}

// group makes the group.
func (c *cloud) group(g groupRace) string {
	c.t.Helper()
	out := &compute.ServerGroup{ID: id.UUID(), Name: "g", ProjectID: "p", UserID: "u", Policy: g.policy, MaxPerHost: g.most}
	c.must(c.db.Write(c.ctx, func(tx *db.Tx) error { return c.store.InsertGroup(c.ctx, tx, out) }))
	return out.ID
}

// member makes a running server of a group.
func (c *cloud) member(group string) *compute.Server {
	c.t.Helper()
	s := c.record(func(s *compute.Server) { s.GroupID = group })
	c.ends(c.create(s, compute.CreateInput{}), operation.Done)
	return s
}

// together accepts operations of all servers before it waits for the first, and gives which succeeded.
func (c *cloud) together(kind string, servers []*compute.Server, in any) (done []*compute.Server) {
	c.t.Helper()
	ops := make([]string, len(servers))
	for i, s := range servers {
		ops[i] = c.accept(kind, s.ID, in)
	}
	for i, op := range ops {
		r, err := c.engine.Wait(c.ctx, op)
		c.must(err)
		switch r.State {
		case operation.Done:
			done = append(done, servers[i])
		case operation.Undone:
		default:
			c.t.Errorf("%s of %s ended as %s: %s", kind, servers[i].ID, r.State, r.Cause)
		}
	}
	return done
}

// keeps demands that the places of servers keep the policy of their group.
func (g groupRace) keeps(c *cloud, servers []*compute.Server) {
	c.t.Helper()
	on := map[string]int{}
	for _, s := range servers {
		got := c.get(s.ID)
		if got.Host == "" || got.VMState != compute.VMActive {
			c.t.Errorf("%s is %s on %q", s.ID, got.VMState, got.Host)
		}
		on[got.Host]++
	}
	for h, n := range on {
		if g.policy == "anti-affinity" && n > max(g.most, 1) {
			c.t.Errorf("%d members are on %s: %v", n, h, on)
		}
	}
	if g.policy == "affinity" && len(on) > 1 {
		c.t.Errorf("members of the group are on several hosts: %v", on)
	}
	if len(servers) != g.done {
		c.t.Errorf("%d members have a place, want %d: %v", len(servers), g.done, on)
	}
}

// TestUnshelvesKeepTheGroupsPolicy unshelves all members of a group at the same moment.
func TestUnshelvesKeepTheGroupsPolicy(t *testing.T) {
	for _, g := range groupRaces() {
		t.Run(g.String(), func(t *testing.T) {
			c := newCloud(t, options{})
			for i := range g.hosts {
				c.host(name(i), fake.Config{})
			}
			group := c.group(g)
			var servers []*compute.Server
			for range g.members { // one after the other, or the policy would refuse some before the race
				s := c.member(group)
				c.ends(c.accept(compute.OpShelve, s.ID, compute.ShelveInput{Offload: true}), operation.Done)
				servers = append(servers, s)
			}
			back := c.together(compute.OpUnshelve, servers, compute.UnshelveInput{})
			g.keeps(c, back)
			for _, s := range servers {
				if got := c.get(s.ID); got.VMState != compute.VMActive && (got.VMState != compute.VMShelvedOffloaded || got.Host != "") {
					t.Errorf("%s, which found no place, is %s on %q", s.ID, got.VMState, got.Host)
				}
			}
			c.healthy()
		})
	}
}

// TestEvacuationsKeepTheGroupsPolicy evacuates all members of a group at the same moment from hosts that died together, while a further member is built. Members of an
// affinity group whose others are on the dead host have nowhere to go: together is where they are.
func TestEvacuationsKeepTheGroupsPolicy(t *testing.T) {
	for _, g := range groupRaces() {
		t.Run(g.String(), func(t *testing.T) {
			c := newCloud(t, options{})
			group := c.group(g)
			var dead []string
			var kill []func()
			full := g.most
			if g.policy != "affinity" {
				full = max(g.most, 1)
			}
			var servers []*compute.Server
			for i := range g.members {
				if full == 0 && i == 0 || full > 0 && i%full == 0 { // a host with as many members as may be there
					h := fmt.Sprintf("dead%d", i)
					for _, other := range dead {
						c.disable(other, true)
					}
					dead, kill = append(dead, h), append(kill, c.host(h, fake.Config{}))
				}
				servers = append(servers, c.member(group))
			}
			for i := range g.hosts {
				c.host(name(i), fake.Config{})
			}
			for i, h := range dead {
				kill[i]()
				c.forceDown(h, true)
			}
			late := c.record(func(s *compute.Server) { s.GroupID = group })
			op := c.create(late, compute.CreateInput{})
			moved := c.together(compute.OpEvacuate, servers, compute.EvacuateInput{})
			r, err := c.engine.Wait(c.ctx, op)
			c.must(err)
			if r.State == operation.Done {
				moved = append(moved, late)
			}
			want := g
			switch g.policy {
			case "affinity":
				want.done = 0
			case "soft-affinity", "soft-anti-affinity":
				want.done++
			}
			want.keeps(c, moved)
			for i, h := range dead {
				c.forceDown(h, false)
				kill[i] = c.host(h, fake.Config{})
			}
			c.eventually("the hosts removed what left them", func() bool {
				for _, h := range dead {
					for s := range c.guests(h) {
						if c.get(s).Host != h {
							return false
						}
					}
				}
				return true
			})
			c.healthy()
		})
	}
}

// TestLastOfAnAffinityGroupIsEvacuated: the only member may go anywhere, and a member that is built meanwhile goes with it or nowhere.
func TestLastOfAnAffinityGroupIsEvacuated(t *testing.T) {
	c := newCloud(t, options{})
	g := groupRace{policy: "affinity"}
	group := c.group(g)
	kill := c.host("dead", fake.Config{})
	s := c.member(group)
	for i := range 3 {
		c.host(name(i), fake.Config{})
	}
	kill()
	c.forceDown("dead", true)
	var late []*compute.Server
	var ops []string
	op := c.accept(compute.OpEvacuate, s.ID, compute.EvacuateInput{})
	for range 4 {
		l := c.record(func(s *compute.Server) { s.GroupID = group })
		late, ops = append(late, l), append(ops, c.create(l, compute.CreateInput{}))
	}
	c.ends(op, operation.Done)
	there := []*compute.Server{s}
	for i, op := range ops {
		r, err := c.engine.Wait(c.ctx, op)
		c.must(err)
		if r.State == operation.Done {
			there = append(there, late[i])
		}
	}
	g.done = len(there)
	g.keeps(c, there)
}

func (c *cloud) state(host string, disabled, down *bool) {
	c.t.Helper()
	h, err := c.store.Host(c.ctx, c.db, host)
	c.must(err)
	c.must(c.db.Write(c.ctx, func(tx *db.Tx) error { return c.store.SetServiceState(c.ctx, tx, h.ServiceID, disabled, nil, down) }))
}

func (c *cloud) disable(host string, disabled bool) {
	c.t.Helper()
	c.state(host, &disabled, nil)
}

// forceDown says that a host is down, or no longer, and waits until the conductor knows.
func (c *cloud) forceDown(host string, down bool) {
	c.t.Helper()
	c.state(host, nil, &down)
	if down {
		c.eventually(host+" is down", func() bool { return c.con.Down(c.ctx, host) })
	}
}
