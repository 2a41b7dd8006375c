package conductor

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"kilonova/internal/compute"
	"kilonova/internal/compute/flow"
	"kilonova/internal/compute/scheduler"
	"kilonova/internal/compute/store"
	"kilonova/internal/compute/virt"
	"kilonova/internal/db"
	"kilonova/internal/fault"
)

// What a server holds of a host by name (CPUs, pages, devices) is claimed here, before placement is asked for the amounts: in one transaction that locks the host's record, reads
// what others hold there and writes what was chosen. So no two servers hold one CPU or device, whichever conductor or scheduler chose them.

// errNoParts says that a host does not have the parts any more.
var errNoParts = errors.New("the host does not have the parts any more")

// takeParts claims the parts of a host that the request asks for. had tells whether the claims of the server were touched.
func (c *Conductor) takeParts(ctx context.Context, w flow.Want, req *scheduler.Request, h *scheduler.HostState) (claim *compute.Claim, had bool, err error) {
	needs, err := scheduler.Needs(req)
	if err != nil {
		return nil, false, err
	}
	if !needs && w.Server.System[compute.SysClaim] == "" {
		return nil, false, nil
	}
	err = c.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		text, err := c.cfg.Store.LockHost(ctx, tx, h.Host)
		if err != nil {
			return err
		}
		if w.Migration != "" {
			err = c.cfg.Store.HandClaim(ctx, tx, w.Server.ID, w.Migration)
		} else {
			err = c.cfg.Store.DropClaims(ctx, tx, w.Server.ID) // of a try that came to nothing
		}
		if err != nil || !needs {
			return err
		}
		var info virt.HostInfo
		if err := json.Unmarshal(text, &info); err != nil {
			return err
		}
		held, err := c.cfg.Store.HostClaims(ctx, tx, h.Host)
		if err != nil {
			return err
		}
		compute.Use(info.NUMA, info.PCI, byServer(held))
		if info.PCIPlacement {
			scheduler.Track(h.Provider, info.PCI)
		}
		var why string
		if claim, why, err = scheduler.Take(req, info.NUMA, info.PCI, h.CPURatio, h.RAMRatio); err != nil {
			return err
		} else if why != "" {
			c.log.Debug("parts of a host were taken meanwhile", "host", h.Host, "server", w.Server.ID, "why", why)
			return errNoParts
		}
		if claim == nil {
			return nil
		}
		return c.cfg.Store.PutClaim(ctx, tx, store.HostClaim{Consumer: w.Server.ID, ServerID: w.Server.ID, Host: h.Host, Claim: *claim})
	})
	if errors.Is(err, fault.NotFound) {
		err = errNoParts // the host is gone
	}
	return claim, true, err
}

// leaveParts lets go of what takeParts claimed. What the server held before it began to move stays with the migration until that ends.
func (c *Conductor) leaveParts(ctx context.Context, w flow.Want) error {
	return c.cfg.DB.Write(ctx, func(tx *db.Tx) error { return c.cfg.Store.DropClaims(ctx, tx, w.Server.ID) })
}

// TakePort implements flow.Placer.
func (c *Conductor) TakePort(ctx context.Context, s *compute.Server, port compute.PortDevice) (claim *compute.Claim, err error) {
	policy, err := compute.PCIPolicy(s.Flavor.ExtraSpecs, s.ImageProps)
	if err != nil {
		return nil, err
	}
	want := scheduler.PortRequests([]compute.PortDevice{port}, policy)
	if len(want) != 1 {
		return nil, noDevice(s, "no host has devices for ports of the type "+port.VNICType)
	}
	err = c.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		text, err := c.cfg.Store.LockHost(ctx, tx, s.Host)
		if err != nil {
			return err
		}
		all, err := c.cfg.Store.HostClaims(ctx, tx, s.Host)
		if err != nil {
			return err
		}
		claim = &compute.Claim{}
		if at := slices.IndexFunc(all, func(h store.HostClaim) bool { return h.Consumer == s.ID }); at >= 0 {
			claim = &all[at].Claim
		}
		if claim.Ports[port.PortID] != "" {
			return nil // by this step, before it was interrupted
		}
		var info virt.HostInfo
		if err := json.Unmarshal(text, &info); err != nil {
			return err
		}
		compute.Use(info.NUMA, info.PCI, byServer(all))
		address, why := scheduler.TakePort(want[0], claim, info.NUMA, info.PCI)
		if why != "" {
			return noDevice(s, why)
		}
		next := *claim
		next.Ports = maps.Clone(claim.Ports)
		if next.Ports == nil {
			next.Ports = map[string]string{}
		}
		next.Ports[port.PortID] = address
		claim = &next
		return c.cfg.Store.PutClaim(ctx, tx, store.HostClaim{Consumer: s.ID, ServerID: s.ID, Host: s.Host, Claim: next})
	})
	return claim, err
}

func noDevice(s *compute.Server, why string) error {
	return fault.New(fault.Invalid, "Failed to claim PCI device for %s during interface attach: %s.", s.ID, why)
}

// partsOn gives what a consumer holds of a host; nil: nothing.
func (c *Conductor) partsOn(ctx context.Context, consumer, host string) (*compute.Claim, error) {
	held, err := c.cfg.Store.ClaimOf(ctx, c.cfg.DB, consumer)
	if err != nil || held == nil || held.Host != host {
		return nil, err
	}
	return &held.Claim, nil
}

func byServer(held []store.HostClaim) map[string][]compute.Claim {
	out := map[string][]compute.Claim{}
	for _, h := range held {
		out[h.ServerID] = append(out[h.ServerID], h.Claim)
	}
	return out
}

// claims reads what is held of hosts by name, when there are hosts that have anything to be held.
func (t *hostTable) claims(ctx context.Context, rows []compute.Host) (map[string]map[string][]compute.Claim, error) {
	t.mu.RLock()
	some := slices.ContainsFunc(rows, func(r compute.Host) bool {
		h := t.byName[r.Name]
		return h == nil || h.info == nil || len(h.info.NUMA)+len(h.info.PCI) > 0
	})
	t.mu.RUnlock()
	out := map[string]map[string][]compute.Claim{}
	if !some {
		return out, nil
	}
	all, err := t.store.HostClaims(ctx, t.store.DB)
	if err != nil {
		return nil, err
	}
	for _, c := range all {
		if out[c.Host] == nil {
			out[c.Host] = map[string][]compute.Claim{}
		}
		out[c.Host][c.ServerID] = append(out[c.Host][c.ServerID], c.Claim)
	}
	return out, nil
}

// parts puts what the host has and what is held of it into the scheduler's view.
func (h *host) parts() {
	h.devices = nil
	h.divided = h.divided || len(h.info.Mediated) > 0
	h.base.Mediated = scheduler.MediatedProviders(h.NodeID, nodeName(h), h.info.Mediated)
	if len(h.info.NUMA)+len(h.info.PCI) == 0 {
		return
	}
	cells, devices := slices.Clone(h.info.NUMA), slices.Clone(h.info.PCI)
	for i := range cells { // Use writes into what these hold
		cells[i].Pinned, cells[i].Pages = slices.Clone(cells[i].Pinned), slices.Clone(cells[i].Pages)
	}
	compute.Use(cells, devices, h.held)
	if h.info.PCIPlacement {
		scheduler.Track(h.NodeID, devices)
		h.devices, _ = scheduler.DeviceProviders(h.NodeID, nodeName(h), devices) // a host whose devices cannot be told of so is not registered
	}
	h.base.NUMA, h.base.PCI = scheduler.Cells(cells), scheduler.Pools(devices)
}

// sameTopology refuses an image that asks for other NUMA nodes, pinned CPUs or pages than the server has: what it holds of its host stays as it is.
func sameTopology(req *scheduler.Request, s *compute.Server) error {
	if scheduler.SameTopology(&req.Flavor, s.ImageProps, req.Image.Props) {
		return nil
	}
	return fault.New(fault.Invalid, "An instance's NUMA topology cannot be changed as part of a rebuild. The image provided is invalid for instance %s.", s.ID)
}
