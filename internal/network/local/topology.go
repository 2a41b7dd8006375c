package local

import (
	"context"
	"slices"

	"kilonova/internal/auth"
	"kilonova/internal/fault"
	"kilonova/internal/network"
)

// The names of what "give me a network" makes for a project.
const (
	topologyNetwork = "auto_allocated_network"
	topologyRouter  = "auto_allocated_router"
	topologySubnet4 = "auto_allocated_subnet_v4"
	topologySubnet6 = "auto_allocated_subnet_v6"
)

var _ network.AutoAllocator = (*Service)(nil)

// AutoAllocate implements network.AutoAllocator.
func (s *Service) AutoAllocate(ctx context.Context, c *auth.Caller) (string, error) {
	return s.Topology(ctx, c.ProjectID)
}

// CanAutoAllocate implements network.AutoAllocator.
func (s *Service) CanAutoAllocate(ctx context.Context, c *auth.Caller) error {
	have, err := s.topologyNetworks(ctx, c.ProjectID)
	if err != nil || len(have) > 0 {
		return err
	}
	return s.TopologyPossible(ctx)
}

// TopologyPossible fails when an administrator has not set what automatic networks are made from.
func (s *Service) TopologyPossible(ctx context.Context) error {
	_, _, err := s.topologyParts(ctx)
	return err
}

// Topology gives the id of a project's automatic network, which is made when it is not there: subnets from the default pools, and
// a router to the default external network.
func (s *Service) Topology(ctx context.Context, project string) (string, error) {
	have, err := s.topologyNetworks(ctx, project)
	if err != nil {
		return "", err
	}
	if len(have) > 0 {
		return have[0].ID, nil
	}
	pools, external, err := s.topologyParts(ctx)
	if err != nil {
		return "", err
	}
	var id string
	err = s.Do(ctx, func(c *Change) error {
		again, err := c.networks.List(ctx, c.tx, "project_id = ? AND name = ?", project, topologyNetwork)
		if err != nil {
			return err
		}
		if len(again) > 0 { // another request was faster
			id = again[0].ID
			return nil
		}
		id, err = buildTopology(c, project, pools, external)
		return err
	})
	return id, err
}

func (s *Service) topologyNetworks(ctx context.Context, project string) ([]network.Network, error) {
	return s.Networks(ctx, Filter{Match: map[string][]string{"project_id": {project}, "name": {topologyNetwork}}})
}

// topologyParts finds the default subnet pools and external network.
func (s *Service) topologyParts(ctx context.Context) ([]network.SubnetPool, string, error) {
	problem := func(what string) error {
		return fault.New(fault.Conflict, "Deployment error: %s.", what).WithCode("AutoAllocationFailure").
			WithHint("An administrator sets is_default on an external network and on a subnet pool.")
	}
	nets, err := s.Networks(ctx, Filter{Match: map[string][]string{"external": {"1"}}})
	if err != nil {
		return nil, "", err
	}
	i := slices.IndexFunc(nets, func(n network.Network) bool { return n.IsDefault })
	if i < 0 {
		return nil, "", problem("No default external network")
	}
	pools, err := s.SubnetPools(ctx, Filter{})
	if err != nil {
		return nil, "", err
	}
	pools = slices.DeleteFunc(pools, func(p network.SubnetPool) bool { return !p.IsDefault })
	if len(pools) == 0 {
		return nil, "", problem("No default subnetpools defined")
	}
	return pools, nets[i].ID, nil
}

func buildTopology(c *Change, project string, pools []network.SubnetPool, external string) (string, error) {
	n := &network.Network{Name: topologyNetwork, ProjectID: project, AdminStateUp: true, PortSecurity: true}
	if err := c.CreateNetwork(n); err != nil {
		return "", err
	}
	router := &network.Router{Name: topologyRouter, ProjectID: project, AdminStateUp: true, Gateway: &network.RouterGateway{NetworkID: external, SNAT: true}}
	if err := c.CreateRouter(router); err != nil {
		return "", err
	}
	for i := range pools {
		name := topologySubnet4
		if pools[i].Version == 6 {
			name = topologySubnet6
		}
		s, err := c.CreateSubnet(&SubnetRequest{Subnet: network.Subnet{Name: name, ProjectID: project, NetworkID: n.ID, Version: pools[i].Version,
			SubnetPoolID: pools[i].ID, DHCP: true}})
		if err != nil {
			return "", err
		}
		if _, err := c.AddInterface(router.ID, s.ID, ""); err != nil {
			return "", err
		}
	}
	return n.ID, nil
}

// DeleteTopology removes a project's automatic network; it fails while ports are on it.
func (s *Service) DeleteTopology(ctx context.Context, project string) error {
	nets, err := s.topologyNetworks(ctx, project)
	if err != nil {
		return err
	}
	routers, err := s.Routers(ctx, Filter{Match: map[string][]string{"project_id": {project}, "name": {topologyRouter}}})
	if err != nil {
		return err
	}
	return s.Do(ctx, func(c *Change) error {
		for i := range routers {
			for k := range nets {
				for _, sub := range nets[k].Subnets {
					if _, err := c.RemoveInterface(routers[i].ID, sub.ID, ""); err != nil && fault.KindOf(err) != fault.NotFound {
						return err
					}
				}
			}
			if err := c.DeleteRouter(routers[i].ID); err != nil {
				return err
			}
		}
		for k := range nets {
			if err := c.DeleteNetwork(nets[k].ID); err != nil {
				return err
			}
		}
		return nil
	})
}
