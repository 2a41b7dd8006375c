package remote_test

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/auth"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/identity"
	"kilonova/internal/identity/api"
	"kilonova/internal/identity/local"
	"kilonova/internal/identity/remote"
)

// keystone is a real identity service on loopback that counts what it is asked.
type keystone struct {
	*local.Service
	server  *httptest.Server
	lookups atomic.Int64 // GET /v3/auth/tokens
	logins  atomic.Int64
	broken  atomic.Int64 // status to answer with instead; 0: none
}

func newKeystone(t *testing.T) *keystone {
	t.Helper()
	dir := t.TempDir()
	d, err := db.Open(t.Context(), "sqlite:"+filepath.Join(dir, "identity.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	k := &keystone{}
	if k.Service, err = local.New(t.Context(), local.Config{DB: d, KeyDir: filepath.Join(dir, "keys"), BcryptCost: 4}); err != nil {
		t.Fatal(err)
	}
	users := append(local.StandardUsers("admin-secret", "demo-secret"), local.BootstrapUser{Name: "nova", Password: "nova-secret", Project: "service", Roles: []string{"service"}})
	if err := k.Bootstrap(t.Context(), local.BootstrapConfig{Users: users}); err != nil {
		t.Fatal(err)
	}
	rest, err := api.New(k.Service, nil)
	if err != nil {
		t.Fatal(err)
	}
	h, err := rest.Handler()
	if err != nil {
		t.Fatal(err)
	}
	k.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v3/auth/tokens" {
			if r.Method == http.MethodGet {
				k.lookups.Add(1)
			} else {
				k.logins.Add(1)
			}
		}
		if n := k.broken.Load(); n != 0 {
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.WriteHeader(int(n))
			return
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(k.server.Close)
	return k
}

func (k *keystone) connect(t *testing.T, cfg remote.Config) *remote.Identity {
	t.Helper()
	cfg.AuthURL, cfg.Username = k.server.URL, "nova"
	if cfg.Password == "" {
		cfg.Password = "nova-secret"
	}
	s, err := remote.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (k *keystone) demo(t *testing.T) *identity.Token {
	t.Helper()
	tok, err := k.Login(t.Context(), identity.Login{Methods: []string{"password"}, User: identity.Selector{Name: "demo", DomainID: "default"}, Password: "demo-secret",
		Scope: identity.Scope{Project: identity.Selector{Name: "demo", DomainID: "default"}}})
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func wantKind(t *testing.T, err error, k fault.Kind) {
	t.Helper()
	if err == nil || fault.KindOf(err) != k {
		t.Fatalf("error %v, want %v", err, k)
	}
}

func TestSameCallerAsLocally(t *testing.T) {
	k := newKeystone(t)
	s := k.connect(t, remote.Config{CacheTTL: time.Hour})
	tok := k.demo(t)
	want, err := k.Authenticate(t.Context(), tok.ID)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			got, err := s.Authenticate(t.Context(), tok.ID)
			if err != nil {
				t.Error(err)
				return
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		})
	}
	wg.Wait()
	if n := k.lookups.Load(); n != 1 {
		t.Errorf("%d look-ups for one token", n)
	}
	if n := k.logins.Load(); n != 1 {
		t.Errorf("%d logins of the service user", n)
	}
}

// TestOneLookUp: callers that come while the answer for others arrives do not ask again.
func TestOneLookUp(t *testing.T) {
	k := newKeystone(t)
	for round := range 100 {
		s := k.connect(t, remote.Config{CacheTTL: time.Hour, RefusedTTL: time.Hour})
		before := k.lookups.Load()
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				for range 50 * i { // somewhat later than the others
					runtime.Gosched()
				}
				_, err := s.Authenticate(t.Context(), "garbage")
				if err == nil || fault.KindOf(err) != fault.Unauthorized {
					t.Errorf("error %v", err)
				}
			})
		}
		wg.Wait()
		if n := k.lookups.Load() - before; n != 1 {
			t.Fatalf("round %d: %d look-ups for one token", round, n)
		}
	}
}

func TestRefusedTokens(t *testing.T) {
	k := newKeystone(t)
	s := k.connect(t, remote.Config{CacheTTL: time.Nanosecond, RefusedTTL: time.Hour})
	tok := k.demo(t)
	if _, err := s.Authenticate(t.Context(), tok.ID); err != nil {
		t.Fatal(err)
	}
	if err := k.RevokeToken(t.Context(), tok); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{tok.ID, "garbage", "", "two words", "line\nbreak"} {
		_, err := s.Authenticate(t.Context(), bad)
		wantKind(t, err, fault.Unauthorized)
	}
	before := k.lookups.Load()
	_, err := s.Authenticate(t.Context(), "garbage")
	wantKind(t, err, fault.Unauthorized)
	if k.lookups.Load() != before {
		t.Error("a token that was just refused was asked for again")
	}
}

// The service user's own token may end at any time: one new login, no error.
func TestServiceTokenRenewed(t *testing.T) {
	k := newKeystone(t)
	s := k.connect(t, remote.Config{CacheTTL: time.Nanosecond})
	tok := k.demo(t)
	if _, err := s.Authenticate(t.Context(), tok.ID); err != nil {
		t.Fatal(err)
	}
	users, err := k.Users.List(t.Context(), local.Filter{Field: "name", Value: "nova"})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.SetPassword(t.Context(), users[0].ID, "nova-secret", false); err != nil { // ends all its tokens
		t.Fatal(err)
	}
	if _, err := s.Authenticate(t.Context(), tok.ID); err != nil {
		t.Fatal(err)
	}
	if n := k.logins.Load(); n != 2 {
		t.Errorf("%d logins, want 2", n)
	}
}

func TestUnavailable(t *testing.T) {
	k := newKeystone(t)
	tok := k.demo(t)
	wrong := k.connect(t, remote.Config{Password: "wrong"})
	_, err := wrong.Authenticate(t.Context(), tok.ID)
	wantKind(t, err, fault.Unavailable) // the caller's token is not to blame
	s := k.connect(t, remote.Config{CacheTTL: time.Hour})
	if _, err := s.Authenticate(t.Context(), tok.ID); err != nil {
		t.Fatal(err)
	}
	second := k.demo(t)
	for _, status := range []int64{500, 503, 302, 403} {
		k.broken.Store(status)
		_, err := s.Authenticate(t.Context(), second.ID)
		wantKind(t, err, fault.Unavailable)
	}
	k.server.Close()
	_, err = s.Authenticate(t.Context(), second.ID)
	wantKind(t, err, fault.Unavailable)
	if _, err := s.Authenticate(t.Context(), tok.ID); err != nil {
		t.Errorf("a remembered token: %v", err)
	}
}

func TestDirectory(t *testing.T) {
	k := newKeystone(t)
	s := k.connect(t, remote.Config{})
	demo := k.demo(t)
	for id, want := range map[string]bool{demo.Project.ID: true, "absent": false, "../users": false} {
		if got, err := s.ProjectExists(t.Context(), id); err != nil || got != want {
			t.Errorf("project %s: %v %v", id, got, err)
		}
	}
	if got, err := s.UserExists(t.Context(), demo.User.ID); err != nil || !got {
		t.Errorf("user: %v %v", got, err)
	}
}

func TestBadURL(t *testing.T) {
	for _, bad := range []string{"", "keystone", "ftp://x", "http://"} {
		_, err := remote.New(remote.Config{AuthURL: bad})
		wantKind(t, err, fault.Invalid)
	}
}

func TestAccessRulesGoAlong(t *testing.T) {
	k := newKeystone(t)
	s := k.connect(t, remote.Config{})
	cred := &identity.AppCred{Name: "narrow"}
	secret, _, err := k.CreateAppCred(t.Context(), cred, nil, []identity.AccessRule{{Service: "compute", Method: "GET", Path: "/v2.1/servers"}}, k.demo(t), "")
	if err != nil {
		t.Fatal(err)
	}
	tok, err := k.Login(t.Context(), identity.Login{Methods: []string{"application_credential"}, AppCred: identity.AppCredLogin{ID: cred.ID, Secret: secret}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Authenticate(t.Context(), tok.ID)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]auth.AccessRule{{Service: "compute", Method: "GET", Path: "/v2.1/servers"}}, got.AccessRules); d != "" {
		t.Error(d)
	}
}
