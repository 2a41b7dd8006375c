package app

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"kilonova/internal/config"
	"kilonova/internal/db/dbtest"
	"kilonova/internal/fault"
	placementlocal "kilonova/internal/placement/local"
)

// A command beside a cloud with somebody else's placement says so where it would have to ask the built-in one, and makes no tables for that.
func TestBesideAnotherPlacement(t *testing.T) {
	ctx := t.Context()
	cfg := &config.Config{}
	cfg.Database.Connection = dbtest.URL(t)
	made := dbtest.At(t, cfg.Database.Connection)
	d, err := OpenCloud(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, c := range []struct {
		url, want string
	}{{"", "tables placement_… are not there"}, {"http://placement.example.com", "placement is the one at http://placement.example.com"}} {
		cfg.Placement.URL = c.url
		s, err := besidePlacement(ctx, cfg, d)
		if err == nil {
			_, _, err = s.Of(ctx, "3c9a1b2e-0000-4000-8000-000000000001")
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("with placement at %q: %v, want %q", c.url, err, c.want)
		}
	}
	if err := d.Migrated(ctx, "placement", 1); !errors.Is(err, fault.Unavailable) {
		t.Errorf("it made tables: %v", err)
	}
	if _, err := placementlocal.New(ctx, placementlocal.Config{DB: made}); err != nil {
		t.Fatal(err)
	}
	if s, err := besidePlacement(ctx, cfg, d); err != nil {
		t.Error(err)
	} else if _, local := s.(*placementlocal.Service); !local {
		t.Errorf("the built-in placement of another process is not used: %T", s)
	}
}

// Whoever names a wrong state directory is told which.
func TestOpenCloudNamesTheDirectory(t *testing.T) {
	cfg := &config.Config{}
	dir := filepath.Join(t.TempDir(), "none")
	cfg.Database.Connection = "sqlite://" + filepath.Join(dir, "kilonova.db")
	if _, err := OpenCloud(t.Context(), cfg); !errors.Is(err, fault.NotFound) || !strings.Contains(err.Error(), dir) {
		t.Error(err)
	}
}
