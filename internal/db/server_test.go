package db_test

import (
	"errors"
	"os"
	"testing"

	"kilonova/internal/db"
	"kilonova/internal/db/dbtest"
	"kilonova/internal/fault"
)

// Whatever is asked of a server database that is away fails with unavailability, and goes on when it is there again.
func TestServerIsAway(t *testing.T) {
	onServers(t, serverIsAway)
}

// onServers runs a test on PostgreSQL and on MariaDB.
func onServers(t *testing.T, f func(t *testing.T, d *db.DB, way *dbtest.Cable)) {
	t.Helper()
	kinds := []db.Dialect{db.Postgres, db.MySQL}
	if server := os.Getenv("KILONOVA_TEST_DATABASE"); server != "" { // that one alone
		kinds = kinds[:1]
	}
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			d, way := dbtest.Cables(t, kind)
			f(t, d, way)
		})
	}
}

func serverIsAway(t *testing.T, d *db.DB, way *dbtest.Cable) {
	ctx := t.Context()
	write(t, d, "CREATE TABLE t (id BIGINT PRIMARY KEY)")
	put := func(tx *db.Tx) error { _, err := tx.Exec(ctx, "INSERT INTO t (id) VALUES (1)"); return err }
	count := func() (n int, err error) {
		return n, d.QueryRow(ctx, "SELECT COUNT(*) FROM t").Scan(&n)
	}
	for name, ask := range map[string]func() error{
		"write": func() error { return d.Write(ctx, put) },
		"lost before the commit": func() error {
			way.Mend()
			return d.Write(ctx, func(tx *db.Tx) error { err := put(tx); way.Cut(); return err })
		},
		"lost before a statement": func() error {
			way.Mend()
			return d.Write(ctx, func(tx *db.Tx) error {
				err := put(tx)
				way.Cut()
				return errors.Join(err, put(tx))
			})
		},
		"row": func() error { _, err := count(); return err },
		"query": func() error {
			rows, err := d.Query(ctx, "SELECT id FROM t")
			if err == nil {
				_ = rows.Close()
			}
			return err
		},
	} {
		way.Cut()
		if err := ask(); !db.IsAway(err) || !errors.Is(err, fault.Unavailable) {
			t.Errorf("%s: %v", name, err)
		}
		way.Mend()
		if n, err := count(); err != nil || n != 0 {
			t.Errorf("%s: when it is there again, %d rows: %v", name, n, err)
		}
	}
	if err := d.Write(ctx, put); err != nil {
		t.Fatal(err)
	}
	if err := d.Write(ctx, put); !db.IsDuplicate(err) || db.IsAway(err) {
		t.Errorf("the same row again: %v", err)
	}
}

// A commit whose answer is lost has happened, or has not: the error is the same, and what is there tells.
func TestTheOutcomeOfACommitIsUnknown(t *testing.T) {
	onServers(t, func(t *testing.T, d *db.DB, way *dbtest.Cable) {
		ctx := t.Context()
		write(t, d, "CREATE TABLE t (id BIGINT PRIMARY KEY)")
		for id, carriedOut := range []bool{false, true} {
			told := false
			lost := way.LoseCommit(carriedOut)
			err := d.Write(ctx, func(tx *db.Tx) error {
				tx.AfterCommit(func() { told = true })
				_, err := tx.Exec(ctx, "INSERT INTO t (id) VALUES (?)", id)
				return err
			})
			<-lost
			if !db.IsAway(err) || !db.IsUncertain(err) || !errors.Is(err, fault.Unavailable) || told {
				t.Errorf("carried out: %t: %v, told: %t", carriedOut, err, told)
			}
			var n int
			if err := d.QueryRow(ctx, "SELECT COUNT(*) FROM t WHERE id = ?", id).Scan(&n); err != nil || n == 1 != carriedOut {
				t.Errorf("carried out: %t: %d rows, %v", carriedOut, n, err)
			}
		}
	})
}
