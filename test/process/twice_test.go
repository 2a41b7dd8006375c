package process_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kilonova/test/process"
)

// A cloud whose bus is its own runs once on a state directory: a second one is refused, with the reason, and the first goes on.
func TestACloudRunsOnce(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	p := process.Program{Path: build(t), Dir: filepath.Join(t.TempDir(), "state")}
	up := []string{"up", "--listen", "127.0.0.1:0", "--compute-driver", "fake", "--set", "identity.bcrypt_cost=4"}
	x, err := p.Start(ctx, up...)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(ctx, p.Path, append(up, "--state-dir", p.Dir)...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "Another kilonova runs on the state directory "+p.Dir) {
		t.Errorf("the second one: %v\n%s", err, out)
	}
	if err := x.Stop(); err != nil {
		t.Errorf("the first one: %v\n%s", err, x.Output())
	}
	if x, err = p.Start(ctx, up...); err != nil {
		t.Fatalf("after the first one has ended: %v", err)
	}
	if err := x.Stop(); err != nil {
		t.Errorf("%v\n%s", err, x.Output())
	}
}
