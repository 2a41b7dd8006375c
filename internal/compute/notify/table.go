package notify

import (
	"context"
	"errors"
	"strings"

	"kilonova/internal/compute"
	"kilonova/internal/compute/flow"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/operation"
)

// Line is one line of the table of operations' events: at this turn of this step of this kind of operation, that is told. Step "" means the whole operation.
type Line struct {
	Kind, Step string
	At         operation.Moment
	Event      string
	from       source
	body       body
	when       condition
}

// Payload names the versioned object that the line sends.
func (l Line) Payload() string { return l.body.name }

// occasion is a turn with the server as its transaction leaves it.
type occasion struct {
	n      *Notifier
	ctx    context.Context //nolint:containedctx // lives as long as one call of Turned
	tx     *db.Tx
	turn   operation.Turn
	server *compute.Server
	who    initiator
}

type (
	source    func(o *occasion) string
	condition func(o *occasion) bool
	body      struct {
		name string
		make func(o *occasion) (object, error)
	}
)

// tell writes the notification of a line.
func (o *occasion) tell(l Line) error {
	if l.when != nil && !l.when(o) {
		return nil
	}
	payload, err := l.body.make(o)
	if err != nil {
		return err
	}
	priority := o.n.cfg.Level
	if isError(l.Event) {
		priority = "ERROR"
	}
	return o.n.add(o.ctx, o.tx, l.Event, priority, l.from(o), payload, o.who)
}

func isError(event string) bool { return strings.HasSuffix(event, ".error") }

// Who speaks: the server's host, the host that a move comes from or goes to, the host where the step ran, or a part of the control plane.
func onServer(o *occasion) string { return computeAt(o.server.Host, o.n.cfg.Host) }
func onSource(o *occasion) string { return computeAt(flow.Source(o.turn.Run), o.server.Host) }
func onTarget(o *occasion) string { return computeAt(flow.Target(o.turn.Run), o.server.Host) }
func onStep(o *occasion) string   { return computeAt(o.turn.Run.Host, o.n.cfg.Host) }
func byAPI(o *occasion) string    { return "nova-api:" + o.n.cfg.Host }

func byConductor(o *occasion) string { return "nova-conductor:" + o.n.cfg.Host }
func byScheduler(o *occasion) string { return "nova-scheduler:" + o.n.cfg.Host }

// onOldHost is where a resized server was before.
func onOldHost(o *occasion) string {
	m, err := o.n.cfg.Store.Migration(o.ctx, o.tx, o.server.System[compute.SysMigration])
	if err != nil { // it was purged: the host the server is on speaks
		return onServer(o)
	}
	return computeAt(m.SourceHost, o.n.cfg.Host)
}

// whoDeletes is the API for a server that no host has.
func whoDeletes(o *occasion) string {
	if o.server.Host == "" {
		return byAPI(o)
	}
	return onServer(o)
}

// Bodies.
var (
	plain    = action("InstanceActionPayload", nil)
	creating = body{"InstanceCreatePayload", func(o *occasion) (object, error) { return o.n.create(o.server, o.who, o.why()), nil }}
	rebuilt  = action("InstanceActionRebuildPayload", func(o *occasion) map[string]any {
		more := map[string]any{"trusted_image_certificates": certificates(o.server)}
		var in compute.RebuildInput
		if o.turn.Run.Kind == compute.OpRebuild && o.turn.Run.Bind(&in) == nil && in.ImageID != "" {
			more["image_uuid"] = in.ImageID
		}
		return more
	})
	prepared = action("InstanceActionResizePrepPayload", func(o *occasion) map[string]any {
		var in compute.ResizeInput
		if o.turn.Run.Bind(&in) != nil || in.Migrate {
			return map[string]any{"new_flavor": flavor(&o.server.Flavor, nil)}
		}
		return map[string]any{"new_flavor": flavor(&in.Flavor, nil)}
	})
	rescued = action("InstanceActionRescuePayload", func(o *occasion) map[string]any {
		var in compute.RescueInput
		_ = o.turn.Run.Bind(&in) // an input that cannot be read has no image
		return map[string]any{"rescue_image_ref": orNull(in.ImageID)}
	})
	snapped = action("InstanceActionSnapshotPayload", func(o *occasion) map[string]any {
		var in compute.SnapshotInput
		_ = o.turn.Run.Bind(&in) // as above
		return map[string]any{"snapshot_image_id": in.ImageID}
	})
	shelved = action("InstanceActionPayload", func(*occasion) map[string]any {
		return map[string]any{"state": compute.VMShelved, "power_state": powerName(compute.PowerShutdown)}
	})
	counted = body{"InstanceExistsPayload", func(o *occasion) (object, error) {
		begin, now := o.n.current()
		return o.n.exists(o.server, o.who, begin, now), nil
	}}
	asked  = body{"RequestSpecPayload", (*occasion).request}
	failed = body{"ComputeTaskPayload", func(o *occasion) (object, error) {
		spec, err := o.request()
		if err != nil {
			return object{}, err
		}
		state := o.server.VMState
		if o.turn.Run.Kind == compute.OpCreate {
			state = compute.VMError // where the server goes now
		}
		return made("ComputeTaskPayload", map[string]any{"instance_uuid": o.server.ID, "request_spec": spec, "state": state, "reason": exception(o.turn.Err, o.turn.Step)}), nil
	}}
)

func action(name string, more func(o *occasion) map[string]any) body {
	return body{name, func(o *occasion) (object, error) {
		var m map[string]any
		if more != nil {
			m = more(o)
		}
		return o.n.action(name, o.server, o.who, o.why(), m), nil
	}}
}

// why is the fault of the payload.
func (o *occasion) why() any {
	if o.turn.Err == nil {
		return nil
	}
	return exception(o.turn.Err, o.turn.Step)
}

// Conditions.
func noHost(o *occasion) bool {
	var e *fault.Error
	return !o.turn.Again && errors.As(o.turn.Err, &e) && (e.Code == flow.CodeNoValidHost || e.Code == flow.CodeExhausted)
}

func hosted(o *occasion) bool   { return o.server.Host != "" }
func went(o *occasion) bool     { return o.turn.Err == nil }
func turned(o *occasion) bool   { return !flow.Passed(o.turn.Run) }
func arrived(o *occasion) bool  { return o.turn.Err == nil || flow.Passed(o.turn.Run) }
func newImage(o *occasion) bool { return flow.NewImage(o.turn.Run) }
func kept(o *occasion) bool     { return flow.ShelvesImage(o.turn.Run) }
func leaves(o *occasion) bool   { return arrived(o) && flow.Leaves(o.turn.Run) }
func remains(o *occasion) bool  { return o.turn.Err == nil && !flow.Leaves(o.turn.Run) }
func moves(o *occasion) bool    { return o.turn.Err == nil && flow.Spawns(o.turn.Run) }

// Lines is the table of what operations tell, in the order in which one turn tells it.
func Lines() []Line {
	const (
		began, done, broke, ended = operation.Began, operation.Succeeded, operation.Failed, operation.Ended
	)
	var t []Line
	// one is the pair of events of an operation that is one step; its failure is told by compute.exception only.
	one := func(kind, step, event string, b body) {
		t = append(t, Line{kind, step, began, event + ".start", onServer, b, nil}, Line{kind, "", ended, event + ".end", onServer, b, went})
	}
	// choice is the choice of a host.
	choice := func(kind, step string) {
		t = append(t, Line{kind, step, began, "scheduler.select_destinations.start", byScheduler, asked, nil},
			Line{kind, step, done, "scheduler.select_destinations.end", byScheduler, asked, nil})
	}
	// lost is the end of an operation for want of a host, at the steps that may find so.
	lost := func(kind, task string, steps ...string) {
		for _, step := range steps {
			t = append(t, Line{kind, step, broke, "compute_task." + task + ".error", byConductor, failed, noHost})
		}
	}

	choice(compute.OpCreate, "schedule")
	t = append(t,
		Line{compute.OpCreate, "network", began, "instance.create.start", onServer, creating, nil},
		Line{compute.OpCreate, "network", broke, "instance.create.error", onServer, creating, nil},
		Line{compute.OpCreate, "build", broke, "instance.create.error", onServer, creating, nil},
		Line{compute.OpCreate, "", ended, "instance.create.end", onServer, creating, went},

		Line{compute.OpDelete, "destroy", began, "instance.delete.start", whoDeletes, plain, nil},
		Line{compute.OpDelete, "destroy", began, "instance.shutdown.start", onServer, plain, hosted},
		Line{compute.OpDelete, "destroy", done, "instance.shutdown.end", onServer, plain, hosted},
		Line{compute.OpDelete, "", ended, "instance.delete.end", whoDeletes, plain, went},
	)
	lost(compute.OpCreate, "build_instances", "schedule", "build")
	one(compute.OpSoftDelete, "power-off", "instance.soft_delete", plain)
	one(compute.OpRestore, "power-on", "instance.restore", plain)
	one(compute.OpStart, "power-on", "instance.power_on", plain)
	one(compute.OpStop, "power-off", "instance.power_off", plain)
	one(compute.OpReboot, "reboot", "instance.reboot", plain)
	t = append(t, Line{compute.OpReboot, "reboot", broke, "instance.reboot.error", onServer, plain, nil})
	one(compute.OpPause, "pause", "instance.pause", plain)
	one(compute.OpUnpause, "unpause", "instance.unpause", plain)
	one(compute.OpSuspend, "suspend", "instance.suspend", plain)
	one(compute.OpResume, "resume", "instance.resume", plain)
	t = append(t, Line{compute.OpRescue, "rescue", began, "instance.exists", onServer, counted, nil})
	one(compute.OpRescue, "rescue", "instance.rescue", rescued)
	one(compute.OpUnrescue, "unrescue", "instance.unrescue", plain)
	one(compute.OpCrashDump, "crash-dump", "instance.trigger_crash_dump", plain)
	one(compute.OpSnapshot, "snapshot", "instance.snapshot", snapped)
	t = append(t,
		Line{compute.OpBackup, "snapshot", began, "instance.snapshot.start", onServer, snapped, nil},
		Line{compute.OpBackup, "snapshot", done, "instance.snapshot.end", onServer, snapped, nil},

		Line{compute.OpRebuild, "validate", began, "scheduler.select_destinations.start", byScheduler, asked, newImage},
		Line{compute.OpRebuild, "validate", done, "scheduler.select_destinations.end", byScheduler, asked, newImage},
		Line{compute.OpRebuild, "validate", broke, "compute_task.rebuild_server.error", byConductor, failed, nil},
		Line{compute.OpRebuild, "validate", done, "instance.rebuild_scheduled", byConductor, rebuilt, nil},
		Line{compute.OpRebuild, "rebuild", began, "instance.exists", onServer, counted, nil},
		Line{compute.OpRebuild, "rebuild", began, "instance.rebuild.start", onServer, rebuilt, nil},
		Line{compute.OpRebuild, "rebuild", broke, "instance.rebuild.error", onServer, rebuilt, nil},
		Line{compute.OpRebuild, "", ended, "instance.rebuild.end", onServer, rebuilt, went},
	)
	choice(compute.OpResize, "schedule")
	lost(compute.OpResize, "migrate_server", "schedule", "prep-destination")
	t = append(t,
		Line{compute.OpResize, "prep-destination", began, "instance.exists", onServer, counted, nil},
		Line{compute.OpResize, "prep-destination", began, "instance.resize_prep.start", onTarget, prepared, nil},
		Line{compute.OpResize, "prep-destination", done, "instance.resize_prep.end", onTarget, prepared, nil},
		Line{compute.OpResize, "prep-destination", broke, "instance.resize.error", onTarget, plain, nil},
		Line{compute.OpResize, "migrate-disk", began, "instance.resize.start", onSource, plain, nil},
		Line{compute.OpResize, "migrate-disk", done, "instance.resize.end", onSource, plain, nil},
		Line{compute.OpResize, "migrate-disk", broke, "instance.resize.error", onSource, plain, nil},
		Line{compute.OpResize, "finish", began, "instance.resize_finish.start", onTarget, plain, nil},
		Line{compute.OpResize, "finish", broke, "instance.resize.error", onTarget, plain, nil},
		Line{compute.OpResize, "", ended, "instance.resize_finish.end", onTarget, plain, went},

		Line{compute.OpConfirmResize, "confirm", began, "instance.resize_confirm.start", onOldHost, plain, nil},
		Line{compute.OpConfirmResize, "confirm", done, "instance.resize_confirm.end", onOldHost, plain, nil},

		Line{compute.OpRevertResize, "stop-destination", began, "instance.exists", onServer, counted, nil},
		Line{compute.OpRevertResize, "finish-revert", began, "instance.resize_revert.start", onTarget, plain, nil},
		Line{compute.OpRevertResize, "", ended, "instance.resize_revert.end", onServer, plain, went},
	)
	choice(compute.OpLiveMigrate, "schedule")
	lost(compute.OpLiveMigrate, "migrate_server", "schedule", "prepare-destination")
	t = append(t,
		Line{compute.OpLiveMigrate, "prepare-destination", began, "instance.live_migration_pre.start", onTarget, plain, nil},
		Line{compute.OpLiveMigrate, "prepare-destination", done, "instance.live_migration_pre.end", onTarget, plain, nil},
		Line{compute.OpLiveMigrate, "migrate", done, "instance.live_migration_post.start", onSource, plain, nil},
		Line{compute.OpLiveMigrate, "finish", began, "instance.live_migration_post_dest.start", onTarget, plain, nil},
		Line{compute.OpLiveMigrate, "", ended, "instance.live_migration_post_dest.end", onTarget, plain, arrived},
		Line{compute.OpLiveMigrate, "", ended, "instance.live_migration_post.end", onSource, plain, arrived},
		Line{compute.OpLiveMigrate, "prepare-destination", operation.UndoBegan, "instance.live_migration_rollback.start", onSource, plain, turned},
		Line{compute.OpLiveMigrate, "prepare-destination", operation.UndoBegan, "instance.live_migration_rollback_dest.start", onTarget, plain, turned},
		Line{compute.OpLiveMigrate, "prepare-destination", operation.UndoDone, "instance.live_migration_rollback_dest.end", onTarget, plain, turned},
		Line{compute.OpLiveMigrate, "prepare-destination", operation.UndoDone, "instance.live_migration_rollback.end", onSource, plain, turned},
	)
	one(flow.OpAbortLive, "abort", "instance.live_migration_abort", plain)
	one(flow.OpForceLive, "force", "instance.live_migration_force_complete", plain)
	t = append(t, Line{compute.OpEvacuate, "", operation.Accepted, "instance.evacuate", byAPI, plain, nil})
	choice(compute.OpEvacuate, "schedule")
	lost(compute.OpEvacuate, "rebuild_server", "schedule", "rebuild")
	t = append(t,
		Line{compute.OpEvacuate, "schedule", done, "instance.rebuild_scheduled", byConductor, rebuilt, nil},
		Line{compute.OpEvacuate, "rebuild", began, "instance.exists", onTarget, counted, nil},
		Line{compute.OpEvacuate, "rebuild", began, "instance.rebuild.start", onTarget, rebuilt, nil},
		Line{compute.OpEvacuate, "rebuild", broke, "instance.rebuild.error", onTarget, rebuilt, nil},
		Line{compute.OpEvacuate, "", ended, "instance.rebuild.end", onTarget, rebuilt, went},

		Line{compute.OpShelve, "power-off", began, "instance.exists", onServer, counted, kept},
		Line{compute.OpShelve, "power-off", began, "instance.shelve.start", onServer, plain, kept},
		Line{compute.OpShelve, "offload", began, "instance.shelve.end", onServer, shelved, kept},
		Line{compute.OpShelve, "offload", began, "instance.shelve_offload.start", onServer, shelved, nil},
		Line{compute.OpShelve, "", ended, "instance.shelve_offload.end", onStep, plain, leaves},
		Line{compute.OpShelve, "", ended, "instance.shelve.end", onServer, plain, remains},

		Line{compute.OpShelveOffload, "offload", began, "instance.shelve_offload.start", onServer, plain, nil},
		Line{compute.OpShelveOffload, "", ended, "instance.shelve_offload.end", onStep, plain, arrived},
	)
	choice(compute.OpUnshelve, "schedule") // a server that finds no host has no event of its own: compute.exception tells of it
	t = append(t,
		Line{compute.OpUnshelve, "spawn", began, "instance.unshelve.start", onServer, plain, nil},
		Line{compute.OpUnshelve, "", ended, "instance.unshelve.end", onServer, plain, moves},
		Line{compute.OpUnshelve, "power-on", began, "instance.power_on.start", onServer, plain, nil},
		Line{compute.OpUnshelve, "power-on", done, "instance.power_on.end", onServer, plain, nil},

		Line{compute.OpAttachNIC, "port", began, "instance.interface_attach.start", onServer, plain, nil},
		Line{compute.OpAttachNIC, "port", broke, "instance.interface_attach.error", onServer, plain, nil},
		Line{compute.OpAttachNIC, "plug", broke, "instance.interface_attach.error", onServer, plain, nil},
		Line{compute.OpAttachNIC, "", ended, "instance.interface_attach.end", onServer, plain, went},
	)
	one(compute.OpDetachNIC, "unplug", "instance.interface_detach", plain)
	t = append(t,
		Line{"lock", "", operation.Accepted, "instance.lock", byAPI, plain, nil},
		Line{"unlock", "", operation.Accepted, "instance.unlock", byAPI, plain, nil},
	)
	return t
}
