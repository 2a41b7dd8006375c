package guests_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"kilonova/test/apart"
)

// interfaces attaches a second interface to the running guest and takes it away.
func interfaces(t *testing.T, g *guest) {
	net := g.network(t, "second-net", "198.18.65.0/24")
	var r struct {
		Attachment struct {
			Port  string `json:"port_id"`
			Mac   string `json:"mac_addr"`
			Fixed []struct {
				IP string `json:"ip_address"`
			} `json:"fixed_ips"`
		} `json:"interfaceAttachment"`
	}
	apart.Must(t, g.demo, "POST", "compute", "/servers/"+g.id+"/os-interface", map[string]any{"interfaceAttachment": map[string]any{"net_id": net}}, &r)
	mac := strings.ToLower(r.Attachment.Mac)
	find := "grep -l -i " + mac + " /sys/class/net/*/address | cut -d/ -f5"
	var nic string
	apart.Eventually(t, "the guest sees the interface "+mac, func() (string, bool) {
		out, err := g.try(find, ssh.PublicKeys(g.signer))
		nic = out
		return fmt.Sprint(out, err), err == nil && out != ""
	})
	if len(r.Attachment.Fixed) == 0 {
		t.Fatalf("no address: %+v", r)
	}
	g.run(t, fmt.Sprintf("ip link set %s up; udhcpc -q -n -t 60 -T 2 -i %s -s /usr/share/udhcpc/default.script", nic, nic))
	if out := g.run(t, "ip -4 -o addr show dev "+nic+" | awk '{print $4}'"); out != r.Attachment.Fixed[0].IP+"/24" {
		t.Errorf("the second interface has %q, its port %q", out, r.Attachment.Fixed[0].IP)
	}
	g.works(t, "ping -c 2 -W 5 -I "+nic+" 198.18.65.1")
	apart.Must(t, g.demo, "DELETE", "compute", "/servers/"+g.id+"/os-interface/"+r.Attachment.Port, nil, nil)
	g.until(t, find+" | wc -l", "0")
	// The default route may have followed the second interface.
	g.run(t, "for p in /run/udhcpc.*; do kill -USR1 $(cat $p); done")
	g.works(t, "timeout 30 wget -q -O /dev/null "+service+"/openstack")
}

// password sets root's through the guest agent.
func password(t *testing.T, g *guest) {
	const secret = "correct horse 7"
	if _, err := g.try("true", ssh.Password(secret)); err == nil {
		t.Fatal("the password works before it is set")
	}
	g.act(t, "changePassword", map[string]any{"adminPass": secret}, "ACTIVE")
	apart.Eventually(t, "login with the new password", func() (string, bool) {
		_, err := g.try("true", ssh.Password(secret))
		return fmt.Sprint(err), err == nil
	})
}

func diagnostics(t *testing.T, g *guest) {
	var d struct {
		State, Driver, Hypervisor string
		Uptime                    int
		Memory                    struct{ Maximum int }          `json:"memory_details"`
		NICs                      []struct{ Mac_address string } `json:"nic_details"`
		Disks                     []struct{ Read_bytes int }     `json:"disk_details"`
		CPUs                      []struct{ Time int }           `json:"cpu_details"`
	}
	apart.Must(t, g.admin, "GET", "compute", "/servers/"+g.id+"/diagnostics", nil, &d)
	if d.State != "running" || d.Driver != "libvirt" || d.Hypervisor != "qemu" || d.Memory.Maximum != 144 || len(d.NICs) != 1 || !strings.EqualFold(d.NICs[0].Mac_address, g.mac) ||
		len(d.Disks) == 0 || d.Disks[0].Read_bytes == 0 || len(d.CPUs) != 1 || d.CPUs[0].Time == 0 {
		t.Errorf("%+v", d)
	}
}

// snapshot: what was written in one guest is found in the next, which is a server of its own.
func snapshot(t *testing.T, g *guest) {
	boot := g.bootID(t)
	g.run(t, "echo kept > /root/kept; rm -f /run/fsfreeze") // not synced: the snapshot brings the file systems to rest
	var img struct {
		ID string `json:"image_id"`
	}
	apart.Must(t, g.demo, "POST", "compute", "/servers/"+g.id+"/action", map[string]any{"createImage": map[string]any{"name": "my-snapshot", "metadata": map[string]string{"of": "alpha"}}}, &img)
	apart.Eventually(t, "the snapshot is active", func() (string, bool) {
		var i struct {
			Status string
			Of     string
		}
		apart.Must(t, g.demo, "GET", "image", "/images/"+img.ID, nil, &i)
		return i.Status, i.Status == "active" && i.Of == "alpha"
	})
	g.wait(t, "ACTIVE")
	if now := g.bootID(t); now != boot {
		t.Error("the snapshot restarted the guest")
	}
	if out := g.run(t, "cat /run/fsfreeze"); out != "freeze\nthaw" {
		t.Errorf("the guest agent was told %q", out)
	}
	next := g.boot(t, "from-snapshot", map[string]any{"imageRef": img.ID}).ready(t)
	if out := next.run(t, "cat /root/kept; hostname | cut -d. -f1"); out != "kept\nfrom-snapshot" {
		t.Errorf("in the second server: %q", out)
	}
	next.delete(t)
	apart.Must(t, g.demo, "DELETE", "image", "/images/"+img.ID, nil, nil)
}

// crashDump: the guest gets a non-maskable interrupt, of which its kernel speaks.
func crashDump(t *testing.T, g *guest) {
	before := strings.Count(g.run(t, "dmesg"), "NMI received")
	g.act(t, "trigger_crash_dump", nil, "")
	apart.Eventually(t, "the guest has got an NMI", func() (string, bool) {
		out, err := g.try("dmesg", ssh.PublicKeys(g.signer))
		return apart.Tail(out, 300) + fmt.Sprint(err), err == nil && strings.Count(out, "NMI received") > before
	})
}

// restless: a snapshot that must find the file systems at rest is none when the guest agent does not answer; the server goes on.
func restless(t *testing.T, g *guest) {
	g.run(t, "p=$(cat /run/qemu-ga.pid); kill $p; while kill -0 $p 2>/dev/null; do usleep 100000; done")
	var img struct {
		ID string `json:"image_id"`
	}
	apart.Must(t, g.demo, "POST", "compute", "/servers/"+g.id+"/action", map[string]any{"createImage": map[string]any{"name": "restless"}}, &img)
	apart.Eventually(t, "the snapshot has failed", func() (string, bool) {
		code, _, err := g.demo.Do(t.Context(), "GET", "image", "/images/"+img.ID, nil, nil)
		return fmt.Sprint(code, err), code == 404
	})
	g.wait(t, "ACTIVE")
	g.run(t, "echo writing > /root/writing; sync")
}

// backups: the newest ones stay.
func backups(t *testing.T, g *guest) {
	names := func() (out []string) {
		var l struct {
			Images []struct{ Name, Status string }
		}
		apart.Must(t, g.demo, "GET", "image", "/images?image_type=backup&sort=created_at:asc", nil, &l)
		for _, i := range l.Images {
			out = append(out, i.Name+" "+i.Status)
		}
		return out
	}
	for _, name := range []string{"monday", "tuesday", "wednesday"} {
		g.act(t, "createBackup", map[string]any{"name": name, "backup_type": "daily", "rotation": 2}, "ACTIVE")
	}
	want := []string{"tuesday active", "wednesday active"}
	apart.Eventually(t, "the two newest backups are there", func() (string, bool) {
		got := names()
		return fmt.Sprint(got), cmp.Equal(want, got)
	})
}

// postedPassword: what the guest posts to the metadata service once is what its owner is told.
func postedPassword(t *testing.T, g *guest) {
	g.run(t, "wget -q -O - --post-data Zm9yIHRoZSBvd25lcg== "+service+"/openstack/latest/password")
	if out := g.run(t, "wget -q -O - --post-data other "+service+"/openstack/latest/password 2>&1 || true"); !strings.Contains(out, "409") {
		t.Errorf("a second password: %q", out)
	}
	var r struct{ Password string }
	apart.Must(t, g.demo, "GET", "compute", "/servers/"+g.id+"/os-server-password", nil, &r)
	if out := g.run(t, "wget -q -O - "+service+"/openstack/latest/password"); r.Password != "Zm9yIHRoZSBvd25lcg==" || out != r.Password {
		t.Errorf("the owner is told %q, the guest %q", r.Password, out)
	}
	apart.Must(t, g.demo, "DELETE", "compute", "/servers/"+g.id+"/os-server-password", nil, nil)
	apart.Must(t, g.demo, "GET", "compute", "/servers/"+g.id+"/os-server-password", nil, &r)
	if r.Password != "" {
		t.Errorf("after it was cleared: %q", r.Password)
	}
}
