package libvirt

import (
	"cmp"
	"context"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/libvirt/definition"
	"kilonova/internal/compute/virt/libvirt/host"
	"kilonova/internal/fault"
	"kilonova/internal/network"
)

// Ports that are PCI devices: which device a port is stands in the guest's claim.

// slot gives the device of a port.
func slot(spec *virt.Spec, v network.VIF) (string, error) {
	if spec.Claim == nil || definition.Address(spec.Claim.Ports[v.PortID]) == nil {
		return "", fault.New(fault.Conflict, "The port %s has no PCI device of this host.", v.PortID)
	}
	return spec.Claim.Ports[v.PortID], nil
}

// buildDevicePort plugs a port into a definition: a virtual function, a macvtap device over one, or a whole card.
func (d *Driver) buildDevicePort(dev *definition.Devices, spec *virt.Spec, v network.VIF) error {
	address, err := slot(spec, v)
	if err != nil {
		return err
	}
	if v.VNICType == "direct-physical" {
		h := definition.Device(address, spec.Claim)
		h.Alias = interfaceAlias(v)
		dev.HostDevs = append(dev.HostDevs, *h)
		return nil
	}
	if _, err := net.ParseMAC(v.MAC); err != nil {
		return fault.Wrap(err, fault.Invalid, "The port %s has the impossible MAC address %q.", v.PortID, v.MAC)
	}
	i := definition.DeviceInterface(address, spec.Claim)
	if v.VNICType == "macvtap" {
		name, err := host.InterfaceOf(os.DirFS(d.sys()), address)
		if err != nil {
			return fault.Wrap(err, fault.Conflict, "The PCI device %s of the port %s has no network interface on the host: its driver is not loaded, or the device is with a guest.", address, v.PortID)
		}
		i = &definition.Interface{Type: "direct", Source: definition.InterfaceSource{Dev: name, Mode: "passthrough"},
			Model: &definition.InterfaceModel{Type: cmp.Or(v.Model, "virtio")}}
	}
	i.MAC, i.Alias = definition.MAC{Address: v.MAC}, interfaceAlias(v)
	if v.VLAN > 0 {
		i.VLAN = &definition.VLAN{Tags: []definition.VLANTag{{ID: v.VLAN}}}
	}
	dev.Interfaces = append(dev.Interfaces, *i)
	return nil
}

// portXML is the element of a port.
func (d *Driver) portXML(spec *virt.Spec, v network.VIF, o *definition.Options) (string, error) {
	if !network.IsDevice(v.VNICType) {
		i, err := buildInterface(spec, v, o)
		if err != nil {
			return "", err
		}
		return definition.Encode(i)
	}
	var dev definition.Devices
	if err := d.buildDevicePort(&dev, spec, v); err != nil {
		return "", err
	}
	if len(dev.HostDevs) > 0 {
		return definition.Encode(dev.HostDevs[0])
	}
	return definition.Encode(dev.Interfaces[0])
}

// sys is where the kernel shows devices.
func (d *Driver) sys() string { return cmp.Or(d.c.Sys, "/sys") }

// trustPorts sets the trusted mode of the virtual functions of ports that ask for it: only the owner of the card can. The operator said by the tag trusted which may have it.
func (d *Driver) trustPorts(ctx context.Context, spec *virt.Spec, ports ...network.VIF) error {
	for _, v := range ports {
		if !v.Trusted || v.VNICType != "direct" && v.VNICType != "macvtap" {
			continue
		}
		address, err := slot(spec, v)
		if err != nil {
			return err
		}
		card, n, err := host.FunctionOf(os.DirFS(d.sys()), address)
		if err != nil {
			return fault.Wrap(err, fault.Conflict, "The PCI device %s of the port %s is no virtual function of a network card of this host: it cannot be trusted.", address, v.PortID)
		}
		out, err := exec.CommandContext(ctx, "ip", "link", "set", "dev", card, "vf", strconv.Itoa(n), "trust", "on").CombinedOutput()
		if err != nil {
			return fault.Wrap(err, fault.Internal, "The virtual function %d of %s cannot be trusted: %s", n, card, strings.TrimSpace(string(out)))
		}
	}
	return nil
}
