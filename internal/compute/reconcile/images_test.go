package reconcile

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/auth"
	"kilonova/internal/compute"
	"kilonova/internal/db"
	"kilonova/internal/id"
	"kilonova/internal/image"
	imagelocal "kilonova/internal/image/local"
	"kilonova/internal/operation"
)

// The queued image of a snapshot that was not accepted goes; one that an operation will fill, that is young, or that is a user's own, stays.
func TestImagesThatNobodyWillFillAreRemoved(t *testing.T) {
	ctx, me := t.Context(), auth.Internal("req-1")
	var images *imagelocal.Service
	b := newBench(t, nil)
	images, err := imagelocal.New(ctx, imagelocal.Config{DB: b.db, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = images.Close() })
	b.loops.cfg.Image, b.loops.cfg.QueuedImages = images, time.Nanosecond
	busy, idle := id.UUID(), id.UUID()
	add := func(name string, props map[string]string) {
		t.Helper()
		if _, err := images.Create(ctx, me, image.Image{ID: id.UUID(), Name: name, Visibility: "private", Owner: "p", DiskFormat: "raw", ContainerFormat: "bare", Properties: props}); err != nil {
			t.Fatal(err)
		}
	}
	snapshot := func(server string) map[string]string {
		return map[string]string{"image_location": "snapshot", "instance_uuid": server, "image_type": "snapshot"}
	}
	add("own", map[string]string{"instance_uuid": idle})
	add("in the making", snapshot(busy))
	add("left", snapshot(idle))
	b.write(func(tx *db.Tx) error {
		_, err := b.engine.Accept(ctx, tx, operation.Spec{Kind: compute.OpSnapshot, ObjectType: "server", Object: busy, Action: "createImage"})
		return err
	})
	names := func() (out []string) {
		t.Helper()
		list, err := images.List(ctx, me, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range list {
			out = append(out, i.Name)
		}
		slices.Sort(out)
		return out
	}
	look := func(want ...string) {
		t.Helper()
		if err := b.loops.Images(ctx); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, names()); d != "" {
			t.Errorf("images (-want +got):\n%s", d)
		}
	}
	look("in the making", "own")
	add("young", snapshot(idle))
	b.loops.cfg.QueuedImages = time.Hour
	look("in the making", "own", "young")
}
