package local

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"kilonova/internal/clock"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/identity"
	"kilonova/internal/identity/password"
)

// DefaultDomain is the id of the domain that Bootstrap makes.
const DefaultDomain = "default"

// BootstrapConfig is what a new cloud starts with.
type BootstrapConfig struct {
	Region    string // "RegionOne" when empty
	Users     []BootstrapUser
	Endpoints []BootstrapEndpoint
	// ResetPasswords gives users that are already there the passwords again, for an operator who lost them.
	ResetPasswords bool
}

// BootstrapUser is a user with roles on a project. Admin also gets the role admin on the system.
type BootstrapUser struct {
	Name, Password, Project string
	Roles                   []string
	Admin                   bool
	// Generated says that the password was made by a machine from at least 128 random bits: a plain digest of it is kept, which makes
	// the first start and the logins of service users fast and gives nothing away.
	Generated bool
}

// BootstrapEndpoint is a service with its URLs; an empty Internal or Admin is the same as Public.
type BootstrapEndpoint struct {
	Type, Name, Description string
	Public, Internal, Admin string
}

// StandardUsers are the users admin (project admin) and demo (project demo).
func StandardUsers(adminPassword, demoPassword string) []BootstrapUser {
	return []BootstrapUser{
		{Name: "admin", Password: adminPassword, Project: "admin", Roles: []string{"admin"}, Admin: true},
		{Name: "demo", Password: demoPassword, Project: "demo", Roles: []string{"member", "reader"}},
	}
}

// Bootstrap makes the domain "default", the projects admin, service and demo, the roles admin, manager, member, reader and service, the
// given users, the region and the catalog. It may be run again at every start: it adds what is missing, moves endpoints whose URLs
// changed, and leaves everything else alone.
func (s *Service) Bootstrap(ctx context.Context, cfg BootstrapConfig) error {
	if cfg.Region == "" {
		cfg.Region = "RegionOne"
	}
	hashes, err := s.bootstrapHashes(ctx, cfg)
	if err != nil {
		return err
	}
	err = s.bootstrap(ctx, cfg, hashes)
	if errors.Is(err, fault.Conflict) { // another process did the same just now: the second look finds it done
		err = s.bootstrap(ctx, cfg, hashes)
	}
	return err
}

func (s *Service) bootstrap(ctx context.Context, cfg BootstrapConfig, hashes map[string]string) error {
	return s.db.Write(ctx, func(tx *db.Tx) error {
		b := &bootstrap{s: s, tx: tx, cfg: cfg, hashes: hashes, projects: map[string]string{}, roles: map[string]string{}}
		for _, step := range []func(context.Context) error{b.makeProjects, b.makeRoles, b.makeUsers, b.makeCatalog} {
			if err := step(ctx); err != nil {
				return fmt.Errorf("bootstrap identity: %w", err)
			}
		}
		return nil
	})
}

// bootstrapHashes hashes the passwords of the users that need one, side by side.
func (s *Service) bootstrapHashes(ctx context.Context, cfg BootstrapConfig) (map[string]string, error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var first error
	out := map[string]string{}
	for _, u := range cfg.Users {
		there, err := s.exists(ctx, "SELECT COUNT(*) FROM identity_users WHERE domain_id = ? AND name = ?", DefaultDomain, u.Name)
		if err != nil {
			return nil, err
		}
		if there && !cfg.ResetPasswords {
			continue
		}
		if u.Generated {
			mu.Lock()
			out[u.Name] = password.Digest(u.Password)
			mu.Unlock()
			continue
		}
		wg.Go(func() {
			h, err := s.HashPassword(ctx, u.Password)
			mu.Lock()
			defer mu.Unlock()
			out[u.Name] = h
			if err != nil {
				first = err
			}
		})
	}
	wg.Wait()
	return out, first
}

// bootstrap is one run inside its transaction.
type bootstrap struct {
	s               *Service
	tx              *db.Tx
	cfg             BootstrapConfig
	hashes          map[string]string
	projects, roles map[string]string // name -> id
}

func (b *bootstrap) makeProjects(ctx context.Context) error {
	if _, err := b.s.Projects.get(ctx, b.tx, DefaultDomain); errors.Is(err, fault.NotFound) {
		d := &identity.Project{ID: DefaultDomain, Name: "Default", Description: "The domain that is used when none is named", Enabled: true, IsDomain: true}
		if err := b.s.Projects.create(ctx, b.tx, d); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	for name, about := range map[string]string{"admin": "Project of the administrators", "service": "Project of the services", "demo": "Project of the first user"} {
		if err := b.project(ctx, name, about); err != nil {
			return err
		}
	}
	for _, u := range b.cfg.Users {
		if err := b.project(ctx, u.Project, ""); err != nil {
			return err
		}
	}
	return nil
}

func (b *bootstrap) project(ctx context.Context, name, about string) error {
	found, err := b.s.Projects.query(ctx, b.tx, "WHERE domain_id = ? AND name = ?", DefaultDomain, name)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		found = []identity.Project{{ID: id.Hex(), DomainID: DefaultDomain, Name: name, Description: about, Enabled: true}}
		if err := b.s.Projects.create(ctx, b.tx, &found[0]); err != nil {
			return err
		}
	}
	b.projects[name] = found[0].ID
	return nil
}

func (b *bootstrap) makeRoles(ctx context.Context) error {
	fresh := map[string]bool{}
	for _, name := range []string{"admin", "manager", "member", "reader", "service"} {
		found, err := b.s.Roles.query(ctx, b.tx, "WHERE domain_id = '' AND name = ?", name)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			found = []identity.Role{{ID: id.Hex(), Name: name, Options: identity.Attrs{"immutable": true}}}
			if err := b.s.Roles.create(ctx, b.tx, &found[0]); err != nil {
				return err
			}
			fresh[name] = true
		}
		b.roles[name] = found[0].ID
	}
	for _, pair := range [][2]string{{"admin", "manager"}, {"manager", "member"}, {"member", "reader"}} {
		if !fresh[pair[0]] && !fresh[pair[1]] { // an operator may have taken the rule away
			continue
		}
		if _, err := b.tx.Exec(ctx, db.Upsert(b.tx.Dialect(), "identity_implied", []string{"prior_id", "implied_id"}, nil), b.roles[pair[0]], b.roles[pair[1]]); err != nil {
			return err
		}
	}
	return nil
}

func (b *bootstrap) makeUsers(ctx context.Context) error {
	for _, u := range b.cfg.Users {
		found, err := b.s.Users.query(ctx, b.tx, "WHERE domain_id = ? AND name = ?", DefaultDomain, u.Name)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			user := identity.User{ID: id.Hex(), DomainID: DefaultDomain, Name: u.Name, Enabled: true, CreatedAt: clock.Now()}
			b.s.PutHash(&user, b.hashes[u.Name])
			if err := b.s.Users.create(ctx, b.tx, &user); err != nil {
				return err
			}
			found = append(found, user)
		} else if b.cfg.ResetPasswords {
			if _, err := b.s.Users.update(ctx, b.tx, found[0].ID, func(n *identity.User) error {
				b.s.PutHash(n, b.hashes[u.Name])
				n.Enabled = true
				return nil
			}); err != nil {
				return err
			}
		}
		if err := b.grant(ctx, found[0].ID, u); err != nil {
			return err
		}
	}
	return nil
}

func (b *bootstrap) grant(ctx context.Context, user string, u BootstrapUser) error {
	grants := []identity.Assignment{}
	for _, r := range u.Roles {
		role, ok := b.roles[r]
		if !ok {
			return fault.New(fault.Invalid, "Role %q of user %s is none of the bootstrap roles.", r, u.Name)
		}
		grants = append(grants, identity.Assignment{UserID: user, ProjectID: b.projects[u.Project], RoleID: role})
	}
	if u.Admin {
		grants = append(grants, identity.Assignment{UserID: user, RoleID: b.roles["admin"]})
	}
	for _, a := range grants {
		have, err := any1(ctx, b.tx, "SELECT COUNT(*) FROM identity_assignments WHERE "+whereKey, key(a)...)
		if err != nil {
			return err
		}
		if have {
			continue
		}
		if _, err := b.tx.Exec(ctx, "INSERT INTO identity_assignments (actor_type, actor_id, target_type, target_id, role_id, inherited) VALUES (?, ?, ?, ?, ?, ?)", key(a)...); err != nil {
			return err
		}
		if err := b.s.note(ctx, b.tx, changeUser, user); err != nil {
			return err
		}
	}
	return nil
}

func (b *bootstrap) makeCatalog(ctx context.Context) error {
	if _, err := b.s.Regions.get(ctx, b.tx, b.cfg.Region); errors.Is(err, fault.NotFound) {
		if err := b.s.Regions.create(ctx, b.tx, &identity.Region{ID: b.cfg.Region}); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	for _, e := range b.cfg.Endpoints {
		found, err := b.s.Services.query(ctx, b.tx, `WHERE "type" = ? AND name = ?`, e.Type, e.Name)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			found = []identity.Service{{ID: id.Hex(), Type: e.Type, Name: e.Name, Description: e.Description, Enabled: true}}
			if err := b.s.Services.create(ctx, b.tx, &found[0]); err != nil {
				return err
			}
		}
		for kind, url := range map[string]string{"public": e.Public, "internal": e.Internal, "admin": e.Admin} {
			if url == "" {
				url = e.Public
			}
			if err := b.endpoint(ctx, found[0].ID, kind, url); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bootstrap) endpoint(ctx context.Context, service, kind, url string) error {
	found, err := b.s.Endpoints.query(ctx, b.tx, `WHERE service_id = ? AND "interface" = ? AND region_id = ?`, service, kind, b.cfg.Region)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return b.s.Endpoints.create(ctx, b.tx, &identity.Endpoint{ID: id.Hex(), ServiceID: service, Interface: kind, RegionID: b.cfg.Region, URL: url, Enabled: true})
	}
	if found[0].URL == url {
		return nil
	}
	_, err = b.s.Endpoints.update(ctx, b.tx, found[0].ID, func(n *identity.Endpoint) error { n.URL = url; return nil })
	return err
}
