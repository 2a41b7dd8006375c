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

// deviceDir is where sysfs shows PCI devices.
const deviceDir = "bus/pci/devices"

// Devices lists the PCI devices that the specifications mean, as the kernel shows them in sysfs (https://docs.kernel.org/PCI/sysfs-pci.html). sys is the
// directory /sys.
func Devices(sys fs.FS, specs []compute.DeviceSpec) ([]compute.HostDevice, error) {
	if len(specs) == 0 {
		return nil, nil
	}
	const dir = deviceDir
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
		names := interfaces(sys, dir, e.Name())
		if len(names) > 0 {
			d.MAC = read(e.Name(), path.Join("net", names[0], "address"))
		}
		if d.Parent != "" {
			names = append(names, interfaces(sys, dir, d.Parent)...)
		}
		for i := range specs {
			if !specs[i].Match(&d, names...) {
				continue
			}
			if t := specs[i].Tags(); len(t) > 0 {
				d.Tags = t
			}
			if d.Tags[compute.TagRemoteManaged] == "true" && d.Type == compute.PCIPhysical {
				return nil, fmt.Errorf("[pci] device_spec: %s has virtual functions and cannot be remote_managed: name the functions", d.Address)
			}
			out = append(out, d)
			break
		}
	}
	return out, nil
}

// interfaces gives the network interfaces of a device.
func interfaces(sys fs.FS, dir, address string) []string {
	entries, err := fs.ReadDir(sys, path.Join(dir, address, "net"))
	if err != nil {
		return nil
	}
	out := make([]string, len(entries))
	for i, e := range entries {
		out[i] = e.Name()
	}
	return out
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

// InterfaceOf gives the network interface of a PCI device.
func InterfaceOf(sys fs.FS, address string) (string, error) {
	if names := interfaces(sys, deviceDir, address); len(names) > 0 {
		return names[0], nil
	}
	return "", fmt.Errorf("PCI device %s has no network interface", address)
}

// FunctionOf gives the network interface of the card whose virtual function a PCI device is, and the function's number there.
func FunctionOf(sys fs.FS, address string) (card string, n int, err error) {
	to, err := fs.ReadLink(sys, path.Join(deviceDir, address, "physfn"))
	if err != nil {
		return "", 0, fmt.Errorf("PCI device %s is no virtual function: %w", address, err)
	}
	parent := path.Base(to)
	if card, err = InterfaceOf(sys, parent); err != nil {
		return "", 0, err
	}
	entries, err := fs.ReadDir(sys, path.Join(deviceDir, parent))
	if err != nil {
		return "", 0, err
	}
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), "virtfn")
		if !ok {
			continue
		}
		if link, err := fs.ReadLink(sys, path.Join(deviceDir, parent, e.Name())); err == nil && path.Base(link) == address {
			n, err = strconv.Atoi(number)
			return card, n, err
		}
	}
	return "", 0, fmt.Errorf("PCI device %s does not know its function %s", parent, address)
}
