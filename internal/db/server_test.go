package db_test

import (
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"sync"
	"testing"

	"kilonova/internal/db"
	"kilonova/internal/db/dbtest"
	"kilonova/internal/fault"
)

// cable is the way to a server, which can be cut.
type cable struct {
	net.Listener
	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

func newCable(t *testing.T, to string) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{Listener: l}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			here, err := l.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", to)
			if err != nil || !c.took(here, there) {
				_ = here.Close()
				continue
			}
			wg.Go(func() { _, _ = io.Copy(there, here); _ = there.Close() })
			wg.Go(func() { _, _ = io.Copy(here, there); _ = here.Close() })
		}
	})
	t.Cleanup(func() { _ = l.Close(); c.set(true); wg.Wait() })
	return c
}

func (c *cable) took(here, there net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		_ = there.Close()
		return false
	}
	c.conns = append(c.conns, here, there)
	return true
}

func (c *cable) set(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut = cut; cut {
		for _, x := range c.conns {
			_ = x.Close()
		}
		c.conns = nil
	}
}

// Whatever is asked of a server database that is away fails with unavailability, and goes on when it is there again.
func TestServerIsAway(t *testing.T) {
	if os.Getenv("KILONOVA_TEST_DATABASE") == "" {
		t.Skip("KILONOVA_TEST_DATABASE names no server")
	}
	ctx := t.Context()
	u, err := url.Parse(dbtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	way := newCable(t, u.Host)
	u.Host = way.Addr().String()
	d := dbtest.At(t, u.String())
	write(t, d, "CREATE TABLE t (id BIGINT PRIMARY KEY)")
	put := func(tx *db.Tx) error { _, err := tx.Exec(ctx, "INSERT INTO t (id) VALUES (1)"); return err }
	count := func() (n int, err error) {
		return n, d.QueryRow(ctx, "SELECT COUNT(*) FROM t").Scan(&n)
	}
	for name, ask := range map[string]func() error{
		"write": func() error { return d.Write(ctx, put) },
		"lost before the commit": func() error {
			way.set(false)
			return d.Write(ctx, func(tx *db.Tx) error { err := put(tx); way.set(true); return err })
		},
		"lost before a statement": func() error {
			way.set(false)
			return d.Write(ctx, func(tx *db.Tx) error {
				err := put(tx)
				way.set(true)
				return errors.Join(err, put(tx))
			})
		},
		"row": func() error { _, err := count(); return err },
		"query": func() error {
			rows, err := d.Query(ctx, "SELECT id FROM t")
			if err == nil {
				_ = rows.Close()
			}
			return err
		},
	} {
		way.set(true)
		if err := ask(); !db.IsAway(err) || !errors.Is(err, fault.Unavailable) {
			t.Errorf("%s: %v", name, err)
		}
		way.set(false)
		if n, err := count(); err != nil || n != 0 {
			t.Errorf("%s: when it is there again, %d rows: %v", name, n, err)
		}
	}
	if err := d.Write(ctx, put); err != nil {
		t.Fatal(err)
	}
	if err := d.Write(ctx, put); !db.IsDuplicate(err) || db.IsAway(err) {
		t.Errorf("the same row again: %v", err)
	}
}
