package local

import (
	"context"
	"encoding/json"
	"fmt"

	"kilonova/internal/clock"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/network"
	"kilonova/internal/network/agents"
	"kilonova/internal/network/documents"
	"kilonova/internal/network/wake"
)

// AgentDown is how long an agent may be silent before it counts as dead.
const AgentDown = agents.Down

// wires tells whether a host has a data plane.
func (c *Change) wires(host string) (bool, error) {
	if c.present.Knows(host) {
		return true, nil
	}
	return documents.Exists(c.ctx, c.tx, "SELECT 1 FROM network_agents WHERE id = ?", agents.ID(host))
}

// heard records that a host's agent is alive.
func (s *Service) heard(ctx context.Context, host string) error {
	now := clock.Now()
	if !s.present.Due(host, now) {
		return nil
	}
	err := s.Do(ctx, func(c *Change) error {
		a, err := agents.Get(ctx, c.tx, agents.ID(host))
		if fault.KindOf(err) == fault.NotFound {
			a, err = agents.New(host, s.cfg.Zone, now), nil
		}
		if err != nil {
			return err
		}
		a.Heartbeat = clock.Micros(now)
		return agents.Put(c.ctx, c.tx, a)
	})
	if err != nil {
		s.present.Forget(host)
	}
	return err
}

// Agents lists the hosts' network agents.
func (s *Service) Agents(ctx context.Context) ([]network.Agent, error) { return agents.List(ctx, s.db) }

// UpdateAgent changes what an administrator may: state and description.
func (c *Change) UpdateAgent(agentID string, change func(a *network.Agent) error) (*network.Agent, error) {
	a, err := agents.Get(c.ctx, c.tx, agentID)
	if err != nil {
		return nil, err
	}
	if err := change(a); err != nil {
		return nil, err
	}
	return a, agents.Put(c.ctx, c.tx, a)
}

// DeleteAgent forgets an agent; it comes back when its host asks again.
func (c *Change) DeleteAgent(agentID string) error {
	n, err := c.tx.Exec(c.ctx, "DELETE FROM network_agents WHERE id = ?", agentID)
	if err != nil {
		return fmt.Errorf("delete agent: %w", err)
	}
	if n == 0 {
		return documents.NotFound("Agent", agentID)
	}
	return nil
}

// Bindings lists a port's bindings, the active one first.
func (s *Service) Bindings(ctx context.Context, p *network.Port) ([]network.Binding, error) {
	var out []network.Binding
	if p.HostID != "" {
		out = append(out, network.Binding{PortID: p.ID, Host: p.HostID, Status: "ACTIVE", VNICType: p.VNICType, VIFType: p.VIFType, Profile: p.Profile})
	}
	rows, err := s.db.Query(ctx, "SELECT doc FROM network_bindings WHERE port_id = ? ORDER BY host", p.ID)
	if err != nil {
		return nil, fmt.Errorf("list bindings: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var doc []byte
		var b network.Binding
		if err := rows.Scan(&doc); err != nil {
			return nil, fmt.Errorf("list bindings: %w", err)
		}
		if err := json.Unmarshal(doc, &b); err != nil {
			return nil, fmt.Errorf("decode binding: %w", err)
		}
		out = append(out, b)
	}
	return out, rows.Err()
}

// AddBinding prepares a port for another host; fault.Conflict when it is bound there.
func (c *Change) AddBinding(p *network.Port, b *network.Binding) error {
	has, err := documents.Exists(c.ctx, c.tx, "SELECT 1 FROM network_bindings WHERE port_id = ? AND host = ?", p.ID, b.Host)
	if err != nil {
		return err
	}
	if has || p.HostID == b.Host {
		return fault.New(fault.Conflict, "Binding for port %s on host %s already exists.", p.ID, b.Host).WithCode("PortBindingAlreadyExists")
	}
	if err := c.segments.Fits(c.ctx, c.tx, p, b.Host); err != nil {
		return err
	}
	b.PortID, b.Status = p.ID, "INACTIVE"
	b.VNICType, b.VIFType = vif(b.Host, b.VNICType)
	if network.IsDevice(b.VNICType) {
		if b.VIFType, err = c.deviceKind(p.NetworkID, b.VNICType, b.Profile); err != nil {
			return err
		}
	}
	c.touch(p)
	wake.Mark(&c.dirty.Hosts, b.Host)
	return c.putBinding(b)
}

// dropReserved removes the inactive binding of a port to a host.
func (c *Change) dropReserved(p *network.Port, host string) error {
	if _, err := c.tx.Exec(c.ctx, "DELETE FROM network_bindings WHERE port_id = ? AND host = ?", p.ID, host); err != nil {
		return fmt.Errorf("drop binding: %w", err)
	}
	c.touch(p)
	wake.Mark(&c.dirty.Hosts, host)
	return nil
}

func (c *Change) putBinding(b *network.Binding) error {
	doc, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("encode binding: %w", err)
	}
	if _, err := c.tx.Exec(c.ctx, "INSERT INTO network_bindings (port_id, host, status, doc) VALUES (?, ?, ?, ?)", b.PortID, b.Host, b.Status, string(doc)); err != nil {
		return fmt.Errorf("store binding: %w", err)
	}
	return nil
}

// DeleteBinding removes a binding to a host; the active one leaves the port unbound.
func (c *Change) DeleteBinding(portID, host string) error {
	n, err := c.tx.Exec(c.ctx, "DELETE FROM network_bindings WHERE port_id = ? AND host = ?", portID, host)
	if err != nil {
		return fmt.Errorf("delete binding: %w", err)
	}
	wake.Mark(&c.dirty.Hosts, host)
	if n > 0 {
		return nil
	}
	_, err = c.UpdatePort(portID, func(p *network.Port) error {
		if p.HostID != host {
			return fault.New(fault.NotFound, "Binding for port %s for host %s could not be found.", portID, host).WithCode("PortBindingNotFound")
		}
		p.HostID = ""
		return nil
	})
	return err
}

// ActivateBinding makes the binding to a host the active one and the one that was active inactive.
func (c *Change) ActivateBinding(portID, host string) (*network.Binding, error) {
	var doc []byte
	err := c.tx.QueryRow(c.ctx, "SELECT doc FROM network_bindings WHERE port_id = ? AND host = ?", portID, host).Scan(&doc)
	if db.IsNoRows(err) {
		p, err := c.ports.Get(c.ctx, c.tx, portID)
		if err != nil {
			return nil, err
		}
		if p.HostID == host {
			return nil, fault.New(fault.Conflict, "Binding for port %s on host %s is already active.", portID, host).WithCode("PortBindingAlreadyActive")
		}
		return nil, fault.New(fault.NotFound, "Binding for port %s for host %s could not be found.", portID, host).WithCode("PortBindingNotFound")
	}
	if err != nil {
		return nil, fmt.Errorf("read binding: %w", err)
	}
	b := &network.Binding{}
	if err := json.Unmarshal(doc, b); err != nil {
		return nil, fmt.Errorf("decode binding: %w", err)
	}
	if err := c.DeleteBinding(portID, host); err != nil {
		return nil, err
	}
	var old *network.Binding
	_, err = c.UpdatePort(portID, func(p *network.Port) error {
		if p.HostID != "" {
			old = &network.Binding{PortID: p.ID, Host: p.HostID, Status: "INACTIVE", VNICType: p.VNICType, VIFType: p.VIFType, Profile: p.Profile}
		}
		p.HostID, p.VNICType, p.Profile = b.Host, b.VNICType, b.Profile
		return nil
	})
	if err != nil {
		return nil, err
	}
	if old != nil {
		if err := c.putBinding(old); err != nil {
			return nil, err
		}
	}
	b.Status = "ACTIVE"
	return b, nil
}
