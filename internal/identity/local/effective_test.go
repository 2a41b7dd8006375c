package local

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/id"
	"kilonova/internal/identity"
)

// Two ways lead to the roles that a user can use on a project: the one that makes tokens (from the project up) and the one that lists
// effective assignments (from the assignments down). In random worlds both must say the same, and so must a third, slow and obvious.
func TestTokensAndListsAgree(t *testing.T) {
	s := inside(t)
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			w := newWorld(t, s, rand.New(rand.NewPCG(seed, 7)))
			for _, u := range w.users {
				for _, p := range w.projects {
					held, err := s.rolesOn(t.Context(), u, p, "")
					if err != nil {
						t.Fatal(err)
					}
					table, err := s.roleTable(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					var token, list []string
					for _, r := range table.refs(held) {
						token = append(token, r.ID)
					}
					effective, err := s.Assignments(t.Context(), AssignmentQuery{UserID: u, ProjectID: p.ID, Effective: true})
					if err != nil {
						t.Fatal(err)
					}
					for _, a := range effective {
						list = append(list, a.RoleID)
					}
					slices.Sort(token)
					slices.Sort(list)
					list = slices.Compact(list)
					model := w.model(u, p)
					if d := cmp.Diff(model, token); d != "" {
						t.Errorf("user %s project %s: the token differs from the model: %s", u, p.Name, d)
					}
					if d := cmp.Diff(model, list); d != "" {
						t.Errorf("user %s project %s: the list differs from the model: %s", u, p.Name, d)
					}
				}
			}
		})
	}
}

type world struct {
	domain   string
	users    []string
	groups   []string
	roles    []string
	projects []*identity.Project
	members  map[string][]string // group -> users
	implied  map[string][]string
	grants   []identity.Assignment
}

func newWorld(t *testing.T, s *Service, r *rand.Rand) *world {
	t.Helper()
	ctx := t.Context()
	w := &world{domain: id.Hex(), members: map[string][]string{}, implied: map[string][]string{}}
	do := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	do(s.Projects.Create(ctx, &identity.Project{ID: w.domain, Name: w.domain, IsDomain: true, Enabled: true}))
	for range 3 {
		u := &identity.User{ID: id.Hex(), DomainID: w.domain, Name: id.Hex(), Enabled: true}
		do(s.Users.Create(ctx, u))
		w.users = append(w.users, u.ID)
	}
	for range 2 {
		g := &identity.Group{ID: id.Hex(), DomainID: w.domain, Name: id.Hex()}
		do(s.Groups.Create(ctx, g))
		w.groups = append(w.groups, g.ID)
		for _, u := range w.users {
			if r.IntN(2) == 0 {
				do(s.AddMember(ctx, g.ID, u))
				w.members[g.ID] = append(w.members[g.ID], u)
			}
		}
	}
	for range 4 {
		x := &identity.Role{ID: id.Hex(), Name: id.Hex()}
		do(s.Roles.Create(ctx, x))
		w.roles = append(w.roles, x.ID)
	}
	for range 3 {
		if a, b := w.roles[r.IntN(4)], w.roles[r.IntN(4)]; a != b {
			do(s.Imply(ctx, a, b))
			w.implied[a] = append(w.implied[a], b)
		}
	}
	for i := range 5 {
		p := &identity.Project{ID: id.Hex(), DomainID: w.domain, ParentID: w.domain, Name: fmt.Sprint("p", i), Enabled: true}
		if i > 0 && r.IntN(3) > 0 {
			p.ParentID = w.projects[r.IntN(i)].ID
		}
		do(s.Projects.Create(ctx, p))
		w.projects = append(w.projects, p)
	}
	for range 8 {
		a := identity.Assignment{RoleID: w.roles[r.IntN(4)], Inherited: r.IntN(2) == 0}
		if r.IntN(2) == 0 {
			a.UserID = w.users[r.IntN(3)]
		} else {
			a.GroupID = w.groups[r.IntN(2)]
		}
		if r.IntN(4) == 0 {
			a.DomainID = w.domain
		} else {
			a.ProjectID = w.projects[r.IntN(5)].ID
		}
		do(s.Grant(ctx, a))
		w.grants = append(w.grants, a)
	}
	return w
}

// model says which roles a user can use on a project, from the definitions alone.
func (w *world) model(user string, p *identity.Project) []string {
	parent := map[string]string{}
	for _, x := range w.projects {
		parent[x.ID] = x.ParentID
	}
	var out []string
	var add func(role string)
	add = func(role string) {
		if slices.Contains(out, role) {
			return
		}
		out = append(out, role)
		for _, next := range w.implied[role] {
			add(next)
		}
	}
	for _, a := range w.grants {
		if a.UserID != user && !slices.Contains(w.members[a.GroupID], user) {
			continue
		}
		if !a.Inherited && a.ProjectID == p.ID {
			add(a.RoleID)
		}
		for above := parent[p.ID]; a.Inherited && above != ""; above = parent[above] {
			if a.ProjectID+a.DomainID == above {
				add(a.RoleID)
			}
		}
	}
	slices.Sort(out)
	return out
}
