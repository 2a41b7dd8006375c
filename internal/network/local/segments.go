package local

import (
	"kilonova/internal/network"
	"kilonova/internal/network/segments"
)

// The network types: on one host only; carried between hosts by VXLAN; a physical network as it is.
const (
	TypeLocal = "local"
	TypeVXLAN = "vxlan"
	TypeFlat  = "flat"
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

// segment gives a network that is carried between hosts its VXLAN identifier, the asked one or a free one. before is the network as it was, nil for a
// new one.
func (c *Change) segment(n, before *network.Network) error {
	if before != nil {
		same := n.SegmentationID == before.SegmentationID || n.SegmentationID != nil && before.SegmentationID != nil && *n.SegmentationID == *before.SegmentationID
		if n.ProviderType == before.ProviderType && same {
			return nil
		}
		if err := c.releaseSegment(before); err != nil {
			return err
		}
		if n.ProviderType != TypeVXLAN && same {
			n.SegmentationID = nil // it went with the type
		}
	}
	if n.ProviderType != TypeVXLAN {
		return nil
	}
	vni, err := segments.Take(c.ctx, c.tx, c.cfg.VNIs, n.ID, n.SegmentationID)
	n.SegmentationID = &vni
	return err
}

func (c *Change) releaseSegment(n *network.Network) error {
	if n.ProviderType != TypeVXLAN || n.SegmentationID == nil {
		return nil
	}
	return segments.Release(c.ctx, c.tx, n.ID, *n.SegmentationID)
}
