package dataplane

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"

	"kilonova/internal/network"
)

// serveDHCP4 answers DHCP on a bridge.
func (p *Plane) serveDHCP4(bridge string, c *current) (func() error, error) {
	s, err := server4.NewServer(bridge, &net.UDPAddr{IP: net.IPv4zero, Port: dhcpv4.ServerPort}, func(conn net.PacketConn, peer net.Addr, m *dhcpv4.DHCPv4) {
		r, err := answer4(c.view.Load(), m, p.cfg.Lease)
		if err != nil {
			p.log.Warn("answer a DHCP request", "bridge", bridge, "mac", m.ClientHWAddr.String(), "error", err)
		}
		if r == nil {
			return
		}
		if m.ClientIPAddr.IsUnspecified() {
			peer = &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ClientPort}
		}
		if _, err := conn.WriteTo(r.ToBytes(), peer); err != nil {
			p.log.Warn("send a DHCP answer", "bridge", bridge, "mac", m.ClientHWAddr.String(), "error", err)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("listen for DHCP on %s: %w", bridge, err)
	}
	go func() { _ = s.Serve() }() // ends when the socket is closed
	return s.Close, nil
}

// answer4 is the answer to a DHCP message (RFC 2131): the port's own address to the port's own MAC, nothing to anybody else.
func answer4(v *view, m *dhcpv4.DHCPv4, lease time.Duration) (*dhcpv4.DHCPv4, error) {
	if v == nil || m.OpCode != dhcpv4.OpcodeBootRequest {
		return nil, nil
	}
	l, s := v.lease4(m)
	if l == nil {
		return nil, nil
	}
	addr := net.ParseIP(l.Address).To4()
	server := net.ParseIP(metadataAddress).To4()
	if v.net.Gateway && s.Gateway != "" {
		server = net.ParseIP(s.Gateway).To4()
	}
	kind := dhcpv4.MessageTypeAck
	switch m.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		kind = dhcpv4.MessageTypeOffer
	case dhcpv4.MessageTypeRequest:
		if id := m.ServerIdentifier(); id != nil && !id.Equal(server) {
			return nil, nil // chose another server
		}
		want := m.RequestedIPAddress()
		if want == nil || want.IsUnspecified() {
			want = m.ClientIPAddr
		}
		if !want.Equal(addr) {
			return dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(dhcpv4.MessageTypeNak), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(server)))
		}
	case dhcpv4.MessageTypeInform:
		addr, lease = net.IPv4zero, 0
	default: // release and decline change nothing: the address stays the port's
		return nil, nil
	}
	mods := []dhcpv4.Modifier{dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(addr), dhcpv4.WithServerIP(server), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(server))}
	if lease > 0 {
		mods = append(mods, dhcpv4.WithLeaseTime(uint32(lease/time.Second)),
			dhcpv4.WithOption(dhcpv4.Option{Code: dhcpv4.OptionRenewTimeValue, Value: dhcpv4.Duration(lease / 2)}),
			dhcpv4.WithOption(dhcpv4.Option{Code: dhcpv4.OptionRebindingTimeValue, Value: dhcpv4.Duration(lease * 7 / 8)}))
	}
	mods = append(mods, v.options4(l, s)...)
	return dhcpv4.NewReplyFromRequest(m, mods...)
}

// lease4 finds the client's lease: the address that it asks for when it has several, else the first.
func (v *view) lease4(m *dhcpv4.DHCPv4) (*network.Lease, *network.Subnet) {
	var first *network.Lease
	all := v.leases[strings.ToLower(m.ClientHWAddr.String())]
	for i := range all {
		s := v.subnets[all[i].SubnetID]
		if s == nil || s.Version != 4 || !s.DHCP {
			continue
		}
		if first == nil {
			first = &all[i]
		}
		for _, ip := range []net.IP{m.RequestedIPAddress(), m.ClientIPAddr} {
			if ip != nil && ip.String() == all[i].Address {
				return &all[i], s
			}
		}
	}
	if first == nil {
		return nil, nil
	}
	return first, v.subnets[first.SubnetID]
}

func (v *view) options4(l *network.Lease, s *network.Subnet) []dhcpv4.Modifier {
	var out []dhcpv4.Modifier
	add := func(o dhcpv4.Option) { out = append(out, dhcpv4.WithOption(o)) }
	if p, err := netip.ParsePrefix(s.CIDR); err == nil {
		add(dhcpv4.OptSubnetMask(net.CIDRMask(p.Bits(), 32)))
	}
	if s.Gateway != "" {
		add(dhcpv4.OptRouter(net.ParseIP(s.Gateway)))
	}
	if dns := nameServers(s, 4); len(dns) > 0 {
		add(dhcpv4.OptDNS(dns...))
	}
	if v.net.Domain != "" {
		add(dhcpv4.OptDomainName(v.net.Domain))
	}
	if l.Hostname != "" {
		add(dhcpv4.OptHostName(l.Hostname))
	}
	if v.net.MTU > 0 {
		add(dhcpv4.Option{Code: dhcpv4.OptionInterfaceMTU, Value: dhcpv4.Uint16(v.net.MTU)}) //nolint:gosec // at most 65535
	}
	add(dhcpv4.OptClasslessStaticRoute(routes4(s, v.net.Gateway)...))
	return append(out, extra4(l.Options)...)
}

// nameServers are those of the subnet or, when it names none, the one on the metadata address.
func nameServers(s *network.Subnet, version int) []net.IP {
	var out []net.IP
	for _, d := range s.DNS {
		if ip := net.ParseIP(d); ip != nil && (ip.To4() != nil) == (version == 4) {
			out = append(out, ip)
		}
	}
	if len(s.DNS) == 0 && version == 4 {
		out = append(out, net.ParseIP(metadataAddress))
	}
	return out
}

// routes4 are the classless routes (RFC 3442): the metadata address, the subnet's own, and the default, since a client that
// understands this option ignores the router option. here tells that the host has the gateway's address; another gateway knows nothing of metadata.
func routes4(s *network.Subnet, here bool) []*dhcpv4.Route {
	hop := net.IPv4zero // on the link
	if s.Gateway != "" {
		hop = net.ParseIP(s.Gateway)
	}
	meta := net.IPv4zero
	if here {
		meta = hop
	}
	out := []*dhcpv4.Route{{Dest: &net.IPNet{IP: net.ParseIP(metadataAddress).To4(), Mask: net.CIDRMask(32, 32)}, Router: meta}}
	for _, r := range s.Routes {
		if _, dst, err := net.ParseCIDR(r.Destination); err == nil && dst.IP.To4() != nil {
			out = append(out, &dhcpv4.Route{Dest: dst, Router: net.ParseIP(r.NextHop)})
		}
	}
	if s.Gateway != "" {
		out = append(out, &dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, Router: hop})
	}
	return out
}

// extra4 are the options that a port's owner asked for, by dnsmasq's names or by number: addresses, numbers and texts.
func extra4(opts []network.DHCPOption) []dhcpv4.Modifier {
	numbers := map[string]uint8{"netmask": 1, "router": 3, "dns-server": 6, "domain-name": 15, "mtu": 26, "broadcast": 28, "ntp-server": 42,
		"T1": 58, "T2": 59, "tftp-server": 66, "bootfile-name": 67, "domain-search": 119, "classless-static-route": 121, "server-ip-address": 150}
	var out []dhcpv4.Modifier
	for _, o := range opts {
		if o.Name == "server-ip-address" {
			if ip := net.ParseIP(o.Value).To4(); ip != nil {
				out = append(out, dhcpv4.WithServerIP(ip))
			}
		}
		code, ok := numbers[o.Name]
		if n, err := strconv.ParseUint(strings.TrimPrefix(o.Name, "option:"), 10, 8); !ok && err == nil {
			code, ok = uint8(n), true
		}
		if ok {
			out = append(out, dhcpv4.WithGeneric(dhcpv4.GenericOptionCode(code), encode4(code, o.Value)))
		}
	}
	return out
}

func encode4(code uint8, value string) []byte {
	switch code {
	case 26:
		if n, err := strconv.ParseUint(value, 10, 16); err == nil {
			return []byte{byte(n >> 8), byte(n)}
		}
	case 58, 59, 51:
		if n, err := strconv.ParseUint(value, 10, 32); err == nil {
			return []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
		}
	}
	var addrs []byte
	for part := range strings.SplitSeq(value, ",") {
		a, err := netip.ParseAddr(strings.TrimSpace(part))
		if err != nil || !a.Is4() || code == 66 || code == 67 {
			return []byte(value)
		}
		addrs = append(addrs, a.AsSlice()...)
	}
	return addrs
}
