package fake

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/virt"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/network"
)

// Pause implements virt.Pauser.
func (d *Driver) Pause(ctx context.Context, id string) error {
	return d.change(ctx, "pause", id, func(g *guest) error {
		if g.Power == virt.Paused {
			return nil
		}
		if err := wantRunning(g); err != nil {
			return err
		}
		g.Power = virt.Paused
		return nil
	})
}

// Unpause implements virt.Pauser.
func (d *Driver) Unpause(ctx context.Context, id string) error {
	return d.change(ctx, "unpause", id, func(g *guest) error {
		if g.Power == virt.Paused {
			g.Power = virt.Running
		}
		return wantRunning(g)
	})
}

// Suspend implements virt.Suspender.
func (d *Driver) Suspend(ctx context.Context, id string) error {
	return d.change(ctx, "suspend", id, func(g *guest) error {
		if g.Power == virt.Suspended {
			return nil
		}
		if err := wantRunning(g); err != nil {
			return err
		}
		g.Power = virt.Suspended
		return nil
	})
}

// Resume implements virt.Suspender.
func (d *Driver) Resume(ctx context.Context, spec *virt.Spec) error {
	return d.change(ctx, "resume", spec.ID, func(g *guest) error {
		if g.Power == virt.Suspended {
			g.Power = virt.Running
		}
		return wantRunning(g)
	})
}

// Rescue implements virt.Rescuer.
func (d *Driver) Rescue(ctx context.Context, spec *virt.Spec) error {
	return d.change(ctx, "rescue", spec.ID, func(g *guest) error {
		if g.Spec.Rescue != nil && g.Power == virt.Running {
			return nil
		}
		g.Spec = *spec
		g.boot()
		return nil
	})
}

// Unrescue implements virt.Rescuer.
func (d *Driver) Unrescue(ctx context.Context, spec *virt.Spec) error {
	return d.change(ctx, "unrescue", spec.ID, func(g *guest) error {
		if g.Spec.Rescue == nil && g.Power == virt.Running {
			return nil
		}
		g.Spec = *spec
		g.Spec.Rescue = nil
		g.boot()
		return nil
	})
}

// Snapshot implements virt.Snapshotter: the file is an empty disk of the format asked for.
func (d *Driver) Snapshot(ctx context.Context, id string, o virt.SnapshotOptions) (*virt.SnapshotFile, error) {
	g, err := d.present(ctx, d.cfg.DB, id)
	if err != nil {
		return nil, err
	}
	if err := d.begin(ctx, "snapshot", id, g.Spec.ExtraSpecs); err != nil {
		return nil, err
	}
	if o.Format == "" {
		o.Format = "raw"
	}
	path := filepath.Join(o.Dir, "snapshot-"+id+"."+o.Format)
	body := make([]byte, 64<<10)
	copy(body, "kilonova fake disk of "+g.Name+"\n")
	if o.Format == "qcow2" {
		body = emptyQCOW2(max(g.Spec.RootGB, 1) << 30)
	}
	if err := os.WriteFile(path, body, 0o600); err != nil {
		return nil, fmt.Errorf("fake snapshot: %w", err)
	}
	return &virt.SnapshotFile{Path: path, Format: o.Format}, nil
}

// emptyQCOW2 is a version 2 image without any data: header, an empty first-level table, and reference counts for the five clusters used.
func emptyQCOW2(size int64) []byte {
	const bits, cluster = 16, 1 << 16
	entries := (size + cluster*cluster/8 - 1) / (cluster * cluster / 8)
	img := make([]byte, 4*cluster)
	be := binary.BigEndian
	copy(img, "QFI\xfb")
	be.PutUint32(img[4:], 2)
	be.PutUint32(img[20:], bits)
	be.PutUint64(img[24:], uint64(size))
	be.PutUint32(img[36:], uint32(entries))
	be.PutUint64(img[40:], 3*cluster) // first-level table
	be.PutUint64(img[48:], cluster)   // reference count table
	be.PutUint32(img[56:], 1)
	be.PutUint64(img[cluster:], 2*cluster) // its one block
	for i := range 4 {
		be.PutUint16(img[2*cluster+2*i:], 1)
	}
	return img
}

// PrepareResize implements virt.Resizer.
func (d *Driver) PrepareResize(ctx context.Context, id string, _ time.Duration) error {
	return d.change(ctx, "prepare-resize", id, func(g *guest) error {
		if g.Kept == nil {
			kept := g.Spec
			g.Kept, g.Files = &kept, nil
		}
		if !g.Resized {
			g.Power = virt.Shutdown
		}
		return nil
	})
}

// FinishResize implements virt.Resizer. A guest whose disks were imported from another host is made of them.
func (d *Driver) FinishResize(ctx context.Context, spec *virt.Spec) error {
	if err := d.begin(ctx, "finish-resize", spec.ID, spec.ExtraSpecs); err != nil {
		return err
	}
	return d.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		g, err := d.load(ctx, tx, d.host, spec.ID)
		if err != nil {
			return err
		}
		imported := g.Files != nil
		if !g.Disks && (g.Resized || imported) {
			return nil // it was finished before
		}
		if err := d.divided(ctx, tx, spec); err != nil {
			return err
		}
		if !imported && g.Kept == nil { // the resize back is taken back
			kept := g.Spec
			g.Kept = &kept
		}
		// A guest that came from elsewhere has nothing here to go back to: its next resize begins anew.
		g.Spec, g.Name, g.Resized, g.Disks = *spec, spec.Name, !imported, false
		g.Power = virt.Shutdown
		if !spec.Stopped {
			g.boot()
		}
		return d.save(ctx, tx, d.host, g)
	})
}

// RevertResize implements virt.Resizer.
func (d *Driver) RevertResize(ctx context.Context, old *virt.Spec) error {
	return d.change(ctx, "revert-resize", old.ID, func(g *guest) error {
		if g.Kept == nil && !g.Resized {
			return nil
		}
		g.Spec, g.Kept, g.Resized = *old, nil, false
		g.Power = virt.Shutdown
		if !old.Stopped {
			g.boot()
		}
		return nil
	})
}

// ConfirmResize implements virt.Resizer. A guest that was made ready here and finished on another host goes.
func (d *Driver) ConfirmResize(ctx context.Context, id string) error {
	g, err := d.present(ctx, d.cfg.DB, id)
	if err != nil {
		return ignoreGone(err)
	}
	if g.Kept != nil && !g.Resized {
		return d.Destroy(ctx, id, false)
	}
	return d.change(ctx, "confirm-resize", id, func(g *guest) error { g.Kept, g.Resized = nil, false; return nil })
}

// ConsoleLog implements virt.ConsoleLogger.
func (d *Driver) ConsoleLog(ctx context.Context, id string, lines int, limit int64) ([]byte, error) {
	g, err := d.present(ctx, d.cfg.DB, id)
	if err != nil {
		return nil, err
	}
	all := g.Console
	if lines > 0 && len(all) > lines {
		all = all[len(all)-lines:]
	}
	out := []byte(strings.Join(all, "\n"))
	if limit > 0 && int64(len(out)) > limit {
		out = out[int64(len(out))-limit:]
	}
	return out, nil
}

// AttachInterface implements virt.InterfaceAttacher.
func (d *Driver) AttachInterface(ctx context.Context, spec *virt.Spec, vif network.VIF) error {
	return d.change(ctx, "attach-interface", spec.ID, func(g *guest) error {
		g.Spec.Claim = spec.Claim
		g.Spec.VIFs = append(withoutVIF(g.Spec.VIFs, vif.PortID), vif)
		return nil
	})
}

// DetachInterface implements virt.InterfaceAttacher.
func (d *Driver) DetachInterface(ctx context.Context, spec *virt.Spec, vif network.VIF) error {
	return d.change(ctx, "detach-interface", spec.ID, func(g *guest) error { g.Spec.VIFs = withoutVIF(g.Spec.VIFs, vif.PortID); return nil })
}

// AttachVolume implements virt.VolumeAttacher.
func (d *Driver) AttachVolume(ctx context.Context, spec *virt.Spec, v virt.Disk) error {
	switch t := v.Connection["driver_volume_type"]; t {
	case nil, "fake", "local", "file", "iscsi", "rbd", "nbd":
	default:
		return fault.New(fault.NotImplemented, "The fake hypervisor has no volumes of type %v.", t)
	}
	return d.change(ctx, "attach-volume", spec.ID, func(g *guest) error {
		g.Spec.Disks = append(withoutVolume(g.Spec.Disks, v.VolumeID), v)
		return nil
	})
}

// DetachVolume implements virt.VolumeAttacher.
func (d *Driver) DetachVolume(ctx context.Context, spec *virt.Spec, v virt.Disk) error {
	return d.change(ctx, "detach-volume", spec.ID, func(g *guest) error { g.Spec.Disks = withoutVolume(g.Spec.Disks, v.VolumeID); return nil })
}

func withoutVolume(in []virt.Disk, volume string) []virt.Disk {
	return slices.DeleteFunc(slices.Clone(in), func(v virt.Disk) bool { return v.VolumeID == volume })
}

// SetPassword implements virt.PasswordSetter. The password is forgotten at once.
func (d *Driver) SetPassword(ctx context.Context, id, _, _ string) error {
	return d.change(ctx, "set-password", id, wantRunning)
}

// CrashDump implements virt.CrashDumper.
func (d *Driver) CrashDump(ctx context.Context, id string) error {
	return d.change(ctx, "crash-dump", id, func(g *guest) error {
		if err := wantRunning(g); err != nil {
			return err
		}
		g.Console = append(g.Console, "fake guest received a non-maskable interrupt")
		return nil
	})
}

// Diagnostics implements virt.Diagnoser.
func (d *Driver) Diagnostics(ctx context.Context, id string) (*virt.Diagnostics, error) {
	g, err := d.present(ctx, d.cfg.DB, id)
	if err != nil {
		return nil, err
	}
	if err := wantRunning(g); err != nil {
		return nil, err
	}
	zero := func() *int64 { return new(int64) }
	up := int64(clock.Now().Sub(clock.FromMicros(g.Started)).Seconds())
	memory := g.Spec.MemoryMB
	out := &virt.Diagnostics{State: "running", Driver: "fake", Hypervisor: "fake", HypervisorOS: "fake-os", Uptime: &up, ConfigDrive: g.Spec.ConfigDrive != "",
		MemoryMaxMB: &memory, MemoryUsedMB: zero(), Legacy: map[string]any{"memory": memory << 10, "vda_read": 0, "vda_write": 0, "vda_errors": -1}}
	for i := range g.Spec.VCPUs {
		out.CPUs = append(out.CPUs, virt.CPUDiag{ID: i, Time: zero(), Utilisation: zero()})
		out.Legacy[fmt.Sprintf("cpu%d_time", i)] = 0
	}
	for _, v := range g.Spec.VIFs {
		out.NICs = append(out.NICs, virt.NICDiag{MAC: v.MAC, RxOctets: zero(), RxErrors: zero(), RxDrop: zero(), RxPackets: zero(), RxRate: zero(),
			TxOctets: zero(), TxErrors: zero(), TxDrop: zero(), TxPackets: zero(), TxRate: zero()})
	}
	for range 1 + len(g.Spec.Disks) {
		out.Disks = append(out.Disks, virt.DiskDiag{ReadBytes: zero(), ReadRequests: zero(), WriteBytes: zero(), WriteRequests: zero(), Errors: zero()})
	}
	return out, nil
}

// LiveMigrationTarget implements virt.Migrator.
func (d *Driver) LiveMigrationTarget(context.Context, *virt.Spec) (map[string]string, error) {
	return map[string]string{"host": d.host}, nil
}

// PreLiveMigration implements virt.Migrator.
func (d *Driver) PreLiveMigration(ctx context.Context, spec *virt.Spec, _ bool) error {
	if err := d.begin(ctx, "pre-live-migrate", spec.ID, spec.ExtraSpecs); err != nil {
		return err
	}
	return d.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		if _, err := d.present(ctx, tx, spec.ID); err == nil {
			return nil // it has arrived
		}
		return d.save(ctx, tx, d.host, &guest{ID: spec.ID, Name: spec.Name, Incoming: true, doc: doc{Spec: *spec}})
	})
}

// LiveMigrate implements virt.Migrator. The move itself is one transaction: the guest is never on both hosts nor on none.
func (d *Driver) LiveMigrate(ctx context.Context, spec *virt.Spec, target map[string]string, _ bool, progress func(virt.MigrationProgress)) error {
	to := target["host"]
	if there, err := d.load(ctx, d.cfg.DB, to, spec.ID); err == nil && !there.Incoming {
		if _, err := d.present(ctx, d.cfg.DB, spec.ID); fault.KindOf(err) == fault.NotFound {
			return nil // it went before
		}
	}
	g, err := d.present(ctx, d.cfg.DB, spec.ID)
	if err != nil {
		return err
	}
	memory := g.Spec.MemoryMB << 20
	progress(virt.MigrationProgress{MemoryTotal: memory, MemoryRemaining: memory})
	if err := d.begin(ctx, "live-migrate", spec.ID, g.Spec.ExtraSpecs); err != nil {
		return err
	}
	defer d.consoles.end(spec.ID)
	return d.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		g, err := d.present(ctx, tx, spec.ID)
		if err != nil {
			return err
		}
		if _, err := d.load(ctx, tx, to, spec.ID); err != nil {
			return fault.Wrap(err, fault.Conflict, "Host %s is not ready for guest %s.", to, spec.ID)
		}
		if len(compute.DevicesOf(g.Spec.VIFs)) > 0 {
			return fault.New(fault.Conflict, "Guest %s has PCI devices of this host as interfaces and cannot leave it.", spec.ID)
		}
		power := g.Power
		g.Spec = *spec
		g.Power = power
		if err := d.save(ctx, tx, to, g); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "DELETE FROM fake_guests WHERE host = ? AND id = ?", d.host, spec.ID)
		return err
	})
}

// AbortLiveMigration implements virt.Migrator. The agent cancels the call itself; a guest without one has nothing to abort.
func (d *Driver) AbortLiveMigration(_ context.Context, id string) error {
	return fault.New(fault.NotFound, "Guest %s is not being migrated.", id)
}

// ForceLiveMigration implements virt.Migrator.
func (d *Driver) ForceLiveMigration(ctx context.Context, id string) error {
	_, err := d.present(ctx, d.cfg.DB, id)
	return err
}

// RollbackLiveMigration implements virt.Migrator.
func (d *Driver) RollbackLiveMigration(ctx context.Context, spec *virt.Spec) error {
	return d.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		_, err := tx.Exec(ctx, "DELETE FROM fake_guests WHERE host = ? AND id = ? AND incoming = 1", d.host, spec.ID)
		return err
	})
}

// ExportDisks implements virt.DiskMover.
func (d *Driver) ExportDisks(ctx context.Context, id string) ([]string, error) {
	if _, err := d.load(ctx, d.cfg.DB, d.host, id); err != nil {
		return nil, err
	}
	return []string{"disk"}, nil
}

// OpenDisk implements virt.DiskMover.
func (d *Driver) OpenDisk(ctx context.Context, id, name string) (io.ReadCloser, error) {
	if _, err := d.load(ctx, d.cfg.DB, d.host, id); err != nil {
		return nil, err
	}
	if name != "disk" {
		return nil, fault.New(fault.Invalid, "Guest %s has no file %q.", id, name)
	}
	return io.NopCloser(bytes.NewReader([]byte("kilonova fake disk of " + id + "\n"))), nil
}

// ImportDisk implements virt.DiskMover.
func (d *Driver) ImportDisk(ctx context.Context, id, name string, r io.Reader) error {
	if name == "" || name != filepath.Base(name) || slices.Contains([]string{".", ".."}, name) {
		return fault.New(fault.Invalid, "%q is no plain file name.", name)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return fmt.Errorf("import %s: %w", name, err)
	}
	return d.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		g, err := d.load(ctx, tx, d.host, id)
		if fault.KindOf(err) == fault.NotFound {
			g, err = &guest{ID: id, Power: virt.Shutdown, doc: doc{Disks: true}}, nil
		}
		if err != nil {
			return err
		}
		if g.Files == nil {
			g.Files = map[string]bool{}
		}
		g.Files[name] = true
		return d.save(ctx, tx, d.host, g)
	})
}
