package httpapi_test

import (
	"fmt"
	"net/http"
	"testing"

	"kilonova/internal/httpapi"
)

// Repeated slashes are one, whatever the method; escaped ones, and those of the query, stay.
func TestMergeSlashes(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/v2.1/{kind}/{name}", func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.Method, " ", r.PathValue("kind"), " ", r.PathValue("name"), " ", r.URL.RawQuery)
	})
	h := httpapi.MergeSlashes(mux)
	for path, want := range map[string]string{
		"/v2.1/limits/a":               "limits a ",
		"/v2.1//limits/a":              "limits a ",
		"//v2.1///limits////a":         "limits a ",
		"/v2.1//os-keypairs/a%2F%2Fb":  "os-keypairs a//b ",
		"/v2.1/os-keypairs/a%2F%2Fb":   "os-keypairs a//b ",
		"/v2.1//os-keypairs/%C3%A4%20": "os-keypairs ä  ",
		"/v2.1//limits/a?url=x//y":     "limits a url=x//y",
	} {
		for _, method := range []string{"GET", "PUT", "POST"} {
			w := call(h, method, path, "")
			if got := w.Body.String(); w.Code != http.StatusOK || got != method+" "+want {
				t.Errorf("%s %s: %d %q, want %q", method, path, w.Code, got, want)
			}
		}
	}
}
