// Package handover carries one small file from the source of a live migration to its destination: libvirt copies no disks that are only read, such as
// the config drive.
package handover

import (
	"bufio"
	"context"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"kilonova/internal/compute/virt/libvirt/disk"
	"kilonova/internal/fault"
	"kilonova/internal/id"
)

// A destination of a live migration offers to take one small file: it listens on a port of its own until the file came or the offer is over.
// The sender says a token, the length in eight bytes, and the file; the taker answers "ok". Like the guest's memory, which takes the same
// way, it is not encrypted: the migration network is to be trusted.
const (
	offerLimit = 15 * time.Minute
	sizeMax    = 256 << 20
	tokenLen   = 64
)

// Offers are the offers of this process.
type Offers struct {
	mu     sync.Mutex
	offers map[string]*offer // by guest
	closed bool
	group  sync.WaitGroup
}

type offer struct {
	l     net.Listener
	token string
	path  string

	mu     sync.Mutex
	conn   net.Conn // the sender that is being heard
	closed bool
}

// end closes the offer and breaks off a sender.
func (o *offer) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.l.Close()
	if o.conn != nil {
		o.conn.Close()
	}
}

// hear notes who is being heard; false when the offer has ended.
func (o *offer) hear(c net.Conn) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.conn = c
	return !o.closed
}

// Open opens a port for the file that is to become path. An earlier offer for the guest ends.
func (u *Offers) Open(host, guest, path string) (address, token string, err error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", "", fault.Wrap(err, fault.Unavailable, "The host cannot take the server's config drive on %s.", host)
	}
	o := &offer{l: l, token: id.Secret(tokenLen / 2), path: path}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		l.Close()
		return "", "", net.ErrClosed
	}
	if u.offers == nil {
		u.offers = map[string]*offer{}
	}
	if old := u.offers[guest]; old != nil {
		old.end()
	}
	u.offers[guest] = o
	u.group.Go(func() {
		o.serve()
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.offers[guest] == o {
			delete(u.offers, guest)
		}
	})
	return l.Addr().String(), o.token, nil
}

// Cancel ends the offer for a guest.
func (u *Offers) Cancel(guest string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if o := u.offers[guest]; o != nil {
		o.end()
	}
}

// Close ends all offers.
func (u *Offers) Close() {
	u.mu.Lock()
	u.closed = true
	for _, o := range u.offers {
		o.end()
	}
	u.mu.Unlock()
	u.group.Wait()
}

// serve takes connections one after the other until one has brought the file.
func (o *offer) serve() {
	defer o.l.Close()
	if t, ok := o.l.(*net.TCPListener); ok {
		_ = t.SetDeadline(time.Now().Add(offerLimit))
	}
	for {
		c, err := o.l.Accept()
		if err != nil {
			return
		}
		if !o.hear(c) {
			c.Close()
			return
		}
		err = o.take(c)
		c.Close()
		if err == nil {
			return
		}
	}
}

func (o *offer) take(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	var head [tokenLen + 8]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(head[:tokenLen], []byte(o.token)) != 1 {
		return errors.New("wrong token")
	}
	n := binary.BigEndian.Uint64(head[tokenLen:])
	if n > sizeMax {
		return errors.New("too large")
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Minute))
	r := &io.LimitedReader{R: bufio.NewReader(c), N: int64(n)}
	if err := disk.Write(o.path, whole{r}); err != nil {
		return err
	}
	_, err := c.Write([]byte("ok"))
	return err
}

// whole turns an end before the announced length into an error.
type whole struct{ *io.LimitedReader }

func (w whole) Read(p []byte) (int, error) {
	n, err := w.LimitedReader.Read(p)
	if errors.Is(err, io.EOF) && w.N > 0 {
		err = errors.New("the sender broke off")
	}
	return n, err
}

// Send sends a file to an offer.
func Send(ctx context.Context, address, token string, f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return fault.Wrap(err, fault.Unavailable, "The destination cannot be reached at %s.", address)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	head := binary.BigEndian.AppendUint64([]byte(token), uint64(st.Size()))
	if _, err := c.Write(head); err != nil {
		return err
	}
	if _, err := io.Copy(c, f); err != nil {
		return err
	}
	var answer [2]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil || string(answer[:]) != "ok" {
		return fmt.Errorf("the destination did not take the file: %w", err)
	}
	return nil
}
