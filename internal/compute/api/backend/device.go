package backend

import (
	"context"
	"errors"

	"kilonova/internal/compute"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/network"
)

// PortDevice gives what a port that is a PCI device asks of its host; nil: it is none that hosts have.
func (b *Backend) PortDevice(ctx context.Context, r *httpapi.Request, p *network.Port) (*compute.PortDevice, error) {
	if !network.IsDevice(p.VNICType) {
		return nil, nil //nolint:nilnil // no device
	}
	n, err := b.Network.GetNetwork(ctx, Internal(r), p.NetworkID)
	if errors.Is(err, fault.NotFound) {
		return nil, fault.Wrap(err, fault.Invalid, "Network %s could not be found.", p.NetworkID)
	}
	if err != nil {
		return nil, err
	}
	return &compute.PortDevice{PortID: p.ID, VNICType: p.VNICType, PhysicalNetwork: n.ProviderPhysical, Trusted: p.Trusted(), NUMAPolicy: p.NUMAPolicy}, nil
}

// Attachable judges whether a port of its type can be plugged into a server that is there, and gives what it asks of the host; nil: nothing.
func (b *Backend) Attachable(r *httpapi.Request, s *compute.Server, p *network.Port) (*compute.PortDevice, error) {
	if p.VNICType == "normal" || p.VNICType == "" {
		return nil, nil //nolint:nilnil // an ordinary port
	}
	d, err := b.PortDevice(r.Context(), r, p)
	if err == nil && d == nil {
		err = fault.New(fault.Invalid, "Failed to claim PCI device for %s during interface attach: no host has devices for ports of the type %s.", s.ID, p.VNICType)
	}
	return d, err
}
