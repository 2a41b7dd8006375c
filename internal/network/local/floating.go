package local

import (
	"context"
	"slices"

	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/network"
	"kilonova/internal/network/documents"
	"kilonova/internal/network/ipam"
	"kilonova/internal/network/wake"
)

// FloatingIPs lists floating IPs.
func (s *Service) FloatingIPs(ctx context.Context, f Filter) ([]network.FloatingIP, error) {
	return s.floating.Find(ctx, s.db, f, "")
}

// FloatingRequest asks for a floating IP; Address, SubnetID, PortID and FixedIP may be empty.
type FloatingRequest struct {
	network.FloatingIP
	SubnetID string
}

// CreateFloatingIP takes an address of an external network, and associates it when a port is named.
func (c *Change) CreateFloatingIP(r *FloatingRequest) (*network.FloatingIP, error) {
	f := &r.FloatingIP
	n, err := c.networks.Get(c.ctx, c.tx, f.NetworkID)
	if err != nil {
		return nil, err
	}
	if !n.External {
		return nil, fault.New(fault.Invalid, "Bad floatingip request: Network %s is not a valid external network.", n.ID).WithCode("BadRequest")
	}
	if err := c.use(f.ProjectID, "floatingip", 1); err != nil {
		return nil, err
	}
	f.ID = id.UUID()
	in := &PortInput{Port: network.Port{NetworkID: n.ID, DeviceID: f.ID, DeviceOwner: network.OwnerFloatingIP, AdminStateUp: true, Status: "N/A"}, GroupsSet: true}
	want := network.FixedIP{SubnetID: r.SubnetID, Address: f.Address}
	if want == (network.FixedIP{}) {
		if want.SubnetID, err = c.firstV4(n.ID); err != nil {
			return nil, err
		}
	}
	in.FixedIPs, in.FixedSet = []network.FixedIP{want}, true
	p, err := c.CreatePort(in)
	if err != nil {
		return nil, err
	}
	f.Address, f.OwnPortID, f.Status = p.FixedIPs[0].Address, p.ID, "DOWN"
	if f.PortID != "" {
		if err := c.associate(f, f.PortID, f.FixedIP); err != nil {
			return nil, err
		}
	}
	return f, c.floating.Insert(c.ctx, c.tx, f)
}

// firstV4 finds an IPv4 subnet of an external network that has an address left.
func (c *Change) firstV4(networkID string) (string, error) {
	subnets, err := c.subnetsOf(networkID)
	if err != nil {
		return "", err
	}
	last := ""
	for i := range subnets {
		s := &subnets[i]
		if s.Version != 4 || !serves(s, network.OwnerFloatingIP) {
			continue
		}
		last = s.ID
		left, err := documents.Exists(c.ctx, c.tx, "SELECT 1 FROM network_pools WHERE subnet_id = ? AND next_addr <= last_addr", s.ID)
		if err != nil {
			return "", err
		}
		if !left {
			if left, err = documents.Exists(c.ctx, c.tx, "SELECT 1 FROM network_released WHERE subnet_id = ? LIMIT 1", s.ID); err != nil {
				return "", err
			}
		}
		if left {
			return s.ID, nil
		}
	}
	if last == "" {
		return "", fault.New(fault.Invalid, "Bad floatingip request: Network %s does not contain any IPv4 subnet.", networkID).WithCode("BadRequest")
	}
	return last, nil
}

// UpdateFloatingIP changes a floating IP. change sets PortID and FixedIP as wanted; an empty PortID ends the association.
func (c *Change) UpdateFloatingIP(floatingID string, change func(f *network.FloatingIP) error) (*network.FloatingIP, error) {
	f, err := c.floating.Lock(c.ctx, c.tx, floatingID)
	if err != nil {
		return nil, err
	}
	before := *f
	if err := change(f); err != nil {
		return nil, err
	}
	if f.PortID != before.PortID || f.FixedIP != before.FixedIP {
		if err := c.touchPort(before.PortID); err != nil {
			return nil, err
		}
		port, fixed := f.PortID, f.FixedIP
		f.PortID, f.FixedIP, f.RouterID, f.Status = "", "", "", "DOWN"
		if port != "" {
			if err := c.associate(f, port, fixed); err != nil {
				return nil, err
			}
		}
	}
	return f, c.floating.Update(c.ctx, c.tx, f)
}

func (c *Change) touchPort(portID string) error {
	p, err := c.portByID(c.ctx, c.tx, portID)
	if p != nil {
		wake.Mark(&c.dirty.Hosts, p.HostID)
	}
	return err
}

// associate puts a floating IP before an address of a port, through the router that joins the port's subnet with the
// floating IP's network; fault.NotFound when there is none.
func (c *Change) associate(f *network.FloatingIP, portID, fixed string) error {
	p, err := c.ports.Get(c.ctx, c.tx, portID)
	if err != nil {
		return err
	}
	ip, err := pickFixed(p, fixed)
	if err != nil {
		return err
	}
	dup, err := c.floating.List(c.ctx, c.tx, "port_id = ? AND network_id = ? AND id <> ?", portID, f.NetworkID, f.ID)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(dup, func(o network.FloatingIP) bool { return o.FixedIP == ip.Address }); i >= 0 {
		return fault.New(fault.Conflict, "Cannot associate floating IP %s (%s) with port %s using fixed IP %s, as that fixed IP already has a floating IP on external network %s.",
			f.Address, f.ID, portID, ip.Address, f.NetworkID).WithCode("FloatingIPPortAlreadyAssociated")
	}
	router, err := c.routerBetween(ip.SubnetID, f.NetworkID)
	if err != nil {
		return err
	}
	if router == "" {
		return fault.New(fault.NotFound, "External network %s is not reachable from subnet %s. Therefore, cannot associate Port %s with a Floating IP.",
			f.NetworkID, ip.SubnetID, portID).WithCode("ExternalGatewayForFloatingIPNotFound")
	}
	f.PortID, f.FixedIP, f.RouterID, f.Status = portID, ip.Address, router, "ACTIVE"
	wake.Mark(&c.dirty.Hosts, p.HostID)
	return nil
}

func pickFixed(p *network.Port, fixed string) (network.FixedIP, error) {
	var v4 []network.FixedIP
	for _, ip := range p.FixedIPs {
		a, err := ipam.ParseAddr(ip.Address)
		if err == nil && a.Is4() && (fixed == "" || ipam.Same(fixed, ip.Address)) {
			v4 = append(v4, ip)
		}
	}
	switch {
	case len(v4) == 1:
		return v4[0], nil
	case fixed != "":
		return network.FixedIP{}, fault.New(fault.Invalid, "Bad floatingip request: Port %s does not have fixed ip %s.", p.ID, fixed).WithCode("BadRequest")
	case len(v4) == 0:
		return network.FixedIP{}, fault.New(fault.Invalid, "Bad floatingip request: Cannot add floating IP to port %s that has no fixed IPv4 addresses.", p.ID).WithCode("BadRequest")
	}
	return network.FixedIP{}, fault.New(fault.Invalid, "Bad floatingip request: Port %s has multiple fixed IPv4 addresses. Must provide a specific IPv4 address when assigning a floating IP.", p.ID).WithCode("BadRequest")
}

func (c *Change) routerBetween(subnetID, externalID string) (string, error) {
	routers, err := c.routers.List(c.ctx, c.tx, `id IN (SELECT p.device_id FROM network_ports p JOIN network_addresses a ON a.port_id = p.id
 WHERE a.subnet_id = ? AND p.device_owner = ?)`, subnetID, network.OwnerRouterInterface)
	if err != nil {
		return "", err
	}
	for i := range routers {
		if g := routers[i].Gateway; g != nil && g.NetworkID == externalID {
			return routers[i].ID, nil
		}
	}
	return "", nil
}

// floatingLost ends the associations of addresses that a port no longer has.
func (c *Change) floatingLost(p *network.Port, lost []network.FixedIP) error {
	if len(lost) == 0 {
		return nil
	}
	fs, err := c.floating.List(c.ctx, c.tx, "port_id = ?", p.ID)
	if err != nil {
		return err
	}
	for i := range fs {
		f := &fs[i]
		if !slices.ContainsFunc(lost, func(l network.FixedIP) bool { return l.Address == f.FixedIP }) {
			continue
		}
		f.PortID, f.FixedIP, f.RouterID, f.Status = "", "", "", "DOWN"
		if err := c.floating.Update(c.ctx, c.tx, f); err != nil {
			return err
		}
	}
	return nil
}

// DeleteFloatingIP gives a floating IP's address back.
func (c *Change) DeleteFloatingIP(floatingID string) error {
	f, err := c.floating.Lock(c.ctx, c.tx, floatingID)
	if err != nil {
		return err
	}
	if err := c.touchPort(f.PortID); err != nil {
		return err
	}
	if err := c.use(f.ProjectID, "floatingip", -1); err != nil {
		return err
	}
	if err := c.floating.Delete(c.ctx, c.tx, floatingID); err != nil {
		return err
	}
	if err := c.DeletePort(f.OwnPortID); err != nil && fault.KindOf(err) != fault.NotFound {
		return err
	}
	return nil
}
