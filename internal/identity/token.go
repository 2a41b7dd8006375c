package identity

import (
	"slices"
	"time"

	"kilonova/internal/auth"
)

// Ref names a thing by id and name.
type Ref struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// Scoped is a user or project: a Ref inside a domain.
type Scoped struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Domain Ref    `json:"domain"`
}

// Token is the verified content of a token.
type Token struct {
	ID                  string // as the client sends it; never logged
	Methods             []string
	AuditIDs            []string // its own; then that of the token it was made from first
	IssuedAt, ExpiresAt time.Time
	User                Scoped
	PasswordExpiresAt   time.Time
	Project             *Scoped
	IsDomain            bool // the project acts as a domain
	Domain              *Ref
	System              bool
	Roles               []Ref
	AppCred             *AppCred
	AccessRules         []AccessRule // of AppCred; nil: no such limit
	Trust               *Trust
}

// IsScoped tells whether the token is for a project, a domain or the system.
func (t *Token) IsScoped() bool { return t.Project != nil || t.Domain != nil || t.System }

// RoleNames lists the names of the roles.
func (t *Token) RoleNames() []string {
	out := make([]string, len(t.Roles))
	for i, r := range t.Roles {
		out[i] = r.Name
	}
	return slices.Clip(out)
}

// Caller is the token as the services see it.
func (t *Token) Caller() *auth.Caller {
	c := &auth.Caller{UserID: t.User.ID, UserName: t.User.Name, UserDomainID: t.User.Domain.ID, UserDomainName: t.User.Domain.Name,
		System: t.System, Roles: t.RoleNames(), ExpiresAt: t.ExpiresAt, Token: t.ID}
	if p := t.Project; p != nil {
		c.ProjectID, c.ProjectName, c.ProjectDomainID, c.ProjectDomainName = p.ID, p.Name, p.Domain.ID, p.Domain.Name
	}
	if d := t.Domain; d != nil {
		c.DomainID, c.DomainName = d.ID, d.Name
	}
	if t.AccessRules != nil {
		c.AccessRules = make([]auth.AccessRule, len(t.AccessRules))
		for i, r := range t.AccessRules {
			c.AccessRules[i] = auth.AccessRule{Service: r.Service, Method: r.Method, Path: r.Path}
		}
	}
	return c
}

// Assignment is a role given to a user or group on a project, domain or the system.
type Assignment struct {
	UserID, GroupID     string // one of the two
	ProjectID, DomainID string // one of the two, or neither for the system
	RoleID              string
	Inherited           bool // holds for the projects below, not for the target itself

	// Filled for effective assignments: where the assignment came from.
	ViaGroupID, ViaDomainID, ViaProjectID, PriorRoleID string
}

// System tells whether the assignment is on the system.
func (a Assignment) System() bool { return a.ProjectID == "" && a.DomainID == "" }

// CatalogEntry is one service of a catalog.
type CatalogEntry struct {
	ID        string            `json:"id"`
	Type      string            `json:"type"`
	Name      string            `json:"name"`
	Endpoints []CatalogEndpoint `json:"endpoints"`
}

// CatalogEndpoint is one endpoint of a catalog.
type CatalogEndpoint struct {
	ID        string  `json:"id"`
	Interface string  `json:"interface"`
	Region    *string `json:"region"`
	RegionID  *string `json:"region_id"`
	URL       string  `json:"url"`
}

// Login is a request for a token.
type Login struct {
	Methods  []string
	User     Selector // password and totp
	Password string
	Passcode string // totp
	Token    string
	AppCred  AppCredLogin
	Scope    Scope
}

// Selector names a user, project or domain by id, or by name and domain.
type Selector struct {
	ID, Name             string
	DomainID, DomainName string
}

// IsZero tells whether nothing was named.
func (s Selector) IsZero() bool { return s == Selector{} }

// AppCredLogin names an application credential by id, or by name and user, with its secret.
type AppCredLogin struct {
	ID, Name, Secret string
	User             Selector
}

// Scope is what a token is asked for. The zero value asks for the default.
type Scope struct {
	Unscoped, System bool
	Project, Domain  Selector
	TrustID          string
}

// IsZero tells whether no scope was asked for.
func (s Scope) IsZero() bool { return s == Scope{} }
