package flow

import (
	"context"
	"errors"
	"slices"

	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/store"
	"kilonova/internal/compute/virt"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/operation"
)

// liveMigrate moves a running guest to another host. Until the guest has left, every failure leaves it where it is; from then on the operation only goes
// forward.
func (f *flows) liveMigrate() operation.Flow {
	return operation.Flow{
		Kind: compute.OpLiveMigrate,
		Steps: []operation.Step{
			{Name: "prepare", FailEvent: "conductor_live_migrate_instance", TaskState: compute.TaskMigrating, Do: f.beginMove, Commit: f.openMigration(typed("live-migration"), "queued"), Undo: unlessPassed(f.failMigration)},
			{Name: "schedule", Event: "conductor_live_migrate_instance", TaskState: compute.TaskMigrating, Do: f.liveSchedule, Commit: f.destined("preparing"), Undo: unlessPassed(f.takeBack)},
			{Name: "prepare-destination", Event: "compute_pre_live_migration", TaskState: compute.TaskMigrating, Deadline: f.BuildDeadline, Do: f.livePrepare,
				Commit: f.status("running"), Undo: unlessPassed(f.liveRollback)},
			{Name: "migrate", Event: "compute_live_migration", TaskState: compute.TaskMigrating, Deadline: f.TransferDeadline, NoReturn: true, Do: f.liveMove, Undo: f.liveLook,
				Commit: f.liveMoved},
			{Name: "finish", Event: "compute_post_live_migration_at_destination", TaskState: compute.TaskMigrating, Retries: 500, Do: f.liveFinish},
		},
		Done:   f.liveDone,
		Undone: f.liveUndone,
	}
}

func (f *flows) liveSchedule(ctx context.Context, r *operation.Run) error {
	var in compute.LiveMigrateInput
	s, err := f.asked(ctx, r, &in)
	if err != nil {
		return err
	}
	r.Set(varTried, false)
	if err := f.movable(ctx, s); err != nil {
		return err
	}
	if f.Placer.Down(ctx, s.Host) {
		return fault.New(fault.Conflict, "Compute service of %s is unavailable at this time: a guest cannot be moved from there while it runs.", s.Host)
	}
	w := Want{Server: s, Flavor: s.Flavor, ImageProps: s.ImageProps, Exclude: []string{s.Host}, Running: true, Migration: migrationID(r)}
	if in.Force {
		w.ForceHost = in.Host
	} else {
		w.Host, w.Zone = in.Host, pinned(s)
	}
	return f.choose(ctx, r, w)
}

// liveArgs makes the arguments of the live migration verbs. Without a word of the caller disks are copied unless the destination sees them.
func liveArgs(r *operation.Run, s *compute.Server) (command.LiveMigrateArgs, error) {
	var in compute.LiveMigrateInput
	if err := r.Bind(&in); err != nil {
		return command.LiveMigrateArgs{}, err
	}
	a := command.LiveMigrateArgs{Spec: SpecOf(s), Block: in.Block == nil || *in.Block, Auto: in.Block == nil, Migration: migrationID(r)}
	a.Spec.Claim = placeOf(r).Claim // the guest is defined at the destination with what it holds there
	a.Spec.VIFs = compute.WithoutDevices(a.Spec.VIFs)
	if r.Get(varTarget, &a.Target); a.Target[command.SharedDisks] != "" {
		a.Block = false
	}
	return a, nil
}

func (f *flows) livePrepare(ctx context.Context, r *operation.Run) error {
	var in compute.LiveMigrateInput
	s, err := f.asked(ctx, r, &in)
	if err != nil {
		return err
	}
	a, err := liveArgs(r, s)
	if err != nil {
		return err
	}
	p := placeOf(r)
	r.Set(varTried, true)
	// The destination wires the ports before the guest comes; until it has come they are bound here.
	for _, v := range a.Spec.VIFs {
		if err := f.Network.ReserveBinding(ctx, caller(r), v.PortID, p.Host); gone(err) != nil {
			if offSegment(err) && in.Host == "" {
				return f.another(r, "schedule", p.Host, err)
			}
			return err
		}
	}
	target := map[string]string{}
	if err := f.ask(ctx, r, p.Host, command.PreLiveMigrate, a, &target); err != nil {
		if in.Host != "" || errors.Is(err, context.Canceled) || fault.KindOf(err) == fault.NotImplemented {
			return err
		}
		return f.another(r, "schedule", p.Host, err)
	}
	r.Set(varTarget, target)
	return nil
}

func (f *flows) liveRollback(ctx context.Context, r *operation.Run) error {
	s, err := f.Store.ServerAny(ctx, f.Store.DB, r.Object)
	if err != nil {
		return gone(err)
	}
	a, err := liveArgs(r, s)
	if err != nil {
		return err
	}
	p := placeOf(r)
	for _, v := range s.VIFs {
		if err := f.Network.DropBinding(ctx, caller(r), v.PortID, p.Host); err != nil {
			return err
		}
	}
	err = f.send(ctx, r, p.Host, command.RollbackLive, "/undo", a, nil)
	if errors.Is(err, fault.Conflict) { // it came after all
		if look := f.liveLook(ctx, r); look != nil || passed(r) {
			return look
		}
		return err
	}
	if f.silent(ctx, p.Host, err) {
		return f.owe(ctx, r, p.Host, command.Destroy, command.DestroyArgs{}, "a live migration to the host was undone while it was down")
	}
	return gone(err)
}

func (f *flows) liveMove(ctx context.Context, r *operation.Run) error {
	s, err := f.server(ctx, r)
	if err != nil {
		return err
	}
	a, err := liveArgs(r, s)
	if err != nil {
		return err
	}
	src, dst := from(r), placeOf(r)
	if err := f.aborted(ctx, r); err != nil {
		return err
	}
	if err := f.unplugDevices(ctx, r, s, src.Host); err != nil {
		return err
	}
	err = f.ask(ctx, r, src.Host, command.LiveMigrate, a, nil, f.aborted)
	if err == nil || ctx.Err() != nil {
		return err
	}
	// The outcome of a failed move is unknown: look where the guest is.
	moved, look := f.hasMoved(ctx, r, src.Host, dst.Host)
	switch {
	case look != nil:
		return fault.Wrap(errors.Join(err, look), fault.Unavailable, "The live migration of instance %s failed, and it cannot be told on which host the guest is.", s.ID)
	case moved:
		return nil
	}
	return err
}

// aborted fails when somebody has asked for the end of the live migration.
func (f *flows) aborted(ctx context.Context, r *operation.Run) error {
	m, err := f.Store.Migration(ctx, f.Store.DB, migrationID(r))
	if err != nil {
		return err
	}
	return notCancelled(m)
}

// liveLook sees whether the guest left although the step failed; then there is no way back, and what is left of the move is done. While that cannot be told nothing is done
// to the guest, on neither host: the engine asks again and journals what it waits for.
func (f *flows) liveLook(ctx context.Context, r *operation.Run) error {
	m, err := f.Store.Migration(ctx, f.Store.DB, migrationID(r))
	if err != nil {
		return gone(err)
	}
	if m.Status != "post-migrating" {
		moved, err := f.hasMoved(ctx, r, from(r).Host, placeOf(r).Host)
		if err != nil {
			return err
		}
		if !moved {
			return f.liveStays(ctx, r)
		}
		// It is recorded at once: who does this again, after a crash, may find the destination down.
		if err := f.Store.DB.Write(ctx, func(tx *db.Tx) error { return gone(f.liveMoved(ctx, tx, r)) }); err != nil {
			return err
		}
	}
	r.Set(varPassed, true)
	return gone(f.liveFinish(ctx, r))
}

// liveStays gives a guest that is known to be on its old host its devices back.
func (f *flows) liveStays(ctx context.Context, r *operation.Run) error {
	s, err := f.Store.ServerAny(ctx, f.Store.DB, r.Object)
	if err != nil || len(compute.DevicesOf(s.VIFs)) == 0 {
		return gone(err)
	}
	return gone(f.plugDevices(ctx, r, s, from(r).Place, "/undo"))
}

func (f *flows) liveUndone(ctx context.Context, tx *db.Tx, r *operation.Run, cause error) error {
	if !passed(r) {
		return f.keepFault(ctx, tx, r, cause)
	}
	if err := f.liveMoved(ctx, tx, r); err != nil {
		return err
	}
	return f.liveDone(ctx, tx, r)
}

// hasMoved tells whether the guest left the source for the destination. The source is asked first: once it has answered, no command that could still send the guest away
// runs there. It fails with fault.Unavailable while that cannot be told: neither host can be asked, or the guest is on its way.
func (f *flows) hasMoved(ctx context.Context, r *operation.Run, src, dst string) (bool, error) {
	here, err := f.where(ctx, r, src)
	if err != nil {
		return false, err
	}
	there, err := f.where(ctx, r, dst)
	if err != nil {
		return false, err
	}
	switch {
	case here.down && there.down:
		return false, fault.New(fault.Unavailable, "Neither host %s nor host %s answers: it cannot be told where instance %s is.", src, dst, r.Object)
	case there.down:
		return !here.found, nil
	case here.down:
		return there.power == virt.Running, nil
	case there.power == virt.Running && (here.power == virt.Running || here.power == virt.Paused):
		return false, fault.New(fault.Unavailable, "Instance %s is on its way from host %s to host %s.", r.Object, src, dst)
	}
	return there.found && (!here.found || there.power == virt.Running), nil
}

type sighting struct {
	found, down bool
	power       virt.PowerState
}

// where looks for the server's guest on a host.
func (f *flows) where(ctx context.Context, r *operation.Run, host string) (sighting, error) {
	var g virt.GuestState
	err := f.try(ctx, r, host, command.QueryGuest, struct{}{}, &g)
	switch {
	case err == nil:
		return sighting{found: true, power: g.Power}, nil
	case errors.Is(err, fault.NotFound):
		return sighting{}, nil
	case f.silent(ctx, host, err):
		return sighting{down: true}, nil
	}
	return sighting{}, err
}

// liveMoved records the new host as soon as the guest is there.
func (f *flows) liveMoved(ctx context.Context, tx *db.Tx, r *operation.Run) error {
	if err := f.update(ctx, tx, r, func(s *compute.Server) { settle(s, placeOf(r)) }); err != nil {
		return err
	}
	return f.setMigration(ctx, tx, migrationID(r), "post-migrating")
}

func (f *flows) liveFinish(ctx context.Context, r *operation.Run) error {
	s, err := f.server(ctx, r)
	if err != nil {
		return err
	}
	src, dst := from(r), placeOf(r)
	if err := f.bind(ctx, r, s, dst); err != nil {
		return err
	}
	if err := f.must(ctx, r, src.Host, command.ForgetLive, struct{}{}, "the server left the host by live migration"); err != nil {
		return err
	}
	var g command.GuestResult
	adopt := command.SpecArgs{Spec: SpecOf(s)}
	err = f.try(ctx, r, dst.Host, command.AdoptLive, adopt, &g)
	if err == nil {
		r.Set(varPower, g.Power)
	}
	if err := f.orOwe(ctx, r, dst.Host, command.AdoptLive, adopt, "the server came by live migration just before the host went down", err); err != nil {
		return err
	}
	if err := f.plugDevices(ctx, r, s, dst, ""); err != nil {
		return err
	}
	return f.release(ctx, migrationID(r))
}

func (f *flows) liveDone(ctx context.Context, tx *db.Tx, r *operation.Run) error {
	was := from(r)
	err := f.update(ctx, tx, r, func(s *compute.Server) {
		power(r, s)
		s.VMState = was.VMState
	})
	if err != nil {
		return err
	}
	return f.setMigration(ctx, tx, migrationID(r), "completed")
}

// abortLive marks a live migration cancelled and asks the source to stop it; the operation that runs it then fails and undoes itself. A migration that
// is over before the word reaches it ends as completed.
func (f *flows) abortLive() operation.Flow {
	return operation.Flow{
		Kind:  OpAbortLive,
		Steps: []operation.Step{{Name: "abort", Event: "compute_live_migration_abort", Do: f.doAbort}},
	}
}

// underWay are the states of a live migration that can still be aborted or hastened.
var underWay = []string{"queued", "preparing", "running"}

func (f *flows) doAbort(ctx context.Context, r *operation.Run) error {
	m, err := f.liveMigration(ctx, r, "cancelled") // cancelled: by this step, before it was interrupted
	if err != nil {
		return err
	}
	// The record is marked first: whatever step of the migration comes next sees it and turns back. One that is over by then is not marked.
	err = f.Store.DB.Write(ctx, func(tx *db.Tx) error {
		return f.Store.UpdateMigration(ctx, tx, m.UUID, func(m *compute.Migration) error {
			if slices.Contains(underWay, m.Status) {
				m.Status = "cancelled"
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	return gone(f.ask(ctx, r, m.SourceHost, command.AbortLive, struct{}{}, nil)) // not found: the guest has not begun to move
}

func (f *flows) liveMigration(ctx context.Context, r *operation.Run, or ...string) (*compute.Migration, error) {
	ms, err := f.Store.Migrations(ctx, f.Store.DB, store.MigrationFilter{ServerID: r.Object, Type: "live-migration", Status: append(or, underWay...), Limit: 1})
	if err != nil {
		return nil, err
	}
	if len(ms) == 0 {
		return nil, fault.New(fault.Conflict, "Instance %s has no live migration in progress.", r.Object)
	}
	return &ms[0], nil
}

// forceLive makes a running live migration end soon: the guest is slowed down or paused until its memory is over.
func (f *flows) forceLive() operation.Flow {
	return operation.Flow{
		Kind:  OpForceLive,
		Steps: []operation.Step{{Name: "force", Event: "compute_live_migration_force_complete", Do: f.doForce}},
	}
}

func (f *flows) doForce(ctx context.Context, r *operation.Run) error {
	m, err := f.liveMigration(ctx, r)
	if err != nil {
		return err
	}
	return f.ask(ctx, r, m.SourceHost, command.ForceLive, struct{}{}, nil)
}
