package local

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"kilonova/internal/auth"
	"kilonova/internal/clock"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/image"
)

// Sort is one key of an order.
type Sort struct {
	Key  string
	Desc bool
}

// Range is a comparison of a numeric or time column: Op is one of = <> > >= < <=.
type Range struct {
	Column, Op string
	Value      int64
}

// Query selects images. The zero value is everything that a plain list shows.
type Query struct {
	Visibility   string // "": what a plain list shows; "all"; or one of the four
	MemberStatus string // of images shared by others: accepted (""), pending, rejected, all
	Hidden       bool
	Is           map[string][]string // text column -> any of these values
	Ranges       []Range
	Tags         []string // all of them
	Properties   map[string]string
	Sort         []Sort
	Marker       string
	Limit        int // 0: none are asked for; negative: no limit
}

// sortColumns are the keys that may order a list, with their columns.
func sortColumns() map[string]string {
	return map[string]string{"name": "name", "status": "status", "container_format": "container_format", "disk_format": "disk_format", "size": "size",
		"id": "id", "created_at": "created_at", "updated_at": "updated_at", "visibility": "visibility", "owner": "owner", "min_disk": "min_disk",
		"min_ram": "min_ram", "virtual_size": "virtual_size", "checksum": "checksum", "protected": "protected"}
}

// SortKeys are the keys that may order a list.
func SortKeys() []string {
	var keys []string
	for k := range sortColumns() {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// textColumns may be asked for equality with one or several values.
func textColumns() []string {
	return []string{"id", "name", "status", "owner", "container_format", "disk_format", "checksum", "hash_value"}
}

// conditions collects SQL and its parameters.
type conditions struct {
	sql  []string
	args []any
}

func (w *conditions) add(sql string, args ...any) {
	w.sql = append(w.sql, sql)
	w.args = append(w.args, args...)
}

// page is a part of a list: sorted by a column, then by id, behind a marker.
type page struct {
	key   string         // column
	desc  bool           // both columns fall
	after map[string]any // values of the marker's columns, with that of "id"; nil: from the begin
	limit int            // 0 or less: no limit
	from  string         // SELECT … FROM …
}

// listPage reads a page of the rows that w lets through.
func listPage[T any](ctx context.Context, q db.Querier, what string, p page, w conditions, scan func(scanner) (*T, error)) ([]*T, error) {
	dir, op := "", " > ?"
	if p.desc {
		dir, op = " DESC", " < ?"
	}
	if p.after != nil {
		v := p.after[p.key]
		w.add("("+p.key+op+" OR "+p.key+" = ? AND id"+op+")", v, v, p.after["id"])
	}
	text := p.from
	if len(w.sql) > 0 {
		text += " WHERE " + strings.Join(w.sql, " AND ")
	}
	text += " ORDER BY " + p.key + dir + ", id" + dir
	if p.limit > 0 {
		text += " LIMIT " + strconv.Itoa(p.limit)
	}
	rows, err := q.Query(ctx, text, w.args...)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", what, err)
	}
	defer func() { _ = rows.Close() }()
	var list []*T
	for rows.Next() {
		one, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", what, err)
		}
		list = append(list, one)
	}
	return list, rows.Err()
}

func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }

// Select lists the images that the caller may see and q asks for.
func (s *Service) Select(ctx context.Context, c *auth.Caller, q Query) ([]*Record, error) {
	if q.Limit == 0 {
		return nil, nil
	}
	var w conditions
	if err := visible(&w, c, q); err != nil {
		return nil, err
	}
	w.add("hidden = ?", q.Hidden)
	for _, col := range textColumns() {
		if values, ok := q.Is[col]; ok {
			if len(values) == 0 {
				return nil, nil
			}
			args := make([]any, len(values))
			for i, v := range values {
				args[i] = v
			}
			w.add(col+" IN ("+marks(len(values))+")", args...)
		}
	}
	for _, r := range q.Ranges {
		w.add(r.Column+" "+r.Op+" ?", r.Value)
	}
	for _, t := range q.Tags {
		w.add("EXISTS (SELECT 1 FROM image_tags t WHERE t.image_id = image_images.id AND t.tag = ?)", t)
	}
	for k, v := range q.Properties {
		w.add("EXISTS (SELECT 1 FROM image_properties p WHERE p.image_id = image_images.id AND p.name = ? AND p.value = ?)", k, v)
	}
	order, err := s.order(ctx, c, &w, q)
	if err != nil {
		return nil, err
	}
	text := "SELECT " + columns + " FROM image_images WHERE " + strings.Join(w.sql, " AND ") + " ORDER BY " + order
	if q.Limit > 0 {
		text += " LIMIT " + strconv.Itoa(q.Limit)
	}
	rows, err := s.db.Query(ctx, text, w.args...)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var list []*Record
	for rows.Next() {
		r, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("list images: %w", err)
		}
		list = append(list, r)
	}
	return list, rows.Err()
}

// visible adds who may see what. Community images of others appear only when they are asked for.
func visible(w *conditions, c *auth.Caller, q Query) error {
	project := ""
	if c != nil {
		project = c.ProjectID
	}
	switch q.Visibility {
	case "":
		w.add("(visibility <> ? OR owner = ? AND owner <> '')", Community, project)
	case "all":
	case Public, Private, Shared, Community:
		w.add("visibility = ?", q.Visibility)
	default:
		return fault.New(fault.Invalid, "Invalid visibility value: %.50s", q.Visibility)
	}
	status := q.MemberStatus
	switch status {
	case "":
		status = Accepted
	case Accepted, Pending, Rejected, "all":
	default:
		return fault.New(fault.Invalid, "Invalid status: %.50s", status)
	}
	if c.IsAdmin() && q.MemberStatus == "" {
		return nil
	}
	shared := "EXISTS (SELECT 1 FROM image_members m WHERE m.image_id = image_images.id AND m.member = ?"
	args := []any{Public, Community, project, Shared, project}
	if status != "all" {
		shared += " AND m.status = ?"
		args = append(args, status)
	}
	w.add("(visibility IN (?, ?) OR owner = ? AND owner <> '' OR visibility = ? AND "+shared+"))", args...)
	return nil
}

// order gives the ORDER BY of q and adds the condition that starts behind its marker. Ties fall by creation and id.
func (s *Service) order(ctx context.Context, c *auth.Caller, w *conditions, q Query) (string, error) {
	keys := slices.Clone(q.Sort)
	if len(keys) == 0 {
		keys = []Sort{{Key: "created_at", Desc: true}}
	}
	last := keys[len(keys)-1].Desc
	for _, tie := range []string{"created_at", "id"} {
		if !slices.ContainsFunc(keys, func(k Sort) bool { return k.Key == tie }) {
			keys = append(keys, Sort{Key: tie, Desc: last})
		}
	}
	known := sortColumns()
	parts := make([]string, len(keys))
	for i, k := range keys {
		col, ok := known[k.Key]
		if !ok {
			return "", fault.New(fault.Invalid, "Invalid sort key: %.50s. It must be one of: %s.", k.Key, strings.Join(SortKeys(), ", "))
		}
		parts[i] = col
		if k.Desc {
			parts[i] += " DESC"
		}
	}
	if q.Marker == "" {
		return strings.Join(parts, ", "), nil
	}
	m, err := s.Lookup(ctx, c, q.Marker)
	if err != nil {
		return "", fault.Wrap(err, fault.Invalid, "The marker %.50s is no image in the list.", q.Marker)
	}
	after := ""
	var args []any
	for i := len(keys) - 1; i >= 0; i-- {
		op := " > ?"
		if keys[i].Desc {
			op = " < ?"
		}
		col := known[keys[i].Key]
		v := m.column(col)
		if after == "" {
			after, args = col+op, []any{v}
			continue
		}
		after, args = "("+col+op+" OR "+col+" = ? AND "+after+")", append([]any{v, v}, args...)
	}
	w.add(after, args...)
	return strings.Join(parts, ", "), nil
}

// column gives a value as its column holds it.
func (r *Record) column(name string) any {
	return map[string]any{"name": r.Name, "status": r.Status, "container_format": r.ContainerFormat, "disk_format": r.DiskFormat, "size": r.Size, "id": r.ID,
		"created_at": clock.Micros(r.Created), "updated_at": clock.Micros(r.Updated), "visibility": r.Visibility, "owner": r.Owner, "min_disk": r.MinDisk,
		"min_ram": r.MinRAM, "virtual_size": r.VirtualSize, "checksum": r.Checksum, "protected": r.Protected}[name]
}

// List implements image.Service. The filters are those of the REST API that take one plain value: the text columns,
// visibility, member_status, tag, os_hidden, and any property.
func (s *Service) List(ctx context.Context, c *auth.Caller, filters map[string]string) ([]image.Image, error) {
	q := Query{Limit: -1, Is: map[string][]string{}, Properties: map[string]string{}}
	for k, v := range filters {
		switch {
		case k == "visibility":
			q.Visibility = v
		case k == "member_status":
			q.MemberStatus = v
		case k == "tag":
			q.Tags = append(q.Tags, v)
		case k == "os_hidden":
			q.Hidden = v == "true"
		case slices.Contains(textColumns(), k):
			q.Is[k] = []string{v}
		default:
			q.Properties[k] = v
		}
	}
	records, err := s.Select(ctx, c, q)
	if err != nil {
		return nil, err
	}
	list := make([]image.Image, len(records))
	for i, r := range records {
		list[i] = r.Image
	}
	return list, nil
}

// Usage is what a project has of what is limited; a limit of -1 is none.
type Usage struct {
	Bytes, Images, Staged, Uploading                     int64
	LimitBytes, LimitImages, LimitStaged, LimitUploading int64
}

// Usage counts a project's images.
func (s *Service) Usage(ctx context.Context, project string) (Usage, error) {
	none := func(v int64) int64 {
		if v <= 0 {
			return -1
		}
		return v
	}
	u := Usage{LimitBytes: none(s.cfg.QuotaBytes), LimitImages: none(s.cfg.QuotaImages), LimitStaged: none(s.cfg.QuotaStaged),
		LimitUploading: none(s.cfg.QuotaUploading)}
	err := s.db.QueryRow(ctx, "SELECT COALESCE(SUM(CASE WHEN size > 0 THEN size ELSE 0 END), 0), COUNT(*), COALESCE(SUM(staged_size), 0), "+
		"COALESCE(SUM(CASE WHEN status IN (?, ?, ?) THEN 1 ELSE 0 END), 0) FROM image_images WHERE owner = ?",
		image.Saving, image.Uploading, image.Importing, project).Scan(&u.Bytes, &u.Images, &u.Staged, &u.Uploading)
	if err != nil {
		return u, fmt.Errorf("count image usage: %w", err)
	}
	return u, nil
}
