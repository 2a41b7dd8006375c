// Package documents keeps resources of the network service as JSON documents in SQL tables, with the columns beside them that queries and
// constraints need.
package documents

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"kilonova/internal/clock"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/network"
)

// Table keeps the documents of one kind of resource: the JSON of T, and columns copied from it that queries use.
type Table[T any] struct {
	name    string   // of the SQL table
	kind    string   // in error types and sentences: "Network" gives NetworkNotFound
	cols    []string // besides id and doc; the ones a Filter may match
	vals    func(*T) []any
	id      func(*T) string
	std     func(*T) *network.Standard
	insertQ string
	updateQ string
}

// New makes a table of the given SQL name; kind names the resource in errors, cols are the columns besides id and doc, vals their values.
func New[T any](name, kind string, cols []string, id func(*T) string, std func(*T) *network.Standard, vals func(*T) []any) *Table[T] {
	t := &Table[T]{name: name, kind: kind, cols: cols, vals: vals, id: id, std: std}
	t.insertQ = fmt.Sprintf("INSERT INTO %s (id, doc%s) VALUES (?, ?%s)", name, joined(cols, ", %s"), strings.Repeat(", ?", len(cols)))
	t.updateQ = fmt.Sprintf("UPDATE %s SET doc = ?%s WHERE id = ?", name, joined(cols, ", %s = ?"))
	return t
}

func joined(names []string, format string) string {
	var b strings.Builder
	for _, n := range names {
		fmt.Fprintf(&b, format, n)
	}
	return b.String()
}

// Insert adds a document.
func (t *Table[T]) Insert(ctx context.Context, tx *db.Tx, v *T) error {
	s := t.std(v)
	if s.Created.IsZero() {
		s.Created = clock.Now()
	}
	s.Updated = s.Created
	doc, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", t.name, err)
	}
	if _, err := tx.Exec(ctx, t.insertQ, append([]any{t.id(v), string(doc)}, t.vals(v)...)...); err != nil {
		return fmt.Errorf("insert into %s: %w", t.name, err)
	}
	return nil
}

// Update stores a changed document and counts its revision.
func (t *Table[T]) Update(ctx context.Context, tx *db.Tx, v *T) error {
	s := t.std(v)
	s.Updated = clock.Now()
	s.Revision++
	doc, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", t.name, err)
	}
	args := append(append([]any{string(doc)}, t.vals(v)...), t.id(v))
	if _, err := tx.Exec(ctx, t.updateQ, args...); err != nil {
		return fmt.Errorf("update %s: %w", t.name, err)
	}
	return nil
}

// Delete removes a document.
func (t *Table[T]) Delete(ctx context.Context, tx *db.Tx, id string) error {
	if _, err := tx.Exec(ctx, "DELETE FROM "+t.name+" WHERE id = ?", id); err != nil {
		return fmt.Errorf("delete from %s: %w", t.name, err)
	}
	return nil
}

// Get reads one document; fault.NotFound when there is none.
func (t *Table[T]) Get(ctx context.Context, q db.Querier, id string) (*T, error) {
	return t.one(ctx, q, "", id)
}

// Lock is Get that keeps the row for the transaction.
func (t *Table[T]) Lock(ctx context.Context, tx *db.Tx, id string) (*T, error) {
	return t.one(ctx, tx, tx.ForUpdate(), id)
}

func (t *Table[T]) one(ctx context.Context, q db.Querier, suffix, id string) (*T, error) {
	var doc []byte
	err := q.QueryRow(ctx, "SELECT doc FROM "+t.name+" WHERE id = ?"+suffix, id).Scan(&doc)
	if db.IsNoRows(err) {
		return nil, NotFound(t.kind, id)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", t.name, err)
	}
	v := new(T)
	if err := json.Unmarshal(doc, v); err != nil {
		return nil, fmt.Errorf("decode %s %s: %w", t.name, id, err)
	}
	return v, nil
}

// List reads the documents that a condition selects; "" selects all.
func (t *Table[T]) List(ctx context.Context, q db.Querier, where string, args ...any) ([]T, error) {
	if where != "" {
		where = " WHERE " + where
	}
	rows, err := q.Query(ctx, "SELECT doc FROM "+t.name+where, args...)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", t.name, err)
	}
	defer rows.Close()
	var out []T
	var raw sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&raw); err != nil {
			return nil, fmt.Errorf("list %s: %w", t.name, err)
		}
		var v T
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, fmt.Errorf("decode %s: %w", t.name, err)
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// in lists the documents whose column has one of the values, a few hundred values per statement.
func (t *Table[T]) In(ctx context.Context, q db.Querier, col string, values []string) ([]T, error) {
	var out []T
	for part := range slices.Chunk(values, maxIn) {
		got, err := t.List(ctx, q, col+" IN ("+db.In(len(part))+")", db.Args(part)...)
		if err != nil {
			return nil, err
		}
		out = append(out, got...)
	}
	return out, nil
}

const maxIn = 500 // parameters of one IN list

// Filter selects documents of a list.
type Filter struct {
	Project string              // only what this project owns or, where the kind can be shared, may use; "": everything
	Match   map[string][]string // a column and the values it may have; a column that the kind lacks is left to the caller
}

// Find lists the documents of a filter. shared is a condition, with its arguments, that selects besides the project's own.
func (t *Table[T]) Find(ctx context.Context, q db.Querier, f Filter, shared string, args ...any) ([]T, error) {
	var conds []string
	var vals []any
	if f.Project != "" {
		if shared != "" {
			conds, vals = append(conds, "(project_id = ? OR "+shared+")"), append(append(vals, f.Project), args...)
		} else {
			conds, vals = append(conds, "project_id = ?"), append(vals, f.Project)
		}
	}
	for _, col := range append([]string{"id"}, t.cols...) {
		in, ok := f.Match[col]
		if !ok || len(in) > maxIn { // what SQL does not take, the caller filters
			continue
		}
		if len(in) == 0 {
			return nil, nil
		}
		conds, vals = append(conds, col+" IN ("+db.In(len(in))+")"), append(vals, db.Args(in)...)
	}
	return t.List(ctx, q, strings.Join(conds, " AND "), vals...)
}

// NotFound says that a resource is not there, in Neutron's words.
func NotFound(kind, id string) *fault.Error {
	return fault.New(fault.NotFound, "%s %s could not be found.", kindText(kind), id).WithCode(kind + "NotFound")
}

// kindText is the kind as Neutron's sentences have it.
func kindText(kind string) string {
	if s := map[string]string{"SecurityGroup": "Security group", "SecurityGroupRule": "Security group rule", "FloatingIP": "Floating IP",
		"AddressScope": "Address scope", "SubnetPool": "Subnet pool", "RbacPolicy": "RBAC policy of type network with ID"}[kind]; s != "" {
		return s
	}
	return kind
}
