package store

import (
	"context"
	"fmt"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
)

// MigrationFilter selects migrations.
type MigrationFilter struct {
	ServerID, Host, SourceHost, Type, ProjectID, UserID string
	Status                                              []string
	ChangesSince, ChangesBefore                         time.Time
	Marker                                              string // uuid
	Limit                                               int
	Oldest                                              bool // oldest first; default newest first
}

const selectMigration = "SELECT id, uuid, server_id, type, status, source_host, source_node, dest_host, dest_node, dest_ip, old_flavor, new_flavor, project_id, user_id," +
	" memory_total, memory_processed, memory_remaining, disk_total, disk_processed, disk_remaining, created_at, updated_at FROM compute_migrations"

func readMigration(scan func(...any) error) (*compute.Migration, error) {
	var m compute.Migration
	var created, updated int64
	if err := scan(&m.ID, &m.UUID, &m.ServerID, &m.Type, &m.Status, &m.SourceHost, &m.SourceNode, &m.DestHost, &m.DestNode, &m.DestIP, &m.OldFlavorID, &m.NewFlavorID, &m.ProjectID,
		&m.UserID, &m.MemoryTotal, &m.MemoryProcessed, &m.MemoryRemaining, &m.DiskTotal, &m.DiskProcessed, &m.DiskRemaining, &created, &updated); err != nil {
		return nil, err
	}
	m.Created, m.Updated = clock.FromMicros(created), clock.FromMicros(updated)
	return &m, nil
}

// Migrations gives migration records. It fails with fault.Invalid for an unknown marker.
func (s *Store) Migrations(ctx context.Context, q db.Querier, f MigrationFilter) ([]compute.Migration, error) {
	var w where
	for _, e := range []struct{ col, val string }{{"server_id", f.ServerID}, {"project_id", f.ProjectID}, {"source_host", f.SourceHost}, {"type", f.Type}, {"user_id", f.UserID}} {
		if e.val != "" {
			w.add(e.col+" = ?", e.val)
		}
	}
	if f.Host != "" {
		w.add("(source_host = ? OR dest_host = ?)", f.Host, f.Host)
	}
	if len(f.Status) > 0 {
		w.in("status", db.Args(f.Status))
	}
	if !f.ChangesSince.IsZero() {
		w.add("updated_at >= ?", clock.Micros(f.ChangesSince))
	}
	if !f.ChangesBefore.IsZero() {
		w.add("updated_at <= ?", clock.Micros(f.ChangesBefore))
	}
	if f.Marker != "" {
		m, err := s.Migration(ctx, q, f.Marker)
		if err != nil {
			return nil, fault.Wrap(err, fault.Invalid, "Marker %s could not be found.", f.Marker)
		}
		op := map[bool]string{true: ">", false: "<"}[f.Oldest]
		w.add("(created_at "+op+" ? OR (created_at = ? AND id "+op+" ?))", clock.Micros(m.Created), clock.Micros(m.Created), m.ID)
	}
	order := " ORDER BY created_at DESC, id DESC"
	if f.Oldest {
		order = " ORDER BY created_at, id"
	}
	query := selectMigration + w.String() + order
	if f.Limit > 0 {
		query += " LIMIT ?"
		w.args = append(w.args, f.Limit)
	}
	var out []compute.Migration
	err := scan(ctx, q, query, w.args, func(scan func(...any) error) error {
		m, err := readMigration(scan)
		if err == nil {
			out = append(out, *m)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	return out, nil
}

// Migration gives one by its uuid. It fails with fault.NotFound.
func (s *Store) Migration(ctx context.Context, q db.Querier, uuid string) (*compute.Migration, error) {
	m, err := readMigration(q.QueryRow(ctx, selectMigration+" WHERE uuid = ?", uuid).Scan)
	if db.IsNoRows(err) {
		return nil, fault.New(fault.NotFound, "Migration %s could not be found.", uuid)
	}
	return m, err
}

// InsertMigration makes a migration record and sets its ID; a record with the same UUID that is there is success, so that a repeated step is harmless.
func (s *Store) InsertMigration(ctx context.Context, tx *db.Tx, m *compute.Migration) error {
	if m.UUID == "" {
		m.UUID = id.UUID()
	}
	if old, err := s.Migration(ctx, tx, m.UUID); err == nil {
		*m = *old
		return nil
	}
	m.Created = clock.Now()
	m.Updated = m.Created
	at := clock.Micros(m.Created)
	if _, err := tx.Exec(ctx, "INSERT INTO compute_migrations (uuid, server_id, type, status, source_host, source_node, dest_host, dest_node, dest_ip, old_flavor, new_flavor, project_id,"+
		" user_id, memory_total, memory_processed, memory_remaining, disk_total, disk_processed, disk_remaining, created_at, updated_at) VALUES ("+db.In(21)+")",
		m.UUID, m.ServerID, m.Type, m.Status, m.SourceHost, m.SourceNode, m.DestHost, m.DestNode, m.DestIP, m.OldFlavorID, m.NewFlavorID, m.ProjectID, m.UserID,
		m.MemoryTotal, m.MemoryProcessed, m.MemoryRemaining, m.DiskTotal, m.DiskProcessed, m.DiskRemaining, at, at); err != nil {
		return fmt.Errorf("insert migration: %w", err)
	}
	return tx.QueryRow(ctx, "SELECT id FROM compute_migrations WHERE uuid = ?", m.UUID).Scan(&m.ID)
}

// UpdateMigration reads a migration with its row locked, lets change alter it and writes it. It fails with fault.NotFound or change's own error.
func (s *Store) UpdateMigration(ctx context.Context, tx *db.Tx, uuid string, change func(*compute.Migration) error) error {
	m, err := readMigration(tx.QueryRow(ctx, selectMigration+" WHERE uuid = ?"+tx.ForUpdate(), uuid).Scan)
	if db.IsNoRows(err) {
		return fault.New(fault.NotFound, "Migration %s could not be found.", uuid)
	} else if err != nil {
		return err
	}
	if err := change(m); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "UPDATE compute_migrations SET status = ?, source_host = ?, source_node = ?, dest_host = ?, dest_node = ?, dest_ip = ?, old_flavor = ?, new_flavor = ?,"+
		" memory_total = ?, memory_processed = ?, memory_remaining = ?, disk_total = ?, disk_processed = ?, disk_remaining = ?, updated_at = ? WHERE uuid = ?",
		m.Status, m.SourceHost, m.SourceNode, m.DestHost, m.DestNode, m.DestIP, m.OldFlavorID, m.NewFlavorID, m.MemoryTotal, m.MemoryProcessed, m.MemoryRemaining,
		m.DiskTotal, m.DiskProcessed, m.DiskRemaining, clock.Micros(clock.Now()), uuid)
	return err
}
