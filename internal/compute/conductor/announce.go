package conductor

import (
	"context"
	"log/slog"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
)

// Names of the services that are no compute hosts, as os-services lists them.
const (
	BinaryConductor = "nova-conductor"
	BinaryScheduler = "nova-scheduler"
)

// Announce keeps the record of a service on a host, which os-services shows, until ctx ends.
func Announce(ctx context.Context, st *store.Store, binary, host string, log *slog.Logger) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		err := st.DB.Write(ctx, func(tx *db.Tx) error {
			return st.SaveHost(ctx, tx, &compute.Host{Name: host, Binary: binary, Version: serviceVersion, LastSeen: clock.Now()}, "")
		})
		if err != nil && ctx.Err() == nil {
			log.Warn("the record of a service could not be written", "binary", binary, "host", host, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
