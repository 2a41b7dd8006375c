package store

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/db"
	"kilonova/internal/fault"
)

// ListFilter selects servers. The zero value selects every server that is not deleted, of all projects, newest first.
type ListFilter struct {
	ProjectID, UserID string // "": all
	IDs               []string
	// Equal compares columns, named as the API names its filters (see filterColumns), with any of the values given.
	Equal map[string][]any
	// Name, IP and IP6 are regular expressions on the name and on any address of that version.
	Name, Description, IP, IP6 string
	// Match are regular expressions on other columns, named as in Equal; they match anywhere. Numbers are matched as their decimal digits, times as
	// 2006-01-02T15:04:05Z.
	Match      map[string]string
	VMStates   []string
	TaskStates []string // "" stands for none
	Locked     *bool
	// Deleted nil: not deleted only, or both when a Changes bound is set.
	Deleted *bool
	// SoftDeleted false leaves soft deleted servers out, true takes them in even where Deleted is true. nil: they are servers as others.
	SoftDeleted                        *bool
	Times                              map[string][2]time.Time // bounds of columns that are times, named as in Equal: from the first, before the second
	ChangesSince, ChangesBefore        time.Time
	Tags, TagsAny, NotTags, NotTagsAny []string
	TerminatedSince, LaunchedBefore    time.Time // of the usage report: alive at some time between them
	Sort                               []SortKey
	Marker                             string
	Limit                              int // 0: no limit
}

// SortKey is one key of an order, named as the API names it.
type SortKey struct {
	Key  string
	Desc bool
}

// serverOrder maps the sort keys and column filters of the API to SQL.
var serverOrder = map[string]string{
	"access_ip_v4": "s.access_ipv4", "access_ip_v6": "s.access_ipv6", "auto_disk_config": "s.disk_config", "availability_zone": "s.zone",
	"config_drive": "s.config_drive", "created_at": "s.created_at", "description": "COALESCE(s.description, '')", "display_description": "COALESCE(s.description, '')",
	"display_name": "s.name", "name": "s.name", "host": "s.host", "hostname": "s.hostname", "image_ref": "s.image_id", "flavor": "s.flavor_id",
	"instance_type_id": "s.flavor_row", "kernel_id": "s.kernel_id", "key_name": "s.key_name", "launch_index": "s.launch_index", "launched_at": "s.launched_at",
	"locked": "s.locked_by", "locked_by": "s.locked_by", "node": "s.node", "power_state": "s.power_state", "progress": "s.progress", "project_id": "s.project_id",
	"ramdisk_id": "s.ramdisk_id", "reservation_id": "s.reservation_id", "root_device_name": "s.root_device", "task_state": "COALESCE(o.task_state, '')",
	"terminated_at": "s.terminated_at", "updated_at": "s.updated_at", "user_id": "s.user_id", "uuid": "s.id", "vm_state": "s.vm_state", "group_id": "s.group_id",
	"deleted_at": "s.deleted_at",
}

// where collects conditions.
type where struct {
	cond []string
	args []any
}

func (w *where) add(cond string, args ...any) {
	w.cond = append(w.cond, cond)
	w.args = append(w.args, args...)
}

func (w *where) in(expr string, values []any) {
	if len(values) == 1 {
		w.add(expr+" = ?", values[0])
		return
	}
	w.add(expr+" IN ("+db.In(len(values))+")", values...)
}

func (w *where) String() string {
	if len(w.cond) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.cond, " AND ")
}

// ListServers gives servers with one query, and another for the documents that the cache does not have. It fails with fault.Invalid for a filter, sort key,
// pattern or marker that is not known. The servers share memory with the cache: they must not be altered.
func (s *Store) ListServers(ctx context.Context, q db.Querier, f ListFilter) ([]*compute.Server, error) {
	match, err := newMatcher(f)
	if err != nil {
		return nil, err
	}
	query, args, err := s.listQuery(ctx, q, f, match)
	if err != nil {
		return nil, err
	}
	var rows []serverRow
	var r serverRow
	into := r.into()[:5]
	if match != nil {
		into = append(into, match.into...)
	}
	err = scan(ctx, q, query, args, func(scan func(...any) error) error {
		if err := scan(into...); err != nil {
			return err
		}
		if match != nil && !match.ok() {
			return nil
		}
		rows = append(rows, r)
		if f.Limit > 0 && len(rows) == f.Limit {
			return errStop
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list servers: %w", err)
	}
	return s.documents(ctx, q, rows)
}

// documents turns rows without their documents into servers. A row that was removed since is left out.
func (s *Store) documents(ctx context.Context, q db.Querier, rows []serverRow) ([]*compute.Server, error) {
	_, cached := q.(*db.DB) // what a transaction sees may be rolled back: it is not kept
	found := make([]*compute.Server, len(rows))
	missing := map[string]int{}
	for i := range rows {
		if cached {
			found[i] = s.cache.get(rows[i].id, rows[i].rev)
		}
		if found[i] == nil {
			missing[rows[i].id] = i
		}
	}
	for ids := range slices.Chunk(sortedKeys(missing), maxIDs) {
		err := scan(ctx, q, "SELECT id, rev, doc FROM compute_servers WHERE id IN ("+db.In(len(ids))+")", db.Args(ids), func(scan func(...any) error) error {
			var d serverRow
			if err := scan(&d.id, &d.rev, &d.doc); err != nil {
				return err
			}
			v, err := decodeServer(d.doc)
			if err != nil {
				return fmt.Errorf("server %s: %w", d.id, err)
			}
			if cached {
				s.cache.put(d.id, d.rev, v)
			}
			found[missing[d.id]] = v
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list servers: %w", err)
		}
	}
	out := make([]*compute.Server, 0, len(rows))
	copies := make([]compute.Server, len(rows))
	for i, v := range found {
		if v == nil {
			continue
		}
		copies[i] = *v
		rows[i].apply(&copies[i])
		out = append(out, &copies[i])
	}
	return out, nil
}

// maxIDs is how many ids one query names: prepared statements of few lengths, and below every database's limit of parameters.
const maxIDs = 500

func (s *Store) listQuery(ctx context.Context, q db.Querier, f ListFilter, match *matcher) (string, []any, error) {
	var w where
	if err := f.conditions(&w); err != nil {
		return "", nil, err
	}
	order, err := sortOrder(f.Sort)
	if err != nil {
		return "", nil, err
	}
	if f.Marker != "" {
		if err := after(ctx, q, &w, order, f.Marker); err != nil {
			return "", nil, err
		}
	}
	var b strings.Builder
	if match != nil {
		b.WriteString(strings.Replace(selectServer, "s.doc FROM", strings.Join(match.columns, ", ")+" FROM", 1))
	} else {
		b.WriteString(strings.Replace(selectServer, ", s.doc FROM", " FROM", 1))
	}
	b.WriteString(w.String())
	for i, k := range order {
		b.WriteString([]string{" ORDER BY ", ", "}[min(i, 1)] + k.Key + map[bool]string{true: " DESC"}[k.Desc])
	}
	if f.Limit > 0 && match == nil {
		b.WriteString(" LIMIT ?")
		w.args = append(w.args, f.Limit)
	}
	return b.String(), w.args, nil
}

func (f *ListFilter) conditions(w *where) error {
	if f.ProjectID != "" {
		w.add("s.project_id = ?", f.ProjectID)
	}
	changes := !f.ChangesSince.IsZero() || !f.ChangesBefore.IsZero() || !f.TerminatedSince.IsZero()
	switch {
	case f.Deleted != nil && *f.Deleted && f.SoftDeleted != nil && *f.SoftDeleted:
		w.add("(s.deleted = ? OR s.deleted = ? AND s.vm_state = ?)", true, false, compute.VMSoftDeleted)
	case f.Deleted != nil:
		w.add("s.deleted = ?", *f.Deleted)
	case !changes:
		w.add("s.deleted = 0")
	}
	if f.SoftDeleted != nil && !*f.SoftDeleted {
		w.add("s.vm_state <> ?", compute.VMSoftDeleted)
	}
	if f.UserID != "" {
		w.add("s.user_id = ?", f.UserID)
	}
	if f.IDs != nil {
		w.in("s.id", db.Args(f.IDs))
	}
	for _, name := range sortedKeys(f.Equal) {
		col, ok := serverOrder[name]
		if !ok {
			return fault.New(fault.Invalid, "Servers cannot be filtered by %s.", name)
		}
		w.in(col, f.Equal[name])
		if name == "host" && !slices.Contains(f.Equal[name], any("")) {
			w.add("s.host > ''") // of its index
		}
	}
	for _, name := range sortedKeys(f.Times) {
		col, ok := serverOrder[name]
		if !ok || !timed(name) {
			return fault.New(fault.Invalid, "Servers cannot be filtered by the time %s.", name)
		}
		w.add(col+" >= ? AND "+col+" < ?", clock.Micros(f.Times[name][0]), clock.Micros(f.Times[name][1]))
	}
	if f.VMStates != nil {
		w.in("s.vm_state", db.Args(f.VMStates))
	}
	if f.TaskStates != nil {
		w.in("COALESCE(o.task_state, '')", db.Args(f.TaskStates))
	}
	if f.Locked != nil {
		w.add("s.locked_by " + map[bool]string{true: "<>", false: "="}[*f.Locked] + " ''")
	}
	if !f.ChangesSince.IsZero() {
		w.add("s.updated_at >= ?", clock.Micros(f.ChangesSince))
	}
	if !f.ChangesBefore.IsZero() {
		w.add("s.updated_at <= ?", clock.Micros(f.ChangesBefore))
	}
	if !f.TerminatedSince.IsZero() {
		// What is deleted has been terminated (DeleteServer); the words are those of the indexes.
		w.add("(s.deleted = 0 AND s.terminated_at = 0 OR s.terminated_at > 0 AND s.terminated_at >= ?)", clock.Micros(f.TerminatedSince))
	}
	if !f.LaunchedBefore.IsZero() {
		w.add("s.launched_at > 0 AND s.launched_at < ?", clock.Micros(f.LaunchedBefore))
	}
	f.labels(w)
	return nil
}

func (f *ListFilter) labels(w *where) {
	const has = "EXISTS (SELECT 1 FROM compute_server_tags t WHERE t.server_id = s.id AND t.tag IN ("
	for _, t := range f.Tags {
		w.add(has+"?))", t)
	}
	if len(f.TagsAny) > 0 {
		w.add(has+db.In(len(f.TagsAny))+"))", db.Args(f.TagsAny)...)
	}
	if len(f.NotTags) > 0 { // not all of them
		var all where
		for _, t := range f.NotTags {
			all.add(has+"?))", t)
		}
		w.add("NOT ("+strings.Join(all.cond, " AND ")+")", all.args...)
	}
	if len(f.NotTagsAny) > 0 {
		w.add("NOT "+has+db.In(len(f.NotTagsAny))+"))", db.Args(f.NotTagsAny)...)
	}
}

// sortOrder turns API keys into columns and adds what makes the order total.
func sortOrder(keys []SortKey) ([]SortKey, error) {
	if len(keys) == 0 {
		return []SortKey{{"s.created_at", true}, {"s.number", true}}, nil
	}
	var out []SortKey
	seen := map[string]bool{}
	for _, k := range keys {
		col, ok := serverOrder[k.Key]
		if !ok {
			return nil, fault.New(fault.Invalid, "Servers cannot be sorted by %s.", k.Key)
		}
		if !seen[col] {
			out = append(out, SortKey{col, k.Desc})
			seen[col] = true
		}
	}
	if !seen["s.created_at"] {
		out = append(out, SortKey{"s.created_at", out[0].Desc})
	}
	return append(out, SortKey{"s.number", out[0].Desc}), nil
}

// after adds the condition that a row comes after the marker in the order.
func after(ctx context.Context, q db.Querier, w *where, order []SortKey, marker string) error {
	cols := make([]string, len(order))
	vals, into := make([]any, len(order)), make([]any, len(order))
	for i, k := range order {
		cols[i], into[i] = k.Key, &vals[i]
	}
	args := []any{marker}
	query := "SELECT " + strings.Join(cols, ", ") + " FROM compute_servers s LEFT JOIN operations o ON o.holds = s.id WHERE s.id = ?"
	if i := slices.Index(w.cond, "s.project_id = ?"); i == 0 {
		query += " AND s.project_id = ?"
		args = append(args, w.args[0])
	}
	err := q.QueryRow(ctx, query, args...).Scan(into...)
	if db.IsNoRows(err) {
		return fault.New(fault.Invalid, "marker [%s] not found", marker)
	} else if err != nil {
		return fmt.Errorf("marker: %w", err)
	}
	for i, v := range vals {
		if b, ok := v.([]byte); ok {
			vals[i] = string(b)
		}
	}
	var any []string
	var aargs []interface{}
	for i, k := range order {
		var all []string
		for j := range i {
			all = append(all, order[j].Key+" = ?")
			aargs = append(aargs, vals[j])
		}
		all = append(all, k.Key+map[bool]string{true: " < ?", false: " > ?"}[k.Desc])
		aargs = append(aargs, vals[i])
		any = append(any, "("+strings.Join(all, " AND ")+")")
	}
	// The bound on the first key lets an index start at the marker.
	w.add(order[0].Key+map[bool]string{true: " <= ?", false: " >= ?"}[order[0].Desc], vals[0])
	w.add("("+strings.Join(any, " OR ")+")", aargs...)
	return nil
}

// timed tells whether a column of serverOrder is a time.
func timed(name string) bool { return strings.HasSuffix(name, "_at") }

// matcher applies regular expressions, which the databases do not have in common, to columns that the query gives beside its own.
type matcher struct {
	columns []string
	into    []any // where the columns of the row at hand are read to
	tests   []func() bool
}

// newMatcher gives nil for a filter without patterns.
func newMatcher(f ListFilter) (*matcher, error) {
	m := &matcher{}
	for _, p := range []struct{ column, text string }{{"s.name", f.Name}, {"COALESCE(s.description, '')", f.Description}} {
		if p.text == "" {
			continue
		}
		re, err := pattern("(?i)"+p.text, p.text)
		if err != nil {
			return nil, err
		}
		text := new(string)
		m.add(p.column, text, func() bool { return re.MatchString(*text) })
	}
	for _, name := range sortedKeys(f.Match) {
		if err := m.match(name, f.Match[name]); err != nil {
			return nil, err
		}
	}
	if err := m.addresses(f.IP, f.IP6); err != nil || m.tests == nil {
		return nil, err
	}
	return m, nil
}

func (m *matcher) add(column string, into any, test func() bool) {
	m.columns, m.into, m.tests = append(m.columns, column), append(m.into, into), append(m.tests, test)
}

// match adds a pattern on a column named as the API names it.
func (m *matcher) match(name, text string) error {
	column, ok := serverOrder[name]
	if !ok {
		return fault.New(fault.Invalid, "Servers cannot be filtered by %s.", name)
	}
	re, err := pattern("(?i)"+text, text)
	if err != nil {
		return err
	}
	v := new(any)
	m.add(column, v, func() bool {
		switch v := (*v).(type) {
		case int64:
			if !timed(name) {
				return re.MatchString(strconv.FormatInt(v, 10))
			}
			return v != 0 && re.MatchString(clock.FromMicros(v).UTC().Format("2006-01-02T15:04:05Z"))
		case []byte:
			return re.Match(v)
		case string:
			return re.MatchString(v)
		}
		return false
	})
	return nil
}

// addresses adds patterns on addresses, of which one must match. A pattern matches from an address's start; as plain text it matches anywhere, which is how
// the network service looks for a part of an address.
func (m *matcher) addresses(ip, ip6 string) error {
	if ip == "" && ip6 == "" {
		return nil
	}
	tests := map[bool]func(string) bool{} // by whether it is an address of version 6
	for six, text := range map[bool]string{false: ip, true: ip6} {
		if text == "" {
			continue
		}
		re, err := pattern("(?i)^(?:"+text+")", text)
		if err != nil {
			return err
		}
		part := strings.ToLower(text)
		tests[six] = func(a string) bool { return re.MatchString(a) || strings.Contains(a, part) }
	}
	list := new(string)
	m.add("s.addresses", list, func() bool {
		return slices.ContainsFunc(strings.Fields(*list), func(a string) bool {
			test := tests[strings.Contains(a, ":")]
			return test != nil && test(a)
		})
	})
	return nil
}

func (m *matcher) ok() bool {
	return !slices.ContainsFunc(m.tests, func(test func() bool) bool { return !test() })
}

// pattern compiles an expression; shown is how the caller wrote it.
func pattern(text, shown string) (*regexp.Regexp, error) {
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "Invalid filter: %q is not a regular expression.", shown)
	}
	return re, nil
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
