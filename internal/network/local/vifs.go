package local

import (
	"context"
	"slices"

	"kilonova/internal/network"
	"kilonova/internal/network/ipam"
)

// around is what ports refer to, read with one query per kind.
type around struct {
	networks map[string]*network.Network
	subnets  map[string]*network.Subnet
	floating map[string][]network.FloatingIP // by port
}

func (s *Service) around(ctx context.Context, ports []network.Port) (*around, error) {
	var nets, ids []string
	for i := range ports {
		ids = append(ids, ports[i].ID)
		if !slices.Contains(nets, ports[i].NetworkID) {
			nets = append(nets, ports[i].NetworkID)
		}
	}
	a := &around{networks: map[string]*network.Network{}, subnets: map[string]*network.Subnet{}, floating: map[string][]network.FloatingIP{}}
	ns, err := s.networks.In(ctx, s.db, "id", nets)
	if err != nil {
		return nil, err
	}
	for i := range ns {
		ns[i].Bridge = network.BridgeName(ns[i].ID)
		a.networks[ns[i].ID] = &ns[i]
	}
	subs, err := s.subnets.In(ctx, s.db, "network_id", nets)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(subs, func(x, y network.Subnet) int { return x.Created.Compare(y.Created) })
	for i := range subs {
		a.subnets[subs[i].ID] = &subs[i]
		if n := a.networks[subs[i].NetworkID]; n != nil {
			n.Subnets = append(n.Subnets, subs[i])
		}
	}
	fs, err := s.floating.In(ctx, s.db, "port_id", ids)
	if err != nil {
		return nil, err
	}
	for _, f := range fs {
		a.floating[f.PortID] = append(a.floating[f.PortID], f)
	}
	return a, nil
}

// VIFs implements network.Service. Ports that are gone are left out.
func (s *Service) VIFs(ctx context.Context, portIDs ...string) ([]network.VIF, error) {
	ports, err := s.ports.In(ctx, s.db, "id", portIDs)
	if err != nil || len(ports) == 0 {
		return nil, err
	}
	a, err := s.around(ctx, ports)
	if err != nil {
		return nil, err
	}
	var groupIDs []string
	for i := range ports {
		groupIDs = append(groupIDs, ports[i].SecurityGroups...)
	}
	slices.Sort(groupIDs)
	groups, err := s.groups.In(ctx, s.db, "id", slices.Compact(groupIDs))
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for i := range groups {
		names[groups[i].ID] = groups[i].Name
	}
	at := map[string]*network.Port{}
	for i := range ports {
		at[ports[i].ID] = &ports[i]
	}
	out := make([]network.VIF, 0, len(ports))
	for _, want := range portIDs {
		if p := at[want]; p != nil {
			out = append(out, a.vif(p, names))
		}
	}
	return out, nil
}

func (a *around) vif(p *network.Port, groupNames map[string]string) network.VIF {
	v := network.VIF{PortID: p.ID, NetworkID: p.NetworkID, MAC: p.MAC, Tap: network.TapName(p.ID), Type: "bridge"}
	if n := a.networks[p.NetworkID]; n != nil {
		v.NetworkName, v.Bridge, v.MTU = n.Name, n.Bridge, n.MTU
	}
	if p.VNICType != "" && p.VNICType != "normal" {
		a.device(&v, p)
	}
	for _, f := range p.FixedIPs {
		v.FixedIPs = append(v.FixedIPs, a.vifAddr(f))
	}
	for _, f := range a.floating[p.ID] {
		v.Floating = append(v.Floating, network.VIFAddr{Address: f.Address, Version: ipam.Version(f.Address), Fixed: f.FixedIP})
	}
	for _, g := range p.SecurityGroups {
		v.SecurityGroups = append(v.SecurityGroups, groupNames[g])
	}
	return v
}

func (a *around) vifAddr(f network.FixedIP) network.VIFAddr {
	v := network.VIFAddr{Address: f.Address, Version: ipam.Version(f.Address), SubnetID: f.SubnetID}
	if s := a.subnets[f.SubnetID]; s != nil {
		v.CIDR, v.Gateway, v.DHCP, v.DNS, v.Routes = s.CIDR, s.Gateway, s.DHCP, s.DNS, s.Routes
	}
	return v
}
