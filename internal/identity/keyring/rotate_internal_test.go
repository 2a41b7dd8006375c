package keyring

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/fault"
)

func ring(t *testing.T, dir string) *Ring {
	t.Helper()
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func sealed(t *testing.T, r *Ring) string {
	t.Helper()
	s, err := r.Seal([]byte("text"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// states gives the numbers and states of the keys in dir.
func states(t *testing.T, dir string) map[int]string {
	t.Helper()
	keys, err := List(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[int]string{}
	for _, k := range keys {
		out[k.Number] = k.State
		if k.Since.IsZero() {
			t.Errorf("key %d has no time", k.Number)
		}
	}
	return out
}

// Rings that are open seal with the new primary key at once, what was sealed before is good for as long as it was said to be, and what the other ring
// seals each opens.
func TestRotate(t *testing.T) {
	dir := t.TempDir()
	rings := []*Ring{ring(t, dir), ring(t, dir)}
	var texts []string
	for n := range 4 {
		texts = append(texts, sealed(t, rings[n%2]))
		if err := Rotate(dir, time.Hour); err != nil {
			t.Fatal(err)
		}
		for i, text := range texts {
			for _, r := range rings {
				if r.Open(text) == nil {
					t.Errorf("after %d rotations text %d is lost", n+1, i)
				}
			}
		}
	}
	if diff := cmp.Diff(map[int]string{5: Primary, 4: Retired, 3: Retired, 2: Retired, 1: Retired, 0: Staged}, states(t, dir)); diff != "" {
		t.Error(diff)
	}
	before := sealed(t, rings[0])
	if err := Rotate(dir, 0); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[int]string{6: Primary, 0: Staged}, states(t, dir)); diff != "" {
		t.Error(diff)
	}
	for _, r := range rings {
		if r.Open(before) != nil {
			t.Error("a key that was dropped still opens")
		}
		for _, other := range rings {
			if other.Open(sealed(t, r)) == nil {
				t.Error("the rings have different keys")
			}
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, mode %v; want 600", e.Name(), err, info.Mode())
		}
	}
}

// A rotation that is cut off before any of its steps loses nothing, shows as it stands, and the next one ends what was begun.
func TestCutOff(t *testing.T) {
	cut := errors.New("cut off")
	for _, c := range []struct {
		step string
		want int // the primary key after the next rotation
	}{{"promote", 2}, {"stage", 2}, {"replace", 2}, {"drop", 3}} {
		t.Run(c.step, func(t *testing.T) {
			dir := t.TempDir()
			r, other := ring(t, dir), ring(t, dir)
			first := sealed(t, r)
			err := rotate(dir, time.Hour, func(step string) error {
				if step == c.step {
					return cut
				}
				return nil
			})
			if !errors.Is(err, cut) {
				t.Fatalf("%v: it was not cut off at %s", err, c.step)
			}
			second := sealed(t, r)
			for range 2 {
				if other.Open(first) == nil || other.Open(second) == nil || ring(t, dir).Open(second) == nil {
					t.Fatal("something sealed is lost")
				}
				if err := Rotate(dir, time.Hour); err != nil {
					t.Fatal(err)
				}
			}
			got := states(t, dir)
			if got[0] != Staged || got[c.want+1] != Primary || len(got) != c.want+2 {
				t.Errorf("%v, want the primary key %d and every other", got, c.want+1)
			}
			s, err := os.Lstat(filepath.Join(dir, "0"))
			if err != nil {
				t.Fatal(err)
			}
			for n := range got {
				if info, err := os.Lstat(filepath.Join(dir, strconv.Itoa(n))); err != nil || n != 0 && os.SameFile(s, info) {
					t.Errorf("key %d is the staged one: %v", n, err)
				}
			}
		})
	}
}

// A staged key that is missing is made again.
func TestNoStagedKey(t *testing.T) {
	dir := t.TempDir()
	r := ring(t, dir)
	text := sealed(t, r)
	if err := os.Remove(filepath.Join(dir, "0")); err != nil {
		t.Fatal(err)
	}
	if err := Rotate(dir, 0); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[int]string{1: Primary, 0: Staged}, states(t, dir)); diff != "" || r.Open(text) == nil {
		t.Error("the primary key was lost", diff)
	}
}

// Many that seal, open and rotate at once: nothing that was sealed is refused anywhere.
func TestRotateUnderWork(t *testing.T) {
	dir := t.TempDir()
	ring(t, dir)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			r, other := ring(t, dir), ring(t, dir)
			for {
				select {
				case <-done:
					return
				default:
				}
				if s, err := r.Seal([]byte("x")); err != nil || other.Open(s) == nil {
					t.Errorf("sealed and refused: %v", err)
					return
				}
			}
		})
	}
	rotated := 0
	for rotated < 30 {
		err := Rotate(dir, time.Hour)
		if err != nil && !errors.Is(err, fault.Conflict) {
			t.Error(err)
			break
		}
		rotated++
	}
	close(done)
	wg.Wait()
}

// Keys are dropped when what they sealed has ended, which is told from when they were replaced; leavings of a process that was killed go too.
func TestDrop(t *testing.T) {
	dir := t.TempDir()
	ring(t, dir)
	for range 2 {
		if err := Rotate(dir, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	left := filepath.Join(dir, unfinished+"1")
	if err := os.WriteFile(left, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-2 * slack)
	if err := os.Chtimes(left, long, long); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		life time.Duration
		want int
	}{{time.Hour, 4}, {-2 * slack, 2}} { // a life that ended two slacks ago is what a test can wait for
		if err := drop(dir, c.life); err != nil {
			t.Fatal(err)
		}
		if got := states(t, dir); len(got) != c.want || got[0] != Staged || got[3] != Primary {
			t.Errorf("life %s: %v, want %d keys", c.life, got, c.want)
		}
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("what was left behind is still there")
	}
}

func TestRotateDue(t *testing.T) {
	dir := t.TempDir()
	ring(t, dir)
	if done, err := RotateDue(dir, time.Hour, time.Hour); err != nil || done {
		t.Errorf("too soon: %v, %v", done, err)
	}
	if done, err := RotateDue(dir, 0, time.Hour); err != nil || !done {
		t.Errorf("due: %v, %v", done, err)
	}
	if got := states(t, dir); got[2] != Primary {
		t.Error(got)
	}
}

// Where there are no keys none are made; while another process rotates, one is told so.
func TestRefused(t *testing.T) {
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "none")} {
		if _, err := List(dir); !errors.Is(err, fault.NotFound) {
			t.Error(err)
		}
		if err := Rotate(dir, 0); !errors.Is(err, fault.NotFound) {
			t.Error(err)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	dir := t.TempDir()
	ring(t, dir)
	unlock, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := Rotate(dir, 0); !errors.Is(err, fault.Conflict) {
		t.Error(err)
	}
	unlock()
	if err := Rotate(dir, 0); err != nil {
		t.Error(err)
	}
}
