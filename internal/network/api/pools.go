package api

import (
	"kilonova/internal/fault"
	"kilonova/internal/network"
	"kilonova/internal/network/local"
)

func subnetPools(a *API) *resource {
	return &resource{api: a, name: "subnetpool", plural: "subnetpools", path: "subnetpools", kind: "SubnetPool",
		attrs: []attr{{name: "name", when: required | put, kind: filled(255)}, descriptionAttr(), projectAttr(),
			{name: "prefixes", when: required | put, kind: texts(prefix)},
			{name: "min_prefixlen", when: both, kind: null(number(0, 128))},
			{name: "max_prefixlen", when: both, kind: null(number(0, 128))},
			{name: "default_prefixlen", when: both, kind: null(number(0, 128))},
			{name: "default_quota", when: both, kind: null(number(0, 1<<31-1))},
			{name: "shared", when: post, kind: boolean, def: false, rule: true},
			{name: "is_default", when: both, kind: boolean, def: false, rule: true},
			{name: "address_scope_id", when: both, kind: null(uuid)},
			{name: "ip_version", kind: number(4, 6)}},
		columns: map[string]string{"id": "id", "name": "name", "project_id": "project_id"},
		list:    a.poolDocs, check: a.checkPool,
		create: func(_ *call, c *local.Change, in input) (string, error) {
			p := &network.SubnetPool{ProjectID: in.str("project_id"), Shared: in.flag("shared")}
			setPool(p, in)
			err := c.CreateSubnetPool(p)
			return p.ID, err
		},
		update: func(_ *call, c *local.Change, id string, in input) error {
			_, err := c.UpdateSubnetPool(id, func(p *network.SubnetPool) error {
				setPool(p, in)
				return nil
			})
			return err
		},
		remove: func(_ *call, c *local.Change, id string) error { return c.DeleteSubnetPool(id) },
		retag: func(c *local.Change, id string, change func([]string) ([]string, error)) error {
			_, err := c.UpdateSubnetPool(id, func(p *network.SubnetPool) (err error) { p.Tags, err = change(p.Tags); return err })
			return err
		}}
}

// checkPool verifies that the caller sees the address scope.
func (a *API) checkPool(q *call, in input, _ bool) error {
	id := in.str("address_scope_id")
	if id == "" {
		return nil
	}
	ss, err := a.svc.AddressScopes(q.Context(), local.Filter{Project: q.project, Match: map[string][]string{"id": {id}}})
	if err == nil && len(ss) == 0 {
		return fault.New(fault.NotFound, "Address scope %s could not be found.", id).WithCode("AddressScopeNotFound")
	}
	return err
}

func (a *API) poolDocs(q *call, f local.Filter) ([]doc, error) {
	ps, err := a.svc.SubnetPools(q.Context(), f)
	if err != nil {
		return nil, err
	}
	docs := make([]doc, len(ps))
	for i := range ps {
		p := &ps[i]
		docs[i] = standard(doc{"id": p.ID, "name": p.Name, "prefixes": list(p.Prefixes), "min_prefixlen": p.MinLen, "max_prefixlen": p.MaxLen,
			"default_prefixlen": p.DefLen, "default_quota": numOrNull(p.DefaultQuota), "shared": p.Shared, "is_default": p.IsDefault,
			"address_scope_id": orNull(p.ScopeID), "ip_version": p.Version}, p.ProjectID, &p.Standard)
	}
	return docs, nil
}

func setPool(p *network.SubnetPool, in input) {
	in.set("name", &p.Name)
	in.set("description", &p.Description)
	in.set("address_scope_id", &p.ScopeID)
	in.setFlag("is_default", &p.IsDefault)
	if in.has("prefixes") {
		p.Prefixes = in.texts("prefixes")
	}
	if in.has("default_quota") {
		p.DefaultQuota = in.num("default_quota")
	}
	for name, to := range map[string]*int{"min_prefixlen": &p.MinLen, "max_prefixlen": &p.MaxLen, "default_prefixlen": &p.DefLen} {
		if n := in.num(name); n != nil {
			*to = *n
		}
	}
}

func addressScopes(a *API) *resource {
	return &resource{api: a, name: "address_scope", plural: "address_scopes", path: "address-scopes", kind: "AddressScope",
		attrs: []attr{{name: "name", when: both, kind: text(255), def: ""}, projectAttr(),
			{name: "shared", when: both, kind: boolean, def: false, rule: true},
			{name: "ip_version", when: required, kind: number(4, 6)}},
		columns: map[string]string{"id": "id", "name": "name", "project_id": "project_id"},
		list: func(q *call, f local.Filter) ([]doc, error) {
			ss, err := a.svc.AddressScopes(q.Context(), f)
			docs := make([]doc, len(ss))
			for i := range ss {
				s := &ss[i]
				docs[i] = doc{"id": s.ID, "name": s.Name, "ip_version": s.Version, "shared": s.Shared, "project_id": s.ProjectID, "tenant_id": s.ProjectID}
			}
			return docs, err
		},
		create: func(_ *call, c *local.Change, in input) (string, error) {
			s := &network.AddressScope{Name: in.str("name"), ProjectID: in.str("project_id"), Shared: in.flag("shared")}
			if v := in.num("ip_version"); v != nil {
				s.Version = *v
			}
			err := c.CreateAddressScope(s)
			return s.ID, err
		},
		update: func(_ *call, c *local.Change, id string, in input) error {
			_, err := c.UpdateAddressScope(id, func(s *network.AddressScope) error {
				in.set("name", &s.Name)
				in.setFlag("shared", &s.Shared)
				return nil
			})
			return err
		},
		remove: func(_ *call, c *local.Change, id string) error { return c.DeleteAddressScope(id) }}
}
