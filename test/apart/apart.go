// Package apart runs a suite of tests in network, mount and process namespaces of its own, where real guests can be made and moved: TestMain of such a suite calls Main.
package apart

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"kilonova/test/process"
)

// Where the inner run finds what the outer one made.
const (
	EnvDir   = "KILONOVA_APART_DIR"   // working directory; the program is in it
	EnvImage = "KILONOVA_APART_IMAGE" // the guest image
)

// largePages is a setting of the whole machine, which tests change.
const largePages = "/proc/sys/vm/nr_hugepages"

// inside becomes the first process of the namespaces. It has no network but loopback, sees no libvirt of the machine, and waits for every process that
// loses its parent. The machine's control groups are hidden: two libvirts that share them mistake each other's guests for their own.
const inside = `ip link set lo up
for d in /sys/fs/cgroup/* /sys/fs/cgroup; do mountpoint -q "$d" && umount -l "$d"; done
mkdir -p /run/libvirt && mount -t tmpfs tmpfs /run/libvirt
mount -t tmpfs tmpfs /mnt && mkdir /mnt/pages && mount -t hugetlbfs hugetlbfs /mnt/pages
"$@" &
wait $!`

// Main runs the tests inside the namespaces and ends the process. Without KILONOVA_GUESTS=1, root, or one of the programs, which every suite needs or this one, it says so and
// runs nothing. prefix names the working directory.
func Main(m *testing.M, prefix string, programs ...string) {
	if os.Getenv(EnvDir) != "" {
		os.Exit(m.Run())
	}
	if why := missing(programs); why != "" {
		fmt.Println("SKIP: real guests:", why)
		return
	}
	code, err := outer(prefix)
	if err != nil {
		fmt.Println("FAIL: real guests:", err)
		code = 1
	}
	os.Exit(code)
}

// missing says why real guests cannot be run, "" when they can.
func missing(more []string) string {
	if os.Getenv("KILONOVA_GUESTS") != "1" {
		return "they run when KILONOVA_GUESTS=1"
	}
	if os.Geteuid() != 0 {
		return "they need root"
	}
	for _, p := range append(more, "libvirtd", "qemu-system-x86_64", "qemu-img", "nft", "ip", "ping", "unshare", "mountpoint") {
		if _, err := exec.LookPath(p); err != nil {
			return p + " is not installed"
		}
	}
	return ""
}

// program puts the program into dir: the one that KILONOVA_BINARY names, or a new build.
func program(ctx context.Context, dir string) error {
	built := os.Getenv("KILONOVA_BINARY")
	if built == "" {
		_, err := process.Build(ctx, dir)
		return err
	}
	b, err := os.ReadFile(built)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "kilonova"), b, 0o755)
}

// outer builds the program and the guest image, which may need the network, then runs the tests in new namespaces.
func outer(prefix string) (code int, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root, err := filepath.Abs("../..")
	if err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := program(ctx, dir); err != nil {
		return 1, err
	}
	images := os.Getenv("KILONOVA_GUEST_DIR")
	if images == "" {
		images = filepath.Join(os.TempDir(), "kilonova-guest")
	}
	if out, err := exec.CommandContext(ctx, filepath.Join(root, "test/guest/build.sh"), images).CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build the guest image: %w: %s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	flag.Parse()
	args := append([]string{"--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private", "sh", "-c", inside, "sh", self}, os.Args[1:]...)
	if t, ok := flag.Lookup("test.timeout").Value.(flag.Getter); ok {
		if limit, _ := t.Get().(time.Duration); limit > 0 { // the tests are to end before this process does, which tells what they said
			args = append(args, "-test.timeout="+(limit-limit/20).String())
		}
	}
	cmd := exec.CommandContext(ctx, "unshare", args...)
	cmd.Env = append(os.Environ(), EnvDir+"="+dir, EnvImage+"="+filepath.Join(images, "guest.qcow2"))
	told := &retelling{out: os.Stdout}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, told, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	pages, _ := os.ReadFile(largePages)
	err = cmd.Run()
	if now, _ := os.ReadFile(largePages); string(now) != string(pages) { // tests that were cut off did not put it back
		if err := os.WriteFile(largePages, pages, 0o644); err != nil {
			fmt.Println("the machine's large pages were not given back:", err)
		}
	}
	told.tell()
	if cmd.ProcessState != nil && cmd.ProcessState.Exited() {
		return cmd.ProcessState.ExitCode(), nil
	}
	return 1, err
}
