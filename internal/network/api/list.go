package api

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"kilonova/internal/fault"
	"kilonova/internal/network/local"
)

// page answers a list request: filters, sorting, marker and limit, field selection, links.
func (res *resource) page(q *call) (map[string]any, error) {
	query := q.Query()
	f := local.Filter{Project: q.project, Match: map[string][]string{}}
	var tests []func(doc) bool
	for name, values := range query {
		test, err := res.test(q, name, values, &f)
		if err != nil {
			return nil, err
		}
		if test != nil {
			tests = append(tests, test)
		}
	}
	docs, err := res.list(q, f)
	if err != nil {
		return nil, err
	}
	docs = slices.DeleteFunc(docs, func(d doc) bool {
		return slices.ContainsFunc(tests, func(ok func(doc) bool) bool { return !ok(d) })
	})
	if err := res.sort(docs, query); err != nil {
		return nil, err
	}
	docs, links, err := res.cut(q, docs, query)
	if err != nil {
		return nil, err
	}
	res.visible(q, docs, query["fields"])
	if docs == nil {
		docs = []doc{}
	}
	body := map[string]any{res.plural: docs}
	if len(links) > 0 {
		body[res.plural+"_links"] = links
	}
	return body, nil
}

// test turns one query parameter into a condition, and narrows the SQL filter where that can apply it. Parameters that are no
// attribute are ignored, as Neutron does.
func (res *resource) test(q *call, name string, values []string, f *local.Filter) (func(doc) bool, error) {
	switch name {
	case "fields", "sort_key", "sort_dir", "limit", "marker", "page_reverse":
		return nil, nil
	case "tags", "tags-any", "not-tags", "not-tags-any":
		if res.retag == nil {
			return nil, nil
		}
		return tagTest(name, values), nil
	case "tenant_id":
		name = "project_id"
	}
	if res.filter != nil {
		if test, ok, err := res.filter(q, name, values); ok || err != nil {
			return test, err
		}
	}
	a := res.attr(name)
	if a == nil && !slices.Contains([]string{"id", "status", "project_id", "revision_number"}, name) {
		return nil, nil
	}
	if a != nil && a.hidden && !q.Allowed("get_"+res.name+":"+name, q.Own()) {
		return nil, nil
	}
	if col := res.columns[name]; col != "" {
		f.Match[col] = values
	}
	return func(d doc) bool {
		return slices.ContainsFunc(values, func(want string) bool { return equals(d[name], want) })
	}, nil
}

// equals compares an attribute with a query parameter.
func equals(v any, want string) bool {
	switch x := v.(type) {
	case nil:
		return want == "" || want == "None"
	case string:
		return x == want
	case bool:
		b, problem := boolean(want)
		return problem == "" && b == x
	case int:
		return strconv.Itoa(x) == want
	case int64:
		return strconv.FormatInt(x, 10) == want
	case *int:
		return x != nil && strconv.Itoa(*x) == want || x == nil && want == ""
	case []string:
		return slices.Contains(x, want)
	}
	return show(v) == want
}

// sort orders by the sort keys and then by id.
func (res *resource) sort(docs []doc, query url.Values) error {
	names, dirs := query["sort_key"], query["sort_dir"]
	if len(dirs) > 0 && len(dirs) != len(names) {
		return badRequest("The number of sort_keys and sort_dirs must be same")
	}
	for i, n := range names {
		if n == "tenant_id" {
			names[i] = "project_id"
		} else if res.attr(n) == nil && n != "id" && n != "status" && n != "project_id" && n != "created_at" && n != "updated_at" {
			return badRequest("['%s'] is invalid attribute for sort_keys", n)
		}
	}
	for _, d := range dirs {
		if d != "asc" && d != "desc" {
			return badRequest("'%s' is invalid value for sort_dirs, only asc and desc is allowed", d)
		}
	}
	slices.SortStableFunc(docs, func(a, b doc) int {
		for i, n := range names {
			c := compare(a[n], b[n])
			if i < len(dirs) && dirs[i] == "desc" {
				c = -c
			}
			if c != 0 {
				return c
			}
		}
		return compare(a["id"], b["id"])
	})
	return nil
}

func compare(a, b any) int {
	switch x := a.(type) {
	case string:
		y, _ := b.(string)
		return cmp.Compare(x, y)
	case int:
		y, _ := b.(int)
		return cmp.Compare(x, y)
	case int64:
		y, _ := b.(int64)
		return cmp.Compare(x, y)
	case bool:
		y, _ := b.(bool)
		return cmp.Compare(num(x), num(y))
	}
	return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b))
}

func num(b bool) int {
	if b {
		return 1
	}
	return 0
}

// cut takes the page out of a sorted list, and makes the links to its neighbours.
func (res *resource) cut(q *call, docs []doc, query url.Values) ([]doc, []map[string]string, error) {
	limit := 0
	if s := query.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			return nil, nil, badRequest("Limit must be an integer 0 or greater and not '%s'", s)
		}
		limit = n
	}
	reverse, _ := boolean(query.Get("page_reverse"))
	back := reverse == true
	marker := query.Get("marker")
	from, to := 0, len(docs)
	if marker != "" {
		i := slices.IndexFunc(docs, func(d doc) bool { return d["id"] == marker })
		if i < 0 {
			return nil, nil, fault.New(fault.NotFound, "%s %s could not be found.", res.kind, marker).WithCode(res.kind + "NotFound")
		}
		if back {
			to = i
		} else {
			from = i + 1
		}
	}
	if limit > 0 && to-from > limit {
		if back {
			from = to - limit
		} else {
			to = from + limit
		}
	}
	page := docs[from:to]
	var links []map[string]string
	if limit > 0 && len(page) > 0 {
		if to < len(docs) {
			links = append(links, res.link(q, "next", query, page[len(page)-1]["id"], false))
		}
		if from > 0 {
			links = append(links, res.link(q, "previous", query, page[0]["id"], true))
		}
	}
	return page, links, nil
}

func (res *resource) link(q *call, rel string, query url.Values, marker any, back bool) map[string]string {
	v := url.Values{}
	for k, vals := range query {
		if k != "marker" && k != "page_reverse" {
			v[k] = vals
		}
	}
	v.Set("marker", fmt.Sprint(marker))
	if back {
		v.Set("page_reverse", "True")
	}
	return map[string]string{"rel": rel, "href": q.Base + "/v2.0/" + res.path + "?" + v.Encode()}
}

func tagTest(name string, values []string) func(doc) bool {
	want := strings.Split(strings.Join(values, ","), ",")
	return func(d doc) bool {
		have, _ := d["tags"].([]string)
		all, some := true, false
		for _, w := range want {
			if slices.Contains(have, w) {
				some = true
			} else {
				all = false
			}
		}
		switch name {
		case "tags":
			return all
		case "tags-any":
			return some
		case "not-tags":
			return !all
		}
		return !some
	}
}
