package libvirt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/libvirt/definition"
	"kilonova/internal/compute/virt/libvirt/host"
	"kilonova/internal/compute/virt/libvirt/rpc"
	"kilonova/internal/fault"
)

// pressEvery is how often a guest is asked again to shut down: one that is still booting may have missed the button.
const pressEvery = 5 * time.Second

// clashTries is how often a guest is started anew when another program on the host was quicker to take a port of its consoles.
const clashTries = 5

// found is a guest's domain with its state and definition; there is false for a guest that has none.
type found struct {
	there bool
	dom   rpc.Domain
	power virt.PowerState
	old   *definition.Domain
}

// look finds out how things are before anything is done.
func (d *Driver) look(ctx context.Context, guest string) (f found, err error) {
	f.dom, err = d.domain(ctx, guest)
	if errors.Is(err, fault.NotFound) && rpc.HasCode(err, rpc.NoDomain) {
		return f, nil
	}
	if err != nil {
		return f, err
	}
	f.there = true
	if f.power, err = d.powerOf(ctx, f.dom); err != nil {
		return f, err
	}
	if f.power == virt.Running {
		if err := d.arrived(guest); err != nil {
			return f, err
		}
	}
	f.old, err = d.definition(ctx, f.dom, rpc.XMLInactive)
	return f, err
}

// arrived takes the mark off a guest that runs: its files are no longer those of a migration that may have to be rolled back. They are this host's.
func (d *Driver) arrived(guest string) error {
	os.Remove(d.path(guest, incomingMark))
	return d.own(d.path(guest))
}

// must is look for guests that have to be there.
func (d *Driver) must(ctx context.Context, guest string) (found, error) {
	f, err := d.look(ctx, guest)
	if err == nil && !f.there {
		err = fault.New(fault.NotFound, "The hypervisor does not know the server %s.", guest)
	}
	return f, err
}

// hold takes the guest's lock and looks at it; the function it gives, which is never nil, releases the lock.
func (d *Driver) hold(ctx context.Context, guest string) (found, func(), error) {
	unlock, err := d.guest(ctx, guest)
	if err != nil {
		return found{}, func() {}, err
	}
	f, err := d.look(ctx, guest)
	return f, unlock, err
}

// holdThere is hold for guests that have to be there.
func (d *Driver) holdThere(ctx context.Context, guest string) (found, func(), error) {
	unlock, err := d.guest(ctx, guest)
	if err != nil {
		return found{}, func() {}, err
	}
	f, err := d.must(ctx, guest)
	return f, unlock, err
}

func (f found) active() bool { return f.power == virt.Running || f.power == virt.Paused }

// Spawn makes disks and definition and starts the guest. What is there already is kept.
func (d *Driver) Spawn(ctx context.Context, spec *virt.Spec) error {
	f, unlock, err := d.hold(ctx, spec.ID)
	defer unlock()
	if err != nil {
		return err
	}
	if f.there && (f.active() || f.power == virt.Suspended) {
		return nil
	}
	return d.bringUp(ctx, spec, f)
}

// bringUp prepares files and definition and starts the guest unless it is to stay off.
func (d *Driver) bringUp(ctx context.Context, spec *virt.Spec, f found) error {
	if _, err := definition.ParseOptions(spec); err != nil {
		return err
	}
	if err := d.prepareFiles(ctx, spec); err != nil {
		return err
	}
	os.Remove(d.departed(spec.ID))
	if err := d.arrived(spec.ID); err != nil {
		return err
	}
	return d.start(ctx, spec, f)
}

// start defines the guest and starts it. A serial console's port that somebody took meanwhile is chosen anew.
func (d *Driver) start(ctx context.Context, spec *virt.Spec, f found) error {
	if err := d.defineSecrets(ctx, spec); err != nil {
		return err
	}
	if err := d.trustPorts(ctx, spec, spec.VIFs...); err != nil {
		return err
	}
	if err := host.Divide(d.sys(), spec.Claim, f.old.Mediated()); err != nil {
		return err
	}
	d.trimConsole(spec.ID)
	for try := 1; ; try++ {
		dom, err := d.define(ctx, spec, f.old)
		if err != nil {
			return err
		}
		if spec.Stopped {
			return nil
		}
		if _, err = d.rpc.Create(ctx, dom, 0); err == nil {
			return nil
		}
		if on, err2 := d.rpc.IsActive(context.WithoutCancel(ctx), dom); err2 == nil && on {
			return nil
		}
		text, err2 := d.rpc.XML(ctx, dom, rpc.XMLInactive)
		if try == clashTries || err2 != nil || (!inUse(err) && !vanished(err, try) && !d.portClash(text)) {
			return d.explain(spec, err)
		}
		f.old = nil
	}
}

// explain finds the reason for a guest that does not start which libvirt words for experts only.
func (d *Driver) explain(spec *virt.Spec, err error) error {
	for _, v := range spec.VIFs {
		if v.Bridge != "" && !exists("/sys/class/net/"+v.Bridge) {
			return fault.Wrap(err, fault.Conflict, "The bridge %s of the port %s is not on the host.", v.Bridge, v.PortID)
		}
	}
	return fmt.Errorf("start %s: %w", spec.Name, err)
}

// Destroy stops the guest and removes what libvirt and the host keep of it.
func (d *Driver) Destroy(ctx context.Context, guest string, keepDisks bool) error {
	f, unlock, err := d.hold(ctx, guest)
	defer unlock()
	if err != nil {
		return err
	}
	if f.there {
		if err := d.remove(ctx, f.dom); err != nil {
			return err
		}
		if err := host.Unite(d.sys(), f.old.Mediated()); err != nil {
			return err
		}
	}
	if keepDisks {
		return nil
	}
	if err := d.removeSecrets(ctx, f.old); err != nil {
		return err
	}
	os.Remove(d.departed(guest))
	if err := d.removeFiles(guest); err != nil {
		return fmt.Errorf("remove the guest's files: %w", err)
	}
	return nil
}

// remove stops and undefines a domain.
func (d *Driver) remove(ctx context.Context, dom rpc.Domain) error {
	if err := d.stop(ctx, dom); err != nil && !errors.Is(err, fault.NotFound) {
		return err
	}
	persistent, err := d.rpc.IsPersistent(ctx, dom)
	if errors.Is(err, fault.NotFound) || (err == nil && !persistent) {
		return nil
	}
	if err != nil {
		return err
	}
	err = d.rpc.Undefine(ctx, dom, rpc.UndefineManagedSave|rpc.UndefineSnapshotsMetadata|rpc.UndefineNVRAM|rpc.UndefineCheckpointsMetadata)
	if err != nil && !errors.Is(err, fault.NotFound) {
		return fmt.Errorf("undefine %s: %w", dom.Name, err)
	}
	return nil
}

// stop pulls the plug. A domain that is off already is as wished.
func (d *Driver) stop(ctx context.Context, dom rpc.Domain) error {
	err := d.rpc.Destroy(ctx, dom, 0)
	if err == nil {
		return nil
	}
	if on, err2 := d.rpc.IsActive(ctx, dom); err2 == nil && !on {
		return nil
	}
	return fmt.Errorf("stop %s: %w", dom.Name, err)
}

// PowerOn starts a stopped guest with a definition built anew; a suspended one goes on with its memory.
func (d *Driver) PowerOn(ctx context.Context, spec *virt.Spec) error {
	f, unlock, err := d.holdThere(ctx, spec.ID)
	defer unlock()
	if err != nil || f.active() {
		return err
	}
	if f.power == virt.Suspended {
		return d.wake(ctx, spec, f)
	}
	on := *spec
	on.Stopped = false
	return d.bringUp(ctx, &on, f)
}

// PowerOff asks the guest to shut down and stops it when it has not after grace.
func (d *Driver) PowerOff(ctx context.Context, guest string, grace time.Duration) error {
	f, unlock, err := d.holdThere(ctx, guest)
	defer unlock()
	if err != nil {
		return err
	}
	return d.turnOff(ctx, f, grace)
}

func (d *Driver) turnOff(ctx context.Context, f found, grace time.Duration) error {
	switch f.power {
	case virt.Shutdown:
		return nil
	case virt.Suspended:
		if saved, err := d.rpc.HasManagedSave(ctx, f.dom); err != nil || saved {
			if err == nil {
				err = d.rpc.RemoveManagedSave(ctx, f.dom)
			}
			return err
		}
	case virt.Running:
		off, err := d.askOff(ctx, f.dom, grace)
		if err != nil || off {
			return err
		}
	}
	return d.stop(ctx, f.dom)
}

// askOff presses the power button until the guest is off or grace is over.
func (d *Driver) askOff(ctx context.Context, dom rpc.Domain, grace time.Duration) (bool, error) {
	if grace <= 0 {
		return false, nil
	}
	var pressed time.Time
	return d.waitPower(ctx, dom, virt.Shutdown, grace, func() {
		if time.Since(pressed) < pressEvery {
			return
		}
		pressed = time.Now()
		if err := d.rpc.Shutdown(ctx, dom, rpc.ShutdownACPI); err != nil && !errors.Is(err, fault.Conflict) {
			d.log.Warn("the guest could not be asked to shut down", "guest", dom.Name, "error", err)
		}
	})
}

// Reboot restarts the guest: softly by shutting it down and starting it, hard by pulling the plug. Either way its definition is built anew.
func (d *Driver) Reboot(ctx context.Context, spec *virt.Spec, hard bool, grace time.Duration) error {
	f, unlock, err := d.holdThere(ctx, spec.ID)
	defer unlock()
	if err != nil {
		return err
	}
	if !hard && f.power != virt.Running {
		return conflict("rebooted", f.power)
	}
	if hard {
		grace = 0
	}
	if err := d.turnOff(ctx, f, grace); err != nil {
		return err
	}
	on := *spec
	on.Stopped = false
	return d.bringUp(ctx, &on, f)
}

// Pause freezes the guest in memory.
func (d *Driver) Pause(ctx context.Context, guest string) error {
	return d.freeze(ctx, guest, "paused", virt.Running, virt.Paused, d.rpc.Suspend)
}

// Unpause thaws it.
func (d *Driver) Unpause(ctx context.Context, guest string) error {
	return d.freeze(ctx, guest, "unpaused", virt.Paused, virt.Running, d.rpc.Resume)
}

func (d *Driver) freeze(ctx context.Context, guest, what string, from, to virt.PowerState, f func(context.Context, rpc.Domain) error) error {
	g, unlock, err := d.holdThere(ctx, guest)
	defer unlock()
	switch {
	case err != nil || g.power == to:
		return err
	case g.power != from:
		return conflict(what, g.power)
	}
	return f(ctx, g.dom)
}

// Suspend writes the guest's memory to disk and stops it.
func (d *Driver) Suspend(ctx context.Context, guest string) error {
	f, unlock, err := d.holdThere(ctx, guest)
	defer unlock()
	switch {
	case err != nil || f.power == virt.Suspended:
		return err
	case !f.active():
		return conflict("suspended", f.power)
	case len(f.old.Devices.HostDevs) > 0 || slices.ContainsFunc(f.old.Devices.Interfaces, func(i definition.Interface) bool { return i.Type == "hostdev" }):
		return fault.New(fault.Conflict, "The server has PCI devices of its host, whose state cannot be saved: it cannot be suspended.").WithHint("Pause or stop it instead.")
	}
	return d.rpc.ManagedSave(ctx, f.dom, 2) // 2: to run when it is restored, also when it was paused
}

// Resume brings a suspended guest back.
func (d *Driver) Resume(ctx context.Context, spec *virt.Spec) error {
	f, unlock, err := d.holdThere(ctx, spec.ID)
	defer unlock()
	switch {
	case err != nil || f.power == virt.Running:
		return err
	case f.power == virt.Suspended:
		return d.wake(ctx, spec, f)
	}
	return conflict("resumed", f.power)
}

// wake starts a guest from its saved memory. The console's port may have been taken while it slept; then the saved definition gets another.
func (d *Driver) wake(ctx context.Context, spec *virt.Spec, f found) error {
	if err := d.defineSecrets(ctx, spec); err != nil {
		return err
	}
	_, err := d.rpc.Create(ctx, f.dom, 0)
	if err == nil {
		return nil
	}
	for try := 1; err != nil; try++ {
		moved, err2 := d.movePort(ctx, f.dom)
		if try == clashTries || err2 != nil || (!inUse(err) && !vanished(err, try) && !moved) {
			return d.explain(spec, err)
		}
		_, err = d.rpc.Create(ctx, f.dom, 0)
	}
	return nil
}
