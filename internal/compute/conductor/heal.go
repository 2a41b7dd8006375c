package conductor

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"kilonova/internal/compute"
	"kilonova/internal/compute/flow"
	"kilonova/internal/compute/scheduler"
	"kilonova/internal/fault"
	"kilonova/internal/placement"
)

// Healed is what was found of a server that lacked allocations on its host.
type Healed struct {
	Server      string                `json:"server"`
	Host        string                `json:"host"`
	Allocations placement.Allocations `json:"allocations,omitempty"` // those that it has now, or would have
	Problem     string                `json:"problem,omitempty"`     // why it could not be helped; "": it was
}

// Heal gives servers the allocations that they should have on their hosts: those that have none, or only such on other hosts. Without names it looks at all servers. Servers that
// an operation holds are left to it. With dry nothing is written.
func (c *Conductor) Heal(ctx context.Context, dry bool, names ...string) ([]Healed, error) {
	if err := c.hosts.load(ctx); err != nil {
		return nil, err
	}
	hosts, err := c.cfg.Store.Hosts(ctx, c.cfg.DB)
	if err != nil {
		return nil, err
	}
	out := []Healed{}
	for i := range hosts {
		servers, err := c.cfg.Store.ServersOnHost(ctx, c.cfg.DB, hosts[i].Name)
		if err != nil {
			return nil, err
		}
		for _, s := range servers {
			if s.TaskState != "" || len(names) > 0 && !slices.Contains(names, s.ID) {
				continue
			}
			held, owner, err := c.cfg.Placement.Of(ctx, s.ID)
			if err != nil {
				return nil, err
			}
			if held[s.ComputeID] != nil {
				continue
			}
			h := Healed{Server: s.ID, Host: s.Host}
			if h.Allocations, err = c.healed(ctx, s); err == nil && !dry {
				me := placement.Consumer{UUID: s.ID, ProjectID: s.ProjectID, UserID: s.UserID, Type: "INSTANCE"}
				if owner != nil {
					me = *owner
				}
				err = c.cfg.Placement.Claim(ctx, me, h.Allocations)
			}
			if err != nil {
				h.Problem = fault.PublicText(err)
			}
			out = append(out, h)
		}
	}
	return out, nil
}

// healed gives the allocations that a server should have on its host: the amounts of its flavor on the host's own provider, and the devices that it holds by name on theirs.
func (c *Conductor) healed(ctx context.Context, s *compute.Server) (placement.Allocations, error) {
	req, err := c.request(ctx, flow.Want{Server: s, Flavor: s.Flavor, ImageProps: s.ImageProps})
	if err != nil {
		return nil, err
	}
	cloud, _ := c.hosts.cloud()
	queries, err := scheduler.Queries(c.planner.Config(), req, cloud)
	if err != nil {
		return nil, err
	}
	tree, err := c.cfg.Placement.Tree(ctx, s.ComputeID)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(tree, func(p placement.Provider) bool { return p.UUID == s.ComputeID })
	if at < 0 {
		return nil, fault.New(fault.NotFound, "Host %s has no resource provider.", s.Host)
	}
	claim := s.Claim()
	parts := c.hosts.mediatedProviders(s.Host)
	for _, q := range queries {
		out, wanted := placement.Allocations{s.ComputeID: placement.Resources{}}, maps.Clone(q.Groups[0].Resources)
		for class, n := range wanted {
			if _, has := tree[at].Inventory[class]; has {
				out[s.ComputeID][class] = n
				delete(wanted, class)
			}
		}
		for _, p := range parts {
			for _, m := range mediatedOf(claim) {
				if m.Parent != p.Address || wanted[p.Class] == 0 {
					continue
				}
				if out[p.UUID] == nil {
					out[p.UUID] = placement.Resources{}
				}
				out[p.UUID][p.Class]++
				wanted[p.Class]--
			}
		}
		maps.DeleteFunc(wanted, func(_ string, n int64) bool { return n == 0 })
		if len(wanted) == 0 {
			return scheduler.WithDevices(out, claim, c.hosts.deviceProviders(s.Host)), nil
		}
		err = fault.New(fault.Conflict, "The provider of host %s does not have %v, which the flavor asks for: allocate it by hand.", s.Host, slices.Sorted(maps.Keys(wanted)))
	}
	return nil, fmt.Errorf("allocations of %s: %w", s.ID, err)
}

func mediatedOf(c *compute.Claim) []compute.MediatedDevice {
	if c == nil {
		return nil
	}
	return c.Mediated
}

// mediatedProviders gives the providers of a host's divided devices.
func (t *hostTable) mediatedProviders(name string) []scheduler.MediatedProvider {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if h := t.byName[name]; h != nil {
		return h.base.Mediated
	}
	return nil
}
