package local

import (
	"context"
	"errors"
	"slices"

	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/identity"
)

// exec runs statements that each take the same single parameter.
func exec(ctx context.Context, tx *db.Tx, arg string, statements ...string) error {
	for _, q := range statements {
		if _, err := tx.Exec(ctx, q, arg); err != nil {
			return err
		}
	}
	return nil
}

// immutable refuses a change of something whose option "immutable" is set, unless the change takes the option away.
func immutable(noun, id string, old, next identity.Attrs, deleted bool) error {
	if old["immutable"] != true || !deleted && next["immutable"] != true {
		return nil
	}
	return fault.New(fault.Forbidden, "The %s %s is immutable. Set its option immutable to false before changing or deleting it.", noun, id)
}

// domain gives a domain inside a transaction. It fails with fault.NotFound.
func (s *Service) domain(ctx context.Context, q db.Querier, id string) (*identity.Project, error) {
	d, err := s.Projects.get(ctx, q, id)
	if err == nil && !d.IsDomain || errors.Is(err, fault.NotFound) {
		return nil, fault.New(fault.NotFound, "Could not find domain: %s.", id)
	}
	return d, err
}

func (s *Service) userRule(ctx context.Context, tx *db.Tx, old, next *identity.User) error {
	switch {
	case old == nil:
		_, err := s.domain(ctx, tx, next.DomainID)
		return err
	case next == nil:
		if err := exec(ctx, tx, old.ID, "DELETE FROM identity_assignments WHERE actor_id = ?", "DELETE FROM identity_members WHERE user_id = ?",
			"DELETE FROM identity_credentials WHERE user_id = ?", "DELETE FROM identity_app_creds WHERE user_id = ?",
			"DELETE FROM identity_access_rules WHERE user_id = ?", "DELETE FROM identity_trusts WHERE trustor_user_id = ?",
			"DELETE FROM identity_trusts WHERE trustee_user_id = ?"); err != nil {
			return err
		}
		return s.note(ctx, tx, changeUser, old.ID)
	case old.PasswordHash != next.PasswordHash || old.Enabled && !next.Enabled:
		next.TokenEpoch = old.TokenEpoch + 1
	case old.FailedAuths != next.FailedAuths && old.Name == next.Name && old.Enabled == next.Enabled:
		return nil // only the count of failed logins: tokens do not depend on it
	}
	return s.note(ctx, tx, changeUser, old.ID)
}

func (s *Service) groupRule(ctx context.Context, tx *db.Tx, old, next *identity.Group) error {
	switch {
	case old == nil:
		_, err := s.domain(ctx, tx, next.DomainID)
		return err
	case next == nil:
		if err := exec(ctx, tx, old.ID, "DELETE FROM identity_assignments WHERE actor_id = ?", "DELETE FROM identity_members WHERE group_id = ?"); err != nil {
			return err
		}
		return s.note(ctx, tx, changeAll, "")
	}
	return nil
}

func (s *Service) roleRule(ctx context.Context, tx *db.Tx, old, next *identity.Role) error {
	if old == nil {
		if next.DomainID != "" {
			if _, err := s.domain(ctx, tx, next.DomainID); err != nil {
				return err
			}
		}
		return s.note(ctx, tx, changeAll, "")
	}
	var options identity.Attrs
	if next != nil {
		options = next.Options
	}
	if err := immutable("role", old.ID, old.Options, options, next == nil); err != nil {
		return err
	}
	if next == nil {
		if err := exec(ctx, tx, old.ID, "DELETE FROM identity_assignments WHERE role_id = ?", "DELETE FROM identity_implied WHERE prior_id = ?",
			"DELETE FROM identity_implied WHERE implied_id = ?"); err != nil {
			return err
		}
	}
	return s.note(ctx, tx, changeAll, "")
}

func (s *Service) regionRule(ctx context.Context, tx *db.Tx, old, next *identity.Region) error {
	if next == nil {
		return s.deleteRegion(ctx, tx, old.ID)
	}
	for id, depth := next.ParentID, 0; id != ""; depth++ {
		if id == next.ID || depth > 64 {
			return fault.New(fault.Invalid, "Region %s cannot be its own ancestor.", next.ID)
		}
		parent, err := s.Regions.get(ctx, tx, id)
		if err != nil {
			return err
		}
		id = parent.ParentID
	}
	return s.note(ctx, tx, changeCatalog, "")
}

// deleteRegion removes the regions below a region; none of them may have endpoints.
func (s *Service) deleteRegion(ctx context.Context, tx *db.Tx, id string) error {
	tree := []string{id}
	for i := 0; i < len(tree); i++ {
		below, err := texts(ctx, tx, "SELECT id FROM identity_regions WHERE parent_region_id = ?", tree[i])
		if err != nil {
			return err
		}
		tree = append(tree, below...)
		used, err := any1(ctx, tx, "SELECT COUNT(*) FROM identity_endpoints WHERE region_id = ?", tree[i])
		if err != nil {
			return err
		}
		if used {
			return fault.New(fault.Forbidden, "Region %s cannot be deleted while it or a region below it has endpoints.", id)
		}
	}
	for _, r := range tree[1:] {
		if err := exec(ctx, tx, r, "DELETE FROM identity_regions WHERE id = ?"); err != nil {
			return err
		}
	}
	return s.note(ctx, tx, changeCatalog, "")
}

func (s *Service) serviceRule(ctx context.Context, tx *db.Tx, old, next *identity.Service) error {
	if next == nil {
		if err := exec(ctx, tx, old.ID,
			"DELETE FROM identity_project_endpoints WHERE object_id IN (SELECT id FROM identity_endpoints WHERE service_id = ?)",
			"DELETE FROM identity_endpoints WHERE service_id = ?"); err != nil {
			return err
		}
	}
	return s.note(ctx, tx, changeCatalog, "")
}

func (s *Service) endpointRule(ctx context.Context, tx *db.Tx, old, next *identity.Endpoint) error {
	if next == nil {
		if err := exec(ctx, tx, old.ID, "DELETE FROM identity_project_endpoints WHERE object_id = ?"); err != nil {
			return err
		}
		return s.note(ctx, tx, changeCatalog, "")
	}
	if err := known(ctx, tx, "service_id", "SELECT COUNT(*) FROM identity_services WHERE id = ?", next.ServiceID); err != nil {
		return err
	}
	if next.RegionID != "" {
		if err := known(ctx, tx, "region_id", "SELECT COUNT(*) FROM identity_regions WHERE id = ?", next.RegionID); err != nil {
			return err
		}
	}
	return s.note(ctx, tx, changeCatalog, "")
}

// known refuses an attribute that names something that is not there.
func known(ctx context.Context, q db.Querier, attribute, query, value string) error {
	ok, err := any1(ctx, q, query, value)
	if err != nil || ok {
		return err
	}
	return fault.New(fault.Invalid, "Invalid input for field '%s': there is no %s.", attribute, value)
}

func (s *Service) registeredLimitRule(ctx context.Context, tx *db.Tx, old, next *identity.RegisteredLimit) error {
	if old != nil && (next == nil || old.ServiceID != next.ServiceID || old.RegionID != next.RegionID || old.ResourceName != next.ResourceName) {
		used, err := any1(ctx, tx, "SELECT COUNT(*) FROM identity_limits WHERE service_id = ? AND region_id = ? AND resource_name = ?",
			old.ServiceID, old.RegionID, old.ResourceName)
		if err != nil {
			return err
		}
		if used {
			return fault.New(fault.Forbidden, "Registered limit %s cannot be deleted or moved while limits of projects or domains hang on it.", old.ID)
		}
	}
	if next == nil {
		return nil
	}
	if err := known(ctx, tx, "service_id", "SELECT COUNT(*) FROM identity_services WHERE id = ?", next.ServiceID); err != nil || next.RegionID == "" {
		return err
	}
	return known(ctx, tx, "region_id", "SELECT COUNT(*) FROM identity_regions WHERE id = ?", next.RegionID)
}

func (s *Service) limitRule(ctx context.Context, tx *db.Tx, old, next *identity.Limit) error {
	if old != nil || next == nil {
		return nil
	}
	if next.ProjectID != "" {
		if err := known(ctx, tx, "project_id", "SELECT COUNT(*) FROM identity_projects WHERE is_domain = 0 AND id = ?", next.ProjectID); err != nil {
			return err
		}
	} else if err := known(ctx, tx, "domain_id", "SELECT COUNT(*) FROM identity_projects WHERE is_domain = 1 AND id = ?", next.DomainID); err != nil {
		return err
	}
	ok, err := any1(ctx, tx, "SELECT COUNT(*) FROM identity_registered_limits WHERE service_id = ? AND region_id = ? AND resource_name = ?",
		next.ServiceID, next.RegionID, next.ResourceName)
	if err != nil || ok {
		return err
	}
	return fault.New(fault.Forbidden, "A limit needs a registered limit for the same service, region and resource. Register that first.")
}

func (s *Service) accessRuleRule(ctx context.Context, tx *db.Tx, old, next *identity.AccessRule) error {
	if next != nil {
		return nil
	}
	creds, err := s.AppCreds.query(ctx, tx, "WHERE user_id = ?", old.UserID)
	if err != nil {
		return err
	}
	for _, c := range creds {
		if slices.Contains(c.RuleIDs, old.ID) {
			return fault.New(fault.Forbidden, "Access rule %s is used by application credential %s. Delete that first.", old.ID, c.ID)
		}
	}
	return nil
}

func (s *Service) appCredRule(ctx context.Context, tx *db.Tx, old, next *identity.AppCred) error {
	if next == nil { // its tokens fail with it
		return s.note(ctx, tx, changeUser, old.UserID)
	}
	return nil
}

func (s *Service) trustRule(ctx context.Context, tx *db.Tx, old, next *identity.Trust) error {
	if next != nil {
		return nil
	}
	if err := s.note(ctx, tx, changeUser, old.TrusteeID); err != nil {
		return err
	}
	return s.note(ctx, tx, changeUser, old.TrustorID)
}

func (s *Service) endpointGroupRule(ctx context.Context, tx *db.Tx, old, next *identity.EndpointGroup) error {
	if next == nil {
		if err := exec(ctx, tx, old.ID, "DELETE FROM identity_project_endpoints WHERE object_id = ?"); err != nil {
			return err
		}
	}
	return s.note(ctx, tx, changeCatalog, "")
}
