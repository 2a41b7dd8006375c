package dataplane

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"kilonova/internal/network"
)

// trunk joins the hosts' interfaces phys0 by a wire, and gives a router on it, whose address is 10.77.0.1 on a VLAN; 0 is
// without tag.
func trunk(t *testing.T, hosts []*machine, vlan int) *guest {
	t.Helper()
	wire := fmt.Sprintf("trunk%d", os.Getpid())
	run(t, "ip", "link", "add", wire, "type", "bridge")
	t.Cleanup(func() { run(t, "ip", "link", "del", wire) })
	run(t, "ip", "link", "set", wire, "up")
	for i, m := range hosts {
		end := fmt.Sprintf("trunk%d-%d", os.Getpid(), i)
		run(t, "ip", "link", "add", end, "type", "veth", "peer", "name", "phys0", "netns", m.ns)
		run(t, "ip", "link", "set", end, "master", wire, "up")
	}
	router := boot(t, network.HostPort{ID: "0000ffff-0000-4000-8000-000000000000", Tap: fmt.Sprintf("rt%d", os.Getpid()), MAC: "fa:16:3e:00:00:ff"})
	run(t, "ip", "link", "set", router.port.Tap, "master", wire, "up")
	link := "eth0"
	if vlan != 0 {
		link = fmt.Sprint("eth0.", vlan)
		router.ip("link", "add", link, "link", "eth0", "type", "vlan", "id", fmt.Sprint(vlan))
		router.ip("link", "set", link, "up")
	}
	router.ip("addr", "add", "10.77.0.1/24", "dev", link)
	return router
}

// physical are networks with the addresses 10.77.0.0/24 on VLANs of one physical network, with a guest of each on each of two hosts.
func physical(rules []network.GroupRule, vlans map[string]int) (*network.HostState, map[string]int) {
	st, where := hostState(nil, rules...), map[string]int{}
	one := st.Networks[0]
	st.Networks = nil
	for _, id := range []string{netA, netB} {
		vlan, wanted := vlans[id]
		if !wanted {
			continue
		}
		n := one
		n.ID, n.Bridge, n.Gateway, n.NAT, n.Physical, n.VLAN = id, network.BridgeName(id), false, false, "physnet", vlan
		for h := range 2 {
			p := hostPort(id, "10.77.0.", 60+2*strings.IndexByte("ab", id[0])+h)
			p.Addresses = []string{fmt.Sprint("10.77.0.", 60+h)}
			st.Ports, where[p.ID] = append(st.Ports, p), h
			n.Leases = append(n.Leases, network.Lease{MAC: p.MAC, Address: p.Addresses[0], SubnetID: "sub-a"})
			st.Groups[0].Members = append(st.Groups[0].Members, p.Addresses...)
		}
		st.Networks = append(st.Networks, n)
	}
	return st, where
}

// across boots the guests of a state, each on its host, and checks what holds in every network of a physical one: addresses and
// metadata from their own host.
func across(t *testing.T, hosts []*machine, st *network.HostState, where map[string]int) []*guest {
	t.Helper()
	var guests []*guest
	for _, p := range st.Ports {
		guests = append(guests, bootOn(t, hosts[where[p.ID]].ns, p))
	}
	for h, s := range spread(hosts, st, where) {
		hosts[h].apply(s)
	}
	for _, g := range guests {
		got, err := g.lease()
		if err != nil || got["ip"] != g.port.Addresses[0] || got["router"] != "10.77.0.1" || !strings.HasPrefix(got["staticroutes"], "169.254.169.254/32 0.0.0.0 ") {
			t.Fatalf("DHCP of %s: %v %v", g.port.Addresses, got, err)
		}
		g.ip("route", "add", "169.254.169.254/32", "dev", "eth0")
		for range 2 { // the second time with a neighbour that anybody could have given
			var out string
			if want := g.port.ServerID + " at " + hosts[where[g.port.ID]].addr; !soon(func() bool {
				out, err = g.try("", "busybox", "wget", "-q", "-O", "-", "http://169.254.169.254/")
				return err == nil
			}) || out != want {
				t.Errorf("metadata of %s: %q %v, want %q", g.port.ServerID, out, err, want)
			}
		}
		g.listen("22")
		g.listen("80")
	}
	return guests
}

func tcp(port int) network.GroupRule {
	return network.GroupRule{Direction: "ingress", EtherType: "IPv4", Protocol: "tcp", PortMin: num(port), PortMax: num(port)}
}

// needVLAN skips on a kernel without VLAN interfaces.
func needVLAN(t *testing.T) {
	t.Helper()
	run(t, "ip", "link", "add", "vlantest1", "type", "bridge")
	defer run(t, "ip", "link", "del", "vlantest1")
	out, err := exec.Command("ip", "link", "add", "vlantest0", "link", "vlantest1", "type", "vlan", "id", "1").CombinedOutput()
	if err != nil {
		if strings.Contains(string(out), "Unknown device type") {
			t.Skip("the kernel has no IEEE 802.1Q VLANs (module 8021q)")
		}
		t.Fatalf("%v %s", err, out)
	}
	run(t, "ip", "link", "del", "vlantest0")
}

func TestVLANsAcrossHosts(t *testing.T) {
	needRoot(t, "busybox", "unshare")
	needVLAN(t)
	hosts := machines(t, 2)
	router := trunk(t, hosts, 101)
	st, where := physical([]network.GroupRule{tcp(22)}, map[string]int{netA: 101, netB: 102})
	g := across(t, hosts, st, where)
	a1, a2, b1, b2 := g[0], g[1], g[2], g[3]
	for _, pair := range [][2]*guest{{a1, a2}, {a2, a1}, {b1, b2}, {b2, b1}} {
		addr := pair[1].port.Addresses[0]
		if got := pair[0].greeting(addr + ":22"); !strings.HasPrefix(got, "hello "+pair[0].port.Addresses[0]+":") {
			t.Errorf("%s calls its neighbour on the other host: %q", pair[0].port.ServerID, got)
		}
		if got := pair[0].dial(addr + ":80"); got != "" {
			t.Errorf("security groups do not hold between hosts: %q", got)
		}
	}
	// The router outside is on VLAN 101 only.
	if got := router.greeting("10.77.0.61:22"); !strings.HasPrefix(got, "hello 10.77.0.1:") {
		t.Errorf("the router outside is greeted %q", got)
	}
	if !a1.reaches("10.77.0.1") || !a2.reaches("10.77.0.1") || b1.ping("10.77.0.1") {
		t.Error("a VLAN leads to another one's router, or not to its own")
	}
	a1.ip("addr", "add", "10.77.0.99/24", "dev", "eth0")
	if _, err := a1.try("", "ping", "-c1", "-W1", "-I", "10.77.0.99", "10.77.0.1"); err == nil {
		t.Error("a strange address passes to the physical network")
	}
	// Connections of equal addresses on two VLANs, and of another tag on the first.
	la, lb := a1.hold("10.77.0.61:22 5001"), b1.hold("10.77.0.61:22 5001")
	for i := range st.Networks {
		if st.Networks[i].ID == netB {
			st.Networks[i].VLAN = 103
		}
	}
	for h, s := range spread(hosts, st, where) {
		hosts[h].apply(s)
	}
	if out := run(t, "ip", "-n", hosts[0].ns, "-d", "link", "show", vlanName(network.BridgeName(netB))); !strings.Contains(out, "id 103") {
		t.Errorf("the VLAN interface after a change:\n%s", out)
	}
	if !la.echo("a") || !lb.echo("b") {
		t.Error("a connection does not survive that a VLAN gets another tag")
	}
	// Nothing is sent there without a tag.
	for _, m := range hosts {
		if out := run(t, "ip", "-n", m.ns, "-o", "link", "show", "phys0"); strings.Contains(out, "master") {
			t.Errorf("the physical interface is on a bridge: %s", out)
		}
	}
	// Beside them on the same interface, the physical network as it is.
	more, at := physical(nil, map[string]int{netA: 101, netB: 0})
	for h, s := range spread(hosts, more, at) {
		hosts[h].apply(s)
	}
	if !a1.reaches("10.77.0.1") || b1.ping("10.77.0.1") {
		t.Error("the physical network beside its VLAN parts that from its router, or leads there")
	}
	// Without the networks nothing of them is left.
	for _, m := range hosts {
		m.apply(&network.HostState{Host: m.ns})
		if out := run(t, "ip", "-n", m.ns, "-o", "link", "show", "type", "vlan"); out != "" {
			t.Errorf("VLAN interfaces are left: %s", out)
		}
	}
}

func TestFlatNetworkAcrossHosts(t *testing.T) {
	needRoot(t, "busybox", "unshare")
	hosts := machines(t, 2)
	router := trunk(t, hosts, 0)
	st, where := physical([]network.GroupRule{tcp(22)}, map[string]int{netA: 0})
	g := across(t, hosts, st, where)
	if got := g[0].greeting("10.77.0.61:22"); !strings.HasPrefix(got, "hello 10.77.0.60:") {
		t.Errorf("guests of a flat network on two hosts: %q", got)
	}
	if got := router.greeting("10.77.0.60:22"); !strings.HasPrefix(got, "hello 10.77.0.1:") {
		t.Errorf("the router outside is greeted %q", got)
	}
	if got := router.dial("10.77.0.60:80"); got != "" {
		t.Errorf("security groups do not hold against the physical network: %q", got)
	}
	if !g[1].reaches("10.77.0.1") {
		t.Error("a guest of a flat network does not reach the router outside")
	}
	for i, m := range hosts {
		run(t, "ip", "-n", m.ns, "link", "del", g[i].port.Tap)
		m.apply(&network.HostState{Host: m.ns})
		if out := run(t, "ip", "-n", m.ns, "-o", "link", "show", "phys0"); strings.Contains(out, "master") {
			t.Errorf("the physical interface after the networks are gone: %s", out)
		}
	}
}
