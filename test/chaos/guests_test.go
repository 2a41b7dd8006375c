package chaos_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"kilonova/test/process"
)

// Where the test inside the namespaces finds what the outer one made.
const (
	envDir   = "KILONOVA_CHAOS_DIR"
	envImage = "KILONOVA_CHAOS_IMAGE"
)

// inside runs as the first process of new namespaces: no network but loopback, no libvirt of the machine, no control groups to mistake for one's own.
const inside = `ip link set lo up
for d in /sys/fs/cgroup/* /sys/fs/cgroup; do mountpoint -q "$d" && umount -l "$d"; done
mkdir -p /run/libvirt && mount -t tmpfs tmpfs /run/libvirt
"$@" &
wait $!`

// TestRealGuests kills only agents, and then only conductors, while QEMU guests are being made: guests that run are untouched, half-made ones are completed or
// removed.
func TestRealGuests(t *testing.T) {
	if os.Getenv(envDir) != "" {
		t.Skip("this is the run inside the namespaces")
	}
	if !slow() {
		t.Skip("real guests are made when KILONOVA_SLOW=1")
	}
	if os.Geteuid() != 0 {
		t.Skip("real guests need root")
	}
	for _, p := range []string{"libvirtd", "qemu-system-x86_64", "qemu-img", "nft", "ip", "ping", "unshare", "mountpoint"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip(p + " is not installed")
		}
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "kc") // short: sockets have their place in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Symlink(program(t).Path, filepath.Join(dir, "kilonova")); err != nil {
		t.Fatal(err)
	}
	images := os.Getenv("KILONOVA_GUEST_DIR")
	if images == "" {
		images = filepath.Join(os.TempDir(), "kilonova-guest")
	}
	if out, err := exec.CommandContext(t.Context(), filepath.Join(root, "test/guest/build.sh"), images).CombinedOutput(); err != nil {
		t.Fatalf("build the guest image: %v: %s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private",
		"sh", "-c", inside, "sh", self, "-test.run", "^TestInsideNamespaces$", "-test.v", "-test.timeout", "50m")
	cmd.Env = append(os.Environ(), envDir+"="+dir, envImage+"="+filepath.Join(images, "guest.qcow2"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestInsideNamespaces")) {
		t.Errorf("inside the namespaces: %v", err)
	}
}

// standing is a guest that must not notice anything.
type standing struct {
	id, addr, machine string // machine: process id and start time of its QEMU
	ping              *exec.Cmd
	said              bytes.Buffer
}

func TestInsideNamespaces(t *testing.T) {
	dir := os.Getenv(envDir)
	if dir == "" {
		t.Skip("TestRealGuests runs this")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 45*time.Minute)
	defer cancel()
	seed := seeded(t)
	f := realFleet(t, ctx, process.Program{Path: filepath.Join(dir, "kilonova"), Dir: filepath.Join(dir, "state")})
	ground := f.realGround()
	f.waitHosts(1)
	var stand []*standing
	for i := range 2 {
		stand = append(stand, f.stand(fmt.Sprintf("standing-%d", i), ground))
	}
	led := newLedger()
	began, at := time.Now(), []time.Time{}
	for round, victim := range []string{"agent", "conductor"} {
		s := &storm{ledger: led, ground: ground, flavors: []string{ground.Flavor}, bigger: []string{ground.Bigger}, seed: seed + uint64(round), pause: 700 * time.Millisecond,
			name: victim, deletes: 8, moves: map[string][]string{
				"ACTIVE": {"reboot-hard", "pause", "os-stop", "createImage", "resize"}, "PAUSED": {"unpause"}, "SHUTOFF": {"os-start"},
				"VERIFY_RESIZE": {"confirmResize", "revertResize"}}}
		stormCtx, calm := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() { defer close(done); s.run(stormCtx, 3, func() *process.Client { return sameSession(f.admin) }) }()
		rnd := rand.New(rand.NewPCG(seed, uint64(round)<<32))
		for range times(t, 12, 12) {
			s.works(ctx, t, 1)
			time.Sleep(time.Duration(300+rnd.IntN(5000)) * time.Millisecond)
			at = append(at, time.Now())
			f.kill(victim)
			f.start(victim)
		}
		time.Sleep(time.Second)
		calm()
		<-done
		for _, g := range stand {
			g.untouched(t, "after only the "+victim+" was killed")
		}
	}
	stormed := time.Since(began)
	j := &judge{t: t, prog: f.prog, config: []string{"--config", f.config}, admin: f.admin, ledger: led, ground: ground}
	ops := j.settle(ctx, patience)
	j.healthy(ctx, patience)
	j.all(ctx, ops)
	hit, inside := struck(ops, at)
	t.Logf("%d kills, %d of them inside %d operations; storm %s; %d operations (%s)%s", len(at), hit, inside, stormed.Round(time.Second), len(ops), states(ops), led.summary())
	for _, g := range stand {
		g.untouched(t, "at the end")
		g.answered(t)
	}
	if t.Failed() {
		f.keep()
	}
	j.clear(ctx)
	if n := machines(t); len(n) != 0 {
		t.Errorf("machines are left: %v", n)
	}
	if left, err := filepath.Glob(filepath.Join(f.prog.Dir, "instances", "guests", "*")); err != nil || len(left) != 0 {
		t.Errorf("disks are left: %v %v", left, err)
	}
	if out, err := exec.CommandContext(ctx, "ip", "-o", "link").Output(); err != nil || bytes.Contains(out, []byte(": tap")) {
		t.Errorf("taps are left: %v\n%s", err, out)
	}
}

// realFleet is a cloud with one host of real guests: services, conductor and agent are processes of their own.
func realFleet(t *testing.T, ctx context.Context, prog process.Program) *fleet {
	t.Helper()
	f := &fleet{t: t, ctx: ctx, prog: prog, config: filepath.Join(t.TempDir(), "kilonova.conf"), args: map[string][]string{}, procs: map[string]*process.Proc{}}
	level := "info"
	if os.Getenv("KILONOVA_KEEP") != "" {
		level = "debug"
	}
	text := "[DEFAULT]\nlog_level = " + level + "\n[api]\npublic_url = http://127.0.0.1:8774\n[bus]\nurl = nats://127.0.0.1:4222\n[compute]\nhost = real\ndriver = libvirt\nvirt_type = qemu\n" +
		"report_interval = 1\nservice_down_time = 60\nshutdown_timeout = 2\nram_allocation_ratio = 8\ndisk_allocation_ratio = 8\n[identity]\nbcrypt_cost = 4\n[quota]\ninstances = 6\n"
	if err := os.WriteFile(f.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.stop()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		if out, err := exec.CommandContext(ctx, prog.Path, "host", "down", "--config", f.config, "--state-dir", prog.Dir).CombinedOutput(); err != nil {
			t.Errorf("host down: %v: %s", err, out)
		}
	})
	f.add("base", "run", "identity", "image", "placement", "network", "compute-api", "--listen", "127.0.0.1:8774", "--set", "bus.url=", "--set", "bus.listen=127.0.0.1:4222")
	f.add("conductor", "run", "conductor", "scheduler")
	f.add("agent", "agent", "--set", "image.url=http://127.0.0.1:8774/image")
	var err error
	if f.admin, err = process.Login(ctx, "http://127.0.0.1:8774", prog.Dir, "admin"); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fleet) must(method, service, path string, body, out any) {
	f.t.Helper()
	if _, _, err := f.admin.Do(f.ctx, method, service, path, body, out); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) realGround() (g process.Ground) {
	f.t.Helper()
	data, err := os.ReadFile(os.Getenv(envImage))
	if err != nil {
		f.t.Fatal(err)
	}
	var img process.Thing
	f.must("POST", "image", "/images", map[string]any{"name": "guest", "disk_format": "qcow2", "container_format": "bare", "visibility": "public"}, &img)
	f.must("PUT", "image", "/images/"+img.ID+"/file", data, nil)
	g.Image = img.ID
	for i, into := range []*string{&g.Flavor, &g.Bigger} {
		var fl struct{ Flavor process.Thing }
		f.must("POST", "compute", "/flavors", map[string]any{"flavor": map[string]any{"name": fmt.Sprintf("g%d", i), "vcpus": 1, "ram": 144 + 16*i, "disk": 1}}, &fl)
		*into = fl.Flavor.ID
	}
	var n struct{ Network process.Thing }
	f.must("POST", "network", "/networks", map[string]any{"network": map[string]any{"name": "private-net"}}, &n)
	f.must("POST", "network", "/subnets", map[string]any{"subnet": map[string]any{"network_id": n.Network.ID, "ip_version": 4, "cidr": "198.18.80.0/24"}}, nil)
	g.Network = n.Network.ID
	var sg struct {
		Group process.Thing `json:"security_group"`
	}
	f.must("POST", "network", "/security-groups", map[string]any{"security_group": map[string]any{"name": "open"}}, &sg)
	f.must("POST", "network", "/security-group-rules", map[string]any{"security_group_rule": map[string]any{"security_group_id": sg.Group.ID, "direction": "ingress",
		"ethertype": "IPv4", "protocol": "icmp", "remote_ip_prefix": "0.0.0.0/0"}}, nil)
	return g
}

// stand boots a guest and pings it from now on.
func (f *fleet) stand(name string, g process.Ground) *standing {
	f.t.Helper()
	var doc struct{ Server process.Thing }
	f.must(http.MethodPost, "compute", "/servers", map[string]any{"server": map[string]any{"name": name, "imageRef": g.Image, "flavorRef": g.Flavor,
		"networks": []any{map[string]string{"uuid": g.Network}}, "security_groups": []any{map[string]string{"name": "open"}}}}, &doc)
	s := &standing{id: doc.Server.ID}
	if _, err := f.admin.WaitStatus(f.ctx, s.id, "ACTIVE"); err != nil {
		f.t.Fatal(err)
	}
	var shown struct {
		Server struct {
			Addresses map[string][]struct{ Addr string }
		}
	}
	f.must(http.MethodGet, "compute", "/servers/"+s.id, nil, &shown)
	for _, list := range shown.Server.Addresses {
		s.addr = list[0].Addr
	}
	for {
		if err := exec.CommandContext(f.ctx, "ping", "-c", "1", "-W", "1", s.addr).Run(); err == nil {
			break
		}
		if f.ctx.Err() != nil {
			f.t.Fatalf("%s at %s does not answer", name, s.addr)
		}
		wait(f.ctx, 500*time.Millisecond)
	}
	s.machine = machines(f.t)[s.id]
	if s.machine == "" {
		f.t.Fatalf("no machine of %s was found", name)
	}
	s.ping = exec.Command("ping", "-i", "0.5", "-W", "5", s.addr)
	s.ping.Stdout, s.ping.Stderr = &s.said, &s.said
	s.ping.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.ping.Start(); err != nil {
		f.t.Fatal(err)
	}
	return s
}

func (s *standing) untouched(t *testing.T, when string) {
	t.Helper()
	if now := machines(t)[s.id]; now != s.machine {
		t.Errorf("%s the machine of %s is %q; it was %q", when, s.id, now, s.machine)
	}
}

// answered ends the pings and demands that the guest answered all along. An emulated machine on a busy host may be late; it may not be away.
func (s *standing) answered(t *testing.T) {
	t.Helper()
	if err := s.ping.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = s.ping.Wait() // its result is in what it said
	m := regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`).FindStringSubmatch(s.said.String())
	if m == nil {
		t.Fatalf("ping said %s", s.said.String())
	}
	sent, _ := strconv.Atoi(m[1])
	got, _ := strconv.Atoi(m[2])
	t.Logf("the guest at %s answered %d of %d pings", s.addr, got, sent)
	if sent < 20 || got*100 < sent*97 {
		t.Errorf("the guest at %s answered only %d of %d pings", s.addr, got, sent)
	}
}

// machines gives the QEMU processes by server: process id and start time.
func machines(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	uuid := regexp.MustCompile(`-uuid\x00([0-9a-f-]{36})`)
	for _, d := range dirs {
		line, err := os.ReadFile(filepath.Join(d, "cmdline"))
		if err != nil || !strings.Contains(string(line), "qemu-system") {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(d, "stat"))
		m := uuid.FindSubmatch(line)
		if err != nil || m == nil {
			continue
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		if fields := strings.Fields(rest); len(fields) > 19 && fields[0] != "Z" {
			out[string(m[1])] = filepath.Base(d) + " since " + fields[19]
		}
	}
	return out
}
