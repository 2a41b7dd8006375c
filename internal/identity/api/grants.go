package api

import (
	"net/http"
	"slices"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/identity"
	"kilonova/internal/identity/local"
	"kilonova/internal/policy"
)

// grantRoutes are the routes of role assignments: users and groups on projects, domains and the system, inherited or not.
func (a *api) grantRoutes() []httpapi.Route {
	var out []httpapi.Route
	for _, actor := range []string{"users", "groups"} {
		for _, target := range []string{"projects", "domains"} {
			plain := "/v3/" + target + "/{target}/" + actor + "/{actor}/roles"
			inherited := "/v3/OS-INHERIT/" + target + "/{target}/" + actor + "/{actor}/roles"
			out = append(out, a.grantRoutesAt(plain, "/{role}", actor, target, false)...)
			out = append(out, a.grantRoutesAt(inherited, "/{role}/inherited_to_projects", actor, target, true)...)
			out = append(out, httpapi.Route{Method: http.MethodGet, Path: inherited + "/inherited_to_projects", Handle: a.listGrants(actor, target, true)})
		}
		out = append(out, a.grantRoutesAt("/v3/system/"+actor+"/{actor}/roles", "/{role}", actor, "system", false)...)
	}
	return out
}

func (a *api) grantRoutesAt(path, one, actor, target string, inherited bool) []httpapi.Route {
	do := func(verb string, f func(*local.Service, *httpapi.Request, identity.Assignment) error) func(*httpapi.Request) (*httpapi.Reply, error) {
		return func(r *httpapi.Request) (*httpapi.Reply, error) {
			g := grant(r, actor, target, inherited)
			if err := a.authorizeGrant(r, verb, g); err != nil {
				return nil, err
			}
			if err := f(a.s, r, g); err != nil {
				return nil, err
			}
			return httpapi.NoContent(), nil
		}
	}
	check := do("check_grant", func(s *local.Service, r *httpapi.Request, g identity.Assignment) error {
		return s.CheckGrant(r.Context(), g)
	})
	out := []httpapi.Route{
		{Method: http.MethodPut, Path: path + one, Handle: do("create_grant", func(s *local.Service, r *httpapi.Request, g identity.Assignment) error {
			return s.Grant(r.Context(), g)
		})},
		{Method: http.MethodDelete, Path: path + one, Handle: do("revoke_grant", func(s *local.Service, r *httpapi.Request, g identity.Assignment) error {
			return s.Revoke(r.Context(), g)
		})},
		{Method: http.MethodGet, Path: path + one, Handle: check},
		{Method: http.MethodHead, Path: path + one, Handle: check},
	}
	if !inherited {
		out = append(out, httpapi.Route{Method: http.MethodGet, Path: path, Handle: a.listGrants(actor, target, false)})
	}
	return out
}

// grant reads an assignment from the path.
func grant(r *httpapi.Request, actor, target string, inherited bool) identity.Assignment {
	g := identity.Assignment{RoleID: r.Path("role"), Inherited: inherited}
	if actor == "users" {
		g.UserID = r.Path("actor")
	} else {
		g.GroupID = r.Path("actor")
	}
	switch target {
	case "projects":
		g.ProjectID = r.Path("target")
	case "domains":
		g.DomainID = r.Path("target")
	}
	return g
}

// authorizeGrant asks policy. Whoever may do it anywhere is asked no more; for the others the things named are looked up.
func (a *api) authorizeGrant(r *httpapi.Request, verb string, g identity.Assignment) error {
	if g.System() {
		if verb == "check_grant" || verb == "list_grants" {
			return authorize(r, "identity:read_system_grants", policy.Target{})
		}
		return authorize(r, "identity:change_system_grants", policy.Target{})
	}
	rule := "identity:" + verb
	if r.Allowed(rule, policy.Target{}) {
		return nil
	}
	t := policy.Target{}
	ctx := r.Context()
	if u, err := a.s.Users.Get(ctx, g.UserID); err == nil {
		t["target.user.domain_id"] = u.DomainID
	} else if fault.IsAway(err) {
		return err
	}
	if x, err := a.s.Groups.Get(ctx, g.GroupID); err == nil {
		t["target.group.domain_id"] = x.DomainID
	} else if fault.IsAway(err) {
		return err
	}
	if p, err := a.s.Projects.Get(ctx, g.ProjectID); err == nil {
		t["target.project.domain_id"] = p.DomainID
	} else if fault.IsAway(err) {
		return err
	}
	if role, err := a.s.Roles.Get(ctx, g.RoleID); err == nil {
		t["target.role.name"] = role.Name
	} else if fault.IsAway(err) {
		return err
	}
	if g.DomainID != "" {
		t["target.domain.id"] = g.DomainID
	}
	return authorize(r, rule, t)
}

func (a *api) listGrants(actor, target string, inherited bool) func(*httpapi.Request) (*httpapi.Reply, error) {
	return func(r *httpapi.Request) (*httpapi.Reply, error) {
		g := grant(r, actor, target, inherited)
		if err := a.authorizeGrant(r, "list_grants", g); err != nil {
			return nil, err
		}
		list, err := a.s.Granted(r.Context(), g)
		if err != nil {
			return nil, err
		}
		return httpapi.OK(a.roles.listing(r, list)), nil
	}
}

// roleAssignments answers GET /v3/role_assignments.
func (a *api) roleAssignments(r *httpapi.Request) (*httpapi.Reply, error) {
	v := r.Query()
	q := local.AssignmentQuery{UserID: v.Get("user.id"), GroupID: v.Get("group.id"), RoleID: v.Get("role.id"), ProjectID: v.Get("scope.project.id"),
		DomainID: v.Get("scope.domain.id"), System: truthy(v.Get("scope.system")), Effective: flag(r, "effective"), Subtree: flag(r, "include_subtree"),
		Inherited: v.Get("scope.OS-INHERIT:inherited_to") == "projects"}
	if err := a.authorizeAssignments(r, q); err != nil {
		return nil, err
	}
	list, err := a.s.Assignments(r.Context(), q)
	if err != nil {
		return nil, err
	}
	n, err := a.names(r, list, flag(r, "include_names"))
	if err != nil {
		return nil, err
	}
	docs := make([]document, len(list))
	for i, x := range list {
		docs[i] = n.assignment(r, x, q.Effective)
	}
	return httpapi.OK(document{"role_assignments": docs, "links": listLinks(r)}), nil
}

// authorizeAssignments asks policy: for everything, for one domain, for a tree of projects.
func (a *api) authorizeAssignments(r *httpapi.Request, q local.AssignmentQuery) error {
	t := policy.Target{}
	rule := "identity:list_role_assignments"
	if q.Subtree {
		rule = "identity:list_role_assignments_for_tree"
		t["target.project.id"] = q.ProjectID
	}
	if q.DomainID != "" {
		t["target.domain_id"] = q.DomainID
	} else if q.ProjectID != "" && !r.Allowed(rule, t) {
		if p, err := a.s.Projects.Get(r.Context(), q.ProjectID); err == nil {
			t["target.domain_id"] = p.DomainID
		}
	}
	return authorize(r, rule, t)
}

// nameTable holds what the documents of assignments name, when names were asked for.
type nameTable struct {
	on       bool
	users    map[string]identity.Scoped
	groups   map[string]identity.Scoped
	projects map[string]identity.Project
	roles    map[string]identity.Role
}

func (a *api) names(r *httpapi.Request, list []identity.Assignment, on bool) (*nameTable, error) {
	n := &nameTable{on: on, users: map[string]identity.Scoped{}, groups: map[string]identity.Scoped{}, projects: map[string]identity.Project{}, roles: map[string]identity.Role{}}
	if !on {
		return n, nil
	}
	users, groups, targets, roles := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, x := range list {
		users[x.UserID], groups[x.GroupID], roles[x.RoleID], targets[x.ProjectID], targets[x.DomainID] = true, true, true, true, true
	}
	ctx := r.Context()
	us, err := a.s.Users.Many(ctx, keys(users))
	if err != nil {
		return nil, err
	}
	gs, err := a.s.Groups.Many(ctx, keys(groups))
	if err != nil {
		return nil, err
	}
	rs, err := a.s.Roles.Many(ctx, keys(roles))
	if err != nil {
		return nil, err
	}
	ps, err := a.s.Projects.Many(ctx, keys(targets))
	if err != nil {
		return nil, err
	}
	domains := map[string]bool{}
	for _, p := range ps {
		n.projects[p.ID] = p
		domains[p.DomainID] = true
	}
	for _, u := range us {
		n.users[u.ID] = identity.Scoped{ID: u.ID, Name: u.Name, Domain: identity.Ref{ID: u.DomainID}}
		domains[u.DomainID] = true
	}
	for _, g := range gs {
		n.groups[g.ID] = identity.Scoped{ID: g.ID, Name: g.Name, Domain: identity.Ref{ID: g.DomainID}}
		domains[g.DomainID] = true
	}
	for _, x := range rs {
		n.roles[x.ID] = x
		domains[x.DomainID] = true
	}
	ds, err := a.s.Projects.Many(ctx, keys(domains))
	if err != nil {
		return nil, err
	}
	for _, d := range ds {
		n.projects[d.ID] = d
	}
	return n, nil
}

func keys(set map[string]bool) []string {
	var out []string
	for k := range set {
		if k != "" {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

func (n *nameTable) domain(id string) document {
	return document{"id": id, "name": n.projects[id].Name}
}

func (n *nameTable) scoped(id string, from map[string]identity.Scoped) document {
	if !n.on {
		return document{"id": id}
	}
	return document{"id": id, "name": from[id].Name, "domain": n.domain(from[id].Domain.ID)}
}

// assignment is the document of one assignment, with links to where it and what it came from can be found.
func (n *nameTable) assignment(r *httpapi.Request, x identity.Assignment, effective bool) document {
	role := document{"id": x.RoleID}
	scope := document{}
	links := document{}
	d := document{"role": role, "scope": scope, "links": links}
	if n.on {
		role["name"] = n.roles[x.RoleID].Name
		if dom := n.roles[x.RoleID].DomainID; dom != "" {
			role["domain"] = n.domain(dom)
		}
	}
	actor := "/users/" + x.UserID
	if x.GroupID != "" {
		actor = "/groups/" + x.GroupID
		d["group"] = n.scoped(x.GroupID, n.groups)
	} else {
		d["user"] = n.scoped(x.UserID, n.users)
	}
	switch {
	case x.ProjectID != "":
		p := document{"id": x.ProjectID}
		if n.on {
			p["name"], p["domain"] = n.projects[x.ProjectID].Name, n.domain(n.projects[x.ProjectID].DomainID)
		}
		scope["project"] = p
	case x.DomainID != "":
		scope["domain"] = document{"id": x.DomainID}
		if n.on {
			scope["domain"] = n.domain(x.DomainID)
		}
	default:
		scope["system"] = document{"all": true}
	}
	if x.Inherited && !effective {
		scope["OS-INHERIT:inherited_to"] = "projects"
	}
	if x.ViaGroupID != "" {
		links["membership"] = r.Base + "/v3/groups/" + x.ViaGroupID + "/users/" + x.UserID
		actor = "/groups/" + x.ViaGroupID
	}
	granted := x.RoleID
	if x.PriorRoleID != "" {
		granted = x.PriorRoleID
		links["prior_role"] = r.Base + "/v3/prior_role/" + x.PriorRoleID + "/implies/" + x.RoleID
	}
	links["assignment"] = r.Base + assignmentPath(x, actor, granted)
	return d
}

func assignmentPath(x identity.Assignment, actor, role string) string {
	target := "/system"
	switch {
	case x.ViaProjectID != "":
		target = "/projects/" + x.ViaProjectID
	case x.ViaDomainID != "":
		target = "/domains/" + x.ViaDomainID
	case x.ProjectID != "":
		target = "/projects/" + x.ProjectID
	case x.DomainID != "":
		target = "/domains/" + x.DomainID
	}
	if x.Inherited {
		return "/v3/OS-INHERIT" + target + actor + "/roles/" + role + "/inherited_to_projects"
	}
	return "/v3" + target + actor + "/roles/" + role
}
