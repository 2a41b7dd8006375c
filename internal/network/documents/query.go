package documents

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"kilonova/internal/db"
)

// Collect runs a query whose % becomes the marks of an IN list of values, a few hundred at a time, and gathers its rows.
func Collect[T any](ctx context.Context, q db.Querier, stmt string, values []string, row func(scan func(...any) error) (T, error)) ([]T, error) {
	var out []T
	for part := range slices.Chunk(values, maxIn) {
		got, err := collectPart(ctx, q, strings.Replace(stmt, "%", db.In(len(part)), 1), part, row)
		if err != nil {
			return nil, err
		}
		out = append(out, got...)
	}
	return out, nil
}

func collectPart[T any](ctx context.Context, q db.Querier, stmt string, part []string, row func(scan func(...any) error) (T, error)) ([]T, error) {
	rows, err := q.Query(ctx, stmt, db.Args(part)...)
	if err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		v, err := row(rows.Scan)
		if err != nil {
			return nil, fmt.Errorf("query: %w", err)
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// Exists tells whether a query gives a row.
func Exists(ctx context.Context, q db.Querier, stmt string, args ...any) (bool, error) {
	var one int
	err := q.QueryRow(ctx, stmt, args...).Scan(&one)
	if db.IsNoRows(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("query: %w", err)
	}
	return true, nil
}

// Strings runs a query of one text column whose % becomes the marks of an IN list, a few hundred values at a time.
func Strings(ctx context.Context, q db.Querier, stmt string, values []string) ([]string, error) {
	return Collect(ctx, q, stmt, values, func(scan func(...any) error) (string, error) {
		var v string
		err := scan(&v)
		return v, err
	})
}
