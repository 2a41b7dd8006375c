package local

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"slices"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/identity"
	"kilonova/internal/identity/sealed"
)

// claim is what the authentication methods of one login have shown.
type claim struct {
	user    *identity.User
	methods []string
	expires time.Time         // zero: a full TokenTTL from now
	chain   []byte            // audit id of the first token of the chain
	from    *identity.Token   // the token of method token
	appCred *identity.AppCred // of method application_credential
}

// Login verifies who asks and issues a token for what is asked. It fails with fault.Unauthorized whenever the login, the user or the
// scope is refused, without telling which.
func (s *Service) Login(ctx context.Context, l identity.Login) (*identity.Token, error) {
	c := &claim{}
	for _, m := range l.Methods {
		if err := s.method(ctx, m, l, c); err != nil {
			return nil, err
		}
	}
	if c.user == nil {
		return nil, refusedFor("no method named a user")
	}
	if err := enoughMethods(c); err != nil {
		return nil, err
	}
	p, err := s.claimScope(ctx, l.Scope, c)
	if err != nil {
		return nil, err
	}
	return s.issue(ctx, p, c)
}

func (s *Service) method(ctx context.Context, name string, l identity.Login, c *claim) error {
	var user *identity.User
	var err error
	switch name {
	case "password":
		user, err = s.byPassword(ctx, l.User, l.Password)
	case "totp":
		user, err = s.byPasscode(ctx, l.User, l.Passcode)
	case "token":
		user, err = s.byToken(ctx, l.Token, c)
	case "application_credential":
		user, err = s.byAppCred(ctx, l.AppCred, c)
	default:
		return refusedFor("method %q is not known", name)
	}
	if err != nil {
		return err
	}
	if c.user != nil && c.user.ID != user.ID {
		return refusedFor("the methods name different users")
	}
	c.user = user
	if !slices.Contains(c.methods, name) {
		c.methods = append(c.methods, name)
	}
	return nil
}

// enoughMethods holds the login against the user's rules for several factors: one rule must be covered.
func enoughMethods(c *claim) error {
	if c.user.Options["multi_factor_auth_enabled"] == false || c.appCred != nil {
		return nil
	}
	rules, _ := c.user.Options["multi_factor_auth_rules"].([]any)
	if len(rules) == 0 {
		return nil
	}
	for _, r := range rules {
		need, _ := r.([]any)
		covered := len(need) > 0
		for _, m := range need {
			name, _ := m.(string)
			covered = covered && slices.Contains(c.methods, name)
		}
		if covered {
			return nil
		}
	}
	return refusedFor("user %s must use more methods", c.user.ID)
}

// findUser resolves a selector; nil without an error when there is no such user.
func (s *Service) findUser(ctx context.Context, sel identity.Selector) (*identity.User, error) {
	if sel.ID != "" {
		u, err := s.Users.Get(ctx, sel.ID)
		if errors.Is(err, fault.NotFound) {
			return nil, nil
		}
		return u, err
	}
	d, err := s.findProject(ctx, identity.Selector{ID: sel.DomainID, Name: sel.DomainName}, true)
	if err != nil {
		if errors.Is(err, fault.NotFound) {
			return nil, nil
		}
		return nil, err
	}
	found, err := s.Users.query(ctx, s.db, "WHERE domain_id = ? AND name = ?", d.ID, sel.Name)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return &found[0], nil
}

func (s *Service) byPassword(ctx context.Context, sel identity.Selector, password string) (*identity.User, error) {
	u, err := s.findUser(ctx, sel)
	if err != nil {
		return nil, err
	}
	if u == nil {
		if _, err := s.passwords.Fits(ctx, "", password); err != nil {
			return nil, err
		}
		return nil, refusedFor("there is no such user")
	}
	if err := s.CheckPassword(ctx, u, password); err != nil {
		return nil, err
	}
	if !u.PasswordExpiresAt.IsZero() && !clock.Now().Before(u.PasswordExpiresAt) && u.Options["ignore_password_expiry"] != true {
		return nil, fault.New(fault.Unauthorized, "The password of user %s has expired. Change it, then log in.", u.ID)
	}
	return u, nil
}

// CheckPassword fails with fault.Unauthorized unless the password is the user's and the user is not locked out.
func (s *Service) CheckPassword(ctx context.Context, u *identity.User, password string) error {
	return s.guarded(ctx, u, "password", func() (bool, error) { return s.passwords.Fits(ctx, u.PasswordHash, password) })
}

// guarded runs a check of something secret, unless the user is locked out, and keeps count of failures.
func (s *Service) guarded(ctx context.Context, u *identity.User, what string, check func() (bool, error)) error {
	counts := s.cfg.LockoutFailures > 0 && u.Options["ignore_lockout_failure_attempts"] != true
	full := u.FailedAuths >= int64(s.cfg.LockoutFailures)
	if counts && full && clock.Now().Before(u.FailedAt.Add(s.cfg.LockoutDuration)) {
		return refusedFor("user %s is locked out", u.ID)
	}
	ok, err := check()
	if err != nil {
		return err
	}
	if counts && (!ok || u.FailedAuths > 0) {
		if _, err := s.Users.Update(ctx, u.ID, func(n *identity.User) error {
			switch {
			case ok:
				n.FailedAuths = 0
			case full && n.FailedAuths == u.FailedAuths: // the time of the lock is over: counting begins anew
				n.FailedAuths = 1
			default:
				n.FailedAuths++
			}
			n.FailedAt = clock.Now()
			return nil
		}); err != nil {
			return err
		}
	}
	if !ok {
		return refusedFor("wrong %s for user %s", what, u.ID)
	}
	return nil
}

func (s *Service) byToken(ctx context.Context, token string, c *claim) (*identity.User, error) {
	t, err := s.Validate(ctx, token)
	if errors.Is(err, fault.Unauthorized) { // clients of this method know 404, not 401
		return nil, fault.New(fault.NotFound, "Could not find the token: it is malformed, expired or revoked.")
	}
	if err != nil {
		return nil, err
	}
	if t.Trust != nil {
		return nil, fault.New(fault.Forbidden, "A token made from a trust cannot be exchanged for another.")
	}
	if t.AppCred != nil {
		return nil, fault.New(fault.Forbidden, "A token of an application credential cannot be exchanged for another.")
	}
	c.from, c.expires, c.methods = t, t.ExpiresAt, slices.Clone(t.Methods)
	if c.chain, err = base64.RawURLEncoding.DecodeString(t.AuditIDs[len(t.AuditIDs)-1]); err != nil {
		return nil, refused(err)
	}
	old, err := sealed.Open(s.keys, token)
	if err != nil {
		return nil, refused(err)
	}
	u, err := s.Users.Get(ctx, t.User.ID)
	if err != nil {
		return nil, notThere(err, "user", t.User.ID)
	}
	u.TokenEpoch = old.Epoch // should the user's tokens end just now, the new one ends with them
	return u, nil
}

func (s *Service) byAppCred(ctx context.Context, l identity.AppCredLogin, c *claim) (*identity.User, error) {
	var a *identity.AppCred
	if l.ID != "" {
		found, err := s.AppCreds.Many(ctx, []string{l.ID})
		if err != nil {
			return nil, err
		}
		if len(found) > 0 {
			a = &found[0]
		}
	} else {
		u, err := s.findUser(ctx, l.User)
		if err != nil {
			return nil, err
		}
		if u != nil {
			found, err := s.AppCreds.List(ctx, Filter{Field: "user_id", Value: u.ID}, Filter{Field: "name", Value: l.Name})
			if err != nil {
				return nil, err
			}
			if len(found) > 0 {
				a = &found[0]
			}
		}
	}
	hash := ""
	if a != nil {
		hash = a.SecretHash
	}
	ok, err := s.passwords.Fits(ctx, hash, l.Secret)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, refusedFor("the application credential or its secret is wrong")
	}
	u, err := s.Users.Get(ctx, a.UserID)
	if err != nil {
		return nil, notThere(err, "user", a.UserID)
	}
	c.appCred = a
	return u, nil
}

// claimScope resolves what the token is asked for.
func (s *Service) claimScope(ctx context.Context, want identity.Scope, c *claim) (*sealed.Token, error) {
	p := &sealed.Token{User: sealed.Pack(c.user.ID), Epoch: c.user.TokenEpoch}
	if c.appCred != nil {
		if !want.IsZero() {
			return nil, refusedFor("application credentials cannot request a scope")
		}
		project, err := s.Projects.Get(ctx, c.appCred.ProjectID)
		if err != nil {
			return nil, notThere(err, "project", c.appCred.ProjectID)
		}
		p.Kind, p.Scope, p.ScopeEpoch, p.AppCred = sealed.Project, sealed.Pack(project.ID), project.TokenEpoch, sealed.Pack(c.appCred.ID)
		return p, nil
	}
	switch {
	case want.TrustID != "":
		return p, s.claimTrust(ctx, want.TrustID, c, p)
	case want.Unscoped:
	case want.System:
		p.Kind = sealed.System
	case !want.Project.IsZero(), !want.Domain.IsZero():
		sel, domains := want.Project, false
		p.Kind = sealed.Project
		if want.Project.IsZero() {
			sel, domains, p.Kind = want.Domain, true, sealed.Domain
		}
		found, err := s.findProject(ctx, sel, domains)
		if err != nil {
			return nil, notThere(err, "the scope", sel.ID+sel.Name)
		}
		p.Scope, p.ScopeEpoch = sealed.Pack(found.ID), found.TokenEpoch
	case c.from == nil && c.user.DefaultProjectID != "":
		project, err := s.Projects.Get(ctx, c.user.DefaultProjectID)
		if errors.Is(err, fault.NotFound) {
			break
		}
		if err != nil {
			return nil, err
		}
		q := *p
		q.Kind, q.Scope, q.ScopeEpoch = sealed.Project, sealed.Pack(project.ID), project.TokenEpoch
		q.Audits, q.Issued, q.Expires = [][]byte{sealed.NewAudit()}, clock.Micros(clock.Now()), clock.Micros(clock.Now().Add(s.cfg.TokenTTL))
		_, err = s.resolve(ctx, &q)
		if err == nil {
			p.Kind, p.Scope, p.ScopeEpoch = q.Kind, q.Scope, q.ScopeEpoch
		} else if !errors.Is(err, fault.Unauthorized) {
			return nil, err
		}
	}
	return p, nil
}

func (s *Service) claimTrust(ctx context.Context, id string, c *claim, p *sealed.Token) error {
	t, err := s.liveTrust(ctx, id)
	if err != nil {
		return err
	}
	if t.TrusteeID != c.user.ID {
		return fault.New(fault.Forbidden, "Only the trustee can use trust %s.", id)
	}
	if t.RemainingUses >= 0 {
		if _, err := s.Trusts.Update(ctx, id, func(n *identity.Trust) error {
			if n.RemainingUses <= 0 {
				return fault.New(fault.Forbidden, "Trust %s has no uses left.", id)
			}
			n.RemainingUses--
			return nil
		}); err != nil {
			return err
		}
	}
	p.Trust, p.TrusteeEpoch = sealed.Pack(t.ID), c.user.TokenEpoch
	if t.ProjectID != "" {
		project, err := s.Projects.Get(ctx, t.ProjectID)
		if err != nil {
			return notThere(err, "project", t.ProjectID)
		}
		p.Kind, p.Scope, p.ScopeEpoch = sealed.Project, sealed.Pack(project.ID), project.TokenEpoch
	}
	if t.Impersonation {
		trustor, err := s.Users.Get(ctx, t.TrustorID)
		if err != nil {
			return notThere(err, "user", t.TrustorID)
		}
		p.User, p.Epoch = sealed.Pack(trustor.ID), trustor.TokenEpoch
	}
	if !t.ExpiresAt.IsZero() && (c.expires.IsZero() || t.ExpiresAt.Before(c.expires)) && t.ExpiresAt.Before(clock.Now().Add(s.cfg.TokenTTL)) {
		c.expires = t.ExpiresAt
	}
	return nil
}

func (s *Service) issue(ctx context.Context, p *sealed.Token, c *claim) (*identity.Token, error) {
	now := clock.Now()
	p.Methods, p.Issued, p.Expires = sealed.Methods(c.methods), clock.Micros(now), clock.Micros(now.Add(s.cfg.TokenTTL))
	if !c.expires.IsZero() {
		p.Expires = clock.Micros(c.expires)
	}
	p.Audits = [][]byte{sealed.NewAudit()}
	if c.chain != nil {
		p.Audits = append(p.Audits, c.chain)
	}
	version := s.tokens.begin()
	t, err := s.resolve(ctx, p)
	if err != nil {
		return nil, err
	}
	if t.ID, err = p.Seal(s.keys); err != nil {
		return nil, err
	}
	s.tokens.put(tokenKey(sha256.Sum256([]byte(t.ID))), t, version)
	return t, nil
}

// SetPassword gives a user a new password. When own is set the user chose it itself: the rules for reuse hold.
func (s *Service) SetPassword(ctx context.Context, userID, password string, own bool) error {
	u, err := s.Users.Get(ctx, userID)
	if err != nil {
		return err
	}
	if own && u.Options["lock_password"] == true {
		return fault.New(fault.Forbidden, "The password of user %s is locked: only an administrator can change it.", userID)
	}
	if own && s.cfg.PasswordHistory > 0 {
		last := append([]string{u.PasswordHash}, u.PasswordHistory...)
		for _, h := range last[:min(len(last), s.cfg.PasswordHistory)] {
			same, err := s.passwords.Fits(ctx, h, password)
			if err != nil {
				return err
			}
			if same {
				return fault.New(fault.Invalid, "The new password was used before: the last %d passwords must differ.", s.cfg.PasswordHistory)
			}
		}
	}
	hash, err := s.HashPassword(ctx, password)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *db.Tx) error {
		_, err := s.Users.update(ctx, tx, userID, func(n *identity.User) error { s.PutHash(n, hash); return nil })
		return err
	})
}

// PutHash puts a new password hash into a user and the one before into its history.
func (s *Service) PutHash(u *identity.User, hash string) {
	if u.PasswordHash != "" && s.cfg.PasswordHistory > 1 {
		u.PasswordHistory = append([]string{u.PasswordHash}, u.PasswordHistory...)
		u.PasswordHistory = u.PasswordHistory[:min(len(u.PasswordHistory), s.cfg.PasswordHistory-1)]
	}
	u.PasswordHash, u.PasswordSetAt, u.FailedAuths, u.PasswordExpiresAt = hash, clock.Now(), 0, time.Time{}
	if s.cfg.PasswordLifetime > 0 && hash != "" {
		u.PasswordExpiresAt = u.PasswordSetAt.Add(s.cfg.PasswordLifetime)
	}
}
