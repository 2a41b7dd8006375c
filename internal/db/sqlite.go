package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"sync"

	"modernc.org/sqlite"

	"kilonova/internal/fault"
)

const maxGroup = 256 // Writes that one commit may carry

func sqliteDSN(path string) string {
	v := url.Values{}
	for _, p := range []string{"busy_timeout(15000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)", "cache_size(-16000)", "mmap_size(268435456)", "temp_store(MEMORY)", "wal_autocheckpoint(4000)"} {
		v.Add("_pragma", p)
	}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + v.Encode()
}

// groupWriter owns the only writing connection of a SQLite database.
type groupWriter struct {
	pool  *sql.DB
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
	jobs  chan *job
	done  chan struct{}
	mu    sync.RWMutex
	shut  bool
}

type job struct {
	ctx  context.Context
	fn   func(*Tx) error
	err  error
	tx   *Tx
	done chan struct{}
}

func newGroupWriter(ctx context.Context, path string) (*groupWriter, error) {
	pool, err := sql.Open("sqlite", sqliteDSN(path))
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	conn, err := pool.Conn(ctx)
	if err != nil {
		_ = pool.Close()
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	w := &groupWriter{pool: pool, conn: conn, stmts: map[string]*sql.Stmt{}, jobs: make(chan *job, maxGroup), done: make(chan struct{})}
	go w.run()
	return w, nil
}

func (w *groupWriter) write(ctx context.Context, fn func(*Tx) error) error {
	j := &job{ctx: ctx, fn: fn, done: make(chan struct{})}
	w.mu.RLock()
	if w.shut {
		w.mu.RUnlock()
		return errors.New("the database is closed")
	}
	select {
	case w.jobs <- j:
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
	w.mu.Unlock()
	<-w.done
	for _, s := range w.stmts {
		_ = s.Close()
	}
	return errors.Join(w.conn.Close(), w.pool.Close())
}

func (w *groupWriter) run() {
	defer close(w.done)
	batch := make([]*job, 0, maxGroup)
	for j := range w.jobs {
		batch = append(batch[:0], j)
	fill:
		for len(batch) < maxGroup {
			select {
			case more, ok := <-w.jobs:
				if !ok {
					break fill
				}
				batch = append(batch, more)
			default:
				break fill
			}
		}
		w.commit(batch)
		for _, j := range batch {
			close(j.done)
		}
	}
}

func (w *groupWriter) commit(batch []*job) {
	ctx := context.Background()
	if err := w.exec(ctx, "BEGIN IMMEDIATE"); err != nil {
		err = fmt.Errorf("begin: %w", err)
		var s *sqlite.Error
		if errors.As(err, &s) && s.Code()&0xff == 5 { // SQLITE_BUSY: nothing was done, and it passes
			err = fault.Wrap(err, fault.Unavailable, "The database is busy: another process has held it for long. Try again.")
		}
		for _, j := range batch {
			j.err = err
		}
		return
	}
	good := 0
	for _, j := range batch {
		j.err = w.one(ctx, j, len(batch) == 1)
		if j.err == nil {
			good++
		}
	}
	end := "COMMIT"
	if good == 0 {
		end = "ROLLBACK"
	}
	if err := w.exec(ctx, end); err != nil && good > 0 {
		_ = w.exec(ctx, "ROLLBACK")
		for _, j := range batch {
			if j.err == nil {
				j.err = fmt.Errorf("commit: %w", err)
			}
		}
	}
}

// one runs a job in a savepoint; one that is alone needs none: the whole transaction is rolled back with it.
func (w *groupWriter) one(ctx context.Context, j *job, alone bool) error {
	if err := j.ctx.Err(); err != nil {
		return err
	}
	if alone {
		j.tx = &Tx{dialect: SQLite, on: w}
		return call(j.fn, j.tx)
	}
	if err := w.exec(ctx, "SAVEPOINT w"); err != nil {
		return fmt.Errorf("savepoint: %w", err)
	}
	j.tx = &Tx{dialect: SQLite, on: w}
	err := call(j.fn, j.tx)
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

func (w *groupWriter) stmt(ctx context.Context, q string) (*sql.Stmt, error) {
	if s := w.stmts[q]; s != nil {
		return s, nil
	}
	s, err := w.conn.PrepareContext(context.WithoutCancel(ctx), q)
	if err != nil {
		return nil, err
	}
	if len(w.stmts) >= maxStmts { // queries with a varying number of parameters must not grow it for ever
		for k, old := range w.stmts {
			_ = old.Close()
			delete(w.stmts, k)
			break
		}
	}
	w.stmts[q] = s
	return s, nil
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
	if err != nil {
		return w.conn.QueryRowContext(context.WithoutCancel(ctx), q, args...)
	}
	return s.QueryRowContext(context.WithoutCancel(ctx), args...)
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
