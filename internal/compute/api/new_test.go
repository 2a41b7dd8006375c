package api_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute/api"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/api/proxy"
)

// TestEveryRouteHasAHandler names the live routes that answer 501.
func TestEveryRouteHasAHandler(t *testing.T) {
	h, err := api.Handlers(backend.New(backend.Services{}, backend.Options{}), proxy.Options{Network: proxy.InProcess(nil)})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"GET /os-baremetal-nodes", "GET /os-baremetal-nodes/{id}"}
	if diff := cmp.Diff(want, api.Missing(h)); diff != "" {
		t.Error(diff)
	}
	if _, err := api.Table(h); err != nil {
		t.Error(err)
	}
}
