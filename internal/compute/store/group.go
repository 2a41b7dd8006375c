package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"kilonova/internal/compute"
	"kilonova/internal/db"
	"kilonova/internal/fault"
)

// groups reads the groups that from chooses of compute_groups, with their members.
func (s *Store) groups(ctx context.Context, q db.Querier, from string, args ...any) ([]compute.ServerGroup, error) {
	var out []compute.ServerGroup
	err := scan(ctx, q, "SELECT g.id, g.name, g.project_id, g.user_id, g.policy, g.max_per_host, COALESCE(m.server_id, '') FROM (SELECT number, id, name, project_id, user_id, policy, max_per_host"+
		" FROM compute_groups"+from+") g LEFT JOIN compute_group_members m ON m.group_id = g.id ORDER BY g.number, m.server_id", args, func(scan func(...any) error) error {
		var g compute.ServerGroup
		var member string
		if err := scan(&g.ID, &g.Name, &g.ProjectID, &g.UserID, &g.Policy, &g.MaxPerHost, &member); err != nil {
			return err
		}
		if n := len(out); n == 0 || out[n-1].ID != g.ID {
			out = append(out, g)
		}
		if member != "" {
			last := &out[len(out)-1]
			last.Members = append(last.Members, member)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read server groups: %w", err)
	}
	return out, nil
}

// Groups gives a page of the server groups of a project ("" all) with their members, oldest first: at most limit, without the first offset.
func (s *Store) Groups(ctx context.Context, q db.Querier, project string, offset, limit int) ([]compute.ServerGroup, error) {
	const page = " ORDER BY number LIMIT ? OFFSET ?"
	if project == "" {
		return s.groups(ctx, q, page, limit, offset)
	}
	return s.groups(ctx, q, " WHERE project_id = ?"+page, project, limit, offset)
}

// Group gives one server group with its members. It fails with fault.NotFound.
func (s *Store) Group(ctx context.Context, q db.Querier, groupID string) (*compute.ServerGroup, error) {
	gs, err := s.groups(ctx, q, " WHERE id = ?", groupID)
	if err != nil {
		return nil, err
	}
	if len(gs) == 0 {
		return nil, fault.New(fault.NotFound, "Instance group %s could not be found.", groupID)
	}
	return &gs[0], nil
}

// InsertGroup makes a server group and counts it; Reserve judges the limit.
func (s *Store) InsertGroup(ctx context.Context, tx *db.Tx, g *compute.ServerGroup) error {
	if _, err := tx.Exec(ctx, "INSERT INTO compute_groups (id, name, project_id, user_id, policy, max_per_host) VALUES (?, ?, ?, ?, ?, ?)", g.ID, g.Name, g.ProjectID, g.UserID, g.Policy, g.MaxPerHost); err != nil {
		return fmt.Errorf("insert server group: %w", err)
	}
	if err := addUsage(ctx, tx, g.ProjectID, g.UserID, Usage{ServerGroups: 1}); err != nil {
		return err
	}
	return s.tell(ctx, tx, GroupCreated, nil, g)
}

// DeleteGroup removes a server group; its members live on. It fails with fault.NotFound.
func (s *Store) DeleteGroup(ctx context.Context, tx *db.Tx, groupID string) error {
	var project, user string
	err := tx.QueryRow(ctx, "SELECT project_id, user_id FROM compute_groups WHERE id = ?"+tx.ForUpdate(), groupID).Scan(&project, &user)
	if db.IsNoRows(err) {
		return fault.New(fault.NotFound, "Instance group %s could not be found.", groupID)
	} else if err != nil {
		return err
	}
	if s.wants(GroupDeleted) {
		g, err := s.Group(ctx, tx, groupID)
		if err != nil {
			return err
		}
		if err := s.tell(ctx, tx, GroupDeleted, g, nil); err != nil {
			return err
		}
	}
	for _, q := range []string{"DELETE FROM compute_group_members WHERE group_id = ?", "DELETE FROM compute_groups WHERE id = ?"} {
		if _, err := tx.Exec(ctx, q, groupID); err != nil {
			return err
		}
	}
	return addUsage(ctx, tx, project, user, Usage{ServerGroups: -1})
}

// ReserveMembers locks a group and fails with fault.Forbidden when n more servers of the user would exceed limit (-1: none).
func (s *Store) ReserveMembers(ctx context.Context, tx *db.Tx, groupID, user string, n, limit int64) error {
	var have int64
	if err := tx.QueryRow(ctx, "SELECT number FROM compute_groups WHERE id = ?"+tx.ForUpdate(), groupID).Scan(&have); db.IsNoRows(err) {
		return fault.New(fault.Invalid, "Instance group %s could not be found.", groupID)
	} else if err != nil {
		return err
	}
	if limit < 0 {
		return nil
	}
	if err := tx.QueryRow(ctx, "SELECT COUNT(*) FROM compute_group_members WHERE group_id = ? AND user_id = ?", groupID, user).Scan(&have); err != nil {
		return err
	}
	if have+n > limit {
		return fault.New(fault.Forbidden, "Quota exceeded, too many servers in group").WithCode("OverQuota")
	}
	return nil
}

// moving are the states of migrations whose destination counts as a place of the server.
var moving = []string{"accepted", "queued", "preparing", "running", "pre-migrating", "migrating", "post-migrating"}

// groupPlaces selects where the members of a group are, where those are going that move, and where those may go back to that are being, or may yet be, reverted.
var groupPlaces = "SELECT s.id, s.host FROM compute_group_members m JOIN compute_servers s ON s.id = m.server_id WHERE m.group_id = ? AND s.deleted = 0 AND s.host > ''" +
	" UNION SELECT s.id, g.dest_host FROM compute_group_members m JOIN compute_servers s ON s.id = m.server_id JOIN compute_migrations g ON g.server_id = m.server_id" +
	" WHERE m.group_id = ? AND s.deleted = 0 AND g.dest_host > '' AND g.status IN (" + db.In(len(moving)) + ")" +
	" UNION SELECT s.id, g.source_host FROM compute_group_members m JOIN compute_servers s ON s.id = m.server_id JOIN compute_migrations g ON g.server_id = m.server_id" +
	" WHERE m.group_id = ? AND s.deleted = 0 AND s.host > '' AND g.status IN (?, ?)"

// GroupPlaces gives the hosts of each member of a group that is on a host, as its policy counts them: the host where it is; while it moves, also the one where it is going, for it may
// end on either; and from a resize or cold migration until its end, the host that it came from.
//
// While such a one waits to be confirmed, the host that it came from counts only where members must not meet: it is kept free of others, as Nova's last check before a build keeps
// it. For members that must be together it does not count: there would be no host left that is right for both ends, and until a person confirms, which may be never, no member
// could be built, which Nova lets pass. They are built beside the server where it is, and a revert that would then part them is refused (GuardRevert).
func (s *Store) GroupPlaces(ctx context.Context, q db.Querier, groupID, policy string) (map[string][]string, error) {
	back := "reverting"
	if policy == "anti-affinity" || policy == "soft-anti-affinity" {
		back = "finished"
	}
	out := map[string][]string{}
	err := scan(ctx, q, groupPlaces, append(append([]any{groupID, groupID}, db.Args(moving)...), groupID, "reverting", back), func(scan func(...any) error) error {
		var server, host string
		err := scan(&server, &host)
		out[server] = append(out[server], host)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("members of server group %s: %w", groupID, err)
	}
	return out, nil
}

// GuardGroup fails with fault.Conflict when a server of a group may not be on host beside, or apart from, the places of the other members (GroupPlaces). It locks
// the group until the transaction ends: called in the transaction that writes a server's host, or the destination of its move, it lets no two servers past each other. A group that is gone forbids
// nothing; the soft policies are wishes and forbid nothing either.
func (s *Store) GuardGroup(ctx context.Context, tx *db.Tx, groupID, serverID, host string) error {
	if groupID == "" || host == "" {
		return nil
	}
	var policy string
	var limit int
	err := tx.QueryRow(ctx, "SELECT policy, max_per_host FROM compute_groups WHERE id = ?"+tx.ForUpdate(), groupID).Scan(&policy, &limit)
	if db.IsNoRows(err) {
		return nil
	} else if err != nil {
		return fmt.Errorf("guard server group: %w", err)
	}
	places, err := s.GroupPlaces(ctx, tx, groupID, policy)
	if err != nil {
		return err
	}
	delete(places, serverID)
	here, elsewhere := 0, 0 // members that may come to be on the host, and that may come to be on another
	for _, at := range places {
		if slices.Contains(at, host) {
			here++
		}
		if slices.ContainsFunc(at, func(h string) bool { return h != host }) {
			elsewhere++
		}
	}
	switch {
	case policy == "affinity" && elsewhere > 0:
		return fault.New(fault.Conflict, "Affinity instance group policy was violated.")
	case policy == "anti-affinity" && here >= max(limit, 1):
		return fault.New(fault.Conflict, "Anti-affinity instance group policy was violated.")
	}
	return nil
}

// GuardRevert is GuardGroup for a server whose resize shall be reverted: it goes back to where its migration came from. Without a migration there is nothing to judge.
func (s *Store) GuardRevert(ctx context.Context, tx *db.Tx, v *compute.Server) error {
	if v.GroupID == "" {
		return nil
	}
	m, err := s.Migration(ctx, tx, v.System[compute.SysMigration])
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	err = s.GuardGroup(ctx, tx, v.GroupID, v.ID, m.SourceHost)
	if errors.Is(err, fault.Conflict) {
		return fault.Wrap(err, fault.Conflict, "Instance %s cannot go back to host %s, because of other members of its server group: %s", v.ID, m.SourceHost, fault.PublicText(err)).
			WithHint("Confirm the resize, or move or delete those members of the group first.")
	}
	return err
}

// tellMember tells that a new server is in its group.
func (s *Store) tellMember(ctx context.Context, tx *db.Tx, v *compute.Server) error {
	if v.GroupID == "" || !s.wants(GroupMember) {
		return nil
	}
	g, err := s.Group(ctx, tx, v.GroupID)
	if err != nil {
		return err
	}
	g.Members = []string{v.ID}
	return s.tell(ctx, tx, GroupMember, nil, g)
}
