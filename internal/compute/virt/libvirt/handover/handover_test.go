package handover

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func source(t *testing.T, data []byte) *os.File {
	path := filepath.Join(t.TempDir(), "source")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestHandover(t *testing.T) {
	var o Offers
	defer o.Close()
	to := filepath.Join(t.TempDir(), "file")
	address, token, err := o.Open("127.0.0.1", "guest", to)
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("config drive"), 100000)

	// Strangers and broken senders spoil nothing.
	if err := Send(t.Context(), address, strings.Repeat("0", tokenLen), source(t, data)); err == nil {
		t.Error("a wrong token was taken")
	}
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write(append(binary.BigEndian.AppendUint64([]byte(token), 1000), "short"...))
	c.(*net.TCPConn).CloseWrite()
	if got, _ := io.ReadAll(c); len(got) != 0 {
		t.Errorf("a file that broke off was answered with %q", got)
	}
	c.Close()
	if _, err := os.Stat(to); err == nil {
		t.Error("a file that broke off is there")
	}

	if err := Send(t.Context(), address, token, source(t, data)); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes came of %d: %v", len(got), len(data), err)
	}
	if err := Send(t.Context(), address, token, source(t, data)); err == nil {
		t.Error("an offer was used twice")
	}
}

func TestOffersEnd(t *testing.T) {
	var o Offers
	dir := t.TempDir()
	a, token, err := o.Open("127.0.0.1", "guest", filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := o.Open("127.0.0.1", "guest", filepath.Join(dir, "b"))
	if err != nil {
		t.Fatal(err)
	}
	if err := Send(t.Context(), a, token, source(t, nil)); err == nil {
		t.Error("the earlier offer still holds")
	}
	o.Cancel("guest")
	o.Cancel("nobody")
	if c, err := net.Dial("tcp", b); err == nil {
		c.Close()
		t.Error("a cancelled offer still listens")
	}
	// A sender that says nothing keeps nobody from closing.
	d, token, err := o.Open("127.0.0.1", "guest", filepath.Join(dir, "d"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", d)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, token)
	o.Close()
	if _, _, err := o.Open("127.0.0.1", "guest", filepath.Join(dir, "c")); err == nil {
		t.Error("a closed driver makes offers")
	}
}
