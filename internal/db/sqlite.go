package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"

	"modernc.org/sqlite"

	"kilonova/internal/fault"
)

const (
	maxGroup  = 256 // Writes behind the scenes that one commit may carry
	maxUrgent = 32  // and urgent ones
	fair      = 2   // Writes behind the scenes that a group with urgent ones takes along, so that neither kind waits for ever
)

func sqliteDSN(path, layer string) string {
	v := url.Values{}
	for _, p := range []string{"busy_timeout(15000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)", "mmap_size(268435456)", "temp_store(MEMORY)", "wal_autocheckpoint(4000)"} {
		v.Add("_pragma", p)
	}
	if layer != "" {
		v.Set("vfs", layer)
	}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + v.Encode()
}

// groupWriter owns the only writing connection of a SQLite database. It serves two queues: Urgent Writes come first, and a group that carries one is committed as
// soon as no other urgent one waits and fair others have had their turn.
type groupWriter struct {
	pool    *sql.DB
	conn    *sql.Conn
	stmts   map[string]*prepared
	changes *changes
	written map[*atomic.Uint64]bool // counts of the tables that the transaction has written to; nil: to any
	urgent  chan *job
	jobs    chan *job
	done    chan struct{}
	mu      sync.RWMutex
	shut    bool
}

// prepared is a statement, and the count of the table that it writes to: none, or nil when it may write to any.
type prepared struct {
	*sql.Stmt
	table *atomic.Uint64
	none  bool
}

type job struct {
	ctx  context.Context
	fn   func(*Tx) error
	err  error
	tx   *Tx
	done chan struct{}
}

func newGroupWriter(ctx context.Context, path, layer string, c *changes) (*groupWriter, error) {
	pool, err := sql.Open("sqlite", sqliteDSN(path, layer)+"&_pragma=cache_size(-4000)")
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	conn, err := pool.Conn(ctx)
	if err != nil {
		_ = pool.Close()
		return nil, fmt.Errorf("open database %s: %w", path, unshared(err))
	}
	var n int
	err = conn.QueryRowContext(ctx, "SELECT COUNT(*) FROM sqlite_schema").Scan(&n) // whoever has read has the index of the log
	if err = errors.Join(err, c.head.open(conn)); err != nil {
		_ = conn.Close()
		_ = pool.Close()
		return nil, fmt.Errorf("open database %s: %w", path, unshared(err))
	}
	w := &groupWriter{pool: pool, conn: conn, stmts: map[string]*prepared{}, changes: c, written: map[*atomic.Uint64]bool{},
		urgent: make(chan *job, maxGroup), jobs: make(chan *job, maxGroup), done: make(chan struct{})}
	go w.run()
	return w, nil
}

// unshared says what is wrong when the index of the log cannot be had.
func unshared(err error) error {
	var s *sqlite.Error
	if errors.As(err, &s) && (s.Code() == 4618 || s.Code() == 5130 || s.Code() == 5386) { // SQLITE_IOERR_SHMOPEN, _SHMLOCK, _SHMMAP
		return fmt.Errorf("processes cannot share memory by a file beside it: keep it on a local file system, or use PostgreSQL or MariaDB: %w", err)
	}
	return err
}

func (w *groupWriter) write(ctx context.Context, fn func(*Tx) error) error {
	j := &job{ctx: ctx, fn: fn, done: make(chan struct{})}
	queue := w.jobs
	if isUrgent(ctx) {
		queue = w.urgent
	}
	w.mu.RLock()
	if w.shut {
		w.mu.RUnlock()
		return errors.New("the database is closed")
	}
	select {
	case queue <- j:
		w.mu.RUnlock()
	case <-ctx.Done():
		w.mu.RUnlock()
		return ctx.Err()
	}
	<-j.done // once queued, the outcome is awaited: a caller never has to wonder
	if j.err == nil {
		j.tx.runHooks()
	}
	return j.err
}

func (w *groupWriter) close() error {
	w.mu.Lock()
	if w.shut {
		w.mu.Unlock()
		return nil
	}
	w.shut = true
	close(w.jobs)
	close(w.urgent)
	w.mu.Unlock()
	<-w.done
	w.changes.head.close()
	for _, s := range w.stmts {
		_ = s.Close()
	}
	return errors.Join(w.conn.Close(), w.pool.Close())
}

func (w *groupWriter) run() {
	defer close(w.done)
	urgent, jobs := w.urgent, w.jobs // nil once closed and empty
	for urgent != nil || jobs != nil {
		others := jobs
		if len(urgent) > 0 {
			others = nil // not now
		}
		select {
		case j, ok := <-urgent:
			if ok {
				w.group(j)
			} else {
				urgent = nil
			}
		case j, ok := <-others:
			if ok {
				w.group(j)
			} else {
				jobs = nil
			}
		}
	}
}

// next gives another Write for the group that is being made, or nil when it is to be committed: so far it has so many of each kind. Urgent ones may join while it is
// being made; of the others those that waited when it began, most of them, and only a fair few beside urgent ones.
func (w *groupWriter) next(urgent, others, most int) *job {
	if urgent < maxUrgent {
		select {
		case j := <-w.urgent: // nil when closed
			if j != nil {
				return j
			}
		default:
		}
	}
	if urgent > 0 {
		most = min(most, fair)
	}
	if others >= most {
		return nil
	}
	select {
	case j := <-w.jobs:
		return j
	default:
		return nil
	}
}

// group runs a Write, and those that wait or come meanwhile, in one transaction. Nobody takes care that one of them can be rolled back alone: when one
// fails, which is rare, all are rolled back and run once more, each inside a savepoint.
func (w *groupWriter) group(first *job) {
	var batch []*job
	urgent, others, failed := 0, 0, false
	most := min(len(w.jobs)+1, maxGroup)
	begun := w.begin()
	for j := first; j != nil; j = w.next(urgent, others, most) {
		batch = append(batch, j)
		if isUrgent(j.ctx) {
			urgent++
		} else {
			others++
		}
		if j.err = begun; begun == nil && !failed {
			if j.err = w.one(j); j.err != nil {
				failed = true
			}
		}
	}
	switch {
	case begun != nil:
	case !failed:
		w.end(batch)
	default:
		_ = w.exec(context.Background(), "ROLLBACK")
		w.carefully(batch)
	}
	for _, j := range batch {
		close(j.done)
	}
}

func (w *groupWriter) begin() error {
	err := w.exec(context.Background(), "BEGIN IMMEDIATE")
	if err == nil {
		clear(w.written)
		w.changes.begun()
		return nil
	}
	err = fmt.Errorf("begin: %w", err)
	var s *sqlite.Error
	if errors.As(err, &s) && s.Code()&0xff == 5 { // SQLITE_BUSY: nothing was done, and it passes
		err = fault.Wrap(err, fault.Unavailable, "The database is busy: another process has held it for long. Try again.")
	}
	return err
}

// end commits; when that fails, every Write that had succeeded has failed.
func (w *groupWriter) end(batch []*job) {
	ctx := context.Background()
	err := w.exec(ctx, "COMMIT")
	if err == nil {
		w.changes.committed(w.written)
		return
	}
	_ = w.exec(ctx, "ROLLBACK")
	for _, j := range batch {
		if j.err == nil {
			j.err = fmt.Errorf("commit: %w", err)
		}
	}
}

// carefully runs a group of which one is known to fail: each in a savepoint, unless it is alone.
func (w *groupWriter) carefully(batch []*job) {
	if len(batch) == 1 { // its error is known, and all of it is rolled back
		return
	}
	err := w.begin()
	for _, j := range batch {
		if j.err = err; err == nil {
			j.err = w.saved(j)
		}
	}
	if err == nil {
		w.end(batch)
	}
}

func (w *groupWriter) one(j *job) error {
	if err := j.ctx.Err(); err != nil {
		return err
	}
	j.tx = &Tx{dialect: SQLite, on: w}
	return call(j.fn, j.tx)
}

// saved runs a job in a savepoint.
func (w *groupWriter) saved(j *job) error {
	ctx := context.Background()
	if err := w.exec(ctx, "SAVEPOINT w"); err != nil {
		return fmt.Errorf("savepoint: %w", err)
	}
	err := w.one(j)
	if err != nil {
		if e := w.exec(ctx, "ROLLBACK TO w"); e != nil {
			return errors.Join(err, e)
		}
	}
	if e := w.exec(ctx, "RELEASE w"); e != nil {
		return errors.Join(err, e)
	}
	return err
}

func (w *groupWriter) exec(ctx context.Context, q string) error {
	_, err := w.ExecContext(ctx, q)
	return err
}

// stmt gives a statement to be run now.
func (w *groupWriter) stmt(ctx context.Context, q string) (*sql.Stmt, error) {
	p, err := w.prepare(ctx, q)
	if err != nil {
		return nil, err
	}
	if !p.none {
		w.written[p.table] = true
	}
	return p.Stmt, nil
}

func (w *groupWriter) prepare(ctx context.Context, q string) (*prepared, error) {
	if p := w.stmts[q]; p != nil {
		return p, nil
	}
	s, err := w.conn.PrepareContext(context.WithoutCancel(ctx), q)
	if err != nil {
		return nil, err
	}
	p := &prepared{Stmt: s}
	p.table, p.none = w.changes.writes(q)
	if len(w.stmts) >= maxStmts { // queries with a varying number of parameters must not grow it for ever
		for k, old := range w.stmts {
			_ = old.Close()
			delete(w.stmts, k)
			break
		}
	}
	w.stmts[q] = p
	return p, nil
}

// ExecContext and its two siblings run inside the group's transaction. A statement, once begun, is not cut off by ctx:
// an interrupt would roll back the other Writes of the group.
func (w *groupWriter) ExecContext(ctx context.Context, q string, args ...any) (sql.Result, error) {
	s, err := w.stmt(ctx, q)
	if err != nil {
		return nil, err
	}
	return s.ExecContext(context.WithoutCancel(ctx), args...)
}

func (w *groupWriter) QueryContext(ctx context.Context, q string, args ...any) (*sql.Rows, error) {
	s, err := w.stmt(ctx, q)
	if err != nil {
		return nil, err
	}
	return s.QueryContext(context.WithoutCancel(ctx), args...)
}

func (w *groupWriter) QueryRowContext(ctx context.Context, q string, args ...any) *sql.Row {
	s, err := w.stmt(ctx, q)
	if err != nil { // let Row carry the error
		w.written[nil] = true
		return w.conn.QueryRowContext(context.WithoutCancel(ctx), q, args...)
	}
	return s.QueryRowContext(context.WithoutCancel(ctx), args...)
}

// Rest gives back the memory that the connections of a SQLite database keep for work to come: all readers but one are closed, until they are needed again,
// and the caches of the others emptied. The server databases keep little here.
func (d *DB) Rest(ctx context.Context) error {
	if d.writer == nil {
		return nil
	}
	d.pool.SetMaxIdleConns(1) // closes the others
	d.pool.SetMaxIdleConns(d.readers)
	const shrink = "PRAGMA shrink_memory"
	_, err := d.pool.ExecContext(ctx, shrink)
	return errors.Join(err, d.Write(ctx, func(tx *Tx) error {
		_, err := tx.Exec(ctx, shrink)
		return err
	}))
}

const maxStmts = 1000

// stmtCache keeps prepared statements of the reading pool.
type stmtCache struct {
	mu sync.RWMutex
	m  map[string]*sql.Stmt
}

func (c *stmtCache) get(ctx context.Context, pool *sql.DB, q string) (*sql.Stmt, error) {
	c.mu.RLock()
	s := c.m[q]
	c.mu.RUnlock()
	if s != nil {
		return s, nil
	}
	s, err := pool.PrepareContext(ctx, q)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.m[q]; old != nil {
		_ = s.Close()
		return old, nil
	}
	if c.m == nil || len(c.m) >= maxStmts {
		// Statements still in use by another goroutine close when that use ends.
		for _, old := range c.m {
			defer func() { _ = old.Close() }()
		}
		c.m = map[string]*sql.Stmt{}
	}
	c.m[q] = s
	return s, nil
}

func (c *stmtCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.m {
		_ = s.Close()
	}
	c.m = nil
}
