package metadata

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"kilonova/internal/fault"
)

// Key says which server a request is for. Exactly one way of naming it is set.
type Key struct {
	ServerID  string // named by a proxy that was believed
	ProjectID string // what the proxy says of the server's project; "" nothing

	// Address is the fixed address that the request came from, on the network NetworkID or, when that is empty, behind the
	// network provider Provider, or anywhere.
	Address   string
	NetworkID string
	Provider  string
}

// Lookup finds servers.
type Lookup interface {
	// Lookup gives the content of the server that a key names. It fails with fault.NotFound for no server, with fault.Invalid when
	// an address belongs to several.
	Lookup(ctx context.Context, k Key) (*Content, error)
}

// LookupFunc makes a function a Lookup.
type LookupFunc func(ctx context.Context, k Key) (*Content, error)

// Lookup calls f.
func (f LookupFunc) Lookup(ctx context.Context, k Key) (*Content, error) { return f(ctx, k) }

// Passwords keeps the encrypted password that a guest posts.
type Passwords interface {
	// Password gives what was posted, nil when nothing was.
	Password(ctx context.Context, serverID string) ([]byte, error)
	// SetPassword stores it once: fault.Conflict when there is one.
	SetPassword(ctx context.Context, serverID string, password []byte) error
}

// maxPassword is the largest password file in bytes.
const maxPassword = 1020

// Config says how a Handler finds and answers.
type Config struct {
	Lookup    Lookup
	Passwords Passwords // nil: the password file is empty and cannot be posted
	// Proxied tells that requests come from network proxies that sign the server's id with Secret. Otherwise the source address
	// of a request names the server.
	Proxied bool
	Secret  []byte
	// CacheSize is how many servers' contents are kept for 15 seconds; 0: 4,096, negative: none.
	CacheSize int
	Log       *slog.Logger
}

// Handler is the metadata service. As an http.Handler it answers network proxies, or guests themselves when Config.Proxied is
// false; Serve answers for a server that the caller is sure of.
type Handler struct {
	cfg   Config
	cache *cache
	log   *slog.Logger
}

// New makes a Handler. A proxied one needs a secret.
func New(cfg Config) (*Handler, error) {
	if cfg.Lookup == nil || cfg.Proxied && len(cfg.Secret) == 0 {
		return nil, errors.New("metadata: a look-up is needed, and a secret when requests come from proxies")
	}
	if cfg.CacheSize == 0 {
		cfg.CacheSize = 4096
	}
	h := &Handler{cfg: cfg, cache: newCache(cfg.CacheSize), log: cfg.Log}
	if h.log == nil {
		h.log = slog.Default()
	}
	return h, nil
}

func signed(secret []byte, id, signature string) bool {
	got, err := hex.DecodeString(signature)
	if err != nil {
		return false
	}
	m := hmac.New(sha256.New, secret)
	_, _ = m.Write([]byte(id))
	return hmac.Equal(got, m.Sum(nil))
}

// Forget drops what is kept of a server, after a change that its guest should see at once.
func (h *Handler) Forget(serverID string) { h.cache.forget(serverID) }

// ServeHTTP answers one request after finding out whose it is.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if len(split(r.URL.Path)) == 0 && r.Method == http.MethodGet { // the list of versions is everybody's
		h.write(w, r, []byte(strings.Join(append(EC2Versions(), latest), "\n")), kindText)
		return
	}
	k, err := h.key(r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.Serve(w, r, k)
}

// key reads whose request it is.
func (h *Handler) key(r *http.Request) (Key, error) {
	if !h.cfg.Proxied {
		if r.Header.Get("X-Instance-ID") != "" {
			h.log.Warn("a metadata request names its server although this service is not behind a proxy; the header is ignored", "remote", r.RemoteAddr)
		}
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil {
			return Key{}, fault.Wrap(err, fault.Invalid, "The source address of the request can not be read.")
		}
		return addressKey(host)
	}
	if provider := r.Header.Get("X-Metadata-Provider"); provider != "" && r.Header.Get("X-Instance-ID") == "" {
		if strings.Contains(provider, ",") {
			return Key{}, fault.New(fault.Invalid, "Multiple X-Metadata-Provider headers found within request.")
		}
		if !signed(h.cfg.Secret, provider, r.Header.Get("X-Metadata-Provider-Signature")) {
			return Key{}, fault.New(fault.Forbidden, "Invalid proxy request signature.")
		}
		k, err := addressKey(r.Header.Get("X-Forwarded-For"))
		k.Provider = provider
		return k, err
	}
	return h.proxied(r)
}

// proxied reads the headers of a network proxy that knows the server.
func (h *Handler) proxied(r *http.Request) (Key, error) {
	id, project := r.Header.Get("X-Instance-ID"), r.Header.Get("X-Tenant-ID")
	switch {
	case id == "":
		return Key{}, fault.New(fault.Invalid, "X-Instance-ID header is missing from request.")
	case project == "":
		return Key{}, fault.New(fault.Invalid, "X-Tenant-ID header is missing from request.")
	case strings.Contains(id, ",") || len(r.Header.Values("X-Instance-ID")) > 1:
		return Key{}, fault.New(fault.Invalid, "Multiple X-Instance-ID headers found within request.")
	case strings.Contains(project, ",") || len(r.Header.Values("X-Tenant-ID")) > 1:
		return Key{}, fault.New(fault.Invalid, "Multiple X-Tenant-ID headers found within request.")
	case r.Header.Get("X-Forwarded-For") == "":
		return Key{}, fault.New(fault.Invalid, "X-Forwarded-For is missing from request.")
	case !signed(h.cfg.Secret, id, r.Header.Get("X-Instance-ID-Signature")):
		h.log.Warn("a metadata request has a wrong signature", "server_id", id, "remote", r.RemoteAddr)
		return Key{}, fault.New(fault.Forbidden, "Invalid proxy request signature.")
	}
	return Key{ServerID: id, ProjectID: project}, nil
}

func addressKey(s string) (Key, error) {
	a, err := netip.ParseAddr(strings.TrimSpace(s))
	if err != nil {
		return Key{}, fault.New(fault.Invalid, "The address %.80q of the request is none.", s)
	}
	return Key{Address: a.Unmap().WithZone("").String()}, nil
}

// Serve answers a request for a server that the caller has made sure of, such as an agent that knows which tap it came from.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request, k Key) {
	c, err := h.content(r.Context(), k)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	parts := split(r.URL.Path)
	if isPassword(parts) {
		h.password(w, r, c)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		h.fail(w, r, fault.New(fault.NotAllowed, "Metadata is read with GET."))
		return
	}
	body, kind, ok := c.Get(r.URL.Path)
	if !ok {
		h.fail(w, r, fault.New(fault.NotFound, "There is nothing under this path."))
		return
	}
	h.write(w, r, body, kind)
}

// content finds the content of a key, at most 15 seconds old, and checks the project that a proxy named.
func (h *Handler) content(ctx context.Context, k Key) (*Content, error) {
	project := k.ProjectID
	k.ProjectID = ""
	c, err := h.cache.get(ctx, k, h.cfg.Lookup)
	if err == nil && project != "" && c.ProjectID() != project {
		h.log.Warn("a metadata proxy named a project that the server is not of", "server_id", c.ServerID(), "project_id", project)
		err = fault.New(fault.NotFound, "There is no such server.")
	}
	return c, err
}

func (h *Handler) password(w http.ResponseWriter, r *http.Request, c *Content) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		var p []byte
		if h.cfg.Passwords != nil {
			var err error
			if p, err = h.cfg.Passwords.Password(r.Context(), c.ServerID()); err != nil {
				h.fail(w, r, err)
				return
			}
		}
		h.write(w, r, p, kindText)
	case http.MethodPost:
		p, err := io.ReadAll(io.LimitReader(r.Body, maxPassword+1))
		switch {
		case err != nil:
			err = fault.Wrap(err, fault.Invalid, "The password could not be read.")
		case len(p) > maxPassword:
			err = fault.New(fault.Invalid, "Request is too large: a password has at most %d bytes.", maxPassword)
		case h.cfg.Passwords == nil:
			err = fault.New(fault.NotImplemented, "This service keeps no passwords.")
		default:
			err = h.cfg.Passwords.SetPassword(r.Context(), c.ServerID(), p)
		}
		if err != nil {
			h.fail(w, r, err)
			return
		}
		w.WriteHeader(http.StatusOK)
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		h.fail(w, r, fault.New(fault.NotAllowed, "The password is read with GET and set with POST."))
	}
}

func (h *Handler) write(w http.ResponseWriter, r *http.Request, body []byte, kind string) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the guest has gone: nobody to tell
	}
}

func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	k := fault.KindOf(err)
	if k == fault.Internal || k == fault.Unavailable {
		h.log.Error("metadata request failed", "path", r.URL.Path, "error", err)
	}
	http.Error(w, fault.PublicText(err), k.Status())
}
