// Package db is the way to the SQL database: SQLite inside the process by default, PostgreSQL or MariaDB by configuration.
//
// What it promises: Write is durable when it returns nil (SQLite runs in WAL mode with synchronous=FULL); what one Write did
// is all there or not at all; a Read that starts after a Write returned sees it.
//
// On SQLite one goroutine owns the only writing connection and commits many Writes together (one that fails leaves the others
// alone: the group is run once more without it). Writes under Urgent, those that a caller waits for, go before the others. On the server databases each Write is a READ COMMITTED transaction of its own, run
// again when the server names it the victim of a deadlock. A function given to Write may therefore run more than once: it
// must not have effects outside the transaction; use Tx.AfterCommit for those. It must not call Write itself, nor wait for
// anything but the database.
//
// SQL is written once, for all three, with ? for parameters. Conventions: times are BIGINT microseconds (clock.Micros),
// booleans SMALLINT 0/1 (a Go bool may be passed and scanned), documents are JSON in {{text}} columns, keys are VARCHAR(n).
package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"

	"kilonova/internal/fault"
)

// Dialect is the kind of database.
type Dialect string

// The dialects.
const (
	SQLite   Dialect = "sqlite"
	Postgres Dialect = "postgres"
	MySQL    Dialect = "mysql"
)

// Querier reads and, inside a Write, changes rows.
type Querier interface {
	// Query runs a statement that gives rows. The caller closes them.
	Query(ctx context.Context, q string, args ...any) (*sql.Rows, error)
	// QueryRow runs a statement that gives at most one row; Scan then fails with sql.ErrNoRows when there is none.
	QueryRow(ctx context.Context, q string, args ...any) *sql.Row
	// Dialect names the database.
	Dialect() Dialect
}

// DB is an open database.
type DB struct {
	dialect Dialect
	pool    *sql.DB // readers, and writers of the server databases
	cache   stmtCache
	writer  *groupWriter // SQLite only
	path    string       // SQLite only
	readers int          // SQLite only: connections of pool
	changes changes      // SQLite only
	kept    bool         // Migrate changes nothing
}

// Open opens the database of a URL: sqlite:///absolute/path (or sqlite:relative), postgres://user:password@host/name,
// mysql://user:password@host:port/name. The error never shows the URL's password.
func Open(ctx context.Context, url string) (*DB, error) {
	scheme, rest, _ := strings.Cut(url, ":")
	scheme, _, _ = strings.Cut(scheme, "+") // SQLAlchemy's "mysql+pymysql"
	d := &DB{}
	var err error
	switch scheme {
	case "sqlite":
		d.dialect = SQLite
		path := strings.TrimPrefix(rest, "//")
		d.path = path
		layer, err := fileLayer()
		if err = errors.Join(err, stablePlans()); err != nil {
			return nil, err
		}
		if d.pool, err = sql.Open("sqlite", sqliteDSN(path, layer)+"&_pragma=query_only(1)&_pragma=cache_size(-2000)"); err != nil {
			return nil, fmt.Errorf("open database: %w", err)
		}
		// To read is to compute: more connections than processors only cost memory, but for a long list that others should not wait for.
		d.readers = max(4, 2*runtime.GOMAXPROCS(0))
		d.pool.SetMaxOpenConns(d.readers)
		d.pool.SetMaxIdleConns(d.readers)
		// The writer comes first: it creates the file and switches it to WAL.
		if d.writer, err = newGroupWriter(ctx, path, layer, &d.changes); err != nil {
			_ = d.pool.Close()
			return nil, err
		}
	case "postgres", "postgresql":
		d.dialect = Postgres
		d.pool, err = openPostgres("postgres:" + rest)
	case "mysql", "mariadb":
		d.dialect = MySQL
		d.pool, err = openMySQL("mysql:" + rest)
	default:
		return nil, fault.New(fault.Invalid, "database URL scheme %q is none of sqlite, postgres, mysql", scheme)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s database: %w", d.dialect, err)
	}
	if d.dialect != SQLite {
		d.pool.SetMaxOpenConns(32)
		d.pool.SetMaxIdleConns(32)
		d.pool.SetConnMaxIdleTime(5 * time.Minute)
	}
	if err := d.pool.PingContext(ctx); err != nil {
		_ = d.Close()
		return nil, fmt.Errorf("reach %s database: %w", d.dialect, err)
	}
	return d, nil
}

// Close waits for accepted writes and closes all connections.
func (d *DB) Close() error {
	var err error
	if d.writer != nil {
		err = d.writer.close()
	}
	d.cache.close()
	return errors.Join(err, d.pool.Close())
}

// Dialect names the database.
func (d *DB) Dialect() Dialect { return d.dialect }

// Query reads rows outside any transaction.
func (d *DB) Query(ctx context.Context, q string, args ...any) (*sql.Rows, error) {
	ctx, err := d.reading(ctx)
	if err != nil {
		return nil, err
	}
	st, err := d.cache.get(ctx, d.pool, rebind(d.dialect, q))
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	return st.QueryContext(ctx, bind(args)...)
}

// QueryRow reads at most one row outside any transaction.
func (d *DB) QueryRow(ctx context.Context, q string, args ...any) *sql.Row {
	if quiet, err := d.reading(ctx); err == nil {
		ctx = quiet
	}
	st, err := d.cache.get(ctx, d.pool, rebind(d.dialect, q))
	if err != nil { // let Row carry the error
		return d.pool.QueryRowContext(ctx, rebind(d.dialect, q), bind(args)...)
	}
	return st.QueryRowContext(ctx, bind(args)...)
}

// reading gives the context of a query. In SQLite a query is a short computation in this process: it is judged before it whether somebody still waits for it, and not
// watched while it runs, which would take two more goroutines for each.
func (d *DB) reading(ctx context.Context) (context.Context, error) {
	if d.dialect != SQLite {
		return ctx, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return context.WithoutCancel(ctx), nil
}

// Write runs fn in a transaction and commits it. It gives fn's error, after rolling back, when that is not nil.
func (d *DB) Write(ctx context.Context, fn func(tx *Tx) error) error {
	if may := guardOf(ctx); may != nil {
		guarded := fn
		fn = func(tx *Tx) error {
			if err := may(tx); err != nil {
				return err
			}
			return guarded(tx)
		}
	}
	if d.writer != nil {
		return d.writer.write(ctx, fn)
	}
	for attempt := 0; ; attempt++ {
		err := d.writeOnce(ctx, fn)
		if err == nil || !isRetryable(err) || attempt == 9 || ctx.Err() != nil {
			return err
		}
		time.Sleep(time.Duration(attempt+1) * 3 * time.Millisecond)
	}
}

type guardKey struct{}

// Guarded makes every Write under ctx run may first, in its transaction: an error of it is the Write's. It must only read.
func Guarded(ctx context.Context, may func(tx *Tx) error) context.Context {
	return context.WithValue(ctx, guardKey{}, may)
}

func guardOf(ctx context.Context) func(tx *Tx) error {
	may, _ := ctx.Value(guardKey{}).(func(tx *Tx) error)
	return may
}

type urgentKey struct{}

// Urgent marks the Writes under ctx as those that somebody waits for: on SQLite, where Writes queue, they go before those of work behind the scenes. On the
// server databases it means nothing.
func Urgent(ctx context.Context) context.Context { return context.WithValue(ctx, urgentKey{}, true) }

func isUrgent(ctx context.Context) bool { return ctx.Value(urgentKey{}) != nil }

func (d *DB) writeOnce(ctx context.Context, fn func(tx *Tx) error) (err error) {
	t, err := d.pool.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = t.Rollback() }()
	tx := &Tx{dialect: d.dialect, on: t}
	if err := call(fn, tx); err != nil {
		return err
	}
	if err := t.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	tx.runHooks()
	return nil
}

// Prepared gives the statements that are kept prepared, so that a test can look at their plans.
func (d *DB) Prepared(ctx context.Context) ([]string, error) {
	var out []string
	d.cache.mu.RLock()
	for q := range d.cache.m {
		out = append(out, q)
	}
	d.cache.mu.RUnlock()
	if d.writer == nil {
		return out, nil
	}
	err := d.Write(ctx, func(*Tx) error { // on the writer's goroutine, to which its statements belong
		for q := range d.writer.stmts {
			out = append(out, q)
		}
		return nil
	})
	slices.Sort(out)
	return slices.Compact(out), err
}

// Tx is a running transaction.
type Tx struct {
	dialect Dialect
	on      interface {
		ExecContext(ctx context.Context, q string, args ...any) (sql.Result, error)
		QueryContext(ctx context.Context, q string, args ...any) (*sql.Rows, error)
		QueryRowContext(ctx context.Context, q string, args ...any) *sql.Row
	}
	hooks []func()
}

// Exec changes rows and gives how many.
func (t *Tx) Exec(ctx context.Context, q string, args ...any) (int64, error) {
	r, err := t.on.ExecContext(ctx, rebind(t.dialect, q), bind(args)...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// Insert adds rows: args are their values, row after row. Few statements, and always the same ones, add many rows.
func (t *Tx) Insert(ctx context.Context, table string, columns []string, args ...any) error {
	n := len(columns)
	for len(args) > 0 {
		rows := 1
		for _, many := range []int{64, 8} {
			if len(args) >= many*n {
				rows = many
				break
			}
		}
		one := "(" + In(n) + ")"
		q := "INSERT INTO " + table + " (" + strings.Join(columns, ", ") + ") VALUES " + one + strings.Repeat(", "+one, rows-1)
		if _, err := t.Exec(ctx, q, args[:rows*n]...); err != nil {
			return err
		}
		args = args[rows*n:]
	}
	return nil
}

// Query reads rows inside the transaction. Close them before the next statement.
func (t *Tx) Query(ctx context.Context, q string, args ...any) (*sql.Rows, error) {
	return t.on.QueryContext(ctx, rebind(t.dialect, q), bind(args)...)
}

// QueryRow reads at most one row inside the transaction.
func (t *Tx) QueryRow(ctx context.Context, q string, args ...any) *sql.Row {
	return t.on.QueryRowContext(ctx, rebind(t.dialect, q), bind(args)...)
}

// Dialect names the database.
func (t *Tx) Dialect() Dialect { return t.dialect }

// ForUpdate is the clause that makes a SELECT lock its rows; empty on SQLite, which has one writer.
func (t *Tx) ForUpdate() string {
	if t.dialect == SQLite {
		return ""
	}
	return " FOR UPDATE"
}

// AfterCommit calls f once the transaction is durable, never when it is rolled back.
func (t *Tx) AfterCommit(f func()) { t.hooks = append(t.hooks, f) }

func (t *Tx) runHooks() {
	for _, f := range t.hooks {
		f()
	}
}

// Upsert builds INSERT … or, when a row with the same keys is there, UPDATE of the other columns. Parameters: keys, then cols.
func Upsert(d Dialect, table string, keys, cols []string) string {
	all := append(append([]string{}, keys...), cols...)
	var b strings.Builder
	fmt.Fprintf(&b, "INSERT INTO %s (%s) VALUES (%s)", table, strings.Join(all, ", "), In(len(all)))
	if d == MySQL {
		b.WriteString(" ON DUPLICATE KEY UPDATE ")
		set := cols
		if len(set) == 0 {
			set = keys[:1]
		}
		for i, c := range set {
			if i > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, "%s = VALUES(%s)", c, c)
		}
		return b.String()
	}
	fmt.Fprintf(&b, " ON CONFLICT (%s) DO ", strings.Join(keys, ", "))
	if len(cols) == 0 {
		b.WriteString("NOTHING")
		return b.String()
	}
	b.WriteString("UPDATE SET ")
	for i, c := range cols {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s = excluded.%s", c, c)
	}
	return b.String()
}

// Changed gives the assignments of those columns whose values differ, for an UPDATE, and their new values. An index is written only when one of its columns
// is assigned, whether or not the value is another: to name the unchanged ones would cost one write for each index.
func Changed(cols []string, old, now []any) (set string, args []any) {
	var b strings.Builder
	for i, c := range cols {
		if old[i] == now[i] {
			continue
		}
		if len(args) > 0 {
			b.WriteString(", ")
		}
		b.WriteString(c)
		b.WriteString(" = ?")
		args = append(args, now[i])
	}
	return b.String(), args
}

// In is n comma-separated parameter marks.
func In(n int) string {
	return strings.TrimSuffix(strings.Repeat("?,", n), ",")
}

// Args turns a slice into parameters.
func Args[T any](in []T) []any {
	out := make([]any, len(in))
	for i, v := range in {
		out[i] = v
	}
	return out
}

// IsDuplicate tells whether err is a broken UNIQUE or PRIMARY KEY constraint.
func IsDuplicate(err error) bool {
	var s *sqlite.Error
	if errors.As(err, &s) {
		return s.Code() == 2067 || s.Code() == 1555 // SQLITE_CONSTRAINT_UNIQUE, _PRIMARYKEY
	}
	var p *pgconn.PgError
	if errors.As(err, &p) {
		return p.Code == "23505"
	}
	var m *mysql.MySQLError
	return errors.As(err, &m) && m.Number == 1062
}

// IsNoRows tells whether err says that a QueryRow found nothing.
func IsNoRows(err error) bool { return errors.Is(err, sql.ErrNoRows) }

func isRetryable(err error) bool {
	var p *pgconn.PgError
	if errors.As(err, &p) {
		return p.Code == "40001" || p.Code == "40P01"
	}
	var m *mysql.MySQLError
	return errors.As(err, &m) && (m.Number == 1213 || m.Number == 1205)
}

func bind(args []any) []any {
	for i, a := range args {
		if b, ok := a.(bool); ok {
			if b {
				args[i] = int64(1)
			} else {
				args[i] = int64(0)
			}
		}
	}
	return args
}

var rebound sync.Map // query -> query with $n

func rebind(d Dialect, q string) string {
	if d != Postgres || !strings.Contains(q, "?") {
		return q
	}
	if v, ok := rebound.Load(q); ok {
		return v.(string)
	}
	var b strings.Builder
	n, quoted := 0, false
	for i := range len(q) {
		switch c := q[i]; {
		case c == '\'':
			quoted = !quoted
			b.WriteByte(c)
		case c == '?' && !quoted:
			n++
			b.WriteByte('$')
			b.WriteString(strconv.Itoa(n))
		default:
			b.WriteByte(c)
		}
	}
	rebound.Store(q, b.String())
	return b.String()
}

func call(fn func(*Tx) error, tx *Tx) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic inside a transaction: %v", r)
		}
	}()
	return fn(tx)
}
