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

// shelve turns the guest off, keeps its disk as an image and, when asked to, leaves the host.
func (f *flows) shelve() operation.Flow {
	return operation.Flow{
		Kind: compute.OpShelve,
		Steps: []operation.Step{
			{Name: "power-off", Event: "compute_shelve_instance", TaskState: compute.TaskShelving, Deadline: f.StopGrace + longAgo, Do: f.shelveOff, Undo: unlessPassed(f.shelveOn)},
			{Name: "snapshot", TaskState: compute.TaskShelvingUploading, Deadline: f.TransferDeadline, Do: f.shelveSnapshot,
				Skip: func(r *operation.Run) bool { return shelveImage(r) == "" }},
			{Name: "offload", Event: "compute_shelve_offload_instance", TaskState: compute.TaskShelvingOffloading, Retries: 60, NoReturn: true, Do: f.offload, Undo: f.offloadLook,
				Skip: func(r *operation.Run) bool { return !offloads(r) }},
			{Name: "leave", TaskState: compute.TaskShelvingOffloading, Do: f.leave, Commit: f.offloaded, Skip: func(r *operation.Run) bool { return !offloads(r) }},
		},
		Done:   f.shelveDone,
		Undone: f.shelveUndone,
	}
}

func shelveImage(r *operation.Run) string {
	var in compute.ShelveInput
	_ = r.Bind(&in) // an input that cannot be read has no image
	return in.ImageID
}

// offloads tells whether the host is left at once: when asked to, and always without an image (the disks are volumes).
func offloads(r *operation.Run) bool {
	var in compute.ShelveInput
	return r.Bind(&in) == nil && (in.Offload || in.ImageID == "")
}

func (f *flows) shelveOff(ctx context.Context, r *operation.Run) error {
	s, err := f.server(ctx, r)
	if err != nil {
		return err
	}
	r.Set(varFrom, originOf(s))
	return f.guest(ctx, r, s.Host, command.PowerOff, command.PowerOffArgs{Grace: f.grace(s)})
}

func (f *flows) shelveOn(ctx context.Context, r *operation.Run) error {
	if img := shelveImage(r); img != "" {
		if err := f.dropImage(ctx, r, img); err != nil {
			return err
		}
	}
	s, err := f.Store.ServerAny(ctx, f.Store.DB, r.Object)
	if err != nil || off(s) {
		return gone(err)
	}
	return f.undoOn(ctx, r, s.Host, command.PowerOn, command.SpecArgs{Spec: SpecOf(s)}, "shelving was undone while the host was down")
}

// shelveUndone: a guest that was paused or suspended has been started anew by the undo.
func (f *flows) shelveUndone(ctx context.Context, tx *db.Tx, r *operation.Run, cause error) error {
	if passed(r) {
		if err := f.offloaded(ctx, tx, r); err != nil {
			return err
		}
		return f.shelveDone(ctx, tx, r)
	}
	return f.update(ctx, tx, r, func(s *compute.Server) {
		s.Fault = faultOf(cause, s.Host)
		if s.VMState == compute.VMPaused || s.VMState == compute.VMSuspended {
			s.VMState, s.PowerState = compute.VMActive, compute.PowerRunning
		}
	})
}

func (f *flows) shelveSnapshot(ctx context.Context, r *operation.Run) error {
	return f.takeSnapshot(ctx, r, shelveImage(r))
}

const offloadedDown = "the server was offloaded while the host was down"

// offload removes the guest from its host. From then on there is only the way forward.
func (f *flows) offload(ctx context.Context, r *operation.Run) error {
	s, err := f.server(ctx, r)
	if err != nil {
		return err
	}
	return f.must(ctx, r, s.Host, command.Destroy, command.DestroyArgs{KeepDisks: s.ImageID == ""}, offloadedDown)
}

// leave gives back what the server held of its host. Its ports stay with it, on no host.
func (f *flows) leave(ctx context.Context, r *operation.Run) error {
	s, err := f.server(ctx, r)
	if err != nil {
		return err
	}
	r.Host = s.Host // it is that host's step
	if err := f.bind(ctx, r, s, Place{Zone: s.AvailabilityZone}); err != nil {
		return err
	}
	return f.release(ctx, s.ID)
}

// offloadLook sees whether the guest is gone although the step failed; then there is no way back, and what is left of leaving the host is done. Of a host that is down
// nobody can tell: its guest counts as gone, for its disk was kept.
func (f *flows) offloadLook(ctx context.Context, r *operation.Run) error {
	if r.Kind == compute.OpShelve && !offloads(r) {
		return nil
	}
	s, err := f.Store.ServerAny(ctx, f.Store.DB, r.Object)
	if err != nil || !s.Deleted.IsZero() || s.Host == "" {
		return gone(err)
	}
	err = f.try(ctx, r, s.Host, command.QueryGuest, struct{}{}, nil)
	switch {
	case err == nil:
		return nil // the way back is open
	case f.silent(ctx, s.Host, err):
		if err := f.owe(ctx, r, s.Host, command.Destroy, command.DestroyArgs{KeepDisks: s.ImageID == ""}, offloadedDown); err != nil {
			return err
		}
	case !errors.Is(err, fault.NotFound):
		return err
	}
	r.Set(varPassed, true)
	return f.leave(ctx, r)
}

func (f *flows) offloaded(ctx context.Context, tx *db.Tx, r *operation.Run) error {
	if r.Kind == compute.OpShelve && !offloads(r) {
		return nil
	}
	return f.update(ctx, tx, r, func(s *compute.Server) {
		s.VMState, s.PowerState = compute.VMShelvedOffloaded, compute.PowerShutdown
		zone := s.AvailabilityZone
		settle(s, Place{Zone: zone})
	})
}

func (f *flows) shelveDone(ctx context.Context, tx *db.Tx, r *operation.Run) error {
	return f.update(ctx, tx, r, func(s *compute.Server) {
		s.VMState, s.PowerState = compute.VMShelved, compute.PowerShutdown
		if offloads(r) {
			s.VMState = compute.VMShelvedOffloaded
		}
		setSystem(s, map[string]string{SysShelvedImage: shelveImage(r), SysShelvedAt: nowText()})
	})
}

// shelveOffload takes a shelved server off its host.
func (f *flows) shelveOffload() operation.Flow {
	return operation.Flow{
		Kind: compute.OpShelveOffload,
		Steps: []operation.Step{
			{Name: "offload", Event: "compute_shelve_offload_instance", TaskState: compute.TaskShelvingOffloading, Retries: 60, NoReturn: true, Do: f.offload, Undo: f.offloadLook},
			{Name: "leave", TaskState: compute.TaskShelvingOffloading, Do: f.leave, Commit: f.offloaded},
		},
		Undone: func(ctx context.Context, tx *db.Tx, r *operation.Run, cause error) error {
			if passed(r) {
				return f.offloaded(ctx, tx, r)
			}
			return f.keepFault(ctx, tx, r, cause)
		},
	}
}

// unshelve brings a shelved server back: on its host when it is still there, else on a new one from the image that shelving kept.
func (f *flows) unshelve() operation.Flow {
	return operation.Flow{
		Kind: compute.OpUnshelve,
		Steps: []operation.Step{
			{Name: "look", TaskState: compute.TaskUnshelving, Do: f.unshelveLook},
			{Name: "image", Event: "get_image_info", TaskState: compute.TaskUnshelving, Do: f.unshelveImage, Skip: noShelvedImage},
			{Name: "schedule", Event: "schedule_instances", TaskState: compute.TaskUnshelving, Do: f.unshelveSchedule, Commit: f.unshelvePlaced, Undo: f.unshelveRelease, Skip: stays},
			{Name: "spawn", Event: "compute_unshelve_instance", TaskState: compute.TaskSpawning, Deadline: f.BuildDeadline, Do: f.unshelveSpawn, Undo: f.unshelveRemove, Skip: stays},
			{Name: "power-on", Event: "compute_start_instance", TaskState: compute.TaskPoweringOn, Do: f.on(command.PowerOn, withSpec), Undo: f.unshelveOff,
				Skip: func(r *operation.Run) bool { return !stays(r) }},
			{Name: "arrive", NoReturn: true, Do: func(context.Context, *operation.Run) error { return nil }},
			{Name: "forget-image", Retries: 30, Do: f.unshelveForget},
		},
		Done:   f.unshelveDone,
		Undone: f.keepOrError,
	}
}

// stays tells whether the server is still on its host.
func stays(r *operation.Run) bool { return from(r).VMState != compute.VMShelvedOffloaded }

func (f *flows) unshelveLook(ctx context.Context, r *operation.Run) error {
	s, err := f.server(ctx, r)
	if err != nil {
		return err
	}
	r.Set(varFrom, originOf(s))
	r.Set(varImage, s.System[SysShelvedImage])
	return nil
}

// noShelvedImage tells whether the server comes back without the image that shelving kept: it is still on its host, or its disks are volumes.
func noShelvedImage(r *operation.Run) bool {
	var img string
	return stays(r) || !r.Get(varImage, &img) || img == ""
}

// unshelveImage makes sure that the image which shelving kept is there. Without it the server has lost its disk, and is in ERROR.
func (f *flows) unshelveImage(ctx context.Context, r *operation.Run) error {
	var img string
	r.Get(varImage, &img)
	_, err := f.Image.Get(ctx, caller(r), img)
	if errors.Is(err, fault.NotFound) {
		r.Set(varToError, true)
		return fault.Wrap(err, fault.NotFound, "Unshelve attempted but the image %s cannot be found.", img)
	}
	return err
}

func (f *flows) unshelveSchedule(ctx context.Context, r *operation.Run) error {
	var in compute.UnshelveInput
	s, err := f.asked(ctx, r, &in)
	if err != nil {
		return err
	}
	w := Want{Server: s, Flavor: s.Flavor, ImageProps: s.ImageProps, Host: in.Host}
	switch {
	case in.Zone != nil:
		w.Zone = *in.Zone
	case !in.Unpin:
		w.Zone = pinned(s)
	}
	return f.choose(ctx, r, w)
}

func (f *flows) unshelvePlaced(ctx context.Context, tx *db.Tx, r *operation.Run) error {
	if stays(r) {
		return nil
	}
	s, err := f.Store.Server(ctx, tx, r.Object)
	if err != nil {
		return err
	}
	if err := f.guard(ctx, tx, r, s, placeOf(r).Host); err != nil {
		return err
	}
	return f.update(ctx, tx, r, func(s *compute.Server) { settle(s, placeOf(r)) })
}

func (f *flows) unshelveRelease(ctx context.Context, r *operation.Run) error {
	if stays(r) {
		return nil
	}
	return f.releaseClaim(ctx, r)
}

func (f *flows) unshelveSpawn(ctx context.Context, r *operation.Run) error {
	s, err := f.server(ctx, r)
	if err != nil {
		return err
	}
	p := placeOf(r)
	if err := f.bind(ctx, r, s, p); err != nil {
		return err
	}
	meta, err := f.Metadata(ctx, s, nil)
	if err != nil {
		return err
	}
	var img string
	r.Get(varImage, &img)
	if img == "" {
		img = s.ImageID
	}
	err = f.guest(ctx, r, p.Host, command.Spawn, command.SpawnArgs{Spec: SpecOf(s), ImageID: img, ConfigDrive: s.ConfigDrive, Metadata: meta})
	f.built(ctx, p.Host, err)
	return err
}

func (f *flows) unshelveRemove(ctx context.Context, r *operation.Run) error {
	if stays(r) {
		return nil
	}
	if err := f.undoOn(ctx, r, placeOf(r).Host, command.Destroy, command.DestroyArgs{}, "unshelving was undone while the host was down"); err != nil {
		return err
	}
	s, err := f.Store.ServerAny(ctx, f.Store.DB, r.Object)
	if err != nil {
		return gone(err)
	}
	return f.bind(ctx, r, s, Place{Zone: s.AvailabilityZone})
}

// unshelveOff turns a guest off again that stayed on its host.
func (f *flows) unshelveOff(ctx context.Context, r *operation.Run) error {
	if o := from(r); o.Host != "" && stays(r) {
		return gone(f.undoOn(ctx, r, o.Host, command.PowerOff, command.PowerOffArgs{}, "unshelving was undone while the host was down"))
	}
	return nil
}

func (f *flows) unshelveForget(ctx context.Context, r *operation.Run) error {
	var img string
	if r.Get(varImage, &img); img == "" {
		return nil
	}
	return f.dropImage(ctx, r, img)
}

func (f *flows) unshelveDone(ctx context.Context, tx *db.Tx, r *operation.Run) error {
	var in compute.UnshelveInput
	if err := r.Bind(&in); err != nil {
		return err
	}
	return f.update(ctx, tx, r, func(s *compute.Server) {
		power(r, s)
		s.VMState, s.Fault = compute.VMActive, nil
		if !stays(r) {
			s.Launched = clock.Now()
		}
		switch {
		case in.Unpin || in.Zone != nil && *in.Zone == "":
			s.PinnedZone = nil
		case in.Zone != nil:
			s.PinnedZone = in.Zone
		}
		setSystem(s, map[string]string{SysShelvedImage: "", SysShelvedAt: ""})
	})
}
