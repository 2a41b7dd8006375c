package wiring

import (
	"context"
	"slices"

	"kilonova/internal/network"
	"kilonova/internal/network/ipam"
	"kilonova/internal/network/segments"
)

// VIFs gives the interfaces of guests that ports are, in the order of the ids. Ports that are gone are left out.
func (r *Reader) VIFs(ctx context.Context, portIDs ...string) ([]network.VIF, error) {
	ports, err := r.Ports.In(ctx, r.DB, "id", portIDs)
	if err != nil || len(ports) == 0 {
		return nil, err
	}
	a, err := r.around(ctx, ports)
	if err != nil {
		return nil, err
	}
	var groupIDs []string
	for i := range ports {
		groupIDs = append(groupIDs, ports[i].SecurityGroups...)
	}
	slices.Sort(groupIDs)
	groups, err := r.Groups.In(ctx, r.DB, "id", slices.Compact(groupIDs))
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

// device completes the interface of a port that is no ordinary one.
func (a *around) device(v *network.VIF, p *network.Port) {
	v.VNICType, v.NUMAPolicy, v.Type = p.VNICType, p.NUMAPolicy, p.VIFType
	v.Trusted = p.Trusted()
	if network.IsDevice(p.VNICType) {
		v.Bridge, v.Tap = "", ""
	}
	n := a.networks[p.NetworkID]
	if n == nil {
		return
	}
	v.PhysicalNetwork = n.ProviderPhysical
	if n.ProviderType == segments.TypeVLAN && n.SegmentationID != nil {
		v.VLAN = *n.SegmentationID
	}
}
