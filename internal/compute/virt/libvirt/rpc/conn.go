package rpc

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"kilonova/internal/fault"
)

// The protocol's numbers.
const (
	programRemote    = 0x20008086
	programQEMU      = 0x20008087
	programKeepalive = 0x6b656570
	protocolVersion  = 1

	typeCall, typeReply, typeMessage   = 0, 1, 2
	statusOK, statusError, statusContd = 0, 1, 2

	headerLen  = 28       // with the length word
	messageMax = 32 << 20 // the largest message either side may send, as libvirt has it
	writeLimit = 30 * time.Second

	keepalivePing, keepalivePong = 1, 2
	featureKeepalive             = 10
	authNone                     = 0
)

type header struct {
	program, version uint32
	proc             int32
	kind             uint32
	serial           uint32
	status           uint32
}

func (h header) append(b []byte, body []byte) []byte {
	e := encoder{b: b}
	e.u32(uint32(headerLen + len(body)))
	e.put(h.program, h.version, h.proc, h.kind, h.serial, h.status)
	return append(e.b, body...)
}

// readMessage reads one message; it refuses a length that no message has.
func readMessage(r io.Reader) (header, []byte, error) {
	var head [headerLen]byte
	if _, err := io.ReadFull(r, head[:4]); err != nil {
		return header{}, nil, err
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n < headerLen || n > messageMax {
		return header{}, nil, fmt.Errorf("a message of %d bytes is not libvirt's protocol", n)
	}
	if _, err := io.ReadFull(r, head[4:]); err != nil {
		return header{}, nil, err
	}
	d := decoder{b: head[4:]}
	h := header{d.u32(), d.u32(), int32(d.u32()), d.u32(), d.u32(), d.u32()}
	body, err := io.ReadAll(io.LimitReader(r, int64(n-headerLen))) // grows with what arrives, not with what was announced
	if err == nil && len(body) < int(n-headerLen) {
		err = io.ErrUnexpectedEOF
	}
	return h, body, err
}

// conn is one connection to a daemon. It ends once, with a reason, and takes every pending call with it.
type conn struct {
	nc     net.Conn
	onMsg  func(proc int32, body []byte) // events; must not block
	heard  atomic.Int64                  // when the peer was last heard, in nanoseconds of the monotonic clock
	start  time.Time
	writeM sync.Mutex

	mu      sync.Mutex
	serial  uint32
	pending map[uint32]chan reply
	err     error

	done  chan struct{}
	group sync.WaitGroup
}

type reply struct {
	status uint32
	body   []byte
}

// newConn starts to serve nc. interval 0 means no keepalive.
func newConn(nc net.Conn, interval time.Duration, count int, onMsg func(int32, []byte)) *conn {
	c := &conn{nc: nc, onMsg: onMsg, start: time.Now(), pending: map[uint32]chan reply{}, done: make(chan struct{})}
	c.group.Go(c.read)
	if interval > 0 {
		c.group.Go(func() { c.keepalive(interval, count) })
	}
	return c
}

// fail ends the connection with its reason; only the first one counts.
func (c *conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = lost(err)
	clear(c.pending)
	close(c.done)
	c.nc.Close()
}

// close ends the connection and waits for its goroutines.
func (c *conn) close() {
	c.fail(net.ErrClosed)
	c.group.Wait()
}

func (c *conn) dead() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func (c *conn) read() {
	r := bufio.NewReaderSize(c.nc, 16<<10)
	for {
		h, body, err := readMessage(r)
		if err != nil {
			c.fail(fmt.Errorf("read: %w", err))
			return
		}
		c.heard.Store(int64(time.Since(c.start)))
		switch {
		case h.program == programKeepalive && h.proc == keepalivePing:
			// Answered apart: the reader must not wait for a peer that does not read.
			c.group.Go(func() {
				c.send(header{program: programKeepalive, version: protocolVersion, proc: keepalivePong, kind: typeMessage}, nil)
			})
		case h.program == programKeepalive:
		case h.kind == typeReply:
			c.mu.Lock()
			ch := c.pending[h.serial]
			delete(c.pending, h.serial)
			c.mu.Unlock()
			if ch != nil {
				ch <- reply{h.status, body} // has room for the one reply
			}
		case h.kind == typeMessage && h.program == programRemote && c.onMsg != nil:
			c.onMsg(h.proc, body)
		}
	}
}

// keepalive asks a silent peer whether it lives and gives it up when it stays silent.
func (c *conn) keepalive(interval time.Duration, count int) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-c.done:
			return
		case <-tick.C:
		}
		silent := time.Since(c.start) - time.Duration(c.heard.Load())
		if silent > time.Duration(count)*interval {
			c.fail(fmt.Errorf("silent for %s", silent.Round(time.Millisecond)))
			return
		}
		if silent >= interval/2 {
			c.send(header{program: programKeepalive, version: protocolVersion, proc: keepalivePing, kind: typeMessage}, nil)
		}
	}
}

// send writes one message whole or ends the connection.
func (c *conn) send(h header, body []byte) {
	b := h.append(make([]byte, 0, headerLen+len(body)), body)
	c.writeM.Lock()
	defer c.writeM.Unlock()
	c.nc.SetWriteDeadline(time.Now().Add(writeLimit))
	if _, err := c.nc.Write(b); err != nil {
		c.fail(fmt.Errorf("write: %w", err))
	}
}

// call asks procedure p and decodes its result into targets.
func (c *conn) call(ctx context.Context, p proc, args []any, targets []any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var e encoder
	e.put(args...)
	if e.err != nil {
		return fmt.Errorf("libvirt %s: %w", p.name, e.err)
	}
	if len(e.b)+headerLen > messageMax {
		return fault.New(fault.TooLarge, "The request to the hypervisor is too large.")
	}
	ch := make(chan reply, 1)
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return c.err
	}
	c.serial++
	serial := c.serial
	c.pending[serial] = ch
	c.mu.Unlock()

	c.send(header{p.program(), protocolVersion, p.number, typeCall, serial, statusOK}, e.b)
	var r reply
	select {
	case r = <-ch:
	case <-c.done:
		select {
		case r = <-ch: // it had arrived before the end
		default:
			return c.err
		}
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.pending, serial)
		c.mu.Unlock()
		return fmt.Errorf("libvirt %s: %w", p.name, ctx.Err())
	}
	if r.status == statusError {
		return decodeError(r.body, p.name)
	}
	d := decoder{b: r.body}
	if err := d.get(targets...); err != nil {
		return fmt.Errorf("libvirt %s: %w", p.name, err)
	}
	return nil
}

// open authenticates and opens the hypervisor uri.
func (c *conn) open(ctx context.Context, uri string) error {
	var types []int32
	err := c.call(ctx, procAuthList, nil, []any{func(d *decoder) {
		types = list(d, 4, func() int32 { return int32(d.u32()) })
	}})
	if err != nil {
		return err
	}
	if len(types) > 0 && !slices.Contains(types, authNone) {
		return fault.Wrap(fmt.Errorf("authentication types %v", types), fault.Forbidden, "The hypervisor's daemon asks for authentication (SASL or polkit).").
			WithHint("Run the agent as root beside libvirtd, or set auth_unix_rw = \"none\" in libvirtd.conf.")
	}
	var supported int32
	if err := c.call(ctx, procConnectSupportsFeature, []any{int32(featureKeepalive)}, []any{&supported}); err != nil && fault.KindOf(err) == fault.Unavailable {
		return err
	}
	return c.call(ctx, procConnectOpen, []any{opt(uri), uint32(0)}, nil)
}

// bye tells the daemon that the client goes; a daemon that does not answer within the limit is left alone.
func (c *conn) bye(limit time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := c.call(ctx, procConnectClose, nil, nil); err != nil && !errors.Is(err, fault.Unavailable) {
		c.fail(err)
	}
	c.close()
}
