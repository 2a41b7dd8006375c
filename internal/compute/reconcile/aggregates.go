package reconcile

import (
	"context"
	"errors"
	"slices"

	"kilonova/internal/compute"
	"kilonova/internal/placement"
)

// statusDisabled marks the providers of hosts that take no new servers.
const statusDisabled = "COMPUTE_STATUS_DISABLED"

// SyncAll brings the aggregates and the status trait of every host's provider in line with compute's records, and before that the aggregates that stand for segments in
// line with the network service's.
func (l *Loops) SyncAll(ctx context.Context) error {
	if err := l.Segments(ctx); err != nil {
		return err
	}
	states, err := l.cfg.Store.HostStates(ctx, l.cfg.Store.DB)
	if err != nil {
		return err
	}
	return l.syncStates(ctx, states)
}

// SyncHosts is SyncAll for some hosts.
func (l *Loops) SyncHosts(ctx context.Context, names ...string) error {
	for part := range slices.Chunk(names, 500) {
		states, err := l.cfg.Store.HostStates(ctx, l.cfg.Store.DB, part...)
		if err != nil {
			return err
		}
		if len(states) == 0 {
			continue
		}
		nodes := make([]string, 0, len(states))
		for _, h := range states {
			nodes = append(nodes, h.NodeID)
		}
		if err := l.syncStates(ctx, states, nodes...); err != nil {
			return err
		}
	}
	return nil
}

// syncStates syncs hosts whose providers are named; all, when none is.
func (l *Loops) syncStates(ctx context.Context, states map[string]*compute.Host, nodes ...string) error {
	providers, err := l.cfg.Placement.Providers(ctx, nodes...)
	if err != nil {
		return err
	}
	byID := make(map[string]*placement.Provider, len(providers))
	for i := range providers {
		byID[providers[i].UUID] = &providers[i]
	}
	return l.sync(ctx, states, byID)
}

func (l *Loops) sync(ctx context.Context, hosts map[string]*compute.Host, providers map[string]*placement.Provider) error {
	aggs, err := l.cfg.Store.Aggregates(ctx, l.cfg.Store.DB)
	if err != nil {
		return err
	}
	want := map[string][]string{}
	for _, a := range aggs {
		for _, h := range a.Hosts {
			want[h] = append(want[h], a.UUID)
		}
	}
	var errs []error
	for _, h := range hosts {
		p := providers[h.NodeID]
		if p == nil {
			continue // it registers first
		}
		errs = append(errs, l.syncOne(ctx, h, p, want[h.Name], aggs))
	}
	return errors.Join(errs...)
}

func (l *Loops) syncOne(ctx context.Context, h *compute.Host, p *placement.Provider, want []string, ours []compute.Aggregate) error {
	// Aggregates that are not compute's were put there by an operator and stay.
	next := slices.DeleteFunc(slices.Clone(p.Aggregates), func(a string) bool {
		return slices.ContainsFunc(ours, func(c compute.Aggregate) bool { return c.UUID == a })
	})
	next = append(next, want...)
	slices.Sort(next)
	have := slices.Sorted(slices.Values(p.Aggregates))
	if !slices.Equal(next, have) {
		if err := l.cfg.Placement.SetAggregates(ctx, p.UUID, next); err != nil {
			return err
		}
	}
	if off := h.Disabled; off != slices.Contains(p.Traits, statusDisabled) {
		return l.cfg.Placement.SetTrait(ctx, p.UUID, statusDisabled, off)
	}
	return nil
}
