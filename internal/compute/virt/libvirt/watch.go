package libvirt

import (
	"context"
	"errors"

	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/libvirt/rpc"
	"kilonova/internal/fault"
)

// Watch tells of changes until ctx ends. After each (re)connection it calls f with a zero GuestState: look at everything.
func (d *Driver) Watch(ctx context.Context, f func(virt.GuestState)) error {
	events := d.rpc.Subscribe()
	defer events.Close()
	for {
		e, err := events.Next(ctx)
		if err != nil {
			return err
		}
		switch e.Kind {
		case rpc.Resync:
			f(virt.GuestState{})
		case rpc.Lifecycle:
			if e.What == rpc.Defined || e.What == rpc.Undefined {
				continue
			}
			mine, err := d.isOurs(ctx, e.Domain)
			if err != nil || !mine {
				continue // it is gone, or it is not ours
			}
			// What the domain is now counts, not what it was when the event was sent.
			p, err := d.powerOf(ctx, e.Domain)
			if errors.Is(err, fault.NotFound) {
				continue
			}
			if err != nil {
				f(virt.GuestState{}) // the connection is lost; whoever hears this looks again
				continue
			}
			f(virt.GuestState{ID: e.Domain.UUID.String(), Name: e.Domain.Name, Power: p})
		}
	}
}
