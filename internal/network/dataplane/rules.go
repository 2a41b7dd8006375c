package dataplane

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go4.org/netipx"

	"kilonova/internal/network"
	"kilonova/internal/network/secgroup"
)

// The firewall is two nftables tables of one name, replaced together in one transaction.
//
// The kernel's bridge family has no connection tracking, and the inet family does not know bridge ports. So the work is
// divided: bridges hand their IP packets to the inet hooks (nf_call_iptables of each bridge of ours), where the inet table writes
// what connection tracking says into bits of the packet mark; the bridge table, which knows the ports, reads the bits and
// decides. Anti-spoofing comes before everything, where a frame enters the bridge.
const (
	markKnown   = 0x01000000 // belongs or relates to a connection that was let through
	markInvalid = 0x02000000 // fits no connection
	markAllowed = 0x04000000 // a rule of a security group has matched
	markAstray  = 0x08000000 // comes from outside through a tunnel
	markMask    = markKnown | markInvalid | markAllowed | markAstray
)

const metadataAddress = "169.254.169.254"

// builder writes a ruleset.
type builder struct {
	strings.Builder
	state *network.HostState
	nets  map[string]*network.HostNetwork
	opts  ruleOptions
}

// ruleOptions is what the rules need besides the desired state.
type ruleOptions struct {
	Table     string   // name of both tables
	Uplinks   []string // interfaces that join bridges to physical networks
	Strangers []string // interfaces on our bridges that are no port of the state: guests on their way out
	HostPorts []int    // TCP ports of the host that guests may reach
	// Tunnelled tells whether a network reaches other hosts; MAC is that of its gateway, HostMAC one that no other host has.
	Tunnelled func(n *network.HostNetwork) bool
	MAC       func(n *network.HostNetwork) string
	HostMAC   func(bridge string) string
	Marks     marks  // the numbers of the networks
	Source    string // the host's address by which guests without a floating address are seen outside; "": none
}

func (b *builder) line(format string, args ...any) { fmt.Fprintf(b, format+"\n", args...) }

// ruleset is the text for nft -f that makes a host's firewall what the state says. It is pure: equal states give equal texts.
func ruleset(st *network.HostState, opts ruleOptions) string {
	b := &builder{state: st, nets: map[string]*network.HostNetwork{}, opts: opts}
	for i := range st.Networks {
		b.nets[st.Networks[i].ID] = &st.Networks[i]
	}
	// A table that is added, deleted and defined in one transaction is replaced whether or not it was there.
	for _, family := range []string{"inet", "bridge"} {
		b.line("add table %s %s", family, opts.Table)
		b.line("delete table %s %s", family, opts.Table)
	}
	b.inet()
	b.bridge()
	return b.String()
}

// removal is the text for nft -f that removes the firewall.
func removal(table string) string {
	var b strings.Builder
	for _, family := range []string{"inet", "bridge"} {
		fmt.Fprintf(&b, "add table %s %s\ndelete table %s %s\n", family, table, family, table)
	}
	return b.String()
}

func (b *builder) set(kind, name, typ string, interval bool, elements []string) {
	b.line("\t%s %s {\n\t\ttype %s", kind, name, typ)
	if interval {
		b.line("\t\tflags interval\n\t\tauto-merge")
	}
	if len(elements) > 0 {
		b.line("\t\telements = { %s }", strings.Join(elements, ", "))
	}
	b.line("\t}")
}

func (b *builder) bridges() []string {
	out := make([]string, len(b.state.Networks))
	for i := range b.state.Networks {
		out[i] = b.state.Networks[i].Bridge
	}
	return quoted(out)
}

// inet writes the table that follows connections, routes and translates addresses.
func (b *builder) inet() {
	b.line("table inet %s {", b.opts.Table)
	b.set("set", "bridges", "ifname", false, b.bridges())
	b.set("set", "pairs", "ifname . ifname", false, b.pairs())
	var outside []string
	for i := range b.state.Networks {
		if n := &b.state.Networks[i]; n.Gateway && n.NAT {
			outside = append(outside, strconv.Quote(n.Bridge))
		}
	}
	b.set("set", "outside", "ifname", false, outside)
	known := fmt.Sprintf("ct state established,related meta mark set meta mark | 0x%08x", markKnown)
	invalid := fmt.Sprintf("ct state invalid meta mark set meta mark | 0x%08x", markInvalid)
	for _, h := range []struct{ name, hook, which string }{
		{"mark_entering", "prerouting priority -150", "iifname @bridges"},
		{"mark_leaving", "output priority -150", "oifname @bridges"},
		{"mark_routed", "forward priority -150", "iifname != @bridges oifname @bridges"},
	} {
		b.line("\tchain %s {\n\t\ttype filter hook %s; policy accept;", h.name, h.hook)
		b.line("\t\t%s %s\n\t\t%s %s\n\t}", h.which, known, h.which, invalid)
	}
	b.line("\tchain routed {\n\t\ttype filter hook forward priority 0; policy accept;")
	b.line("\t\tiifname . oifname @pairs accept")
	// By floating addresses guests of any network reach each other, if theirs may go outside.
	b.line("\t\tiifname @outside oifname @bridges ct status dnat accept")
	b.line("\t\tiifname @bridges oifname @bridges ct direction reply ct status dnat accept")
	b.line("\t\tiifname @bridges oifname @bridges drop")
	if len(b.tunnelled()) > 0 { // a guest could speak as this host to the tunnels of another
		b.line("\t\tiifname @bridges udp dport %d drop", vxlanPort)
	}
	b.line("\t\tiifname @bridges ct state established,related accept")
	b.line("\t\tiifname @bridges iifname != @outside drop\n\t}")
	b.zones()
	b.toHost()
	b.nat()
	b.line("}")
}

// pairs are the bridges between which the host forwards: each with itself (bridged packets pass here too) and its router's others.
func (b *builder) pairs() []string {
	var out []string
	for i := range b.state.Networks {
		n := &b.state.Networks[i]
		out = append(out, fmt.Sprintf("%q . %q", n.Bridge, n.Bridge))
		for _, p := range n.Peers {
			if o := b.nets[p]; o != nil && n.Gateway && o.Gateway {
				out = append(out, fmt.Sprintf("%q . %q", n.Bridge, o.Bridge))
			}
		}
	}
	return out
}

// toHost lets guests reach only the host's services for them.
func (b *builder) toHost() {
	b.line("\tchain to_host {\n\t\ttype filter hook input priority 0; policy accept;")
	var stands []string
	for i := range b.state.Ports {
		for _, f := range b.state.Ports[i].Floating {
			stands = append(stands, f.Address)
		}
	}
	if len(stands) > 0 { // what fits no connection is not translated, and must not be answered by the host in the guest's name
		slices.Sort(stands)
		b.line("\t\tip daddr { %s } ct state != { established, related } drop", strings.Join(slices.Compact(stands), ", "))
	}
	b.line("\t\tiifname != @bridges accept")
	b.line("\t\tct state established,related accept")
	b.line("\t\tmeta l4proto { icmp, ipv6-icmp } accept")
	b.line("\t\tudp dport { 53, 67, 547 } accept")
	b.line("\t\ttcp dport 53 accept")
	b.line("\t\tip daddr %s tcp dport 80 accept\n\t\tip6 daddr %s tcp dport 80 accept", metadataAddress, metadataSix)
	if len(b.opts.HostPorts) > 0 {
		var ports []string
		for _, p := range b.opts.HostPorts {
			ports = append(ports, strconv.Itoa(p))
		}
		b.line("\t\ttcp dport { %s } accept", strings.Join(ports, ", "))
	}
	b.line("\t\tdrop\n\t}")
}

// nat writes floating addresses and the host's own address as the source of what leaves.
func (b *builder) nat() {
	var dnat, snat []string
	for i := range b.state.Ports {
		p := &b.state.Ports[i]
		from := fmt.Sprintf("ct mark & 0x%08x == 0x%08x ip saddr", 0xff000000|slotMask, b.opts.Marks.connection(p.NetworkID, ""))
		// Also of a guest that is on its way here: what it sends from its first moment on must leave under its floating address, although answers still go
		// to the host where that is, which passes them on. Under this host's address they would be taken for a stranger's, and its connections would end.
		for _, f := range p.Floating {
			dnat = append(dnat, fmt.Sprintf("\t\tip daddr %s dnat ip to %s", f.Address, f.Fixed))
			snat = append(snat, fmt.Sprintf("\t\t%s %s oifname != @bridges snat ip to %s", from, f.Fixed, f.Address),
				fmt.Sprintf("\t\t%s %s ct status dnat snat ip to %s", from, f.Fixed, f.Address))
		}
	}
	for _, h := range []string{"prerouting", "output"} {
		b.line("\tchain nat_%s {\n\t\ttype nat hook %s priority -100; policy accept;", h, h)
		for _, l := range dnat {
			b.line("%s", l)
		}
		b.line("\t}")
	}
	b.line("\tchain nat_postrouting {\n\t\ttype nat hook postrouting priority 100; policy accept;")
	for _, l := range snat {
		b.line("%s", l)
	}
	b.callers()
	for i := range b.state.Networks {
		n := &b.state.Networks[i]
		for k := range n.Subnets {
			s := &n.Subnets[k]
			if n.Gateway && n.NAT && s.Gateway != "" {
				b.line("\t\t%s saddr %s oifname != @bridges masquerade", family(s.CIDR), s.CIDR)
			}
		}
	}
	b.line("\t}")
}

// family is nft's word for the IP version of an address or prefix.
func family(s string) string {
	if strings.Contains(s, ":") {
		return "ip6"
	}
	return "ip"
}

// bridge writes the table that knows the ports.
func (b *builder) bridge() {
	b.line("table bridge %s {", b.opts.Table)
	b.set("set", "uplinks", "ifname", false, quoted(b.opts.Uplinks))
	b.set("set", "strangers", "ifname", false, quoted(b.opts.Strangers))
	b.members()
	b.groupChains()
	b.tunnels()
	b.uplinkRules()
	var spoof, from, to []string
	for i := range b.state.Ports {
		p := &b.state.Ports[i]
		b.port(p)
		spoof = append(spoof, fmt.Sprintf("%q : goto spoof_%s", p.Tap, p.Tap))
		from = append(from, fmt.Sprintf("%q : jump from_%s", p.Tap, p.Tap))
		to = append(to, fmt.Sprintf("%q : goto to_%s", p.Tap, p.Tap))
	}
	b.set("map", "spoofing", "ifname : verdict", false, spoof)
	b.set("map", "sending", "ifname : verdict", false, from)
	b.set("map", "receiving", "ifname : verdict", false, to)
	b.line("\tchain entering {\n\t\ttype filter hook prerouting priority -300; policy accept;")
	b.line("\t\tiifname @uplinks jump own_addresses")
	b.line("\t\tiifname @uplinks meta mark set meta mark & 0x%08x accept", ^uint32(markMask))
	b.line("\t\tiifname vmap @arriving\n\t\tiifname @strangers drop\n\t\tiifname vmap @spoofing\n\t}")
	// Below 0, where the hand-over to the inet hooks is: chains of the same priority are passed over when they are older than it, and it begins with the
	// first bridge.
	b.line("\tchain to_host {\n\t\ttype filter hook input priority -10; policy accept;\n\t\tiifname vmap @sending\n\t}")
	b.line("\tchain bridged {\n\t\ttype filter hook forward priority -10; policy accept;")
	b.line("\t\tiifname vmap @sending\n\t\toifname @uplinks jump own_addresses\n\t\toifname @strangers drop\n\t\toifname vmap @leaving\n\t\toifname vmap @receiving\n\t}")
	b.line("\tchain from_host {\n\t\ttype filter hook output priority -10; policy accept;")
	b.line("\t\toifname @uplinks jump own_addresses\n\t\toifname @strangers drop\n\t\toifname vmap @leaving\n\t\toifname vmap @receiving\n\t}")
	b.line("}")
}

func quoted(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = strconv.Quote(n)
	}
	return out
}

func ident(id string) string { return strings.ReplaceAll(id, "-", "_") }

// members writes the addresses of the groups that rules name.
func (b *builder) members() {
	remote := map[string]bool{}
	for i := range b.state.Groups {
		for _, r := range b.state.Groups[i].Rules {
			remote[r.RemoteGroup] = true
		}
	}
	for i := range b.state.Groups {
		g := &b.state.Groups[i]
		if !remote[g.ID] {
			continue
		}
		var v4, v6 []string
		for _, m := range g.Members {
			if family(m) == "ip" {
				v4 = append(v4, m)
			} else {
				v6 = append(v6, m)
			}
		}
		b.set("set", "ip_"+ident(g.ID), "ipv4_addr", true, v4)
		b.set("set", "ip6_"+ident(g.ID), "ipv6_addr", true, v6)
	}
}

// groupChains writes two chains for each group, which mark what its rules allow.
func (b *builder) groupChains() {
	for i := range b.state.Groups {
		g := &b.state.Groups[i]
		for _, d := range []string{"ingress", "egress"} {
			b.line("\tchain %s_%s {", d, ident(g.ID))
			for _, r := range g.Rules {
				if r.Direction != d {
					continue
				}
				if m, ok := match(&r); ok {
					b.line("\t\t%s meta mark set meta mark | 0x%08x return", m, markAllowed)
				}
			}
			b.line("\t}")
		}
	}
}

// match is the condition of a security group rule; ok is false for one that can match nothing.
func match(r *network.GroupRule) (string, bool) {
	fam, six := "ip", r.EtherType == "IPv6"
	if six {
		fam = "ip6"
	}
	words := []string{"ether type " + fam}
	side := "saddr"
	if r.Direction == "egress" {
		side = "daddr"
	}
	if r.RemoteIP != "" {
		if family(r.RemoteIP) != fam {
			return "", false
		}
		p, err := netip.ParsePrefix(r.RemoteIP)
		if err != nil {
			return "", false
		}
		if p.Bits() > 0 {
			words = append(words, fam, side, p.Masked().String())
		}
	}
	if r.RemoteGroup != "" {
		words = append(words, fam, side, "@"+fam+"_"+ident(r.RemoteGroup))
	}
	proto, ok := protocol(r.Protocol, six)
	if !ok {
		return "", false
	}
	if proto < 0 {
		return strings.Join(words, " "), true
	}
	words = append(words, "meta l4proto", strconv.Itoa(proto))
	return strings.Join(append(words, ports(r, proto)...), " "), true
}

func ports(r *network.GroupRule, proto int) []string {
	if proto == 1 || proto == 58 {
		word := map[int]string{1: "icmp", 58: "icmpv6"}[proto]
		var out []string
		if r.PortMin != nil {
			out = append(out, word, "type", strconv.Itoa(*r.PortMin))
		}
		if r.PortMax != nil {
			out = append(out, word, "code", strconv.Itoa(*r.PortMax))
		}
		return out
	}
	if r.PortMin == nil || r.PortMax == nil {
		return nil
	}
	if *r.PortMin == *r.PortMax {
		return []string{"th dport", strconv.Itoa(*r.PortMin)}
	}
	return []string{"th dport", fmt.Sprintf("%d-%d", *r.PortMin, *r.PortMax)}
}

// protocol is the number of a rule's protocol; -1 for any.
func protocol(name string, six bool) (int, bool) {
	switch name {
	case "":
		return -1, true
	case "icmp", "icmpv6", "ipv6-icmp", "1", "58":
		if six {
			return 58, true
		}
		return 1, name == "icmp" || name == "1"
	}
	return secgroup.ProtocolNumber(name)
}

// port writes the chains of one port.
func (b *builder) port(p *network.HostPort) {
	if p.Down {
		for _, c := range []string{"spoof", "from", "to"} {
			b.line("\tchain %s_%s {\n\t\tdrop\n\t}", c, p.Tap)
		}
		return
	}
	if !p.PortSecurity {
		b.line("\tchain spoof_%s {\n\t\tmeta mark set meta mark & 0x%08x accept\n\t}", p.Tap, ^uint32(markMask))
		for _, c := range []string{"from", "to"} {
			b.line("\tchain %s_%s {\n\t\t%s\n\t}", c, p.Tap, map[string]string{"from": "return", "to": "accept"}[c])
		}
		return
	}
	b.spoofing(p)
	head := []string{"ether type { arp, 0x8035 } %s"}
	stateless := b.stateless(p)
	if !stateless {
		head = append(head, fmt.Sprintf("meta mark & 0x%08x != 0 %%s", markKnown), fmt.Sprintf("meta mark & 0x%08x != 0 drop", markInvalid))
	}
	b.line("\tchain from_%s {", p.Tap)
	b.head(head, "return")
	b.line("\t\tudp sport 68 udp dport 67 return\n\t\tudp sport 546 udp dport 547 return")
	b.line("\t\ticmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, 130, 131, 132, 143 } return")
	b.line("\t\tip daddr %s tcp dport 80 return\n\t\tip6 daddr %s tcp dport 80 return", metadataAddress, metadataSix)
	b.groups(p, "egress", "return")
	b.line("\t\tdrop\n\t}\n\tchain to_%s {", p.Tap)
	b.head(head, "accept")
	b.line("\t\tudp sport 67 udp dport 68 accept\n\t\tudp sport 547 udp dport 546 accept")
	b.line("\t\ticmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, 130, 131, 132, 143 } accept")
	if stateless { // what the port may always ask for it may always be answered
		b.line("\t\tip saddr %s tcp sport 80 accept\n\t\tip6 saddr %s tcp sport 80 accept", metadataAddress, metadataSix)
	}
	b.groups(p, "ingress", "accept")
	b.line("\t\tdrop\n\t}")
}

// stateless tells whether all the groups of a port are stateless. One that is not makes the port's connections followed.
func (b *builder) stateless(p *network.HostPort) bool {
	return len(p.Groups) > 0 && !slices.ContainsFunc(p.Groups, func(id string) bool {
		return !slices.ContainsFunc(b.state.Groups, func(g network.HostGroup) bool { return g.ID == id && g.Stateless })
	})
}

func (b *builder) head(lines []string, verdict string) {
	for _, l := range lines {
		if strings.Contains(l, "%s") {
			l = fmt.Sprintf(l, verdict)
		}
		b.line("\t\t%s", l)
	}
}

func (b *builder) groups(p *network.HostPort, direction, verdict string) {
	b.line("\t\tmeta mark set meta mark & 0x%08x", ^uint32(markAllowed))
	for _, g := range p.Groups {
		if slices.ContainsFunc(b.state.Groups, func(o network.HostGroup) bool { return o.ID == g }) {
			b.line("\t\tjump %s_%s", direction, ident(g))
		}
	}
	b.line("\t\tmeta mark & 0x%08x != 0 %s", markAllowed, verdict)
}

// spoofing writes what a guest may send at all: only as itself, and never as a DHCP server or router.
func (b *builder) spoofing(p *network.HostPort) {
	macs, v4, v6 := identities(p)
	b.line("\tchain spoof_%s {\n\t\tmeta mark set meta mark & 0x%08x", p.Tap, ^uint32(markMask))
	b.line("\t\tether saddr != { %s } drop", strings.Join(macs, ", "))
	b.line("\t\tether type arp goto spoofarp_%s", p.Tap)
	b.line("\t\tether type 0x8035 accept") // reverse ARP: by it QEMU tells the bridges where a guest has gone
	b.line("\t\tether type ip goto spoof4_%s", p.Tap)
	b.line("\t\tether type ip6 goto spoof6_%s\n\t\tdrop\n\t}", p.Tap)
	b.line("\tchain spoofarp_%s {\n\t\tarp saddr ether != { %s } drop", p.Tap, strings.Join(macs, ", "))
	b.line("\t\tarp saddr ip { %s } accept\n\t\tdrop\n\t}", strings.Join(append([]string{"0.0.0.0"}, v4...), ", "))
	b.line("\tchain spoof4_%s {\n\t\tudp sport 67 udp dport 68 drop", p.Tap)
	b.line("\t\tip saddr 0.0.0.0 udp sport 68 udp dport 67 accept")
	if len(v4) > 0 {
		b.line("\t\tip saddr { %s } accept", strings.Join(v4, ", "))
	}
	b.line("\t\tdrop\n\t}\n\tchain spoof6_%s {\n\t\tudp sport 547 udp dport 546 drop", p.Tap)
	b.line("\t\ticmpv6 type { nd-router-advert, nd-redirect } drop")
	b.line("\t\ticmpv6 type nd-neighbor-advert goto spoofna_%s", p.Tap)
	b.line("\t\tip6 saddr :: icmpv6 type { nd-router-solicit, nd-neighbor-solicit, 131, 143 } accept")
	b.line("\t\tip6 saddr { %s } accept\n\t\tdrop\n\t}", strings.Join(v6, ", "))
	b.line("\tchain spoofna_%s {\n\t\tip6 saddr != { %s } drop", p.Tap, strings.Join(v6, ", "))
	// The target of an advertisement lies 8 bytes into the ICMPv6 header.
	for _, text := range v6 {
		if mask, value, ok := bits(text); ok {
			b.line("\t\t@th,64,128 & 0x%s == 0x%s accept", mask, value)
		}
	}
	b.line("\t\tdrop\n\t}")
}

// bits gives mask and value of an IPv6 address or prefix as hexadecimal numbers.
func bits(text string) (mask, value string, ok bool) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return "", "", false
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	ones := netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
	m, err := ones.Prefix(p.Bits())
	if err != nil {
		return "", "", false
	}
	return fmt.Sprintf("%x", m.Addr().As16()), fmt.Sprintf("%x", p.Masked().Addr().As16()), true
}

// identities are the MACs and addresses that a port may use, its link-local addresses among them; addresses as prefixes that
// do not overlap, which is what nft takes.
func identities(p *network.HostPort) (macs, v4, v6 []string) {
	var all netipx.IPSetBuilder
	ip := func(s string) {
		if q, err := netip.ParsePrefix(s); err == nil {
			all.AddPrefix(q.Masked())
		} else if a, err := netip.ParseAddr(s); err == nil {
			all.Add(a)
		}
	}
	macs = append(macs, strings.ToLower(p.MAC))
	for _, a := range p.Addresses {
		ip(a)
	}
	for _, pair := range p.Pairs {
		if m := strings.ToLower(pair.MAC); m != "" && !slices.Contains(macs, m) {
			macs = append(macs, m)
		}
		ip(pair.IP)
	}
	for _, m := range macs {
		ip(linkLocal(m))
	}
	set, err := all.IPSet()
	if err != nil { // an address that does not parse allows nothing
		return macs, nil, []string{linkLocal(p.MAC)}
	}
	for _, q := range set.Prefixes() {
		text := q.String()
		if q.IsSingleIP() {
			text = q.Addr().String()
		}
		if q.Addr().Is4() {
			v4 = append(v4, text)
		} else {
			v6 = append(v6, text)
		}
	}
	return macs, v4, v6
}
