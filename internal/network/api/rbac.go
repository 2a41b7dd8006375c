package api

import (
	"kilonova/internal/fault"
	"kilonova/internal/network"
	"kilonova/internal/network/local"
	"kilonova/internal/policy"
)

// rbacPolicies share networks and security groups.
func rbacPolicies(a *API) *resource {
	return &resource{api: a, name: "rbac_policy", plural: "rbac_policies", path: "rbac-policies", kind: "RbacPolicy",
		attrs: []attr{projectAttr(),
			{name: "object_type", when: required, kind: oneOf("network", "security_group")},
			{name: "object_id", when: required, kind: uuid},
			{name: "target_tenant", when: required | put, kind: filled(255), rule: true, onlyIf: func(v any) bool { return v == "*" }},
			{name: "action", when: required, kind: oneOf("access_as_shared", "access_as_external")}},
		columns: map[string]string{"id": "id", "project_id": "project_id", "object_type": "object_type", "object_id": "object_id", "action": "action"},
		list: func(q *call, f local.Filter) ([]doc, error) {
			rs, err := a.svc.RBACs(q.Context(), f)
			docs := make([]doc, len(rs))
			for i := range rs {
				r := &rs[i]
				docs[i] = doc{"id": r.ID, "object_type": r.ObjectType, "object_id": r.ObjectID, "target_tenant": r.Target, "action": r.Action,
					"project_id": r.ProjectID, "tenant_id": r.ProjectID}
			}
			return docs, err
		},
		check: a.checkRBAC,
		create: func(_ *call, c *local.Change, in input) (string, error) {
			r := &network.RBAC{ProjectID: in.str("project_id"), ObjectType: in.str("object_type"), ObjectID: in.str("object_id"),
				Target: in.str("target_tenant"), Action: in.str("action")}
			err := c.CreateRBAC(r)
			return r.ID, err
		},
		update: func(_ *call, c *local.Change, id string, in input) error {
			_, err := c.UpdateRBAC(id, func(r *network.RBAC) error {
				in.set("target_tenant", &r.Target)
				return nil
			})
			return err
		},
		remove: func(_ *call, c *local.Change, id string) error { return c.DeleteRBAC(id) }}
}

// checkRBAC verifies that the object is the caller's to share.
func (a *API) checkRBAC(q *call, in input, create bool) error {
	if !create {
		return nil
	}
	kind, id, action := in.str("object_type"), in.str("object_id"), in.str("action")
	var owner string
	if kind == "network" {
		n, err := a.svc.Network(q.Context(), q.project, id)
		if err != nil {
			return err
		}
		owner = n.ProjectID
	} else {
		gs, err := a.svc.Groups(q.Context(), local.Filter{Project: q.project, Match: map[string][]string{"id": {id}}})
		if err != nil {
			return err
		}
		if len(gs) == 0 {
			return fault.New(fault.NotFound, "Security group %s does not exist", id).WithCode("SecurityGroupNotFound")
		}
		if owner = gs[0].ProjectID; action != "access_as_shared" {
			return badRequest("Invalid action '%s' for object type 'security_group'. Valid actions: access_as_shared", action)
		}
	}
	if action == "access_as_external" {
		if err := deny(q, "create_network:router:external", q.Own()); err != nil {
			return err
		}
	}
	return deny(q, "share_object", policy.Target{"project_id": owner, "tenant_id": owner})
}
