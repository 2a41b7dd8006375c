package libvirt_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"kilonova/internal/compute"
	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/libvirt"
	"kilonova/internal/compute/virt/libvirt/daemon"
	"kilonova/internal/compute/virt/libvirt/rpc"
	"kilonova/internal/compute/virt/virttest"
	"kilonova/internal/fault"
	"kilonova/internal/id"
)

// spawned starts a guest that is destroyed when the test ends.
func spawned(t *testing.T, d *libvirt.Driver, h virttest.Harness, s *virt.Spec) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := d.Destroy(ctx, s.ID, false); err != nil {
			t.Error(err)
		}
	})
	if err := d.Spawn(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	h.Ready(t, s.ID)
}

func dial(t *testing.T, d *libvirt.Driver, guest, kind string) net.Conn {
	t.Helper()
	e, err := d.Console(t.Context(), guest, kind)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", net.JoinHostPort(e.Host, strconv.Itoa(e.Port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// until reads until the text has come.
func until(t *testing.T, c net.Conn, want string) {
	t.Helper()
	var got strings.Builder
	buf := make([]byte, 1024)
	for !strings.Contains(got.String(), want) {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatalf("waiting for %q: %v; so far %q", want, err, got.String())
		}
		got.Write(buf[:n])
	}
}

// TestRichGuest boots one guest with nearly everything that flavors and images can ask for and looks at it from inside.
func TestRichGuest(t *testing.T) {
	booting(t)
	t.Parallel()
	h := startHost(t, daemon.Config{})
	x := h.harness(t)
	d, c := h.open(t), h.client(t)
	s := x.Spec(t)
	s.VCPUs, s.MemoryMB, s.EphemeralGB, s.SwapMB, s.RootGB = 2, 256, 1, 64, 2
	s.ImageProps = map[string]string{"hw_machine_type": "q35", "hw_cdrom_bus": "scsi", "hw_video_model": "virtio", "hw_boot_menu": "true"}
	s.ExtraSpecs = map[string]string{"hw:numa_nodes": "2", "hw:cpu_cores": "2", "hw:watchdog_action": "none", "hw:serial_port_count": "2",
		"quota:cpu_shares": "512", "quota:disk_write_iops_sec": "10000", "hw_rng:rate_bytes": "4096"}
	if iso, err := exec.LookPath("genisoimage"); err == nil {
		content := t.TempDir()
		if err := os.MkdirAll(filepath.Join(content, "openstack/latest"), 0o755); err != nil {
			t.Fatal(err)
		}
		meta := fmt.Sprintf(`{"uuid": %q, "hostname": "rich.example", "admin_pass": "s3cret", "public_keys": {"k": "ssh-ed25519 AAAA me\u003e\n"}}`, s.ID)
		if err := os.WriteFile(filepath.Join(content, "openstack/latest/meta_data.json"), []byte(meta), 0o600); err != nil {
			t.Fatal(err)
		}
		s.ConfigDrive = filepath.Join(t.TempDir(), "config.iso")
		if out, err := exec.Command(iso, "-quiet", "-R", "-V", "config-2", "-o", s.ConfigDrive, content).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	spawned(t, d, x, s)
	for _, look := range []struct{ command, want string }{
		{"nproc", "2"},
		{"ls -d /sys/devices/system/node/node? | wc -l", "2"},
		{"cat /sys/devices/system/cpu/cpu?/topology/physical_package_id | sort -u | wc -l", "1"},
		{"ls /sys/block | grep ^vd | wc -l", "3"},
		{"findfs LABEL=ephemeral0 >/dev/null && echo yes", "yes"},
		{"dd if=/dev/vdc bs=1 skip=4086 count=10 2>/dev/null", "SWAPSPACE2"},
		{"echo $(($(cat /sys/block/vda/size) / 2097152))", "2"},
		{"df -m / | awk 'NR == 2 { print ($2 > 1500) }'", "1"},
		{"cat /sys/class/dmi/id/product_name", "OpenStack Nova"},
		{"cat /sys/class/dmi/id/product_uuid", s.ID},
	} {
		if got := strings.TrimSpace(shell(t, c, s.ID, look.command)); got != look.want {
			t.Errorf("in the guest, %s gives %q, want %q", look.command, got, look.want)
		}
	}
	if s.ConfigDrive != "" {
		if got := shell(t, c, s.ID, "hostname; cat /root/.ssh/authorized_keys"); got != "rich.example\nssh-ed25519 AAAA me>\n" {
			t.Errorf("the guest read from its config drive %q", got)
		}
	}

	// A disk beside others, config drive included, is copied alone.
	f, err := d.Snapshot(t.Context(), s.ID, virt.SnapshotOptions{Format: "qcow2", Dir: t.TempDir(), Quiesce: true, QuiesceRequired: true})
	if err != nil || !f.Quiesced {
		t.Fatalf("snapshot: %+v, %v", f, err)
	}
	if got := shell(t, c, s.ID, "touch /home/kilo/thawed && echo yes"); got != "yes\n" {
		t.Errorf("the file systems stay frozen: %q", got)
	}
	diag, err := d.Diagnostics(t.Context(), s.ID)
	if err != nil || len(diag.CPUs) != 2 || len(diag.Disks) < 3 || diag.MemoryMaxMB == nil || *diag.MemoryMaxMB != 256 || diag.Legacy["vda_read"] == nil {
		t.Errorf("diagnostics: %+v, %v", diag, err)
	}

	vnc := dial(t, d, s.ID, "vnc")
	until(t, vnc, "RFB 003.008\n")
	serial := dial(t, d, s.ID, "serial")
	_, _ = io.WriteString(serial, "\n")
	until(t, serial, "login:")
	_, _ = io.WriteString(serial, "kilo\n")
	until(t, serial, "Password:")
	password := "kilo"
	if s.ConfigDrive != "" {
		password = "s3cret"
	}
	_, _ = io.WriteString(serial, password+"\n")
	until(t, serial, "$ ")
	_, _ = io.WriteString(serial, "echo seen-$((40+2))\n")
	until(t, serial, "seen-42")
	log, err := d.ConsoleLog(t.Context(), s.ID, 0, 1<<20)
	if err != nil || !strings.Contains(string(log), "guest: ready") || !strings.Contains(string(log), "seen-42") {
		t.Errorf("the console log lacks what the console showed: %q, %v", log, err)
	}
}

// TestDaemonDies kills libvirtd: the guest must not notice, and the driver must find it again.
func TestDaemonDies(t *testing.T) {
	booting(t)
	t.Parallel()
	h := startHost(t, daemon.Config{})
	x := h.harness(t)
	d := h.open(t)
	s := x.Spec(t)
	seen := make(chan virt.GuestState, 1024)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Watch(ctx, func(g virt.GuestState) { seen <- g }) }()
	t.Cleanup(func() { stop(); <-done })
	expect := func(want virt.GuestState) {
		t.Helper()
		limit := time.After(patience)
		for {
			select {
			case got := <-seen:
				if got == want {
					return
				}
			case <-limit:
				t.Fatalf("nobody told of %+v", want)
			}
		}
	}
	expect(virt.GuestState{})
	spawned(t, d, x, s)
	expect(virt.GuestState{ID: s.ID, Name: s.Name, Power: virt.Running})
	x.Write(t, s.ID, "/run/memory", "not rebooted")

	if err := syscall.Kill(h.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for h.PID() != 0 {
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := d.Guest(t.Context(), s.ID); !errors.Is(err, fault.Unavailable) {
		t.Errorf("without a daemon: %v", err)
	}
	if daemon.Find(daemon.Config{Dir: filepath.Join(h.dir, "libvirt")}) == nil {
		t.Error("the daemon's log keeper should be found")
	}
	again, err := daemon.Start(t.Context(), daemon.Config{Dir: filepath.Join(h.dir, "libvirt")})
	if err != nil {
		t.Fatal(err)
	}
	expect(virt.GuestState{}) // look at everything: events were missed
	g, err := d.Guest(t.Context(), s.ID)
	if err != nil || g.Power != virt.Running {
		t.Fatalf("after the daemon's restart: %+v, %v", g, err)
	}
	if got := shell(t, h.client(t), s.ID, "cat /run/memory"); got != "not rebooted" {
		t.Errorf("the guest's memory holds %q", got)
	}

	// Stopping the daemon in good order leaves guests and their log keeper alone, too.
	if err := again.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err = daemon.Start(t.Context(), daemon.Config{Dir: filepath.Join(h.dir, "libvirt")}); err != nil {
		t.Fatal(err)
	}
	if got := shell(t, h.client(t), s.ID, "cat /run/memory; echo still-here > /dev/console"); got != "not rebooted" {
		t.Errorf("the guest's memory holds %q", got)
	}
	if log, err := d.ConsoleLog(t.Context(), s.ID, 0, 1<<20); err != nil || !strings.Contains(string(log), "still-here") {
		t.Errorf("the console log stopped: %q, %v", log, err)
	}
}

// TestVolumes attaches volumes over NBD, one of them encrypted, and boots from one.
func TestVolumes(t *testing.T) {
	booting(t)
	t.Parallel()
	nbd, err := exec.LookPath("qemu-nbd")
	if err != nil {
		t.Skip("qemu-nbd is not installed")
	}
	h := startHost(t, daemon.Config{})
	x := h.harness(t)
	d, c := h.open(t), h.client(t)

	// serve exports a file over NBD until the test ends.
	serve := func(path string) string {
		socket := path + ".sock"
		cmd := exec.Command(nbd, "-t", "-e", "4", "-f", "raw", "-x", "vol", "-k", socket, path)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
			if _, err := os.Stat(socket); err == nil {
				return socket
			}
			if time.Now().After(end) {
				t.Fatal("qemu-nbd does not listen")
			}
		}
	}
	image := func(name string, args ...string) string {
		path := filepath.Join(h.dir, name)
		if out, err := exec.Command("qemu-img", append(append([]string{"create", "-q"}, args...), path, "64M")...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return path
	}
	plain, secret := image("plain", "-f", "raw"), image("luks", "-f", "luks", "--object", "secret,id=s,data=passphrase", "-o", "key-secret=s,iter-time=10")
	boot := filepath.Join(h.dir, "boot")
	if out, err := exec.Command("qemu-img", "convert", "-O", "raw", x.Spec(t).BaseImage, boot).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	disk := func(path string, data map[string]any) virt.Disk {
		data["socket"], data["name"] = serve(path), "vol"
		n := id.UUID()
		return virt.Disk{VolumeID: n, BootIndex: -1, Serial: n, Connection: map[string]any{"driver_volume_type": "nbd", "data": data}}
	}
	root := disk(boot, map[string]any{})
	root.BootIndex, root.Device = 0, "/dev/vda"
	s := x.Spec(t)
	s.BaseImage, s.BaseFormat, s.ImageID, s.RootGB, s.Disks = "", "", "", 0, []virt.Disk{root}
	spawned(t, d, x, s)
	if _, err := d.Snapshot(t.Context(), s.ID, virt.SnapshotOptions{Format: "qcow2", Dir: t.TempDir()}); !errors.Is(err, fault.Conflict) {
		t.Errorf("a snapshot of a guest without a disk of its own: %v", err)
	}

	one, two := disk(plain, map[string]any{}), disk(secret, map[string]any{"encrypted": true})
	two.Secrets = map[string]string{"luks": "passphrase"}
	for _, v := range []virt.Disk{one, two} {
		s.Disks = append(s.Disks, v)
		if err := d.AttachVolume(t.Context(), s, v); err != nil {
			t.Fatal(err)
		}
		command := fmt.Sprintf("for b in /sys/block/vd?; do [ \"$(cat $b/serial)\" != %s ] || echo written-in-the-guest > /dev/${b##*/}; done; sync", v.Serial[:20])
		for end := time.Now().Add(patience); !strings.Contains(shell(t, c, s.ID, "cat /sys/block/vd?/serial"), v.Serial[:20]); time.Sleep(200 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the guest does not see the volume")
			}
		}
		shell(t, c, s.ID, command)
	}
	if b, err := os.ReadFile(plain); err != nil || !strings.HasPrefix(string(b), "written-in-the-guest") {
		t.Errorf("the plain volume holds %q: %v", b[:min(len(b), 30)], err)
	}
	if b, err := os.ReadFile(secret); err != nil || strings.Contains(string(b), "written-in-the-guest") || !strings.HasPrefix(string(b), "LUKS") {
		t.Errorf("the encrypted volume can be read: %v", err)
	}
	if _, err := c.SecretByUUID(t.Context(), mustUUID(t, id.Derived("libvirt-secret", two.VolumeID, "luks"))); err != nil {
		t.Errorf("the passphrase is not kept: %v", err)
	}
	for _, v := range []virt.Disk{two, one} {
		s.Disks = s.Disks[:len(s.Disks)-1]
		if err := d.DetachVolume(t.Context(), s, v); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.SecretByUUID(t.Context(), mustUUID(t, id.Derived("libvirt-secret", two.VolumeID, "luks"))); !errors.Is(err, fault.NotFound) {
		t.Errorf("the passphrase is still kept: %v", err)
	}
	if got := strings.TrimSpace(shell(t, c, s.ID, "ls /sys/block | grep -c ^vd")); got != "1" {
		t.Errorf("the guest still sees %s disks", got)
	}
}

func mustUUID(t *testing.T, s string) (u rpc.UUID) {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || copy(u[:], b) != len(u) {
		t.Fatalf("%q is no UUID: %v", s, err)
	}
	return u
}

// TestForeignDomains: domains that somebody else made are neither listed nor touched.
func TestForeignDomains(t *testing.T) {
	t.Parallel()
	h := startHost(t, daemon.Config{})
	d, c := h.open(t), h.client(t)
	n := id.UUID()
	dom, err := c.Define(t.Context(), `<domain type='qemu'><name>theirs</name><uuid>`+n+`</uuid><memory unit='MiB'>16</memory><os><type arch='x86_64' machine='pc'>hvm</type></os></domain>`, 0)
	if err != nil {
		t.Fatal(err)
	}
	if all, err := d.Guests(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("listed: %+v, %v", all, err)
	}
	for what, err := range map[string]error{
		"guest": func() error { _, err := d.Guest(t.Context(), n); return err }(), "destroy": d.Destroy(t.Context(), n, false),
		"power off": d.PowerOff(t.Context(), n, 0), "pause": d.Pause(t.Context(), n), "spawn": d.Spawn(t.Context(), &virt.Spec{ID: n, Name: "x", VCPUs: 1, MemoryMB: 16}),
	} {
		if !errors.Is(err, fault.NotFound) {
			t.Errorf("%s of somebody else's domain: %v", what, err)
		}
	}
	if _, err := c.DomainByUUID(t.Context(), dom.UUID); err != nil {
		t.Errorf("somebody else's domain is gone: %v", err)
	}
}

// bare starts a guest without waiting for its system.
func bare(t *testing.T, d *libvirt.Driver, x virttest.Harness, edit func(*virt.Spec)) *virt.Spec {
	t.Helper()
	s := x.Spec(t)
	edit(s)
	x.Ready = func(*testing.T, string) {}
	spawned(t, d, x, s)
	return s
}

func TestQuiesceNeedsAnAgent(t *testing.T) {
	t.Parallel()
	h := startHost(t, daemon.Config{})
	x, d := h.harness(t), h.open(t)
	s := bare(t, d, x, func(s *virt.Spec) { s.ImageProps = map[string]string{"hw_qemu_guest_agent": "no"} })
	f, err := d.Snapshot(t.Context(), s.ID, virt.SnapshotOptions{Format: "raw", Dir: t.TempDir(), Quiesce: true})
	if err != nil || f.Quiesced {
		t.Errorf("quiesce where possible: %+v, %v", f, err)
	}
	dir := t.TempDir()
	if _, err := d.Snapshot(t.Context(), s.ID, virt.SnapshotOptions{Format: "raw", Dir: dir, QuiesceRequired: true}); !errors.Is(err, fault.Conflict) {
		t.Errorf("quiesce required: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("a snapshot that failed left %v", left)
	}
	if err := d.SetPassword(t.Context(), s.ID, "root", "x"); !errors.Is(err, fault.Conflict) {
		t.Errorf("password without an agent: %v", err)
	}
	// A copy that is given up leaves no job behind.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Snapshot(ctx, s.ID, virt.SnapshotOptions{Format: "raw", Dir: dir}); err == nil {
		t.Error("a cancelled snapshot succeeded")
	}
	if _, err := d.Snapshot(t.Context(), s.ID, virt.SnapshotOptions{Format: "raw", Dir: dir}); err != nil {
		t.Errorf("after a cancelled snapshot: %v", err)
	}
}

// TestLateAgent: an agent that is there and does not answer at once, as on a busy host, is waited for, and what it was asked for is done once.
func TestLateAgent(t *testing.T) {
	booting(t)
	t.Parallel()
	h := startHost(t, daemon.Config{})
	h.cfg.AgentPatience = patience
	x, c := h.harness(t), h.client(t)
	d := h.open(t)
	s := x.Spec(t)
	spawned(t, d, x, s)
	x.Ready(t, s.ID)
	dom := domainOf(t, c, s.ID)
	late := func() {
		t.Helper()
		shell(t, c, s.ID, "p=$(cat /run/qemu-ga.pid); (sleep 1; kill -STOP $p; sleep 25; kill -CONT $p) >/dev/null 2>&1 </dev/null & rm -f /run/fsfreeze")
		for {
			if _, err := tryShell(t.Context(), c, dom, "true"); errors.Is(err, fault.Unavailable) {
				return
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	late()
	f, err := d.Snapshot(t.Context(), s.ID, virt.SnapshotOptions{Format: "qcow2", Dir: t.TempDir(), QuiesceRequired: true})
	if err != nil || !f.Quiesced {
		t.Fatalf("snapshot: %+v, %v", f, err)
	}
	if got := shell(t, c, s.ID, "cat /run/fsfreeze; touch /root/thawed && echo writes"); got != "freeze\nthaw\nwrites\n" {
		t.Errorf("after the snapshot: %q", got)
	}

	// An agent of the host that died while the guest's file systems were at rest left them so; the next try finds them, and lets them go in the end.
	shell(t, c, s.ID, "rm -f /run/fsfreeze")
	if _, err := c.Freeze(t.Context(), dom); err != nil {
		t.Fatal(err)
	}
	if f, err = d.Snapshot(t.Context(), s.ID, virt.SnapshotOptions{Format: "qcow2", Dir: t.TempDir(), Quiesce: true, QuiesceRequired: true}); err != nil || !f.Quiesced {
		t.Fatalf("snapshot of a guest at rest: %+v, %v", f, err)
	}
	if got := shell(t, c, s.ID, "cat /run/fsfreeze; touch /root/thawed && echo writes"); got != "freeze\nthaw\nfreeze\nthaw\nwrites\n" {
		t.Errorf("after the snapshot of a guest at rest: %q", got)
	}

	late()
	if err := d.SetPassword(t.Context(), s.ID, "root", "correct horse"); err != nil {
		t.Fatal(err)
	}
	if got := shell(t, c, s.ID, "grep -c '^root:.6' /etc/shadow"); got != "1\n" {
		t.Errorf("the password was not set: %q", got)
	}
}

func TestConsolePortsMove(t *testing.T) {
	t.Parallel()
	h := startHost(t, daemon.Config{})
	x, d := h.harness(t), h.open(t)
	s := bare(t, d, x, func(*virt.Spec) {})
	where := func() *virt.ConsoleEndpoint {
		t.Helper()
		e, err := d.Console(t.Context(), s.ID, "serial")
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	// take listens on the guest's port once the guest has let go of it.
	take := func(e *virt.ConsoleEndpoint) {
		t.Helper()
		l, err := net.Listen("tcp", net.JoinHostPort(e.Host, strconv.Itoa(e.Port)))
		for end := time.Now().Add(patience); err != nil && time.Now().Before(end); { // the process ends a little after libvirt says so
			time.Sleep(100 * time.Millisecond)
			l, err = net.Listen("tcp", net.JoinHostPort(e.Host, strconv.Itoa(e.Port)))
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
	first := where()
	if err := d.Suspend(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	take(first)
	if err := d.Resume(t.Context(), s); err != nil {
		t.Fatalf("a suspended guest whose console's port was taken: %v", err)
	}
	second := where()
	if err := d.PowerOff(t.Context(), s.ID, 0); err != nil {
		t.Fatal(err)
	}
	take(second)
	if err := d.PowerOn(t.Context(), s); err != nil {
		t.Fatalf("a stopped guest whose console's port was taken: %v", err)
	}
	if third := where(); third.Port == first.Port || third.Port == second.Port || first.Port == second.Port {
		t.Errorf("ports %d, %d, %d", first.Port, second.Port, third.Port)
	}
}

// What the agent chose for a guest is in its definition, and libvirt pins the threads that run.
func TestDedicatedCPUs(t *testing.T) {
	t.Parallel()
	h := startHost(t, daemon.Config{})
	h.cfg.DedicatedCPUs = []int{0, 1}
	x, d, c := h.harness(t), h.open(t), h.client(t)
	info, err := d.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(info.NUMA) == 0 || len(info.NUMA[0].PCPUs) == 0 || len(info.NUMA[0].CPUs) != 0 || len(info.NUMA[0].Pages) == 0 {
		t.Fatalf("the host reports %+v", info.NUMA)
	}
	pinned := func(s *virt.Spec) {
		s.ExtraSpecs = map[string]string{"hw:cpu_policy": "dedicated"}
		s.Claim = &compute.Claim{Cells: []compute.ClaimedCell{{Node: info.NUMA[0].ID, CPUs: []int{0}, MemoryMB: s.MemoryMB, Pins: map[int]int{0: info.NUMA[0].PCPUs[0]}}}}
	}
	s := bare(t, d, x, pinned)
	text, err := c.XML(t.Context(), domainOf(t, c, s.ID), 0)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text, fmt.Sprintf("<vcpupin vcpu='0' cpuset='%d'/>", info.NUMA[0].PCPUs[0])) {
		t.Errorf("the guest's CPU is not pinned: %s", text)
	}
	without := x.Spec(t)
	without.ExtraSpecs = map[string]string{"hw:cpu_policy": "dedicated"}
	if err := d.Spawn(t.Context(), without); !errors.Is(err, fault.Conflict) {
		t.Errorf("a guest for which no CPUs were set aside: %v", err)
	}
	if err := d.Destroy(t.Context(), without.ID, false); err != nil && !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

func TestImagesThatMustNotBeOpened(t *testing.T) {
	t.Parallel()
	h := startHost(t, daemon.Config{})
	x, d := h.harness(t), h.open(t)
	secret := filepath.Join(h.dir, "secret")
	if err := os.WriteFile(secret, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	evil := filepath.Join(h.dir, "evil")
	if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, evil).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for what, edit := range map[string]func(*virt.Spec){
		"a backing file": func(s *virt.Spec) { s.BaseImage = evil },
		"no qcow2":       func(s *virt.Spec) { s.BaseImage = secret },
		"unknown format": func(s *virt.Spec) { s.BaseImage, s.BaseFormat = secret, "vmdk" },
		"too large":      func(s *virt.Spec) { s.BaseImage, s.BaseFormat = bigFile(t), "raw" },
	} {
		s := x.Spec(t)
		edit(s)
		if err := d.Spawn(t.Context(), s); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := d.Guest(t.Context(), s.ID); !errors.Is(err, fault.NotFound) {
			t.Errorf("%s: the guest was made: %v", what, err)
		}
		if err := d.Destroy(t.Context(), s.ID, false); err != nil {
			t.Error(err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(h.cfg.InstancesDir, "*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// bigFile is a sparse file larger than the flavor's disk.
func bigFile(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 3<<30); err != nil {
		t.Fatal(err)
	}
	return path
}
