package api

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"kilonova/internal/httpapi"
)

// openAPIForm is what OpenAPI 3.1 demands of the parts that the document has: each object's fields, those that must be there, and no others
// but extensions.
const openAPIForm = `{
 "$schema": "https://json-schema.org/draft/2020-12/schema",
 "type": "object", "required": ["openapi", "info", "paths"], "unevaluatedProperties": false, "$ref": "#/$defs/extensible",
 "properties": {
  "openapi": {"type": "string", "pattern": "^3\\.1\\.[0-9]+$"},
  "info": {"type": "object", "required": ["title", "version"], "additionalProperties": {"type": "string"}},
  "servers": {"type": "array", "items": {"type": "object", "required": ["url"], "additionalProperties": {"type": "string"}}},
  "paths": {"type": "object", "propertyNames": {"pattern": "^/"}, "additionalProperties": {"$ref": "#/$defs/item"}},
  "security": {"$ref": "#/$defs/security"},
  "components": {"type": "object", "properties": {"securitySchemes": {"type": "object", "additionalProperties": {"type": "object", "required": ["type", "in", "name"],
   "properties": {"type": {"const": "apiKey"}, "in": {"enum": ["query", "header", "cookie"]}, "name": {"type": "string"}}, "additionalProperties": false}}}, "additionalProperties": false}
 },
 "$defs": {
  "extensible": {"patternProperties": {"^x-": true}},
  "security": {"type": "array", "items": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}}},
  "item": {"type": "object", "minProperties": 1, "propertyNames": {"enum": ["get", "put", "post", "delete", "patch", "head", "options"]}, "additionalProperties": {"$ref": "#/$defs/operation"}},
  "operation": {"type": "object", "required": ["operationId", "responses"], "unevaluatedProperties": false, "$ref": "#/$defs/extensible", "properties": {
   "operationId": {"type": "string", "minLength": 1}, "summary": {"type": "string"}, "description": {"type": "string"}, "security": {"$ref": "#/$defs/security"},
   "parameters": {"type": "array", "uniqueItems": true, "items": {"$ref": "#/$defs/parameter"}},
   "requestBody": {"type": "object", "required": ["content"], "properties": {"required": {"type": "boolean"}, "content": {"$ref": "#/$defs/content"}}, "additionalProperties": false},
   "responses": {"type": "object", "minProperties": 1, "propertyNames": {"pattern": "^[1-5][0-9][0-9]$"}, "additionalProperties": {"type": "object", "required": ["description"],
    "properties": {"description": {"type": "string"}, "content": {"$ref": "#/$defs/content"}}, "additionalProperties": false}}}},
  "parameter": {"type": "object", "required": ["name", "in", "schema"], "properties": {"name": {"type": "string"}, "in": {"enum": ["path", "query", "header"]}, "required": {"type": "boolean"},
    "schema": {"type": ["object", "boolean"]}}, "additionalProperties": false,
   "if": {"properties": {"in": {"const": "path"}}}, "then": {"required": ["required"], "properties": {"required": {"const": true}}}},
  "content": {"type": "object", "minProperties": 1, "additionalProperties": {"type": "object", "required": ["schema"], "properties": {"schema": {"type": ["object", "boolean"]}}, "additionalProperties": false}}
 }
}`

// served gives the document as clients get it, after it has been judged by its form.
func served(t *testing.T) map[string]any {
	t.Helper()
	w := call(newHandler(t, nil), "", "GET", "/openapi.json", "", "")
	if w.Code != 200 || w.Header().Get("Content-Type") != "application/json" {
		t.Fatal(w.Code, w.Header())
	}
	form, err := httpapi.CompileSchema("openapi", []byte(openAPIForm))
	if err != nil {
		t.Fatal(err)
	}
	v, err := httpapi.DecodeJSON(w.Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if err := form.Validate(v); err != nil {
		t.Fatal(err)
	}
	return v.(map[string]any)
}

// TestOpenAPI judges the served document: its form, its schemas by the rules of JSON Schema, its path variables, operation ids and templates.
func TestOpenAPI(t *testing.T) {
	seen, templates, schemas := map[string]bool{}, map[string]string{}, 0
	compile := func(where string, schema any) {
		b, err := json.Marshal(schema)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := httpapi.CompileSchema("s", b); err != nil {
			t.Errorf("%s: %v", where, err)
		}
		schemas++
	}
	for path, item := range served(t)["paths"].(map[string]any) {
		same := variable.ReplaceAllString(path, "{}")
		if other := templates[same]; other != "" {
			t.Errorf("%s and %s are the same path", path, other)
		}
		templates[same] = path
		for method, o := range item.(map[string]any) {
			op, where := o.(map[string]any), method+" "+path
			id := op["operationId"].(string)
			if seen[id] {
				t.Errorf("operationId %s stands twice", id)
			}
			seen[id] = true
			want := len(variable.FindAllString(path, -1))
			for _, p := range asList(op["parameters"]) {
				m := p.(map[string]any)
				if m["in"] == "path" {
					want--
					if !strings.Contains(path, fmt.Sprintf("{%s}", m["name"])) {
						t.Errorf("%s has no variable %s", where, m["name"])
					}
				}
				compile(where+" "+m["name"].(string), m["schema"])
			}
			if want != 0 {
				t.Errorf("%s: path variables and parameters differ", where)
			}
			if s := contentOf(op["requestBody"]); s != nil {
				compile(where+" body", s)
			}
			for code, r := range op["responses"].(map[string]any) {
				if s := contentOf(r); s != nil {
					compile(where+" "+code, s)
				}
			}
		}
	}
	t.Logf("%d operations, %d schemas", len(seen), schemas)
	if len(seen) < 150 || schemas < 500 {
		t.Errorf("only %d operations with %d schemas", len(seen), schemas)
	}
}

// contentOf is the schema of a body, nil when there is none.
func contentOf(v any) any {
	m, _ := v.(map[string]any)
	content, _ := m["content"].(map[string]any)
	media, _ := content["application/json"].(map[string]any)
	return media["schema"]
}

// TestOpenAPIHasEveryRoute holds the served document against the table of routes: versions, policy, schemas, success.
func TestOpenAPIHasEveryRoute(t *testing.T) {
	paths := served(t)["paths"].(map[string]any)
	routes := map[string]describedRoute{}
	for _, r := range described(t) {
		routes[entry{Method: r.Method, Path: r.Path, Action: r.Action}.key()] = r
	}
	live := 0
	for _, e := range entries() {
		path := strings.TrimSuffix(versionRoot+e.Path, "/")
		item, _ := paths[path].(map[string]any)
		op, has := item[strings.ToLower(e.Method)].(map[string]any)
		if e.Gone || e.AliasOf != "" {
			if has && e.Action == "" {
				t.Errorf("%s is in the document", e.key())
			}
			continue
		}
		if !has {
			t.Errorf("%s is not in the document", e.key())
			continue
		}
		live++
		about := op
		if e.Action != "" {
			actions, _ := op["x-openstack-actions"].(map[string]any)
			if about, has = actions[e.Action].(map[string]any); !has {
				t.Errorf("%s is not among the actions of the document", e.key())
				continue
			}
		}
		last := Newest().Minor
		if e.Until > 0 {
			last = e.Until
		}
		if got, want := fmt.Sprint(about["x-openstack-min-version"], about["x-openstack-max-version"]), fmt.Sprintf("2.%d2.%d", e.Since, last); got != want {
			t.Errorf("%s: versions %s, want %s", e.key(), got, want)
		}
		if rule, _ := about["x-openstack-policy"].(string); rule != e.Rule {
			t.Errorf("%s: policy %q, want %q", e.key(), rule, e.Rule)
		}
		if got, want := contentOf(op["requestBody"]) != nil, len(e.Body) > 0 || e.Action != ""; got != want && routes[e.key()].Request == nil {
			t.Errorf("%s: a schema of the body %v, want %v", e.key(), got, want)
		}
		response := contentOf(op["responses"].(map[string]any)[fmt.Sprint(e.status(last))])
		if e.status(last) == 0 || op["responses"].(map[string]any)[fmt.Sprint(e.status(last))] == nil {
			t.Errorf("%s: success %d is not in the document", e.key(), e.status(last))
		}
		answers := false
		for i := range routes[e.key()].Response {
			d := &routes[e.key()].Response[i]
			answers = answers || d.at(last) && !(d.Path == "$" && d.Type == "null")
		}
		if answers && response == nil && e.status(last) != 204 {
			t.Errorf("%s: no schema of the answer", e.key())
		}
	}
	if live != len(Keys()) {
		t.Errorf("%d routes in the document, %d in the table", live, len(Keys()))
	}
}
