package api_test

import (
	"testing"

	"kilonova/internal/compute/api"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/api/proxy"
)

// TestEveryRouteHasAHandler finds the live routes that nobody answers.
func TestEveryRouteHasAHandler(t *testing.T) {
	h, err := api.Handlers(backend.New(backend.Services{}, backend.Options{}), proxy.Options{Network: proxy.InProcess(nil)})
	if err != nil {
		t.Fatal(err)
	}
	if missing := api.Missing(h); len(missing) != 0 {
		t.Errorf("no handler: %v", missing)
	}
	if _, err := api.Table(h); err != nil {
		t.Error(err)
	}
}
