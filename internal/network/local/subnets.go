package local

import (
	"context"
	"fmt"
	"slices"

	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/network"
	"kilonova/internal/network/documents"
	"kilonova/internal/network/ipam"
	"kilonova/internal/network/wake"
)

// sharedSubnets is the condition for subnets of networks that others share with a project.
const sharedSubnets = `network_id IN (SELECT object_id FROM network_rbac WHERE object_type = 'network' AND action = 'access_as_shared' AND target IN ('*', ?))
 OR network_id IN (SELECT id FROM network_networks WHERE project_id = ?)`

// Subnets lists subnets. A project sees its own and those of networks that it owns or that are shared with it.
func (s *Service) Subnets(ctx context.Context, f Filter) ([]network.Subnet, error) {
	return s.subnets.Find(ctx, s.db, f, sharedSubnets, f.Project, f.Project)
}

// SubnetRequest asks for a subnet.
type SubnetRequest struct {
	network.Subnet
	GatewaySet bool // the gateway is as given, also when empty; otherwise the first address
	PoolsSet   bool
	PrefixLen  int // of a subnet cut from a subnet pool; 0: the pool's default
}

// CreateSubnet makes a subnet of a network.
func (c *Change) CreateSubnet(r *SubnetRequest) (*network.Subnet, error) {
	s := &r.Subnet
	if s.ID == "" {
		s.ID = id.UUID()
	}
	n, err := c.networks.Lock(c.ctx, c.tx, s.NetworkID)
	if err != nil {
		return nil, err
	}
	others, err := c.subnets.List(c.ctx, c.tx, "network_id = ?", s.NetworkID)
	if err != nil {
		return nil, err
	}
	if err := c.segments.CheckSubnet(c.ctx, c.tx, n, s, others); err != nil {
		return nil, err
	}
	c.dirty.Segments = c.dirty.Segments || s.SegmentID != ""
	if s.SubnetPoolID != "" {
		if err := c.cut(r); err != nil {
			return nil, err
		}
	}
	p, err := ipam.ParsePrefix(s.CIDR)
	if err != nil {
		return nil, err
	}
	s.CIDR = p.String()
	if err := ipam.CheckPrefix(p, s); err != nil {
		return nil, err
	}
	if err := ipam.NoOverlap(p, s.NetworkID, others); err != nil {
		return nil, err
	}
	if !r.GatewaySet {
		s.Gateway = ipam.DefaultGateway(p)
	}
	if err := ipam.CheckSubnet(s, p, r.PoolsSet); err != nil {
		return nil, err
	}
	if err := c.use(s.ProjectID, "subnet", 1); err != nil {
		return nil, err
	}
	if err := c.subnets.Insert(c.ctx, c.tx, s); err != nil {
		return nil, err
	}
	if err := c.setPools(s); err != nil {
		return nil, err
	}
	wake.Mark(&c.dirty.Networks, s.NetworkID)
	if ipam.Automatic(s) && s.SegmentID == "" { // ports of a routed network get addresses of their segment when they come to a host
		return s, c.addAutomatic(s)
	}
	return s, nil
}

// addAutomatic gives the ports that are on the network an address of a new subnet on which guests make their own.
func (c *Change) addAutomatic(s *network.Subnet) error {
	ports, err := c.ports.List(c.ctx, c.tx, "network_id = ? AND device_owner NOT IN (?, ?, ?)", s.NetworkID,
		network.OwnerRouterInterface, network.OwnerRouterGateway, network.OwnerFloatingIP)
	if err != nil {
		return err
	}
	for i := range ports {
		p := &ports[i]
		f, err := c.assignAuto(p, s)
		if err != nil {
			return err
		}
		p.FixedIPs = network.InOrder(append(p.FixedIPs, f))
		c.touch(p)
		if err := c.ports.Update(c.ctx, c.tx, p); err != nil {
			return err
		}
	}
	return nil
}

// UpdateSubnet changes a subnet. Addresses that ports have stay theirs, also outside of changed pools.
func (c *Change) UpdateSubnet(subnetID string, change func(s *network.Subnet) error) (*network.Subnet, error) {
	s, err := c.subnets.Lock(c.ctx, c.tx, subnetID)
	if err != nil {
		return nil, err
	}
	before := *s
	if err := change(s); err != nil {
		return nil, err
	}
	p, err := ipam.Prefix(s)
	if err != nil {
		return nil, err
	}
	if err := ipam.CheckPrefix(p, s); err != nil {
		return nil, err
	}
	if err := c.segments.Associate(c.ctx, c.tx, &before, s); err != nil {
		return nil, err
	}
	c.dirty.Segments = c.dirty.Segments || s.SegmentID != ""
	if s.Gateway != before.Gateway {
		if err := c.gatewayFree(&before); err != nil {
			return nil, err
		}
	}
	if err := ipam.CheckSubnet(s, p, true); err != nil {
		return nil, err
	}
	if !slices.Equal(s.Pools, before.Pools) {
		if err := c.setPools(s); err != nil {
			return nil, err
		}
	}
	wake.Mark(&c.dirty.Networks, s.NetworkID)
	return s, c.subnets.Update(c.ctx, c.tx, s)
}

// gatewayFree fails when a router has the subnet's gateway address.
func (c *Change) gatewayFree(s *network.Subnet) error {
	if s.Gateway == "" {
		return nil
	}
	gw, err := ipam.ParseAddr(s.Gateway)
	if err != nil {
		return err
	}
	var port string
	row := c.tx.QueryRow(c.ctx, `SELECT a.port_id FROM network_addresses a JOIN network_ports p ON p.id = a.port_id
 WHERE a.network_id = ? AND a.addr = ? AND p.device_owner = ?`, s.NetworkID, ipam.Key(gw), network.OwnerRouterInterface)
	if row.Scan(&port) == nil {
		return fault.New(fault.Conflict, "Current gateway ip %s already in use by port %s. Unable to update.", gw, port).WithCode("GatewayIpInUse")
	}
	return nil
}

// DeleteSubnet removes a subnet; fault.Conflict SubnetInUse while ports have addresses of it that they did not make themselves.
func (c *Change) DeleteSubnet(subnetID string) error {
	s, err := c.subnets.Lock(c.ctx, c.tx, subnetID)
	if err != nil {
		return err
	}
	ids, err := documents.Strings(c.ctx, c.tx, "SELECT port_id FROM network_addresses WHERE subnet_id IN (%)", []string{subnetID})
	if err != nil {
		return err
	}
	ports, err := c.ports.In(c.ctx, c.tx, "id", ids)
	if err != nil {
		return err
	}
	for i := range ports {
		if !ipam.Automatic(s) || ports[i].DeviceOwner == network.OwnerRouterInterface {
			return fault.New(fault.Conflict, "Unable to complete operation on subnet %s: One or more ports have an IP allocation from this subnet.", subnetID).WithCode("SubnetInUse")
		}
	}
	for i := range ports {
		p := &ports[i]
		var keep, drop []network.FixedIP
		for _, f := range p.FixedIPs {
			if f.SubnetID == subnetID {
				drop = append(drop, f)
			} else {
				keep = append(keep, f)
			}
		}
		if err := c.giveBack(p.NetworkID, drop); err != nil {
			return err
		}
		p.FixedIPs = keep
		c.touch(p)
		if err := c.ports.Update(c.ctx, c.tx, p); err != nil {
			return err
		}
	}
	wake.Mark(&c.dirty.Networks, s.NetworkID)
	return c.removeSubnet(s)
}

func (c *Change) removeSubnet(s *network.Subnet) error {
	c.dirty.Segments = c.dirty.Segments || s.SegmentID != ""
	if err := c.dropPools(s.ID); err != nil {
		return err
	}
	if err := c.use(s.ProjectID, "subnet", -1); err != nil {
		return err
	}
	return c.subnets.Delete(c.ctx, c.tx, s.ID)
}

// AddressesUsed counts the addresses in use per subnet.
func (s *Service) AddressesUsed(ctx context.Context, subnetIDs []string) (map[string]int64, error) {
	type used struct {
		subnet string
		n      int64
	}
	rows, err := documents.Collect(ctx, s.db, "SELECT subnet_id, COUNT(*) FROM network_addresses WHERE subnet_id IN (%) GROUP BY subnet_id", subnetIDs,
		func(scan func(...any) error) (u used, err error) { return u, scan(&u.subnet, &u.n) })
	if err != nil {
		return nil, fmt.Errorf("count addresses: %w", err)
	}
	out := map[string]int64{}
	for _, r := range rows {
		out[r.subnet] = r.n
	}
	return out, nil
}
