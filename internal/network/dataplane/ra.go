package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	raEvery    = 200 * time.Second      // between unsolicited advertisements (RFC 4861: at most 600)
	raAgain    = 500 * time.Millisecond // after one that could not be sent
	raLifetime = 1800                   // seconds that guests trust the router
	typeRS     = 133
	typeRA     = 134
)

// serveRA advertises the host as IPv6 router on a bridge, to whoever asks and from time to time.
func (p *Plane) serveRA(bridge string, c *current) (func() error, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMPV6)
	if err != nil {
		return nil, nil //nolint:nilerr // the host has no IPv6
	}
	f := os.NewFile(uintptr(fd), "router advertisements")
	if err := raSocket(fd, bridge, c.link); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("router advertisements on %s: %w", bridge, err)
	}
	packets, err := net.FilePacketConn(f)
	_ = f.Close()
	if err != nil {
		return nil, fmt.Errorf("router advertisements on %s: %w", bridge, err)
	}
	conn := packets.(*net.IPConn) //nolint:forcetypeassert // what a raw socket makes
	all := &net.IPAddr{IP: net.IPv6linklocalallnodes, Zone: bridge}
	// A router is known by the address that it speaks from: the one that is made from the gateway's MAC, which every host has, and not the metadata's. The kernel
	// refuses it for a second or two while it makes sure that nobody else has it.
	info := unix.Inet6Pktinfo{Ifindex: uint32(c.link)} //nolint:gosec // interface indexes are small
	copy(info.Addr[:], net.ParseIP(linkLocal(c.mac.String())))
	from := unix.PktInfo6(&info)
	var again func(tries int)
	again = func(tries int) {
		m := advertisement(c.view.Load(), c.mac)
		if m == nil {
			return
		}
		_, _, err := conn.WriteMsgIP(m, from, all)
		if err == nil || errors.Is(err, net.ErrClosed) {
			return
		}
		p.log.Debug("send a router advertisement", "bridge", bridge, "error", err) // no guest is up yet, or the address is new
		if tries > 0 {
			time.AfterFunc(raAgain, func() { again(tries - 1) })
		}
	}
	send := func() { again(10) }
	c.news.Store(&send)
	stop := make(chan struct{})
	go func() {
		t := time.NewTicker(raEvery)
		defer t.Stop()
		for {
			select {
			case <-stop:
				return
			case <-t.C:
				send()
			}
		}
	}()
	go func() {
		buf := make([]byte, 1500)
		for {
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if n >= 8 && buf[0] == typeRS {
				send()
			}
		}
	}()
	send()
	return func() error {
		c.news.Store(nil)
		close(stop)
		return conn.Close()
	}, nil
}

func raSocket(fd int, bridge string, link int) error {
	if err := unix.BindToDevice(fd, bridge); err != nil {
		return err
	}
	for _, o := range []struct{ opt, value int }{{unix.IPV6_MULTICAST_HOPS, 255}, {unix.IPV6_UNICAST_HOPS, 255}, {unix.IPV6_MULTICAST_LOOP, 0}, {unix.IPV6_MULTICAST_IF, link}} {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, o.opt, o.value); err != nil {
			return err
		}
	}
	allRouters := &unix.IPv6Mreq{Multiaddr: [16]byte(net.IPv6linklocalallrouters), Interface: uint32(link)} //nolint:gosec // interface indexes are small
	return unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, allRouters)
}

// advertisement is the router advertisement of a network (RFC 4861), nil when no subnet of it asks for one. The kernel fills in
// the checksum.
func advertisement(v *view, mac net.HardwareAddr) []byte {
	if v == nil {
		return nil
	}
	var flags byte
	var lifetime uint16
	var options []byte
	for i := range v.net.Subnets {
		s := &v.net.Subnets[i]
		if s.Version != 6 || !s.DHCP || s.IPv6RAMode == "" {
			continue
		}
		p, err := netip.ParsePrefix(s.CIDR)
		if err != nil {
			continue
		}
		on := byte(0x80) // on this link
		switch s.IPv6RAMode {
		case "dhcpv6-stateful":
			flags |= 0xc0 // addresses and the rest by DHCPv6
		case "dhcpv6-stateless":
			flags |= 0x40
			on |= 0x40 // guests make their own address
		case "slaac":
			on |= 0x40
		}
		if v.net.Gateway && s.Gateway != "" {
			lifetime = raLifetime
		}
		o := append([]byte{3, 4, byte(p.Bits()), on}, make([]byte, 12)...)
		binary.BigEndian.PutUint32(o[4:], 86400)
		binary.BigEndian.PutUint32(o[8:], 14400)
		a := p.Masked().Addr().As16()
		options = append(append(options, o...), a[:]...)
		if dns := nameServers(s, 6); len(dns) > 0 {
			o := append([]byte{25, byte(1 + 2*len(dns)), 0, 0}, make([]byte, 4)...)
			binary.BigEndian.PutUint32(o[4:], raLifetime)
			for _, d := range dns {
				o = append(o, d.To16()...)
			}
			options = append(options, o...)
		}
	}
	if options == nil {
		return nil
	}
	out := []byte{typeRA, 0, 0, 0, 64, flags, byte(lifetime >> 8), byte(lifetime), 0, 0, 0, 0, 0, 0, 0, 0}
	out = append(append(out, 1, 1), mac...)
	if v.net.MTU >= 1280 {
		out = append(out, 5, 1, 0, 0)
		out = binary.BigEndian.AppendUint32(out, uint32(v.net.MTU)) //nolint:gosec // at most 65535
	}
	return append(out, options...)
}
