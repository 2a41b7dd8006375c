package dataplane

import (
	"context"
	"encoding/binary"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"pgregory.net/rapid"

	"kilonova/internal/network"
)

func TestMatch(t *testing.T) {
	for _, tc := range []struct {
		rule network.GroupRule
		want string
	}{
		{network.GroupRule{Direction: "ingress", EtherType: "IPv4"}, "ether type ip"},
		{network.GroupRule{Direction: "ingress", EtherType: "IPv4", RemoteIP: "0.0.0.0/0"}, "ether type ip"},
		{network.GroupRule{Direction: "ingress", EtherType: "IPv4", RemoteIP: "10.2.3.124/24"}, "ether type ip ip saddr 10.2.3.0/24"},
		{network.GroupRule{Direction: "egress", EtherType: "IPv6", RemoteIP: "2001:db8::/32"}, "ether type ip6 ip6 daddr 2001:db8::/32"},
		{network.GroupRule{Direction: "ingress", EtherType: "IPv4", Protocol: "tcp", PortMin: num(22), PortMax: num(22)}, "ether type ip meta l4proto 6 th dport 22"},
		{network.GroupRule{Direction: "ingress", EtherType: "IPv4", Protocol: "17", PortMin: num(1), PortMax: num(9)}, "ether type ip meta l4proto 17 th dport 1-9"},
		{network.GroupRule{Direction: "ingress", EtherType: "IPv4", Protocol: "icmp", PortMin: num(8), PortMax: num(0)}, "ether type ip meta l4proto 1 icmp type 8 icmp code 0"},
		{network.GroupRule{Direction: "ingress", EtherType: "IPv6", Protocol: "icmp"}, "ether type ip6 meta l4proto 58"},
		{network.GroupRule{Direction: "ingress", EtherType: "IPv4", RemoteGroup: "a-b"}, "ether type ip ip saddr @ip_a_b"},
		{network.GroupRule{Direction: "ingress", EtherType: "IPv4", RemoteIP: "2001:db8::/32"}, ""},
		{network.GroupRule{Direction: "ingress", EtherType: "IPv4", Protocol: "icmpv6"}, ""},
		{network.GroupRule{Direction: "ingress", EtherType: "IPv4", Protocol: "nonsense"}, ""},
	} {
		got, ok := match(&tc.rule)
		if got != tc.want || ok != (tc.want != "") {
			t.Errorf("%+v: %q %v, want %q", tc.rule, got, ok, tc.want)
		}
	}
}

func TestLinkLocalAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mac := net.HardwareAddr(rapid.SliceOfN(rapid.Byte(), 6, 6).Draw(t, "mac"))
		if got := macOf(netip.MustParseAddr(linkLocal(mac.String()))); got.String() != mac.String() {
			t.Fatalf("%s became %s", mac, got)
		}
	})
}

// Every state, however its ports overlap, must give a ruleset that nft takes.
func TestNFTTakesEveryRuleset(t *testing.T) {
	needRoot(t)
	addr := rapid.SampledFrom([]string{"10.77.0.5", "10.77.0.6", "10.77.0.0/24", "10.77.0.4/30", "2001:db8::5", "2001:db8::/64", "::/0", "0.0.0.0/0", "10.77.0.5/32"})
	rapid.Check(t, func(rt *rapid.T) {
		var ports []network.HostPort
		for i := range rapid.IntRange(0, 3).Draw(rt, "ports") {
			p := hostPort(netA, "10.77.0.", 80+i)
			for range rapid.IntRange(0, 3).Draw(rt, "pairs") {
				p.Pairs = append(p.Pairs, network.AddressPair{IP: addr.Draw(rt, "pair"), MAC: rapid.SampledFrom([]string{"", "fa:16:3e:00:00:aa"}).Draw(rt, "mac")})
			}
			p.PortSecurity, p.Down = rapid.Bool().Draw(rt, "security"), rapid.Bool().Draw(rt, "down")
			if rapid.Bool().Draw(rt, "floating") {
				p.Floating = []network.Floating{{Address: "192.0.2.9", Fixed: p.Addresses[0]}}
			}
			ports = append(ports, p)
		}
		var rules []network.GroupRule
		for range rapid.IntRange(0, 4).Draw(rt, "rules") {
			r := network.GroupRule{Direction: rapid.SampledFrom([]string{"ingress", "egress"}).Draw(rt, "direction"), EtherType: rapid.SampledFrom([]string{"IPv4", "IPv6"}).Draw(rt, "ethertype"),
				Protocol: rapid.SampledFrom([]string{"", "tcp", "udp", "icmp", "icmpv6", "sctp", "vrrp", "47", "0", "255"}).Draw(rt, "protocol")}
			switch rapid.IntRange(0, 2).Draw(rt, "remote") {
			case 1:
				r.RemoteGroup = grp
			case 2:
				r.RemoteIP = rapid.SampledFrom([]string{"10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0", "::/0"}).Draw(rt, "prefix")
			}
			if r.Protocol == "tcp" || r.Protocol == "icmp" {
				r.PortMin, r.PortMax = num(1), num(rapid.IntRange(1, 9).Draw(rt, "max"))
			}
			rules = append(rules, r)
		}
		st := hostState(ports, rules...)
		st.Groups[0].Stateless = rapid.Bool().Draw(rt, "stateless")
		st.Groups[0].Members = append(st.Groups[0].Members, "2001:db8::5", "10.77.0.5", "10.77.0.5")
		if rapid.Bool().Draw(rt, "twin") { // another network with the same addresses
			twin := st.Networks[0]
			twin.ID, twin.Bridge, twin.Peers = netB, network.BridgeName(netB), []string{netA}
			st.Networks[0].Routes = []network.Route{{Destination: "0.0.0.0/0", NextHop: "10.77.0.5"}, {Destination: "10.77.0.0/16", NextHop: "10.77.0.6"}}
			st.Networks = append(st.Networks, twin)
		}
		opts := ruleOptions{Table: "kilonova_pure", Uplinks: []string{"up0"}, Strangers: []string{"tap0"}, HostPorts: []int{22}, Marks: marks{sign: 0x55, slots: map[string]int{netA: 7, netB: slotMask}},
			Source: rapid.SampledFrom([]string{"", "192.0.2.1", "192.0.2.9"}).Draw(rt, "source"),
			MAC:    func(*network.HostNetwork) string { return "0e:00:00:00:00:01" }, HostMAC: func(string) string { return "0e:00:00:00:00:02" },
			Tunnelled: func(n *network.HostNetwork) bool { return n.VNI != 0 }}
		if rapid.Bool().Draw(rt, "physical") {
			st.Networks[0].Physical, st.Networks[0].Gateway, st.Networks[0].NAT = "physnet", false, false
		}
		if rapid.Bool().Draw(rt, "tunnelled") {
			st.Networks[0].VNI = 7
		}
		text := ruleset(st, opts)
		if text != ruleset(st, opts) {
			rt.Fatal("equal states gave different texts")
		}
		if _, err := nft(context.Background(), text, "-c", "-f", "-"); err != nil {
			rt.Fatalf("%v\n%s", err, text)
		}
	})
	if out, err := exec.Command("nft", "list", "tables").Output(); err != nil || strings.Contains(string(out), "pure") {
		t.Errorf("checking left a table: %s %v", out, err)
	}
}

func lan(t *testing.T) *view {
	t.Helper()
	st, _, _ := slaacState()
	c := &current{}
	c.set(st, &st.Networks[0])
	return c.view.Load()
}

func TestDHCPAnswersOnlyItsOwn(t *testing.T) {
	v := lan(t)
	mac, _ := net.ParseMAC("fa:16:3e:00:00:47")
	req := func(kind dhcpv4.MessageType, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
		m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithMessageType(kind), dhcpv4.WithHwAddr(mac)}, mods...)...)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	other, _ := net.ParseMAC("fa:16:3e:99:99:99")
	for name, tc := range map[string]struct {
		m    *dhcpv4.DHCPv4
		want dhcpv4.MessageType
	}{
		"discover":       {req(dhcpv4.MessageTypeDiscover), dhcpv4.MessageTypeOffer},
		"request":        {req(dhcpv4.MessageTypeRequest, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 77, 0, 71)))), dhcpv4.MessageTypeAck},
		"renew":          {req(dhcpv4.MessageTypeRequest, dhcpv4.WithClientIP(net.IPv4(10, 77, 0, 71))), dhcpv4.MessageTypeAck},
		"wrong address":  {req(dhcpv4.MessageTypeRequest, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 77, 0, 72)))), dhcpv4.MessageTypeNak},
		"another server": {req(dhcpv4.MessageTypeRequest, dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 77, 0, 9)))), 0},
		"inform":         {req(dhcpv4.MessageTypeInform, dhcpv4.WithClientIP(net.IPv4(10, 77, 0, 71))), dhcpv4.MessageTypeAck},
		"release":        {req(dhcpv4.MessageTypeRelease), 0},
		"strange MAC":    {req(dhcpv4.MessageTypeDiscover, dhcpv4.WithHwAddr(other)), 0},
	} {
		r, err := answer4(v, tc.m, time.Hour)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := r == nil; got != (tc.want == 0) || r != nil && r.MessageType() != tc.want {
			t.Errorf("%s: %v, want %v", name, r, tc.want)
		}
	}
}

func TestExtraOptions(t *testing.T) {
	m, err := dhcpv4.New(extra4([]network.DHCPOption{{Name: "mtu", Value: "1300"}, {Name: "tftp-server", Value: "10.0.0.9"}, {Name: "ntp-server", Value: "10.0.0.1,10.0.0.2"},
		{Name: "bootfile-name", Value: "pxe.0"}, {Name: "99", Value: "x"}, {Name: "no-such", Value: "x"}})...)
	if err != nil {
		t.Fatal(err)
	}
	for code, want := range map[uint8]string{26: "\x05\x14", 66: "10.0.0.9", 42: "\x0a\x00\x00\x01\x0a\x00\x00\x02", 67: "pxe.0", 99: "x"} {
		if got := string(m.Options.Get(dhcpv4.GenericOptionCode(code))); got != want {
			t.Errorf("option %d: %q, want %q", code, got, want)
		}
	}
	if len(m.Options) != 5 {
		t.Errorf("options %v", m.Options)
	}
}

func TestDHCPv6(t *testing.T) {
	st, p1, _ := slaacState()
	st.Networks[0].Subnets[1].IPv6AddressMode, st.Networks[0].Subnets[1].IPv6RAMode = "dhcpv6-stateful", "dhcpv6-stateful"
	st.Networks[0].Subnets[1].DNS = []string{"2001:db8::53"}
	c := &current{}
	c.set(st, &st.Networks[0])
	mac, _ := net.ParseMAC(p1.MAC)
	sol, err := dhcpv6.NewSolicit(mac)
	if err != nil {
		t.Fatal(err)
	}
	server := net.HardwareAddr{0x0e, 1, 2, 3, 4, 5}
	r, err := answer6(c.view.Load(), sol, net.ParseIP(linkLocal(p1.MAC)), server, time.Hour)
	if err != nil || r.Type() != dhcpv6.MessageTypeAdvertise {
		t.Fatalf("%v, %v", r, err)
	}
	if got := r.Options.OneIANA().Options.OneAddress().IPv6Addr.String(); got != p1.Addresses[1] {
		t.Errorf("address %s", got)
	}
	if got := r.Options.DNS(); len(got) != 1 || got[0].String() != "2001:db8::53" {
		t.Errorf("name servers %v", got)
	}
	req, err := dhcpv6.NewRequestFromAdvertise(r)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := answer6(c.view.Load(), req, net.ParseIP(linkLocal(p1.MAC)), server, time.Hour); err != nil || r.Type() != dhcpv6.MessageTypeReply {
		t.Errorf("%v, %v", r, err)
	}
	if r, err := answer6(c.view.Load(), req, net.ParseIP(linkLocal(p1.MAC)), net.HardwareAddr{0x0e, 9, 9, 9, 9, 9}, time.Hour); r != nil || err != nil {
		t.Errorf("a request for another server: %v, %v", r, err)
	}
	if r, err := answer6(c.view.Load(), sol, net.ParseIP(linkLocal("fa:16:3e:99:99:99")), server, time.Hour); r != nil || err != nil {
		t.Errorf("a stranger: %v, %v", r, err)
	}
	if (&dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: server}).Equal(nil) {
		t.Error("a server is nobody")
	}
}

func query(name string, kind uint16) []byte {
	q := append([]byte{7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, dnsName(name)...)
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(q, kind), 1)
}

func TestNames(t *testing.T) {
	v := lan(t)
	for _, tc := range []struct {
		name string
		kind uint16
		code int // -1: not ours
		data []string
	}{
		{"host71.test.local", typeA, 0, []string{"\x0a\x4d\x00\x47"}},
		{"HOST71.Test.Local", typeA, 0, []string{"\x0a\x4d\x00\x47"}},
		{"host71", typeA, 0, []string{"\x0a\x4d\x00\x47"}},
		{"host71.test.local", typeAAAA, 0, nil},
		{"nobody.test.local", typeA, 3, nil},
		{"example.org", typeA, -1, nil},
		{"71.0.77.10.in-addr.arpa", typePTR, 0, []string{"\x06host71\x04test\x05local\x00"}},
		{"9.9.9.9.in-addr.arpa", typePTR, -1, nil},
	} {
		q, ok := parseQuestion(query(tc.name, tc.kind))
		if !ok {
			t.Fatalf("%s does not parse", tc.name)
		}
		r := v.answer(q)
		if (r == nil) != (tc.code < 0) {
			t.Errorf("%s: %x", tc.name, r)
		}
		if r == nil {
			continue
		}
		var data []string
		for rest := r[len(q.raw):]; len(rest) > 12; {
			n := int(binary.BigEndian.Uint16(rest[10:]))
			data, rest = append(data, string(rest[12:12+n])), rest[12+n:]
		}
		if diff := cmp.Diff(tc.data, data); diff != "" || int(r[3]&15) != tc.code || int(binary.BigEndian.Uint16(r[6:])) != len(data) {
			t.Errorf("%s: code %d %s", tc.name, r[3]&15, diff)
		}
	}
}

// What a guest sends as DNS must not bring the server down.
func FuzzQuestion(f *testing.F) {
	f.Add(query("host71.test.local", typeA))
	f.Add([]byte{1, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 63})
	f.Add(query(strings.Repeat("1.", 31)+"1.ip6.arpa", typePTR))
	st, _, _ := slaacState()
	c := &current{}
	c.set(st, &st.Networks[0])
	f.Fuzz(func(t *testing.T, msg []byte) {
		if q, ok := parseQuestion(msg); ok {
			if r := c.view.Load().answer(q); r != nil && len(r) < len(q.raw) {
				t.Errorf("answer %x to %x", r, msg)
			}
		}
	})
}

func TestAdvertisement(t *testing.T) {
	v := lan(t)
	v.subnets["sub-6"].DNS = []string{"2001:db8::53"}
	mac := net.HardwareAddr{0x0e, 1, 2, 3, 4, 5}
	want := "\x86\x00\x00\x00\x40\x00\x07\x08\x00\x00\x00\x00\x00\x00\x00\x00" + "\x01\x01\x0e\x01\x02\x03\x04\x05" + "\x05\x01\x00\x00\x00\x00\x05\x78" +
		"\x03\x04\x40\xc0\x00\x01\x51\x80\x00\x00\x38\x40\x00\x00\x00\x00\x20\x01\x0d\xb8\x00\x77\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
		"\x19\x03\x00\x00\x00\x00\x07\x08\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x53"
	if diff := cmp.Diff([]byte(want), advertisement(v, mac)); diff != "" {
		t.Error(diff)
	}
	v.subnets["sub-6"].IPv6RAMode = ""
	if got := advertisement(v, mac); got != nil {
		t.Errorf("advertises %x", got)
	}
}

func TestMetadataKnowsTheGuest(t *testing.T) {
	st, p1, _ := slaacState()
	c := &current{}
	c.set(st, &st.Networks[0])
	h := guestOnly(c, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(r.Header.Get("X-Instance-ID") + r.Header.Get("X-Auth-Token")))
	}))
	for from, want := range map[string]string{"10.77.0.71:999": p1.ServerID, "[2001:db8:77:0:f816:3eff:fe00:47]:9": p1.ServerID, "10.77.0.99:1": "404 page not found\n"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = from
		r.Header.Set("X-Instance-ID", "stolen")
		r.Header.Set("X-Auth-Token", "stolen")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Body.String() != want {
			t.Errorf("%s: %q, want %q", from, w.Body.String(), want)
		}
	}
}

// A user who becomes root with su keeps a PATH without the directories of the system's administration.
func TestNftIsFoundOutsideThePath(t *testing.T) {
	if _, err := os.Stat("/usr/sbin/nft"); err != nil {
		t.Skip("nft is not installed in /usr/sbin")
	}
	t.Setenv("PATH", t.TempDir())
	if out, err := nft(t.Context(), "", "--version"); err != nil || !strings.Contains(out, "nftables") {
		t.Errorf("%q, %v", out, err)
	}
}
