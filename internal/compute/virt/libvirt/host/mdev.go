package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"kilonova/internal/compute"
	"kilonova/internal/fault"
)

// Parts of devices (https://docs.kernel.org/driver-api/vfio-mediated-device.html): the kernel makes one when its uuid is written into a file of the device and the type, and
// forgets all of them when the host is restarted. So they are made each time a guest is started.

// mediatedDir is where sysfs shows the devices that can be divided.
const mediatedDir = "class/mdev_bus"

// Mediated lists the devices that are divided as types say, with the number of parts that each can have: those that are free and those that are there.
// sys is the directory /sys.
func Mediated(sys fs.FS, types []compute.MediatedType) ([]compute.HostMediated, error) {
	if len(types) == 0 {
		return nil, nil
	}
	entries, err := fs.ReadDir(sys, mediatedDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("devices that can be divided: %w", err)
	}
	var out []compute.HostMediated
	for _, e := range entries {
		for i := range types {
			t := &types[i]
			if len(t.Addresses) > 0 && !slices.Contains(t.Addresses, e.Name()) {
				continue
			}
			dir := path.Join(mediatedDir, e.Name(), "mdev_supported_types", t.Name)
			text, err := fs.ReadFile(sys, path.Join(dir, "available_instances"))
			if errors.Is(err, fs.ErrNotExist) {
				continue // the device has no such type
			}
			free, err2 := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
			if err := errors.Join(err, err2); err != nil {
				return nil, fmt.Errorf("parts of the type %s of %s: %w", t.Name, e.Name(), err)
			}
			there, err := fs.ReadDir(sys, path.Join(dir, "devices"))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("parts of the type %s of %s: %w", t.Name, e.Name(), err)
			}
			total := free + int64(len(there))
			if t.Max > 0 {
				total = min(total, t.Max)
			}
			if total > 0 {
				out = append(out, compute.HostMediated{Address: e.Name(), Type: t.Name, Class: t.Class, Total: total})
			}
		}
	}
	return out, nil
}

// Divide makes the parts of devices that a claim has, where they are missing, and takes those away that the guest had before and is not to have any more. sys is /sys.
func Divide(sys string, c *compute.Claim, before []string) error {
	if c == nil {
		return Unite(sys, before)
	}
	gone := slices.DeleteFunc(before, func(u string) bool {
		return slices.ContainsFunc(c.Mediated, func(m compute.MediatedDevice) bool { return m.UUID == u })
	})
	if err := Unite(sys, gone); err != nil {
		return err
	}
	for _, m := range c.Mediated {
		if _, err := os.Stat(part(sys, m.UUID)); err == nil {
			continue
		}
		create := filepath.Join(sys, mediatedDir, m.Parent, "mdev_supported_types", m.Type, "create")
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

// Unite takes parts of devices away. One that is gone is as wished.
func Unite(sys string, parts []string) error {
	for _, u := range parts {
		err := os.WriteFile(filepath.Join(part(sys, u), "remove"), []byte("1"), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the part %s of a device: %w", u, err)
		}
	}
	return nil
}

// part is where the kernel shows a part of a device.
func part(sys, uuid string) string { return filepath.Join(sys, "bus/mdev/devices", uuid) }
