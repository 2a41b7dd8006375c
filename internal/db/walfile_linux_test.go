package db_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"kilonova/internal/db"
)

// TestLogGrowsByChunks: a database is opened through the layer that lets its log grow ahead of what is written.
func TestLogGrowsByChunks(t *testing.T) {
	const chunk = 1 << 20
	path := filepath.Join(t.TempDir(), "x.db")
	d, err := db.Open(t.Context(), "sqlite://"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	size := func() int64 {
		i, err := os.Stat(path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		return i.Size()
	}
	write(t, d, "CREATE TABLE t (id BIGINT PRIMARY KEY, v {{text}})")
	if got := size(); got != chunk {
		t.Errorf("the log of a small write has %d bytes, want %d", got, chunk)
	}
	write(t, d, "INSERT INTO t (id, v) VALUES (1, ?)", strings.Repeat("x", 3*chunk))
	if got := size(); got <= 3*chunk || got%chunk != 0 {
		t.Errorf("the log has %d bytes, want chunks of %d", got, chunk)
	}
}

// TestWhatIsCommittedIsInTheFiles: a copy of the files of an open database has all that was committed: the zeros at the end of
// the log are no part of it.
func TestWhatIsCommittedIsInTheFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	d, err := db.Open(t.Context(), "sqlite://"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	write(t, d, "CREATE TABLE t (id BIGINT PRIMARY KEY, v {{text}})")
	const writers, each = 8, 60
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				err := d.Write(t.Context(), func(tx *db.Tx) error {
					_, err := tx.Exec(t.Context(), "INSERT INTO t (id, v) VALUES (?, ?)", w*each+i, strings.Repeat("v", 100*i))
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	copied := filepath.Join(t.TempDir(), "y.db")
	for _, end := range []string{"", "-wal"} {
		b, err := os.ReadFile(path + end)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(copied+end, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := db.Open(t.Context(), "sqlite://"+copied)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	var n, length int
	var sound string
	if err := c.QueryRow(t.Context(), "SELECT COUNT(*), SUM(LENGTH(v)) FROM t").Scan(&n, &length); err != nil {
		t.Fatal(err)
	}
	if err := c.QueryRow(t.Context(), "PRAGMA integrity_check").Scan(&sound); err != nil {
		t.Fatal(err)
	}
	want := 0
	for i := range each {
		want += writers * 100 * i
	}
	if got := fmt.Sprint(n, length, sound); got != fmt.Sprint(writers*each, want, "ok") {
		t.Errorf("the copy has %s, want %d %d ok", got, writers*each, want)
	}
}

func write(t *testing.T, d *db.DB, q string, args ...any) {
	t.Helper()
	if err := d.Write(t.Context(), func(tx *db.Tx) error {
		_, err := tx.Exec(t.Context(), strings.ReplaceAll(q, "{{text}}", "TEXT"), args...)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// Where processes cannot share memory, a database is not opened, and it is said why: here a pipe stands where the memory's file is to be.
func TestNoMemoryToShare(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	if err := syscall.Mkfifo(path+"-shm", 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := db.Open(t.Context(), "sqlite:"+path)
	if err == nil {
		_ = d.Close()
		t.Fatal("it was opened")
	}
	if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "share memory") {
		t.Errorf("the reason is not told: %v", err)
	}
}
