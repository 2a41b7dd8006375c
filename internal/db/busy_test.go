package db

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"testing"

	"kilonova/internal/fault"
)

// A database that another process holds is unavailable, not broken: nothing was written, and later it goes on.
func TestHeldDatabaseIsUnavailable(t *testing.T) {
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "x.db")
	d, err := Open(ctx, "sqlite:"+path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	put := func(v int) error {
		return d.Write(ctx, func(tx *Tx) error { _, err := tx.Exec(ctx, "INSERT INTO things (v) VALUES (?)", v); return err })
	}
	if err := d.Write(ctx, func(tx *Tx) error { _, err := tx.Exec(ctx, "CREATE TABLE things (v BIGINT)"); return err }); err != nil {
		t.Fatal(err)
	}
	if _, err := d.writer.conn.ExecContext(context.Background(), "PRAGMA busy_timeout = 20"); err != nil {
		t.Fatal(err)
	}
	other, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	holder, err := other.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := holder.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	if err := put(1); !errors.Is(err, fault.Unavailable) {
		t.Fatalf("a write to a held database: %v", err)
	}
	if _, err := holder.ExecContext(ctx, "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := put(2); err != nil {
		t.Fatal(err)
	}
	var sum int
	if err := d.QueryRow(ctx, "SELECT SUM(v) FROM things").Scan(&sum); err != nil || sum != 2 {
		t.Errorf("the sum is %d: %v", sum, err)
	}
}
