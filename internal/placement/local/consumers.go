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

// Of implements placement.Service.
func (s *Service) Of(ctx context.Context, consumer string) (placement.Allocations, *placement.Consumer, error) {
	list, c, err := s.HeldBy(ctx, consumer)
	if err != nil || c == nil {
		return placement.Allocations{}, nil, err
	}
	out := make(placement.Allocations, len(list))
	for _, h := range list {
		out[h.Provider] = h.Resources
	}
	return out, c, nil
}

const holdings = `SELECT a.consumer, a.provider, a.class, a.amount, p.generation, c.generation, c.project_id, c.user_id, c.type
	FROM placement_allocations a JOIN placement_providers p ON p.uuid = a.provider JOIN placement_consumers c ON c.uuid = a.consumer `

// HeldBy implements placement.Registry.
func (s *Service) HeldBy(ctx context.Context, consumer string) ([]placement.Holding, *placement.Consumer, error) {
	list, owner, err := s.holdings(ctx, holdings+`WHERE a.consumer = ? ORDER BY a.provider`, consumer)
	if err != nil || len(list) == 0 {
		return nil, nil, err
	}
	return list, owner, nil
}

// HeldOn implements placement.Registry.
func (s *Service) HeldOn(ctx context.Context, provider string) ([]placement.Holding, error) {
	list, _, err := s.holdings(ctx, holdings+`WHERE a.provider = ? ORDER BY a.consumer`, provider)
	return list, err
}

func (s *Service) holdings(ctx context.Context, query string, arg string) ([]placement.Holding, *placement.Consumer, error) {
	var out []placement.Holding
	owner := &placement.Consumer{}
	err := each(ctx, s.db, query, []any{arg}, func(scan func(...any) error) error {
		var h placement.Holding
		var class string
		var n int64
		if err := scan(&h.Consumer, &h.Provider, &class, &n, &h.ProviderGeneration, &h.ConsumerGeneration, &owner.ProjectID, &owner.UserID, &owner.Type); err != nil {
			return err
		}
		owner.UUID = h.Consumer
		owner.Generation = &h.ConsumerGeneration
		if i := len(out) - 1; i >= 0 && out[i].Consumer == h.Consumer && out[i].Provider == h.Provider {
			out[i].Resources[class] = n
			return nil
		}
		h.Resources = placement.Resources{class: n}
		out = append(out, h)
		return nil
	})
	return out, owner, err
}

// Usages implements placement.Registry.
func (s *Service) Usages(ctx context.Context, f placement.UsageFilter) ([]placement.Usage, error) {
	where, args := `c.project_id = ?`, []any{f.ProjectID}
	if f.UserID != "" {
		where, args = where+` AND c.user_id = ?`, append(args, f.UserID)
	}
	if f.Type != "" {
		name := f.Type
		if name == placement.UnknownType {
			name = ""
		}
		where, args = where+` AND c.type = ?`, append(args, name)
	}
	byType := map[string]*placement.Usage{}
	err := each(ctx, s.db, `SELECT c.type, a.class, SUM(a.amount) FROM placement_consumers c JOIN placement_allocations a ON a.consumer = c.uuid
		WHERE `+where+` GROUP BY c.type, a.class`, args, func(scan func(...any) error) error {
		var name, class string
		var n int64
		if err := scan(&name, &class, &n); err != nil {
			return err
		}
		if name == "" {
			name = placement.UnknownType
		}
		if byType[name] == nil {
			byType[name] = &placement.Usage{Type: name, Resources: placement.Resources{}}
		}
		byType[name].Resources[class] = n
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = each(ctx, s.db, `SELECT c.type, COUNT(*) FROM placement_consumers c WHERE `+where+` GROUP BY c.type`, args, func(scan func(...any) error) error {
		var name string
		var n int64
		if err := scan(&name, &n); err != nil {
			return err
		}
		if name == "" {
			name = placement.UnknownType
		}
		if u := byType[name]; u != nil {
			u.Consumers = n
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := make([]placement.Usage, 0, len(byType))
	for _, name := range slices.Sorted(maps.Keys(byType)) {
		out = append(out, *byType[name])
	}
	return out, nil
}

// Reshape implements placement.Registry. New inventory comes first, then the allocations move, then inventory that is no longer there is removed:
// each step sees what it needs, and the whole is one transaction.
func (s *Service) Reshape(ctx context.Context, inventories []placement.NewInventory, changes []placement.Change) error {
	slices.SortFunc(inventories, func(a, b placement.NewInventory) int { return strings.Compare(a.Provider, b.Provider) })
	return s.write(ctx, func(tx *db.Tx) error {
		records := make([]*candidate.Record, len(inventories))
		for i, n := range inventories {
			r, err := locked(ctx, tx, n.Provider)
			if fault.KindOf(err) == fault.NotFound {
				return fault.Wrap(err, fault.Invalid, "Resource provider %s in inventories not found.", n.Provider).WithCode(placement.CodeProviderNotFound)
			}
			if err != nil {
				return err
			}
			if n.Generation != r.Generation {
				return concurrent("resource provider generation conflict for provider %s: actual: %d, given: %d", n.Provider, r.Generation, n.Generation)
			}
			records[i] = r
			if err := s.widen(ctx, tx, r, n.Inventory); err != nil {
				return err
			}
		}
		if err := s.replace(ctx, tx, slices.Clone(changes), false); err != nil {
			return err
		}
		for i, n := range inventories {
			if err := s.setInventory(ctx, tx, records[i], n.Inventory); err != nil {
				return err
			}
			written := int64(1) // how often the inventory was: clients count on it
			if len(n.Inventory) > 0 {
				written = 2
			}
			if err := s.bump(ctx, tx, n.Provider, written); err != nil {
				return err
			}
		}
		return nil
	})
}

// widen gives a provider the new inventory beside the old: of each class the larger capacity, so that the allocations can move.
func (s *Service) widen(ctx context.Context, tx *db.Tx, r *candidate.Record, inv map[string]placement.Inventory) error {
	for class, n := range inv {
		if err := s.storeInventory(ctx, tx, r, class, n); err != nil {
			return err
		}
	}
	return nil
}
