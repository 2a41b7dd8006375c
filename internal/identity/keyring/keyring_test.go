package keyring_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"kilonova/internal/identity/keyring"
)

func open(t *testing.T, dir string) *keyring.Ring {
	t.Helper()
	r, err := keyring.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func seal(t *testing.T, r *keyring.Ring, text string) string {
	t.Helper()
	s, err := r.Seal([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSealAndOpen(t *testing.T) {
	r, other := open(t, t.TempDir()), open(t, t.TempDir())
	for _, text := range []string{"", "x", strings.Repeat("long ", 1000)} {
		s := seal(t, r, text)
		if got := r.Open(s); got == nil || string(got) != text {
			t.Errorf("%q became %q", text, got)
		}
		if got := r.Open(s + "=="); got == nil {
			t.Error("padding is refused")
		}
		if other.Open(s) != nil {
			t.Error("another ring opens it")
		}
		for _, bad := range []string{s[:len(s)-1], s + "A", "A" + s, s[:len(s)/2] + "!" + s[len(s)/2:], strings.ToUpper(s)} {
			if r.Open(bad) != nil {
				t.Errorf("opened although changed: %s", bad)
			}
		}
	}
}

// Processes that start at once on an empty directory end with the same keys.
func TestStartTogether(t *testing.T) {
	dir := t.TempDir()
	rings := make([]*keyring.Ring, 8)
	var wg sync.WaitGroup
	for i := range rings {
		wg.Go(func() { rings[i] = open(t, dir) })
	}
	wg.Wait()
	for _, a := range rings {
		for _, b := range rings {
			if b.Open(seal(t, a, "x")) == nil {
				t.Fatal("two processes have different keys")
			}
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 2 {
		t.Fatalf("files %v, error %v; want 0 and 1", files, err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v", f.Name(), info.Mode())
		}
	}
}

func TestMalformedRepository(t *testing.T) {
	if _, err := keyring.Open(""); err == nil {
		t.Error("no directory")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "1"), []byte("not a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := keyring.Open(dir); err == nil || strings.Contains(err.Error(), "not a key") {
		t.Errorf("error %v; it must be there and not show what the file holds", err)
	}
}
