package rpc

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"kilonova/internal/fault"
)

// Options tell where the daemon is.
type Options struct {
	Network, Address string        // unix and a socket's path (default /run/libvirt/libvirt-sock), or tcp and host:port
	URI              string        // default qemu:///system
	Keepalive        time.Duration // between questions to a silent daemon; default 5 s, negative: off
	KeepaliveCount   int           // silent intervals until the daemon counts as dead; default 6
	Backlog          int           // events kept for a subscriber that does not read; default 4096
}

// lane is a class of calls. libvirtd serves only a few calls of one connection at a time (max_client_requests, 5 as delivered) and stops reading,
// keepalive included, while that many run. So no connection carries more than perConn, and calls that last have connections of their own.
type lane int

const (
	quick lane = iota // answered at once
	slow              // may last: migration, saving memory, the guest agent
	lanes
)

var perConn = [lanes]int{quick: 4, slow: 2}
var maxConns = [lanes]int{quick: 4, slow: 16}

// Client is a connection to one daemon that mends itself. Its methods may be called at any time from any goroutine.
type Client struct {
	o Options

	mu     sync.Mutex
	pools  [lanes]pool
	closed bool
	subs   map[*Subscription]struct{}
	watch  bool // the event loop runs

	ctx   context.Context // ends with Close
	stop  context.CancelFunc
	group sync.WaitGroup
}

// pool is the connections of a lane.
type pool struct {
	conns map[*conn]int // calls under way on each
	room  chan struct{} // one token for each call that may run
}

// Open connects to the daemon; it fails when the daemon cannot be reached now.
func Open(ctx context.Context, o Options) (*Client, error) {
	if o.Network == "" {
		o.Network = "unix"
	}
	if o.Address == "" && o.Network == "unix" {
		o.Address = "/run/libvirt/libvirt-sock"
	}
	if o.URI == "" {
		o.URI = "qemu:///system"
	}
	if o.Keepalive == 0 {
		o.Keepalive = 5 * time.Second
	}
	if o.KeepaliveCount <= 0 {
		o.KeepaliveCount = 6
	}
	if o.Backlog <= 0 {
		o.Backlog = 4096
	}
	c := &Client{o: o, subs: map[*Subscription]struct{}{}}
	c.ctx, c.stop = context.WithCancel(context.Background())
	for l := range c.pools {
		c.pools[l] = pool{conns: map[*conn]int{}, room: make(chan struct{}, perConn[l]*maxConns[l])}
	}
	cn, err := c.dial(ctx, nil)
	if err != nil {
		c.stop()
		return nil, err
	}
	c.pools[quick].conns[cn] = 0
	return c, nil
}

// dial makes a new connection.
func (c *Client) dial(ctx context.Context, onMsg func(int32, []byte)) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	var d net.Dialer
	nc, err := d.DialContext(ctx, c.o.Network, c.o.Address)
	if err != nil {
		return nil, lost(err)
	}
	cn := newConn(nc, max(0, c.o.Keepalive), c.o.KeepaliveCount, onMsg)
	if err := cn.open(ctx, c.o.URI); err != nil {
		cn.close()
		return nil, fmt.Errorf("open %s: %w", c.o.URI, err)
	}
	return cn, nil
}

// Close ends all connections and subscriptions. Guests run on.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	var all []*conn
	for l := range c.pools {
		for cn := range c.pools[l].conns {
			all = append(all, cn)
		}
	}
	for s := range c.subs {
		s.end(lost(net.ErrClosed))
	}
	c.mu.Unlock()
	c.stop()
	for _, cn := range all {
		c.group.Go(func() { cn.bye(time.Second) })
	}
	c.group.Wait()
	return nil
}

// take gives a connection with room in lane l, dialling when all are full or dead.
func (c *Client) take(ctx context.Context, l lane) (*conn, error) {
	p := &c.pools[l]
	select {
	case p.room <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("too many calls to the hypervisor are under way: %w", ctx.Err())
	case <-c.ctx.Done():
		return nil, lost(net.ErrClosed)
	}
	c.mu.Lock()
	var best *conn
	for cn, n := range p.conns {
		if cn.dead() {
			delete(p.conns, cn)
		} else if n < perConn[l] && (best == nil || n < p.conns[best]) {
			best = cn
		}
	}
	if best != nil {
		p.conns[best]++
		c.mu.Unlock()
		return best, nil
	}
	c.mu.Unlock()
	cn, err := c.dial(ctx, nil)
	if err == nil {
		c.mu.Lock()
		if c.closed {
			err = lost(net.ErrClosed)
		} else {
			p.conns[cn] = 1
		}
		c.mu.Unlock()
		if err != nil {
			cn.close()
		}
	}
	if err != nil {
		<-p.room
		return nil, err
	}
	return cn, nil
}

func (c *Client) give(l lane, cn *conn) {
	p := &c.pools[l]
	c.mu.Lock()
	if n, ok := p.conns[cn]; ok {
		p.conns[cn] = n - 1
	}
	c.mu.Unlock()
	<-p.room
}

// call runs one procedure on a connection of its lane.
func (c *Client) call(ctx context.Context, p proc, args []any, targets ...any) error {
	cn, err := c.take(ctx, p.lane)
	if err != nil {
		return fmt.Errorf("libvirt %s: %w", p.name, err)
	}
	defer c.give(p.lane, cn)
	return cn.call(ctx, p, args, targets)
}

// Ping asks the daemon for its version: fault.Unavailable when it does not answer.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.LibVersion(ctx)
	if err != nil && fault.KindOf(err) != fault.Unavailable {
		return lost(err)
	}
	return err
}
