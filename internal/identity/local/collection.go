package local

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/identity"
)

// Noun is a pointer to T that knows its fields.
type Noun[T any] interface {
	*T
	identity.Noun
}

// Collection is the table of one noun together with the rules that hold when a row comes, changes or goes.
type Collection[T any, P Noun[T]] struct {
	s     *Service
	noun  string // as it stands in messages
	table string
	label string // the attribute that names a row in messages about duplicates
	// rule judges a change inside its transaction, before the row is written: old is nil on create, next is nil on delete. It may
	// change next, and it removes or changes what hangs on the row.
	rule func(ctx context.Context, tx *db.Tx, old, next *T) error

	columns, selects string
}

func newCollection[T any, P Noun[T]](s *Service, noun, table, label string, rule func(ctx context.Context, tx *db.Tx, old, next *T) error) *Collection[T, P] {
	c := &Collection[T, P]{s: s, noun: noun, table: table, label: label, rule: rule}
	for i, f := range P(new(T)).Fields() {
		if i > 0 {
			c.columns += ", "
		}
		c.columns += `"` + f.Name + `"`
	}
	c.selects = "SELECT " + c.columns + " FROM " + table
	return c
}

// Filter picks rows by one field. Op is "" or one of contains, startswith, endswith, equals; Fold ignores case.
type Filter struct {
	Field, Op string
	Fold      bool
	Value     string
}

// Get gives one row. It fails with fault.NotFound.
func (c *Collection[T, P]) Get(ctx context.Context, id string) (*T, error) {
	return c.get(ctx, c.s.db, id)
}

func (c *Collection[T, P]) get(ctx context.Context, q db.Querier, id string) (*T, error) {
	list, err := c.query(ctx, q, "WHERE id = ?", id)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fault.New(fault.NotFound, "Could not find %s: %s.", c.noun, id)
	}
	return &list[0], nil
}

// Many gives the rows with the given ids, in no order; ids that are not there are left out.
func (c *Collection[T, P]) Many(ctx context.Context, ids []string) ([]T, error) {
	return c.many(ctx, c.s.db, ids)
}

func (c *Collection[T, P]) many(ctx context.Context, q db.Querier, ids []string) ([]T, error) {
	var out []T
	for chunk := range slices.Chunk(ids, 500) {
		part, err := c.query(ctx, q, "WHERE id IN ("+db.In(len(chunk))+")", db.Args(chunk)...)
		if err != nil {
			return nil, err
		}
		out = append(out, part...)
	}
	return out, nil
}

// List gives the rows that pass every filter, ordered by id. Filters on fields that the noun does not have are ignored.
func (c *Collection[T, P]) List(ctx context.Context, filters ...Filter) ([]T, error) {
	var where []string
	var args []any
	var inexact []Filter
	for _, fl := range filters {
		for _, f := range P(new(T)).Fields() {
			if f.Name != fl.Field {
				continue
			}
			v, exact := exactly(f, fl)
			if !exact {
				inexact = append(inexact, fl)
				continue
			}
			where = append(where, `"`+f.Name+`" = ?`)
			args = append(args, v)
		}
	}
	clause := ""
	if len(where) > 0 {
		clause = "WHERE " + strings.Join(where, " AND ")
	}
	list, err := c.query(ctx, c.s.db, clause+" ORDER BY id", args...)
	if err != nil || len(inexact) == 0 {
		return list, err
	}
	return slices.DeleteFunc(list, func(t T) bool { return !passes(P(&t).Fields(), inexact) }), nil
}

// exactly gives the value that a column must equal to pass the filter, false when SQL cannot say it alike everywhere.
func exactly(f identity.Field, fl Filter) (any, bool) {
	if fl.Op != "" {
		return nil, false
	}
	switch f.Ptr.(type) {
	case *string:
		return fl.Value, true
	case *bool:
		return fl.Value != "0" && !strings.EqualFold(fl.Value, "false"), true
	}
	return nil, false
}

func passes(fields []identity.Field, filters []Filter) bool {
	for _, fl := range filters {
		i := slices.IndexFunc(fields, func(f identity.Field) bool { return f.Name == fl.Field })
		p, ok := fields[i].Ptr.(*string)
		if !ok {
			continue
		}
		have, want := *p, fl.Value
		if fl.Fold {
			have, want = strings.ToLower(have), strings.ToLower(want)
		}
		if !map[string]func(string, string) bool{"contains": strings.Contains, "startswith": strings.HasPrefix, "endswith": strings.HasSuffix,
			"equals": func(a, b string) bool { return a == b }}[fl.Op](have, want) {
			return false
		}
	}
	return true
}

func (c *Collection[T, P]) query(ctx context.Context, q db.Querier, clause string, args ...any) ([]T, error) {
	rows, err := q.Query(ctx, c.selects+" "+clause, args...)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", c.table, err)
	}
	defer rows.Close()
	out := []T{}
	for rows.Next() {
		var t T
		if err := scan(rows, P(&t).Fields()); err != nil {
			return nil, fmt.Errorf("read %s: %w", c.table, err)
		}
		out = append(out, t)
	}
	return out, rows.Err()
}

// Create writes a new row.
func (c *Collection[T, P]) Create(ctx context.Context, t *T) error {
	return c.s.db.Write(ctx, func(tx *db.Tx) error { return c.create(ctx, tx, t) })
}

func (c *Collection[T, P]) create(ctx context.Context, tx *db.Tx, t *T) error {
	if c.rule != nil {
		if err := c.rule(ctx, tx, nil, t); err != nil {
			return err
		}
	}
	fields := P(t).Fields()
	vals, err := values(fields)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "INSERT INTO "+c.table+" ("+c.columns+") VALUES ("+db.In(len(fields))+")", vals...)
	return c.judge(err, fields)
}

// Update reads the row, lets change alter it, and writes it. change may be called more than once.
func (c *Collection[T, P]) Update(ctx context.Context, id string, change func(*T) error) (*T, error) {
	var out *T
	err := c.s.db.Write(ctx, func(tx *db.Tx) (err error) {
		out, err = c.update(ctx, tx, id, change)
		return err
	})
	return out, err
}

func (c *Collection[T, P]) update(ctx context.Context, tx *db.Tx, id string, change func(*T) error) (*T, error) {
	found, err := c.query(ctx, tx, "WHERE id = ?"+tx.ForUpdate(), id)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fault.New(fault.NotFound, "Could not find %s: %s.", c.noun, id)
	}
	old, err := c.get(ctx, tx, id) // a second copy, whose maps change does not touch
	if err != nil {
		return nil, err
	}
	next := &found[0]
	if err := change(next); err != nil {
		return nil, err
	}
	if c.rule != nil {
		if err := c.rule(ctx, tx, old, next); err != nil {
			return nil, err
		}
	}
	fields := P(next).Fields()
	vals, err := values(fields)
	if err != nil {
		return nil, err
	}
	set := make([]string, len(fields)-1)
	for i, f := range fields[1:] {
		set[i] = `"` + f.Name + `" = ?`
	}
	_, err = tx.Exec(ctx, "UPDATE "+c.table+" SET "+strings.Join(set, ", ")+" WHERE id = ?", append(vals[1:], id)...)
	return next, c.judge(err, fields)
}

// Delete removes the row and what hangs on it.
func (c *Collection[T, P]) Delete(ctx context.Context, id string) error {
	return c.s.db.Write(ctx, func(tx *db.Tx) error {
		old, err := c.get(ctx, tx, id)
		if err != nil {
			return err
		}
		return c.remove(ctx, tx, id, old)
	})
}

func (c *Collection[T, P]) remove(ctx context.Context, tx *db.Tx, id string, old *T) error {
	if c.rule != nil {
		if err := c.rule(ctx, tx, old, nil); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, "DELETE FROM "+c.table+" WHERE id = ?", id)
	return err
}

// judge turns a broken unique constraint into the conflict that clients know.
func (c *Collection[T, P]) judge(err error, fields []identity.Field) error {
	if err == nil || !db.IsDuplicate(err) {
		return err
	}
	for _, f := range fields {
		if f.Name == c.label {
			return fault.Wrap(err, fault.Conflict, "There is already a %s with the %s %s.", c.noun, c.label, *f.Ptr.(*string))
		}
	}
	return fault.Wrap(err, fault.Conflict, "There is already such a %s.", c.noun)
}

// values gives what the columns hold for the fields.
func values(fields []identity.Field) ([]any, error) {
	out := make([]any, len(fields))
	for i, f := range fields {
		switch p := f.Ptr.(type) {
		case *string:
			out[i] = *p
		case *bool:
			out[i] = *p
		case *int64:
			out[i] = *p
		case *time.Time:
			out[i] = clock.Micros(*p)
		default:
			b, err := json.Marshal(p)
			if err != nil {
				return nil, fmt.Errorf("encode %s: %w", f.Name, err)
			}
			out[i] = string(b)
		}
	}
	return out, nil
}

// scan reads the current row into the fields.
func scan(rows *sql.Rows, fields []identity.Field) error {
	dst := make([]any, len(fields))
	for i, f := range fields {
		switch f.Ptr.(type) {
		case *string, *bool, *int64:
			dst[i] = f.Ptr
		case *time.Time:
			dst[i] = new(int64)
		default:
			dst[i] = new(string)
		}
	}
	if err := rows.Scan(dst...); err != nil {
		return err
	}
	for i, f := range fields {
		switch p := f.Ptr.(type) {
		case *string, *bool, *int64:
		case *time.Time:
			*p = clock.FromMicros(*dst[i].(*int64))
		default:
			text := *dst[i].(*string)
			if text == "null" || text == "{}" || text == "[]" { // most of them; the zero value says the same
				continue
			}
			if err := json.Unmarshal([]byte(text), p); err != nil {
				return fmt.Errorf("column %s: %w", f.Name, err)
			}
		}
	}
	return nil
}

// CreateAll writes all rows or none.
func (c *Collection[T, P]) CreateAll(ctx context.Context, rows []T) error {
	return c.s.db.Write(ctx, func(tx *db.Tx) error {
		for i := range rows {
			if err := c.create(ctx, tx, &rows[i]); err != nil {
				return err
			}
		}
		return nil
	})
}
