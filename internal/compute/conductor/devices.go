package conductor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/scheduler"
	"kilonova/internal/compute/store"
	"kilonova/internal/compute/virt"
	"kilonova/internal/fault"
	"kilonova/internal/placement"
)

// PCI devices as hosts report them: what servers hold stays on record when a host does not offer it any more, and placement is told of the devices of hosts that ask for that.

// judgeDevices refuses a report whose devices cannot be taken, and keeps those on record that servers hold and the host does not name any more.
func (c *Conductor) judgeDevices(ctx context.Context, rep command.HostReport, old *virt.HostInfo) error {
	info := rep.Info
	if old != nil && old.PCIPlacement && !info.PCIPlacement {
		return fault.New(fault.Invalid, "Host %s has told placement of its PCI devices: [pci] report_in_placement cannot be switched off.", rep.Host).
			WithHint("Switch it on again, or delete the host's service and its resource providers first.")
	}
	if old != nil {
		if err := c.keepHeld(ctx, rep.Host, old.PCI, info); err != nil {
			return err
		}
	}
	if !info.PCIPlacement {
		return nil
	}
	if _, err := scheduler.DeviceProviders(rep.NodeID, info.Hostname, info.PCI); err != nil {
		return fault.Wrap(err, fault.Invalid, "Host %s cannot tell placement of its PCI devices: %s.", rep.Host, err.Error())
	}
	return nil
}

// keepHeld adds to a report the devices of the one before that are missing and that servers hold.
func (c *Conductor) keepHeld(ctx context.Context, name string, before []compute.HostDevice, info *virt.HostInfo) error {
	var missing []compute.HostDevice
	for _, d := range before {
		if !slices.ContainsFunc(info.PCI, func(n compute.HostDevice) bool { return n.Address == d.Address }) {
			missing = append(missing, d)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	held, err := c.cfg.Store.HostClaims(ctx, c.cfg.Store.DB, name)
	if err != nil {
		return err
	}
	compute.Use(nil, missing, byServer(held))
	for _, d := range missing {
		if d.Server == "" {
			continue
		}
		if !d.Gone {
			c.log.Warn("a PCI device that a server holds is not offered by its host any more; it stays on record until the server lets go of it. Look at [pci] device_spec.",
				"host", name, "device", d.Address, "server", d.Server)
		}
		d.Gone, d.Server = true, ""
		info.PCI = append(info.PCI, d)
	}
	return nil
}

// reportDevices brings the providers of a host's PCI devices in line with its report.
func (c *Conductor) reportDevices(ctx context.Context, rep command.HostReport) error {
	var want []scheduler.DeviceProvider
	if rep.Info.PCIPlacement {
		var err error
		if want, err = scheduler.DeviceProviders(rep.NodeID, rep.Info.Hostname, rep.Info.PCI); err != nil {
			return err
		}
	}
	c.warnAbsent(rep, want)
	if !rep.Info.PCIPlacement {
		return nil
	}
	have, err := c.cfg.Placement.Tree(ctx, rep.NodeID)
	if err != nil {
		return fmt.Errorf("providers of %s: %w", rep.Host, err)
	}
	errs := c.dropProviders(ctx, rep.Host, have, func(p *placement.Provider) bool {
		return scheduler.IsDeviceProvider(p) && !slices.ContainsFunc(want, func(w scheduler.DeviceProvider) bool { return w.UUID == p.UUID })
	})
	for i := range want {
		errs = append(errs, c.reportDevice(ctx, rep, &want[i], have))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return c.healDevices(ctx, rep.Host, rep.NodeID, want)
}

// dropProviders removes those of a host's providers whose devices are gone; one that servers hold something of stays.
func (c *Conductor) dropProviders(ctx context.Context, host string, have []placement.Provider, gone func(*placement.Provider) bool) (errs []error) {
	for i := range have {
		p := &have[i]
		if !gone(p) {
			continue
		}
		err := c.cfg.Placement.DeleteProvider(ctx, p.UUID)
		if errors.Is(err, fault.Conflict) {
			c.log.Warn("the provider of devices that are gone stays: it has allocations", "host", host, "provider", p.Name)
		} else if err != nil && !errors.Is(err, fault.NotFound) {
			errs = append(errs, err)
		}
	}
	return errs
}

// warnAbsent tells of operators' files that add to providers that the host does not have.
func (c *Conductor) warnAbsent(rep command.HostReport, devices []scheduler.DeviceProvider) {
	var children []string
	for i := range devices {
		children = append(children, devices[i].UUID, devices[i].Name)
	}
	if names := absent(rep.Info, rep.NodeID, children); len(names) > 0 {
		c.log.Warn("provider configuration files name resource providers that the host does not have; these entries are ignored", "host", rep.Host, "providers", names)
	}
}

func (c *Conductor) reportDevice(ctx context.Context, rep command.HostReport, w *scheduler.DeviceProvider, have []placement.Provider) error {
	var reserved int64
	managed := slices.Clone(w.Traits)
	if at := slices.IndexFunc(have, func(p placement.Provider) bool { return p.UUID == w.UUID }); at >= 0 {
		reserved = have[at].Inventory[w.Class].Reserved // an operator's, who keeps devices back
		managed = append(managed, have[at].Traits...)   // the providers are the host's alone
	}
	inv := w.Inventory(reserved)
	traits, err := extend(rep.Info.Providers, w.UUID, w.Name, false, inv, w.Traits)
	if err != nil {
		return err
	}
	if _, err := c.cfg.Placement.EnsureChild(ctx, w.UUID, w.Name, rep.NodeID); err != nil {
		return fmt.Errorf("provider of %s: %w", w.Name, err)
	}
	if err := c.cfg.Placement.Report(ctx, w.UUID, inv, traits, managed); err != nil {
		return fmt.Errorf("inventory of %s: %w", w.Name, err)
	}
	return nil
}

// healDevices gives servers that hold devices of the host the allocations of them that they lack: those that had devices before placement was told of these.
func (c *Conductor) healDevices(ctx context.Context, name, node string, providers []scheduler.DeviceProvider) error {
	held, err := c.cfg.Store.HostClaims(ctx, c.cfg.Store.DB, name)
	if err != nil {
		return err
	}
	held = slices.DeleteFunc(held, func(h store.HostClaim) bool { return len(h.Claim.Devices) == 0 })
	if len(held) == 0 {
		return nil
	}
	ids := map[string]bool{}
	for _, h := range held {
		ids[h.ServerID] = true
	}
	servers, err := c.cfg.Store.ServersByID(ctx, c.cfg.DB, slices.Sorted(maps.Keys(ids))...)
	if err != nil {
		return err
	}
	var errs []error
	for _, h := range held {
		idle := slices.ContainsFunc(servers, func(s *compute.Server) bool { return s.ID == h.ServerID && s.TaskState == "" && s.Deleted.IsZero() })
		if !idle {
			continue // what it holds is about to change; it is looked at again
		}
		has, owner, err := c.cfg.Placement.Of(ctx, h.Consumer)
		if err != nil || owner == nil || has[node] == nil {
			errs = append(errs, err)
			continue
		}
		next := scheduler.WithDevices(has, &h.Claim, providers)
		if maps.EqualFunc(next, has, func(a, b placement.Resources) bool { return maps.Equal(a, b) }) {
			continue
		}
		err = c.cfg.Placement.Claim(ctx, *owner, next)
		if errors.Is(err, fault.Conflict) {
			c.log.Warn("PCI devices that a server holds cannot be allocated to it in placement", "host", name, "server", h.ServerID, "error", err)
			continue
		}
		if err == nil {
			c.log.Info("the allocations of a server were completed by its PCI devices", "host", name, "server", h.ServerID)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
