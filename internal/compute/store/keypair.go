package store

import (
	"context"
	"fmt"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/db"
	"kilonova/internal/fault"
)

const selectKey = "SELECT id, user_id, name, type, public_key, fingerprint, created_at FROM compute_keypairs"

func readKey(scan func(...any) error) (*compute.KeyPair, error) {
	var k compute.KeyPair
	var created int64
	if err := scan(&k.ID, &k.UserID, &k.Name, &k.Type, &k.PublicKey, &k.Fingerprint, &created); err != nil {
		return nil, err
	}
	k.Created = clock.FromMicros(created)
	return &k, nil
}

// KeyPairs gives a user's key pairs by name, those after marker and at most limit (0: all).
func (s *Store) KeyPairs(ctx context.Context, q db.Querier, user, marker string, limit int) ([]compute.KeyPair, error) {
	query, args := selectKey+" WHERE user_id = ? AND name > ? ORDER BY name", []any{user, marker}
	if limit > 0 {
		query, args = query+" LIMIT ?", append(args, limit)
	}
	if marker != "" {
		if _, err := s.KeyPair(ctx, q, user, marker); err != nil {
			return nil, fault.Wrap(err, fault.Invalid, "marker [%s] not found", marker)
		}
	}
	var out []compute.KeyPair
	err := scan(ctx, q, query, args, func(scan func(...any) error) error {
		k, err := readKey(scan)
		if err == nil {
			out = append(out, *k)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read key pairs: %w", err)
	}
	return out, nil
}

// KeyPair gives one. It fails with fault.NotFound.
func (s *Store) KeyPair(ctx context.Context, q db.Querier, user, name string) (*compute.KeyPair, error) {
	k, err := readKey(q.QueryRow(ctx, selectKey+" WHERE user_id = ? AND name = ?", user, name).Scan)
	if db.IsNoRows(err) {
		return nil, fault.New(fault.NotFound, "Keypair %s not found for user %s", name, user)
	}
	return k, err
}

// InsertKeyPair makes a key pair. It fails with fault.Conflict when the user has the name, and with fault.Forbidden above limit (-1: none).
func (s *Store) InsertKeyPair(ctx context.Context, tx *db.Tx, k *compute.KeyPair, limit int64) error {
	u, err := lockRow(ctx, tx, "", k.UserID)
	if err != nil {
		return err
	}
	var n int
	if err := tx.QueryRow(ctx, "SELECT COUNT(*) FROM compute_keypairs WHERE user_id = ? AND name = ?", k.UserID, k.Name).Scan(&n); err != nil {
		return err
	}
	if n > 0 {
		return fault.New(fault.Conflict, "Key pair '%s' already exists.", k.Name)
	}
	if limit >= 0 && u.KeyPairs+1 > limit {
		return fault.New(fault.Forbidden, "Quota exceeded, too many key pairs.").WithCode("OverQuota")
	}
	if k.Created.IsZero() {
		k.Created = clock.Now()
	}
	if _, err := tx.Exec(ctx, "INSERT INTO compute_keypairs (user_id, name, type, public_key, fingerprint, created_at) VALUES (?, ?, ?, ?, ?, ?)", k.UserID, k.Name, k.Type,
		k.PublicKey, k.Fingerprint, clock.Micros(k.Created)); err != nil {
		return fmt.Errorf("insert key pair: %w", err)
	}
	if err := tx.QueryRow(ctx, "SELECT id FROM compute_keypairs WHERE user_id = ? AND name = ?", k.UserID, k.Name).Scan(&k.ID); err != nil {
		return err
	}
	if err := addUsage(ctx, tx, "", k.UserID, Usage{KeyPairs: 1}); err != nil {
		return err
	}
	return s.tell(ctx, tx, KeyPairCreated, nil, k)
}

// DeleteKeyPair removes one. It fails with fault.NotFound.
func (s *Store) DeleteKeyPair(ctx context.Context, tx *db.Tx, user, name string) error {
	var k *compute.KeyPair
	if s.wants(KeyPairDeleted) {
		var err error
		if k, err = s.KeyPair(ctx, tx, user, name); err != nil {
			return err
		}
	}
	n, err := tx.Exec(ctx, "DELETE FROM compute_keypairs WHERE user_id = ? AND name = ?", user, name)
	if err := one(n, err, "Keypair %s not found for user %s", name, user); err != nil {
		return err
	}
	if err := addUsage(ctx, tx, "", user, Usage{KeyPairs: -1}); err != nil {
		return err
	}
	return s.tell(ctx, tx, KeyPairDeleted, k, nil)
}
