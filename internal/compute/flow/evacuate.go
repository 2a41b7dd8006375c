package flow

import (
	"context"
	"errors"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/operation"
)

// evacuate builds a server anew on another host because its own is down. The old host is fenced before the new guest is made: it owes the destruction of
// what it has, and does that first when it returns.
func (f *flows) evacuate() operation.Flow {
	return operation.Flow{
		Kind: compute.OpEvacuate,
		Steps: []operation.Step{
			{Name: "prepare", FailEvent: "rebuild_server", TaskState: compute.TaskRebuilding, Do: f.evacuateBegin, Commit: f.openMigration(typed("evacuation"), "accepted"), Undo: f.failMigration},
			{Name: "schedule", Event: "rebuild_server", TaskState: compute.TaskRebuilding, Do: f.evacuateSchedule, Commit: f.destined("pre-migrating"), Undo: f.takeBack},
			{Name: "fence", TaskState: compute.TaskRebuilding, Do: f.evacuateFence, Undo: f.evacuateUnfence},
			{Name: "rebuild", Event: "compute_rebuild_instance", TaskState: compute.TaskRebuildSpawning, Deadline: 4 * f.BuildDeadline, NoReturn: true,
				Do: f.evacuateBuild, Undo: f.evacuateRemove},
			{Name: "release", TaskState: compute.TaskRebuildSpawning, Retries: 60, Do: f.evacuateRelease},
		},
		Done:   f.evacuateDone,
		Undone: f.evacuateUndone,
	}
}

// noValidHost tells whether err says that no host would do.
func noValidHost(err error) bool {
	var e *fault.Error
	return errors.As(err, &e) && e.Code == CodeNoValidHost
}

// evacuateUndone: a server that nothing was tried with (its host lives after all, or the host that was forced has no room) is left as it was.
func (f *flows) evacuateUndone(ctx context.Context, tx *db.Tx, r *operation.Run, cause error) error {
	var refused bool
	if r.Get(varRefused, &refused) && refused {
		return f.keepFault(ctx, tx, r, cause)
	}
	return f.toError(ctx, tx, r, cause)
}

func (f *flows) evacuateBegin(ctx context.Context, r *operation.Run) error {
	if err := f.beginMove(ctx, r); err != nil {
		return err
	}
	if host := from(r).Host; !f.Placer.Down(ctx, host) {
		r.Set(varRefused, true)
		return fault.New(fault.Invalid, "Compute service of %s is still in use.", host)
	}
	return nil
}

func (f *flows) evacuateSchedule(ctx context.Context, r *operation.Run) error {
	var in compute.EvacuateInput
	s, err := f.asked(ctx, r, &in)
	if err != nil {
		return err
	}
	r.Set(varTried, false)
	w := Want{Server: s, Flavor: s.Flavor, ImageProps: s.ImageProps, Exclude: []string{s.Host}, Migration: migrationID(r)}
	if in.Force {
		w.ForceHost = in.Host
	} else {
		w.Host, w.Zone = in.Host, pinned(s)
	}
	// A forced host that has no room says nothing of the server, which is left as it was. When no host at all would do it waits for somebody, in ERROR.
	if err = f.choose(ctx, r, w); in.Force && noValidHost(err) {
		r.Set(varRefused, true)
	}
	return err
}

func (f *flows) evacuateFence(ctx context.Context, r *operation.Run) error {
	return f.owe(ctx, r, from(r).Host, command.Destroy, command.DestroyArgs{}, "the server was evacuated from the host")
}

func (f *flows) evacuateUnfence(ctx context.Context, r *operation.Run) error {
	return f.Owed.SettleNow(ctx, from(r).Host, r.Object, r.Epoch)
}

func (f *flows) evacuateBuild(ctx context.Context, r *operation.Run) error {
	var in compute.EvacuateInput
	s, err := f.asked(ctx, r, &in)
	if err != nil {
		return err
	}
	p := placeOf(r)
	r.Set(varTried, true)
	if err := f.bind(ctx, r, s, p); offSegment(err) && in.Host == "" {
		return f.another(r, "schedule", p.Host, err)
	} else if err != nil {
		return err
	}
	meta, err := f.Metadata(ctx, s, nil)
	if err != nil {
		return err
	}
	sp := SpecOf(s)
	sp.Stopped, sp.Claim = in.Stop || from(r).Off, p.Claim
	ctx, cancel := context.WithTimeout(ctx, f.BuildDeadline)
	defer cancel()
	err = f.guest(ctx, r, p.Host, command.Spawn, command.SpawnArgs{Spec: sp, ImageID: s.ImageID, ConfigDrive: s.ConfigDrive, Metadata: meta, AdminPass: in.AdminPass})
	f.built(ctx, p.Host, err)
	if err == nil || errors.Is(err, context.Canceled) || !elsewhere(err) || in.Host != "" {
		return err
	}
	return f.another(r, "schedule", p.Host, err)
}

func (f *flows) evacuateRemove(ctx context.Context, r *operation.Run) error {
	if err := f.undoOn(ctx, r, placeOf(r).Host, command.Destroy, command.DestroyArgs{}, "an evacuation to the host was undone while it was down"); err != nil {
		return err
	}
	s, err := f.Store.ServerAny(ctx, f.Store.DB, r.Object)
	if err != nil {
		return gone(err)
	}
	return f.bind(ctx, r, s, from(r).Place)
}

func (f *flows) evacuateRelease(ctx context.Context, r *operation.Run) error {
	return f.release(ctx, migrationID(r))
}

func (f *flows) evacuateDone(ctx context.Context, tx *db.Tx, r *operation.Run) error {
	var in compute.EvacuateInput
	if err := r.Bind(&in); err != nil {
		return err
	}
	err := f.update(ctx, tx, r, func(s *compute.Server) {
		power(r, s)
		settle(s, placeOf(r))
		s.VMState, s.Launched, s.Fault = compute.VMActive, clock.Now(), nil
		if in.Stop || from(r).Off {
			s.VMState = compute.VMStopped
		}
	})
	if err != nil {
		return err
	}
	return f.setMigration(ctx, tx, migrationID(r), "done")
}
