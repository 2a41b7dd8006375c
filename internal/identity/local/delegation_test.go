package local_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/identity"
	"kilonova/internal/identity/local"
)

func TestApplicationCredential(t *testing.T) {
	c := newCloud(t, local.Config{})
	ctx := t.Context()
	tok := c.demo(t)
	cred := &identity.AppCred{Name: "robot"}
	secret, _, err := c.CreateAppCred(ctx, cred, []identity.Ref{{Name: "member"}}, nil, tok, "")
	check(t, err)
	l := identity.Login{Methods: []string{"application_credential"}, AppCred: identity.AppCredLogin{ID: cred.ID, Secret: secret}}
	got, err := c.Login(ctx, l)
	check(t, err)
	if d := cmp.Diff([]string{"member", "reader"}, got.RoleNames()); d != "" {
		t.Error(d)
	}
	byName := identity.Login{Methods: l.Methods, AppCred: identity.AppCredLogin{Name: "robot", Secret: secret, User: identity.Selector{Name: "demo", DomainName: "Default"}}}
	if _, err := c.Login(ctx, byName); err != nil {
		t.Errorf("by name: %v", err)
	}
	for name, bad := range map[string]identity.Login{
		"wrong secret": {Methods: l.Methods, AppCred: identity.AppCredLogin{ID: cred.ID, Secret: secret + "x"}},
		"with a scope": {Methods: l.Methods, AppCred: l.AppCred, Scope: identity.Scope{Project: identity.Selector{ID: c.projects["demo"]}}},
	} {
		_, err := c.Login(ctx, bad)
		if fault.KindOf(err) != fault.Unauthorized {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err = c.Login(ctx, identity.Login{Methods: []string{"token"}, Token: got.ID})
	wantKind(t, err, fault.Forbidden)
	_, _, err = c.CreateAppCred(ctx, &identity.AppCred{Name: "greedy"}, []identity.Ref{{Name: "admin"}}, nil, tok, "")
	wantKind(t, err, fault.Invalid)
	_, _, err = c.CreateAppCred(ctx, &identity.AppCred{Name: "robot"}, nil, nil, tok, "")
	wantKind(t, err, fault.Conflict)
	// What the user loses the credential loses.
	check(t, c.Revoke(ctx, identity.Assignment{UserID: tok.User.ID, ProjectID: c.projects["demo"], RoleID: c.roles["member"]}))
	if rest := must(c.Validate(ctx, got.ID)).RoleNames(); cmp.Diff([]string{"reader"}, rest) != "" {
		t.Errorf("roles after the loss: %v", rest)
	}
	check(t, c.AppCreds.Delete(ctx, cred.ID))
	_, err = c.Validate(ctx, got.ID)
	wantKind(t, err, fault.Unauthorized)
}

// A token of an application credential with access rules carries them to whoever serves it.
func TestAccessRulesGoAlong(t *testing.T) {
	c := newCloud(t, local.Config{})
	ctx := t.Context()
	cred := &identity.AppCred{Name: "narrow"}
	rules := []identity.AccessRule{{Service: "compute", Method: "GET", Path: "/v2.1/servers"}}
	secret, kept, err := c.CreateAppCred(ctx, cred, nil, rules, c.demo(t), "a chosen secret")
	check(t, err)
	if secret != "a chosen secret" || len(kept) != 1 || kept[0].ID == "" {
		t.Fatalf("secret %q rules %+v", secret, kept)
	}
	tok, err := c.Login(ctx, identity.Login{Methods: []string{"application_credential"}, AppCred: identity.AppCredLogin{ID: cred.ID, Secret: secret}})
	check(t, err)
	if got := must(c.Authenticate(ctx, tok.ID)); !got.May("compute", "GET", "/v2.1/servers") || got.May("compute", "GET", "/v2.1/flavors") {
		t.Errorf("caller %+v", got)
	}
	if got := must(c.Validate(ctx, tok.ID)); cmp.Diff(kept, got.AccessRules) != "" {
		t.Errorf("rules %+v", got.AccessRules)
	}
	wantKind(t, c.AccessRules.Delete(ctx, kept[0].ID), fault.Forbidden) // in use
	_, again, err := c.CreateAppCred(ctx, &identity.AppCred{Name: "second"}, nil, rules, c.demo(t), "")
	check(t, err)
	if again[0].ID != kept[0].ID {
		t.Error("the same rule was made twice")
	}
}

func TestTrust(t *testing.T) {
	c := newCloud(t, local.Config{})
	ctx := t.Context()
	admin, err := c.login(ctx, "admin", "admin-secret", "admin")
	check(t, err)
	for _, impersonate := range []bool{true, false} {
		tr := &identity.Trust{TrustorID: c.users["admin"], TrusteeID: c.users["demo"], ProjectID: c.projects["admin"], Impersonation: impersonate, RemainingUses: 1}
		check(t, c.CreateTrust(ctx, tr, []identity.Ref{{Name: "reader"}}, admin))
		l := identity.Login{Methods: []string{"password"}, User: identity.Selector{ID: c.users["demo"]}, Password: "demo-secret", Scope: identity.Scope{TrustID: tr.ID}}
		tok, err := c.Login(ctx, l)
		check(t, err)
		user := map[bool]string{true: "admin", false: "demo"}[impersonate]
		if tok.User.Name != user || tok.Project.ID != c.projects["admin"] || cmp.Diff([]string{"reader"}, tok.RoleNames()) != "" {
			t.Errorf("impersonation %v: token of %s with %v", impersonate, tok.User.Name, tok.RoleNames())
		}
		_, err = c.Login(ctx, l)
		wantKind(t, err, fault.Forbidden) // its only use is spent
		check(t, c.EndTrust(ctx, tr.ID))
		_, err = c.Validate(ctx, tok.ID)
		wantKind(t, err, fault.Unauthorized)
	}
	// The trustee's new password ends what the trustee holds.
	tr := &identity.Trust{TrustorID: c.users["admin"], TrusteeID: c.users["demo"], Impersonation: true, RemainingUses: -1}
	check(t, c.CreateTrust(ctx, tr, nil, admin)) // without a project: only the name
	tok, err := c.Login(ctx, identity.Login{Methods: []string{"password"}, User: identity.Selector{ID: c.users["demo"]}, Password: "demo-secret", Scope: identity.Scope{TrustID: tr.ID}})
	check(t, err)
	if tok.User.Name != "admin" || tok.IsScoped() || tok.Trust == nil {
		t.Errorf("token %+v", tok)
	}
	check(t, c.SetPassword(ctx, c.users["demo"], "demo-secret", false))
	_, err = c.Validate(ctx, tok.ID)
	wantKind(t, err, fault.Unauthorized)
	wantKind(t, c.CreateTrust(ctx, &identity.Trust{TrustorID: c.users["demo"], TrusteeID: c.users["admin"]}, nil, admin), fault.Forbidden)
	wantKind(t, c.CreateTrust(ctx, &identity.Trust{TrustorID: c.users["admin"], TrusteeID: c.users["demo"], ProjectID: c.projects["demo"]},
		[]identity.Ref{{Name: "member"}}, admin), fault.Forbidden) // admin has no role on demo
}

func TestGroupsAndInheritance(t *testing.T) {
	c := newCloud(t, local.Config{})
	ctx := t.Context()
	g := &identity.Group{ID: id.Hex(), DomainID: "default", Name: "g"}
	check(t, c.Groups.Create(ctx, g))
	u := &identity.User{ID: id.Hex(), DomainID: "default", Name: "u", Enabled: true, PasswordHash: must(c.HashPassword(ctx, "pw"))}
	check(t, c.Users.Create(ctx, u))
	top := &identity.Project{ID: id.Hex(), DomainID: "default", Name: "top", Enabled: true}
	check(t, c.Projects.Create(ctx, top))
	leaf := &identity.Project{ID: id.Hex(), ParentID: top.ID, DomainID: "default", Name: "leaf", Enabled: true}
	check(t, c.Projects.Create(ctx, leaf))
	check(t, c.AddMember(ctx, g.ID, u.ID))
	check(t, c.Grant(ctx, identity.Assignment{GroupID: g.ID, ProjectID: top.ID, RoleID: c.roles["member"], Inherited: true}))

	_, err := c.login(ctx, "u", "pw", "top")
	wantKind(t, err, fault.Unauthorized) // an inherited role does not hold on its target
	tok, err := c.login(ctx, "u", "pw", "leaf")
	check(t, err)
	if d := cmp.Diff([]string{"member", "reader"}, tok.RoleNames()); d != "" {
		t.Error(d)
	}
	want := []identity.Assignment{
		{UserID: u.ID, ProjectID: leaf.ID, RoleID: c.roles["member"], Inherited: true, ViaGroupID: g.ID, ViaProjectID: top.ID},
		{UserID: u.ID, ProjectID: leaf.ID, RoleID: c.roles["reader"], Inherited: true, ViaGroupID: g.ID, ViaProjectID: top.ID, PriorRoleID: c.roles["member"]},
	}
	if d := cmp.Diff(want, must(c.Assignments(ctx, local.AssignmentQuery{UserID: u.ID, Effective: true}))); d != "" {
		t.Error(d)
	}
	if got := must(c.UserProjects(ctx, u.ID)); len(got) != 1 || got[0].ID != leaf.ID {
		t.Errorf("projects %+v", got)
	}
	check(t, c.RemoveMember(ctx, g.ID, u.ID))
	_, err = c.Validate(ctx, tok.ID)
	wantKind(t, err, fault.Unauthorized)

	check(t, c.Grant(ctx, identity.Assignment{UserID: u.ID, DomainID: "default", RoleID: c.roles["reader"], Inherited: true}))
	tok, err = c.login(ctx, "u", "pw", "demo")
	check(t, err)
	if d := cmp.Diff([]string{"reader"}, tok.RoleNames()); d != "" {
		t.Error(d)
	}
}

func TestDomainRolesStayOutOfTokens(t *testing.T) {
	c := newCloud(t, local.Config{})
	ctx := t.Context()
	r := &identity.Role{ID: id.Hex(), DomainID: "default", Name: "team"}
	check(t, c.Roles.Create(ctx, r))
	check(t, c.Imply(ctx, r.ID, c.roles["manager"]))
	wantKind(t, c.Imply(ctx, c.roles["reader"], r.ID), fault.Forbidden)
	wantKind(t, c.Imply(ctx, r.ID, c.roles["admin"]), fault.Forbidden)
	check(t, c.Grant(ctx, identity.Assignment{UserID: c.users["demo"], ProjectID: c.projects["demo"], RoleID: r.ID}))
	if d := cmp.Diff([]string{"manager", "member", "reader"}, c.demo(t).RoleNames()); d != "" {
		t.Error(d)
	}
}

// The vectors of RFC 6238, appendix B, cut to six digits.
func TestPasscode(t *testing.T) {
	const seed = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ" // "12345678901234567890"
	for at, want := range map[int64]string{59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130"} {
		if got := must(local.Passcode(seed, time.Unix(at, 0))); got != want {
			t.Errorf("at %d: %s, want %s", at, got, want)
		}
	}
	if _, err := local.Passcode("not base32!", time.Now()); err == nil {
		t.Error("a malformed seed gave a code")
	}
}

func TestTwoFactors(t *testing.T) {
	c := newCloud(t, local.Config{})
	ctx := t.Context()
	seed := &identity.Credential{ID: id.Hex(), UserID: c.users["demo"], Type: local.TypeTOTP, Blob: "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"}
	plain := seed.Blob
	check(t, c.SealBlob(seed))
	check(t, c.Credentials.Create(ctx, seed))
	_, err := c.Users.Update(ctx, c.users["demo"], func(u *identity.User) error {
		u.Options = identity.Attrs{"multi_factor_auth_rules": []any{[]any{"password", "totp"}}}
		return nil
	})
	check(t, err)
	demo := identity.Selector{ID: c.users["demo"]}
	_, err = c.Login(ctx, identity.Login{Methods: []string{"password"}, User: demo, Password: "demo-secret"})
	wantKind(t, err, fault.Unauthorized)
	code := must(local.Passcode(plain, time.Now())) // good for half a minute at least
	tok, err := c.Login(ctx, identity.Login{Methods: []string{"password", "totp"}, User: demo, Password: "demo-secret", Passcode: code})
	check(t, err)
	if d := cmp.Diff([]string{"password", "totp"}, tok.Methods); d != "" {
		t.Error(d)
	}
}

func TestCredentialBlobsAreEncrypted(t *testing.T) {
	c := newCloud(t, local.Config{})
	cred, keys, err := c.CreateEC2(t.Context(), c.users["demo"], c.projects["demo"])
	check(t, err)
	stored := must(c.Credentials.Get(t.Context(), local.EC2CredentialID(keys.Access)))
	if stored.ID != cred.ID || stored.Blob == "" || len(stored.Blob) < 100 {
		t.Fatalf("stored %+v", stored)
	}
	check(t, c.OpenBlob(stored))
	if want := `{"access":"` + keys.Access + `","secret":"` + keys.Secret + `"}`; stored.Blob != want {
		t.Errorf("blob %s, want %s", stored.Blob, want)
	}
}
