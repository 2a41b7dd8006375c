package api

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// samplesDir is where the published samples of the API lie, outside of this repository.
const samplesDir = "../../../../shared/spec/api_samples/placement"

// sample is one published body.
type sample struct {
	doc   any
	first int // the first version whose shape it has, by its name; -1 when the name has none
}

// dynamic are keys that name things: UUIDs, classes, traits, consumer types, suffixes.
var dynamic = regexp.MustCompile(`^([0-9a-f-]{36}|[A-Z0-9_]*|_NET[0-9]|unknown)$`)

// shape is a document without its values: what keys and types it has. Objects whose keys name things become {"*": shape of all values}; what a
// link is of (rel) is kept.
func shape(v any) any {
	switch v := v.(type) {
	case map[string]any:
		if rel, ok := v["rel"].(string); ok {
			return "link " + rel
		}
		out := map[string]any{}
		for k, e := range v {
			if dynamic.MatchString(k) {
				k = "*"
			}
			out[k] = join(out[k], shape(e))
		}
		return out
	case []any:
		var all any
		var links []any
		for _, e := range v {
			s := shape(e)
			if text, ok := s.(string); ok && strings.HasPrefix(text, "link ") {
				links = append(links, s)
			} else {
				all = join(all, s)
			}
		}
		if links != nil {
			return normal(links)
		}
		return []any{all}
	case string:
		return "string"
	case float64:
		return "number"
	}
	return nil // null goes with anything
}

func join(a, b any) any {
	if a == nil {
		return b
	}
	x, ok1 := a.(map[string]any)
	y, ok2 := b.(map[string]any)
	if ok1 && ok2 {
		for k, e := range y {
			x[k] = join(x[k], e)
		}
		return x
	}
	if l, ok := b.([]any); ok && len(l) == 1 {
		if k, ok := a.([]any); ok && len(k) == 1 {
			return []any{join(k[0], l[0])}
		}
	}
	return a
}

var hrefRoot = regexp.MustCompile(`^.*/(resource_(providers|classes)/)`)

// normal is a document in which only what the API promises can differ: lists without order, links without what is before the resource's name.
func normal(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			if s, ok := e.(string); ok && k == "href" {
				e = hrefRoot.ReplaceAllString(s, "$1")
			}
			out[k] = normal(e)
		}
		return out
	case []any:
		out := make([]any, 0, len(v))
		for _, e := range v {
			out = append(out, normal(e))
		}
		text := func(v any) string { b, _ := json.Marshal(v); return string(b) }
		slices.SortFunc(out, func(a, b any) int { return strings.Compare(text(a), text(b)) })
		return out
	}
	return v
}

var versioned = regexp.MustCompile(`-1\.(\d+)$`)

// samples reads every published sample that the index names, by its name without the ending.
func samples(t *testing.T) map[string]sample {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(samplesDir, "index.json"))
	if err != nil {
		t.Skipf("the published samples are not at %s: %v", samplesDir, err)
	}
	var index []struct{ File string }
	if err := json.Unmarshal(raw, &index); err != nil {
		t.Fatal(err)
	}
	out := map[string]sample{}
	for _, e := range index {
		raw, err := os.ReadFile(filepath.Join(samplesDir, e.File))
		if err != nil {
			t.Fatal(err)
		}
		s := sample{first: -1}
		if err := json.Unmarshal(raw, &s.doc); err != nil {
			t.Fatalf("%s: %v", e.File, err)
		}
		name := strings.TrimSuffix(e.File, ".json")
		if m := versioned.FindStringSubmatch(name); m != nil {
			s.first, _ = strconv.Atoi(m[1])
		}
		out[name] = s
	}
	return out
}

// TestSamples sends every published request as it stands, in a cloud that has the things it names, and gets every published answer, with the
// same values wherever the published ones can be had. Answers to GET are asked at every version that has the sample's shape, writes at the first
// and the last.
func TestSamples(t *testing.T) {
	all, table := samples(t), uses()
	for name := range table {
		if _, ok := all[name]; !ok {
			t.Errorf("there is no sample %s", name)
		}
	}
	matched := 0
	for name, s := range all {
		u, ok := table[name]
		if !ok {
			t.Errorf("nothing sends or answers %s", name)
			continue
		}
		if s.first >= 0 {
			u.first = s.first
		}
		if t.Run(name, func(t *testing.T) { u.play(t, s.doc) }) {
			matched++
		}
	}
	t.Logf("%d of %d samples sent or matched", matched, len(all))
}

func (u use) play(t *testing.T, doc any) {
	prepared := func() *cloud {
		c := start(t).as("admin")
		if u.build != nil {
			u.build(c)
		}
		return c
	}
	if u.method == "GET" {
		c := prepared()
		for minor := u.first; minor <= u.last; minor++ {
			u.once(c.at(minor), doc)
		}
		return
	}
	for _, minor := range slices.Compact([]int{u.first, u.last}) {
		u.once(prepared().at(minor), doc)
	}
}

// once sends the request or gets the answer at one version.
func (u use) once(c *cloud, doc any) {
	t := c.t
	body, status := u.body, max(u.status, 200)
	if u.sent {
		body = doc
		if u.amend != nil {
			u.amend(doc)
		}
	}
	asker := c
	if u.path == "/reshaper" {
		asker = c.as("service")
	}
	a := asker.must(status, u.method, u.path, body)
	switch {
	case u.sent:
		u.check(c.at(newest), doc)
	case u.alike != "":
		if d := cmp.Diff(shape(doc), shape(any(a.body))); d != "" {
			t.Errorf("shape at 1.%d (-sample +answer):\n%s", c.minor, d)
		}
	default:
		if d := cmp.Diff(normal(doc), normal(any(a.body))); d != "" {
			t.Errorf("at 1.%d (-sample +answer):\n%s", c.minor, d)
		}
	}
}
