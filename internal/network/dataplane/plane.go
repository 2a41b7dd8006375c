// Package dataplane makes a Linux host's network what the network service says: a bridge for each network, anti-spoofing and
// security groups for each port, DHCP, router advertisements, the metadata address, routing and address translation.
//
// It is the flat kind of network that nova-network had. The host itself has each subnet's gateway address and 169.254.169.254
// on the network's bridge, answers DHCP there with the one address that belongs to the asking MAC, hides guests behind its own
// address when they go outside, and stands for floating addresses. The whole firewall is one ruleset, replaced in one
// transaction, so there is no moment without it.
//
// What it promises: Apply looks before it acts, may be called at any time with the same or a new state, and removes what is no
// longer wanted. Everything carries a mark of ours (interface alias, table name, a file of changed settings), and nothing without
// that mark is ever removed. Close without teardown leaves running guests their network; the next Plane takes over where this one
// stopped. Close with teardown leaves nothing behind. It must run with CAP_NET_ADMIN in the network namespace that it shall manage.
//
// Networks with a VXLAN identifier reach other hosts through tunnels (see tunnel.go). Each host is gateway, DHCP server and metadata service for its own
// guests, with one address and one MAC everywhere, so a guest that moves finds them again; none of that crosses a tunnel.
//
// Networks may have the same addresses and are wholly apart, also in what connection tracking knows (see zones.go); their guests reach each other by
// floating addresses.
//
// What it does not do: reach, from the host itself, a guest of another host under the gateway's address, or one of two networks that have the same
// addresses under its own; carry through a router what goes to a guest whose address is that of another network's gateway on the same host.
package dataplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"kilonova/internal/network"
)

// Config says how a host's data plane works.
type Config struct {
	Tag      string            // tells several data planes of one host apart: letters and digits; "": main
	StateDir string            // keeps what must be undone at teardown, is made when missing; "": remembered only while the process lives
	Physical map[string]string // physical network -> interface that joins its bridge
	Tunnel   netip.Addr        // the host's address at which tunnels of networks end; not valid: networks do not leave the host
	// Metadata answers what guests ask at http://169.254.169.254. Requests carry X-Instance-ID, X-Tenant-ID, X-Neutron-Network-ID and
	// X-Forwarded-For (the guest's address), set here whatever the guest sent. nil: nobody listens there.
	Metadata  http.Handler
	Outside   string        // interface that gets floating addresses; "": that of the default route, or lo
	HostPorts []int         // TCP ports of the host that guests may reach besides DNS and metadata
	DNS       []netip.Addr  // name servers for subnets that name none; empty: those of /etc/resolv.conf
	Lease     time.Duration // of DHCP answers; 0: one day
	Log       *slog.Logger
}

// Plane is a host's data plane.
type Plane struct {
	cfg   Config
	table string
	log   *slog.Logger

	mu      sync.Mutex
	rules   string // the ruleset in force, as far as this process knows
	applied *network.HostState
	served  map[string]*served // by bridge
	closed  bool
	undo    *undo
}

// served is what answers guests of one network.
type served struct {
	net     *current
	closers []func() error
}

// New prepares a data plane; nothing is changed on the host before the first Apply.
func New(cfg Config) (*Plane, error) {
	if cfg.Tag == "" {
		cfg.Tag = "main"
	}
	for _, c := range cfg.Tag {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return nil, fmt.Errorf("data plane tag %q: only letters and digits are allowed", cfg.Tag)
		}
	}
	if cfg.Lease == 0 {
		cfg.Lease = 24 * time.Hour
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if len(cfg.DNS) == 0 {
		cfg.DNS = resolvers("/etc/resolv.conf")
	}
	u, err := loadUndo(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	return &Plane{cfg: cfg, table: "kilonova_" + cfg.Tag, log: cfg.Log, served: map[string]*served{}, undo: u}, nil
}

// Apply makes the host what the state says. It goes as far as it can and gives all errors together; the firewall comes before
// anything that lets packets pass.
func (p *Plane) Apply(ctx context.Context, st *network.HostState) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errors.New("the data plane is closed")
	}
	if len(st.Networks) > 0 {
		if err := p.prepareHost(st); err != nil {
			return err
		}
	}
	if err := p.number(st); err != nil {
		return err
	}
	errs := []error{p.leave(st)}
	if err := p.firewall(ctx, st); err != nil {
		return errors.Join(append(errs, err)...)
	}
	wanted := map[string]bool{}
	for i := range st.Networks {
		n := &st.Networks[i]
		wanted[n.Bridge] = true
		if err := p.network(st, n); err != nil {
			errs = append(errs, &network.PartError{NetworkID: n.ID, Err: err})
		}
	}
	errs = append(errs, p.attach(st), p.dropBridges(wanted), p.route(st), p.floating(st))
	p.forget(st)
	p.applied = st
	return errors.Join(errs...)
}

// network makes one bridge and what answers on it.
func (p *Plane) network(st *network.HostState, n *network.HostNetwork) error {
	link, err := p.ensureBridge(n)
	if err != nil {
		return err
	}
	s := p.served[n.Bridge]
	if s != nil && !bytes.Equal(s.net.mac, link.Attrs().HardwareAddr) { // its servers say the former one
		s.stop()
		delete(p.served, n.Bridge)
		s = nil
	}
	if s == nil {
		s = &served{net: &current{plane: p, link: link.Attrs().Index, mac: link.Attrs().HardwareAddr}}
	}
	s.net.set(st, n)
	if p.served[n.Bridge] != nil && s.net.link == link.Attrs().Index {
		return nil
	}
	s.net.link = link.Attrs().Index
	return p.serve(s, n.Bridge)
}

// serve starts the servers of a network. When one cannot start, those that did are stopped and the next Apply tries again.
func (p *Plane) serve(s *served, bridge string) error {
	s.stop()
	for _, start := range []func(bridge string, c *current) (func() error, error){p.serveDHCP4, p.serveDHCP6, p.serveRA, p.serveDNS, p.serveMetadata, p.serveMetadataSix} {
		stop, err := start(bridge, s.net)
		if err != nil {
			s.stop()
			return err
		}
		if stop != nil {
			s.closers = append(s.closers, stop)
		}
	}
	p.served[bridge] = s
	return nil
}

func (s *served) stop() {
	for _, c := range slices.Backward(s.closers) {
		_ = c() // a listener that is gone already is what is wanted
	}
	s.closers = nil
}

// Wired tells for each port of the last state whether its device is on its bridge and up: what the agent reports as ACTIVE or DOWN.
func (p *Plane) Wired() (map[string]bool, error) {
	p.mu.Lock()
	st := p.applied
	p.mu.Unlock()
	out := map[string]bool{}
	if st == nil {
		return out, nil
	}
	bridges, err := p.taps()
	if err != nil {
		return nil, err
	}
	for i := range st.Ports {
		port := &st.Ports[i]
		out[port.ID] = !port.Down && bridges[port.Tap] == network.BridgeName(port.NetworkID)
	}
	return out, nil
}

// Close stops the servers. With teardown it also removes bridges, taps, rules, addresses and settings; without, running guests
// keep their network and the next Plane answers them again.
func (p *Plane) Close(teardown bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		for _, s := range p.served {
			s.stop()
		}
		p.served, p.closed = map[string]*served{}, true
	}
	if !teardown {
		return nil
	}
	// Links first: while the firewall stands, nothing passes that should not.
	return errors.Join(p.dropAll(), p.dropRules(nil), p.unfloat(nil), p.clearFirewall(), p.undo.restore())
}
