package reconcile

import (
	"context"
	"errors"
	"strconv"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/flow"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/operation"
)

// The loops of things that fall due: soft-deleted servers, unconfirmed resizes, shelved servers, builds that nobody carries on, old records.

// since tells how long ago a time kept in Server.System is; servers without one are not due.
func since(s *compute.Server, key string) time.Duration {
	us, err := strconv.ParseInt(s.System[key], 10, 64)
	if err != nil {
		return 0
	}
	return time.Since(clock.FromMicros(us))
}

// each runs f on the idle servers of a state.
func (l *Loops) each(ctx context.Context, state string, f func(s *compute.Server) error) error {
	ss, err := l.cfg.Store.ListServers(ctx, l.cfg.Store.DB, store.ListFilter{VMStates: []string{state}, TaskStates: []string{""}})
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range ss {
		errs = append(errs, f(s))
	}
	return errors.Join(errs...)
}

// Reclaim deletes soft-deleted servers whose time is over.
func (l *Loops) Reclaim(ctx context.Context) error {
	if l.cfg.ReclaimAfter <= 0 {
		return nil
	}
	return l.each(ctx, compute.VMSoftDeleted, func(s *compute.Server) error {
		if since(s, flow.SysSoftDeletedAt) < l.cfg.ReclaimAfter {
			return nil
		}
		return l.start(ctx, s, compute.OpDelete, "", compute.TaskDeleting, nil)
	})
}

// Confirm confirms resizes that nobody confirmed or reverted in time.
func (l *Loops) Confirm(ctx context.Context) error {
	if l.cfg.ConfirmAfter <= 0 {
		return nil
	}
	return l.each(ctx, compute.VMResized, func(s *compute.Server) error {
		if since(s, flow.SysResizedAt) < l.cfg.ConfirmAfter {
			return nil
		}
		return l.start(ctx, s, compute.OpConfirmResize, "confirmResize", "", nil)
	})
}

// Offload takes shelved servers off their hosts after the offload time.
func (l *Loops) Offload(ctx context.Context) error {
	if l.cfg.OffloadAfter <= 0 {
		return nil
	}
	return l.each(ctx, compute.VMShelved, func(s *compute.Server) error {
		if since(s, flow.SysShelvedAt) < l.cfg.OffloadAfter {
			return nil
		}
		return l.start(ctx, s, compute.OpShelveOffload, "shelveOffload", compute.TaskShelvingOffloading, nil)
	})
}

// Builds puts servers into ERROR that are being built by no operation.
func (l *Loops) Builds(ctx context.Context) error {
	return l.each(ctx, compute.VMBuilding, func(s *compute.Server) error {
		if time.Since(s.Updated) < l.cfg.BuildTimeout {
			return nil
		}
		ops, err := l.cfg.Engine.ByObject(ctx, s.ID)
		if err != nil {
			return err
		}
		for _, o := range ops {
			if o.Finished.IsZero() || o.State == operation.Attention {
				return nil
			}
		}
		l.log.Error("a server is being built by no operation", "server", s.ID)
		return l.cfg.Store.DB.Write(ctx, func(tx *db.Tx) error {
			return l.cfg.Store.UpdateServer(ctx, tx, s.ID, func(now *compute.Server) error {
				if now.VMState != compute.VMBuilding || now.TaskState != "" {
					return nil
				}
				now.VMState = compute.VMError
				now.Fault = &compute.Fault{Code: 500, Message: "The server was not built in time.", Created: clock.Now()}
				return nil
			})
		})
	})
}

// purgeBatch is how many servers one transaction forgets.
const purgeBatch = 200

// Purge forgets servers that were deleted long ago, and their operations. What a host still owes for one is not forgotten: package owed keeps it.
func (l *Loops) Purge(ctx context.Context) error {
	if l.cfg.KeepDeleted < 0 {
		return nil
	}
	before, yes := clock.Now().Add(-l.cfg.KeepDeleted), true
	for ctx.Err() == nil {
		old, err := l.cfg.Store.ListServers(ctx, l.cfg.Store.DB, store.ListFilter{Deleted: &yes, ChangesBefore: before, Limit: purgeBatch, Sort: []store.SortKey{{Key: "deleted_at"}}})
		if err != nil {
			return err
		}
		var ids []string
		for _, s := range old {
			if s.Deleted.Before(before) {
				ids = append(ids, s.ID)
			}
		}
		if len(ids) == 0 {
			return nil
		}
		var n int
		err = l.cfg.Store.DB.Write(ctx, func(tx *db.Tx) error {
			if err := l.cfg.Engine.Forget(ctx, tx, ids...); err != nil {
				return err
			}
			n, err = l.cfg.Store.PurgeServers(ctx, tx, before, len(ids))
			return err
		})
		if err != nil || n == 0 {
			return err
		}
	}
	return ctx.Err()
}

// Quota compares the quota counters with a recount and says where they differ. A difference is a defect: it is told, not hidden by correcting it.
func (l *Loops) Quota(ctx context.Context) error {
	for try := range 3 {
		bad, err := l.quotaDifferences(ctx)
		if err != nil || len(bad) == 0 {
			return err
		}
		if try < 2 { // the two readings are not one moment: only what stays is a difference
			continue
		}
		for k, text := range bad {
			l.log.Error("quota counters differ from a recount", "project", k[0], "user", k[1], "difference", text)
		}
		return fault.New(fault.Internal, "The quota counters of %d projects or users differ from a recount.", len(bad))
	}
	return nil
}

func (l *Loops) quotaDifferences(ctx context.Context) (map[[2]string]string, error) {
	counted, err := l.cfg.Store.Counted(ctx, l.cfg.Store.DB)
	if err != nil {
		return nil, err
	}
	recount, err := l.cfg.Store.Recount(ctx, l.cfg.Store.DB)
	if err != nil {
		return nil, err
	}
	bad := map[[2]string]string{}
	for k, v := range recount {
		if counted[k] != v {
			bad[k] = usageText(counted[k], v)
		}
	}
	for k, v := range counted {
		if _, ok := recount[k]; !ok && v != (store.Usage{}) {
			bad[k] = usageText(v, store.Usage{})
		}
	}
	return bad, nil
}
