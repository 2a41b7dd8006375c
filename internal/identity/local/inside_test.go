package local

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/identity"
)

func inside(t *testing.T) *Service {
	t.Helper()
	dir := t.TempDir()
	d, err := db.Open(t.Context(), "sqlite:"+filepath.Join(dir, "identity.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	s, err := New(t.Context(), Config{DB: d, KeyDir: filepath.Join(dir, "keys"), BcryptCost: 4})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Bootstrap(t.Context(), BootstrapConfig{Users: StandardUsers("a", "d")}); err != nil {
		t.Fatal(err)
	}
	return s
}

// A password that changes between its check and the issue of the token makes no token.
func TestPasswordChangesDuringLogin(t *testing.T) {
	s := inside(t)
	steps := map[string]identity.Login{"password": {Methods: []string{"password"}, User: identity.Selector{Name: "demo", DomainID: DefaultDomain}, Password: "d"}}
	tok, err := s.Login(t.Context(), steps["password"])
	if err != nil {
		t.Fatal(err)
	}
	steps["token"] = identity.Login{Methods: []string{"token"}, Token: tok.ID}
	for name, l := range steps {
		c := &claim{}
		if err := s.method(t.Context(), name, l, c); err != nil {
			t.Fatal(err)
		}
		if err := s.SetPassword(t.Context(), c.user.ID, "d", false); err != nil {
			t.Fatal(err)
		}
		p, err := s.claimScope(t.Context(), identity.Scope{}, c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.issue(t.Context(), p, c); fault.KindOf(err) != fault.Unauthorized {
			t.Errorf("method %s: %v", name, err)
		}
		if tok, err = s.Login(t.Context(), steps["password"]); err != nil {
			t.Fatal(err)
		}
		steps["token"] = identity.Login{Methods: []string{"token"}, Token: tok.ID}
	}
}

// The statements of logins, validations and filtered lists find their rows by an index.
func TestReadsUseIndexes(t *testing.T) {
	s := inside(t)
	for _, q := range []string{
		s.Users.selects + " WHERE domain_id = ? AND name = ?", s.Users.selects + ` WHERE "name" = ? ORDER BY id`, s.Users.selects + " WHERE id = ?",
		s.Projects.selects + " WHERE domain_id = ? AND name = ?", s.Projects.selects + ` WHERE "name" = ? ORDER BY id`, s.Projects.selects + " WHERE parent_id IN (?,?) ORDER BY id",
		s.Projects.selects + " WHERE domain_id = '' AND lower(name) = ?", s.Groups.selects + ` WHERE "name" = ? ORDER BY id`, s.Roles.selects + ` WHERE "name" = ? ORDER BY id`, s.Services.selects + ` WHERE "type" = ? ORDER BY id`,
		s.Endpoints.selects + ` WHERE "service_id" = ? ORDER BY id`, s.Credentials.selects + ` WHERE "user_id" = ? ORDER BY id`, s.AppCreds.selects + ` WHERE "user_id" = ? ORDER BY id`,
		s.Trusts.selects + ` WHERE "trustor_user_id" = ? ORDER BY id`, s.Limits.selects + ` WHERE "project_id" = ? ORDER BY id`,
		s.Users.selects + " WHERE id IN (SELECT user_id FROM identity_members WHERE group_id = ?) ORDER BY id",
		"SELECT group_id FROM identity_members WHERE user_id = ?",
		"SELECT target_type, target_id, inherited, role_id FROM identity_assignments WHERE actor_id IN (?,?) AND target_id IN (?,?)",
		"SELECT COUNT(*) FROM identity_revocations WHERE object_id = ?",
		"SELECT id, kind, object_id FROM identity_changes WHERE id > ? ORDER BY id",
		"DELETE FROM identity_assignments WHERE target_id = ?", "DELETE FROM identity_trusts WHERE project_id = ?", "DELETE FROM identity_changes WHERE changed_at < ?",
	} {
		if plan := explain(t, s.db, q); strings.Contains(plan, "SCAN identity_") {
			t.Errorf("%s\nreads the whole table: %s", q, plan)
		}
	}
	if plan := explain(t, s.db, "SELECT id FROM identity_users WHERE extra = ?"); !strings.Contains(plan, "SCAN identity_users") {
		t.Errorf("the test does not see whole reads: %s", plan)
	}
}

func explain(t *testing.T, d *db.DB, q string) string {
	t.Helper()
	args := make([]any, strings.Count(q, "?"))
	for i := range args {
		args[i] = "x"
	}
	rows, err := d.Query(context.Background(), "EXPLAIN QUERY PLAN "+q, args...)
	if err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var a, b, c int
		var text string
		if err := rows.Scan(&a, &b, &c, &text); err != nil {
			t.Fatal(err)
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}
