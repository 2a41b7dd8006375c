package dataplane

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/network"
)

const (
	netA = "aaaaaaaa-0000-4000-8000-00000000000a"
	netB = "bbbbbbbb-0000-4000-8000-00000000000b"
	grp  = "99999999-0000-4000-8000-000000000001"
)

func num(n int) *int { return &n }

// hostPort is port number n of a network whose addresses begin with prefix.
func hostPort(netID, prefix string, n int) network.HostPort {
	id := fmt.Sprintf("%08x-%04x-4000-8000-000000000000", n, n)
	return network.HostPort{ID: id, NetworkID: netID, Tap: network.TapName(id), MAC: fmt.Sprintf("fa:16:3e:00:00:%02x", n),
		Addresses: []string{fmt.Sprint(prefix, n)}, Groups: []string{grp}, PortSecurity: true, ServerID: fmt.Sprint("server-", n), ProjectID: "p1"}
}

// hostState has ports on network A; its group lets everything out and in only what rules say.
func hostState(ports []network.HostPort, rules ...network.GroupRule) *network.HostState {
	st := &network.HostState{Host: "h", Ports: ports, Networks: []network.HostNetwork{{ID: netA, Bridge: network.BridgeName(netA), MTU: 1400, Domain: "test.local",
		Gateway: true, NAT: true, Subnets: []network.Subnet{{ID: "sub-a", NetworkID: netA, Version: 4, CIDR: "10.77.0.0/24", Gateway: "10.77.0.1", DHCP: true,
			Routes: []network.Route{{Destination: "10.99.0.0/16", NextHop: "10.77.0.9"}}}}}}}
	g := network.HostGroup{ID: grp, Rules: append([]network.GroupRule{{Direction: "egress", EtherType: "IPv4"}, {Direction: "egress", EtherType: "IPv6"}}, rules...)}
	for _, p := range ports {
		g.Members = append(g.Members, p.Addresses...)
		st.Networks[0].Leases = append(st.Networks[0].Leases, network.Lease{MAC: p.MAC, Address: p.Addresses[0], SubnetID: "sub-a", Hostname: "host" + p.Addresses[0][len("10.77.0."):]})
	}
	st.Groups = []network.HostGroup{g}
	return st
}

func plane(t *testing.T, meta http.Handler) *Plane {
	t.Helper()
	p, err := New(Config{Tag: "test", StateDir: t.TempDir(), Metadata: meta})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(true); err != nil {
			t.Error(err)
		}
	})
	return p
}

func apply(t *testing.T, p *Plane, st *network.HostState) {
	t.Helper()
	if err := p.Apply(t.Context(), st); err != nil {
		t.Fatal(err)
	}
}

func TestGuestGetsAddressNameMetadata(t *testing.T) {
	needRoot(t, "busybox")
	meta := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s %s", r.Header.Get("X-Instance-ID"), r.Header.Get("X-Tenant-ID"), r.Header.Get("X-Neutron-Network-ID"), r.Header.Get("X-Forwarded-For"))
	})
	p := plane(t, meta)
	p.cfg.DNS = nil
	p1, p2 := hostPort(netA, "10.77.0.", 11), hostPort(netA, "10.77.0.", 12)
	st := hostState([]network.HostPort{p1, p2})
	g1, g2 := boot(t, p1), boot(t, p2)
	apply(t, p, st)
	got, err := g1.lease()
	if err != nil {
		t.Fatalf("DHCP: %v %v", err, got)
	}
	want := map[string]string{"ip": "10.77.0.11", "mask": "24", "router": "10.77.0.1", "dns": "169.254.169.254", "domain": "test.local", "hostname": "host11",
		"mtu": "1400", "lease": "86400", "serverid": "10.77.0.1",
		"staticroutes": "169.254.169.254/32 10.77.0.1 10.99.0.0/16 10.77.0.9 0.0.0.0/0 10.77.0.1"}
	for k, w := range want {
		if got[k] != w {
			t.Errorf("DHCP told %s=%q, want %q", k, got[k], w)
		}
	}
	if _, err := g2.lease(); err != nil {
		t.Fatalf("DHCP of the second guest: %v", err)
	}
	for _, g := range []*guest{g1, g2} {
		out, err := g.try("", "busybox", "wget", "-q", "-O", "-", "--header", "X-Instance-ID: somebody-else", "http://169.254.169.254/latest")
		if diff := cmp.Diff(fmt.Sprintf("%s p1 %s %s", g.port.ServerID, netA, g.port.Addresses[0]), out); err != nil || diff != "" {
			t.Errorf("metadata: %v %s", err, diff)
		}
	}
	for name, want := range map[string]string{"host12.test.local": "10.77.0.12", "nobody.example.org": "SERVFAIL"} { // another guest, and one that nobody can be asked for
		var out string
		if !soon(func() bool {
			out, _ = g1.try("", "busybox", "nslookup", name, "169.254.169.254")
			return strings.Contains(out, want)
		}) {
			t.Errorf("%s is not %s:\n%s", name, want, out)
		}
	}
	wired, err := p.Wired()
	if diff := cmp.Diff(map[string]bool{p1.ID: true, p2.ID: true}, wired); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	// A MAC that no port has gets nothing.
	g2.ip("link", "set", "eth0", "address", "fa:16:3e:00:00:99")
	if got, err := g2.askLease(4); err == nil {
		t.Errorf("DHCP for a strange MAC: %v", got)
	}
}

func TestSecurityGroupsBothWays(t *testing.T) {
	needRoot(t)
	p := plane(t, nil)
	p1, p2 := hostPort(netA, "10.77.0.", 21), hostPort(netA, "10.77.0.", 22)
	ports := []network.HostPort{p1, p2}
	g1, g2 := boot(t, p1), boot(t, p2)
	g1.static("10.77.0.21/24", "10.77.0.1")
	g2.static("10.77.0.22/24", "10.77.0.1")
	g2.listen("22")
	g2.listen("80")
	check := func(when string, ping, ssh, web bool) {
		t.Helper()
		pings := g1.ping
		if ping {
			pings = g1.reaches
		}
		if got := pings("10.77.0.22"); got != ping {
			t.Errorf("%s: ping %v, want %v", when, got, ping)
		}
		for port, want := range map[string]bool{"22": ssh, "80": web} {
			dials := g1.dial
			if want {
				dials = g1.greeting
			}
			if got := dials("10.77.0.22:" + port); (got != "") != want {
				t.Errorf("%s: port %s says %q, want an answer: %v", when, port, got, want)
			}
		}
	}
	apply(t, p, hostState(ports))
	check("no rule", false, false, false)
	if run(t, "nft", "list", "tables"); exec.Command("ping", "-c1", "-W1", "10.77.0.22").Run() == nil {
		t.Error("the host reaches a guest that allows nothing")
	}
	if !g1.reaches("10.77.0.1") {
		t.Error("a guest does not reach its gateway")
	}
	ssh := network.GroupRule{Direction: "ingress", EtherType: "IPv4", Protocol: "tcp", PortMin: num(22), PortMax: num(22), RemoteIP: "10.77.0.0/24"}
	apply(t, p, hostState(ports, ssh))
	check("ssh", false, true, false)
	icmp := network.GroupRule{Direction: "ingress", EtherType: "IPv4", Protocol: "icmp"}
	apply(t, p, hostState(ports, ssh, icmp))
	check("ssh and icmp", true, true, false)
	if !soon(func() bool { return exec.Command("ping", "-c1", "-W1", "10.77.0.22").Run() == nil }) {
		t.Error("the host does not reach a guest that allows ping")
	}
	apply(t, p, hostState(ports, network.GroupRule{Direction: "ingress", EtherType: "IPv4", RemoteGroup: grp}))
	check("remote group", true, true, true)
	none := hostState(ports, network.GroupRule{Direction: "ingress", EtherType: "IPv4"})
	none.Groups[0].Rules = none.Groups[0].Rules[2:] // nothing may leave
	apply(t, p, none)
	check("no egress", false, false, false)
	down := hostState(ports, network.GroupRule{Direction: "ingress", EtherType: "IPv4"})
	down.Ports[1].Down = true
	apply(t, p, down)
	check("port down", false, false, false)
}

// The answers to what a stateless group lets out need a rule that lets them in.
func TestStatelessGroupsFollowNoConnection(t *testing.T) {
	needRoot(t)
	p := plane(t, nil)
	p1, p2 := hostPort(netA, "10.77.0.", 23), hostPort(netA, "10.77.0.", 24)
	g1, g2 := boot(t, p1), boot(t, p2)
	g1.static("10.77.0.23/24", "10.77.0.1")
	g2.static("10.77.0.24/24", "10.77.0.1")
	icmp := func(kind int) network.GroupRule {
		return network.GroupRule{Direction: "ingress", EtherType: "IPv4", Protocol: "icmp", PortMin: num(kind)}
	}
	for _, tc := range []struct {
		when      string
		stateless bool
		rules     []network.GroupRule
		want      bool
	}{
		{"followed, requests let in", false, []network.GroupRule{icmp(8)}, true},
		{"stateless, requests let in", true, []network.GroupRule{icmp(8)}, false},
		{"stateless, requests and answers let in", true, []network.GroupRule{icmp(8), icmp(0)}, true},
	} {
		st := hostState([]network.HostPort{p1, p2}, tc.rules...)
		st.Groups[0].Stateless = tc.stateless
		apply(t, p, st)
		ping := g1.ping
		if tc.want {
			ping = g1.reaches
		}
		if got := ping("10.77.0.24"); got != tc.want {
			t.Errorf("%s: ping %v, want %v", tc.when, got, tc.want)
		}
	}
}

func TestRulesEndAndKeepConnections(t *testing.T) {
	needRoot(t)
	p := plane(t, nil)
	p1, p2 := hostPort(netA, "10.77.0.", 26), hostPort(netA, "10.77.0.", 27)
	ports := []network.HostPort{p1, p2}
	g1, g2 := boot(t, p1), boot(t, p2)
	g1.static("10.77.0.26/24", "10.77.0.1")
	g2.static("10.77.0.27/24", "10.77.0.1")
	g2.listen("22")
	g2.listen("80")
	rule := func(port int) network.GroupRule {
		return network.GroupRule{Direction: "ingress", EtherType: "IPv4", Protocol: "tcp", PortMin: num(port), PortMax: num(port)}
	}
	apply(t, p, hostState(ports, rule(22), rule(80)))
	ssh, web := g1.hold("10.77.0.27:22"), g1.hold("10.77.0.27:80")
	if !ssh.echo("one") || !web.echo("one") {
		t.Fatal("open connections do not carry anything")
	}
	apply(t, p, hostState(ports, rule(22)))
	if web.echoWithin("two", 3*time.Second) {
		t.Error("a connection outlives the rule that let it in")
	}
	if !ssh.echo("two") {
		t.Error("a connection that is still allowed has ended")
	}
	// A new process that knows nothing of the one before leaves connections alone.
	if err := p.Close(false); err != nil {
		t.Fatal(err)
	}
	next := plane(t, nil)
	apply(t, next, hostState(ports, rule(22)))
	if !ssh.echo("three") {
		t.Error("a connection has ended with the process")
	}
}

func TestSpoofingIsDropped(t *testing.T) {
	needRoot(t)
	p := plane(t, nil)
	p1, p2 := hostPort(netA, "10.77.0.", 31), hostPort(netA, "10.77.0.", 32)
	g1, g2 := boot(t, p1), boot(t, p2)
	g1.static("10.77.0.31/24", "10.77.0.1")
	g2.static("10.77.0.32/24", "10.77.0.1")
	all := network.GroupRule{Direction: "ingress", EtherType: "IPv4"}
	st := hostState([]network.HostPort{p1, p2}, all)
	apply(t, p, st)
	until(t, "that the guests reach each other", func() bool { return g1.ping("10.77.0.32") })
	g1.ip("addr", "add", "10.77.0.66/24", "dev", "eth0")
	spoofed := func() bool {
		_, err := g1.try("", "ping", "-c1", "-W1", "-I", "10.77.0.66", "10.77.0.32")
		return err == nil
	}
	if spoofed() {
		t.Error("an address that is not the port's gets through")
	}
	paired := hostState([]network.HostPort{p1, p2}, all)
	paired.Ports[0].Pairs = []network.AddressPair{{IP: "10.77.0.64/29"}}
	apply(t, p, paired)
	if !soon(spoofed) {
		t.Error("an allowed address pair does not get through")
	}
	apply(t, p, st)
	if spoofed() {
		t.Error("an address pair that was taken away gets through")
	}
	g1.ip("link", "set", "eth0", "address", "fa:16:3e:00:00:77")
	g2.ip("neigh", "flush", "dev", "eth0")
	if g1.ping("10.77.0.32") {
		t.Error("a MAC that is not the port's gets through")
	}
	open := hostState([]network.HostPort{p1, p2}, all)
	open.Ports[0].PortSecurity, open.Ports[0].Groups = false, nil
	apply(t, p, open)
	if !g1.reaches("10.77.0.32") {
		t.Error("without port security the guest is still held")
	}
}

func TestRoutingAndNAT(t *testing.T) {
	needRoot(t)
	p := plane(t, nil)
	pa, pb := hostPort(netA, "10.77.0.", 41), hostPort(netB, "10.78.0.", 42)
	st := hostState([]network.HostPort{pa}, network.GroupRule{Direction: "ingress", EtherType: "IPv4"})
	st.Ports = append(st.Ports, pb)
	st.Networks = append(st.Networks, network.HostNetwork{ID: netB, Bridge: network.BridgeName(netB), MTU: 1400, Gateway: true, NAT: true,
		Subnets: []network.Subnet{{ID: "sub-b", NetworkID: netB, Version: 4, CIDR: "10.78.0.0/24", Gateway: "10.78.0.1", DHCP: true}}})
	ga, gb := boot(t, pa), boot(t, pb)
	ga.static("10.77.0.41/24", "10.77.0.1")
	gb.static("10.78.0.42/24", "10.78.0.1")
	gb.listen("22")
	// A machine outside, which knows nothing of the guests' networks.
	world := boot(t, network.HostPort{ID: "0000dddd-0000-4000-8000-000000000000", Tap: "outside0", MAC: "fa:16:3e:00:00:dd"})
	run(t, "ip", "addr", "add", "192.0.2.1/24", "dev", "outside0")
	run(t, "ip", "link", "set", "outside0", "up")
	world.ip("addr", "add", "192.0.2.2/24", "dev", "eth0")
	world.listen("80")
	p.cfg.Outside = "outside0"

	apply(t, p, st)
	if got := ga.greeting("192.0.2.2:80"); !strings.HasPrefix(got, "hello 192.0.2.1:") {
		t.Errorf("from outside the guest looks like %q, want the host's address", got)
	}
	if ga.ping("10.78.0.42") {
		t.Error("networks without a common router reach each other")
	}
	st.Networks[0].Peers, st.Networks[1].Peers = []string{netB}, []string{netA}
	apply(t, p, st)
	if got := ga.greeting("10.78.0.42:22"); !strings.HasPrefix(got, "hello 10.77.0.41:") {
		t.Errorf("across the router the guest looks like %q", got)
	}
	st.Ports[1].Floating = []network.Floating{{Address: "192.0.2.50", Fixed: "10.78.0.42"}}
	apply(t, p, st)
	if got := world.greeting("192.0.2.50:22"); !strings.HasPrefix(got, "hello 192.0.2.2:") {
		t.Errorf("the floating address answers %q", got)
	}
	if got := gb.greeting("192.0.2.2:80"); !strings.HasPrefix(got, "hello 192.0.2.50:") {
		t.Errorf("from outside a guest with a floating address looks like %q", got)
	}
	if got := ga.greeting("192.0.2.50:22"); got == "" {
		t.Error("a guest does not reach the floating address of another")
	}
	st.Ports[1].Floating = nil
	apply(t, p, st)
	if got := world.dial("192.0.2.50:22"); got != "" {
		t.Errorf("a floating address that was taken away answers %q", got)
	}
	if out := run(t, "ip", "addr", "show", "dev", "outside0"); strings.Contains(out, "192.0.2.50") {
		t.Errorf("the floating address is still there:\n%s", out)
	}
	st.Networks[0].NAT = false
	apply(t, p, st)
	if got := ga.dial("192.0.2.2:80"); got != "" {
		t.Errorf("a network that may not go outside is greeted %q", got)
	}
}

// A router's static route leads through a guest that forwards.
func TestStaticRoutes(t *testing.T) {
	needRoot(t)
	p := plane(t, nil)
	p1, p2 := hostPort(netA, "10.77.0.", 48), hostPort(netA, "10.77.0.", 49)
	p2.Pairs = []network.AddressPair{{IP: "10.123.0.0/16"}} // what is behind the second guest
	st := hostState([]network.HostPort{p1, p2}, network.GroupRule{Direction: "ingress", EtherType: "IPv4"})
	g1, g2 := boot(t, p1), boot(t, p2)
	g1.static("10.77.0.48/24", "10.77.0.1")
	g2.static("10.77.0.49/24", "10.77.0.1")
	g2.ip("addr", "add", "10.123.0.1/16", "dev", "lo")
	apply(t, p, st)
	if g1.ping("10.123.0.1") {
		t.Error("there is a way without a route")
	}
	st.Networks[0].Routes = []network.Route{{Destination: "10.123.0.0/16", NextHop: "10.77.0.49"}, {Destination: "10.124.0.0/16", NextHop: "172.31.0.1"}}
	for range 2 {
		apply(t, p, st)
	}
	if !g1.reaches("10.123.0.1") {
		t.Errorf("no way by the route:\n%s%s", run(t, "ip", "rule"), run(t, "ip", "route", "show", "table", "all"))
	}
	if out, err := exec.Command("ip", "route", "get", "10.123.0.1").CombinedOutput(); err == nil && strings.Contains(string(out), "10.77.0.49") {
		t.Errorf("the host's own packets take a guest's route: %s", out)
	}
	st.Networks[0].Routes = nil
	apply(t, p, st)
	if g1.ping("10.123.0.1") {
		t.Error("a route that was taken away still leads")
	}
	if out := run(t, "ip", "rule"); strings.Contains(out, "21216") {
		t.Errorf("a rule is left:\n%s", out)
	}
}

// Two networks with the same addresses, on one host: each is a world of its own and both reach the outside.
func TestNetworksWithTheSameAddresses(t *testing.T) {
	needRoot(t)
	meta := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header.Get("X-Instance-ID")) })
	p := plane(t, meta)
	world := boot(t, network.HostPort{ID: "0000eeee-0000-4000-8000-000000000000", Tap: "outside0", MAC: "fa:16:3e:00:00:ee"})
	run(t, "ip", "addr", "add", "192.0.2.1/24", "dev", "outside0")
	run(t, "ip", "link", "set", "outside0", "up")
	world.ip("addr", "add", "192.0.2.2/24", "dev", "eth0")
	world.listen("80")
	p.cfg.Outside = "outside0"

	pa, pb := hostPort(netA, "10.77.0.", 45), hostPort(netB, "10.77.0.", 46)
	pb.Addresses = []string{"10.77.0.45"} // the very same
	st := hostState([]network.HostPort{pa}, network.GroupRule{Direction: "ingress", EtherType: "IPv4"})
	twin := st.Networks[0]
	twin.ID, twin.Bridge, twin.Leases = netB, network.BridgeName(netB), nil
	st.Networks, st.Ports = append(st.Networks, twin), append(st.Ports, pb)
	ga, gb := boot(t, pa), boot(t, pb)
	apply(t, p, st)
	for range 2 { // each after the other, so that both are known to connection tracking
		for _, g := range []*guest{ga, gb} {
			if g.ip("addr"); !strings.Contains(g.ip("addr"), "10.77.0.45") {
				g.static("10.77.0.45/24", "10.77.0.1")
			}
			if !g.reaches("10.77.0.1") {
				t.Errorf("%s does not reach its gateway", g.port.ServerID)
			}
			if got := g.greeting("192.0.2.2:80"); !strings.HasPrefix(got, "hello 192.0.2.1:") {
				t.Errorf("%s looks from outside like %q", g.port.ServerID, got)
			}
			if out, err := g.try("", "busybox", "wget", "-q", "-O", "-", "http://169.254.169.254/"); err != nil || out != g.port.ServerID {
				t.Errorf("metadata of %s says %q, %v", g.port.ServerID, out, err)
			}
		}
	}
	ga.listen("1001")
	gb.listen("1002")
	st.Ports[0].Floating = []network.Floating{{Address: "192.0.2.60", Fixed: "10.77.0.45"}}
	st.Ports[1].Floating = []network.Floating{{Address: "192.0.2.61", Fixed: "10.77.0.45"}}
	apply(t, p, st)
	for addr, want := range map[string]bool{"192.0.2.60:1001": true, "192.0.2.61:1002": true, "192.0.2.60:1002": false, "192.0.2.61:1001": false} {
		dial, wait := world.dial, 2*time.Second
		if want {
			dial, wait = world.greeting, patience
		}
		if got := dial(addr); (got != "") != want {
			t.Errorf("%s answers %q, want an answer: %v", addr, got, want)
		}
		c, err := net.DialTimeout("tcp", addr, wait)
		if err == nil {
			_ = c.Close()
		}
		if (err == nil) != want {
			t.Errorf("from the host itself %s: %v, want an answer: %v", addr, err, want)
		}
	}
	for g, want := range map[*guest]string{ga: "hello 192.0.2.60:", gb: "hello 192.0.2.61:"} {
		if got := g.greeting("192.0.2.2:80"); !strings.HasPrefix(got, want) {
			t.Errorf("%s looks from outside like %q, want %s", g.port.ServerID, got, want)
		}
	}
	st.Networks, st.Ports = st.Networks[:1], st.Ports[:1]
	apply(t, p, st)
	if out := run(t, "ip", "rule"); strings.Count(out, "21217") != 1 {
		t.Errorf("one network is left, and these routing rules:\n%s", out)
	}
}

func TestTeardownLeavesNothing(t *testing.T) {
	needRoot(t)
	snapshot := func() string {
		var b strings.Builder
		b.WriteString(run(t, "ip", "-o", "link"))
		b.WriteString(run(t, "ip", "-o", "addr"))
		b.WriteString(run(t, "nft", "list", "tables"))
		b.WriteString(run(t, "ip", "rule"))
		for _, s := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv6/conf/lo/accept_ra"} {
			v, err := readSetting(s)
			b.WriteString(fmt.Sprintln(s, v, err))
		}
		return b.String()
	}
	for _, s := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if err := writeSetting(s, "0"); err != nil {
			t.Fatal(err)
		}
	}
	before := snapshot()
	dir := t.TempDir()
	p, err := New(Config{Tag: "test", StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	port := hostPort(netA, "10.77.0.", 51)
	port.Floating = []network.Floating{{Address: "192.0.2.77", Fixed: "10.77.0.51"}}
	st := hostState([]network.HostPort{port})
	st.Networks[0].Subnets = append(st.Networks[0].Subnets, network.Subnet{ID: "six", Version: 6, CIDR: "2001:db8::/64", Gateway: "2001:db8::1", DHCP: true, IPv6RAMode: "slaac", IPv6AddressMode: "slaac"})
	for range 2 { // the second time changes nothing
		apply(t, p, st)
	}
	plug := func() { // as a hypervisor does
		run(t, "ip", "tuntap", "add", port.Tap, "mode", "tap")
		run(t, "ip", "link", "set", port.Tap, "master", network.BridgeName(netA), "up")
	}
	unplug := func() { run(t, "ip", "link", "del", port.Tap) }
	plug()
	bridge := network.BridgeName(netA)
	if out := run(t, "ip", "-o", "link", "show", "master", bridge); !strings.Contains(out, port.Tap) {
		t.Errorf("the tap is not on the bridge: %s", out)
	}
	if err := p.Close(false); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range [][]string{{"ip", "link", "show", bridge}, {"ip", "link", "show", port.Tap}, {"nft", "list", "table", "bridge", "kilonova_test"}} {
		run(t, cmd[0], cmd[1:]...) // still there for running guests
	}
	// The next process takes over, and what is no longer wanted goes.
	p, err = New(Config{Tag: "test", StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, p, st)
	unplug()
	apply(t, p, &network.HostState{Host: "h"})
	if exec.Command("ip", "link", "show", bridge).Run() == nil {
		t.Error("a bridge without ports is still there")
	}
	apply(t, p, st)
	plug()
	unplug()
	for range 2 {
		if err := p.Close(true); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(before, snapshot()); diff != "" {
		t.Errorf("teardown left: %s", diff)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("files left: %v, %v", left, err)
	}
}

func TestForeignBridgeIsNotTouched(t *testing.T) {
	needRoot(t)
	p := plane(t, nil)
	bridge := network.BridgeName(netA)
	run(t, "ip", "link", "add", bridge, "type", "bridge")
	defer run(t, "ip", "link", "del", bridge)
	if err := p.Apply(t.Context(), hostState([]network.HostPort{hostPort(netA, "10.77.0.", 61)})); err == nil || !strings.Contains(err.Error(), "not ours") {
		t.Errorf("a bridge of somebody else: %v", err)
	}
	if err := p.Close(true); err != nil {
		t.Fatal(err)
	}
	run(t, "ip", "link", "show", bridge)
}
