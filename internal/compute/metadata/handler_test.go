package metadata_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute/metadata"
	"kilonova/internal/fault"
)

const serverID = "8a3f2c1e-7f47-4c5c-9b60-6d2d0cbe3c11"

// book finds one server by id or address, and keeps its password.
type book struct {
	content  *metadata.Content
	lookups  atomic.Int32
	fail     atomic.Bool
	mu       sync.Mutex
	password []byte
	last     metadata.Key
}

func (b *book) Lookup(_ context.Context, k metadata.Key) (*metadata.Content, error) {
	b.lookups.Add(1)
	b.mu.Lock()
	b.last = k
	b.mu.Unlock()
	switch {
	case b.fail.Load():
		return nil, errors.New("the database at 10.0.0.9 is away")
	case k.Address == "10.0.0.66":
		return nil, fault.New(fault.Invalid, "Several servers have the address.")
	case k.ServerID == serverID, k.Address == "10.0.0.5":
		return b.content, nil
	}
	return nil, fault.New(fault.NotFound, "There is no such server.")
}

func (b *book) Password(context.Context, string) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.password, nil
}

func (b *book) SetPassword(_ context.Context, _ string, p []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.password != nil {
		return fault.New(fault.Conflict, "There is a password.")
	}
	b.password = p
	return nil
}

func handler(t *testing.T, proxied bool) (*metadata.Handler, *book) {
	t.Helper()
	b := &book{content: content(t, nil)}
	h, err := metadata.New(metadata.Config{Lookup: b, Passwords: b, Proxied: proxied, Secret: []byte("shared")})
	if err != nil {
		t.Fatal(err)
	}
	return h, b
}

// ask sends a request; headers are pairs.
func ask(h http.Handler, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr = "10.0.0.5:4711"
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "remote" {
			r.RemoteAddr = headers[i+1]
			continue
		}
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// sign is the signature of a server's or provider's id that proxies send.
func sign(secret []byte, id string) string {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(id))
	return hex.EncodeToString(m.Sum(nil))
}

func TestProxySignature(t *testing.T) {
	h, b := handler(t, true)
	own := sign([]byte("shared"), serverID)
	if own != "d4ea6851ccff4a7710a986e98abdddb86f6ce26113f685eeea192215ddc16949" { // by another program
		t.Fatal(own)
	}
	good := []string{"X-Instance-ID", serverID, "X-Tenant-ID", "p1", "X-Instance-ID-Signature", own, "X-Forwarded-For", "10.0.0.5"}
	with := func(name, value string) []string {
		out := append([]string{}, good...)
		for i := 0; i < len(out); i += 2 {
			if out[i] == name {
				out[i+1] = value
				if value == "" {
					return append(out[:i], out[i+2:]...)
				}
			}
		}
		return out
	}
	for name, c := range map[string]struct {
		headers []string
		status  int
	}{
		"good":             {good, 200},
		"no id":            {with("X-Instance-ID", ""), 400},
		"no project":       {with("X-Tenant-ID", ""), 400},
		"no address":       {with("X-Forwarded-For", ""), 400},
		"several ids":      {with("X-Instance-ID", serverID+","+serverID), 400},
		"two id headers":   {append(append([]string{}, good...), "X-Instance-ID", "other"), 400},
		"several projects": {with("X-Tenant-ID", "p1,p2"), 400},
		"no signature":     {with("X-Instance-ID-Signature", ""), 403},
		"wrong signature":  {with("X-Instance-ID-Signature", sign([]byte("other"), serverID)), 403},
		"odd signature":    {with("X-Instance-ID-Signature", "zz"), 403},
		"other project":    {with("X-Tenant-ID", "p2"), 404},
		"unknown server": {[]string{"X-Instance-ID", "nope", "X-Tenant-ID", "p1", "X-Instance-ID-Signature", sign([]byte("shared"), "nope"),
			"X-Forwarded-For", "10.0.0.5"}, 404},
		"provider": {[]string{"X-Metadata-Provider", "nsx", "X-Metadata-Provider-Signature", sign([]byte("shared"), "nsx"), "X-Forwarded-For", "10.0.0.5"}, 200},
		"provider ambiguous": {[]string{"X-Metadata-Provider", "nsx", "X-Metadata-Provider-Signature", sign([]byte("shared"), "nsx"),
			"X-Forwarded-For", "10.0.0.66"}, 400},
		"provider unknown address": {[]string{"X-Metadata-Provider", "nsx", "X-Metadata-Provider-Signature", sign([]byte("shared"), "nsx"),
			"X-Forwarded-For", "10.0.0.77"}, 404},
		"provider forged":     {[]string{"X-Metadata-Provider", "nsx", "X-Metadata-Provider-Signature", "00", "X-Forwarded-For", "10.0.0.5"}, 403},
		"provider no address": {[]string{"X-Metadata-Provider", "nsx", "X-Metadata-Provider-Signature", sign([]byte("shared"), "nsx")}, 400},
	} {
		t.Run(name, func(t *testing.T) {
			if w := ask(h, "GET", "/latest/meta-data/instance-id", "", c.headers...); w.Code != c.status {
				t.Fatalf("%d, want %d: %s", w.Code, c.status, w.Body)
			}
		})
	}
	ask(h, "GET", "/latest", "", "X-Metadata-Provider", "nsx2", "X-Metadata-Provider-Signature", sign([]byte("shared"), "nsx2"), "X-Forwarded-For", "10.0.0.5")
	if d := cmp.Diff(metadata.Key{Provider: "nsx2", Address: "10.0.0.5"}, b.last); d != "" {
		t.Error(d)
	}
}

func TestDirectAndTrusted(t *testing.T) {
	h, _ := handler(t, false)
	if w := ask(h, "GET", "/latest/meta-data/instance-id", ""); w.Code != 200 || w.Body.String() != "i-000000ff" || w.Header().Get("Content-Type") != "text/plain; charset=UTF-8" {
		t.Fatal(w.Code, w.Body, w.Header())
	}
	// A guest cannot name another server.
	if w := ask(h, "GET", "/latest", "", "X-Instance-ID", serverID, "remote", "10.0.0.9:1"); w.Code != 404 {
		t.Fatal(w.Code)
	}
	if w := ask(h, "GET", "/latest", "", "remote", "[::ffff:10.0.0.5]:1"); w.Code != 200 {
		t.Fatal(w.Code)
	}
	w := httptest.NewRecorder()
	h.Serve(w, httptest.NewRequest("GET", "/openstack/latest/meta_data.json", nil), metadata.Key{ServerID: serverID})
	if w.Code != 200 || w.Header().Get("Content-Type") != "application/json" || !json.Valid(w.Body.Bytes()) {
		t.Fatal(w.Code, w.Header())
	}
	if w := ask(h, "HEAD", "/openstack/latest/user_data", ""); w.Code != 200 || w.Body.Len() != 0 || w.Header().Get("Content-Length") != "14" {
		t.Fatal(w.Code, w.Header())
	}
	if w := ask(h, "DELETE", "/latest", ""); w.Code != 405 || w.Header().Get("Allow") == "" {
		t.Fatal(w.Code)
	}
	if w := ask(h, "GET", "/", "", "remote", "192.0.2.1:1"); w.Code != 200 || !strings.HasPrefix(w.Body.String(), "1.0\n") {
		t.Fatal("the versions are everybody's: ", w.Code)
	}
}

func TestFailuresTellNothing(t *testing.T) {
	h, b := handler(t, false)
	b.fail.Store(true)
	w := ask(h, "GET", "/latest", "")
	if w.Code != 500 || strings.Contains(w.Body.String(), "10.0.0.9") {
		t.Fatal(w.Code, w.Body)
	}
	b.fail.Store(false)
	if w := ask(h, "GET", "/latest", ""); w.Code != 200 {
		t.Fatal("a failure was kept: ", w.Code)
	}
}

func TestPassword(t *testing.T) {
	h, _ := handler(t, false)
	const path = "/openstack/2013-04-04/password"
	if w := ask(h, "GET", path, ""); w.Code != 200 || w.Body.Len() != 0 {
		t.Fatal(w.Code, w.Body)
	}
	if w := ask(h, "POST", path, strings.Repeat("x", 1021)); w.Code != 400 {
		t.Fatal(w.Code)
	}
	if w := ask(h, "POST", path, strings.Repeat("x", 1020)); w.Code != 200 {
		t.Fatal(w.Code)
	}
	if w := ask(h, "POST", "/openstack/latest/password", "y"); w.Code != 409 {
		t.Fatal(w.Code)
	}
	if w := ask(h, "GET", "/openstack/latest/password/", ""); w.Body.String() != strings.Repeat("x", 1020) {
		t.Fatal(w.Body)
	}
	if w := ask(h, "PUT", path, "z"); w.Code != 405 {
		t.Fatal(w.Code)
	}
	for _, p := range []string{"/openstack/2012-08-10/password", "/latest/password"} {
		if w := ask(h, "GET", p, ""); w.Code != 404 {
			t.Errorf("%s: %d", p, w.Code)
		}
		if w := ask(h, "POST", p, "z"); w.Code != 405 {
			t.Errorf("%s: %d", p, w.Code)
		}
	}
}

func TestCacheLivesFifteenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, b := handler(t, false)
		for range 5 {
			ask(h, "GET", "/latest", "")
			time.Sleep(3 * time.Second)
		}
		if n := b.lookups.Load(); n != 1 {
			t.Fatalf("%d look-ups in 15 seconds", n)
		}
		time.Sleep(time.Second)
		ask(h, "GET", "/latest", "")
		if n := b.lookups.Load(); n != 2 {
			t.Fatalf("%d look-ups after 16 seconds", n)
		}
		h.Forget(serverID)
		ask(h, "GET", "/latest", "")
		if n := b.lookups.Load(); n != 3 {
			t.Fatalf("%d look-ups after the server was forgotten", n)
		}
	})
}

func TestCacheIsBounded(t *testing.T) {
	var lookups atomic.Int32
	c := content(t, nil)
	h, err := metadata.New(metadata.Config{CacheSize: 8, Lookup: metadata.LookupFunc(func(_ context.Context, _ metadata.Key) (*metadata.Content, error) {
		lookups.Add(1)
		return c, nil
	})})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 100 {
				w := httptest.NewRecorder()
				h.Serve(w, httptest.NewRequest("GET", "/latest", nil), metadata.Key{ServerID: string(rune('a'+i)) + string(rune('a'+j%26)) + string(rune('a'+j/26))})
				if w.Code != 200 {
					t.Errorf("status %d", w.Code)
				}
			}
		})
	}
	wg.Wait()
	if n := lookups.Load(); n != 400 {
		t.Fatalf("%d look-ups for 400 servers", n)
	}
}

func TestVendorTargets(t *testing.T) {
	got, err := metadata.ParseVendorTargets([]string{"a@http://x/", " b@http://y/", "a@http://z/", "static@http://w/"})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]metadata.VendorTarget{{"a", "http://x/"}, {"b", "http://y/"}}, got); d != "" {
		t.Fatal(d)
	}
	if _, err := metadata.ParseVendorTargets([]string{"nourl"}); !errors.Is(err, fault.Invalid) {
		t.Fatal(err)
	}
	var asked map[string]any
	var token string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/good":
			token = r.Header.Get("X-Auth-Token")
			b, _ := io.ReadAll(r.Body)
			_ = json.Unmarshal(b, &asked)
			_, _ = io.WriteString(w, `{"x": 1}`)
		case "/text":
			_, _ = io.WriteString(w, `hello`)
		default:
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer srv.Close()
	v := &metadata.Vendor{Targets: []metadata.VendorTarget{{"good", srv.URL + "/good"}, {"text", srv.URL + "/text"}, {"bad", srv.URL + "/bad"}},
		Token: func(context.Context) (string, error) { return "tok", nil }}
	answers, err := v.Fetch(t.Context(), metadata.InputOf(server(), metadata.Extra{}), []string{"a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	if string(answers["good"]) != `{"x": 1}` || string(answers["text"]) != "{}" || string(answers["bad"]) != "{}" || token != "tok" {
		t.Fatal(answers, token)
	}
	if asked["instance-id"] != serverID || asked["project-id"] != "p1" || asked["boot-roles"] != "a,b" || asked["hostname"] != "my-server" {
		t.Fatal(asked)
	}
	v.Fatal = true
	if _, err := v.Fetch(t.Context(), metadata.Input{}, nil); !errors.Is(err, fault.Unavailable) {
		t.Fatal(err)
	}
}
