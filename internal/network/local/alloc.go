package local

import (
	"fmt"
	"net/netip"

	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/network"
	"kilonova/internal/network/documents"
	"kilonova/internal/network/ipam"
)

// past sorts after every address: the cursor of a pool whose last address was the highest there is.
const past = "z"

// setPools stores the allocation pools of a subnet. Addresses in use are passed over when the cursor meets them.
func (c *Change) setPools(s *network.Subnet) error {
	if err := c.dropPools(s.ID); err != nil {
		return err
	}
	for i, p := range s.Pools {
		from, err := ipam.ParseAddr(p.Start)
		if err != nil {
			return err
		}
		to, err := ipam.ParseAddr(p.End)
		if err != nil {
			return err
		}
		if _, err := c.tx.Exec(c.ctx, "INSERT INTO network_pools (subnet_id, ord, first_addr, last_addr, next_addr) VALUES (?, ?, ?, ?, ?)",
			s.ID, i, ipam.Key(from), ipam.Key(to), ipam.Key(from)); err != nil {
			return fmt.Errorf("store allocation pools: %w", err)
		}
	}
	return nil
}

func (c *Change) dropPools(subnetID string) error {
	for _, q := range []string{"DELETE FROM network_pools WHERE subnet_id = ?", "DELETE FROM network_released WHERE subnet_id = ?"} {
		if _, err := c.tx.Exec(c.ctx, q, subnetID); err != nil {
			return fmt.Errorf("remove allocation pools: %w", err)
		}
	}
	return nil
}

// take gives a port one named address of a subnet; fault.Conflict IpAddressInUse when another has it.
func (c *Change) take(s *network.Subnet, a netip.Addr, portID string) (network.FixedIP, error) {
	key := ipam.Key(a)
	used, err := c.inUse(s.NetworkID, key)
	if err != nil {
		return network.FixedIP{}, err
	}
	if used {
		return network.FixedIP{}, fault.New(fault.Conflict, "Unable to complete operation for network %s. The IP address %s is in use.", s.NetworkID, a).WithCode("IpAddressInUse")
	}
	if _, err := c.tx.Exec(c.ctx, "DELETE FROM network_released WHERE subnet_id = ? AND addr = ?", s.ID, key); err != nil {
		return network.FixedIP{}, fmt.Errorf("take address: %w", err)
	}
	return c.record(s, a, key, portID)
}

func (c *Change) inUse(networkID, key string) (bool, error) {
	return documents.Exists(c.ctx, c.tx, "SELECT 1 FROM network_addresses WHERE network_id = ? AND addr = ?", networkID, key)
}

func (c *Change) record(s *network.Subnet, a netip.Addr, key, portID string) (network.FixedIP, error) {
	if _, err := c.tx.Exec(c.ctx, "INSERT INTO network_addresses (network_id, addr, subnet_id, port_id) VALUES (?, ?, ?, ?)",
		s.NetworkID, key, s.ID, portID); err != nil {
		return network.FixedIP{}, fmt.Errorf("take address: %w", err)
	}
	return network.FixedIP{SubnetID: s.ID, Address: a.String()}, nil
}

// takeAny gives a port a free address of the subnet's pools: one that was given back, or the next one never used. ok is
// false when none is left.
func (c *Change) takeAny(s *network.Subnet, portID string) (fixed network.FixedIP, ok bool, err error) {
	pools, err := c.lockPools(s.ID)
	if err != nil {
		return fixed, false, err
	}
	key, err := c.reuse(s)
	for i := 0; err == nil && key == "" && i < len(pools); i++ {
		key, err = c.advance(s, &pools[i])
	}
	if err != nil || key == "" {
		return fixed, false, err
	}
	a, err := ipam.FromKey(key)
	if err != nil {
		return fixed, false, err
	}
	fixed, err = c.record(s, a, key, portID)
	return fixed, err == nil, err
}

type pool struct {
	ord        int
	last, next string
}

// lockPools reads the pools of a subnet; whoever else allocates from it waits.
func (c *Change) lockPools(subnetID string) ([]pool, error) {
	rows, err := c.tx.Query(c.ctx, "SELECT ord, last_addr, next_addr FROM network_pools WHERE subnet_id = ? ORDER BY ord"+c.tx.ForUpdate(), subnetID)
	if err != nil {
		return nil, fmt.Errorf("read allocation pools: %w", err)
	}
	defer rows.Close()
	var out []pool
	for rows.Next() {
		var p pool
		if err := rows.Scan(&p.ord, &p.last, &p.next); err != nil {
			return nil, fmt.Errorf("read allocation pools: %w", err)
		}
		out = append(out, p)
	}
	return out, rows.Err()
}

// reuse takes the lowest address that was given back; "" when there is none.
func (c *Change) reuse(s *network.Subnet) (string, error) {
	for {
		var key string
		err := c.tx.QueryRow(c.ctx, "SELECT addr FROM network_released WHERE subnet_id = ? ORDER BY addr LIMIT 1", s.ID).Scan(&key)
		if db.IsNoRows(err) {
			return "", nil
		}
		if err == nil {
			_, err = c.tx.Exec(c.ctx, "DELETE FROM network_released WHERE subnet_id = ? AND addr = ?", s.ID, key)
		}
		if err != nil {
			return "", fmt.Errorf("reuse address: %w", err)
		}
		used, err := c.inUse(s.NetworkID, key)
		if err != nil || !used {
			return key, err
		}
	}
}

// advance takes the next address of a pool that nobody has, and moves the pool's cursor behind it; "" at its end.
func (c *Change) advance(s *network.Subnet, p *pool) (string, error) {
	start, found := p.next, ""
	for found == "" && p.next <= p.last {
		used, err := c.inUse(s.NetworkID, p.next)
		if err != nil {
			return "", err
		}
		if !used {
			found = p.next
		}
		a, err := ipam.FromKey(p.next)
		if err != nil {
			return "", err
		}
		if n := a.Next(); n.IsValid() {
			p.next = ipam.Key(n)
		} else {
			p.next = past
		}
	}
	if p.next == start {
		return "", nil
	}
	if _, err := c.tx.Exec(c.ctx, "UPDATE network_pools SET next_addr = ? WHERE subnet_id = ? AND ord = ?", p.next, s.ID, p.ord); err != nil {
		return "", fmt.Errorf("take address: %w", err)
	}
	return found, nil
}

// giveBack frees addresses of a port.
func (c *Change) giveBack(networkID string, ips []network.FixedIP) error {
	for _, ip := range ips {
		a, err := ipam.ParseAddr(ip.Address)
		if err != nil {
			return err
		}
		key := ipam.Key(a)
		if _, err := c.tx.Exec(c.ctx, "DELETE FROM network_addresses WHERE network_id = ? AND addr = ?", networkID, key); err != nil {
			return fmt.Errorf("free address: %w", err)
		}
		// Behind the cursor of its pool it must be remembered; before it the cursor will come to it.
		behind, err := documents.Exists(c.ctx, c.tx, "SELECT 1 FROM network_pools WHERE subnet_id = ? AND first_addr <= ? AND last_addr >= ? AND next_addr > ?", ip.SubnetID, key, key, key)
		if err != nil {
			return err
		}
		if behind {
			if _, err := c.tx.Exec(c.ctx, "INSERT INTO network_released (subnet_id, addr) VALUES (?, ?)", ip.SubnetID, key); err != nil {
				return fmt.Errorf("free address: %w", err)
			}
		}
	}
	return nil
}

// assign gives a port its addresses: those that are asked for or, when nothing is, one of each version; and the addresses
// that guests make themselves on subnets with such modes (not for routers). kept are addresses that the port has already. They are in order of their texts, whatever the
// order in which they were asked for.
func (c *Change) assign(p *network.Port, subnets []network.Subnet, want []network.FixedIP, asked bool, kept []network.FixedIP) ([]network.FixedIP, error) {
	out := append([]network.FixedIP{}, kept...)
	add := func(f network.FixedIP, err error) error {
		if err == nil {
			out = append(out, f)
		}
		return err
	}
	var err error
	if asked {
		for _, w := range want {
			if err = add(c.assignOne(p, subnets, w)); err != nil {
				return nil, err
			}
		}
	} else if out, err = c.assignDefault(p, subnets, out); err != nil {
		return nil, err
	}
	if p.DeviceOwner == network.OwnerRouterInterface || p.DeviceOwner == network.OwnerRouterGateway || p.DeviceOwner == network.OwnerFloatingIP {
		return network.InOrder(out), nil
	}
	for i := range subnets {
		s := &subnets[i]
		if !ipam.Automatic(s) || !serves(s, p.DeviceOwner) || hasSubnet(out, s.ID) {
			continue
		}
		if err := add(c.assignAuto(p, s)); err != nil {
			return nil, err
		}
	}
	return network.InOrder(out), nil
}

func (c *Change) assignAuto(p *network.Port, s *network.Subnet) (network.FixedIP, error) {
	prefix, err := ipam.Prefix(s)
	if err != nil {
		return network.FixedIP{}, err
	}
	a, err := ipam.EUI64(prefix, p.MAC)
	if err != nil {
		return network.FixedIP{}, err
	}
	return c.take(s, a, p.ID)
}

// assignDefault takes one address of each IP version from the subnets that have one left.
func (c *Change) assignDefault(p *network.Port, subnets []network.Subnet, out []network.FixedIP) ([]network.FixedIP, error) {
	for _, version := range []int{4, 6} {
		tried, found := 0, false
		for i := range subnets {
			s := &subnets[i]
			if found || s.Version != version || ipam.Automatic(s) || !serves(s, p.DeviceOwner) {
				continue
			}
			tried++
			f, ok, err := c.takeAny(s, p.ID)
			if err != nil {
				return nil, err
			}
			if ok {
				out, found = append(out, f), true
			}
		}
		if tried > 0 && !found {
			return nil, fault.New(fault.Conflict, "No more IP addresses available on network %s.", p.NetworkID).WithCode("IpAddressGenerationFailure")
		}
	}
	return out, nil
}

func (c *Change) assignOne(p *network.Port, subnets []network.Subnet, w network.FixedIP) (network.FixedIP, error) {
	var s *network.Subnet
	for i := range subnets {
		if w.SubnetID != "" && subnets[i].ID == w.SubnetID {
			s = &subnets[i]
		}
	}
	if w.SubnetID != "" && s == nil {
		if _, err := c.subnets.Get(c.ctx, c.tx, w.SubnetID); err != nil {
			return network.FixedIP{}, err
		}
		return network.FixedIP{}, fault.New(fault.Invalid, "Invalid input for operation: Failed to create port on network %s, because fixed_ips included invalid subnet %s.",
			p.NetworkID, w.SubnetID).WithCode("InvalidInput")
	}
	if w.Address == "" && s == nil {
		return network.FixedIP{}, fault.New(fault.Invalid, "Invalid input for operation: IP allocation requires subnet_id or ip_address.").WithCode("InvalidInput")
	}
	if w.Address == "" {
		if ipam.Automatic(s) && p.DeviceOwner != network.OwnerRouterInterface {
			return c.assignAuto(p, s)
		}
		f, ok, err := c.takeAny(s, p.ID)
		if err == nil && !ok {
			err = fault.New(fault.Conflict, "No more IP addresses available on network %s.", p.NetworkID).WithCode("IpAddressGenerationFailure")
		}
		return f, err
	}
	a, err := ipam.ParseAddr(w.Address)
	if err != nil {
		return network.FixedIP{}, err
	}
	for i := range subnets {
		if s != nil {
			break
		}
		if q, err := ipam.Prefix(&subnets[i]); err == nil && q.Contains(a) {
			s = &subnets[i]
		}
	}
	if s == nil {
		return network.FixedIP{}, fault.New(fault.Invalid, "IP address %s is not a valid IP for any of the subnets on the specified network.", a).WithCode("InvalidIpForNetwork")
	}
	return c.assignNamed(p, s, a)
}

func (c *Change) assignNamed(p *network.Port, s *network.Subnet, a netip.Addr) (network.FixedIP, error) {
	prefix, err := ipam.Prefix(s)
	if err != nil {
		return network.FixedIP{}, err
	}
	if !ipam.ValidHost(prefix, a) {
		return network.FixedIP{}, fault.New(fault.Invalid, "IP address %s is not a valid IP for the specified subnet.", a).WithCode("InvalidIpForSubnet")
	}
	if ipam.Automatic(s) && p.DeviceOwner != network.OwnerRouterInterface && p.DeviceOwner != network.OwnerRouterGateway {
		if own, err := ipam.EUI64(prefix, p.MAC); err != nil || own != a {
			return network.FixedIP{}, fault.New(fault.Invalid, "IPv6 address %s cannot be directly assigned to a port on subnet %s as the subnet is configured for automatic addresses.", a, s.ID).WithCode("AllocationOnAutoAddressSubnet")
		}
	}
	return c.take(s, a, p.ID)
}

func hasSubnet(ips []network.FixedIP, subnetID string) bool {
	for _, f := range ips {
		if f.SubnetID == subnetID {
			return true
		}
	}
	return false
}

// serves tells whether ports of an owner may have addresses of the subnet (extension subnet-service-types).
func serves(s *network.Subnet, owner string) bool {
	if len(s.ServiceTypes) == 0 {
		return true
	}
	for _, t := range s.ServiceTypes {
		if t == owner {
			return true
		}
	}
	return false
}
