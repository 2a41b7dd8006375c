package guests_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
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

const cidr = "198.18.64.0/24"

// cloud is the program under test with one user's things in it.
type cloud struct {
	prog        process.Program
	proc        *process.Proc
	admin, demo *process.Client
	signer      ssh.Signer
	ground      process.Ground
	open        string // security group that lets ping and SSH in
	agent       string // image like the ground's whose guests are brought to rest for snapshots
	rescue      string // image that rescues beside the disks as they are
	before      string // the host's network before the program was first started
}

// start starts the program, or starts it again on what it left.
func (c *cloud) start(t *testing.T, more ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), apart.Patience)
	defer cancel()
	var err error
	args := append([]string{"up", "--listen", "127.0.0.1:8774", "--compute-driver", "libvirt", "--set", "compute.virt_type=qemu",
		"--set", "identity.bcrypt_cost=4", "--set", "quota.instances=50", "--set", "quota.cores=50", "--set", "compute.report_interval=2", "--set", "compute.shutdown_timeout=300",
		"--set", "compute.cpu_allocation_ratio=16", "--set", "compute.ram_allocation_ratio=4", "--set", "compute.disk_allocation_ratio=4", "--set", "console.spice=true"}, more...)
	if c.proc, err = c.prog.Start(ctx, args...); err != nil {
		t.Fatal(err)
	}
	for user, into := range map[string]**process.Client{"admin": &c.admin, "demo": &c.demo} {
		if *into, err = process.Login(ctx, c.proc.URL, c.prog.Dir, user); err != nil {
			t.Fatal(err)
		}
	}
}

// hostDown is what `make down` does after the program has ended.
func (c *cloud) hostDown(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, c.prog.Path, "host", "down", "--state-dir", c.prog.Dir).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("host down: %w: %s", err, out)
	}
	return string(out), nil
}

// newCloud starts a cloud and registers image, flavors, network, key and rules. It ends with the test.
func newCloud(t *testing.T) *cloud {
	t.Helper()
	dir := os.Getenv(apart.EnvDir)
	c := &cloud{prog: process.Program{Path: filepath.Join(dir, "kilonova"), Dir: filepath.Join(dir, "state")}}
	t.Cleanup(func() {
		if c.proc != nil {
			if err := c.proc.Stop(); err != nil {
				t.Error(err)
			}
			if t.Failed() {
				apart.More(t, "the program said", c.proc.Output(), 12000)
				apart.Evidence(t, "the program's last warnings", process.Troubles(c.proc.Output()), 10)
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), apart.Patience)
		defer cancel()
		if _, err := c.hostDown(ctx); err != nil {
			t.Error(err)
		}
	})
	outside(t)
	c.before = hostNetwork(t)
	c.start(t)
	var public string
	c.signer, public = apart.NewKey(t)
	c.ground.Image = apart.Upload(t, c.admin, map[string]any{"name": "guest", "disk_format": "qcow2", "container_format": "bare", "visibility": "public"}, apart.GuestImage(t))
	c.agent = apart.Upload(t, c.admin, map[string]any{"name": "guest-agent", "disk_format": "qcow2", "container_format": "bare", "visibility": "public",
		"hw_qemu_guest_agent": "yes", "os_require_quiesce": "yes"}, apart.GuestImage(t))
	c.rescue = apart.Upload(t, c.admin, map[string]any{"name": "guest-rescue", "disk_format": "qcow2", "container_format": "bare", "visibility": "public",
		"hw_rescue_bus": "scsi", "hw_rescue_device": "disk"}, apart.GuestImage(t))
	for i, into := range []*string{&c.ground.Flavor, &c.ground.Bigger} {
		var f struct{ Flavor process.Thing }
		apart.Must(t, c.admin, "POST", "compute", "/flavors", map[string]any{"flavor": map[string]any{"name": fmt.Sprintf("g%d", i), "vcpus": 1 + i, "ram": 144 + 112*i, "disk": 1 + i}}, &f)
		*into = f.Flavor.ID
	}
	c.ground.Network = c.network(t, "private-net", cidr)
	apart.Must(t, c.demo, "POST", "compute", "/os-keypairs", map[string]any{"keypair": map[string]any{"name": "k", "public_key": public, "type": "ssh"}}, nil)
	c.open = c.group(t, "open")
	c.rule(t, c.open, "icmp", 0)
	c.rule(t, c.open, "tcp", 22)
	return c
}

// The world outside is a namespace of its own, to which the host's default route leads. It knows no way back to guests.
const hostOutside, worldOutside = "198.19.0.1", "198.19.0.2"

func outside(t *testing.T) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "sh", "-ec", `mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns
ip netns add world
ip link add uplink0 type veth peer name host0 netns world
echo 1 > /proc/sys/net/ipv6/conf/uplink0/disable_ipv6
ip addr add `+hostOutside+`/24 dev uplink0 && ip link set uplink0 up && ip route add default via `+worldOutside+`
ip -n world addr add `+worldOutside+`/24 dev host0 && ip -n world link set host0 up`).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func (c *cloud) network(t *testing.T, name, cidr string) string {
	t.Helper()
	var n struct{ Network process.Thing }
	apart.Must(t, c.demo, "POST", "network", "/networks", map[string]any{"network": map[string]any{"name": name}}, &n)
	apart.Must(t, c.demo, "POST", "network", "/subnets", map[string]any{"subnet": map[string]any{"network_id": n.Network.ID, "ip_version": 4, "cidr": cidr}}, nil)
	return n.Network.ID
}

func (c *cloud) group(t *testing.T, name string) string {
	t.Helper()
	var g struct {
		Group process.Thing `json:"security_group"`
	}
	apart.Must(t, c.demo, "POST", "network", "/security-groups", map[string]any{"security_group": map[string]any{"name": name}}, &g)
	return g.Group.ID
}

// rule lets protocol in from everywhere; port 0 is for protocols without ports.
func (c *cloud) rule(t *testing.T, group, protocol string, port int) string {
	t.Helper()
	body := map[string]any{"security_group_id": group, "direction": "ingress", "ethertype": "IPv4", "protocol": protocol, "remote_ip_prefix": "0.0.0.0/0"}
	if port != 0 {
		body["port_range_min"], body["port_range_max"] = port, port
	}
	var r struct {
		Rule process.Thing `json:"security_group_rule"`
	}
	apart.Must(t, c.demo, "POST", "network", "/security-group-rules", map[string]any{"security_group_rule": body}, &r)
	return r.Rule.ID
}

// guest is a server whose machine runs.
type guest struct {
	*cloud
	id, name, addr, mac string
}

// boot asks for a server; more overrides its description. ready waits for the machine.
func (c *cloud) boot(t *testing.T, name string, more map[string]any) *guest {
	t.Helper()
	body := map[string]any{"name": name, "imageRef": c.ground.Image, "flavorRef": c.ground.Flavor, "key_name": "k", "networks": []any{map[string]string{"uuid": c.ground.Network}},
		"security_groups": []any{map[string]string{"name": "default"}, map[string]string{"name": "open"}}}
	for k, v := range more {
		body[k] = v
	}
	var s struct{ Server process.Thing }
	apart.Must(t, c.demo, "POST", "compute", "/servers", map[string]any{"server": body}, &s)
	g := &guest{cloud: c, id: s.Server.ID, name: name}
	t.Cleanup(func() {
		if t.Failed() {
			g.tell(t)
		}
	})
	return g
}

// tell logs what helps to understand a failure.
func (g *guest) tell(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	apart.TellServer(ctx, t, g.demo, g.name+" "+g.addr, g.id, g.proc)
	story, _ := exec.CommandContext(ctx, g.prog.Path, "explain", "server", g.id, "--state-dir", g.prog.Dir).CombinedOutput()
	apart.More(t, "its story", string(story), 6000)
}

// wait waits until the server has a status and learns its address.
func (g *guest) wait(t *testing.T, status string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), apart.Patience)
	defer cancel()
	if _, err := g.demo.WaitStatus(ctx, g.id, status); err != nil {
		t.Fatalf("%s: %v", g.name, err)
	}
	if g.addr != "" || status != "ACTIVE" {
		return
	}
	var d struct {
		Server struct {
			Addresses map[string][]struct {
				Addr    string
				Version int
				Mac     string `json:"OS-EXT-IPS-MAC:mac_addr"`
			}
		}
	}
	apart.Must(t, g.demo, "GET", "compute", "/servers/"+g.id, nil, &d)
	for _, list := range d.Server.Addresses {
		for _, a := range list {
			if a.Version == 4 {
				g.addr, g.mac = a.Addr, a.Mac
			}
		}
	}
	if g.addr == "" {
		t.Fatalf("%s has no address: %v", g.name, d)
	}
}

// ready waits until the server is ACTIVE and its machine has come up so far that a shell over SSH works. Once in a long while a machine under software emulation stands still for
// good between its firmware and its own system: one whose system has said nothing for so long is reset, once, and the log tells it.
func (g *guest) ready(t *testing.T) *guest {
	t.Helper()
	g.wait(t, "ACTIVE")
	late, reset := time.Now().Add(4*time.Minute), false
	apart.Eventually(t, fmt.Sprintf("%s at %s comes up", g.name, g.addr), func() (string, bool) {
		out, err := g.try("true", ssh.PublicKeys(g.signer))
		if err != nil && !reset && time.Now().After(late) {
			if said := g.consoleLog(t); !strings.Contains(said, "guest: ") {
				t.Logf("%s stands still before its system has begun, and is reset; its console: %s", g.name, apart.Tail(said, 600))
				reset = true
				g.act(t, "reboot", map[string]any{"type": "HARD"}, "ACTIVE")
			}
		}
		return fmt.Sprint(out, err), err == nil && out == ""
	})
	return g
}

// act asks for an action and, when status is given, waits for it.
func (g *guest) act(t *testing.T, action string, args any, status string) {
	t.Helper()
	apart.Must(t, g.demo, "POST", "compute", "/servers/"+g.id+"/action", map[string]any{action: args}, nil)
	if status != "" {
		g.wait(t, status)
	}
}

// delete deletes the server and waits until it is gone.
func (g *guest) delete(t *testing.T) {
	t.Helper()
	apart.Must(t, g.demo, "DELETE", "compute", "/servers/"+g.id, nil, nil)
	g.wait(t, "")
}

// consoleLog gives the whole console log.
func (g *guest) consoleLog(t *testing.T) string {
	t.Helper()
	var out struct{ Output string }
	apart.Must(t, g.demo, "POST", "compute", "/servers/"+g.id+"/action", map[string]any{"os-getConsoleOutput": map[string]any{}}, &out)
	return out.Output
}

// until runs a command in the guest until it ends well and prints want; the guest may not be reachable yet.
func (g *guest) until(t *testing.T, command, want string) {
	t.Helper()
	apart.Eventually(t, fmt.Sprintf("%s at %s: %q gives %q", g.name, g.addr, command, want), func() (string, bool) {
		out, err := g.try(command, ssh.PublicKeys(g.signer))
		return fmt.Sprint(out, err), err == nil && out == want
	})
}

// run runs a command in the guest and gives its output without the last line end. While the guest is not reached, as on a busy machine, it is tried again; a command's own
// failure is final.
func (g *guest) run(t *testing.T, command string) (out string) {
	t.Helper()
	var exit *ssh.ExitError
	apart.Eventually(t, fmt.Sprintf("%s at %s runs %q", g.name, g.addr, command), func() (string, bool) {
		var err error
		out, err = g.try(command, ssh.PublicKeys(g.signer))
		if errors.As(err, &exit) {
			t.Fatalf("%s: %s: %v\n%s", g.name, command, err, out)
		}
		return fmt.Sprint(out, err), err == nil
	})
	return out
}

// works runs a command in the guest until it ends well and gives its output: one that is lost on the way, such as a ping, may be sent again.
func (g *guest) works(t *testing.T, command string) (out string) {
	t.Helper()
	apart.Eventually(t, fmt.Sprintf("%s at %s: %q works", g.name, g.addr, command), func() (string, bool) {
		var err error
		out, err = g.try(command, ssh.PublicKeys(g.signer))
		return fmt.Sprint(out, err), err == nil
	})
	return out
}

// try runs a command as root once.
func (g *guest) try(command string, how ssh.AuthMethod) (string, error) {
	return apart.Shell(g.addr, "root", command, how)
}

// bootID tells one boot of the guest from another.
func (g *guest) bootID(t *testing.T) string {
	t.Helper()
	return g.run(t, "cat /proc/sys/kernel/random/boot_id")
}

// rebooted waits until the guest answers with another boot than before and gives it.
func (g *guest) rebooted(t *testing.T, before string) string {
	t.Helper()
	var now string
	apart.Eventually(t, g.name+" has booted again", func() (string, bool) {
		out, err := g.try("cat /proc/sys/kernel/random/boot_id", ssh.PublicKeys(g.signer))
		now = out
		return fmt.Sprint(out, err), err == nil && out != "" && out != before
	})
	return now
}

// qemu gives the process id of the guest's QEMU, 0 when there is none.
func (g *guest) qemu(t *testing.T) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil && bytes.Contains(b, []byte("qemu")) && bytes.Contains(b, []byte("\x00-uuid\x00"+g.id+"\x00")) {
			n, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			return n
		}
	}
	return 0
}

// pings tells whether one of three pings from the host is answered.
func pings(t *testing.T, addr string) bool {
	t.Helper()
	return exec.CommandContext(t.Context(), "ping", "-n", "-q", "-c", "3", "-i", "0.3", "-W", "2", addr).Run() == nil
}

// connects tells whether port 22 takes connections.
func connects(addr string) bool {
	c, err := net.DialTimeout("tcp", net.JoinHostPort(addr, "22"), 2*time.Second)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// reachable waits until ping and SSH connections both go, or both do not.
func (g *guest) reachable(t *testing.T, want bool, when string) {
	t.Helper()
	apart.Eventually(t, fmt.Sprintf("%s reachable=%v %s", g.name, want, when), func() (string, bool) {
		p, s := pings(t, g.addr), connects(g.addr)
		return fmt.Sprintf("ping %v, ssh %v", p, s), p == want && s == want
	})
}

func decode(t *testing.T, text string) (v map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

func script(lines string) string {
	return base64.StdEncoding.EncodeToString([]byte("#!/bin/sh\n" + lines))
}
