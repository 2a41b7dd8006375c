package local

import (
	"context"
	"errors"
	"slices"

	"kilonova/internal/network"
	"kilonova/internal/network/segments"
	"kilonova/internal/network/wake"
)

// The network types: on one host only; carried between hosts by VXLAN; a physical network as it is; a VLAN of one.
const (
	TypeLocal = segments.TypeLocal
	TypeVXLAN = segments.TypeVXLAN
	TypeFlat  = segments.TypeFlat
	TypeVLAN  = segments.TypeVLAN
)

// vxlanOverhead is what VXLAN over IPv4 adds to each packet: Ethernet, IPv4, UDP and VXLAN headers.
const vxlanOverhead = 50

// defaultMTU leaves room for what the network's packets are wrapped in.
func (s *Service) defaultMTU(networkType string) int {
	if networkType == TypeVXLAN && s.cfg.DefaultMTU > vxlanOverhead {
		return s.cfg.DefaultMTU - vxlanOverhead
	}
	return s.cfg.DefaultMTU
}

// segment gives a network that is carried between hosts its VXLAN identifier, or its VLAN, the asked one or a free one. before is the network as it was, nil for a
// new one.
func (c *Change) segment(n, before *network.Network) error {
	if before != nil {
		same := n.SegmentationID == before.SegmentationID || n.SegmentationID != nil && before.SegmentationID != nil && *n.SegmentationID == *before.SegmentationID
		if n.ProviderType == before.ProviderType && n.ProviderPhysical == before.ProviderPhysical && same {
			return nil
		}
		if err := c.releaseSegment(before); err != nil {
			return err
		}
		if n.ProviderType != before.ProviderType && same {
			n.SegmentationID = nil // it went with the type
		}
	}
	switch n.ProviderType {
	case TypeFlat:
		return segments.TakeFlat(c.ctx, c.tx, n.ID, n.ProviderPhysical)
	case TypeVLAN:
		physical, vlan, err := segments.TakeVLAN(c.ctx, c.tx, c.cfg.VLANs, n.ID, n.ProviderPhysical, n.SegmentationID)
		n.ProviderPhysical, n.SegmentationID = physical, &vlan
		return err
	case TypeVXLAN:
	default:
		return nil
	}
	vni, err := segments.Take(c.ctx, c.tx, c.cfg.VNIs, n.ID, n.SegmentationID)
	n.SegmentationID = &vni
	return err
}

func (c *Change) releaseSegment(n *network.Network) error {
	if n.ProviderType == TypeFlat || n.ProviderType == TypeVLAN {
		return segments.ReleasePhysical(c.ctx, c.tx, n.ID)
	}
	if n.ProviderType != TypeVXLAN || n.SegmentationID == nil {
		return nil
	}
	return segments.Release(c.ctx, c.tx, n.ID, *n.SegmentationID)
}

var _ network.Segmenter = (*Service)(nil)

// SetPhysical implements network.Segmenter.
func (s *Service) SetPhysical(ctx context.Context, host string, physical []string) error {
	return s.Do(ctx, func(c *Change) error {
		changed, err := segments.SetPhysical(ctx, c.tx, host, physical)
		if changed {
			c.dirty.Segments = true
			wake.Mark(&c.dirty.Hosts, host)
		}
		return err
	})
}

// RoutedSegments implements network.Segmenter.
func (s *Service) RoutedSegments(ctx context.Context) ([]network.RoutedSegment, error) {
	return s.segments.Routed(ctx, s.db)
}

// SegmentsOf implements network.Segmenter.
func (s *Service) SegmentsOf(ctx context.Context, networkID, portID, address string) ([]string, error) {
	if portID != "" {
		p, err := s.portByID(ctx, s.db, portID)
		switch {
		case err != nil || p == nil || p.IPAllocation == network.AllocationNone:
			return nil, err
		case p.SegmentID != "":
			return []string{p.SegmentID}, nil
		}
		networkID = p.NetworkID
	}
	return s.segments.SegmentsOf(ctx, s.db, networkID, address)
}

// Segments lists the segments of all networks, or of those that f selects.
func (s *Service) Segments(ctx context.Context, f Filter) ([]network.Segment, error) {
	return s.segments.All(ctx, s.db, f)
}

// CreateSegment makes a further segment of a network.
func (c *Change) CreateSegment(s *network.Segment) error {
	wake.Mark(&c.dirty.Networks, s.NetworkID)
	if err := c.segments.Add(c.ctx, c.tx, s); err != nil {
		return err
	}
	return c.segments.TakePhysical(c.ctx, c.tx, s.NetworkID)
}

// UpdateSegment changes a segment's name and description.
func (c *Change) UpdateSegment(segmentID string, change func(s *network.Segment)) error {
	return c.segments.Change(c.ctx, c.tx, segmentID, change)
}

// DeleteSegment removes a segment without subnets; fault.Conflict SegmentInUse for others and for the only one of a network.
func (c *Change) DeleteSegment(segmentID string) error {
	networkID, err := c.segments.Remove(c.ctx, c.tx, segmentID)
	if err != nil {
		return err
	}
	wake.Mark(&c.dirty.Networks, networkID)
	return c.segments.TakePhysical(c.ctx, c.tx, networkID)
}

// within gives those of a network's subnets from which a port may have addresses where it is. Only routed networks are looked at more closely.
func (c *Change) within(p *network.Port, subnets []network.Subnet, asked bool) ([]network.Subnet, error) {
	if p.IPAllocation = network.AllocationImmediate; asked && len(p.FixedIPs) == 0 {
		p.IPAllocation = network.AllocationNone
	}
	if !segments.Routed(subnets) {
		return subnets, nil
	}
	out, deferred, err := c.segments.Eligible(c.ctx, c.tx, subnets, p, asked)
	if deferred {
		p.IPAllocation = network.AllocationDeferred
	}
	return out, err
}

// follow is what a new host means for a port's addresses: one that waits for them gets them, and others must be of a segment that the host is joined to.
func (c *Change) follow(p, before *network.Port) error {
	if p.HostID == "" || p.HostID == before.HostID || !slices.Equal(p.FixedIPs, before.FixedIPs) {
		return nil
	}
	if p.SegmentID != "" || p.IPAllocation != network.AllocationDeferred {
		return c.segments.Fits(c.ctx, c.tx, p, p.HostID)
	}
	subnets, err := c.subnetsOf(p.NetworkID)
	if err == nil {
		subnets, err = c.within(p, subnets, false)
	}
	if err == nil {
		p.FixedIPs, err = c.assign(p, subnets, nil, false, nil)
	}
	before.FixedIPs = p.FixedIPs
	return errors.Join(err, segments.Place(p, subnets))
}
