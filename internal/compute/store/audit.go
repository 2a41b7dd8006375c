package store

import (
	"context"
	"fmt"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/db"
)

// Audit tells what the audit of a period found on a host.
type Audit struct {
	Host    string
	Servers int64
	Took    time.Duration // from the first to the last word of the whole audit
	Done    bool
}

// Audits gives what the audit of the period that ends at end found, by host; nothing when there was none.
func (s *Store) Audits(ctx context.Context, q db.Querier, end time.Time) ([]Audit, error) {
	var out []Audit
	err := scan(ctx, q, "SELECT host, servers, took, done FROM compute_audits WHERE end_at = ? ORDER BY host", []any{clock.Micros(end)}, func(scan func(...any) error) error {
		var a Audit
		var took int64
		var done int
		err := scan(&a.Host, &a.Servers, &took, &done)
		a.Took, a.Done = time.Duration(took)*time.Microsecond, done != 0
		out = append(out, a)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read audits: %w", err)
	}
	return out, nil
}

// CountAudit adds servers to what the audit of a period has found on hosts.
func (s *Store) CountAudit(ctx context.Context, tx *db.Tx, end time.Time, servers map[string]int64) error {
	for host, n := range servers {
		changed, err := tx.Exec(ctx, "UPDATE compute_audits SET servers = servers + ? WHERE end_at = ? AND host = ?", n, clock.Micros(end), host)
		if err == nil && changed == 0 {
			_, err = tx.Exec(ctx, "INSERT INTO compute_audits (end_at, host, servers, took, done) VALUES (?, ?, ?, 0, 0)", clock.Micros(end), host, n)
		}
		if err != nil {
			return fmt.Errorf("write audit: %w", err)
		}
	}
	return nil
}

// EndAudit notes that the audit of a period is over, on hosts without servers too, and forgets audits from before oldest.
func (s *Store) EndAudit(ctx context.Context, tx *db.Tx, end, oldest time.Time, took time.Duration) error {
	for _, q := range []struct {
		text string
		args []any
	}{
		{"INSERT INTO compute_audits (end_at, host, servers, took, done) SELECT CAST(? AS " + number(tx) + "), s.host, 0, 0, 0 FROM compute_services s WHERE s.service_binary = ?" +
			" AND NOT EXISTS (SELECT 1 FROM compute_audits a WHERE a.end_at = ? AND a.host = s.host)", []any{clock.Micros(end), ComputeBinary, clock.Micros(end)}},
		{"UPDATE compute_audits SET done = 1, took = ? WHERE end_at = ?", []any{took.Microseconds(), clock.Micros(end)}},
		{"DELETE FROM compute_audits WHERE end_at < ?", []any{clock.Micros(oldest)}},
	} {
		if _, err := tx.Exec(ctx, q.text, q.args...); err != nil {
			return fmt.Errorf("end audit: %w", err)
		}
	}
	return nil
}

// number is the type of a parameter that stands alone, which PostgreSQL wants to be told.
func number(tx *db.Tx) string {
	if tx.Dialect() == db.MySQL {
		return "SIGNED"
	}
	return "BIGINT"
}

// ServersWithin gives at most limit of the servers that were there at some time between begin and end, deleted ones too, with numbers above after, by number.
func (s *Store) ServersWithin(ctx context.Context, q db.Querier, begin, end time.Time, after int64, limit int) ([]*compute.Server, error) {
	return s.servers(ctx, q, selectServer+" WHERE s.number > ? AND s.created_at < ? AND (s.deleted = 0 OR s.deleted_at >= ?) ORDER BY s.number LIMIT ?",
		after, clock.Micros(end), clock.Micros(begin), limit)
}
