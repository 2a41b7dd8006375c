package api

import (
	"encoding/json"
	"slices"

	"kilonova/internal/fault"
	"kilonova/internal/network"
	"kilonova/internal/network/local"
	"kilonova/internal/policy"
)

func groups(a *API) *resource {
	return &resource{api: a, name: "security_group", plural: "security_groups", path: "security-groups", kind: "SecurityGroup",
		attrs:   []attr{nameAttr(), descriptionAttr(), projectAttr(), {name: "stateful", when: both, kind: boolean, def: true}, {name: "shared", kind: boolean}},
		columns: map[string]string{"id": "id", "name": "name", "project_id": "project_id"},
		list:    a.groupDocs, create: createGroup, update: updateGroup,
		before: func(q *call) error { return a.svc.EnsureDefaultGroup(q.Context(), q.Caller.ProjectID) },
		remove: func(q *call, c *local.Change, id string) error {
			return c.DeleteGroup(id, q.Allowed("delete_default_security_group", q.Own()))
		},
		retag: func(c *local.Change, id string, change func([]string) ([]string, error)) error {
			_, err := c.UpdateGroup(id, func(g *network.Group) (err error) { g.Tags, err = change(g.Tags); return err })
			return err
		}}
}

func (a *API) groupDocs(q *call, f local.Filter) ([]doc, error) {
	gs, err := a.svc.Groups(q.Context(), f)
	if err != nil {
		return nil, err
	}
	docs := make([]doc, len(gs))
	for i := range gs {
		g := &gs[i]
		slices.SortFunc(g.Rules, func(x, y network.Rule) int { return x.Created.Compare(y.Created) })
		rs := make([]doc, len(g.Rules))
		for k := range g.Rules {
			rs[k] = ruleDoc(&g.Rules[k])
		}
		docs[i] = standard(doc{"id": g.ID, "name": g.Name, "stateful": g.Stateful, "security_group_rules": rs, "shared": f.Project != "" && f.Project != g.ProjectID},
			g.ProjectID, &g.Standard)
	}
	return docs, nil
}

func createGroup(_ *call, c *local.Change, in input) (string, error) {
	g := &network.Group{ProjectID: in.str("project_id"), Stateful: true}
	setGroup(g, in)
	err := c.CreateGroup(g)
	return g.ID, err
}

func updateGroup(_ *call, c *local.Change, id string, in input) error {
	_, err := c.UpdateGroup(id, func(g *network.Group) error {
		setGroup(g, in)
		return nil
	})
	return err
}

func setGroup(g *network.Group, in input) {
	in.set("name", &g.Name)
	in.set("description", &g.Description)
	in.setFlag("stateful", &g.Stateful)
}

func rules(a *API) *resource {
	return &resource{api: a, name: "security_group_rule", plural: "security_group_rules", path: "security-group-rules", kind: "SecurityGroupRule",
		attrs: []attr{descriptionAttr(), projectAttr(),
			{name: "security_group_id", when: required, kind: uuid},
			{name: "direction", when: required, kind: oneOf("ingress", "egress")},
			{name: "ethertype", when: post, kind: null(text(40)), def: "IPv4"},
			{name: "protocol", when: post, kind: null(protocol)},
			{name: "port_range_min", when: post, kind: null(number(-1<<31, 1<<31-1))},
			{name: "port_range_max", when: post, kind: null(number(-1<<31, 1<<31-1))},
			{name: "remote_ip_prefix", when: post, kind: null(addressOrPrefix)},
			{name: "remote_group_id", when: post, kind: null(text(36))},
			{name: "remote_address_group_id", when: post, kind: absent("address groups are not supported")}},
		columns: map[string]string{"id": "id", "project_id": "project_id", "security_group_id": "group_id", "remote_group_id": "remote_group_id"},
		list:    a.ruleDocs, create: createRule, target: a.groupOwner, check: a.checkRule,
		before: func(q *call) error { return a.svc.EnsureDefaultGroup(q.Context(), q.Caller.ProjectID) },
		remove: func(_ *call, c *local.Change, id string) error { return c.DeleteRule(id) }}
}

// protocol takes names and numbers; package local knows which are right.
func protocol(v any) (any, string) {
	switch x := v.(type) {
	case string:
		return x, ""
	case json.Number:
		return string(x), ""
	}
	return nil, "'" + show(v) + "' is neither a name nor a number."
}

// groupOwner adds whose the security group is. A group that the caller may not see is not found.
func (a *API) groupOwner(q *call, t policy.Target, d map[string]any) error {
	id, _ := d["security_group_id"].(string)
	gs, err := a.svc.Groups(q.Context(), local.Filter{Project: q.project, Match: map[string][]string{"id": {id}}})
	if err != nil {
		return err
	}
	if len(gs) == 0 {
		return fault.New(fault.NotFound, "Security group %s does not exist", id).WithCode("SecurityGroupNotFound")
	}
	t["security_group:project_id"], t["security_group:tenant_id"] = gs[0].ProjectID, gs[0].ProjectID
	return nil
}

// checkRule verifies that the caller sees the remote group.
func (a *API) checkRule(q *call, in input, _ bool) error {
	id := in.str("remote_group_id")
	if id == "" {
		return nil
	}
	gs, err := a.svc.Groups(q.Context(), local.Filter{Project: q.project, Match: map[string][]string{"id": {id}}})
	if err == nil && len(gs) == 0 {
		return fault.New(fault.NotFound, "Security group %s does not exist", id).WithCode("SecurityGroupNotFound")
	}
	return err
}

func (a *API) ruleDocs(q *call, f local.Filter) ([]doc, error) {
	rs, err := a.svc.Rules(q.Context(), f)
	if err != nil {
		return nil, err
	}
	docs := make([]doc, len(rs))
	for i := range rs {
		docs[i] = ruleDoc(&rs[i])
	}
	return docs, nil
}

func ruleDoc(r *network.Rule) doc {
	return standard(doc{"id": r.ID, "security_group_id": r.GroupID, "direction": r.Direction, "ethertype": r.EtherType, "protocol": orNull(r.Protocol),
		"port_range_min": numOrNull(r.PortMin), "port_range_max": numOrNull(r.PortMax), "remote_ip_prefix": orNull(r.RemoteIP),
		"remote_group_id": orNull(r.RemoteGroup), "remote_address_group_id": nil}, r.ProjectID, &r.Standard)
}

func createRule(_ *call, c *local.Change, in input) (string, error) {
	r := &network.Rule{ProjectID: in.str("project_id"), GroupID: in.str("security_group_id"), Standard: network.Standard{Description: in.str("description")},
		GroupRule: network.GroupRule{Direction: in.str("direction"), EtherType: in.str("ethertype"), Protocol: in.str("protocol"),
			PortMin: in.num("port_range_min"), PortMax: in.num("port_range_max"), RemoteIP: in.str("remote_ip_prefix"), RemoteGroup: in.str("remote_group_id")}}
	err := c.CreateRule(r)
	return r.ID, err
}
