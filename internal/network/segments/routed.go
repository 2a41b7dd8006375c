package segments

import (
	"context"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"kilonova/internal/db"
	"kilonova/internal/network"
	"kilonova/internal/network/documents"
	"kilonova/internal/network/ipam"
)

// SegmentsOf gives the segments of a network that have subnets, or have one with an address if that is given.
func (b *Book) SegmentsOf(ctx context.Context, q db.Querier, networkID, address string) ([]string, error) {
	subnets, err := b.subnets.List(ctx, q, "network_id = ? AND segment_id > ''", networkID)
	if err != nil {
		return nil, err
	}
	var ids []string
	for i := range subnets {
		p, err := ipam.Prefix(&subnets[i])
		if err != nil {
			return nil, err
		}
		if a, err := ipam.ParseAddr(address); address == "" || err == nil && p.Contains(a) {
			ids = append(ids, subnets[i].SegmentID)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// Routed gives the segments that have subnets, in the order of their ids.
func (b *Book) Routed(ctx context.Context, q db.Querier) ([]network.RoutedSegment, error) {
	subnets, err := b.subnets.List(ctx, q, "segment_id > ''")
	if err != nil || len(subnets) == 0 {
		return nil, err
	}
	var of []string
	for i := range subnets {
		of = append(of, subnets[i].NetworkID)
	}
	slices.Sort(of)
	nets, err := b.networks.In(ctx, q, "id", slices.Compact(of))
	if err != nil {
		return nil, err
	}
	if err := b.Complete(ctx, q, nets); err != nil {
		return nil, err
	}
	byID, flat := map[string]*network.RoutedSegment{}, map[string]*network.Segment{}
	for i := range nets {
		all := nets[i].Segments
		if !nets[i].Segmented {
			all = []network.Segment{Only(&nets[i])}
		}
		for k := range all {
			s := &all[k]
			byID[s.ID] = &network.RoutedSegment{ID: s.ID, Everywhere: !onPhysical(s)}
			if onPhysical(s) {
				flat[s.ID] = s
			}
		}
	}
	joined, err := hostsOf(ctx, q, flat)
	if err != nil {
		return nil, err
	}
	for id, s := range flat {
		byID[id].Hosts = joined[s.Physical]
	}
	taken, err := takenByOthers(ctx, q, subnets)
	if err != nil {
		return nil, err
	}
	var out []network.RoutedSegment
	for i := range subnets {
		s := byID[subnets[i].SegmentID]
		if s == nil {
			continue
		}
		total, reserved, err := addresses(&subnets[i])
		if err != nil {
			return nil, err
		}
		if total > 0 {
			reserved += taken[subnets[i].ID]
		}
		s.IPv4Total, s.IPv4Reserved = s.IPv4Total+total, s.IPv4Reserved+reserved
	}
	for _, sub := range subnets {
		if s := byID[sub.SegmentID]; s != nil && !slices.ContainsFunc(out, func(o network.RoutedSegment) bool { return o.ID == s.ID }) {
			s.IPv4Reserved = min(s.IPv4Reserved, s.IPv4Total)
			out = append(out, *s)
		}
	}
	slices.SortFunc(out, func(a, b network.RoutedSegment) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

// hostsOf gives, by physical network, the hosts that are joined to those of segments.
func hostsOf(ctx context.Context, q db.Querier, flat map[string]*network.Segment) (map[string][]string, error) {
	var names []string
	for _, s := range flat {
		names = append(names, s.Physical)
	}
	slices.Sort(names)
	type joint struct{ host, physical string }
	rows, err := documents.Collect(ctx, q, "SELECT host, physical_network FROM network_host_physicals WHERE physical_network IN (%)", slices.Compact(names),
		func(scan func(...any) error) (j joint, err error) { return j, scan(&j.host, &j.physical) })
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for _, j := range rows {
		out[j.physical] = append(out[j.physical], j.host)
	}
	for _, hosts := range out {
		slices.Sort(hosts)
	}
	return out, nil
}

// addresses counts an IPv4 subnet's: those of its pools, of which the DHCP server has one, and the gateway's.
func addresses(s *network.Subnet) (total, reserved int64, err error) {
	if s.Version != 4 {
		return 0, 0, nil
	}
	for _, p := range s.Pools {
		from, err := ipam.ParseAddr(p.Start)
		if err != nil {
			return 0, 0, err
		}
		to, err := ipam.ParseAddr(p.End)
		if err != nil {
			return 0, 0, err
		}
		low, high := new(big.Int).SetBytes(from.AsSlice()), new(big.Int).SetBytes(to.AsSlice())
		total += new(big.Int).Sub(high, low).Int64() + 1
	}
	if total > 0 && s.Gateway != "" {
		total, reserved = total+1, reserved+1
	}
	if total > 0 && s.DHCP {
		reserved++
	}
	return total, reserved, nil
}

// takenByOthers counts the addresses of each subnet that ports have which are not servers'.
func takenByOthers(ctx context.Context, q db.Querier, subnets []network.Subnet) (map[string]int64, error) {
	ids := make([]string, len(subnets))
	for i := range subnets {
		ids[i] = subnets[i].ID
	}
	type count struct {
		subnet string
		n      int64
	}
	rows, err := documents.Collect(ctx, q, `SELECT a.subnet_id, COUNT(*) FROM network_addresses a JOIN network_ports p ON p.id = a.port_id
 WHERE SUBSTR(p.device_owner, 1, 8) <> 'compute:' AND a.subnet_id IN (%) GROUP BY a.subnet_id`, ids, func(scan func(...any) error) (c count, err error) { return c, scan(&c.subnet, &c.n) })
	if err != nil {
		return nil, fmt.Errorf("addresses of other ports: %w", err)
	}
	out := map[string]int64{}
	for _, r := range rows {
		out[r.subnet] = r.n
	}
	return out, nil
}
