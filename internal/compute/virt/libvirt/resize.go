package libvirt

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/libvirt/disk"
	"kilonova/internal/fault"
)

// diskFiles are the files that make up a guest's disks.
func diskFiles() []string { return []string{rootDisk, ephemeralDisk, swapDisk, configDisk, nvramFile} }

// PrepareResize stops the guest and copies its disks aside. The copy is complete or not there.
func (d *Driver) PrepareResize(ctx context.Context, guest string, grace time.Duration) error {
	f, unlock, err := d.holdThere(ctx, guest)
	defer unlock()
	if err != nil {
		return err
	}
	kept := d.path(guest, keptDir)
	if err := d.turnOff(ctx, f, grace); err != nil || exists(kept) {
		return err
	}
	tmp := kept + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.MkdirAll(tmp, 0o711); err != nil {
		return err
	}
	for _, name := range diskFiles() {
		if from := d.path(guest, name); exists(from) {
			if err := disk.Clone(ctx, from, filepath.Join(tmp, name)); err != nil {
				return err
			}
		}
	}
	if err := d.own(tmp); err != nil {
		return err
	}
	return os.Rename(tmp, kept)
}

// FinishResize fits the disks to the new spec and starts the guest.
func (d *Driver) FinishResize(ctx context.Context, spec *virt.Spec) error {
	f, unlock, err := d.hold(ctx, spec.ID)
	defer unlock()
	if err != nil || f.active() {
		return err
	}
	root := d.path(spec.ID, rootDisk)
	if !f.there && !exists(root) && spec.BaseImage != "" {
		return fault.New(fault.NotFound, "The disks of the server %s are not on this host.", spec.ID)
	}
	if exists(root) && spec.RootGB > 0 {
		h, err := disk.ReadHeader(root)
		if err != nil {
			return err
		}
		if h.Size > spec.RootGB*gib {
			return fault.New(fault.Conflict, "The server's disk of %d bytes cannot be made smaller.", h.Size)
		}
	}
	if st, err := os.Stat(d.path(spec.ID, swapDisk)); err == nil && st.Size() != spec.SwapMB<<20 {
		os.Remove(d.path(spec.ID, swapDisk)) // swap holds nothing: it is made anew in the new size
	}
	return d.bringUp(ctx, spec, f)
}

// RevertResize puts the kept disks back and starts the guest as it was.
func (d *Driver) RevertResize(ctx context.Context, old *virt.Spec) error {
	f, unlock, err := d.hold(ctx, old.ID)
	defer unlock()
	if err != nil {
		return err
	}
	kept := d.path(old.ID, keptDir)
	if exists(kept) {
		if f.there {
			if err := d.turnOff(ctx, f, 0); err != nil {
				return err
			}
			f.power = virt.Shutdown
		}
		if err := d.putBack(old, kept); err != nil {
			return err
		}
	} else if !f.there {
		return fault.New(fault.NotFound, "The hypervisor does not know the server %s.", old.ID)
	}
	if f.active() {
		return nil
	}
	return d.bringUp(ctx, old, f)
}

// putBack moves the kept files over the new ones. It may be broken off anywhere and begun again: each file is moved in one act, and only files
// that were never kept are dropped.
func (d *Driver) putBack(old *virt.Spec, kept string) error {
	for _, name := range diskFiles() {
		if exists(filepath.Join(kept, name)) {
			if err := os.Rename(filepath.Join(kept, name), d.path(old.ID, name)); err != nil {
				return fmt.Errorf("put back %s: %w", name, err)
			}
		}
	}
	if old.EphemeralGB == 0 {
		os.Remove(d.path(old.ID, ephemeralDisk))
	}
	if old.SwapMB == 0 {
		os.Remove(d.path(old.ID, swapDisk))
	}
	return os.RemoveAll(kept)
}

// ConfirmResize removes what was kept.
func (d *Driver) ConfirmResize(ctx context.Context, guest string) error {
	unlock, err := d.guest(ctx, guest)
	if err != nil {
		return err
	}
	defer unlock()
	for _, dir := range []string{keptDir, keptDir + ".new"} {
		if err := os.RemoveAll(d.path(guest, dir)); err != nil {
			return fmt.Errorf("remove kept disks: %w", err)
		}
	}
	return nil
}

var diskName = regexp.MustCompile(`^(disk(\.[a-z0-9]+)?|nvram\.fd)$`)

// ExportDisks lists the files that a stopped guest's disks are made of.
func (d *Driver) ExportDisks(ctx context.Context, guest string) ([]string, error) {
	if _, err := parseUUID(guest); err != nil {
		return nil, err
	}
	f, err := d.look(ctx, guest)
	if err != nil {
		return nil, err
	}
	if f.there && f.active() {
		return nil, conflict("moved", f.power)
	}
	var out []string
	for _, name := range diskFiles() {
		if exists(d.path(guest, name)) {
			out = append(out, name)
		}
	}
	if len(out) == 0 && !f.there {
		return nil, fault.New(fault.NotFound, "The server %s has no disks on this host.", guest)
	}
	return out, nil
}

// OpenDisk reads one of them.
func (d *Driver) OpenDisk(_ context.Context, guest, name string) (io.ReadCloser, error) {
	if _, err := parseUUID(guest); err != nil {
		return nil, err
	}
	if !diskName.MatchString(name) {
		return nil, fault.New(fault.Invalid, "%q is no disk of a server.", name)
	}
	f, err := os.Open(d.path(guest, name))
	if err != nil {
		return nil, fault.Wrap(err, fault.NotFound, "The disk %s of the server %s is not on this host.", name, guest)
	}
	return f, nil
}

// ImportDisk writes a file of a guest that comes from another host.
func (d *Driver) ImportDisk(ctx context.Context, guest, name string, r io.Reader) error {
	unlock, err := d.guest(ctx, guest)
	if err != nil {
		return err
	}
	defer unlock()
	if !diskName.MatchString(name) {
		return fault.New(fault.Invalid, "%q is no disk of a server.", name)
	}
	f, err := d.look(ctx, guest)
	if err != nil {
		return err
	}
	if f.there && f.active() {
		return conflict("given other disks", f.power)
	}
	if err := os.MkdirAll(d.path(guest), 0o711); err != nil {
		return err
	}
	return disk.Write(d.path(guest, name), disk.CancelReader{Context: ctx, Reader: r})
}
