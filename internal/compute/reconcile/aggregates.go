package reconcile

import (
	"context"
	"errors"
	"slices"

	"kilonova/internal/compute"
	"kilonova/internal/fault"
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
	hosts, err := l.cfg.Store.Hosts(ctx, l.cfg.Store.DB)
	if err != nil {
		return err
	}
	providers, err := l.cfg.Placement.Providers(ctx)
	if err != nil {
		return err
	}
	byID := make(map[string]*placement.Provider, len(providers))
	for i := range providers {
		byID[providers[i].UUID] = &providers[i]
	}
	return l.sync(ctx, hosts, byID)
}

// SyncHost is SyncAll for one host.
func (l *Loops) SyncHost(ctx context.Context, name string) error {
	h, err := l.cfg.Store.Host(ctx, l.cfg.Store.DB, name)
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	ps, err := l.cfg.Placement.Providers(ctx, h.NodeID)
	if err != nil {
		return err
	}
	byID := map[string]*placement.Provider{}
	for i := range ps {
		byID[ps[i].UUID] = &ps[i]
	}
	return l.sync(ctx, []compute.Host{*h}, byID)
}

func (l *Loops) sync(ctx context.Context, hosts []compute.Host, providers map[string]*placement.Provider) error {
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
		errs = append(errs, l.syncOne(ctx, &h, p, want[h.Name], aggs))
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
