package host

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"kilonova/internal/compute"
)

// mediatedDir is where sysfs shows the devices that can be divided.
const mediatedDir = "class/mdev_bus"

// Mediated lists the devices that are divided as types say, with the number of parts that each can have: those that are free and those that are there
// (https://docs.kernel.org/driver-api/vfio-mediated-device.html). sys is the directory /sys.
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
