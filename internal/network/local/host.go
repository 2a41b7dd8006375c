package local

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"kilonova/internal/network"
	"kilonova/internal/network/documents"
	"kilonova/internal/network/ipam"
	"kilonova/internal/network/joints"
	"kilonova/internal/network/wake"
)

// Host implements network.Service: about ten queries, whatever the number of ports.
func (s *Service) Host(ctx context.Context, host string) (*network.HostState, error) {
	if err := s.heard(ctx, host); err != nil {
		return nil, err
	}
	ports, err := s.ports.List(ctx, s.db, "host = ?", host)
	if err != nil {
		return nil, err
	}
	// Ports of guests that are on their way here have an inactive binding to the host.
	coming, err := s.ports.List(ctx, s.db, "id IN (SELECT port_id FROM network_bindings WHERE host = ?) AND host <> ?", host, host)
	if err != nil {
		return nil, err
	}
	ports = append(ports, coming...)
	ports = slices.DeleteFunc(ports, func(p network.Port) bool {
		return p.DeviceID == "" || p.VNICType != "normal" || strings.HasPrefix(p.DeviceOwner, "network:")
	})
	slices.SortFunc(ports, func(a, b network.Port) int { return strings.Compare(a.ID, b.ID) })
	a, err := s.around(ctx, ports)
	if err != nil {
		return nil, err
	}
	if err := s.switchedOff(ctx, a); err != nil {
		return nil, err
	}
	st := &network.HostState{Host: host}
	groups := map[string]bool{}
	for i := range ports {
		p := a.hostPort(&ports[i])
		p.Incoming = ports[i].HostID != host
		st.Ports = append(st.Ports, p)
		wake.Mark(&groups, ports[i].SecurityGroups...)
	}
	if st.Networks, err = s.hostNetworks(ctx, host, a); err != nil {
		return nil, err
	}
	if st.Groups, err = s.hostGroups(ctx, slices.Sorted(maps.Keys(groups))); err != nil {
		return nil, err
	}
	doc, err := json.Marshal(st)
	if err != nil {
		return nil, fmt.Errorf("encode host state: %w", err)
	}
	sum := sha256.Sum256(doc)
	st.Revision = hex.EncodeToString(sum[:16])
	return st, nil
}

// switchedOff leaves out the floating IPs whose router is administratively down.
func (s *Service) switchedOff(ctx context.Context, a *around) error {
	ids := map[string]bool{}
	for _, list := range a.floating {
		for _, f := range list {
			ids[f.RouterID] = true
		}
	}
	if len(ids) == 0 {
		return nil
	}
	routers, err := s.routers.In(ctx, s.db, "id", slices.Sorted(maps.Keys(ids)))
	if err != nil {
		return err
	}
	for i := range routers {
		ids[routers[i].ID] = routers[i].AdminStateUp
	}
	for port, list := range a.floating {
		a.floating[port] = slices.DeleteFunc(list, func(f network.FloatingIP) bool { return !ids[f.RouterID] })
	}
	return nil
}

func (a *around) hostPort(p *network.Port) network.HostPort {
	h := network.HostPort{ID: p.ID, NetworkID: p.NetworkID, Tap: network.TapName(p.ID), MAC: p.MAC, Pairs: p.AllowedPairs,
		Groups: p.SecurityGroups, PortSecurity: p.PortSecurity, ServerID: p.DeviceID, ProjectID: p.ProjectID, Down: !p.AdminStateUp}
	for _, f := range p.FixedIPs {
		h.Addresses = append(h.Addresses, f.Address)
	}
	for _, f := range a.floating[p.ID] {
		h.Floating = append(h.Floating, network.Floating{Address: f.Address, Fixed: f.FixedIP})
	}
	slices.SortFunc(h.Floating, func(x, y network.Floating) int { return strings.Compare(x.Address, y.Address) })
	return h
}

func (s *Service) hostNetworks(ctx context.Context, host string, a *around) ([]network.HostNetwork, error) {
	ids := slices.Sorted(maps.Keys(a.networks))
	members, err := s.ports.In(ctx, s.db, "network_id", ids)
	if err != nil {
		return nil, err
	}
	leases := map[string][]network.Lease{}
	for i := range members {
		p := &members[i]
		if !strings.HasPrefix(p.DeviceOwner, "network:") {
			leases[p.NetworkID] = append(leases[p.NetworkID], a.leases(p)...)
		}
	}
	joined, err := joints.FindRouters(ctx, s.db, s.routers, s.ports, members)
	if err != nil {
		return nil, err
	}
	ends, err := joints.FindTunnels(ctx, s.db, host, a.networks, members)
	if err != nil {
		return nil, err
	}
	if ends != nil {
		// A guest here reaches the other networks of its router through this host, also where none of their ports is on it.
		if ids, members, err = s.addPeers(ctx, a, joined, members); err != nil {
			return nil, err
		}
		if ends, err = joints.FindTunnels(ctx, s.db, host, a.networks, members); err != nil {
			return nil, err
		}
	}
	if err := s.segments.Localize(ctx, s.db, host, a.networks); err != nil {
		return nil, err
	}
	var out []network.HostNetwork
	for _, nid := range ids {
		n := a.networks[nid]
		h := network.HostNetwork{ID: nid, Bridge: n.Bridge, MTU: n.MTU, Domain: strings.TrimSuffix(n.DNSDomain, "."), Subnets: n.Subnets,
			Leases: leases[nid], Peers: joined.Peers[nid], Routes: joined.Routes[nid], Gateway: n.ProviderType != TypeFlat && n.ProviderType != TypeVLAN, Physical: n.ProviderPhysical}
		if n.ProviderType == TypeVLAN && n.SegmentationID != nil {
			h.VLAN = *n.SegmentationID
		}
		ends.Join(n, &h)
		if h.Domain == "" {
			h.Domain = s.cfg.DNSDomain
		}
		if masked, routed := joined.SNAT[nid]; h.Gateway && (masked || !routed) {
			h.NAT = true
		}
		slices.SortFunc(h.Leases, func(x, y network.Lease) int { return strings.Compare(x.Address, y.Address) })
		out = append(out, h)
	}
	return out, nil
}

func (a *around) leases(p *network.Port) []network.Lease {
	var out []network.Lease
	for _, f := range p.FixedIPs {
		sub := a.subnets[f.SubnetID]
		if sub == nil || !sub.DHCP {
			continue
		}
		l := network.Lease{MAC: p.MAC, Address: f.Address, SubnetID: f.SubnetID, Hostname: ipam.Hostname(p, f.Address)}
		for _, o := range p.ExtraDHCP {
			if o.Version == sub.Version {
				l.Options = append(l.Options, o)
			}
		}
		out = append(out, l)
	}
	return out
}

func (s *Service) hostGroups(ctx context.Context, ids []string) ([]network.HostGroup, error) {
	rules, err := s.rules.In(ctx, s.db, "group_id", ids)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(rules, func(a, b network.Rule) int { return strings.Compare(a.ID, b.ID) })
	own, err := s.groups.In(ctx, s.db, "id", ids)
	if err != nil {
		return nil, err
	}
	all := map[string]*network.HostGroup{}
	for _, g := range ids {
		all[g] = &network.HostGroup{ID: g}
	}
	for i := range own {
		all[own[i].ID].Stateless = !own[i].Stateful
	}
	remote := map[string]bool{}
	for i := range rules {
		r := &rules[i]
		all[r.GroupID].Rules = append(all[r.GroupID].Rules, r.GroupRule)
		if r.RemoteGroup != "" {
			wake.Mark(&remote, r.RemoteGroup)
			if all[r.RemoteGroup] == nil {
				all[r.RemoteGroup] = &network.HostGroup{ID: r.RemoteGroup}
			}
		}
	}
	type member struct{ group, addr string }
	members, err := documents.Collect(ctx, s.db, `SELECT g.group_id, a.addr FROM network_port_groups g JOIN network_addresses a ON a.port_id = g.port_id
 WHERE g.group_id IN (%) ORDER BY a.addr`, slices.Sorted(maps.Keys(remote)), func(scan func(...any) error) (m member, err error) { return m, scan(&m.group, &m.addr) })
	if err != nil {
		return nil, err
	}
	for _, m := range members {
		a, err := ipam.FromKey(m.addr)
		if err != nil {
			return nil, err
		}
		all[m.group].Members = append(all[m.group].Members, a.String())
	}
	var out []network.HostGroup
	for _, g := range slices.Sorted(maps.Keys(all)) {
		out = append(out, *all[g])
	}
	return out, nil
}

// FQDN is a name in the name service of a network with a domain, "" for the service's own.
func (s *Service) FQDN(hostname, domain string) string {
	if domain == "" {
		domain = s.cfg.DNSDomain
	}
	if hostname == "" {
		return ""
	}
	return hostname + "." + strings.TrimSuffix(domain, ".") + "."
}
