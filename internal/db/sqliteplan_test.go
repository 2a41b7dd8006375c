package db

import (
	"path/filepath"
	"strings"
	"testing"
)

// A partial index is of use for one value of a parameter only, so SQLite takes it only when it plans with the values at hand. The plan must not tell the values apart: then it is made once.
func TestSQLitePlansOnce(t *testing.T) {
	ctx := t.Context()
	d, err := Open(ctx, "sqlite:"+filepath.Join(t.TempDir(), "x.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	for _, q := range []string{"CREATE TABLE things (a BIGINT, b BIGINT)", "CREATE INDEX things_one ON things (a) WHERE b = 1"} {
		if err := d.Write(ctx, func(tx *Tx) error { _, err := tx.Exec(ctx, q); return err }); err != nil {
			t.Fatal(err)
		}
	}
	plan := func(q Querier, where string, args ...any) string {
		t.Helper()
		rows, err := q.Query(ctx, "EXPLAIN QUERY PLAN SELECT a FROM things WHERE "+where, args...)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = rows.Close() }()
		var out []string
		for rows.Next() {
			var id, parent, unused int
			var detail string
			if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
				t.Fatal(err)
			}
			out = append(out, detail)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		return strings.Join(out, "; ")
	}
	check := func(who string, q Querier) {
		t.Helper()
		if p := plan(q, "a = ? AND b = 1", 7); !strings.Contains(p, "things_one") {
			t.Fatalf("%s: the index is of no use where its condition is met: %s", who, p)
		}
		if p := plan(q, "a = ? AND b = ?", 7, 1); strings.Contains(p, "things_one") {
			t.Errorf("%s: the plan depends on a value: %s", who, p)
		}
	}
	check("reader", d)
	if err := d.Write(ctx, func(tx *Tx) error { check("writer", tx); return nil }); err != nil {
		t.Fatal(err)
	}
}
