package console_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"kilonova/internal/clock"
	"kilonova/internal/compute/console"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/operation"
)

type rig struct {
	t     *testing.T
	store *store.Store
	url   string
}

func newRig(t *testing.T) *rig {
	d, err := db.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "c.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := operation.New(t.Context(), operation.Config{DB: d}); err != nil {
		t.Fatal(err)
	}
	s, err := store.New(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	lib := t.TempDir()
	if err := os.MkdirAll(filepath.Join(lib, "core"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(lib, "core", "rfb.js"), []byte("export default 1"), 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := console.New(console.Config{Store: s, NoVNC: lib})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(p)
	t.Cleanup(func() {
		p.Close()
		srv.Close()
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return &rig{t: t, store: s, url: srv.URL}
}

// guest plays a console that greets and then echoes.
func (r *rig) guest() (host string, port int) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				_, _ = c.Write([]byte("RFB 003.008\n"))
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	a := l.Addr().(*net.TCPAddr)
	return a.IP.String(), a.Port
}

func (r *rig) token(name, host string, port int, ttl time.Duration) {
	if err := r.store.DB.Write(r.t.Context(), func(tx *db.Tx) error {
		return r.store.InsertConsoleToken(r.t.Context(), tx, name, store.ConsoleToken{ServerID: "s1", Kind: "novnc", Agent: "h1", Host: host, Port: port, Expires: clock.Now().Add(ttl)})
	}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) dial(path string, h http.Header) (*websocket.Conn, int, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Minute)
	defer cancel()
	c, resp, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(r.url, "http")+path, &websocket.DialOptions{HTTPHeader: h, Subprotocols: []string{"binary"}})
	status := 0
	if resp != nil {
		status = resp.StatusCode
	}
	return c, status, err
}

func TestBytesGoBothWaysAndTheTokenWorksOnce(t *testing.T) {
	r := newRig(t)
	host, port := r.guest()
	for i, path := range []string{"/websocket?token=t0", "/?token=t1", "/websocket?path=%3Ftoken%3Dt2"} {
		r.token("t"+string(rune('0'+i)), host, port, 24*time.Hour)
		c, _, err := r.dial(path, nil)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		_, data, err := c.Read(t.Context())
		if err != nil || string(data) != "RFB 003.008\n" {
			t.Fatalf("%q %v", data, err)
		}
		if err := c.Write(t.Context(), websocket.MessageBinary, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, data, err = c.Read(t.Context()); err != nil || string(data) != "hello" {
			t.Fatalf("%q %v", data, err)
		}
		if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Fatal(err)
		}
		if _, status, err := r.dial(path, nil); err == nil || status != http.StatusForbidden {
			t.Fatalf("%s worked twice: %d %v", path, status, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	r := newRig(t)
	host, port := r.guest()
	r.token("old", host, port, -time.Second)
	r.token("foreign", host, port, 24*time.Hour)
	r.token("dead", "127.0.0.1", 1, 24*time.Hour)
	for _, c := range []struct {
		path   string
		header http.Header
		status int
	}{
		{"/websocket", nil, 403},
		{"/websocket?token=guess", nil, 403},
		{"/websocket?token=old", nil, 403},
		{"/websocket?token=foreign", http.Header{"Origin": {"https://elsewhere.example"}}, 403},
		{"/websocket?token=dead", nil, 502},
	} {
		if _, status, err := r.dial(c.path, c.header); err == nil || status != c.status {
			t.Errorf("%s: status %d, want %d (%v)", c.path, status, c.status, err)
		}
	}
	if c, _, err := r.dial("/websocket?token=foreign", http.Header{"Origin": {r.url}}); err != nil {
		t.Errorf("the refused page used the token up: %v", err)
	} else {
		_ = c.CloseNow()
	}
}

func TestPages(t *testing.T) {
	r := newRig(t)
	for path, want := range map[string]string{"/vnc.html?token=x": "<meta name=\"generator\" content=\"noVNC\">", "/vnc.html": "src=\"vnc.js\"", "/spice.html": "<div id=\"spice-screen\"></div>",
		"/serial.html": "<link rel=\"stylesheet\" href=\"serial.css\">", "/vnc.js": "rfb.js", "/novnc/core/rfb.js": "export default"} {
		resp, err := http.Get(r.url + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || !strings.Contains(string(b), want) {
			t.Errorf("%s: %d %v %.80q", path, resp.StatusCode, err, b)
		}
	}
	for path, status := range map[string]int{"/websocket": 426, "/novnc/": 404, "/novnc/core/": 404, "/novnc/../console.go": 404, "/etc/passwd": 404} {
		resp, err := http.Get(r.url + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != status {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, status)
		}
	}
}

// The address of a serial console is a websocket for clients and a page for browsers.
func TestPageOfASerialConsole(t *testing.T) {
	r := newRig(t)
	for accept, want := range map[string]int{"text/html,application/xhtml+xml": 200, "*/*": 426, "": 426} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", r.url+"/?token=x", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != want || strings.Contains(string(body), "serial.js") != (want == 200) {
			t.Errorf("%q: %d %v %s", accept, resp.StatusCode, err, body)
		}
		if want == 200 && resp.Header.Get("Referrer-Policy") != "no-referrer" {
			t.Error("the page tells its address, which holds the token, to others")
		}
	}
	for _, file := range []string{"/serial.html", "/serial.js", "/serial.css", "/terminal.js"} {
		resp, err := http.Get(r.url + file)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Errorf("%s: %d", file, resp.StatusCode)
		}
	}
}

// SPICE has a connection for each of its channels: one token opens them all until it expires.
func TestTokenOfASPICEConsole(t *testing.T) {
	r := newRig(t)
	host, port := r.guest()
	for name, ttl := range map[string]time.Duration{"s": 24 * time.Hour, "gone": -time.Second} {
		if err := r.store.DB.Write(t.Context(), func(tx *db.Tx) error {
			return r.store.InsertConsoleToken(t.Context(), tx, name, store.ConsoleToken{ServerID: "s1", Kind: "spice-html5", Agent: "h1", Host: host, Port: port, Expires: clock.Now().Add(ttl)})
		}); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		c, _, err := r.dial("/websocket?token=s", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.CloseNow() }()
	}
	if _, status, err := r.dial("/websocket?token=gone", nil); err == nil || status != http.StatusForbidden {
		t.Errorf("an expired token: %d %v", status, err)
	}
	resp, err := http.Get(r.url + "/spice/main.js")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 404 {
		t.Errorf("without the library: %d", resp.StatusCode)
	}
}
