package local

import (
	"context"
	"slices"

	"kilonova/internal/clock"
	"kilonova/internal/fault"
	"kilonova/internal/network"
	"kilonova/internal/network/agents"
	"kilonova/internal/network/documents"
	"kilonova/internal/network/joints"
	"kilonova/internal/network/wake"
)

// SetTunnel implements network.Service.
func (s *Service) SetTunnel(ctx context.Context, host, address string) error {
	return s.Do(ctx, func(c *Change) error {
		a, err := agents.Get(ctx, c.tx, agents.ID(host))
		if fault.KindOf(err) == fault.NotFound {
			if address == "" {
				return nil
			}
			a, err = agents.New(host, s.cfg.Zone, clock.Now()), nil
		}
		if err != nil {
			return err
		}
		if agents.Tunnel(a) == address {
			return nil
		}
		agents.SetTunnel(a, address)
		nets, err := documents.Strings(ctx, c.tx, "SELECT DISTINCT network_id FROM network_ports WHERE host IN (%)", []string{host})
		if err != nil {
			return err
		}
		wake.Mark(&c.dirty.Hosts, host)
		wake.Mark(&c.dirty.Networks, nets...)
		return agents.Put(ctx, c.tx, a)
	})
}

// addPeers adds the networks that routers join to those of a host and that tunnels carry here. It gives the ids and the ports of all.
func (s *Service) addPeers(ctx context.Context, a *around, joined *joints.Routers, members []network.Port) (ids []string, all []network.Port, err error) {
	var more []string
	for nid := range a.networks {
		ids = append(ids, nid)
		for _, peer := range joined.Peers[nid] {
			if a.networks[peer] == nil && !slices.Contains(more, peer) {
				more = append(more, peer)
			}
		}
	}
	slices.Sort(ids)
	if len(more) == 0 {
		return ids, members, nil
	}
	found, err := s.networks.In(ctx, s.db, "id", more)
	if err != nil {
		return nil, nil, err
	}
	more = more[:0]
	for i := range found {
		if n := &found[i]; n.ProviderType == TypeVXLAN && n.SegmentationID != nil {
			n.Bridge = network.BridgeName(n.ID)
			a.networks[n.ID] = n
			more = append(more, n.ID)
		}
	}
	subs, err := s.subnets.In(ctx, s.db, "network_id", more)
	if err != nil {
		return nil, nil, err
	}
	slices.SortFunc(subs, func(x, y network.Subnet) int { return x.Created.Compare(y.Created) })
	for i := range subs {
		a.networks[subs[i].NetworkID].Subnets = append(a.networks[subs[i].NetworkID].Subnets, subs[i])
	}
	theirs, err := s.ports.In(ctx, s.db, "network_id", more)
	ids = append(ids, more...)
	slices.Sort(ids)
	return ids, append(members, theirs...), err
}
