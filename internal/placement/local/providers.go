package local

import (
	"context"
	"errors"
	"slices"

	"kilonova/internal/clock"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/placement"
	"kilonova/internal/placement/candidate"
)

// locked reads one provider inside a transaction and holds its row until the end.
func locked(ctx context.Context, tx *db.Tx, uuid string) (*candidate.Record, error) {
	var one string
	err := tx.QueryRow(ctx, `SELECT uuid FROM placement_providers WHERE uuid = ?`+tx.ForUpdate(), uuid).Scan(&one)
	if db.IsNoRows(err) {
		return nil, notFound(uuid)
	}
	if err != nil {
		return nil, err
	}
	records, err := load(ctx, tx, uuid)
	if err != nil {
		return nil, err
	}
	if len(records) == 0 {
		return nil, notFound(uuid)
	}
	return &records[0], nil
}

// Provider implements placement.Registry.
func (s *Service) Provider(ctx context.Context, uuid string) (*placement.Provider, error) {
	records, err := load(ctx, s.db, uuid)
	if err != nil {
		return nil, err
	}
	if len(records) == 0 {
		return nil, notFound(uuid)
	}
	return &records[0].Provider, nil
}

// bump lets a provider's version grow, and its generation by grow.
func (s *Service) bump(ctx context.Context, tx *db.Tx, uuid string, grow int64) error {
	_, err := tx.Exec(ctx, `UPDATE placement_providers SET generation = generation + ?, version = version + 1, changed = ? WHERE uuid = ?`,
		grow, clock.Micros(clock.Now()), uuid)
	tx.AfterCommit(func() { s.snap.touched(uuid) })
	return err
}

// errSame is what an edit returns that finds nothing to do: the generation stays.
var errSame = errors.New("nothing to change")

// change runs edit on a provider whose row is held, and lets its generation grow.
func (s *Service) change(ctx context.Context, uuid string, generation *int64, edit func(tx *db.Tx, r *candidate.Record) error) (*placement.Provider, error) {
	return s.changeBy(ctx, uuid, generation, 1, edit)
}

func (s *Service) changeBy(ctx context.Context, uuid string, generation *int64, grow int64,
	edit func(tx *db.Tx, r *candidate.Record) error) (*placement.Provider, error) {
	var out *placement.Provider
	err := s.db.Write(ctx, func(tx *db.Tx) error {
		r, err := locked(ctx, tx, uuid)
		if err != nil {
			return err
		}
		if generation != nil && *generation != r.Generation {
			return concurrent("resource provider generation conflict: %d was given and it is %d. Resource provider's generation already changed. "+
				"Please update the generation and try again.", *generation, r.Generation)
		}
		err = edit(tx, r)
		if errors.Is(err, errSame) {
			out = &r.Provider
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.bump(ctx, tx, uuid, grow); err != nil {
			return err
		}
		r.Generation += grow
		r.UpdatedAt = clock.Now()
		out = &r.Provider
		return nil
	})
	return out, err
}

// CreateProvider implements placement.Registry.
func (s *Service) CreateProvider(ctx context.Context, p placement.Provider) (*placement.Provider, error) {
	err := s.db.Write(ctx, func(tx *db.Tx) error {
		p.Root = p.UUID
		if p.Parent != "" {
			err := tx.QueryRow(ctx, `SELECT root FROM placement_providers WHERE uuid = ?`+tx.ForUpdate(), p.Parent).Scan(&p.Root)
			if db.IsNoRows(err) {
				return fault.New(fault.Invalid, "parent provider UUID does not exist: %s.", p.Parent)
			}
			if err != nil {
				return err
			}
		}
		return s.insertProvider(ctx, tx, &p)
	})
	if err != nil {
		return nil, s.duplicate(ctx, err, p)
	}
	return &p, nil
}

func (s *Service) insertProvider(ctx context.Context, tx *db.Tx, p *placement.Provider) error {
	p.UpdatedAt = clock.Now()
	now := clock.Micros(p.UpdatedAt)
	// A provider that comes back counts on from a version that no snapshot has seen.
	if _, err := tx.Exec(ctx, `INSERT INTO placement_providers (uuid, name, parent, root, generation, version, changed) VALUES (?, ?, ?, ?, 0, ?, ?)`,
		p.UUID, p.Name, p.Parent, p.Root, now, now); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `DELETE FROM placement_gone WHERE uuid = ?`, p.UUID); err != nil {
		return err
	}
	tx.AfterCommit(func() { s.snap.touched(p.UUID) })
	return nil
}

// duplicate turns a broken unique constraint into a conflict that names the field.
func (s *Service) duplicate(ctx context.Context, err error, p placement.Provider) error {
	if !db.IsDuplicate(err) {
		return err
	}
	var one string
	if e := s.db.QueryRow(ctx, `SELECT uuid FROM placement_providers WHERE uuid = ?`, p.UUID).Scan(&one); e == nil {
		return fault.Wrap(err, fault.Conflict, "Conflicting resource provider uuid: %s already exists.", p.UUID).WithCode(placement.CodeDuplicateName)
	}
	return fault.Wrap(err, fault.Conflict, "Conflicting resource provider name: %s already exists.", p.Name).WithCode(placement.CodeDuplicateName)
}

// UpdateProvider implements placement.Registry. The generation stays.
func (s *Service) UpdateProvider(ctx context.Context, uuid, name string, parent *string, reparent bool) (*placement.Provider, error) {
	p, err := s.changeBy(ctx, uuid, nil, 0, func(tx *db.Tx, r *candidate.Record) error {
		if parent != nil && *parent != r.Parent {
			if err := s.move(ctx, tx, r, *parent, reparent); err != nil {
				return err
			}
		}
		r.Name = name
		_, err := tx.Exec(ctx, `UPDATE placement_providers SET name = ? WHERE uuid = ?`, name, uuid)
		return err
	})
	if db.IsDuplicate(err) {
		return nil, fault.Wrap(err, fault.Conflict, "Conflicting resource provider name: %s already exists.", name).WithCode(placement.CodeDuplicateName)
	}
	return p, err
}

// move hangs a provider and everything below it under another parent, or makes it a root.
func (s *Service) move(ctx context.Context, tx *db.Tx, r *candidate.Record, parent string, reparent bool) error {
	if r.Parent != "" && !reparent {
		if parent == "" {
			return fault.New(fault.Invalid, "un-parenting a provider is not currently allowed.")
		}
		return fault.New(fault.Invalid, "re-parenting a provider is not currently allowed.")
	}
	root := r.UUID
	if parent != "" {
		err := tx.QueryRow(ctx, `SELECT root FROM placement_providers WHERE uuid = ?`+tx.ForUpdate(), parent).Scan(&root)
		if db.IsNoRows(err) {
			return fault.New(fault.Invalid, "parent provider UUID does not exist: %s.", parent)
		}
		if err != nil {
			return err
		}
	}
	below, err := s.subtree(ctx, tx, r)
	if err != nil {
		return err
	}
	if slices.Contains(below, parent) {
		return fault.New(fault.Invalid, "creating loop in the provider tree is not allowed. %s is %s or lies below it.", parent, r.UUID)
	}
	if _, err := tx.Exec(ctx, `UPDATE placement_providers SET parent = ? WHERE uuid = ?`, parent, r.UUID); err != nil {
		return err
	}
	args := append([]any{root, clock.Micros(clock.Now())}, db.Args(below)...)
	if _, err := tx.Exec(ctx, `UPDATE placement_providers SET root = ?, version = version + 1, changed = ? WHERE uuid IN (`+db.In(len(below))+`)`, args...); err != nil {
		return err
	}
	tx.AfterCommit(func() { s.snap.touched(below...) })
	r.Parent, r.Root = parent, root
	return nil
}

// subtree gives the UUIDs of a provider and of all below it.
func (s *Service) subtree(ctx context.Context, tx *db.Tx, r *candidate.Record) ([]string, error) {
	children := map[string][]string{}
	err := pairs(ctx, tx, `SELECT uuid, parent FROM placement_providers WHERE root = ?`, []any{r.Root}, func(uuid, parent string) {
		children[parent] = append(children[parent], uuid)
	})
	out := []string{r.UUID}
	for i := 0; i < len(out); i++ {
		out = append(out, children[out[i]]...)
	}
	return out, err
}

// EnsureProvider implements placement.Service.
func (s *Service) EnsureProvider(ctx context.Context, uuid, name string) (*placement.Provider, error) {
	return s.EnsureChild(ctx, uuid, name, "")
}

// Tree implements placement.Service.
func (s *Service) Tree(ctx context.Context, root string) ([]placement.Provider, error) {
	return s.List(ctx, placement.Filter{InTree: root})
}

// EnsureChild implements placement.Service.
func (s *Service) EnsureChild(ctx context.Context, uuid, name, parent string) (*placement.Provider, error) {
	v, err := s.snap.view(ctx, false)
	if err != nil {
		return nil, err
	}
	if r, ok := v.Get(uuid); ok && r.Name == name {
		return &r.Provider, nil
	}
	p := placement.Provider{UUID: uuid, Name: name, Parent: parent, Root: uuid}
	err = s.db.Write(ctx, func(tx *db.Tx) error {
		r, err := locked(ctx, tx, uuid)
		switch {
		case fault.KindOf(err) == fault.NotFound && parent != "":
			above, err := locked(ctx, tx, parent)
			if err != nil {
				return err
			}
			p.Root = above.Root
			return s.insertProvider(ctx, tx, &p)
		case fault.KindOf(err) == fault.NotFound:
			return s.insertProvider(ctx, tx, &p)
		case err != nil:
			return err
		case r.Name == name:
			return nil
		}
		if _, err := tx.Exec(ctx, `UPDATE placement_providers SET name = ? WHERE uuid = ?`, name, uuid); err != nil {
			return err
		}
		return s.bump(ctx, tx, uuid, 0)
	})
	if db.IsDuplicate(err) {
		if q, e := s.Provider(ctx, uuid); e == nil && q.Name == name { // somebody else was first
			return q, nil
		}
		return nil, fault.Wrap(err, fault.Conflict, "Conflicting resource provider name: %s already exists.", name).
			WithCode(placement.CodeDuplicateName).WithHint("Another host reports under this name.")
	}
	if err != nil {
		return nil, err
	}
	return s.Provider(ctx, uuid)
}

// DeleteProvider implements placement.Service.
func (s *Service) DeleteProvider(ctx context.Context, uuid string) error {
	return s.db.Write(ctx, func(tx *db.Tx) error {
		r, err := locked(ctx, tx, uuid)
		if err != nil {
			return err
		}
		var n int64
		if err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM placement_providers WHERE parent = ?`, uuid).Scan(&n); err != nil {
			return err
		}
		if n > 0 {
			return fault.New(fault.Conflict, "Unable to delete parent resource provider %s: It has child resource providers.", uuid).
				WithCode(placement.CodeHasChildren)
		}
		for _, used := range r.Used {
			if used > 0 {
				return fault.New(fault.Conflict, "Unable to delete resource provider %s: Resource provider has allocations.", uuid).
					WithCode(placement.CodeProviderInUse)
			}
		}
		for _, q := range []string{`DELETE FROM placement_inventories WHERE provider = ?`, `DELETE FROM placement_provider_traits WHERE provider = ?`,
			`DELETE FROM placement_provider_aggregates WHERE provider = ?`, `DELETE FROM placement_providers WHERE uuid = ?`} {
			if _, err := tx.Exec(ctx, q, uuid); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, db.Upsert(tx.Dialect(), "placement_gone", []string{"uuid"}, []string{"changed"}), uuid, clock.Micros(clock.Now())); err != nil {
			return err
		}
		tx.AfterCommit(func() { s.snap.touched(uuid) })
		return nil
	})
}

// SetTraits implements placement.Registry.
func (s *Service) SetTraits(ctx context.Context, uuid string, generation *int64, traits []string) (*placement.Provider, error) {
	traits = distinct(traits)
	return s.change(ctx, uuid, generation, func(tx *db.Tx, r *candidate.Record) error {
		if err := s.knownTraits(ctx, tx, traits); err != nil {
			return err
		}
		if slices.Equal(r.Traits, traits) {
			return errSame
		}
		r.Traits = traits
		return setPairs(ctx, tx, "placement_provider_traits", "trait", uuid, traits)
	})
}

// ReplaceAggregates implements placement.Registry.
func (s *Service) ReplaceAggregates(ctx context.Context, uuid string, generation *int64, aggregates []string) (*placement.Provider, error) {
	aggregates = distinct(aggregates)
	grow := int64(0)
	if generation != nil {
		grow = 1
	}
	return s.changeBy(ctx, uuid, generation, grow, func(tx *db.Tx, r *candidate.Record) error {
		r.Aggregates = aggregates
		return setPairs(ctx, tx, "placement_provider_aggregates", "aggregate", uuid, aggregates)
	})
}

// SetAggregates implements placement.Service.
func (s *Service) SetAggregates(ctx context.Context, uuid string, aggregates []string) error {
	aggregates = distinct(aggregates)
	_, err := s.change(ctx, uuid, nil, func(tx *db.Tx, r *candidate.Record) error {
		return setPairs(ctx, tx, "placement_provider_aggregates", "aggregate", uuid, aggregates)
	})
	return err
}

func distinct(in []string) []string {
	out := slices.Clone(in)
	slices.Sort(out)
	return slices.Compact(out)
}

// setPairs makes a provider's rows of a two-column table be exactly values.
func setPairs(ctx context.Context, tx *db.Tx, table, column, uuid string, values []string) error {
	if _, err := tx.Exec(ctx, `DELETE FROM `+table+` WHERE provider = ?`, uuid); err != nil {
		return err
	}
	for part := range slices.Chunk(values, 100) {
		q := `INSERT INTO ` + table + ` (provider, ` + column + `) VALUES `
		args := make([]any, 0, 2*len(part))
		for i, v := range part {
			if i > 0 {
				q += ", "
			}
			q += "(?, ?)"
			args = append(args, uuid, v)
		}
		if _, err := tx.Exec(ctx, q, args...); err != nil {
			return err
		}
	}
	return nil
}
