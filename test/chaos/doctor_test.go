package chaos_test

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/db"
	"kilonova/test/process"
)

// The judge must be able to find guilty: `kilonova doctor` says so, and ends with an error, when a guest is taken away behind the cloud's back.
func TestDoctorFindsADamagedCloud(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	p := program(t)
	x, err := p.Start(ctx, "up", "--listen", "127.0.0.1:0", "--compute-driver", "fake", "--set", "identity.bcrypt_cost=4", "--set", "compute.host=fake")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Stop(); err != nil {
			t.Error(err)
		}
	})
	admin, err := process.Login(ctx, x.URL, p.Dir, "admin")
	if err != nil {
		t.Fatal(err)
	}
	ground, err := admin.Prepare(ctx)
	if err != nil {
		t.Fatal(err)
	}
	server, err := admin.Boot(ctx, "victim", ground)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.WaitStatus(ctx, server, "ACTIVE"); err != nil {
		t.Fatal(err)
	}
	examine := func() ([]finding, error) {
		t.Helper()
		var r struct{ Findings []finding }
		j := &judge{t: t, prog: p}
		if err := j.command(ctx, &r, "doctor", "--pause", "100ms"); err != nil {
			t.Fatal(err)
		}
		return r.Findings, exec.CommandContext(ctx, p.Path, "doctor", "--pause", "100ms", "--state-dir", p.Dir).Run()
	}
	found, err := examine()
	for (err != nil || len(found) != 0) && ctx.Err() == nil { // its looks may all have been at what an operation has just changed
		found, err = examine()
	}
	if err != nil || len(found) != 0 {
		t.Fatalf("a healthy cloud: %v %v", found, err)
	}
	hyper, err := db.Open(ctx, "sqlite:"+filepath.Join(p.Dir, "fake.db"))
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(fake.New(fake.Config{DB: hyper, Host: "fake"}).Destroy(ctx, server, false), hyper.Close())
	if err != nil {
		t.Fatal(err)
	}
	found, err = examine()
	for len(found) == 0 && ctx.Err() == nil { // what an operation has just changed is not judged yet
		found, err = examine()
	}
	if len(found) != 1 || found[0].Object != server || found[0].Invariant != 6 {
		t.Errorf("findings %v", found)
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("the command ended with %v", err)
	}
}
