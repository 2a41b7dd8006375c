package api

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/fault"
	"kilonova/internal/image/local"
)

// parseBool reads the forms of a boolean that the field accepts in queries.
func parseBool(name, v string) (bool, error) {
	switch strings.ToLower(v) {
	case "true", "1", "yes", "on", "t", "y":
		return true, nil
	case "false", "0", "no", "off", "f", "n":
		return false, nil
	}
	return false, fault.New(fault.Invalid, "Invalid value for %s: %.50q is neither true nor false.", name, v)
}

func parseSize(name, v string) (int64, error) {
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 {
		return 0, fault.New(fault.Invalid, "Invalid value for %s: %.50q is no number of 0 or more.", name, v)
	}
	return n, nil
}

// limit reads the length of a page.
func (a *api) limit(q url.Values) (int, error) {
	if !q.Has("limit") {
		return a.DefaultLimit, nil
	}
	n, err := parseSize("limit", q.Get("limit"))
	return int(min(n, int64(a.MaxLimit))), err
}

// parseList reads the query of an image list. What is no parameter of its own is a filter by property.
func (a *api) parseList(q url.Values) (local.Query, error) {
	out := local.Query{Is: map[string][]string{}, Properties: map[string]string{}}
	var err error
	if out.Limit, err = a.limit(q); err != nil {
		return out, err
	}
	if out.Sort, err = parseSort(q); err != nil {
		return out, err
	}
	for key, values := range q {
		if err := parseFilter(&out, key, values); err != nil {
			return out, err
		}
	}
	return out, nil
}

func parseFilter(out *local.Query, key string, values []string) (err error) {
	v := values[0]
	switch key {
	case "limit", "sort", "sort_key", "sort_dir", "is_public", "deleted":
	case "marker":
		out.Marker = v
	case "visibility":
		out.Visibility = v
	case "member_status":
		out.MemberStatus = v
	case "os_hidden":
		out.Hidden, err = parseBool(key, v)
	case "tag":
		out.Tags = append(out.Tags, values...)
	case "id", "name", "status", "container_format", "disk_format":
		out.Is[key], err = parseIn(v)
	case "owner", "checksum":
		out.Is[key] = []string{v}
	case "os_hash_value":
		out.Is["hash_value"] = []string{v}
	case "size", "virtual_size", "min_ram", "min_disk":
		err = addRange(out, key, "=", v)
	case "size_min":
		err = addRange(out, "size", ">=", v)
	case "size_max":
		if err = addRange(out, "size", "<=", v); err == nil {
			err = addRange(out, "size", ">=", "0")
		}
	case "protected":
		var b bool
		if b, err = parseBool(key, v); err == nil {
			n := "0"
			if b {
				n = "1"
			}
			err = addRange(out, key, "=", n)
		}
	case "created_at", "updated_at":
		for _, v := range values {
			if err = addTime(out, key, v); err != nil {
				return err
			}
		}
	default:
		out.Properties[key] = v
	}
	return err
}

func addRange(out *local.Query, column, op, v string) error {
	n, err := parseSize(column, v)
	out.Ranges = append(out.Ranges, local.Range{Column: column, Op: op, Value: n})
	return err
}

// addTime reads "gt:2024-01-02T03:04:05Z" and its siblings; no operator is eq. Times have whole seconds in documents, so
// equality means anywhere in the second.
func addTime(out *local.Query, column, v string) error {
	op, text, found := strings.Cut(v, ":")
	sql := map[string]string{"eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}[op]
	if !found || sql == "" {
		sql, text = "=", v
	}
	var t time.Time
	var err error
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err = time.Parse(layout, text); err == nil {
			break
		}
	}
	if err != nil {
		return fault.New(fault.Invalid, "Invalid time value for %s: %.80q. Write it as 2024-12-31T23:59:59Z.", column, v)
	}
	us := clock.Micros(t)
	const second = 1_000_000
	add := func(op string, v int64) {
		out.Ranges = append(out.Ranges, local.Range{Column: column, Op: op, Value: v})
	}
	if us%second != 0 {
		add(sql, us)
		return nil
	}
	switch sql {
	case "=":
		add(">=", us)
		add("<", us+second)
	case ">":
		add(">=", us+second)
	case "<=":
		add("<", us+second)
	default:
		add(sql, us)
	}
	return nil
}

// parseIn reads "in:a,b,"c,d"" or one plain value.
func parseIn(v string) ([]string, error) {
	list, ok := strings.CutPrefix(v, "in:")
	if !ok {
		return []string{v}, nil
	}
	var out []string
	for list != "" {
		if list[0] == '"' {
			end := strings.IndexByte(list[1:], '"')
			if end < 0 || len(list) > end+2 && list[end+2] != ',' {
				return nil, fault.New(fault.Invalid, "Invalid filter value %.100s. A closing quotation mark is missing or not followed by a comma.", v)
			}
			out = append(out, list[1:end+1])
			list = strings.TrimPrefix(list[end+2:], ",")
			continue
		}
		item, rest, _ := strings.Cut(list, ",")
		if strings.Contains(item, `"`) {
			return nil, fault.New(fault.Invalid, "Invalid filter value %.100s. A quotation mark stands inside a value.", v)
		}
		out = append(out, item)
		list = rest
	}
	return out, nil
}

// parseSort reads sort=key:dir,… or the pairs of sort_key and sort_dir.
func parseSort(q url.Values) ([]local.Sort, error) {
	direction := func(d string) (bool, error) {
		if d != "asc" && d != "desc" {
			return false, fault.New(fault.Invalid, "Invalid sort direction: %.50s", d)
		}
		return d == "desc", nil
	}
	var out []local.Sort
	add := func(key, dir string) error {
		if !slices.Contains(local.SortKeys(), key) {
			return fault.New(fault.Invalid, "Invalid sort key: %.50s. It must be one of the following: %s.", key, strings.Join(local.SortKeys(), ", "))
		}
		desc, err := direction(dir)
		out = append(out, local.Sort{Key: key, Desc: desc})
		return err
	}
	if s := q.Get("sort"); s != "" {
		if q.Has("sort_key") || q.Has("sort_dir") {
			return nil, fault.New(fault.Invalid, "Old and new sorting syntax cannot be combined")
		}
		for part := range strings.SplitSeq(s, ",") {
			key, dir, ok := strings.Cut(strings.TrimSpace(part), ":")
			if !ok {
				dir = "desc"
			}
			if err := add(key, dir); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	keys, dirs := q["sort_key"], q["sort_dir"]
	if len(keys) == 0 && len(dirs) > 0 {
		keys = []string{"created_at"}
	}
	if len(dirs) > 1 && len(dirs) != len(keys) {
		return nil, fault.New(fault.Invalid, "Number of sort dirs does not match the number of sort keys")
	}
	for i, key := range keys {
		dir := "desc"
		if len(dirs) == 1 {
			dir = dirs[0]
		} else if len(dirs) > 1 {
			dir = dirs[i]
		}
		if err := add(key, dir); err != nil {
			return nil, err
		}
	}
	return out, nil
}
