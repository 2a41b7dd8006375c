package local

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/identity"
)

// The actor and target types of identity_assignments. The system is a target with the id "system".
const (
	actorUser     = "user"
	actorGroup    = "group"
	targetProject = "project"
	targetDomain  = "domain"
	targetSystem  = "system"
)

// roleTable is all roles and what they imply, read whole: there are few, and every token needs them.
type roleTable struct {
	byID    map[string]identity.Role
	implied map[string][]string // directly
}

func (s *Service) roleTable(ctx context.Context) (*roleTable, error) {
	if t := s.roles.Load(); t != nil {
		return t, nil
	}
	version := s.tokens.begin()
	list, err := s.Roles.List(ctx)
	if err != nil {
		return nil, err
	}
	t := &roleTable{byID: make(map[string]identity.Role, len(list)), implied: map[string][]string{}}
	for _, r := range list {
		t.byID[r.ID] = r
	}
	rows, err := s.db.Query(ctx, "SELECT prior_id, implied_id FROM identity_implied ORDER BY prior_id, implied_id")
	if err != nil {
		return nil, fmt.Errorf("read implied roles: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var prior, implied string
		if err := rows.Scan(&prior, &implied); err != nil {
			return nil, fmt.Errorf("read implied roles: %w", err)
		}
		t.implied[prior] = append(t.implied[prior], implied)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read implied roles: %w", err)
	}
	s.tokens.unless(version, func() { s.roles.Store(t) })
	return t, nil
}

// closure gives the given roles and all that they imply, each once, mapped to the role it was implied by ("" for the given ones).
func (t *roleTable) closure(ids []string) (order []string, prior map[string]string) {
	prior = map[string]string{}
	for _, id := range ids {
		if _, ok := prior[id]; !ok {
			prior[id] = ""
			order = append(order, id)
		}
	}
	for i := 0; i < len(order); i++ {
		for _, next := range t.implied[order[i]] {
			if _, ok := prior[next]; !ok {
				prior[next] = order[i]
				order = append(order, next)
			}
		}
	}
	return order, prior
}

// refs gives the global ones of the roles and their implied roles, as tokens hold them, ordered by name.
func (t *roleTable) refs(ids []string) []identity.Ref {
	order, _ := t.closure(ids)
	out := []identity.Ref{}
	for _, id := range order {
		if r, ok := t.byID[id]; ok && r.DomainID == "" {
			out = append(out, identity.Ref{ID: r.ID, Name: r.Name})
		}
	}
	slices.SortFunc(out, func(a, b identity.Ref) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// rolesOn gives the ids of the roles that a user holds on a project (with its ancestors), a domain, or the system when both are nil:
// its own and its groups', without implied ones.
func (s *Service) rolesOn(ctx context.Context, user string, project *identity.Project, domain string) ([]string, error) {
	type target struct {
		kind, id  string
		inherited bool
	}
	var targets []target
	switch {
	case project != nil:
		kind := targetProject
		if project.IsDomain {
			kind = targetDomain
		}
		targets = append(targets, target{kind, project.ID, false})
		if project.ParentID == project.DomainID {
			if project.DomainID != "" {
				targets = append(targets, target{targetDomain, project.DomainID, true})
			}
			break
		}
		above, err := s.Ancestors(ctx, project)
		if err != nil {
			return nil, err
		}
		for _, a := range above {
			kind := targetProject
			if a.IsDomain {
				kind = targetDomain
			}
			targets = append(targets, target{kind, a.ID, true})
		}
	case domain != "":
		targets = append(targets, target{targetDomain, domain, false})
	default:
		targets = append(targets, target{targetSystem, targetSystem, false})
	}
	actors, err := texts(ctx, s.db, "SELECT group_id FROM identity_members WHERE user_id = ?", user)
	if err != nil {
		return nil, fmt.Errorf("read groups: %w", err)
	}
	actors = append(actors, user)
	args := db.Args(actors)
	for _, t := range targets {
		args = append(args, t.id)
	}
	rows, err := s.db.Query(ctx, "SELECT target_type, target_id, inherited, role_id FROM identity_assignments WHERE actor_id IN ("+db.In(len(actors))+
		") AND target_id IN ("+db.In(len(targets))+")", args...)
	if err != nil {
		return nil, fmt.Errorf("read role assignments: %w", err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var t target
		var role string
		if err := rows.Scan(&t.kind, &t.id, &t.inherited, &role); err != nil {
			return nil, fmt.Errorf("read role assignments: %w", err)
		}
		if slices.Contains(targets, t) && !slices.Contains(out, role) {
			out = append(out, role)
		}
	}
	return out, rows.Err()
}

// key gives the columns of an assignment's row.
func key(a identity.Assignment) []any {
	actorType, actor, targetType, target := actorUser, a.UserID, targetSystem, targetSystem
	if a.GroupID != "" {
		actorType, actor = actorGroup, a.GroupID
	}
	if a.ProjectID != "" {
		targetType, target = targetProject, a.ProjectID
	} else if a.DomainID != "" {
		targetType, target = targetDomain, a.DomainID
	}
	return []any{actorType, actor, targetType, target, a.RoleID, a.Inherited}
}

const whereKey = "actor_type = ? AND actor_id = ? AND target_type = ? AND target_id = ? AND role_id = ? AND inherited = ?"

// Grant assigns a role. It fails with fault.NotFound when user, group, target or role is not there, and with fault.Forbidden for a
// domain's role outside its domain. Granting again changes nothing.
func (s *Service) Grant(ctx context.Context, a identity.Assignment) error {
	return s.db.Write(ctx, func(tx *db.Tx) error {
		if err := s.checkGrant(ctx, tx, a); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, db.Upsert(tx.Dialect(), "identity_assignments",
			[]string{"actor_type", "actor_id", "target_type", "target_id", "role_id", "inherited"}, nil), key(a)...)
		if err != nil {
			return fmt.Errorf("grant: %w", err)
		}
		return s.noteActor(ctx, tx, a)
	})
}

func (s *Service) noteActor(ctx context.Context, tx *db.Tx, a identity.Assignment) error {
	if a.GroupID != "" {
		return s.note(ctx, tx, changeAll, "")
	}
	return s.note(ctx, tx, changeUser, a.UserID)
}

func (s *Service) checkGrant(ctx context.Context, tx *db.Tx, a identity.Assignment) error {
	role, err := s.Roles.get(ctx, tx, a.RoleID)
	if err != nil {
		return err
	}
	if err := s.checkActorAndTarget(ctx, tx, a); err != nil || role.DomainID == "" || a.ProjectID == "" {
		return err
	}
	// A domain's role goes to projects of that domain; on domains it may stand anywhere, as in Keystone.
	p, err := s.Projects.get(ctx, tx, a.ProjectID)
	if err != nil {
		return err
	}
	if p.DomainID != role.DomainID {
		return fault.New(fault.Forbidden, "Role %s belongs to domain %s and cannot be assigned in projects of another.", role.ID, role.DomainID)
	}
	return nil
}

func (s *Service) checkActorAndTarget(ctx context.Context, q db.Querier, a identity.Assignment) error {
	var err error
	if a.GroupID != "" {
		_, err = s.Groups.get(ctx, q, a.GroupID)
	} else {
		_, err = s.Users.get(ctx, q, a.UserID)
	}
	if err != nil {
		return err
	}
	if a.ProjectID != "" {
		_, err = s.Projects.get(ctx, q, a.ProjectID)
	} else if a.DomainID != "" {
		_, err = s.domain(ctx, q, a.DomainID)
	}
	return err
}

// Revoke takes an assignment away. It fails with fault.NotFound when it is not there; user and target need not exist any more.
func (s *Service) Revoke(ctx context.Context, a identity.Assignment) error {
	return s.db.Write(ctx, func(tx *db.Tx) error {
		n, err := tx.Exec(ctx, "DELETE FROM identity_assignments WHERE "+whereKey, key(a)...)
		if err != nil {
			return fmt.Errorf("revoke grant: %w", err)
		}
		if n == 0 {
			return noAssignment(a)
		}
		return s.noteActor(ctx, tx, a)
	})
}

func noAssignment(a identity.Assignment) error {
	return fault.New(fault.NotFound, "Could not find the assignment of role %s to %s on %s.",
		a.RoleID, a.UserID+a.GroupID, key(a)[3])
}

// CheckGrant fails with fault.NotFound unless exactly this assignment is there.
func (s *Service) CheckGrant(ctx context.Context, a identity.Assignment) error {
	ok, err := s.exists(ctx, "SELECT COUNT(*) FROM identity_assignments WHERE "+whereKey, key(a)...)
	if err == nil && !ok {
		return noAssignment(a)
	}
	return err
}

// Granted gives the roles that an actor holds directly on a target; a's RoleID is not looked at.
func (s *Service) Granted(ctx context.Context, a identity.Assignment) ([]identity.Role, error) {
	if err := s.checkActorAndTarget(ctx, s.db, a); err != nil {
		return nil, err
	}
	k := key(a)
	return s.Roles.query(ctx, s.db, "WHERE id IN (SELECT role_id FROM identity_assignments WHERE actor_type = ? AND actor_id = ? AND target_type = ? AND target_id = ? AND inherited = ?) ORDER BY id",
		k[0], k[1], k[2], k[3], k[5])
}

// AssignmentQuery picks assignments. Empty fields do not restrict.
type AssignmentQuery struct {
	UserID, GroupID, RoleID, ProjectID, DomainID string
	System, Subtree, Effective                   bool
	Inherited                                    bool // only inherited ones
}

// Assignments lists role assignments. With Effective it gives what each user can use: groups resolved to their members, inherited
// assignments to the projects they reach, implied roles spelled out, domain roles replaced by what they imply.
func (s *Service) Assignments(ctx context.Context, q AssignmentQuery) ([]identity.Assignment, error) {
	if q.Effective {
		return s.effective(ctx, q)
	}
	projects := []string{}
	if q.ProjectID != "" {
		projects = append(projects, q.ProjectID)
		if q.Subtree {
			below, err := s.Subtree(ctx, q.ProjectID)
			if err != nil {
				return nil, err
			}
			for _, p := range below {
				projects = append(projects, p.ID)
			}
		}
	}
	var where []string
	var args []any
	add := func(cond string, a ...any) { where, args = append(where, cond), append(args, a...) }
	if q.UserID != "" {
		add("actor_type = 'user' AND actor_id = ?", q.UserID)
	}
	if q.GroupID != "" {
		add("actor_type = 'group' AND actor_id = ?", q.GroupID)
	}
	if q.RoleID != "" {
		add("role_id = ?", q.RoleID)
	}
	if len(projects) > 0 {
		add("target_type = 'project' AND target_id IN ("+db.In(len(projects))+")", db.Args(projects)...)
	}
	if q.DomainID != "" {
		add("target_type = 'domain' AND target_id = ?", q.DomainID)
	}
	if q.System {
		add("target_type = 'system'")
	}
	if q.Inherited {
		add("inherited = 1")
	}
	return s.readAssignments(ctx, where, args)
}

func (s *Service) readAssignments(ctx context.Context, where []string, args []any) ([]identity.Assignment, error) {
	query := "SELECT actor_type, actor_id, target_type, target_id, role_id, inherited FROM identity_assignments"
	if len(where) > 0 {
		query += " WHERE " + strings.Join(where, " AND ")
	}
	rows, err := s.db.Query(ctx, query+" ORDER BY actor_id, target_id, role_id, inherited", args...)
	if err != nil {
		return nil, fmt.Errorf("read role assignments: %w", err)
	}
	defer rows.Close()
	out := []identity.Assignment{}
	for rows.Next() {
		var actorType, actor, targetType, target string
		var a identity.Assignment
		if err := rows.Scan(&actorType, &actor, &targetType, &target, &a.RoleID, &a.Inherited); err != nil {
			return nil, fmt.Errorf("read role assignments: %w", err)
		}
		if actorType == actorUser {
			a.UserID = actor
		} else {
			a.GroupID = actor
		}
		switch targetType {
		case targetProject:
			a.ProjectID = target
		case targetDomain:
			a.DomainID = target
		}
		out = append(out, a)
	}
	return out, rows.Err()
}
