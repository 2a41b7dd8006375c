package httpapi_test

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/httpapi"
)

// What a browser is told when a page of another origin asks, and what it may read of an answer.
func TestSharing(t *testing.T) {
	const page, stranger = "Origin: https://page.example", "Origin: https://stranger.example"
	s := httpapi.Sharing{Origins: []string{"https://page.example"}, Credentials: true, Expose: []string{"X-Subject-Token", "OpenStack-API-Version"}, MaxAge: 60,
		Methods: []string{"GET", "PUT"}, Headers: []string{"X-Auth-Token"}}
	all := s
	all.Origins = []string{"*"}
	shared := http.Header{"Access-Control-Allow-Origin": {"https://page.example"}, "Access-Control-Allow-Credentials": {"true"}, "Vary": {"Origin"}}
	with := func(more ...string) http.Header {
		h := shared.Clone()
		for i := 0; i < len(more); i += 2 {
			h.Set(more[i], more[i+1])
		}
		return h
	}
	for _, c := range []struct {
		name, method string
		sharing      httpapi.Sharing
		headers      []string
		status       int
		want         http.Header
	}{
		{"nothing is shared", "OPTIONS", httpapi.Sharing{}, []string{page}, 418, http.Header{}},
		{"no browser", "GET", s, nil, 418, http.Header{}},
		{"a page", "GET", s, []string{page}, 418, with("Access-Control-Expose-Headers", "X-Subject-Token,OpenStack-API-Version")},
		{"a stranger", "GET", s, []string{stranger}, 418, http.Header{}},
		{"anybody, without cookies", "GET", all, []string{stranger}, 418, http.Header{"Access-Control-Allow-Origin": {"*"}, "Vary": {"Origin"},
			"Access-Control-Expose-Headers": {"X-Subject-Token,OpenStack-API-Version"}}},
		{"a page asks", "OPTIONS", s, []string{page, "Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: x-auth-token, content-type"}, 200,
			with("Access-Control-Max-Age", "60", "Access-Control-Allow-Methods", "PUT", "Access-Control-Allow-Headers", "x-auth-token,content-type")},
		{"about no headers", "OPTIONS", s, []string{page, "Access-Control-Request-Method: GET"}, 200,
			with("Access-Control-Max-Age", "60", "Access-Control-Allow-Methods", "GET")},
		{"about another method", "OPTIONS", s, []string{page, "Access-Control-Request-Method: DELETE"}, 200, http.Header{}},
		{"about another header", "OPTIONS", s, []string{page, "Access-Control-Request-Method: GET", "Access-Control-Request-Headers: x-roles"}, 200, http.Header{}},
		{"about nothing", "OPTIONS", s, []string{page}, 200, http.Header{}},
		{"a stranger asks", "OPTIONS", s, []string{stranger, "Access-Control-Request-Method: GET"}, 200, http.Header{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := c.sharing.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
			w := call(h, c.method, "/", "", c.headers...)
			if w.Code != c.status {
				t.Errorf("status %d, want %d", w.Code, c.status)
			}
			if d := cmp.Diff(c.want, w.Header()); d != "" {
				t.Errorf("headers (-want +got):\n%s", d)
			}
		})
	}
}
