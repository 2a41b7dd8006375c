// Package identity holds the nouns of the identity service (OpenStack Identity API v3, known as Keystone) and the small interface that
// the other services may ask.
//
// A noun describes itself by its Fields: the same list gives the columns of its table and the attributes of its document, so a new
// attribute is one line. What the nouns promise, who may change them and how they hang together is in the package local; the
// documents and the policy are in the package api.
package identity

import (
	"context"
	"time"
)

// Directory is what other services may ask about projects and users.
type Directory interface {
	// ProjectExists tells whether a project with this id exists, enabled or not.
	ProjectExists(ctx context.Context, id string) (bool, error)
	// UserExists tells whether a user with this id exists, enabled or not.
	UserExists(ctx context.Context, id string) (bool, error)
}

// Flag says how a field shows in documents and whether it may be changed.
type Flag int

// The flags of a Field.
const (
	Nullable Flag = 1 << iota // an empty value is null in documents
	Omit                      // an empty value is left out of documents
	Private                   // never in documents
	Fixed                     // may not be changed once set
	Managed                   // set by the service alone; ignored in requests
	Micros                    // times are written with microseconds and no zone; else with microseconds and Z
)

// Field is one attribute of a noun: its name in documents and in its table, and where its value is. Ptr is a *string, *bool, *int64,
// *time.Time or a pointer to anything that JSON encodes (kept as a JSON text).
type Field struct {
	Name  string
	Ptr   any
	Flags Flag
}

// Has tells whether the field carries all the flags f.
func (f Field) Has(flag Flag) bool { return f.Flags&flag == flag }

// Noun is implemented by the pointer of every noun. The first field is the key.
type Noun interface{ Fields() []Field }

// Attrs are attributes that the API does not know and keeps as they are ("email" of a user).
type Attrs map[string]any

// Project is a project, or a domain when IsDomain is set: a domain is the root of a tree of projects.
type Project struct {
	ID, DomainID, ParentID, Name, Description string
	Enabled, IsDomain                         bool
	TokenEpoch                                int64 // raised to end every token for the project or domain
	Tags                                      []string
	Options, Extra                            Attrs
}

// Fields lists the attributes.
func (p *Project) Fields() []Field {
	return []Field{{"id", &p.ID, Fixed}, {"domain_id", &p.DomainID, Nullable | Fixed}, {"parent_id", &p.ParentID, Nullable | Fixed}, {"name", &p.Name, 0},
		{"description", &p.Description, 0}, {"enabled", &p.Enabled, 0}, {"is_domain", &p.IsDomain, Fixed}, {"tags", &p.Tags, 0},
		{"options", &p.Options, 0}, {"extra", &p.Extra, Private}, {"token_epoch", &p.TokenEpoch, Private}}
}

// User is a user. PasswordHash is a bcrypt hash, empty for a user who cannot log in with a password.
type User struct {
	ID, DomainID, Name, DefaultProjectID string
	Enabled                              bool
	Options, Extra                       Attrs
	PasswordHash                         string
	PasswordHistory                      []string
	PasswordSetAt, PasswordExpiresAt     time.Time
	FailedAuths                          int64
	TokenEpoch                           int64 // raised to end every token of the user
	FailedAt                             time.Time
	CreatedAt                            time.Time
}

// Fields lists the attributes.
func (u *User) Fields() []Field {
	return []Field{{"id", &u.ID, Fixed}, {"domain_id", &u.DomainID, Fixed}, {"name", &u.Name, 0}, {"default_project_id", &u.DefaultProjectID, Omit},
		{"enabled", &u.Enabled, 0}, {"options", &u.Options, 0}, {"extra", &u.Extra, Private}, {"password_hash", &u.PasswordHash, Private},
		{"password_history", &u.PasswordHistory, Private}, {"password_set_at", &u.PasswordSetAt, Private},
		{"password_expires_at", &u.PasswordExpiresAt, Nullable | Managed | Micros}, {"failed_auths", &u.FailedAuths, Private},
		{"failed_at", &u.FailedAt, Private}, {"created_at", &u.CreatedAt, Private},
		{"token_epoch", &u.TokenEpoch, Private}}
}

// Group is a group of users.
type Group struct {
	ID, DomainID, Name, Description string
	Extra                           Attrs
}

// Fields lists the attributes.
func (g *Group) Fields() []Field {
	return []Field{{"id", &g.ID, Fixed}, {"domain_id", &g.DomainID, Fixed}, {"name", &g.Name, 0}, {"description", &g.Description, 0}, {"extra", &g.Extra, Private}}
}

// Role is a role. A role with a DomainID never appears in tokens itself; only what it implies does.
type Role struct {
	ID, DomainID, Name, Description string
	Options, Extra                  Attrs
}

// Fields lists the attributes.
func (r *Role) Fields() []Field {
	return []Field{{"id", &r.ID, Fixed}, {"domain_id", &r.DomainID, Nullable | Fixed}, {"name", &r.Name, 0}, {"description", &r.Description, Nullable},
		{"options", &r.Options, 0}, {"extra", &r.Extra, Private}}
}

// Region is a region; regions may nest.
type Region struct {
	ID, Description, ParentID string
	Extra                     Attrs
}

// Fields lists the attributes.
func (r *Region) Fields() []Field {
	return []Field{{"id", &r.ID, Fixed}, {"description", &r.Description, 0}, {"parent_region_id", &r.ParentID, Nullable}, {"extra", &r.Extra, Private}}
}

// Service is an entry of the catalog.
type Service struct {
	ID, Type, Name, Description string
	Enabled                     bool
	Extra                       Attrs
}

// Fields lists the attributes.
func (s *Service) Fields() []Field {
	return []Field{{"id", &s.ID, Fixed}, {"type", &s.Type, 0}, {"name", &s.Name, 0}, {"description", &s.Description, 0}, {"enabled", &s.Enabled, 0}, {"extra", &s.Extra, Private}}
}

// Endpoint is where a service answers. URL may hold %(project_id)s and its kin.
type Endpoint struct {
	ID, ServiceID, Interface, RegionID, URL string
	Enabled                                 bool
	Extra                                   Attrs
}

// Fields lists the attributes.
func (e *Endpoint) Fields() []Field {
	return []Field{{"id", &e.ID, Fixed}, {"service_id", &e.ServiceID, 0}, {"interface", &e.Interface, 0}, {"region_id", &e.RegionID, Nullable}, {"url", &e.URL, 0},
		{"enabled", &e.Enabled, 0}, {"extra", &e.Extra, Private}}
}

// Credential is a secret that a user keeps here: EC2 keys, TOTP seeds, certificates. Blob is encrypted in the database.
type Credential struct{ ID, UserID, ProjectID, Type, Blob string }

// Fields lists the attributes.
func (c *Credential) Fields() []Field {
	return []Field{{"id", &c.ID, Fixed}, {"user_id", &c.UserID, 0}, {"project_id", &c.ProjectID, Nullable}, {"type", &c.Type, 0}, {"blob", &c.Blob, 0}}
}

// Policy is a policy document kept for others; nothing here reads it.
type Policy struct {
	ID, Type, Blob string
	Extra          Attrs
}

// Fields lists the attributes.
func (p *Policy) Fields() []Field {
	return []Field{{"id", &p.ID, Fixed}, {"type", &p.Type, 0}, {"blob", &p.Blob, 0}, {"extra", &p.Extra, Private}}
}

// RegisteredLimit is the default limit of a resource for every project.
type RegisteredLimit struct {
	ID, ServiceID, RegionID, ResourceName, Description string
	DefaultLimit                                       int64
}

// Fields lists the attributes.
func (l *RegisteredLimit) Fields() []Field {
	return []Field{{"id", &l.ID, Fixed}, {"service_id", &l.ServiceID, 0}, {"region_id", &l.RegionID, Nullable}, {"resource_name", &l.ResourceName, 0},
		{"default_limit", &l.DefaultLimit, 0}, {"description", &l.Description, Nullable}}
}

// Limit overrides a registered limit for one project or domain.
type Limit struct {
	ID, ProjectID, DomainID, ServiceID, RegionID, ResourceName, Description string
	ResourceLimit                                                           int64
}

// Fields lists the attributes.
func (l *Limit) Fields() []Field {
	return []Field{{"id", &l.ID, Fixed}, {"project_id", &l.ProjectID, Nullable | Fixed}, {"domain_id", &l.DomainID, Nullable | Fixed}, {"service_id", &l.ServiceID, Fixed},
		{"region_id", &l.RegionID, Nullable | Fixed}, {"resource_name", &l.ResourceName, Fixed}, {"resource_limit", &l.ResourceLimit, 0},
		{"description", &l.Description, Nullable}}
}

// AccessRule is one request that an application credential may make.
type AccessRule struct {
	ID, UserID, Service, Method, Path string
}

// Fields lists the attributes.
func (a *AccessRule) Fields() []Field {
	return []Field{{"id", &a.ID, Fixed}, {"user_id", &a.UserID, Private}, {"service", &a.Service, 0}, {"method", &a.Method, 0}, {"path", &a.Path, 0}}
}

// AppCred is an application credential: a secret that acts as its user in one project with some of the user's roles.
type AppCred struct {
	ID, UserID, ProjectID, Name, Description string
	SecretHash                               string
	Unrestricted                             bool
	ExpiresAt                                time.Time
	RoleIDs, RuleIDs                         []string
}

// Fields lists the attributes.
func (a *AppCred) Fields() []Field {
	return []Field{{"id", &a.ID, Fixed}, {"user_id", &a.UserID, Managed}, {"project_id", &a.ProjectID, Managed}, {"name", &a.Name, 0},
		{"description", &a.Description, Nullable}, {"secret_hash", &a.SecretHash, Private}, {"unrestricted", &a.Unrestricted, 0},
		{"expires_at", &a.ExpiresAt, Nullable | Micros}, {"role_ids", &a.RoleIDs, Private}, {"rule_ids", &a.RuleIDs, Private}}
}

// Trust lets the trustee act in the trustor's project with some of the trustor's roles.
type Trust struct {
	ID, TrustorID, TrusteeID, ProjectID, RedelegatedID string
	Impersonation                                      bool
	ExpiresAt                                          time.Time
	RemainingUses                                      int64 // -1: unlimited
	RedelegationCount                                  int64
	RoleIDs                                            []string
}

// Fields lists the attributes.
func (t *Trust) Fields() []Field {
	return []Field{{"id", &t.ID, Fixed}, {"trustor_user_id", &t.TrustorID, 0}, {"trustee_user_id", &t.TrusteeID, 0}, {"project_id", &t.ProjectID, Nullable},
		{"redelegated_trust_id", &t.RedelegatedID, Omit}, {"impersonation", &t.Impersonation, 0}, {"expires_at", &t.ExpiresAt, Nullable},
		{"remaining_uses", &t.RemainingUses, Private}, {"redelegation_count", &t.RedelegationCount, 0},
		{"role_ids", &t.RoleIDs, Private}}
}

// Consumer is a registered OAuth 1.0a consumer.
type Consumer struct {
	ID, Description, Secret string
	Extra                   Attrs
}

// Fields lists the attributes.
func (c *Consumer) Fields() []Field {
	return []Field{{"id", &c.ID, Fixed}, {"description", &c.Description, Nullable}, {"secret", &c.Secret, Private}, {"extra", &c.Extra, Private}}
}

// EndpointGroup is a filter that picks endpoints for projects.
type EndpointGroup struct {
	ID, Name, Description string
	Filters               map[string]string
}

// Fields lists the attributes.
func (g *EndpointGroup) Fields() []Field {
	return []Field{{"id", &g.ID, Fixed}, {"name", &g.Name, 0}, {"description", &g.Description, Nullable}, {"filters", &g.Filters, 0}}
}
