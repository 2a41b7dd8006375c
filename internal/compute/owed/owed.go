// Package owed keeps the work that hosts owe: what an operation could not have done there because the host was down, and which is done when it
// returns. A delete of a server on a dead host, the source of an evacuation, the undoing of a build whose host died: each leaves one row here and
// goes on.
//
// What it promises: a row is written before the operation goes on without the host, and leaves only when the host has confirmed the work (or has a newer
// epoch for the server, which means that somebody else already dealt with it). There is at most one row for a server on a host; a later debt
// replaces an earlier one, and Destroy is never replaced by anything else.
package owed

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute/command"
	"kilonova/internal/db"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Debt is one command that a host owes.
type Debt struct {
	Host      string
	Server    string
	Operation string // the operation that left it
	Epoch     int64  // the fence that it carries
	Verb      command.Verb
	Args      json.RawMessage
	Reason    string // for the operator
	Since     time.Time
}

// Book is the table of debts.
type Book struct{ db *db.DB }

// New brings the table to its newest version.
func New(ctx context.Context, d *db.DB) (*Book, error) {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	if err := d.Migrate(ctx, "compute_owed", sub); err != nil {
		return nil, err
	}
	return &Book{db: d}, nil
}

// Add records a debt in tx.
func (b *Book) Add(ctx context.Context, tx *db.Tx, d Debt) error {
	if d.Verb != command.Destroy {
		var verb string
		err := tx.QueryRow(ctx, "SELECT verb FROM compute_owed WHERE host = ? AND server_id = ?", d.Host, d.Server).Scan(&verb)
		if err != nil && !db.IsNoRows(err) {
			return fmt.Errorf("record debt: %w", err)
		}
		if verb == string(command.Destroy) {
			return nil
		}
	}
	if d.Since.IsZero() {
		d.Since = clock.Now()
	}
	q := db.Upsert(tx.Dialect(), "compute_owed", []string{"host", "server_id"}, []string{"operation_id", "epoch", "verb", "args", "reason", "created_at"})
	if _, err := tx.Exec(ctx, q, d.Host, d.Server, d.Operation, d.Epoch, string(d.Verb), string(d.Args), cut(d.Reason), clock.Micros(d.Since)); err != nil {
		return fmt.Errorf("record debt: %w", err)
	}
	return nil
}

func cut(s string) string {
	if r := []rune(s); len(r) > 250 {
		return string(r[:250])
	}
	return s
}

// Settle removes a debt whose epoch is not newer than the given one; none there is success.
func (b *Book) Settle(ctx context.Context, tx *db.Tx, host, server string, epoch int64) error {
	_, err := tx.Exec(ctx, "DELETE FROM compute_owed WHERE host = ? AND server_id = ? AND epoch <= ?", host, server, epoch)
	return err
}

// SettleNow is Settle in a transaction of its own, and writes nothing when there is no such debt.
func (b *Book) SettleNow(ctx context.Context, host, server string, epoch int64) error {
	ds, err := b.OfServer(ctx, b.db, server)
	if err != nil {
		return err
	}
	for _, d := range ds {
		if d.Host == host {
			return b.db.Write(ctx, func(tx *db.Tx) error { return b.Settle(ctx, tx, host, server, epoch) })
		}
	}
	return nil
}

const columns = "SELECT host, server_id, operation_id, epoch, verb, args, reason, created_at FROM compute_owed"

// OfHost gives what a host owes.
func (b *Book) OfHost(ctx context.Context, q db.Querier, host string) ([]Debt, error) {
	return read(ctx, q, columns+" WHERE host = ? ORDER BY created_at, server_id", host)
}

// Debtors gives those of the hosts that owe something.
func (b *Book) Debtors(ctx context.Context, q db.Querier, hosts ...string) (map[string]bool, error) {
	out := map[string]bool{}
	for part := range slices.Chunk(hosts, 500) {
		rows, err := q.Query(ctx, "SELECT DISTINCT host FROM compute_owed WHERE host IN ("+db.In(len(part))+")", db.Args(part)...)
		if err != nil {
			return nil, fmt.Errorf("read debtors: %w", err)
		}
		for rows.Next() {
			var host string
			if err := rows.Scan(&host); err != nil {
				_ = rows.Close()
				return nil, fmt.Errorf("read debtors: %w", err)
			}
			out[host] = true
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return nil, fmt.Errorf("read debtors: %w", err)
		}
	}
	return out, nil
}

// OfServer gives what any host owes for a server.
func (b *Book) OfServer(ctx context.Context, q db.Querier, server string) ([]Debt, error) {
	return read(ctx, q, columns+" WHERE server_id = ? ORDER BY created_at, host", server)
}

// All gives every debt, oldest first.
func (b *Book) All(ctx context.Context, q db.Querier) ([]Debt, error) {
	return read(ctx, q, columns+" ORDER BY created_at, host, server_id")
}

func read(ctx context.Context, q db.Querier, query string, args ...any) (out []Debt, err error) {
	rows, err := q.Query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read debts: %w", err)
	}
	defer func() {
		if e := rows.Close(); err == nil {
			err = e
		}
	}()
	for rows.Next() {
		var d Debt
		var verb, text string
		var since int64
		if err := rows.Scan(&d.Host, &d.Server, &d.Operation, &d.Epoch, &verb, &text, &d.Reason, &since); err != nil {
			return nil, fmt.Errorf("read debts: %w", err)
		}
		d.Verb, d.Since = command.Verb(verb), clock.FromMicros(since)
		if text != "" {
			d.Args = json.RawMessage(text)
		}
		out = append(out, d)
	}
	return out, rows.Err()
}
