package local

import (
	"context"
	"fmt"
	"slices"

	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/identity"
)

// effective resolves assignments to what users can use.
func (s *Service) effective(ctx context.Context, q AssignmentQuery) ([]identity.Assignment, error) {
	if q.GroupID != "" {
		return nil, fault.New(fault.Invalid, "Effective assignments belong to users: they cannot be asked for by group.")
	}
	base, err := s.candidates(ctx, q)
	if err != nil {
		return nil, err
	}
	if base, err = s.expandGroups(ctx, base, q.UserID); err != nil {
		return nil, err
	}
	if base, err = s.expandInherited(ctx, base); err != nil {
		return nil, err
	}
	table, err := s.roleTable(ctx)
	if err != nil {
		return nil, err
	}
	wanted, err := s.wantedProjects(ctx, q)
	if err != nil {
		return nil, err
	}
	out := []identity.Assignment{}
	seen := map[identity.Assignment]bool{}
	for _, a := range base {
		if wanted != nil && !wanted[a.ProjectID] || q.DomainID != "" && a.DomainID != q.DomainID || q.System && !a.System() {
			continue
		}
		order, prior := table.closure([]string{a.RoleID})
		for _, role := range order {
			if r, ok := table.byID[role]; !ok || r.DomainID != "" || q.RoleID != "" && q.RoleID != role {
				continue
			}
			e := a
			e.RoleID, e.PriorRoleID = role, prior[role]
			if !seen[e] {
				seen[e] = true
				out = append(out, e)
			}
		}
	}
	return out, nil
}

// candidates reads the assignments that can matter: those of the user and its groups when one is named, else all.
func (s *Service) candidates(ctx context.Context, q AssignmentQuery) ([]identity.Assignment, error) {
	if q.UserID == "" {
		return s.readAssignments(ctx, nil, nil)
	}
	actors, err := texts(ctx, s.db, "SELECT group_id FROM identity_members WHERE user_id = ?", q.UserID)
	if err != nil {
		return nil, fmt.Errorf("read groups: %w", err)
	}
	actors = append(actors, q.UserID)
	return s.readAssignments(ctx, []string{"actor_id IN (" + db.In(len(actors)) + ")"}, db.Args(actors))
}

// wantedProjects is the set of projects that the query asks for, nil for all.
func (s *Service) wantedProjects(ctx context.Context, q AssignmentQuery) (map[string]bool, error) {
	if q.ProjectID == "" {
		return nil, nil
	}
	out := map[string]bool{q.ProjectID: true}
	if q.Subtree {
		below, err := s.Subtree(ctx, q.ProjectID)
		if err != nil {
			return nil, err
		}
		for _, p := range below {
			out[p.ID] = true
		}
	}
	return out, nil
}

// expandGroups replaces each group's assignment by one for each member (or for the one user asked for).
func (s *Service) expandGroups(ctx context.Context, in []identity.Assignment, user string) ([]identity.Assignment, error) {
	members := map[string][]string{}
	var groups []string
	for _, a := range in {
		if a.GroupID != "" && !slices.Contains(groups, a.GroupID) {
			groups = append(groups, a.GroupID)
		}
	}
	for chunk := range slices.Chunk(groups, 500) {
		rows, err := s.db.Query(ctx, "SELECT group_id, user_id FROM identity_members WHERE group_id IN ("+db.In(len(chunk))+")", db.Args(chunk)...)
		if err != nil {
			return nil, fmt.Errorf("read group members: %w", err)
		}
		for rows.Next() {
			var g, u string
			if err := rows.Scan(&g, &u); err != nil {
				_ = rows.Close()
				return nil, fmt.Errorf("read group members: %w", err)
			}
			if user == "" || u == user {
				members[g] = append(members[g], u)
			}
		}
		if err := rows.Err(); err != nil {
			return nil, fmt.Errorf("read group members: %w", err)
		}
	}
	var out []identity.Assignment
	for _, a := range in {
		if a.GroupID == "" {
			out = append(out, a)
			continue
		}
		for _, u := range members[a.GroupID] {
			e := a
			e.UserID, e.GroupID, e.ViaGroupID = u, "", a.GroupID
			out = append(out, e)
		}
	}
	return out, nil
}

// expandInherited replaces each inherited assignment by one for each project below its target.
func (s *Service) expandInherited(ctx context.Context, in []identity.Assignment) ([]identity.Assignment, error) {
	trees := map[string][]identity.Project{}
	var out []identity.Assignment
	for _, a := range in {
		if !a.Inherited {
			out = append(out, a)
			continue
		}
		root := a.ProjectID + a.DomainID
		tree, ok := trees[root]
		if !ok {
			var err error
			if tree, err = s.Subtree(ctx, root); err != nil {
				return nil, err
			}
			trees[root] = tree
		}
		for _, p := range tree {
			e := a
			e.ViaProjectID, e.ViaDomainID = a.ProjectID, a.DomainID
			e.ProjectID, e.DomainID = p.ID, ""
			out = append(out, e)
		}
	}
	return out, nil
}

// UserProjects gives the enabled projects on which a user holds a role; UserDomains the domains.
func (s *Service) UserProjects(ctx context.Context, user string) ([]identity.Project, error) {
	return s.reach(ctx, user, func(a identity.Assignment) string { return a.ProjectID })
}

// UserDomains gives the enabled domains on which a user holds a role itself.
func (s *Service) UserDomains(ctx context.Context, user string) ([]identity.Project, error) {
	return s.reach(ctx, user, func(a identity.Assignment) string { return a.DomainID })
}

func (s *Service) reach(ctx context.Context, user string, target func(identity.Assignment) string) ([]identity.Project, error) {
	list, err := s.effective(ctx, AssignmentQuery{UserID: user})
	if err != nil {
		return nil, err
	}
	var ids []string
	seen := map[string]bool{"": true}
	for _, a := range list {
		if t := target(a); !seen[t] {
			seen[t] = true
			ids = append(ids, t)
		}
	}
	found, err := s.Projects.Many(ctx, ids)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(found, func(p identity.Project) bool { return !p.Enabled }), nil
}

// HoldsSystemRole tells whether a user holds a role on the system.
func (s *Service) HoldsSystemRole(ctx context.Context, user string) (bool, error) {
	ids, err := s.rolesOn(ctx, user, nil, "")
	return len(ids) > 0, err
}

// Imply makes one role imply another.
func (s *Service) Imply(ctx context.Context, prior, implied string) error {
	return s.db.Write(ctx, func(tx *db.Tx) error {
		p, err := s.Roles.get(ctx, tx, prior)
		if err != nil {
			return err
		}
		i, err := s.Roles.get(ctx, tx, implied)
		if err != nil {
			return err
		}
		if i.DomainID != "" && p.DomainID == "" {
			return fault.New(fault.Forbidden, "Role %s is global and cannot imply %s, which belongs to a domain.", prior, implied)
		}
		if prior == implied || i.Name == "admin" && i.DomainID == "" {
			return fault.New(fault.Forbidden, "Role %s cannot be implied by %s.", implied, prior)
		}
		if _, err := tx.Exec(ctx, db.Upsert(tx.Dialect(), "identity_implied", []string{"prior_id", "implied_id"}, nil), prior, implied); err != nil {
			return fmt.Errorf("imply role: %w", err)
		}
		return s.note(ctx, tx, changeAll, "")
	})
}

// Unimply ends what Imply began.
func (s *Service) Unimply(ctx context.Context, prior, implied string) error {
	return s.db.Write(ctx, func(tx *db.Tx) error {
		n, err := tx.Exec(ctx, "DELETE FROM identity_implied WHERE prior_id = ? AND implied_id = ?", prior, implied)
		if err != nil {
			return fmt.Errorf("unimply role: %w", err)
		}
		if n == 0 {
			return fault.New(fault.NotFound, "%s does not imply %s", prior, implied)
		}
		return s.note(ctx, tx, changeAll, "")
	})
}

// Inference is a role with the roles that it implies directly.
type Inference struct {
	Prior   identity.Role
	Implies []identity.Role
}

// Inferences gives the rules of one role, or of all roles that imply something when prior is "".
func (s *Service) Inferences(ctx context.Context, prior string) ([]Inference, error) {
	table, err := s.roleTable(ctx)
	if err != nil {
		return nil, err
	}
	var priors []string
	if prior != "" {
		if _, ok := table.byID[prior]; !ok {
			return nil, fault.New(fault.NotFound, "Could not find role: %s.", prior)
		}
		priors = []string{prior}
	} else {
		for p := range table.implied {
			priors = append(priors, p)
		}
		slices.Sort(priors)
	}
	out := []Inference{}
	for _, p := range priors {
		inf := Inference{Prior: table.byID[p]}
		for _, i := range table.implied[p] {
			inf.Implies = append(inf.Implies, table.byID[i])
		}
		out = append(out, inf)
	}
	return out, nil
}
