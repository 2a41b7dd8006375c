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

func asList(v any) []any {
	list, _ := v.([]any)
	return list
}
