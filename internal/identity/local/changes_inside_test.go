package local

import (
	"testing"

	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/identity"
)

// What another process changed is applied although the reading that found it first broke off behind it.
func TestChangesOfAReadingThatBrokeOff(t *testing.T) {
	ctx, s := t.Context(), inside(t)
	s.cfg.SyncEvery = 1 // each question looks
	tok, err := s.Login(ctx, identity.Login{Methods: []string{"password"}, User: identity.Selector{Name: "demo", DomainID: DefaultDomain}, Password: "d"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Validate(ctx, tok.ID); err != nil {
		t.Fatal(err)
	}
	write := func(q string, args ...any) {
		t.Helper()
		if err := s.db.Write(ctx, func(tx *db.Tx) error { _, err := tx.Exec(ctx, q, args...); return err }); err != nil {
			t.Fatal(err)
		}
	}
	// A row that cannot be read stands for the connection that was lost.
	write("ALTER TABLE identity_changes RENAME TO identity_changes_before")
	write("CREATE TABLE identity_changes (id BIGINT, kind VARCHAR(16), object_id VARCHAR(64), changed_at BIGINT)")
	write("INSERT INTO identity_changes SELECT * FROM identity_changes_before")
	write("INSERT INTO identity_revocations (object_id, revoked_at) VALUES (?, 1)", tok.AuditIDs[0])
	write("INSERT INTO identity_changes VALUES (1000, ?, ?, 1), (1001, NULL, NULL, 1)", changeToken, tok.AuditIDs[0])
	if _, err := s.Validate(ctx, tok.ID); fault.KindOf(err) != fault.Unavailable {
		t.Fatalf("while changes cannot be read: %v", err)
	}
	write("DELETE FROM identity_changes WHERE id = 1001")
	if _, err := s.Validate(ctx, tok.ID); fault.KindOf(err) != fault.Unauthorized {
		t.Errorf("a token that another process revoked: %v", err)
	}
}
