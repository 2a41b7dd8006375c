package api

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"kilonova/internal/httpapi"
)

// checkAnswer compares the body of a handler's answer with the description of the API: key as in Keys, minor the microversion. Tests of
// handlers and views call it.
func checkAnswer(t testing.TB, key string, minor int, body []byte) {
	t.Helper()
	if err := judgeAnswer(key, minor, body); err != nil {
		t.Errorf("%s at 2.%d: %v in %.2000s", key, minor, err, body)
	}
}

func judgeAnswer(key string, minor int, body []byte) error {
	e, err := find(key)
	if err != nil {
		return err
	}
	file := sampleSchema(e, "response", minor)
	if file == "" {
		return fmt.Errorf("the description has no answer")
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	s, err := httpapi.CompileSchema(filepath.Base(file), b)
	if err != nil {
		return err
	}
	doc, err := httpapi.DecodeJSON(body)
	if err != nil {
		return err
	}
	return s.Validate(doc)
}

func TestCheckAnswer(t *testing.T) {
	checkAnswer(t, "GET /os-keypairs", 1, []byte(`{"keypairs":[{"keypair":{"name":"k","public_key":"ssh-rsa AAAA","fingerprint":"00:11"}}]}`))
	for name, c := range map[string]struct {
		key, body string
	}{
		"missing key":   {"GET /os-keypairs", `{"keypairs":[{"keypair":{"name":"k"}}]}`},
		"unknown key":   {"GET /os-keypairs", `{"keypairs":[],"x":1}`},
		"unknown route": {"GET /aliens", `{}`},
	} {
		if judgeAnswer(c.key, 1, []byte(c.body)) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestVersionDocuments(t *testing.T) {
	h := newHandler(t, nil)
	for _, c := range []struct {
		path string
		code int
		want string
	}{
		{"/", 200, `{"versions":[{"id":"v2.0","status":"DEPRECATED","version":"","min_version":"","updated":"2011-01-21T11:33:21Z",` +
			`"links":[{"rel":"self","href":"http://example.com/v2/"}]},{"id":"v2.1","status":"CURRENT","version":"2.104","min_version":"2.1",` +
			`"updated":"2013-07-23T11:33:21Z","links":[{"rel":"self","href":"http://example.com/v2.1/"}]}]}`},
		{"/v2.1/", 200, `{"version":{"id":"v2.1","status":"CURRENT","version":"2.104","min_version":"2.1","updated":"2013-07-23T11:33:21Z",` +
			`"links":[{"rel":"self","href":"http://example.com/v2.1/"},{"rel":"describedby","type":"text/html","href":"http://docs.openstack.org/"}],` +
			`"media-types":[{"base":"application/json","type":"application/vnd.openstack.compute+json;version=2.1"}]}}`},
		{"/v2", 200, `{"version":{"id":"v2.0","status":"DEPRECATED","version":"","min_version":"","updated":"2011-01-21T11:33:21Z",` +
			`"links":[{"rel":"self","href":"http://example.com/v2/"},{"rel":"describedby","type":"text/html","href":"http://docs.openstack.org/"}],` +
			`"media-types":[{"base":"application/json","type":"application/vnd.openstack.compute+json;version=2"}]}}`},
		{"/elsewhere", 300, `{"choices":[{"id":"v2.0","status":"SUPPORTED","links":[{"rel":"self","href":"http://example.com/v2/elsewhere"}],` +
			`"media-types":[{"base":"application/json","type":"application/vnd.openstack.compute+json;version=2"}]},{"id":"v2.1","status":"CURRENT",` +
			`"links":[{"rel":"self","href":"http://example.com/v2.1/elsewhere"}],` +
			`"media-types":[{"base":"application/json","type":"application/vnd.openstack.compute+json;version=2.1"}]}]}`},
	} {
		w := call(h, "", "GET", c.path, "", "")
		if w.Code != c.code || w.Body.String() != c.want {
			t.Errorf("%s: %d\n got %s\nwant %s", c.path, w.Code, w.Body, c.want)
		}
	}
	checkAnswer(t, "GET /", 1, call(h, "", "GET", "/v2.1", "", "").Body.Bytes())
	for id, code := range map[string]int{"v2.1": 200, "v2.0": 200, "v3": 404} {
		if w := call(h, "reader", "GET", "/v2.1/versions/"+id, "", ""); w.Code != code {
			t.Errorf("versions/%s: %d", id, w.Code)
		}
	}
}

func TestOpenAPI(t *testing.T) {
	h := newHandler(t, nil)
	w := call(h, "", "GET", "/openapi.json", "", "")
	if w.Code != 200 {
		t.Fatal(w.Code)
	}
	v, err := httpapi.DecodeJSON(w.Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	doc := v.(map[string]any)
	if doc["openapi"] != "3.1.0" {
		t.Error(doc["openapi"])
	}
	paths := doc["paths"].(map[string]any)
	seen := map[string]bool{}
	for path, item := range paths {
		for method, o := range item.(map[string]any) {
			op := o.(map[string]any)
			id := op["operationId"].(string)
			if seen[id] {
				t.Errorf("operationId %s stands twice", id)
			}
			seen[id] = true
			if len(op["responses"].(map[string]any)) == 0 {
				t.Errorf("%s %s has no responses", method, path)
			}
			want := len(variable.FindAllString(path, -1))
			for _, p := range asList(op["parameters"]) {
				if p.(map[string]any)["in"] == "path" {
					want--
				}
			}
			if want != 0 {
				t.Errorf("%s %s: path variables and parameters differ", method, path)
			}
		}
	}
	for _, e := range entries() {
		path := versionRoot + e.Path
		if e.Path == "/" {
			path = versionRoot
		}
		item, _ := paths[path].(map[string]any)
		_, has := item[lower(e.Method)]
		if live := !e.Gone && e.AliasOf == ""; live && !has {
			t.Errorf("%s is not in the document", e.key())
		}
	}
}

func asList(v any) []any {
	list, _ := v.([]any)
	return list
}

func lower(s string) string {
	b := []byte(s)
	for i := range b {
		b[i] |= 0x20
	}
	return string(b)
}
