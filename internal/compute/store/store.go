package store

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"kilonova/internal/compute"
	"kilonova/internal/db"
	"kilonova/internal/fault"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Store is compute's part of the database.
type Store struct {
	// DB is the database itself: for reads outside a transaction and for Write.
	DB *db.DB
	// Zone is the availability zone of hosts in no aggregate with a zone; "": DefaultZone.
	Zone string

	cache   serverCache
	flavors *db.Memo[[2]string, *compute.Flavor] // by flavor id and project
	watcher Watcher
}

// New brings compute's tables to the newest version and gives the store. The table "operations" belongs to package operation and must exist before
// the first server is read.
func New(ctx context.Context, d *db.DB) (*Store, error) {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	if err := d.Migrate(ctx, "compute", sub); err != nil {
		return nil, err
	}
	return &Store{DB: d, flavors: db.NewMemo[[2]string, *compute.Flavor](d, maxFlavors, "compute_flavors", "compute_flavor_access")}, nil
}

// errStop ends a scan early without being an error of the query.
var errStop = errors.New("stop")

// scan runs a query and calls row for each row until it fails; errStop ends it quietly.
func scan(ctx context.Context, q db.Querier, query string, args []any, row func(scan func(...any) error) error) (err error) {
	rows, err := q.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() {
		if e := rows.Close(); err == nil {
			err = e
		}
	}()
	for rows.Next() {
		if err := row(rows.Scan); errors.Is(err, errStop) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return rows.Err()
}

// one changes exactly one row or fails with fault.NotFound.
func one(n int64, err error, what string, args ...any) error {
	if err != nil {
		return err
	}
	if n == 0 {
		return fault.New(fault.NotFound, what, args...)
	}
	return nil
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("store: %v", err)) // only our own types come here
	}
	return string(b)
}

func decode(s string, v any) error {
	if s == "" || s == "null" {
		return nil
	}
	return json.Unmarshal([]byte(s), v)
}

func hash(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}
