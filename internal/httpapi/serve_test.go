package httpapi_test

import (
	"context"
	"encoding/json"
	"errors"
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

const project = "0123456789abcdef0123456789abcdef"

// tokens is an authenticator of two tokens; "broken" is a service that is down.
type tokens struct{}

func (tokens) Authenticate(_ context.Context, token string) (*auth.Caller, error) {
	switch token {
	case "good":
		return &auth.Caller{UserID: "u", ProjectID: project, Roles: []string{"member"}, Token: token}, nil
	case "broken":
		return nil, fault.New(fault.Unavailable, "The identity service does not answer.")
	}
	return nil, fault.New(fault.Unauthorized, "unknown token")
}

// byRole allows a rule to callers who have a role of that name.
type byRole struct{}

func (byRole) Allowed(rule string, c *auth.Caller, _ policy.Target) bool { return c.HasRole(rule) }

func echo(r *httpapi.Request) (*httpapi.Reply, error) {
	return httpapi.OK(map[string]any{"route": r.Route.Method + " " + r.Route.Path + " " + r.Route.Action, "id": r.Path("id"),
		"version": r.Version.String(), "link": r.Link("/x"), "bookmark": r.Bookmark("/x"), "legacy": r.Legacy, "body": string(r.Body())}), nil
}

func service() *httpapi.Service {
	v := httpapi.V
	return &httpapi.Service{
		Name: "compute", Auth: tokens{}, Policy: byRole{}, WriteError: httpapi.ComputeErrors, MaxBody: 200,
		ProjectSegment: []string{"/v2.1"}, LegacyRoots: map[string]string{"/v2": "/v2.1"}, IdentityURL: "http://id/v3",
		Versions: &httpapi.Microversions{Type: "compute", Legacy: "X-OpenStack-Nova-API-Version", Min: v(1), Max: v(104), Default: v(1)},
		Log:      slog.New(slog.NewTextHandler(io.Discard, nil)),
		Routes: []httpapi.Route{
			{Method: "GET", Path: "/", Public: true, Handle: echo},
			{Method: "GET", Path: "/v2.1", Public: true, Handle: echo},
			{Method: "GET", Path: "/v2.1/servers", Handle: echo},
			{Method: "POST", Path: "/v2.1/servers", Handle: echo},
			{Method: "GET", Path: "/v2.1/servers/detail", Handle: echo},
			{Method: "GET", Path: "/v2.1/servers/{id}", Handle: echo},
			{Method: "DELETE", Path: "/v2.1/servers/{server_id}", Handle: func(r *httpapi.Request) (*httpapi.Reply, error) {
				return httpapi.NoContent().With("X-Id", r.Path("server_id")), nil
			}},
			{Method: "POST", Path: "/v2.1/servers/{id}/action", Action: "old", Until: v(5), Handle: echo},
			{Method: "POST", Path: "/v2.1/servers/{id}/action", Action: "stop", Handle: echo},
			{Method: "GET", Path: "/v2.1/new", Since: v(10), Handle: echo},
			{Method: "GET", Path: "/v2.1/split", Until: v(9), Handle: func(*httpapi.Request) (*httpapi.Reply, error) { return httpapi.OK("old"), nil }},
			{Method: "GET", Path: "/v2.1/split", Since: v(10), Handle: func(*httpapi.Request) (*httpapi.Reply, error) { return httpapi.OK("new"), nil }},
			{Method: "GET", Path: "/v2.1/admin", Rule: "admin", Handle: echo},
			{Method: "GET", Path: "/v2.1/panic", Handle: func(*httpapi.Request) (*httpapi.Reply, error) { panic("secret") }},
			{Method: "GET", Path: "/v2.1/fail", Handle: func(*httpapi.Request) (*httpapi.Reply, error) { return nil, errors.New("secret") }},
			{Method: "GET", Path: "/v2.1/stream", Handle: func(*httpapi.Request) (*httpapi.Reply, error) {
				return httpapi.OK(strings.NewReader("abc")), nil
			}},
			{Method: "GET", Path: "/v2.1/raw", Handle: func(*httpapi.Request) (*httpapi.Reply, error) { return httpapi.OK([]byte(`{"a":"<&>"}`)), nil }},
			{Method: "GET", Path: "/v2.1/html", Handle: func(*httpapi.Request) (*httpapi.Reply, error) { return httpapi.OK("<&>"), nil }},
		},
	}
}

func handler(t testing.TB, s *httpapi.Service) http.Handler {
	t.Helper()
	h, err := s.Handler()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// call makes a request with the good token unless headers say otherwise ("X-Auth-Token: " sends none).
func call(h http.Handler, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	var rd io.Reader
	if body != "" {
		rd = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, target, rd)
	r.Header.Set("X-Auth-Token", "good")
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, kv := range headers {
		k, v, _ := strings.Cut(kv, ":")
		r.Header.Set(k, strings.TrimSpace(v))
		if strings.TrimSpace(v) == "" {
			r.Header.Del(k)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestStatus(t *testing.T) {
	h := handler(t, service())
	for _, c := range []struct {
		name, method, path, body string
		headers                  []string
		want                     int
		contains                 string
	}{
		{"plain", "GET", "/v2.1/servers", "", nil, 200, `"route":"GET /v2.1/servers "`},
		{"trailing slash", "GET", "/v2.1/servers/", "", nil, 200, `"route":"GET /v2.1/servers "`},
		{"project segment", "GET", "/v2.1/" + project + "/servers/7", "", nil, 200, `"id":"7"`},
		{"project root", "GET", "/v2.1/" + project + "/", "", nil, 200, `"route":"GET /v2.1 "`},
		{"foreign project", "GET", "/v2.1/ffffffffffffffffffffffffffffffff/servers", "", nil, 400, "Malformed request URL"},
		{"detail beats id", "GET", "/v2.1/servers/detail", "", nil, 200, "/servers/detail"},
		{"delete on a name that is another route's", "DELETE", "/v2.1/servers/detail", "", nil, 204, ""},
		{"unknown path", "GET", "/v2.1/nothing", "", nil, 404, `{"itemNotFound":{"code":404,"message":"The resource could not be found."}}`},
		{"unknown path without token", "GET", "/v2.1/nothing", "", []string{"X-Auth-Token:"}, 401, `"error"`},
		{"wrong method", "PATCH", "/v2.1/servers", "{}", nil, 405, "badMethod"},
		{"no token", "GET", "/v2.1/servers", "", []string{"X-Auth-Token:"}, 401, `"title":"Unauthorized"`},
		{"bad token", "GET", "/v2.1/servers", "", []string{"X-Auth-Token: bad"}, 401, `"code":401`},
		{"identity down", "GET", "/v2.1/servers", "", []string{"X-Auth-Token: broken"}, 503, "serviceUnavailable"},
		{"public without token", "GET", "/", "", []string{"X-Auth-Token:"}, 200, ""},
		{"public with bad token", "GET", "/v2.1/", "", []string{"X-Auth-Token: bad"}, 200, ""},
		{"policy", "GET", "/v2.1/admin", "", nil, 403, `{"forbidden":{"code":403,"message":"Policy doesn't allow admin to be performed."}}`},
		{"before its version", "GET", "/v2.1/new", "", []string{"OpenStack-API-Version: compute 2.9"}, 404, "itemNotFound"},
		{"at its version", "GET", "/v2.1/new", "", []string{"OpenStack-API-Version: compute 2.10"}, 200, `"version":"2.10"`},
		{"older twin", "GET", "/v2.1/split", "", nil, 200, `"old"`},
		{"newer twin", "GET", "/v2.1/split", "", []string{"OpenStack-API-Version: compute latest"}, 200, `"new"`},
		{"action", "POST", "/v2.1/servers/7/action", `{"stop":null}`, nil, 200, `"route":"POST /v2.1/servers/{id}/action stop"`},
		{"unknown action", "POST", "/v2.1/servers/7/action", `{"fly":null}`, nil, 400, "There is no such action: fly"},
		{"action out of range", "POST", "/v2.1/servers/7/action", `{"old":null}`, []string{"OpenStack-API-Version: compute 2.6"}, 404, "itemNotFound"},
		{"two actions", "POST", "/v2.1/servers/7/action", `{"stop":null,"old":null}`, nil, 400, "exactly one key"},
		{"no action", "POST", "/v2.1/servers/7/action", "", nil, 400, "Malformed request body"},
		{"empty body", "POST", "/v2.1/servers", "", nil, 400, "Malformed request body"},
		{"not JSON", "POST", "/v2.1/servers", "{", nil, 400, "Malformed request body"},
		{"not an object", "POST", "/v2.1/servers", "[]", nil, 400, "a JSON object is expected"},
		{"duplicate key", "POST", "/v2.1/servers", `{"a":{"b":1,"b":2}}`, nil, 400, `stands twice`},
		{"trailing data", "POST", "/v2.1/servers", `{} {}`, nil, 400, "follows"},
		{"invalid UTF-8", "POST", "/v2.1/servers", "{\"a\":\"\xff\"}", nil, 400, "UTF-8"},
		{"too large", "POST", "/v2.1/servers", `{"a":"` + strings.Repeat("x", 200) + `"}`, nil, 413, "overLimit"},
		{"content type", "POST", "/v2.1/servers", "{}", []string{"Content-Type: text/plain"}, 415, "badMediaType"},
		{"content type of nothing", "POST", "/v2.1/servers", "", []string{"Content-Type: text/xml"}, 415, "badMediaType"},
		{"vendor content type", "POST", "/v2.1/servers", "{}", []string{"Content-Type: application/vnd.openstack.compute+json; charset=utf-8"}, 200, ""},
		{"panic", "GET", "/v2.1/panic", "", nil, 500, "computeFault"},
		{"internal error", "GET", "/v2.1/fail", "", nil, 500, "computeFault"},
		{"stream", "GET", "/v2.1/stream", "", nil, 200, "abc"},
		{"bytes", "GET", "/v2.1/raw", "", nil, 200, `{"a":"<&>"}`},
		{"no HTML escapes", "GET", "/v2.1/html", "", nil, 200, `"<&>"`},
		{"malformed version", "GET", "/v2.1/servers", "", []string{"OpenStack-API-Version: compute 2.01"}, 400, "invalid format"},
		{"version too high", "GET", "/v2.1/servers", "", []string{"OpenStack-API-Version: compute 2.105"}, 406, "Minimum is 2.1 and maximum is 2.104"},
		{"another service's version", "GET", "/v2.1/servers", "", []string{"OpenStack-API-Version: volume 3.1"}, 200, `"version":"2.1"`},
		{"one of several versions", "GET", "/v2.1/servers", "", []string{"OpenStack-API-Version: volume 3.1, compute 2.8"}, 200, `"version":"2.8"`},
		{"legacy header", "GET", "/v2.1/servers", "", []string{"X-OpenStack-Nova-API-Version: 2.7"}, 200, `"version":"2.7"`},
		{"legacy root", "GET", "/v2/servers", "", []string{"OpenStack-API-Version: compute 2.9"}, 200, `"legacy":true`},
		{"NUL in a text", "POST", "/v2.1/servers", `{"a":["\u0000"]}`, nil, 400, "NUL"},
		{"NUL in a key", "POST", "/v2.1/servers", `{"a":{"\u0000":1}}`, nil, 400, "NUL"},
		{"NUL in the query", "GET", "/v2.1/servers?a=%00", "", nil, 400, "UTF-8"},
		{"path is not UTF-8", "GET", "/v2.1/servers/%c1", "", nil, 400, "Malformed request URL"},
		{"NUL in the path", "GET", "/v2.1/servers/%00", "", nil, 400, "Malformed request URL"},
		{"bad query", "GET", "/v2.1/servers?a=%ff", "", nil, 400, "Query string is not UTF-8 encoded."},
		{"escaped slash in a segment", "GET", "/v2.1/servers/a%2Fb", "", nil, 200, `"id":"a/b"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := call(h, c.method, c.path, c.body, c.headers...)
			if w.Code != c.want || !strings.Contains(w.Body.String(), c.contains) {
				t.Fatalf("got %d %s, want %d with %s", w.Code, w.Body, c.want, c.contains)
			}
			if strings.Contains(w.Body.String(), "secret") {
				t.Fatal("the cause leaked")
			}
			if id := w.Header().Get("X-Openstack-Request-Id"); !strings.HasPrefix(id, "req-") || id != w.Header().Get("X-Compute-Request-Id") {
				t.Fatalf("request ids %v", w.Header())
			}
		})
	}
}

// refuse is a schema that takes nothing.
type refuse struct{}

func (refuse) Validate(any) error { return fault.New(fault.Invalid, "It does not fit.") }

// TestOrder asks a route that would refuse the request for several reasons at once: which is told first is part of the API.
func TestOrder(t *testing.T) {
	s := service()
	schema := func(httpapi.Version) httpapi.Schema { return refuse{} }
	s.Routes = append(s.Routes, httpapi.Route{Method: "POST", Path: "/v2.1/no", Rule: "admin", Since: httpapi.V(5), Schema: schema, Handle: echo},
		httpapi.Route{Method: "GET", Path: "/v2.1/no", Rule: "admin", Since: httpapi.V(5), Query: schema, Handle: echo})
	version := func(v string) string { return "OpenStack-API-Version: compute " + v }
	const xml, none, other = "Content-Type: text/xml", "X-Auth-Token:", "/v2.1/ffffffffffffffffffffffffffffffff/no"
	for _, c := range []struct {
		name, method, path, body string
		headers                  []string
		first, last              int // policy first, policy last
	}{
		{"token before version", "POST", "/v2.1/no", "{", []string{none, version("9.9"), xml}, 401, 401},
		{"version before media type", "POST", "/v2.1/no", "{", []string{version("9.9"), xml}, 406, 406},
		{"malformed version", "POST", "/v2.1/no", "{", []string{version("0.5"), xml}, 400, 400},
		{"media type before range", "POST", "/v2.1/no", "{", []string{version("2.4"), xml}, 404, 415},
		{"range before body", "POST", "/v2.1/no", "{", []string{version("2.4")}, 404, 404},
		{"project before schema", "POST", other, "{}", []string{version("2.5")}, 400, 400},
		{"body", "POST", "/v2.1/no", "{", []string{version("2.5")}, 403, 400},
		{"schema", "POST", "/v2.1/no", "{}", []string{version("2.5")}, 403, 400},
		{"query", "GET", "/v2.1/no?a=b", "", []string{version("2.5")}, 403, 400},
		{"media type of a read", "GET", "/v2.1/servers", "", []string{xml}, 200, 415},
		{"text means nothing", "POST", "/v2.1/servers", "{}", []string{"Content-Type: text/plain"}, 415, 200},
		{"no path", "GET", "/v2.1/nothing", "", []string{version("9.9"), xml}, 404, 404},
		{"no method", "PATCH", "/v2.1/no", "", []string{version("9.9"), xml}, 405, 404},
	} {
		for last, want := range map[bool]int{false: c.first, true: c.last} {
			s.PolicyLast, s.HideMethods = last, last
			if w := call(handler(t, s), c.method, c.path, c.body, c.headers...); w.Code != want {
				t.Errorf("%s, policy last %v: %d %s, want %d", c.name, last, w.Code, w.Body, want)
			}
		}
	}
}

// Only a service that says so cuts .json off, and not from a tag.
func TestJSONSuffix(t *testing.T) {
	for _, cut := range []bool{true, false} {
		s := service()
		s.JSONSuffix = cut
		name := func(r *httpapi.Request) (*httpapi.Reply, error) {
			return httpapi.OK(map[string]string{"id": r.Path("id")}), nil
		}
		s.Routes = []httpapi.Route{{Method: "GET", Path: "/v2.0/routers/{id}", Public: true, Handle: name}, {Method: "GET", Path: "/v2.0/routers/1/tags/{id}", Public: true, Handle: name}}
		h := handler(t, s)
		short := map[bool]string{true: "7", false: "7.json"}[cut]
		for path, want := range map[string]string{"/v2.0/routers/7": "7", "/v2.0/routers/7.json": short, "/v2.0/routers/1/tags/7.json": "7.json"} {
			if w := call(h, "GET", path, ""); w.Code != 200 || !strings.Contains(w.Body.String(), `"id":"`+want+`"`) {
				t.Errorf("JSONSuffix %v: %s: %d %s, want id %s", cut, path, w.Code, w.Body, want)
			}
		}
	}
}

func TestStrictSlash(t *testing.T) {
	s := service()
	s.StrictSlash = true
	s.Routes = append(s.Routes, httpapi.Route{Method: "GET", Path: "/v2", Public: true, Handle: echo})
	h := handler(t, s)
	for path, want := range map[string]int{"/": 200, "/v2.1/": 200, "/v2/": 200, "/v2.1/" + project + "/": 200, "/v2.1/servers": 200, "/v2.1/servers/": 404,
		"/v2.1/servers/7/": 404, "/v2.1/" + project + "/servers/": 404} {
		if w := call(h, "GET", path, ""); w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
	if w := call(h, "DELETE", "/v2.1/servers/", ""); w.Code != 404 {
		t.Errorf("DELETE without id: %d", w.Code)
	}
}

func TestHeaders(t *testing.T) {
	h := handler(t, service())
	pick := func(w *httptest.ResponseRecorder, keys ...string) map[string]string {
		m := map[string]string{}
		for _, k := range keys {
			m[k] = w.Header().Get(k)
		}
		return m
	}
	for _, c := range []struct {
		name string
		w    *httptest.ResponseRecorder
		want map[string]string
	}{
		{"version", call(h, "GET", "/v2.1/servers", "", "OpenStack-API-Version: compute latest"), map[string]string{
			"OpenStack-API-Version": "compute 2.104", "X-OpenStack-Nova-API-Version": "2.104", "Vary": "OpenStack-API-Version, X-OpenStack-Nova-API-Version"}},
		{"version on error", call(h, "GET", "/v2.1/nothing", "", "OpenStack-API-Version: compute 2.5"), map[string]string{
			"OpenStack-API-Version": "compute 2.5", "X-OpenStack-Nova-API-Version": "2.5"}},
		{"legacy", call(h, "GET", "/v2/servers", ""), map[string]string{"OpenStack-API-Version": "", "X-OpenStack-Nova-API-Version": "", "Vary": ""}},
		{"beside the versions", call(h, "GET", "/", "", "OpenStack-API-Version: compute 9.9"), map[string]string{"OpenStack-API-Version": "", "Vary": ""}},
		{"allow", call(h, "PATCH", "/v2.1/servers", "{}"), map[string]string{"Allow": "GET, HEAD, POST", "Content-Type": "application/json"}},
		{"authenticate", call(h, "GET", "/v2.1/servers", "", "X-Auth-Token:"), map[string]string{"WWW-Authenticate": `Keystone uri="http://id/v3"`}},
		{"variables by their own names", call(h, "DELETE", "/v2.1/servers/9", ""), map[string]string{"X-Id": "9"}},
		{"stream", call(h, "GET", "/v2.1/stream", ""), map[string]string{"Content-Type": "application/octet-stream"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var keys []string
			for k := range c.want {
				keys = append(keys, k)
			}
			if d := cmp.Diff(c.want, pick(c.w, keys...)); d != "" {
				t.Fatal(d)
			}
		})
	}
}

func TestHeadHasNoBody(t *testing.T) {
	srv := httptest.NewServer(handler(t, service()))
	defer srv.Close()
	for _, path := range []string{"/v2.1/servers/1", "/v2.1/stream"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodHead, srv.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Auth-Token", "good")
		resp, err := srv.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || len(b) != 0 {
			t.Fatalf("%s: %d %q %v", path, resp.StatusCode, b, err)
		}
	}
}

func TestLinks(t *testing.T) {
	links := func(s *httpapi.Service, target string, headers ...string) string {
		h := http.StripPrefix("/compute", handler(t, s))
		w := call(h, "GET", target, "", headers...)
		var doc struct{ Link, Bookmark string }
		if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
			t.Fatal(err)
		}
		return doc.Link + " " + doc.Bookmark
	}
	forwarded := []string{"X-Forwarded-Proto: https", "X-Forwarded-Host: cloud.example, inner", "X-Forwarded-Prefix: /os/"}
	trusting := service()
	trusting.TrustForwarded = true
	fixed := service()
	fixed.PublicURL = func(*http.Request) string { return "https://fixed/compute/" }
	for _, c := range []struct {
		name, got, want string
	}{
		{"host", links(service(), "/compute/v2.1/servers"), "http://example.com/compute/v2.1/x http://example.com/compute/x"},
		{"project", links(service(), "/compute/v2.1/"+project+"/servers"), "http://example.com/compute/v2.1/" + project + "/x http://example.com/compute/" + project + "/x"},
		{"legacy", links(service(), "/compute/v2/servers"), "http://example.com/compute/v2/x http://example.com/compute/x"},
		{"query", links(service(), "/compute/v2.1/servers?limit=1"), "http://example.com/compute/v2.1/x http://example.com/compute/x"},
		{"forwarded but not trusted", links(service(), "/compute/v2.1/servers", forwarded...), "http://example.com/compute/v2.1/x http://example.com/compute/x"},
		{"forwarded", links(trusting, "/compute/v2.1/servers", forwarded...), "https://cloud.example/os/compute/v2.1/x https://cloud.example/os/compute/x"},
		{"configured", links(fixed, "/compute/v2.1/servers"), "https://fixed/compute/v2.1/x https://fixed/compute/x"},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, c.got, c.want)
		}
	}
}

func TestGlobalRequestID(t *testing.T) {
	var caller *auth.Caller
	s := service()
	s.Routes = []httpapi.Route{{Method: "GET", Path: "/v2.1/me", Handle: func(r *httpapi.Request) (*httpapi.Reply, error) {
		caller = r.Caller
		if httpapi.RequestID(r.Context()) != r.RequestID || caller.RequestID != r.RequestID {
			t.Error("request id is not in the context and the caller")
		}
		return nil, nil
	}}}
	h := handler(t, s)
	const global = "req-6f2c9a8e-7a6c-4f6b-9f0a-0c1d2e3f4a5b"
	for given, want := range map[string]string{global: global, "req-nonsense": "", "": ""} {
		if w := call(h, "GET", "/v2.1/me", "", "X-Openstack-Request-Id: "+given); w.Code != 204 {
			t.Fatal(w.Code)
		}
		if caller.GlobalRequestID != want {
			t.Errorf("%q: got %q", given, caller.GlobalRequestID)
		}
	}
}

func TestConstructionErrors(t *testing.T) {
	ok := func(*httpapi.Request) (*httpapi.Reply, error) { return nil, nil }
	for name, change := range map[string]func(*httpapi.Service){
		"same route twice": func(s *httpapi.Service) {
			s.Routes = append(s.Routes, httpapi.Route{Method: "GET", Path: "/v2.1/servers", Handle: ok})
		},
		"overlapping ranges": func(s *httpapi.Service) {
			s.Routes = append(s.Routes, httpapi.Route{Method: "GET", Path: "/v2.1/new", Since: httpapi.V(50), Handle: ok})
		},
		"patterns conflict": func(s *httpapi.Service) {
			s.Routes = append(s.Routes, httpapi.Route{Method: "GET", Path: "/v2.1/{a}/detail", Handle: ok}, httpapi.Route{Method: "GET", Path: "/v2.1/servers/{b}", Until: httpapi.V(2), Handle: ok})
		},
		"no handler":       func(s *httpapi.Service) { s.Routes[0].Handle = nil },
		"no authenticator": func(s *httpapi.Service) { s.Auth = nil },
		"no policy":        func(s *httpapi.Service) { s.Policy = nil },
		"no error form":    func(s *httpapi.Service) { s.WriteError = nil },
		"no versions":      func(s *httpapi.Service) { s.Versions = nil },
	} {
		t.Run(name, func(t *testing.T) {
			s := service()
			change(s)
			if _, err := s.Handler(); err == nil {
				t.Fatal("accepted")
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	s := service()
	s.Log = slog.New(slog.DiscardHandler)
	s.Routes = []httpapi.Route{{Method: "GET", Path: "/v2.1/servers/{id}", Handle: func(r *httpapi.Request) (*httpapi.Reply, error) {
		return httpapi.OK([]byte(`{"server":{}}`)), nil
	}}}
	h := handler(b, s)
	r := httptest.NewRequest("GET", "/v2.1/servers/7", nil)
	r.Header.Set("X-Auth-Token", "good")
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 200 {
			b.Fatal(w.Code)
		}
	}
}
