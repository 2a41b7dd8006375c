// Package secgroup is the rules of security groups as Neutron has them: which are valid, and which are the same. It is pure.
package secgroup

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"kilonova/internal/fault"
	"kilonova/internal/network"
)

// ProtocolNumber knows the protocols that security group rules may name (IANA's numbers).
func ProtocolNumber(name string) (int, bool) {
	if n, err := strconv.Atoi(name); err == nil {
		return n, n >= 0 && n <= 255
	}
	n, ok := map[string]int{"icmp": 1, "igmp": 2, "ipip": 4, "tcp": 6, "egp": 8, "udp": 17, "dccp": 33, "ipv6-encap": 41,
		"ipv6-route": 43, "ipv6-frag": 44, "rsvp": 46, "gre": 47, "esp": 50, "ah": 51, "icmpv6": 58, "ipv6-icmp": 58,
		"ipv6-nonxt": 59, "ipv6-opts": 60, "ospf": 89, "vrrp": 112, "pgm": 113, "sctp": 132, "udplite": 136}[name]
	return n, ok
}

// Signature is what makes two rules of a group the same.
func Signature(r *network.Rule) string {
	proto := r.Protocol
	if n, ok := ProtocolNumber(proto); ok && proto != "" {
		proto = strconv.Itoa(n)
	}
	num := func(p *int) string {
		if p == nil {
			return ""
		}
		return strconv.Itoa(*p)
	}
	remote := r.RemoteIP // shown as it was given, the same when its network is
	if p, err := remotePrefix(remote); err == nil {
		remote = p.String()
	}
	return strings.Join([]string{r.Direction, r.EtherType, proto, num(r.PortMin), num(r.PortMax), remote, r.RemoteGroup}, "|")
}

// Check verifies a rule and brings it to its usual form. The sentences and types are those that clients know from Neutron.
func Check(r *network.GroupRule) error {
	bad := func(code, format string, args ...any) error {
		return fault.New(fault.Invalid, format, args...).WithCode(code)
	}
	switch strings.ToLower(r.EtherType) {
	case "", "ipv4":
		r.EtherType = "IPv4"
	case "ipv6":
		r.EtherType = "IPv6"
	default:
		return bad("SecurityGroupRuleInvalidEtherType", "Security group rule for ethertype '%s' not supported. Allowed values are ['IPv4', 'IPv6'].", r.EtherType)
	}
	if r.RemoteIP != "" && r.RemoteGroup != "" {
		return bad("SecurityGroupRemoteGroupAndRemoteIpPrefix", "Only remote_ip_prefix or remote_group_id may be provided.")
	}
	if r.RemoteIP != "" {
		p, err := remotePrefix(r.RemoteIP)
		if err != nil {
			return err
		}
		if p.Addr().Is4() != (r.EtherType == "IPv4") {
			return bad("SecurityGroupRuleParameterConflict", "Conflicting value ethertype %s for CIDR %s", r.EtherType, r.RemoteIP)
		}
		if !strings.Contains(r.RemoteIP, "/") {
			r.RemoteIP = p.String()
		}
	}
	return checkProtocol(r, bad)
}

func remotePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Unmap().Prefix(a.Unmap().BitLen())
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fault.New(fault.Invalid, "'%s' is not a valid CIDR.", s).WithCode("InvalidInput")
	}
	return p.Masked(), nil
}

func checkProtocol(r *network.GroupRule, bad func(code, format string, args ...any) error) error {
	r.Protocol = strings.ToLower(r.Protocol)
	if r.Protocol == "any" {
		r.Protocol = ""
	}
	if r.Protocol == "" {
		if r.PortMin != nil || r.PortMax != nil {
			return bad("SecurityGroupProtocolRequiredWithPorts", "Must also specify protocol if port range is given.")
		}
		return nil
	}
	n, ok := ProtocolNumber(r.Protocol)
	if !ok {
		return bad("SecurityGroupRuleInvalidProtocol", "Security group rule protocol %s not supported. Only protocol names like tcp, udp, icmp and integer representations [0 to 255] are supported.", r.Protocol)
	}
	if strings.HasPrefix(r.Protocol, "ipv6-") && r.Protocol != "ipv6-icmp" && r.EtherType == "IPv4" || r.Protocol == "icmpv6" && r.EtherType == "IPv4" || r.Protocol == "ipv6-icmp" && r.EtherType == "IPv4" {
		return bad("SecurityGroupEthertypeConflictWithProtocol", "Invalid ethertype %s for protocol %s.", r.EtherType, r.Protocol)
	}
	switch n {
	case 1, 58:
		return checkICMP(r, bad)
	case 6, 17, 33, 132, 136:
		return checkPortRange(r, bad)
	}
	if r.PortMin != nil || r.PortMax != nil {
		return bad("SecurityGroupInvalidProtocolForPort", "Invalid protocol %s for port range, only supported for TCP, UDP, UDPLITE, SCTP and DCCP.", r.Protocol)
	}
	return nil
}

func checkICMP(r *network.GroupRule, bad func(code, format string, args ...any) error) error {
	for _, f := range []struct {
		field, name string
		v           *int
	}{{"port_range_min", "type", r.PortMin}, {"port_range_max", "code", r.PortMax}} {
		if f.v != nil && (*f.v < 0 || *f.v > 255) {
			return bad("SecurityGroupInvalidIcmpValue", "Invalid value for ICMP %s (%s) %d. It must be 0 to 255.", f.name, f.field, *f.v)
		}
	}
	if r.PortMin == nil && r.PortMax != nil {
		return bad("SecurityGroupMissingIcmpType", "ICMP code (port-range-max) %d is provided but ICMP type (port-range-min) is missing.", *r.PortMax)
	}
	return nil
}

func checkPortRange(r *network.GroupRule, bad func(code, format string, args ...any) error) error {
	if r.PortMin == nil && r.PortMax == nil {
		return nil
	}
	for _, v := range []*int{r.PortMin, r.PortMax} {
		if v != nil && (*v < 0 || *v > 65535) {
			return bad("SecurityGroupInvalidPortValue", "Invalid value for port %d", *v)
		}
	}
	if r.PortMin == nil || r.PortMax == nil || *r.PortMin > *r.PortMax {
		return bad("SecurityGroupInvalidPortRange", "For TCP/UDP protocols, port_range_min must be <= port_range_max")
	}
	if *r.PortMin == 0 {
		return bad("SecurityGroupInvalidPortValue", "Invalid value for port %s", fmt.Sprint(*r.PortMin))
	}
	return nil
}
