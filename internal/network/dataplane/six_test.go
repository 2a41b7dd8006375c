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

// sixAcross are two networks that a router joins, with guests on two hosts: A, where guests make their own addresses, and B, where DHCPv6 gives them.
func sixAcross(rules ...network.GroupRule) *network.HostState {
	p1, p2, p3 := hostPort(netA, "10.77.0.", 71), hostPort(netA, "10.77.0.", 72), hostPort(netB, "10.78.0.", 73)
	p1.Addresses = []string{"2001:db8:77:0:f816:3eff:fe00:47"}
	p2.Addresses = []string{"2001:db8:77:0:f816:3eff:fe00:48"}
	p3.Addresses = []string{"2001:db8:78::73"}
	st := hostState(nil, rules...)
	st.Ports = []network.HostPort{p1, p2, p3}
	st.Networks = nil
	for i, s := range []network.Subnet{{ID: "six-a", NetworkID: netA, Version: 6, CIDR: "2001:db8:77::/64", Gateway: "2001:db8:77::1", DHCP: true, IPv6RAMode: "slaac", IPv6AddressMode: "slaac"},
		{ID: "six-b", NetworkID: netB, Version: 6, CIDR: "2001:db8:78::/64", Gateway: "2001:db8:78::1", DHCP: true, IPv6RAMode: "dhcpv6-stateful", IPv6AddressMode: "dhcpv6-stateful"}} {
		n := network.HostNetwork{ID: s.NetworkID, Bridge: network.BridgeName(s.NetworkID), MTU: 1400, Domain: "test.local", Gateway: true, NAT: true, VNI: 4711 + i,
			Peers: []string{map[string]string{netA: netB, netB: netA}[s.NetworkID]}, Subnets: []network.Subnet{s}}
		for _, p := range st.Ports {
			st.Groups[0].Members = append(st.Groups[0].Members, p.Addresses...)
			if p.NetworkID == n.ID {
				n.Leases = append(n.Leases, network.Lease{MAC: p.MAC, Address: p.Addresses[0], SubnetID: s.ID})
			}
		}
		st.Networks = append(st.Networks, n)
	}
	return st
}

// Networks that have IPv6 only are carried between hosts as others are.
func TestIPv6AcrossHosts(t *testing.T) {
	needRoot(t, "busybox", "unshare")
	hosts := machines(t, 2)
	ping := network.GroupRule{Direction: "ingress", EtherType: "IPv6", Protocol: "icmp"}
	ssh := network.GroupRule{Direction: "ingress", EtherType: "IPv6", Protocol: "tcp", PortMin: num(22), PortMax: num(22), RemoteGroup: grp}
	closed, all := sixAcross(), sixAcross(ping, ssh)
	p1, p2, p3 := all.Ports[0], all.Ports[1], all.Ports[2]
	where := map[string]int{p1.ID: 0, p2.ID: 1, p3.ID: 1}
	on := func(st *network.HostState) {
		t.Helper()
		for h, s := range spread(hosts, st, where) {
			hosts[h].apply(s)
		}
	}
	g1, g2, g3 := bootOn(t, hosts[0].ns, p1), bootOn(t, hosts[1].ns, p2), bootOn(t, hosts[1].ns, p3)
	on(closed)
	var routers []string
	for _, g := range []*guest{g1, g2} {
		until(t, "an address by advertisement", func() bool {
			out := g.ip("-6", "addr", "show", "dev", "eth0")
			return strings.Contains(out, g.port.Addresses[0]) && !strings.Contains(out, "tentative")
		})
		until(t, "a route by advertisement", func() bool { return strings.Contains(g.ip("-6", "route"), "default via fe80::") })
		routers = append(routers, strings.Fields(g.ip("-6", "route", "show", "default"))[2])
	}
	if routers[0] != routers[1] {
		t.Errorf("the router of one network is %s on one host and %s on the other", routers[0], routers[1])
	}
	until(t, "that the guest hears of DHCPv6", func() bool { return strings.Contains(g3.ip("-6", "route"), "default via fe80::") })
	if out := g3.ip("-6", "addr", "show", "dev", "eth0", "scope", "global"); out != "" {
		t.Errorf("a guest of a network with DHCPv6 makes an address of its own: %s", out)
	}
	if out, err := g3.try("DATAPLANE_GUEST=dhcp6 eth0", testProgram(t)); err != nil || strings.TrimSpace(out) != p3.Addresses[0] {
		t.Fatalf("DHCPv6: %q %v, want %s", out, err, p3.Addresses[0])
	}
	g3.ip("addr", "add", p3.Addresses[0]+"/64", "dev", "eth0", "nodad")
	for _, g := range []*guest{g1, g2, g3} {
		out, err := g.try("", "busybox", "wget", "-q", "-O", "-", "http://[fe80::a9fe:a9fe%eth0]/")
		if want := g.port.ServerID + " at " + hosts[where[g.port.ID]].addr; err != nil || out != want {
			t.Errorf("metadata of %s: %q %v, want %q", g.port.Addresses, out, err, want)
		}
	}
	for _, g := range []*guest{g2, g3} {
		g.listen("22")
		g.listen("80")
	}
	if g1.pingSix(p2.Addresses[0]) || g1.pingSix(p3.Addresses[0]) {
		t.Error("IPv6 passes between hosts without a rule")
	}
	on(all)
	at := func(p network.HostPort, port string) string { return "[" + p.Addresses[0] + "]:" + port }
	until(t, "that guests on two hosts reach each other", func() bool {
		return g1.pingSix(p2.Addresses[0]) && g2.pingSix(p1.Addresses[0]) && g1.pingSix(p3.Addresses[0]) && g3.pingSix(p1.Addresses[0])
	})
	for _, to := range []network.HostPort{p2, p3} {
		if got, want := g1.greeting(at(to, "22")), "hello ["+p1.Addresses[0]+"]:"; !strings.HasPrefix(got, want) {
			t.Errorf("%s, allowed to members of the group, answers %q", to.Addresses, got)
		}
		if got := g1.dial(at(to, "80")); got != "" {
			t.Errorf("security groups do not hold between hosts: %q", got)
		}
	}
	g1.ip("addr", "add", "2001:db8:77::666/64", "dev", "eth0", "nodad")
	for _, to := range []network.HostPort{p2, p3} {
		if _, err := g1.try("", "ping", "-6", "-c1", "-W1", "-I", "2001:db8:77::666", to.Addresses[0]); err == nil {
			t.Error("a strange address passes to the other host")
		}
	}
	if g2.pingSix("2001:db8:77::666") {
		t.Error("a guest advertises to the other host an address that is not its own")
	}
	g1.ip("addr", "del", "2001:db8:77::666/64", "dev", "eth0")

	lines := []*held{g1.hold(at(p2, "22")), g3.hold(at(p2, "22"))}
	alive := func(when string) {
		t.Helper()
		for i, l := range lines {
			if !l.echo(when) {
				t.Errorf("connection %d carries nothing %s the move", i, when)
			}
		}
	}
	st := spread(hosts, all, where)
	in := p2
	in.Incoming = true
	st[0].Ports = append(st[0].Ports, in)
	hosts[0].apply(st[0])
	alive("before")
	run(t, "ip", "-n", hosts[1].ns, "link", "set", p2.Tap, "netns", hosts[0].ns)
	run(t, "ip", "-n", hosts[0].ns, "link", "set", p2.Tap, "up", "master", network.BridgeName(netA))
	until(t, "that the guest is heard where it has gone", func() bool { return g2.pingSix(p1.Addresses[0]) })
	alive("during")
	where[p2.ID] = 0
	on(all)
	alive("after")
	if !g3.reachesSix(p2.Addresses[0]) || !g2.reachesSix("2001:db8:77::1") {
		t.Error("the guest is not reached after its move")
	}
	if out, err := g2.try("", "busybox", "wget", "-q", "-O", "-", "http://[fe80::a9fe:a9fe%eth0]/"); err != nil || out != p2.ServerID+" at "+hosts[0].addr {
		t.Errorf("metadata after the move: %q %v", out, err)
	}
}
