// Package client_test runs the unmodified openstack command against a cloud on the fake driver.
package client_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"kilonova/test/process"
)

func TestOpenStackCommands(t *testing.T) {
	python := "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import openstackclient.shell").Run(); err != nil {
		t.Skip("python3-openstackclient is not installed: scripts/install.sh client")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Minute)
	defer cancel()
	bin, err := process.Build(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := process.Program{Path: bin, Dir: filepath.Join(t.TempDir(), "state")}
	x, err := p.Start(ctx, "up", "--listen", "127.0.0.1:0", "--compute-driver", "fake", "--fake-hosts", "2", "--set", "identity.bcrypt_cost=4",
		"--set", "quota.cores=100", "--set", "compute.report_interval=1s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Stop(); err != nil {
			t.Error(err)
		}
	})
	cmd := exec.CommandContext(ctx, python, "commands.py", p.Dir)
	cmd.Env = append(os.Environ(), "PATH=/usr/bin:/bin", "PYTHONPATH=", "PYTHONDONTWRITEBYTECODE=1")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("%v\n%s\nwarnings of the cloud:\n%s", err, process.LastLines(string(out), 15), process.LastLines(process.Troubles(x.Output()), 20))
	}
}
