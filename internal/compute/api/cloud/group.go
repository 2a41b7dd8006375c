package cloud

import (
	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/id"
)

func groupView(r *httpapi.Request, g *compute.ServerGroup) document {
	minor, members := backend.Minor(r), g.Members
	if members == nil {
		members = []string{}
	}
	d := document{"id": g.ID, "name": g.Name, "members": members}
	if minor >= 13 {
		d["project_id"], d["user_id"] = g.ProjectID, g.UserID
	}
	if minor < 64 {
		d["policies"], d["metadata"] = []string{g.Policy}, document{}
		return d
	}
	rules := document{}
	if g.MaxPerHost > 0 {
		rules["max_server_per_host"] = g.MaxPerHost
	}
	d["policy"], d["rules"] = g.Policy, rules
	return d
}

// listGroups gives the project's groups; all_projects those of everybody, where policy allows it. Its presence counts, not its value.
func (a api) listGroups(r *httpapi.Request) (*httpapi.Reply, error) {
	project := r.Caller.ProjectID
	if r.Query().Has("all_projects") && r.Caller.IsAdmin() {
		if err := r.Authorize(backend.Rule("os-server-groups:index:all_projects"), r.Own()); err != nil {
			return nil, err
		}
		project = ""
	}
	offset, limit, err := a.Window(r.Query())
	if err != nil {
		return nil, err
	}
	all, err := a.Store.Groups(r.Context(), a.DB(), project, offset, limit)
	if err != nil {
		return nil, err
	}
	out := make([]document, len(all))
	for i := range all {
		out[i] = groupView(r, &all[i])
	}
	return reply("server_groups", out), nil
}

func (a api) createGroup(r *httpapi.Request) (*httpapi.Reply, error) {
	in, err := decode[struct {
		Name     string   `json:"name"`
		Policies []string `json:"policies"`
		Policy   string   `json:"policy"`
		Rules    *struct {
			Max *backend.Int `json:"max_server_per_host"`
		} `json:"rules"`
	}](r, "server_group")
	if err != nil {
		return nil, err
	}
	g := &compute.ServerGroup{ID: id.UUID(), Name: in.Name, ProjectID: r.Caller.ProjectID, UserID: r.Caller.UserID, Policy: in.Policy}
	if len(in.Policies) > 0 {
		g.Policy = in.Policies[0]
	}
	if in.Rules != nil && in.Rules.Max != nil {
		if g.Policy != "anti-affinity" {
			return nil, fault.New(fault.Invalid, "Only anti-affinity policy supports rules.")
		}
		g.MaxPerHost = int(*in.Rules.Max)
	}
	err = a.DB().Write(r.Context(), func(tx *db.Tx) error {
		want := store.Want{Defaults: a.Quota, Project: g.ProjectID, User: g.UserID, Each: store.Usage{ServerGroups: 1}}
		if _, err := a.Store.Reserve(r.Context(), tx, want); err != nil {
			return err
		}
		return a.Store.InsertGroup(r.Context(), tx, g)
	})
	if fault.KindOf(err) == fault.Forbidden {
		return nil, fault.Wrap(err, fault.Forbidden, "Quota exceeded, too many server groups.")
	}
	if err != nil {
		return nil, err
	}
	return reply("server_group", groupView(r, g)), nil
}

// group loads the group of the path as the caller may see it: another project's is fault.NotFound.
func (a api) group(r *httpapi.Request, rule string) (*compute.ServerGroup, error) {
	g, err := a.Store.Group(r.Context(), a.DB(), r.Path("id"))
	if err != nil {
		return nil, err
	}
	if g.ProjectID != r.Caller.ProjectID && !r.Caller.IsAdmin() {
		return nil, fault.New(fault.NotFound, "Instance group %s could not be found.", g.ID)
	}
	return g, r.Authorize(backend.Rule(rule), backend.Target(g.ProjectID, g.UserID))
}

func (a api) showGroup(r *httpapi.Request) (*httpapi.Reply, error) {
	g, err := a.group(r, "os-server-groups:show")
	if err != nil {
		return nil, err
	}
	return reply("server_group", groupView(r, g)), nil
}

func (a api) deleteGroup(r *httpapi.Request) (*httpapi.Reply, error) {
	g, err := a.group(r, "os-server-groups:delete")
	if err != nil {
		return nil, err
	}
	return &httpapi.Reply{}, a.DB().Write(r.Context(), func(tx *db.Tx) error { return a.Store.DeleteGroup(r.Context(), tx, g.ID) })
}
