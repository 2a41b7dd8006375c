package local

import (
	"context"
	"errors"
	"slices"

	"kilonova/internal/auth"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/network"
	"kilonova/internal/network/documents"
	"kilonova/internal/network/ipam"
)

// seenBy is the project whose things a caller sees; "" for administrators, who see everything.
func seenBy(c *auth.Caller) string {
	if c.IsAdmin() {
		return ""
	}
	if c == nil || c.ProjectID == "" {
		return "-" // no project: sees only what is shared
	}
	return c.ProjectID
}

// Available implements network.Service.
func (s *Service) Available(ctx context.Context, c *auth.Caller) ([]network.Network, error) {
	all, err := s.Networks(ctx, Filter{Project: c.ProjectID, Match: map[string][]string{"external": {"0"}}})
	slices.SortFunc(all, func(a, b network.Network) int { return a.Created.Compare(b.Created) })
	return all, err
}

// GetNetwork implements network.Service.
func (s *Service) GetNetwork(ctx context.Context, c *auth.Caller, networkID string) (*network.Network, error) {
	return s.Network(ctx, seenBy(c), networkID)
}

// GetPort implements network.Service.
func (s *Service) GetPort(ctx context.Context, c *auth.Caller, portID string) (*network.Port, error) {
	p, err := s.ports.Get(ctx, s.db, portID)
	if err != nil {
		return nil, err
	}
	if project := seenBy(c); project != "" && p.ProjectID != project {
		return nil, documents.NotFound("Port", portID)
	}
	return p, nil
}

// CreatePort implements network.Service.
func (s *Service) CreatePort(ctx context.Context, c *auth.Caller, r network.PortRequest) (*network.Port, error) {
	if r.ID == "" {
		r.ID = id.UUID()
	}
	if r.ProjectID == "" {
		r.ProjectID = c.ProjectID
	}
	var out *network.Port
	err := s.Do(ctx, func(ch *Change) error {
		var err error
		out, err = ch.portByID(ctx, ch.tx, r.ID)
		if err != nil || out != nil {
			return err
		}
		n, err := ch.networks.Get(ctx, ch.tx, r.NetworkID)
		if err != nil {
			return err
		}
		if project := seenBy(c); project != "" && n.ProjectID != project {
			ok, err := documents.Exists(ctx, ch.tx, "SELECT 1 FROM network_rbac WHERE object_id = ? AND target IN ('*', ?) LIMIT 1", n.ID, project)
			if err != nil {
				return err
			}
			if !ok {
				return documents.NotFound("Network", r.NetworkID)
			}
		}
		in := &PortInput{FixedSet: r.FixedIPs != nil, GroupsSet: r.SecurityGroups != nil, Port: network.Port{ID: r.ID, Name: r.Name,
			NetworkID: r.NetworkID, ProjectID: r.ProjectID, MAC: r.MAC, FixedIPs: slices.Clone(r.FixedIPs), SecurityGroups: slices.Clone(r.SecurityGroups),
			DeviceID: r.DeviceID, DeviceOwner: r.DeviceOwner, HostID: r.HostID, DNSName: r.DNSName, AdminStateUp: true, PortSecurity: n.PortSecurity}}
		if !n.PortSecurity {
			in.SecurityGroups = nil
		}
		out, err = ch.CreatePort(in)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// BindPort implements network.Service.
func (s *Service) BindPort(ctx context.Context, c *auth.Caller, portID, deviceID, deviceOwner, hostID string) (*network.Port, error) {
	return s.bindPort(ctx, c, portID, deviceID, deviceOwner, hostID, nil)
}

func (s *Service) bindPort(ctx context.Context, c *auth.Caller, portID, deviceID, deviceOwner, hostID string, d *network.DeviceBinding) (*network.Port, error) {
	var out *network.Port
	err := s.Do(ctx, func(ch *Change) error {
		var err error
		out, err = ch.UpdatePort(portID, func(p *network.Port) error {
			if project := seenBy(c); project != "" && p.ProjectID != project {
				return documents.NotFound("Port", portID)
			}
			if deviceID != "" && p.DeviceID != "" && p.DeviceID != deviceID {
				return fault.New(fault.Conflict, "Port %s is still in use.", portID).WithCode("PortInUse")
			}
			p.DeviceID, p.DeviceOwner, p.HostID = deviceID, deviceOwner, hostID
			p.PlaceDevice(d)
			return nil
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// ReserveBinding implements network.Service.
func (s *Service) ReserveBinding(ctx context.Context, c *auth.Caller, portID, hostID string) error {
	return s.Do(ctx, func(ch *Change) error {
		p, err := ch.ports.Lock(ctx, ch.tx, portID)
		if err != nil {
			return err
		}
		if project := seenBy(c); project != "" && p.ProjectID != project {
			return documents.NotFound("Port", portID)
		}
		err = ch.AddBinding(p, &network.Binding{Host: hostID, VNICType: p.VNICType, Profile: p.Profile})
		var e *fault.Error
		if errors.As(err, &e) && e.Code == "PortBindingAlreadyExists" {
			return nil // it is bound or reserved there already
		}
		return err
	})
}

// DropBinding implements network.Service.
func (s *Service) DropBinding(ctx context.Context, c *auth.Caller, portID, hostID string) error {
	return s.Do(ctx, func(ch *Change) error {
		p, err := ch.portByID(ctx, ch.tx, portID)
		if err != nil || p == nil {
			return err
		}
		if project := seenBy(c); project != "" && p.ProjectID != project {
			return nil // for this caller it is not there
		}
		return ch.dropReserved(p, hostID)
	})
}

// DeletePort implements network.Service.
func (s *Service) DeletePort(ctx context.Context, c *auth.Caller, portID string) error {
	err := s.Do(ctx, func(ch *Change) error {
		p, err := ch.portByID(ctx, ch.tx, portID)
		if err != nil || p == nil {
			return err
		}
		if project := seenBy(c); project != "" && p.ProjectID != project {
			return nil // for this caller it is not there
		}
		return ch.DeletePort(portID)
	})
	if fault.KindOf(err) == fault.NotFound {
		return nil
	}
	return err
}

// DevicePorts implements network.Service.
func (s *Service) DevicePorts(ctx context.Context, c *auth.Caller, deviceID string) ([]network.Port, error) {
	ps, err := s.ports.Find(ctx, s.db, Filter{Project: seenBy(c), Match: map[string][]string{"device_id": {deviceID}}}, "")
	slices.SortFunc(ps, func(a, b network.Port) int { return a.Created.Compare(b.Created) })
	return ps, err
}

// SecurityGroups implements network.Service.
func (s *Service) SecurityGroups(ctx context.Context, c *auth.Caller, namesOrIDs ...string) ([]network.SecurityGroup, error) {
	if err := s.EnsureDefaultGroup(ctx, c.ProjectID); err != nil {
		return nil, err
	}
	var own []network.Group
	if len(namesOrIDs) > 0 {
		byName, err := s.groups.Find(ctx, s.db, Filter{Project: c.ProjectID, Match: map[string][]string{"name": namesOrIDs}}, "")
		if err != nil {
			return nil, err
		}
		f := Filter{Project: seenBy(c), Match: map[string][]string{"id": namesOrIDs}}
		byID, err := s.groups.Find(ctx, s.db, f, "id IN (SELECT object_id FROM network_rbac WHERE object_type = 'security_group' AND target IN ('*', ?))", f.Project)
		if err != nil {
			return nil, err
		}
		own = append(byID, byName...)
	}
	out := make([]network.SecurityGroup, 0, len(namesOrIDs))
	for _, want := range namesOrIDs {
		g, err := pickGroup(own, want, c.ProjectID)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(out, func(o network.SecurityGroup) bool { return o.ID == g.ID }) {
			out = append(out, network.SecurityGroup{ID: g.ID, Name: g.Name, ProjectID: g.ProjectID, Description: g.Description})
		}
	}
	return out, nil
}

func pickGroup(groups []network.Group, want, project string) (*network.Group, error) {
	var named *network.Group
	for i := range groups {
		g := &groups[i]
		if g.ID == want {
			return g, nil
		}
		if g.Name != want {
			continue
		}
		if named != nil && named.ID != g.ID {
			return nil, fault.New(fault.Conflict, "Multiple security groups found matching '%s'. Use an ID to be more specific.", want).WithCode("NoUniqueMatch")
		}
		named = g
	}
	if named == nil {
		return nil, fault.New(fault.NotFound, "Security group %s not found for project %s.", want, project).WithCode("SecurityGroupNotFound")
	}
	return named, nil
}

// SetPortGroups implements network.Service.
func (s *Service) SetPortGroups(ctx context.Context, c *auth.Caller, portID string, groups []string) error {
	return s.Do(ctx, func(ch *Change) error {
		_, err := ch.UpdatePort(portID, func(p *network.Port) error {
			if project := seenBy(c); project != "" && p.ProjectID != project {
				return documents.NotFound("Port", portID)
			}
			p.SecurityGroups = slices.Clone(groups)
			return nil
		})
		return err
	})
}

// QuotaLeft implements network.Service.
func (s *Service) QuotaLeft(ctx context.Context, c *auth.Caller) (int, error) {
	return s.QuotaOf(ctx, c.ProjectID, "port")
}

// SetPortStatus implements network.Service.
func (s *Service) SetPortStatus(ctx context.Context, portID, status string) error {
	now, err := s.portByID(ctx, s.db, portID)
	if err != nil {
		return err
	}
	if now == nil {
		return documents.NotFound("Port", portID)
	}
	if now.Status == status {
		return nil
	}
	return s.Do(ctx, func(c *Change) error {
		p, err := c.ports.Lock(ctx, c.tx, portID)
		if err != nil || p.Status == status {
			return err
		}
		p.Status = status
		return c.ports.Update(ctx, c.tx, p)
	})
}

// ByFixedIP implements network.Service.
func (s *Service) ByFixedIP(ctx context.Context, networkID, address string) (*network.Port, error) {
	a, err := ipam.ParseAddr(address)
	if err != nil {
		return nil, err
	}
	ps, err := s.ports.List(ctx, s.db, "id IN (SELECT port_id FROM network_addresses WHERE network_id = ? AND addr = ?)", networkID, ipam.Key(a))
	if err != nil {
		return nil, err
	}
	if len(ps) == 0 {
		return nil, fault.New(fault.NotFound, "No port of network %s has the address %s.", networkID, address).WithCode("PortNotFound")
	}
	return &ps[0], nil
}

// Host implements network.Service.
func (s *Service) Host(ctx context.Context, host string) (*network.HostState, error) {
	if err := s.heard(ctx, host); err != nil {
		return nil, err
	}
	return s.wiring.Host(ctx, host)
}

// VIFs implements network.Service. Ports that are gone are left out.
func (s *Service) VIFs(ctx context.Context, portIDs ...string) ([]network.VIF, error) {
	return s.wiring.VIFs(ctx, portIDs...)
}
