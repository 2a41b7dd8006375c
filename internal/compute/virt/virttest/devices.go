package virttest

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"kilonova/internal/compute/virt"
	"kilonova/internal/fault"
)

func testConsoleLog(t *testing.T, b *bench) {
	a := ability[virt.ConsoleLogger](t, b)
	spec := b.running(t)
	all, err := a.ConsoleLog(b.ctx(t), spec.ID, 0, 1<<20)
	must(t, "console log", err)
	if len(all) == 0 {
		t.Fatal("the console log of a guest that booted is empty")
	}
	last, err := a.ConsoleLog(b.ctx(t), spec.ID, 2, 1<<20)
	must(t, "two lines", err)
	if n := bytes.Count(bytes.TrimSuffix(last, []byte("\n")), []byte("\n")); n > 1 {
		t.Errorf("two lines were asked, got %d: %q", n+1, last)
	}
	few, err := a.ConsoleLog(b.ctx(t), spec.ID, 0, 16)
	must(t, "few bytes", err)
	if len(few) > 16 {
		t.Errorf("16 bytes were allowed, got %d", len(few))
	}
	must(t, "power off", b.Driver.PowerOff(b.ctx(t), spec.ID, 0))
	off, err := a.ConsoleLog(b.ctx(t), spec.ID, 0, 1<<20)
	must(t, "console log of a stopped guest", err)
	if len(off) == 0 {
		t.Error("a stopped guest has lost its console log")
	}
}

func testConsole(t *testing.T, b *bench) {
	a := ability[virt.Consoler](t, b)
	spec := b.running(t)
	found := 0
	for _, kind := range []string{"vnc", "spice", "serial"} {
		e, err := a.Console(b.ctx(t), spec.ID, kind)
		if errors.Is(err, fault.NotImplemented) {
			continue
		}
		must(t, kind, err)
		found++
		if e.Kind != kind || (e.Path == "" && (e.Host == "" || e.Port <= 0)) {
			t.Errorf("%s console cannot be reached: %+v", kind, *e)
		}
		if e.Path == "" {
			c, err := net.DialTimeout("tcp", net.JoinHostPort(e.Host, strconv.Itoa(e.Port)), b.Limit)
			must(t, "dial "+kind, err)
			c.Close()
		}
	}
	if found == 0 {
		t.Error("a driver with consoles has none")
	}
	_, err := a.Console(b.ctx(t), spec.ID, "teletype")
	wantKind(t, "unknown kind", err, fault.NotImplemented)
	if p, ok := b.Driver.(virt.Pauser); ok && found > 0 { // a paused guest still shows its screen
		must(t, "pause", p.Pause(b.ctx(t), spec.ID))
		if _, err := a.Console(b.ctx(t), spec.ID, "vnc"); !errors.Is(err, fault.NotImplemented) {
			must(t, "console of a paused guest", err)
		}
		must(t, "unpause", p.Unpause(b.ctx(t), spec.ID))
	}
	must(t, "power off", b.Driver.PowerOff(b.ctx(t), spec.ID, 0))
	_, err = a.Console(b.ctx(t), spec.ID, "vnc")
	if !errors.Is(err, fault.NotImplemented) {
		wantKind(t, "console of a stopped guest", err, fault.Conflict)
	}
}

// wantDevices fails the test unless the guest comes to see so many devices.
func (b *bench) wantDevices(t *testing.T, id string, nics, disks int) {
	t.Helper()
	if b.Devices == nil {
		return
	}
	end := time.Now().Add(b.Limit)
	for {
		n, d := b.Devices(t, id)
		if n == nics && d == disks {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the guest sees %d interfaces and %d disks, want %d and %d", n, d, nics, disks)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func testInterface(t *testing.T, b *bench) {
	a := ability[virt.InterfaceAttacher](t, b)
	if b.VIF == nil {
		t.Skip("the harness has no interface to plug")
	}
	spec := b.running(t)
	var nics, disks int
	if b.Devices != nil {
		nics, disks = b.Devices(t, spec.ID)
	}
	before := spec.VIFs
	vif := b.VIF(t)
	spec.VIFs = append(append(spec.VIFs[:0:0], before...), vif)
	twice(t, "attach", func() error { return a.AttachInterface(b.ctx(t), spec, vif) })
	b.wantDevices(t, spec.ID, nics+1, disks)
	spec.VIFs = before
	twice(t, "detach", func() error { return a.DetachInterface(b.ctx(t), spec, vif) })
	b.wantDevices(t, spec.ID, nics, disks)

	must(t, "power off", b.Driver.PowerOff(b.ctx(t), spec.ID, 0))
	spec.VIFs = append(append(spec.VIFs[:0:0], before...), vif)
	twice(t, "attach to a stopped guest", func() error { return a.AttachInterface(b.ctx(t), spec, vif) })
	must(t, "power on", b.Driver.PowerOn(b.ctx(t), spec))
	b.ready(t, spec.ID)
	b.wantDevices(t, spec.ID, nics+1, disks)
}

func testVolume(t *testing.T, b *bench) {
	a := ability[virt.VolumeAttacher](t, b)
	if b.Volume == nil {
		t.Skip("the harness has no volume to attach")
	}
	spec := b.running(t)
	var nics, disks int
	if b.Devices != nil {
		nics, disks = b.Devices(t, spec.ID)
	}
	before := spec.Disks
	vol := b.Volume(t)
	spec.Disks = append(append(spec.Disks[:0:0], before...), vol)
	twice(t, "attach", func() error { return a.AttachVolume(b.ctx(t), spec, vol) })
	b.wantDevices(t, spec.ID, nics, disks+1)
	must(t, "hard reboot", b.Driver.Reboot(b.ctx(t), spec, true, 0))
	b.ready(t, spec.ID)
	b.wantDevices(t, spec.ID, nics, disks+1)
	spec.Disks = before
	twice(t, "detach", func() error { return a.DetachVolume(b.ctx(t), spec, vol) })
	b.wantDevices(t, spec.ID, nics, disks)

	must(t, "power off", b.Driver.PowerOff(b.ctx(t), spec.ID, 0))
	spec.Disks = append(append(spec.Disks[:0:0], before...), vol)
	twice(t, "attach to a stopped guest", func() error { return a.AttachVolume(b.ctx(t), spec, vol) })
	spec.Disks = before
	twice(t, "detach from a stopped guest", func() error { return a.DetachVolume(b.ctx(t), spec, vol) })

	strange := b.Volume(t)
	strange.Connection = map[string]any{"driver_volume_type": "telepathy", "data": map[string]any{}}
	if err := a.AttachVolume(b.ctx(t), spec, strange); !errors.Is(err, fault.NotImplemented) && !errors.Is(err, fault.Invalid) {
		t.Errorf("a connection of a type that does not exist: %v", err)
	}
}

func testPassword(t *testing.T, b *bench) {
	a := ability[virt.PasswordSetter](t, b)
	spec := b.running(t)
	must(t, "password", a.SetPassword(b.ctx(t), spec.ID, "root", "correct horse battery"))
	must(t, "power off", b.Driver.PowerOff(b.ctx(t), spec.ID, 0))
	wantKind(t, "password of a stopped guest", a.SetPassword(b.ctx(t), spec.ID, "root", "x"), fault.Conflict)
}

func testCrashDump(t *testing.T, b *bench) {
	a := ability[virt.CrashDumper](t, b)
	spec := b.running(t)
	must(t, "crash dump", a.CrashDump(b.ctx(t), spec.ID))
	must(t, "power off", b.Driver.PowerOff(b.ctx(t), spec.ID, 0))
	wantKind(t, "crash dump of a stopped guest", a.CrashDump(b.ctx(t), spec.ID), fault.Conflict)
}

func testDiagnostics(t *testing.T, b *bench) {
	a := ability[virt.Diagnoser](t, b)
	spec := b.running(t)
	d, err := a.Diagnostics(b.ctx(t), spec.ID)
	must(t, "diagnostics", err)
	if d.State != "running" || d.Driver == "" || d.Hypervisor == "" {
		t.Errorf("diagnostics say %+v", d)
	}
	if len(d.CPUs) != spec.VCPUs || len(d.NICs) != len(spec.VIFs) || len(d.Disks) == 0 {
		t.Errorf("diagnostics have %d CPUs, %d interfaces, %d disks; the guest has %d and %d", len(d.CPUs), len(d.NICs), len(d.Disks), spec.VCPUs, len(spec.VIFs))
	}
	if len(d.Legacy) == 0 {
		t.Error("the free-form document is empty")
	}
	must(t, "power off", b.Driver.PowerOff(b.ctx(t), spec.ID, 0))
	wantKind(t, "diagnostics of a stopped guest", errOf(a.Diagnostics(b.ctx(t), spec.ID)), fault.Conflict)
}

func errOf[T any](_ T, err error) error { return err }

func testWatch(t *testing.T, b *bench) {
	a := ability[virt.Watcher](t, b)
	if b.Kill == nil {
		t.Skip("the harness cannot end a guest behind the driver's back")
	}
	spec := b.guest(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	seen := make(chan virt.GuestState, 64)
	wg.Go(func() {
		err := a.Watch(ctx, func(g virt.GuestState) {
			select {
			case seen <- g:
			default: // the suite reads a few; the rest may fall away
			}
		})
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("watch: %v", err)
		}
	})
	defer wg.Wait()
	defer cancel()
	must(t, "spawn", b.Driver.Spawn(b.ctx(t), spec))
	b.ready(t, spec.ID)
	b.Kill(t, spec.ID)
	limit := time.After(b.Limit)
	for {
		select {
		case g := <-seen:
			if g.ID == spec.ID && (g.Power == virt.Shutdown || g.Power == virt.Crashed) {
				b.wantPower(t, spec.ID, g.Power)
				return
			}
		case <-limit:
			t.Fatal("nobody told that the guest died")
		}
	}
}
