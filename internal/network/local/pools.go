package local

import (
	"context"
	"net/netip"

	"go4.org/netipx"

	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/network"
	"kilonova/internal/network/documents"
	"kilonova/internal/network/ipam"
)

// SubnetPools lists subnet pools. A project sees its own and shared ones.
func (s *Service) SubnetPools(ctx context.Context, f Filter) ([]network.SubnetPool, error) {
	return s.pools.Find(ctx, s.db, f, "shared = 1")
}

// AddressScopes lists address scopes. A project sees its own and shared ones.
func (s *Service) AddressScopes(ctx context.Context, f Filter) ([]network.AddressScope, error) {
	return s.scopes.Find(ctx, s.db, f, "shared = 1")
}

// CreateSubnetPool makes a subnet pool.
func (c *Change) CreateSubnetPool(p *network.SubnetPool) error {
	p.ID = id.UUID()
	if err := c.checkSubnetPool(p); err != nil {
		return err
	}
	if err := c.use(p.ProjectID, "subnetpool", 1); err != nil {
		return err
	}
	return c.pools.Insert(c.ctx, c.tx, p)
}

// checkSubnetPool verifies prefixes and lengths, fills in defaults, and brings the prefixes to their shortest form.
func (c *Change) checkSubnetPool(p *network.SubnetPool) error {
	var b netipx.IPSetBuilder
	for _, text := range p.Prefixes {
		q, err := ipam.ParsePrefix(text)
		if err != nil {
			return err
		}
		v := 4
		if q.Addr().Is6() {
			v = 6
		}
		if p.Version != 0 && p.Version != v {
			return fault.New(fault.Invalid, "Cannot mix IPv4 and IPv6 prefixes in a subnet pool.").WithCode("PrefixVersionMismatch")
		}
		p.Version = v
		b.AddPrefix(q)
	}
	set, err := b.IPSet()
	if err != nil || len(p.Prefixes) == 0 {
		return fault.New(fault.Invalid, "Empty subnet pool prefix list.").WithCode("EmptySubnetPoolPrefixList")
	}
	p.Prefixes = ipam.Texts(set)
	bits, least := 32, 8
	if p.Version == 6 {
		bits, least = 128, 64
	}
	if p.MinLen == 0 {
		p.MinLen = least
	}
	if p.MaxLen == 0 {
		p.MaxLen = bits
	}
	if p.DefLen == 0 {
		p.DefLen = p.MinLen
	}
	if p.MinLen < 1 || p.MaxLen > bits || p.MinLen > p.MaxLen || p.DefLen < p.MinLen || p.DefLen > p.MaxLen {
		return fault.New(fault.Invalid, "Illegal prefix bounds: min_prefixlen=%d, default_prefixlen=%d, max_prefixlen=%d must not decrease and fit IPv%d.",
			p.MinLen, p.DefLen, p.MaxLen, p.Version).WithCode("IllegalSubnetPoolPrefixBounds")
	}
	return c.poolPlace(p)
}

// poolPlace verifies that the pool's address scope is of its version and free of its prefixes, and that one pool at most is the default.
func (c *Change) poolPlace(p *network.SubnetPool) error {
	all, err := c.pools.List(c.ctx, c.tx, "")
	if err != nil {
		return err
	}
	if p.ScopeID != "" {
		sc, err := c.scopes.Get(c.ctx, c.tx, p.ScopeID)
		if err != nil {
			return err
		}
		if sc.Version != p.Version {
			return fault.New(fault.Invalid, "Illegal subnetpool association: subnetpool %s cannot associate with address scope %s because of different IP versions.", p.ID, p.ScopeID).WithCode("IllegalSubnetPoolIpVersionAssociationToAddressScope")
		}
	}
	for i := range all {
		o := &all[i]
		if o.ID == p.ID || o.Version != p.Version {
			continue
		}
		if p.IsDefault && o.IsDefault {
			return fault.New(fault.Invalid, "Invalid input for operation: A default subnetpool for this IP family has already been set. Only one default may exist per IP family.").WithCode("InvalidInput")
		}
		if p.ScopeID != "" && o.ScopeID == p.ScopeID && ipam.Overlap(p.Prefixes, o.Prefixes) {
			return fault.New(fault.Conflict, "Subnet pool prefixes overlap with those of pool %s in address scope %s.", o.ID, p.ScopeID).WithCode("AddressScopePrefixConflict")
		}
	}
	return nil
}

// UpdateSubnetPool changes a subnet pool. Prefixes may be added, not taken away.
func (c *Change) UpdateSubnetPool(poolID string, change func(p *network.SubnetPool) error) (*network.SubnetPool, error) {
	p, err := c.pools.Lock(c.ctx, c.tx, poolID)
	if err != nil {
		return nil, err
	}
	before := ipam.Set(p.Prefixes)
	if err := change(p); err != nil {
		return nil, err
	}
	before.RemoveSet(ipam.Whole(p.Prefixes))
	if left, err := before.IPSet(); err != nil || len(left.Prefixes()) > 0 {
		return nil, fault.New(fault.Invalid, "Illegal update to prefixes: existing prefixes must be a subset of the new prefixes.").WithCode("IllegalSubnetPoolPrefixUpdate")
	}
	if err := c.checkSubnetPool(p); err != nil {
		return nil, err
	}
	return p, c.pools.Update(c.ctx, c.tx, p)
}

// RemovePoolPrefixes takes prefixes away from a subnet pool. It fails with fault.Invalid when a subnet was cut from them or nothing would be left.
func (c *Change) RemovePoolPrefixes(poolID string, prefixes []string) (*network.SubnetPool, error) {
	p, err := c.pools.Lock(c.ctx, c.tx, poolID)
	if err != nil {
		return nil, err
	}
	b := ipam.Set(p.Prefixes)
	b.RemoveSet(ipam.Whole(prefixes))
	left, err := b.IPSet()
	if err != nil {
		return nil, err
	}
	cut, err := c.subnets.List(c.ctx, c.tx, "subnetpool_id = ?", poolID)
	if err != nil {
		return nil, err
	}
	for i := range cut {
		if q, err := ipam.Prefix(&cut[i]); err != nil || !left.ContainsPrefix(q) {
			return nil, fault.New(fault.Invalid, "Illegal update to prefixes: subnet %s was cut from them.", cut[i].ID).WithCode("IllegalSubnetPoolPrefixUpdate")
		}
	}
	p.Prefixes = ipam.Texts(left)
	if err := c.checkSubnetPool(p); err != nil {
		return nil, err
	}
	return p, c.pools.Update(c.ctx, c.tx, p)
}

// DeleteSubnetPool removes a subnet pool; fault.Conflict while subnets are cut from it.
func (c *Change) DeleteSubnetPool(poolID string) error {
	p, err := c.pools.Lock(c.ctx, c.tx, poolID)
	if err != nil {
		return err
	}
	used, err := documents.Exists(c.ctx, c.tx, "SELECT 1 FROM network_subnets WHERE subnetpool_id = ? LIMIT 1", poolID)
	if err != nil {
		return err
	}
	if used {
		return fault.New(fault.Conflict, "Unable to delete subnet pool: Subnet pool has existing allocations.").WithCode("SubnetPoolInUse")
	}
	if err := c.use(p.ProjectID, "subnetpool", -1); err != nil {
		return err
	}
	return c.pools.Delete(c.ctx, c.tx, poolID)
}

// cut takes the prefix of a new subnet from its pool: the one it asks for, or a free one.
func (c *Change) cut(r *SubnetRequest) error {
	p, err := c.pools.Lock(c.ctx, c.tx, r.SubnetPoolID)
	if err != nil {
		return err
	}
	taken, err := c.subnets.List(c.ctx, c.tx, "subnetpool_id = ?", p.ID)
	if err != nil {
		return err
	}
	b := ipam.Set(p.Prefixes)
	var used int64
	for i := range taken {
		if v, err := ipam.Prefix(&taken[i]); err == nil {
			b.RemovePrefix(v)
			if taken[i].ProjectID == r.ProjectID {
				used += ipam.QuotaUnits(v)
			}
		}
	}
	free, err := b.IPSet()
	if err != nil {
		return err
	}
	r.Version = p.Version
	bits := r.PrefixLen
	if bits == 0 {
		bits = p.DefLen
	}
	var want netip.Prefix
	if r.CIDR != "" {
		if want, err = ipam.ParsePrefix(r.CIDR); err != nil {
			return err
		}
		bits = want.Bits()
	}
	if bits < p.MinLen || bits > p.MaxLen {
		return fault.New(fault.Invalid, "Unable to allocate subnet with prefix length %d, the pool allows %d to %d.", bits, p.MinLen, p.MaxLen).WithCode("MinPrefixSubnetAllocationError")
	}
	if p.DefaultQuota != nil && used+ipam.QuotaUnits(netip.PrefixFrom(netip.MustParsePrefix(p.Prefixes[0]).Addr(), bits)) > int64(*p.DefaultQuota) {
		return fault.New(fault.Conflict, "Per-tenant subnet pool prefix quota exceeded.").WithCode("SubnetPoolQuotaExceeded")
	}
	if want.IsValid() {
		if !free.ContainsPrefix(want) {
			return fault.New(fault.Invalid, "Failed to allocate subnet: Cannot allocate requested subnet from the available set of prefixes.").WithCode("SubnetAllocationError")
		}
		return nil
	}
	got, _, ok := free.RemoveFreePrefix(uint8(bits))
	if !ok {
		return fault.New(fault.Invalid, "Failed to allocate subnet: Insufficient prefix space to allocate subnet size /%d.", bits).WithCode("SubnetAllocationError")
	}
	r.CIDR = got.String()
	return nil
}

// CreateAddressScope makes an address scope.
func (c *Change) CreateAddressScope(a *network.AddressScope) error {
	a.ID = id.UUID()
	return c.scopes.Insert(c.ctx, c.tx, a)
}

// UpdateAddressScope changes an address scope. What is shared stays shared.
func (c *Change) UpdateAddressScope(scopeID string, change func(a *network.AddressScope) error) (*network.AddressScope, error) {
	a, err := c.scopes.Lock(c.ctx, c.tx, scopeID)
	if err != nil {
		return nil, err
	}
	shared := a.Shared
	if err := change(a); err != nil {
		return nil, err
	}
	if shared && !a.Shared {
		return nil, fault.New(fault.Invalid, "Unable to update address scope %s : Shared address scope can't be unshared.", scopeID).WithCode("AddressScopeUpdateError")
	}
	return a, c.scopes.Update(c.ctx, c.tx, a)
}

// DeleteAddressScope removes an address scope; fault.Conflict while subnet pools are in it.
func (c *Change) DeleteAddressScope(scopeID string) error {
	if _, err := c.scopes.Lock(c.ctx, c.tx, scopeID); err != nil {
		return err
	}
	all, err := c.pools.List(c.ctx, c.tx, "")
	if err != nil {
		return err
	}
	for i := range all {
		if all[i].ScopeID == scopeID {
			return fault.New(fault.Conflict, "Unable to complete operation on address scope %s. There are one or more subnet pools in use on the address scope.", scopeID).WithCode("AddressScopeInUse")
		}
	}
	return c.scopes.Delete(c.ctx, c.tx, scopeID)
}
