package api_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// BenchmarkShowToken is GET /v3/auth/tokens as other services ask it, with the catalog.
func BenchmarkShowToken(b *testing.B) {
	s := newSite(b)
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest(http.MethodGet, "http://here/identity/v3/auth/tokens", nil)
		r.Header.Set("X-Auth-Token", s.admin)
		r.Header.Set("X-Subject-Token", s.demo)
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatal(w.Code)
		}
	}
}
