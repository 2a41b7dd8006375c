package local

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"kilonova/internal/auth"
	"kilonova/internal/clock"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/identity"
	"kilonova/internal/identity/sealed"
)

// refused is the one answer to every login and token that does not hold; the cause says why to the log alone.
func refused(cause error) error {
	return fault.Wrap(cause, fault.Unauthorized, "The request you have made requires authentication.")
}

func refusedFor(format string, args ...any) error { return refused(fmt.Errorf(format, args...)) }

// Authenticate implements auth.Authenticator.
func (s *Service) Authenticate(ctx context.Context, token string) (*auth.Caller, error) {
	v, err := s.verified(ctx, token)
	if err != nil {
		return nil, err
	}
	c := v.caller
	return &c, nil
}

// Validate gives the content of a token. It fails with fault.Unauthorized like Authenticate. The result must not be changed.
func (s *Service) Validate(ctx context.Context, token string) (*identity.Token, error) {
	v, err := s.verified(ctx, token)
	if err != nil {
		return nil, err
	}
	return v.token, nil
}

func (s *Service) verified(ctx context.Context, token string) (*verified, error) {
	if err := s.sync(ctx); err != nil {
		return nil, err
	}
	k := tokenKey(sha256.Sum256([]byte(token)))
	if v := s.tokens.get(k); v != nil {
		return v, nil
	}
	version := s.tokens.begin()
	p, err := sealed.Open(s.keys, token)
	if err != nil {
		return nil, refused(err)
	}
	t, err := s.resolve(ctx, p)
	if err != nil {
		return nil, err
	}
	t.ID = token
	return s.tokens.put(k, t, version), nil
}

// resolve looks up everything that a token stands for and judges whether it holds.
func (s *Service) resolve(ctx context.Context, p *sealed.Token) (*identity.Token, error) {
	if !clock.Now().Before(p.ExpiresAt()) {
		return nil, refusedFor("the token expired")
	}
	t := &identity.Token{Methods: p.MethodNames(), AuditIDs: p.AuditIDs(), IssuedAt: p.IssuedAt(), ExpiresAt: p.ExpiresAt()}
	user, ref, err := s.activeUser(ctx, sealed.Unpack(p.User))
	if err != nil {
		return nil, err
	}
	if user.TokenEpoch != p.Epoch {
		return nil, refusedFor("the user's tokens were revoked")
	}
	t.User, t.PasswordExpiresAt = ref, user.PasswordExpiresAt
	var project *identity.Project
	scope := sealed.Unpack(p.Scope)
	switch p.Kind {
	case sealed.Project:
		if project, err = s.activeProject(ctx, t, scope); err != nil {
			return nil, err
		}
		if project.TokenEpoch != p.ScopeEpoch {
			return nil, refusedFor("the project's tokens were revoked")
		}
	case sealed.Domain:
		d, err := s.activeDomain(ctx, scope)
		if err != nil {
			return nil, err
		}
		if d.TokenEpoch != p.ScopeEpoch {
			return nil, refusedFor("the domain's tokens were revoked")
		}
		t.Domain = &identity.Ref{ID: d.ID, Name: d.Name}
	case sealed.System:
		t.System = true
	}
	revoked, err := s.exists(ctx, "SELECT COUNT(*) FROM identity_revocations WHERE object_id = ?", t.AuditIDs[0])
	if err != nil {
		return nil, err
	}
	if revoked {
		return nil, refusedFor("the token was revoked")
	}
	if len(p.Trust) > 0 {
		if err := s.loadTrust(ctx, p, t); err != nil {
			return nil, err
		}
	}
	if p.Kind != sealed.Unscoped {
		if err := s.roleRefs(ctx, p, t, project); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func notThere(err error, what, id string) error {
	if errors.Is(err, fault.NotFound) {
		return refusedFor("%s %s is not there", what, id)
	}
	return err
}

// activeUser gives an enabled user of an enabled domain.
func (s *Service) activeUser(ctx context.Context, id string) (*identity.User, identity.Scoped, error) {
	u, err := s.Users.Get(ctx, id)
	if err != nil {
		return nil, identity.Scoped{}, notThere(err, "user", id)
	}
	if !u.Enabled {
		return nil, identity.Scoped{}, refusedFor("user %s is disabled", id)
	}
	d, err := s.activeDomain(ctx, u.DomainID)
	if err != nil {
		return nil, identity.Scoped{}, err
	}
	return u, identity.Scoped{ID: u.ID, Name: u.Name, Domain: identity.Ref{ID: d.ID, Name: d.Name}}, nil
}

func (s *Service) activeDomain(ctx context.Context, id string) (*identity.Project, error) {
	d, err := s.domain(ctx, s.db, id)
	if err != nil {
		return nil, notThere(err, "domain", id)
	}
	if !d.Enabled {
		return nil, refusedFor("domain %s is disabled", id)
	}
	return d, nil
}

// activeProject puts an enabled project of an enabled domain into the token.
func (s *Service) activeProject(ctx context.Context, t *identity.Token, id string) (*identity.Project, error) {
	p, err := s.Projects.Get(ctx, id)
	if err != nil {
		return nil, notThere(err, "project", id)
	}
	if !p.Enabled {
		return nil, refusedFor("project %s is disabled", id)
	}
	t.Project, t.IsDomain = &identity.Scoped{ID: p.ID, Name: p.Name}, p.IsDomain
	if p.IsDomain {
		t.Project.Domain = identity.Ref{ID: p.ID, Name: p.Name}
		return p, nil
	}
	d, err := s.activeDomain(ctx, p.DomainID)
	if err != nil {
		return nil, err
	}
	t.Project.Domain = identity.Ref{ID: d.ID, Name: d.Name}
	return p, nil
}

// roleRefs puts the roles into a scoped token: those of its user now, cut down to what its application credential or trust delegates.
func (s *Service) roleRefs(ctx context.Context, p *sealed.Token, t *identity.Token, project *identity.Project) error {
	holder := t.User.ID
	var delegated []string
	switch {
	case t.Trust != nil:
		holder, delegated = t.Trust.TrustorID, t.Trust.RoleIDs
	case len(p.AppCred) > 0:
		if err := s.loadAppCred(ctx, t, sealed.Unpack(p.AppCred)); err != nil {
			return err
		}
		delegated = t.AppCred.RoleIDs
	}
	domain := ""
	if t.Domain != nil {
		domain = t.Domain.ID
	}
	held, err := s.rolesOn(ctx, holder, project, domain)
	if err != nil {
		return err
	}
	table, err := s.roleTable(ctx)
	if err != nil {
		return err
	}
	t.Roles = table.refs(held)
	if delegated != nil {
		order, _ := table.closure(delegated)
		t.Roles = slices.DeleteFunc(t.Roles, func(r identity.Ref) bool { return !slices.Contains(order, r.ID) })
	}
	if len(t.Roles) == 0 {
		return refusedFor("user %s has no role there", holder)
	}
	return nil
}

// loadTrust puts the trust into a token made from it; both of its users must be there.
func (s *Service) loadTrust(ctx context.Context, p *sealed.Token, t *identity.Token) error {
	var err error
	if t.Trust, err = s.liveTrust(ctx, sealed.Unpack(p.Trust)); err != nil {
		return err
	}
	if _, _, err := s.activeUser(ctx, t.Trust.TrustorID); err != nil {
		return err
	}
	trustee, _, err := s.activeUser(ctx, t.Trust.TrusteeID)
	if err != nil {
		return err
	}
	if trustee.TokenEpoch != p.TrusteeEpoch {
		return refusedFor("the trustee's tokens were revoked")
	}
	return nil
}

func (s *Service) liveTrust(ctx context.Context, id string) (*identity.Trust, error) {
	t, err := s.Trusts.Get(ctx, id)
	if err != nil {
		return nil, notThere(err, "trust", id)
	}
	if !t.ExpiresAt.IsZero() && !clock.Now().Before(t.ExpiresAt) {
		return nil, refusedFor("trust %s is over", id)
	}
	return t, nil
}

func (s *Service) loadAppCred(ctx context.Context, t *identity.Token, id string) error {
	a, err := s.AppCreds.Get(ctx, id)
	if err != nil {
		return notThere(err, "application credential", id)
	}
	if !a.ExpiresAt.IsZero() && !clock.Now().Before(a.ExpiresAt) {
		return refusedFor("application credential %s expired", id)
	}
	t.AppCred = a
	if len(a.RuleIDs) > 0 {
		rules, err := s.AccessRules.Many(ctx, a.RuleIDs)
		if err != nil {
			return err
		}
		t.AccessRules = append([]identity.AccessRule{}, rules...)
	}
	return nil
}

// RevokeToken ends one token.
func (s *Service) RevokeToken(ctx context.Context, t *identity.Token) error {
	return s.db.Write(ctx, func(tx *db.Tx) error { return s.revoke(ctx, tx, t.AuditIDs[0]) })
}
