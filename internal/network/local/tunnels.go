package local

import (
	"context"
	"slices"
	"strings"

	"kilonova/internal/clock"
	"kilonova/internal/fault"
	"kilonova/internal/network"
	"kilonova/internal/network/agents"
	"kilonova/internal/network/documents"
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

// ends are the ends of tunnels that one host's networks have on other hosts. A nil one is that of a host without tunnels.
type ends struct {
	host      string
	address   map[string]string          // of each host that has one
	hosts     map[string]map[string]bool // by network: the hosts that have ports of it or are about to
	elsewhere map[string][]*network.Port // by network: ports bound to other hosts
}

// tunnels finds where the networks of a host go on. members are all ports of these networks.
func (s *Service) tunnels(ctx context.Context, host string, a *around, members []network.Port) (*ends, error) {
	var nets []string
	for nid, n := range a.networks {
		if n.ProviderType == TypeVXLAN && n.SegmentationID != nil {
			nets = append(nets, nid)
		}
	}
	if len(nets) == 0 {
		return nil, nil
	}
	if own, err := agents.Tunnels(ctx, s.db, map[string]bool{host: true}); err != nil || own[host] == "" {
		return nil, err
	}
	e := &ends{host: host, hosts: map[string]map[string]bool{}, elsewhere: map[string][]*network.Port{}}
	all := map[string]bool{host: true}
	for _, nid := range nets {
		e.hosts[nid] = map[string]bool{}
	}
	for i := range members {
		p := &members[i]
		if e.hosts[p.NetworkID] == nil || p.HostID == "" || p.HostID == host || strings.HasPrefix(p.DeviceOwner, "network:") {
			continue
		}
		e.hosts[p.NetworkID][p.HostID], all[p.HostID] = true, true
		e.elsewhere[p.NetworkID] = append(e.elsewhere[p.NetworkID], p)
	}
	type reserved struct{ network, host string }
	coming, err := documents.Collect(ctx, s.db, "SELECT p.network_id, b.host FROM network_bindings b JOIN network_ports p ON p.id = b.port_id WHERE p.network_id IN (%)", nets,
		func(scan func(...any) error) (r reserved, err error) { return r, scan(&r.network, &r.host) })
	if err != nil {
		return nil, err
	}
	for _, r := range coming {
		if r.host != host {
			e.hosts[r.network][r.host], all[r.host] = true, true
		}
	}
	if e.address, err = agents.Tunnels(ctx, s.db, all); err != nil {
		return nil, err
	}
	return e, nil
}

// join writes into a host's network how it goes on.
func (e *ends) join(n *network.Network, h *network.HostNetwork) {
	if e == nil || e.hosts[n.ID] == nil {
		return
	}
	h.VNI = *n.SegmentationID
	for host := range e.hosts[n.ID] {
		if ip := e.address[host]; ip != "" && !slices.Contains(h.Endpoints, ip) {
			h.Endpoints = append(h.Endpoints, ip)
		}
	}
	slices.Sort(h.Endpoints)
	for _, p := range e.elsewhere[n.ID] {
		ip := e.address[p.HostID]
		if ip == "" {
			continue
		}
		r := network.RemotePort{MAC: p.MAC, Endpoint: ip}
		for _, f := range p.FixedIPs {
			r.Addresses = append(r.Addresses, f.Address)
		}
		h.Remote = append(h.Remote, r)
	}
	slices.SortFunc(h.Remote, func(x, y network.RemotePort) int { return strings.Compare(x.MAC, y.MAC) })
}

// addPeers adds the networks that routers join to those of a host and that tunnels carry here. It gives the ids and the ports of all.
func (s *Service) addPeers(ctx context.Context, a *around, joined *joinery, members []network.Port) (ids []string, all []network.Port, err error) {
	var more []string
	for nid := range a.networks {
		ids = append(ids, nid)
		for _, peer := range joined.peers[nid] {
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
