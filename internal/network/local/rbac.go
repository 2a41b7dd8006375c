package local

import (
	"context"

	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/network"
	"kilonova/internal/network/documents"
)

// countedRBAC tells whether an entry counts against quota: those that come with the attributes shared and router:external
// of a network do not.
func countedRBAC(r *network.RBAC) bool {
	return r.Target != "*" || r.ObjectType != "network"
}

// RBACs lists entries. A project sees those that it made and those that name it.
func (s *Service) RBACs(ctx context.Context, f Filter) ([]network.RBAC, error) {
	return s.rbac.Find(ctx, s.db, f, "target = ?", f.Project)
}

// CreateRBAC lets a project, or everybody, use an object.
func (c *Change) CreateRBAC(r *network.RBAC) error {
	dup, err := documents.Exists(c.ctx, c.tx, "SELECT 1 FROM network_rbac WHERE object_id = ? AND action = ? AND target = ?", r.ObjectID, r.Action, r.Target)
	if err != nil {
		return err
	}
	if dup {
		return fault.New(fault.Conflict, "An RBAC policy already exists with those values.").WithCode("DuplicateRbacPolicy")
	}
	if countedRBAC(r) {
		if err := c.use(r.ProjectID, "rbac_policy", 1); err != nil {
			return err
		}
	}
	r.ID = id.UUID()
	if err := c.rbac.Insert(c.ctx, c.tx, r); err != nil {
		return err
	}
	return c.reflectRBAC(r, true)
}

// reflectRBAC keeps the external attribute of a network equal to its entries.
func (c *Change) reflectRBAC(r *network.RBAC, on bool) error {
	if r.ObjectType != "network" || r.Action != "access_as_external" {
		return nil
	}
	n, err := c.networks.Lock(c.ctx, c.tx, r.ObjectID)
	if err != nil || n.External == on {
		return err
	}
	if !on {
		more, err := documents.Exists(c.ctx, c.tx, "SELECT 1 FROM network_rbac WHERE object_id = ? AND action = ?", r.ObjectID, r.Action)
		if err != nil || more {
			return err
		}
	}
	n.External = on
	return c.networks.Update(c.ctx, c.tx, n)
}

// UpdateRBAC changes whom an entry names.
func (c *Change) UpdateRBAC(rbacID string, change func(r *network.RBAC) error) (*network.RBAC, error) {
	r, err := c.rbac.Lock(c.ctx, c.tx, rbacID)
	if err != nil {
		return nil, err
	}
	before := *r
	if err := change(r); err != nil {
		return nil, err
	}
	if before.Target != r.Target {
		if err := c.rbacUnused(&before); err != nil {
			return nil, err
		}
		for _, u := range []struct {
			e *network.RBAC
			n int64
		}{{&before, -1}, {r, 1}} {
			if countedRBAC(u.e) {
				if err := c.use(u.e.ProjectID, "rbac_policy", u.n); err != nil {
					return nil, err
				}
			}
		}
	}
	return r, c.rbac.Update(c.ctx, c.tx, r)
}

// DeleteRBAC ends a sharing; fault.Conflict RbacPolicyInUse while the project that it names uses the object.
func (c *Change) DeleteRBAC(rbacID string) error {
	r, err := c.rbac.Lock(c.ctx, c.tx, rbacID)
	if err != nil {
		return err
	}
	if err := c.rbacUnused(r); err != nil {
		return err
	}
	if countedRBAC(r) {
		if err := c.use(r.ProjectID, "rbac_policy", -1); err != nil {
			return err
		}
	}
	if err := c.rbac.Delete(c.ctx, c.tx, rbacID); err != nil {
		return err
	}
	return c.reflectRBAC(r, false)
}

func (c *Change) rbacUnused(r *network.RBAC) error {
	if r.ObjectType != "network" || r.Action != "access_as_shared" {
		return nil
	}
	q := `SELECT 1 FROM network_ports WHERE network_id = ? AND project_id <> ''
 AND project_id NOT IN (SELECT project_id FROM network_networks WHERE id = ?)
 AND project_id NOT IN (SELECT target FROM network_rbac WHERE object_id = ? AND action = 'access_as_shared' AND id <> ?)
 AND NOT EXISTS (SELECT 1 FROM network_rbac WHERE object_id = ? AND action = 'access_as_shared' AND target = '*' AND id <> ?)`
	args := []any{r.ObjectID, r.ObjectID, r.ObjectID, r.ID, r.ObjectID, r.ID}
	if r.Target != "*" {
		q, args = q+" AND project_id = ?", append(args, r.Target)
	}
	used, err := documents.Exists(c.ctx, c.tx, q+" LIMIT 1", args...)
	if err == nil && used {
		return fault.New(fault.Conflict, "RBAC policy on object %s cannot be removed because other objects depend on it.", r.ObjectID).WithCode("RbacPolicyInUse")
	}
	return err
}
