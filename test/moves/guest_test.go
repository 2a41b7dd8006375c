package moves_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"kilonova/test/apart"
	"kilonova/test/process"
)

// guest is a server whose machine runs. It is reached from outside under its floating address.
type guest struct {
	*cloud
	id, name, addr, six, outside string
	drive                        bool // it has a config drive
}

// boot makes a server on a host, with a config drive or without, and waits until its machine answers outside.
func (c *cloud) boot(t *testing.T, name, host string, drive bool) *guest {
	t.Helper()
	g := &guest{cloud: c, name: name, drive: drive}
	var s struct{ Server process.Thing }
	apart.Must(t, c.admin, "POST", "compute", "/servers", map[string]any{"server": map[string]any{"name": name, "imageRef": c.image, "flavorRef": c.flavor[0], "key_name": "k", "host": host, "config_drive": drive,
		"networks": []any{map[string]string{"uuid": c.net}}, "security_groups": []any{map[string]string{"name": "open"}}}}, &s)
	g.id = s.Server.ID
	t.Cleanup(func() {
		if t.Failed() {
			g.tell(t)
		}
	})
	g.wait(t, "ACTIVE")
	var ports struct {
		Ports []struct {
			ID    string
			Fixed []struct {
				Address string `json:"ip_address"`
			} `json:"fixed_ips"`
		}
	}
	apart.Must(t, c.admin, "GET", "network", "/ports?device_id="+g.id, nil, &ports)
	if len(ports.Ports) != 1 || len(ports.Ports[0].Fixed) != 2 {
		t.Fatalf("ports of %s: %+v", name, ports)
	}
	for _, f := range ports.Ports[0].Fixed {
		if strings.Contains(f.Address, ":") {
			g.six = f.Address
		} else {
			g.addr = f.Address
		}
	}
	var f struct {
		FloatingIP struct {
			Address string `json:"floating_ip_address"`
		}
	}
	apart.Must(t, c.admin, "POST", "network", "/floatingips", map[string]any{"floatingip": map[string]any{"floating_network_id": c.ext, "port_id": ports.Ports[0].ID}}, &f)
	g.outside = f.FloatingIP.Address
	return g
}

func (g *guest) tell(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	apart.TellServer(ctx, t, g.admin, g.name+" "+g.addr+" "+g.outside, g.id, g.procs()...)
	story, _ := exec.CommandContext(ctx, g.binary, "explain", "server", g.id, "--state-dir", g.dir).CombinedOutput()
	apart.More(t, "its story", string(story), 5000)
}

func (g *guest) wait(t *testing.T, status string) process.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), apart.Patience)
	defer cancel()
	s, err := g.admin.WaitStatus(ctx, g.id, status)
	if err != nil {
		t.Fatalf("%s: %v", g.name, err)
	}
	return s
}

// at waits until the server is ACTIVE and says on which host it must be.
func (g *guest) at(t *testing.T, host string) {
	t.Helper()
	if s := g.wait(t, "ACTIVE"); s.Host != host {
		t.Fatalf("%s is on %s, not on %s: %+v", g.name, s.Host, host, s.Fault)
	}
}

func (g *guest) act(t *testing.T, action string, args any) {
	t.Helper()
	apart.Must(t, g.admin, "POST", "compute", "/servers/"+g.id+"/action", map[string]any{action: args}, nil)
}

// migration is the newest migration of the server.
func (g *guest) migration(t *testing.T) (id int, status string) {
	t.Helper()
	var ms struct {
		Migrations []struct {
			ID     int
			Status string
		}
	}
	apart.Must(t, g.admin, "GET", "compute", "/os-migrations?instance_uuid="+g.id, nil, &ms)
	for _, m := range ms.Migrations {
		if m.ID > id {
			id, status = m.ID, m.Status
		}
	}
	return id, status
}

// ended waits until the newest migration is over and gives its status.
func (g *guest) ended(t *testing.T) (status string) {
	t.Helper()
	apart.Eventually(t, "the migration of "+g.name+" ends", func() (string, bool) {
		_, status = g.migration(t)
		return status, status == "completed" || status == "error" || status == "failed" || status == "cancelled"
	})
	return status
}

func (g *guest) dial(limit time.Duration) (*ssh.Client, error) {
	return apart.Dial(g.outside, "root", ssh.PublicKeys(g.signer), limit)
}

func (g *guest) try(command string) (string, error) {
	return apart.Shell(g.outside, "root", command, ssh.PublicKeys(g.signer))
}

// run runs a command in the guest; it waits while the guest is not reached.
func (g *guest) run(t *testing.T, command string) (out string) {
	t.Helper()
	var exit *ssh.ExitError
	apart.Eventually(t, fmt.Sprintf("%s at %s runs %q", g.name, g.outside, command), func() (string, bool) {
		var err error
		out, err = g.try(command)
		if errors.As(err, &exit) {
			t.Fatalf("%s: %s: %v\n%s", g.name, command, err, out)
		}
		return fmt.Sprint(out, err), err == nil
	})
	return out
}

// boot tells one boot of the guest from another.
func (g *guest) bootID(t *testing.T) string {
	t.Helper()
	return g.run(t, "cat /proc/sys/kernel/random/boot_id")
}

func (g *guest) rebooted(t *testing.T, before string) (now string) {
	t.Helper()
	apart.Eventually(t, g.name+" has booted again", func() (string, bool) {
		out, err := g.try("cat /proc/sys/kernel/random/boot_id")
		now = out
		return fmt.Sprint(out, err), err == nil && out != "" && out != before
	})
	return now
}

// write begins to write blocks, with the sum of each beside it, until written is asked.
func (g *guest) write(t *testing.T) {
	t.Helper()
	g.run(t, `rm -rf /root/w /root/stop /root/n; mkdir /root/w; cat > /root/writer <<'X'
i=0
while [ ! -e /root/stop ]; do
  f=/root/w/$((i % 60))
  dd if=/dev/urandom of=$f bs=64k count=1 2>/dev/null
  md5sum $f > $f.sum
  i=$((i + 1)); echo $i > /root/n
  [ $((i % 10)) = 0 ] && sync
  usleep 50000
done
echo done > /root/done
X
rm -f /root/done; sh /root/writer >/dev/null 2>&1 </dev/null &`)
}

// written ends the writing, verifies what was written and gives the number of blocks.
func (g *guest) written(t *testing.T) int {
	t.Helper()
	g.run(t, "touch /root/stop; while [ ! -e /root/done ]; do sleep 0.1; done; sync; echo 3 > /proc/sys/vm/drop_caches")
	if bad := g.run(t, "for s in /root/w/*.sum; do md5sum -c $s 2>&1; done | grep -v ': OK$'; true"); bad != "" {
		t.Errorf("blocks of %s are not what was written: %s", g.name, bad)
	}
	n, _ := strconv.Atoi(g.run(t, "cat /root/n"))
	return n
}

// dirty keeps the guest's memory changing.
func (g *guest) dirty(t *testing.T) {
	t.Helper()
	g.run(t, "mount -o remount,size=60m /dev/shm 2>/dev/null || { mkdir -p /dev/shm; mount -t tmpfs -o size=60m tmpfs /dev/shm; }; (while [ ! -e /root/calm ]; do dd if=/dev/urandom of=/dev/shm/dirt bs=1M count=40; done) >/dev/null 2>&1 </dev/null & rm -f /root/calm")
}

// session is an SSH connection that stays open.
type session struct {
	g     *guest
	c     *ssh.Client
	in    io.Writer
	lines chan string
	n     int
}

func (g *guest) session(t *testing.T) *session {
	t.Helper()
	var c *ssh.Client
	apart.Eventually(t, g.name+" takes a session", func() (string, bool) {
		var err error
		c, err = g.dial(time.Hour)
		return fmt.Sprint(err), err == nil
	})
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	k := &session{g: g, c: c, lines: make(chan string, 100)}
	if k.in, err = s.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("cat"); err != nil {
		t.Fatal(err)
	}
	go func() {
		for sc := bufio.NewScanner(out); sc.Scan(); {
			k.lines <- sc.Text()
		}
		close(k.lines)
	}()
	t.Cleanup(func() { _ = c.Close() })
	k.alive(t, "at its beginning")
	return k
}

// alive sends a line through the connection and waits for its return.
func (k *session) alive(t *testing.T, when string) {
	t.Helper()
	k.n++
	want := fmt.Sprintf("line %d", k.n)
	if _, err := io.WriteString(k.in, want+"\n"); err != nil {
		t.Fatalf("the connection to %s %s: %v", k.g.name, when, err)
	}
	select {
	case got := <-k.lines:
		if got != want {
			t.Fatalf("the connection to %s %s: %q came for %q", k.g.name, when, got, want)
		}
	case <-time.After(apart.Patience):
		t.Fatalf("the connection to %s is dead %s", k.g.name, when)
	}
}

// pinger pings from somewhere without end.
type pinger struct {
	said func() string
	stop func() string
}

const beat = 100 * time.Millisecond

// ping pings a guest from outside, under its floating address.
func (g *guest) ping(t *testing.T) *pinger {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pings")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "ping", "-n", "-i", "0.1", g.outside)
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = out.Close()
	said := func() string { return string(apart.ReadFile(t, file)) }
	return &pinger{said, func() string { _ = cmd.Process.Kill(); _ = cmd.Wait(); return said() }}
}

// pings pings one guest's address from another.
func (g *guest) pings(t *testing.T, addr string) *pinger {
	t.Helper()
	file := "/root/pings-" + strings.ReplaceAll(addr, ":", "-")
	g.run(t, fmt.Sprintf("[ ! -e %[2]s.pid ] || kill $(cat %[2]s.pid) 2>/dev/null; ping -i 0.1 %[1]s > %[2]s 2>&1 </dev/null & echo $! > %[2]s.pid", addr, file))
	return &pinger{func() string { return g.run(t, "cat "+file) }, func() string {
		return g.run(t, fmt.Sprintf("p=$(cat %[1]s.pid); kill -INT $p; while kill -0 $p 2>/dev/null; do usleep 50000; done; rm %[1]s.pid; cat %[1]s", file))
	}}
}

// goesOn waits until so many more pings have been answered.
func (p *pinger) goesOn(t *testing.T, when string, more int) {
	t.Helper()
	had := strings.Count(p.said(), "seq=")
	apart.Eventually(t, when+" pings are answered", func() (string, bool) {
		out := p.said()
		return apart.Tail(out, 300), strings.Count(out, "seq=") >= had+more
	})
}

// gap ends the pinging and gives the longest time without an answer.
func (p *pinger) gap(t *testing.T) time.Duration {
	t.Helper()
	out := p.stop()
	last, longest := -1, 0
	for line := range strings.Lines(out) {
		at := strings.Index(line, "seq=")
		if at < 0 {
			continue
		}
		var seq int
		if _, err := fmt.Sscan(line[at+4:], &seq); err != nil {
			continue
		}
		if last >= 0 {
			longest = max(longest, seq-last-1)
			if lost := seq - last - 1; lost >= 10 {
				t.Logf("silent for %v after %v", time.Duration(lost)*beat, time.Duration(last)*beat)
			}
		}
		last = max(last, seq)
	}
	t.Logf("%v of pings", time.Duration(last)*beat)
	return time.Duration(longest) * beat
}

// hears tells whether the guest's own host gives it what a host has to give: an address, metadata, the gateway; and whether the other guest is reached.
func (g *guest) hears(t *testing.T, other *guest, when string) {
	t.Helper()
	g.reads(t, when)
	nic := "$(ip -4 -o addr show scope global | awk '{print $2; exit}')"
	command := strings.NewReplacer("GATEWAY6", strings.TrimSuffix(six, "/64")+"1", "OTHER6", other.six, "GATEWAY", gatewayOf(private), "OTHER", other.addr, "ID", g.id, "NIC", nic).Replace(
		`ping -c 2 -W 5 GATEWAY >/dev/null && echo gateway
ping -c 2 -W 5 OTHER >/dev/null && echo other
ping -c 2 -W 5 GATEWAY6 >/dev/null && echo gateway by IPv6
ping -c 2 -W 5 OTHER6 >/dev/null && echo other by IPv6
timeout 20 wget -q -O - http://169.254.169.254/openstack/latest/meta_data.json | grep -o ID | head -1
timeout 20 wget -q -O - http://[fe80::a9fe:a9fe%NIC]/openstack/latest/meta_data.json | grep -o ID | head -1
timeout 30 udhcpc -i NIC -n -q -f -t 5 -T 2 -s /bin/true 2>&1 | grep -o 'lease of [0-9.]*' | head -1
true`)
	want := strings.Join([]string{"gateway", "other", "gateway by IPv6", "other by IPv6", g.id, g.id, "lease of " + g.addr}, "\n")
	apart.Eventually(t, when+" "+g.name+" has all that its host gives", func() (string, bool) {
		out := g.run(t, command)
		return out, out == want
	})
	if c, err := net.DialTimeout("tcp", net.JoinHostPort(g.outside, "7"), 500*time.Millisecond); err == nil {
		_ = c.Close()
		t.Errorf("%s, a port of %s that no rule allows takes connections", when, g.name)
	} else if !strings.Contains(err.Error(), "timeout") {
		t.Errorf("%s, a port of %s that no rule allows answers: %v", when, g.name, err)
	}
}

// reads tells that the guest reads its config drive, which came along.
func (g *guest) reads(t *testing.T, when string) {
	t.Helper()
	if !g.drive {
		return
	}
	out := g.run(t, `umount /mnt/config 2>/dev/null; echo 3 > /proc/sys/vm/drop_caches; mkdir -p /mnt/config
mount -o ro $(findfs LABEL=config-2) /mnt/config && grep -o `+g.id+` /mnt/config/openstack/latest/meta_data.json | head -1; umount /mnt/config`)
	if out != g.id {
		t.Errorf("%s, the config drive of %s says %q", when, g.name, out)
	}
}

func gatewayOf(cidr string) string { return strings.TrimSuffix(cidr, "0/24") + "1" }
