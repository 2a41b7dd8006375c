package virttest

import (
	"context"
	"regexp"
	"sync"
	"testing"
	"time"

	"kilonova/internal/compute/virt"
	"kilonova/internal/fault"
)

var traitForm = regexp.MustCompile(`^[A-Z0-9_]{1,255}$`)

func testInfo(t *testing.T, b *bench) {
	info, err := b.Driver.Info(b.ctx(t))
	must(t, "info", err)
	if info.Hostname == "" || info.HypervisorType == "" || info.HypervisorVersion <= 0 {
		t.Errorf("host has no name, type or version: %+v", info)
	}
	if info.VCPUs <= 0 || info.MemoryMB <= 0 || info.DiskGB <= 0 {
		t.Errorf("host has nothing to give: %d vCPU, %d MiB, %d GiB", info.VCPUs, info.MemoryMB, info.DiskGB)
	}
	if len(info.Supported) == 0 || info.CPUInfo["arch"] == nil {
		t.Errorf("host supports no guest or tells no architecture: %v %v", info.Supported, info.CPUInfo)
	}
	seen := map[string]bool{}
	for _, tr := range info.Traits {
		if !traitForm.MatchString(tr) || seen[tr] {
			t.Errorf("trait %q is malformed or told twice", tr)
		}
		seen[tr] = true
	}
}

func testUnknownGuest(t *testing.T, b *bench) {
	ctx, spec := b.ctx(t), b.Spec(t)
	id := spec.ID
	_, err := b.Driver.Guest(ctx, id)
	wantKind(t, "guest", err, fault.NotFound)
	must(t, "destroying a guest that is not there", b.Driver.Destroy(ctx, id, false))
	wantKind(t, "power off", b.Driver.PowerOff(ctx, id, 0), fault.NotFound)
	wantKind(t, "power on", b.Driver.PowerOn(ctx, spec), fault.NotFound)
	wantKind(t, "soft reboot", b.Driver.Reboot(ctx, spec, false, time.Second), fault.NotFound)
	wantKind(t, "hard reboot", b.Driver.Reboot(ctx, spec, true, 0), fault.NotFound)
	if a, ok := b.Driver.(virt.Pauser); ok {
		wantKind(t, "pause", a.Pause(ctx, id), fault.NotFound)
		wantKind(t, "unpause", a.Unpause(ctx, id), fault.NotFound)
	}
	if a, ok := b.Driver.(virt.Suspender); ok {
		wantKind(t, "suspend", a.Suspend(ctx, id), fault.NotFound)
		wantKind(t, "resume", a.Resume(ctx, spec), fault.NotFound)
	}
	if a, ok := b.Driver.(virt.Snapshotter); ok {
		_, err = a.Snapshot(ctx, id, virt.SnapshotOptions{Format: "qcow2", Dir: t.TempDir()})
		wantKind(t, "snapshot", err, fault.NotFound)
	}
	if a, ok := b.Driver.(virt.Resizer); ok {
		wantKind(t, "prepare resize", a.PrepareResize(ctx, id, 0), fault.NotFound)
		must(t, "confirm resize of nothing", a.ConfirmResize(ctx, id))
	}
	if a, ok := b.Driver.(virt.ConsoleLogger); ok {
		_, err = a.ConsoleLog(ctx, id, 0, 1<<16)
		wantKind(t, "console log", err, fault.NotFound)
	}
	if a, ok := b.Driver.(virt.Consoler); ok {
		_, err = a.Console(ctx, id, "vnc")
		wantKind(t, "console", err, fault.NotFound)
	}
	if a, ok := b.Driver.(virt.PasswordSetter); ok {
		wantKind(t, "password", a.SetPassword(ctx, id, "root", "secret"), fault.NotFound)
	}
	if a, ok := b.Driver.(virt.CrashDumper); ok {
		wantKind(t, "crash dump", a.CrashDump(ctx, id), fault.NotFound)
	}
	if a, ok := b.Driver.(virt.Diagnoser); ok {
		_, err = a.Diagnostics(ctx, id)
		wantKind(t, "diagnostics", err, fault.NotFound)
	}
	wantGone(t, ctx, b.Driver, id)
}

func testSpawnAndDestroy(t *testing.T, b *bench) {
	spec := b.guest(t)
	twice(t, "spawn", func() error { return b.Driver.Spawn(b.ctx(t), spec) })
	b.wantPower(t, spec.ID, virt.Running)
	g, err := b.Driver.Guest(b.ctx(t), spec.ID)
	must(t, "guest", err)
	if g.Name != spec.Name {
		t.Errorf("the guest is named %q, want %q", g.Name, spec.Name)
	}
	twice(t, "destroy", func() error { return b.Driver.Destroy(b.ctx(t), spec.ID, false) })
	wantGone(t, b.ctx(t), b.Driver, spec.ID)
	must(t, "spawn after destroy", b.Driver.Spawn(b.ctx(t), spec))
	b.wantPower(t, spec.ID, virt.Running)
}

func testSpawnStopped(t *testing.T, b *bench) {
	spec := b.guest(t)
	spec.Stopped = true
	twice(t, "spawn", func() error { return b.Driver.Spawn(b.ctx(t), spec) })
	b.wantPower(t, spec.ID, virt.Shutdown)
	spec.Stopped = false
	twice(t, "power on", func() error { return b.Driver.PowerOn(b.ctx(t), spec) })
	b.wantPower(t, spec.ID, virt.Running)
	twice(t, "power off", func() error { return b.Driver.PowerOff(b.ctx(t), spec.ID, 0) })
	b.wantPower(t, spec.ID, virt.Shutdown)
	must(t, "hard reboot of a stopped guest", b.Driver.Reboot(b.ctx(t), spec, true, 0))
	b.wantPower(t, spec.ID, virt.Running)
}

func testManyAtOnce(t *testing.T, b *bench) {
	specs := []*virt.Spec{b.guest(t), b.guest(t), b.guest(t)}
	var wg sync.WaitGroup
	ctx := b.ctx(t)
	for _, s := range specs {
		for range 2 { // the same guest twice at the same time, too
			wg.Go(func() {
				if err := b.Driver.Spawn(ctx, s); err != nil {
					t.Errorf("spawn %s: %v", s.ID, err)
				}
			})
		}
	}
	wg.Wait()
	for _, s := range specs {
		b.wantPower(t, s.ID, virt.Running)
	}
	for _, s := range specs {
		for range 2 {
			wg.Go(func() {
				if err := b.Driver.Destroy(ctx, s.ID, false); err != nil {
					t.Errorf("destroy %s: %v", s.ID, err)
				}
			})
		}
	}
	wg.Wait()
	for _, s := range specs {
		wantGone(t, ctx, b.Driver, s.ID)
	}
}

func testPowerOffGracefully(t *testing.T, b *bench) {
	spec := b.running(t)
	b.write(t, spec.ID, "/home/kilo/kept", "written before the power button")
	must(t, "power off", b.Driver.PowerOff(b.ctx(t), spec.ID, b.Limit/2))
	b.wantPower(t, spec.ID, virt.Shutdown)
	must(t, "power on", b.Driver.PowerOn(b.ctx(t), spec))
	b.ready(t, spec.ID)
	b.wantFile(t, spec.ID, "/home/kilo/kept", "written before the power button")
}

func testReboot(t *testing.T, b *bench) {
	spec := b.running(t)
	b.write(t, spec.ID, "/run/gone", "volatile")
	must(t, "soft reboot", b.Driver.Reboot(b.ctx(t), spec, false, b.Limit/2))
	b.wantPower(t, spec.ID, virt.Running)
	b.ready(t, spec.ID)
	b.wantFile(t, spec.ID, "/run/gone", "")
	must(t, "hard reboot", b.Driver.Reboot(b.ctx(t), spec, true, 0))
	b.wantPower(t, spec.ID, virt.Running)
	must(t, "power off", b.Driver.PowerOff(b.ctx(t), spec.ID, 0))
	wantKind(t, "soft reboot of a stopped guest", b.Driver.Reboot(b.ctx(t), spec, false, time.Second), fault.Conflict)
}

func testKeepDisks(t *testing.T, b *bench) {
	spec := b.running(t)
	b.write(t, spec.ID, "/home/kilo/kept", "still here")
	must(t, "power off", b.Driver.PowerOff(b.ctx(t), spec.ID, b.Limit/2))
	twice(t, "destroy without disks", func() error { return b.Driver.Destroy(b.ctx(t), spec.ID, true) })
	wantGone(t, b.ctx(t), b.Driver, spec.ID)
	must(t, "spawn on kept disks", b.Driver.Spawn(b.ctx(t), spec))
	b.ready(t, spec.ID)
	b.wantFile(t, spec.ID, "/home/kilo/kept", "still here")
}

func testRestart(t *testing.T, b *bench) {
	if b.Reopen == nil {
		t.Skip("the harness cannot open the driver a second time")
	}
	spec, off := b.running(t), b.guest(t)
	off.Stopped = true
	must(t, "spawn stopped", b.Driver.Spawn(b.ctx(t), off))
	b.write(t, spec.ID, "/run/memory", "not rebooted")
	b.reopen(t)
	b.wantPower(t, spec.ID, virt.Running)
	b.wantPower(t, off.ID, virt.Shutdown)
	b.wantFile(t, spec.ID, "/run/memory", "not rebooted")
	must(t, "spawn of a guest that runs", b.Driver.Spawn(b.ctx(t), spec))
	b.wantFile(t, spec.ID, "/run/memory", "not rebooted")
}

// reopen closes the driver and opens it again, as after a restart of the agent.
func (b *bench) reopen(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	must(t, "close", b.Driver.Close())
	b.Driver, b.reopened = b.Reopen(t), true
}

func testCancelledContext(t *testing.T, b *bench) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	spec := b.guest(t)
	if err := b.Driver.Spawn(ctx, spec); err == nil {
		t.Error("spawn with a cancelled context succeeded")
	}
	must(t, "spawn after a cancelled one", b.Driver.Spawn(b.ctx(t), spec))
	b.wantPower(t, spec.ID, virt.Running)
}

func testPause(t *testing.T, b *bench) {
	a := ability[virt.Pauser](t, b)
	spec := b.running(t)
	b.write(t, spec.ID, "/run/memory", "frozen")
	twice(t, "pause", func() error { return a.Pause(b.ctx(t), spec.ID) })
	b.wantPower(t, spec.ID, virt.Paused)
	twice(t, "unpause", func() error { return a.Unpause(b.ctx(t), spec.ID) })
	b.wantPower(t, spec.ID, virt.Running)
	b.wantFile(t, spec.ID, "/run/memory", "frozen")
	must(t, "pause", a.Pause(b.ctx(t), spec.ID))
	must(t, "power off of a paused guest", b.Driver.PowerOff(b.ctx(t), spec.ID, time.Second))
	b.wantPower(t, spec.ID, virt.Shutdown)
	wantKind(t, "pause of a stopped guest", a.Pause(b.ctx(t), spec.ID), fault.Conflict)
	wantKind(t, "unpause of a stopped guest", a.Unpause(b.ctx(t), spec.ID), fault.Conflict)
}

func testSuspend(t *testing.T, b *bench) {
	a := ability[virt.Suspender](t, b)
	spec := b.running(t)
	b.write(t, spec.ID, "/run/memory", "asleep")
	twice(t, "suspend", func() error { return a.Suspend(b.ctx(t), spec.ID) })
	b.wantPower(t, spec.ID, virt.Suspended)
	if b.Reopen != nil {
		b.reopen(t)
		a = b.Driver.(virt.Suspender)
		b.wantPower(t, spec.ID, virt.Suspended)
	}
	twice(t, "resume", func() error { return a.Resume(b.ctx(t), spec) })
	b.wantPower(t, spec.ID, virt.Running)
	b.wantFile(t, spec.ID, "/run/memory", "asleep")
	must(t, "power off", b.Driver.PowerOff(b.ctx(t), spec.ID, 0))
	wantKind(t, "suspend of a stopped guest", a.Suspend(b.ctx(t), spec.ID), fault.Conflict)
	must(t, "power on", b.Driver.PowerOn(b.ctx(t), spec))
	must(t, "suspend", a.Suspend(b.ctx(t), spec.ID))
	must(t, "destroy of a suspended guest", b.Driver.Destroy(b.ctx(t), spec.ID, false))
	wantGone(t, b.ctx(t), b.Driver, spec.ID)
}
