package local

import (
	"context"
	"fmt"

	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/network"
	"kilonova/internal/network/documents"
	"kilonova/internal/network/secgroup"
	"kilonova/internal/network/wake"
)

// DefaultGroupName is the name of the group that every project has.
const DefaultGroupName = "default"

// Groups lists security groups with their rules.
func (s *Service) Groups(ctx context.Context, f Filter) ([]network.Group, error) {
	gs, err := s.groups.Find(ctx, s.db, f, "id IN (SELECT object_id FROM network_rbac WHERE object_type = 'security_group' AND target IN ('*', ?))", f.Project)
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(gs))
	at := make(map[string]*network.Group, len(gs))
	for i := range gs {
		ids[i], at[gs[i].ID] = gs[i].ID, &gs[i]
	}
	rules, err := s.rules.In(ctx, s.db, "group_id", ids)
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		g := at[r.GroupID]
		g.Rules = append(g.Rules, r)
	}
	return gs, nil
}

// Rules lists security group rules.
func (s *Service) Rules(ctx context.Context, f Filter) ([]network.Rule, error) {
	return s.rules.Find(ctx, s.db, f, "")
}

// EnsureDefaultGroup makes the project's group "default" when it is not there yet.
func (s *Service) EnsureDefaultGroup(ctx context.Context, project string) error {
	if project == "" {
		return nil
	}
	ok, err := documents.Exists(ctx, s.db, "SELECT 1 FROM network_default_groups WHERE project_id = ?", project)
	if err != nil || ok {
		return err
	}
	return s.Do(ctx, func(c *Change) error {
		_, err := c.DefaultGroup(project)
		return err
	})
}

// DefaultGroup gives the id of the project's group "default" and makes it at its first use: everything may leave, and its
// members may reach each other.
func (c *Change) DefaultGroup(project string) (string, error) {
	var gid string
	err := c.tx.QueryRow(c.ctx, "SELECT group_id FROM network_default_groups WHERE project_id = ?", project).Scan(&gid)
	if err == nil {
		return gid, nil
	}
	if !db.IsNoRows(err) {
		return "", fmt.Errorf("read default group: %w", err)
	}
	g := &network.Group{ID: id.UUID(), Name: DefaultGroupName, ProjectID: project, Stateful: true,
		Standard: network.Standard{Description: "Default security group"}}
	if _, err := c.tx.Exec(c.ctx, "INSERT INTO network_default_groups (project_id, group_id) VALUES (?, ?)", project, g.ID); err != nil {
		return "", fmt.Errorf("make default group: %w", err)
	}
	if err := c.addGroup(g); err != nil {
		return "", err
	}
	for _, ether := range []string{"IPv4", "IPv6"} {
		r := &network.Rule{ProjectID: project, GroupID: g.ID, GroupRule: network.GroupRule{Direction: "ingress", EtherType: ether, RemoteGroup: g.ID}}
		if err := c.addRule(r); err != nil {
			return "", err
		}
	}
	return g.ID, nil
}

// CreateGroup makes a security group with the two rules that let everything leave.
func (c *Change) CreateGroup(g *network.Group) error {
	if _, err := c.DefaultGroup(g.ProjectID); err != nil {
		return err
	}
	if g.Name == DefaultGroupName {
		return fault.New(fault.Conflict, "Default security group already exists.").WithCode("SecurityGroupDefaultAlreadyExists")
	}
	g.ID = id.UUID()
	return c.addGroup(g)
}

func (c *Change) addGroup(g *network.Group) error {
	if err := c.use(g.ProjectID, "security_group", 1); err != nil {
		return err
	}
	if err := c.groups.Insert(c.ctx, c.tx, g); err != nil {
		return err
	}
	for _, ether := range []string{"IPv4", "IPv6"} {
		r := &network.Rule{ProjectID: g.ProjectID, GroupID: g.ID, GroupRule: network.GroupRule{Direction: "egress", EtherType: ether}}
		if err := c.addRule(r); err != nil {
			return err
		}
		g.Rules = append(g.Rules, *r)
	}
	return nil
}

// UpdateGroup changes a security group. The default one keeps its name.
func (c *Change) UpdateGroup(groupID string, change func(g *network.Group) error) (*network.Group, error) {
	g, err := c.groups.Lock(c.ctx, c.tx, groupID)
	if err != nil {
		return nil, err
	}
	name, stateful := g.Name, g.Stateful
	if err := change(g); err != nil {
		return nil, err
	}
	if name == DefaultGroupName && g.Name != name {
		return nil, fault.New(fault.Conflict, "Updating default security group not allowed.").WithCode("SecurityGroupCannotUpdateDefault")
	}
	if name != DefaultGroupName && g.Name == DefaultGroupName {
		return nil, fault.New(fault.Conflict, "Default security group already exists.").WithCode("SecurityGroupDefaultAlreadyExists")
	}
	if stateful != g.Stateful {
		used, err := documents.Exists(c.ctx, c.tx, "SELECT 1 FROM network_port_groups WHERE group_id = ? LIMIT 1", groupID)
		if err != nil {
			return nil, err
		}
		if used {
			return nil, fault.New(fault.Conflict, "Security Group %s in use.", groupID).WithCode("SecurityGroupInUse")
		}
	}
	if g.Rules, err = c.rules.List(c.ctx, c.tx, "group_id = ?", groupID); err != nil {
		return nil, err
	}
	return g, c.groups.Update(c.ctx, c.tx, g)
}

// DeleteGroup removes a security group with its rules; fault.Conflict SecurityGroupInUse while ports or rules of other
// groups refer to it. The default group goes only when force is set (an administrator cleaning up).
func (c *Change) DeleteGroup(groupID string, force bool) error {
	g, err := c.groups.Lock(c.ctx, c.tx, groupID)
	if err != nil {
		return err
	}
	if g.Name == DefaultGroupName && !force {
		return fault.New(fault.Conflict, "Insufficient rights for removing default security group.").WithCode("SecurityGroupCannotRemoveDefault")
	}
	used, err := documents.Exists(c.ctx, c.tx, "SELECT 1 FROM network_port_groups WHERE group_id = ? LIMIT 1", groupID)
	if err != nil {
		return err
	}
	if used {
		return fault.New(fault.Conflict, "Security Group %s in use.", groupID).WithCode("SecurityGroupInUse")
	}
	// Rules of the group itself, and rules of others that name it: nothing is a member of it any more.
	rules, err := c.rules.List(c.ctx, c.tx, "group_id = ? OR remote_group_id = ?", groupID, groupID)
	if err != nil {
		return err
	}
	for i := range rules {
		if err := c.removeRule(&rules[i]); err != nil {
			return err
		}
	}
	if _, err := c.tx.Exec(c.ctx, "DELETE FROM network_default_groups WHERE group_id = ?", groupID); err != nil {
		return fmt.Errorf("remove default group: %w", err)
	}
	if err := c.dropRBAC(groupID); err != nil {
		return err
	}
	if err := c.use(g.ProjectID, "security_group", -1); err != nil {
		return err
	}
	return c.groups.Delete(c.ctx, c.tx, groupID)
}

// CreateRule adds a rule to a group; fault.Conflict SecurityGroupRuleExists when the group has the same one.
func (c *Change) CreateRule(r *network.Rule) error {
	if err := secgroup.Check(&r.GroupRule); err != nil {
		return err
	}
	if _, err := c.groups.Lock(c.ctx, c.tx, r.GroupID); err != nil {
		return err
	}
	if r.RemoteGroup != "" {
		if _, err := c.groups.Get(c.ctx, c.tx, r.RemoteGroup); err != nil {
			return err
		}
	}
	same, err := c.rules.List(c.ctx, c.tx, "group_id = ? AND sig = ?", r.GroupID, secgroup.Signature(r))
	if err != nil {
		return err
	}
	if len(same) > 0 {
		return fault.New(fault.Conflict, "Security group rule already exists. Rule id is %s.", same[0].ID).WithCode("SecurityGroupRuleExists")
	}
	wake.Mark(&c.dirty.Groups, r.GroupID)
	return c.addRule(r)
}

func (c *Change) addRule(r *network.Rule) error {
	if r.ID == "" {
		r.ID = id.UUID()
	}
	if err := c.use(r.ProjectID, "security_group_rule", 1); err != nil {
		return err
	}
	return c.rules.Insert(c.ctx, c.tx, r)
}

// DeleteRule removes a rule from its group.
func (c *Change) DeleteRule(ruleID string) error {
	r, err := c.rules.Lock(c.ctx, c.tx, ruleID)
	if err != nil {
		return err
	}
	return c.removeRule(r)
}

func (c *Change) removeRule(r *network.Rule) error {
	wake.Mark(&c.dirty.Groups, r.GroupID)
	if err := c.use(r.ProjectID, "security_group_rule", -1); err != nil {
		return err
	}
	return c.rules.Delete(c.ctx, c.tx, r.ID)
}
