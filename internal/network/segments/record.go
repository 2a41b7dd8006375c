package segments

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/network"
	"kilonova/internal/network/documents"
)

// Types of segments.
const (
	TypeLocal = "local" // on one host only
	TypeVXLAN = "vxlan" // carried between hosts by VXLAN
	TypeFlat  = "flat"  // a physical network as it is
	TypeVLAN  = "vlan"  // a VLAN of a physical network
)

// Book keeps the records of segments, beside the tables of networks, subnets and ports.
type Book struct {
	*documents.Table[network.Segment]
	networks *documents.Table[network.Network]
	subnets  *documents.Table[network.Subnet]
	ports    *documents.Table[network.Port]
}

// NewBook gives access to the records.
func NewBook(networks *documents.Table[network.Network], subnets *documents.Table[network.Subnet], ports *documents.Table[network.Port]) *Book {
	return &Book{networks: networks, subnets: subnets, ports: ports, Table: documents.New("network_parts", "Segment", []string{"network_id", "name"},
		func(s *network.Segment) string { return s.ID }, func(s *network.Segment) *network.Standard { return &s.Standard },
		func(s *network.Segment) []any { return []any{s.NetworkID, s.Name} })}
}

// All lists the segments of all networks, or of those that f selects.
func (b *Book) All(ctx context.Context, q db.Querier, f documents.Filter) ([]network.Segment, error) {
	nets, err := b.networks.Find(ctx, q, f, "")
	if err != nil {
		return nil, err
	}
	if err := b.Complete(ctx, q, nets); err != nil {
		return nil, err
	}
	var out []network.Segment
	for i := range nets {
		if nets[i].Segmented {
			out = append(out, nets[i].Segments...)
		} else {
			out = append(out, Only(&nets[i]))
		}
	}
	return out, nil
}

// lock gives the network that a segment is of, which has records of its segments from then on.
func (b *Book) lock(ctx context.Context, tx *db.Tx, segmentID string) (*network.Network, error) {
	all, err := b.All(ctx, tx, documents.Filter{})
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(s network.Segment) bool { return s.ID == segmentID })
	if i < 0 {
		return nil, documents.NotFound("Segment", segmentID)
	}
	n, err := b.networks.Lock(ctx, tx, all[i].NetworkID)
	if err != nil || n.Segmented {
		return n, err
	}
	if err := b.keep(ctx, tx, n); err != nil {
		return nil, err
	}
	return n, b.networks.Update(ctx, tx, n)
}

// Only is the segment of a network without records: it is what the network's own attributes say, and its id follows from the network's.
func Only(n *network.Network) network.Segment {
	return network.Segment{ID: id.Derived("network-segment", n.ID), NetworkID: n.ID, Type: n.ProviderType, Physical: n.ProviderPhysical, SegmentationID: n.SegmentationID,
		Standard: network.Standard{Created: n.Created, Updated: n.Created}}
}

// Of gives the segments of a network, oldest first.
func (b *Book) Of(ctx context.Context, q db.Querier, n *network.Network) ([]network.Segment, error) {
	if !n.Segmented {
		return []network.Segment{Only(n)}, nil
	}
	return b.ofNetwork(ctx, q, n.ID)
}

func (b *Book) ofNetwork(ctx context.Context, q db.Querier, networkID string) ([]network.Segment, error) {
	all, err := b.List(ctx, q, "network_id = ?", networkID)
	sorted(all)
	return all, err
}

func sorted(all []network.Segment) {
	slices.SortFunc(all, func(a, b network.Segment) int {
		if d := a.Created.Compare(b.Created); d != 0 {
			return d
		}
		return strings.Compare(a.ID, b.ID)
	})
}

// Complete puts their segments into the networks that have records.
func (b *Book) Complete(ctx context.Context, q db.Querier, nets []network.Network) error {
	var ids []string
	for i := range nets {
		if nets[i].Segmented {
			ids = append(ids, nets[i].ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	all, err := b.In(ctx, q, "network_id", ids)
	if err != nil {
		return err
	}
	sorted(all)
	for i := range nets {
		for _, s := range all {
			if s.NetworkID == nets[i].ID {
				nets[i].Segments = append(nets[i].Segments, s)
			}
		}
	}
	return nil
}

// keep makes the records of a network that has none yet. The caller stores the network, which it marks.
func (b *Book) keep(ctx context.Context, tx *db.Tx, n *network.Network) error {
	if n.Segmented {
		return nil
	}
	n.Segmented = true
	only := Only(n)
	return b.Insert(ctx, tx, &only)
}

// Add makes a further segment of a network. fault.Invalid or fault.Conflict for one that hosts cannot have beside the others.
func (b *Book) Add(ctx context.Context, tx *db.Tx, s *network.Segment) error {
	n, err := b.networks.Lock(ctx, tx, s.NetworkID)
	if err != nil {
		return err
	}
	have, err := b.Of(ctx, tx, n)
	if err != nil {
		return err
	}
	if err := check(append(have, *s)); err != nil {
		return err
	}
	if err := b.keep(ctx, tx, n); err != nil {
		return err
	}
	s.ID = id.UUID()
	if err := b.Insert(ctx, tx, s); err != nil {
		return err
	}
	return b.networks.Update(ctx, tx, n)
}

// Start gives a new network the segments that were asked for with it (extension multi-provider). The caller stores the network, which it marks.
func (b *Book) Start(ctx context.Context, tx *db.Tx, n *network.Network) error {
	if len(n.Segments) == 0 {
		return nil
	}
	if err := check(n.Segments); err != nil {
		return err
	}
	n.Segmented = true
	for i := range n.Segments {
		s := &n.Segments[i]
		s.ID, s.NetworkID = id.UUID(), n.ID
		if err := b.Insert(ctx, tx, s); err != nil {
			return err
		}
	}
	return nil
}

// Change changes a segment's name and description.
func (b *Book) Change(ctx context.Context, tx *db.Tx, segmentID string, change func(s *network.Segment)) error {
	if _, err := b.lock(ctx, tx, segmentID); err != nil {
		return err
	}
	s, err := b.Lock(ctx, tx, segmentID)
	if err != nil {
		return err
	}
	change(s)
	return b.Update(ctx, tx, s)
}

// Remove takes a segment without subnets from its network; fault.Conflict SegmentInUse for others and for the only one of a network. What is left, when it is one,
// becomes the network's own attributes.
func (b *Book) Remove(ctx context.Context, tx *db.Tx, segmentID string) (networkID string, err error) {
	used := func(why string) error {
		return fault.New(fault.Conflict, "Segment '%s' cannot be deleted: %s.", segmentID, why).WithCode("SegmentInUse")
	}
	n, err := b.lock(ctx, tx, segmentID)
	if err != nil {
		return "", err
	}
	subnets, err := documents.Strings(ctx, tx, "SELECT id FROM network_subnets WHERE segment_id IN (%)", []string{segmentID})
	if err != nil {
		return "", err
	}
	if len(subnets) > 0 {
		return "", used("The segment is still associated with subnet(s) " + strings.Join(subnets, ", "))
	}
	have, err := b.Of(ctx, tx, n)
	if err != nil {
		return "", err
	}
	left := slices.DeleteFunc(have, func(s network.Segment) bool { return s.ID == segmentID })
	if len(left) == 0 {
		return "", used("It is the only segment of network " + n.ID + "; delete the network instead")
	}
	n.ProviderType, n.ProviderPhysical, n.SegmentationID = left[0].Type, left[0].Physical, left[0].SegmentationID
	if err := b.Delete(ctx, tx, segmentID); err != nil {
		return "", err
	}
	return n.ID, b.networks.Update(ctx, tx, n)
}

// DeleteOf removes the records of a network's segments.
func (b *Book) DeleteOf(ctx context.Context, tx *db.Tx, networkID string) error {
	if _, err := tx.Exec(ctx, "DELETE FROM network_parts WHERE network_id = ?", networkID); err != nil {
		return fmt.Errorf("delete the segments of a network: %w", err)
	}
	return nil
}

// check judges the segments of one network by what hosts can do: several must be of physical networks, flat or a VLAN that is named, no two the same. fault.Invalid says what
// is not possible.
func check(all []network.Segment) error {
	bad := func(format string, args ...any) error {
		return fault.New(fault.Invalid, "Invalid input for operation: "+format, args...).WithCode("InvalidInput")
	}
	type part struct {
		physical string
		vlan     int
	}
	seen := map[part]bool{}
	for _, s := range all {
		p := part{physical: s.Physical}
		if s.SegmentationID != nil {
			p.vlan = *s.SegmentationID
		}
		switch {
		case len(all) > 1 && !onPhysical(&s):
			return bad("the segments of a network with several must all be flat or vlan, network_type value '%s' is not supported there.", s.Type)
		case len(all) > 1 && s.Type == TypeVLAN && (s.Physical == "" || p.vlan < 1 || p.vlan > MaxVLAN):
			return bad("a vlan segment of a network with several needs physical_network and segmentation_id (1 through %d).", MaxVLAN)
		case s.Type == TypeFlat && s.Physical == "":
			return bad("physical_network required for flat provider network.")
		case s.Type == TypeFlat && s.SegmentationID != nil:
			return bad("provider:segmentation_id is prohibited for flat provider network.")
		case s.Type == TypeFlat && seen[p]:
			return fault.New(fault.Conflict, "Unable to create the flat network. Physical network %s is in use.", s.Physical).WithCode("FlatNetworkInUse")
		case s.Type == TypeVLAN && seen[p]:
			return fault.New(fault.Conflict, "Unable to create the network. The VLAN %d on physical network %s is in use.", p.vlan, s.Physical).WithCode("VlanIdInUse")
		}
		seen[p] = true
	}
	return nil
}
