// Command gen makes what is derived from spec/compute-api.json: the route table (routes.go), the policy rules (rules.go), the JSON Schema
// files (schemas/) and the OpenAPI document (openapi.json); and for tests the schemas of answers (testdata/responses/). Run it in the repository's root or in internal/compute/api:
//
//	go run ./internal/compute/api/gen
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// The folders of generated schemas: of requests, which the service loads, and of answers, which tests compare handlers with.
const (
	bodies  = "schemas"
	answers = "testdata/responses"
)

func main() {
	dir := "."
	if _, err := os.Stat("spec"); err != nil {
		dir = filepath.Join("internal", "compute", "api")
	}
	if err := run(dir); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// run writes all files below dir and removes schema files that no longer belong.
func run(dir string) error {
	files, err := generate(dir)
	if err != nil {
		return err
	}
	for _, folder := range []string{bodies, answers} {
		old, err := filepath.Glob(filepath.Join(dir, folder, "*.json"))
		if err != nil {
			return err
		}
		for _, f := range old {
			if _, keep := files[folder+"/"+filepath.Base(f)]; !keep {
				if err := os.Remove(f); err != nil {
					return err
				}
			}
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil { //nolint:gosec // source files
			return err
		}
	}
	return nil
}

// generate gives every derived file by its name below dir.
func generate(dir string) (map[string][]byte, error) {
	b, err := os.ReadFile(filepath.Join(dir, "spec", "compute-api.json"))
	if err != nil {
		return nil, err
	}
	var s spec
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("read spec: %w", err)
	}
	files := map[string][]byte{}
	for i := range s.Routes {
		r := &s.Routes[i]
		if r.Gone {
			continue
		}
		for _, part := range []struct {
			folder, kind string
			fields       []field
		}{{bodies, "body", r.Request}, {bodies, "query", r.Query}, {answers, "resp", r.Response}} {
			if err := schemaFiles(files, r, part.folder+"/"+slug(r)+"."+part.kind, part.fields, s.Max.minor()); err != nil {
				return nil, fmt.Errorf("%s %s %s: %w", r.Method, r.Path, r.Action, err)
			}
		}
	}
	if files["routes.go"], err = routesFile(&s); err != nil {
		return nil, err
	}
	if files["rules.go"], err = rulesFile(&s); err != nil {
		return nil, err
	}
	if files["openapi.json"], err = openAPI(&s); err != nil {
		return nil, err
	}
	return files, nil
}

// schemaFiles adds one file for each range of versions in which the fields of a route say the same.
func schemaFiles(files map[string][]byte, r *route, name string, fields []field, newest int) error {
	starts, err := schemaStarts(r, fields, newest)
	if err != nil {
		return err
	}
	for _, minor := range starts {
		doc, err := schemaAt(fields, minor)
		if err != nil {
			return err
		}
		b, err := encode(doc)
		if err != nil {
			return err
		}
		files[fmt.Sprintf("%s.2.%d.json", name, minor)] = b
	}
	return nil
}

// schemaStarts lists the minors at which a route's schema changes, beginning with the route's own first. None when nothing is asked.
func schemaStarts(r *route, fields []field, newest int) ([]int, error) {
	if len(fields) == 0 {
		return nil, nil
	}
	last := newest
	if r.Until != "" {
		last = r.Until.minor()
	}
	var starts []int
	before := ""
	asks := false
	for minor := r.Since.minor(); minor <= last; minor++ {
		doc, err := schemaAt(fields, minor)
		if err != nil {
			return nil, fmt.Errorf("at 2.%d: %w", minor, err)
		}
		b, err := json.Marshal(doc)
		if err != nil {
			return nil, err
		}
		if string(b) != before {
			starts, before = append(starts, minor), string(b)
		}
		asks = asks || len(doc) > 2 // more than its type and dialect
	}
	if !asks && !(len(r.Request) > 0 && &fields[0] == &r.Request[0] && fields[0].Type == "null") { // a body that must be left out is a demand, too
		return nil, nil
	}
	return starts, nil
}

func encode(v any) ([]byte, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	err := e.Encode(v)
	return []byte(b.String()), err
}

// slug names the schema files of a route: "post-servers-id-action-rebuild".
func slug(r *route) string {
	s := strings.NewReplacer("/", "-", "{", "", "}", "").Replace(r.Method + r.Path)
	if r.Action != "" {
		s += "-" + r.Action
	}
	return strings.ToLower(s[:len(r.Method)]) + s[len(r.Method):]
}

// spec is the machine-readable description of the API.
type spec struct {
	Max      version  `json:"max_version"`
	Policies []policy `json:"policies"`
	Routes   []route  `json:"routes"`
}

type policy struct {
	Rule       string   `json:"rule"`
	Default    string   `json:"default"`
	Operations []string `json:"operations"`
	Deprecated bool     `json:"deprecated"`
}

type route struct {
	Method, Path, Action string
	Since, Until         version
	Gone                 bool   `json:"gone"`
	AliasOf              string `json:"alias_of"`
	Success              []struct {
		Code         int
		Since, Until version
		Note         string
	}
	Errors []struct {
		Codes        []int
		Since, Until version
	}
	Policies []struct {
		Rule, Note string
		Soft       bool
	}
	Request, Query, Response []field
}

// version is "2.N".
type version string

func (v version) minor() int {
	_, s, _ := strings.Cut(string(v), ".")
	n, err := strconv.Atoi(s)
	if err != nil {
		return 1
	}
	return n
}
