package guests_test

import (
	"strconv"
	"strings"
	"syscall"
	"testing"

	"kilonova/test/apart"
)

// step is one thing that is done to a server.
type step struct {
	name string
	do   func(*testing.T, *guest)
}

// life takes a server through what can be done to it where it is.
func (c *cloud) life(t *testing.T) {
	t.Parallel()
	c.story(t, "delta", []step{{"soft reboot", softReboot}, {"hard reboot", hardReboot}, {"stop and start", stopStart}, {"shut down from inside", fromInside}, {"crash", crash},
		{"pause", pause}, {"suspend", suspend}, {"rescue", rescue}, {"stable device rescue", stableRescue}})
}

// moves takes another through what makes its machine anew.
func (c *cloud) moves(t *testing.T) {
	t.Parallel()
	c.story(t, "epsilon", []step{{"resize and revert", resizeRevert}, {"resize and confirm", resizeConfirm}, {"shelve", shelve}, {"rebuild", rebuild}})
}

// story boots a server and does the steps. A file on its disk shows which disk it is.
func (c *cloud) story(t *testing.T, name string, steps []step) {
	t.Helper()
	g := c.boot(t, name, nil).ready(t)
	g.run(t, "echo mine > /root/mark; sync")
	for _, x := range steps {
		t.Run(x.name, func(t *testing.T) { x.do(t, g) })
	}
	if !t.Failed() {
		g.delete(t)
	}
}

func mine(t *testing.T, g *guest) {
	t.Helper()
	if out := g.run(t, "cat /root/mark"); out != "mine" {
		t.Errorf("the disk holds %q", out)
	}
}

func softReboot(t *testing.T, g *guest) {
	boot, pid := g.bootID(t), g.qemu(t)
	g.run(t, "echo '#!/bin/sh\necho by itself > /root/by-itself' > /root/at-end; chmod 755 /root/at-end; echo '::shutdown:/root/at-end' | cat - /etc/inittab > /tmp/i; cat /tmp/i > /etc/inittab; kill -HUP 1")
	g.act(t, "reboot", map[string]any{"type": "SOFT"}, "ACTIVE")
	g.rebooted(t, boot)
	mine(t, g)
	if out := g.run(t, "cat /root/by-itself"); out != "by itself" {
		t.Errorf("the guest did not shut down by itself: %q", out)
	}
	if pid == 0 || g.qemu(t) == 0 {
		t.Errorf("QEMU: %d, then %d", pid, g.qemu(t))
	}
}

func hardReboot(t *testing.T, g *guest) {
	boot, pid := g.bootID(t), g.qemu(t)
	g.act(t, "reboot", map[string]any{"type": "HARD"}, "ACTIVE")
	g.rebooted(t, boot)
	if now := g.qemu(t); now == pid || now == 0 {
		t.Errorf("QEMU was %d and is %d", pid, now)
	}
	mine(t, g)
}

func stopStart(t *testing.T, g *guest) {
	boot := g.bootID(t)
	g.run(t, "rm -f /root/by-itself; sync")
	g.act(t, "os-stop", nil, "SHUTOFF")
	if pid := g.qemu(t); pid != 0 {
		t.Errorf("QEMU %d runs", pid)
	}
	g.act(t, "os-start", nil, "ACTIVE")
	g.rebooted(t, boot)
	mine(t, g)
	if out := g.run(t, "cat /root/by-itself"); out != "by itself" {
		t.Errorf("the guest was not given the time to shut down: %q", out)
	}
}

// fromInside: what the owner does in the guest is taken for what it is.
func fromInside(t *testing.T, g *guest) {
	boot := g.bootID(t)
	g.run(t, "(sleep 1; poweroff) >/dev/null 2>&1 </dev/null &")
	g.wait(t, "SHUTOFF")
	g.act(t, "os-start", nil, "ACTIVE")
	g.rebooted(t, boot)
	mine(t, g)
}

// crash: QEMU dies under the guest; the server is found stopped, and a hard reboot brings it back.
func crash(t *testing.T, g *guest) {
	boot, pid := g.bootID(t), g.qemu(t)
	if pid == 0 {
		t.Fatal("no QEMU")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	g.wait(t, "SHUTOFF")
	g.act(t, "reboot", map[string]any{"type": "HARD"}, "ACTIVE")
	g.rebooted(t, boot)
	mine(t, g)
}

func pause(t *testing.T, g *guest) {
	boot := g.bootID(t)
	g.act(t, "pause", nil, "PAUSED")
	if pings(t, g.addr) {
		t.Error("a paused guest answers")
	}
	if g.qemu(t) == 0 {
		t.Error("a paused guest has no QEMU")
	}
	g.act(t, "unpause", nil, "ACTIVE")
	g.until(t, "cat /proc/sys/kernel/random/boot_id", boot)
}

func suspend(t *testing.T, g *guest) {
	boot := g.bootID(t)
	g.act(t, "suspend", nil, "SUSPENDED")
	if pid := g.qemu(t); pid != 0 {
		t.Errorf("QEMU %d runs", pid)
	}
	g.act(t, "resume", nil, "ACTIVE")
	g.until(t, "cat /proc/sys/kernel/random/boot_id", boot)
}

// rescue boots the image's own disk, with the server's as a second.
func rescue(t *testing.T, g *guest) {
	boot := g.bootID(t)
	var r struct{ AdminPass string }
	apart.Must(t, g.demo, "POST", "compute", "/servers/"+g.id+"/action", map[string]any{"rescue": map[string]any{}}, &r)
	if r.AdminPass == "" {
		t.Error("rescue gives no password")
	}
	g.wait(t, "RESCUE")
	boot = g.rebooted(t, boot)
	if out := g.run(t, "cat /root/mark 2>/dev/null; for p in /dev/vd[b-z]2; do mount $p /mnt 2>/dev/null && cat /mnt/root/mark; echo changed > /mnt/root/rescued; umount /mnt; done; sync"); out != "mine" {
		t.Errorf("in rescue: %q", out)
	}
	g.act(t, "unrescue", nil, "ACTIVE")
	g.rebooted(t, boot)
	mine(t, g)
	if out := g.run(t, "cat /root/rescued"); out != "changed" {
		t.Errorf("what was written in rescue is gone: %q", out)
	}
}

// stableRescue boots another system and leaves the server's disks their names and order.
func stableRescue(t *testing.T, g *guest) {
	boot := g.bootID(t)
	disks := g.run(t, "for d in /sys/block/vd*; do echo ${d##*/} $(cat $d/serial) $(cat $d/size); done")
	g.act(t, "rescue", map[string]any{"rescue_image_ref": g.cloud.rescue}, "RESCUE")
	boot = g.rebooted(t, boot)
	if now := g.run(t, "for d in /sys/block/vd*; do echo ${d##*/} $(cat $d/serial) $(cat $d/size); done"); now != disks || disks == "" {
		t.Errorf("the server's disks were\n%s\nand are\n%s", disks, now)
	}
	if out := g.run(t, "awk '$2 == \"/\" && $1 ~ \"^/dev/\" {print substr($1, 6, 3)}' /proc/mounts; cat /root/mark 2>/dev/null; mount /dev/vda2 /mnt && cat /mnt/root/mark && umount /mnt"); out != "sda\nmine" {
		t.Errorf("in rescue: %q", out)
	}
	g.act(t, "unrescue", nil, "ACTIVE")
	g.rebooted(t, boot)
	mine(t, g)
	if out := g.run(t, "ls -d /sys/block/sd* 2>/dev/null | wc -l"); out != "0" {
		t.Errorf("%s disks of the rescue are left", out)
	}
}

// size gives the guest's memory in MB and its disk in sectors.
func size(t *testing.T, g *guest) (memory, disk, root int) {
	t.Helper()
	f := strings.Fields(g.run(t, "awk '/MemTotal/ {print int($2/1024)}' /proc/meminfo; cat /sys/block/vda/size; df -k / | awk 'END {print $2}'"))
	if len(f) != 3 {
		t.Fatal(f)
	}
	memory, _ = strconv.Atoi(f[0])
	disk, _ = strconv.Atoi(f[1])
	root, _ = strconv.Atoi(f[2])
	return memory, disk, root
}

const gibSectors = 2 << 20

func resizeTo(t *testing.T, g *guest) {
	t.Helper()
	boot := g.bootID(t)
	memory, disk, root := size(t, g)
	if out := g.run(t, "nproc"); out != "1" {
		t.Errorf("before, the guest has %s CPUs", out)
	}
	g.act(t, "resize", map[string]any{"flavorRef": g.ground.Bigger}, "VERIFY_RESIZE")
	g.rebooted(t, boot)
	mine(t, g)
	if out := g.run(t, "nproc"); out != "2" {
		t.Errorf("the guest has %s CPUs", out)
	}
	m, d, r := size(t, g)
	if m < memory+90 || disk != gibSectors || d != 2*gibSectors || r < root+800_000 {
		t.Errorf("memory %d -> %d MB, disk %d -> %d sectors, file system %d -> %d KiB", memory, m, disk, d, root, r)
	}
}

func resizeRevert(t *testing.T, g *guest) {
	memory, disk, _ := size(t, g)
	resizeTo(t, g)
	boot := g.bootID(t)
	g.run(t, "echo later > /root/later; sync")
	g.act(t, "revertResize", nil, "ACTIVE")
	g.rebooted(t, boot)
	mine(t, g)
	if m, d, _ := size(t, g); m != memory || d != disk {
		t.Errorf("after the revert: %d MB, %d sectors; before %d, %d", m, d, memory, disk)
	}
}

func resizeConfirm(t *testing.T, g *guest) {
	resizeTo(t, g)
	boot := g.bootID(t)
	g.act(t, "confirmResize", nil, "ACTIVE")
	if g.bootID(t) != boot {
		t.Error("the confirmation restarted the guest")
	}
}

func shelve(t *testing.T, g *guest) {
	boot := g.bootID(t)
	g.act(t, "shelve", nil, "SHELVED_OFFLOADED")
	if pid := g.qemu(t); pid != 0 {
		t.Errorf("QEMU %d runs", pid)
	}
	if _, err := apart.Shell(g.addr, "root", "true", nil); err == nil {
		t.Error("a shelved server answers")
	}
	g.act(t, "unshelve", nil, "ACTIVE")
	g.rebooted(t, boot)
	mine(t, g)
	if _, d, _ := size(t, g); d != 2*gibSectors {
		t.Errorf("the disk has %d sectors", d)
	}
}

// rebuild puts another image on the disk; what is known of the server stays. A stopped server stays stopped.
func rebuild(t *testing.T, g *guest) {
	boot := g.bootID(t)
	apart.Must(t, g.demo, "POST", "compute", "/servers/"+g.id+"/metadata", map[string]any{"metadata": map[string]string{"kept": "yes"}}, nil)
	g.act(t, "rebuild", map[string]any{"imageRef": g.agent, "name": "new-name"}, "ACTIVE")
	g.rebooted(t, boot)
	if out := g.run(t, "cat /root/mark 2>/dev/null; hostname | cut -d. -f1"); out != g.name {
		t.Errorf("after the rebuild: %q", out)
	}
	var d struct {
		Server struct {
			Name     string
			Image    struct{ ID string }
			Metadata map[string]string
		}
	}
	apart.Must(t, g.demo, "GET", "compute", "/servers/"+g.id, nil, &d)
	if s := d.Server; s.Name != "new-name" || s.Image.ID != g.agent || s.Metadata["kept"] != "yes" {
		t.Errorf("after the rebuild: %+v", s)
	}
	g.run(t, "echo mine > /root/mark; sync")
	g.act(t, "os-stop", nil, "SHUTOFF")
	g.act(t, "rebuild", map[string]any{"imageRef": g.ground.Image}, "SHUTOFF")
	if pid := g.qemu(t); pid != 0 {
		t.Errorf("the server was stopped, and QEMU %d runs", pid)
	}
	g.act(t, "os-start", nil, "ACTIVE")
	g.until(t, "cat /root/mark 2>/dev/null; echo fresh", "fresh")
}
