// Package virttest is the conformance suite of hypervisor drivers: what package virt promises, as tests that every driver passes.
//
// A driver's test calls Run with a function that makes a Harness. Abilities that the driver does not implement, and things that the harness
// cannot do (write a file inside the guest, kill it from outside), are skipped with the reason; everything else must hold. The suite never
// measures time: a driver may be as slow as it likes within Harness.Limit.
package virttest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"kilonova/internal/compute/virt"
	"kilonova/internal/fault"
	"kilonova/internal/network"
)

// Harness is what the suite needs of a driver's test. Driver and Spec are required.
type Harness struct {
	Driver virt.Driver
	// Reopen gives a driver on the same hypervisor as after a restart of the agent. The suite closes Driver before it calls Reopen, and closes
	// what Reopen gave.
	Reopen func(t *testing.T) virt.Driver
	// Spec gives the spec of a new small guest with an id and a name that nobody used.
	Spec func(t *testing.T) *virt.Spec
	// Ready waits until the guest has booted and could act on a power button; nil: guests are ready at once.
	Ready func(t *testing.T, id string)
	// Write and Read put and get a file's content inside a running guest; nil: the guest's content cannot be seen. Read gives "" for a file that
	// is not there. Paths under /run do not survive a boot; others survive as long as the root disk does.
	Write func(t *testing.T, id, path, text string)
	Read  func(t *testing.T, id, path string) string
	// Kill ends a running guest behind the driver's back.
	Kill func(t *testing.T, id string)
	// VIF gives an interface that can be plugged; Volume a volume that can be attached.
	VIF    func(t *testing.T) network.VIF
	Volume func(t *testing.T) virt.Disk
	// Devices counts the devices of a running guest as it sees them itself: network interfaces (without loopback) and disks.
	Devices func(t *testing.T, id string) (nics, disks int)
	// Peer is a second host's driver; Spec's guests can move there. PeerRead is Read there; nil: Read sees guests on both hosts. Shared tells that
	// both hosts see the same disks.
	Peer     virt.Driver
	PeerRead func(t *testing.T, id string, path string) string
	Shared   bool
	// RealFiles tells that snapshots are images that can be spawned from and consoles can be dialled.
	RealFiles bool
	// Limit bounds one call; 0 means two minutes.
	Limit time.Duration
}

// test is one test of the suite.
type test struct {
	name string
	test func(*testing.T, *bench)
}

// Run runs the suite. open is called once for each test of the suite.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	run(t, open, []test{
		{"Info", testInfo},
		{"UnknownGuest", testUnknownGuest},
		{"SpawnAndDestroy", testSpawnAndDestroy},
		{"SpawnStopped", testSpawnStopped},
		{"ManyAtOnce", testManyAtOnce},
		{"PowerOffGracefully", testPowerOffGracefully},
		{"Reboot", testReboot},
		{"KeepDisks", testKeepDisks},
		{"Restart", testRestart},
		{"CancelledContext", testCancelledContext},
		{"Pause", testPause},
		{"Suspend", testSuspend},
		{"Rescue", testRescue},
		{"Snapshot", testSnapshot},
		{"Resize", testResize},
		{"ConsoleLog", testConsoleLog},
		{"Console", testConsole},
		{"Interface", testInterface},
		{"Volume", testVolume},
		{"Password", testPassword},
		{"CrashDump", testCrashDump},
		{"Diagnostics", testDiagnostics},
		{"Watch", testWatch},
		{"MoveDisks", testMoveDisks},
		{"LiveMigrate", testLiveMigrate},
	})
}

// RunMoves runs only the tests that need a Peer, for drivers whose second host is dear.
func RunMoves(t *testing.T, open func(t *testing.T) Harness) {
	run(t, open, []test{{"MoveDisks", testMoveDisks}, {"LiveMigrate", testLiveMigrate}})
}

// RunUnbooted runs the tests that say something about guests whose system never comes up: for hypervisors that take long to boot one. Ready, Write,
// Read and Devices of the harness are not used.
func RunUnbooted(t *testing.T, open func(t *testing.T) Harness) {
	bare := func(t *testing.T) Harness {
		h := open(t)
		h.Ready, h.Write, h.Read, h.Devices = nil, nil, nil, nil
		return h
	}
	run(t, bare, []test{
		{"Info", testInfo},
		{"UnknownGuest", testUnknownGuest},
		{"SpawnAndDestroy", testSpawnAndDestroy},
		{"SpawnStopped", testSpawnStopped},
		{"ManyAtOnce", testManyAtOnce},
		{"Restart", testRestart},
		{"CancelledContext", testCancelledContext},
		{"Pause", testPause},
		{"Suspend", testSuspend},
		{"Console", testConsole},
		{"CrashDump", testCrashDump},
		{"Diagnostics", testDiagnostics},
		{"Watch", testWatch},
	})
}

func run(t *testing.T, open func(t *testing.T) Harness, tests []test) {
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			h := open(t)
			if h.Driver == nil || h.Spec == nil {
				t.Fatal("the harness has no Driver or no Spec")
			}
			if h.Limit == 0 {
				h.Limit = 2 * time.Minute
			}
			b := &bench{Harness: h}
			t.Cleanup(func() { // after the guests of the test are destroyed
				if b.reopened {
					must(t, "close", b.Driver.Close())
				}
			})
			c.test(t, b)
		})
	}
}

// bench is a harness in use.
type bench struct {
	Harness
	mu       sync.Mutex
	reopened bool
}

// ctx bounds one call.
func (b *bench) ctx(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), b.Limit)
	t.Cleanup(cancel)
	return ctx
}

// ability gives the driver's ability A or skips the test.
func ability[A any](t *testing.T, b *bench) A {
	t.Helper()
	a, ok := b.Driver.(A)
	if !ok {
		t.Skipf("the driver has no %T", (*A)(nil))
	}
	return a
}

// guest makes the spec of a guest that is destroyed when the test ends, also at the peer.
func (b *bench) guest(t *testing.T) *virt.Spec {
	t.Helper()
	spec := b.Spec(t)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), b.Limit)
		defer cancel()
		b.mu.Lock()
		defer b.mu.Unlock()
		if err := b.Driver.Destroy(ctx, spec.ID, false); err != nil {
			t.Errorf("destroying %s after the test: %v", spec.ID, err)
		}
		if b.Peer != nil {
			if err := b.Peer.Destroy(ctx, spec.ID, false); err != nil {
				t.Errorf("destroying %s at the peer after the test: %v", spec.ID, err)
			}
		}
	})
	return spec
}

// running spawns a guest and waits until it is ready.
func (b *bench) running(t *testing.T) *virt.Spec {
	t.Helper()
	spec := b.guest(t)
	must(t, "spawn", b.Driver.Spawn(b.ctx(t), spec))
	b.ready(t, spec.ID)
	b.wantPower(t, spec.ID, virt.Running)
	return spec
}

func (b *bench) ready(t *testing.T, id string) {
	t.Helper()
	if b.Ready != nil {
		b.Ready(t, id)
	}
}

func (b *bench) write(t *testing.T, id, path, text string) {
	t.Helper()
	if b.Write != nil {
		b.Write(t, id, path, text)
	}
}

// wantFile fails the test unless the guest's file has the text; text "" means that there is no such file.
func (b *bench) wantFile(t *testing.T, id, path, text string) {
	t.Helper()
	if b.Read == nil {
		return
	}
	if got := b.Read(t, id, path); got != text {
		t.Errorf("guest %s: file %s holds %q, want %q", id, path, got, text)
	}
}

// arrived makes Read look at the peer from now on.
func (b *bench) arrived() {
	if b.PeerRead != nil {
		b.Read = b.PeerRead
	}
}

// wantPower fails the test unless the driver sees the guest in state want, alone and in the list.
func (b *bench) wantPower(t *testing.T, id string, want virt.PowerState) {
	t.Helper()
	wantPowerAt(t, b.ctx(t), b.Driver, id, want)
}

func wantPowerAt(t *testing.T, ctx context.Context, d virt.Driver, id string, want virt.PowerState) {
	t.Helper()
	g, err := d.Guest(ctx, id)
	if err != nil {
		t.Fatalf("guest %s: %v", id, err)
	}
	if g.ID != id || g.Power != want {
		t.Fatalf("guest %s is %+v, want power state %d", id, *g, want)
	}
	all, err := d.Guests(ctx)
	must(t, "guests", err)
	n := 0
	for _, x := range all {
		if x.ID == id {
			n++
			if x.Power != want {
				t.Fatalf("the list says %+v, want power state %d", x, want)
			}
		}
	}
	if n != 1 {
		t.Fatalf("guest %s is %d times in the list", id, n)
	}
}

// wantGone fails the test if the driver still knows the guest.
func wantGone(t *testing.T, ctx context.Context, d virt.Driver, id string) {
	t.Helper()
	if g, err := d.Guest(ctx, id); !errors.Is(err, fault.NotFound) {
		t.Fatalf("guest %s should be gone: %+v, %v", id, g, err)
	}
	all, err := d.Guests(ctx)
	must(t, "guests", err)
	for _, x := range all {
		if x.ID == id {
			t.Fatalf("the list still has the guest: %+v", x)
		}
	}
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// wantKind fails the test unless err is of kind k.
func wantKind(t *testing.T, what string, err error, k fault.Kind) {
	t.Helper()
	if !errors.Is(err, k) {
		t.Errorf("%s: got %v, want the kind %q", what, err, k)
	}
}

// twice calls f two times: every call of a driver is safe to repeat.
func twice(t *testing.T, what string, f func() error) {
	t.Helper()
	must(t, what, f())
	must(t, what+" again", f())
}
