package dataplane

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kilonova/internal/network"
)

// Networks of different owners often have the same addresses: the destination alone does not say which bridge is meant. So each network has a routing table
// of its own, chosen by a mark, which zones.go writes: what is not found there is looked for in the main table, where the outside is.

const (
	routeTables   = 0x4b000000 // the table of a network is this and its mark
	routePriority = 21217      // of our routing rules

	extraTables   = 0x4c000000 // the table of a network's static routes is this and its mark
	extraPriority = 21216
)

// route makes the routing tables of networks, and removes those that are no longer needed.
func (p *Plane) route(st *network.HostState) error {
	want := map[int]bool{}
	var errs []error
	for i := range st.Networks {
		n := &st.Networks[i]
		if !n.Gateway {
			continue
		}
		link, err := netlink.LinkByName(n.Bridge)
		if err != nil {
			errs = append(errs, &network.PartError{NetworkID: n.ID, Err: fmt.Errorf("routes: %w", err)})
			continue
		}
		want[routeTables|int(p.marks().route(n.ID))] = true
		if err := p.routeNetwork(n, link); err != nil {
			errs = append(errs, &network.PartError{NetworkID: n.ID, Err: err})
		}
	}
	for i := range st.Networks {
		n := &st.Networks[i]
		if !n.Gateway || len(n.Routes) == 0 {
			continue
		}
		table := extraTables | int(p.marks().route(n.ID))
		want[table] = true
		if err := extraRoutes(st, n, table); err != nil {
			errs = append(errs, &network.PartError{NetworkID: n.ID, Err: fmt.Errorf("static routes: %w", err)})
		}
	}
	if err := p.dropRules(want); err != nil {
		errs = append(errs, &network.PartError{Err: err})
	}
	return errors.Join(errs...)
}

// extraRoutes makes the static routes of the routers that join a network. They are for what comes from that network alone: no
// owner of a router can turn the host's own packets, or other networks', somewhere else.
func extraRoutes(st *network.HostState, n *network.HostNetwork, table int) error {
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
		link, err := netlink.LinkByName(bridgeOf(hopNetwork(st, n, r.NextHop)))
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

// hopNetwork is the network that a next hop is on: the network itself or one that a router joins to it; nil for none on this host.
func hopNetwork(st *network.HostState, n *network.HostNetwork, hop string) *network.HostNetwork {
	a, err := netip.ParseAddr(hop)
	if err != nil {
		return nil
	}
	for i := range st.Networks {
		o := &st.Networks[i]
		if o.ID != n.ID && !slices.Contains(n.Peers, o.ID) {
			continue
		}
		for k := range o.Subnets {
			if p, err := netip.ParsePrefix(o.Subnets[k].CIDR); err == nil && p.Contains(a) {
				return o
			}
		}
	}
	return nil
}

func bridgeOf(n *network.HostNetwork) string {
	if n == nil {
		return ""
	}
	return n.Bridge
}

func (p *Plane) routeNetwork(n *network.HostNetwork, link netlink.Link) error {
	// Answers come from where the main table would not look for them.
	if err := writeSetting("net/ipv4/conf/"+n.Bridge+"/rp_filter", "2"); err != nil {
		return fmt.Errorf("routes of network %s: %w", n.ID, err)
	}
	mark := p.marks().route(n.ID)
	table := routeTables | int(mark)
	have, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("routes of network %s: %w", n.ID, err)
	}
	families, wanted := map[int]bool{}, map[string]bool{}
	for k := range n.Subnets {
		s := &n.Subnets[k]
		_, dst, err := net.ParseCIDR(s.CIDR)
		if err != nil || s.Gateway == "" {
			continue
		}
		families[map[bool]int{true: netlink.FAMILY_V4, false: netlink.FAMILY_V6}[dst.IP.To4() != nil]] = true
		wanted[dst.String()] = true
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
	for i := range have {
		if have[i].Dst == nil || wanted[have[i].Dst.String()] {
			continue
		}
		if err := netlink.RouteDel(&have[i]); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("route %s that network %s has no more: %w", have[i].Dst, n.ID, err)
		}
	}
	for f := range families {
		rule := netlink.NewRule()
		mask := uint32(routeMark)
		rule.Family, rule.Mark, rule.Mask, rule.Table, rule.Priority = f, mark, &mask, table, routePriority
		if err := netlink.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("routing rule of network %s: %w", n.ID, err)
		}
	}
	return nil
}

// dropRules removes the routing rules of ours whose table is not wanted; its routes go with their bridge.
func (p *Plane) dropRules(want map[int]bool) error {
	ours := func(table, base int) bool { return table&^slotMask == base|int(p.marks().route("")) }
	var errs []error
	for _, f := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := netlink.RuleList(f)
		if err != nil {
			errs = append(errs, fmt.Errorf("list routing rules: %w", err))
			continue
		}
		for i := range rules {
			r := &rules[i]
			chosen := r.Priority == routePriority && ours(r.Table, routeTables)
			static := r.Priority == extraPriority && ours(r.Table, extraTables)
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
