package api_test

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"kilonova/internal/compute/api"
	"kilonova/internal/compute/api/apitest"
)

// FuzzRequests sends any body, query and version to any route of a whole compute API. Whatever comes, the answer is no internal error, is
// JSON, and has its request id.
func FuzzRequests(f *testing.F) {
	keys := api.Keys()
	for i, key := range keys {
		minor := api.SinceOf(key)
		f.Add(uint16(i), byte(minor), "x", "limit=1&marker=x&all_tenants=1", api.BodyFor(f, key, minor))
	}
	c := newCloud(f)
	f.Fuzz(func(t *testing.T, route uint16, minor byte, name, query, body string) {
		key := keys[int(route)%len(keys)]
		fields := strings.Fields(key)
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		// The last variable is the fuzzer's own half of the time.
		path := fields[1]
		if minor%2 == 0 && name != "" {
			i := strings.LastIndex(path, "{id}")
			if i >= 0 {
				path = path[:i] + url.PathEscape(name) + path[i+4:]
			}
		}
		path = c.path("GET "+path, int(minor%105))
		if path == "" || strings.ContainsAny(path, "{}") {
			return
		}
		r := apitest.Call(c.h, "admin", fields[0], "/v2.1"+path+"?"+q.Encode(), body, int(minor%105))
		if r.Code == 500 {
			t.Fatalf("%s %s at 2.%d: %d %s\n%s", key, path, minor%105, r.Code, r.Body, &c.log)
		}
		if r.Body.Len() > 0 && !json.Valid(r.Body.Bytes()) {
			t.Fatalf("%s: the answer is not JSON: %q", key, r.Body)
		}
		if !strings.HasPrefix(r.Header().Get("X-Compute-Request-Id"), "req-") {
			t.Fatalf("%s: no request id", key)
		}
	})
}
