package dataplane

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"kilonova/internal/network"
)

// A network with a VXLAN identifier has a VXLAN interface on its bridge (RFC 7348, unicast only). What has no known place (broadcast, multicast, MACs not
// seen yet) goes to each host that has ports of the network; where a MAC is, the interface learns from what comes, so a guest that moves takes its place
// along with the first frame that it, or QEMU for it, sends. The host's own gateway needs to ask nobody: the network service knows all addresses, and
// those of other hosts' ports are permanent neighbours.
//
// All hosts have the gateway's addresses and its MAC. So none of what is said to or by a gateway may cross: ARP and neighbour discovery for its addresses,
// router advertisements, DHCP. What a host routes to a guest of another host leaves with a MAC of this host in place of the gateway's.
const vxlanPort = 4789

// tunnelName is the name of the VXLAN interface on a bridge.
func tunnelName(bridge string) string { return "kvx" + strings.TrimPrefix(bridge, "kbr") }

// tunnelled tells whether a network reaches other hosts.
func (p *Plane) tunnelled(n *network.HostNetwork) bool { return n.VNI != 0 && p.cfg.Tunnel.IsValid() }

// tunnel makes the VXLAN interface of a network, or brings the one that is there to what is wanted.
func (p *Plane) tunnel(bridge netlink.Link, n *network.HostNetwork) error {
	if !p.tunnelled(n) {
		_, err := p.dropTunnel(n.Bridge)
		return err
	}
	link, err := p.ensureTunnel(n)
	if err == nil {
		err = join(link, bridge)
	}
	if err == nil {
		err = flood(link, n)
	}
	if err == nil {
		err = neighbours(bridge, n)
	}
	if err != nil {
		return fmt.Errorf("tunnel %s: %w", tunnelName(n.Bridge), err)
	}
	return nil
}

func (p *Plane) ensureTunnel(n *network.HostNetwork) (netlink.Link, error) {
	name := tunnelName(n.Bridge)
	link, err := netlink.LinkByName(name)
	if err == nil {
		v, ok := link.(*netlink.Vxlan)
		if !ok || link.Attrs().Alias != p.alias() {
			return nil, errors.New("an interface of that name is there and not ours: remove or rename it")
		}
		if v.VxlanId != n.VNI || !v.SrcAddr.Equal(net.IP(p.cfg.Tunnel.AsSlice())) {
			if err := netlink.LinkDel(link); err != nil {
				return nil, err
			}
			link, err = nil, unix.ENODEV
		}
	}
	if missing(err) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU, attrs.HardwareAddr = name, n.MTU, p.hostMAC(name)
		v := &netlink.Vxlan{LinkAttrs: attrs, VxlanId: n.VNI, SrcAddr: net.IP(p.cfg.Tunnel.AsSlice()), Port: vxlanPort, Learning: true}
		if err := netlink.LinkAdd(v); err != nil {
			return nil, fmt.Errorf("add VXLAN %d from %s: %w", n.VNI, p.cfg.Tunnel, err)
		}
		if link, err = netlink.LinkByName(name); err == nil {
			if err = netlink.LinkSetAlias(link, p.alias()); err != nil {
				_ = netlink.LinkDel(link) // without its mark it would be nobody's
			}
		}
	}
	if err != nil {
		return nil, err
	}
	if n.MTU > 0 && link.Attrs().MTU != n.MTU {
		if err := netlink.LinkSetMTU(link, n.MTU); err != nil {
			return nil, fmt.Errorf("set MTU %d: %w", n.MTU, err)
		}
	}
	return link, nil
}

// dropTunnel removes the VXLAN interface of a bridge; it tells how many there were.
func (p *Plane) dropTunnel(bridge string) (int, error) { return p.dropOn(bridge, tunnelName(bridge)) }

// flood sets to which hosts goes what has no known place, and drops what was learned and is not so any more.
func flood(link netlink.Link, n *network.HostNetwork) error {
	have, err := netlink.NeighList(link.Attrs().Index, unix.AF_BRIDGE)
	if err != nil {
		return fmt.Errorf("list where MACs are: %w", err)
	}
	place := map[string]string{}
	for _, r := range n.Remote {
		place[strings.ToLower(r.MAC)] = r.Endpoint
	}
	nobody := make(net.HardwareAddr, 6)
	there := map[string]bool{}
	for i := range have {
		e := &have[i]
		if e.IP == nil {
			continue
		}
		to := e.IP.String()
		if e.HardwareAddr.String() != nobody.String() {
			if want := place[e.HardwareAddr.String()]; want != "" && want != to {
				if err := forgetPlace(link, e.HardwareAddr, e.IP); err != nil {
					return err
				}
			}
			continue
		}
		if slices.Contains(n.Endpoints, to) {
			there[to] = true
		} else if err := forgetPlace(link, nobody, e.IP); err != nil {
			return err
		}
	}
	for _, to := range n.Endpoints {
		if there[to] {
			continue
		}
		err := netlink.NeighAppend(&netlink.Neigh{LinkIndex: link.Attrs().Index, Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT, Flags: netlink.NTF_SELF,
			HardwareAddr: nobody, IP: net.ParseIP(to)})
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add the host %s: %w", to, err)
		}
	}
	return nil
}

func forgetPlace(link netlink.Link, mac net.HardwareAddr, at net.IP) error {
	err := netlink.NeighDel(&netlink.Neigh{LinkIndex: link.Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, HardwareAddr: mac, IP: at})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("forget that %s is at %s: %w", mac, at, err)
	}
	return nil
}

// neighbours gives the host's gateway the MACs of other hosts' ports.
func neighbours(bridge netlink.Link, n *network.HostNetwork) error {
	want := map[string]string{}
	for _, r := range n.Remote {
		for _, a := range r.Addresses {
			if n.Gateway {
				want[a] = strings.ToLower(r.MAC)
			}
		}
	}
	have, err := netlink.NeighList(bridge.Attrs().Index, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list neighbours: %w", err)
	}
	for i := range have {
		e := &have[i]
		if e.State&netlink.NUD_PERMANENT == 0 || e.Family != unix.AF_INET && e.Family != unix.AF_INET6 {
			continue
		}
		if mac := want[e.IP.String()]; mac != "" && mac == e.HardwareAddr.String() {
			delete(want, e.IP.String())
		} else if mac == "" {
			if err := netlink.NeighDel(e); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("forget neighbour %s: %w", e.IP, err)
			}
		}
	}
	for a, text := range want {
		mac, err := net.ParseMAC(text)
		if err != nil {
			return fmt.Errorf("neighbour %s: %w", a, err)
		}
		if err := netlink.NeighSet(&netlink.Neigh{LinkIndex: bridge.Attrs().Index, State: netlink.NUD_PERMANENT, HardwareAddr: mac, IP: net.ParseIP(a)}); err != nil {
			return fmt.Errorf("neighbour %s: %w", a, err)
		}
	}
	return nil
}

func (b *builder) tunnelled() (out []*network.HostNetwork) {
	for i := range b.state.Networks {
		if n := &b.state.Networks[i]; b.opts.Tunnelled != nil && b.opts.Tunnelled(n) {
			out = append(out, n)
		}
	}
	return out
}

// tunnels writes what may not cross tunnels, and the MAC that stands for the gateway's on other hosts.
func (b *builder) tunnels() {
	var arriving, leaving []string
	for _, n := range b.tunnelled() {
		name := tunnelName(n.Bridge)
		arriving = append(arriving, fmt.Sprintf("%q : goto arriving_%s", name, name))
		leaving = append(leaving, fmt.Sprintf("%q : goto leaving_%s", name, name))
		b.line("\tchain here_%s {", name)
		b.stayHere(n)
		b.line("\t}\n\tchain arriving_%s {\n\t\tjump here_%s\n\t\tmeta mark set meta mark & 0x%08x", name, name, ^uint32(markMask))
		for _, fam := range []string{"ip", "ip6"} {
			inside := b.inside(n)[fam]
			if len(inside) == 0 {
				continue
			}
			b.line("\t\t%s saddr != { %s } meta mark set meta mark | 0x%08x accept", fam, strings.Join(inside, ", "), markAstray)
		}
		b.line("\t\taccept\n\t}")
		// The wrapped packet finds its way without the marks of the one inside.
		b.line("\tchain leaving_%s {\n\t\tjump here_%s\n\t\tether saddr %s ether saddr set %s\n\t\tmeta mark set 0\n\t}", name, name, b.opts.MAC(n), b.opts.HostMAC(n.Bridge))
	}
	b.set("map", "arriving", "ifname : verdict", false, arriving)
	b.set("map", "leaving", "ifname : verdict", false, leaving)
}

// inside are the addresses of a network and of those that routers join to it, by nft's word for their version, in a form that does not overlap.
func (b *builder) inside(n *network.HostNetwork) map[string][]string {
	sets := map[string]*netipx.IPSetBuilder{}
	for _, o := range append([]*network.HostNetwork{n}, b.peers(n)...) {
		for i := range o.Subnets {
			p, err := netip.ParsePrefix(o.Subnets[i].CIDR)
			if err != nil {
				continue
			}
			fam := family(o.Subnets[i].CIDR)
			if sets[fam] == nil {
				sets[fam] = &netipx.IPSetBuilder{}
			}
			sets[fam].AddPrefix(p.Masked())
		}
	}
	if sets["ip6"] != nil {
		sets["ip6"].AddPrefix(netip.MustParsePrefix("fe80::/10"))
		sets["ip6"].Add(netip.IPv6Unspecified())
	}
	out := map[string][]string{}
	for fam, s := range sets {
		if set, err := s.IPSet(); err == nil {
			for _, p := range set.Prefixes() {
				out[fam] = append(out[fam], p.String())
			}
		}
	}
	return out
}

func (b *builder) peers(n *network.HostNetwork) (out []*network.HostNetwork) {
	for _, id := range n.Peers {
		if o := b.nets[id]; o != nil {
			out = append(out, o)
		}
	}
	return out
}

func (b *builder) stayHere(n *network.HostNetwork) {
	own4, own6 := []string{metadataAddress}, []string{linkLocal(b.opts.MAC(n)), metadataSix}
	dhcp, adverts := map[int]bool{}, false
	for i := range n.Subnets {
		s := &n.Subnets[i]
		if s.Gateway != "" && n.Gateway {
			if s.Version == 4 {
				own4 = append(own4, s.Gateway)
			} else {
				own6 = append(own6, s.Gateway)
			}
		}
		dhcp[s.Version] = dhcp[s.Version] || s.DHCP
		adverts = adverts || s.Version == 6 && s.IPv6RAMode != ""
	}
	slices.Sort(own4)
	b.line("\t\tarp saddr ip { %s } drop\n\t\tarp daddr ip { %s } drop", strings.Join(own4, ", "), strings.Join(own4, ", "))
	if dhcp[4] {
		b.line("\t\tether type ip udp sport 68 udp dport 67 drop\n\t\tether type ip udp sport 67 udp dport 68 drop")
	}
	if dhcp[6] {
		b.line("\t\tether type ip6 udp sport 546 udp dport 547 drop\n\t\tether type ip6 udp sport 547 udp dport 546 drop")
	}
	if adverts {
		b.line("\t\ticmpv6 type { nd-router-solicit, nd-router-advert } drop")
	}
	slices.Sort(own6)
	for _, a := range slices.Compact(own6) {
		if _, value, ok := bits(a); ok { // the target of a solicitation or advertisement lies 8 bytes into the ICMPv6 header
			b.line("\t\ticmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } @th,64,128 0x%s drop", value)
		}
	}
}

// announce tells the neighbours on a link, by ARP, that an IPv4 address is at this host (RFC 5227).
func announce(link netlink.Link, a netip.Addr) error {
	mac := link.Attrs().HardwareAddr
	if !a.Is4() || len(mac) != 6 || link.Attrs().Flags&net.FlagLoopback != 0 {
		return nil
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	ip := a.As4()
	everybody := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	frame := slices.Concat(everybody, mac, []byte{0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1}, mac, ip[:], make([]byte, 6), ip[:])
	to := &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index, Halen: 6}
	copy(to.Addr[:], everybody)
	return unix.Sendto(fd, frame, 0, to)
}
