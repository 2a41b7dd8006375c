package libvirt

import (
	"context"
	"os"
	"time"

	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/libvirt/definition"
	"kilonova/internal/compute/virt/libvirt/disk"
	"kilonova/internal/fault"
)

// rescueGrace is how long a guest that is rescued while it runs may take to shut down.
const rescueGrace = 60 * time.Second

// inRescue tells whether a guest's definition is that of its rescue system.
func inRescue(x *definition.Domain) bool {
	return x != nil && x.Metadata != nil && x.Metadata.Server != nil && x.Metadata.Server.Rescue
}

// Rescue boots the guest from the rescue image, with its own root disk as second disk; or, when the rescue image says on which bus
// (hw_rescue_bus, hw_rescue_device), with all its disks where they were and the rescue disk added to boot from.
func (d *Driver) Rescue(ctx context.Context, spec *virt.Spec) error {
	if spec.Rescue == nil || spec.Rescue.BaseImage == "" {
		return fault.New(fault.Invalid, "There is no rescue image.")
	}
	f, unlock, err := d.holdThere(ctx, spec.ID)
	defer unlock()
	if err != nil {
		return err
	}
	if inRescue(f.old) && f.active() {
		return nil
	}
	size, err := disk.ImageSize(spec.Rescue.BaseImage, spec.Rescue.BaseFormat)
	if err != nil {
		return err
	}
	if _, err := definition.ParseOptions(spec); err != nil {
		return err
	}
	if !inRescue(f.old) {
		if err := d.turnOff(ctx, f, rescueGrace); err != nil {
			return err
		}
		size = (size + 511) / 512 * 512
		if err := disk.Overlay(ctx, d.path(spec.ID, rescueDisk), spec.Rescue.BaseImage, spec.Rescue.BaseFormat, size); err != nil {
			return err
		}
	}
	on := *spec
	on.Stopped = false
	return d.bringUp(ctx, &on, f)
}

// Unrescue boots the guest from its own disk again.
func (d *Driver) Unrescue(ctx context.Context, spec *virt.Spec) error {
	f, unlock, err := d.holdThere(ctx, spec.ID)
	defer unlock()
	if err != nil {
		return err
	}
	if inRescue(f.old) {
		if err := d.turnOff(ctx, f, 0); err != nil {
			return err
		}
	} else if f.active() {
		return nil
	}
	on := *spec
	on.Rescue = nil
	if err := d.bringUp(ctx, &on, f); err != nil {
		return err
	}
	os.Remove(d.path(spec.ID, rescueDisk))
	return nil
}
