package store_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"

	"kilonova/internal/db"
	"kilonova/internal/fault"
)

// recorder is a database that keeps what it was asked.
type recorder struct {
	*db.DB
	queries []string
	args    [][]any
}

func (r *recorder) Query(ctx context.Context, q string, args ...any) (*sql.Rows, error) {
	r.queries, r.args = append(r.queries, q), append(r.args, args)
	return r.DB.Query(ctx, q, args...)
}

func (r *recorder) QueryRow(ctx context.Context, q string, args ...any) *sql.Row {
	r.queries, r.args = append(r.queries, q), append(r.args, args)
	return r.DB.QueryRow(ctx, q, args...)
}

// explain gives the plan of the i-th query, one step on each line.
func (r *recorder) explain(t *testing.T, i int) string {
	t.Helper()
	rows, err := r.DB.Query(t.Context(), "EXPLAIN QUERY PLAN "+r.queries[i], r.args[i]...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var b strings.Builder
	for rows.Next() {
		var id, parent, unused int
		var step string
		if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
			t.Fatal(err)
		}
		b.WriteString(step + "\n")
	}
	return b.String()
}

// notFound gives nil for fault.NotFound, which is what reads of absent things say.
func notFound(err error) error {
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

func isConflict(err error) bool { return errors.Is(err, fault.Conflict) }

func isForbidden(err error) bool { return errors.Is(err, fault.Forbidden) }
