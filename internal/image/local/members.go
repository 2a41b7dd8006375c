package local

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"kilonova/internal/auth"
	"kilonova/internal/clock"
	"kilonova/internal/db"
	"kilonova/internal/fault"
)

// Statuses of a member: what the project that an image is shared with says to it. Only accepted images are in its lists.
const (
	Accepted = "accepted"
	Pending  = "pending"
	Rejected = "rejected"
)

// Member is a project that an image is shared with.
type Member struct {
	ImageID, Member, Status string
	Created, Updated        time.Time
}

const memberColumns = "image_id, member, status, created_at, updated_at"

func scanMember(row scanner) (Member, error) {
	var m Member
	var created, updated int64
	err := row.Scan(&m.ImageID, &m.Member, &m.Status, &created, &updated)
	m.Created, m.Updated = clock.FromMicros(created), clock.FromMicros(updated)
	return m, err
}

// Member gives one member of an image.
func (s *Service) Member(ctx context.Context, imageID, member string) (*Member, error) {
	return readMember(ctx, s.db, imageID, member, "")
}

func readMember(ctx context.Context, q db.Querier, imageID, member, lock string) (*Member, error) {
	m, err := scanMember(q.QueryRow(ctx, "SELECT "+memberColumns+" FROM image_members WHERE image_id = ? AND member = ?"+lock, imageID, member))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fault.New(fault.NotFound, "%.100s not found in the member list of the image %s.", member, imageID)
	}
	if err != nil {
		return nil, fmt.Errorf("read image member: %w", err)
	}
	return &m, nil
}

// Members lists the members of an image, the oldest first.
func (s *Service) Members(ctx context.Context, imageID string) ([]Member, error) {
	rows, err := s.db.Query(ctx, "SELECT "+memberColumns+" FROM image_members WHERE image_id = ? ORDER BY created_at, member", imageID)
	if err != nil {
		return nil, fmt.Errorf("list image members: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var list []Member
	for rows.Next() {
		m, err := scanMember(rows)
		if err != nil {
			return nil, fmt.Errorf("list image members: %w", err)
		}
		list = append(list, m)
	}
	return list, rows.Err()
}

// AddMember shares an image with a project, which then has to accept it.
func (s *Service) AddMember(ctx context.Context, c *auth.Caller, imageID, member string) (*Member, error) {
	if member == "" || len(member) > 255 {
		return nil, fault.New(fault.Invalid, "The member must be the id of a project: between 1 and 255 characters.")
	}
	m := &Member{ImageID: imageID, Member: member, Status: Pending, Created: clock.Now()}
	m.Updated = m.Created
	var r *Record
	err := s.db.Write(ctx, func(tx *db.Tx) (err error) {
		if r, err = read(ctx, tx, imageID, tx.ForUpdate()); err != nil {
			return err
		}
		if r.Visibility != Shared {
			return fault.New(fault.Forbidden, "Only images with the visibility shared have members; image %s is %s.", imageID, r.Visibility)
		}
		var n int
		if err := tx.QueryRow(ctx, "SELECT COUNT(*) FROM image_members WHERE image_id = ?", imageID).Scan(&n); err != nil {
			return fmt.Errorf("count image members: %w", err)
		}
		if s.cfg.MaxMembers > 0 && n >= s.cfg.MaxMembers {
			return fault.New(fault.TooLarge, "The limit has been exceeded on the number of allowed image members for this image. Attempted: %d, Maximum: %d",
				n+1, s.cfg.MaxMembers)
		}
		_, err = tx.Exec(ctx, "INSERT INTO image_members ("+memberColumns+") VALUES (?, ?, ?, ?, ?)", imageID, member, m.Status,
			clock.Micros(m.Created), clock.Micros(m.Updated))
		return err
	})
	if db.IsDuplicate(err) {
		return nil, fault.New(fault.Conflict, "Project %s is already associated with image %s.", member, imageID)
	}
	if err != nil {
		return nil, err
	}
	s.event("image.member.create", c, r)
	return m, nil
}

// SetMember records what the member says to the image.
func (s *Service) SetMember(ctx context.Context, c *auth.Caller, imageID, member, status string) (*Member, error) {
	if status != Accepted && status != Pending && status != Rejected {
		return nil, fault.New(fault.Invalid, "The status must be %q, %q or %q.", Pending, Accepted, Rejected)
	}
	var m *Member
	var r *Record
	err := s.db.Write(ctx, func(tx *db.Tx) (err error) {
		if r, err = read(ctx, tx, imageID, ""); err != nil {
			return err
		}
		if m, err = readMember(ctx, tx, imageID, member, tx.ForUpdate()); err != nil {
			return err
		}
		m.Status, m.Updated = status, clock.Now()
		_, err = tx.Exec(ctx, "UPDATE image_members SET status = ?, updated_at = ? WHERE image_id = ? AND member = ?", status, clock.Micros(m.Updated), imageID, member)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.event("image.member.update", c, r)
	return m, nil
}

// RemoveMember ends the sharing of an image with a project.
func (s *Service) RemoveMember(ctx context.Context, c *auth.Caller, imageID, member string) error {
	var r *Record
	err := s.db.Write(ctx, func(tx *db.Tx) (err error) {
		if r, err = read(ctx, tx, imageID, ""); err != nil {
			return err
		}
		n, err := tx.Exec(ctx, "DELETE FROM image_members WHERE image_id = ? AND member = ?", imageID, member)
		if err == nil && n == 0 {
			return fault.New(fault.NotFound, "%.100s not found in the member list of the image %s.", member, imageID)
		}
		return err
	})
	if err == nil {
		s.event("image.member.delete", c, r)
	}
	return err
}
