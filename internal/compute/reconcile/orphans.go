package reconcile

import (
	"context"
	"errors"
	"time"

	"kilonova/internal/auth"
	"kilonova/internal/compute/flow"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/operation"
)

// Orphans frees what an operation may have made after it had lost its object: a step that was running in another process when a delete took the
// server over finishes there although nobody waits for it. Such leftovers can only belong to operations that were superseded or undone, so only these
// are looked at, once, a few seconds after they ended.
func (l *Loops) Orphans(ctx context.Context) error {
	ended, err := l.cfg.Engine.List(ctx, []operation.State{operation.Superseded, operation.Undone}, 1000)
	if err != nil {
		return err
	}
	for _, o := range ended {
		age := time.Since(o.Finished)
		if o.ObjectType != "server" || age < l.cfg.Settle || age > l.cfg.OrphanHorizon {
			continue
		}
		if _, done := l.swept.Load(o.ID); done {
			continue
		}
		idle, err := l.sweepAfter(ctx, o)
		if err != nil {
			return err
		}
		if !idle {
			continue
		}
		l.swept.Store(o.ID, o.Finished)
	}
	l.swept.Range(func(k, v any) bool {
		if time.Since(v.(time.Time)) > 2*l.cfg.OrphanHorizon {
			l.swept.Delete(k)
		}
		return true
	})
	return nil
}

// sweepAfter frees what an ended operation left; false when another operation is at the server and the sweep has to wait.
func (l *Loops) sweepAfter(ctx context.Context, o operation.Record) (bool, error) {
	s, err := l.cfg.Store.ServerAny(ctx, l.cfg.Store.DB, o.Object)
	if err != nil && !errors.Is(err, fault.NotFound) {
		return false, err
	}
	if held, e := l.cfg.Engine.Held(ctx, o.Object); e != nil || held { // by whoever took over, perhaps: it is still ending this one
		return false, e
	}
	// What the migration of an ended move still holds is nobody's: a finished resize is not undone and not superseded without a delete.
	if err := l.free(ctx, id.Derived(o.ID, "migration")); err != nil {
		return false, err
	}
	if err == nil && s.Deleted.IsZero() {
		if s.Host == "" { // undone before it had a host
			return true, l.free(ctx, s.ID)
		}
		return true, nil
	}
	if err := l.free(ctx, o.Object); err != nil {
		return false, err
	}
	caller := auth.Internal(o.RequestID)
	ports, err := l.cfg.Network.DevicePorts(ctx, caller, o.Object)
	if err != nil {
		return false, err
	}
	for _, p := range ports {
		l.log.Warn("a port of a server that is gone was freed", "port", p.ID, "server", o.Object)
		if flow.MadeFor(o.Object, p.ID) {
			err = l.cfg.Network.DeletePort(ctx, caller, p.ID)
		} else {
			_, err = l.cfg.Network.BindPort(ctx, caller, p.ID, "", "", "")
		}
		if err != nil && !errors.Is(err, fault.NotFound) {
			return false, err
		}
	}
	return true, nil
}

func (l *Loops) free(ctx context.Context, consumer string) error {
	held, _, err := l.cfg.Placement.Of(ctx, consumer)
	if err != nil || len(held) == 0 {
		return err
	}
	l.log.Warn("allocations that no server and no operation has were released", "consumer", consumer, "allocations", held)
	return l.cfg.Placement.Release(ctx, consumer)
}
