// Package segments keeps the segments of networks: the VXLAN identifiers, each given to one network at a time (the primary key says so), the records of networks that
// have several segments, which hosts are joined to a segment, and from which of its subnets a port may have addresses.
package segments

import (
	"context"
	"fmt"
	"math/rand/v2"

	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/network/documents"
)

// MaxVNI is the largest VXLAN identifier (RFC 7348: 24 bits).
const MaxVNI = 1<<24 - 1

// Range is a range of VXLAN identifiers, both ends included.
type Range struct{ First, Last int }

// All is every identifier.
func All() []Range { return []Range{{First: 1, Last: MaxVNI}} }

// Take gives a network the wanted identifier, fault.Conflict when another has it, or for nil a free one of the ranges.
func Take(ctx context.Context, tx *db.Tx, ranges []Range, networkID string, want *int) (int, error) {
	if want == nil {
		vni, err := free(ctx, tx, ranges)
		if err != nil {
			return 0, err
		}
		want = &vni
	}
	used, err := taken(ctx, tx, *want)
	if err != nil {
		return 0, err
	}
	if used {
		return 0, fault.New(fault.Conflict, "Unable to create the network. The tunnel ID %d is in use.", *want).WithCode("TunnelIdInUse")
	}
	if _, err := tx.Exec(ctx, "INSERT INTO network_segments (vni, network_id) VALUES (?, ?)", *want, networkID); err != nil {
		return 0, fmt.Errorf("take VXLAN identifier: %w", err)
	}
	return *want, nil
}

// Release gives a network's identifier back.
func Release(ctx context.Context, tx *db.Tx, networkID string, vni int) error {
	if _, err := tx.Exec(ctx, "DELETE FROM network_segments WHERE vni = ? AND network_id = ?", vni, networkID); err != nil {
		return fmt.Errorf("give back VXLAN identifier: %w", err)
	}
	return nil
}

func taken(ctx context.Context, tx *db.Tx, vni int) (bool, error) {
	return documents.Exists(ctx, tx, "SELECT 1 FROM network_segments WHERE vni = ?", vni)
}

// free tries identifiers at random, which is quick while many are free, and then looks for a gap in each range.
func free(ctx context.Context, tx *db.Tx, ranges []Range) (int, error) {
	total := 0
	for _, r := range ranges {
		total += r.Last - r.First + 1
	}
	for range 8 {
		n := rand.IntN(total)
		for _, r := range ranges {
			size := r.Last - r.First + 1
			if n >= size {
				n -= size
				continue
			}
			if taken, err := taken(ctx, tx, r.First+n); err != nil || !taken {
				return r.First + n, err
			}
			break
		}
	}
	for _, r := range ranges {
		if taken, err := taken(ctx, tx, r.First); err != nil || !taken {
			return r.First, err
		}
		var vni int
		err := tx.QueryRow(ctx, `SELECT s.vni + 1 FROM network_segments s WHERE s.vni >= ? AND s.vni < ?
 AND NOT EXISTS (SELECT 1 FROM network_segments o WHERE o.vni = s.vni + 1) ORDER BY s.vni LIMIT 1`, r.First, r.Last).Scan(&vni)
		if !db.IsNoRows(err) {
			return vni, err
		}
	}
	return 0, fault.New(fault.Unavailable, "Unable to create the network. No tenant network is available for allocation.").WithCode("NoNetworkAvailable").
		WithHint("Enlarge [network] vni_ranges or delete networks.")
}
