package flow

import (
	"context"
	"io"
	"maps"
	"sync"

	"kilonova/internal/auth"
	"kilonova/internal/clock"
	"kilonova/internal/fault"
	"kilonova/internal/image"
	"kilonova/internal/network"
	"kilonova/internal/placement"
)

// modelPlacement keeps the promises of claims: capacity, generations, all or nothing.
type modelPlacement struct {
	placement.Service
	mu       sync.Mutex
	capacity placement.Resources
	m        map[string]placement.Allocations
	c        map[string]placement.Consumer
}

func (p *modelPlacement) Claim(ctx context.Context, c placement.Consumer, a placement.Allocations) error {
	return p.ClaimAll(ctx, []placement.Consumer{c}, []placement.Allocations{a})
}

func (p *modelPlacement) ClaimAll(_ context.Context, cs []placement.Consumer, as []placement.Allocations) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := maps.Clone(p.m)
	for i, c := range cs {
		old, there := p.c[c.UUID]
		if there != (c.Generation != nil) || there && *old.Generation != *c.Generation {
			return fault.New(fault.Conflict, "consumer generation conflict").WithCode("placement.concurrent_update")
		}
		if len(as[i]) == 0 {
			delete(next, c.UUID)
		} else {
			next[c.UUID] = as[i]
		}
	}
	used := map[string]placement.Resources{}
	for _, a := range next {
		for rp, res := range a {
			for class, n := range res {
				if used[rp] == nil {
					used[rp] = placement.Resources{}
				}
				if used[rp][class] += n; used[rp][class] > p.capacity[class] {
					return fault.New(fault.Conflict, "over capacity")
				}
			}
		}
	}
	p.m = next
	for _, c := range cs {
		g := int64(1)
		if c.Generation != nil {
			g = *c.Generation + 1
		}
		c.Generation = &g
		if _, ok := next[c.UUID]; ok {
			p.c[c.UUID] = c
		} else {
			delete(p.c, c.UUID)
		}
	}
	return nil
}

func (p *modelPlacement) Release(_ context.Context, consumer string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.m, consumer)
	delete(p.c, consumer)
	return nil
}

func (p *modelPlacement) Of(_ context.Context, consumer string) (placement.Allocations, *placement.Consumer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c, ok := p.c[consumer]; ok {
		return maps.Clone(p.m[consumer]), &c, nil
	}
	return nil, nil, nil
}

// modelNetwork keeps ports.
type modelNetwork struct {
	network.Service
	mu    sync.Mutex
	ports map[string]*network.Port
	// reserved are the hosts to which ports are about to move.
	reserved map[string]string
}

func (n *modelNetwork) CreatePort(_ context.Context, _ *auth.Caller, r network.PortRequest) (*network.Port, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := n.ports[r.ID]; p != nil {
		return p, nil
	}
	p := &network.Port{ID: r.ID, NetworkID: r.NetworkID, DeviceID: r.DeviceID, DeviceOwner: r.DeviceOwner, HostID: r.HostID}
	n.ports[r.ID] = p
	return p, nil
}

func (n *modelNetwork) BindPort(_ context.Context, _ *auth.Caller, port, device, owner, host string) (*network.Port, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.ports[port]
	if p == nil {
		return nil, fault.New(fault.NotFound, "port %s", port)
	}
	if p.DeviceID != "" && device != "" && p.DeviceID != device {
		return nil, fault.New(fault.Conflict, "port in use")
	}
	p.DeviceID, p.DeviceOwner, p.HostID, p.Profile = device, owner, host, nil
	if n.reserved[port] == host {
		delete(n.reserved, port)
	}
	return p, nil
}

func (n *modelNetwork) ReserveBinding(_ context.Context, _ *auth.Caller, port, host string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := n.ports[port]; p == nil || p.HostID == host {
		return nil
	}
	if n.reserved == nil {
		n.reserved = map[string]string{}
	}
	n.reserved[port] = host
	return nil
}

func (n *modelNetwork) DropBinding(_ context.Context, _ *auth.Caller, port, host string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.reserved[port] == host {
		delete(n.reserved, port)
	}
	return nil
}

func (n *modelNetwork) GetPort(_ context.Context, _ *auth.Caller, port string) (*network.Port, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := n.ports[port]; p != nil {
		c := *p
		return &c, nil
	}
	return nil, fault.New(fault.NotFound, "port %s", port)
}

func (n *modelNetwork) DeletePort(_ context.Context, _ *auth.Caller, port string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.ports, port)
	return nil
}

func (n *modelNetwork) DevicePorts(_ context.Context, _ *auth.Caller, device string) ([]network.Port, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []network.Port
	for _, p := range n.ports {
		if p.DeviceID == device {
			out = append(out, *p)
		}
	}
	return out, nil
}

func (n *modelNetwork) VIFs(_ context.Context, ports ...string) ([]network.VIF, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []network.VIF
	for _, id := range ports {
		if p := n.ports[id]; p != nil {
			v := network.VIF{PortID: id, NetworkID: p.NetworkID}
			if network.IsDevice(p.VNICType) {
				v.VNICType, v.PhysicalNetwork = p.VNICType, "phys"
			}
			out = append(out, v)
		}
	}
	return out, nil
}

// modelImages keeps images without data.
type modelImages struct {
	image.Service
	mu  sync.Mutex
	m   map[string]*image.Image
	cut map[string]int // uploads that are cut off once: after so many looks the image is queued again
}

func (m *modelImages) add(id, status string, props map[string]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.m[id] = &image.Image{ID: id, Status: status, Properties: props, Created: clock.Now(), DiskFormat: "qcow2"}
}

func (m *modelImages) fill(id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.m[id] == nil {
		return fault.New(fault.NotFound, "image %s", id)
	}
	if m.m[id].Status == image.Saving {
		return fault.New(fault.Conflict, "image %s is saving", id)
	}
	if m.cut[id] > 0 {
		m.m[id].Status = image.Saving
		return fault.New(fault.Unavailable, "the upload was cut off")
	}
	m.m[id].Status = image.Active
	return nil
}

// Upload implements image.Service for agents.
func (m *modelImages) Upload(_ context.Context, _ *auth.Caller, id string, r io.Reader, _ int64) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	return m.fill(id)
}

func (m *modelImages) Get(_ context.Context, _ *auth.Caller, id string) (*image.Image, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := m.m[id]; i != nil {
		c := *i
		if i.Status == image.Saving {
			if m.cut[id]--; m.cut[id] == 0 {
				i.Status = image.Queued
			}
		}
		return &c, nil
	}
	return nil, fault.New(fault.NotFound, "image %s", id)
}

func (m *modelImages) List(_ context.Context, _ *auth.Caller, _ map[string]string) ([]image.Image, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []image.Image
	for _, i := range m.m {
		out = append(out, *i)
	}
	return out, nil
}

func (m *modelImages) Delete(_ context.Context, _ *auth.Caller, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.m[id] == nil {
		return fault.New(fault.NotFound, "image %s", id)
	}
	delete(m.m, id)
	return nil
}
