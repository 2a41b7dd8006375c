package local

import (
	"context"

	"kilonova/internal/auth"
	"kilonova/internal/network"
)

// BindDevice implements network.DeviceBinder.
func (s *Service) BindDevice(ctx context.Context, c *auth.Caller, portID, deviceID, deviceOwner, hostID string, d network.DeviceBinding) (*network.Port, error) {
	return s.bindPort(ctx, c, portID, deviceID, deviceOwner, hostID, &d)
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
