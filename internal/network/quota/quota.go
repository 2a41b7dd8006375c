// Package quota counts what projects have of the network service's resources and holds it against their limits, in the transaction that makes or removes a thing.
package quota

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"kilonova/internal/db"
	"kilonova/internal/fault"
)

// defaultQuotas are Neutron's own limits.
func defaultQuotas() map[string]int64 {
	return map[string]int64{"network": 100, "subnet": 100, "port": 500, "router": 10, "floatingip": 50,
		"security_group": 10, "security_group_rule": 100, "subnetpool": -1, "rbac_policy": 10}
}

// Usage is a limit with what is used of it.
type Usage struct{ Limit, Used int64 }

// Resources names what quotas count, sorted.
func Resources() []string { return slices.Sorted(maps.Keys(defaultQuotas())) }

// Book keeps the limits and the counters, in the tables network_quotas and network_usages.
type Book struct {
	db     *db.DB
	over   map[string]int64
	limits *db.Memo[[2]string, int64] // by project and resource
}

// New gives the book on a database; over holds limits of projects without their own, over Neutron's defaults (-1: unlimited).
func New(d *db.DB, over map[string]int64) *Book {
	return &Book{db: d, over: over, limits: db.NewMemo[[2]string, int64](d, 1000, "network_quotas")}
}

// QuotaDefaults gives the limits of projects that have none of their own.
func (b *Book) QuotaDefaults() map[string]int64 {
	q := defaultQuotas()
	maps.Copy(q, b.over)
	return q
}

// Quotas gives limit and use of a project for each resource.
func (b *Book) Quotas(ctx context.Context, project string) (map[string]Usage, error) {
	out := map[string]Usage{}
	for r, l := range b.QuotaDefaults() {
		out[r] = Usage{Limit: l}
	}
	limits, err := pairs(ctx, b.db, "SELECT resource, hard_limit FROM network_quotas WHERE project_id = ?", project)
	if err != nil {
		return nil, err
	}
	used, err := pairs(ctx, b.db, "SELECT resource, used FROM network_usages WHERE project_id = ?", project)
	if err != nil {
		return nil, err
	}
	for r, u := range out {
		if l, ok := limits[r]; ok {
			u.Limit = l
		}
		u.Used = used[r]
		out[r] = u
	}
	return out, nil
}

// QuotaProjects gives the limits of every project that has its own.
func (b *Book) QuotaProjects(ctx context.Context) (map[string]map[string]int64, error) {
	rows, err := b.db.Query(ctx, "SELECT project_id, resource, hard_limit FROM network_quotas")
	if err != nil {
		return nil, fmt.Errorf("list quotas: %w", err)
	}
	defer rows.Close()
	out := map[string]map[string]int64{}
	for rows.Next() {
		var p, r string
		var l int64
		if err := rows.Scan(&p, &r, &l); err != nil {
			return nil, fmt.Errorf("list quotas: %w", err)
		}
		if out[p] == nil {
			out[p] = b.QuotaDefaults()
		}
		out[p][r] = l
	}
	return out, rows.Err()
}

// SetQuotas gives a project limits of its own.
func (b *Book) SetQuotas(ctx context.Context, project string, limits map[string]int64) error {
	return b.db.Write(ctx, func(tx *db.Tx) error {
		q := db.Upsert(tx.Dialect(), "network_quotas", []string{"project_id", "resource"}, []string{"hard_limit"})
		for _, r := range slices.Sorted(maps.Keys(limits)) {
			if _, err := tx.Exec(ctx, q, project, r, limits[r]); err != nil {
				return fmt.Errorf("set quota: %w", err)
			}
		}
		return nil
	})
}

// ResetQuotas takes a project's own limits away; fault.NotFound when it has none.
func (b *Book) ResetQuotas(ctx context.Context, project string) error {
	return b.db.Write(ctx, func(tx *db.Tx) error {
		n, err := tx.Exec(ctx, "DELETE FROM network_quotas WHERE project_id = ?", project)
		if err == nil && n == 0 {
			return fault.New(fault.NotFound, "Quota for tenant %s could not be found.", project).WithCode("TenantQuotaNotFound")
		}
		return err
	})
}

// Use counts n more (or fewer) of a resource for a project; fault.Conflict OverQuota when the limit would be passed. Things
// without a project (ports of routers' gateways) are not counted.
func (b *Book) Use(ctx context.Context, tx *db.Tx, project, resource string, n int64) error {
	if project == "" {
		return nil
	}
	// The counter's row is changed first: whoever else counts this project waits for this transaction, on every database.
	got, err := tx.Exec(ctx, "UPDATE network_usages SET used = used + ? WHERE project_id = ? AND resource = ?", n, project, resource)
	if err != nil {
		return fmt.Errorf("count quota: %w", err)
	}
	if got == 0 { // a second transaction that finds no row either breaks the key, and the change is run again
		if _, err := tx.Exec(ctx, "INSERT INTO network_usages (project_id, resource, used) VALUES (?, ?, ?)", project, resource, n); err != nil {
			return fmt.Errorf("count quota: %w", err)
		}
	}
	if n <= 0 {
		return nil
	}
	limit := b.QuotaDefaults()[resource]
	row, err := pairs(ctx, tx, "SELECT resource, hard_limit FROM network_quotas WHERE project_id = ? AND resource = ?", project, resource)
	if err != nil {
		return err
	}
	if own, has := row[resource]; has {
		limit = own
	}
	if limit < 0 {
		return nil
	}
	var used int64
	if err := tx.QueryRow(ctx, "SELECT used FROM network_usages WHERE project_id = ? AND resource = ?", project, resource).Scan(&used); err != nil {
		return fmt.Errorf("count quota: %w", err)
	}
	if used > limit {
		return fault.New(fault.Conflict, "Quota exceeded for resources: ['%s'].", resource).WithCode("OverQuota").
			WithHint("%d of %d are in use.", used-n, limit)
	}
	return nil
}

// QuotaOf is how many more of a resource a project may have; -1: unlimited.
func (b *Book) QuotaOf(ctx context.Context, project, resource string) (int, error) {
	limit, err := b.limits.Get(b.db, [2]string{project, resource}, func() (limit int64, err error) {
		err = b.db.QueryRow(ctx, "SELECT hard_limit FROM network_quotas WHERE project_id = ? AND resource = ?", project, resource).Scan(&limit)
		if db.IsNoRows(err) {
			return b.QuotaDefaults()[resource], nil
		}
		return limit, err
	})
	if err != nil {
		return 0, fmt.Errorf("read quota: %w", err)
	}
	if limit < 0 {
		return -1, nil
	}
	var used int64
	if err := b.db.QueryRow(ctx, "SELECT used FROM network_usages WHERE project_id = ? AND resource = ?", project, resource).Scan(&used); err != nil && !db.IsNoRows(err) {
		return 0, fmt.Errorf("read quota: %w", err)
	}
	return int(max(0, limit-used)), nil
}

func pairs(ctx context.Context, q db.Querier, stmt string, args ...any) (map[string]int64, error) {
	rows, err := q.Query(ctx, stmt, args...)
	if err != nil {
		return nil, fmt.Errorf("read quotas: %w", err)
	}
	defer rows.Close()
	out := map[string]int64{}
	for rows.Next() {
		var k string
		var v int64
		if err := rows.Scan(&k, &v); err != nil {
			return nil, fmt.Errorf("read quotas: %w", err)
		}
		out[k] = v
	}
	return out, rows.Err()
}
