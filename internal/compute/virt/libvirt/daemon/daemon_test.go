package daemon_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"kilonova/internal/compute/virt/libvirt/daemon"
)

// A daemon that has died but for which nobody has waited still has its name under /proc: it must not be taken for one that runs.
func TestDeadDaemonDoesNotRun(t *testing.T) {
	cat, err := exec.LookPath("cat")
	if err != nil {
		t.Skip("cat is not there")
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "run"), 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "libvirtd")
	if err := os.Symlink(cat, program); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waited := false
	t.Cleanup(func() {
		if !waited {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	pid := strconv.Itoa(cmd.Process.Pid)
	if err := os.WriteFile(filepath.Join(dir, "run", "libvirtd.pid"), []byte(pid+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	stat := func() []byte {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%s/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	until := func(text string) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !bytes.Contains(stat(), []byte(text)); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the process is %s, not %q", stat(), text)
			}
		}
	}
	until("(libvirtd) ")
	if d := daemon.Find(daemon.Config{Dir: dir}); d == nil || d.PID() != cmd.Process.Pid {
		t.Errorf("a running daemon is not found: %v", d)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	until("(libvirtd) Z")
	if d := daemon.Find(daemon.Config{Dir: dir}); d != nil {
		t.Errorf("a dead daemon is found: %d", d.PID())
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	waited = true
}
