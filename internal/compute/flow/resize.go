package flow

import (
	"context"

	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/operation"
)

// resize gives the server another flavor, or (cold migration) another host with the same flavor. The old guest's disks stay where they were until it
// is confirmed or reverted. Until the new guest stands, every failure brings the old one back as it was.
func (f *flows) resize() operation.Flow {
	return operation.Flow{
		Kind: compute.OpResize,
		Steps: []operation.Step{
			{Name: "prepare", FailEvent: "cold_migrate conductor_migrate_server", TaskState: compute.TaskResizePrep, Do: f.beginMove, Commit: f.openMigration(resizeType, "pre-migrating"), Undo: f.failMigration},
			{Name: "schedule", Event: "conductor_migrate_server cold_migrate", TaskState: compute.TaskResizePrep, Do: f.resizeSchedule, Commit: f.destined("pre-migrating"), Undo: f.takeBack},
			{Name: "prep-destination", Event: "compute_prep_resize", TaskState: compute.TaskResizePrep, Do: f.resizePrep, Commit: f.status("migrating")},
			{Name: "migrate-disk", Event: "compute_resize_instance", TaskState: compute.TaskResizeMigrating, Deadline: f.TransferDeadline, Do: f.resizeDisks,
				Commit: f.status("post-migrating"), Undo: f.resizeDisksBack},
			{Name: "finish", Event: "compute_finish_resize", TaskState: compute.TaskResizeFinish, Deadline: f.BuildDeadline, Do: f.resizeFinish, Undo: f.resizeUnbind},
		},
		Done:   f.resizeDone,
		Undone: f.keepFault,
	}
}

func resizeType(r *operation.Run) string {
	var in compute.ResizeInput
	if r.Bind(&in) == nil && in.Migrate {
		return "migration"
	}
	return "resize"
}

func (f *flows) resizeSchedule(ctx context.Context, r *operation.Run) error {
	var in compute.ResizeInput
	s, err := f.asked(ctx, r, &in)
	if err != nil {
		return err
	}
	var ex []string
	if (in.Migrate && !f.ColdMigrateSame) || (!in.Migrate && !f.AllowSameHost) {
		ex = append(ex, s.Host)
	}
	w := Want{Server: s, Flavor: newFlavor(s, in), ImageProps: s.ImageProps, Host: in.Host, Exclude: ex, Zone: pinned(s), Migration: migrationID(r)}
	return f.choose(ctx, r, w)
}

func newFlavor(s *compute.Server, in compute.ResizeInput) compute.Flavor {
	if in.Migrate {
		return s.Flavor
	}
	return in.Flavor
}

// resizePrep makes sure that the destination answers before the guest is stopped.
func (f *flows) resizePrep(ctx context.Context, r *operation.Run) error {
	p := placeOf(r)
	if p.Host == from(r).Host {
		return nil
	}
	if err := f.ask(ctx, r, p.Host, command.QueryGuest, struct{}{}, nil); gone(err) != nil {
		return f.another(r, "schedule", p.Host, err)
	}
	return nil
}

func (f *flows) resizeDisks(ctx context.Context, r *operation.Run) error {
	s, err := f.server(ctx, r)
	if err != nil {
		return err
	}
	src, dst := from(r), placeOf(r)
	if err := f.ask(ctx, r, src.Host, command.PrepareResize, command.PowerOffArgs{Grace: f.grace(s)}, nil); err != nil {
		return err
	}
	if dst.Host == src.Host {
		return nil
	}
	return f.ask(ctx, r, src.Host, command.SendDisks, command.SendDisksArgs{Host: dst.Host}, nil)
}

func (f *flows) resizeDisksBack(ctx context.Context, r *operation.Run) error {
	s, err := f.Store.ServerAny(ctx, f.Store.DB, r.Object)
	if err != nil {
		return gone(err)
	}
	src, dst := from(r), placeOf(r)
	if dst.Host != src.Host {
		if err := f.undoOn(ctx, r, dst.Host, command.Destroy, command.DestroyArgs{}, "a resize to the host was undone while it was down"); err != nil {
			return err
		}
	}
	sp := SpecOf(s)
	sp.Stopped = src.Off
	return f.undoOn(ctx, r, src.Host, command.RevertResize, command.SpecArgs{Spec: sp}, "a resize from the host was undone while it was down")
}

func (f *flows) resizeFinish(ctx context.Context, r *operation.Run) error {
	var in compute.ResizeInput
	s, err := f.asked(ctx, r, &in)
	if err != nil {
		return err
	}
	src, dst := from(r), placeOf(r)
	if dst.Host != src.Host {
		err = f.bind(ctx, r, s, dst)
	} else {
		err = f.moveDevices(ctx, r, s, dst)
	}
	if err != nil {
		return err
	}
	sp := specWith(s, newFlavor(s, in))
	sp.Stopped, sp.Claim = src.Off, dst.Claim
	return f.guest(ctx, r, dst.Host, command.FinishResize, command.SpecArgs{Spec: sp})
}

func (f *flows) resizeUnbind(ctx context.Context, r *operation.Run) error {
	src := from(r)
	s, err := f.Store.ServerAny(ctx, f.Store.DB, r.Object)
	if err != nil {
		return gone(err)
	}
	if placeOf(r).Host == src.Host {
		return f.moveDevices(ctx, r, s, src.Place)
	}
	return f.bind(ctx, r, s, src.Place)
}

func (f *flows) resizeDone(ctx context.Context, tx *db.Tx, r *operation.Run) error {
	var in compute.ResizeInput
	if err := r.Bind(&in); err != nil {
		return err
	}
	src := from(r)
	err := f.update(ctx, tx, r, func(s *compute.Server) {
		power(r, s)
		old := s.Flavor
		s.OldFlavor = &old
		s.Flavor = newFlavor(s, in)
		s.HoldQuota(0, 0)
		if in.AutoDisk != "" {
			s.DiskConfig = in.AutoDisk
		}
		settle(s, placeOf(r))
		s.VMState = compute.VMResized
		setSystem(s, map[string]string{SysOldVMState: src.VMState, compute.SysMigration: src.Migration, SysResizedAt: nowText()})
	})
	if err != nil {
		return err
	}
	return f.setMigration(ctx, tx, src.Migration, "finished")
}

// confirmResize lets go of the old guest and of what it held.
func (f *flows) confirmResize() operation.Flow {
	return operation.Flow{
		Kind: compute.OpConfirmResize,
		Steps: []operation.Step{
			{Name: "confirm", Event: "compute_confirm_resize", Retries: 60, NoReturn: true, Do: f.doConfirm},
			{Name: "release", Retries: 60, Do: f.confirmRelease},
		},
		Done: func(ctx context.Context, tx *db.Tx, r *operation.Run) error {
			return f.resizeEnded(ctx, tx, r, "confirmed", nil)
		},
		Undone: f.keepFault,
	}
}

// resized gives the server and its finished migration.
func (f *flows) resized(ctx context.Context, r *operation.Run) (*compute.Server, *compute.Migration, error) {
	s, err := f.server(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	m, err := f.Store.Migration(ctx, f.Store.DB, s.System[compute.SysMigration])
	if err != nil {
		return nil, nil, fault.Wrap(err, fault.Invalid, "Instance %s has no finished migration to confirm or revert.", s.ID)
	}
	return s, m, nil
}

func (f *flows) doConfirm(ctx context.Context, r *operation.Run) error {
	s, m, err := f.resized(ctx, r)
	if err != nil {
		return err
	}
	return f.dropOld(ctx, r, s, m)
}

// dropOld removes what a resize left of the guest as it was before.
func (f *flows) dropOld(ctx context.Context, r *operation.Run, s *compute.Server, m *compute.Migration) error {
	const why = "a resize was confirmed while the host was down"
	if m.SourceHost == s.Host {
		return f.must(ctx, r, s.Host, command.ConfirmResize, struct{}{}, why)
	}
	return f.must(ctx, r, m.SourceHost, command.Destroy, command.DestroyArgs{}, why)
}

func (f *flows) confirmRelease(ctx context.Context, r *operation.Run) error {
	s, err := f.server(ctx, r)
	if err != nil {
		return err
	}
	return f.release(ctx, s.System[compute.SysMigration])
}

// resizeEnded clears what a resize left in the server and closes its migration record.
func (f *flows) resizeEnded(ctx context.Context, tx *db.Tx, r *operation.Run, status string, more func(s *compute.Server)) error {
	var migration string
	err := f.update(ctx, tx, r, func(s *compute.Server) {
		power(r, s)
		migration = s.System[compute.SysMigration]
		if s.VMState == compute.VMResized {
			s.VMState = compute.VMActive
			if off(s) || s.System[SysOldVMState] == compute.VMStopped && s.PowerState != compute.PowerRunning {
				s.VMState = compute.VMStopped
			}
		}
		if more != nil {
			more(s)
		}
		s.OldFlavor = nil
		s.HoldQuota(0, 0)
		setSystem(s, map[string]string{SysOldVMState: "", compute.SysMigration: "", SysResizedAt: ""})
	})
	if err != nil {
		return err
	}
	return f.setMigration(ctx, tx, migration, status)
}

// afterResize lets every operation but those that end a resize anyway begin with closeResize.
func (f *flows) afterResize(all []operation.Flow) []operation.Flow {
	for i := range all {
		switch all[i].Kind {
		case compute.OpCreate, compute.OpDelete, compute.OpConfirmResize, compute.OpRevertResize, OpAbortLive, OpForceLive:
			continue
		}
		do := all[i].Steps[0].Do
		all[i].Steps[0].Do = func(ctx context.Context, r *operation.Run) error {
			if err := f.closeResize(ctx, r); err != nil {
				return err
			}
			return do(ctx, r)
		}
	}
	return all
}

// closeResize confirms a resize that was neither confirmed nor reverted when it can be no more: the server went into ERROR since, an administrator
// set its state, or it is being soft-deleted.
func (f *flows) closeResize(ctx context.Context, r *operation.Run) error {
	s, err := f.server(ctx, r)
	if err != nil {
		return err
	}
	if s.OldFlavor == nil || s.VMState == compute.VMResized && r.Kind != compute.OpSoftDelete {
		return nil
	}
	m, err := f.Store.Migration(ctx, f.Store.DB, s.System[compute.SysMigration])
	if err != nil {
		return err
	}
	if err := f.dropOld(ctx, r, s, m); err != nil {
		return err
	}
	if err := f.release(ctx, m.UUID); err != nil {
		return err
	}
	return f.Store.DB.Write(ctx, func(tx *db.Tx) error { return f.resizeEnded(ctx, tx, r, "confirmed", nil) })
}

// revertResize brings the old guest back. The new one is only stopped until the old one stands.
func (f *flows) revertResize() operation.Flow {
	return operation.Flow{
		Kind: compute.OpRevertResize,
		Steps: []operation.Step{
			{Name: "stop-destination", Event: "compute_revert_resize", TaskState: compute.TaskResizeReverting, Deadline: f.StopGrace + longAgo, Do: f.revertStop, Undo: f.revertStart},
			{Name: "finish-revert", Event: "compute_finish_revert_resize", TaskState: compute.TaskResizeReverting, Deadline: f.BuildDeadline, NoReturn: true, Do: f.revertFinish,
				Undo: f.revertUnfinish},
			{Name: "clean-destination", TaskState: compute.TaskResizeReverting, Retries: 200, Do: f.revertClean},
		},
		Done:   f.revertDone,
		Undone: f.keepFault,
	}
}

func (f *flows) revertStop(ctx context.Context, r *operation.Run) error {
	s, m, err := f.resized(ctx, r)
	if err != nil {
		return err
	}
	if err := f.revertAllowed(ctx, s, m); err != nil {
		return err
	}
	o := originOf(s)
	o.Migration = m.UUID
	held, _, err := f.Placement.Of(ctx, m.UUID)
	if err != nil {
		return err
	}
	o.Lost = len(held) == 0
	r.Set(varFrom, o)
	src, err := f.sourcePlace(ctx, m)
	if err != nil {
		return err
	}
	r.Set(varPlace, src)
	if m.SourceHost == s.Host {
		return f.moveDevices(ctx, r, s, src)
	}
	if err := f.must(ctx, r, s.Host, command.PowerOff, command.PowerOffArgs{}, "a resize to the host was reverted while it was down"); err != nil {
		return err
	}
	return f.bind(ctx, r, s, src)
}

// revertAllowed judges the policy of the server's group and marks the migration: from then on both hosts count as places of the server.
func (f *flows) revertAllowed(ctx context.Context, s *compute.Server, m *compute.Migration) error {
	return f.Store.DB.Write(ctx, func(tx *db.Tx) error {
		if err := f.Store.GuardRevert(ctx, tx, s); err != nil {
			return err
		}
		return f.setMigration(ctx, tx, m.UUID, "reverting")
	})
}

// sourcePlace tells where a migration came from: its allocations name the provider, the host's record the zone.
func (f *flows) sourcePlace(ctx context.Context, m *compute.Migration) (Place, error) {
	h, err := f.Store.Host(ctx, f.Store.DB, m.SourceHost)
	if err != nil {
		return Place{}, err
	}
	p := Place{Host: m.SourceHost, Node: m.SourceNode, Provider: h.NodeID, Zone: h.Zone}
	c, err := f.Store.ClaimOf(ctx, f.Store.DB, m.UUID)
	if c != nil && c.Host != "" {
		p.Claim = &c.Claim
	}
	return p, err
}

// revertStart is the undo of revertStop: the server is again as it was while it waited to be confirmed.
func (f *flows) revertStart(ctx context.Context, r *operation.Run) error {
	s, err := f.Store.ServerAny(ctx, f.Store.DB, r.Object)
	if err != nil {
		return gone(err)
	}
	if err := f.startAgain(ctx, r, s); err != nil {
		return err
	}
	return f.Store.DB.Write(ctx, func(tx *db.Tx) error {
		return gone(f.Store.UpdateMigration(ctx, tx, s.System[compute.SysMigration], func(m *compute.Migration) error {
			if m.Status == "reverting" {
				m.Status = "finished"
			}
			return nil
		}))
	})
}

func (f *flows) startAgain(ctx context.Context, r *operation.Run, s *compute.Server) error {
	o := from(r)
	switch o.Host {
	case "": // nothing was done
		return nil
	case placeOf(r).Host:
		return f.moveDevices(ctx, r, s, o.Place)
	}
	if err := f.bind(ctx, r, s, o.Place); err != nil {
		return err
	}
	if o.Off || !s.Deleted.IsZero() {
		return nil
	}
	return f.undoOn(ctx, r, o.Host, command.PowerOn, command.SpecArgs{Spec: SpecOf(s)}, "reverting a resize failed while the host was down")
}

func (f *flows) revertFinish(ctx context.Context, r *operation.Run) error {
	s, m, err := f.resized(ctx, r)
	if err != nil {
		return err
	}
	sp := specWith(s, oldFlavor(s))
	sp.Stopped, sp.Claim = s.System[SysOldVMState] == compute.VMStopped, placeOf(r).Claim
	return f.guest(ctx, r, m.SourceHost, command.RevertResize, command.SpecArgs{Spec: sp})
}

// revertUnfinish leaves one guest: on one host that of the new flavor, on two the one at the destination.
func (f *flows) revertUnfinish(ctx context.Context, r *operation.Run) error {
	s, err := f.Store.ServerAny(ctx, f.Store.DB, r.Object)
	if err != nil || !s.Deleted.IsZero() {
		return gone(err)
	}
	src, dst := placeOf(r).Host, from(r)
	if src != dst.Host {
		return gone(f.undoOn(ctx, r, src, command.PowerOff, command.PowerOffArgs{}, "reverting a resize failed while the host was down"))
	}
	sp := SpecOf(s)
	sp.Stopped = dst.Off
	return f.undoOn(ctx, r, src, command.FinishResize, command.SpecArgs{Spec: sp}, "reverting a resize failed while the host was down")
}

func oldFlavor(s *compute.Server) compute.Flavor {
	if s.OldFlavor != nil {
		return *s.OldFlavor
	}
	return s.Flavor
}

func (f *flows) revertClean(ctx context.Context, r *operation.Run) error {
	o := from(r)
	if o.Host != placeOf(r).Host {
		if err := f.must(ctx, r, o.Host, command.Destroy, command.DestroyArgs{}, "a resize to the host was reverted while it was down"); err != nil {
			return err
		}
	}
	return f.returnAllocations(ctx, r.Object, o.Migration, placeOf(r), o.Place, o.Lost)
}

func (f *flows) revertDone(ctx context.Context, tx *db.Tx, r *operation.Run) error {
	src := placeOf(r)
	return f.resizeEnded(ctx, tx, r, "reverted", func(s *compute.Server) {
		s.Flavor = oldFlavor(s)
		s.SetClaim(src.Claim)
		if src.Host != s.Host {
			settle(s, src)
		}
	})
}
