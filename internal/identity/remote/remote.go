// Package remote verifies tokens with a Keystone, or with the identity role of another process, over HTTP. It is what a role uses
// that does not share the identity database.
//
// A verified token is believed for Config.CacheTTL, so a revocation may go unnoticed for that long; a refused one is refused for
// Config.RefusedTTL without asking again. When the identity service does not answer, tokens that are not remembered are refused with
// fault.Unavailable. Tokens with access rules are refused by the identity service itself, because this package does not say that it
// understands them.
package remote

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"kilonova/internal/auth"
	"kilonova/internal/clock"
	"kilonova/internal/fault"
	"kilonova/internal/identity"
)

// Config is where the identity service is and as whom to ask it. The user needs the role service or admin, or reader on the system (with a Keystone: what its policy
// asks of those who validate tokens and look at projects).
type Config struct {
	AuthURL            string // with or without /v3
	Username, Password string
	UserDomain         string        // name; "Default" when empty
	Project            string        // name; "service" when empty
	ProjectDomain      string        // name; "Default" when empty
	CacheTTL           time.Duration // 30 seconds when 0
	RefusedTTL         time.Duration // 5 seconds when 0
	CacheSize          int           // 20,000 tokens when 0
	Timeout            time.Duration // of one request; 10 seconds when 0
	Client             *http.Client  // for its transport (TLS); nil: the default one
}

// Identity speaks to the identity service.
type Identity struct {
	cfg    Config
	client *http.Client
	flight singleflight.Group

	mu         sync.Mutex
	young, old map[key]answer

	tokenMu sync.Mutex
	token   string // of the service user
	renew   time.Time
}

type key [sha256.Size]byte

// answer is what is remembered of a token: its caller, or a refusal when that is nil.
type answer struct {
	caller *auth.Caller
	until  time.Time
}

var (
	_ auth.Authenticator = (*Identity)(nil)
	_ identity.Directory = (*Identity)(nil)
)

const (
	maxAnswer   = 1 << 20         // bytes of a body that are read
	renewBefore = 2 * time.Minute // how long before its end the service user's token is renewed
	maxToken    = 16 << 10        // bytes of a token that are passed on
)

// New gives the connection; nothing is asked before the first token comes.
func New(cfg Config) (*Identity, error) {
	u, err := url.Parse(cfg.AuthURL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fault.New(fault.Invalid, "The identity URL %q is not an http or https URL.", cfg.AuthURL)
	}
	cfg.AuthURL = strings.TrimSuffix(strings.TrimRight(cfg.AuthURL, "/"), "/v3") + "/v3"
	text := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	span := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	text(&cfg.UserDomain, "Default")
	text(&cfg.ProjectDomain, "Default")
	text(&cfg.Project, "service")
	span(&cfg.CacheTTL, 30*time.Second)
	span(&cfg.RefusedTTL, 5*time.Second)
	span(&cfg.Timeout, 10*time.Second)
	if cfg.CacheSize == 0 {
		cfg.CacheSize = 20000
	}
	c := &http.Client{Timeout: cfg.Timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if cfg.Client != nil {
		c.Transport = cfg.Client.Transport
	}
	return &Identity{cfg: cfg, client: c, young: map[key]answer{}, old: map[key]answer{}}, nil
}

func refused(cause error) error {
	return fault.Wrap(cause, fault.Unauthorized, "The request you have made requires authentication.")
}

// Authenticate implements auth.Authenticator.
func (s *Identity) Authenticate(ctx context.Context, token string) (*auth.Caller, error) {
	if token == "" || len(token) > maxToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, refused(errors.New("the token is malformed"))
	}
	k := key(sha256.Sum256([]byte(token)))
	a, ok := s.recall(k)
	if !ok {
		v, err, _ := s.flight.Do(string(k[:]), func() (any, error) {
			if a, ok := s.recall(k); ok { // another caller's flight ended between the look above and this one
				return a, nil
			}
			return s.ask(context.WithoutCancel(ctx), k, token)
		})
		if err != nil {
			return nil, err
		}
		a = v.(answer) //nolint:forcetypeassert // a flight gives nothing else
	}
	if a.caller == nil {
		return nil, refused(errors.New("the identity service refuses the token"))
	}
	c := *a.caller
	c.Token = token
	return &c, nil
}

func (s *Identity) recall(k key) (answer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.young[k]
	if !ok {
		if a, ok = s.old[k]; ok {
			s.add(k, a)
		}
	}
	return a, ok && clock.Now().Before(a.until)
}

func (s *Identity) add(k key, a answer) {
	if len(s.young) >= s.cfg.CacheSize/2 {
		s.old, s.young = s.young, map[key]answer{}
	}
	s.young[k] = a
}

// ask has the identity service verify a token and remembers what it says.
func (s *Identity) ask(ctx context.Context, k key, token string) (answer, error) {
	status, body, err := s.call(ctx, http.MethodGet, "/auth/tokens?nocatalog", http.Header{"X-Subject-Token": {token}, "Openstack-Identity-Access-Rules": {"1.0"}})
	if err != nil {
		return answer{}, err
	}
	a := answer{until: clock.Now().Add(s.cfg.RefusedTTL)}
	switch status {
	case http.StatusOK:
		if a.caller, err = caller(body); err != nil {
			return answer{}, fault.Wrap(err, fault.Unavailable, "The identity service gave an answer that cannot be understood.")
		}
		a.until = clock.Now().Add(s.cfg.CacheTTL)
		if a.caller.ExpiresAt.Before(a.until) {
			a.until = a.caller.ExpiresAt
		}
		if !clock.Now().Before(a.caller.ExpiresAt) {
			a.caller = nil
		}
	case http.StatusNotFound, http.StatusBadRequest:
	default:
		return answer{}, unavailable(fmt.Errorf("status %d", status))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(k, a)
	return a, nil
}

func unavailable(cause error) error {
	return fault.Wrap(cause, fault.Unavailable, "Tokens cannot be verified now because the identity service does not answer as it should. Try again later.")
}

// call makes a request as the service user, logging in anew once when its token is refused.
func (s *Identity) call(ctx context.Context, method, path string, h http.Header) (int, []byte, error) {
	for try := 0; ; try++ {
		own, err := s.ownToken(ctx)
		if err != nil {
			return 0, nil, err
		}
		h.Set("X-Auth-Token", own)
		status, _, body, err := s.send(ctx, method, path, h, nil)
		if err != nil {
			return 0, nil, unavailable(err)
		}
		if status != http.StatusUnauthorized || try > 0 {
			return status, body, nil
		}
		s.forget(own)
	}
}

func (s *Identity) forget(token string) {
	s.tokenMu.Lock()
	defer s.tokenMu.Unlock()
	if s.token == token {
		s.token = ""
	}
}

// ServiceToken gives a token of the service user, with which roles speak to services in other processes. rejected is one that a service has just refused;
// "" when none was. It fails with fault.Unavailable.
func (s *Identity) ServiceToken(ctx context.Context, rejected string) (string, error) {
	if rejected != "" {
		s.forget(rejected)
	}
	return s.ownToken(ctx)
}

// ownToken gives the service user's token, logging in when there is none or it ends soon.
func (s *Identity) ownToken(ctx context.Context) (string, error) {
	s.tokenMu.Lock()
	defer s.tokenMu.Unlock()
	if s.token != "" && clock.Now().Before(s.renew) {
		return s.token, nil
	}
	type m = map[string]any
	body, err := json.Marshal(m{"auth": m{
		"identity": m{"methods": []string{"password"}, "password": m{"user": m{"name": s.cfg.Username, "domain": m{"name": s.cfg.UserDomain}, "password": s.cfg.Password}}},
		"scope":    m{"project": m{"name": s.cfg.Project, "domain": m{"name": s.cfg.ProjectDomain}}}}})
	if err != nil {
		return "", fmt.Errorf("encode login: %w", err)
	}
	status, h, answer, err := s.send(ctx, http.MethodPost, "/auth/tokens?nocatalog", http.Header{"Content-Type": {"application/json"}}, body)
	if err != nil {
		return "", unavailable(err)
	}
	if status == http.StatusUnauthorized {
		return "", fault.New(fault.Unavailable, "The identity service refuses the user %s: is service_password the same everywhere?", s.cfg.Username)
	}
	if status != http.StatusCreated {
		return "", unavailable(fmt.Errorf("login of the service user %s at %s: status %d", s.cfg.Username, s.cfg.AuthURL, status))
	}
	c, err := caller(answer)
	if err != nil {
		return "", unavailable(err)
	}
	s.token, s.renew = h.Get("X-Subject-Token"), c.ExpiresAt.Add(-renewBefore)
	if s.token == "" {
		return "", unavailable(errors.New("login of the service user: the answer has no token"))
	}
	return s.token, nil
}

// send makes one request. Its error never shows a header.
func (s *Identity) send(ctx context.Context, method, path string, h http.Header, body []byte) (int, http.Header, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, s.cfg.AuthURL+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, fmt.Errorf("identity request: %w", err)
	}
	r.Header = h
	r.Header.Set("Accept", "application/json")
	w, err := s.client.Do(r)
	if err != nil {
		return 0, nil, nil, fmt.Errorf("ask identity service: %w", err)
	}
	defer func() { _ = w.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(w.Body, maxAnswer))
	if err != nil {
		return 0, nil, nil, fmt.Errorf("read from identity service: %w", err)
	}
	return w.StatusCode, w.Header, b, nil
}

// caller reads a token's document.
func caller(body []byte) (*auth.Caller, error) {
	var doc struct {
		Token *struct {
			User      identity.Scoped  `json:"user"`
			Project   *identity.Scoped `json:"project"`
			Domain    *identity.Ref    `json:"domain"`
			System    map[string]bool  `json:"system"`
			Roles     []identity.Ref   `json:"roles"`
			ExpiresAt time.Time        `json:"expires_at"`
			AppCred   *struct {
				AccessRules []identity.AccessRule `json:"access_rules"`
			} `json:"application_credential"`
		} `json:"token"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, fmt.Errorf("token document: %w", err)
	}
	t := doc.Token
	if t == nil || t.User.ID == "" || t.ExpiresAt.IsZero() {
		return nil, errors.New("token document: user or expiry is missing")
	}
	full := identity.Token{User: t.User, Project: t.Project, Domain: t.Domain, System: t.System["all"], Roles: t.Roles, ExpiresAt: t.ExpiresAt.UTC()}
	if t.AppCred != nil {
		full.AccessRules = t.AppCred.AccessRules
	}
	return full.Caller(), nil
}

// ProjectExists implements identity.Directory.
func (s *Identity) ProjectExists(ctx context.Context, id string) (bool, error) {
	return s.exists(ctx, "/projects/", id)
}

// UserExists implements identity.Directory.
func (s *Identity) UserExists(ctx context.Context, id string) (bool, error) {
	return s.exists(ctx, "/users/", id)
}

func (s *Identity) exists(ctx context.Context, path, id string) (bool, error) {
	status, _, err := s.call(ctx, http.MethodGet, path+url.PathEscape(id), http.Header{})
	if err != nil {
		return false, err
	}
	switch status {
	case http.StatusOK:
		return true, nil
	case http.StatusNotFound:
		return false, nil
	case http.StatusForbidden:
		return false, fault.New(fault.Forbidden, "The service user %s may not look at projects and users: give it the role reader on the system.", s.cfg.Username)
	}
	return false, unavailable(fmt.Errorf("status %d", status))
}
