package local

import (
	"context"
	"maps"
	"slices"
	"strings"

	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/placement"
	"kilonova/internal/placement/candidate"
)

// setInventory makes a provider's inventory be exactly inv. r is the provider as it is, its row held; usage stays.
func (s *Service) setInventory(ctx context.Context, tx *db.Tx, r *candidate.Record, inv map[string]placement.Inventory) error {
	var inUse []string
	for _, class := range slices.Sorted(maps.Keys(r.Inventory)) {
		if _, ok := inv[class]; ok {
			continue
		}
		dropped, err := dropInventory(ctx, tx, r, class)
		if err != nil {
			return err
		}
		if !dropped {
			inUse = append(inUse, class)
		}
	}
	if len(inUse) > 0 {
		slices.SortStableFunc(inUse, func(a, b string) int { return rank(a) - rank(b) })
		return stillUsed(r.UUID, inUse...)
	}
	for _, class := range slices.Sorted(maps.Keys(inv)) {
		if err := s.storeInventory(ctx, tx, r, class, inv[class]); err != nil {
			return err
		}
	}
	return nil
}

// dropInventory removes one class; false when it is in use.
func dropInventory(ctx context.Context, tx *db.Tx, r *candidate.Record, class string) (bool, error) {
	n, err := tx.Exec(ctx, `DELETE FROM placement_inventories WHERE provider = ? AND class = ? AND used = 0`, r.UUID, class)
	if err != nil || n == 0 {
		return false, err
	}
	delete(r.Inventory, class)
	delete(r.Used, class)
	return true, nil
}

// rank is the place of a class in the order of introduction; custom ones come last.
func rank(class string) int {
	all := placement.StandardClasses()
	if i := slices.Index(all, class); i >= 0 {
		return i
	}
	return len(all)
}

func stillUsed(provider string, classes ...string) error {
	return fault.New(fault.Conflict, "update conflict: Inventory for '%s' on resource provider '%s' in use.", strings.Join(classes, ", "), provider).
		WithCode(placement.CodeInventoryInUse)
}

func (s *Service) storeInventory(ctx context.Context, tx *db.Tx, r *candidate.Record, class string, inv placement.Inventory) error {
	inv = inv.WithDefaults()
	old, exists := r.Inventory[class]
	if exists && old == inv {
		return nil
	}
	columns := []any{inv.Total, inv.Reserved, inv.MinUnit, inv.MaxUnit, inv.StepSize, inv.AllocationRatio, inv.Capacity(), r.UUID, class}
	if exists {
		_, err := tx.Exec(ctx, `UPDATE placement_inventories SET total = ?, reserved = ?, min_unit = ?, max_unit = ?, step_size = ?, ratio = ?, capacity = ?
			WHERE provider = ? AND class = ?`, columns...)
		r.Inventory[class] = inv
		return err
	}
	ok, err := s.knownClass(ctx, tx, class)
	if err != nil {
		return err
	}
	if !ok {
		return fault.New(fault.Invalid, "Unknown resource class in inventory for resource provider %s: No such resource class %s.", r.UUID, class)
	}
	_, err = tx.Exec(ctx, `INSERT INTO placement_inventories (total, reserved, min_unit, max_unit, step_size, ratio, capacity, provider, class, used)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0)`, columns...)
	r.Inventory[class], r.Used[class] = inv, 0
	return err
}

// SetInventory implements placement.Registry.
func (s *Service) SetInventory(ctx context.Context, uuid string, generation *int64, inv map[string]placement.Inventory) (*placement.Provider, error) {
	return s.change(ctx, uuid, generation, func(tx *db.Tx, r *candidate.Record) error { return s.setInventory(ctx, tx, r, inv) })
}

// AddInventory implements placement.Registry.
func (s *Service) AddInventory(ctx context.Context, uuid, class string, generation *int64, inv placement.Inventory) (*placement.Provider, error) {
	return s.change(ctx, uuid, generation, func(tx *db.Tx, r *candidate.Record) error {
		if _, ok := r.Inventory[class]; ok {
			return concurrent("Update conflict: the provider has an inventory of class %s already.", class)
		}
		return s.storeInventory(ctx, tx, r, class, inv)
	})
}

// PutInventory implements placement.Registry.
func (s *Service) PutInventory(ctx context.Context, uuid, class string, generation *int64, inv placement.Inventory) (*placement.Provider, error) {
	return s.change(ctx, uuid, generation, func(tx *db.Tx, r *candidate.Record) error {
		if _, ok := r.Inventory[class]; !ok {
			return fault.New(fault.Invalid, "No inventory record with resource class for resource provider %s: No inventory of class %s found.", uuid, class)
		}
		return s.storeInventory(ctx, tx, r, class, inv)
	})
}

// DeleteInventory implements placement.Registry.
func (s *Service) DeleteInventory(ctx context.Context, uuid, class string) error {
	_, err := s.change(ctx, uuid, nil, func(tx *db.Tx, r *candidate.Record) error {
		if _, ok := r.Inventory[class]; !ok {
			return fault.New(fault.NotFound, "No inventory of class %s found for delete on resource provider %s.", class, uuid)
		}
		dropped, err := dropInventory(ctx, tx, r, class)
		if err == nil && !dropped {
			err = stillUsed(uuid, class)
		}
		return err
	})
	return err
}

// Report implements placement.Service. Custom classes and traits that do not exist yet are made.
func (s *Service) Report(ctx context.Context, uuid string, inv map[string]placement.Inventory, traits, managed []string) error {
	v, err := s.snap.view(ctx, false)
	if err != nil {
		return err
	}
	if r, ok := v.Get(uuid); ok && maps.Equal(r.Inventory, placement.Settled(inv, r.Inventory)) && slices.Equal(r.Traits, placement.Reported(traits, r.Traits, managed)) {
		return nil
	}
	if err := s.makeCustom(ctx, slices.Collect(maps.Keys(inv)), traits); err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *db.Tx) error {
		r, err := locked(ctx, tx, uuid)
		if err != nil {
			return err
		}
		want, next := placement.Settled(inv, r.Inventory), placement.Reported(traits, r.Traits, managed)
		sameTraits := slices.Equal(r.Traits, next)
		if sameTraits && maps.Equal(r.Inventory, want) {
			return nil
		}
		if err := s.setInventory(ctx, tx, r, want); err != nil {
			return err
		}
		if !sameTraits {
			if err := s.knownTraits(ctx, tx, next); err != nil {
				return err
			}
			if err := setPairs(ctx, tx, "placement_provider_traits", "trait", uuid, next); err != nil {
				return err
			}
		}
		return s.bump(ctx, tx, uuid, 1)
	})
}

// SetTrait implements placement.Service.
func (s *Service) SetTrait(ctx context.Context, uuid, trait string, on bool) error {
	if on {
		if err := s.makeCustom(ctx, nil, []string{trait}); err != nil {
			return err
		}
	}
	return s.db.Write(ctx, func(tx *db.Tx) error {
		r, err := locked(ctx, tx, uuid)
		if err != nil {
			return err
		}
		if slices.Contains(r.Traits, trait) == on {
			return nil
		}
		if on {
			if err := s.knownTraits(ctx, tx, []string{trait}); err != nil {
				return err
			}
			_, err = tx.Exec(ctx, `INSERT INTO placement_provider_traits (provider, trait) VALUES (?, ?)`, uuid, trait)
		} else {
			_, err = tx.Exec(ctx, `DELETE FROM placement_provider_traits WHERE provider = ? AND trait = ?`, uuid, trait)
		}
		if err != nil {
			return err
		}
		return s.bump(ctx, tx, uuid, 1)
	})
}
