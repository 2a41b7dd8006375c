package app

import (
	"context"

	"kilonova/internal/compute/notify"
)

// startNotifier has the operation engine and the store of this process tell of what happens, when that is switched on. Conductors publish it.
func (a *App) startNotifier(ctx context.Context) error {
	o := a.cfg.Notifications
	if o.Format != "versioned" {
		return nil
	}
	audit := ""
	if o.Audit {
		audit = o.AuditPeriod
	}
	n, err := notify.New(ctx, notify.Config{DB: a.db, Store: a.parts.store, Host: a.cfg.Compute.Host, Sinks: []notify.Sink{notify.BusSink{Bus: a.bus}}, Topics: o.Topics,
		StateChange: o.StateChange, BlockDevices: o.BlockDevices, Level: o.Level, Audit: audit, Retention: o.Retention, Log: a.log})
	if err != nil {
		return err
	}
	a.parts.engine.Watch(n)
	a.parts.store.Watch(n)
	if a.has(Conductor) {
		a.background("notifications", n.Run)
	}
	return nil
}
