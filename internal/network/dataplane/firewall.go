package dataplane

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"kilonova/internal/network"
)

const nftTimeout = 30 * time.Second

// nft runs the nft program with a ruleset on its input.
func nft(ctx context.Context, input string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, nftTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, systemProgram("nft"), args...)
	cmd.Stdin = strings.NewReader(input)
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		text, _, _ := strings.Cut(strings.TrimSpace(problem.String()), "\n")
		return "", fmt.Errorf("nft %s: %w: %s", strings.Join(args, " "), err, text)
	}
	return out.String(), nil
}

// systemProgram finds a program of the system's administration also where a user's PATH, as su keeps it, does not lead.
func systemProgram(name string) string {
	if _, err := exec.LookPath(name); err == nil {
		return name
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	return name
}

// firewall puts the ruleset of a state in force, unless it is already.
func (p *Plane) firewall(ctx context.Context, st *network.HostState) error {
	uplinks := p.uplinks(st)
	strangers, err := p.strangers(st, uplinks)
	if err != nil {
		return err
	}
	source, err := p.source(st)
	if err != nil {
		return err
	}
	text := ruleset(st, ruleOptions{Table: p.table, Uplinks: uplinks, Strangers: strangers, Marks: p.marks(), Source: source, HostPorts: p.cfg.HostPorts, Tunnelled: p.tunnelled,
		MAC: func(n *network.HostNetwork) string { return p.bridgeMAC(n).String() }, HostMAC: func(bridge string) string { return p.hostMAC(bridge).String() }})
	if text == p.rules {
		tables, err := nft(ctx, "", "list", "tables")
		if err != nil {
			return fmt.Errorf("look at the firewall: %w", err)
		}
		if strings.Contains(tables, "table inet "+p.table+"\n") && strings.Contains(tables, "table bridge "+p.table+"\n") {
			return nil
		}
	}
	if _, err := nft(ctx, text, "-f", "-"); err != nil {
		return fmt.Errorf("put the firewall in force: %w", err)
	}
	p.rules = text
	return nil
}

// strangers are the interfaces on our bridges that the state does not know.
func (p *Plane) strangers(st *network.HostState, uplinks []string) ([]string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	mine, known := map[int]bool{}, map[string]bool{}
	for _, l := range links {
		mine[l.Attrs().Index] = l.Type() == "bridge" && l.Attrs().Alias == p.alias()
	}
	for i := range st.Ports {
		known[st.Ports[i].Tap] = true
	}
	for i := range st.Networks {
		known[tunnelName(st.Networks[i].Bridge)] = true
	}
	var out []string
	for _, l := range links {
		if a := l.Attrs(); mine[a.MasterIndex] && !known[a.Name] && !slices.Contains(uplinks, a.Name) {
			out = append(out, a.Name)
		}
	}
	slices.Sort(out)
	return out, nil
}

func (p *Plane) clearFirewall() error {
	p.rules = ""
	if _, err := nft(context.Background(), removal(p.table), "-f", "-"); err != nil {
		return fmt.Errorf("remove the firewall: %w", err)
	}
	return nil
}

// forget drops tracked connections of addresses that changed hands or whose rules became fewer: what was let through before must
// pass the rules of now. A connection that is still allowed is taken up again with its next packet.
func (p *Plane) forget(st *network.HostState) {
	if p.applied == nil {
		return
	}
	old, now := permissions(p.applied), permissions(st)
	var addrs []touched
	for at, lines := range old {
		slot, there := p.undo.Slots[at.network]
		if !there { // what belonged to it is forgotten already
			continue
		}
		for l := range lines {
			if !now[at][l] {
				addrs = append(addrs, touched{net.IP(netip.MustParseAddr(at.addr).AsSlice()), slot})
				break
			}
		}
	}
	// What went to a floating address while another host, or another port, had it was not translated as it is now.
	before, after := floatingPorts(p.applied), floatingPorts(st)
	for _, list := range []map[string]string{before, after} {
		for addr := range list {
			if a, err := netip.ParseAddr(addr); err == nil && before[addr] != after[addr] {
				addrs = append(addrs, touched{ip: net.IP(a.AsSlice())})
			}
		}
	}
	for _, f := range []netlink.InetFamily{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		match := &touching{addrs: addrs, six: f == netlink.FAMILY_V6, marks: p.marks()}
		if !match.any() {
			continue
		}
		if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, f, match); err != nil {
			p.log.Warn("forget connections of changed ports", "error", err)
		}
	}
}

// floatingPorts gives the port behind each floating address.
func floatingPorts(st *network.HostState) map[string]string {
	out := map[string]string{}
	for i := range st.Ports {
		for _, f := range st.Ports[i].Floating {
			out[f.Address] = st.Ports[i].ID
		}
	}
	return out
}

// touched is an address in the network of a number; 0 is everywhere.
type touched struct {
	ip   net.IP
	slot int
}

// touching selects the tracked connections of some addresses, and of whole networks.
type touching struct {
	addrs []touched
	six   bool
	slots map[int]bool
	marks marks
}

func (t *touching) any() bool {
	return slices.ContainsFunc(t.addrs, func(a touched) bool { return (a.ip.To4() == nil) == t.six })
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (t *touching) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	ours := flow.Mark>>24 == t.marks.sign
	from, to := int(flow.Mark&slotMask), int(flow.Mark>>slotBits&slotMask)
	if ours && (t.slots[from] || t.slots[to]) {
		return true
	}
	for _, a := range t.addrs {
		if a.slot != 0 && ours && a.slot != from && a.slot != to {
			continue
		}
		if flow.Forward.SrcIP.Equal(a.ip) || flow.Forward.DstIP.Equal(a.ip) || flow.Reverse.SrcIP.Equal(a.ip) || flow.Reverse.DstIP.Equal(a.ip) {
			return true
		}
	}
	return false
}

// place is an address in a network.
type place struct{ network, addr string }

// permissions gives, for each address of the host's ports, what is permitted to or from it, one line each.
func permissions(st *network.HostState) map[place]map[string]bool {
	groups := map[string][]string{}
	for i := range st.Groups {
		g := &st.Groups[i]
		for _, r := range g.Rules {
			m, ok := match(&r)
			if !ok {
				continue
			}
			line := r.Direction + " " + m
			if r.RemoteGroup == "" {
				groups[g.ID] = append(groups[g.ID], line)
				continue
			}
			for k := range st.Groups {
				if st.Groups[k].ID == r.RemoteGroup {
					for _, member := range st.Groups[k].Members {
						groups[g.ID] = append(groups[g.ID], line+" "+member)
					}
				}
			}
		}
	}
	out := map[place]map[string]bool{}
	for i := range st.Ports {
		p := &st.Ports[i]
		lines := map[string]bool{"port " + p.ID: true}
		if !p.Down {
			lines["up"] = true
		}
		for _, g := range p.Groups {
			for _, l := range groups[g] {
				lines[l] = true
			}
		}
		for _, f := range p.Floating {
			lines["floating "+f.Address] = true // also of a port that is on its way here: its connections come along
		}
		for _, a := range p.Addresses {
			if _, err := netip.ParseAddr(a); err == nil {
				out[place{p.NetworkID, a}] = lines
			}
		}
	}
	return out
}
