package app

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/config"
	"kilonova/internal/id"
)

// The hosts of a process keep their uuids over restarts, also those that have them in files; no two have the same, and no two processes'.
func TestNodeIDsStay(t *testing.T) {
	ids := func(dir string) []string {
		t.Helper()
		cfg := &config.Config{}
		cfg.Default.StateDir, cfg.Compute.Host = dir, "vm"
		out, err := (&App{cfg: cfg}).nodeIDs(fake.NewHosts(fake.Config{}, "vm-1", "vm-2", "vm-3"))
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	dir, kept := t.TempDir(), id.UUID()
	if err := os.MkdirAll(filepath.Join(dir, "nodes"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "nodes", "vm-2"), []byte(kept+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	first, again, other := ids(dir), ids(dir), ids(t.TempDir())
	if !slices.Equal(first, again) || first[1] != kept {
		t.Fatalf("%v, then %v; in the file is %s", first, again, kept)
	}
	all := slices.Concat(first, other)
	slices.Sort(all)
	if n := len(slices.Compact(all)); n != 6 {
		t.Fatalf("%d different ones of 6: %v", n, all)
	}
}
