package db_test

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"

	"kilonova/internal/db"
	"kilonova/internal/db/dbtest"
	"kilonova/internal/fault"
)

// A program that only looks makes no tables and changes none: it says what is the matter.
func TestKeepTables(t *testing.T) {
	ctx := t.Context()
	url := dbtest.URL(t)
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	old := fstest.MapFS{"0001_first.sql": file("CREATE TABLE kept_things (id BIGINT);\n")}
	now := fstest.MapFS{"0001_first.sql": old["0001_first.sql"], "0002_second.sql": file("ALTER TABLE kept_things ADD COLUMN name BIGINT;\n")}
	owner, looker := dbtest.At(t, url), dbtest.At(t, url)
	looker.KeepTables()
	refused := func(d *db.DB, want string) {
		t.Helper()
		if err := d.Migrate(ctx, "kept", now); !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	refused(looker, "kept_… are not there")
	var n int
	if err := looker.QueryRow(ctx, "SELECT COUNT(*) FROM kept_things").Scan(&n); err == nil {
		t.Error("it made the table")
	}
	if err := owner.Migrate(ctx, "kept", old); err != nil {
		t.Fatal(err)
	}
	refused(looker, "kept_… are of version 1, this program needs 2")
	if err := looker.QueryRow(ctx, "SELECT COUNT(name) FROM kept_things").Scan(&n); err == nil {
		t.Error("it changed the table")
	}
	if err := owner.Migrate(ctx, "kept", now); err != nil {
		t.Fatal(err)
	}
	if err := looker.Migrate(ctx, "kept", now); err != nil {
		t.Error(err)
	}
	if err := looker.Migrate(ctx, "kept", old); err != nil {
		t.Errorf("newer tables than it needs: %v", err)
	}
}
