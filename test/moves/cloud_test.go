package moves_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"kilonova/test/apart"
	"kilonova/test/process"
)

// The control plane is at control; hosts are at .1, .2 and .3. Floating addresses lie among them.
const (
	control  = "192.0.2.254"
	private  = "198.18.64.0/24"
	six      = "2001:db8:64::/64" // guests make their own addresses there
	floating = "192.0.2.0/24"
)

// host is a compute host: a network and a host name of its own, in which its agent, libvirtd and guests run.
type host struct {
	c     *cloud
	name  string
	addr  string
	dir   string // state directory
	disks string // instances directory
	agent *process.Proc
}

// cloud is the control plane with its hosts and one user's things.
type cloud struct {
	binary string
	dir    string
	proc   *process.Proc
	admin  *process.Client
	hosts  map[string]*host
	signer ssh.Signer
	image  string
	flavor [2]string
	net    string
	ext    string
}

func sh(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", script).CombinedOutput() // also used when the test is over
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, script, out)
	}
	return strings.TrimSpace(string(out))
}

// newCloud starts the control plane and three hosts; the second and the third share their guests' files.
func newCloud(t *testing.T) *cloud {
	t.Helper()
	dir := os.Getenv(apart.EnvDir)
	c := &cloud{binary: filepath.Join(dir, "kilonova"), dir: filepath.Join(dir, "control"), hosts: map[string]*host{}}
	sh(t, `mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns
ip link add fabric type bridge && ip addr add `+control+`/24 dev fabric && ip link set fabric up`)
	ctx, cancel := context.WithTimeout(t.Context(), apart.Patience)
	defer cancel()
	t.Cleanup(func() {
		for _, h := range c.hosts {
			if t.Failed() && h.agent != nil {
				apart.More(t, "agent of "+h.name, h.agent.Output(), 6000)
				apart.Evidence(t, "the last warnings of the agent of "+h.name, process.Troubles(h.agent.Output()), 5)
			}
			h.kill(t)
		}
		if c.proc != nil {
			if err := c.proc.Stop(); err != nil {
				t.Error(err)
			}
			if t.Failed() {
				apart.More(t, "control plane", c.proc.Output(), 6000)
				apart.Evidence(t, "the last warnings of the control plane", process.Troubles(c.proc.Output()), 10)
			}
		}
	})
	var err error
	c.proc, err = process.Program{Path: c.binary, Dir: c.dir}.Start(ctx, "run", "identity", "image", "placement", "network", "compute-api", "conductor", "scheduler", "console", "metadata",
		"--listen", control+":8774", "--set", "bus.listen="+control+":4222", "--set", "identity.bcrypt_cost=4", "--set", "quota.instances=50", "--set", "quota.cores=50",
		"--set", "compute.report_interval=2", "--set", "compute.service_down_time=20", "--set", "compute.shutdown_timeout=300", "--set", "compute.allow_resize_to_same_host=false")
	if err != nil {
		t.Fatal(err)
	}
	for i, shared := range []string{"", "shared", "shared"} {
		h := &host{c: c, name: fmt.Sprintf("h%d", i+1), addr: fmt.Sprintf("192.0.2.%d", i+1)}
		h.dir = filepath.Join(dir, h.name)
		h.disks = filepath.Join(dir, shared+"disks")
		if shared == "" {
			h.disks = filepath.Join(dir, h.name+"disks")
		}
		c.hosts[h.name] = h
		h.boot(t)
	}
	if c.admin, err = process.Login(ctx, c.proc.URL, c.dir, "admin"); err != nil {
		t.Fatal(err)
	}
	c.admin.Version = "2.95"
	apart.Eventually(t, "the hosts are known", func() (string, bool) {
		var s struct {
			Services []struct{ Host, State string }
		}
		apart.Must(t, c.admin, "GET", "compute", "/os-services?binary=nova-compute", nil, &s)
		up := 0
		for _, x := range s.Services {
			if x.State == "up" {
				up++
			}
		}
		return fmt.Sprint(s), up == len(c.hosts)
	})
	c.furnish(t)
	return c
}

// procs are the processes that run.
func (c *cloud) procs() []*process.Proc {
	out := []*process.Proc{c.proc}
	for _, h := range c.hosts {
		if h.agent != nil {
			out = append(out, h.agent)
		}
	}
	return out
}

// boot gives the host its network and starts its agent, which starts libvirtd.
func (h *host) boot(t *testing.T) {
	t.Helper()
	sh(t, fmt.Sprintf(`ip netns add %[1]s
ip link add up-%[1]s type veth peer name eth0 netns %[1]s
ip link set up-%[1]s master fabric up
ip -n %[1]s link set lo up && ip -n %[1]s link set eth0 up && ip -n %[1]s addr add %[2]s/24 dev eth0 && ip -n %[1]s route add default via %[3]s`, h.name, h.addr, control))
	h.start(t)
}

func (h *host) start(t *testing.T) {
	t.Helper()
	secret := func(name string) string {
		return strings.TrimSpace(string(apart.ReadFile(t, filepath.Join(h.c.dir, "secrets", name))))
	}
	// The process becomes the agent: ip, unshare and the shell hand over to one another.
	script := filepath.Join(filepath.Dir(h.dir), "enter-"+h.name)
	text := fmt.Sprintf("#!/bin/sh\nexec ip netns exec %s unshare --uts --mount sh -c 'hostname %s && mkdir -p /run/libvirt && mount -t tmpfs tmpfs /run/libvirt && exec \"$@\"' sh %s \"$@\"\n",
		h.name, h.name, h.c.binary)
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), apart.Patience)
	defer cancel()
	var err error
	h.agent, err = process.Program{Path: script, Dir: h.dir}.Start(ctx, "agent", "--compute-driver", "libvirt", "--set", "compute.virt_type=qemu", "--set", "compute.my_ip="+h.addr,
		"--set", "compute.vnc_listen="+h.addr, "--set", "compute.instances_path="+h.disks, "--set", "bus.url=nats://"+control+":4222", "--set", "bus.token="+secret("bus_token"),
		"--set", "image.url=http://"+control+":8774/image", "--set", "identity.service_password="+secret("service_password"),
		"--set", "compute.report_interval=2", "--set", "compute.cpu_allocation_ratio=16", "--set", "compute.ram_allocation_ratio=4", "--set", "compute.disk_allocation_ratio=4")
	if err != nil {
		t.Fatal(err)
	}
}

// kill is a power cut: every process on the host ends at once, and its network goes.
func (h *host) kill(t *testing.T) {
	t.Helper()
	ns, err := os.Stat(filepath.Join("/run/netns", h.name))
	if err != nil {
		return
	}
	for end := time.Now().Add(apart.Patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		left := 0
		procs, _ := filepath.Glob("/proc/[0-9]*")
		for _, p := range procs {
			if in, err := os.Stat(filepath.Join(p, "ns", "net")); err == nil && os.SameFile(in, ns) {
				var pid int
				if _, err := fmt.Sscan(filepath.Base(p), &pid); err == nil && syscall.Kill(pid, syscall.SIGKILL) == nil {
					left++
				}
			}
		}
		if left == 0 {
			break
		}
	}
	if h.agent != nil {
		_ = h.agent.Kill() // it is gone; this waits for it
		h.agent = nil
	}
	out, err := exec.Command("sh", "-c", fmt.Sprintf("ip link del up-%s; ip netns del %s", h.name, h.name)).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v: %s", h.name, err, out)
	}
}

// virsh asks the host's libvirtd.
func (h *host) virsh(t *testing.T, args string) string {
	t.Helper()
	return sh(t, fmt.Sprintf("virsh -q -c 'qemu+unix:///system?socket=%s' %s", filepath.Join(h.dir, "libvirt/run/libvirt-sock"), args))
}

// on runs a script in the host's network.
func (h *host) on(t *testing.T, script string) string {
	t.Helper()
	return sh(t, "ip netns exec "+h.name+" sh -ec '"+script+"'")
}

// furnish registers image, flavors, networks, key and rules.
func (c *cloud) furnish(t *testing.T) {
	t.Helper()
	var public string
	c.signer, public = apart.NewKey(t)
	c.image = apart.Upload(t, c.admin, map[string]any{"name": "guest", "disk_format": "qcow2", "container_format": "bare"}, apart.GuestImage(t))
	for i := range c.flavor {
		var f struct{ Flavor process.Thing }
		apart.Must(t, c.admin, "POST", "compute", "/flavors", map[string]any{"flavor": map[string]any{"name": fmt.Sprintf("m%d", i), "vcpus": 1, "ram": 144 + 48*i, "disk": 1}}, &f)
		c.flavor[i] = f.Flavor.ID
	}
	network := func(name string, more map[string]any, subnet map[string]any) (string, string) {
		var n struct{ Network process.Thing }
		more["name"] = name
		apart.Must(t, c.admin, "POST", "network", "/networks", map[string]any{"network": more}, &n)
		var s struct{ Subnet process.Thing }
		subnet["network_id"], subnet["ip_version"] = n.Network.ID, 4
		apart.Must(t, c.admin, "POST", "network", "/subnets", map[string]any{"subnet": subnet}, &s)
		return n.Network.ID, s.Subnet.ID
	}
	var sub string
	c.net, sub = network("private", map[string]any{}, map[string]any{"cidr": private})
	c.ext, _ = network("public", map[string]any{"router:external": true}, map[string]any{"cidr": floating, "gateway_ip": control, "enable_dhcp": false,
		"allocation_pools": []any{map[string]string{"start": "192.0.2.100", "end": "192.0.2.150"}}})
	var s struct{ Subnet process.Thing }
	apart.Must(t, c.admin, "POST", "network", "/subnets", map[string]any{"subnet": map[string]any{"network_id": c.net, "ip_version": 6, "cidr": six, "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}}, &s)
	var r struct{ Router process.Thing }
	apart.Must(t, c.admin, "POST", "network", "/routers", map[string]any{"router": map[string]any{"name": "r", "external_gateway_info": map[string]any{"network_id": c.ext}}}, &r)
	for _, id := range []string{sub, s.Subnet.ID} {
		apart.Must(t, c.admin, "PUT", "network", "/routers/"+r.Router.ID+"/add_router_interface", map[string]any{"subnet_id": id}, nil)
	}
	apart.Must(t, c.admin, "POST", "compute", "/os-keypairs", map[string]any{"keypair": map[string]any{"name": "k", "public_key": public, "type": "ssh"}}, nil)
	var g struct {
		Group process.Thing `json:"security_group"`
	}
	apart.Must(t, c.admin, "POST", "network", "/security-groups", map[string]any{"security_group": map[string]any{"name": "open"}}, &g)
	for _, version := range []string{"IPv4", "IPv6"} {
		for protocol, port := range map[string]any{"icmp": nil, "tcp": 22} {
			rule := map[string]any{"security_group_id": g.Group.ID, "direction": "ingress", "ethertype": version, "protocol": protocol, "port_range_min": port, "port_range_max": port}
			apart.Must(t, c.admin, "POST", "network", "/security-group-rules", map[string]any{"security_group_rule": rule}, nil)
		}
	}
}

func running(pattern string) bool {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte("qemu")) && bytes.Contains(b, []byte(pattern)) {
			return true
		}
	}
	return false
}
