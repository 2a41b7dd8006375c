package store_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"kilonova/internal/fault"
	"kilonova/internal/image/store"
)

func open(t *testing.T, dir string) *store.File {
	t.Helper()
	f, err := store.NewFile("file", dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	for _, sub := range []string{"data", "tmp"} {
		list, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			names = append(names, sub+"/"+e.Name())
		}
	}
	return names
}

func read(t *testing.T, s store.Store, key string, off, n int64) (string, int64) {
	t.Helper()
	r, size, err := s.Open(t.Context(), key, off, n)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), size
}

func TestFileKeepsAndGivesParts(t *testing.T) {
	f := open(t, t.TempDir())
	data := strings.Repeat("0123456789", 100000)
	n, err := f.Put(t.Context(), "k", strings.NewReader(data))
	if err != nil || n != int64(len(data)) {
		t.Fatal(n, err)
	}
	for _, c := range []struct {
		off, n int64
		want   string
	}{{0, -1, data}, {10, 5, "01234"}, {999995, -1, "56789"}, {999995, 100, "56789"}, {1000000, -1, ""}} {
		if got, size := read(t, f, "k", c.off, c.n); got != c.want || size != int64(len(data)) {
			t.Fatalf("part %d+%d: %d bytes of %d", c.off, c.n, len(got), size)
		}
	}
	for range 2 { // deleting what is gone is success
		if err := f.Delete(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := f.Open(t.Context(), "k", 0, -1); !errors.Is(err, fault.NotFound) {
		t.Fatal(err)
	}
}

func TestFailedPutLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	boom := errors.New("boom")
	if _, err := f.Put(t.Context(), "k", io.MultiReader(strings.NewReader("half"), iotest.ErrReader(boom))); !errors.Is(err, boom) {
		t.Fatalf("the reader's error is lost: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Put(ctx, "k", strings.NewReader("x")); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if left := files(t, dir); len(left) != 0 {
		t.Fatalf("left behind: %v", left)
	}
}

func TestKeysStayInside(t *testing.T) {
	dir := t.TempDir()
	f := open(t, filepath.Join(dir, "store"))
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(dir, "store", "data", "link")); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"", ".", "..", "../secret", "../../secret", "a/b", "/etc/passwd", "link", strings.Repeat("x", 200)} {
		if _, _, err := f.Open(t.Context(), key, 0, -1); err == nil {
			t.Errorf("%q was opened", key)
		}
		if key == "link" {
			continue
		}
		if _, err := f.Put(t.Context(), key, strings.NewReader("x")); err == nil {
			t.Errorf("%q was written", key)
		}
		if err := f.Delete(t.Context(), key); err != nil {
			t.Errorf("%q: %v", key, err)
		}
	}
	if b, err := os.ReadFile(secret); err != nil || string(b) != "s" {
		t.Fatal("a file outside was touched")
	}
}

func TestSweepOnlyWhenAlone(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	if alone, err := a.Join(); err != nil || !alone {
		t.Fatal(alone, err)
	}
	if err := a.Share(); err != nil {
		t.Fatal(err)
	}
	b := open(t, dir)
	if alone, err := b.Join(); err != nil || alone {
		t.Fatal("two were alone", err)
	}
	_ = a.Close()
	_ = b.Close()
	c := open(t, dir)
	if alone, err := c.Join(); err != nil || !alone {
		t.Fatal("a closed store still holds the directory", err)
	}
	for _, key := range []string{"keep", "orphan"} {
		if _, err := c.Put(t.Context(), key, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "tmp", "half"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := c.Sweep(func(key string) bool { return key == "keep" })
	if err != nil || n != 2 {
		t.Fatal(n, err)
	}
	if left := files(t, dir); len(left) != 1 || left[0] != "data/keep" {
		t.Fatal(left)
	}
}

func TestGuard(t *testing.T) {
	for _, c := range []struct {
		guard store.Guard
		uri   string
		ok    bool
	}{
		{store.Guard{}, "https://example.org/a.qcow2", true}, {store.Guard{}, "http://93.184.216.34/a", true},
		{store.Guard{}, "ftp://example.org/a", false}, {store.Guard{}, "file:///etc/passwd", false}, {store.Guard{}, "/etc/passwd", false},
		{store.Guard{}, "http://example.org:8080/a", false}, {store.Guard{}, "http://u:p@example.org/", false},
		{store.Guard{}, "http://127.0.0.1/", false}, {store.Guard{}, "http://[::1]/", false}, {store.Guard{}, "http://10.1.2.3/", false},
		{store.Guard{}, "http://169.254.169.254/latest", false}, {store.Guard{}, "http://[::ffff:127.0.0.1]/", false},
		{store.Guard{}, "http://[64:ff9b::7f00:1]/", false}, {store.Guard{}, "http://0.0.0.0/", false}, {store.Guard{}, "http://100.64.1.1/", false},
		{store.Guard{Nets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, "http://10.1.2.3/", true},
		{store.Guard{Ports: []int{8080}}, "http://example.org:8080/a", true}, {store.Guard{Hosts: []string{".example.org"}}, "http://a.example.org/", true},
		{store.Guard{Hosts: []string{".example.org"}}, "http://example.com/", false}, {store.Guard{Deny: []string{"bad.org"}}, "http://BAD.org./", false},
	} {
		_, err := c.guard.Check(c.uri)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", c.uri, err)
		}
	}
}

func TestWebReadsPartsAndRefusesInside(t *testing.T) {
	data := bytes.Repeat([]byte("abcdefghij"), 1000)
	var target string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, target, http.StatusFound)
		case "/gone":
			w.WriteHeader(http.StatusNotFound)
		case "/plain": // knows no ranges
			w.Header().Set("Content-Length", strconv.Itoa(len(data)))
			_, _ = w.Write(data)
		default:
			http.ServeContent(w, r, "x", time.Time{}, bytes.NewReader(data))
		}
	}))
	defer srv.Close()
	u, _ := url.Parse(srv.URL)
	port, _ := strconv.Atoi(u.Port())
	w := store.NewWeb("http", store.Guard{Ports: []int{port, 80}, Nets: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}})
	for _, path := range []string{"/ranges", "/plain"} {
		if got, size := read(t, w, srv.URL+path, 10, 5); got != "abcde" || size != int64(len(data)) {
			t.Fatalf("%s: %q of %d", path, got, size)
		}
		if got, _ := read(t, w, srv.URL+path, 0, -1); got != string(data) {
			t.Fatalf("%s: %d bytes", path, len(got))
		}
	}
	if _, _, err := w.Open(t.Context(), srv.URL+"/gone", 0, -1); !errors.Is(err, fault.NotFound) {
		t.Fatal(err)
	}
	for _, target = range []string{"http://169.254.169.254/", "file:///etc/passwd", "http://127.0.0.2/"} {
		if _, _, err := w.Open(t.Context(), srv.URL+"/away", 0, -1); !errors.Is(err, fault.Invalid) {
			t.Fatalf("redirect to %s: %v", target, err)
		}
	}
	// A name that resolves to an address inside is refused at the connection.
	closed := store.NewWeb("http", store.Guard{Ports: []int{port}})
	if _, _, err := closed.Open(t.Context(), "http://localhost:"+u.Port()+"/", 0, -1); !errors.Is(err, fault.Invalid) {
		t.Fatalf("localhost: %v", err)
	}
	if _, err := w.Put(t.Context(), "k", strings.NewReader("")); !errors.Is(err, fault.Forbidden) {
		t.Fatal(err)
	}
}
