package local

import (
	"context"

	"kilonova/internal/clock"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/identity"
)

// CreateTrust makes a trust of the token's user. The roles, named by id or name, must be among those that the trustor holds on the project.
func (s *Service) CreateTrust(ctx context.Context, t *identity.Trust, roles []identity.Ref, tok *identity.Token) error {
	if tok.User.ID != t.TrustorID {
		return fault.New(fault.Forbidden, "Only the trustor can create a trust.")
	}
	if tok.Trust != nil || tok.AppCred != nil && !tok.AppCred.Unrestricted {
		return fault.New(fault.Forbidden, "A token made from a trust or a restricted application credential cannot create trusts.")
	}
	if !t.ExpiresAt.IsZero() && !t.ExpiresAt.After(clock.Now()) {
		return fault.New(fault.Invalid, "The trust would expire in the past: give a later expires_at.")
	}
	if _, err := s.Users.Get(ctx, t.TrusteeID); err != nil {
		return err
	}
	t.ID, t.RoleIDs = id.Hex(), []string{}
	if t.ProjectID == "" {
		if len(roles) > 0 {
			return fault.New(fault.Forbidden, "A trust without a project cannot delegate roles.")
		}
		return s.Trusts.Create(ctx, t)
	}
	project, err := s.Projects.Get(ctx, t.ProjectID)
	if err != nil {
		return err
	}
	if len(roles) == 0 {
		return fault.New(fault.Forbidden, "A trust for a project needs at least one role.")
	}
	held, err := s.rolesOn(ctx, t.TrustorID, project, "")
	if err != nil {
		return err
	}
	table, err := s.roleTable(ctx)
	if err != nil {
		return err
	}
	granted := &identity.Token{Roles: table.refs(held)}
	for _, want := range roles {
		ids, err := pickRoles(granted, []identity.Ref{want})
		if err != nil {
			return fault.Wrap(err, fault.Forbidden, "The trustor does not hold role %s on project %s.", want.ID+want.Name, t.ProjectID)
		}
		t.RoleIDs = append(t.RoleIDs, ids...)
	}
	return s.Trusts.Create(ctx, t)
}

// EndTrust deletes a trust. Its tokens fail from now on.
func (s *Service) EndTrust(ctx context.Context, trust string) error {
	return s.Trusts.Delete(ctx, trust)
}
