package dataplane

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/network"
)

// beHost is a data plane in the namespace where it runs: it applies each state that it reads, and undoes all at the end.
func beHost(tunnel string) error {
	meta := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s at %s", r.Header.Get("X-Instance-ID"), tunnel)
	})
	p, err := New(Config{Tag: "test", Tunnel: netip.MustParseAddr(tunnel), Metadata: meta, Physical: map[string]string{"physnet": "phys0"}})
	if err != nil {
		return err
	}
	in := json.NewDecoder(os.Stdin)
	for {
		var st network.HostState
		err := in.Decode(&st)
		if err == io.EOF {
			return p.Close(true)
		}
		if err == nil {
			err = p.Apply(background(), &st)
		}
		fmt.Printf("applied %v\n", err)
	}
}

// machine is a host in a namespace of its own, on a wire that all of them share.
type machine struct {
	t    *testing.T
	ns   string
	addr string
	in   io.WriteCloser
	out  *bufio.Reader
	st   *network.HostState
}

func machines(t *testing.T, n int) (out []*machine) {
	t.Helper()
	wire := fmt.Sprintf("wire%d", os.Getpid())
	run(t, "ip", "link", "add", wire, "type", "bridge")
	t.Cleanup(func() { run(t, "ip", "link", "del", wire) })
	run(t, "ip", "link", "set", wire, "up")
	for i := range n {
		m := &machine{t: t, ns: fmt.Sprintf("knhost%d-%d", os.Getpid(), i+1), addr: fmt.Sprintf("192.0.2.%d", i+1)}
		run(t, "ip", "netns", "add", m.ns)
		t.Cleanup(func() { run(t, "ip", "netns", "del", m.ns) })
		end := fmt.Sprintf("wire%d-%d", os.Getpid(), i)
		run(t, "ip", "link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", m.ns)
		run(t, "ip", "link", "set", end, "master", wire, "up")
		for _, args := range [][]string{{"link", "set", "lo", "up"}, {"link", "set", "eth0", "up"}, {"addr", "add", m.addr + "/24", "dev", "eth0"}} {
			run(t, "ip", append([]string{"-n", m.ns}, args...)...)
		}
		cmd := exec.Command("ip", "netns", "exec", m.ns, "unshare", "--uts", testProgram(t))
		cmd.Env = append(os.Environ(), "DATAPLANE_GUEST=host "+m.addr)
		cmd.Stderr = os.Stderr
		stdout, err := cmd.StdoutPipe()
		if err == nil {
			m.in, err = cmd.StdinPipe()
		}
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		m.out = bufio.NewReader(stdout)
		t.Cleanup(func() {
			_ = m.in.Close()
			if err := cmd.Wait(); err != nil {
				t.Errorf("host %s: %v", m.ns, err)
			}
			if left := run(t, "ip", "-n", m.ns, "-o", "link"); strings.Contains(left, "kbr") || strings.Contains(left, "kvx") {
				t.Errorf("left on %s: %s", m.ns, left)
			}
		})
		out = append(out, m)
	}
	return out
}

func (m *machine) apply(st *network.HostState) {
	m.t.Helper()
	m.st = st
	raw, err := json.Marshal(st)
	if err == nil {
		_, err = m.in.Write(append(raw, '\n'))
	}
	if err != nil {
		m.t.Fatal(err)
	}
	if line, err := m.out.ReadString('\n'); line != "applied <nil>\n" {
		m.t.Fatalf("host %s: %s %v", m.ns, line, err)
	}
}

// spread gives each host the state in which ports of several networks are where they are. where is by port id; coming are ports that each host shall have
// besides.
func spread(hosts []*machine, all *network.HostState, where map[string]int) []*network.HostState {
	var out []*network.HostState
	for h := range hosts {
		st := &network.HostState{Host: hosts[h].ns, Groups: all.Groups}
		for _, n := range all.Networks {
			ends := map[string]bool{}
			for _, p := range all.Ports {
				if p.NetworkID == n.ID && where[p.ID] != h {
					n.Remote = append(n.Remote, network.RemotePort{MAC: p.MAC, Addresses: p.Addresses, Endpoint: hosts[where[p.ID]].addr})
					ends[hosts[where[p.ID]].addr] = true
				}
			}
			for e := range ends {
				n.Endpoints = append(n.Endpoints, e)
			}
			st.Networks = append(st.Networks, n)
		}
		for _, p := range all.Ports {
			if where[p.ID] == h {
				st.Ports = append(st.Ports, p)
			}
		}
		out = append(out, st)
	}
	return out
}

func TestNetworksAcrossHosts(t *testing.T) {
	needRoot(t, "busybox", "unshare")
	hosts := machines(t, 2)
	p1, p2, p3 := hostPort(netA, "10.77.0.", 11), hostPort(netA, "10.77.0.", 12), hostPort(netB, "10.78.0.", 13)
	ssh := network.GroupRule{Direction: "ingress", EtherType: "IPv4", Protocol: "tcp", PortMin: num(22), PortMax: num(22)}
	ping := network.GroupRule{Direction: "ingress", EtherType: "IPv4", Protocol: "icmp"}
	all := hostState([]network.HostPort{p1, p2}, ping, ssh)
	all.Networks[0].VNI, all.Networks[0].Peers = 4711, []string{netB}
	b := network.HostNetwork{ID: netB, Bridge: network.BridgeName(netB), MTU: 1400, Gateway: true, NAT: true, VNI: 4712, Peers: []string{netA},
		Subnets: []network.Subnet{{ID: "sub-b", NetworkID: netB, Version: 4, CIDR: "10.78.0.0/24", Gateway: "10.78.0.1", DHCP: true}},
		Leases:  []network.Lease{{MAC: p3.MAC, Address: p3.Addresses[0], SubnetID: "sub-b"}}}
	all.Networks, all.Ports = append(all.Networks, b), append(all.Ports, p3)
	where := map[string]int{p1.ID: 0, p2.ID: 1, p3.ID: 1}
	g1, g2, g3 := bootOn(t, hosts[0].ns, p1), bootOn(t, hosts[1].ns, p2), bootOn(t, hosts[1].ns, p3)
	for h, st := range spread(hosts, all, where) {
		hosts[h].apply(st)
	}
	for _, g := range []*guest{g1, g2, g3} {
		got, err := g.lease()
		if err != nil || got["ip"] != g.port.Addresses[0] || got["mtu"] != "1400" {
			t.Fatalf("DHCP of %s: %v %v", g.port.Addresses, got, err)
		}
		out, err := g.try("", "busybox", "wget", "-q", "-O", "-", "http://169.254.169.254/")
		if want := g.port.ServerID + " at " + hosts[where[g.port.ID]].addr; err != nil || out != want {
			t.Errorf("metadata of %s: %q %v, want %q", g.port.Addresses, out, err, want)
		}
	}
	g2.listen("22")
	g2.listen("80")
	g3.listen("22")
	until(t, "that guests of one network on two hosts reach each other", func() bool { return g1.ping("10.77.0.12") && g2.ping("10.77.0.11") })
	if got := g1.greeting("10.77.0.12:22"); got == "" {
		t.Error("an allowed connection between hosts does not come about")
	}
	if got := g1.dial("10.77.0.12:80"); got != "" {
		t.Error("security groups do not hold between hosts")
	}
	if !g1.reaches("10.78.0.13") || !g3.reaches("10.77.0.11") || g1.greeting("10.78.0.13:22") == "" {
		t.Error("a router's networks do not reach each other between hosts")
	}
	gateway := func(g *guest) string {
		g.reaches("10.77.0.1")
		return g.ip("neigh", "show", "to", "10.77.0.1")
	}
	if one, two := gateway(g1), gateway(g2); one == "" || strings.Fields(one)[4] != strings.Fields(two)[4] {
		t.Errorf("the gateway's MACs: %s %s", one, two)
	}
	// Nobody hears of the other host's gateway: with its own taken away, the guest finds none.
	run(t, "ip", "-n", hosts[0].ns, "addr", "del", "10.77.0.1/24", "dev", network.BridgeName(netA))
	g1.ip("neigh", "flush", "all")
	if g1.ping("10.77.0.1") {
		t.Error("a gateway answers from another host")
	}
	hosts[0].apply(hosts[0].st)
	// A guest that takes another's address or MAC is not heard on the other host either.
	g1.ip("addr", "add", "10.77.0.99/24", "dev", "eth0")
	if _, err := g1.try("", "ping", "-c1", "-W1", "-I", "10.77.0.99", "10.77.0.12"); err == nil {
		t.Error("a strange address passes to the other host")
	}

	t.Run("a guest moves with its connection", func(t *testing.T) {
		line := g1.hold("10.77.0.12:22")
		// It is expected on the first host, then it goes there, then the first host has it.
		st := spread(hosts, all, where)
		in := p2
		in.Incoming = true
		st[0].Ports = append(st[0].Ports, in)
		hosts[0].apply(st[0])
		if !line.echo("before") {
			t.Error("the connection breaks before the guest moves")
		}
		run(t, "ip", "-n", hosts[1].ns, "link", "set", p2.Tap, "netns", hosts[0].ns)
		run(t, "ip", "-n", hosts[0].ns, "link", "set", p2.Tap, "up", "master", network.BridgeName(netA))
		until(t, "that the guest is heard where it has gone", func() bool { return g2.ping("10.77.0.11") })
		if !line.echo("moved") {
			t.Error("the connection does not come along")
		}
		where[p2.ID] = 0
		for h, s := range spread(hosts, all, where) {
			hosts[h].apply(s)
		}
		if !line.echo("after") || !g3.reaches("10.77.0.12") || !g2.reaches("10.77.0.1") {
			t.Error("the guest is not reached after its move")
		}
	})
	t.Run("a guest with a floating address moves with its connection from outside", func(t *testing.T) {
		run(t, "ip", "addr", "add", "192.0.2.254/24", "dev", fmt.Sprintf("wire%d", os.Getpid()))
		for _, m := range hosts {
			run(t, "ip", "-n", m.ns, "route", "add", "default", "via", "192.0.2.254")
		}
		p2.Floating = []network.Floating{{Address: "192.0.2.100", Fixed: "10.77.0.12"}}
		all.Ports[1] = p2
		where[p2.ID] = 0
		for h, s := range spread(hosts, all, where) {
			hosts[h].apply(s)
		}
		line := holdFrom(t, "192.0.2.100:22")
		for _, dst := range []int{1, 0} {
			src := 1 - dst
			st := spread(hosts, all, where)
			in := p2
			in.Incoming = true
			st[dst].Ports = append(st[dst].Ports, in)
			hosts[dst].apply(st[dst])
			if !line.echo("before") {
				t.Fatal("the connection breaks before the guest moves")
			}
			run(t, "ip", "-n", hosts[src].ns, "link", "set", p2.Tap, "netns", hosts[dst].ns)
			run(t, "ip", "-n", hosts[dst].ns, "link", "set", p2.Tap, "up", "master", network.BridgeName(netA))
			// Its addresses are still at the other host: what is sent now comes through both.
			until(t, "that the guest is heard where it has gone", func() bool { return g2.ping("10.77.0.11") })
			for i := range 3 {
				if !line.echo(fmt.Sprint("between ", i)) {
					t.Errorf("nothing comes back while the floating address is at host %d and the guest at host %d", src, dst)
				}
			}
			where[p2.ID] = dst
			for h, s := range spread(hosts, all, where) {
				hosts[h].apply(s)
			}
			for i := range 3 {
				if !line.echo(fmt.Sprint("after ", i)) {
					t.Fatalf("the connection does not survive the move to host %d", dst)
				}
			}
		}
	})
	t.Run("a network leaves its host", func(t *testing.T) {
		hosts[1].apply(&network.HostState{Host: hosts[1].ns})
		if left := run(t, "ip", "-n", hosts[1].ns, "-o", "link", "show", "type", "vxlan"); left != "" {
			t.Errorf("tunnels are left: %s", left)
		}
	})
}

func TestFloodAndNeighboursFollowTheState(t *testing.T) {
	needRoot(t)
	p, err := New(Config{Tag: "test", StateDir: t.TempDir(), Tunnel: netip.MustParseAddr("127.0.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(true); err != nil {
			t.Error(err)
		}
	})
	st := hostState([]network.HostPort{hostPort(netA, "10.77.0.", 11)})
	n := &st.Networks[0]
	tun := tunnelName(n.Bridge)
	look := func() (flood, near string) {
		for line := range strings.Lines(run(t, "bridge", "fdb", "show", "dev", tun)) {
			if f := strings.Fields(line); f[0] == "00:00:00:00:00:00" {
				flood += f[2] + " "
			}
		}
		for line := range strings.Lines(run(t, "ip", "neigh", "show", "dev", n.Bridge, "nud", "permanent")) {
			f := strings.Fields(line)
			near += f[0] + "=" + f[2] + " "
		}
		return flood, near
	}
	for i, tc := range []struct {
		vni         int
		remote      []network.RemotePort
		ends        []string
		flood, near string
	}{
		{5, nil, nil, "", ""},
		{5, []network.RemotePort{{MAC: "FA:16:3E:00:00:12", Addresses: []string{"10.77.0.12"}, Endpoint: "127.0.0.2"}}, []string{"127.0.0.2", "127.0.0.3"},
			"127.0.0.2 127.0.0.3 ", "10.77.0.12=fa:16:3e:00:00:12 "},
		{5, []network.RemotePort{{MAC: "fa:16:3e:00:00:13", Addresses: []string{"10.77.0.12"}, Endpoint: "127.0.0.2"}}, []string{"127.0.0.2"},
			"127.0.0.2 ", "10.77.0.12=fa:16:3e:00:00:13 "},
		{6, nil, []string{"127.0.0.4"}, "127.0.0.4 ", ""},
	} {
		n.VNI, n.Remote, n.Endpoints = tc.vni, tc.remote, tc.ends
		apply(t, p, st)
		flood, near := look()
		if d := cmp.Diff([]string{tc.flood, tc.near}, []string{flood, near}); d != "" {
			t.Errorf("state %d: %s", i, d)
		}
	}
	n.VNI = 0
	apply(t, p, st)
	if _, err := os.Stat(filepath.Join("/sys/class/net", tun)); !os.IsNotExist(err) {
		t.Errorf("the tunnel of a network that is carried no more: %v", err)
	}
}

// TestGuestsCannotSpeakToTunnels: with its address hidden behind its host's, a guest would pass for that host.
func TestGuestsCannotSpeakToTunnels(t *testing.T) {
	st := hostState([]network.HostPort{hostPort(netA, "10.77.0.", 11)})
	st.Networks[0].VNI = 9
	opts := ruleOptions{Table: "x", MAC: func(*network.HostNetwork) string { return "0e:00:00:00:00:01" }, HostMAC: func(string) string { return "0e:00:00:00:00:02" },
		Tunnelled: func(n *network.HostNetwork) bool { return n.VNI != 0 }}
	rule := "iifname @bridges udp dport 4789 drop"
	text := ruleset(st, opts)
	drop, pass := strings.Index(text, rule), strings.Index(text, "iifname @bridges ct state established,related accept")
	if drop < 0 || drop > pass {
		t.Errorf("the rule %q does not come first:\n%s", rule, text)
	}
	st.Networks[0].VNI = 0
	if strings.Contains(ruleset(st, opts), rule) {
		t.Error("the rule is there without tunnels")
	}
}
