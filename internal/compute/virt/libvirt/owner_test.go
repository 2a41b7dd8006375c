package libvirt

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute/virt"
)

const sharedGuest = "11111111-2222-4333-8444-555555555555"

// TestSharedFilesBelongToOneHost: what is left after a host of two that share the directory removes a guest's files.
func TestSharedFilesBelongToOneHost(t *testing.T) {
	for _, tc := range []struct {
		name, owner, keptOwner string // "-": nothing is kept aside
		left                   string
	}{
		{"its own", "one", "-", ""},
		{"nobody's", "", "-", ""},
		{"another's", "two", "-", ".host disk"},
		{"another's, with disks that it kept itself when the guest left", "two", "one", ".host disk"},
		{"another's, with disks that the other kept", "two", "two", ".host disk resize resize/.host resize/disk"},
		{"its own, with disks that it kept itself", "one", "one", ""},
		{"its own, with disks of the host that the guest goes back to", "one", "two", ".host resize resize/.host resize/disk"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := &Driver{c: Config{InstancesDir: t.TempDir(), Host: "one"}}
			dir := d.path(sharedGuest)
			write := func(dir, owner string) {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, rootDisk), []byte("disk"), 0o600); err != nil {
					t.Fatal(err)
				}
				if owner != "" {
					if err := (&Driver{c: Config{Host: owner}}).own(dir); err != nil {
						t.Fatal(err)
					}
				}
			}
			write(dir, tc.owner)
			if tc.keptOwner != "-" {
				write(filepath.Join(dir, keptDir), tc.keptOwner)
			}
			if err := d.removeFiles(sharedGuest); err != nil {
				t.Fatal(err)
			}
			var left []string
			_ = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
				if err == nil && path != dir {
					left = append(left, strings.TrimPrefix(path, dir+"/"))
				}
				return nil
			})
			if diff := cmp.Diff(tc.left, strings.Join(left, " ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSeesDisks(t *testing.T) {
	dir := t.TempDir()
	one, two := &Driver{c: Config{InstancesDir: dir, Host: "one"}}, &Driver{c: Config{InstancesDir: dir, Host: "two"}}
	s := &virt.Spec{ID: sharedGuest, ImageID: "image"}
	if two.SeesDisks(s) {
		t.Error("there is nothing yet")
	}
	if err := os.MkdirAll(one.path(s.ID), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := one.own(one.path(s.ID)); err != nil {
		t.Fatal(err)
	}
	if two.SeesDisks(s) {
		t.Error("there is no disk yet")
	}
	if err := os.WriteFile(one.path(s.ID, rootDisk), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !two.SeesDisks(s) || one.SeesDisks(s) {
		t.Errorf("seen by the other host %v, by its own %v", two.SeesDisks(s), one.SeesDisks(s))
	}
}
