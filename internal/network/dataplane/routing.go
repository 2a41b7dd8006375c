package dataplane

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kilonova/internal/network"
)

// Networks of different owners often have the same addresses. On a host that routes for two such networks the destination
// alone does not say which bridge is meant. Then each of them gets a routing table of its own, chosen by a mark; the mark comes from
// where a connection began, which connection tracking remembers, or from the floating address that it was made to.

const (
	routeMark     = 0x00ffffff // bits of the packet mark that choose a network
	routeTables   = 0x4b000000 // the table of a network is this and its mark
	routePriority = 21217      // of our routing rules

	extraTables   = 0x4c000000 // the table of a network's static routes is this and its mark
	extraPriority = 21216
)

// netMark is the mark of a network: six digits of its id.
func netMark(networkID string) uint32 {
	n, err := strconv.ParseUint(networkID[:6], 16, 32)
	if err != nil || n == 0 {
		n = 1
	}
	return uint32(n) & routeMark
}

// contested gives the networks whose addresses another network on the host has too.
func contested(st *network.HostState) map[string]bool {
	type part struct {
		net    string
		prefix netip.Prefix
	}
	var parts []part
	for i := range st.Networks {
		n := &st.Networks[i]
		if !n.Gateway {
			continue
		}
		for k := range n.Subnets {
			if p, err := netip.ParsePrefix(n.Subnets[k].CIDR); err == nil && n.Subnets[k].Gateway != "" {
				parts = append(parts, part{n.ID, p})
			}
		}
	}
	out := map[string]bool{}
	for i, a := range parts {
		for _, b := range parts[:i] {
			if a.net != b.net && a.prefix.Overlaps(b.prefix) {
				out[a.net], out[b.net] = true, true
			}
		}
	}
	return out
}

// choosing writes the rules that mark packets with the network that they are for.
func (b *builder) choosing() {
	who := contested(b.state)
	if len(who) == 0 {
		return
	}
	b.line("\tchain zones {\n\t\ttype filter hook prerouting priority -300; policy accept;")
	for i := range b.state.Networks {
		// What goes to the router is told apart by network; what is bridged never leaves it and needs no telling.
		if n := &b.state.Networks[i]; who[n.ID] {
			b.line("\t\tiifname %q ether daddr %s ct original zone set %d", n.Bridge, b.opts.MAC(n), netMark(n.ID)%65535+1)
		}
	}
	b.line("\t}\n\tchain choose {\n\t\ttype filter hook prerouting priority -140; policy accept;")
	for i := range b.state.Networks {
		n := &b.state.Networks[i]
		if who[n.ID] {
			b.line("\t\tiifname %q ct state new ct mark set 0x%06x", n.Bridge, netMark(n.ID))
			b.line("\t\tiifname != @bridges ct mark 0x%06x meta mark set meta mark | 0x%06x", netMark(n.ID), netMark(n.ID))
		}
		for _, peer := range n.Peers {
			if o := b.nets[peer]; o != nil && who[peer] {
				for k := range o.Subnets {
					b.line("\t\tiifname %q %s daddr %s meta mark set meta mark | 0x%06x", n.Bridge, family(o.Subnets[k].CIDR), o.Subnets[k].CIDR, netMark(peer))
				}
			}
		}
	}
	b.chooseByFloating(who)
	b.line("\t}\n\tchain choose_own {\n\t\ttype route hook output priority -140; policy accept;")
	for i := range b.state.Networks {
		if n := &b.state.Networks[i]; who[n.ID] {
			b.line("\t\tct mark 0x%06x meta mark set meta mark | 0x%06x", netMark(n.ID), netMark(n.ID))
		}
	}
	b.chooseByFloating(who) // the host's own programs use floating addresses as others do
	b.line("\t}")
}

// chooseByFloating marks what goes to a floating address with the network of its port.
func (b *builder) chooseByFloating(who map[string]bool) {
	for i := range b.state.Ports {
		p := &b.state.Ports[i]
		for _, f := range p.Floating {
			if who[p.NetworkID] {
				b.line("\t\tip daddr %s ct mark set 0x%06x meta mark set meta mark | 0x%06x", f.Address, netMark(p.NetworkID), netMark(p.NetworkID))
			}
		}
	}
}

// route makes the routing tables of contested networks, and removes those that are no longer needed.
func (p *Plane) route(st *network.HostState) error {
	who := contested(st)
	want := map[int]bool{}
	var errs []error
	for i := range st.Networks {
		n := &st.Networks[i]
		if !who[n.ID] {
			continue
		}
		link, err := netlink.LinkByName(n.Bridge)
		if err != nil {
			errs = append(errs, &network.PartError{NetworkID: n.ID, Err: fmt.Errorf("routes: %w", err)})
			continue
		}
		want[routeTables|int(netMark(n.ID))] = true
		if err := p.routeNetwork(n, link); err != nil {
			errs = append(errs, &network.PartError{NetworkID: n.ID, Err: err})
		}
	}
	for i := range st.Networks {
		n := &st.Networks[i]
		if !n.Gateway || len(n.Routes) == 0 {
			continue
		}
		want[extraTables|int(netMark(n.ID))] = true
		if err := extraRoutes(st, n); err != nil {
			errs = append(errs, &network.PartError{NetworkID: n.ID, Err: fmt.Errorf("static routes: %w", err)})
		}
	}
	if err := dropRules(want); err != nil {
		errs = append(errs, &network.PartError{Err: err})
	}
	return errors.Join(errs...)
}

// extraRoutes makes the static routes of the routers that join a network. They are for what comes from that network alone: no
// owner of a router can turn the host's own packets, or other networks', somewhere else.
func extraRoutes(st *network.HostState, n *network.HostNetwork) error {
	table := extraTables | int(netMark(n.ID))
	have, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return err
	}
	families, wanted := map[int]bool{}, map[string]bool{}
	for _, r := range n.Routes {
		_, dst, err := net.ParseCIDR(r.Destination)
		hop := net.ParseIP(r.NextHop)
		if err != nil || hop == nil {
			continue
		}
		link, err := netlink.LinkByName(hopBridge(st, n, r.NextHop))
		if missing(err) {
			continue // the next hop is on a network that has no port on this host
		}
		if err != nil {
			return err
		}
		family := netlink.FAMILY_V6
		if dst.IP.To4() != nil {
			family = netlink.FAMILY_V4
		}
		if err := netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Gw: hop, Table: table, Flags: int(netlink.FLAG_ONLINK)}); err != nil {
			return fmt.Errorf("%s by %s: %w", r.Destination, r.NextHop, err)
		}
		families[family], wanted[dst.String()] = true, true
	}
	for i := range have {
		if have[i].Dst == nil || !wanted[have[i].Dst.String()] {
			if err := netlink.RouteDel(&have[i]); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
	}
	for f := range families {
		rule := netlink.NewRule()
		rule.Family, rule.IifName, rule.Table, rule.Priority = f, n.Bridge, table, extraPriority
		if err := netlink.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return nil
}

// hopBridge is the bridge of the network that a next hop is on: the network itself or one that a router joins to it.
func hopBridge(st *network.HostState, n *network.HostNetwork, hop string) string {
	a, err := netip.ParseAddr(hop)
	if err != nil {
		return ""
	}
	for i := range st.Networks {
		o := &st.Networks[i]
		if o.ID != n.ID && !slices.Contains(n.Peers, o.ID) {
			continue
		}
		for k := range o.Subnets {
			if p, err := netip.ParsePrefix(o.Subnets[k].CIDR); err == nil && p.Contains(a) {
				return o.Bridge
			}
		}
	}
	return ""
}

func (p *Plane) routeNetwork(n *network.HostNetwork, link netlink.Link) error {
	// Answers come from where the main table would not look for them.
	if err := writeSetting("net/ipv4/conf/"+n.Bridge+"/rp_filter", "2"); err != nil {
		return fmt.Errorf("routes of network %s: %w", n.ID, err)
	}
	table := routeTables | int(netMark(n.ID))
	families := map[int]bool{}
	for k := range n.Subnets {
		s := &n.Subnets[k]
		_, dst, err := net.ParseCIDR(s.CIDR)
		if err != nil || s.Gateway == "" {
			continue
		}
		families[map[bool]int{true: netlink.FAMILY_V4, false: netlink.FAMILY_V6}[dst.IP.To4() != nil]] = true
		r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Table: table, Src: net.ParseIP(s.Gateway)}
		if dst.IP.To4() != nil {
			r.Scope = netlink.SCOPE_LINK
		} else {
			r.Src = nil
		}
		if err := netlink.RouteReplace(r); err != nil {
			return fmt.Errorf("route %s of network %s: %w", s.CIDR, n.ID, err)
		}
	}
	for f := range families {
		rule := netlink.NewRule()
		mask := uint32(routeMark)
		rule.Family, rule.Mark, rule.Mask, rule.Table, rule.Priority = f, netMark(n.ID), &mask, table, routePriority
		if err := netlink.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("routing rule of network %s: %w", n.ID, err)
		}
	}
	return nil
}

// dropRules removes the routing rules of ours whose table is not wanted; its routes go with their bridge.
func dropRules(want map[int]bool) error {
	var errs []error
	for _, f := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := netlink.RuleList(f)
		if err != nil {
			errs = append(errs, fmt.Errorf("list routing rules: %w", err))
			continue
		}
		for i := range rules {
			r := &rules[i]
			chosen := r.Priority == routePriority && r.Table&^routeMark == routeTables
			static := r.Priority == extraPriority && r.Table&^routeMark == extraTables
			if !chosen && !static || want[r.Table] {
				continue
			}
			if err := netlink.RuleDel(r); err != nil {
				errs = append(errs, fmt.Errorf("remove routing rule: %w", err))
			}
		}
	}
	return errors.Join(errs...)
}
