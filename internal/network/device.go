package network

import (
	"context"
	"maps"
	"strings"

	"kilonova/internal/auth"
)

// Ports that are PCI devices: their binding:vnic_type asks for a part of a network card, which compute chooses on the server's host; binding:profile tells which one.

// IsDevice tells whether a port of the type is a PCI device that hosts can give: a virtual function in the guest (direct), one under a macvtap device (macvtap), a whole
// card (direct-physical).
func IsDevice(vnicType string) bool {
	return vnicType == "direct" || vnicType == "macvtap" || vnicType == "direct-physical"
}

// The kinds of interface (binding:vif_type) of such ports.
const (
	VIFHardware = "hw_veb"           // a virtual function
	VIFPhysical = "hostdev_physical" // a whole card
	VIFFailed   = "binding_failed"   // what the port asks for is not there
)

// Keys of binding:profile that compute writes.
const (
	ProfileSlot     = "pci_slot"           // address of the device
	ProfileVendor   = "pci_vendor_info"    // vendor:product
	ProfilePhysical = "physical_network"   // that the device is on
	ProfileMAC      = "device_mac_address" // of a whole card
)

// DeviceBinding is the PCI device that a port is on its host.
type DeviceBinding struct {
	Slot            string // 0000:0a:10.1
	Vendor          string // 8086:10ed
	PhysicalNetwork string // "": none
	MAC             string // of a whole card, which its port gets; "": the port keeps its own
}

// DeviceBinder is what compute needs of the network service for ports that are PCI devices.
type DeviceBinder interface {
	// BindDevice is Service.BindPort for a port that is a PCI device, and writes down which.
	BindDevice(ctx context.Context, c *auth.Caller, id, deviceID, deviceOwner, hostID string, d DeviceBinding) (*Port, error)
}

// Trusted tells whether a port's binding:profile asks for a trusted virtual function.
func (p *Port) Trusted() bool {
	switch v := p.Profile["trusted"].(type) {
	case bool:
		return v
	case string:
		return strings.EqualFold(v, "true") || strings.EqualFold(v, "yes") || strings.EqualFold(v, "on") || v == "1"
	}
	return false
}

// PlaceDevice writes into a port which PCI device it is; nil: none any more.
func (p *Port) PlaceDevice(d *DeviceBinding) {
	if !IsDevice(p.VNICType) {
		return
	}
	profile := maps.Clone(p.Profile)
	if profile == nil {
		profile = map[string]any{}
	}
	for _, k := range []string{ProfileSlot, ProfileVendor, ProfilePhysical, ProfileMAC} {
		delete(profile, k)
	}
	if d == nil && p.MAC != "" && p.Profile[ProfileMAC] == p.MAC {
		p.MAC = "" // it was the card's: another one is made
	}
	if d != nil {
		profile[ProfileSlot], profile[ProfileVendor], profile[ProfilePhysical] = d.Slot, d.Vendor, nil
		if d.PhysicalNetwork != "" {
			profile[ProfilePhysical] = d.PhysicalNetwork
		}
		if d.MAC != "" {
			profile[ProfileMAC], p.MAC = d.MAC, d.MAC
		}
	}
	p.Profile = profile
}
