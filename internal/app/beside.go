package app

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"kilonova/internal/config"
	"kilonova/internal/db"
	"kilonova/internal/fault"
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
