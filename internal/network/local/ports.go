package local

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"

	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/network"
	"kilonova/internal/network/documents"
	"kilonova/internal/network/ipam"
	"kilonova/internal/network/segments"
	"kilonova/internal/network/wake"
)

// Ports lists ports. A project sees its own and those on its networks.
func (s *Service) Ports(ctx context.Context, f Filter) ([]network.Port, error) {
	return s.ports.Find(ctx, s.db, f, "network_id IN (SELECT id FROM network_networks WHERE project_id = ?)", f.Project)
}

// PortInput is what a new port is made of besides the fields of Port.
type PortInput struct {
	network.Port
	FixedSet  bool // FixedIPs are as asked, also when empty; otherwise one address of each version
	GroupsSet bool // SecurityGroups are as asked; otherwise the project's default group when port security is on
}

// CreatePort makes a port with its addresses. A port with the same id that is there already is the answer.
func (c *Change) CreatePort(in *PortInput) (*network.Port, error) {
	p := &in.Port
	if p.ID == "" {
		p.ID = id.UUID()
	}
	if _, err := c.networks.Get(c.ctx, c.tx, p.NetworkID); err != nil {
		return nil, err
	}
	subnets, err := c.subnetsOf(p.NetworkID)
	if err != nil {
		return nil, err
	}
	if err := c.use(p.ProjectID, "port", 1); err != nil {
		return nil, err
	}
	if p.MAC, err = c.mac(p.NetworkID, p.MAC); err != nil {
		return nil, err
	}
	if p.Status == "" {
		p.Status = "DOWN"
	}
	if err := c.bind(p); err != nil {
		return nil, err
	}
	if subnets, err = c.within(p, subnets, in.FixedSet); err != nil {
		return nil, err
	}
	if p.FixedIPs, err = c.assign(p, subnets, p.FixedIPs, in.FixedSet || p.IPAllocation == network.AllocationDeferred, nil); err != nil {
		return nil, err
	}
	if err := segments.Place(p, subnets); err != nil {
		return nil, err
	}
	if !in.GroupsSet && p.PortSecurity && !strings.HasPrefix(p.DeviceOwner, "network:") {
		g, err := c.DefaultGroup(p.ProjectID)
		if err != nil {
			return nil, err
		}
		p.SecurityGroups = []string{g}
	}
	if err := c.setGroups(p, nil); err != nil {
		return nil, err
	}
	if err := checkSecurity(p); err != nil {
		return nil, err
	}
	c.touch(p)
	return p, c.ports.Insert(c.ctx, c.tx, p)
}

// subnetsOf gives the subnets of a network in the order in which they were made.
func (c *Change) subnetsOf(networkID string) ([]network.Subnet, error) {
	subs, err := c.subnets.List(c.ctx, c.tx, "network_id = ?", networkID)
	slices.SortFunc(subs, func(a, b network.Subnet) int { return a.Created.Compare(b.Created) })
	return subs, err
}

// mac verifies that a MAC is free on the network, or makes one with the prefix fa:16:3e that OpenStack uses.
func (c *Change) mac(networkID, want string) (string, error) {
	for {
		mac := strings.ToLower(want)
		if mac == "" {
			var b [3]byte
			_, _ = rand.Read(b[:]) // never fails
			mac = fmt.Sprintf("fa:16:3e:%02x:%02x:%02x", b[0], b[1], b[2])
		}
		taken, err := documents.Exists(c.ctx, c.tx, "SELECT 1 FROM network_ports WHERE network_id = ? AND mac_address = ?", networkID, mac)
		if err != nil || !taken {
			return mac, err
		}
		if want != "" {
			return "", fault.New(fault.Conflict, "Unable to complete operation for network %s. The mac address %s is in use.", networkID, mac).WithCode("MacAddressInUse")
		}
	}
}

// bind derives the kind of interface from the host. A host whose agent has never asked what to wire has nothing to wire with (a
// simulated one): its ports count as wired as soon as they are bound.
func (c *Change) bind(p *network.Port) error {
	p.VNICType, p.VIFType = vif(p.HostID, p.VNICType)
	if p.HostID != "" && network.IsDevice(p.VNICType) {
		return c.bindDevice(p)
	}
	if p.VIFType != "bridge" || p.DeviceID == "" || p.Status != "DOWN" || strings.HasPrefix(p.DeviceOwner, "network:") {
		return nil
	}
	wires, err := c.wires(p.HostID)
	if err == nil && !wires {
		p.Status = "ACTIVE"
	}
	return err
}

// vif is the kind of interface on a host: Linux bridges are what the hosts have.
func vif(host, vnic string) (vnicType, vifType string) {
	if vnic == "" {
		vnic = "normal"
	}
	switch {
	case host == "":
		return vnic, "unbound"
	case vnic != "normal":
		return vnic, "binding_failed"
	}
	return vnic, "bridge"
}

// checkSecurity verifies that groups and address pairs go with port security and that pairs are addresses.
func checkSecurity(p *network.Port) error {
	if !p.PortSecurity && len(p.SecurityGroups) > 0 {
		return fault.New(fault.Conflict, "Port Security must be enabled in order to have allowed address pairs or security groups on a port.").WithCode("PortSecurityAndIPRequiredForSecurityGroups")
	}
	if !p.PortSecurity && len(p.AllowedPairs) > 0 {
		return fault.New(fault.Conflict, "Port Security must be enabled in order to have allowed address pairs on a port.").WithCode("AddressPairAndPortSecurityRequired")
	}
	seen := map[network.AddressPair]bool{}
	for _, a := range p.AllowedPairs {
		if a.MAC == "" {
			a.MAC = p.MAC
		}
		if seen[a] {
			return fault.New(fault.Invalid, "Request contains duplicate address pair: mac_address %s ip_address %s.", a.MAC, a.IP).WithCode("DuplicateAddressPairInRequest")
		}
		seen[a] = true
	}
	return nil
}

// setGroups keeps the table of members equal to the port's groups, which must exist. before are the groups that it had.
func (c *Change) setGroups(p *network.Port, before []string) error {
	slices.Sort(p.SecurityGroups)
	p.SecurityGroups = slices.Compact(p.SecurityGroups)
	for _, g := range before {
		if !slices.Contains(p.SecurityGroups, g) {
			if _, err := c.tx.Exec(c.ctx, "DELETE FROM network_port_groups WHERE port_id = ? AND group_id = ?", p.ID, g); err != nil {
				return fmt.Errorf("leave security group: %w", err)
			}
		}
	}
	for _, g := range p.SecurityGroups {
		if slices.Contains(before, g) {
			continue
		}
		ok, err := documents.Exists(c.ctx, c.tx, "SELECT 1 FROM network_groups WHERE id = ?"+c.tx.ForUpdate(), g)
		if err != nil {
			return err
		}
		if !ok {
			return documents.NotFound("SecurityGroup", g)
		}
		if _, err := c.tx.Exec(c.ctx, "INSERT INTO network_port_groups (port_id, group_id) VALUES (?, ?)", p.ID, g); err != nil {
			return fmt.Errorf("join security group: %w", err)
		}
	}
	return nil
}

// UpdatePort changes a port: new addresses are taken, dropped ones given back, groups and binding follow.
func (c *Change) UpdatePort(portID string, change func(p *network.Port) error) (*network.Port, error) {
	p, err := c.ports.Lock(c.ctx, c.tx, portID)
	if err != nil {
		return nil, err
	}
	before := *p
	before.SecurityGroups = slices.Clone(p.SecurityGroups)
	p.FixedIPs = slices.Clone(p.FixedIPs)
	if err := change(p); err != nil {
		return nil, err
	}
	c.touch(&before)
	if p.MAC = strings.ToLower(p.MAC); p.MAC != before.MAC {
		if p.MAC, err = c.mac(p.NetworkID, p.MAC); err != nil {
			return nil, err
		}
	}
	if p.HostID != before.HostID {
		p.Status = "DOWN"
		if before.HostID != "" && p.HostID != "" { // it has moved: what was reserved for it there is used
			if err := c.dropReserved(p, p.HostID); err != nil {
				return nil, err
			}
		}
	}
	if err := c.bind(p); err != nil {
		return nil, err
	}
	if err := c.follow(p, &before); err != nil {
		return nil, err
	}
	if err := c.readdress(p, before.FixedIPs); err != nil {
		return nil, err
	}
	if err := c.setGroups(p, before.SecurityGroups); err != nil {
		return nil, err
	}
	if err := checkSecurity(p); err != nil {
		return nil, err
	}
	c.touch(p)
	return p, c.ports.Update(c.ctx, c.tx, p)
}

// readdress changes the addresses that a port had into those that it asks for.
func (c *Change) readdress(p *network.Port, before []network.FixedIP) error {
	if slices.Equal(p.FixedIPs, before) {
		return nil
	}
	var kept, want, drop []network.FixedIP
	left := slices.Clone(before)
	// An address that is named stays; a subnet without an address keeps what the port has there.
	for _, exact := range []bool{true, false} {
		for _, w := range p.FixedIPs {
			if (w.Address != "") != exact {
				continue
			}
			i := slices.IndexFunc(left, func(f network.FixedIP) bool {
				if exact {
					return ipam.Same(f.Address, w.Address) && (w.SubnetID == "" || w.SubnetID == f.SubnetID)
				}
				return f.SubnetID == w.SubnetID
			})
			if i >= 0 {
				kept, left = append(kept, left[i]), slices.Delete(left, i, i+1)
			} else {
				want = append(want, w)
			}
		}
	}
	drop = left
	if err := c.giveBack(p.NetworkID, drop); err != nil {
		return err
	}
	subnets, err := c.subnetsOf(p.NetworkID)
	if err != nil {
		return err
	}
	if subnets, err = c.within(p, subnets, true); err != nil {
		return err
	}
	if p.FixedIPs, err = c.assign(p, subnets, want, true, kept); err != nil {
		return err
	}
	if err := segments.Place(p, subnets); err != nil {
		return err
	}
	return c.floatingLost(p, drop)
}

// DeletePort removes a port, frees its addresses and lets go of its floating IPs; fault.NotFound when it is not there.
func (c *Change) DeletePort(portID string) error {
	p, err := c.ports.Lock(c.ctx, c.tx, portID)
	if err != nil {
		return err
	}
	if err := c.floatingLost(p, p.FixedIPs); err != nil {
		return err
	}
	if err := c.giveBack(p.NetworkID, p.FixedIPs); err != nil {
		return err
	}
	if len(p.SecurityGroups) > 0 {
		if _, err := c.tx.Exec(c.ctx, "DELETE FROM network_port_groups WHERE port_id = ?", portID); err != nil {
			return fmt.Errorf("leave security groups: %w", err)
		}
	}
	if _, err := c.tx.Exec(c.ctx, "DELETE FROM network_bindings WHERE port_id = ?", portID); err != nil {
		return fmt.Errorf("remove bindings: %w", err)
	}
	if err := c.use(p.ProjectID, "port", -1); err != nil {
		return err
	}
	c.touch(p)
	return c.ports.Delete(c.ctx, c.tx, portID)
}

// Deletable fails for ports that the service itself made for a router or floating IP: these go with their maker.
func (c *Change) Deletable(portID string) error {
	p, err := c.ports.Get(c.ctx, c.tx, portID)
	if err != nil {
		return err
	}
	var why string
	switch p.DeviceOwner {
	case network.OwnerRouterInterface, network.OwnerRouterGateway:
		ok, err := documents.Exists(c.ctx, c.tx, "SELECT 1 FROM network_routers WHERE id = ?", p.DeviceID)
		if err != nil || !ok {
			return err
		}
		why = "has device owner " + p.DeviceOwner
	case network.OwnerFloatingIP:
		ok, err := documents.Exists(c.ctx, c.tx, "SELECT 1 FROM network_floatingips WHERE id = ?", p.DeviceID)
		if err != nil || !ok {
			return err
		}
		why = "has device owner " + p.DeviceOwner
	default:
		return nil
	}
	return fault.New(fault.Conflict, "Port %s cannot be deleted directly via the port API: %s.", p.ID, why).WithCode("ServicePortInUse")
}

// portByID reads a port inside or outside of a transaction; nil when it is not there.
func (s *Service) portByID(ctx context.Context, q db.Querier, portID string) (*network.Port, error) {
	p, err := s.ports.Get(ctx, q, portID)
	if fault.KindOf(err) == fault.NotFound {
		return nil, nil
	}
	return p, err
}

// touch notes what a port that came, went or changed means for hosts.
func (c *Change) touch(p *network.Port) {
	wake.Mark(&c.dirty.Hosts, p.HostID)
	if len(p.FixedIPs) > 0 {
		wake.Mark(&c.dirty.Networks, p.NetworkID)
		wake.Mark(&c.dirty.Groups, p.SecurityGroups...)
	}
}
