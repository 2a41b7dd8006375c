// Package disk makes and reads the files that are guests' disks, and runs the host's programs for it under limits. It trusts no header that a tenant
// may have written: formats are named, never probed, and an image that refers to other files is refused before any program opens it.
package disk

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

// ProgramPath is where programs are looked for, whatever the agent's own environment says.
const ProgramPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// FindProgram gives the path of a program of the host.
func FindProgram(name string) (string, error) {
	for _, dir := range filepath.SplitList(ProgramPath) {
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

// Img runs qemu-img under limits on memory, processor and time. Only files that the inspector passed or that the driver made may be named.
func Img(ctx context.Context, args ...string) ([]byte, error) {
	prlimit, err := FindProgram("prlimit")
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "The program prlimit is not installed on the host.")
	}
	img, err := FindProgram("qemu-img")
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "The program qemu-img is not installed on the host.")
	}
	ctx, cancel := context.WithTimeout(ctx, imgTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, prlimit, append([]string{"--as=" + imgAddressSpace, "--cpu=" + imgCPUSeconds, img}, args...)...)
	cmd.Env = []string{"PATH=" + ProgramPath, "LC_ALL=C"}
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
