package httpapi_test

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

func TestErrorForms(t *testing.T) {
	plain := &httpapi.Request{HTTP: httptest.NewRequest("GET", "/", nil), RequestID: "req-1"}
	accepting := &httpapi.Request{HTTP: httptest.NewRequest("GET", "/", nil)}
	accepting.HTTP.Header.Set("Accept", "application/json")
	newer := &httpapi.Request{HTTP: plain.HTTP, RequestID: "req-1", Version: httpapi.Version{Major: 1, Minor: 23}}
	token := fault.New(fault.Unauthorized, "The request you have made requires authentication.")
	token.Header = map[string]string{"WWW-Authenticate": "Keystone"}
	busy := fault.New(fault.TooMany, "slow down")
	busy.Header = map[string]string{"Retry-After": "7"}
	const tokenBody = `{"error":{"code":401,"message":"The request you have made requires authentication.","title":"Unauthorized"}}`
	for _, c := range []struct {
		name   string
		write  func(*httpapi.Request, *fault.Error) *httpapi.Reply
		r      *httpapi.Request
		e      *fault.Error
		status int
		want   string
	}{
		{"compute", httpapi.ComputeErrors, plain, fault.New(fault.Conflict, "busy"), 409, `{"conflictingRequest":{"code":409,"message":"busy"}}`},
		{"compute, unnamed", httpapi.ComputeErrors, plain, fault.New(fault.NotAcceptable, "no"), 406, `{"computeFault":{"code":406,"message":"no"}}`},
		{"compute, retry", httpapi.ComputeErrors, plain, busy, 429, `{"overLimit":{"code":429,"message":"slow down","retryAfter":7}}`},
		{"compute, handler's 401", httpapi.ComputeErrors, plain, fault.New(fault.Unauthorized, "no"), 401, `{"unauthorized":{"code":401,"message":"no"}}`},
		{"compute, token", httpapi.ComputeErrors, plain, token, 401, tokenBody},
		{"identity", httpapi.IdentityErrors, plain, fault.New(fault.NotFound, "Could not find user: x."), 404,
			`{"error":{"code":404,"message":"Could not find user: x.","title":"Not Found"}}`},
		{"image, HTML", httpapi.ImageErrors, plain, fault.New(fault.NotFound, "No image <x>"), 404,
			"<html>\n <head>\n  <title>404 Not Found</title>\n </head>\n <body>\n  <h1>404 Not Found</h1>\n  No image &lt;x&gt;<br /><br />\n\n\n </body>\n</html>"},
		{"image, JSON", httpapi.ImageErrors, accepting, fault.New(fault.NotFound, "x"), 404,
			`{"code":"404 Not Found","message":"x<br /><br />\n\n\n","title":"Not Found"}`},
		{"image, token", httpapi.ImageErrors, plain, token, 401, tokenBody},
		{"network", httpapi.NetworkErrors, plain, fault.New(fault.NotFound, "Port p could not be found.").WithCode("PortNotFound"), 404,
			`{"NeutronError":{"detail":"","message":"Port p could not be found.","type":"PortNotFound"}}`},
		{"network, no code", httpapi.NetworkErrors, plain, fault.New(fault.Invalid, "x"), 400, `{"NeutronError":{"detail":"","message":"x","type":"HTTPBadRequest"}}`},
		{"network, no type", httpapi.NetworkErrors, plain, fault.New(fault.Gone, "x"), 410, `{"NeutronError":{"detail":"","message":"x","type":"HTTPError"}}`},
		{"network, token", httpapi.NetworkErrors, plain, token, 401, tokenBody},
		{"placement, old", httpapi.PlacementErrors, plain, fault.New(fault.Conflict, "x").WithCode("placement.concurrent_update"), 409,
			`{"errors":[{"detail":"x","request_id":"req-1","status":409,"title":"Conflict"}]}`},
		{"placement, code", httpapi.PlacementErrors, newer, fault.New(fault.Conflict, "x").WithCode("placement.concurrent_update"), 409,
			`{"errors":[{"code":"placement.concurrent_update","detail":"x","request_id":"req-1","status":409,"title":"Conflict"}]}`},
		{"placement, no code", httpapi.PlacementErrors, newer, fault.New(fault.NotFound, "x"), 404,
			`{"errors":[{"code":"placement.undefined_code","detail":"x","request_id":"req-1","status":404,"title":"Not Found"}]}`},
	} {
		reply := c.write(c.r, c.e)
		got, ok := reply.Body.([]byte)
		if !ok {
			var b strings.Builder
			enc := json.NewEncoder(&b)
			enc.SetEscapeHTML(false)
			if err := enc.Encode(reply.Body); err != nil {
				t.Fatal(err)
			}
			got = []byte(strings.TrimSuffix(b.String(), "\n"))
		}
		if reply.Status != c.status || string(got) != c.want {
			t.Errorf("%s: %d\n got %s\nwant %s", c.name, reply.Status, got, c.want)
		}
	}
}

// placementService is a strict service, as placement is.
func placementService() *httpapi.Service {
	v := func(minor int) httpapi.Version { return httpapi.Version{Major: 1, Minor: minor} }
	return &httpapi.Service{Name: "placement", Auth: tokens{}, WriteError: httpapi.PlacementErrors, StrictTypes: true, NoHead: true,
		Versions: &httpapi.Microversions{Type: "placement", Min: v(0), Max: v(39), Default: v(0), Loose: true, Vary: "openstack-api-version"},
		Routes: []httpapi.Route{
			{Method: "GET", Path: "/", AnyAccept: true, Handle: echo},
			{Method: "GET", Path: "/traits", Handle: echo},
			{Method: "PUT", Path: "/traits", Handle: echo},
			{Method: "PUT", Path: "/any", Body: httpapi.AnyJSON, Handle: echo},
			{Method: "POST", Path: "/optional", Body: httpapi.OptionalJSON, Handle: echo},
			{Method: "PUT", Path: "/big", MaxBody: 4, Handle: echo},
			{Method: "PUT", Path: "/raw", Body: httpapi.RawBody, Handle: echo},
			{Method: "GET", Path: "/list", Handle: func(*httpapi.Request) (*httpapi.Reply, error) { return httpapi.OK(hot{}), nil }},
			{Method: "GET", Path: "/odd", Handle: func(*httpapi.Request) (*httpapi.Reply, error) { return httpapi.OK(func() {}), nil }},
		}}
}

// hot writes its own JSON.
type hot struct{}

func (hot) AppendJSON(dst []byte) ([]byte, error) { return append(dst, `{"hot":[1,2]}`...), nil }

func TestStrictService(t *testing.T) {
	h := handler(t, placementService())
	for _, c := range []struct {
		name, method, path, body string
		headers                  []string
		want                     int
		contains                 string
	}{
		{"accept", "GET", "/traits", "", []string{"Accept: text/html, application/*;q=0.5"}, 200, ""},
		{"not acceptable", "GET", "/traits", "", []string{"Accept: image/png, application/json;q=0"}, 406, "406 Not Acceptable\n\nOnly application/json"},
		{"not acceptable, a page", "GET", "/traits", "", []string{"Accept: text/html"}, 406, "<h1>406 Not Acceptable</h1>"},
		{"only GET is asked", "PUT", "/traits", "{}", []string{"Accept: text/plain"}, 200, "{}"},
		{"a route that takes any", "GET", "/", "", []string{"Accept: text/plain"}, 200, ""},
		{"error as JSON", "GET", "/none", "", []string{"Accept: text/html;q=0.4, */*;q=0.5"}, 404, `"title":"Not Found"`},
		{"error as JSON for all", "GET", "/none", "", []string{"Accept: */*"}, 404, `"title":"Not Found"`},
		{"error as a page", "GET", "/none", "", []string{"Accept: text/*, application/json;q=0.9"}, 404, "<title>404 Not Found</title>"},
		{"body without type", "PUT", "/traits", "{}", []string{"Content-Type:"}, 400, "content-type header required when content-length > 0"},
		{"no body, no type", "PUT", "/traits", "", []string{"Content-Type:"}, 415, "The media type None is not supported, use application/json"},
		{"other type", "PUT", "/traits", "{}", []string{"Content-Type: text/plain"}, 415, "The media type text/plain is not supported, use application/json"},
		{"vendor's type", "PUT", "/traits", "{}", []string{"Content-Type: application/x+json"}, 415, ""},
		{"with parameters", "PUT", "/traits", "{}", []string{"Content-Type: application/json; charset=utf-8"}, 200, "{}"},
		{"HEAD", "HEAD", "/traits", "", nil, 405, ""},
		{"version", "GET", "/traits", "", []string{"OpenStack-API-Version: placement 1.39"}, 200, ""},
		{"too high", "GET", "/traits", "", []string{"OpenStack-API-Version: placement 1.40"}, 406, `"max_version":"1.39","min_version":"1.0"`},
		{"malformed", "GET", "/traits", "", []string{"OpenStack-API-Version: placement one"}, 400, "invalid version string: one. It must be two numbers with a dot between them, such as 1.39, or latest."},
		{"any JSON", "PUT", "/any", "[1]", []string{"Content-Type: text/weird"}, 200, `[1]`},
		{"any JSON, empty", "PUT", "/any", "", nil, 200, ""},
		{"any JSON, broken", "PUT", "/any", "[", nil, 400, ""},
		{"optional, empty", "POST", "/optional", "", nil, 200, ""},
		{"optional, given", "POST", "/optional", `{"a":1}`, nil, 200, `\"a\":1`},
		{"route's own limit", "PUT", "/big", `{"a":1}`, nil, 413, ""},
		{"raw is not read", "PUT", "/raw", `not JSON`, nil, 200, ""},
		{"appender", "GET", "/list", "", nil, 200, `{"hot":[1,2]}`},
		{"cannot be encoded", "GET", "/odd", "", nil, 500, `"status":500`},
		{"no project segment here", "GET", "/" + project + "/traits", "", nil, 404, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := call(h, c.method, c.path, c.body, c.headers...)
			if w.Code != c.want || !strings.Contains(w.Body.String(), c.contains) {
				t.Fatalf("got %d %s, want %d with %s", w.Code, w.Body, c.want, c.contains)
			}
			if w.Header().Get("Vary") != "openstack-api-version" || w.Header().Get("X-Compute-Request-Id") != "" {
				t.Fatal(w.Header())
			}
			if strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") && !json.Valid(w.Body.Bytes()) {
				t.Fatalf("not JSON: %s", w.Body)
			}
		})
	}
}

func TestNextLink(t *testing.T) {
	r := &httpapi.Request{HTTP: httptest.NewRequest("GET", "/servers?status=ACTIVE&limit=2&marker=a&all=1&all=2", nil), Base: "http://h", Root: "/v2.1", Project: "p"}
	got := r.NextLink("/servers", httpapi.Page{Limit: 2}, 2, "z&")
	want := []httpapi.Link{{Rel: "next", Href: "http://h/v2.1/p/servers?all=1&all=2&limit=2&marker=z%26&status=ACTIVE"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, given := range []int{0, 1} {
		if got := r.NextLink("/servers", httpapi.Page{Limit: given * 2}, given, "z"); got != nil {
			t.Errorf("%d given: %v", given, got)
		}
	}
}

func FuzzDecodeJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5e3,"x",null,true]}`, `{"a":1,"a":2}`, `[[[[`, "\xff", `"\ud800"`, `1 2`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		v, err := httpapi.DecodeJSON(body)
		if err != nil {
			return
		}
		if !json.Valid(body) {
			t.Fatalf("%q is not JSON but was read", body)
		}
		if _, err := json.Marshal(v); err != nil {
			t.Fatal(err)
		}
	})
}

func TestVersions(t *testing.T) {
	for _, bad := range []string{"", "2", "2.", ".1", "2.01", "02.1", "2.1.1", "+2.1", "2.-1", " 2.1", "a.b"} {
		if v, err := httpapi.ParseVersion(bad); err == nil {
			t.Errorf("%q is read as %v", bad, v)
		}
	}
	v := httpapi.V(10)
	for _, c := range []struct {
		since, until httpapi.Version
		want         bool
	}{{httpapi.Version{}, httpapi.Version{}, true}, {v, v, true}, {httpapi.V(11), httpapi.Version{}, false}, {httpapi.Version{}, httpapi.V(9), false}} {
		if v.In(c.since, c.until) != c.want {
			t.Errorf("%v in %v..%v", v, c.since, c.until)
		}
	}
}
