package db

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"

	"kilonova/internal/fault"
)

var macros = map[Dialect]*strings.Replacer{
	SQLite:   strings.NewReplacer("{{text}}", "TEXT", "{{blob}}", "BLOB", "{{serial}}", "INTEGER PRIMARY KEY AUTOINCREMENT", "{{clustered}}", " WITHOUT ROWID"),
	Postgres: strings.NewReplacer("{{text}}", "TEXT", "{{blob}}", "BYTEA", "{{serial}}", "BIGSERIAL PRIMARY KEY", "{{clustered}}", ""),
	MySQL:    strings.NewReplacer("{{text}}", "LONGTEXT", "{{blob}}", "LONGBLOB", "{{serial}}", "BIGINT AUTO_INCREMENT PRIMARY KEY", "{{clustered}}", ""),
}

// dialectal are the two clauses that only some have: {{on TABLE}}, which MariaDB wants when an index is dropped, and {{where CONDITION}}, a partial index, which it does not know.
var dialectal = regexp.MustCompile(`\{\{(on|where) ([^}]+)\}\}`)

func (d *DB) inDialect(text string) string {
	return dialectal.ReplaceAllStringFunc(macros[d.dialect].Replace(text), func(m string) string {
		f := dialectal.FindStringSubmatch(m)
		switch mysql := d.dialect == MySQL; {
		case f[1] == "on" && mysql:
			return " ON " + f[2]
		case f[1] == "where" && !mysql:
			return " WHERE " + f[2]
		}
		return ""
	})
}

var migrationName = regexp.MustCompile(`^(\d{4})_[a-z0-9_]+\.sql$`)

// Migrate brings the tables of one service to the newest version. files holds NNNN_name.sql at its root: statements that
// each end with a semicolon at the end of a line, with the macros {{text}} (a long text), {{blob}}, {{serial}} (an integer
// primary key that counts up), {{clustered}} after CREATE TABLE (…) (narrow rows that live in the index of their primary key), {{on TABLE}} after DROP INDEX and {{where CONDITION}} after CREATE INDEX (only rows that meet it, where the database can; queries
// that are to use the index name the condition in the same words). Several nodes may call it at once.
func (d *DB) Migrate(ctx context.Context, service string, files fs.FS) error {
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return err
	}
	var list []*goose.Migration
	var newest int64
	for _, name := range names {
		m := migrationName.FindStringSubmatch(path.Base(name))
		if m == nil {
			return fmt.Errorf("migration %s of %s: the name is not NNNN_name.sql", name, service)
		}
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		version, _ := strconv.ParseInt(m[1], 10, 64)
		newest = max(newest, version)
		list = append(list, goose.NewGoMigration(version, d.migration(service+"/"+name, string(text)), nil))
	}
	if d.kept {
		return d.Migrated(ctx, service, newest)
	}
	pool := d.pool
	if d.writer != nil {
		pool = d.writer.pool
	}
	dialect := map[Dialect]database.Dialect{SQLite: database.DialectSQLite3, Postgres: database.DialectPostgres, MySQL: database.DialectMySQL}[d.dialect]
	store, err := database.NewStore(dialect, "schema_"+service)
	if err != nil {
		return err
	}
	p, err := goose.NewProvider("", pool, nil, goose.WithStore(store), goose.WithGoMigrations(list...), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("migrate %s: %w", service, err)
	}
	unlock, err := d.lockSchema(ctx)
	if err != nil {
		return fmt.Errorf("migrate %s: %w", service, err)
	}
	defer unlock()
	if err := d.comparesExactly(ctx); err != nil {
		return fmt.Errorf("migrate %s: %w", service, err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate %s: %w", service, err)
	}
	return nil
}

// KeepTables has Migrate change nothing from now on: it fails where Migrated does. It is for programs that only look, beside whatever runs.
func (d *DB) KeepTables() { d.kept = true }

// Migrated tells whether the tables of a service are of a version at least. It fails with fault.Unavailable and what to do when they are not.
func (d *DB) Migrated(ctx context.Context, service string, version int64) error {
	catalog := map[Dialect]string{SQLite: "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = ?",
		Postgres: "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = current_schema() AND table_name = ?",
		MySQL:    "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?"}[d.dialect]
	var tables, have int64
	err := d.QueryRow(ctx, catalog, "schema_"+service).Scan(&tables)
	if err == nil && tables > 0 {
		err = d.QueryRow(ctx, "SELECT COALESCE(MAX(version_id), 0) FROM schema_"+service).Scan(&have)
	}
	if err != nil {
		return fmt.Errorf("version of the tables of %s: %w", service, err)
	}
	if have >= max(version, 1) {
		return nil
	}
	state := "are not there"
	if have > 0 {
		state = fmt.Sprintf("are of version %d, this program needs %d", have, version)
	}
	return fault.New(fault.Unavailable, "The cloud's tables %s_… %s: its first start has not come to its end, or an older program ran it last. Start it with this program (kilonova up); if that fails, do what its error says.", service, state)
}

// comparesExactly makes new tables of a MariaDB database hold every character and tell apart what differs, as the other databases do by themselves:
// its own default is a Latin alphabet without case.
func (d *DB) comparesExactly(ctx context.Context) error {
	if d.dialect != MySQL {
		return nil
	}
	var name, collation string
	err := d.pool.QueryRowContext(ctx, "SELECT SCHEMA_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = DATABASE()").Scan(&name, &collation)
	if err != nil || collation == "utf8mb4_bin" {
		return err
	}
	if _, err := d.pool.ExecContext(ctx, `ALTER DATABASE "`+strings.ReplaceAll(name, `"`, `""`)+`" CHARACTER SET utf8mb4 COLLATE utf8mb4_bin`); err != nil {
		return fmt.Errorf("the database's collation is %s and cannot be changed to utf8mb4_bin: %w", collation, err)
	}
	return nil
}

// lockSchema keeps other processes from migrating until unlock: a file lock beside a SQLite database, an advisory lock of the server otherwise.
func (d *DB) lockSchema(ctx context.Context) (unlock func(), err error) {
	if d.dialect == SQLite {
		f, err := os.OpenFile(d.path+".migrating", os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			_ = f.Close()
			return nil, err
		}
		return func() { _ = f.Close() }, nil
	}
	conn, err := d.pool.Conn(ctx)
	if err != nil {
		return nil, err
	}
	take, give := "SELECT pg_advisory_lock(5471001)", "SELECT pg_advisory_unlock(5471001)"
	if d.dialect == MySQL {
		take, give = "SELECT GET_LOCK('kilonova_schema', 120)", "SELECT RELEASE_LOCK('kilonova_schema')"
	}
	if _, err := conn.ExecContext(ctx, take); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return func() {
		_, _ = conn.ExecContext(context.WithoutCancel(ctx), give) // closing the connection gives it back as well
		_ = conn.Close()
	}, nil
}

func (d *DB) migration(name, text string) *goose.GoFunc {
	text = d.inDialect(text)
	run := func(ctx context.Context, exec func(context.Context, string, ...any) (sql.Result, error)) error {
		for _, stmt := range strings.Split(text, ";\n") {
			if strings.TrimSpace(stripComments(stmt)) == "" {
				continue
			}
			if _, err := exec(ctx, stmt); err != nil {
				return fmt.Errorf("%s: %w in %q", name, err, strings.TrimSpace(stmt))
			}
		}
		return nil
	}
	if d.dialect == MySQL { // its DDL commits by itself
		return &goose.GoFunc{RunDB: func(ctx context.Context, p *sql.DB) error { return run(ctx, p.ExecContext) }}
	}
	return &goose.GoFunc{RunTx: func(ctx context.Context, t *sql.Tx) error { return run(ctx, t.ExecContext) }}
}

func stripComments(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		if !strings.HasPrefix(strings.TrimSpace(line), "--") {
			b.WriteString(line)
		}
	}
	return b.String()
}
