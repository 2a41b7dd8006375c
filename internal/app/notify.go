package app

import (
	"context"

	"kilonova/internal/compute/notify"
	"kilonova/internal/compute/notify/rabbit"
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
	sinks := []notify.Sink{notify.BusSink{Bus: a.bus}}
	if o.Transport != "" {
		s, err := rabbit.New(rabbit.Config{URL: o.Transport, Exchange: o.Exchange, Durable: o.Durable, Name: "kilonova " + a.cfg.Compute.Host})
		if err != nil {
			return err
		}
		a.onStop("RabbitMQ", func(context.Context) error { return s.Close() })
		sinks = append(sinks, s)
	}
	n, err := notify.New(ctx, notify.Config{DB: a.db, Store: a.parts.store, Host: a.cfg.Compute.Host, Sinks: sinks, Topics: o.Topics,
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
