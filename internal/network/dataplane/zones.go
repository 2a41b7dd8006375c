package dataplane

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"kilonova/internal/network"
)

// Networks of one host may have the same addresses and stay wholly apart. Each has a number, and by it:
//
//   - a conntrack zone. What stays inside a network is followed in that network's zone, what a router carries between two in that of the one with the
//     lower id, so that coming and going find the same connection; neither depends on what other networks are there. What goes outside has the zone for its first
//     direction only: answers come to the host's own address, where address translation keeps connections apart. All that belongs to a guest with a
//     floating address is in its network's zone, for that address tells whose an answer is.
//   - a mark of connections: the network where one began, the network that it goes to, 0 for the outside.
//   - a mark of packets, taken from that of the connection or the destination, which chooses the network's routing table.
//
// A guest that calls a floating address of this host is seen there under its own floating address, or that of the host. Its connection is followed from
// both networks; what claims to be the answer and comes from a third is dropped.
const (
	slotMask  = 0x00000fff // numbers of networks: at most this many
	slotBits  = 12
	routeMark = 0x00ffffff // bits of the packet mark that choose a network: a sign of ours and the number
)

// marks are the numbers of a host's networks and the sign that tells ours from other people's marks.
type marks struct {
	sign  uint32 // eight bits
	slots map[string]int
}

func (p *Plane) marks() marks { return marks{sign: signOf(p.cfg.Tag), slots: p.undo.Slots} }

// signOf differs between data planes of one host.
func signOf(tag string) uint32 {
	sum := sha256.Sum256([]byte("sign\x00" + tag))
	return 0x40 | uint32(sum[0]&0x3f)
}

// route is the packet mark of a network, without those bits that say what may pass; for "" that of the outside.
func (m marks) route(networkID string) uint32 {
	return m.sign<<16 | uint32(m.slots[networkID]) //nolint:gosec // at most slotMask
}

// connection is the connection mark of what begins in one network and goes to another; "" is the outside.
func (m marks) connection(from, to string) uint32 {
	return m.sign<<24 | uint32(m.slots[to])<<slotBits | uint32(m.slots[from]) //nolint:gosec // at most slotMask
}

// number gives each network of a state its number, which it keeps as long as it is there, also over restarts of the process. Connections of networks that
// are gone are forgotten, so that nobody who gets their number later finds them.
func (p *Plane) number(st *network.HostState) error {
	wanted, used, changed := map[string]bool{}, map[int]bool{}, false
	for i := range st.Networks {
		wanted[st.Networks[i].ID] = true
	}
	gone := &touching{marks: p.marks(), slots: map[int]bool{}}
	for id, slot := range p.undo.Slots {
		if wanted[id] {
			used[slot] = true
			continue
		}
		gone.slots[slot], changed = true, true
		delete(p.undo.Slots, id)
	}
	if len(gone.slots) > 0 {
		for _, f := range []netlink.InetFamily{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, f, gone); err != nil {
				p.log.Warn("forget connections of networks that are gone", "error", err)
			}
		}
	}
	for i := range st.Networks {
		id := st.Networks[i].ID
		if p.undo.Slots[id] != 0 {
			continue
		}
		if len(used) >= slotMask {
			return fmt.Errorf("a host can have ports of %d networks at most", slotMask)
		}
		sum := sha256.Sum256([]byte(id)) // the same number again, if it is free, where no file remembers it
		slot := int(binary.BigEndian.Uint32(sum[:]))%slotMask + 1
		for used[slot] {
			slot = slot%slotMask + 1
		}
		p.undo.Slots[id], used[slot], changed = slot, true, true
	}
	if !changed {
		return nil
	}
	return p.undo.save()
}

// part is a prefix that is reached from a network, and the network where it is.
type part struct {
	prefix netip.Prefix
	in     *network.HostNetwork
}

// parts are what a network reaches on this host without leaving its routers: longest prefixes first.
func (b *builder) parts(n *network.HostNetwork) (out []part) {
	add := func(text string, in *network.HostNetwork) {
		if p, err := netip.ParsePrefix(text); err == nil && in != nil {
			out = append(out, part{p.Masked(), in})
		}
	}
	around := []*network.HostNetwork{n}
	if n.Gateway {
		for _, o := range b.peers(n) {
			if o.Gateway && o.ID != n.ID {
				around = append(around, o)
			}
		}
	}
	for _, o := range around {
		for k := range o.Subnets {
			add(o.Subnets[k].CIDR, o)
		}
	}
	own := len(out)
	if n.Gateway {
		for _, o := range around {
			for _, r := range o.Routes {
				hop := hopNetwork(b.state, o, r.NextHop)
				if hop != nil && slices.Contains(around, hop) {
					add(r.Destination, hop)
				}
			}
		}
	}
	// What the networks have themselves goes before what a route says.
	slices.SortStableFunc(out[own:], func(a, b part) int { return b.prefix.Bits() - a.prefix.Bits() })
	return out
}

// is is the condition that an address, saddr or daddr, lies in the part.
func (p part) is(side string) string {
	if p.prefix.Bits() == 0 {
		return map[bool]string{true: "meta nfproto ipv4", false: "meta nfproto ipv6"}[p.prefix.Addr().Is4()]
	}
	return family(p.prefix.String()) + " " + side + " " + p.prefix.String()
}

// between is the network whose zone has what passes between two.
func between(n, o *network.HostNetwork) *network.HostNetwork {
	if o.ID < n.ID {
		return o
	}
	return n
}

// standing gives the floating addresses of the host's ports, each with its port, and those that guests of other networks are seen under.
func (b *builder) standing() (floating map[string]*network.HostPort, all []string) {
	floating = map[string]*network.HostPort{}
	for i := range b.state.Ports {
		for _, f := range b.state.Ports[i].Floating {
			if a, err := netip.ParseAddr(f.Address); err == nil && a.Is4() && b.nets[b.state.Ports[i].NetworkID] != nil {
				floating[f.Address] = &b.state.Ports[i]
			}
		}
	}
	for a := range floating {
		all = append(all, a)
	}
	if b.opts.Source != "" && floating[b.opts.Source] == nil {
		all = append(all, b.opts.Source)
	}
	slices.Sort(all)
	return floating, all
}

// zones writes how connections are told apart by network, and packets marked with the network that they are for.
func (b *builder) zones() {
	floating, standing := b.standing()
	b.set("set", "standing", "ipv4_addr", false, standing)
	for i := range b.state.Networks {
		slot := b.slot(b.state.Networks[i].ID)
		b.line("\tchain whole_%d {\n\t\tct zone set %d accept\n\t}", slot, slot)
		b.line("\tchain to_%d {\n\t\tct mark set ct mark & 0x%08x | 0x%08x\n\t}", slot, slotMask, b.opts.Marks.connection("", b.state.Networks[i].ID))
	}
	var zone, mark []string
	for _, a := range slices.Sorted(maps.Keys(floating)) {
		slot := b.slot(floating[a].NetworkID)
		zone, mark = append(zone, fmt.Sprintf("%s : goto whole_%d", a, slot)), append(mark, fmt.Sprintf("%s : goto to_%d", a, slot))
	}
	b.set("map", "floating_zone", "ipv4_addr : verdict", false, zone)
	b.set("map", "floating_mark", "ipv4_addr : verdict", false, mark)
	b.line("\tchain to_floating {\n\t\tip daddr vmap @floating_mark\n\t}")
	for i := range b.state.Networks {
		parts := b.parts(&b.state.Networks[i])
		b.zone(&b.state.Networks[i], parts)
		b.beginning(&b.state.Networks[i], parts)
	}
	each := func(verdict string) string {
		var out []string
		for i := range b.state.Networks {
			out = append(out, fmt.Sprintf("%q : %s_%d", b.state.Networks[i].Bridge, verdict, b.slot(b.state.Networks[i].ID)))
		}
		return strings.Join(out, ", ")
	}
	if len(b.state.Networks) == 0 {
		return
	}
	ours := fmt.Sprintf("ct mark & 0xff000000 == 0x%08x", b.opts.Marks.connection("", ""))
	b.line("\tchain zones {\n\t\ttype filter hook prerouting priority -300; policy accept;")
	if len(b.tunnelled()) > 0 {
		// What comes from outside for a floating address whose guest has just left that host, and comes after it. The answers to it go out from here under the
		// floating address: they belong to no connection that was seen to begin.
		b.line("\t\tiifname @bridges meta mark & 0x%08x != 0 notrack accept", markAstray)
	}
	b.line("\t\tiifname vmap { %s }\n\t\tip daddr vmap @floating_zone\n\t}", each("goto zone"))
	b.line("\tchain zones_own {\n\t\ttype filter hook output priority -300; policy accept;\n\t\tip saddr @standing accept\n\t\toifname vmap { %s }\n\t}", each("goto whole"))
	back := fmt.Sprintf("%s ct direction reply meta mark set ct mark & 0x%08x | 0x%08x", ours, slotMask, b.opts.Marks.route(""))
	there := fmt.Sprintf("%s ct direction original meta mark set (ct mark >> %d) & 0x%08x | 0x%08x", ours, slotBits, slotMask, b.opts.Marks.route(""))
	b.line("\tchain choose {\n\t\ttype filter hook prerouting priority -160; policy accept;\n\t\tiifname vmap { %s }", each("jump from"))
	b.line("\t\tiifname != @bridges ct direction original ct mark 0 jump to_floating\n\t\t%s\n\t\t%s\n\t}", back, there)
	b.line("\tchain choose_own {\n\t\ttype route hook output priority -160; policy accept;")
	b.line("\t\toifname @bridges meta mark set meta mark & 0x%08x", ^uint32(markMask))
	b.line("\t\tct direction original ct mark 0 jump to_floating") // the host's own programs use floating addresses as others do
	b.line("\t\tct direction original ct mark 0 oifname vmap { %s }\n\t\t%s\n\t\t%s\n\t}", each("jump to"), back, there)
}

func (b *builder) slot(networkID string) int { return b.opts.Marks.slots[networkID] }

// zone writes which zone has what comes from a network.
func (b *builder) zone(n *network.HostNetwork, parts []part) {
	slot, gateway := b.slot(n.ID), b.opts.MAC(n)
	b.line("\tchain zone_%d {\n\t\tether daddr %s ip daddr @standing ct original zone set %d accept", slot, gateway, slot)
	for _, p := range parts { // frames that another host has routed
		if p.in.ID != n.ID && p.prefix.Bits() > 0 {
			b.line("\t\t%s goto whole_%d", p.is("saddr"), b.slot(between(n, p.in).ID))
		}
	}
	for _, p := range parts {
		b.line("\t\t%s goto whole_%d", p.is("daddr"), b.slot(between(n, p.in).ID))
	}
	b.line("\t\tether daddr != %s goto whole_%d", gateway, slot)
	b.line("\t\tip6 daddr { fe80::/10, ff00::/8 } goto whole_%d\n\t\tfib daddr type local goto whole_%d", slot, slot)
	var fixed []string
	for i := range b.state.Ports {
		if p := &b.state.Ports[i]; p.NetworkID == n.ID {
			for _, f := range p.Floating {
				fixed = append(fixed, f.Fixed)
			}
		}
	}
	if len(fixed) > 0 {
		slices.Sort(fixed)
		b.line("\t\tip saddr { %s } goto whole_%d", strings.Join(slices.Compact(fixed), ", "), slot)
	}
	b.line("\t\tct original zone set %d accept\n\t}", slot)
}

// beginning writes the marks of connections that begin in a network, and of what comes from it.
func (b *builder) beginning(n *network.HostNetwork, parts []part) {
	slot, gateway, m := b.slot(n.ID), b.opts.MAC(n), b.opts.Marks
	b.line("\tchain new_%d {\n\t\tct mark set 0x%08x\n\t\tether daddr %s ip daddr @standing goto to_floating", slot, m.connection(n.ID, ""), gateway)
	for _, p := range parts {
		b.line("\t\t%s goto to_%d", p.is("daddr"), b.slot(p.in.ID))
	}
	b.line("\t\tether daddr != %s goto to_%d\n\t\tfib daddr type local goto to_%d\n\t}", gateway, slot, slot)
	b.line("\tchain from_%d {\n\t\tct direction original ct mark 0 jump new_%d", slot, slot)
	b.line("\t\tip daddr @standing ct direction reply ct mark & 0x%08x != 0x%08x drop\n\t\tip daddr @standing return", slotMask<<slotBits, uint32(slot)<<slotBits) //nolint:gosec // at most slotMask
	for _, p := range parts {
		b.line("\t\t%s meta mark set meta mark & 0x%08x | 0x%08x accept", p.is("daddr"), ^uint32(routeMark), m.route(p.in.ID))
	}
	b.line("\t}")
}

// callers writes under which address a guest is seen that calls a floating address of this host: its own, or that of the host, and where that has none
// the one that it called. Under the address that it has in its own network it could not be answered, for the called one may have that too.
func (b *builder) callers() {
	floating, _ := b.standing()
	ours := b.opts.Marks.connection("", "")
	called := fmt.Sprintf("ct status dnat ct mark & 0xff000000 == 0x%08x ct mark & 0x%08x != 0", ours, slotMask)
	if b.opts.Source != "" {
		b.line("\t\t%s snat ip to %s", called, b.opts.Source)
		return
	}
	for _, a := range slices.Sorted(maps.Keys(floating)) {
		b.line("\t\t%s ct original ip daddr %s snat ip to %s", called, a, a)
	}
}
