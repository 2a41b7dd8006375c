package local

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/identity"
)

// The kinds of change that other processes must hear of.
const (
	changeToken   = "token"   // one token was revoked; the object is its audit id
	changeUser    = "user"    // the user, its password or its roles
	changeProject = "project" // the project
	changeAll     = "all"     // anything else that tokens depend on: domains, groups, roles
	changeCatalog = "catalog"
)

const (
	changesKept   = time.Hour // rows older than this are deleted; every process has read them long since
	changesWindow = 500       // ids below the newest that are read again: a smaller id may commit after a greater one
	pruneEvery    = 256       // changes between two deletions of old rows
)

// changes follows the table of changes.
type changes struct {
	s *Service

	mu     sync.Mutex // held while reading the table
	last   int64
	seen   map[int64]bool // ids in the window that were applied
	readAt time.Time      // guarded by at; its age is that of a clock which nobody sets back

	at    sync.RWMutex
	notes int
}

func newChanges(ctx context.Context, s *Service) (*changes, error) {
	c := &changes{s: s, seen: map[int64]bool{}}
	var last sql.NullInt64
	if err := s.db.QueryRow(ctx, "SELECT MAX(id) FROM identity_changes").Scan(&last); err != nil {
		return nil, fmt.Errorf("read changes: %w", err)
	}
	c.last = last.Int64
	rows, err := texts(ctx, s.db, "SELECT id FROM identity_changes WHERE id > ?", c.last-changesWindow)
	if err != nil {
		return nil, fmt.Errorf("read changes: %w", err)
	}
	for _, r := range rows {
		var n int64
		_, _ = fmt.Sscan(r, &n) // the column is an integer
		c.seen[n] = true
	}
	c.readAt = time.Now()
	return c, nil
}

// note records a change in the transaction and tells this process of it after the commit.
func (s *Service) note(ctx context.Context, tx *db.Tx, kind, object string) error {
	if _, err := tx.Exec(ctx, "INSERT INTO identity_changes (kind, object_id, changed_at) VALUES (?, ?, ?)", kind, object, clock.Micros(clock.Now())); err != nil {
		return fmt.Errorf("note change: %w", err)
	}
	c := s.changes
	c.at.Lock()
	c.notes++
	prune := c.notes%pruneEvery == 0
	c.at.Unlock()
	if prune {
		if _, err := tx.Exec(ctx, "DELETE FROM identity_changes WHERE changed_at < ?", clock.Micros(clock.Now().Add(-changesKept))); err != nil {
			return fmt.Errorf("prune changes: %w", err)
		}
		if _, err := tx.Exec(ctx, "DELETE FROM identity_revocations WHERE revoked_at < ?", clock.Micros(clock.Now().Add(-s.cfg.TokenTTL-changesKept))); err != nil {
			return fmt.Errorf("prune revocations: %w", err)
		}
	}
	tx.AfterCommit(func() { s.apply(kind, object) })
	return nil
}

// revoke ends the token with the audit id.
func (s *Service) revoke(ctx context.Context, tx *db.Tx, audit string) error {
	if _, err := tx.Exec(ctx, "INSERT INTO identity_revocations (object_id, revoked_at) VALUES (?, ?)", audit, clock.Micros(clock.Now())); err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	return s.note(ctx, tx, changeToken, audit)
}

// apply forgets what a change made doubtful.
func (s *Service) apply(kind, object string) {
	hit := func(*identity.Token) bool { return true }
	switch kind {
	case changeToken:
		hit = func(t *identity.Token) bool { return slices.Contains(t.AuditIDs[:1], object) }
	case changeUser:
		hit = func(t *identity.Token) bool {
			return t.User.ID == object || t.Trust != nil && (t.Trust.TrustorID == object || t.Trust.TrusteeID == object)
		}
	case changeProject:
		hit = func(t *identity.Token) bool { return t.Project != nil && t.Project.ID == object }
	case changeCatalog:
		hit = func(*identity.Token) bool { return false }
		defer s.catalog.Store(nil)
	case changeAll:
		defer s.roles.Store(nil)
	}
	s.tokens.drop(hit) // raises the version first: a table read before it is not kept
}

// sync reads the changes of other processes when the last reading is older than SyncEvery. One caller reads; the others go on as long as
// the last reading is not twice as old.
func (s *Service) sync(ctx context.Context) error {
	c := s.changes
	every := s.cfg.SyncEvery
	if every < 0 {
		return nil
	}
	age := c.age()
	if age < every {
		return nil
	}
	if age < 2*every {
		if !c.mu.TryLock() {
			return nil
		}
	} else {
		c.mu.Lock()
	}
	defer c.mu.Unlock()
	if c.age() < every {
		return nil
	}
	if err := c.read(ctx); err != nil {
		return fault.Wrap(err, fault.Unavailable, "Tokens cannot be verified now because the identity database does not answer. Try again later.")
	}
	return nil
}

func (c *changes) age() time.Duration {
	c.at.RLock()
	defer c.at.RUnlock()
	return time.Since(c.readAt)
}

func (c *changes) read(ctx context.Context) error {
	now := time.Now()
	rows, err := c.s.db.Query(ctx, "SELECT id, kind, object_id FROM identity_changes WHERE id > ? ORDER BY id", c.last-changesWindow)
	if err != nil {
		return fmt.Errorf("read changes: %w", err)
	}
	defer rows.Close()
	type change struct {
		id           int64
		kind, object string
	}
	var fresh []change
	for rows.Next() {
		var ch change
		if err := rows.Scan(&ch.id, &ch.kind, &ch.object); err != nil {
			return fmt.Errorf("read changes: %w", err)
		}
		if !c.seen[ch.id] {
			fresh = append(fresh, ch)
		}
	}
	if err := rows.Err(); err != nil { // what came before the connection was lost has not been applied: it is read again
		return fmt.Errorf("read changes: %w", err)
	}
	for _, ch := range fresh {
		c.seen[ch.id] = true
		c.last = max(c.last, ch.id)
	}
	for n := range c.seen {
		if n <= c.last-changesWindow {
			delete(c.seen, n)
		}
	}
	for _, ch := range fresh {
		c.s.apply(ch.kind, ch.object)
	}
	c.at.Lock()
	c.readAt = now
	c.at.Unlock()
	return nil
}
