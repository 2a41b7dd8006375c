package local

import (
	"fmt"
	"math/rand/v2"

	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/network"
	"kilonova/internal/network/documents"
)

// The network types: on one host only; carried between hosts by VXLAN; a physical network as it is.
const (
	TypeLocal = "local"
	TypeVXLAN = "vxlan"
	TypeFlat  = "flat"
)

// MaxVNI is the largest VXLAN identifier (RFC 7348: 24 bits).
const MaxVNI = 1<<24 - 1

// vxlanOverhead is what VXLAN over IPv4 adds to each packet: Ethernet, IPv4, UDP and VXLAN headers.
const vxlanOverhead = 50

// VNIRange is a range of VXLAN identifiers, both ends included.
type VNIRange struct{ First, Last int }

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
	if n.SegmentationID == nil {
		vni, err := c.freeVNI()
		if err != nil {
			return err
		}
		n.SegmentationID = &vni
	}
	taken, err := c.vniTaken(*n.SegmentationID)
	if err != nil {
		return err
	}
	if taken {
		return fault.New(fault.Conflict, "Unable to create the network. The tunnel ID %d is in use.", *n.SegmentationID).WithCode("TunnelIdInUse")
	}
	if _, err := c.tx.Exec(c.ctx, "INSERT INTO network_segments (vni, network_id) VALUES (?, ?)", *n.SegmentationID, n.ID); err != nil {
		return fmt.Errorf("take VXLAN identifier: %w", err)
	}
	return nil
}

func (c *Change) releaseSegment(n *network.Network) error {
	if n.ProviderType != TypeVXLAN || n.SegmentationID == nil {
		return nil
	}
	if _, err := c.tx.Exec(c.ctx, "DELETE FROM network_segments WHERE vni = ? AND network_id = ?", *n.SegmentationID, n.ID); err != nil {
		return fmt.Errorf("give back VXLAN identifier: %w", err)
	}
	return nil
}

func (c *Change) vniTaken(vni int) (bool, error) {
	return documents.Exists(c.ctx, c.tx, "SELECT 1 FROM network_segments WHERE vni = ?", vni)
}

// freeVNI tries identifiers at random, which is quick while many are free, and then looks for a gap in each range.
func (c *Change) freeVNI() (int, error) {
	total := 0
	for _, r := range c.cfg.VNIs {
		total += r.Last - r.First + 1
	}
	for range 8 {
		n := rand.IntN(total)
		for _, r := range c.cfg.VNIs {
			size := r.Last - r.First + 1
			if n >= size {
				n -= size
				continue
			}
			if taken, err := c.vniTaken(r.First + n); err != nil || !taken {
				return r.First + n, err
			}
			break
		}
	}
	for _, r := range c.cfg.VNIs {
		if taken, err := c.vniTaken(r.First); err != nil || !taken {
			return r.First, err
		}
		var vni int
		err := c.tx.QueryRow(c.ctx, `SELECT s.vni + 1 FROM network_segments s WHERE s.vni >= ? AND s.vni < ?
 AND NOT EXISTS (SELECT 1 FROM network_segments o WHERE o.vni = s.vni + 1) ORDER BY s.vni LIMIT 1`, r.First, r.Last).Scan(&vni)
		if !db.IsNoRows(err) {
			return vni, err
		}
	}
	return 0, fault.New(fault.Unavailable, "Unable to create the network. No tenant network is available for allocation.").WithCode("NoNetworkAvailable").
		WithHint("Enlarge [network] vni_ranges or delete networks.")
}
