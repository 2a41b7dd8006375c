package local

import (
	"context"
	"strings"

	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/identity"
)

func (s *Service) projectRule(ctx context.Context, tx *db.Tx, old, next *identity.Project) error {
	switch {
	case old == nil:
		return s.placeProject(ctx, tx, next)
	case next == nil:
		return s.deleteProject(ctx, tx, old)
	}
	if err := immutable("project", old.ID, old.Options, next.Options, false); err != nil {
		return err
	}
	kind, object := changeProject, old.ID
	if old.IsDomain {
		kind, object = changeAll, ""
	}
	if !old.Enabled || next.Enabled {
		return s.note(ctx, tx, kind, object)
	}
	next.TokenEpoch = old.TokenEpoch + 1
	if old.IsDomain { // its users' tokens and those for its projects fail while it is disabled, and do not come back afterwards
		if err := exec(ctx, tx, old.ID, "UPDATE identity_users SET token_epoch = token_epoch + 1 WHERE domain_id = ?",
			"UPDATE identity_projects SET token_epoch = token_epoch + 1 WHERE domain_id = ?"); err != nil {
			return err
		}
		return s.note(ctx, tx, kind, object)
	}
	below, err := any1(ctx, tx, "SELECT COUNT(*) FROM identity_projects WHERE parent_id = ? AND enabled = 1", old.ID)
	if err != nil {
		return err
	}
	if below {
		return fault.New(fault.Forbidden, "Project %s cannot be disabled while a project below it is enabled. Disable those first.", old.ID)
	}
	return s.note(ctx, tx, kind, object)
}

// placeProject finds the place of a new project in the tree.
func (s *Service) placeProject(ctx context.Context, tx *db.Tx, p *identity.Project) error {
	if p.IsDomain {
		if p.DomainID != "" || p.ParentID != "" {
			return fault.New(fault.Invalid, "A project that acts as a domain has neither a domain nor a parent.")
		}
		return nil
	}
	if p.ParentID == "" {
		p.ParentID = p.DomainID
	}
	if p.ParentID == "" {
		return fault.New(fault.Invalid, "A project needs a domain_id or a parent_id.")
	}
	if p.DomainID != "" {
		if _, err := s.domain(ctx, tx, p.DomainID); err != nil {
			return err
		}
	}
	for id, depth := p.ParentID, 1; id != ""; depth++ {
		parent, err := s.Projects.get(ctx, tx, id)
		if err != nil {
			return err
		}
		if !parent.Enabled {
			return fault.New(fault.Forbidden, "Project %s cannot be created below %s, which is disabled.", p.Name, parent.ID)
		}
		if parent.IsDomain {
			if p.DomainID == "" {
				p.DomainID = parent.ID
			}
			if p.DomainID != parent.ID {
				return fault.New(fault.Invalid, "Project %s cannot be in domain %s: its parent is in %s.", p.Name, p.DomainID, parent.ID)
			}
		} else if depth >= s.cfg.MaxProjectDepth {
			return fault.New(fault.Forbidden, "There can be no project below %s: projects nest no deeper.", p.ParentID)
		}
		id = parent.ParentID
	}
	return nil
}

func (s *Service) deleteProject(ctx context.Context, tx *db.Tx, p *identity.Project) error {
	if err := immutable("project", p.ID, p.Options, nil, true); err != nil {
		return err
	}
	if p.IsDomain {
		if p.Enabled {
			return fault.New(fault.Forbidden, "An enabled domain cannot be deleted. Disable it first.")
		}
		if err := s.emptyDomain(ctx, tx, p.ID); err != nil {
			return err
		}
		if err := s.note(ctx, tx, changeAll, ""); err != nil {
			return err
		}
	} else {
		below, err := any1(ctx, tx, "SELECT COUNT(*) FROM identity_projects WHERE parent_id = ?", p.ID)
		if err != nil {
			return err
		}
		if below {
			return fault.New(fault.Forbidden, "Project %s cannot be deleted while there are projects below it.", p.ID)
		}
	}
	if err := exec(ctx, tx, p.ID, "DELETE FROM identity_assignments WHERE target_id = ?", "DELETE FROM identity_credentials WHERE project_id = ?",
		"DELETE FROM identity_app_creds WHERE project_id = ?", "DELETE FROM identity_trusts WHERE project_id = ?",
		"DELETE FROM identity_limits WHERE project_id = ?", "DELETE FROM identity_project_endpoints WHERE project_id = ?",
		"UPDATE identity_users SET default_project_id = '' WHERE default_project_id = ?"); err != nil {
		return err
	}
	return s.note(ctx, tx, changeProject, p.ID)
}

// emptyDomain removes all that is in a domain: projects from the leaves up, users, groups, roles.
func (s *Service) emptyDomain(ctx context.Context, tx *db.Tx, domain string) error {
	projects, err := s.subtree(ctx, tx, domain)
	if err != nil {
		return err
	}
	for i := len(projects) - 1; i >= 0; i-- {
		if err := s.Projects.remove(ctx, tx, projects[i].ID, &projects[i]); err != nil {
			return err
		}
	}
	if err := removeAll(ctx, tx, s.Users, domain); err != nil {
		return err
	}
	if err := removeAll(ctx, tx, s.Groups, domain); err != nil {
		return err
	}
	if err := removeAll(ctx, tx, s.Roles, domain); err != nil {
		return err
	}
	return exec(ctx, tx, domain, "DELETE FROM identity_limits WHERE domain_id = ?", "DELETE FROM identity_domain_config WHERE domain_id = ?")
}

func removeAll[T any, P Noun[T]](ctx context.Context, tx *db.Tx, c *Collection[T, P], domain string) error {
	rows, err := c.query(ctx, tx, "WHERE domain_id = ?", domain)
	if err != nil {
		return err
	}
	for i := range rows {
		if err := c.remove(ctx, tx, *P(&rows[i]).Fields()[0].Ptr.(*string), &rows[i]); err != nil {
			return err
		}
	}
	return nil
}

// Ancestors gives the projects above p, its parent first, its domain last.
func (s *Service) Ancestors(ctx context.Context, p *identity.Project) ([]identity.Project, error) {
	return s.ancestors(ctx, s.db, p)
}

func (s *Service) ancestors(ctx context.Context, q db.Querier, p *identity.Project) ([]identity.Project, error) {
	var out []identity.Project
	for id := p.ParentID; id != ""; {
		parent, err := s.Projects.get(ctx, q, id)
		if err != nil {
			return nil, err
		}
		out = append(out, *parent)
		id = parent.ParentID
	}
	return out, nil
}

// Subtree gives the projects below a project or domain, parents before their children.
func (s *Service) Subtree(ctx context.Context, id string) ([]identity.Project, error) {
	return s.subtree(ctx, s.db, id)
}

func (s *Service) subtree(ctx context.Context, q db.Querier, id string) ([]identity.Project, error) {
	var out []identity.Project
	for level := []string{id}; len(level) > 0; {
		var below []identity.Project
		for len(level) > 0 {
			n := min(len(level), 500)
			part, err := s.Projects.query(ctx, q, "WHERE parent_id IN ("+db.In(n)+") ORDER BY id", db.Args(level[:n])...)
			if err != nil {
				return nil, err
			}
			below, level = append(below, part...), level[n:]
		}
		out = append(out, below...)
		for _, p := range below {
			level = append(level, p.ID)
		}
	}
	return out, nil
}

// findProject resolves a selector to an enabled project or domain that exists.
func (s *Service) findProject(ctx context.Context, sel identity.Selector, domains bool) (*identity.Project, error) {
	if sel.ID != "" {
		p, err := s.Projects.Get(ctx, sel.ID)
		if err == nil && domains && !p.IsDomain {
			return nil, fault.New(fault.NotFound, "Could not find domain: %s.", sel.ID)
		}
		return p, err
	}
	parent := ""
	if !domains {
		d, err := s.findProject(ctx, identity.Selector{ID: sel.DomainID, Name: sel.DomainName}, true)
		if err != nil {
			return nil, err
		}
		parent = d.ID
	}
	found, err := s.Projects.query(ctx, s.db, "WHERE domain_id = ? AND name = ?", parent, sel.Name)
	if err != nil {
		return nil, err
	}
	if domains && len(found) == 0 && sel.Name != "" { // Keystone's usual database does not tell case apart, and many scripts log in to the domain "default", which is named Default
		if found, err = s.Projects.query(ctx, s.db, "WHERE domain_id = '' AND lower(name) = ?", strings.ToLower(sel.Name)); err != nil {
			return nil, err
		}
		if len(found) > 1 {
			found = nil // it is not for us to choose
		}
	}
	if len(found) == 0 || strings.TrimSpace(sel.Name) == "" {
		return nil, fault.New(fault.NotFound, "Could not find project: %s.", sel.Name)
	}
	return &found[0], nil
}
