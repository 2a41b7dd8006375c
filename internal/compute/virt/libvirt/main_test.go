package libvirt_test

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
)

// Where the run inside the namespaces finds what the outer one made.
const (
	envInside = "KILONOVA_LIBVIRT_INSIDE"
	envImage  = "KILONOVA_LIBVIRT_IMAGE"
)

// inside is the first process of the namespaces: it waits for every process that loses its parent, as daemons and guests do.
const inside = `ip link set lo up
"$@" &
wait $!`

// TestMain runs the tests in namespaces of their own where it can: daemons, guests, bridges and mounts end with them, however the tests end.
func TestMain(m *testing.M) {
	if os.Getenv(envInside) != "" || os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	for _, p := range append(programs(), "ip", "sh") {
		if _, err := exec.LookPath(p); err != nil {
			os.Exit(m.Run()) // the tests say what they miss
		}
	}
	code, err := isolated()
	if err != nil {
		fmt.Fprintln(os.Stderr, "namespaces for the tests:", err)
		code = 1
	}
	os.Exit(code)
}

func isolated() (int, error) {
	image, err := builtImage() // may need the network, which is not inside
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	dir, err := os.MkdirTemp("", "kn")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	self, err := filepath.Abs(os.Args[0])
	if err != nil {
		return 1, err
	}
	args := append([]string{"--fork", "--pid", "--kill-child", "--mount-proc", "--net", "sh", "-c", inside, "sh", self}, os.Args[1:]...)
	cmd := exec.Command("unshare", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), envInside+"=1", envImage+"="+image, "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(stop)
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-stop:
			_ = cmd.Process.Kill() // and with it everything inside
		case <-ended:
		}
	}()
	_ = cmd.Wait() // the exit code says how it went
	return cmd.ProcessState.ExitCode(), nil
}
