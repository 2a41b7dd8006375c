package libvirt

import (
	"context"
	"os/exec"
	"strings"
	"time"

	"kilonova/internal/compute/virt/libvirt/disk"
)

// kvmWorks tells whether a machine starts under KVM. That the device is there does not say so: nested virtualization may lack what QEMU needs. A machine
// without a disk is started and told to quit.
func kvmWorks(ctx context.Context, emulator string) bool {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, emulator, "-accel", "kvm", "-cpu", "host", "-m", "16", "-nodefaults", "-display", "none", "-qmp", "stdio")
	cmd.Env = []string{"PATH=" + disk.ProgramPath, "LC_ALL=C"}
	cmd.Dir = "/"
	cmd.WaitDelay = 5 * time.Second
	cmd.Stdin = strings.NewReader(`{"execute":"qmp_capabilities"}` + "\n" + `{"execute":"quit"}` + "\n")
	return cmd.Run() == nil
}
