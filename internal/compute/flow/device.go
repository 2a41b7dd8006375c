package flow

import (
	"context"
	"encoding/json"
	"slices"

	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/store"
	"kilonova/internal/compute/virt"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/network"
	"kilonova/internal/operation"
)

// Ports that are PCI devices: the claim of a server's host says which device each is, and the port is told of it when it is bound.

// bindOne binds a port of the server on a place; kind is its binding:vnic_type, "" that of ordinary ports.
func (f *flows) bindOne(ctx context.Context, r *operation.Run, server, port, kind string, p Place) error {
	if !network.IsDevice(kind) || p.Host == "" {
		_, err := f.Network.BindPort(ctx, caller(r), port, server, portOwner(p.Zone), p.Host)
		return err
	}
	binder, ok := f.Network.(network.DeviceBinder)
	if !ok {
		return fault.New(fault.NotImplemented, "The network service cannot bind ports of the type %s.", kind)
	}
	if p.Claim == nil || p.Claim.Ports[port] == "" {
		return fault.New(fault.Internal, "No PCI device of host %s is claimed for port %s.", p.Host, port)
	}
	d, err := f.hostDevice(ctx, p.Host, p.Claim.Ports[port])
	if err != nil {
		return err
	}
	b := network.DeviceBinding{Slot: d.Address, Vendor: d.VendorID + ":" + d.ProductID}
	if on := d.Tags[compute.TagPhysicalNetwork]; on != compute.NoPhysicalNetwork {
		b.PhysicalNetwork = on
	}
	if kind == "direct-physical" {
		b.MAC = d.MAC
	}
	_, err = binder.BindDevice(ctx, caller(r), port, server, portOwner(p.Zone), p.Host, b)
	return err
}

// hostDevice gives a PCI device of a host as the host reported it.
func (f *flows) hostDevice(ctx context.Context, host, address string) (*compute.HostDevice, error) {
	h, err := f.Store.Host(ctx, f.Store.DB, host)
	if err != nil {
		return nil, err
	}
	var info virt.HostInfo
	if err := json.Unmarshal(h.Info, &info); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(info.PCI, func(d compute.HostDevice) bool { return d.Address == address })
	if i < 0 {
		return nil, fault.New(fault.Conflict, "Host %s has no PCI device %s any more.", host, address)
	}
	return &info.PCI[i], nil
}

// bound refuses interfaces that the network service could not bind to the host.
func bound(vifs []network.VIF) error {
	for _, v := range vifs {
		if v.Type == network.VIFFailed {
			return fault.New(fault.Internal, "Binding failed for port %s of the type %s, please check the network service's log for more information.", v.PortID, v.VNICType).
				WithHint("Ports of that type need a network on a physical one, and a host with devices for it.")
		}
	}
	return nil
}

// moveDevices binds the ports that are PCI devices to those that the server holds on a place: for moves that stay on the host.
func (f *flows) moveDevices(ctx context.Context, r *operation.Run, s *compute.Server, p Place) error {
	for _, v := range compute.DevicesOf(s.VIFs) {
		if err := f.bindOne(ctx, r, s.ID, v.PortID, v.VNICType, p); gone(err) != nil {
			return err
		}
	}
	return nil
}

// movable tells whether a running guest may leave its host with what it holds there: the devices of its flavor must be such that can be moved with it; those that are ports are
// unplugged before and plugged in again after.
func (f *flows) movable(ctx context.Context, s *compute.Server) error {
	c := s.Claim()
	if c == nil {
		return nil
	}
	if err := c.StaysWhileRunning(s.ID); err != nil {
		return err
	}
	for _, address := range c.Devices {
		d, err := f.hostDevice(ctx, s.Host, address)
		if err != nil {
			return err
		}
		if d.Tags[compute.TagLiveMigratable] != "true" {
			return fault.New(fault.Invalid, "Instance %s has PCI devices of its host that are not live_migratable: it cannot leave it while it runs. Stop it and migrate it then.", s.ID)
		}
	}
	return nil
}

// unplugDevices takes the ports that are PCI devices out of a guest that is about to leave its host.
func (f *flows) unplugDevices(ctx context.Context, r *operation.Run, s *compute.Server, host string) error {
	sp := SpecOf(s)
	sp.VIFs = compute.WithoutDevices(sp.VIFs)
	for _, v := range compute.DevicesOf(s.VIFs) {
		if err := f.send(ctx, r, host, command.DetachInterface, "/"+v.PortID, command.InterfaceArgs{Spec: sp, VIF: v}, nil); gone(err) != nil {
			return err
		}
	}
	return nil
}

// plugDevices plugs the ports that are PCI devices into a guest that has arrived, or that stays after all; the suffix tells the commands of a step and of its undo apart.
func (f *flows) plugDevices(ctx context.Context, r *operation.Run, s *compute.Server, p Place, suffix string) error {
	sp := SpecOf(s)
	sp.Claim = p.Claim
	for _, v := range compute.DevicesOf(s.VIFs) {
		err := f.send(ctx, r, p.Host, command.AttachInterface, "/"+v.PortID+suffix, command.InterfaceArgs{Spec: sp, VIF: v}, nil)
		if f.silent(ctx, p.Host, err) {
			return nil // the guest is gone with its host; its next start has them
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// dropDevice lets go of the device of a server's port, in the transaction that writes the server.
func (f *flows) dropDevice(ctx context.Context, tx *db.Tx, s *compute.Server, port string) error {
	held, err := f.Store.ClaimOf(ctx, tx, s.ID)
	if err != nil || held == nil || held.Claim.Ports[port] == "" {
		return err
	}
	delete(held.Claim.Ports, port)
	if held.Claim.Empty() {
		s.SetClaim(nil)
		return f.Store.DropClaims(ctx, tx, s.ID)
	}
	s.SetClaim(&held.Claim)
	return f.Store.PutClaim(ctx, tx, store.HostClaim{Consumer: s.ID, ServerID: s.ID, Host: held.Host, Claim: held.Claim})
}
