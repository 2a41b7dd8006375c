package moves_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"kilonova/test/apart"
)

// TestMoves takes one guest from host to host, while another, which stays, speaks to it.
func TestMoves(t *testing.T) {
	c := newCloud(t)
	rover, home := c.boot(t, "rover", "h1", true), c.boot(t, "home", "h2", false)
	rover.bootID(t)
	home.bootID(t)
	for _, x := range []struct {
		name string
		do   func(*testing.T, *guest, *guest)
	}{
		{"guests on two hosts reach each other", together},
		{"live, disks are copied", liveBlock},
		{"live, disks are shared", liveShared},
		{"consoles on another host", consoles},
		{"live, aborted", liveAborted},
		{"live, fails at the destination", liveFails},
		{"live, forced", liveForced},
		{"cold", cold},
		{"resize, reverted and confirmed", resize},
		{"cold, disks are shared", coldShared},
		{"unshelved elsewhere", unshelved},
		{"evacuated", evacuated},
	} {
		if !t.Run(x.name, func(t *testing.T) {
			began := time.Now()
			x.do(t, rover, home)
			t.Logf("took %.0f s", time.Since(began).Seconds())
		}) {
			return
		}
	}
}

func together(t *testing.T, rover, home *guest) {
	rover.hears(t, home, "at first")
	home.hears(t, rover, "at first")
}

// live migrates the rover while it writes, is spoken to from outside and pinged from inside and outside, and measures the silence.
func live(t *testing.T, rover, home *guest, to string, block any) {
	boot := rover.bootID(t)
	line := rover.session(t)
	rover.write(t)
	inside, six, outside := home.pings(t, rover.addr), home.pings(t, rover.six), rover.ping(t)
	answered := func(when string) {
		for _, p := range []*pinger{inside, six, outside} {
			p.goesOn(t, when, 15)
		}
	}
	answered("before the migration")
	rover.act(t, "os-migrateLive", map[string]any{"host": to, "block_migration": block})
	rover.at(t, to)
	if s := rover.ended(t); s != "completed" {
		t.Errorf("the migration is %s", s)
	}
	line.alive(t, "after the migration")
	answered("after the migration")
	t.Logf("longest silence: %v from a guest on another host, %v by IPv6, %v from outside through the floating address", inside.gap(t), six.gap(t), outside.gap(t))
	if now := rover.bootID(t); now != boot {
		t.Error("the guest was booted anew")
	}
	t.Logf("%d blocks were written meanwhile, all are there", rover.written(t))
	rover.hears(t, home, "on "+to)
	line.alive(t, "a while after the migration")
	for name, h := range rover.hosts {
		if has := strings.Contains(h.virsh(t, "list --all --uuid"), rover.id); has != (name == to) {
			t.Errorf("%s has the guest: %v", name, has)
		}
	}
}

func liveBlock(t *testing.T, rover, home *guest) { live(t, rover, home, "h2", true) }

// liveShared leaves it to the hosts to find out that they share the disks.
func liveShared(t *testing.T, rover, home *guest) { live(t, rover, home, "h3", "auto") }

// consoles: the proxy reaches the screen and the serial console of a guest on another host.
func consoles(t *testing.T, rover, _ *guest) {
	var r struct {
		Console struct{ URL string } `json:"remote_console"`
	}
	apart.Must(t, rover.admin, "POST", "compute", "/servers/"+rover.id+"/remote-consoles", map[string]any{"remote_console": map[string]any{"protocol": "vnc", "type": "novnc"}}, &r)
	u, err := url.Parse(r.Console.URL)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), apart.Patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "ws://"+u.Host+"/"+u.Query().Get("path"), &websocket.DialOptions{Subprotocols: []string{"binary"},
		HTTPHeader: http.Header{"Origin": {u.Scheme + "://" + u.Host}}})
	if err != nil {
		t.Fatalf("%s: %v", r.Console.URL, err)
	}
	defer func() { _ = ws.CloseNow() }()
	_, hello, err := ws.Read(ctx)
	if err != nil || !bytes.HasPrefix(hello, []byte("RFB 003.")) {
		t.Errorf("the screen says %q, %v", hello, err)
	}
}

// slowly lets the host send with so many megabits a second at most, until the test ends.
func (h *host) slowly(t *testing.T, mbit int) {
	t.Helper()
	h.on(t, fmt.Sprintf("tc qdisc replace dev eth0 root tbf rate %dmbit burst 64kb latency 400ms", mbit))
	t.Cleanup(func() { h.on(t, "tc qdisc del dev eth0 root") })
}

// begin starts a live migration that will not end by itself soon and gives its number once memory is on its way.
func begin(t *testing.T, rover *guest, to string, block any) int {
	t.Helper()
	rover.dirty(t)
	old, _ := rover.migration(t)
	rover.act(t, "os-migrateLive", map[string]any{"host": to, "block_migration": block})
	var id int
	apart.Eventually(t, "the migration is under way", func() (string, bool) {
		var status string
		id, status = rover.migration(t)
		if id == old || status != "running" {
			return status, false
		}
		var ms struct {
			Migrations []struct {
				ID        int
				Processed int64 `json:"memory_processed_bytes"`
			}
		}
		apart.Must(t, rover.admin, "GET", "compute", "/servers/"+rover.id+"/migrations", nil, &ms)
		return fmt.Sprintf("%+v", ms), len(ms.Migrations) == 1 && ms.Migrations[0].Processed > 0
	})
	return id
}

func liveAborted(t *testing.T, rover, home *guest) {
	rover.hosts["h3"].slowly(t, 24)
	boot, line := rover.bootID(t), rover.session(t)
	rover.write(t)
	id := begin(t, rover, "h2", "auto")
	apart.Must(t, rover.admin, "DELETE", "compute", fmt.Sprintf("/servers/%s/migrations/%d", rover.id, id), nil, nil)
	rover.at(t, "h3")
	if s := rover.ended(t); s != "cancelled" {
		t.Errorf("the migration is %s", s)
	}
	line.alive(t, "after the abort")
	rover.run(t, "touch /root/calm")
	rover.written(t)
	stayed(t, rover, home, boot)
}

// stayed: the guest is untouched on h3, and nothing of it is on h2.
func stayed(t *testing.T, rover, home *guest, boot string) {
	t.Helper()
	if now := rover.bootID(t); now != boot {
		t.Error("the guest was booted anew")
	}
	rover.hears(t, home, "back on its host")
	if all := rover.hosts["h2"].virsh(t, "list --all --uuid"); strings.Contains(all, rover.id) {
		t.Errorf("the destination has the guest: %s", all)
	}
	var ports struct {
		Ports []struct {
			Host string `json:"binding:host_id"`
		}
	}
	apart.Must(t, rover.admin, "GET", "network", "/ports?device_id="+rover.id, nil, &ports)
	if len(ports.Ports) != 1 || ports.Ports[0].Host != "h3" {
		t.Errorf("its ports are %+v", ports.Ports)
	}
}

// liveFails: the destination takes the guest's files and definition, but nobody gets through with its memory.
func liveFails(t *testing.T, rover, home *guest) {
	h2 := rover.hosts["h2"]
	h2.on(t, "nft add table inet closed; nft add chain inet closed in { type filter hook input priority 0\\; }; nft add rule inet closed in tcp dport 49152-49215 reject with tcp reset")
	t.Cleanup(func() { h2.on(t, "nft delete table inet closed") })
	boot, line := rover.bootID(t), rover.session(t)
	rover.write(t)
	old, _ := rover.migration(t)
	rover.act(t, "os-migrateLive", map[string]any{"host": "h2", "block_migration": "auto"})
	apart.Eventually(t, "the migration fails", func() (string, bool) {
		id, status := rover.migration(t)
		return status, id != old && (status == "error" || status == "failed")
	})
	rover.at(t, "h3")
	line.alive(t, "after the failure")
	rover.written(t)
	stayed(t, rover, home, boot)
}

func liveForced(t *testing.T, rover, home *guest) {
	rover.hosts["h3"].slowly(t, 80)
	boot, line := rover.bootID(t), rover.session(t)
	rover.write(t)
	id := begin(t, rover, "h1", true)
	apart.Must(t, rover.admin, "POST", "compute", fmt.Sprintf("/servers/%s/migrations/%d/action", rover.id, id), map[string]any{"force_complete": nil}, nil)
	rover.at(t, "h1")
	if s := rover.ended(t); s != "completed" {
		t.Errorf("the migration is %s", s)
	}
	line.alive(t, "after the forced migration")
	rover.run(t, "touch /root/calm")
	if now := rover.bootID(t); now != boot {
		t.Error("the guest was booted anew")
	}
	t.Logf("%d blocks were written meanwhile, all are there", rover.written(t))
	rover.hears(t, home, "after the forced migration")
}

// keep puts a file on the disk and gives a function that looks for it.
func keep(t *testing.T, g *guest) func(*testing.T, string) {
	t.Helper()
	sum := g.run(t, "dd if=/dev/urandom of=/root/kept bs=64k count=40 2>/dev/null; sync; md5sum /root/kept")
	return func(t *testing.T, when string) {
		t.Helper()
		if now := g.run(t, "md5sum /root/kept"); now != sum {
			t.Errorf("%s the disk holds %s, not %s", when, now, sum)
		}
	}
}

// only: of the guest, nothing is on other hosts, apart from those in files.
func only(t *testing.T, g *guest, host string) {
	t.Helper()
	for name, h := range g.hosts {
		if name != host && strings.Contains(h.virsh(t, "list --all --uuid"), g.id) {
			t.Errorf("%s has the guest too", name)
		}
		_, err := os.Stat(filepath.Join(h.disks, "guests", g.id))
		if shares := h.disks == g.hosts[host].disks; (err == nil) != shares {
			t.Errorf("files on %s: %v", name, err)
		}
	}
}

func cold(t *testing.T, rover, home *guest) {
	boot, kept := rover.bootID(t), keep(t, rover)
	rover.act(t, "migrate", map[string]any{"host": "h2"})
	rover.wait(t, "VERIFY_RESIZE")
	boot = rover.rebooted(t, boot)
	kept(t, "after the migration")
	rover.hears(t, home, "after the migration")
	rover.act(t, "revertResize", nil)
	rover.at(t, "h1")
	boot = rover.rebooted(t, boot)
	kept(t, "after the way back")
	only(t, rover, "h1")
	rover.act(t, "migrate", map[string]any{"host": "h2"})
	rover.wait(t, "VERIFY_RESIZE")
	rover.rebooted(t, boot)
	rover.act(t, "confirmResize", nil)
	rover.at(t, "h2")
	kept(t, "after the second migration")
	only(t, rover, "h2")
}

func resize(t *testing.T, rover, home *guest) {
	boot, kept := rover.bootID(t), keep(t, rover)
	memory := func() (mb int) {
		fmt.Sscan(rover.run(t, "awk '/MemTotal/ {print int($2/1024)}' /proc/meminfo"), &mb)
		return mb
	}
	before := memory()
	rover.act(t, "resize", map[string]any{"flavorRef": rover.flavor[1]})
	to := rover.wait(t, "VERIFY_RESIZE").Host
	boot = rover.rebooted(t, boot)
	kept(t, "after the resize")
	if now := memory(); now < before+30 || to == "h2" {
		t.Errorf("on %s with %d MB; it had %d", to, now, before)
	}
	rover.act(t, "revertResize", nil)
	rover.at(t, "h2")
	boot = rover.rebooted(t, boot)
	kept(t, "after the way back")
	if now := memory(); now != before {
		t.Errorf("after the way back: %d MB; it had %d", now, before)
	}
	rover.act(t, "resize", map[string]any{"flavorRef": rover.flavor[1]})
	to = rover.wait(t, "VERIFY_RESIZE").Host
	rover.rebooted(t, boot)
	rover.act(t, "confirmResize", nil)
	rover.at(t, to)
	kept(t, "after the second resize")
	only(t, rover, to)
	rover.hears(t, home, "after the resize")
}

// coldShared: of two hosts that see the same files one lets go of them.
func coldShared(t *testing.T, rover, home *guest) {
	boot, kept := rover.bootID(t), keep(t, rover)
	if rover.wait(t, "ACTIVE").Host == "h1" {
		rover.act(t, "migrate", map[string]any{"host": "h2"})
		rover.wait(t, "VERIFY_RESIZE")
		boot = rover.rebooted(t, boot)
		rover.act(t, "confirmResize", nil)
	}
	from := rover.wait(t, "ACTIVE").Host
	to := map[string]string{"h2": "h3", "h3": "h2"}[from]
	for _, end := range []string{"revertResize", "confirmResize"} {
		rover.act(t, "migrate", map[string]any{"host": to})
		rover.wait(t, "VERIFY_RESIZE")
		boot = rover.rebooted(t, boot)
		kept(t, "after the migration")
		rover.act(t, end, nil)
		if end == "revertResize" {
			rover.at(t, from)
			boot = rover.rebooted(t, boot)
		}
	}
	rover.at(t, to)
	kept(t, "at the end")
	only(t, rover, to)
	rover.act(t, "reboot", map[string]any{"type": "HARD"})
	rover.at(t, to)
	rover.rebooted(t, boot)
	kept(t, "after a restart")
}

func unshelved(t *testing.T, rover, home *guest) {
	boot, kept := rover.bootID(t), keep(t, rover)
	rover.act(t, "shelve", nil)
	rover.wait(t, "SHELVED_OFFLOADED")
	rover.act(t, "unshelve", map[string]any{"host": "h1"})
	rover.at(t, "h1")
	rover.rebooted(t, boot)
	kept(t, "unshelved")
	rover.hears(t, home, "unshelved")
	only(t, rover, "h1")
}

// evacuated: a host dies with its guest, which is built anew elsewhere. When it returns, it lets go of the guest that it had, and of nothing that it does
// not know.
func evacuated(t *testing.T, rover, home *guest) {
	h1 := rover.hosts["h1"]
	boot := rover.bootID(t)
	const stranger = "00000000-1111-4222-8333-444444444444"
	alien := filepath.Join(filepath.Dir(h1.dir), "alien.xml")
	text := "<domain type=\"qemu\"><name>alien</name><uuid>" + stranger + "</uuid><memory unit=\"MiB\">32</memory><vcpu>1</vcpu><os><type arch=\"x86_64\" machine=\"pc\">hvm</type></os></domain>"
	if err := os.WriteFile(alien, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h1.virsh(t, "define "+alien)
	files := filepath.Join(h1.disks, "guests", stranger)
	if err := os.MkdirAll(files, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(files, "disk"), []byte("somebody's"), 0o600); err != nil {
		t.Fatal(err)
	}
	h1.kill(t)
	if running(rover.id) {
		t.Fatal("the guest outlives its host")
	}
	var svc struct {
		Services []struct{ ID, Host, Binary string }
	}
	apart.Must(t, rover.admin, "GET", "compute", "/os-services?host=h1&binary=nova-compute", nil, &svc)
	apart.Must(t, rover.admin, "PUT", "compute", "/os-services/"+svc.Services[0].ID, map[string]any{"forced_down": true}, nil)
	rover.act(t, "evacuate", map[string]any{"host": "h3"})
	if s := rover.wait(t, "SHUTOFF"); s.Host != "h3" { // from microversion 2.95 on an evacuated server is left stopped
		t.Fatalf("%s is on %s, not on h3: %+v", rover.name, s.Host, s.Fault)
	}
	rover.act(t, "os-start", nil)
	rover.at(t, "h3")
	rover.rebooted(t, boot)
	boot = rover.bootID(t)
	rover.hears(t, home, "evacuated")

	h1.boot(t)
	apart.Eventually(t, "the host that is back lets go of the guest", func() (string, bool) {
		all := h1.virsh(t, "list --all --uuid")
		if strings.Contains(h1.virsh(t, "list --uuid"), rover.id) {
			t.Fatalf("the old guest was started")
		}
		_, err := os.Stat(filepath.Join(h1.disks, "guests", rover.id))
		return fmt.Sprint(all, err), !strings.Contains(all, rover.id) && os.IsNotExist(err)
	})
	apart.Eventually(t, "the host may be used again once it has let go", func() (string, bool) {
		_, _, err := rover.admin.Do(t.Context(), "PUT", "compute", "/os-services/"+svc.Services[0].ID, map[string]any{"forced_down": false}, nil)
		return fmt.Sprint(err), err == nil
	})
	if all := h1.virsh(t, "list --all --uuid"); !strings.Contains(all, stranger) {
		t.Errorf("a guest that the cloud does not know is gone: %s", all)
	}
	if b := string(apart.ReadFile(t, filepath.Join(files, "disk"))); b != "somebody's" {
		t.Errorf("files that the cloud does not know: %q", b)
	}
	if now := rover.bootID(t); now != boot {
		t.Error("the evacuated guest was disturbed")
	}
	live(t, rover, home, "h1", true) // the host is of use again
}
