package dataplane

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kilonova/internal/network"
)

// undo keeps what must be put back at teardown, in a file, so that it outlives the process.
type undo struct {
	path     string
	Settings map[string]string `json:"settings"` // kernel settings and their values before
	Floating []string          `json:"floating"` // "interface address"
	Slots    map[string]int    `json:"networks"` // their numbers
}

func loadUndo(dir string) (*undo, error) {
	u := &undo{Settings: map[string]string{}, Slots: map[string]int{}}
	if dir == "" {
		return u, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory of the data plane: %w", err)
	}
	u.path = filepath.Join(dir, "dataplane.json")
	raw, err := os.ReadFile(u.path)
	if os.IsNotExist(err) {
		return u, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what the data plane changed: %w", err)
	}
	if err := json.Unmarshal(raw, u); err != nil {
		return nil, fmt.Errorf("read what the data plane changed: %s: %w", u.path, err)
	}
	if u.Settings == nil {
		u.Settings = map[string]string{}
	}
	if u.Slots == nil {
		u.Slots = map[string]int{}
	}
	return u, nil
}

func (u *undo) save() error {
	if u.path == "" {
		return nil
	}
	raw, err := json.MarshalIndent(u, "", "  ")
	if err != nil {
		return err
	}
	tmp := u.path + ".new"
	if err := os.WriteFile(tmp, append(raw, '\n'), 0o600); err != nil {
		return fmt.Errorf("note what the data plane changes: %w", err)
	}
	return os.Rename(tmp, u.path)
}

// change sets a kernel setting after noting what it was.
func (u *undo) change(name, value string) error {
	now, err := readSetting(name)
	if err != nil || now == value {
		return err
	}
	if _, noted := u.Settings[name]; !noted {
		u.Settings[name] = now
		if err := u.save(); err != nil {
			return err
		}
	}
	return writeSetting(name, value)
}

// restore puts back all settings; those of interfaces that are gone are forgotten.
func (u *undo) restore() error {
	var errs []error
	for name, value := range u.Settings {
		if err := writeSetting(name, value); err != nil && !os.IsNotExist(err) {
			errs = append(errs, err)
			continue
		}
		delete(u.Settings, name)
	}
	clear(u.Slots)
	if u.path != "" && len(u.Settings)+len(u.Floating) == 0 {
		if err := os.Remove(u.path); err != nil && !os.IsNotExist(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

const settings = "/proc/sys/"

func readSetting(name string) (string, error) {
	b, err := os.ReadFile(settings + name)
	return strings.TrimSpace(string(b)), err
}

func writeSetting(name, value string) error {
	return os.WriteFile(settings+name, []byte(value), 0o644) //nolint:gosec // a kernel setting, not a file
}

// prepareHost switches on what the kernel needs: packets of bridges reach the firewall, and the host routes.
func (p *Plane) prepareHost(st *network.HostState) error {
	if _, err := os.Stat(settings + "net/bridge"); err != nil {
		_ = exec.Command(systemProgram("modprobe"), "br_netfilter").Run() // judged by what it leaves
		if _, err := os.Stat(settings + "net/bridge"); err != nil {
			return errors.New("the kernel module br_netfilter is missing: security groups need it; load it with modprobe br_netfilter")
		}
	}
	four, six := false, false
	for i := range st.Networks {
		for k := range st.Networks[i].Subnets {
			if s := &st.Networks[i].Subnets[k]; s.Gateway != "" && st.Networks[i].Gateway {
				four, six = four || s.Version == 4, six || s.Version == 6
			}
		}
	}
	if slices.ContainsFunc(st.Networks, func(n network.HostNetwork) bool { return p.tunnelled(&n) }) {
		// While a guest moves, one direction of its connections may pass here and the other through another host.
		if err := p.undo.change("net/netfilter/nf_conntrack_tcp_be_liberal", "1"); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("let connections be followed that pass by in one direction: %w", err)
		}
	}
	if four {
		if err := p.undo.change("net/ipv4/ip_forward", "1"); err != nil {
			return fmt.Errorf("switch on routing: %w", err)
		}
		for _, name := range []string{"fwmark_reflect", "tcp_fwmark_accept"} { // what the host itself answers goes to the network that asked
			if err := p.undo.change("net/ipv4/"+name, "1"); err != nil && !os.IsNotExist(err) {
				return fmt.Errorf("answer into networks with equal addresses: %w", err)
			}
		}
	}
	if six {
		if err := p.undo.change("net/ipv6/fwmark_reflect", "1"); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("answer into networks with equal addresses: %w", err)
		}
		return p.routeSix()
	}
	return nil
}

// routeSix switches on IPv6 routing, and keeps the host's own interfaces listening to router advertisements, which the kernel
// would stop with it.
func (p *Plane) routeSix() error {
	if now, err := readSetting("net/ipv6/conf/all/forwarding"); err != nil || now == "1" {
		return nil //nolint:nilerr // a host without IPv6 has nothing to switch on
	}
	names, err := filepath.Glob(settings + "net/ipv6/conf/*/accept_ra")
	if err != nil {
		return err
	}
	for _, path := range names {
		name := strings.TrimPrefix(path, settings)
		if now, err := readSetting(name); err == nil && now == "1" {
			if err := p.undo.change(name, "2"); err != nil {
				return fmt.Errorf("keep router advertisements: %w", err)
			}
		}
	}
	if err := p.undo.change("net/ipv6/conf/all/forwarding", "1"); err != nil {
		return fmt.Errorf("switch on IPv6 routing: %w", err)
	}
	return nil
}

// outside is the interface that gets floating addresses.
func (p *Plane) outside() (netlink.Link, error) {
	if p.cfg.Outside != "" {
		return netlink.LinkByName(p.cfg.Outside)
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for i := range routes {
		if d := routes[i].Dst; d == nil || d.IP.IsUnspecified() {
			if l, err := netlink.LinkByIndex(routes[i].LinkIndex); err == nil {
				return l, nil
			}
		}
	}
	return netlink.LinkByName("lo")
}

// source is the host's address on the outside interface by which guests are seen there; "" where it has none but floating ones.
func (p *Plane) source(st *network.HostState) (string, error) {
	link, err := p.outside()
	if missing(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return "", fmt.Errorf("list addresses: %w", err)
	}
	floating := floatingPorts(st)
	for i := range addrs {
		text := addrs[i].IP.String()
		if floating[text] == "" && !slices.Contains(p.undo.Floating, link.Attrs().Name+" "+text) && addrs[i].IP.IsGlobalUnicast() {
			return text, nil
		}
	}
	return "", nil
}

// leave takes off the floating addresses that the host has no more. This comes before the firewall changes: without its rules the host would answer for
// them itself, and end the connections of guests that have gone to another host.
func (p *Plane) leave(st *network.HostState) error {
	_, _, keep, err := p.floats(st)
	if err == nil {
		err = p.unfloat(keep)
	}
	if err != nil {
		return &network.PartError{Err: err}
	}
	return nil
}

// floating puts the floating addresses of the host's ports onto its outside interface. Those of a guest that is still on its way here stay where it is.
func (p *Plane) floating(st *network.HostState) error {
	if err := p.float(st); err != nil {
		return &network.PartError{Err: err}
	}
	return nil
}

// floats are the floating addresses that the host shall have, on which interface, and how they are noted.
func (p *Plane) floats(st *network.HostState) (link netlink.Link, want, noted []string, err error) {
	for i := range st.Ports {
		if st.Ports[i].Incoming {
			continue
		}
		for _, f := range st.Ports[i].Floating {
			if a, err := netip.ParseAddr(f.Address); err == nil && a.Is4() {
				want = append(want, f.Address)
			}
		}
	}
	if len(want) == 0 {
		return nil, nil, nil, nil
	}
	if link, err = p.outside(); err != nil {
		return nil, nil, nil, fmt.Errorf("interface for floating addresses: %w", err)
	}
	for _, w := range want {
		noted = append(noted, link.Attrs().Name+" "+w)
	}
	return link, want, noted, nil
}

func (p *Plane) float(st *network.HostState) error {
	link, want, keep, err := p.floats(st)
	if err != nil {
		return err
	}
	for i, entry := range keep {
		a, err := netlink.ParseAddr(want[i] + "/32")
		if err != nil {
			return err
		}
		if !slices.Contains(p.undo.Floating, entry) {
			p.undo.Floating = append(p.undo.Floating, entry)
			if err := p.undo.save(); err != nil {
				return err
			}
		}
		err = netlink.AddrAdd(link, a)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return fmt.Errorf("add floating address %s: %w", want[i], err)
		}
		// It may have been on another host a moment ago, whose MAC the neighbours remember.
		if err := announce(link, netip.MustParseAddr(want[i])); err != nil {
			p.log.Debug("announce a floating address", "address", want[i], "error", err)
		}
	}
	return nil
}

// unfloat takes off the floating addresses that are not to be kept.
func (p *Plane) unfloat(keep []string) error {
	var left []string
	for _, entry := range p.undo.Floating {
		if slices.Contains(keep, entry) {
			left = append(left, entry)
			continue
		}
		name, addr, _ := strings.Cut(entry, " ")
		link, err := netlink.LinkByName(name)
		if err != nil {
			continue // with its interface the address is gone
		}
		a, err := netlink.ParseAddr(addr + "/32")
		if err != nil {
			return err
		}
		if err := netlink.AddrDel(link, a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("take off floating address %s: %w", addr, err)
		}
	}
	if len(left) == len(p.undo.Floating) {
		return nil
	}
	p.undo.Floating = left
	return p.undo.save()
}

// resolvers reads the name servers of a resolv.conf, without those that only the host itself reaches.
func resolvers(path string) []netip.Addr {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for line := range strings.Lines(string(raw)) {
		f := strings.Fields(line)
		if len(f) == 2 && f[0] == "nameserver" {
			if a, err := netip.ParseAddr(f[1]); err == nil && a.Zone() == "" {
				out = append(out, a)
			}
		}
	}
	return out
}
