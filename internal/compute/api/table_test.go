package api

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/auth"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/policy"
)

// callers are the tokens of the tests.
type callers struct{}

const ownProject = "0123456789abcdef0123456789abcdef"

func (callers) Authenticate(_ context.Context, token string) (*auth.Caller, error) {
	roles := map[string][]string{"admin": {"admin", "manager", "member", "reader"}, "manager": {"manager", "member", "reader"},
		"member": {"member", "reader"}, "reader": {"reader"}, "service": {"service"}, "none": {}}
	r, ok := roles[token]
	if !ok {
		return nil, fault.New(fault.Unauthorized, "unknown token")
	}
	return &auth.Caller{UserID: "user-" + token, ProjectID: ownProject, Roles: r, Token: token}, nil
}

func newHandler(t testing.TB, handlers map[string]Handler) http.Handler {
	t.Helper()
	p, err := policy.New(Rules(), nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &httpapi.Service{Auth: callers{}, Policy: p, IdentityURL: "http://id/v3", Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if err := Fill(s, handlers); err != nil {
		t.Fatal(err)
	}
	h, err := s.Handler()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func call(h http.Handler, token, method, target, body, version string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if token != "" {
		r.Header.Set("X-Auth-Token", token)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if version != "" {
		r.Header.Set("OpenStack-API-Version", "compute "+version)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestCounts(t *testing.T) {
	gone, alias := 0, 0
	for _, e := range entries() {
		if e.Gone {
			gone++
		}
		if e.AliasOf != "" {
			alias++
		}
	}
	got := map[string]int{"entries": len(entries()), "gone": gone, "alias": alias, "keys": len(Keys()), "rules": len(Rules())}
	want := map[string]int{"entries": 265, "gone": 54, "alias": 15, "keys": 196, "rules": 214}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
}

func TestHandlersGetTheirRequests(t *testing.T) {
	show := func(r *httpapi.Request) (*httpapi.Reply, error) {
		return &httpapi.Reply{Body: map[string]string{"id": r.Path("id"), "server": r.Path("server_id")}}, nil
	}
	h := newHandler(t, map[string]Handler{
		"GET /servers/{id}":                               show,
		"POST /servers/{id}/action os-stop":               show,
		"GET /servers/{server_id}/metadata/{id}":          show,
		"POST /os-keypairs":                               show,
		"DELETE /flavors/{id}":                            show,
		"POST /servers/{server_id}/os-volume_attachments": show,
	})
	for _, c := range []struct {
		name, token, method, path, body, version string
		want                                     int
		contains                                 string
	}{
		{"plain", "reader", "GET", "/v2.1/servers/7", "", "", 200, `"id":"7"`},
		{"action", "member", "POST", "/v2.1/servers/7/action", `{"os-stop":null}`, "", 202, `"id":"7"`},
		{"action's rule is left to its handler", "reader", "POST", "/v2.1/servers/7/action", `{"os-stop":null}`, "", 202, `"id":"7"`},
		{"rule of the route", "reader", "DELETE", "/v2.1/flavors/7", "", "", 403, "os_compute_api:os-flavor-manage:delete"},
		{"parent", "reader", "GET", "/v2.1/servers/7/metadata/k", "", "", 200, `{"id":"k","server":"7"}`},
		{"alias", "reader", "GET", "/v2.1/os-volumes_boot/7", "", "2.102", 200, `"id":"7"`},
		{"alias has ended", "reader", "GET", "/v2.1/os-volumes_boot/7", "", "2.103", 404, ""},
		{"alias action", "member", "POST", "/v2.1/os-volumes_boot/7/action", `{"os-stop":null}`, "", 202, ""},
		{"gone", "reader", "GET", "/v2.1/os-cells", "", "", 410, `{"computeFault":{"code":410`},
		{"gone with body", "member", "POST", "/v2.1/os-agents", `{"x":1}`, "", 410, ""},
		{"gone in words", "reader", "GET", "/v2.1/os-agents", "", "", 410, `This resource is no longer available. No forwarding address is given.`},
		{"gone console", "member", "POST", "/v2.1/servers/7/action", `{"os-getRDPConsole":{"type":"rdp-html5"}}`, "", 400, "RDP consoles"},
		{"gone action", "member", "POST", "/v2.1/servers/7/action", `{"resetNetwork":null}`, "", 410, ""},
		{"without handler", "member", "POST", "/v2.1/servers/7/action", `{"os-start":null}`, "", 501, "This cloud does not offer POST /servers/{id}/action os-start."},
		{"status by version, old", "member", "POST", "/v2.1/os-keypairs", `{"keypair":{"name":"k"}}`, "", 200, ""},
		{"status by version, new", "member", "POST", "/v2.1/os-keypairs", `{"keypair":{"name":"k"}}`, "2.2", 201, ""},
		{"status by version, newer", "member", "POST", "/v2.1/servers/7/os-volume_attachments",
			`{"volumeAttachment":{"volumeId":"f0f2c1a4-8f3e-4a5b-9c1d-2e3f4a5b6c7d"}}`, "2.101", 202, ""},
		{"schema", "member", "POST", "/v2.1/os-keypairs", `{"keypair":{"name":"k","colour":1}}`, "", 400,
			"Additional properties are not allowed ('colour' was unexpected)"},
		{"schema by version", "member", "POST", "/v2.1/os-keypairs", `{"keypair":{"name":"k","type":"ssh"}}`, "2.1", 400, "'type' was unexpected"},
		{"legacy drops unknown keys", "member", "POST", "/v2/os-keypairs", `{"keypair":{"name":"k","colour":1},"x":2}`, "", 200, ""},
		{"legacy still judges known keys", "member", "POST", "/v2/os-keypairs", `{"keypair":{"name":7}}`, "", 400, "7 is not of type 'string'"},
		{"unknown action", "member", "POST", "/v2.1/servers/7/action", `{"fly":null}`, "", 400, "There is no such action: fly"},
		{"unknown path", "reader", "GET", "/v2.1/aliens", "", "", 404, "itemNotFound"},
		{"unknown path without token", "", "GET", "/v2.1/aliens", "", "", 401, `"title":"Unauthorized"`},
		{"unknown path of another method", "reader", "POST", "/v2.1/aliens", "{}", "", 404, "itemNotFound"},
		{"wrong method", "reader", "DELETE", "/v2.1/servers", "", "", 404, "itemNotFound"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := call(h, c.token, c.method, c.path, c.body, c.version)
			if w.Code != c.want || !strings.Contains(w.Body.String(), c.contains) {
				t.Fatalf("got %d %s, want %d with %s", w.Code, w.Body, c.want, c.contains)
			}
		})
	}
}

func TestUnknownAndNilHandlersAreRefused(t *testing.T) {
	ok := func(*httpapi.Request) (*httpapi.Reply, error) { return nil, nil }
	for name, h := range map[string]map[string]Handler{"unknown": {"GET /aliens": ok}, "gone": {"GET /os-cells": ok},
		"alias": {"GET /os-volumes_boot": ok}, "nil": {"GET /servers": nil}} {
		if _, err := Table(h); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestMissing(t *testing.T) {
	all := map[string]Handler{}
	for _, k := range Keys() {
		all[k] = func(*httpapi.Request) (*httpapi.Reply, error) { return nil, nil }
	}
	if m := Missing(all); len(m) != 0 {
		t.Fatal(m)
	}
	delete(all, "GET /servers")
	if d := cmp.Diff([]string{"GET /servers"}, Missing(all)); d != "" {
		t.Fatal(d)
	}
}
