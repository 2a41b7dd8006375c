package reconcile

import (
	"context"
	"errors"
	"time"

	"kilonova/internal/auth"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/image"
)

// Images removes the queued images of snapshots that were never accepted. The API makes the image first, because the answer names it and the image service may
// refuse it, and accepts the snapshot then; a process that dies between the two leaves an image that nobody will fill.
func (l *Loops) Images(ctx context.Context) error {
	if l.cfg.Image == nil {
		return nil
	}
	caller := auth.Internal(id.Request())
	queued, err := l.cfg.Image.List(ctx, caller, map[string]string{"status": image.Queued, "image_location": "snapshot"})
	if err != nil {
		return err
	}
	for _, img := range queued {
		server := img.Properties["instance_uuid"]
		if server == "" || time.Since(img.Created) < l.cfg.QueuedImages {
			continue
		}
		busy, err := l.busy(ctx, server)
		if err != nil {
			return err
		}
		if busy {
			continue
		}
		l.log.Warn("an image that no snapshot will fill was removed", "image", img.ID, "server", server)
		if err := l.cfg.Image.Delete(ctx, caller, img.ID); err != nil && !errors.Is(err, fault.NotFound) && !errors.Is(err, fault.Forbidden) {
			return err
		}
	}
	return nil
}

// busy tells whether an operation on a server is open.
func (l *Loops) busy(ctx context.Context, server string) (bool, error) {
	ops, err := l.cfg.Engine.ByObject(ctx, server)
	if err != nil {
		return false, err
	}
	for _, o := range ops {
		if o.Finished.IsZero() {
			return true, nil
		}
	}
	return false, nil
}
