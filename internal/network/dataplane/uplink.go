package dataplane

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kilonova/internal/fault"
	"kilonova/internal/network"
)

// A network of a physical one has on its bridge the interface that the configuration names for that, or, when it is a VLAN of it, a VLAN interface of that
// one (IEEE 802.1Q). A router outside is its gateway; the hosts answer DHCP and metadata, each for its own guests.

// vlanName is the name of the VLAN interface on a bridge.
func vlanName(bridge string) string { return "kvl" + strings.TrimPrefix(bridge, "kbr") }

// uplink joins the bridge to its physical network, and parts it from one that it is no longer of.
func (p *Plane) uplink(bridge netlink.Link, n *network.HostNetwork) error {
	var err error
	if n.Physical == "" || n.VLAN == 0 {
		_, err = p.dropVLAN(n.Bridge)
	}
	if err == nil {
		err = p.partUplinks(bridge, n)
	}
	if err != nil || n.Physical == "" {
		return err
	}
	name := p.cfg.Physical[n.Physical]
	if name == "" {
		return fault.New(fault.Conflict, "The physical network %s has no interface there: name one in [network] physical_interface_mappings of the host.", n.Physical)
	}
	link, err := netlink.LinkByName(name)
	if missing(err) {
		return fault.Wrap(err, fault.Conflict, "The interface %s of the physical network %s is not there: make it, or mend [network] physical_interface_mappings of the host.", name, n.Physical)
	}
	if err != nil {
		return fmt.Errorf("interface %s of physical network %s: %w", name, n.Physical, err)
	}
	if link.Attrs().Flags&net.FlagUp == 0 {
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("interface %s of physical network %s: set up: %w", name, n.Physical, err)
		}
	}
	if n.VLAN != 0 {
		if link, err = p.ensureVLAN(link, n); err == nil {
			err = join(link, bridge)
		}
		if err != nil {
			return fmt.Errorf("VLAN %d on interface %s of physical network %s: %w", n.VLAN, name, n.Physical, err)
		}
		return nil
	}
	if link.Attrs().MasterIndex == bridge.Attrs().Index {
		return nil
	}
	if link.Attrs().MasterIndex != 0 {
		return fault.New(fault.Conflict, "The interface %s of the physical network %s belongs to another bridge: take it off there, or name another in [network] physical_interface_mappings of the host.", name, n.Physical)
	}
	return netlink.LinkSetMaster(link, bridge)
}

// partUplinks takes off the bridge those interfaces of physical networks that do not belong there.
func (p *Plane) partUplinks(bridge netlink.Link, n *network.HostNetwork) error {
	keep := ""
	if n.VLAN == 0 && n.Physical != "" {
		keep = p.cfg.Physical[n.Physical]
	}
	for _, name := range p.cfg.Physical {
		link, err := netlink.LinkByName(name)
		if err != nil || name == keep || link.Attrs().MasterIndex != bridge.Attrs().Index {
			continue // one that is not there is on no bridge
		}
		if err := netlink.LinkSetNoMaster(link); err != nil {
			return fmt.Errorf("take interface %s off: %w", name, err)
		}
	}
	return nil
}

// ensureVLAN makes the VLAN interface of a network, or brings the one that is there to what is wanted.
func (p *Plane) ensureVLAN(parent netlink.Link, n *network.HostNetwork) (netlink.Link, error) {
	name := vlanName(n.Bridge)
	link, err := netlink.LinkByName(name)
	if err == nil {
		v, ok := link.(*netlink.Vlan)
		if !ok || link.Attrs().Alias != p.alias() {
			return nil, errors.New("an interface " + name + " is there and not ours: remove or rename it")
		}
		if v.VlanId == n.VLAN && v.ParentIndex == parent.Attrs().Index {
			return p.sized(link, parent, n)
		}
		if _, err := p.dropVLAN(n.Bridge); err != nil {
			return nil, err
		}
	} else if !missing(err) {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = name, parent.Attrs().Index
	if err := netlink.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: n.VLAN, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil, errors.New("an interface for this VLAN is there and not ours: remove it, or choose another segmentation_id")
		}
		if errors.Is(err, unix.EOPNOTSUPP) {
			return nil, errors.New("the kernel has no VLAN interfaces: load the module 8021q")
		}
		return nil, err
	}
	if link, err = netlink.LinkByName(name); err != nil {
		return nil, err
	}
	if err := netlink.LinkSetAlias(link, p.alias()); err != nil {
		_ = netlink.LinkDel(link) // without its mark it would be nobody's
		return nil, err
	}
	return p.sized(link, parent, n)
}

// sized gives the VLAN interface the network's MTU, as far as its physical interface has it.
func (p *Plane) sized(link, parent netlink.Link, n *network.HostNetwork) (netlink.Link, error) {
	mtu := min(n.MTU, parent.Attrs().MTU)
	if n.MTU == 0 || link.Attrs().MTU == mtu {
		return link, nil
	}
	if err := netlink.LinkSetMTU(link, mtu); err != nil {
		return nil, fmt.Errorf("set MTU %d: %w", mtu, err)
	}
	return link, nil
}

// dropVLAN removes the VLAN interface of a bridge; it tells how many there were.
func (p *Plane) dropVLAN(bridge string) (int, error) { return p.dropOn(bridge, vlanName(bridge)) }

// dropOn removes an interface of ours that a bridge has to elsewhere; it tells how many there were.
func (p *Plane) dropOn(bridge, name string) (int, error) {
	link, err := netlink.LinkByName(name)
	if missing(err) {
		return 0, nil
	}
	if err == nil && link.Attrs().Alias != p.alias() {
		return 0, nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil && !missing(err) {
		return 0, &network.PartError{Err: fmt.Errorf("remove %s of bridge %s: %w", name, bridge, err)}
	}
	return 1, nil
}

// uplinksOf counts the physical interfaces on a bridge.
func (p *Plane) uplinksOf(bridge netlink.Link) int {
	n := 0
	for _, name := range p.cfg.Physical {
		if l, err := netlink.LinkByName(name); err == nil && l.Attrs().MasterIndex == bridge.Attrs().Index {
			n++
		}
	}
	return n
}

// uplinks are the names of all interfaces that lead from bridges to physical networks.
func (p *Plane) uplinks(st *network.HostState) (out []string) {
	for _, name := range p.cfg.Physical {
		out = append(out, name)
	}
	for i := range st.Networks {
		if n := &st.Networks[i]; n.Physical != "" && n.VLAN != 0 {
			out = append(out, vlanName(n.Bridge))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// uplinkRules writes what does not cross to and from a physical network: all hosts on it have the metadata service's addresses.
func (b *builder) uplinkRules() {
	b.line("\tchain own_addresses {\n\t\tarp daddr ip %s drop\n\t\tarp saddr ip %s drop", metadataAddress, metadataAddress)
	if _, value, ok := bits(metadataSix); ok {
		b.line("\t\ticmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } @th,64,128 0x%s drop", value)
	}
	b.line("\t}")
}
