package local

import (
	"context"
	"slices"
	"strings"

	"kilonova/internal/clock"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/placement"
)

// knownClass tells whether a resource class exists.
func (s *Service) knownClass(ctx context.Context, q db.Querier, name string) (bool, error) {
	if s.stdClasses[name] {
		return true, nil
	}
	return exists(ctx, q, `SELECT name FROM placement_classes WHERE name = ?`, name)
}

// knownTraits fails with fault.Invalid that names the traits that do not exist.
func (s *Service) knownTraits(ctx context.Context, q db.Querier, names []string) error {
	var missing []string
	for _, n := range names {
		if s.stdTraits[n] {
			continue
		}
		ok, err := exists(ctx, q, `SELECT name FROM placement_traits WHERE name = ?`, n)
		if err != nil {
			return err
		}
		if !ok {
			missing = append(missing, n)
		}
	}
	if len(missing) > 0 {
		return fault.New(fault.Invalid, "No such trait(s): %s.", strings.Join(distinct(missing), ", "))
	}
	return nil
}

func exists(ctx context.Context, q db.Querier, query string, args ...any) (bool, error) {
	var one string
	err := q.QueryRow(ctx, query, args...).Scan(&one)
	if db.IsNoRows(err) {
		return false, nil
	}
	return err == nil, err
}

// makeCustom makes the custom classes and traits among the names that do not exist.
func (s *Service) makeCustom(ctx context.Context, classes, traits []string) error {
	missing := func(table string, names []string, std map[string]bool) ([]string, error) {
		var out []string
		for _, n := range names {
			if std[n] || !placement.IsCustom(n) {
				continue
			}
			ok, err := exists(ctx, s.db, `SELECT name FROM `+table+` WHERE name = ?`, n)
			if err != nil {
				return nil, err
			}
			if !ok {
				out = append(out, n)
			}
		}
		return out, nil
	}
	c, err := missing("placement_classes", classes, s.stdClasses)
	if err != nil {
		return err
	}
	t, err := missing("placement_traits", traits, s.stdTraits)
	if err != nil || len(c)+len(t) == 0 {
		return err
	}
	return s.db.Write(ctx, func(tx *db.Tx) error {
		for _, n := range c {
			if err := addName(ctx, tx, "placement_classes", n); err != nil {
				return err
			}
		}
		for _, n := range t {
			if err := addName(ctx, tx, "placement_traits", n); err != nil {
				return err
			}
		}
		return nil
	})
}

// addName adds a name; one that is there stays.
func addName(ctx context.Context, tx *db.Tx, table, name string) error {
	_, err := tx.Exec(ctx, db.Upsert(tx.Dialect(), table, []string{"name"}, []string{"created"}), name, clock.Micros(clock.Now()))
	return err
}

func named(ctx context.Context, q db.Querier, query string, args ...any) ([]placement.Named, error) {
	var out []placement.Named
	err := each(ctx, q, query, args, func(scan func(...any) error) error {
		var n placement.Named
		var created int64
		if err := scan(&n.Name, &created); err != nil {
			return err
		}
		n.CreatedAt = clock.FromMicros(created)
		out = append(out, n)
		return nil
	})
	return out, err
}

// Classes implements placement.Registry.
func (s *Service) Classes(ctx context.Context) ([]placement.Named, error) {
	custom, err := named(ctx, s.db, `SELECT name, created FROM placement_classes ORDER BY created, name`)
	if err != nil {
		return nil, err
	}
	var out []placement.Named
	for _, n := range placement.StandardClasses() {
		out = append(out, placement.Named{Name: n})
	}
	return append(out, custom...), nil
}

// Class implements placement.Registry.
func (s *Service) Class(ctx context.Context, name string) (*placement.Named, error) {
	if s.stdClasses[name] {
		return &placement.Named{Name: name}, nil
	}
	found, err := named(ctx, s.db, `SELECT name, created FROM placement_classes WHERE name = ?`, name)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fault.New(fault.NotFound, "No such resource class %s.", name)
	}
	return &found[0], nil
}

// CreateClass implements placement.Registry.
func (s *Service) CreateClass(ctx context.Context, name string) error {
	taken := fault.New(fault.Conflict, "Conflicting resource class already exists: %s", name)
	if s.stdClasses[name] {
		return taken
	}
	err := s.db.Write(ctx, func(tx *db.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO placement_classes (name, created) VALUES (?, ?)`, name, clock.Micros(clock.Now()))
		return err
	})
	if db.IsDuplicate(err) {
		return taken
	}
	return err
}

// RenameClass implements placement.Registry.
func (s *Service) RenameClass(ctx context.Context, name, to string) error {
	if s.stdClasses[name] {
		return fault.New(fault.Invalid, "Cannot update standard resource class %s", name)
	}
	taken := fault.New(fault.Conflict, "Resource class already exists: %s", to)
	if s.stdClasses[to] {
		return taken
	}
	err := s.db.Write(ctx, func(tx *db.Tx) error {
		n, err := tx.Exec(ctx, `UPDATE placement_classes SET name = ? WHERE name = ?`, to, name)
		if err != nil {
			return err
		}
		if n == 0 {
			return fault.New(fault.NotFound, "No such resource class %s.", name)
		}
		var holders []string
		err = each(ctx, tx, `SELECT provider FROM placement_inventories WHERE class = ?`, []any{name}, func(scan func(...any) error) error {
			var p string
			if err := scan(&p); err != nil {
				return err
			}
			holders = append(holders, p)
			return nil
		})
		if err != nil {
			return err
		}
		for _, q := range []string{`UPDATE placement_inventories SET class = ? WHERE class = ?`, `UPDATE placement_allocations SET class = ? WHERE class = ?`} {
			if _, err := tx.Exec(ctx, q, to, name); err != nil {
				return err
			}
		}
		for _, p := range holders {
			if err := s.bump(ctx, tx, p, 0); err != nil {
				return err
			}
		}
		return nil
	})
	if db.IsDuplicate(err) {
		return taken
	}
	return err
}

// DeleteClass implements placement.Registry.
func (s *Service) DeleteClass(ctx context.Context, name string) error {
	if s.stdClasses[name] {
		return fault.New(fault.Invalid, "Cannot delete standard resource class %s", name)
	}
	return s.db.Write(ctx, func(tx *db.Tx) error {
		return dropName(ctx, tx, "Cannot delete resource class %s. Class is in use in inventory.", "No such resource class %s.", `DELETE FROM placement_classes WHERE name = ?`, `SELECT class FROM placement_inventories WHERE class = ? LIMIT 1`, name)
	})
}

func dropName(ctx context.Context, tx *db.Tx, inUse, missing, remove, use, name string) error {
	used, err := exists(ctx, tx, use, name)
	if err != nil {
		return err
	}
	if used {
		return fault.New(fault.Conflict, inUse, name)
	}
	n, err := tx.Exec(ctx, remove, name)
	if err != nil {
		return err
	}
	if n == 0 {
		return fault.New(fault.NotFound, missing, name)
	}
	return nil
}

// Traits implements placement.Registry.
func (s *Service) Traits(ctx context.Context, f placement.TraitFilter) ([]placement.Named, error) {
	all, err := named(ctx, s.db, `SELECT name, created FROM placement_traits`)
	if err != nil {
		return nil, err
	}
	for n := range s.stdTraits {
		all = append(all, placement.Named{Name: n})
	}
	associated := map[string]bool{}
	if f.Associated != nil {
		err := each(ctx, s.db, `SELECT DISTINCT trait FROM placement_provider_traits`, nil, func(scan func(...any) error) error {
			var t string
			err := scan(&t)
			associated[t] = true
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	all = slices.DeleteFunc(all, func(n placement.Named) bool {
		return f.In != nil && !slices.Contains(f.In, n.Name) || !strings.HasPrefix(n.Name, f.Prefix) || f.Associated != nil && associated[n.Name] != *f.Associated
	})
	slices.SortFunc(all, func(a, b placement.Named) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// CreateTrait implements placement.Registry.
func (s *Service) CreateTrait(ctx context.Context, name string) (bool, error) {
	err := s.db.Write(ctx, func(tx *db.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO placement_traits (name, created) VALUES (?, ?)`, name, clock.Micros(clock.Now()))
		return err
	})
	if db.IsDuplicate(err) {
		return false, nil
	}
	return err == nil, err
}

// DeleteTrait implements placement.Registry.
func (s *Service) DeleteTrait(ctx context.Context, name string) error {
	if s.stdTraits[name] {
		return fault.New(fault.Invalid, "Cannot delete standard trait %s.", name)
	}
	return s.db.Write(ctx, func(tx *db.Tx) error {
		return dropName(ctx, tx, "The trait %s is in use by a resource provider.", "No such trait %s.", `DELETE FROM placement_traits WHERE name = ?`, `SELECT trait FROM placement_provider_traits WHERE trait = ? LIMIT 1`, name)
	})
}
