package local

import (
	"encoding/hex"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"

	"kilonova/internal/fault"
	"kilonova/internal/network"
)

// addrKey is an address as it is stored: a fixed-width hexadecimal number.
func addrKey(a netip.Addr) string {
	b := a.AsSlice()
	return hex.EncodeToString(b)
}

// keyAddr is the inverse of addrKey.
func keyAddr(key string) (netip.Addr, error) {
	b, err := hex.DecodeString(key)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("stored address %q: %w", key, err)
	}
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		return netip.Addr{}, fmt.Errorf("stored address %q has no length of an address", key)
	}
	return a, nil
}

// eui64 is the address that a host with the MAC gives itself in a /64 (RFC 4291, appendix A).
func eui64(p netip.Prefix, mac string) (netip.Addr, error) {
	m, err := hex.DecodeString(strings.ReplaceAll(mac, ":", ""))
	if err != nil || len(m) != 6 {
		return netip.Addr{}, fault.New(fault.Invalid, "'%s' is not a valid MAC address.", mac)
	}
	b := p.Masked().Addr().As16()
	copy(b[8:], []byte{m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
	return netip.AddrFrom16(b), nil
}

// defaultPools gives what is left of a subnet without its network address, its IPv4 broadcast address and the gateway.
func defaultPools(p netip.Prefix, gateway netip.Addr) []network.Pool {
	var b netipx.IPSetBuilder
	b.AddPrefix(p)
	last := netipx.PrefixLastIP(p)
	switch {
	case p.Addr().Is4() && p.Bits() < 31:
		b.Remove(p.Addr())
		b.Remove(last)
	case p.Addr().Is6() && p.Bits() < 127:
		b.Remove(p.Addr()) // the subnet-router anycast address
	}
	if gateway.IsValid() {
		b.Remove(gateway)
	}
	set, err := b.IPSet()
	if err != nil {
		return nil
	}
	var out []network.Pool
	for _, r := range set.Ranges() {
		out = append(out, network.Pool{Start: r.From().String(), End: r.To().String()})
	}
	return out
}

// checkPools verifies allocation pools against their subnet and gives them sorted.
func checkPools(pools []network.Pool, p netip.Prefix, gateway netip.Addr) ([]network.Pool, error) {
	ranges := make([]netipx.IPRange, 0, len(pools))
	for _, pool := range pools {
		from, e1 := netip.ParseAddr(pool.Start)
		to, e2 := netip.ParseAddr(pool.End)
		if e1 != nil || e2 != nil || from.Is4() != to.Is4() || from.Is4() != p.Addr().Is4() || to.Less(from) {
			return nil, fault.New(fault.Invalid, "The allocation pool %s-%s is not valid.", pool.Start, pool.End).WithCode("InvalidAllocationPool")
		}
		if !p.Contains(from) || !p.Contains(to) {
			return nil, fault.New(fault.Invalid, "The allocation pool %s-%s spans beyond the subnet cidr %s.", pool.Start, pool.End, p).WithCode("OutOfBoundsAllocationPool")
		}
		r := netipx.IPRangeFrom(from, to)
		if gateway.IsValid() && r.Contains(gateway) {
			return nil, fault.New(fault.Conflict, "Gateway ip %s conflicts with allocation pool %s-%s.", gateway, pool.Start, pool.End).WithCode("GatewayConflictWithAllocationPools")
		}
		ranges = append(ranges, r)
	}
	slices.SortFunc(ranges, func(a, b netipx.IPRange) int { return a.From().Compare(b.From()) })
	out := make([]network.Pool, len(ranges))
	for i, r := range ranges {
		if i > 0 && !ranges[i-1].To().Less(r.From()) {
			return nil, fault.New(fault.Conflict, "Found overlapping allocation pools: %s-%s %s-%s.", ranges[i-1].From(), ranges[i-1].To(), r.From(), r.To()).WithCode("OverlappingAllocationPools")
		}
		out[i] = network.Pool{Start: r.From().String(), End: r.To().String()}
	}
	return out, nil
}

// PoolSize is how many addresses pools hold, as network-ip-availability reports them.
func PoolSize(pools []network.Pool) *big.Int {
	sum := new(big.Int)
	for _, p := range pools {
		from, e1 := netip.ParseAddr(p.Start)
		to, e2 := netip.ParseAddr(p.End)
		if e1 != nil || e2 != nil {
			continue
		}
		n := new(big.Int).Sub(new(big.Int).SetBytes(to.AsSlice()), new(big.Int).SetBytes(from.AsSlice()))
		sum.Add(sum, n.Add(n, big.NewInt(1)))
	}
	return sum
}

// automatic tells whether hosts on the subnet make their own address from their MAC.
func automatic(s *network.Subnet) bool {
	return s.Version == 6 && (s.IPv6AddressMode == "slaac" || s.IPv6AddressMode == "dhcpv6-stateless" ||
		s.IPv6AddressMode == "" && (s.IPv6RAMode == "slaac" || s.IPv6RAMode == "dhcpv6-stateless"))
}

func lastAddr(p netip.Prefix) netip.Addr { return netipx.PrefixLastIP(p) }
