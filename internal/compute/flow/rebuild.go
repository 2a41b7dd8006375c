package flow

import (
	"context"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/db"
	"kilonova/internal/operation"
)

// rebuild makes the guest's disks anew from an image, on the same host, with the same addresses. A server that was off stays off.
func (f *flows) rebuild() operation.Flow {
	return operation.Flow{
		Kind: compute.OpRebuild,
		Steps: []operation.Step{
			{Name: "validate", Event: "rebuild_server", TaskState: compute.TaskRebuilding, Do: f.rebuildCheck},
			{Name: "rebuild", Event: "compute_rebuild_instance", TaskState: compute.TaskRebuildSpawning, Deadline: f.BuildDeadline, Do: f.doRebuild},
		},
		Done:   f.rebuildDone,
		Undone: f.rebuildUndone,
	}
}

// rebuilt is the server as it will be: with the new image.
func rebuilt(s *compute.Server, in compute.RebuildInput) *compute.Server {
	c := *s
	if in.ImageID != "" {
		c.ImageID = in.ImageID
		if in.ImageProps != nil {
			c.ImageProps = in.ImageProps
		}
	}
	return &c
}

func (f *flows) rebuildCheck(ctx context.Context, r *operation.Run) error {
	var in compute.RebuildInput
	s, err := f.asked(ctx, r, &in)
	if err != nil {
		return err
	}
	r.Set(varFrom, originOf(s))
	if !in.NewImage {
		return nil
	}
	n := rebuilt(s, in)
	err = f.Placer.Check(ctx, Want{Server: n, Flavor: n.Flavor, ImageProps: n.ImageProps}, s.Host)
	if noValidHost(err) {
		r.Set(varToError, true)
	}
	return err
}

func (f *flows) doRebuild(ctx context.Context, r *operation.Run) error {
	var in compute.RebuildInput
	s, err := f.asked(ctx, r, &in)
	if err != nil {
		return err
	}
	n := rebuilt(s, in)
	meta, err := f.Metadata(ctx, n, in.Files)
	if err != nil {
		return err
	}
	sp := SpecOf(n)
	sp.Stopped = from(r).VMState == compute.VMStopped
	r.Set(varToError, true)
	return f.guest(ctx, r, s.Host, command.Rebuild, command.SpawnArgs{Spec: sp, ImageID: n.ImageID, ConfigDrive: n.ConfigDrive, Metadata: meta, AdminPass: in.AdminPass})
}

func (f *flows) rebuildDone(ctx context.Context, tx *db.Tx, r *operation.Run) error {
	var in compute.RebuildInput
	if err := r.Bind(&in); err != nil {
		return err
	}
	return f.update(ctx, tx, r, func(s *compute.Server) {
		n := rebuilt(s, in)
		s.ImageID, s.ImageProps = n.ImageID, n.ImageProps
		power(r, s)
		s.VMState, s.Launched, s.Fault = compute.VMActive, clock.Now(), nil
		if from(r).VMState == compute.VMStopped {
			s.VMState = compute.VMStopped
		}
	})
}

// rebuildUndone: the server is in ERROR once its disks may be gone, and also when its host will not do for the new image, for whoever waits for the rebuild must see
// that it failed. Before anything was judged it is as it was. Its image is still the old one.
func (f *flows) rebuildUndone(ctx context.Context, tx *db.Tx, r *operation.Run, cause error) error {
	return f.keepOrError(ctx, tx, r, cause)
}
