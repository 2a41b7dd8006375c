package dataplane

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"kilonova/internal/network"
)

// current is what the servers of one network answer from. They read it without locks while Apply replaces it.
type current struct {
	plane *Plane
	link  int // index of the bridge
	mac   net.HardwareAddr
	view  atomic.Pointer[view]
	news  atomic.Pointer[func()] // called after a change
}

// view is one network as its servers see it.
type view struct {
	net     *network.HostNetwork
	subnets map[string]*network.Subnet
	leases  map[string][]network.Lease // by MAC: only ports of this host, others are answered where they are
	ports   map[netip.Addr]*network.HostPort
	macs    map[string]*network.HostPort
	names   map[string][]netip.Addr // host name in lower case -> addresses of ports on any host
	reverse map[netip.Addr]string
}

func (c *current) set(st *network.HostState, n *network.HostNetwork) {
	v := &view{net: n, subnets: map[string]*network.Subnet{}, leases: map[string][]network.Lease{}, ports: map[netip.Addr]*network.HostPort{}, macs: map[string]*network.HostPort{},
		names: map[string][]netip.Addr{}, reverse: map[netip.Addr]string{}}
	for i := range n.Subnets {
		v.subnets[n.Subnets[i].ID] = &n.Subnets[i]
	}
	here := map[string]bool{}
	for i := range st.Ports {
		p := &st.Ports[i]
		if p.NetworkID != n.ID {
			continue
		}
		here[strings.ToLower(p.MAC)] = true
		v.macs[strings.ToLower(p.MAC)] = p
		for _, text := range p.Addresses {
			if a, err := netip.ParseAddr(text); err == nil {
				v.ports[a] = p
			}
		}
	}
	for _, l := range n.Leases {
		if mac := strings.ToLower(l.MAC); here[mac] {
			v.leases[mac] = append(v.leases[mac], l)
		}
		if a, err := netip.ParseAddr(l.Address); err == nil && l.Hostname != "" {
			name := strings.ToLower(l.Hostname)
			v.names[name] = append(v.names[name], a)
			v.reverse[a] = name
		}
	}
	c.view.Store(v)
	if f := c.news.Load(); f != nil {
		(*f)()
	}
}

// onDevice binds a socket to the bridge, so that networks with the same addresses stay apart.
func onDevice(bridge string) net.ListenConfig {
	return net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if e := raw.Control(func(fd uintptr) {
			err = errors.Join(unix.BindToDevice(int(fd), bridge), unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
		}); e != nil {
			return e
		}
		return err
	}}
}

// background is the context of servers, which end when their sockets are closed.
func background() context.Context { return context.Background() }
