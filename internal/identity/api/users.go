package api

import (
	"errors"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/identity"
	"kilonova/internal/identity/local"
	"kilonova/internal/policy"
)

// updateUser answers PATCH /v3/users/{id}. A new password is hashed before the row is touched.
func (a *api) updateUser(r *httpapi.Request) (*httpapi.Reply, error) {
	b, err := inner(r, "user")
	if err != nil {
		return nil, err
	}
	old, err := a.users.get(r, r.Path("id"))
	if err != nil {
		return nil, a.users.hide(r, "update", err)
	}
	if err := a.users.authorize(r, "update", old); err != nil {
		return nil, err
	}
	hash, change, err := a.hashOf(r, b)
	if err != nil {
		return nil, err
	}
	u, err := a.s.Users.Update(r.Context(), r.Path("id"), func(u *identity.User) error {
		if change {
			a.s.PutHash(u, hash)
		}
		return a.users.assign(u, b, false)
	})
	if err != nil {
		return nil, err
	}
	return httpapi.OK(document{"user": a.users.view(r, u)}), nil
}

// changePassword answers POST /v3/users/{id}/password, which needs no token: the old password is the proof.
func (a *api) changePassword(r *httpapi.Request) (*httpapi.Reply, error) {
	var b struct {
		User struct {
			Password string `json:"password"`
			Original string `json:"original_password"`
		} `json:"user"`
	}
	if err := r.Decode(&b); err != nil {
		return nil, err
	}
	refused := fault.New(fault.Unauthorized, "The request you have made requires authentication.")
	u, err := a.s.Users.Get(r.Context(), r.Path("id"))
	if errors.Is(err, fault.NotFound) {
		return nil, challenge(r, refused)
	}
	if err != nil {
		return nil, err
	}
	if err := a.s.CheckPassword(r.Context(), u, b.User.Original); err != nil {
		return nil, challenge(r, err)
	}
	if !u.Enabled {
		return nil, challenge(r, refused)
	}
	if err := a.s.SetPassword(r.Context(), u.ID, b.User.Password, true); err != nil {
		return nil, err
	}
	return httpapi.NoContent(), nil
}

// aboutUser authorizes a request about the user in the path.
func (a *api) aboutUser(r *httpapi.Request, rule string) error {
	u, err := a.s.Users.Get(r.Context(), r.Path("id"))
	if err != nil {
		if e := authorize(r, rule, policy.Target{}); e != nil {
			return e
		}
		return err
	}
	return authorize(r, rule, a.users.policyTarget(r, u))
}

// userGroups answers GET /v3/users/{id}/groups.
func (a *api) userGroups(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := a.aboutUser(r, "identity:list_groups_for_user"); err != nil {
		return nil, err
	}
	list, err := a.s.GroupsOf(r.Context(), r.Path("id"))
	if err != nil {
		return nil, err
	}
	out := a.groups.listing(r, list)
	for _, d := range out["groups"].([]document) { //nolint:forcetypeassert // listing made it
		d["membership_expires_at"] = nil
	}
	return httpapi.OK(out), nil
}

// userProjects answers GET /v3/users/{id}/projects.
func (a *api) userProjects(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := a.aboutUser(r, "identity:list_user_projects"); err != nil {
		return nil, err
	}
	list, err := a.s.UserProjects(r.Context(), r.Path("id"))
	if err != nil {
		return nil, err
	}
	return httpapi.OK(a.projects.listing(r, list)), nil
}

// aboutGroup authorizes a request about the group in the path.
func (a *api) aboutGroup(r *httpapi.Request, rule string) error {
	g, err := a.s.Groups.Get(r.Context(), r.Path("id"))
	if err != nil {
		if e := authorize(r, rule, policy.Target{}); e != nil {
			return e
		}
		return err
	}
	return authorize(r, rule, a.groups.policyTarget(r, g))
}

// groupUsers answers GET /v3/groups/{id}/users.
func (a *api) groupUsers(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := a.aboutGroup(r, "identity:list_users_in_group"); err != nil {
		return nil, err
	}
	list, err := a.s.Members(r.Context(), r.Path("id"))
	if err != nil {
		return nil, err
	}
	return httpapi.OK(a.users.listing(r, list)), nil
}

// membership makes the handlers of /v3/groups/{id}/users/{user}.
func (a *api) membership(rule string, do func(s *local.Service, r *httpapi.Request) error) func(*httpapi.Request) (*httpapi.Reply, error) {
	return func(r *httpapi.Request) (*httpapi.Reply, error) {
		if err := a.aboutGroup(r, rule); err != nil {
			return nil, err
		}
		if err := do(a.s, r); err != nil {
			return nil, err
		}
		return httpapi.NoContent(), nil
	}
}

func addMember(s *local.Service, r *httpapi.Request) error {
	return s.AddMember(r.Context(), r.Path("id"), r.Path("user"))
}

func removeMember(s *local.Service, r *httpapi.Request) error {
	return s.RemoveMember(r.Context(), r.Path("id"), r.Path("user"))
}

func checkMember(s *local.Service, r *httpapi.Request) error {
	return s.CheckMember(r.Context(), r.Path("id"), r.Path("user"))
}
