package dataplane

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"kilonova/internal/network"
)

// Attributes of bridges that the netlink library has no field for (linux/if_link.h).
const (
	iflaBrNFCallIPTables  = 36
	iflaBrNFCallIP6Tables = 37
)

// alias marks links as ours.
func (p *Plane) alias() string { return "kilonova:" + p.cfg.Tag }

func missing(err error) bool {
	var nf netlink.LinkNotFoundError
	return errors.As(err, &nf) || errors.Is(err, unix.ENODEV)
}

// ensureBridge makes a network's bridge, or brings the one that is there to what is wanted.
func (p *Plane) ensureBridge(n *network.HostNetwork) (netlink.Link, error) {
	link, err := netlink.LinkByName(n.Bridge)
	if missing(err) {
		link, err = p.addBridge(n)
	}
	if err != nil {
		return nil, fmt.Errorf("bridge %s: %w", n.Bridge, err)
	}
	if link.Type() != "bridge" || link.Attrs().Alias != p.alias() {
		return nil, fmt.Errorf("interface %s is there and not ours: remove or rename it", n.Bridge)
	}
	if mac := p.bridgeMAC(n); !bytes.Equal(link.Attrs().HardwareAddr, mac) {
		if err := netlink.LinkSetHardwareAddr(link, mac); err != nil {
			return nil, fmt.Errorf("bridge %s: set address %s: %w", n.Bridge, mac, err)
		}
		link.Attrs().HardwareAddr = mac
	}
	if n.MTU > 0 && link.Attrs().MTU != n.MTU {
		if err := netlink.LinkSetMTU(link, n.MTU); err != nil {
			return nil, fmt.Errorf("bridge %s: set MTU %d: %w", n.Bridge, n.MTU, err)
		}
	}
	if err := callFirewall(link); err != nil {
		return nil, fmt.Errorf("bridge %s: hand packets to the firewall: %w", n.Bridge, err)
	}
	if err := writeSetting("net/ipv6/conf/"+n.Bridge+"/accept_ra", "0"); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	if link.Attrs().Flags&net.FlagUp == 0 {
		if err := netlink.LinkSetUp(link); err != nil {
			return nil, fmt.Errorf("bridge %s: set up: %w", n.Bridge, err)
		}
	}
	if err := p.addresses(link, n); err != nil {
		return nil, fmt.Errorf("bridge %s: %w", n.Bridge, err)
	}
	if err := p.tunnel(link, n); err != nil {
		return nil, err
	}
	return link, p.uplink(link, n)
}

func (p *Plane) addBridge(n *network.HostNetwork) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = n.Bridge
	attrs.HardwareAddr = p.bridgeMAC(n)
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return nil, fmt.Errorf("add: %w", err)
	}
	link, err := netlink.LinkByName(n.Bridge)
	if err != nil {
		return nil, err
	}
	if err := netlink.LinkSetAlias(link, p.alias()); err != nil {
		_ = netlink.LinkDel(link) // without its mark it would be nobody's
		return nil, fmt.Errorf("mark as ours: %w", err)
	}
	return netlink.LinkByName(n.Bridge)
}

// bridgeMAC is a locally administered address that stays the same when ports come and go. It is the gateway's: for a network that reaches other hosts it
// is the same on all of them, so that a guest which moves need not learn another; for others it differs between hosts.
func (p *Plane) bridgeMAC(n *network.HostNetwork) net.HardwareAddr {
	if p.tunnelled(n) {
		return derivedMAC("gateway", n.ID)
	}
	return p.hostMAC(n.Bridge)
}

// hostMAC differs between hosts.
func (p *Plane) hostMAC(bridge string) net.HardwareAddr {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return derivedMAC(host, p.cfg.Tag, bridge)
}

func derivedMAC(of ...string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(strings.Join(of, "\x00")))
	return net.HardwareAddr{0x0e, sum[0], sum[1], sum[2], sum[3], sum[4]}
}

// callFirewall has the bridge hand IP packets to the inet hooks, where connection tracking is.
func callFirewall(link netlink.Link) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(link.Attrs().Index) //nolint:gosec // interface indexes are small
	req.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(iflaBrNFCallIPTables, []byte{1})
	data.AddRtAttr(iflaBrNFCallIP6Tables, []byte{1})
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// addresses puts the gateways and the metadata address on the bridge and takes off what is no longer wanted.
func (p *Plane) addresses(link netlink.Link, n *network.HostNetwork) error {
	want := map[string]bool{metadataAddress + "/32": true}
	for i := range n.Subnets {
		s := &n.Subnets[i]
		cidr, err := netip.ParsePrefix(s.CIDR)
		if err != nil {
			return fmt.Errorf("subnet %s: %w", s.ID, err)
		}
		if n.Gateway && s.Gateway != "" {
			want[fmt.Sprintf("%s/%d", s.Gateway, cidr.Bits())] = true
		}
	}
	six := metadataSix + "/64"
	if hasSix(n.Bridge) {
		want[six] = true
	}
	have, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	var errs []error
	for i := range have {
		text := have[i].IPNet.String()
		if want[text] {
			delete(want, text)
		} else if !have[i].IP.IsLinkLocalUnicast() || have[i].IP.To4() != nil {
			errs = append(errs, netlink.AddrDel(link, &have[i]))
		}
	}
	for text := range want {
		a, err := netlink.ParseAddr(text)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if a.IP.To4() == nil {
			a.Flags = unix.IFA_F_NODAD
			if text == six {
				a.ValidLft, a.PreferedLft = math.MaxUint32, 0 // never the source of what the host says first
			}
		} else if strings.HasSuffix(text, "/32") {
			a.Scope = unix.RT_SCOPE_LINK // never the source of what the host sends elsewhere
		}
		if err := netlink.AddrAdd(link, a); err != nil && !errors.Is(err, unix.EEXIST) {
			errs = append(errs, fmt.Errorf("add address %s: %w", text, err))
		}
	}
	return errors.Join(errs...)
}

// attach puts the taps that exist onto their bridges. Hypervisors make them; one that was made before its bridge, or lost it,
// is joined here.
func (p *Plane) attach(st *network.HostState) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	have := make(map[string]netlink.Link, len(links))
	for _, l := range links {
		have[l.Attrs().Name] = l
	}
	var errs []error
	for i := range st.Ports {
		port := &st.Ports[i]
		tap, bridge := have[port.Tap], have[network.BridgeName(port.NetworkID)]
		if tap == nil || bridge == nil {
			continue
		}
		if err := join(tap, bridge); err != nil && !missing(err) {
			errs = append(errs, &network.PartError{NetworkID: port.NetworkID, Err: fmt.Errorf("tap %s: %w", port.Tap, err)})
		}
	}
	return errors.Join(errs...)
}

func join(tap, bridge netlink.Link) error {
	// The host itself has nothing to say on a guest's wire.
	if err := writeSetting("net/ipv6/conf/"+tap.Attrs().Name+"/disable_ipv6", "1"); err != nil && !os.IsNotExist(err) {
		return err
	}
	if tap.Attrs().MasterIndex != bridge.Attrs().Index {
		if err := netlink.LinkSetMaster(tap, bridge); err != nil {
			return err
		}
	}
	if tap.Attrs().Flags&net.FlagUp == 0 {
		return netlink.LinkSetUp(tap)
	}
	return nil
}

// taps gives the bridge of each interface that is up and on a bridge.
func (p *Plane) taps() (map[string]string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	names, out := map[int]string{}, map[string]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	for _, l := range links {
		if a := l.Attrs(); a.MasterIndex != 0 && a.Flags&net.FlagUp != 0 {
			out[a.Name] = names[a.MasterIndex]
		}
	}
	return out, nil
}

// ours lists the links that carry our mark.
func (p *Plane) ours() ([]netlink.Link, map[int]int, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, nil, fmt.Errorf("list interfaces: %w", err)
	}
	var out []netlink.Link
	ports := map[int]int{}
	for _, l := range links {
		ports[l.Attrs().MasterIndex]++
		if l.Attrs().Alias == p.alias() {
			out = append(out, l)
		}
	}
	return out, ports, nil
}

// dropBridges removes bridges of ours that are no longer wanted and that nothing is joined to.
func (p *Plane) dropBridges(wanted map[string]bool) error {
	links, ports, err := p.ours()
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range links {
		name := l.Attrs().Name
		if l.Type() != "bridge" || wanted[name] {
			continue
		}
		if s := p.served[name]; s != nil {
			s.stop()
			delete(p.served, name)
		}
		tunnels, err := p.dropTunnel(name)
		if err != nil {
			errs = append(errs, err)
		}
		vlans, err := p.dropVLAN(name)
		if err != nil {
			errs = append(errs, err)
		}
		if ports[l.Attrs().Index]-tunnels-vlans > p.uplinksOf(l) {
			continue // a guest that is on its way out still has its tap here; the firewall drops what it sends
		}
		if err := netlink.LinkDel(l); err != nil {
			errs = append(errs, &network.PartError{Err: fmt.Errorf("remove bridge %s: %w", name, err)})
		}
	}
	return errors.Join(errs...)
}

// dropAll removes every link of ours, and the taps on our bridges whose hypervisor left them behind.
func (p *Plane) dropAll() error {
	links, _, err := p.ours()
	if err != nil {
		return err
	}
	all, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	var errs []error
	for _, b := range links {
		for _, l := range all {
			if l.Attrs().MasterIndex == b.Attrs().Index && l.Type() == "tuntap" && strings.HasPrefix(l.Attrs().Name, "tap") {
				if err := netlink.LinkDel(l); err != nil && !missing(err) {
					errs = append(errs, fmt.Errorf("remove tap %s: %w", l.Attrs().Name, err))
				}
			}
		}
	}
	for _, l := range links {
		if err := netlink.LinkDel(l); err != nil && !missing(err) {
			errs = append(errs, fmt.Errorf("remove %s: %w", l.Attrs().Name, err))
		}
	}
	return errors.Join(errs...)
}
