package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"kilonova/internal/auth"
	"kilonova/internal/db/dbtest"
	"kilonova/internal/fault"
	"kilonova/internal/network/api"
	"kilonova/internal/network/local"
	"kilonova/internal/policy"
)

// tokens authenticates "project:role".
type tokens struct{}

func (tokens) Authenticate(_ context.Context, token string) (*auth.Caller, error) {
	project, role, ok := strings.Cut(token, ":")
	if !ok {
		return nil, fault.New(fault.Unauthorized, "The token is not known.")
	}
	roles := map[string][]string{"admin": {"admin", "manager", "member", "reader"}, "member": {"member", "reader"}, "reader": {"reader"}}[role]
	return &auth.Caller{ProjectID: project, UserID: "user-" + project, Roles: roles, Token: token}, nil
}

// cloud is a network service behind its REST API.
type cloud struct {
	t   *testing.T
	url string
	svc *local.Service
}

func start(t *testing.T) *cloud {
	t.Helper()
	d := dbtest.Open(t)
	svc, err := local.New(t.Context(), local.Config{DB: d})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = svc.Close() })
	rules, err := policy.New(api.Rules(), nil)
	if err != nil {
		t.Fatal(err)
	}
	h, err := api.New(api.Config{Service: svc, Auth: tokens{}, Policy: rules}).Handler()
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return &cloud{t: t, url: s.URL, svc: svc}
}

// as is a caller of the API.
type as struct {
	*cloud
	token string
}

func (c *cloud) as(token string) as { return as{c, token} }

// send sends a request and gives status and body.
func (a as) send(method, path, body string) (int, map[string]any) {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), method, a.url+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("X-Auth-Token", a.token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	var doc map[string]any
	if len(bytes.TrimSpace(raw)) > 0 {
		if err := json.Unmarshal(raw, &doc); err != nil {
			a.t.Fatalf("%s %s: %d %s", method, path, resp.StatusCode, raw)
		}
	}
	return resp.StatusCode, doc
}

// ok sends a request that must give a status, and gives what is under key.
func (a as) ok(status int, method, path, body, key string) map[string]any {
	a.t.Helper()
	got, doc := a.send(method, path, body)
	if got != status {
		a.t.Fatalf("%s %s %s: %d %v, want %d", method, path, body, got, doc, status)
	}
	inner, _ := doc[key].(map[string]any)
	return inner
}

// fails sends a request that must give a status and an error type.
func (a as) fails(status int, kind, method, path, body string) {
	a.t.Helper()
	got, doc := a.send(method, path, body)
	e, _ := doc["NeutronError"].(map[string]any)
	if got != status || e["type"] != kind || e["message"] == "" {
		a.t.Errorf("%s %s %s: %d %v, want %d %s", method, path, body, got, doc, status, kind)
	}
}

// ids gives one attribute of all members of a list.
func (a as) ids(path, plural, attr string) []string {
	a.t.Helper()
	status, doc := a.send("GET", path, "")
	if status != 200 {
		a.t.Fatalf("GET %s: %d %v", path, status, doc)
	}
	out := []string{}
	list, _ := doc[plural].([]any)
	for _, e := range list {
		m, _ := e.(map[string]any)
		s, _ := m[attr].(string)
		out = append(out, s)
	}
	return out
}

func id(m map[string]any) string { s, _ := m["id"].(string); return s }
