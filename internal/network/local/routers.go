package local

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/network"
	"kilonova/internal/network/documents"
	"kilonova/internal/network/ipam"
	"kilonova/internal/network/wake"
)

// Routers lists routers.
func (s *Service) Routers(ctx context.Context, f Filter) ([]network.Router, error) {
	return s.routers.Find(ctx, s.db, f, "")
}

// CreateRouter makes a router, with its gateway when one is given.
func (c *Change) CreateRouter(r *network.Router) error {
	r.ID = id.UUID()
	if err := c.use(r.ProjectID, "router", 1); err != nil {
		return err
	}
	want := r.Gateway
	r.Gateway = nil
	if err := c.routers.Insert(c.ctx, c.tx, r); err != nil {
		return err
	}
	if want == nil {
		return nil
	}
	if err := c.setGateway(r, want); err != nil {
		return err
	}
	rev := r.Revision
	err := c.routers.Update(c.ctx, c.tx, r)
	r.Revision = rev
	return err
}

// UpdateRouter changes a router; a changed gateway is attached and detached.
func (c *Change) UpdateRouter(routerID string, change func(r *network.Router) error) (*network.Router, error) {
	r, err := c.routers.Lock(c.ctx, c.tx, routerID)
	if err != nil {
		return nil, err
	}
	before := r.Gateway
	if r.Gateway != nil {
		gw := *r.Gateway
		r.Gateway = &gw
	}
	routes := slices.Clone(r.Routes)
	if err := change(r); err != nil {
		return nil, err
	}
	if err := c.changeGateway(r, before); err != nil {
		return nil, err
	}
	if !slices.Equal(routes, r.Routes) {
		if err := c.checkRoutes(r); err != nil {
			return nil, err
		}
	}
	if err := c.touchRouter(r.ID); err != nil {
		return nil, err
	}
	return r, c.routers.Update(c.ctx, c.tx, r)
}

func (c *Change) changeGateway(r *network.Router, before *network.RouterGateway) error {
	want := r.Gateway
	if before != nil && want != nil && want.NetworkID == before.NetworkID && (len(want.FixedIPs) == 0 || slices.Equal(want.FixedIPs, before.FixedIPs)) {
		want.PortID, want.FixedIPs = before.PortID, before.FixedIPs
		return nil
	}
	r.Gateway = before
	if before != nil {
		if err := c.clearGateway(r); err != nil {
			return err
		}
	}
	if want == nil {
		return nil
	}
	return c.setGateway(r, want)
}

// setGateway attaches a router to an external network by a port of its own.
func (c *Change) setGateway(r *network.Router, want *network.RouterGateway) error {
	n, err := c.networks.Get(c.ctx, c.tx, want.NetworkID)
	if err != nil {
		return err
	}
	if !n.External {
		return fault.New(fault.Invalid, "Bad router request: Network %s is not an external network.", n.ID).WithCode("BadRequest")
	}
	subnets, err := c.subnetsOf(n.ID)
	if err != nil {
		return err
	}
	in := &PortInput{Port: network.Port{NetworkID: n.ID, DeviceID: r.ID, DeviceOwner: network.OwnerRouterGateway, AdminStateUp: true, Status: "ACTIVE",
		FixedIPs: want.FixedIPs}, FixedSet: len(want.FixedIPs) > 0, GroupsSet: true}
	if len(subnets) == 0 {
		in.FixedSet = true
	}
	p, err := c.CreatePort(in)
	if err != nil {
		return err
	}
	r.Gateway = &network.RouterGateway{NetworkID: n.ID, SNAT: want.SNAT, PortID: p.ID, FixedIPs: p.FixedIPs}
	return c.touchRouter(r.ID)
}

func (c *Change) clearGateway(r *network.Router) error {
	used, err := documents.Exists(c.ctx, c.tx, "SELECT 1 FROM network_floatingips WHERE router_id = ? LIMIT 1", r.ID)
	if err != nil {
		return err
	}
	if used {
		return fault.New(fault.Conflict, "Gateway cannot be updated for router %s, since a gateway to external network %s is required by one or more floating IPs.",
			r.ID, r.Gateway.NetworkID).WithCode("RouterExternalGatewayInUseByFloatingIp")
	}
	if err := c.DeletePort(r.Gateway.PortID); err != nil && fault.KindOf(err) != fault.NotFound {
		return err
	}
	r.Gateway = nil
	return c.touchRouter(r.ID)
}

// touchRouter notes that the networks that a router joins are reached differently now.
func (c *Change) touchRouter(routerID string) error {
	nets, err := documents.Strings(c.ctx, c.tx, "SELECT DISTINCT network_id FROM network_ports WHERE device_id IN (%)", []string{routerID})
	wake.Mark(&c.dirty.Networks, nets...)
	return err
}

// DeleteRouter removes a router; fault.Conflict RouterInUse while it has interfaces.
func (c *Change) DeleteRouter(routerID string) error {
	r, err := c.routers.Lock(c.ctx, c.tx, routerID)
	if err != nil {
		return err
	}
	used, err := documents.Exists(c.ctx, c.tx, "SELECT 1 FROM network_ports WHERE device_id = ? AND device_owner = ? LIMIT 1", routerID, network.OwnerRouterInterface)
	if err != nil {
		return err
	}
	if used {
		return fault.New(fault.Conflict, "Router %s still has ports.", routerID).WithCode("RouterInUse")
	}
	if r.Gateway != nil {
		if err := c.clearGateway(r); err != nil {
			return err
		}
	}
	if err := c.use(r.ProjectID, "router", -1); err != nil {
		return err
	}
	return c.routers.Delete(c.ctx, c.tx, routerID)
}

// Interface is the answer about a router's interface.
type Interface struct {
	Router *network.Router
	Port   *network.Port
	Subnet string
}

// AddInterface joins a subnet to a router, by the subnet (the router takes its gateway address) or by a port that nobody uses.
func (c *Change) AddInterface(routerID, subnetID, portID string) (*Interface, error) {
	r, err := c.routers.Lock(c.ctx, c.tx, routerID)
	if err != nil {
		return nil, err
	}
	have, err := c.routerPrefixes(routerID)
	if err != nil {
		return nil, err
	}
	var p *network.Port
	if portID != "" {
		p, err = c.interfaceFromPort(r, portID, have)
	} else {
		p, err = c.interfaceFromSubnet(r, subnetID, have)
	}
	if err != nil {
		return nil, err
	}
	wake.Mark(&c.dirty.Networks, p.NetworkID)
	for _, h := range have {
		wake.Mark(&c.dirty.Networks, h.network)
	}
	return &Interface{Router: r, Port: p, Subnet: p.FixedIPs[0].SubnetID}, nil
}

type routed struct {
	subnet, network string
	prefix          netip.Prefix
}

// routerPrefixes gives the subnets that a router joins.
func (c *Change) routerPrefixes(routerID string) ([]routed, error) {
	subs, err := c.subnets.List(c.ctx, c.tx, `id IN (SELECT a.subnet_id FROM network_addresses a JOIN network_ports p ON p.id = a.port_id
 WHERE p.device_id = ? AND p.device_owner = ?)`, routerID, network.OwnerRouterInterface)
	if err != nil {
		return nil, err
	}
	out := make([]routed, len(subs))
	for i := range subs {
		p, err := ipam.Prefix(&subs[i])
		if err != nil {
			return nil, err
		}
		out[i] = routed{subs[i].ID, subs[i].NetworkID, p}
	}
	return out, nil
}

func fits(r *network.Router, s *network.Subnet, have []routed) error {
	p, err := ipam.Prefix(s)
	if err != nil {
		return err
	}
	for _, h := range have {
		if h.subnet == s.ID {
			return fault.New(fault.Invalid, "Bad router request: Router already has a port on subnet %s.", s.ID).WithCode("BadRequest")
		}
		if h.prefix.Overlaps(p) {
			return fault.New(fault.Invalid, "Bad router request: Cidr %s of subnet %s overlaps with cidr %s of subnet %s.", p, s.ID, h.prefix, h.subnet).WithCode("BadRequest")
		}
	}
	return nil
}

func (c *Change) interfaceFromSubnet(r *network.Router, subnetID string, have []routed) (*network.Port, error) {
	s, err := c.subnets.Get(c.ctx, c.tx, subnetID)
	if err != nil {
		return nil, err
	}
	if s.Gateway == "" {
		return nil, fault.New(fault.Invalid, "Bad router request: Subnet for router interface must have a gateway IP.").WithCode("BadRequest")
	}
	if err := fits(r, s, have); err != nil {
		return nil, err
	}
	in := &PortInput{Port: network.Port{ProjectID: r.ProjectID, NetworkID: s.NetworkID, DeviceID: r.ID, DeviceOwner: network.OwnerRouterInterface,
		AdminStateUp: true, Status: "ACTIVE", FixedIPs: []network.FixedIP{{SubnetID: s.ID, Address: s.Gateway}}}, FixedSet: true, GroupsSet: true}
	return c.CreatePort(in)
}

func (c *Change) interfaceFromPort(r *network.Router, portID string, have []routed) (*network.Port, error) {
	return c.UpdatePort(portID, func(p *network.Port) error {
		if p.DeviceID != "" {
			return fault.New(fault.Conflict, "Unable to complete operation on port %s for network %s. Port already has an attached device %s.", p.ID, p.NetworkID, p.DeviceID).WithCode("PortInUse")
		}
		if len(p.FixedIPs) == 0 {
			return fault.New(fault.Invalid, "Bad router request: Router port must have at least one fixed IP.").WithCode("BadRequest")
		}
		for _, f := range p.FixedIPs {
			s, err := c.subnets.Get(c.ctx, c.tx, f.SubnetID)
			if err != nil {
				return err
			}
			if err := fits(r, s, have); err != nil {
				return err
			}
		}
		p.DeviceID, p.DeviceOwner, p.Status = r.ID, network.OwnerRouterInterface, "ACTIVE"
		p.SecurityGroups, p.PortSecurity, p.AllowedPairs = nil, false, nil
		return nil
	})
}

// RemoveInterface takes a subnet off a router; fault.Conflict RouterInterfaceInUse… while floating IPs or routes need it.
func (c *Change) RemoveInterface(routerID, subnetID, portID string) (*Interface, error) {
	r, err := c.routers.Lock(c.ctx, c.tx, routerID)
	if err != nil {
		return nil, err
	}
	p, err := c.interfacePort(routerID, subnetID, portID)
	if err != nil {
		return nil, err
	}
	for _, f := range p.FixedIPs {
		if err := c.interfaceUnused(r, f.SubnetID); err != nil {
			return nil, err
		}
	}
	if err := c.touchRouter(routerID); err != nil {
		return nil, err
	}
	out := &Interface{Router: r, Port: p}
	if len(p.FixedIPs) > 0 {
		out.Subnet = p.FixedIPs[0].SubnetID
	}
	return out, c.DeletePort(p.ID)
}

func (c *Change) interfacePort(routerID, subnetID, portID string) (*network.Port, error) {
	if portID != "" {
		p, err := c.portByID(c.ctx, c.tx, portID)
		if err != nil {
			return nil, err
		}
		if p == nil || p.DeviceID != routerID || p.DeviceOwner != network.OwnerRouterInterface {
			return nil, fault.New(fault.NotFound, "Router %s does not have an interface with id %s.", routerID, portID).WithCode("RouterInterfaceNotFound")
		}
		if subnetID != "" && !hasSubnet(p.FixedIPs, subnetID) {
			return nil, fault.New(fault.Conflict, "Subnet %s not connected to the port %s of router %s.", subnetID, portID, routerID).WithCode("SubnetMismatchForPort")
		}
		return p, nil
	}
	if _, err := c.subnets.Get(c.ctx, c.tx, subnetID); err != nil {
		return nil, err
	}
	ports, err := c.ports.List(c.ctx, c.tx, "device_id = ? AND device_owner = ?", routerID, network.OwnerRouterInterface)
	if err != nil {
		return nil, err
	}
	for i := range ports {
		if hasSubnet(ports[i].FixedIPs, subnetID) {
			return &ports[i], nil
		}
	}
	return nil, fault.New(fault.NotFound, "Router %s has no interface on subnet %s.", routerID, subnetID).WithCode("RouterInterfaceNotFoundForSubnet")
}

func (c *Change) interfaceUnused(r *network.Router, subnetID string) error {
	used, err := documents.Exists(c.ctx, c.tx, `SELECT 1 FROM network_floatingips f JOIN network_addresses a ON a.port_id = f.port_id
 WHERE f.router_id = ? AND a.subnet_id = ? LIMIT 1`, r.ID, subnetID)
	if err != nil {
		return err
	}
	if used {
		return fault.New(fault.Conflict, "Router interface for subnet %s on router %s cannot be deleted, as it is required by one or more floating IPs.", subnetID, r.ID).WithCode("RouterInterfaceInUseByFloatingIP")
	}
	s, err := c.subnets.Get(c.ctx, c.tx, subnetID)
	if err != nil {
		return err
	}
	p, err := ipam.Prefix(s)
	if err != nil {
		return err
	}
	for _, rt := range r.Routes {
		if a, err := ipam.ParseAddr(rt.NextHop); err == nil && p.Contains(a) {
			return fault.New(fault.Conflict, "Router interface for subnet %s on router %s cannot be deleted, as it is required by one or more routes.", subnetID, r.ID).WithCode("RouterInterfaceInUseByRoute")
		}
	}
	return nil
}

// checkRoutes verifies that each next hop is on a network that the router joins, and is not the router itself.
func (c *Change) checkRoutes(r *network.Router) error {
	bad := func(why string) error {
		return fault.New(fault.Invalid, "Invalid format for routes: %s, %s", network.RoutesText(r.Routes), why).WithCode("InvalidRoutes")
	}
	have, err := c.routerPrefixes(r.ID)
	if err != nil {
		return err
	}
	if r.Gateway != nil {
		for _, f := range r.Gateway.FixedIPs {
			s, err := c.subnets.Get(c.ctx, c.tx, f.SubnetID)
			if err != nil {
				return err
			}
			p, err := ipam.Prefix(s)
			if err != nil {
				return err
			}
			have = append(have, routed{prefix: p})
		}
	}
	own, err := c.ports.List(c.ctx, c.tx, "device_id = ?", r.ID)
	if err != nil {
		return err
	}
	for _, rt := range r.Routes {
		if _, err := ipam.ParsePrefix(rt.Destination); err != nil {
			return err
		}
		hop, err := ipam.ParseAddr(rt.NextHop)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(have, func(h routed) bool { return h.prefix.Contains(hop) }) {
			return bad(fmt.Sprintf("the nexthop %s is not connected with router", hop))
		}
		for i := range own {
			if slices.ContainsFunc(own[i].FixedIPs, func(f network.FixedIP) bool { return ipam.Same(f.Address, rt.NextHop) }) {
				return bad(fmt.Sprintf("the nexthop %s is used by router", hop))
			}
		}
	}
	return nil
}
