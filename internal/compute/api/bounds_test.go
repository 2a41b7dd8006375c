package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"kilonova/internal/httpapi"
)

// The tests of this file take every fact that the description states about a place of a request (its type, whether it must be there, its
// bounds, pattern, format, enumeration) and send, at the first version of each schema that has it, values below, at and above.

// demand is a fact of spec/compute-api.json about a place of a request, as far as these tests look at it.
type demand struct {
	Path                    string
	Type                    any
	Required                bool
	Since, Until            string
	Format, Pattern         string
	Enum                    any
	Minimum, Maximum        *float64
	MinLength, MaxLength    *int
	MinItems, MaxItems      *int
	MinProperties           *int
	MaxProperties           *int
	UniqueItems, Additional any
}

func (d *demand) at(minor int) bool { return fact{Since: d.Since, Until: d.Until}.at(minor) }

// is tells whether a value of the place may have a JSON type; no type said is every type.
func (d *demand) is(name string) bool {
	switch v := d.Type.(type) {
	case nil:
		return true
	case []any:
		return slices.Contains(v, any(name))
	default:
		return v == name
	}
}

type describedRoute struct {
	Method, Path, Action string
	Gone                 bool
	AliasOf              string `json:"alias_of"`
	Request, Query       []demand
	Response             []demand
}

func described(t testing.TB) []describedRoute {
	t.Helper()
	b, err := os.ReadFile("spec/compute-api.json")
	if err != nil {
		t.Fatal(err)
	}
	var spec struct{ Routes []describedRoute }
	if err := json.Unmarshal(b, &spec); err != nil {
		t.Fatal(err)
	}
	for i := range spec.Routes { // what is described of a route holds of its other names
		r := &spec.Routes[i]
		if r.AliasOf == "" {
			continue
		}
		same := slices.IndexFunc(spec.Routes, func(o describedRoute) bool {
			return o.Method+" "+o.Path == r.AliasOf && o.Action == r.Action
		})
		if same < 0 {
			t.Fatalf("%s %s is another name of %s, which is not described", r.Method, r.Path, r.AliasOf)
		}
		r.Request, r.Query, r.Response = spec.Routes[same].Request, spec.Routes[same].Query, spec.Routes[same].Response
	}
	return slices.DeleteFunc(spec.Routes, func(r describedRoute) bool { return r.Gone })
}

// startsWithin are the versions from which schemas of a route hold, without those after the end of this name of it.
func startsWithin(e entry, starts []int) []int {
	return slices.DeleteFunc(slices.Clone(starts), func(minor int) bool { return e.Until > 0 && minor > e.Until })
}

// hop is one step of a path: a member, the items of a list, its n-th item, or an alternative.
type hop struct {
	kind, name string
	n          int
}

var hopPattern = regexp.MustCompile(`^(?:\.?\{(\*|~.*?[^0-9])\}|\[(\d*)\]|<(oneOf|anyOf|allOf) (\d+)>|\.?([^.\[<{]+))`)

func hops(path string) []hop {
	var out []hop
	for path != "" && path != "$" {
		m := hopPattern.FindStringSubmatch(path)
		if m == nil {
			panic("path " + path)
		}
		n, _ := strconv.Atoi(m[2] + m[4])
		switch {
		case m[1] != "":
			out = append(out, hop{kind: "any"})
		case m[3] != "":
			out = append(out, hop{m[3], "", n})
		case strings.HasPrefix(m[0], "["):
			out = append(out, hop{"item", "", n})
		default:
			out = append(out, hop{kind: "key", name: m[5]})
		}
		path = path[len(m[0]):]
	}
	return out
}

// remove is what put gives to take the place out of its object.
type remove struct{}

// place gives the document v of schema s with put's value at the end of the hops; what is missing on the way is made. False: the schema
// has no such place.
func place(s map[string]any, v any, way []hop, put func(map[string]any) any) (any, bool) {
	if len(way) == 0 {
		return put(s), true
	}
	h := way[0]
	switch h.kind {
	case "oneOf", "anyOf", "allOf":
		list, _ := s[h.kind].([]any)
		if len(list) < h.n {
			return nil, false
		}
		merged := map[string]any{}
		for k, x := range s {
			if k != h.kind {
				merged[k] = x
			}
		}
		for k, x := range list[h.n-1].(map[string]any) {
			merged[k] = x
		}
		return place(merged, example(merged), way[1:], put)
	case "item":
		sub, _ := s["items"].(map[string]any)
		if list, ok := s["prefixItems"].([]any); ok && h.n < len(list) {
			sub = list[h.n].(map[string]any)
		}
		if sub == nil {
			return nil, false
		}
		list, _ := v.([]any)
		for len(list) <= h.n {
			list = append(list, example(sub))
		}
		x, ok := place(sub, list[h.n], way[1:], put)
		list = slices.Clone(list)
		list[h.n] = x
		return list, ok
	}
	m, ok := v.(map[string]any)
	if !ok {
		m = map[string]any{}
	}
	name, sub := member(s, h)
	if sub == nil {
		return nil, false
	}
	inner, have := m[name]
	if !have && len(way) > 1 {
		inner = example(sub)
	}
	x, ok := place(sub, inner, way[1:], put)
	out := map[string]any{}
	for k, o := range m {
		out[k] = o
	}
	if x == (remove{}) {
		delete(out, name)
	} else {
		out[name] = x
	}
	return out, ok
}

func member(s map[string]any, h hop) (string, map[string]any) {
	if h.kind == "key" {
		props, _ := s["properties"].(map[string]any)
		sub, _ := props[h.name].(map[string]any)
		return h.name, sub
	}
	if patterns, ok := s["patternProperties"].(map[string]any); ok {
		for p, sub := range patterns {
			for _, name := range []string{"key", "1", "/dev/vdb", "hw:mem_page_size"} {
				if regexp.MustCompile(p).MatchString(name) {
					return name, sub.(map[string]any)
				}
			}
		}
	}
	sub, _ := s["additionalProperties"].(map[string]any)
	return "key", sub
}

// try is a value and whether it must be taken.
type try struct {
	about string
	value any
	want  bool
}

// text gives a text of n characters that keeps pattern and format of a place; "", false when there is none.
func text(d *demand, sub map[string]any, n int) (string, bool) {
	var re *regexp.Regexp
	if p, ok := sub["pattern"].(string); ok {
		re = regexp.MustCompile(p)
	}
	fill := func(s, with string) string {
		return (s + strings.Repeat(with, n))[:n]
	}
	for _, s := range []string{fill("", "a"), fill("", "1"), fill("/", "0"), fill("/dev/v", "d"), fill("0", "0"), fill("", "aGk9"), fill("a", "="), fill("aGk=", "\n")} {
		if re != nil && !re.MatchString(s) {
			continue
		}
		if d.Format != "" {
			one, err := httpapi.CompileSchema("format", []byte(fmt.Sprintf(`{"format":%q}`, d.Format)))
			if err != nil {
				panic(err)
			}
			if one.Validate(s) != nil {
				continue
			}
		}
		if d.Minimum != nil && s != "" {
			return "", false // a number in words: judged by its value
		}
		return s, true
	}
	return "", false
}

// tries are the values that a fact is about, with what the fact says of them.
func tries(d *demand, sub map[string]any) []try {
	var out []try
	enum, _ := sub["enum"].([]any)
	if d.MinLength != nil || d.MaxLength != nil {
		low, high := 0, 1<<30
		if d.MinLength != nil {
			low = *d.MinLength
		}
		if d.MaxLength != nil {
			high = *d.MaxLength
		}
		for _, n := range []int{low - 1, low, low + 1, high - 1, high, high + 1} {
			if n < 0 || n > 100000 {
				continue
			}
			if s, ok := text(d, sub, n); ok {
				out = append(out, try{fmt.Sprintf("%d characters", n), s, n >= low && n <= high})
			} else if n < low || n > high {
				out = append(out, try{fmt.Sprintf("%d characters", n), strings.Repeat("a", n), false})
			}
		}
	}
	number := d.is("integer") || d.is("number")
	for _, b := range []struct {
		at      *float64
		outside float64
	}{{d.Minimum, -1}, {d.Maximum, 1}} {
		if b.at == nil || !number || enum != nil {
			continue
		}
		for step, want := range map[float64]bool{b.outside: false, 0: true, -b.outside: d.Minimum == nil || d.Maximum == nil || *d.Minimum < *d.Maximum} {
			n := json.Number(strconv.FormatFloat(*b.at+step, 'f', -1, 64))
			if *b.at > 1e15 { // one more makes no difference to such a number
				n = json.Number(strconv.FormatFloat(*b.at*(1+step/1000), 'g', -1, 64))
			}
			out = append(out, try{"number " + string(n), n, want})
			if f, err := n.Float64(); err == nil && d.is("string") && d.Type != nil {
				out = append(out, try{"number " + string(n) + " in digits", strconv.FormatFloat(f, 'f', -1, 64), want})
			}
		}
	}
	items, _ := sub["items"].(map[string]any)
	if d.is("array") && (d.MinItems != nil || d.MaxItems != nil) {
		for _, b := range []struct {
			at      *int
			outside int
		}{{d.MinItems, -1}, {d.MaxItems, 1}} {
			if b.at == nil {
				continue
			}
			for _, step := range []int{b.outside, 0, -b.outside} {
				n := *b.at + step
				inside := (d.MinItems == nil || n >= *d.MinItems) && (d.MaxItems == nil || n <= *d.MaxItems)
				if list, ok := manyItems(sub, items, n); ok {
					out = append(out, try{fmt.Sprintf("%d items", n), list, inside})
				}
			}
		}
	}
	if d.is("object") && (d.MinProperties != nil || d.MaxProperties != nil) {
		low, high := 0, 1<<30
		if d.MinProperties != nil {
			low = *d.MinProperties
		}
		if d.MaxProperties != nil {
			high = *d.MaxProperties
		}
		for _, n := range []int{low - 1, low, low + 1, high - 1, high, high + 1} {
			if n < 0 || n > 1000 {
				continue
			}
			if m, ok := manyMembers(sub, n); ok {
				out = append(out, try{fmt.Sprintf("%d members", n), m, n >= low && n <= high})
			}
		}
	}
	if d.UniqueItems == true {
		if list, ok := manyItems(sub, items, 1); ok {
			out = append(out, try{"the same item twice", append(list, list...), false})
		}
	}
	if len(enum) > 0 {
		for _, v := range enum {
			out = append(out, try{"one of the enumeration", v, true})
		}
		out = append(out, try{"none of the enumeration", "none of them", false})
	}
	if p, ok := sub["pattern"].(string); ok && d.is("string") && enum == nil {
		re := regexp.MustCompile(p)
		for _, s := range []string{"", "a", "\n", "$ $", "a,b/c", "-", " a", "\u00e9"} {
			if !re.MatchString(s) {
				out = append(out, try{"a text outside the pattern", s, false})
			}
		}
	}
	switch {
	case d.Format == "" || !d.is("string"):
	case d.Format == "regex":
		out = append(out, try{"a text outside the format", "(", false}, try{"a text of the format", "^(a|b)+$", true})
	default:
		out = append(out, try{"a text outside the format", "\u0001 \x7f", false})
		if d.Pattern == "" && !strings.HasPrefix(d.Format, "name") && !strings.HasPrefix(d.Format, "az_name") {
			out = append(out, try{"a text outside the format", "no such thing!", false})
		}
	}
	if d.Type != nil {
		for name, v := range map[string]any{"string": "aaa", "integer": 7, "array": []any{[]any{}}, "object": map[string]any{"no such key": []any{}}, "null": nil, "boolean": true} {
			if !d.is(name) && !(name == "integer" && d.is("number")) {
				out = append(out, try{"a value of type " + name, v, false})
			}
		}
	}
	return out
}

// manyMembers is an object of n members with names of one pattern.
func manyMembers(s map[string]any, n int) (map[string]any, bool) {
	patterns, _ := s["patternProperties"].(map[string]any)
	for p, sub := range patterns {
		out := map[string]any{}
		for i := range n {
			if name := "key" + strconv.Itoa(i); regexp.MustCompile(p).MatchString(name) {
				out[name] = example(sub.(map[string]any))
			}
		}
		if len(out) == n {
			return out, true
		}
	}
	return nil, false
}

// manyItems is a list of n different items.
func manyItems(s, item map[string]any, n int) ([]any, bool) {
	if n < 0 || n > 1000 {
		return nil, false
	}
	if list, ok := s["prefixItems"].([]any); ok {
		item = list[0].(map[string]any)
	}
	if item == nil {
		return nil, false
	}
	out := []any{}
	for i := range n {
		v := example(item)
		if text, ok := v.(string); ok && n > 1 && item["format"] == nil && item["enum"] == nil {
			v = text + strconv.Itoa(i)
		}
		out = append(out, v)
	}
	return out, true
}

// withUnknownKey is the smallest object of a schema and a key that it does not have.
func withUnknownKey(s map[string]any, base any, path string) any {
	v := example(s)
	if path == "$" {
		v = base
	}
	out := map[string]any{}
	if m, ok := v.(map[string]any); ok {
		maps.Copy(out, m)
	}
	out["no such key!"] = 1
	return out
}

// alternatives tells whether a value that one alternative of a place refuses may fit another: then only the whole place's verdict counts.
func alternatives(path string) bool { return strings.Contains(path, "<") }

// TestEveryFactOfRequests sends the values of every fact about a body.
func TestEveryFactOfRequests(t *testing.T) {
	h := newHandler(t, everyHandler())
	count, places := map[string]int{}, 0
	for _, r := range described(t) {
		e, err := find(entry{Method: r.Method, Path: r.Path, Action: r.Action}.key())
		if err != nil {
			t.Fatal(err)
		}
		for _, minor := range startsWithin(e, source(t, e).Body) {
			s := loadSchema(t, "schemas/"+schemaName(source(t, e), "body", minor))
			if s["type"] == "null" {
				continue
			}
			base := example(s)
			send := func(doc any) int {
				return call(h, "admin", e.Method, target(e), encoded(t, doc), fmt.Sprintf("2.%d", minor)).Code
			}
			for i := range r.Request {
				d := &r.Request[i]
				if !d.at(minor) {
					continue
				}
				if d.Additional != nil {
					closed := d.Additional == false || d.Path == "$" && e.Action != "" // a request has one action
					doc, ok := place(s, base, hops(d.Path), func(at map[string]any) any { return withUnknownKey(at, base, d.Path) })
					switch got := send(doc); {
					case !ok:
						t.Errorf("%s at 2.%d: the schema has no %s", e.key(), minor, d.Path)
					case closed != (got == 400) || !closed && got >= 300:
						t.Errorf("%s at 2.%d: %s with an unknown key (%s): %d, unknown keys are refused %v", e.key(), minor, d.Path, encoded(t, doc), got, closed)
					default:
						count[map[bool]string{true: "unknown keys refused", false: "unknown keys taken"}[closed]]++
					}
				}
				if d.Path == "$" || e.Action != "" && d.Path == e.Action && d.Type == nil {
					continue
				}
				way := hops(d.Path)
				var sub map[string]any
				if _, ok := place(s, base, way, func(at map[string]any) any { sub = at; return nil }); !ok {
					t.Errorf("%s at 2.%d: the schema has no %s", e.key(), minor, d.Path)
					continue
				}
				places++
				list := tries(d, sub)
				if d.Required {
					list = append(list, try{"nothing", remove{}, false})
				}
				for _, v := range list {
					if d.Path == e.Action && v.value == (remove{}) {
						continue // without its action it is another request
					}
					doc, _ := place(s, base, way, func(map[string]any) any { return v.value })
					got := send(doc)
					if v.want && got < 300 || !v.want && got == 400 {
						count[map[bool]string{true: "taken", false: "refused"}[v.want]]++
						continue
					}
					if !v.want && got < 300 && alternatives(d.Path) {
						count["taken by another alternative"]++
						continue
					}
					t.Errorf("%s at 2.%d: %s with %s (%.80s): %d, want taken %v", e.key(), minor, d.Path, v.about, encoded(t, v.value), got, v.want)
				}
			}
		}
	}
	t.Logf("%d places of bodies, values: %v", places, count)
	if count["unknown keys refused"] < 300 || count["unknown keys taken"] < 10 {
		t.Errorf("too few unknown keys: %v", count)
	}
	if places < 1000 || count["taken"] < 2000 || count["refused"] < 4000 {
		t.Errorf("too little was asked: %d places, %v", places, count)
	}
}

// TestEveryFactOfQueries sends the values of every fact about a query parameter.
func TestEveryFactOfQueries(t *testing.T) {
	h := newHandler(t, everyHandler())
	count, places := map[string]int{}, 0
	for _, r := range described(t) {
		e, err := find(entry{Method: r.Method, Path: r.Path, Action: r.Action}.key())
		if err != nil {
			t.Fatal(err)
		}
		for _, minor := range startsWithin(e, source(t, e).Query) {
			s := loadSchema(t, "schemas/"+schemaName(source(t, e), "query", minor))
			send := func(q url.Values) int {
				return call(h, "admin", e.Method, target(e)+"?"+q.Encode(), body(t, e, minor), fmt.Sprintf("2.%d", minor)).Code
			}
			required := url.Values{}
			for _, name := range asList(s["required"]) {
				required.Set(name.(string), exampleParameter(s, name.(string)))
			}
			judge := func(what string, q url.Values, want bool) {
				t.Helper()
				got := send(q)
				if (got < 300) != want || !want && got != 400 {
					t.Errorf("%s at 2.%d: %s (%s): %d, want taken %v", e.key(), minor, what, q.Encode(), got, want)
				}
				count[map[bool]string{true: "taken", false: "refused"}[want]]++
			}
			with := func(name string, values ...string) url.Values {
				q := url.Values{}
				for k, v := range required {
					q[k] = v
				}
				q[name] = values
				return q
			}
			for i := range r.Query {
				d := &r.Query[i]
				if !d.at(minor) {
					continue
				}
				places++
				if d.Path == "$" {
					judge("an unknown parameter", with("no such parameter", "x"), d.Additional != false)
					continue
				}
				name, isItem := strings.CutSuffix(d.Path, "[]")
				if strings.ContainsAny(name, "{[<") {
					continue
				}
				value := exampleParameter(s, name)
				if !isItem {
					judge("one value", with(name, value), true)
					if d.MaxItems != nil {
						judge("two values", with(name, value, value), *d.MaxItems > 1)
					}
					if d.Required {
						q := with(name, value)
						q.Del(name)
						judge("no "+name, q, false)
					}
					continue
				}
				props, _ := s["properties"].(map[string]any)
				at, _ := props[name].(map[string]any)
				sub, _ := at["items"].(map[string]any)
				for _, v := range tries(d, sub) {
					text, ok := v.value.(string)
					if n, isNumber := v.value.(json.Number); isNumber {
						text, ok = n.String(), true
					}
					if ok && !strings.HasPrefix(v.about, "a value of type") {
						judge(name+" with "+v.about, with(name, text), v.want)
					}
				}
			}
		}
	}
	t.Logf("%d places of queries, values: %v", places, count)
	if places < 400 || count["taken"] < 500 || count["refused"] < 300 {
		t.Errorf("too little was asked: %d places, %v", places, count)
	}
}

// exampleParameter is a value that a query parameter takes.
func exampleParameter(s map[string]any, name string) string {
	props, _ := s["properties"].(map[string]any)
	at, _ := props[name].(map[string]any)
	sub, _ := at["items"].(map[string]any)
	if kinds, ok := sub["type"].([]any); ok && slices.Contains(kinds, any("string")) {
		if p, ok := sub["pattern"].(string); ok && regexp.MustCompile(p).MatchString("1") {
			return "1"
		}
	}
	return fmt.Sprint(example(sub))
}
