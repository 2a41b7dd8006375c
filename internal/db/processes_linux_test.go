package db

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"kilonova/internal/fault"
)

// otherProcess names, in the environment of a process of this test binary, what it is to do beside the test, and on which database.
const otherProcess = "KILONOVA_TEST_OTHER_PROCESS"

func TestMain(m *testing.M) {
	what, path, ok := strings.Cut(os.Getenv(otherProcess), ":")
	if !ok {
		os.Exit(m.Run())
	}
	if err := beside(context.Background(), what, path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0) // nothing is closed
}

// beside is another process.
func beside(ctx context.Context, what, path string) error {
	d, err := Open(ctx, "sqlite:"+path)
	if err != nil {
		return err
	}
	var v int64
	next := func() error {
		if err := d.QueryRow(ctx, "SELECT v FROM theirs WHERE id = 1").Scan(&v); err != nil {
			return err
		}
		v++
		return patiently(ctx, d, func(tx *Tx) error { _, err := tx.Exec(ctx, "UPDATE theirs SET v = ? WHERE id = 1", v); return err })
	}
	switch what {
	case "count": // until it is killed
		for n := 0; ; n++ {
			if err := next(); err != nil {
				return err
			}
			fmt.Println(v)
			if n%20 == 19 { // the log may start anew, from nothing
				var busy, frames, moved int
				if err := d.writer.pool.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &moved); err != nil {
					return err
				}
			}
		}
	case "tear": // die when the second copy of the index's header says what was committed, but not yet the first
		index, err := os.OpenFile(path+"-shm", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		first := make([]byte, headerSum+8)
		if _, err = index.ReadAt(first, 0); err == nil {
			err = next()
		}
		if err == nil {
			_, err = index.WriteAt(first, 0)
		}
		return err
	}
	return fmt.Errorf("another process is to %s?", what)
}

// patiently writes however long others hold the database.
func patiently(ctx context.Context, d *DB, fn func(tx *Tx) error) error {
	for {
		if err := d.Write(ctx, fn); !errors.Is(err, fault.Unavailable) {
			return err
		}
	}
}

func startBeside(t *testing.T, what, path string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self)
	c.Env, c.Stderr = append(os.Environ(), otherProcess+"="+what+":"+path), os.Stderr
	return c
}

func openBeside(t *testing.T) (d *DB, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "x.db")
	d = openMemoDB(t, path)
	for _, table := range []string{"ours", "theirs"} {
		write(t, d, "CREATE TABLE "+table+" (id BIGINT PRIMARY KEY, v BIGINT)")
		write(t, d, "INSERT INTO "+table+" (id, v) VALUES (1, 0)")
	}
	return d, path
}

func theirs(ctx context.Context, d *DB) func() (int64, error) {
	return func() (v int64, err error) { return v, d.QueryRow(ctx, "SELECT v FROM theirs WHERE id = 1").Scan(&v) }
}

// keepWriting writes ours until the test is done.
func keepWriting(t *testing.T, d *DB, done *atomic.Bool) {
	ctx := t.Context()
	for !done.Load() {
		if err := patiently(ctx, d, func(tx *Tx) error { _, err := tx.Exec(ctx, "UPDATE ours SET v = v + 1"); return err }); err != nil {
			t.Error(err)
			return
		}
	}
}

// keepLooking reads theirs, remembering it, until the test is done: it must not be less than what they have said to have written.
func keepLooking(t *testing.T, d *DB, written *atomic.Int64, done *atomic.Bool) {
	ctx, m := t.Context(), NewMemo[int, int64](d, 10, "theirs")
	for !done.Load() {
		least := written.Load()
		if v, err := m.Get(d, 1, theirs(ctx, d)); err != nil || v < least {
			t.Errorf("the other one has written %d, but it is %d: %v", least, v, err)
			return
		}
	}
}

// Another process writes, truncates the log, is killed at any moment and comes again, while this one writes too: what it said to have written is never missing.
func TestMemoBesideAnotherProcess(t *testing.T) {
	const lives, least = 6, 50
	ctx := t.Context()
	d, path := openBeside(t)
	var written atomic.Int64 // by the other process, which has said so
	var done atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() { keepWriting(t, d, &done) })
	for range 2 {
		wg.Go(func() { keepLooking(t, d, &written, &done) })
	}
	live := func() error {
		c := startBeside(t, "count", path)
		out, err := c.StdoutPipe()
		if err == nil {
			err = c.Start()
		}
		if err != nil {
			return err
		}
		said := 0
		for lines := bufio.NewReader(out); ; {
			line, err := lines.ReadString('\n')
			if err != nil { // it is dead
				break
			}
			n, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
			if err != nil {
				return err
			}
			written.Store(n)
			if said++; said == least {
				_ = c.Process.Kill()
			}
		}
		if err := c.Wait(); said < least {
			return fmt.Errorf("the other process ended after it had written %d times: %w", said, err)
		}
		return nil
	}
	for range lives {
		if err := live(); err != nil {
			t.Error(err)
			break
		}
	}
	done.Store(true)
	wg.Wait()
	var sound string
	if err := d.QueryRow(ctx, "PRAGMA integrity_check").Scan(&sound); err != nil || sound != "ok" {
		t.Errorf("the database is %s: %v", sound, err)
	}
}

// Another process dies in the middle of making known what it has committed. Whoever looks next makes the index of the log anew, and finds the commit; from then on nothing older is given.
func TestMemoAfterAnIndexIsMadeAnew(t *testing.T) {
	for _, next := range []string{"read", "write"} {
		t.Run(next, func(t *testing.T) {
			ctx := t.Context()
			d, path := openBeside(t)
			m := NewMemo[int, int64](d, 10, "theirs")
			reads := 0
			get := func(want int64) {
				t.Helper()
				v, err := m.Get(d, 1, func() (int64, error) { reads++; return theirs(ctx, d)() })
				if err != nil || v != want {
					t.Fatalf("it is %d, want %d: %v", v, want, err)
				}
			}
			for n := range int64(3) {
				get(n)
				before := reads
				if get(n); reads != before {
					t.Error("nothing is remembered")
				}
				if err := startBeside(t, "tear", path).Run(); err != nil {
					t.Fatal(err)
				}
				if _, known := d.changes.stamp(nil); !known {
					t.Fatal("the first copy of the header says already what the other process has committed")
				}
				if next == "write" {
					write(t, d, "UPDATE ours SET v = v + 1")
				} else if v, err := theirs(ctx, d)(); err != nil || v != n+1 {
					t.Fatalf("a query gives %d, want %d: %v", v, n+1, err)
				}
				get(n + 1)
				write(t, d, "UPDATE ours SET v = v + 1")
			}
			get(3)
		})
	}
}

// Between the end of this process's commit and its being counted another one may commit: a commit that carries the log over into the database, as each does here, lets the
// others in while it does.
func TestCommitsOfOthersAreNotTakenForOnesOwn(t *testing.T) {
	ctx := t.Context()
	d, path := openBeside(t)
	other := openMemoDB(t, path)
	if _, err := d.writer.conn.ExecContext(ctx, "PRAGMA wal_autocheckpoint = 1"); err != nil {
		t.Fatal(err)
	}
	var written atomic.Int64 // by the other one
	var done atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() { keepWriting(t, d, &done) })
	wg.Go(func() { keepLooking(t, d, &written, &done) })
	for n := range int64(500) {
		if err := patiently(ctx, other, func(tx *Tx) error { _, err := tx.Exec(ctx, "UPDATE theirs SET v = ?", n+1); return err }); err != nil {
			t.Error(err)
			break
		}
		written.Store(n + 1)
	}
	done.Store(true)
	wg.Wait()
}
