package wiring

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
	"kilonova/internal/network/segments"
	"kilonova/internal/network/wake"
)

// Host gives the desired data plane of a host, with about ten queries, whatever the number of ports.
func (r *Reader) Host(ctx context.Context, host string) (*network.HostState, error) {
	ports, err := r.Ports.List(ctx, r.DB, "host = ?", host)
	if err != nil {
		return nil, err
	}
	// Ports of guests that are on their way here have an inactive binding to the host.
	coming, err := r.Ports.List(ctx, r.DB, "id IN (SELECT port_id FROM network_bindings WHERE host = ?) AND host <> ?", host, host)
	if err != nil {
		return nil, err
	}
	ports = append(ports, coming...)
	ports = slices.DeleteFunc(ports, func(p network.Port) bool {
		return p.DeviceID == "" || p.VNICType != "normal" || strings.HasPrefix(p.DeviceOwner, "network:")
	})
	slices.SortFunc(ports, func(a, b network.Port) int { return strings.Compare(a.ID, b.ID) })
	a, err := r.around(ctx, ports)
	if err != nil {
		return nil, err
	}
	if err := r.switchedOff(ctx, a); err != nil {
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
	if st.Networks, err = r.hostNetworks(ctx, host, a); err != nil {
		return nil, err
	}
	if st.Groups, err = r.hostGroups(ctx, slices.Sorted(maps.Keys(groups))); err != nil {
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
func (r *Reader) switchedOff(ctx context.Context, a *around) error {
	ids := map[string]bool{}
	for _, list := range a.floating {
		for _, f := range list {
			ids[f.RouterID] = true
		}
	}
	if len(ids) == 0 {
		return nil
	}
	routers, err := r.Routers.In(ctx, r.DB, "id", slices.Sorted(maps.Keys(ids)))
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

func (r *Reader) hostNetworks(ctx context.Context, host string, a *around) ([]network.HostNetwork, error) {
	ids := slices.Sorted(maps.Keys(a.networks))
	members, err := r.Ports.In(ctx, r.DB, "network_id", ids)
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
	joined, err := joints.FindRouters(ctx, r.DB, r.Routers, r.Ports, members)
	if err != nil {
		return nil, err
	}
	ends, err := joints.FindTunnels(ctx, r.DB, host, a.networks, members)
	if err != nil {
		return nil, err
	}
	if ends != nil {
		// A guest here reaches the other networks of its router through this host, also where none of their ports is on it.
		if ids, members, err = r.addPeers(ctx, a, joined, members); err != nil {
			return nil, err
		}
		if ends, err = joints.FindTunnels(ctx, r.DB, host, a.networks, members); err != nil {
			return nil, err
		}
	}
	if err := r.Segments.Localize(ctx, r.DB, host, a.networks); err != nil {
		return nil, err
	}
	var out []network.HostNetwork
	for _, nid := range ids {
		n := a.networks[nid]
		h := network.HostNetwork{ID: nid, Bridge: n.Bridge, MTU: n.MTU, Domain: strings.TrimSuffix(n.DNSDomain, "."), Subnets: n.Subnets,
			Leases: leases[nid], Peers: joined.Peers[nid], Routes: joined.Routes[nid], Gateway: n.ProviderType != segments.TypeFlat && n.ProviderType != segments.TypeVLAN, Physical: n.ProviderPhysical}
		if n.ProviderType == segments.TypeVLAN && n.SegmentationID != nil {
			h.VLAN = *n.SegmentationID
		}
		ends.Join(n, &h)
		if h.Domain == "" {
			h.Domain = r.DNSDomain
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

func (r *Reader) hostGroups(ctx context.Context, ids []string) ([]network.HostGroup, error) {
	rules, err := r.Rules.In(ctx, r.DB, "group_id", ids)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(rules, func(a, b network.Rule) int { return strings.Compare(a.ID, b.ID) })
	own, err := r.Groups.In(ctx, r.DB, "id", ids)
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
		rule := &rules[i]
		all[rule.GroupID].Rules = append(all[rule.GroupID].Rules, rule.GroupRule)
		if rule.RemoteGroup != "" {
			wake.Mark(&remote, rule.RemoteGroup)
			if all[rule.RemoteGroup] == nil {
				all[rule.RemoteGroup] = &network.HostGroup{ID: rule.RemoteGroup}
			}
		}
	}
	type member struct{ group, addr string }
	members, err := documents.Collect(ctx, r.DB, `SELECT g.group_id, a.addr FROM network_port_groups g JOIN network_addresses a ON a.port_id = g.port_id
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

// addPeers adds the networks that routers join to those of a host and that tunnels carry here. It gives the ids and the ports of all.
func (r *Reader) addPeers(ctx context.Context, a *around, joined *joints.Routers, members []network.Port) (ids []string, all []network.Port, err error) {
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
	found, err := r.Networks.In(ctx, r.DB, "id", more)
	if err != nil {
		return nil, nil, err
	}
	more = more[:0]
	for i := range found {
		if n := &found[i]; n.ProviderType == segments.TypeVXLAN && n.SegmentationID != nil {
			n.Bridge = network.BridgeName(n.ID)
			a.networks[n.ID] = n
			more = append(more, n.ID)
		}
	}
	subs, err := r.Subnets.In(ctx, r.DB, "network_id", more)
	if err != nil {
		return nil, nil, err
	}
	slices.SortFunc(subs, func(x, y network.Subnet) int { return x.Created.Compare(y.Created) })
	for i := range subs {
		a.networks[subs[i].NetworkID].Subnets = append(a.networks[subs[i].NetworkID].Subnets, subs[i])
	}
	theirs, err := r.Ports.In(ctx, r.DB, "network_id", more)
	ids = append(ids, more...)
	slices.Sort(ids)
	return ids, append(members, theirs...), err
}
