package db

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"
)

// Rest closes the readers that nobody uses, and leaves alone what is being read.
func TestRestClosesIdleReaders(t *testing.T) {
	ctx := t.Context()
	d, err := Open(ctx, "sqlite:"+filepath.Join(t.TempDir(), "x.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	write := func(q string) {
		t.Helper()
		if err := d.Write(ctx, func(tx *Tx) error { _, err := tx.Exec(ctx, q); return err }); err != nil {
			t.Fatal(err)
		}
	}
	count := func(rows *sql.Rows) (n int) {
		t.Helper()
		for rows.Next() {
			n++
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		_ = rows.Close()
		return n
	}
	read := func() *sql.Rows {
		t.Helper()
		rows, err := d.Query(context.WithoutCancel(ctx), "SELECT v FROM things")
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}
	write("CREATE TABLE things (v BIGINT)")
	write("INSERT INTO things (v) VALUES (1), (2), (3)")
	open := []*sql.Rows{read(), read(), read()}
	for _, rows := range open[1:] {
		count(rows)
	}
	if n := d.pool.Stats().OpenConnections; n != 3 {
		t.Fatalf("%d readers are open before, want 3", n)
	}
	if err := d.Rest(ctx); err != nil {
		t.Fatal(err)
	}
	if n := d.pool.Stats().OpenConnections; n != 2 {
		t.Fatalf("%d readers are open after, want the one in use and another", n)
	}
	if n := count(open[0]); n != 3 {
		t.Fatalf("what was being read gave %d rows", n)
	}
	write("INSERT INTO things (v) VALUES (4)")
	if n := count(read()); n != 4 {
		t.Fatalf("%d rows after the rest", n)
	}
}
