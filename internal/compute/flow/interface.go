package flow

import (
	"context"
	"errors"
	"slices"

	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/network"
	"kilonova/internal/operation"
)

// attachInterface gives a server one more interface: a port is made or bound, then plugged into the guest.
func (f *flows) attachInterface() operation.Flow {
	return operation.Flow{
		Kind: compute.OpAttachNIC,
		Steps: []operation.Step{
			{Name: "port", Do: f.attachPort, Commit: f.attachVIF, Undo: f.attachRemove},
			{Name: "plug", Event: "compute_attach_interface", Do: f.attachPlug, Undo: f.attachUnplug},
		},
		Undone: f.keepFault,
	}
}

func nicOf(r *operation.Run) (in compute.NICInput, port string, err error) {
	if err = r.Bind(&in); err != nil {
		return in, "", err
	}
	switch {
	case in.PortID != "":
		port = in.PortID
	case in.NewPortID != "":
		port = in.NewPortID
	default:
		port = id.Derived(r.ID, "port")
	}
	return in, port, nil
}

func (f *flows) attachPort(ctx context.Context, r *operation.Run) error {
	in, port, err := nicOf(r)
	if err != nil {
		return err
	}
	s, err := f.server(ctx, r)
	if err != nil {
		return err
	}
	place := originOf(s).Place
	if in.Device != nil {
		if place.Claim, err = f.Placer.TakePort(ctx, s, *in.Device); err != nil {
			return err
		}
		r.Set(varPlace, place)
	}
	if err := f.plugOne(ctx, r, s, place, port, in.NICRequest, nil); err != nil {
		return err
	}
	vifs, err := f.Network.VIFs(ctx, port)
	if err != nil {
		return err
	}
	if len(vifs) != 1 {
		return fault.New(fault.NotFound, "Port %s could not be found.", port)
	}
	vifs[0].Tag, vifs[0].Created = in.Tag, in.PortID == ""
	r.Set(varVIFs, vifs)
	return bound(vifs)
}

// without gives the interfaces without that of a port.
func without(vifs []network.VIF, port string) []network.VIF {
	return slices.DeleteFunc(slices.Clone(vifs), func(v network.VIF) bool { return v.PortID == port })
}

func (f *flows) attachVIF(ctx context.Context, tx *db.Tx, r *operation.Run) error {
	v, place := vifsOf(r), placeOf(r)
	return f.update(ctx, tx, r, func(s *compute.Server) {
		s.VIFs = append(without(s.VIFs, v[0].PortID), v...)
		if place.Claim != nil {
			s.SetClaim(place.Claim)
		}
	})
}

func (f *flows) attachRemove(ctx context.Context, r *operation.Run) error {
	in, port, err := nicOf(r)
	if err != nil {
		return err
	}
	if err := f.unplugOne(ctx, r, port, in.PortID == ""); err != nil {
		return err
	}
	return f.Store.DB.Write(ctx, func(tx *db.Tx) error {
		return f.lose(ctx, tx, r, port, in.Device != nil)
	})
}

// lose takes an interface out of the server's record, and lets go of its device if it is one.
func (f *flows) lose(ctx context.Context, tx *db.Tx, r *operation.Run, port string, device bool) error {
	var failed error
	err := f.update(ctx, tx, r, func(s *compute.Server) {
		device = device || slices.ContainsFunc(s.VIFs, func(v network.VIF) bool { return v.PortID == port && network.IsDevice(v.VNICType) })
		s.VIFs = without(s.VIFs, port)
		if device {
			failed = f.dropDevice(ctx, tx, s, port)
		}
	})
	return errors.Join(gone(err), failed)
}

func (f *flows) attachPlug(ctx context.Context, r *operation.Run) error {
	s, err := f.server(ctx, r)
	if err != nil {
		return err
	}
	return f.ask(ctx, r, s.Host, command.AttachInterface, command.InterfaceArgs{Spec: SpecOf(s), VIF: vifsOf(r)[0]}, nil)
}

func (f *flows) attachUnplug(ctx context.Context, r *operation.Run) error {
	s, err := f.Store.ServerAny(ctx, f.Store.DB, r.Object)
	vifs := vifsOf(r)
	if err != nil || len(vifs) == 0 {
		return gone(err)
	}
	sp := SpecOf(s)
	sp.VIFs = without(sp.VIFs, vifs[0].PortID)
	return gone(f.undoOn(ctx, r, s.Host, command.DetachInterface, command.InterfaceArgs{Spec: sp, VIF: vifs[0]}, "attaching an interface was undone while the host was down"))
}

// detachInterface takes an interface away from a server; its port is deleted when it was made for the server, else unbound.
func (f *flows) detachInterface() operation.Flow {
	return operation.Flow{
		Kind: compute.OpDetachNIC,
		Steps: []operation.Step{
			{Name: "unplug", Event: "compute_detach_interface", NoReturn: true, Do: f.detachUnplug},
			{Name: "port", Retries: 60, Do: f.detachPort, Commit: f.detachVIF},
		},
		Undone: f.keepFault,
	}
}

func (f *flows) detachUnplug(ctx context.Context, r *operation.Run) error {
	_, port, err := nicOf(r)
	if err != nil {
		return err
	}
	s, err := f.server(ctx, r)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(s.VIFs, func(v network.VIF) bool { return v.PortID == port })
	if i < 0 {
		return fault.New(fault.NotFound, "Port %s is not attached to instance %s.", port, s.ID)
	}
	sp := SpecOf(s)
	sp.VIFs = without(sp.VIFs, port)
	return gone(f.ask(ctx, r, s.Host, command.DetachInterface, command.InterfaceArgs{Spec: sp, VIF: s.VIFs[i]}, nil))
}

func (f *flows) detachPort(ctx context.Context, r *operation.Run) error {
	_, port, err := nicOf(r)
	if err != nil {
		return err
	}
	s, err := f.server(ctx, r)
	if err != nil {
		return err
	}
	for _, v := range s.VIFs {
		if v.PortID == port {
			return f.unplugOne(ctx, r, port, v.Created)
		}
	}
	return nil
}

func (f *flows) detachVIF(ctx context.Context, tx *db.Tx, r *operation.Run) error {
	_, port, err := nicOf(r)
	if err != nil {
		return err
	}
	return f.lose(ctx, tx, r, port, false)
}
