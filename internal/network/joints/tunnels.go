// Package joints finds what joins the networks of a host to others: tunnels to the other hosts that have ports of the same network, and routers between networks.
package joints

import (
	"context"
	"slices"
	"strings"

	"kilonova/internal/db"
	"kilonova/internal/network"
	"kilonova/internal/network/agents"
	"kilonova/internal/network/documents"
	"kilonova/internal/network/segments"
)

// Tunnels are the ends of tunnels that one host's networks have on other hosts. A nil one is that of a host without tunnels.
type Tunnels struct {
	host      string
	address   map[string]string          // of each host that has one
	hosts     map[string]map[string]bool // by network: the hosts that have ports of it or are about to
	elsewhere map[string][]*network.Port // by network: ports bound to other hosts
}

// FindTunnels finds where the networks of a host go on; networks are these by id. members are all ports of these networks.
func FindTunnels(ctx context.Context, q db.Querier, host string, networks map[string]*network.Network, members []network.Port) (*Tunnels, error) {
	var nets []string
	for nid, n := range networks {
		if n.ProviderType == segments.TypeVXLAN && n.SegmentationID != nil {
			nets = append(nets, nid)
		}
	}
	if len(nets) == 0 {
		return nil, nil
	}
	if own, err := agents.Tunnels(ctx, q, map[string]bool{host: true}); err != nil || own[host] == "" {
		return nil, err
	}
	e := &Tunnels{host: host, hosts: map[string]map[string]bool{}, elsewhere: map[string][]*network.Port{}}
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
	coming, err := documents.Collect(ctx, q, "SELECT p.network_id, b.host FROM network_bindings b JOIN network_ports p ON p.id = b.port_id WHERE p.network_id IN (%)", nets,
		func(scan func(...any) error) (r reserved, err error) { return r, scan(&r.network, &r.host) })
	if err != nil {
		return nil, err
	}
	for _, r := range coming {
		if r.host != host {
			e.hosts[r.network][r.host], all[r.host] = true, true
		}
	}
	if e.address, err = agents.Tunnels(ctx, q, all); err != nil {
		return nil, err
	}
	return e, nil
}

// Join writes into a host's network how it goes on.
func (e *Tunnels) Join(n *network.Network, h *network.HostNetwork) {
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
