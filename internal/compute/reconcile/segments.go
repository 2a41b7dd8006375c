package reconcile

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"kilonova/internal/compute"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/network"
	"kilonova/internal/placement"
)

// SegmentAggregate is the name of the aggregate, and of the provider in placement, that stand for a segment of a routed network; Neutron gives them the same.
func SegmentAggregate(segmentID string) string { return segmentPrefix + segmentID }

const segmentPrefix = "Neutron segment id "

// Segments mirrors the segments of routed networks: each is an aggregate of the hosts that are joined to it, and a provider of IPv4 addresses in placement that is in this
// aggregate. Thereby a request for candidates can be kept to the hosts of a segment.
func (l *Loops) Segments(ctx context.Context) error {
	s, ok := l.cfg.Network.(network.Segmenter)
	if !ok {
		return nil
	}
	l.mirror.Lock()
	defer l.mirror.Unlock()
	// The aggregates first: one that another conductor makes meanwhile is not taken for one whose segment is gone.
	aggs, err := l.cfg.Store.Aggregates(ctx, l.cfg.Store.DB)
	if err != nil {
		return err
	}
	have := map[string]*compute.Aggregate{}
	for i := range aggs {
		if segment, ours := strings.CutPrefix(aggs[i].Name, segmentPrefix); ours {
			have[segment] = &aggs[i]
		}
	}
	want, err := s.RoutedSegments(ctx)
	if err != nil {
		return err
	}
	if len(want)+len(have) == 0 {
		return nil
	}
	hosts, err := l.cfg.Store.Hosts(ctx, l.cfg.Store.DB)
	if err != nil {
		return err
	}
	var errs []error
	for i := range want {
		errs = append(errs, meanwhile(l.mirrorSegment(ctx, &want[i], have[want[i].ID], hosts)))
		delete(have, want[i].ID)
	}
	for _, segment := range slices.Sorted(maps.Keys(have)) {
		errs = append(errs, meanwhile(l.forgetSegment(ctx, segment, have[segment])))
	}
	return errors.Join(errs...)
}

// meanwhile makes success of what fails because another conductor did it, or the opposite, at the same time: the next look sees what is left to do.
func meanwhile(err error) error {
	if errors.Is(err, fault.Conflict) || errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

func (l *Loops) mirrorSegment(ctx context.Context, s *network.RoutedSegment, a *compute.Aggregate, hosts []compute.Host) error {
	var on []string
	for _, h := range hosts { // what the network service knows may have no compute
		if s.Everywhere || slices.Contains(s.Hosts, h.Name) {
			on = append(on, h.Name)
		}
	}
	if a == nil || !sameHosts(a.Hosts, on) {
		err := l.cfg.Store.DB.Write(ctx, func(tx *db.Tx) (err error) {
			a, err = l.segmentHosts(ctx, tx, s.ID, a, on)
			return err
		})
		if err != nil {
			return err
		}
	}
	p, err := l.cfg.Placement.EnsureProvider(ctx, s.ID, SegmentAggregate(s.ID))
	if err != nil {
		return err
	}
	if !slices.Equal(p.Aggregates, []string{a.UUID}) {
		if err := l.cfg.Placement.SetAggregates(ctx, s.ID, []string{a.UUID}); err != nil {
			return err
		}
	}
	inv := map[string]placement.Inventory{}
	if s.IPv4Total > 0 {
		inv["IPV4_ADDRESS"] = placement.Inventory{Total: s.IPv4Total, Reserved: s.IPv4Reserved, MinUnit: 1, MaxUnit: 1, StepSize: 1, AllocationRatio: 1}
	}
	return l.cfg.Placement.Report(ctx, s.ID, inv, nil, nil)
}

func sameHosts(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// segmentHosts makes the aggregate of a segment if there is none, and its hosts those given.
func (l *Loops) segmentHosts(ctx context.Context, tx *db.Tx, segment string, a *compute.Aggregate, hosts []string) (*compute.Aggregate, error) {
	if a == nil {
		a = &compute.Aggregate{Name: SegmentAggregate(segment)}
		if err := l.cfg.Store.InsertAggregate(ctx, tx, a); err != nil {
			return nil, err
		}
	}
	now, err := l.cfg.Store.Aggregate(ctx, tx, a.ID)
	if err != nil {
		return nil, err
	}
	for _, h := range now.Hosts {
		if !slices.Contains(hosts, h) {
			if err := l.cfg.Store.RemoveAggregateHost(ctx, tx, a.ID, h); err != nil {
				return nil, err
			}
		}
	}
	for _, h := range hosts {
		if !slices.Contains(now.Hosts, h) {
			if err := l.cfg.Store.AddAggregateHost(ctx, tx, a.ID, h); err != nil {
				return nil, err
			}
		}
	}
	return now, nil
}

// forgetSegment removes what stood for a segment that is gone, or has no subnets any more.
func (l *Loops) forgetSegment(ctx context.Context, segment string, a *compute.Aggregate) error {
	if err := l.cfg.Placement.DeleteProvider(ctx, segment); err != nil && !errors.Is(err, fault.NotFound) {
		return err
	}
	return l.cfg.Store.DB.Write(ctx, func(tx *db.Tx) error {
		if _, err := l.segmentHosts(ctx, tx, segment, a, nil); err != nil {
			return err
		}
		return l.cfg.Store.DeleteAggregate(ctx, tx, a.ID)
	})
}
