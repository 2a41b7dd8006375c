package fake_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/fault"
)

// dialConsole opens a console of a guest.
func dialConsole(t *testing.T, d *fake.Driver, id, kind string) net.Conn {
	t.Helper()
	at, err := d.Console(t.Context(), id, kind)
	if err != nil {
		t.Fatal(err)
	}
	again, err := d.Console(t.Context(), id, kind)
	if err != nil || *again != *at {
		t.Fatalf("the console moved: %v, %v (%v)", at, again, err)
	}
	c, err := net.Dial("tcp", net.JoinHostPort(at.Host, strconv.Itoa(at.Port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c
}

func send(t *testing.T, c io.Writer, b ...byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, r io.Reader, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestScreenSpeaksRFB(t *testing.T) {
	d := fake.New(fake.Config{DB: memory(t), Host: "a"})
	t.Cleanup(func() { _ = d.Close() })
	s := spec(t)
	s.Display = "paint"
	if err := d.Spawn(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	c := dialConsole(t, d, s.ID, "vnc")
	r := bufio.NewReader(c)
	if v := receive(t, r, 12); string(v) != "RFB 003.008\n" {
		t.Fatalf("version %q", v)
	}
	send(t, c, []byte("RFB 003.008\n")...)
	if types := receive(t, r, 2); !bytes.Equal(types, []byte{1, 1}) {
		t.Fatalf("security types %v", types)
	}
	send(t, c, 1)
	if result := receive(t, r, 4); !bytes.Equal(result, make([]byte, 4)) {
		t.Fatalf("security result %v", result)
	}
	send(t, c, 1)
	hello := receive(t, r, 24)
	width, height := int(binary.BigEndian.Uint16(hello)), int(binary.BigEndian.Uint16(hello[2:]))
	if name := receive(t, r, int(binary.BigEndian.Uint32(hello[20:]))); string(name) != "paint" || hello[4] != 32 {
		t.Fatalf("name %q, %d bits", name, hello[4])
	}
	send(t, c, 2, 0, 0, 1, 0, 0, 0, 0)                                                      // SetEncodings: raw
	send(t, c, 4, 1, 0, 0, 0, 0, 0, 65, 5, 1, 0, 1, 0, 1, 6, 0, 0, 0, 0, 0, 0, 2, 'h', 'i') // a key, the pointer, a text
	send(t, c, 0, 0, 0, 0, 16, 16, 0, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0, 0, 0, 0)            // SetPixelFormat: 565, little endian
	send(t, c, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0)                                                // FramebufferUpdateRequest
	want := []byte{0, 0, 0, 1, 0, 0, 0, 0}
	want = append(append(want, hello[:4]...), 0, 0, 0, 0)
	if head := receive(t, r, 16); !bytes.Equal(head, want) {
		t.Fatalf("update %v, want %v", head, want)
	}
	pixels := receive(t, r, width*height*2)
	if v := binary.LittleEndian.Uint16(pixels); v != 30*31/255<<11|60*63/255<<5|120*31/255 {
		t.Errorf("pixel %#x", v)
	}
	if err := d.PowerOff(t.Context(), s.ID, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadByte(); err == nil {
		t.Error("the screen of a stopped guest goes on")
	}
}

func TestSerialLineEchoesAndFollowsAMove(t *testing.T) {
	db := memory(t)
	a, b := fake.New(fake.Config{DB: db, Host: "a"}), fake.New(fake.Config{DB: db, Host: "b"})
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	s := spec(t)
	if err := a.Spawn(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	echo := func(d *fake.Driver) *bufio.Reader {
		c := dialConsole(t, d, s.ID, "serial")
		r := bufio.NewReader(c)
		send(t, c, []byte("anybody there\n")...)
		for {
			text, err := r.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if text == "anybody there\n" {
				return r
			}
		}
	}
	r := echo(a)
	if err := b.PreLiveMigration(t.Context(), s, true); err != nil {
		t.Fatal(err)
	}
	if err := a.LiveMigrate(t.Context(), s, map[string]string{"host": "b"}, true, func(virt.MigrationProgress) {}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadByte(); err == nil {
		t.Error("the line at the host that the guest left goes on")
	}
	if _, err := a.Console(t.Context(), s.ID, "serial"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("console of a guest that left: %v", err)
	}
	echo(b)
}
