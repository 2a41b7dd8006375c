package fake_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/compute/virt/virttest"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/network"
)

func memory(t *testing.T) *db.DB {
	d, err := db.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "fake.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	if err := fake.Prepare(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	return d
}

func spec(t *testing.T) *virt.Spec {
	n := id.UUID()
	return &virt.Spec{ID: n, Name: "instance-" + n[:8], VCPUs: 2, MemoryMB: 512, RootGB: 1, FlavorName: "m1.tiny", BaseFormat: "qcow2",
		VIFs: []network.VIF{{PortID: id.UUID(), MAC: "fa:16:3e:00:00:01"}}}
}

func TestSuite(t *testing.T) {
	virttest.Run(t, func(t *testing.T) virttest.Harness {
		d := memory(t)
		return virttest.Harness{
			Driver: fake.New(fake.Config{DB: d, Host: "a"}), Peer: fake.New(fake.Config{DB: d, Host: "b"}), Shared: true,
			Reopen: func(*testing.T) virt.Driver { return fake.New(fake.Config{DB: d, Host: "a"}) },
			Spec:   spec,
			Kill: func(t *testing.T, guest string) {
				if err := fake.New(fake.Config{DB: d, Host: "a"}).Die(t.Context(), guest); err != nil {
					t.Fatal(err)
				}
			},
			VIF: func(*testing.T) network.VIF { return network.VIF{PortID: id.UUID(), MAC: "fa:16:3e:00:00:02"} },
			Volume: func(*testing.T) virt.Disk {
				return virt.Disk{VolumeID: id.UUID(), Connection: map[string]any{"driver_volume_type": "fake"}}
			},
			Limit: 5 * time.Minute,
		}
	})
}

// A guest that moved to a host by a resize is stopped by the next one as any other: it must never run on two hosts.
func TestResizeAwayAfterAResizeHere(t *testing.T) {
	ctx, d, s := t.Context(), memory(t), spec(t)
	a, b := fake.New(fake.Config{DB: d, Host: "a"}), fake.New(fake.Config{DB: d, Host: "b"})
	do := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	power := func(d *fake.Driver, want virt.PowerState) {
		t.Helper()
		g, err := d.Guest(ctx, s.ID)
		do("look", err)
		if g.Power != want {
			t.Fatalf("power %d, want %d", g.Power, want)
		}
	}
	do("spawn", a.Spawn(ctx, s))
	for _, way := range [][2]*fake.Driver{{a, b}, {b, a}, {a, b}} {
		from, to := way[0], way[1]
		for range 2 { // each step may be repeated
			do("prepare", from.PrepareResize(ctx, s.ID, 0))
		}
		power(from, virt.Shutdown)
		do("import", to.ImportDisk(ctx, s.ID, "disk", strings.NewReader("")))
		for range 2 {
			do("finish", to.FinishResize(ctx, s))
		}
		power(to, virt.Running)
		do("destroy the old one", from.Destroy(ctx, s.ID, false))
	}
	do("prepare", b.PrepareResize(ctx, s.ID, 0))
	power(b, virt.Shutdown)
	do("revert", b.RevertResize(ctx, s))
	power(b, virt.Running)
}

func TestExtraSpecsMakeFaultsAndDelays(t *testing.T) {
	d := memory(t)
	s := spec(t)
	s.ExtraSpecs = map[string]string{"fake:fail:spawn": "No more heat;hosts=a"}
	err := fake.New(fake.Config{DB: d, Host: "a"}).Spawn(t.Context(), s)
	if fault.PublicText(err) != "No more heat" {
		t.Fatalf("%v", err)
	}
	b := fake.New(fake.Config{DB: d, Host: "b"})
	if err := b.Spawn(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	s.ExtraSpecs = map[string]string{"fake:delay:power-off": "tomorrow"}
	if err := b.PowerOn(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if err := b.PowerOff(t.Context(), s.ID, 0); fault.KindOf(err) != fault.Invalid {
		t.Fatalf("%v", err)
	}
}

func TestSnapshotIsAnImageThatQEMUAccepts(t *testing.T) {
	tool, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("qemu-img is not installed")
	}
	d := fake.New(fake.Config{DB: memory(t), Host: "a"})
	s := spec(t)
	if err := d.Spawn(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	f, err := d.Snapshot(t.Context(), s.ID, virt.SnapshotOptions{Format: "qcow2", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(tool, "check", f.Path).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "No errors") {
		t.Fatalf("%s %v", out, err)
	}
}

func BenchmarkSpawnDestroy(b *testing.B) {
	d, err := db.Open(b.Context(), "sqlite:"+filepath.Join(b.TempDir(), "fake.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	if err := fake.Prepare(b.Context(), d); err != nil {
		b.Fatal(err)
	}
	x := fake.New(fake.Config{DB: d, Host: "a"})
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			s := &virt.Spec{ID: id.UUID(), Name: "n"}
			if err := x.Spawn(b.Context(), s); err != nil {
				b.Error(err)
			}
			if err := x.Destroy(b.Context(), s.ID, false); err != nil {
				b.Error(err)
			}
		}
	})
}
