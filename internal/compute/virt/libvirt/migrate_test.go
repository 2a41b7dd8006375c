package libvirt_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/libvirt"
	"kilonova/internal/compute/virt/libvirt/daemon"
	"kilonova/internal/compute/virt/libvirt/rpc"
	"kilonova/internal/compute/virt/virttest"
	"kilonova/internal/fault"
)

// slow skips tests that take minutes unless they are asked for.
func slow(t *testing.T) {
	if os.Getenv("KILONOVA_SLOW") != "1" {
		t.Skip("takes minutes; set KILONOVA_SLOW=1")
	}
}

// twoHosts starts two libvirtds that take each other for different machines: own host names, own control groups, own directories.
func twoHosts(t *testing.T) (*host, *host) {
	var hosts [2]*host
	for i, name := range []string{"one", "two"} {
		h := startHost(t, daemon.Config{Hostname: "kn-" + name, OwnCgroups: true})
		h.cfg.MigrationURI = "qemu+unix:///system?socket=" + h.Socket()
		h.cfg.MigrationAddress = "127.0.0.1"
		hosts[i] = h
	}
	return hosts[0], hosts[1]
}

func TestMoves(t *testing.T) {
	slow(t)
	one, two := twoHosts(t)
	virttest.RunMoves(t, func(t *testing.T) virttest.Harness {
		h := one.harness(t)
		h.Peer = two.open(t)
		h.PeerRead = two.harness(t).Read
		return h
	})
}

// moving starts a guest on one host that is ready to move to the other.
type moving struct {
	src, dst *libvirt.Driver
	spec     *virt.Spec
	target   map[string]string
	client   *rpc.Client
	h        virttest.Harness
}

func startMoving(t *testing.T, one, two *host) *moving {
	m := &moving{src: one.open(t), dst: two.open(t), client: one.client(t), h: one.harness(t)}
	m.spec = spec(one.image(t))
	m.spec.ConfigDrive = filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(m.spec.ConfigDrive, []byte(strings.Repeat("config drive ", 5000)), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := errors.Join(m.src.Destroy(ctx, m.spec.ID, false), m.dst.Destroy(ctx, m.spec.ID, false)); err != nil {
			t.Error(err)
		}
	})
	ctx := t.Context()
	if err := m.src.Spawn(ctx, m.spec); err != nil {
		t.Fatal(err)
	}
	m.h.Ready(t, m.spec.ID)
	there := *m.spec
	there.ConfigDrive = "" // the destination's agent does not have it
	if err := m.dst.PreLiveMigration(ctx, &there, true); err != nil {
		t.Fatal(err)
	}
	var err error
	if m.target, err = m.dst.LiveMigrationTarget(ctx, &there); err != nil {
		t.Fatal(err)
	}
	return m
}

// busy makes the guest dirty its memory without end.
func (m *moving) busy(t *testing.T) {
	shell(t, m.client, m.spec.ID, "mount -o remount,size=60m /dev/shm; (while :; do dd if=/dev/urandom of=/dev/shm/dirt bs=1M count=40; done) >/dev/null 2>&1 &")
}

func TestMigrationWithConfigDrive(t *testing.T) {
	slow(t)
	one, two := twoHosts(t)
	m := startMoving(t, one, two)
	var seen virt.MigrationProgress
	if err := m.src.LiveMigrate(t.Context(), m.spec, m.target, true, func(p virt.MigrationProgress) { seen = p }); err != nil {
		t.Fatal(err)
	}
	if seen.MemoryTotal == 0 {
		t.Error("no progress was told")
	}
	got, err := os.ReadFile(filepath.Join(two.cfg.InstancesDir, m.spec.ID, "disk.config"))
	if want, _ := os.ReadFile(m.spec.ConfigDrive); err != nil || string(got) != string(want) {
		t.Errorf("the config drive did not move along: %d bytes, %v", len(got), err)
	}
	if err := m.src.LiveMigrate(t.Context(), m.spec, m.target, true, nil); err != nil {
		t.Errorf("asking for a migration that is over: %v", err)
	}
	if err := m.dst.RollbackLiveMigration(t.Context(), m.spec); !errors.Is(err, fault.Conflict) {
		t.Errorf("rolling back a guest that has arrived: %v", err)
	}
	if err := m.dst.PowerOff(t.Context(), m.spec.ID, 0); err != nil {
		t.Fatal(err)
	}
	if err := m.dst.PowerOn(t.Context(), m.spec); err != nil {
		t.Fatalf("the guest does not start where it moved to: %v", err)
	}
	if _, err := os.Stat(filepath.Join(one.cfg.InstancesDir, m.spec.ID)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the source has kept files: %v", err)
	}
}

func TestAbortedMigration(t *testing.T) {
	slow(t)
	one, two := twoHosts(t)
	one.cfg.MigrationBandwidth = 2
	m := startMoving(t, one, two)
	m.busy(t)
	abort := make(chan error, 1)
	started := false
	err := m.src.LiveMigrate(t.Context(), m.spec, m.target, true, func(virt.MigrationProgress) {
		if !started {
			started = true
			go func() { abort <- m.src.AbortLiveMigration(context.WithoutCancel(t.Context()), m.spec.ID) }()
		}
	})
	if err == nil {
		t.Fatal("an aborted migration succeeded")
	}
	if err := <-abort; err != nil {
		t.Fatal(err)
	}
	if g, err := m.src.Guest(t.Context(), m.spec.ID); err != nil || g.Power != virt.Running {
		t.Fatalf("after the abort: %+v, %v", g, err)
	}
	if err := m.dst.RollbackLiveMigration(t.Context(), m.spec); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(two.cfg.InstancesDir, m.spec.ID)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the destination has kept files: %v", err)
	}
	if err := m.src.AbortLiveMigration(t.Context(), m.spec.ID); !errors.Is(err, fault.Conflict) {
		t.Errorf("abort without a migration: %v", err)
	}
}

func TestForcedMigration(t *testing.T) {
	slow(t)
	one, two := twoHosts(t)
	one.cfg.MigrationBandwidth = 8
	m := startMoving(t, one, two)
	m.busy(t)
	var forced time.Time
	force := make(chan error, 1)
	err := m.src.LiveMigrate(t.Context(), m.spec, m.target, true, func(p virt.MigrationProgress) {
		if forced.IsZero() && p.MemoryProcessed > 0 && p.DiskRemaining == 0 {
			forced = time.Now()
			go func() { force <- m.src.ForceLiveMigration(context.WithoutCancel(t.Context()), m.spec.ID) }()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-force; err != nil {
		t.Fatal(err)
	}
	if g, err := m.dst.Guest(t.Context(), m.spec.ID); err != nil || g.Power != virt.Running {
		t.Fatalf("at the destination: %+v, %v", g, err)
	}
}

// TestMigrationOutlivesTheAgent closes the driver in the midst of a migration; one that is opened later joins it.
func TestMigrationOutlivesTheAgent(t *testing.T) {
	slow(t)
	one, two := twoHosts(t)
	one.cfg.MigrationBandwidth = 12
	m := startMoving(t, one, two)
	first := one.reopen(t)
	begun := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		told := false
		ended <- first.LiveMigrate(context.WithoutCancel(t.Context()), m.spec, m.target, true, func(p virt.MigrationProgress) {
			if p.MemoryProcessed > 0 && !told {
				told = true
				close(begun)
			}
		})
	}()
	select {
	case <-begun:
	case err := <-ended:
		t.Fatalf("the migration was over too soon: %v", err)
	}
	first.Close()
	if err := <-ended; !errors.Is(err, fault.Unavailable) {
		t.Errorf("the call of a driver that was closed: %v", err)
	}
	joined := false
	if err := m.src.LiveMigrate(t.Context(), m.spec, m.target, true, func(virt.MigrationProgress) { joined = true }); err != nil {
		t.Fatal(err)
	}
	if !joined {
		t.Error("the migration was over before it could be joined; nothing was shown")
	}
	if g, err := m.dst.Guest(t.Context(), m.spec.ID); err != nil || g.Power != virt.Running {
		t.Errorf("at the destination: %+v, %v", g, err)
	}
	if _, err := m.src.Guest(t.Context(), m.spec.ID); !errors.Is(err, fault.NotFound) {
		t.Errorf("at the source: %v", err)
	}
}
