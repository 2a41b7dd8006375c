package db

import (
	"strings"
	"sync"
	"sync/atomic"
)

// Memo remembers what was read from some tables until one of them is written to, by whomever: what it gives is as new as what a query would give. It serves what is
// read with most requests and seldom changes. Of SQLite databases it remembers, of others nothing: there every Get reads. Values are shared: nobody may alter them.
type Memo[K comparable, V any] struct {
	db     *DB
	tables []*atomic.Uint64
	most   int

	mu sync.Mutex
	m  map[K]remembered[V]
}

type remembered[V any] struct {
	stamp uint64
	v     V
}

// NewMemo makes a memo of at most so many values, which depend on nothing but their keys and the rows of these tables.
func NewMemo[K comparable, V any](d *DB, most int, tables ...string) *Memo[K, V] {
	m := &Memo[K, V]{db: d, most: most, m: map[K]remembered[V]{}}
	for _, t := range tables {
		m.tables = append(m.tables, d.changes.of(t))
	}
	return m
}

// Get gives the value of a key, by read when it is not remembered. q is where read reads: when that is not the database itself, but a transaction, nothing is
// remembered. Errors are not remembered. A nil Memo remembers nothing.
func (m *Memo[K, V]) Get(q Querier, k K, read func() (V, error)) (V, error) {
	if m == nil || q != Querier(m.db) {
		return read()
	}
	stamp, known := m.db.changes.stamp(m.tables)
	if !known {
		return read()
	}
	m.mu.Lock()
	r, ok := m.m[k]
	m.mu.Unlock()
	if ok && r.stamp == stamp {
		return r.v, nil
	}
	v, err := read()
	if err != nil {
		return v, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.m[k]; !ok && len(m.m) >= m.most {
		clear(m.m)
	}
	m.m[k] = remembered[V]{stamp, v}
	return v, nil
}

// changes counts the commits that wrote to each table of a SQLite database. The counts say everything only while mine is what head gives: then the last commit was
// one of this process, and is counted.
type changes struct {
	head   head
	mine   atomic.Uint64 // what head gave when the writer had last committed
	epoch  atomic.Uint64 // commits of which nobody knows what they wrote to
	mu     sync.Mutex
	tables map[string]*atomic.Uint64
}

// of is the count of a table.
func (c *changes) of(table string) *atomic.Uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.tables[table]
	if n == nil {
		if c.tables == nil {
			c.tables = map[string]*atomic.Uint64{}
		}
		n = new(atomic.Uint64)
		c.tables[table] = n
	}
	return n
}

// stamp is a number that grows with each commit that may have written to one of the tables. It is not known while another process was the last to commit, nor between
// a commit of this one and its being counted.
func (c *changes) stamp(tables []*atomic.Uint64) (sum uint64, known bool) {
	if now, ok := c.head.read(); !ok || now != c.mine.Load() {
		return 0, false
	}
	sum = c.epoch.Load()
	for _, t := range tables {
		sum += t.Load()
	}
	return sum, true
}

// begun is told that the writer has begun a transaction: from now on nobody else commits.
func (c *changes) begun() {
	if now, ok := c.head.read(); !ok || now != c.mine.Load() {
		c.epoch.Add(1)
	}
}

// committed is told what the writer has just committed. Others may have committed since: what head gives now need not be what that commit left.
func (c *changes) committed(tables map[*atomic.Uint64]bool) {
	for t := range tables {
		if t != nil {
			t.Add(1)
		} else {
			c.epoch.Add(1)
		}
	}
	if left, ok := c.head.last(); ok {
		c.mine.Store(left)
	}
}

// writes gives the count of the table that a statement writes to; nil when it may write to any, none when it writes nothing.
func (c *changes) writes(q string) (table *atomic.Uint64, none bool) {
	words := strings.FieldsFunc(q, func(r rune) bool { return r == ' ' || r == '\n' || r == '\t' || r == '(' })
	if len(words) == 0 {
		return nil, true
	}
	at := 0
	switch strings.ToUpper(words[0]) {
	case "SELECT", "BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "PRAGMA", "EXPLAIN":
		return nil, true
	case "UPDATE":
		at = 1
	case "DELETE", "INSERT":
		at = 2
	}
	if at == 0 || len(words) <= at || at == 2 && !strings.EqualFold(words[1], "INTO") && !strings.EqualFold(words[1], "FROM") || at == 1 && strings.EqualFold(words[1], "OR") {
		return nil, false
	}
	name := words[at]
	if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" { // written in another way than tables are named
		return nil, false
	}
	return c.of(name), false
}
