package host

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"kilonova/internal/compute"
)

// Devices lists the PCI devices that the specifications mean, as the kernel shows them in sysfs (https://docs.kernel.org/PCI/sysfs-pci.html). sys is the
// directory /sys.
func Devices(sys fs.FS, specs []compute.DeviceSpec) ([]compute.HostDevice, error) {
	if len(specs) == 0 {
		return nil, nil
	}
	const dir = "bus/pci/devices"
	entries, err := fs.ReadDir(sys, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a host without PCI
	}
	if err != nil {
		return nil, fmt.Errorf("PCI devices: %w", err)
	}
	read := func(address, file string) string {
		b, err := fs.ReadFile(sys, path.Join(dir, address, file))
		if err != nil {
			return ""
		}
		return strings.TrimPrefix(strings.TrimSpace(string(b)), "0x")
	}
	parents := parentsOf(sys, dir, entries)
	var out []compute.HostDevice
	for _, e := range entries {
		d := compute.HostDevice{Address: e.Name(), VendorID: read(e.Name(), "vendor"), ProductID: read(e.Name(), "device"), Type: compute.PCIWhole, Node: -1, Parent: parents[e.Name()]}
		if n, err := strconv.Atoi(read(e.Name(), "numa_node")); err == nil && n >= 0 {
			d.Node = n
		}
		switch {
		case d.Parent != "":
			d.Type = compute.PCIVirtual
		case read(e.Name(), "sriov_totalvfs") != "" && read(e.Name(), "sriov_totalvfs") != "0":
			d.Type = compute.PCIPhysical
		}
		nic := ""
		if names, err := fs.ReadDir(sys, path.Join(dir, e.Name(), "net")); err == nil && len(names) > 0 {
			nic = names[0].Name()
		}
		for i := range specs {
			if specs[i].Match(&d, nic) {
				if t := specs[i].Tags(); len(t) > 0 {
					d.Tags = t
				}
				out = append(out, d)
				break
			}
		}
	}
	return out, nil
}

// parentsOf finds the device of each virtual function: it has links virtfn0, virtfn1 … to them.
func parentsOf(sys fs.FS, dir string, entries []fs.DirEntry) map[string]string {
	out := map[string]string{}
	for _, e := range entries {
		inside, err := fs.ReadDir(sys, path.Join(dir, e.Name()))
		if err != nil {
			continue
		}
		for _, f := range inside {
			if !strings.HasPrefix(f.Name(), "virtfn") {
				continue
			}
			if to, err := fs.ReadLink(sys, path.Join(dir, e.Name(), f.Name())); err == nil {
				out[path.Base(to)] = e.Name()
			}
		}
	}
	return out
}
