package db_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/fstest"

	"kilonova/internal/db"
)

func open(t testing.TB) *db.DB {
	t.Helper()
	d, err := db.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "t.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	files := fstest.MapFS{"0001_t.sql": {Data: []byte("CREATE TABLE t (id {{serial}}, k VARCHAR(64) NOT NULL UNIQUE, flag SMALLINT NOT NULL, doc {{text}});\n")}}
	for range 2 { // a second run finds nothing to do
		if err := d.Migrate(t.Context(), "test", files); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func TestOneFailingWriteLeavesItsGroupAlone(t *testing.T) {
	d := open(t)
	ctx := context.Background()
	boom := errors.New("boom")
	var wg sync.WaitGroup
	errs := make([]error, 200)
	for i := range errs {
		wg.Go(func() {
			errs[i] = d.Write(ctx, func(tx *db.Tx) error {
				if _, err := tx.Exec(ctx, "INSERT INTO t (k, flag) VALUES (?, ?)", string(rune('A'+i%26))+string(rune('a'+i/26)), true); err != nil {
					return err
				}
				if i%2 == 1 {
					return boom
				}
				return nil
			})
		})
	}
	wg.Wait()
	for i, err := range errs {
		if (i%2 == 1) != errors.Is(err, boom) {
			t.Fatalf("write %d: %v", i, err)
		}
	}
	var n int
	if err := d.QueryRow(ctx, "SELECT COUNT(*) FROM t WHERE flag = ?", true).Scan(&n); err != nil || n != 100 {
		t.Fatalf("%d rows, %v", n, err)
	}
}

func TestDuplicateAndUpsert(t *testing.T) {
	d := open(t)
	ctx := context.Background()
	ins := func(tx *db.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO t (k, flag) VALUES ('x', 0)")
		return err
	}
	if err := d.Write(ctx, ins); err != nil {
		t.Fatal(err)
	}
	if err := d.Write(ctx, ins); !db.IsDuplicate(err) {
		t.Fatalf("want duplicate, got %v", err)
	}
	hook := 0
	if err := d.Write(ctx, func(tx *db.Tx) error {
		tx.AfterCommit(func() { hook++ })
		_, err := tx.Exec(ctx, db.Upsert(tx.Dialect(), "t", []string{"k"}, []string{"flag"}), "x", true)
		return err
	}); err != nil || hook != 1 {
		t.Fatal(err, hook)
	}
	var flag bool
	if err := d.QueryRow(ctx, "SELECT flag FROM t WHERE k = 'x'").Scan(&flag); err != nil || !flag {
		t.Fatal(flag, err)
	}
}

func TestPanicInsideWriteIsAnErrorAndRollsBack(t *testing.T) {
	d := open(t)
	ctx := context.Background()
	err := d.Write(ctx, func(tx *db.Tx) error {
		_, _ = tx.Exec(ctx, "INSERT INTO t (k, flag) VALUES ('p', 0)")
		panic("no")
	})
	if err == nil {
		t.Fatal("panic swallowed")
	}
	var n int
	if err := d.QueryRow(ctx, "SELECT COUNT(*) FROM t").Scan(&n); err != nil || n != 0 {
		t.Fatal(n, err)
	}
}

func BenchmarkWrite(b *testing.B) {
	d := open(b)
	ctx := context.Background()
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := d.Write(ctx, func(tx *db.Tx) error {
				_, err := tx.Exec(ctx, "INSERT INTO t (k, flag) VALUES (hex(randomblob(16)), 0)")
				return err
			}); err != nil {
				b.Error(err)
			}
		}
	})
}

func TestUrgentWritesGoFirst(t *testing.T) {
	d := open(t)
	ctx := context.Background()
	began, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := d.Write(ctx, func(*db.Tx) error { close(began); <-release; return nil }); err != nil {
			t.Error(err)
		}
	})
	<-began
	var order []string // only the writer's goroutine touches it
	queue := func(ctx context.Context, name string, n int) {
		for range n {
			wg.Go(func() {
				if err := d.Write(ctx, func(*db.Tx) error { order = append(order, name); return nil }); err != nil {
					t.Error(err)
				}
			})
		}
	}
	queue(ctx, "other", 40)
	d.WaitQueued(t, 40)
	queue(db.Urgent(ctx), "urgent", 3)
	d.WaitQueued(t, 43)
	close(release)
	wg.Wait()
	if len(order) != 43 || slices.Index(order, "other") < 3 {
		t.Fatalf("%v", order)
	}
}

func TestChangedNamesOnlyWhatDiffers(t *testing.T) {
	set, args := db.Changed([]string{"a", "b", "c"}, []any{int64(1), "x", nil}, []any{int64(2), "x", "y"})
	if set != "a = ?, c = ?" || !slices.Equal(args, []any{int64(2), "y"}) {
		t.Fatal(set, args)
	}
	if set, args := db.Changed([]string{"a"}, []any{true}, []any{true}); set != "" || args != nil {
		t.Fatal(set, args)
	}
}

func TestInsertAddsEveryRow(t *testing.T) {
	for _, n := range []int{0, 1, 8, 71, 64 + 8 + 3, 200} {
		d := open(t)
		ctx := t.Context()
		var args []any
		for i := range n {
			args = append(args, fmt.Sprintf("k%03d", i), i%2 == 0)
		}
		if err := d.Write(ctx, func(tx *db.Tx) error { return tx.Insert(ctx, "t", []string{"k", "flag"}, args...) }); err != nil {
			t.Fatal(err)
		}
		rows, err := d.Query(ctx, "SELECT k, flag FROM t ORDER BY k")
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		for ; rows.Next(); got++ {
			var k string
			var flag bool
			if err := rows.Scan(&k, &flag); err != nil || k != fmt.Sprintf("k%03d", got) || flag != (got%2 == 0) {
				t.Fatalf("row %d is %s %v: %v", got, k, flag, err)
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil || got != n {
			t.Fatalf("%d rows of %d: %v", got, n, err)
		}
	}
}
