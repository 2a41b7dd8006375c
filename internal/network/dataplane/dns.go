package dataplane

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

const (
	typeA, typePTR, typeAAAA = 1, 12, 28
	failed, noName           = 2, 3 // response codes
	dnsTTL                   = 60
	dnsWait                  = 4 * time.Second
	dnsParallel              = 64 // questions that wait for the outside, per network; more are dropped and asked again
)

// serveDNS answers at 169.254.169.254: names of the network's ports itself, everything else by asking the host's name servers.
func (p *Plane) serveDNS(bridge string, c *current) (func() error, error) {
	lc := onDevice(bridge)
	conn, err := lc.ListenPacket(background(), "udp4", metadataAddress+":53")
	if err != nil {
		return nil, fmt.Errorf("listen for DNS on %s: %w", bridge, err)
	}
	ctx, cancel := context.WithCancel(background())
	go p.answerDNS(ctx, conn, c)
	return func() error {
		cancel()
		return conn.Close()
	}, nil
}

func (p *Plane) answerDNS(ctx context.Context, conn net.PacketConn, c *current) {
	buf := make([]byte, 4096)
	slots := make(chan struct{}, dnsParallel)
	for {
		n, peer, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		v := c.view.Load()
		if v == nil {
			continue
		}
		q, ok := parseQuestion(buf[:n])
		if !ok {
			continue
		}
		if r := v.answer(q); r != nil {
			_, _ = conn.WriteTo(r, peer) // a lost answer is asked for again
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			continue
		}
		msg := append([]byte(nil), buf[:n]...)
		go func() {
			defer func() { <-slots }()
			r := forward(ctx, msg, p.cfg.DNS)
			if q, ok := parseQuestion(msg); ok && r == nil {
				r = reply(q, nil, failed) // so that the guest need not wait
			}
			_, _ = conn.WriteTo(r, peer)
		}()
	}
}

// forward asks name servers in turn; nil when none answers.
func forward(ctx context.Context, msg []byte, servers []netip.Addr) []byte {
	for _, s := range servers {
		d := net.Dialer{Timeout: dnsWait}
		conn, err := d.DialContext(ctx, "udp", netip.AddrPortFrom(s, 53).String())
		if err != nil {
			continue
		}
		r := ask(conn, msg)
		_ = conn.Close()
		if r != nil {
			return r
		}
	}
	return nil
}

func ask(conn net.Conn, msg []byte) []byte {
	if err := conn.SetDeadline(time.Now().Add(dnsWait)); err != nil {
		return nil
	}
	if _, err := conn.Write(msg); err != nil {
		return nil
	}
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil || n < 12 || buf[0] != msg[0] || buf[1] != msg[1] {
		return nil
	}
	return buf[:n]
}

// question is the one question of a DNS message.
type question struct {
	raw   []byte // header and question
	name  string // lower case, without the last dot
	kind  uint16
	class uint16
}

// parseQuestion reads a standard query with one question (RFC 1035).
func parseQuestion(msg []byte) (question, bool) {
	var q question
	if len(msg) < 12 || msg[2]&0xf8 != 0 || binary.BigEndian.Uint16(msg[4:]) != 1 {
		return q, false
	}
	var labels []string
	i := 12
	for {
		if i >= len(msg) {
			return q, false
		}
		n := int(msg[i])
		i++
		if n == 0 {
			break
		}
		if n > 63 || i+n > len(msg) || i > 267 {
			return q, false
		}
		labels = append(labels, string(msg[i:i+n]))
		i += n
	}
	if i+4 > len(msg) {
		return q, false
	}
	q.name = strings.ToLower(strings.Join(labels, "."))
	q.kind, q.class = binary.BigEndian.Uint16(msg[i:]), binary.BigEndian.Uint16(msg[i+2:])
	q.raw = msg[:i+4]
	return q, true
}

// answer gives the answer to a question about the network's own names; nil for others.
func (v *view) answer(q question) []byte {
	if q.class != 1 {
		return nil
	}
	if q.kind == typePTR {
		if a, ok := reverseName(q.name); ok && v.reverse[a] != "" {
			return reply(q, [][]byte{dnsName(v.reverse[a] + "." + v.net.Domain)}, 0)
		}
		return nil
	}
	host, inDomain := strings.CutSuffix(q.name, "."+strings.ToLower(v.net.Domain))
	if !inDomain && strings.Contains(q.name, ".") {
		return nil
	}
	addrs, known := v.names[host]
	if !known {
		if inDomain {
			return reply(q, nil, noName)
		}
		return nil
	}
	var data [][]byte
	for _, a := range addrs {
		if q.kind == typeA && a.Is4() || q.kind == typeAAAA && a.Is6() {
			data = append(data, a.AsSlice())
		}
	}
	return reply(q, data, 0)
}

// reply writes an authoritative answer with records of the question's type.
func reply(q question, data [][]byte, code byte) []byte {
	out := append([]byte(nil), q.raw...)
	out[2], out[3] = 0x84|q.raw[2]&1, 0x80|code
	binary.BigEndian.PutUint16(out[6:], uint16(len(data))) //nolint:gosec // a handful
	binary.BigEndian.PutUint16(out[8:], 0)
	binary.BigEndian.PutUint16(out[10:], 0)
	for _, d := range data {
		out = append(out, 0xc0, 12) // the name of the question
		out = binary.BigEndian.AppendUint16(out, q.kind)
		out = binary.BigEndian.AppendUint16(out, 1)
		out = binary.BigEndian.AppendUint32(out, dnsTTL)
		out = binary.BigEndian.AppendUint16(out, uint16(len(d))) //nolint:gosec // at most 255
		out = append(out, d...)
	}
	return out
}

func dnsName(name string) []byte {
	var out []byte
	for label := range strings.SplitSeq(name, ".") {
		if label != "" && len(label) < 64 {
			out = append(append(out, byte(len(label))), label...)
		}
	}
	return append(out, 0)
}

// reverseName reads an address out of its name under in-addr.arpa or ip6.arpa.
func reverseName(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		p := strings.Split(rest, ".")
		if len(p) != 4 {
			return netip.Addr{}, false
		}
		var b [4]byte
		for i, s := range p {
			n, err := strconv.ParseUint(s, 10, 8)
			if err != nil {
				return netip.Addr{}, false
			}
			b[3-i] = byte(n)
		}
		return netip.AddrFrom4(b), true
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(rest) != 63 {
		return netip.Addr{}, false
	}
	var digits []byte
	for i := len(rest) - 1; i >= 0; i -= 2 {
		digits = append(digits, rest[i])
	}
	b, err := hex.DecodeString(string(digits))
	if err != nil {
		return netip.Addr{}, false
	}
	return netip.AddrFromSlice(b)
}
