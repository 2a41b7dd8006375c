package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"kilonova/internal/fault"
)

// Guard says which web addresses may be read on behalf of a user. Without it anybody who may import an image could read
// whatever the service can reach. The zero value allows http on port 80 and https on 443 of public addresses.
type Guard struct {
	Schemes []string       // default http, https
	Ports   []int          // default 80, 443
	Hosts   []string       // when set, only these names (a leading dot: the name and all below it)
	Deny    []string       // never these
	Nets    []netip.Prefix // addresses that are allowed although they are loopback, private or link-local
}

const maxRedirects = 5

func (g *Guard) schemes() []string {
	if len(g.Schemes) > 0 {
		return g.Schemes
	}
	return []string{"http", "https"}
}

func (g *Guard) ports() []int {
	if len(g.Ports) > 0 {
		return g.Ports
	}
	return []int{80, 443}
}

// Check judges an address before anything is resolved. The error is a fault.Invalid that names the rule.
func (g *Guard) Check(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Hostname() == "" {
		return nil, fault.New(fault.Invalid, "The URI %.200q is not an absolute web address.", raw)
	}
	if !slices.Contains(g.schemes(), u.Scheme) {
		return nil, fault.New(fault.Invalid, "The URI scheme %q is not allowed; these are: %s.", u.Scheme, strings.Join(g.schemes(), ", "))
	}
	if u.User != nil {
		return nil, fault.New(fault.Invalid, "The URI must not hold a user name or password.")
	}
	port := map[string]int{"http": 80, "https": 443}[u.Scheme]
	if p := u.Port(); p != "" {
		port, _ = strconv.Atoi(p)
	}
	if !slices.Contains(g.ports(), port) {
		return nil, fault.New(fault.Invalid, "Port %d is not allowed in an import URI.", port)
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if matches(g.Deny, host) || len(g.Hosts) > 0 && !matches(g.Hosts, host) {
		return nil, fault.New(fault.Invalid, "Importing from host %s is not allowed.", host)
	}
	if a, err := netip.ParseAddr(host); err == nil && !g.reachable(a) {
		return nil, fault.New(fault.Invalid, "Importing from address %s is not allowed.", a)
	}
	return u, nil
}

func matches(list []string, host string) bool {
	return slices.ContainsFunc(list, func(h string) bool {
		h = strings.ToLower(h)
		return h == host || strings.HasPrefix(h, ".") && (host == h[1:] || strings.HasSuffix(host, h))
	})
}

// reachable tells whether an address may be connected to.
func (g *Guard) reachable(a netip.Addr) bool {
	a = a.Unmap()
	for _, n := range g.Nets {
		if n.Contains(a) {
			return true
		}
	}
	return a.IsGlobalUnicast() && !a.IsPrivate() && !sharedSpace.Contains(a) && !mapped.Contains(a) && !translated.Contains(a)
}

var (
	sharedSpace = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598
	mapped      = netip.MustParsePrefix("::ffff:0:0/96")
	translated  = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052: an IPv4 address inside
)

var errAddress = errors.New("the name leads to an address that is not allowed")

// client checks every connection after the name was resolved, so that a name which leads inside does not help, and
// every redirect.
func (g *Guard) client() *http.Client {
	d := &net.Dialer{Timeout: 20 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil || !g.reachable(ap.Addr()) {
			return errAddress
		}
		return nil
	}}
	return &http.Client{
		Transport: &http.Transport{DialContext: d.DialContext, TLSHandshakeTimeout: 20 * time.Second, ResponseHeaderTimeout: 60 * time.Second,
			DisableCompression: true, MaxIdleConnsPerHost: 2, IdleConnTimeout: 30 * time.Second},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return fmt.Errorf("more than %d redirects", maxRedirects)
			}
			_, err := g.Check(r.URL.String())
			return err
		},
	}
}

// Web reads images from web addresses; its keys are URLs.
type Web struct {
	name  string
	guard Guard
	http  *http.Client
}

// NewWeb makes the read-only store of web addresses.
func NewWeb(name string, g Guard) *Web { return &Web{name: name, guard: g, http: g.client()} }

// Name is the identifier that clients see.
func (w *Web) Name() string { return w.name }

// Type is "http".
func (w *Web) Type() string { return "http" }

// ReadOnly is true.
func (w *Web) ReadOnly() bool { return true }

// URL is the key itself.
func (w *Web) URL(key string) string { return key }

// Guard is the rule in force.
func (w *Web) Guard() *Guard { return &w.guard }

// Put always fails with fault.Forbidden.
func (w *Web) Put(context.Context, string, io.Reader) (int64, error) {
	return 0, fault.New(fault.Forbidden, "The image store %s is read-only.", w.name)
}

// Delete does nothing: the data is somebody else's.
func (w *Web) Delete(context.Context, string) error { return nil }

// Open asks the web server. The size is -1 when it does not tell.
func (w *Web) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, int64, error) {
	u, err := w.guard.Check(key)
	if err != nil {
		return nil, 0, err
	}
	if u.Fragment != "" {
		u.Fragment = ""
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, 0, fault.Wrap(err, fault.Invalid, "The URI is not a web address.")
	}
	part := offset > 0 || length >= 0
	if part {
		end := ""
		if length >= 0 {
			end = strconv.FormatInt(offset+length-1, 10)
		}
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%s", offset, end))
	}
	resp, err := w.http.Do(req)
	if err != nil {
		return nil, 0, w.failed(u, err)
	}
	switch {
	case resp.StatusCode == http.StatusOK:
		if offset > 0 { // the server ignores ranges
			if _, err := io.CopyN(io.Discard, resp.Body, offset); err != nil {
				return nil, 0, errors.Join(w.failed(u, err), resp.Body.Close())
			}
		}
		if length >= 0 {
			return section{io.LimitReader(resp.Body, length), resp.Body}, resp.ContentLength, nil
		}
		return resp.Body, resp.ContentLength, nil
	case resp.StatusCode == http.StatusPartialContent && part:
		size := int64(-1)
		if _, total, ok := strings.Cut(resp.Header.Get("Content-Range"), "/"); ok {
			if n, err := strconv.ParseInt(total, 10, 64); err == nil {
				size = n
			}
		}
		return resp.Body, size, nil
	}
	kind := fault.Unavailable
	if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone {
		kind = fault.NotFound
	}
	return nil, 0, errors.Join(fault.New(kind, "The web server %s answered %d for the image data.", u.Host, resp.StatusCode), resp.Body.Close())
}

func (w *Web) failed(u *url.URL, err error) error {
	if errors.Is(err, errAddress) {
		return fault.Wrap(err, fault.Invalid, "Importing from host %s is not allowed: its address is inside the cloud.", u.Hostname())
	}
	var e *fault.Error
	if errors.As(err, &e) {
		return e
	}
	return fault.Wrap(err, fault.Unavailable, "The web server %s could not be read.", u.Host)
}
