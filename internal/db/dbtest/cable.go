package dbtest

import (
	"bytes"
	"net"
	"net/url"
	"os"
	"sync"
	"testing"

	"kilonova/internal/db"
)

// Cable is the way to a database server, which a test can cut.
type Cable struct {
	l net.Listener

	mu    sync.Mutex
	cut   bool
	lose  fate
	lost  chan struct{} // closed when the commit that was to be lost is
	conns map[*wire]bool
}

// fate is what becomes of the next commit.
type fate int

const (
	passes fate = iota
	undone      // it does not reach the server
	done        // its answer does not reach the client
)

// wire is one connection.
type wire struct {
	here, there net.Conn
	deaf        bool // the server's next answer is lost, and the connection with it
}

func (w *wire) close() { _ = w.here.Close(); _ = w.there.Close() }

// Cables gives an empty database on a server, and the cable to it. The server is that of KILONOVA_TEST_DATABASE or, when none is named, one of the test's own; a test on a
// machine without the programs is skipped.
func Cables(t testing.TB, kind db.Dialect) (*db.DB, *Cable) {
	t.Helper()
	server := os.Getenv("KILONOVA_TEST_DATABASE")
	if server == "" {
		server = Own(t, kind)
	}
	u, err := url.Parse(create(t, server))
	if err != nil {
		t.Fatal(err)
	}
	c := newCable(t, u.Host)
	u.Host = c.l.Addr().String()
	return At(t, u.String()), c
}

func newCable(t testing.TB, to string) *Cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &Cable{l: l, conns: map[*wire]bool{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			here, err := l.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", to)
			if err != nil {
				_ = here.Close()
				continue
			}
			if w := c.take(here, there); w != nil {
				wg.Go(func() { c.carry(w, w.here, w.there, c.asked) })
				wg.Go(func() { c.carry(w, w.there, w.here, c.answered) })
			}
		}
	})
	t.Cleanup(func() { _ = l.Close(); c.Cut(); wg.Wait() })
	return c
}

// Cut ends all connections; no new ones are made until Mend.
func (c *Cable) Cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = true
	for w := range c.conns {
		w.close()
	}
}

// Mend makes the server reachable again.
func (c *Cable) Mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = false
}

// LoseCommit cuts the connection over which the next commit comes: before the commit reaches the server or, when it is to be carried out, once the server has done that. What it
// gives is closed when that has happened. Other connections stay, and new ones can be made.
func (c *Cable) LoseCommit(carriedOut bool) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lose, c.lost = undone, make(chan struct{})
	if carriedOut {
		c.lose = done
	}
	return c.lost
}

func (c *Cable) take(here, there net.Conn) *wire {
	w := &wire{here: here, there: there}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		w.close()
		return nil
	}
	c.conns[w] = true
	return w
}

// carry brings what comes from one end to the other as long as pass lets it.
func (c *Cable) carry(w *wire, from, to net.Conn, pass func(w *wire, b []byte) bool) {
	defer func() {
		w.close()
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.conns, w)
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if !pass(w, buf[:n]) {
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// asked judges what a client sends: a commit is a message of its own, in either protocol.
func (c *Cable) asked(w *wire, b []byte) bool {
	lower := bytes.ToLower(b)
	if !bytes.Contains(lower, []byte("q\x00\x00\x00\x0bcommit\x00")) && !bytes.Contains(lower, []byte("\x07\x00\x00\x00\x03commit")) {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.lose
	c.lose = passes
	switch was {
	case undone:
		close(c.lost)
		return false
	case done:
		w.deaf = true
	}
	return true
}

// answered judges what a server sends.
func (c *Cable) answered(w *wire, _ []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.deaf {
		close(c.lost)
	}
	return !w.deaf
}
