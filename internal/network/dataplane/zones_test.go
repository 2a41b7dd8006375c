package dataplane

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"kilonova/internal/network"
)

const (
	netC = "cccccccc-0000-4000-8000-00000000000c"
	netD = "dddddddd-0000-4000-8000-00000000000d"
	grpB = "99999999-0000-4000-8000-000000000002"
)

// twins are networks that all have the addresses 10.77.0.0/24, with two guests each: .45 with the floating address 192.0.2.(60+n), and .46.
func twins(ids ...string) *network.HostState {
	st := hostState(nil, network.GroupRule{Direction: "ingress", EtherType: "IPv4"})
	one := st.Networks[0]
	st.Networks = nil
	st.Groups = append(st.Groups, network.HostGroup{ID: grpB, Rules: []network.GroupRule{{Direction: "egress", EtherType: "IPv4"}}})
	for _, id := range ids {
		i := strings.IndexByte("abcd", id[0])
		n := one
		n.ID, n.Bridge, n.Leases = id, network.BridgeName(id), nil
		n.Subnets = append([]network.Subnet(nil), one.Subnets...)
		n.Subnets[0].ID, n.Subnets[0].NetworkID = "sub-"+id, id
		st.Networks = append(st.Networks, n)
		for k := range 2 {
			p := hostPort(id, "10.77.0.", 100+2*i+k)
			p.Addresses = []string{fmt.Sprint("10.77.0.", 45+k)}
			if k == 0 {
				p.Floating = []network.Floating{{Address: fmt.Sprint("192.0.2.", 60+i), Fixed: p.Addresses[0]}}
			}
			st.Ports = append(st.Ports, p)
		}
	}
	return st
}

// outside makes a machine outside, 192.0.2.2, which the host reaches from 192.0.2.1 if it has an address there.
func outside(t *testing.T, p *Plane, addressed bool) *guest {
	t.Helper()
	world := boot(t, network.HostPort{ID: "0000eeee-0000-4000-8000-000000000000", Tap: "outside0", MAC: "fa:16:3e:00:00:ee"})
	if addressed {
		run(t, "ip", "addr", "add", "192.0.2.1/24", "dev", "outside0")
	}
	run(t, "ip", "link", "set", "outside0", "up")
	if !addressed {
		run(t, "ip", "route", "add", "192.0.2.0/24", "dev", "outside0")
	}
	world.ip("addr", "add", "192.0.2.2/24", "dev", "eth0")
	world.listen("80")
	p.cfg.Outside = "outside0"
	return world
}

// Guests of networks with the same addresses reach each other by floating addresses, and no other way. What they have open stays open while other such
// networks come and go, and when the process does.
func TestTwinsReachEachOtherByFloatingAddresses(t *testing.T) {
	needRoot(t)
	p := plane(t, nil)
	world := outside(t, p, true)
	st := twins(netA, netB)
	var g []*guest
	for i := range st.Ports {
		g = append(g, boot(t, st.Ports[i]))
		g[i].static(st.Ports[i].Addresses[0]+"/24", "10.77.0.1")
		g[i].listen(fmt.Sprint(1000 + i))
		g[i].listen("22")
	}
	a1, a2, b1, b2 := g[0], g[1], g[2], g[3]
	apply(t, p, st)
	for _, tc := range []struct {
		who  *guest
		addr string
		want string
	}{
		{a1, "192.0.2.61:1002", "hello 192.0.2.60:"},
		{a1, "192.0.2.61:1000", ""},
		{b1, "192.0.2.60:1000", "hello 192.0.2.61:"},
		{a2, "192.0.2.61:1002", "hello 192.0.2.1:"},
		{b2, "192.0.2.60:1000", "hello 192.0.2.1:"},
		{a2, "192.0.2.60:1000", "hello 192.0.2.1:"}, // of its own network
		{a1, "10.77.0.46:1001", "hello 10.77.0.45:"},
		{b1, "10.77.0.46:1003", "hello 10.77.0.45:"},
		{b1, "10.77.0.46:1001", ""},
		{world, "192.0.2.60:1000", "hello 192.0.2.2:"},
		{world, "192.0.2.61:1002", "hello 192.0.2.2:"},
		{world, "192.0.2.61:1000", ""},
		{a1, "192.0.2.2:80", "hello 192.0.2.60:"},
		{b2, "192.0.2.2:80", "hello 192.0.2.1:"},
	} {
		dial := tc.who.dial
		if tc.want != "" {
			dial = tc.who.greeting
		}
		if got := dial(tc.addr); tc.want == "" && got != "" || !strings.HasPrefix(got, tc.want) {
			t.Errorf("%s in %s calls %s: %q, want %q", tc.who.port.Addresses, tc.who.port.NetworkID[:1], tc.addr, got, tc.want)
		}
	}
	for _, who := range []*guest{a1, a2} {
		if !who.reaches("192.0.2.61") {
			t.Error("no ping to a floating address of a network with the same addresses")
		}
	}

	// From one port everywhere, so that only the networks tell the connections apart.
	open := map[string]*held{
		"in A":              a1.hold("10.77.0.46:22 5001"),
		"in B":              b1.hold("10.77.0.46:22 5001"),
		"from A to B":       a1.hold("192.0.2.61:22 5002"),
		"from B to A":       b1.hold("192.0.2.60:22 5002"),
		"A to outside":      a1.hold("192.0.2.2:80 5003"),
		"B to outside":      b1.hold("192.0.2.2:80 5003"),
		"A hidden":          a2.hold("192.0.2.2:80 5003"),
		"B hidden":          b2.hold("192.0.2.2:80 5003"),
		"outside to A":      world.hold("192.0.2.60:22 5004"),
		"outside to B":      world.hold("192.0.2.61:22 5004"),
		"hidden, from A":    a2.hold("192.0.2.61:22 5005"),
		"hidden, from B":    b2.hold("192.0.2.60:22 5005"),
		"from host to A":    holdFrom(t, "192.0.2.60:22"),
		"from host to B":    holdFrom(t, "192.0.2.61:22"),
		"in A by floating":  a2.hold("192.0.2.60:22 5006"),
		"in B by floating":  b2.hold("192.0.2.61:22 5006"),
		"A twice, same way": a1.hold("192.0.2.61:22 5007"),
	}
	alive := func(when string) {
		t.Helper()
		for name, h := range open {
			if !h.echo(when) {
				t.Errorf("%s: the connection %s carries nothing", when, name)
			}
		}
	}
	alive("before")
	apply(t, p, twins(netA, netB, netC, netD))
	alive("with two more networks")
	apply(t, p, st)
	alive("without them again")
	if err := p.Close(false); err != nil {
		t.Fatal(err)
	}
	next, err := New(p.cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := next.Close(true); err != nil {
			t.Error(err)
		}
	})
	apply(t, next, st)
	alive("after a restart")
	for name := range open {
		if name != "in A" && name != "A to outside" && name != "A hidden" && name != "outside to A" && name != "in A by floating" && name != "from host to A" {
			delete(open, name)
		}
	}
	apply(t, next, twins(netA))
	alive("without the other network")
}

// What one network has open is no way into another with the same addresses.
func TestTwinsDoNotShareConnections(t *testing.T) {
	needRoot(t)
	p := plane(t, nil)
	outside(t, p, true)
	st := twins(netA, netB)
	for i := range st.Ports {
		if st.Ports[i].NetworkID == netB {
			st.Ports[i].Groups = []string{grpB} // lets nothing in
		}
	}
	var g []*guest
	for i := range st.Ports {
		g = append(g, boot(t, st.Ports[i]))
		g[i].static(st.Ports[i].Addresses[0]+"/24", "10.77.0.1")
		g[i].listen("22")
	}
	apply(t, p, st)
	h := g[0].hold("10.77.0.46:22 5001")
	if got := g[2].dial("10.77.0.46:22 5001"); got != "" {
		t.Errorf("a connection of another network lets this one in: %q", got)
	}
	if got := g[0].dial("192.0.2.61:22"); got != "" {
		t.Errorf("a floating address lets in what the group does not: %q", got)
	}
	if !h.echo("still there") {
		t.Error("another network has ended a connection of this one")
	}
	// A's guest calls B's, whose group now lets it in. A guest of a third network has the address of the called one, and answers in its place.
	more := twins(netA, netB, netC)
	c := boot(t, more.Ports[4])
	c.static("10.77.0.45/24", "10.77.0.1")
	apply(t, p, more)
	if got := c.greeting("192.0.2.60:22"); got == "" {
		t.Error("the third network's guest reaches nobody")
	}
	g[2].serve("answer 22")
	call := hold(t, exec.Command("ip", "netns", "exec", g[0].ns, testProgram(t)), "datagrams 192.0.2.61:22 5002")
	if out, err := c.try("DATAPLANE_GUEST=forge 192.0.2.60:5002 22", testProgram(t)); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if !call.echo("still there") {
		t.Error("a forged answer came in the place of the true one")
	}
}

// Without an address of its own outside, the host lets guests call floating addresses under those.
func TestTwinsWithoutAnAddressOutside(t *testing.T) {
	needRoot(t)
	p := plane(t, nil)
	outside(t, p, false)
	st := twins(netA, netB)
	var g []*guest
	for i := range st.Ports {
		g = append(g, boot(t, st.Ports[i]))
		g[i].static(st.Ports[i].Addresses[0]+"/24", "10.77.0.1")
		g[i].listen("22")
	}
	apply(t, p, st)
	for _, tc := range []struct {
		who  *guest
		addr string
		want string
	}{{g[0], "192.0.2.61:22", "hello 192.0.2.60:"}, {g[1], "192.0.2.61:22", "hello 192.0.2.61:"}, {g[3], "192.0.2.60:22", "hello 192.0.2.60:"}} {
		if got := tc.who.greeting(tc.addr); !strings.HasPrefix(got, tc.want) {
			t.Errorf("%s in %s calls %s: %q, want %q", tc.who.port.Addresses, tc.who.port.NetworkID[:1], tc.addr, got, tc.want)
		}
	}
}

// Two routers join networks of the same addresses: A with C, B with D. All guests have the same addresses as those of the other router.
func TestTwinRouters(t *testing.T) {
	needRoot(t)
	p := plane(t, nil)
	outside(t, p, true)
	st := twins(netA, netB, netC, netD)
	for i := range st.Networks {
		n := &st.Networks[i]
		n.Peers = []string{map[string]string{netA: netC, netC: netA, netB: netD, netD: netB}[n.ID]}
		if i >= 2 {
			n.Subnets[0].CIDR, n.Subnets[0].Gateway = "10.79.0.0/24", "10.79.0.1"
		}
	}
	g := map[string]*guest{}
	for i := range st.Ports {
		q := &st.Ports[i]
		gateway := "10.77.0.1"
		if q.NetworkID == netC || q.NetworkID == netD {
			q.Addresses[0], gateway = strings.Replace(q.Addresses[0], ".77.", ".79.", 1), "10.79.0.1"
			if len(q.Floating) > 0 {
				q.Floating[0].Fixed = q.Addresses[0]
			}
		}
		if i%2 == 0 {
			g[q.NetworkID] = boot(t, *q)
			g[q.NetworkID].static(q.Addresses[0]+"/24", gateway)
			g[q.NetworkID].listen("22")
		}
	}
	apply(t, p, st)
	g[netC].listen("1003")
	g[netD].listen("1004")
	var open []*held
	for from, port := range map[string]string{netA: "1003", netB: "1004"} {
		other := map[string]string{"1003": "1004", "1004": "1003"}[port]
		if got := g[from].greeting("10.79.0.45:" + port + " 6001"); got != "hello 10.77.0.45:6001" { // not even the port changes
			t.Errorf("from %s across the router: %q", from[:1], got)
		}
		if got := g[from].dial("10.79.0.45:" + other); got != "" {
			t.Errorf("from %s a guest behind somebody else's router answers %q", from[:1], got)
		}
		open = append(open, g[from].hold("10.79.0.45:22 6002"))
	}
	if got := g[netA].greeting("192.0.2.63:22"); !strings.HasPrefix(got, "hello 192.0.2.60:") {
		t.Errorf("from one router's network to a floating address of the other's: %q", got)
	}
	for range 2 {
		for i, h := range open {
			if !h.echo(fmt.Sprint("line ", i)) {
				t.Errorf("connection %d across a router carries nothing", i)
			}
		}
		next := *st
		next.Ports = append([]network.HostPort(nil), st.Ports...)
		next.Ports[1].Floating = []network.Floating{{Address: "192.0.2.70", Fixed: "10.77.0.46"}}
		apply(t, p, &next)
	}
}
