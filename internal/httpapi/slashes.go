package httpapi

import (
	"net/http"
	"net/url"
	"strings"
)

// MergeSlashes lets h answer a path with repeated slashes as the one without them, as the web servers do that stand before OpenStack's services in the
// field (Apache's MergeSlashes). fog-openstack for one asks for /v2.1//limits. Go's own mux would answer 307, which many clients take for an error or
// follow without their body. An escaped slash (%2F) belongs to a name and stays.
func MergeSlashes(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		escaped := r.URL.EscapedPath()
		if !strings.Contains(escaped, "//") {
			h.ServeHTTP(w, r)
			return
		}
		merged := escaped
		for strings.Contains(merged, "//") {
			merged = strings.ReplaceAll(merged, "//", "/")
		}
		path, err := url.PathUnescape(merged)
		if err != nil {
			h.ServeHTTP(w, r) // it is for the service to refuse it
			return
		}
		next, u := *r, *r.URL
		u.Path, u.RawPath = path, merged
		next.URL, next.RequestURI = &u, u.RequestURI()
		h.ServeHTTP(w, &next)
	})
}
