package api

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

// Missing lists the keys of live entries that have no handler, sorted: they answer 501.
func Missing(handlers map[string]Handler) []string {
	have := withDocuments(handlers)
	var keys []string
	for _, k := range Keys() {
		if have[k] == nil {
			keys = append(keys, k)
		}
	}
	return keys
}

// BodyFor is the smallest body that the entry of a key takes at a version, for the tests outside the package.
func BodyFor(t testing.TB, key string, minor int) string {
	t.Helper()
	e, err := find(key)
	if err != nil {
		t.Fatal(err)
	}
	return body(t, e, minor)
}

// SinceOf is the first version of a key.
func SinceOf(key string) int {
	e, err := find(key)
	if err != nil {
		return 0
	}
	return e.Since
}

// Routes lists the keys of all live entries, sorted, those that are other names of a route too.
func Routes() []string {
	keys := Keys()
	for _, e := range entries() {
		if e.AliasOf != "" {
			keys = append(keys, e.key())
		}
	}
	slices.Sort(keys)
	return keys
}

// Facts is what the tests outside the package need to know of a route.
type Facts struct {
	Same           string // key of the route that it is another name of; of itself, if it is none
	Path           string
	Borders        []int // versions at which something of it changes, from its first to its last
	Status         func(minor int) int
	Rule, RuleName string // text of its policy rule, and its name
	Object, Public bool   // see entry
	Answers        bool   // its answer is described
}

// Renamed is a path of the same route under this name.
func (f Facts) Renamed(path string) string {
	own, _, _ := strings.Cut(strings.TrimPrefix(f.Path, "/"), "/")
	if _, same, _ := strings.Cut(f.Same, " /"); !strings.HasPrefix(same, own) {
		collection, _, _ := strings.Cut(strings.Fields(same)[0], "/")
		return "/" + own + strings.TrimPrefix(path, "/"+collection)
	}
	return path
}

// FactsOf collects them from the description.
func FactsOf(t testing.TB, key string) Facts {
	t.Helper()
	e, err := find(key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("spec/compute-api.json")
	if err != nil {
		t.Fatal(err)
	}
	var spec struct{ Routes []map[string]any }
	if err := json.Unmarshal(b, &spec); err != nil {
		t.Fatal(err)
	}
	last := e.Until
	if last == 0 {
		last = Newest().Minor
	}
	same := source(t, e)
	f := Facts{Same: same.key(), Path: e.Path, Borders: []int{e.Since, last}, Status: e.status, Object: e.Object, Public: e.Public, RuleName: e.Rule}
	for _, r := range Rules() {
		if r.Name == e.Rule {
			f.Rule = r.Check
		}
	}
	for _, r := range spec.Routes {
		if r["method"] != e.Method || r["path"] != e.Path && r["path"] != same.Path || e.Action != "" && r["action"] != e.Action {
			continue
		}
		for _, part := range []string{"success", "errors", "request", "query", "response", "policies"} {
			list, _ := r[part].([]any)
			for _, v := range list {
				m, _ := v.(map[string]any)
				if part == "response" && (m["path"] != "$" || m["type"] != "null") {
					f.Answers = true
				}
				if s, ok := m["since"].(string); ok {
					f.Borders = append(f.Borders, minorOf(s)-1, minorOf(s))
				}
				if s, ok := m["until"].(string); ok {
					f.Borders = append(f.Borders, minorOf(s), minorOf(s)+1)
				}
			}
		}
	}
	slices.Sort(f.Borders)
	f.Borders = slices.DeleteFunc(slices.Compact(f.Borders), func(minor int) bool { return minor < e.Since || minor > last })
	return f
}

// AnswerPlace is a place of an answer as the description has it.
type AnswerPlace struct {
	Path string
	Null bool // it may be null
}

// AnswerPlaces reads the description and gives what lists the places of a route's answer at a version.
func AnswerPlaces(t testing.TB) func(key string, minor int) []AnswerPlace {
	t.Helper()
	routes := map[string][]demand{}
	for _, r := range described(t) {
		routes[entry{Method: r.Method, Path: r.Path, Action: r.Action}.key()] = r.Response
	}
	return func(key string, minor int) []AnswerPlace {
		var out []AnswerPlace
		for i := range routes[key] {
			if d := &routes[key][i]; d.at(minor) {
				out = append(out, AnswerPlace{d.Path, d.Type == nil || d.is("null")})
			}
		}
		return out
	}
}

// QueryNames lists the query parameters that a route knows at a version.
func QueryNames(t testing.TB, key string, minor int) []string {
	t.Helper()
	var out []string
	for _, r := range described(t) {
		if (entry{Method: r.Method, Path: r.Path, Action: r.Action}).key() != key {
			continue
		}
		for i := range r.Query {
			if d := &r.Query[i]; d.at(minor) && d.Path != "$" && !strings.ContainsAny(d.Path, "[{<") {
				out = append(out, d.Path)
			}
		}
	}
	return out
}

// ErrorCodes reads the description and gives what lists the status codes with which a route refuses at a version.
func ErrorCodes(t testing.TB) func(key string, minor int) []int {
	t.Helper()
	type codes struct {
		Codes        []int
		Since, Until string
	}
	b, err := os.ReadFile("spec/compute-api.json")
	if err != nil {
		t.Fatal(err)
	}
	var spec struct {
		Routes []struct {
			Method, Path, Action string
			Errors               []codes
		}
	}
	if err := json.Unmarshal(b, &spec); err != nil {
		t.Fatal(err)
	}
	routes := map[string][]codes{}
	for _, r := range spec.Routes {
		routes[entry{Method: r.Method, Path: r.Path, Action: r.Action}.key()] = r.Errors
	}
	return func(key string, minor int) []int {
		var out []int
		for _, c := range routes[key] {
			if (fact{Since: c.Since, Until: c.Until}).at(minor) {
				out = append(out, c.Codes...)
			}
		}
		return out
	}
}
