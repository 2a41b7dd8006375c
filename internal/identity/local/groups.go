package local

import (
	"context"
	"fmt"

	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/identity"
)

// AddMember puts a user into a group; doing so again changes nothing.
func (s *Service) AddMember(ctx context.Context, group, user string) error {
	return s.db.Write(ctx, func(tx *db.Tx) error {
		if _, err := s.Groups.get(ctx, tx, group); err != nil {
			return err
		}
		if _, err := s.Users.get(ctx, tx, user); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, db.Upsert(tx.Dialect(), "identity_members", []string{"group_id", "user_id"}, nil), group, user); err != nil {
			return fmt.Errorf("add group member: %w", err)
		}
		return s.note(ctx, tx, changeUser, user)
	})
}

func noMember(group, user string) error {
	return fault.New(fault.NotFound, "Could not find user %s in group %s.", user, group)
}

// RemoveMember takes a user out of a group. It fails with fault.NotFound when the user is not in it.
func (s *Service) RemoveMember(ctx context.Context, group, user string) error {
	return s.db.Write(ctx, func(tx *db.Tx) error {
		n, err := tx.Exec(ctx, "DELETE FROM identity_members WHERE group_id = ? AND user_id = ?", group, user)
		if err != nil {
			return fmt.Errorf("remove group member: %w", err)
		}
		if n == 0 {
			return noMember(group, user)
		}
		return s.note(ctx, tx, changeUser, user)
	})
}

// CheckMember fails with fault.NotFound unless the user is in the group.
func (s *Service) CheckMember(ctx context.Context, group, user string) error {
	ok, err := s.exists(ctx, "SELECT COUNT(*) FROM identity_members WHERE group_id = ? AND user_id = ?", group, user)
	if err == nil && !ok {
		return noMember(group, user)
	}
	return err
}

// Members gives the users in a group.
func (s *Service) Members(ctx context.Context, group string) ([]identity.User, error) {
	if _, err := s.Groups.Get(ctx, group); err != nil {
		return nil, err
	}
	return s.Users.query(ctx, s.db, "WHERE id IN (SELECT user_id FROM identity_members WHERE group_id = ?) ORDER BY id", group)
}

// GroupsOf gives the groups that a user is in.
func (s *Service) GroupsOf(ctx context.Context, user string) ([]identity.Group, error) {
	if _, err := s.Users.Get(ctx, user); err != nil {
		return nil, err
	}
	return s.Groups.query(ctx, s.db, "WHERE id IN (SELECT group_id FROM identity_members WHERE user_id = ?) ORDER BY id", user)
}
