// Package local is the built-in identity service: projects, users, roles, the catalog and tokens, kept in SQL.
//
// What it promises. A token is valid exactly as long as the database says so: its user, project and their domains exist and are
// enabled, its roles are those assigned now, it is neither expired nor revoked, and its user's password has not changed since it was
// issued. Verified tokens are remembered for Config.CacheTTL, but a change that could make one invalid is known at once in the process
// that made it, and in every other process on the same database within Config.SyncEvery of its commit. When the database cannot be
// asked for changes, tokens are refused with fault.Unavailable rather than believed.
//
// Passwords are bcrypt hashes of Config.BcryptCost; at most one hash per processor runs at a time. Token keys lie in Config.KeyDir in
// the layout of a Keystone key repository; processes that share a database must share them.
package local

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync/atomic"
	"time"

	"kilonova/internal/auth"
	"kilonova/internal/db"
	"kilonova/internal/identity"
	"kilonova/internal/identity/keyring"
	"kilonova/internal/identity/password"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Config is what the service needs. Zero values take the defaults named.
type Config struct {
	DB     *db.DB
	KeyDir string // token keys; made with mode 0700 when missing

	BcryptCost int           // 12, as Keystone; 4 to 31
	TokenTTL   time.Duration // 1 hour
	CacheTTL   time.Duration // 1 minute: how long a verified token is believed at most
	CacheSize  int           // 10,000 tokens, about 2 KiB each
	SyncEvery  time.Duration // 500 ms: how old the knowledge of other processes' changes may be; negative: no other process writes

	LockoutFailures  int           // failed logins that lock a user; 0: never
	LockoutDuration  time.Duration // 30 minutes
	PasswordHistory  int           // own earlier passwords that a user may not choose again, the present one included; 0: any
	PasswordLifetime time.Duration // 0: for ever
	MaxProjectDepth  int           // 5 projects below a domain
}

// Service is the identity service.
type Service struct {
	db  *db.DB
	cfg Config

	Projects         *Collection[identity.Project, *identity.Project]
	Users            *Collection[identity.User, *identity.User]
	Groups           *Collection[identity.Group, *identity.Group]
	Roles            *Collection[identity.Role, *identity.Role]
	Regions          *Collection[identity.Region, *identity.Region]
	Services         *Collection[identity.Service, *identity.Service]
	Endpoints        *Collection[identity.Endpoint, *identity.Endpoint]
	Credentials      *Collection[identity.Credential, *identity.Credential]
	Policies         *Collection[identity.Policy, *identity.Policy]
	RegisteredLimits *Collection[identity.RegisteredLimit, *identity.RegisteredLimit]
	Limits           *Collection[identity.Limit, *identity.Limit]
	AccessRules      *Collection[identity.AccessRule, *identity.AccessRule]
	AppCreds         *Collection[identity.AppCred, *identity.AppCred]
	Trusts           *Collection[identity.Trust, *identity.Trust]
	Consumers        *Collection[identity.Consumer, *identity.Consumer]
	EndpointGroups   *Collection[identity.EndpointGroup, *identity.EndpointGroup]

	keys      *keyring.Ring // tokens
	sealing   *keyring.Ring // credentials
	passwords *password.Hasher
	tokens    *cache
	changes   *changes
	roles     atomic.Pointer[roleTable]
	catalog   atomic.Pointer[catalogTable]
}

var (
	_ auth.Authenticator = (*Service)(nil)
	_ identity.Directory = (*Service)(nil)
)

// New brings the tables up to date, makes missing keys and gives the service.
func New(ctx context.Context, cfg Config) (*Service, error) {
	cfg = cfg.withDefaults()
	passwords, err := password.New(cfg.BcryptCost)
	if err != nil {
		return nil, err
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	if err := cfg.DB.Migrate(ctx, "identity", files); err != nil {
		return nil, err
	}
	s := &Service{db: cfg.DB, cfg: cfg, passwords: passwords, tokens: newCache(cfg.CacheSize, cfg.CacheTTL)}
	if s.keys, err = keyring.Open(cfg.KeyDir); err != nil {
		return nil, err
	}
	if s.sealing, err = keyring.Open(filepath.Join(cfg.KeyDir, "credential")); err != nil {
		return nil, err
	}
	s.collections()
	if s.changes, err = newChanges(ctx, s); err != nil {
		return nil, err
	}
	return s, nil
}

func (c Config) withDefaults() Config {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&c.TokenTTL, time.Hour)
	set(&c.CacheTTL, time.Minute)
	set(&c.SyncEvery, 500*time.Millisecond)
	set(&c.LockoutDuration, 30*time.Minute)
	if c.BcryptCost == 0 {
		c.BcryptCost = 12
	}
	if c.CacheSize == 0 {
		c.CacheSize = 10000
	}
	if c.MaxProjectDepth == 0 {
		c.MaxProjectDepth = 5
	}
	return c
}

func (s *Service) collections() {
	s.Projects = newCollection[identity.Project](s, "project", "identity_projects", "name", s.projectRule)
	s.Users = newCollection[identity.User](s, "user", "identity_users", "name", s.userRule)
	s.Groups = newCollection[identity.Group](s, "group", "identity_groups", "name", s.groupRule)
	s.Roles = newCollection[identity.Role](s, "role", "identity_roles", "name", s.roleRule)
	s.Regions = newCollection[identity.Region](s, "region", "identity_regions", "id", s.regionRule)
	s.Services = newCollection[identity.Service](s, "service", "identity_services", "id", s.serviceRule)
	s.Endpoints = newCollection[identity.Endpoint](s, "endpoint", "identity_endpoints", "id", s.endpointRule)
	s.Credentials = newCollection[identity.Credential](s, "credential", "identity_credentials", "id", nil)
	s.Policies = newCollection[identity.Policy](s, "policy", "identity_policies", "id", nil)
	s.RegisteredLimits = newCollection[identity.RegisteredLimit](s, "registered limit", "identity_registered_limits", "resource_name", s.registeredLimitRule)
	s.Limits = newCollection[identity.Limit](s, "limit", "identity_limits", "resource_name", s.limitRule)
	s.AccessRules = newCollection[identity.AccessRule](s, "access rule", "identity_access_rules", "path", s.accessRuleRule)
	s.AppCreds = newCollection[identity.AppCred](s, "application credential", "identity_app_creds", "name", s.appCredRule)
	s.Trusts = newCollection[identity.Trust](s, "trust", "identity_trusts", "id", s.trustRule)
	s.Consumers = newCollection[identity.Consumer](s, "consumer", "identity_consumers", "id", nil)
	s.EndpointGroups = newCollection[identity.EndpointGroup](s, "endpoint group", "identity_endpoint_groups", "name", s.endpointGroupRule)
}

// ProjectExists implements identity.Directory.
func (s *Service) ProjectExists(ctx context.Context, id string) (bool, error) {
	return s.exists(ctx, "SELECT COUNT(*) FROM identity_projects WHERE id = ?", id)
}

// UserExists implements identity.Directory.
func (s *Service) UserExists(ctx context.Context, id string) (bool, error) {
	return s.exists(ctx, "SELECT COUNT(*) FROM identity_users WHERE id = ?", id)
}

func (s *Service) exists(ctx context.Context, q string, args ...any) (bool, error) {
	return any1(ctx, s.db, q, args...)
}

// any1 tells whether a counting query counts anything.
func any1(ctx context.Context, q db.Querier, query string, args ...any) (bool, error) {
	var n int64
	if err := q.QueryRow(ctx, query, args...).Scan(&n); err != nil {
		return false, fmt.Errorf("count: %w", err)
	}
	return n > 0, nil
}

// texts reads a query of one text column.
func texts(ctx context.Context, q db.Querier, query string, args ...any) ([]string, error) {
	rows, err := q.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var t string
		if err := rows.Scan(&t); err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, rows.Err()
}

// HashPassword gives the bcrypt hash of a password, waiting for a free processor.
func (s *Service) HashPassword(ctx context.Context, password string) (string, error) {
	return s.passwords.Hash(ctx, password)
}
