package local_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/db/dbtest"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/identity"
	"kilonova/internal/identity/keyring"
	"kilonova/internal/identity/local"
)

// cloud is a service that was bootstrapped, with ids by name.
type cloud struct {
	*local.Service
	dir, url string
	projects map[string]string
	users    map[string]string
	roles    map[string]string
}

// open is one more process on a database and a directory of keys.
func open(t testing.TB, url, dir string, cfg local.Config) *local.Service {
	t.Helper()
	cfg.DB, cfg.KeyDir = dbtest.At(t, url), filepath.Join(dir, "keys")
	if cfg.BcryptCost == 0 {
		cfg.BcryptCost = 4
	}
	s, err := local.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func boot(url string) local.BootstrapConfig {
	return local.BootstrapConfig{Users: local.StandardUsers("admin-secret", "demo-secret"), Endpoints: []local.BootstrapEndpoint{
		{Type: "identity", Name: "keystone", Public: url + "/identity"}, {Type: "compute", Name: "nova", Public: url + "/compute/v2.1/%(project_id)s"}}}
}

func newCloud(t *testing.T, cfg local.Config) *cloud {
	t.Helper()
	c := &cloud{dir: t.TempDir(), url: dbtest.URL(t), projects: map[string]string{}, users: map[string]string{}, roles: map[string]string{}}
	c.Service = open(t, c.url, c.dir, cfg)
	if err := c.Bootstrap(t.Context(), boot("http://here")); err != nil {
		t.Fatal(err)
	}
	ps := must(c.Projects.List(t.Context()))
	for _, p := range ps {
		c.projects[p.Name] = p.ID
	}
	for _, u := range must(c.Users.List(t.Context())) {
		c.users[u.Name] = u.ID
	}
	for _, r := range must(c.Roles.List(t.Context())) {
		c.roles[r.Name] = r.ID
	}
	return c
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t *testing.T, err error, k fault.Kind) {
	t.Helper()
	if err == nil || fault.KindOf(err) != k {
		t.Fatalf("error %v, want kind %v", err, k)
	}
}

func (c *cloud) login(ctx context.Context, user, password, project string) (*identity.Token, error) {
	return c.Login(ctx, identity.Login{Methods: []string{"password"}, Password: password,
		User:  identity.Selector{Name: user, DomainID: "default"},
		Scope: identity.Scope{Project: identity.Selector{Name: project, DomainName: "Default"}}})
}

func (c *cloud) demo(t *testing.T) *identity.Token {
	t.Helper()
	tok, err := c.login(t.Context(), "demo", "demo-secret", "demo")
	check(t, err)
	return tok
}

func TestLoginAndAuthenticate(t *testing.T) {
	c := newCloud(t, local.Config{})
	tok := c.demo(t)
	if len(tok.ID) > 255 {
		t.Errorf("token of %d characters", len(tok.ID))
	}
	caller, err := c.Authenticate(t.Context(), tok.ID)
	check(t, err)
	if d := cmp.Diff([]string{"member", "reader"}, caller.Roles); d != "" {
		t.Error(d)
	}
	if caller.UserName != "demo" || caller.ProjectID != c.projects["demo"] || caller.ProjectDomainName != "Default" || caller.System {
		t.Errorf("caller %+v", caller)
	}
	if left := time.Until(caller.ExpiresAt); left < 59*time.Minute || left > time.Hour {
		t.Errorf("expires in %v", left)
	}
	admin, err := c.login(t.Context(), "admin", "admin-secret", "admin")
	check(t, err)
	if d := cmp.Diff([]string{"admin", "manager", "member", "reader"}, admin.RoleNames()); d != "" {
		t.Error("implied roles:", d)
	}
}

// A token read back from its sealed form, by a process that never saw it, is the same token.
func TestTokenReadElsewhere(t *testing.T) {
	c := newCloud(t, local.Config{})
	tok := c.demo(t)
	other := open(t, c.url, c.dir, local.Config{})
	got, err := other.Validate(t.Context(), tok.ID)
	check(t, err)
	if d := cmp.Diff(tok, got); d != "" {
		t.Error(d)
	}
}

func TestRefusedLogins(t *testing.T) {
	c := newCloud(t, local.Config{})
	demo := identity.Selector{Name: "demo", DomainID: "default"}
	cases := map[string]identity.Login{
		"wrong password":     {Methods: []string{"password"}, User: demo, Password: "x"},
		"empty password":     {Methods: []string{"password"}, User: demo},
		"unknown user":       {Methods: []string{"password"}, User: identity.Selector{Name: "nobody", DomainID: "default"}, Password: "x"},
		"unknown domain":     {Methods: []string{"password"}, User: identity.Selector{Name: "demo", DomainName: "nowhere"}, Password: "demo-secret"},
		"no domain":          {Methods: []string{"password"}, User: identity.Selector{Name: "demo"}, Password: "demo-secret"},
		"unknown method":     {Methods: []string{"kerberos"}, User: demo, Password: "demo-secret"},
		"no method":          {User: demo, Password: "demo-secret"},
		"foreign project":    {Methods: []string{"password"}, User: demo, Password: "demo-secret", Scope: identity.Scope{Project: identity.Selector{ID: c.projects["admin"]}}},
		"absent project":     {Methods: []string{"password"}, User: demo, Password: "demo-secret", Scope: identity.Scope{Project: identity.Selector{ID: "absent"}}},
		"system":             {Methods: []string{"password"}, User: demo, Password: "demo-secret", Scope: identity.Scope{System: true}},
		"domain":             {Methods: []string{"password"}, User: demo, Password: "demo-secret", Scope: identity.Scope{Domain: identity.Selector{ID: "default"}}},
		"no such credential": {Methods: []string{"application_credential"}, AppCred: identity.AppCredLogin{ID: "absent", Secret: "x"}},
		"no passcode":        {Methods: []string{"totp"}, User: demo, Passcode: "000000"},
	}
	for name, l := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := c.Login(t.Context(), l)
			wantKind(t, err, fault.Unauthorized)
			if text := fault.PublicText(err); text != "The request you have made requires authentication." {
				t.Errorf("the answer tells why: %s", text)
			}
		})
	}
}

// What ends a token ends it at once, in the process that did it and, after a look at the changes, in every other.
func TestWhatEndsATokenEndsItEverywhere(t *testing.T) {
	off := func(p *identity.Project) error { p.Enabled = false; return nil }
	cases := map[string]func(ctx context.Context, c *cloud, tok *identity.Token) error{
		"revoked": func(ctx context.Context, c *cloud, tok *identity.Token) error { return c.RevokeToken(ctx, tok) },
		"user disabled": func(ctx context.Context, c *cloud, _ *identity.Token) error {
			_, err := c.Users.Update(ctx, c.users["demo"], func(u *identity.User) error { u.Enabled = false; return nil })
			return err
		},
		"user disabled and enabled again": func(ctx context.Context, c *cloud, _ *identity.Token) error {
			for _, on := range []bool{false, true} {
				if _, err := c.Users.Update(ctx, c.users["demo"], func(u *identity.User) error { u.Enabled = on; return nil }); err != nil {
					return err
				}
			}
			return nil
		},
		"user deleted": func(ctx context.Context, c *cloud, _ *identity.Token) error {
			return c.Users.Delete(ctx, c.users["demo"])
		},
		"password changed": func(ctx context.Context, c *cloud, _ *identity.Token) error {
			return c.SetPassword(ctx, c.users["demo"], "other", false)
		},
		"project disabled": func(ctx context.Context, c *cloud, _ *identity.Token) error {
			_, err := c.Projects.Update(ctx, c.projects["demo"], off)
			return err
		},
		"project deleted": func(ctx context.Context, c *cloud, _ *identity.Token) error {
			return c.Projects.Delete(ctx, c.projects["demo"])
		},
		"domain disabled": func(ctx context.Context, c *cloud, _ *identity.Token) error {
			_, err := c.Projects.Update(ctx, "default", off)
			return err
		},
		"last role gone": func(ctx context.Context, c *cloud, _ *identity.Token) error {
			for _, r := range []string{"member", "reader"} {
				if err := c.Revoke(ctx, identity.Assignment{UserID: c.users["demo"], ProjectID: c.projects["demo"], RoleID: c.roles[r]}); err != nil {
					return err
				}
			}
			return nil
		},
	}
	for name, end := range cases {
		t.Run(name, func(t *testing.T) {
			c := newCloud(t, local.Config{})
			other := open(t, c.url, c.dir, local.Config{SyncEvery: time.Nanosecond})
			late := open(t, c.url, c.dir, local.Config{SyncEvery: time.Hour})
			tok := c.demo(t)
			for _, s := range []*local.Service{c.Service, other, late} { // each now remembers it
				_, err := s.Authenticate(t.Context(), tok.ID)
				check(t, err)
			}
			check(t, end(t.Context(), c, tok))
			for _, s := range []*local.Service{c.Service, other} {
				_, err := s.Authenticate(t.Context(), tok.ID)
				wantKind(t, err, fault.Unauthorized)
			}
			if _, err := late.Authenticate(t.Context(), tok.ID); err != nil {
				t.Errorf("the process that has not looked yet already knows: the test shows nothing: %v", err)
			}
		})
	}
}

func TestRoleChangeShowsAtOnce(t *testing.T) {
	c := newCloud(t, local.Config{})
	tok := c.demo(t)
	a := identity.Assignment{UserID: c.users["demo"], ProjectID: c.projects["demo"], RoleID: c.roles["manager"]}
	check(t, c.Grant(t.Context(), a))
	if got := must(c.Authenticate(t.Context(), tok.ID)).Roles; cmp.Diff([]string{"manager", "member", "reader"}, got) != "" {
		t.Errorf("after the grant: %v", got)
	}
	check(t, c.Unimply(t.Context(), c.roles["manager"], c.roles["member"]))
	check(t, c.Revoke(t.Context(), identity.Assignment{UserID: a.UserID, ProjectID: a.ProjectID, RoleID: c.roles["member"]}))
	if got := must(c.Authenticate(t.Context(), tok.ID)).Roles; cmp.Diff([]string{"manager", "reader"}, got) != "" {
		t.Errorf("after the inference rule went: %v", got)
	}
}

// While many validate, a revocation that has returned is seen by every later validation.
func TestRevocationUnderLoad(t *testing.T) {
	c := newCloud(t, local.Config{CacheTTL: time.Minute})
	for range 20 {
		tok := c.demo(t)
		stop, gone := make(chan struct{}), make(chan struct{})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for {
					after := false
					select {
					case <-stop:
						return
					case <-gone:
						after = true
					default:
					}
					_, err := c.Authenticate(context.Background(), tok.ID)
					if after && !errors.Is(err, fault.Unauthorized) {
						t.Errorf("after the revocation: %v", err)
						return
					}
					if after {
						return
					}
				}
			})
		}
		check(t, c.RevokeToken(t.Context(), tok))
		close(gone)
		wg.Wait()
		close(stop)
	}
}

func TestMalformedTokens(t *testing.T) {
	c := newCloud(t, local.Config{})
	tok := c.demo(t).ID
	flipped := []byte(tok)
	flipped[len(flipped)/2] ^= 1
	for _, bad := range []string{"", "x", "gAAAAA", tok[:len(tok)-1], tok + "A", string(flipped), strings.Repeat("A", 228), strings.Repeat("é", 200), tok + tok, strings.Repeat("g", 1<<20)} {
		_, err := c.Authenticate(t.Context(), bad)
		wantKind(t, err, fault.Unauthorized)
	}
}

func TestExpiredTokens(t *testing.T) {
	c := newCloud(t, local.Config{TokenTTL: time.Nanosecond})
	_, err := c.login(t.Context(), "demo", "demo-secret", "demo")
	wantKind(t, err, fault.Unauthorized)
}

func TestKeyRotation(t *testing.T) {
	c := newCloud(t, local.Config{CacheTTL: time.Nanosecond})
	first := c.demo(t)
	other := open(t, c.url, c.dir, local.Config{})
	check(t, keyring.Rotate(filepath.Join(c.dir, "keys"), time.Hour))
	second := c.demo(t)
	for _, tok := range []*identity.Token{first, second} {
		if _, err := c.Validate(t.Context(), tok.ID); err != nil {
			t.Fatalf("after one rotation: %v", err)
		}
	}
	if _, err := other.Validate(t.Context(), second.ID); err != nil {
		t.Fatalf("a process that read the keys before the rotation: %v", err) // its staged key is now the primary one
	}
	check(t, keyring.Rotate(filepath.Join(c.dir, "keys"), time.Hour))
	if _, err := c.Validate(t.Context(), first.ID); err != nil {
		t.Fatalf("after two rotations: %v", err)
	}
	check(t, keyring.Rotate(filepath.Join(c.dir, "keys"), 0))
	_, err := c.Validate(t.Context(), first.ID)
	wantKind(t, err, fault.Unauthorized)
}

func TestTokenForToken(t *testing.T) {
	c := newCloud(t, local.Config{})
	unscoped, err := c.Login(t.Context(), identity.Login{Methods: []string{"password"}, User: identity.Selector{ID: c.users["demo"]}, Password: "demo-secret"})
	check(t, err)
	if unscoped.IsScoped() {
		t.Fatal("demo has no default project, yet the token has a scope")
	}
	scoped, err := c.Login(t.Context(), identity.Login{Methods: []string{"token"}, Token: unscoped.ID, Scope: identity.Scope{Project: identity.Selector{ID: c.projects["demo"]}}})
	check(t, err)
	if !scoped.ExpiresAt.Equal(unscoped.ExpiresAt) {
		t.Error("the new token lives longer than the old one")
	}
	if d := cmp.Diff([]string{"password", "token"}, scoped.Methods); d != "" {
		t.Error(d)
	}
	if len(scoped.AuditIDs) != 2 || scoped.AuditIDs[1] != unscoped.AuditIDs[0] {
		t.Errorf("audit chain %v of %v", scoped.AuditIDs, unscoped.AuditIDs)
	}
	check(t, c.RevokeToken(t.Context(), scoped))
	if _, err := c.Validate(t.Context(), unscoped.ID); err != nil {
		t.Errorf("revoking the scoped token ended the other: %v", err)
	}
	_, err = c.Login(t.Context(), identity.Login{Methods: []string{"token"}, Token: scoped.ID})
	wantKind(t, err, fault.NotFound)
}

func TestDefaultProject(t *testing.T) {
	c := newCloud(t, local.Config{})
	set := func(project string) {
		_, err := c.Users.Update(t.Context(), c.users["demo"], func(u *identity.User) error { u.DefaultProjectID = project; return nil })
		check(t, err)
	}
	l := identity.Login{Methods: []string{"password"}, User: identity.Selector{ID: c.users["demo"]}, Password: "demo-secret"}
	set(c.projects["demo"])
	if tok := must(c.Login(t.Context(), l)); tok.Project == nil || tok.Project.ID != c.projects["demo"] {
		t.Errorf("scope %+v", tok.Project)
	}
	set(c.projects["admin"]) // no role there
	if tok := must(c.Login(t.Context(), l)); tok.IsScoped() {
		t.Errorf("scope %+v", tok.Project)
	}
	set(c.projects["demo"])
	l.Scope.Unscoped = true
	if tok := must(c.Login(t.Context(), l)); tok.IsScoped() {
		t.Errorf("scope %+v", tok.Project)
	}
}

func TestLockout(t *testing.T) {
	c := newCloud(t, local.Config{LockoutFailures: 2, LockoutDuration: time.Hour})
	for range 2 {
		_, err := c.login(t.Context(), "demo", "wrong", "demo")
		wantKind(t, err, fault.Unauthorized)
	}
	_, err := c.login(t.Context(), "demo", "demo-secret", "demo")
	wantKind(t, err, fault.Unauthorized)
	_, err = c.Users.Update(t.Context(), c.users["demo"], func(u *identity.User) error { u.FailedAt = u.FailedAt.Add(-2 * time.Hour); return nil })
	check(t, err)
	c.demo(t)
	if u := must(c.Users.Get(t.Context(), c.users["demo"])); u.FailedAuths != 0 {
		t.Errorf("%d failures are still counted after a good login", u.FailedAuths)
	}
}

func TestPasswordHistory(t *testing.T) {
	c := newCloud(t, local.Config{PasswordHistory: 2, PasswordLifetime: time.Hour})
	u := c.users["demo"]
	wantKind(t, c.SetPassword(t.Context(), u, "demo-secret", true), fault.Invalid)
	check(t, c.SetPassword(t.Context(), u, "second", true))
	wantKind(t, c.SetPassword(t.Context(), u, "demo-secret", true), fault.Invalid)
	check(t, c.SetPassword(t.Context(), u, "third", true))
	check(t, c.SetPassword(t.Context(), u, "demo-secret", true))
	check(t, c.SetPassword(t.Context(), u, "demo-secret", false)) // an administrator may
	_, err := c.Users.Update(t.Context(), u, func(u *identity.User) error { u.PasswordExpiresAt = time.Now().Add(-time.Second); return nil })
	check(t, err)
	_, err = c.login(t.Context(), "demo", "demo-secret", "demo")
	wantKind(t, err, fault.Unauthorized)
	if !strings.Contains(fault.PublicText(err), "expired") {
		t.Errorf("the user is not told that the password expired: %v", err)
	}
}

// bcrypt looks at 72 bytes; a longer password must count to its end.
func TestLongPasswords(t *testing.T) {
	c := newCloud(t, local.Config{})
	long := strings.Repeat("a", 80)
	check(t, c.SetPassword(t.Context(), c.users["demo"], long+"1", false))
	if _, err := c.login(t.Context(), "demo", long+"1", "demo"); err != nil {
		t.Error(err)
	}
	_, err := c.login(t.Context(), "demo", long+"2", "demo")
	wantKind(t, err, fault.Unauthorized)
}

func TestBootstrapTwice(t *testing.T) {
	c := newCloud(t, local.Config{})
	tok := c.demo(t)
	before := must(c.Endpoints.List(t.Context()))
	check(t, c.Bootstrap(t.Context(), boot("http://there")))
	after := must(c.Endpoints.List(t.Context()))
	if len(before) != 6 || len(after) != 6 {
		t.Fatalf("%d endpoints, then %d; want 6", len(before), len(after))
	}
	for i := range after {
		if before[i].ID != after[i].ID || !strings.HasPrefix(after[i].URL, "http://there/") {
			t.Errorf("endpoint %+v became %+v", before[i], after[i])
		}
	}
	if _, err := c.Validate(t.Context(), tok.ID); err != nil {
		t.Errorf("the second bootstrap ended a token: %v", err)
	}
	again := boot("http://there")
	again.Users[1].Password = "new"
	check(t, c.Bootstrap(t.Context(), again)) // passwords stay
	c.demo(t)
	again.ResetPasswords = true
	check(t, c.Bootstrap(t.Context(), again))
	_, err := c.login(t.Context(), "demo", "new", "demo")
	check(t, err)
	if n := len(must(c.Users.List(t.Context()))); n != 2 {
		t.Errorf("%d users", n)
	}
}

func TestGeneratedPassword(t *testing.T) {
	c := newCloud(t, local.Config{})
	check(t, c.Bootstrap(t.Context(), local.BootstrapConfig{Users: []local.BootstrapUser{
		{Name: "nova", Password: "0123456789abcdef", Project: "service", Roles: []string{"service"}, Generated: true}}}))
	_, err := c.login(t.Context(), "nova", "0123456789abcdef", "service")
	check(t, err)
	for _, wrong := range []string{"", "0123456789abcdeg", "{sha256}" + must(c.Users.List(t.Context(), local.Filter{Field: "name", Value: "nova"}))[0].PasswordHash} {
		_, err = c.login(t.Context(), "nova", wrong, "service")
		wantKind(t, err, fault.Unauthorized)
	}
}

func TestCatalogFollowsChanges(t *testing.T) {
	c := newCloud(t, local.Config{})
	tok := c.demo(t)
	urls := func() (out []string) {
		for _, e := range must(c.Catalog(t.Context(), tok)) {
			for _, p := range e.Endpoints {
				if p.Interface == "public" {
					out = append(out, p.URL)
				}
			}
		}
		return out
	}
	want := []string{"http://here/compute/v2.1/" + c.projects["demo"], "http://here/identity"}
	if d := cmp.Diff(want, urls()); d != "" {
		t.Fatal(d)
	}
	eps := must(c.Endpoints.List(t.Context(), local.Filter{Field: "interface", Value: "public"}))
	for _, e := range eps {
		if strings.Contains(e.URL, "compute") {
			_, err := c.Endpoints.Update(t.Context(), e.ID, func(e *identity.Endpoint) error { e.Enabled = false; return nil })
			check(t, err)
		}
	}
	if d := cmp.Diff(want[1:], urls()); d != "" {
		t.Error("a disabled endpoint:", d)
	}
	check(t, c.PickEndpoint(t.Context(), c.projects["demo"], must(c.Endpoints.List(t.Context(), local.Filter{Field: "interface", Value: "admin"}))[0].ID))
	if got := urls(); got != nil {
		t.Errorf("a project with picked endpoints sees others: %v", got)
	}
}

// A domain is found by its name in any case as long as one only is meant; who writes it as it is means that one.
func TestDomainNamesInAnyCase(t *testing.T) {
	c := newCloud(t, local.Config{})
	login := func(user, project string) error {
		_, err := c.Login(t.Context(), identity.Login{Methods: []string{"password"}, Password: "demo-secret", User: identity.Selector{Name: "demo", DomainName: user},
			Scope: identity.Scope{Project: identity.Selector{Name: "demo", DomainName: project}}})
		return err
	}
	domain := func(name string) {
		check(t, c.Projects.Create(t.Context(), &identity.Project{ID: id.Hex(), Name: name, IsDomain: true, Enabled: true}))
	}
	check(t, login("default", "DEFAULT"))
	domain("DEFAULT")
	check(t, login("Default", "Default"))
	wantKind(t, login("default", "Default"), fault.Unauthorized) // which of the two?
	wantKind(t, login("Default", "default"), fault.Unauthorized)
	domain("default")
	wantKind(t, login("default", "Default"), fault.Unauthorized) // now it is the third one, where no demo is
	check(t, login("Default", "Default"))
}

func TestProjectRules(t *testing.T) {
	c := newCloud(t, local.Config{MaxProjectDepth: 2})
	ctx := t.Context()
	mk := func(name, parent string) (*identity.Project, error) {
		p := &identity.Project{ID: id.Hex(), DomainID: "default", ParentID: parent, Name: name, Enabled: true}
		return p, c.Projects.Create(ctx, p)
	}
	a := must(mk("a", ""))
	b := must(mk("b", a.ID))
	_, err := mk("c", b.ID)
	wantKind(t, err, fault.Forbidden) // too deep
	_, err = mk("a", "")
	wantKind(t, err, fault.Conflict)
	_, err = mk("d", "absent")
	wantKind(t, err, fault.NotFound)
	wantKind(t, c.Projects.Delete(ctx, a.ID), fault.Forbidden) // has a child
	_, err = c.Projects.Update(ctx, a.ID, func(p *identity.Project) error { p.Enabled = false; return nil })
	wantKind(t, err, fault.Forbidden) // its child is enabled
	for _, id := range []string{b.ID, a.ID} {
		_, err = c.Projects.Update(ctx, id, func(p *identity.Project) error { p.Enabled = false; return nil })
		check(t, err)
	}
	_, err = mk("e", a.ID)
	wantKind(t, err, fault.Forbidden)                          // the parent is disabled
	wantKind(t, c.Projects.Delete(ctx, a.ID), fault.Forbidden) // still
	check(t, c.Projects.Delete(ctx, b.ID))
	check(t, c.Projects.Delete(ctx, a.ID))
	_, err = c.Projects.Get(ctx, b.ID)
	wantKind(t, err, fault.NotFound)
	wantKind(t, c.Projects.Delete(ctx, "default"), fault.Forbidden) // an enabled domain
	_, err = c.Projects.Update(ctx, c.projects["demo"], func(p *identity.Project) error { p.Options = identity.Attrs{"immutable": true}; return nil })
	check(t, err)
	wantKind(t, c.Projects.Delete(ctx, c.projects["demo"]), fault.Forbidden)
	wantKind(t, c.Roles.Delete(ctx, c.roles["admin"]), fault.Forbidden)
}

func TestDomainTakesItsContentAlong(t *testing.T) {
	c := newCloud(t, local.Config{})
	ctx := t.Context()
	d := &identity.Project{ID: id.Hex(), Name: "d", IsDomain: true, Enabled: true}
	check(t, c.Projects.Create(ctx, d))
	p := &identity.Project{ID: id.Hex(), DomainID: d.ID, Name: "p", Enabled: true}
	check(t, c.Projects.Create(ctx, p))
	u := &identity.User{ID: id.Hex(), DomainID: d.ID, Name: "u", Enabled: true}
	check(t, c.Users.Create(ctx, u))
	r := &identity.Role{ID: id.Hex(), DomainID: d.ID, Name: "r"}
	check(t, c.Roles.Create(ctx, r))
	check(t, c.Grant(ctx, identity.Assignment{UserID: u.ID, ProjectID: p.ID, RoleID: r.ID}))
	wantKind(t, c.Grant(ctx, identity.Assignment{UserID: u.ID, ProjectID: c.projects["demo"], RoleID: r.ID}), fault.Forbidden)
	_, err := c.Projects.Update(ctx, d.ID, func(p *identity.Project) error { p.Enabled = false; return nil })
	check(t, err)
	check(t, c.Projects.Delete(ctx, d.ID))
	for what, err := range map[string]error{"project": errOf(c.Projects.Get(ctx, p.ID)), "user": errOf(c.Users.Get(ctx, u.ID)), "role": errOf(c.Roles.Get(ctx, r.ID))} {
		if fault.KindOf(err) != fault.NotFound {
			t.Errorf("%s: %v", what, err)
		}
	}
	if left := must(c.Assignments(ctx, local.AssignmentQuery{ProjectID: p.ID})); len(left) != 0 {
		t.Errorf("assignments left: %v", left)
	}
}

func errOf[T any](_ T, err error) error { return err }
