package app

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"kilonova/internal/auth"
	"kilonova/internal/config"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/placement"
	placementlocal "kilonova/internal/placement/local"
	placementremote "kilonova/internal/placement/remote"
)

// OpenCloud opens the database of the configured cloud for an operator's command, beside whatever runs the cloud. It makes no new SQLite database: a command that is given
// the wrong state directory would find an empty cloud, of which nothing is wrong. Nor does it make or change tables:
// where they are not as this program needs them, the services that are opened on it fail with fault.Unavailable. NotFound: the database is not there.
func OpenCloud(ctx context.Context, cfg *config.Config) (*db.DB, error) {
	if path, ok := strings.CutPrefix(cfg.Database.Connection, "sqlite:"); ok {
		path = strings.TrimPrefix(path, "//")
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil, fault.New(fault.NotFound, "There is no cloud in %s: it has no file %s. Name the cloud's state directory with --state-dir, or its configuration file with --config.",
				filepath.Dir(path), filepath.Base(path))
		}
	}
	d, err := db.Open(ctx, cfg.Database.Connection)
	if err != nil {
		return nil, err
	}
	d.KeepTables()
	return d, nil
}

// besidePlacement is the built-in placement for an operator's command. Where somebody else's is used instead and the built-in one has no tables, whatever
// asks it is refused with fault.NotImplemented.
func besidePlacement(ctx context.Context, cfg *config.Config, d *db.DB) (placement.Service, error) {
	s, err := placementlocal.New(ctx, placementlocal.Config{DB: d})
	if err == nil {
		return s, nil
	}
	if cfg.Placement.URL == "" || !errors.Is(err, fault.Unavailable) {
		return nil, err
	}
	return placementremote.New(placementremote.Config{Endpoint: cfg.Placement.URL, Token: func(context.Context, *auth.Caller, string) (string, error) {
		return "", fault.New(fault.NotImplemented, "This cloud's placement is the one at %s. This command knows the built-in one only: ask it there (openstack allocation candidate list).", cfg.Placement.URL)
	}})
}
