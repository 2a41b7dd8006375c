package libvirt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/libvirt/definition"
	"kilonova/internal/fault"
)

// Parts of devices (https://docs.kernel.org/driver-api/vfio-mediated-device.html): the kernel makes one when its uuid is written into a file of the device and the type, and
// forgets all of them when the host is restarted. So they are made each time a guest is started.

// divide makes the parts of devices that the guest is to have, where they are missing, and takes those away that it had before and is not to have any more.
func (d *Driver) divide(spec *virt.Spec, old *definition.Domain) error {
	var want []string
	if spec.Claim != nil {
		for _, m := range spec.Claim.Mediated {
			want = append(want, m.UUID)
		}
	}
	if old != nil {
		gone := slices.DeleteFunc(old.Mediated(), func(u string) bool { return slices.Contains(want, u) })
		if err := d.unite(gone...); err != nil {
			return err
		}
	}
	if len(want) == 0 {
		return nil
	}
	for _, m := range spec.Claim.Mediated {
		if exists(d.part(m.UUID)) {
			continue
		}
		create := filepath.Join(d.sys(), "class/mdev_bus", m.Parent, "mdev_supported_types", m.Type, "create")
		err := os.WriteFile(create, []byte(m.UUID), 0)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fault.Wrap(err, fault.Conflict, "The device %s of the host cannot be divided into %s.", m.Parent, m.Type).WithHint("Look at [devices] enabled_mdev_types and at the device's driver.")
		case err != nil:
			return fmt.Errorf("make a part %s of the device %s: %w", m.Type, m.Parent, err)
		}
	}
	return nil
}

// unite takes parts of devices away. One that is gone is as wished.
func (d *Driver) unite(parts ...string) error {
	for _, u := range parts {
		err := os.WriteFile(filepath.Join(d.part(u), "remove"), []byte("1"), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the part %s of a device: %w", u, err)
		}
	}
	return nil
}

// part is where the kernel shows a part of a device.
func (d *Driver) part(uuid string) string { return filepath.Join(d.sys(), "bus/mdev/devices", uuid) }
