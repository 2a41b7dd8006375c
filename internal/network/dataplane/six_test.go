package dataplane

import (
	"strings"
	"testing"

	"kilonova/internal/network"
)

// slaacState has two guests on an IPv6 subnet where they make their own addresses.
func slaacState(rules ...network.GroupRule) (*network.HostState, network.HostPort, network.HostPort) {
	p1, p2 := hostPort(netA, "10.77.0.", 71), hostPort(netA, "10.77.0.", 72)
	p1.Addresses = append(p1.Addresses, "2001:db8:77:0:f816:3eff:fe00:47")
	p2.Addresses = append(p2.Addresses, "2001:db8:77:0:f816:3eff:fe00:48")
	st := hostState([]network.HostPort{p1, p2}, rules...)
	st.Networks[0].Subnets = append(st.Networks[0].Subnets, network.Subnet{ID: "sub-6", Version: 6, CIDR: "2001:db8:77::/64", Gateway: "2001:db8:77::1", DHCP: true,
		IPv6RAMode: "slaac", IPv6AddressMode: "slaac"})
	for _, p := range []network.HostPort{p1, p2} {
		st.Networks[0].Leases = append(st.Networks[0].Leases, network.Lease{MAC: p.MAC, Address: p.Addresses[1], SubnetID: "sub-6"})
	}
	return st, p1, p2
}

func (g *guest) reachesSix(addr string) bool { return soon(func() bool { return g.pingSix(addr) }) }

func (g *guest) pingSix(addr string) bool {
	_, err := g.try("", "ping", "-6", "-c1", "-W1", addr)
	return err == nil
}

// until demands that something comes to pass: duplicate address detection and router solicitation take their time.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	if !soon(ok) {
		t.Fatalf("%s did not come to pass", what)
	}
}

func TestIPv6ByAdvertisement(t *testing.T) {
	needRoot(t)
	p := plane(t, nil)
	st, p1, p2 := slaacState()
	apply(t, p, st)
	g1, g2 := boot(t, p1), boot(t, p2)
	apply(t, p, st)
	for _, g := range []*guest{g1, g2} {
		until(t, "an address by advertisement", func() bool {
			out := g.ip("-6", "addr", "show", "dev", "eth0")
			return strings.Contains(out, g.port.Addresses[1]) && !strings.Contains(out, "tentative")
		})
		if out := g.ip("-6", "route"); !strings.Contains(out, "default via fe80::") {
			t.Errorf("routes of the guest:\n%s", out)
		}
	}
	if !g1.reachesSix("2001:db8:77::1") {
		t.Error("a guest does not reach its IPv6 gateway")
	}
	if g1.pingSix(p2.Addresses[1]) {
		t.Error("IPv6 passes without a rule")
	}
	apply(t, p, func() *network.HostState {
		st, _, _ := slaacState(network.GroupRule{Direction: "ingress", EtherType: "IPv6", Protocol: "icmp", RemoteIP: "2001:db8:77::/64"})
		return st
	}())
	if !g1.reachesSix(p2.Addresses[1]) {
		t.Error("IPv6 does not pass with a rule")
	}
	g1.ip("addr", "add", "2001:db8:77::666/64", "dev", "eth0", "nodad")
	if _, err := g1.try("", "ping", "-6", "-c1", "-W1", "-I", "2001:db8:77::666", p2.Addresses[1]); err == nil {
		t.Error("an IPv6 address that is not the port's gets through")
	}
	// Whoever asks for the false address is not answered either.
	if g2.pingSix("2001:db8:77::666") {
		t.Error("a guest advertises an address that is not its own")
	}
}
