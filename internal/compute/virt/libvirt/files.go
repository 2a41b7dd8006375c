package libvirt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/libvirt/disk"
	"kilonova/internal/fault"
)

// The files of a guest.
const (
	rootDisk      = "disk"
	ephemeralDisk = "disk.eph0"
	swapDisk      = "disk.swap"
	configDisk    = "disk.config"
	rescueDisk    = "disk.rescue"
	nvramFile     = "nvram.fd"
	consoleFile   = "console.log"
	keptDir       = "resize"
	incomingMark  = ".incoming" // the directory was made for a live migration that has not ended
)

const gib = 1 << 30

// path names a file of a guest. Ids have been checked by parseUUID.
func (d *Driver) path(guest string, name ...string) string {
	return filepath.Join(append([]string{d.c.InstancesDir, guest}, name...)...)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// rootSize is the size of the root disk: the flavor's, or the image's when the flavor has none.
func rootSize(spec *virt.Spec) (int64, error) {
	least, err := disk.ImageSize(spec.BaseImage, spec.BaseFormat)
	if err != nil {
		return 0, err
	}
	size := spec.RootGB * gib
	if size == 0 {
		return (least + 511) / 512 * 512, nil
	}
	if size < least {
		return 0, fault.New(fault.Invalid, "The flavor's disk of %d GB is smaller than the image's %d bytes.", spec.RootGB, least)
	}
	return size, nil
}

// prepareFiles makes the files that spec needs and that are not there, and fits those that are.
func (d *Driver) prepareFiles(ctx context.Context, spec *virt.Spec) error {
	dir := d.path(spec.ID)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("make guest directory: %w", err)
	}
	if spec.BaseImage != "" {
		if err := d.prepareRoot(ctx, spec); err != nil {
			return err
		}
	}
	if spec.EphemeralGB > 0 {
		err := disk.Raw(ctx, d.path(spec.ID, ephemeralDisk), spec.EphemeralGB*gib, "mkfs.ext4", "-q", "-F", "-L", "ephemeral0", "-E", "lazy_itable_init=1")
		if err != nil {
			return err
		}
	}
	if spec.SwapMB > 0 {
		if err := disk.Raw(ctx, d.path(spec.ID, swapDisk), spec.SwapMB<<20, "mkswap"); err != nil {
			return err
		}
	}
	return d.takeConfigDrive(spec)
}

func (d *Driver) prepareRoot(ctx context.Context, spec *virt.Spec) error {
	root := d.path(spec.ID, rootDisk)
	size, err := rootSize(spec)
	if err != nil {
		return err
	}
	if !exists(root) {
		return disk.Overlay(ctx, root, spec.BaseImage, spec.BaseFormat, size)
	}
	// The disk may come from another host, where the image was elsewhere.
	h, err := disk.ReadHeader(root)
	if err != nil {
		return err
	}
	if h.Backing != "" && h.Backing != spec.BaseImage {
		if _, err := disk.Img(ctx, "rebase", "-u", "-f", "qcow2", "-F", spec.BaseFormat, "-b", spec.BaseImage, root); err != nil {
			return fmt.Errorf("name the disk's image: %w", err)
		}
	}
	if h.Size < size {
		if _, err := disk.Img(ctx, "resize", "-q", "-f", "qcow2", root, fmt.Sprint(size)); err != nil {
			return fmt.Errorf("grow disk: %w", err)
		}
	}
	return nil
}

// hasRoot tells whether the guest has a root disk of its own, from an image. Its name alone does not say so when the agent could not fetch the
// image again.
func (d *Driver) hasRoot(spec *virt.Spec) bool {
	return spec.BaseImage != "" || exists(d.path(spec.ID, rootDisk))
}

// takeConfigDrive copies the config drive to the guest's files, so that it lives as long as they do.
func (d *Driver) takeConfigDrive(spec *virt.Spec) error {
	if spec.ConfigDrive == "" {
		return nil
	}
	to := d.path(spec.ID, configDisk)
	if spec.ConfigDrive == to {
		return nil
	}
	from, err := os.Open(spec.ConfigDrive)
	if errors.Is(err, fs.ErrNotExist) && exists(to) {
		return nil // it was taken earlier, perhaps on another host
	}
	if err != nil {
		return fmt.Errorf("config drive: %w", err)
	}
	defer from.Close()
	return disk.Write(to, from)
}
