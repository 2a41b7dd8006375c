package flow

import (
	"context"
	"slices"

	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/operation"
)

// delete removes a server in any state. It takes over whatever operation was open (the engine undoes that one first); a host that is down owes the
// destruction of its guest and does not hold the delete up.
func (f *flows) delete() operation.Flow {
	return operation.Flow{
		Kind:    compute.OpDelete,
		Removes: true,
		Steps: []operation.Step{
			{Name: "destroy", Event: "compute_terminate_instance", TaskState: compute.TaskDeleting, Retries: 60, NoReturn: true, Do: f.destroyEverywhere},
			{Name: "release", Retries: 60, Do: f.releaseEverything},
		},
		Done:   f.deleteDone,
		Undone: f.toError,
	}
}

// openMigrations are the states of migration records that still tie a second host to the server.
var openMigrations = []string{"accepted", "queued", "preparing", "running", "pre-migrating", "migrating", "post-migrating", "finished", "confirming", "reverting", "done"}

func (f *flows) destroyEverywhere(ctx context.Context, r *operation.Run) error {
	s, err := f.Store.ServerAny(ctx, f.Store.DB, r.Object)
	if err != nil || !s.Deleted.IsZero() {
		return err
	}
	hosts := []string{s.Host}
	migs, err := f.movesOf(ctx, s)
	if err != nil {
		return err
	}
	r.Set("moves", len(migs))
	for _, m := range migs {
		hosts = append(hosts, m.SourceHost, m.DestHost)
	}
	slices.Sort(hosts)
	for _, h := range slices.Compact(hosts) {
		if h == "" {
			continue
		}
		if err := f.must(ctx, r, h, command.Destroy, command.DestroyArgs{}, "the server was deleted while the host was down"); err != nil {
			return err
		}
	}
	r.Host = s.Host
	return nil
}

// movesOf gives the unfinished migrations of a server that has ever been on a host.
func (f *flows) movesOf(ctx context.Context, s *compute.Server) ([]compute.Migration, error) {
	if s.LaunchedOn == "" {
		return nil, nil
	}
	return f.Store.Migrations(ctx, f.Store.DB, store.MigrationFilter{ServerID: s.ID, Status: openMigrations})
}

// movesIf is movesOf for the steps behind the first, which has seen whether there are any.
func (f *flows) movesIf(ctx context.Context, r *operation.Run, s *compute.Server) ([]compute.Migration, error) {
	if n := 0; r.Get("moves", &n) && n == 0 {
		return nil, nil
	}
	return f.movesOf(ctx, s)
}

func (f *flows) releaseEverything(ctx context.Context, r *operation.Run) error {
	s, err := f.Store.ServerAny(ctx, f.Store.DB, r.Object)
	if err != nil {
		return err
	}
	if err := f.releasePorts(ctx, r, s); err != nil {
		return err
	}
	migs, err := f.movesIf(ctx, r, s)
	if err != nil {
		return err
	}
	consumers := []string{s.ID}
	for _, m := range migs {
		consumers = append(consumers, m.UUID)
	}
	if img := s.System[SysShelvedImage]; img != "" {
		if err := f.dropImage(ctx, r, img); err != nil {
			return err
		}
	}
	if s.System[compute.SysClaim] != "" || compute.NeedsClaim(&s.Flavor, s.ImageProps) || s.OldFlavor != nil && compute.NeedsClaim(s.OldFlavor, s.ImageProps) {
		return f.release(ctx, consumers...)
	}
	for _, c := range consumers {
		if err := f.Placement.Release(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// releasePorts deletes the ports that were made for the server and unbinds the others.
func (f *flows) releasePorts(ctx context.Context, r *operation.Run, s *compute.Server) error {
	ports, err := f.Network.DevicePorts(ctx, caller(r), s.ID)
	if err != nil {
		return err
	}
	given := map[string]bool{}
	for _, v := range s.VIFs {
		given[v.PortID] = !v.Created
	}
	for _, p := range ports {
		// A port of the server that its record does not name was half made by an operation that this delete took over; such a port was
		// made for the server if its id says so.
		made := !given[p.ID]
		if _, known := given[p.ID]; !known {
			made = MadeFor(s.ID, p.ID)
		}
		if err := f.unplugOne(ctx, r, p.ID, made); err != nil {
			return err
		}
	}
	return nil
}

// MadeFor tells whether a port was made for a server at its creation: its id says so.
func MadeFor(server, port string) bool {
	for i := range 64 { // far more interfaces than any server may ask for at create
		if portID(server, i, compute.NICRequest{}) == port {
			return true
		}
	}
	return false
}

func (f *flows) deleteDone(ctx context.Context, tx *db.Tx, r *operation.Run) error {
	if n := 0; r.Get("moves", &n) && n == 0 {
		return f.Store.DeleteServer(ctx, tx, r.Object)
	}
	migs, err := f.Store.Migrations(ctx, tx, store.MigrationFilter{ServerID: r.Object, Status: openMigrations})
	if err != nil {
		return err
	}
	for _, m := range migs {
		if err := f.setMigration(ctx, tx, m.UUID, afterDelete(m)); err != nil {
			return err
		}
	}
	return f.Store.DeleteServer(ctx, tx, r.Object)
}

// afterDelete is how a migration ends whose server is deleted: a finished one counts as confirmed, an evacuation as completed.
func afterDelete(m compute.Migration) string {
	switch m.Status {
	case "finished", "confirming":
		return "confirmed"
	case "done":
		return "completed"
	}
	return "error"
}

// softDelete turns the guest off and keeps everything until the reclaim time has passed.
func (f *flows) softDelete() operation.Flow {
	return operation.Flow{
		Kind: compute.OpSoftDelete,
		Steps: []operation.Step{
			{Name: "power-off", Event: "compute_soft_delete_instance", TaskState: compute.TaskSoftDeleting, Retries: 60, Deadline: f.StopGrace + longAgo, Do: f.softOff, Undo: f.softOn},
		},
		Done: func(ctx context.Context, tx *db.Tx, r *operation.Run) error {
			return f.update(ctx, tx, r, func(s *compute.Server) {
				s.VMState, s.PowerState = compute.VMSoftDeleted, compute.PowerShutdown
				setSystem(s, map[string]string{SysSoftDeletedAt: nowText()})
			})
		},
		Undone: f.keepFault,
	}
}

func (f *flows) softOff(ctx context.Context, r *operation.Run) error {
	s, err := f.server(ctx, r)
	if err != nil {
		return err
	}
	return f.must(ctx, r, s.Host, command.PowerOff, command.PowerOffArgs{Grace: f.grace(s)}, "the server was soft-deleted while the host was down")
}

// softOn starts the guest that softOff stopped.
func (f *flows) softOn(ctx context.Context, r *operation.Run) error {
	s, err := f.Store.ServerAny(ctx, f.Store.DB, r.Object)
	if err != nil || off(s) || !s.Deleted.IsZero() {
		return gone(err)
	}
	return gone(f.undoOn(ctx, r, s.Host, command.PowerOn, withSpec(s), "a soft delete was undone while the host was down"))
}

// restore brings a soft-deleted server back. One that was on no host is shelved again.
func (f *flows) restore() operation.Flow {
	return f.oneCommand(compute.OpRestore, operation.Step{Name: "power-on", Event: "compute_restore_instance", TaskState: compute.TaskRestoring, Do: f.doRestore},
		func(s *compute.Server, _ *operation.Run) {
			if s.VMState = compute.VMActive; s.Host == "" {
				s.VMState = compute.VMShelvedOffloaded
			}
			s.CountRestored(false)
			setSystem(s, map[string]string{SysSoftDeletedAt: ""})
		})
}

func (f *flows) doRestore(ctx context.Context, r *operation.Run) error {
	s, err := f.server(ctx, r)
	if err != nil || s.Host == "" {
		return err
	}
	return f.guest(ctx, r, s.Host, command.PowerOn, withSpec(s))
}
