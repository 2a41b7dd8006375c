package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/identity"
	"kilonova/internal/policy"
)

// domainRef and userRef are how bodies name domains and users.
type domainRef struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

type namedRef struct {
	ID     string    `json:"id"`
	Name   string    `json:"name"`
	Domain domainRef `json:"domain"`
}

func (n namedRef) selector() identity.Selector {
	return identity.Selector{ID: n.ID, Name: n.Name, DomainID: n.Domain.ID, DomainName: n.Domain.Name}
}

type userRef struct {
	namedRef
	Password string `json:"password"`
	Passcode string `json:"passcode"`
}

type authBody struct {
	Auth struct {
		Identity struct {
			Methods  []string                `json:"methods"`
			Password *struct{ User userRef } `json:"password"`
			TOTP     *struct{ User userRef } `json:"totp"`
			Token    *struct{ ID string }    `json:"token"`
			AppCred  *struct {
				ID, Name, Secret string
				User             namedRef
			} `json:"application_credential"`
		} `json:"identity"`
		Scope json.RawMessage `json:"scope"`
	} `json:"auth"`
}

type scopeBody struct {
	Project  *namedRef        `json:"project"`
	Domain   *domainRef       `json:"domain"`
	System   *json.RawMessage `json:"system"`
	Trust    *domainRef       `json:"OS-TRUST:trust"`
	Unscoped *json.RawMessage `json:"unscoped"`
}

// login reads the body of a request for a token.
func login(r *httpapi.Request) (identity.Login, error) {
	var b authBody
	if err := r.Decode(&b); err != nil {
		return identity.Login{}, err
	}
	in := b.Auth.Identity
	l := identity.Login{Methods: in.Methods}
	missing := func(method string) (identity.Login, error) {
		return l, fault.New(fault.Invalid, "The method %s is named but its part of identity is missing.", method)
	}
	for _, m := range in.Methods {
		switch m {
		case "password":
			if in.Password == nil {
				return missing(m)
			}
			l.User, l.Password = in.Password.User.selector(), in.Password.User.Password
		case "totp":
			if in.TOTP == nil {
				return missing(m)
			}
			l.User, l.Passcode = in.TOTP.User.selector(), in.TOTP.User.Passcode
			if in.Password != nil && in.Password.User.selector() != l.User {
				return l, fault.New(fault.Unauthorized, "The methods name different users.")
			}
		case "token":
			if in.Token == nil || in.Token.ID == "" {
				return missing(m)
			}
			l.Token = in.Token.ID
		case "application_credential":
			if in.AppCred == nil {
				return missing(m)
			}
			l.AppCred = identity.AppCredLogin{ID: in.AppCred.ID, Name: in.AppCred.Name, Secret: in.AppCred.Secret, User: in.AppCred.User.selector()}
		}
	}
	var err error
	l.Scope, err = scope(b.Auth.Scope)
	return l, err
}

func scope(raw json.RawMessage) (identity.Scope, error) {
	var out identity.Scope
	var word string
	if len(raw) == 0 || string(raw) == "null" {
		return out, nil
	}
	if json.Unmarshal(raw, &word) == nil {
		if word != "unscoped" {
			return out, fault.New(fault.Invalid, "Invalid input for field 'scope': the only word it can be is unscoped.")
		}
		return identity.Scope{Unscoped: true}, nil
	}
	var b scopeBody
	if err := json.Unmarshal(raw, &b); err != nil {
		return out, fault.Wrap(err, fault.Invalid, "Invalid input for field 'scope': it must name one project, domain, the system or a trust.")
	}
	n := 0
	if b.Project != nil {
		out.Project, n = b.Project.selector(), n+1
		if out.Project.ID == "" && (out.Project.Name == "" || out.Project.DomainID == "" && out.Project.DomainName == "") {
			return out, fault.New(fault.Invalid, "Invalid input for field 'scope': a project is named by its id, or by its name and domain.")
		}
	}
	if b.Domain != nil {
		out.Domain, n = identity.Selector{ID: b.Domain.ID, Name: b.Domain.Name}, n+1
		if out.Domain.IsZero() {
			return out, fault.New(fault.Invalid, "Invalid input for field 'scope': a domain is named by its id or name.")
		}
	}
	if b.Trust != nil {
		out.TrustID, n = b.Trust.ID, n+1
	}
	if b.System != nil {
		var s struct{ All bool }
		if err := json.Unmarshal(*b.System, &s); err != nil || !s.All {
			return out, fault.New(fault.Invalid, `Invalid input for field 'scope': the system is named as {"system": {"all": true}}.`)
		}
		out.System, n = true, n+1
	}
	if b.Unscoped != nil {
		out.Unscoped, n = true, n+1
	}
	if n != 1 {
		return out, fault.New(fault.Invalid, "Invalid input for field 'scope': it must name exactly one project, domain, the system or a trust.")
	}
	return out, nil
}

// createToken answers POST /v3/auth/tokens.
func (a *api) createToken(r *httpapi.Request) (*httpapi.Reply, error) {
	l, err := login(r)
	if err != nil {
		return nil, err
	}
	t, err := a.s.Login(r.Context(), l)
	if err != nil {
		return nil, challenge(r, err)
	}
	d, err := a.tokenDocument(r, t)
	if err != nil {
		return nil, err
	}
	return httpapi.Created(d).With("X-Subject-Token", t.ID).With("Vary", "X-Auth-Token"), nil
}

// challenge adds to a refusal where to log in.
func challenge(r *httpapi.Request, err error) error {
	if !errors.Is(err, fault.Unauthorized) {
		return err
	}
	e := fault.Wrap(err, fault.Unauthorized, "%s", fault.PublicText(err))
	e.Header = map[string]string{"WWW-Authenticate": `Keystone uri="` + r.Base + `"`}
	return e
}

// subject verifies the token in X-Subject-Token. One that does not hold is not found.
func (a *api) subject(r *httpapi.Request, rule string) (*identity.Token, error) {
	name := r.HTTP.Header.Get("X-Subject-Token")
	if name == "" {
		return nil, fault.New(fault.Invalid, "The header X-Subject-Token is missing: it must hold the token to look at.")
	}
	t, err := a.s.Validate(r.Context(), name)
	if errors.Is(err, fault.Unauthorized) {
		if e := authorize(r, rule, policy.Target{"target.token.user_id": r.Caller.UserID}); e != nil {
			return nil, e
		}
		return nil, fault.New(fault.NotFound, "Could not find the token: it is malformed, expired or revoked.")
	}
	if err != nil {
		return nil, err
	}
	return t, authorize(r, rule, policy.Target{"target.token.user_id": t.User.ID})
}

// showToken answers GET and HEAD /v3/auth/tokens.
func (a *api) showToken(r *httpapi.Request) (*httpapi.Reply, error) {
	t, err := a.subject(r, "identity:validate_token")
	if err != nil {
		return nil, err
	}
	if t.AccessRules != nil && r.HTTP.Header.Get("OpenStack-Identity-Access-Rules") == "" {
		return nil, fault.New(fault.NotFound, "The token has access rules, which the service that asks does not understand.")
	}
	if r.HTTP.Method == http.MethodHead {
		return &httpapi.Reply{Status: http.StatusOK}, nil
	}
	d, err := a.tokenDocument(r, t)
	if err != nil {
		return nil, err
	}
	return httpapi.OK(d).With("X-Subject-Token", t.ID).With("Vary", "X-Auth-Token"), nil
}

// revokeToken answers DELETE /v3/auth/tokens.
func (a *api) revokeToken(r *httpapi.Request) (*httpapi.Reply, error) {
	t, err := a.subject(r, "identity:revoke_token")
	if err != nil {
		return nil, err
	}
	if err := a.s.RevokeToken(r.Context(), t); err != nil {
		return nil, err
	}
	return httpapi.NoContent(), nil
}

// The documents of tokens.
type tokenDoc struct {
	Methods   []string                 `json:"methods"`
	User      tokenUser                `json:"user"`
	AuditIDs  []string                 `json:"audit_ids"`
	ExpiresAt string                   `json:"expires_at"`
	IssuedAt  string                   `json:"issued_at"`
	Project   *identity.Scoped         `json:"project,omitempty"`
	IsDomain  *bool                    `json:"is_domain,omitempty"`
	Domain    *identity.Ref            `json:"domain,omitempty"`
	System    map[string]bool          `json:"system,omitempty"`
	Roles     []identity.Ref           `json:"roles,omitempty"`
	Catalog   *[]identity.CatalogEntry `json:"catalog,omitempty"`
	AppCred   *tokenAppCred            `json:"application_credential,omitempty"`
	Trust     *tokenTrust              `json:"OS-TRUST:trust,omitempty"`
}

type tokenUser struct {
	identity.Scoped
	PasswordExpiresAt *string `json:"password_expires_at"`
}

type tokenAppCred struct {
	identity.Ref
	Restricted  bool       `json:"restricted"`
	AccessRules []document `json:"access_rules,omitempty"`
}

type tokenTrust struct {
	ID            string   `json:"id"`
	Impersonation bool     `json:"impersonation"`
	Trustee       document `json:"trustee_user"`
	Trustor       document `json:"trustor_user"`
}

func (a *api) tokenDocument(r *httpapi.Request, t *identity.Token) (document, error) {
	d := tokenDoc{Methods: t.Methods, User: tokenUser{t.User, nil}, AuditIDs: t.AuditIDs, ExpiresAt: stamp(t.ExpiresAt), IssuedAt: stamp(t.IssuedAt),
		Project: t.Project, Domain: t.Domain, Roles: t.Roles}
	if !t.PasswordExpiresAt.IsZero() {
		text := t.PasswordExpiresAt.Format(clock.LayoutMicro)
		d.User.PasswordExpiresAt = &text
	}
	if t.Project != nil {
		d.IsDomain = &t.IsDomain
	}
	if t.System {
		d.System = map[string]bool{"all": true}
	}
	if c := t.AppCred; c != nil {
		d.AppCred = &tokenAppCred{Ref: identity.Ref{ID: c.ID, Name: c.Name}, Restricted: !c.Unrestricted}
		for i := range t.AccessRules {
			d.AppCred.AccessRules = append(d.AppCred.AccessRules, a.ruleDocument(&t.AccessRules[i]))
		}
	}
	if x := t.Trust; x != nil {
		d.Trust = &tokenTrust{ID: x.ID, Impersonation: x.Impersonation, Trustee: document{"id": x.TrusteeID}, Trustor: document{"id": x.TrustorID}}
	}
	if t.IsScoped() && !r.Query().Has("nocatalog") {
		c, err := a.s.Catalog(r.Context(), t)
		if err != nil {
			return nil, err
		}
		d.Catalog = &c
	}
	return document{"token": d}, nil
}

func stamp(t time.Time) string { return t.Format(clock.LayoutMicroZ) }

// token gives the content of the caller's own token.
func (a *api) token(r *httpapi.Request) (*identity.Token, error) {
	return a.s.Validate(r.Context(), r.Caller.Token)
}

// authCatalog answers GET /v3/auth/catalog.
func (a *api) authCatalog(r *httpapi.Request) (*httpapi.Reply, error) {
	t, err := a.token(r)
	if err != nil {
		return nil, err
	}
	if !t.IsScoped() {
		return nil, fault.New(fault.Forbidden, "An unscoped token has no catalog.")
	}
	c, err := a.s.Catalog(r.Context(), t)
	if err != nil {
		return nil, err
	}
	return httpapi.OK(document{"catalog": c, "links": listLinks(r)}), nil
}

// authProjects answers GET /v3/auth/projects.
func (a *api) authProjects(r *httpapi.Request) (*httpapi.Reply, error) {
	list, err := a.s.UserProjects(r.Context(), r.Caller.UserID)
	if err != nil {
		return nil, err
	}
	return httpapi.OK(a.projects.listing(r, list)), nil
}

// authDomains answers GET /v3/auth/domains.
func (a *api) authDomains(r *httpapi.Request) (*httpapi.Reply, error) {
	list, err := a.s.UserDomains(r.Context(), r.Caller.UserID)
	if err != nil {
		return nil, err
	}
	return httpapi.OK(a.domains.listing(r, list)), nil
}

// authSystem answers GET /v3/auth/system.
func (a *api) authSystem(r *httpapi.Request) (*httpapi.Reply, error) {
	holds, err := a.s.HoldsSystemRole(r.Context(), r.Caller.UserID)
	if err != nil {
		return nil, err
	}
	out := []document{}
	if holds {
		out = append(out, document{"all": true})
	}
	return httpapi.OK(document{"system": out, "links": listLinks(r)}), nil
}

// version is the document of the only API version.
func version(r *httpapi.Request) document {
	return document{"id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z",
		"links":       []document{{"rel": "self", "href": r.Base + "/v3/"}},
		"media-types": []document{{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}}}
}

// root answers GET /.
func root(r *httpapi.Request) (*httpapi.Reply, error) {
	reply := &httpapi.Reply{Status: http.StatusMultipleChoices, Body: document{"versions": document{"values": []document{version(r)}}}}
	return reply.With("Location", r.Base+"/v3/").With("Vary", "X-Auth-Token"), nil
}

// v3 answers GET /v3.
func v3(r *httpapi.Request) (*httpapi.Reply, error) {
	return httpapi.OK(document{"version": version(r)}).With("Vary", "X-Auth-Token"), nil
}

// truthy reads the flags of queries that are written as words.
func truthy(s string) bool { return s != "" && s != "0" && !strings.EqualFold(s, "false") }
