package apart

import (
	"crypto/ed25519"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"kilonova/test/process"
)

// Patience bounds each wait. A boot takes some ten seconds under emulation on an idle machine.
const Patience = 10 * time.Minute

// Must asks a service and ends the test when it refuses.
func Must(t *testing.T, c *process.Client, method, service, path string, body, out any) {
	t.Helper()
	if _, _, err := c.Do(t.Context(), method, service, path, body, out); err != nil {
		t.Fatal(err)
	}
}

// Upload registers an image with its data and gives its id.
func Upload(t *testing.T, c *process.Client, meta map[string]any, data []byte) string {
	t.Helper()
	var img process.Thing
	Must(t, c, "POST", "image", "/images", meta, &img)
	Must(t, c, "PUT", "image", "/images/"+img.ID+"/file", data, nil)
	return img.ID
}

// GuestImage is the data of the guest image.
func GuestImage(t *testing.T) []byte {
	t.Helper()
	return ReadFile(t, os.Getenv(EnvImage))
}

// ReadFile reads a file or ends the test.
func ReadFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Tail is the end of a text, n bytes at most.
func Tail(s string, n int) string { return s[max(0, len(s)-n):] }

// Eventually asks until ok; what says what is waited for.
func Eventually(t *testing.T, what string, ok func() (string, bool)) {
	t.Helper()
	for end := time.Now().Add(Patience); ; time.Sleep(200 * time.Millisecond) {
		last, done := ok()
		if done {
			return
		}
		if time.Now().After(end) || t.Context().Err() != nil {
			t.Fatalf("%s: not so; at last: %s", what, Tail(last, 1500))
		}
	}
}

// NewKey makes an SSH key; the text is its public half, as servers get it.
func NewKey(t *testing.T) (key ssh.Signer, public string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err == nil {
		key, err = ssh.NewSignerFromKey(private)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key, string(ssh.MarshalAuthorizedKey(key.PublicKey()))
}

// Dial logs in to a guest; the connection ends after limit.
func Dial(addr, user string, how ssh.AuthMethod, limit time.Duration) (*ssh.Client, error) {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(addr, "22"), 5*time.Second)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(limit))
	c, chans, reqs, err := ssh.NewClientConn(conn, addr, &ssh.ClientConfig{User: user, Auth: []ssh.AuthMethod{how}, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return ssh.NewClient(c, chans, reqs), nil
}

// Shell runs a command in a guest once and gives its output without the last line end. The command has some minutes; the guest may be a slow one.
func Shell(addr, user, command string, how ssh.AuthMethod) (string, error) {
	c, err := Dial(addr, user, how, 3*time.Minute)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	s, err := c.NewSession()
	if err != nil {
		return "", err
	}
	out, err := s.CombinedOutput(command)
	return strings.TrimSuffix(string(out), "\n"), err
}
