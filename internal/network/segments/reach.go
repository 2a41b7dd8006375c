package segments

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/network"
	"kilonova/internal/network/documents"
	"kilonova/internal/network/ipam"
)

// Physical gives the physical networks that a host is joined to.
func Physical(ctx context.Context, q db.Querier, host string) ([]string, error) {
	return documents.Strings(ctx, q, "SELECT physical_network FROM network_host_physicals WHERE host IN (%)", []string{host})
}

// SetPhysical keeps them; changed tells whether they were others before.
func SetPhysical(ctx context.Context, tx *db.Tx, host string, physical []string) (changed bool, err error) {
	have, err := Physical(ctx, tx, host)
	if err != nil {
		return false, err
	}
	for _, p := range have {
		if slices.Contains(physical, p) {
			continue
		}
		changed = true
		if _, err := tx.Exec(ctx, "DELETE FROM network_host_physicals WHERE host = ? AND physical_network = ?", host, p); err != nil {
			return false, fmt.Errorf("physical networks of a host: %w", err)
		}
	}
	for _, p := range physical {
		if slices.Contains(have, p) {
			continue
		}
		changed, have = true, append(have, p)
		if _, err := tx.Exec(ctx, "INSERT INTO network_host_physicals (host, physical_network) VALUES (?, ?)", host, p); err != nil {
			return false, fmt.Errorf("physical networks of a host: %w", err)
		}
	}
	return changed, nil
}

// reaches tells whether a host with these physical networks is joined to a segment. Tunnels end on every host.
func reaches(s *network.Segment, physical []string) bool {
	return !onPhysical(s) || slices.Contains(physical, s.Physical)
}

// onPhysical tells whether only hosts of a physical network are joined to a segment.
func onPhysical(s *network.Segment) bool { return s.Type == TypeFlat || s.Type == TypeVLAN }

// joined gives those of a network's segments that a host is joined to.
func (b *Book) joined(ctx context.Context, q db.Querier, networkID, host string) ([]network.Segment, error) {
	n, err := b.networks.Get(ctx, q, networkID)
	if err != nil {
		return nil, err
	}
	all, err := b.Of(ctx, q, n)
	if err != nil {
		return nil, err
	}
	physical, err := Physical(ctx, q, host)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(s network.Segment) bool { return !reaches(&s, physical) }), nil
}

// Localize makes the networks of a host, by id, those of the segments that it is joined to. Networks of one segment whose subnets are on all of it stay as they are.
func (b *Book) Localize(ctx context.Context, q db.Querier, host string, nets map[string]*network.Network) error {
	for id, n := range nets {
		if !n.Segmented && !Routed(n.Subnets) {
			continue
		}
		joined, err := b.joined(ctx, q, id, host)
		if err != nil {
			return err
		}
		here := *n
		here.ProviderPhysical, here.SegmentationID = "", nil
		if len(joined) > 0 {
			here.ProviderType, here.ProviderPhysical, here.SegmentationID = joined[0].Type, joined[0].Physical, joined[0].SegmentationID
		}
		here.Subnets = slices.DeleteFunc(slices.Clone(n.Subnets), func(sub network.Subnet) bool {
			return sub.SegmentID != "" && !slices.ContainsFunc(joined, func(j network.Segment) bool { return j.ID == sub.SegmentID })
		})
		nets[id] = &here
	}
	return nil
}

// Routed tells whether subnets are on segments.
func Routed(subnets []network.Subnet) bool {
	return slices.ContainsFunc(subnets, func(s network.Subnet) bool { return s.SegmentID != "" })
}

// Eligible gives the subnets of a routed network from which a port may have addresses: those of the segment that its host is joined to. asked tells that addresses or
// subnets are named. deferred tells that none may be given before the port has a host.
func (b *Book) Eligible(ctx context.Context, q db.Querier, subnets []network.Subnet, p *network.Port, asked bool) (out []network.Subnet, deferred bool, err error) {
	if p.DeviceOwner == network.OwnerFloatingIP {
		return nil, false, fault.New(fault.Conflict, "Network %s is routed: an address of it works on the hosts of one segment only, so it has no floating IPs.", p.NetworkID).
			WithCode("IpAddressGenerationFailure").WithHint("Use an external network whose subnets are not on segments.")
	}
	if p.HostID == "" {
		if asked { // whether the host is joined to their segment is seen when there is one
			return slices.DeleteFunc(slices.Clone(subnets), func(s network.Subnet) bool { return s.SegmentID != "" && ipam.Automatic(&s) }), false, nil
		}
		out = slices.DeleteFunc(slices.Clone(subnets), func(s network.Subnet) bool { return s.SegmentID != "" })
		if len(out) == 0 && strings.HasPrefix(p.DeviceOwner, "network:") {
			return nil, false, fault.New(fault.Conflict, "No more IP addresses available on network %s: its subnets are on segments, so an address depends on the host, and a %s has none.",
				p.NetworkID, strings.TrimPrefix(p.DeviceOwner, "network:")).WithCode("IpAddressGenerationFailure").WithHint("Name the address or its subnet.")
		}
		return out, len(out) == 0, nil
	}
	joined, err := b.joined(ctx, q, p.NetworkID, p.HostID)
	if err != nil {
		return nil, false, err
	}
	on := map[string]bool{}
	for _, s := range subnets {
		here := slices.ContainsFunc(joined, func(j network.Segment) bool { return j.ID == s.SegmentID })
		if s.SegmentID == "" || here {
			out = append(out, s)
		}
		if here {
			on[s.SegmentID] = true
		}
	}
	switch {
	case len(on) > 1:
		return nil, false, fault.New(fault.Conflict, "Host %s is connected to multiple segments on routed provider network '%s'.  It should be connected to one.", p.HostID, p.NetworkID).
			WithCode("HostConnectedToMultipleSegments")
	case len(out) == 0:
		return nil, false, fault.New(fault.Conflict, "Host %s is not connected to any segments on routed provider network '%s'.  It should be connected to one.", p.HostID, p.NetworkID).
			WithCode(network.CodeNoSegment)
	}
	return out, false, nil
}

// Place notes in a port the segment of its addresses; fault.Invalid when they are of several.
func Place(p *network.Port, subnets []network.Subnet) error {
	p.SegmentID = ""
	for _, f := range p.FixedIPs {
		for _, s := range subnets {
			if s.ID != f.SubnetID || s.SegmentID == "" {
				continue
			}
			if p.SegmentID != "" && p.SegmentID != s.SegmentID {
				return fault.New(fault.Invalid, "Cannot allocate addresses from different segments.").WithCode("FixedIpsSubnetsNotOnSameSegment")
			}
			p.SegmentID = s.SegmentID
		}
	}
	return nil
}

// Fits fails with fault.Conflict when a host is not joined to the segment of a port's addresses.
func (b *Book) Fits(ctx context.Context, q db.Querier, p *network.Port, host string) error {
	if p.SegmentID == "" {
		return nil
	}
	joined, err := b.joined(ctx, q, p.NetworkID, host)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(joined, func(s network.Segment) bool { return s.ID == p.SegmentID }) {
		return nil
	}
	return fault.New(fault.Conflict, "Host %s is not connected to a segment where the existing fixed_ips on port %s will function given the routed network topology.", host, p.ID).
		WithCode(network.CodeOtherSegment)
}

// CheckSubnet judges the segment of a new subnet, or the one that a subnet shall get: it is one of the network's, and of all subnets of a network or of none.
func (b *Book) CheckSubnet(ctx context.Context, q db.Querier, n *network.Network, s *network.Subnet, others []network.Subnet) error {
	for _, o := range others {
		if (o.SegmentID == "") != (s.SegmentID == "") {
			return fault.New(fault.Invalid, "All of the subnets on network '%s' must either all be associated with segments or all not associated with any segment.", n.ID).
				WithCode("SubnetsNotAllAssociatedWithSegments")
		}
	}
	if s.SegmentID == "" {
		return nil
	}
	all, err := b.Of(ctx, q, n)
	if err != nil || slices.ContainsFunc(all, func(g network.Segment) bool { return g.ID == s.SegmentID }) {
		return err
	}
	if _, err := b.Get(ctx, q, s.SegmentID); err != nil {
		return err
	}
	return fault.New(fault.Invalid, "The subnet's network id, '%s', doesn't match the network_id of segment '%s'", n.ID, s.SegmentID).WithCode("NetworkIdsDontMatch")
}

// Associate puts a subnet that is there, on no segment before, on a segment (extension subnet-segmentid-writable), and with it the ports that have addresses of it.
func (b *Book) Associate(ctx context.Context, tx *db.Tx, before, s *network.Subnet) error {
	if s.SegmentID == before.SegmentID {
		return nil
	}
	if before.SegmentID != "" {
		return fault.New(fault.Invalid, "A subnet that is already associated with a segment cannot have its segment association changed.").
			WithCode("SubnetSegmentAssociationChangeNotAllowed")
	}
	n, err := b.networks.Lock(ctx, tx, s.NetworkID)
	if err != nil {
		return err
	}
	all, err := b.Of(ctx, tx, n)
	if err != nil {
		return err
	}
	if len(all) > 1 {
		return fault.New(fault.Invalid, "The network '%s' has multiple segments, it is only possible to associate an existing subnet with a segment on networks with a single segment.", n.ID).
			WithCode("NoUpdateSubnetWhenMultipleSegmentsOnNetwork")
	}
	if err := b.CheckSubnet(ctx, tx, n, s, nil); err != nil {
		return err
	}
	ids, err := documents.Strings(ctx, tx, "SELECT DISTINCT port_id FROM network_addresses WHERE subnet_id IN (%)", []string{s.ID})
	if err != nil {
		return err
	}
	ports, err := b.ports.In(ctx, tx, "id", ids)
	if err != nil {
		return err
	}
	for i := range ports {
		ports[i].SegmentID = s.SegmentID
		if err := b.ports.Update(ctx, tx, &ports[i]); err != nil {
			return err
		}
	}
	return nil
}
