package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"kilonova/internal/compute"
	"kilonova/internal/db"
	"kilonova/internal/fault"
)

// Usage is what a project, or one of its users, uses now.
type Usage struct {
	Instances, Cores, RAM, ServerGroups int64
	KeyPairs                            int64 // per user; the project is ""
}

func (u Usage) minus(o Usage) Usage {
	return Usage{u.Instances - o.Instances, u.Cores - o.Cores, u.RAM - o.RAM, u.ServerGroups - o.ServerGroups, u.KeyPairs - o.KeyPairs}
}

func (u Usage) times(n int64) Usage {
	return Usage{u.Instances * n, u.Cores * n, u.RAM * n, u.ServerGroups * n, u.KeyPairs * n}
}

func (u Usage) byName() map[string]int64 {
	return map[string]int64{"instances": u.Instances, "cores": u.Cores, "ram": u.RAM, "server_groups": u.ServerGroups, "key_pairs": u.KeyPairs}
}

// ByName gives the use of a resource by its quota name; resources that are not counted in rows use 0.
func (u Usage) ByName(resource string) int64 { return u.byName()[resource] }

// usageOf is what one server counts for.
func usageOf(v *compute.Server) Usage {
	if !v.Counts() {
		return Usage{}
	}
	cores, ram := v.HeldQuota()
	return Usage{Instances: 1, Cores: int64(v.Flavor.VCPUs) + cores, RAM: v.Flavor.RAMMB + ram}
}

const addTo = "UPDATE compute_quota_usage SET instances = instances + ?, cores = cores + ?, ram = ram + ?, server_groups = server_groups + ?, key_pairs = key_pairs + ? WHERE "

const zeroUsage = "INSERT INTO compute_quota_usage (project_id, user_id, instances, cores, ram, server_groups, key_pairs) VALUES (?, ?, 0, 0, 0, 0, 0)"

// addUsage changes the counters of a project and of the user in it. Key pairs belong to the user alone: their project is "".
func addUsage(ctx context.Context, tx *db.Tx, project, user string, u Usage) error {
	if u == (Usage{}) || user == "" {
		return nil
	}
	keys := [][2]string{{project, user}}
	if project != "" {
		keys = [][2]string{{project, ""}, {project, user}} // the project's row always comes first
	}
	if tx.Dialect() == db.SQLite { // which locks no rows and so takes both in one statement
		return addUsageRows(ctx, tx, keys, u)
	}
	for _, k := range keys {
		if err := addUsageRow(ctx, tx, k[0], k[1], u); err != nil {
			return fmt.Errorf("quota use: %w", err)
		}
	}
	return nil
}

// addUsageRows makes those of the rows that are not there.
func addUsageRows(ctx context.Context, tx *db.Tx, keys [][2]string, u Usage) error {
	const row = "(?, ?, ?, ?, ?, ?, ?)"
	rows, args := row, make([]any, 0, 14)
	if len(keys) == 2 {
		rows = row + ", " + row
	}
	for _, k := range keys {
		args = append(args, k[0], k[1], u.Instances, u.Cores, u.RAM, u.ServerGroups, u.KeyPairs)
	}
	if _, err := tx.Exec(ctx, "INSERT INTO compute_quota_usage (project_id, user_id, instances, cores, ram, server_groups, key_pairs) VALUES "+rows+
		" ON CONFLICT (project_id, user_id) DO UPDATE SET instances = instances + excluded.instances, cores = cores + excluded.cores, ram = ram + excluded.ram,"+
		" server_groups = server_groups + excluded.server_groups, key_pairs = key_pairs + excluded.key_pairs", args...); err != nil {
		return fmt.Errorf("quota use: %w", err)
	}
	return nil
}

func addUsageRow(ctx context.Context, tx *db.Tx, project, user string, u Usage) error {
	const add = addTo + "project_id = ? AND user_id = ?"
	args := []any{u.Instances, u.Cores, u.RAM, u.ServerGroups, u.KeyPairs, project, user}
	n, err := tx.Exec(ctx, add, args...)
	if err != nil || n == 1 {
		return err
	}
	if err := ensureUsage(ctx, tx, project, user); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, add, args...)
	return err
}

func ensureUsage(ctx context.Context, tx *db.Tx, project, user string) error {
	q := zeroUsage + " ON CONFLICT (project_id, user_id) DO NOTHING"
	if tx.Dialect() == db.MySQL {
		q = strings.Replace(zeroUsage, "INSERT", "INSERT IGNORE", 1)
	}
	_, err := tx.Exec(ctx, q, project, user)
	return err
}

// Usage gives what a project (user "") or one user of it uses.
func (s *Store) Usage(ctx context.Context, q db.Querier, project, user string) (Usage, error) {
	return readUsage(ctx, q, project, user, "")
}

func readUsage(ctx context.Context, q db.Querier, project, user, lock string) (Usage, error) {
	u, _, err := findUsage(ctx, q, project, user, lock)
	return u, err
}

func findUsage(ctx context.Context, q db.Querier, project, user, lock string) (u Usage, found bool, err error) {
	err = q.QueryRow(ctx, "SELECT instances, cores, ram, server_groups, key_pairs FROM compute_quota_usage WHERE project_id = ? AND user_id = ?"+lock, project, user).
		Scan(&u.Instances, &u.Cores, &u.RAM, &u.ServerGroups, &u.KeyPairs)
	if db.IsNoRows(err) {
		return Usage{}, false, nil
	}
	return u, err == nil, err
}

// lockRow reads one row of counters and locks it. On the server databases a row must be there to be locked: it is made when it is not. To look first, and to
// insert only then, matters: an insert that finds the row would take a shared lock, which two callers cannot both make exclusive.
func lockRow(ctx context.Context, tx *db.Tx, project, user string) (Usage, error) {
	u, found, err := findUsage(ctx, tx, project, user, tx.ForUpdate())
	if err != nil || found || tx.Dialect() == db.SQLite {
		return u, err
	}
	if err := ensureUsage(ctx, tx, project, user); err != nil {
		return u, err
	}
	return readUsage(ctx, tx, project, user, tx.ForUpdate())
}

// lockUsage locks the counters of a project and gives its use and its user's. The project's row always comes first.
func lockUsage(ctx context.Context, tx *db.Tx, project, user string) (ofProject, ofUser Usage, err error) {
	if ofProject, err = lockRow(ctx, tx, project, ""); err != nil {
		return ofProject, ofUser, err
	}
	ofUser, err = lockRow(ctx, tx, project, user)
	return ofProject, ofUser, err
}

// Limits are hard limits by resource; -1 is unlimited.
type Limits map[string]int64

// Of gives a resource's limit; one that is not named is unlimited.
func (l Limits) Of(resource string) int64 {
	if v, ok := l[resource]; ok {
		return v
	}
	return -1
}

// Limits gives the limits in force: defaults, overridden by the class "default", by the project and, with a user, by the user.
func (s *Store) Limits(ctx context.Context, q db.Querier, defaults Limits, project, user string) (Limits, error) {
	p, u, err := limitsOf(ctx, q, defaults, project, user)
	if user == "" {
		return p, err
	}
	return u, err
}

func limitsOf(ctx context.Context, q db.Querier, defaults Limits, project, user string) (ofProject, ofUser Limits, err error) {
	ofProject, ofUser = Limits{}, Limits{}
	maps.Copy(ofProject, defaults)
	var byUser, byProject []func()
	err = scan(ctx, q, "SELECT scope, resource, hard_limit FROM compute_quota_limits WHERE (scope = 'class' AND project_id = 'default' AND user_id = '')"+
		" OR (scope = 'project' AND project_id = ? AND user_id = '') OR (scope = 'user' AND project_id = ? AND user_id = ?)", []any{project, project, user},
		func(scan func(...any) error) error {
			var scope, resource string
			var n int64
			if err := scan(&scope, &resource, &n); err != nil {
				return err
			}
			switch scope {
			case "class":
				ofProject[resource] = n
			case "project":
				byProject = append(byProject, func() { ofProject[resource] = n })
			default:
				byUser = append(byUser, func() { ofUser[resource] = n })
			}
			return nil
		})
	for _, f := range byProject {
		f()
	}
	maps.Copy(ofUser, ofProject)
	for _, f := range byUser {
		f()
	}
	return ofProject, ofUser, err
}

// SetLimits overrides limits of a project, or of a user in it.
func (s *Store) SetLimits(ctx context.Context, tx *db.Tx, project, user string, l Limits) error {
	scope := "project"
	if user != "" {
		scope = "user"
	}
	return setLimits(ctx, tx, scope, project, user, l)
}

// SetClassLimits overrides the defaults of a class. Only the class "default" has an effect.
func (s *Store) SetClassLimits(ctx context.Context, tx *db.Tx, class string, l Limits) error {
	return setLimits(ctx, tx, "class", class, "", l)
}

func setLimits(ctx context.Context, tx *db.Tx, scope, project, user string, l Limits) error {
	q := db.Upsert(tx.Dialect(), "compute_quota_limits", []string{"scope", "project_id", "user_id", "resource"}, []string{"hard_limit"})
	for _, k := range sortedKeys(l) {
		if _, err := tx.Exec(ctx, q, scope, project, user, k, l[k]); err != nil {
			return fmt.Errorf("quota limits: %w", err)
		}
	}
	return nil
}

// ClassLimits gives the limits of a class over the defaults.
func (s *Store) ClassLimits(ctx context.Context, q db.Querier, defaults Limits, class string) (Limits, error) {
	out := Limits{}
	maps.Copy(out, defaults)
	return out, out.read(ctx, q, "SELECT resource, hard_limit FROM compute_quota_limits WHERE scope = 'class' AND project_id = ? AND user_id = ''", class)
}

// UserLimitsAbove gives the largest limit that any user of the project has for each resource.
func (s *Store) UserLimitsAbove(ctx context.Context, q db.Querier, project string) (Limits, error) {
	out := Limits{}
	return out, out.read(ctx, q, "SELECT resource, MAX(hard_limit) FROM compute_quota_limits WHERE scope = 'user' AND project_id = ? GROUP BY resource", project)
}

// read adds what a query of resources and their limits gives.
func (l Limits) read(ctx context.Context, q db.Querier, query string, arg string) error {
	return scan(ctx, q, query, []any{arg}, func(scan func(...any) error) error {
		var resource string
		var n int64
		err := scan(&resource, &n)
		l[resource] = n
		return err
	})
}

// ResetLimits removes all overrides of a project (user ""), its users' included, or of one user.
func (s *Store) ResetLimits(ctx context.Context, tx *db.Tx, project, user string) error {
	q, args := "DELETE FROM compute_quota_limits WHERE scope IN ('project', 'user') AND project_id = ?", []any{project}
	if user != "" {
		q, args = "DELETE FROM compute_quota_limits WHERE scope = 'user' AND project_id = ? AND user_id = ?", []any{project, user}
	}
	_, err := tx.Exec(ctx, q, args...)
	return err
}

// Want is a wish for quota.
type Want struct {
	Defaults   Limits
	Project    string
	User       string
	Each       Usage // of one server
	Min, Count int64 // servers; zero stand for 1
}

// Reserve locks the counters of the project and its user and gives how many of Count fit under both limits. It fails with fault.Forbidden (code
// "OverQuota") when fewer than Min fit. The use itself is counted by InsertServer and UpdateServer in the same transaction: until it ends nobody else
// passes here.
func (s *Store) Reserve(ctx context.Context, tx *db.Tx, w Want) (int64, error) {
	w.Min, w.Count = max(w.Min, 1), max(w.Count, w.Min, 1)
	lp, lu, err := limitsOf(ctx, tx, w.Defaults, w.Project, w.User)
	if err != nil {
		return 0, fmt.Errorf("quota limits: %w", err)
	}
	up, uu, err := lockUsage(ctx, tx, w.Project, w.User)
	if err != nil {
		return 0, fmt.Errorf("quota use: %w", err)
	}
	fit := min(room(lp, up, w.Each, w.Count), room(lu, uu, w.Each, w.Count))
	if fit >= w.Min {
		return fit, nil
	}
	if room(lp, up, w.Each, w.Min) < w.Min {
		return 0, overQuota(lp, up, w.Each.times(w.Min))
	}
	return 0, overQuota(lu, uu, w.Each.times(w.Min))
}

func room(l Limits, used, each Usage, n int64) int64 {
	u := used.byName()
	for k, v := range each.byName() {
		if limit := l.Of(k); v > 0 && limit >= 0 {
			n = min(n, max(0, limit-u[k])/v)
		}
	}
	return n
}

// overQuota is the refusal in the shape that clients know.
func overQuota(l Limits, used, want Usage) error {
	u, w := used.byName(), want.byName()
	var names []string
	for k, v := range w {
		if limit := l.Of(k); v > 0 && limit >= 0 && u[k]+v > limit {
			names = append(names, k)
		}
	}
	slices.Sort(names)
	list := func(m func(string) int64) string {
		var out []string
		for _, k := range names {
			out = append(out, fmt.Sprint(m(k)))
		}
		return strings.Join(out, ", ")
	}
	all := strings.Join(names, ", ")
	return fault.New(fault.Forbidden, "Quota exceeded for %s: Requested %s, but already used %s of %s %s", all, list(func(k string) int64 { return w[k] }),
		list(func(k string) int64 { return u[k] }), list(l.Of), all).WithCode("OverQuota")
}

// Recount gives the use of every project and user as the rows say it, for the quota audit: it must equal what Counted gives.
func (s *Store) Recount(ctx context.Context, q db.Querier) (map[[2]string]Usage, error) {
	out := map[[2]string]Usage{}
	add := func(project, user string, u Usage) {
		for _, k := range [][2]string{{project, ""}, {project, user}} {
			if k != [2]string{"", ""} {
				out[k] = out[k].minus(u.times(-1))
			}
		}
	}
	for _, query := range []string{
		"SELECT project_id, user_id, COUNT(*), COALESCE(SUM(vcpus), 0), COALESCE(SUM(ram_mb), 0), 0, 0 FROM compute_servers WHERE deleted = 0 AND vm_state <> '" + compute.VMSoftDeleted +
			"' GROUP BY project_id, user_id",
		"SELECT project_id, user_id, 0, 0, 0, COUNT(*), 0 FROM compute_groups GROUP BY project_id, user_id",
		"SELECT '', user_id, 0, 0, 0, 0, COUNT(*) FROM compute_keypairs GROUP BY user_id",
	} {
		err := scan(ctx, q, query, nil, func(scan func(...any) error) error {
			var project, user string
			var u Usage
			err := scan(&project, &user, &u.Instances, &u.Cores, &u.RAM, &u.ServerGroups, &u.KeyPairs)
			add(project, user, u)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("recount: %w", err)
		}
	}
	err := scan(ctx, q, "SELECT doc FROM compute_servers WHERE deleted = 0 AND vm_state = ?", []any{compute.VMSoftDeleted}, func(scan func(...any) error) error {
		var doc []byte
		if err := scan(&doc); err != nil {
			return err
		}
		v, err := decodeServer(doc)
		if err == nil && v.Counts() { // it is being restored
			add(v.ProjectID, v.UserID, usageOf(v))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("recount: %w", err)
	}
	return out, nil
}

// Counted gives the counters that are not zero.
func (s *Store) Counted(ctx context.Context, q db.Querier) (map[[2]string]Usage, error) {
	out := map[[2]string]Usage{}
	err := scan(ctx, q, "SELECT project_id, user_id, instances, cores, ram, server_groups, key_pairs FROM compute_quota_usage", nil, func(scan func(...any) error) error {
		var project, user string
		var u Usage
		if err := scan(&project, &user, &u.Instances, &u.Cores, &u.RAM, &u.ServerGroups, &u.KeyPairs); err != nil {
			return err
		}
		if u != (Usage{}) {
			out[[2]string{project, user}] = u
		}
		return nil
	})
	return out, err
}
