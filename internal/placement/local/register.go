package local

import (
	"context"
	"maps"
	"slices"

	"kilonova/internal/clock"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/placement"
	"kilonova/internal/placement/candidate"
)

var _ placement.Registrar = (*Service)(nil)

// atOnce is how many hosts one transaction adds: others wait for it.
const atOnce = 100

// Register implements placement.Registrar. Hosts that are new are added many at a time; the others are looked at one by one.
func (s *Service) Register(ctx context.Context, hosts []placement.HostReport) []error {
	errs := make([]error, len(hosts))
	one := func(i int) {
		h := &hosts[i]
		if _, errs[i] = s.EnsureProvider(ctx, h.UUID, h.Name); errs[i] == nil {
			errs[i] = s.Report(ctx, h.UUID, h.Inventory, h.Traits, h.Managed)
		}
	}
	v, err := s.snap.view(ctx, false)
	if err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	var fresh []int
	for i := range hosts {
		if _, known := v.Get(hosts[i].UUID); known {
			one(i)
		} else {
			fresh = append(fresh, i)
		}
	}
	for part := range slices.Chunk(fresh, atOnce) {
		add := make([]placement.HostReport, len(part))
		for k, i := range part {
			add[k] = hosts[i]
		}
		if s.add(ctx, add) == nil {
			continue
		}
		for _, i := range part { // each tells for itself what is wrong, if it is
			one(i)
		}
	}
	return errs
}

// add makes providers of hosts that are not there, with all that they have; it fails when one is there, or cannot be made.
func (s *Service) add(ctx context.Context, hosts []placement.HostReport) error {
	classes, traits := map[string]bool{}, map[string]bool{}
	for i := range hosts {
		for class := range hosts[i].Inventory {
			classes[class] = true
		}
		for _, t := range hosts[i].Traits {
			traits[t] = true
		}
	}
	classNames, traitNames := slices.Sorted(maps.Keys(classes)), slices.Sorted(maps.Keys(traits))
	if err := s.makeCustom(ctx, classNames, traitNames); err != nil {
		return err
	}
	records := make([]candidate.Record, len(hosts))
	return s.db.Write(ctx, func(tx *db.Tx) error {
		for _, class := range classNames {
			if ok, err := s.knownClass(ctx, tx, class); err != nil || !ok {
				return fault.Wrap(err, fault.Invalid, "No such resource class %s.", class)
			}
		}
		if err := s.knownTraits(ctx, tx, traitNames); err != nil {
			return err
		}
		now := clock.Now()
		at := clock.Micros(now)
		var providers, inventories, pairs, uuids []any
		for i := range hosts {
			h := &hosts[i]
			r := candidate.Record{Version: at, Provider: placement.Provider{UUID: h.UUID, Name: h.Name, Root: h.UUID, Generation: 1, UpdatedAt: now,
				Inventory: make(map[string]placement.Inventory, len(h.Inventory)), Used: make(map[string]int64, len(h.Inventory)), Traits: distinct(h.Traits)}}
			uuids = append(uuids, h.UUID)
			// A provider that comes back counts on from a version that no snapshot has seen.
			providers = append(providers, h.UUID, h.Name, "", h.UUID, r.Generation, r.Version, at)
			begun := placement.Settled(h.Inventory, nil)
			for _, class := range slices.Sorted(maps.Keys(begun)) {
				inv := begun[class]
				r.Inventory[class], r.Used[class] = inv, 0
				inventories = append(inventories, h.UUID, class, inv.Total, inv.Reserved, inv.MinUnit, inv.MaxUnit, inv.StepSize, inv.AllocationRatio, inv.Capacity(), 0)
			}
			for _, t := range r.Traits {
				pairs = append(pairs, h.UUID, t)
			}
			records[i] = r
		}
		if err := tx.Insert(ctx, "placement_providers", []string{"uuid", "name", "parent", "root", "generation", "version", "changed"}, providers...); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "DELETE FROM placement_gone WHERE uuid IN ("+db.In(len(uuids))+")", uuids...); err != nil {
			return err
		}
		if err := tx.Insert(ctx, "placement_inventories", []string{"provider", "class", "total", "reserved", "min_unit", "max_unit", "step_size", "ratio", "capacity", "used"},
			inventories...); err != nil {
			return err
		}
		if err := tx.Insert(ctx, "placement_provider_traits", []string{"provider", "trait"}, pairs...); err != nil {
			return err
		}
		tx.AfterCommit(func() { s.snap.made(records) })
		return nil
	})
}
