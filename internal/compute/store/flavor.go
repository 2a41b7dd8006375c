package store

import (
	"context"
	"fmt"
	"maps"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/db"
	"kilonova/internal/fault"
)

// FlavorFilter selects flavors.
type FlavorFilter struct {
	// Project shows the public flavors and those the project has access to; All shows every flavor, Public only public (or only private) ones.
	Project         string
	All             bool
	Public          *bool
	MinRAM, MinDisk int64
	Name            string // exact
	Sort            []SortKey
	Marker          string // flavor id
	Limit           int
}

var flavorOrder = map[string]string{
	"created_at": "created_at", "description": "COALESCE(description, '')", "disabled": "disabled", "ephemeral_gb": "ephemeral_gb", "flavorid": "flavor_id", "id": "id",
	"is_public": "is_public", "memory_mb": "ram_mb", "name": "name", "root_gb": "root_gb", "rxtx_factor": "rxtx", "swap": "swap_mb", "updated_at": "updated_at",
	"vcpu_weight": "id", "vcpus": "vcpus",
}

const selectFlavor = "SELECT id, flavor_id, name, vcpus, ram_mb, root_gb, ephemeral_gb, swap_mb, rxtx, is_public, disabled, description, extra_specs FROM compute_flavors"

func readFlavor(scan func(...any) error) (*compute.Flavor, error) {
	var f compute.Flavor
	var specs string
	var public, disabled int
	if err := scan(&f.ID, &f.FlavorID, &f.Name, &f.VCPUs, &f.RAMMB, &f.RootGB, &f.EphemeralGB, &f.SwapMB, &f.RXTX, &public, &disabled, &f.Description, &specs); err != nil {
		return nil, err
	}
	f.Public, f.Disabled = public != 0, disabled != 0
	return &f, decode(specs, &f.ExtraSpecs)
}

// Flavors gives flavors. It fails with fault.Invalid for an unknown sort key or marker.
func (s *Store) Flavors(ctx context.Context, q db.Querier, f FlavorFilter) ([]compute.Flavor, error) {
	var w where
	if f.Public != nil {
		w.add("is_public = ?", *f.Public)
	}
	if !f.All {
		w.add("(is_public = 1 OR id IN (SELECT flavor_row FROM compute_flavor_access WHERE project_id = ?))", f.Project)
	}
	if f.MinRAM > 0 {
		w.add("ram_mb >= ?", f.MinRAM)
	}
	if f.MinDisk > 0 {
		w.add("root_gb >= ?", f.MinDisk)
	}
	if f.Name != "" {
		w.add("name = ?", f.Name)
	}
	key, desc := "flavor_id", false
	if len(f.Sort) > 0 {
		var ok bool
		if key, ok = flavorOrder[f.Sort[0].Key]; !ok {
			return nil, fault.New(fault.Invalid, "Flavors cannot be sorted by %s.", f.Sort[0].Key)
		}
		desc = f.Sort[0].Desc
	}
	if f.Marker != "" {
		var value any
		var row int64
		err := q.QueryRow(ctx, "SELECT "+key+", id FROM compute_flavors WHERE flavor_id = ?", f.Marker).Scan(&value, &row)
		if db.IsNoRows(err) {
			return nil, fault.New(fault.Invalid, "marker [%s] not found", f.Marker)
		} else if err != nil {
			return nil, fmt.Errorf("flavor marker: %w", err)
		}
		if b, ok := value.([]byte); ok {
			value = string(b)
		}
		w.add("("+key+map[bool]string{true: " < ?", false: " > ?"}[desc]+" OR ("+key+" = ? AND id > ?))", value, value, row)
	}
	query := selectFlavor + w.String() + " ORDER BY " + key + map[bool]string{true: " DESC"}[desc] + ", id"
	if f.Limit > 0 {
		query += " LIMIT ?"
		w.args = append(w.args, f.Limit)
	}
	var out []compute.Flavor
	err := scan(ctx, q, query, w.args, func(scan func(...any) error) error {
		v, err := readFlavor(scan)
		if err == nil {
			out = append(out, *v)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read flavors: %w", err)
	}
	return out, nil
}

// Flavor gives a flavor by its id. It fails with fault.NotFound, also for a private flavor that project (unless "") has no access to.
func (s *Store) Flavor(ctx context.Context, q db.Querier, flavorID, project string) (*compute.Flavor, error) {
	shared, err := s.flavors.Get(q, [2]string{flavorID, project}, func() (*compute.Flavor, error) { return flavor(ctx, q, flavorID, project) })
	if err != nil {
		return nil, err
	}
	f := *shared
	f.ExtraSpecs = maps.Clone(f.ExtraSpecs)
	return &f, nil
}

const maxFlavors = 1000 // that are remembered

func flavor(ctx context.Context, q db.Querier, flavorID, project string) (*compute.Flavor, error) {
	f, err := readFlavor(q.QueryRow(ctx, selectFlavor+" WHERE flavor_id = ?", flavorID).Scan)
	if err == nil && !f.Public && project != "" {
		var n int
		err = q.QueryRow(ctx, "SELECT 1 FROM compute_flavor_access WHERE flavor_row = ? AND project_id = ?", f.ID, project).Scan(&n)
	}
	if db.IsNoRows(err) {
		return nil, fault.New(fault.NotFound, "Flavor %s could not be found.", flavorID)
	} else if err != nil {
		return nil, fmt.Errorf("read flavor: %w", err)
	}
	return f, nil
}

// InsertFlavor makes a flavor and sets its row. It fails with fault.Conflict when id or name is taken.
func (s *Store) InsertFlavor(ctx context.Context, tx *db.Tx, f *compute.Flavor) error {
	for col, val := range map[string]string{"flavor_id": f.FlavorID, "name": f.Name} {
		var n int
		if err := tx.QueryRow(ctx, "SELECT COUNT(*) FROM compute_flavors WHERE "+col+" = ?", val).Scan(&n); err != nil {
			return err
		}
		if n > 0 && col == "name" {
			return fault.New(fault.Conflict, "Flavor with name %s already exists.", val)
		} else if n > 0 {
			return fault.New(fault.Conflict, "Flavor with ID %s already exists.", val)
		}
	}
	if f.ExtraSpecs == nil {
		f.ExtraSpecs = map[string]string{}
	}
	now := clock.Micros(clock.Now())
	_, err := tx.Exec(ctx, "INSERT INTO compute_flavors (flavor_id, name, vcpus, ram_mb, root_gb, ephemeral_gb, swap_mb, rxtx, is_public, disabled, description, extra_specs, created_at, updated_at)"+
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", f.FlavorID, f.Name, f.VCPUs, f.RAMMB, f.RootGB, f.EphemeralGB, f.SwapMB, f.RXTX, f.Public, f.Disabled,
		f.Description, encode(f.ExtraSpecs), now, now)
	if db.IsDuplicate(err) {
		return fault.Wrap(err, fault.Conflict, "Flavor with name %s already exists.", f.Name)
	} else if err != nil {
		return fmt.Errorf("insert flavor: %w", err)
	}
	if err := tx.QueryRow(ctx, "SELECT id FROM compute_flavors WHERE flavor_id = ?", f.FlavorID).Scan(&f.ID); err != nil {
		return err
	}
	return s.tellFlavor(ctx, tx, FlavorCreated, f)
}

// UpdateFlavor lets change alter description and extra specs of a flavor. It fails with fault.NotFound or change's own error.
func (s *Store) UpdateFlavor(ctx context.Context, tx *db.Tx, flavorID string, change func(*compute.Flavor) error) (*compute.Flavor, error) {
	f, err := readFlavor(tx.QueryRow(ctx, selectFlavor+" WHERE flavor_id = ?"+tx.ForUpdate(), flavorID).Scan)
	if db.IsNoRows(err) {
		return nil, fault.New(fault.NotFound, "Flavor %s could not be found.", flavorID)
	} else if err != nil {
		return nil, err
	}
	if f.ExtraSpecs == nil {
		f.ExtraSpecs = map[string]string{}
	}
	if err := change(f); err != nil {
		return nil, err
	}
	if _, err = tx.Exec(ctx, "UPDATE compute_flavors SET description = ?, extra_specs = ?, updated_at = ? WHERE id = ?", f.Description, encode(f.ExtraSpecs), clock.Micros(clock.Now()), f.ID); err != nil {
		return nil, err
	}
	return f, s.tellFlavor(ctx, tx, FlavorChanged, f)
}

// DeleteFlavor removes a flavor; servers keep their copy. It fails with fault.NotFound.
func (s *Store) DeleteFlavor(ctx context.Context, tx *db.Tx, flavorID string) error {
	if s.wants(FlavorDeleted) {
		f, err := s.Flavor(ctx, tx, flavorID, "")
		if err != nil {
			return err
		}
		if err := s.tellFlavor(ctx, tx, FlavorDeleted, f); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(ctx, "DELETE FROM compute_flavor_access WHERE flavor_row IN (SELECT id FROM compute_flavors WHERE flavor_id = ?)", flavorID); err != nil {
		return err
	}
	n, err := tx.Exec(ctx, "DELETE FROM compute_flavors WHERE flavor_id = ?", flavorID)
	return one(n, err, "Flavor %s could not be found.", flavorID)
}

// FlavorAccess gives the projects that have access to a private flavor.
func (s *Store) FlavorAccess(ctx context.Context, q db.Querier, row int64) ([]string, error) {
	var out []string
	err := scan(ctx, q, "SELECT project_id FROM compute_flavor_access WHERE flavor_row = ? ORDER BY project_id", []any{row}, func(scan func(...any) error) error {
		var p string
		err := scan(&p)
		out = append(out, p)
		return err
	})
	return out, err
}

// AddFlavorAccess gives a project access. It fails with fault.Conflict when it has it.
func (s *Store) AddFlavorAccess(ctx context.Context, tx *db.Tx, f *compute.Flavor, project string) error {
	var n int
	if err := tx.QueryRow(ctx, "SELECT COUNT(*) FROM compute_flavor_access WHERE flavor_row = ? AND project_id = ?", f.ID, project).Scan(&n); err != nil {
		return err
	}
	if n > 0 {
		return fault.New(fault.Conflict, "Flavor access already exists for flavor %s and project %s combination.", f.FlavorID, project)
	}
	if _, err := tx.Exec(ctx, "INSERT INTO compute_flavor_access (flavor_row, project_id) VALUES (?, ?)", f.ID, project); err != nil {
		return err
	}
	return s.tellFlavor(ctx, tx, FlavorChanged, f)
}

// RemoveFlavorAccess takes access away. It fails with fault.NotFound when the project had none.
func (s *Store) RemoveFlavorAccess(ctx context.Context, tx *db.Tx, f *compute.Flavor, project string) error {
	n, err := tx.Exec(ctx, "DELETE FROM compute_flavor_access WHERE flavor_row = ? AND project_id = ?", f.ID, project)
	if err := one(n, err, "Flavor access not found for %s / %s combination.", f.FlavorID, project); err != nil {
		return err
	}
	return s.tellFlavor(ctx, tx, FlavorChanged, f)
}
