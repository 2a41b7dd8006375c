package db

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

func openMemoDB(t *testing.T, path string) *DB {
	t.Helper()
	d, err := Open(t.Context(), "sqlite:"+path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func write(t *testing.T, d *DB, q string, args ...any) {
	t.Helper()
	if err := d.Write(t.Context(), func(tx *Tx) error { _, err := tx.Exec(t.Context(), q, args...); return err }); err != nil {
		t.Fatal(err)
	}
}

func TestMemoReadsAgainOnlyWhatWasWrittenTo(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the WAL index is looked at on Linux only")
	}
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "x.db")
	d := openMemoDB(t, path)
	write(t, d, "CREATE TABLE kept (id BIGINT PRIMARY KEY, v BIGINT)")
	write(t, d, "CREATE TABLE other (v BIGINT)")
	write(t, d, "INSERT INTO kept (id, v) VALUES (1, 10), (2, 20)")
	m, reads := NewMemo[int, int](d, 100, "kept"), 0
	value := func(id int) func() (int, error) {
		return func() (v int, err error) {
			reads++
			return v, d.QueryRow(ctx, "SELECT v FROM kept WHERE id = ?", id).Scan(&v)
		}
	}
	check := func(what string, id, want, wantReads int) {
		t.Helper()
		v, err := m.Get(d, id, value(id))
		if err != nil || v != want || reads != wantReads {
			t.Fatalf("%s: %d after %d reads (%v), want %d after %d", what, v, reads, err, want, wantReads)
		}
	}
	check("first", 1, 10, 1)
	check("again", 1, 10, 1)
	check("another", 2, 20, 2)
	write(t, d, "INSERT INTO other (v) VALUES (1)")
	check("after a write elsewhere", 1, 10, 2)
	write(t, d, "UPDATE kept SET v = 11 WHERE id = 1")
	check("after a write", 1, 11, 3)
	write(t, d, "insert or ignore into kept (id, v) VALUES (3, 30)") // a form that is not looked into
	check("after any other statement", 1, 11, 4)
	if err := d.Write(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(ctx, "DELETE FROM kept"); err != nil {
			return err
		}
		if _, err := m.Get(tx, 1, func() (v int, err error) { return v, tx.QueryRow(ctx, "SELECT v FROM kept WHERE id = 1").Scan(&v) }); !IsNoRows(err) {
			t.Errorf("a transaction does not see what it did: %v", err)
		}
		return errors.New("not after all")
	}); err == nil {
		t.Fatal("the transaction did not fail")
	}
	check("after what was rolled back", 1, 11, 4)

	// Somebody else writes: until this process has written too, nobody can tell what was.
	e := openMemoDB(t, path)
	write(t, e, "UPDATE kept SET v = 12 WHERE id = 1")
	check("after a write of another", 1, 12, 5)
	check("and again", 1, 12, 6)
	write(t, d, "INSERT INTO other (v) VALUES (2)")
	check("after both", 1, 12, 7)
	check("from then on", 1, 12, 7)
	for id := range 300 {
		if _, err := m.Get(d, 1000+id, func() (int, error) { return id, nil }); err != nil {
			t.Fatal(err)
		}
	}
	if len(m.m) > 100 {
		t.Errorf("%d values are kept", len(m.m))
	}
	if _, err := m.Get(d, 4, value(4)); !IsNoRows(err) {
		t.Errorf("what is not there: %v", err)
	}
}

func TestStatementsTellWhatTheyWriteTo(t *testing.T) {
	var c changes
	for q, want := range map[string]string{
		"INSERT INTO a (b) VALUES (?)": "a", "UPDATE a SET b = ?": "a", "DELETE FROM a WHERE b = ?": "a", "INSERT INTO a(b) SELECT c FROM d": "a",
		"update\n\ta set b = 1": "a", "INSERT INTO a (b) VALUES (?) ON CONFLICT (b) DO UPDATE SET c = 1": "a",
		"INSERT OR REPLACE INTO a (b) VALUES (?)": "any", "UPDATE OR IGNORE a SET b = 1": "any", "REPLACE INTO a (b) VALUES (1)": "any", "CREATE TABLE a (b)": "any",
		"WITH x AS (SELECT 1) INSERT INTO a SELECT * FROM x": "any", "DROP TABLE a": "any", `UPDATE "a" SET b = 1`: "any", "UPDATE A SET b = 1": "any", "UPDATE main.a SET b = 1": "any", "ALTER TABLE a ADD b": "any",
		"SELECT b FROM a": "none", "PRAGMA shrink_memory": "none", "BEGIN IMMEDIATE": "none", "ROLLBACK TO w": "none", "": "none",
	} {
		table, none := c.writes(q)
		got := "any"
		switch {
		case none:
			got = "none"
		case table == c.of("a"):
			got = "a"
		}
		if got != want {
			t.Errorf("%q writes to %s, want %s", q, got, want)
		}
	}
}

// What is written is seen by whoever begins to look afterwards, also while two processes write and many look.
func TestMemoIsNeverOld(t *testing.T) {
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "x.db")
	dbs := []*DB{openMemoDB(t, path), openMemoDB(t, path)}
	write(t, dbs[0], "CREATE TABLE counters (id BIGINT PRIMARY KEY, v BIGINT)")
	write(t, dbs[0], "INSERT INTO counters (id, v) VALUES (0, 0), (1, 0)")
	var written [2]atomic.Int64 // of each counter: what is surely there
	var wg sync.WaitGroup
	for i, d := range dbs {
		wg.Go(func() {
			for n := range int64(300) {
				if err := d.Write(ctx, func(tx *Tx) error {
					_, err := tx.Exec(ctx, "UPDATE counters SET v = ? WHERE id = ?", n+1, i)
					return err
				}); err != nil {
					t.Error(err)
					return
				}
				written[i].Store(n + 1)
			}
		})
		m := NewMemo[int, int64](d, 10, "counters")
		for range 2 {
			wg.Go(func() {
				for written[0].Load() < 300 || written[1].Load() < 300 {
					for id := range 2 {
						least := written[id].Load()
						v, err := m.Get(d, id, func() (v int64, err error) {
							return v, d.QueryRow(ctx, "SELECT v FROM counters WHERE id = ?", id).Scan(&v)
						})
						if err != nil || v < least {
							t.Error(fmt.Errorf("counter %d is %d, but %d was written before: %w", id, v, least, err))
							return
						}
					}
					if t.Failed() {
						return
					}
				}
			})
		}
	}
	wg.Wait()
}
