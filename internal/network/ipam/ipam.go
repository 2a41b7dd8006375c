// Package ipam is the arithmetic of subnets and addresses: allocation pools, addresses made from MACs, and which subnets and
// addresses are valid. It is pure; package local keeps who has which address.
package ipam

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

// Key is an address as it is stored: a fixed-width hexadecimal number.
func Key(a netip.Addr) string {
	b := a.AsSlice()
	return hex.EncodeToString(b)
}

// FromKey is the inverse of addrKey.
func FromKey(key string) (netip.Addr, error) {
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

// EUI64 is the address that a host with the MAC gives itself in a /64 (RFC 4291, appendix A).
func EUI64(p netip.Prefix, mac string) (netip.Addr, error) {
	m, err := hex.DecodeString(strings.ReplaceAll(mac, ":", ""))
	if err != nil || len(m) != 6 {
		return netip.Addr{}, fault.New(fault.Invalid, "'%s' is not a valid MAC address.", mac)
	}
	b := p.Masked().Addr().As16()
	copy(b[8:], []byte{m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
	return netip.AddrFrom16(b), nil
}

// DefaultPools gives what is left of a subnet without its network address, its IPv4 broadcast address and the gateway.
func DefaultPools(p netip.Prefix, gateway netip.Addr) []network.Pool {
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

// CheckPools verifies allocation pools against their subnet and gives them sorted.
func CheckPools(pools []network.Pool, p netip.Prefix, gateway netip.Addr) ([]network.Pool, error) {
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

// Automatic tells whether hosts on the subnet make their own address from their MAC.
func Automatic(s *network.Subnet) bool {
	return s.Version == 6 && (s.IPv6AddressMode == "slaac" || s.IPv6AddressMode == "dhcpv6-stateless" ||
		s.IPv6AddressMode == "" && (s.IPv6RAMode == "slaac" || s.IPv6RAMode == "dhcpv6-stateless"))
}

// FirstHost is the address after the subnet's own.
func FirstHost(p netip.Prefix) netip.Addr { return p.Addr().Next() }

// DefaultGateway is a subnet's gateway when none is named: the address after the subnet's own, which for a subnet of one address lies outside, as it may. A subnet of two
// addresses has none: that address would be its broadcast address.
func DefaultGateway(p netip.Prefix) string {
	if gw := FirstHost(p); gw.IsValid() && p.Bits() != p.Addr().BitLen()-1 {
		return gw.String()
	}
	return ""
}

// CheckPrefix verifies a subnet's prefix against its version, modes and DHCP, and fills in the version when it is zero.
func CheckPrefix(p netip.Prefix, s *network.Subnet) error {
	version := 4
	if p.Addr().Is6() {
		version = 6
	}
	if s.Version == 0 {
		s.Version = version
	}
	bad := func(format string, args ...any) error {
		return fault.New(fault.Invalid, "Invalid input for operation: "+format, args...).WithCode("InvalidInput")
	}
	switch {
	case version != s.Version:
		return bad("cidr '%s' does not match the ip_version '%d'.", p, s.Version)
	case p.Bits() == 0:
		return bad("0 is not allowed as CIDR prefix length.")
	case p.Addr().IsMulticast():
		return bad("Multicast IP subnet is not supported if enable_dhcp is True.")
	case s.DHCP && p.Bits() > p.Addr().BitLen()-2 && version == 4:
		return bad("Subnet has a prefix length that is incompatible with DHCP service enabled.")
	case s.Version == 4 && (s.IPv6AddressMode != "" || s.IPv6RAMode != ""):
		return bad("ipv6_ra_mode and ipv6_address_mode cannot be set when ip_version is 4.")
	case !s.DHCP && (s.IPv6AddressMode != "" || s.IPv6RAMode != ""):
		return bad("ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False.")
	case s.IPv6AddressMode != "" && s.IPv6RAMode != "" && s.IPv6AddressMode != s.IPv6RAMode:
		return bad("ipv6_ra_mode set to '%s' with ipv6_address_mode set to '%s' is not valid. If both attributes are set, they must be the same value.", s.IPv6RAMode, s.IPv6AddressMode)
	case Automatic(s) && p.Bits() != 64:
		return bad("Invalid CIDR %s for IPv6 address mode. OpenStack uses the EUI-64 address format, which requires the prefix to be /64.", p)
	}
	return nil
}

// NoOverlap fails when another subnet of the network has addresses of the prefix.
func NoOverlap(p netip.Prefix, networkID string, others []network.Subnet) error {
	for i := range others {
		q, err := Prefix(&others[i])
		if err != nil {
			return err
		}
		if q.Overlaps(p) {
			return fault.New(fault.Invalid, "Invalid input for operation: Requested subnet with cidr: %s for network: %s overlaps with another subnet.", p, networkID).WithCode("InvalidInput")
		}
	}
	return nil
}

// CheckSubnet verifies gateway, pools, name servers and routes, and fills in the pools when none are given.
func CheckSubnet(s *network.Subnet, p netip.Prefix, poolsSet bool) error {
	var gw netip.Addr
	if s.Gateway != "" {
		var err error
		if gw, err = ParseAddr(s.Gateway); err != nil {
			return err
		}
		s.Gateway = gw.String()
		if gw.Is4() != p.Addr().Is4() {
			return fault.New(fault.Invalid, "Invalid input for operation: gateway_ip '%s' does not match the ip_version '%d'.", gw, s.Version).WithCode("InvalidInput")
		}
		if p.Contains(gw) && !ValidHost(p, gw) && p.Addr().Is4() {
			return fault.New(fault.Invalid, "Invalid input for operation: Gateway is not valid on subnet.").WithCode("InvalidInput")
		}
	}
	for _, d := range s.DNS {
		if _, err := ParseAddr(d); err != nil {
			return err
		}
	}
	for _, rt := range s.Routes {
		if _, err := ParsePrefix(rt.Destination); err != nil {
			return err
		}
		if _, err := ParseAddr(rt.NextHop); err != nil {
			return err
		}
	}
	if !poolsSet {
		s.Pools = DefaultPools(p, gw)
		return nil
	}
	var err error
	s.Pools, err = CheckPools(s.Pools, p, gw)
	return err
}

// ValidHost tells whether a host may have the address: not the subnet's own nor the IPv4 broadcast address.
func ValidHost(p netip.Prefix, a netip.Addr) bool {
	if !p.Contains(a) {
		return false
	}
	if a.Is6() || p.Bits() >= 31 {
		return a.Is4() || p.Bits() >= 127 || a != p.Addr()
	}
	return a != p.Addr() && a != netipx.PrefixLastIP(p)
}

// ParseAddr reads an address that a client gave; fault.Invalid for others.
func ParseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, fault.New(fault.Invalid, "'%s' is not a valid IP address.", s).WithCode("InvalidInput")
	}
	return a.Unmap(), nil
}

// ParsePrefix reads a prefix that a client gave, with the bits behind its length cleared; fault.Invalid for others.
func ParsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fault.New(fault.Invalid, "'%s' is not a valid CIDR.", s).WithCode("InvalidInput")
	}
	return p.Masked(), nil
}

// Prefix reads the prefix of a stored subnet.
func Prefix(s *network.Subnet) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s.CIDR)
	if err != nil {
		return p, fmt.Errorf("stored cidr of subnet %s: %w", s.ID, err)
	}
	return p, nil
}

// Same tells whether two texts are the same address.
func Same(a, b string) bool {
	x, e1 := netip.ParseAddr(a)
	y, e2 := netip.ParseAddr(b)
	return e1 == nil && e2 == nil && x.Unmap() == y.Unmap()
}

// Version is the IP version of an address, 4 or 6.
func Version(addr string) int {
	if a, err := netip.ParseAddr(addr); err == nil && a.Is4() {
		return 4
	}
	return 6
}

// QuotaUnits is how much of a subnet pool's default_quota a prefix uses: addresses for IPv4, /64 prefixes for IPv6.
func QuotaUnits(p netip.Prefix) int64 {
	bits := 32 - p.Bits()
	if p.Addr().Is6() {
		bits = max(0, 64-p.Bits())
	}
	if bits > 62 {
		bits = 62
	}
	return 1 << bits
}

// Hostname is the name of a port in the name service of its network: its dns_name, or one made of the address.
func Hostname(p *network.Port, addr string) string {
	if p.DNSName != "" {
		return p.DNSName
	}
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return ""
	}
	if a.Is4() {
		return "host-" + strings.ReplaceAll(addr, ".", "-")
	}
	return "host-" + strings.ReplaceAll(a.StringExpanded(), ":", "-")
}
