package virttest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	"kilonova/internal/compute/virt"
	"kilonova/internal/fault"
)

func testRescue(t *testing.T, b *bench) {
	a := ability[virt.Rescuer](t, b)
	spec := b.running(t)
	b.write(t, spec.ID, "/home/kilo/kept", "on the root disk")
	must(t, "power off", b.Driver.PowerOff(b.ctx(t), spec.ID, b.Limit/2))
	rescued := *spec
	rescued.Rescue = &virt.RescueSpec{BaseImage: spec.BaseImage, BaseFormat: spec.BaseFormat}
	twice(t, "rescue", func() error { return a.Rescue(b.ctx(t), &rescued) })
	b.wantPower(t, spec.ID, virt.Running)
	b.ready(t, spec.ID)
	b.wantFile(t, spec.ID, "/home/kilo/kept", "")
	twice(t, "unrescue", func() error { return a.Unrescue(b.ctx(t), spec) })
	b.wantPower(t, spec.ID, virt.Running)
	b.ready(t, spec.ID)
	b.wantFile(t, spec.ID, "/home/kilo/kept", "on the root disk")
}

func testSnapshot(t *testing.T, b *bench) {
	a := ability[virt.Snapshotter](t, b)
	spec := b.running(t)
	before := fileSum(t, spec.BaseImage)
	b.write(t, spec.ID, "/home/kilo/kept", "in the snapshot")

	live, err := a.Snapshot(b.ctx(t), spec.ID, virt.SnapshotOptions{Format: "qcow2", Dir: t.TempDir(), Quiesce: true})
	must(t, "snapshot of a running guest", err)
	b.checkImage(t, live, "qcow2")
	b.wantPower(t, spec.ID, virt.Running)
	b.write(t, spec.ID, "/home/kilo/later", "after the snapshot")

	again, err := a.Snapshot(b.ctx(t), spec.ID, virt.SnapshotOptions{Format: "raw", Dir: t.TempDir()})
	must(t, "second snapshot of a running guest", err)
	b.checkImage(t, again, "raw")

	must(t, "power off", b.Driver.PowerOff(b.ctx(t), spec.ID, b.Limit/2))
	cold, err := a.Snapshot(b.ctx(t), spec.ID, virt.SnapshotOptions{Format: "qcow2", Dir: t.TempDir()})
	must(t, "snapshot of a stopped guest", err)
	b.checkImage(t, cold, "qcow2")
	b.wantPower(t, spec.ID, virt.Shutdown)
	if after := fileSum(t, spec.BaseImage); after != before {
		t.Error("the snapshots changed the base image")
	}
	if !b.RealFiles {
		return
	}
	for _, c := range []struct {
		file  *virt.SnapshotFile
		later string
	}{{live, ""}, {cold, "after the snapshot"}} {
		s := b.guest(t)
		s.BaseImage, s.BaseFormat = c.file.Path, c.file.Format
		must(t, "spawn from the snapshot", b.Driver.Spawn(b.ctx(t), s))
		b.ready(t, s.ID)
		b.wantFile(t, s.ID, "/home/kilo/kept", "in the snapshot")
		b.wantFile(t, s.ID, "/home/kilo/later", c.later)
		must(t, "destroy", b.Driver.Destroy(b.ctx(t), s.ID, false))
	}
}

// checkImage looks at a snapshot's file: it is there, has the format asked for, and no backing file.
func (b *bench) checkImage(t *testing.T, f *virt.SnapshotFile, format string) {
	t.Helper()
	if f.Format != format {
		t.Errorf("snapshot has format %q, want %q", f.Format, format)
	}
	st, err := os.Stat(f.Path)
	must(t, "snapshot file", err)
	if !b.RealFiles {
		return
	}
	if st.Size() == 0 {
		t.Errorf("%s is empty", f.Path)
	}
	head := make([]byte, 16)
	r, err := os.Open(f.Path)
	must(t, "open", err)
	defer r.Close()
	_, err = io.ReadFull(r, head)
	must(t, "read", err)
	isQcow := bytes.HasPrefix(head, []byte("QFI\xfb"))
	if isQcow != (format == "qcow2") {
		t.Errorf("%s begins with % x, which is not %s", f.Path, head[:4], format)
	}
	if isQcow && binary.BigEndian.Uint64(head[8:]) != 0 {
		t.Errorf("%s has a backing file", f.Path)
	}
}

// fileSum gives the digest of a file; a name that is empty or names no file gives nothing to compare.
func fileSum(t *testing.T, path string) [32]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		return [32]byte{}
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	must(t, "read "+path, err)
	return [32]byte(h.Sum(nil))
}

func testResize(t *testing.T, b *bench) {
	a := ability[virt.Resizer](t, b)
	spec := b.running(t)
	b.write(t, spec.ID, "/home/kilo/kept", "before the resize")
	bigger := *spec
	bigger.MemoryMB += 64
	if bigger.RootGB > 0 {
		bigger.RootGB++
	}

	twice(t, "prepare", func() error { return a.PrepareResize(b.ctx(t), spec.ID, b.Limit/2) })
	b.wantPower(t, spec.ID, virt.Shutdown)
	twice(t, "finish", func() error { return a.FinishResize(b.ctx(t), &bigger) })
	b.wantPower(t, spec.ID, virt.Running)
	b.ready(t, spec.ID)
	b.wantFile(t, spec.ID, "/home/kilo/kept", "before the resize")
	b.write(t, spec.ID, "/home/kilo/later", "on the new disk")
	twice(t, "revert", func() error { return a.RevertResize(b.ctx(t), spec) })
	b.wantPower(t, spec.ID, virt.Running)
	b.ready(t, spec.ID)
	b.wantFile(t, spec.ID, "/home/kilo/kept", "before the resize")
	b.wantFile(t, spec.ID, "/home/kilo/later", "")

	must(t, "prepare", a.PrepareResize(b.ctx(t), spec.ID, b.Limit/2))
	must(t, "finish", a.FinishResize(b.ctx(t), &bigger))
	twice(t, "confirm", func() error { return a.ConfirmResize(b.ctx(t), spec.ID) })
	b.wantPower(t, spec.ID, virt.Running)
	b.ready(t, spec.ID)
	b.wantFile(t, spec.ID, "/home/kilo/kept", "before the resize")
}

func testMoveDisks(t *testing.T, b *bench) {
	src := ability[virt.DiskMover](t, b)
	if b.Peer == nil {
		t.Skip("the harness has no second host")
	}
	dst := b.Peer.(virt.DiskMover)
	spec := b.running(t)
	b.write(t, spec.ID, "/home/kilo/kept", "moved")
	must(t, "power off", b.Driver.PowerOff(b.ctx(t), spec.ID, b.Limit/2))
	names, err := src.ExportDisks(b.ctx(t), spec.ID)
	must(t, "export", err)
	if len(names) == 0 {
		t.Fatal("a guest without files")
	}
	for range 2 { // a repeated transfer is harmless
		for _, n := range names {
			if filepath.IsAbs(n) || n != filepath.Clean(n) {
				t.Errorf("file name %q is no plain name", n)
			}
			r, err := src.OpenDisk(b.ctx(t), spec.ID, n)
			must(t, "open "+n, err)
			err = dst.ImportDisk(b.ctx(t), spec.ID, n, r)
			r.Close()
			must(t, "import "+n, err)
		}
	}
	must(t, "destroy at the source", b.Driver.Destroy(b.ctx(t), spec.ID, false))
	must(t, "spawn at the peer", b.Peer.Spawn(b.ctx(t), spec))
	wantPowerAt(t, b.ctx(t), b.Peer, spec.ID, virt.Running)
	b.arrived()
	b.wantFile(t, spec.ID, "/home/kilo/kept", "moved")
	if _, err = src.OpenDisk(b.ctx(t), spec.ID, "../"+names[0]); err == nil {
		t.Error("a name with .. was opened")
	}
	wantKind(t, "import outside", dst.ImportDisk(b.ctx(t), spec.ID, "../x", bytes.NewReader(nil)), fault.Invalid)
}

func testLiveMigrate(t *testing.T, b *bench) {
	src := ability[virt.Migrator](t, b)
	if b.Peer == nil {
		t.Skip("the harness has no second host")
	}
	dst := b.Peer.(virt.Migrator)
	spec := b.running(t)
	b.write(t, spec.ID, "/run/memory", "carried along")
	block := !b.Shared

	// A destination that was made ready and given up is as before.
	twice(t, "pre", func() error { return dst.PreLiveMigration(b.ctx(t), spec, block) })
	twice(t, "rollback", func() error { return dst.RollbackLiveMigration(b.ctx(t), spec) })
	wantGone(t, b.ctx(t), b.Peer, spec.ID)
	b.wantPower(t, spec.ID, virt.Running)

	must(t, "pre", dst.PreLiveMigration(b.ctx(t), spec, block))
	target, err := dst.LiveMigrationTarget(b.ctx(t), spec)
	must(t, "target", err)
	must(t, "live migration", src.LiveMigrate(b.ctx(t), spec, target, block, func(virt.MigrationProgress) {}))
	wantPowerAt(t, b.ctx(t), b.Peer, spec.ID, virt.Running)
	wantGone(t, b.ctx(t), b.Driver, spec.ID)
	b.arrived()
	b.wantFile(t, spec.ID, "/run/memory", "carried along")
	wantKind(t, "abort without a migration", src.AbortLiveMigration(b.ctx(t), spec.ID), fault.NotFound)
}
