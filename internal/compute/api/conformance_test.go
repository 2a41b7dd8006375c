package api

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"

	"kilonova/internal/httpapi"
)

// The tests of this file walk the whole table over HTTP with handlers that always succeed: what they see is the framework's judgement.

func everyHandler() map[string]Handler {
	all := map[string]Handler{}
	for _, k := range Keys() {
		if k != "GET /" && k != "GET /versions/{id}" {
			all[k] = func(*httpapi.Request) (*httpapi.Reply, error) { return &httpapi.Reply{}, nil }
		}
	}
	return all
}

var variable = regexp.MustCompile(`\{[^}]+\}`)

// target is a path that an entry matches.
func target(e entry) string {
	return versionRoot + strings.ReplaceAll(variable.ReplaceAllString(e.Path, "v2.1"), "//", "/")
}

// source is the entry that schemas come from.
func source(t testing.TB, e entry) entry {
	t.Helper()
	if e.AliasOf == "" {
		return e
	}
	s, err := find(e.AliasOf)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// body is a body that the entry must take at a version.
func body(t testing.TB, e entry, minor int) string {
	t.Helper()
	s := source(t, e)
	if len(s.Body) == 0 {
		if e.Action != "" {
			return fmt.Sprintf(`{%q: null}`, e.Action)
		}
		return ""
	}
	doc := example(loadSchema(t, "schemas/"+schemaName(s, "body", start(s.Body, minor))))
	if m, ok := doc.(map[string]any); ok && e.Action != "" && m[e.Action] == nil {
		m[e.Action] = nil
	}
	return encoded(t, doc)
}

func encoded(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func start(starts []int, minor int) int {
	i := sort.SearchInts(starts, minor+1) - 1
	return starts[max(i, 0)]
}

func loadSchema(t testing.TB, name string) map[string]any {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// example makes the smallest document that a schema takes.
func example(s map[string]any) any {
	for _, key := range []string{"oneOf", "anyOf"} {
		if list, ok := s[key].([]any); ok {
			merged := map[string]any{}
			for k, v := range s {
				if k != key {
					merged[k] = v
				}
			}
			for k, v := range list[0].(map[string]any) {
				if k == "required" && merged[k] != nil {
					v = append(slices.Clone(merged[k].([]any)), v.([]any)...)
				}
				merged[k] = v
			}
			return example(merged)
		}
	}
	if list, ok := s["allOf"].([]any); ok {
		return example(list[len(list)-1].(map[string]any))
	}
	if e, ok := s["enum"].([]any); ok {
		return e[0]
	}
	kind := s["type"]
	if list, ok := kind.([]any); ok {
		kind = list[0]
	}
	switch kind {
	case "object":
		return exampleObject(s)
	case "array":
		return exampleArray(s)
	case "string":
		return exampleString(s)
	case "integer", "number":
		if m, ok := s["minimum"].(float64); ok {
			return max(m, 1)
		}
		return 1
	case "boolean":
		return true
	}
	return nil
}

func exampleObject(s map[string]any) any {
	out := map[string]any{}
	props, _ := s["properties"].(map[string]any)
	required, _ := s["required"].([]any)
	for _, name := range required {
		out[name.(string)] = example(props[name.(string)].(map[string]any))
	}
	if n, _ := s["minProperties"].(float64); n > float64(len(out)) {
		for _, p := range s["patternProperties"].(map[string]any) {
			out["key"] = example(p.(map[string]any))
		}
	}
	return out
}

func exampleArray(s map[string]any) any {
	item, _ := s["items"].(map[string]any)
	if list, ok := s["prefixItems"].([]any); ok {
		item = list[0].(map[string]any)
	}
	n, _ := s["minItems"].(float64)
	out := []any{}
	for range int(n) {
		out = append(out, example(item))
	}
	return out
}

func exampleString(s map[string]any) any {
	switch s["format"] {
	case "uuid":
		return "5f3c6b5e-0d5c-4d6a-9a56-0b9b1f6f2f10"
	case "ipv4":
		return "192.0.2.1"
	case "ipv6":
		return "2001:db8::1"
	case "cidr":
		return "192.0.2.0/24"
	case "date-time":
		return "2026-01-02T03:04:05Z"
	case "base64":
		return "aGk="
	}
	pattern, ok := s["pattern"].(string)
	if !ok {
		return "aaa"
	}
	re := regexp.MustCompile(pattern)
	for _, try := range []string{"aaa", "1", "/dev/vdb", "/0"} {
		if re.MatchString(try) {
			return try
		}
	}
	panic("no example for the pattern " + pattern)
}

// TestEveryRouteAtEveryBorder asks each entry one version below, at and above its range.
func TestEveryRouteAtEveryBorder(t *testing.T) {
	h := newHandler(t, everyHandler())
	reached := 0
	for _, e := range entries() {
		last := Newest().Minor
		if e.Until > 0 {
			last = e.Until
		}
		for minor, want := range map[int]bool{e.Since - 1: false, e.Since: true, last: true, last + 1: false} {
			if minor < 1 || minor > Newest().Minor {
				continue
			}
			w := call(h, "admin", e.Method, target(e), body(t, e, min(max(minor, e.Since), last)), fmt.Sprintf("2.%d", minor))
			status := 404
			if want {
				status = source(t, e).status(minor)
				if e.Gone {
					status = 410
					if e.Action == "os-getRDPConsole" {
						status = 400
					}
				}
			} else if hasTwin(e, minor) {
				continue
			}
			if w.Code != status {
				t.Errorf("%s at 2.%d: got %d %s, want %d", e.key(), minor, w.Code, w.Body, status)
			}
			reached++
		}
	}
	if reached < 500 {
		t.Errorf("only %d borders were asked", reached)
	}
}

// hasTwin tells whether another entry takes the same request at a version ("/os-hypervisors/{id}" takes "/os-hypervisors/statistics").
func hasTwin(e entry, minor int) bool {
	for _, o := range entries() {
		if o.key() == e.key() || o.Method != e.Method || o.Action != e.Action || minor < o.Since || o.Until > 0 && minor > o.Until {
			continue
		}
		a, b := strings.Split(e.Path, "/"), strings.Split(o.Path, "/")
		same := len(a) == len(b)
		for i := 0; same && i < len(a); i++ {
			same = a[i] == b[i] || strings.HasPrefix(b[i], "{")
		}
		if same {
			return true
		}
	}
	return false
}

// TestUnknownKeysAreRefused adds a key to each body object that is closed.
func TestUnknownKeysAreRefused(t *testing.T) {
	h := newHandler(t, everyHandler())
	refused := 0
	for _, e := range entries() {
		for _, minor := range source(t, e).Body {
			if e.Gone || minor < e.Since || e.Until > 0 && minor > e.Until {
				continue
			}
			s := loadSchema(t, "schemas/"+schemaName(source(t, e), "body", minor))
			if s["type"] == "null" {
				continue
			}
			doc, ok := example(s).(map[string]any)
			if !ok {
				t.Fatalf("%s: the body is no object", e.key())
			}
			for key, value := range doc {
				inner, ok := value.(map[string]any)
				props, _ := s["properties"].(map[string]any)
				sub, _ := props[key].(map[string]any)
				if !ok || sub["additionalProperties"] != false || sub["patternProperties"] != nil {
					continue
				}
				inner["no such key"] = 1
				w := call(h, "admin", e.Method, target(e), encoded(t, doc), fmt.Sprintf("2.%d", minor))
				if w.Code != 400 || !strings.Contains(w.Body.String(), "'no such key' was unexpected") {
					t.Errorf("%s at 2.%d took an unknown key in %s: %d %s", e.key(), minor, key, w.Code, w.Body)
				}
				delete(inner, "no such key")
				refused++
			}
		}
	}
	if refused < 100 {
		t.Errorf("only %d objects were tried", refused)
	}
}

// fact is what the description says about a place of a body.
type fact struct {
	Path         string
	Since, Until string
}

func (f fact) at(minor int) bool {
	return (f.Since == "" || minorOf(f.Since) <= minor) && (f.Until == "" || minor <= minorOf(f.Until))
}

func minorOf(v string) int {
	var n int
	if _, err := fmt.Sscanf(v, "2.%d", &n); err != nil {
		return 1
	}
	return n
}

// TestFieldsAtTheirBorders sends each body field that comes or goes, however deep, one version below, at and above its range.
func TestFieldsAtTheirBorders(t *testing.T) {
	h := newHandler(t, everyHandler())
	tried := map[string]int{}
	for _, r := range described(t) {
		e, err := find(entry{Method: r.Method, Path: r.Path, Action: r.Action}.key())
		if err != nil {
			t.Fatal(err)
		}
		for i := range r.Request {
			f := &r.Request[i]
			if f.Path == "$" || f.Since == "" && f.Until == "" {
				continue
			}
			way := hops(f.Path)
			if last := way[len(way)-1]; last.kind != "key" || last.name == e.Action {
				continue // a new kind of value: TestEveryFactOfRequests
			}
			borders := []int{minorOf(f.Since) - 1, minorOf(f.Since)}
			if f.Until != "" {
				borders = append(borders, minorOf(f.Until), minorOf(f.Until)+1)
			}
			for _, minor := range borders {
				if minor < e.Since || minor > Newest().Minor || e.Until > 0 && minor > e.Until {
					continue
				}
				want := slices.ContainsFunc(r.Request, func(o demand) bool { return o.Path == f.Path && o.at(minor) })
				inside := minor
				if !want {
					inside = minorOf(f.Since)
				}
				if f.Until != "" && inside > minorOf(f.Until) {
					inside = minorOf(f.Until)
				}
				doc, ok := withField(t, e, minor, max(inside, e.Since), way)
				if !ok {
					continue // what it would stand in is not there
				}
				w := call(h, "admin", e.Method, target(e), doc, fmt.Sprintf("2.%d", minor))
				if got := w.Code < 300; got != want {
					t.Errorf("%s at 2.%d with %s (%s): got %d %s, want accepted %v", e.key(), minor, f.Path, doc, w.Code, w.Body, want)
				}
				tried[fmt.Sprint(want, " at depth ", min(len(way), 3))]++
			}
		}
	}
	t.Logf("borders by whether the field is there: %v", tried)
	if tried["true at depth 2"] < 100 || tried["false at depth 2"] < 50 || tried["true at depth 3"] < 10 || tried["false at depth 3"] < 5 || tried["true at depth 1"] < 3 {
		t.Errorf("only these borders were tried: %v", tried)
	}
}

// withField is the smallest body at minor plus one field as it is at the version inside.
func withField(t *testing.T, e entry, minor, inside int, way []hop) (string, bool) {
	t.Helper()
	of := source(t, e)
	schema := loadSchema(t, "schemas/"+schemaName(of, "body", start(of.Body, minor)))
	donor := loadSchema(t, "schemas/"+schemaName(of, "body", start(of.Body, inside)))
	var field map[string]any
	if _, ok := place(donor, example(donor), way, func(at map[string]any) any { field = at; return nil }); !ok {
		return "", false
	}
	parents, name := way[:len(way)-1], way[len(way)-1].name
	base := example(schema)
	if len(parents) == 0 {
		base.(map[string]any)[name] = example(field)
		return encoded(t, base), true
	}
	closed := true
	doc, ok := place(schema, base, parents, func(at map[string]any) any {
		m, isObject := example(at).(map[string]any)
		if !isObject { // at this version the parent may be anything
			closed = false
			return nil
		}
		m[name] = example(field)
		return m
	})
	return encoded(t, doc), ok && closed
}

// TestPolicyOfEveryRoute asks each live entry whose rule the framework asks as every kind of caller. What a role may do follows from the
// default rule's own words.
func TestPolicyOfEveryRoute(t *testing.T) {
	h := newHandler(t, everyHandler())
	checks := map[string]string{}
	for _, r := range Rules() {
		checks[r.Name] = r.Check
	}
	may := map[string][]string{
		"":                              {"admin", "manager", "member", "reader", "service", "none"},
		"@":                             {"admin", "manager", "member", "reader", "service", "none"},
		"rule:context_is_admin":         {"admin"},
		"rule:project_manager_or_admin": {"admin", "manager"},
		"rule:project_member_or_admin":  {"admin", "manager", "member"},
		"rule:project_reader_or_admin":  {"admin", "manager", "member", "reader"},
		"rule:service_or_admin":         {"admin", "service"},
		"(rule:context_is_admin) or user_id:%(user_id)s": {"admin", "manager", "member", "reader", "service", "none"},
	}
	for _, e := range entries() {
		if e.Gone {
			continue
		}
		minor := e.Since
		doc := body(t, e, minor)
		if w := call(h, "", e.Method, target(e), doc, fmt.Sprintf("2.%d", minor)); (w.Code == 401) == e.Public {
			t.Errorf("%s without token: %d", e.key(), w.Code)
		}
		allowed, ok := may[checks[e.Rule]]
		if !ok {
			t.Fatalf("%s: rule %s has an unexpected default %q", e.key(), e.Rule, checks[e.Rule])
		}
		for _, token := range []string{"admin", "manager", "member", "reader", "service", "none"} {
			if e.Object {
				break // TestEveryRouteOfAWholeCloud asks those of real handlers
			}
			w := call(h, token, e.Method, target(e), doc, fmt.Sprintf("2.%d", minor))
			if got := w.Code != 403; got != slices.Contains(allowed, token) {
				t.Errorf("%s as %s: %d", e.key(), token, w.Code)
			}
		}
	}
}

// faultySamples are published samples that the API itself would refuse at their version, each with the reason.
var faultySamples = map[string]string{
	"os-keypairs/v2.92/keypairs-post-req.json":                "has no public_key, which 2.92 demands",
	"os-server-external-events/event-create-req.json":         "has an event name that never existed",
	"servers/v2.90/server-create-req.json":                    "has personality, which ended with 2.56, and no networks",
	"servers/v2.94/server-create-req.json":                    "has personality, which ended with 2.56, and no networks",
	"os-hypervisors/hypervisors-with-servers-resp.json":       "belongs to …/{id}/servers, not to the list",
	"os-hypervisors/v2.28/hypervisors-with-servers-resp.json": "belongs to …/{id}/servers, not to the list",
	"versions/versions-get-resp.json":                         "belongs to the service's root, not to /v2.1",
}

// TestSamplesAreAccepted validates the published request samples from their version up to the one that replaces them.
func TestSamplesAreAccepted(t *testing.T) {
	dir := filepath.Join("..", "..", "..", "..", "shared", "spec", "api_samples")
	b, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Skipf("no API samples: %v", err)
	}
	var index []struct {
		File, Microversion, Kind, Action string
		Routes                           []string
	}
	if err := json.Unmarshal(b, &index); err != nil {
		t.Fatal(err)
	}
	tried := map[string]int{}
	for _, s := range index {
		if s.Kind != "request" && s.Kind != "response" || faultySamples[s.File] != "" || strings.HasPrefix(s.File, "placement/") {
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, s.File))
		if err != nil {
			t.Fatal(err)
		}
		doc, err := httpapi.DecodeJSON(content)
		if err != nil {
			continue // a sample with a placeholder
		}
		for _, route := range s.Routes {
			e, ok := match(route, s.Action)
			if !ok || e.Gone {
				continue
			}
			file := sampleSchema(e, s.Kind, minorOf(s.Microversion))
			if file == "" {
				continue
			}
			schema, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			sch, err := httpapi.CompileSchema(filepath.Base(file), schema)
			if err != nil {
				t.Fatal(err)
			}
			if err := sch.Validate(doc); err != nil {
				t.Errorf("%s is refused by %s: %v", s.File, file, err)
			}
			tried[s.Kind]++
		}
	}
	t.Logf("samples: %v", tried)
	if tried["request"] < 150 || tried["response"] < 250 {
		t.Errorf("too few samples were tried: %v", tried)
	}
}

// match finds the entry of a sample's route, whose variables have other names.
func match(route, action string) (entry, bool) {
	norm := func(s string) string { return variable.ReplaceAllString(s, "{}") }
	for _, e := range entries() {
		if e.AliasOf == "" && norm(e.Method+" "+e.Path) == norm(route) && e.Action == action {
			return e, true
		}
	}
	return entry{}, false
}

func sampleSchema(e entry, kind string, minor int) string {
	if minor < e.Since || e.Until > 0 && minor > e.Until {
		return ""
	}
	if kind == "request" {
		if len(e.Body) == 0 {
			return ""
		}
		return "schemas/" + schemaName(e, "body", start(e.Body, minor))
	}
	for m := minor; m >= 1; m-- {
		file := "testdata/responses/" + schemaName(e, "resp", m)
		if _, err := os.Stat(file); err == nil {
			return file
		}
	}
	return ""
}

// TestSchemasCompile loads every file, those of answers too.
func TestSchemasCompile(t *testing.T) {
	n := 0
	for _, pattern := range []string{"schemas/*.json", "testdata/responses/*.json"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := httpapi.CompileSchema(filepath.Base(f), b); err != nil {
				t.Error(err)
			}
			n++
		}
	}
	if n < 500 {
		t.Fatalf("only %d files", n)
	}
}

// BenchmarkStart is what the service costs a start: table, policy and routes, without compiling schemas.
func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		newHandler(b, nil)
	}
}

// BenchmarkCreateBody is the framework's part of POST /servers: token, version, policy, body, schema.
func BenchmarkCreateBody(b *testing.B) {
	h := newHandler(b, everyHandler())
	const doc = `{"server":{"name":"n","imageRef":"5f3c6b5e-0d5c-4d6a-9a56-0b9b1f6f2f10","flavorRef":"1","networks":[{"uuid":"5f3c6b5e-0d5c-4d6a-9a56-0b9b1f6f2f10"}],` +
		`"metadata":{"a":"b"},"key_name":"k","min_count":1,"max_count":1}}`
	b.ReportAllocs()
	for b.Loop() {
		if w := call(h, "member", "POST", "/v2.1/servers", doc, "2.79"); w.Code != 202 {
			b.Fatal(w.Code, w.Body)
		}
	}
}
