package flow

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/scheduler"
	"kilonova/internal/fault"
	"kilonova/internal/image"
	"kilonova/internal/operation"
)

// snapshot fills the queued image that the API made with a copy of the root disk. A failure removes the image.
func (f *flows) snapshot() operation.Flow {
	return operation.Flow{
		Kind: compute.OpSnapshot,
		Steps: []operation.Step{
			{Name: "snapshot", Event: "compute_snapshot_instance", TaskState: compute.TaskSnapshot, Deadline: f.TransferDeadline, Do: f.doSnapshot, Undo: f.removeSnapshot},
		},
		Undone: f.keepFault,
	}
}

// backup is a snapshot that removes the oldest backups of its type beyond the rotation.
func (f *flows) backup() operation.Flow {
	return operation.Flow{
		Kind: compute.OpBackup,
		Steps: []operation.Step{
			{Name: "snapshot", Event: "compute_backup_instance", TaskState: compute.TaskImageUploading, Deadline: f.TransferDeadline, NoReturn: true, Do: f.doSnapshot, Undo: f.removeSnapshot},
			{Name: "rotate", TaskState: compute.TaskImageUploading, Retries: 30, Do: f.rotate},
		},
		Undone: f.keepFault,
	}
}

func (f *flows) doSnapshot(ctx context.Context, r *operation.Run) error {
	var in compute.SnapshotInput
	if err := r.Bind(&in); err != nil {
		return err
	}
	return f.takeSnapshot(ctx, r, in.ImageID)
}

// takeSnapshot has the server's host fill an image, unless it is full already.
func (f *flows) takeSnapshot(ctx context.Context, r *operation.Run, img string) error {
	s, err := f.server(ctx, r)
	if err != nil {
		return err
	}
	got, err := f.filled(ctx, r, img)
	if err != nil || got.Status == image.Active {
		return err
	}
	return f.ask(ctx, r, s.Host, command.Snapshot, command.SnapshotArgs{ImageID: img, Format: got.DiskFormat,
		Quiesce: s.VMState == compute.VMActive && scheduler.True(s.ImageProps["hw_qemu_guest_agent"]), QuiesceRequired: scheduler.True(s.ImageProps["os_require_quiesce"])}, nil,
		func(ctx context.Context, r *operation.Run) error { _, err := f.filled(ctx, r, img); return err })
}

// filled reads the image that a snapshot fills, once no earlier try fills it any more: what was cut off is queued again as soon as the image service has noticed.
func (f *flows) filled(ctx context.Context, r *operation.Run, img string) (*image.Image, error) {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		got, err := f.Image.Get(ctx, caller(r), img)
		if err != nil || got.Status != image.Saving {
			return got, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

func (f *flows) removeSnapshot(ctx context.Context, r *operation.Run) error {
	var in compute.SnapshotInput
	if err := r.Bind(&in); err != nil {
		return err
	}
	return f.dropImage(ctx, r, in.ImageID)
}

// dropImage deletes an image of ours; one that is gone, or that somebody protected meanwhile, is left.
func (f *flows) dropImage(ctx context.Context, r *operation.Run, img string) error {
	err := f.Image.Delete(ctx, caller(r), img)
	if errors.Is(err, fault.Forbidden) || errors.Is(err, fault.Conflict) {
		return nil
	}
	return gone(err)
}

func (f *flows) rotate(ctx context.Context, r *operation.Run) error {
	var in compute.SnapshotInput
	if err := r.Bind(&in); err != nil {
		return err
	}
	imgs, err := f.Image.List(ctx, caller(r), map[string]string{"instance_uuid": r.Object, "backup_type": in.BackupType})
	if err != nil {
		return err
	}
	imgs = slices.DeleteFunc(imgs, func(i image.Image) bool {
		return i.Status != image.Active || i.Properties["instance_uuid"] != r.Object || i.Properties["backup_type"] != in.BackupType
	})
	slices.SortFunc(imgs, func(a, b image.Image) int { return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(b.ID, a.ID)) })
	for i, img := range imgs {
		if i < in.Rotation {
			continue
		}
		if err := f.dropImage(ctx, r, img.ID); err != nil {
			return err
		}
	}
	return nil
}
