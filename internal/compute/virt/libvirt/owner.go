package libvirt

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"kilonova/internal/compute/virt"
)

// Hosts may share the instances directory. Then a guest's files are in sight of hosts that have nothing to say about them any more: the one that it left,
// or that died and came back. So a guest's directory, and the disks kept aside in it, name the host that they belong to.
const ownerMark = ".host"

// owner tells to which host a directory belongs; "" when it does not say.
func owner(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, ownerMark))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// own makes a directory that exists this host's.
func (d *Driver) own(dir string) error {
	if owner(dir) == d.c.Host {
		return nil
	}
	tmp := filepath.Join(dir, ownerMark+"."+d.c.Host)
	err := os.WriteFile(tmp, []byte(d.c.Host+"\n"), 0o600)
	if err == nil {
		err = os.Rename(tmp, filepath.Join(dir, ownerMark))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a guest without files of its own
	}
	return err
}

// others tells whether a directory belongs to another host.
func (d *Driver) others(dir string) bool {
	o := owner(dir)
	return o != "" && o != d.c.Host
}

// removeFiles removes what the host keeps of a guest, and leaves alone what belongs to another.
func (d *Driver) removeFiles(guest string) error {
	dir, kept := d.path(guest), d.path(guest, keptDir)
	switch {
	case d.others(dir) && (!exists(kept) || d.others(kept)):
		return nil
	case d.others(dir):
		return os.RemoveAll(kept)
	case !d.others(kept):
		return os.RemoveAll(dir)
	}
	// The host that the guest is going back to has its disks in kept.
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if f.Name() == keptDir || f.Name() == ownerMark {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, f.Name())); err != nil {
			return err
		}
	}
	return nil
}

// SeesDisks tells whether the files of a guest of another host are in sight.
func (d *Driver) SeesDisks(spec *virt.Spec) bool {
	return d.others(d.path(spec.ID)) && !exists(d.path(spec.ID, incomingMark)) && (spec.ImageID == "" || exists(d.path(spec.ID, rootDisk)))
}
