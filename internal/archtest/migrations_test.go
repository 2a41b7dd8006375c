package archtest_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// hiddenWrites gives the words of SQL by which a statement would write to tables that it does not name, each once.
func hiddenWrites(sql string) []string {
	var out []string
	for line := range strings.Lines(sql) {
		code, _, _ := strings.Cut(line, "--")
		for _, w := range regexp.MustCompile(`(?i)\bTRIGGER\b|\bCASCADE\b|\bON\s+(DELETE|UPDATE)\s+SET\b|\bCREATE\s+(\w+\s+)*RULE\b`).FindAllString(code, -1) {
			if w = strings.ToUpper(strings.Join(strings.Fields(w), " ")); !slices.Contains(out, w) {
				out = append(out, w)
			}
		}
	}
	return out
}

// TestMigrationsHideNoWrites holds the migrations to what db.Memo counts on: a statement writes to the table that it names and to no other.
func TestMigrationsHideNoWrites(t *testing.T) {
	for sql, want := range map[string][]string{
		"CREATE TABLE a (id TEXT PRIMARY KEY) WITHOUT ROWID; -- no trigger here":               nil,
		"CREATE TABLE a (b TEXT REFERENCES c (id), trigger_time TEXT)":                         nil,
		"create  trigger a AFTER INSERT ON b BEGIN DELETE FROM c; END":                         {"TRIGGER"},
		"b TEXT REFERENCES c (id)\n ON UPDATE SET NULL\n ON DELETE cascade":                    {"ON UPDATE SET", "CASCADE"},
		"CREATE OR REPLACE RULE a AS ON INSERT TO b DO INSERT INTO c DEFAULT VALUES":           {"CREATE OR REPLACE RULE"},
		"CREATE TABLE a (b TEXT REFERENCES c (id) ON DELETE RESTRICT, rule TEXT, created INT)": nil,
	} {
		if d := cmp.Diff(want, hiddenWrites(sql)); d != "" {
			t.Errorf("%s (-want +got):\n%s", sql, d)
		}
	}
	seen := 0
	err := filepath.WalkDir(filepath.Join("..", "..", "internal"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(p) != ".sql" {
			return err
		}
		sql, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		seen++
		for _, w := range hiddenWrites(string(sql)) {
			t.Errorf("%s says %s: a statement would write to a table that it does not name, and what db.Memo remembers of that table would be served although it is old; delete or change the rows in the same "+
				"transaction with a statement of their own, or say first how such writes are counted (docs/adr/0014-remembered-reads.md)", filepath.ToSlash(p), w)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 20 {
		t.Fatalf("only %d migrations were found: the walk is broken", seen)
	}
}
