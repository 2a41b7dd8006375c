package local

import (
	"context"
	"maps"

	"kilonova/internal/auth"
	"kilonova/internal/network"
)

// BindDevice implements network.DeviceBinder.
func (s *Service) BindDevice(ctx context.Context, c *auth.Caller, portID, deviceID, deviceOwner, hostID string, d network.DeviceBinding) (*network.Port, error) {
	return s.bindPort(ctx, c, portID, deviceID, deviceOwner, hostID, &d)
}

// placeDevice writes into a port which PCI device it is; nil: none any more.
func placeDevice(p *network.Port, d *network.DeviceBinding) {
	if !network.IsDevice(p.VNICType) {
		return
	}
	profile := maps.Clone(p.Profile)
	if profile == nil {
		profile = map[string]any{}
	}
	for _, k := range []string{network.ProfileSlot, network.ProfileVendor, network.ProfilePhysical, network.ProfileMAC} {
		delete(profile, k)
	}
	if d == nil && p.MAC != "" && p.Profile[network.ProfileMAC] == p.MAC {
		p.MAC = "" // it was the card's: another one is made
	}
	if d != nil {
		profile[network.ProfileSlot], profile[network.ProfileVendor], profile[network.ProfilePhysical] = d.Slot, d.Vendor, nil
		if d.PhysicalNetwork != "" {
			profile[network.ProfilePhysical] = d.PhysicalNetwork
		}
		if d.MAC != "" {
			profile[network.ProfileMAC], p.MAC = d.MAC, d.MAC
		}
	}
	p.Profile = profile
}

// bindDevice derives the kind of interface of a port that is a PCI device: it is there when compute has chosen the device, on a network that lies on a physical one. Nothing is
// left to wire then.
func (c *Change) bindDevice(p *network.Port) error {
	kind, err := c.deviceKind(p.NetworkID, p.VNICType, p.Profile)
	if err != nil {
		return err
	}
	if p.VIFType = kind; kind != network.VIFFailed && p.DeviceID != "" && p.Status == "DOWN" {
		p.Status = "ACTIVE"
	}
	return nil
}

func (c *Change) deviceKind(networkID, vnicType string, profile map[string]any) (string, error) {
	n, err := c.networks.Get(c.ctx, c.tx, networkID)
	if err != nil {
		return "", err
	}
	slot, _ := profile[network.ProfileSlot].(string)
	switch {
	case slot == "" || n.ProviderPhysical == "":
		return network.VIFFailed, nil
	case vnicType == "direct-physical":
		return network.VIFPhysical, nil
	}
	return network.VIFHardware, nil
}

// device completes the interface of a port that is no ordinary one.
func (a *around) device(v *network.VIF, p *network.Port) {
	v.VNICType, v.NUMAPolicy, v.Type = p.VNICType, p.NUMAPolicy, p.VIFType
	v.Trusted = p.Trusted()
	if network.IsDevice(p.VNICType) {
		v.Bridge, v.Tap = "", ""
	}
	n := a.networks[p.NetworkID]
	if n == nil {
		return
	}
	v.PhysicalNetwork = n.ProviderPhysical
	if n.ProviderType == "vlan" && n.SegmentationID != nil {
		v.VLAN = *n.SegmentationID
	}
}
