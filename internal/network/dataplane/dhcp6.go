package dataplane

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/dhcpv6/server6"
	"github.com/insomniacslk/dhcp/iana"

	"kilonova/internal/network"
)

// serveDHCP6 answers DHCPv6 on a bridge: addresses for stateful subnets, name servers for the others.
func (p *Plane) serveDHCP6(bridge string, c *current) (func() error, error) {
	if _, err := readSetting("net/ipv6/conf/" + bridge + "/forwarding"); err != nil {
		return nil, nil // the host has no IPv6
	}
	s, err := server6.NewServer(bridge, &net.UDPAddr{IP: dhcpv6.AllDHCPRelayAgentsAndServers, Port: dhcpv6.DefaultServerPort, Zone: bridge},
		func(conn net.PacketConn, peer net.Addr, d dhcpv6.DHCPv6) {
			from, ok := peer.(*net.UDPAddr)
			m, isMessage := d.(*dhcpv6.Message)
			if !ok || !isMessage {
				return
			}
			r, err := answer6(c.view.Load(), m, from.IP, c.mac, p.cfg.Lease)
			if err != nil {
				p.log.Warn("answer a DHCPv6 request", "bridge", bridge, "from", from.String(), "error", err)
			}
			if r == nil {
				return
			}
			if _, err := conn.WriteTo(r.ToBytes(), peer); err != nil {
				p.log.Warn("send a DHCPv6 answer", "bridge", bridge, "to", from.String(), "error", err)
			}
		})
	if err != nil {
		return nil, fmt.Errorf("listen for DHCPv6 on %s: %w", bridge, err)
	}
	go func() { _ = s.Serve() }() // ends when the socket is closed
	return s.Close, nil
}

// answer6 is the answer to a DHCPv6 message (RFC 8415). The client is known by its link-local address, which anti-spoofing ties to
// its MAC.
func answer6(v *view, m *dhcpv6.Message, from net.IP, mac net.HardwareAddr, lease time.Duration) (*dhcpv6.Message, error) {
	a, ok := netip.AddrFromSlice(from)
	if v == nil || !ok {
		return nil, nil
	}
	leases, stateful := v.leases6(macOf(a))
	if len(leases) == 0 {
		return nil, nil
	}
	server := &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: mac}
	if id := m.Options.ServerID(); id != nil && !id.Equal(server) {
		return nil, nil // meant for another server
	}
	mods := []dhcpv6.Modifier{dhcpv6.WithServerID(server)}
	var dns []net.IP
	for _, l := range leases {
		dns = append(dns, nameServers(v.subnets[l.SubnetID], 6)...)
	}
	if len(dns) > 0 {
		mods = append(mods, dhcpv6.WithDNS(dns...))
	}
	if v.net.Domain != "" {
		mods = append(mods, dhcpv6.WithDomainSearchList(v.net.Domain))
	}
	if ia := m.Options.OneIANA(); ia != nil && len(stateful) > 0 {
		opt := &dhcpv6.OptIANA{IaId: ia.IaId, T1: lease / 2, T2: lease * 4 / 5}
		for _, l := range stateful {
			opt.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP(l.Address), PreferredLifetime: lease, ValidLifetime: lease})
		}
		mods = append(mods, dhcpv6.WithOption(opt))
	}
	switch m.Type() {
	case dhcpv6.MessageTypeSolicit:
		if len(stateful) == 0 {
			return nil, nil
		}
		if m.GetOneOption(dhcpv6.OptionRapidCommit) == nil {
			return dhcpv6.NewAdvertiseFromSolicit(m, mods...)
		}
		return dhcpv6.NewReplyFromMessage(m, append(mods, dhcpv6.WithRapidCommit)...)
	case dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeConfirm, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRebind, dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeInformationRequest:
		return dhcpv6.NewReplyFromMessage(m, mods...)
	}
	return nil, nil
}

// leases6 gives a port's IPv6 leases, and those of them that DHCPv6 hands out.
func (v *view) leases6(mac net.HardwareAddr) (all, stateful []network.Lease) {
	if mac == nil {
		return nil, nil
	}
	for _, l := range v.leases[strings.ToLower(mac.String())] {
		s := v.subnets[l.SubnetID]
		if s == nil || s.Version != 6 || !s.DHCP {
			continue
		}
		all = append(all, l)
		if s.IPv6AddressMode == "dhcpv6-stateful" {
			stateful = append(stateful, l)
		}
	}
	return all, stateful
}
