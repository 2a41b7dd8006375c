package libvirt_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/libvirt"
	"kilonova/internal/compute/virt/libvirt/daemon"
	"kilonova/internal/compute/virt/libvirt/rpc"
	"kilonova/internal/compute/virt/virttest"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/network"
)

// Booting under emulation takes 5 to 25 seconds on an idle machine; others may work on this one.
const patience = 4 * time.Minute

// host is one libvirtd of a test's own with what a driver needs.
type host struct {
	*daemon.Daemon
	dir string
	cfg libvirt.Config
}

// image gives the guest image under a name of the host's own: the shared one may be built anew while guests stand on it.
func (h *host) image(t *testing.T) string {
	t.Helper()
	built, err := builtImage()
	if err != nil {
		t.Skipf("the guest image cannot be built here: %v", err)
	}
	own := filepath.Join(h.dir, "guest.qcow2")
	if _, err := os.Stat(own); err == nil {
		return own
	}
	if os.Link(built, own) != nil { // on another file system
		b, err := os.ReadFile(built)
		if err == nil {
			err = os.WriteFile(own, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return own
}

// builtImage builds the guest image once for all tests, or finds it built.
var builtImage = sync.OnceValues(func() (string, error) {
	if os.Getenv(envInside) != "" {
		if image := os.Getenv(envImage); image != "" {
			return image, nil
		}
		return "", errors.New("building it failed")
	}
	root, err := filepath.Abs("../../../../")
	if err != nil {
		return "", err
	}
	out := shared("")
	cmd := exec.Command("sh", filepath.Join(root, "test/guest/build.sh"), out)
	cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, text)
	}
	return filepath.Join(out, "guest.qcow2"), nil
})

// shared names a file that runs of the tests share; KILONOVA_GUEST_DIR says where.
func shared(name string) string {
	dir := os.Getenv("KILONOVA_GUEST_DIR")
	if dir == "" {
		dir = "/tmp/kilonova-guest" // TMPDIR is a run's own
	}
	return filepath.Join(dir, name)
}

// startHost starts a daemon that ends with the test.
func startHost(t *testing.T, c daemon.Config) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("starting libvirtd needs root")
	}
	for _, p := range programs() {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed", p)
		}
	}
	dir, err := os.MkdirTemp("", "kn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c.Dir = filepath.Join(dir, "libvirt")
	// libvirt asks QEMU for some seconds what it can do; the answer is kept between runs, and libvirt itself judges whether it is still right.
	asked, known := filepath.Join(c.Dir, "cache/qemu/capabilities"), shared("capabilities")
	copyXML(known, asked)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	d, err := daemon.Start(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{Daemon: d, dir: dir, cfg: libvirt.Config{Socket: d.Socket(), InstancesDir: filepath.Join(dir, "instances"), VirtType: "qemu", MemoryStats: 10 * time.Second}}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		h.empty(ctx, t)
		if err := d.Stop(ctx); err != nil {
			t.Errorf("stop libvirtd: %v", err)
		}
		copyXML(asked, known)
	})
	return h
}

func copyXML(from, to string) {
	files, _ := filepath.Glob(from + "/*.xml")
	if len(files) == 0 || os.MkdirAll(to, 0o755) != nil {
		return
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil {
			_ = os.WriteFile(filepath.Join(to, filepath.Base(f)), b, 0o600)
		}
	}
}

// empty destroys every guest of the daemon; there should be none.
func (h *host) empty(ctx context.Context, t *testing.T) {
	c, err := rpc.Open(ctx, rpc.Options{Address: h.Socket()})
	if err != nil {
		return
	}
	defer c.Close()
	all, _ := c.Domains(ctx, rpc.ListActive)
	for _, dom := range all {
		t.Errorf("guest %s was left running", dom.Name)
		_ = c.Destroy(ctx, dom, 0)
	}
}

// open opens a driver that is closed when the test ends.
func (h *host) open(t *testing.T) *libvirt.Driver {
	t.Helper()
	d := h.reopen(t)
	t.Cleanup(func() { d.Close() })
	return d
}

func (h *host) reopen(t *testing.T) *libvirt.Driver {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	d, err := libvirt.New(ctx, h.cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// client speaks to the daemon behind the driver's back.
func (h *host) client(t *testing.T) *rpc.Client {
	t.Helper()
	c, err := rpc.Open(t.Context(), rpc.Options{Address: h.Socket()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func domainOf(t *testing.T, c *rpc.Client, guest string) rpc.Domain {
	t.Helper()
	all, err := c.Domains(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if d.UUID.String() == guest {
			return d
		}
	}
	t.Fatalf("no domain %s", guest)
	return rpc.Domain{}
}

// shell runs a command in the guest through its agent and gives its output; it waits for an agent that does not answer yet.
func shell(t *testing.T, c *rpc.Client, guest, command string) string {
	t.Helper()
	dom := domainOf(t, c, guest)
	var last error
	for end := time.Now().Add(patience); time.Now().Before(end) && t.Context().Err() == nil; time.Sleep(250 * time.Millisecond) {
		out, err := tryShell(t.Context(), c, dom, command)
		if err == nil {
			return out
		}
		if last = err; !errors.Is(err, fault.Unavailable) {
			break
		}
	}
	t.Fatalf("guest %s: %s: %v", guest, command, last)
	return ""
}

func tryShell(ctx context.Context, c *rpc.Client, dom rpc.Domain, command string) (string, error) {
	ask := func(execute string, args map[string]any) (map[string]any, error) {
		b, _ := json.Marshal(map[string]any{"execute": execute, "arguments": args})
		text, err := c.AgentCommand(ctx, dom, string(b), 10)
		var r struct {
			Return map[string]any `json:"return"`
		}
		if err == nil {
			err = json.Unmarshal([]byte(text), &r)
		}
		return r.Return, err
	}
	r, err := ask("guest-exec", map[string]any{"path": "/bin/sh", "arg": []string{"-c", command}, "capture-output": true})
	if err != nil {
		return "", err
	}
	pid := r["pid"]
	for {
		if r, err = ask("guest-exec-status", map[string]any{"pid": pid}); err != nil {
			return "", err
		}
		if done, _ := r["exited"].(bool); done {
			data, _ := r["out-data"].(string)
			out, err := base64.StdEncoding.DecodeString(data)
			return string(out), err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// spec makes the spec of a small guest.
func spec(image string) *virt.Spec {
	n := id.UUID()
	return &virt.Spec{ID: n, Name: "instance-" + n[:8], Display: "a <guest> & more", VCPUs: 1, MemoryMB: 160, RootGB: 1, FlavorName: "m1.tiny",
		ImageID: id.UUID(), BaseImage: image, BaseFormat: "qcow2"}
}

// harness makes the suite's harness on a host.
func (h *host) harness(t *testing.T) virttest.Harness {
	image := h.image(t)
	// The client that looks into guests goes where they go: to the daemon that has them now.
	c := h.client(t)
	return virttest.Harness{
		Driver: h.open(t),
		Reopen: func(t *testing.T) virt.Driver { return h.reopen(t) },
		Spec:   func(*testing.T) *virt.Spec { return spec(image) },
		Ready: func(t *testing.T, guest string) {
			for end := time.Now().Add(patience); ; time.Sleep(250 * time.Millisecond) {
				if shell(t, c, guest, "pidof dropbear") != "" {
					return
				}
				if time.Now().After(end) {
					t.Fatal("the guest did not become ready")
				}
			}
		},
		Write: func(t *testing.T, guest, path, text string) {
			shell(t, c, guest, fmt.Sprintf("printf %%s '%s' > %s; sync", text, path))
		},
		Read: func(t *testing.T, guest, path string) string { return shell(t, c, guest, "cat "+path+" 2>/dev/null") },
		Kill: func(t *testing.T, guest string) {
			if err := c.Destroy(t.Context(), domainOf(t, c, guest), 0); err != nil {
				t.Fatal(err)
			}
		},
		Devices: func(t *testing.T, guest string) (int, int) {
			n, k, _ := strings.Cut(strings.TrimSpace(shell(t, c, guest, "ls /sys/class/net | grep -vc '^lo$'; ls /sys/block | grep -c '^[vs]d'")), "\n")
			nics, _ := strconv.Atoi(n)
			disks, _ := strconv.Atoi(k)
			return nics, disks
		},
		VIF: func(t *testing.T) network.VIF {
			n := id.UUID()
			return network.VIF{PortID: n, MAC: "fa:16:3e:" + n[:2] + ":" + n[2:4] + ":" + n[4:6], Bridge: bridge(t), Tap: "tap" + n[:11], MTU: 1400}
		},
		Volume: func(t *testing.T) virt.Disk {
			n := id.UUID()
			path := filepath.Join(h.dir, "volume-"+n)
			if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
				t.Fatal(err)
			}
			return virt.Disk{VolumeID: n, Device: "/dev/vdb", BootIndex: -1, Serial: n,
				Connection: map[string]any{"driver_volume_type": "local", "data": map[string]any{"device_path": path}}}
		},
		RealFiles: true, Limit: patience,
	}
}

// bridge makes a bridge that goes away with the test.
func bridge(t *testing.T) string {
	name := "knbr" + id.Hex()[:8]
	if out, err := exec.Command("ip", "link", "add", name, "type", "bridge").CombinedOutput(); err != nil {
		t.Skipf("no bridge can be made here: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", name).Run() })
	if out, err := exec.Command("ip", "link", "set", name, "up").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return name
}

// programs are what a daemon and its guests need.
func programs() []string { return daemon.Programs() }

// booting skips tests that wait for guests to boot, unless they are asked for.
func booting(t *testing.T) {
	t.Helper()
	if os.Getenv("KILONOVA_GUESTS") != "1" && os.Getenv("KILONOVA_SLOW") != "1" {
		t.Skip("waits for guests to boot under emulation; runs when KILONOVA_GUESTS=1")
	}
}

func TestSuite(t *testing.T) {
	booting(t)
	t.Parallel()
	h := startHost(t, daemon.Config{})
	virttest.Run(t, h.harness)
}

func TestSuiteUnbooted(t *testing.T) {
	t.Parallel()
	h := startHost(t, daemon.Config{})
	virttest.RunUnbooted(t, h.harness)
}
