package libvirt

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"kilonova/internal/fault"
)

// searchPath is where programs are looked for, whatever the agent's own environment says.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func lookPath(name string) (string, error) {
	for _, dir := range filepath.SplitList(searchPath) {
		p := filepath.Join(dir, name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}

// Limits of qemu-img: it works on what tenants upload. The address space is what a conversion with 16 threads' stacks and its buffers needs.
const (
	imgAddressSpace = "4294967296" // bytes
	imgCPUSeconds   = "1800"
	imgTime         = time.Hour
)

// qemuImg runs qemu-img under limits on memory, processor and time. Only files that the inspector passed or that the driver made may be named.
func qemuImg(ctx context.Context, args ...string) ([]byte, error) {
	prlimit, err := lookPath("prlimit")
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "The program prlimit is not installed on the host.")
	}
	img, err := lookPath("qemu-img")
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "The program qemu-img is not installed on the host.")
	}
	ctx, cancel := context.WithTimeout(ctx, imgTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, prlimit, append([]string{"--as=" + imgAddressSpace, "--cpu=" + imgCPUSeconds, img}, args...)...)
	cmd.Env = []string{"PATH=" + searchPath, "LC_ALL=C"}
	cmd.Dir = "/"
	cmd.WaitDelay = 10 * time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		text := strings.TrimSpace(errs.String())
		err = fmt.Errorf("qemu-img %s: %w: %s", args[0], err, text)
		if strings.Contains(text, "No space left") {
			return nil, fault.Wrap(err, fault.Unavailable, "The host's disk is full.")
		}
		return nil, err
	}
	return out.Bytes(), nil
}

// kvmWorks tells whether a machine starts under KVM. That the device is there does not say so: nested virtualization may lack what QEMU needs. A machine
// without a disk is started and told to quit.
func kvmWorks(ctx context.Context, emulator string) bool {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, emulator, "-accel", "kvm", "-cpu", "host", "-m", "16", "-nodefaults", "-display", "none", "-qmp", "stdio")
	cmd.Env = []string{"PATH=" + searchPath, "LC_ALL=C"}
	cmd.Dir = "/"
	cmd.WaitDelay = 5 * time.Second
	cmd.Stdin = strings.NewReader(`{"execute":"qmp_capabilities"}` + "\n" + `{"execute":"quit"}` + "\n")
	return cmd.Run() == nil
}
