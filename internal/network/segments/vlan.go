package segments

import (
	"context"
	"fmt"
	"slices"

	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/network"
	"kilonova/internal/network/documents"
)

// MaxVLAN is the largest VLAN identifier (IEEE 802.1Q: 12 bits, of which 0 and 4095 are reserved).
const MaxVLAN = 4094

// VLANs are the identifiers on a physical network from which networks get theirs that name none.
type VLANs struct {
	Physical string
	Range
}

// TakeVLAN gives a network a VLAN of a physical network: the wanted one, fault.Conflict VlanIdInUse when another network has it, or for nil a free one of the
// ranges, on any physical network when none is named. It is fault.Unavailable NoNetworkAvailable when none is free.
func TakeVLAN(ctx context.Context, tx *db.Tx, ranges []VLANs, networkID, physical string, want *int) (string, int, error) {
	if want != nil {
		used, err := takenVLAN(ctx, tx, physical, *want)
		if err != nil {
			return "", 0, err
		}
		if used {
			return "", 0, fault.New(fault.Conflict, "VLAN %d of physical network %s belongs to another network.", *want, physical).WithCode("VlanIdInUse").
				WithHint("Choose another provider:segmentation_id.")
		}
		return physical, *want, insertVLAN(ctx, tx, networkID, physical, *want)
	}
	for _, r := range ranges {
		if physical != "" && r.Physical != physical {
			continue
		}
		used, err := documents.Collect(ctx, tx, "SELECT vlan FROM network_vlans WHERE physical_network IN (%)", []string{r.Physical},
			func(scan func(...any) error) (v int, err error) { return v, scan(&v) })
		if err != nil {
			return "", 0, err
		}
		for v := r.First; v <= r.Last; v++ {
			if !slices.Contains(used, v) {
				return r.Physical, v, insertVLAN(ctx, tx, networkID, r.Physical, v)
			}
		}
	}
	return "", 0, fault.New(fault.Unavailable, "No VLAN is free for this network.").WithCode("NoNetworkAvailable").
		WithHint("Name provider:physical_network and provider:segmentation_id, or enlarge [network] vlan_ranges.")
}

// TakeFlat gives a network a physical network as it is; fault.Conflict FlatNetworkInUse when another has it.
func TakeFlat(ctx context.Context, tx *db.Tx, networkID, physical string) error {
	used, err := takenVLAN(ctx, tx, physical, 0)
	if err != nil {
		return err
	}
	if used {
		return fault.New(fault.Conflict, "Physical network %s has a flat network already.", physical).WithCode("FlatNetworkInUse")
	}
	return insertVLAN(ctx, tx, networkID, physical, 0)
}

// TakePhysical gives a network the physical networks, or the VLANs of them, of all its segments, and no others; fault.Conflict FlatNetworkInUse or VlanIdInUse when another
// network has one.
func (b *Book) TakePhysical(ctx context.Context, tx *db.Tx, networkID string) error {
	n, err := b.networks.Get(ctx, tx, networkID)
	if err != nil {
		return err
	}
	all, err := b.Of(ctx, tx, n)
	if err != nil || !slices.ContainsFunc(all, func(s network.Segment) bool { return onPhysical(&s) }) {
		return err
	}
	if err := ReleasePhysical(ctx, tx, networkID); err != nil {
		return err
	}
	for _, s := range all {
		if s.Type == TypeVLAN {
			_, _, err = TakeVLAN(ctx, tx, nil, networkID, s.Physical, s.SegmentationID)
		} else {
			err = TakeFlat(ctx, tx, networkID, s.Physical)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ReleasePhysical gives back what a network has of a physical one.
func ReleasePhysical(ctx context.Context, tx *db.Tx, networkID string) error {
	if _, err := tx.Exec(ctx, "DELETE FROM network_vlans WHERE network_id = ?", networkID); err != nil {
		return fmt.Errorf("give back VLAN: %w", err)
	}
	return nil
}

func takenVLAN(ctx context.Context, tx *db.Tx, physical string, vlan int) (bool, error) {
	return documents.Exists(ctx, tx, "SELECT 1 FROM network_vlans WHERE physical_network = ? AND vlan = ?", physical, vlan)
}

func insertVLAN(ctx context.Context, tx *db.Tx, networkID, physical string, vlan int) error {
	if _, err := tx.Exec(ctx, "INSERT INTO network_vlans (physical_network, vlan, network_id) VALUES (?, ?, ?)", physical, vlan, networkID); err != nil {
		return fmt.Errorf("take VLAN: %w", err)
	}
	return nil
}
