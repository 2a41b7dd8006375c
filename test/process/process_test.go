package process_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kilonova/test/process"
)

func build(t *testing.T) string {
	t.Helper()
	bin, err := process.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

func freePort(t *testing.T) int {
	t.Helper()
	port, err := process.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// begin starts the program until the test ends; of a test that failed the log has what the program said.
func begin(ctx context.Context, t *testing.T, p process.Program, args ...string) *process.Proc {
	t.Helper()
	x, err := p.Start(ctx, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("--- %s\n%s", x.Name, x.Output())
		}
	})
	return x
}

// Roles apart: identity, image, placement and network in one process, the compute API in a second, conductor and scheduler twice each, and two agents, each
// its own process, over NATS on loopback. Servers are built, moved and deleted; then a conductor and a scheduler are killed and it goes on.
func TestRolesInTheirOwnProcesses(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	p := process.Program{Path: build(t), Dir: filepath.Join(t.TempDir(), "state")}
	nats, first, second := freePort(t), freePort(t), freePort(t)
	config := filepath.Join(t.TempDir(), "kilonova.conf")
	text := fmt.Sprintf("[api]\npublic_url = http://127.0.0.1:%d\n[bus]\nurl = nats://127.0.0.1:%d\n[compute]\ndriver = fake\nreport_interval = 1\nservice_down_time = 300\n[identity]\nbcrypt_cost = 4\n[quota]\ninstances = 100\ncores = 100\n", first, nats)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var procs []*process.Proc
	start := func(args ...string) *process.Proc {
		t.Helper()
		x, err := p.Start(ctx, append(args, "--config", config)...)
		if err != nil {
			t.Fatal(err)
		}
		procs = append(procs, x)
		return x
	}
	t.Cleanup(func() {
		for i := len(procs) - 1; i >= 0; i-- {
			if err := procs[i].Stop(); err != nil {
				t.Error(err)
			}
		}
		if t.Failed() {
			for _, x := range procs {
				t.Logf("--- %s\n%s", x.Name, x.Output())
			}
		}
	})
	start("run", "identity", "image", "placement", "network", "--listen", fmt.Sprintf("127.0.0.1:%d", first),
		"--set", "bus.url=", "--set", fmt.Sprintf("bus.listen=127.0.0.1:%d", nats))
	conductors := []*process.Proc{start("conductor"), start("conductor")}
	schedulers := []*process.Proc{start("scheduler"), start("scheduler")}
	start("compute-api", "--listen", fmt.Sprintf("127.0.0.1:%d", second))
	for _, h := range []string{"alpha", "beta"} {
		start("agent", "--set", "compute.host="+h, "--set", "image.url=http://127.0.0.1:"+fmt.Sprint(first)+"/image")
	}
	admin, err := process.Login(ctx, fmt.Sprintf("http://127.0.0.1:%d", first), p.Dir, "admin")
	if err != nil {
		t.Fatal(err)
	}
	admin.Roots["compute"] = fmt.Sprintf("http://127.0.0.1:%d/compute/v2.1", second)
	ground, err := admin.Prepare(ctx)
	if err != nil {
		t.Fatal(err)
	}
	waitHosts(t, ctx, admin, 2)
	hosts := map[string]int{}
	boot := func(n int, tag string) (ids []string) {
		t.Helper()
		for i := range n {
			id, err := admin.Boot(ctx, fmt.Sprintf("%s-%d", tag, i), ground)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
		for _, id := range ids {
			s, err := admin.WaitStatus(ctx, id, "ACTIVE")
			if err != nil {
				t.Fatal(err)
			}
			hosts[s.Host]++
		}
		return ids
	}
	ids := boot(8, "all")
	if hosts["alpha"] == 0 || hosts["beta"] == 0 {
		t.Fatalf("the servers did not spread over the two agents: %v", hosts)
	}
	// Kill one of each: nothing that was accepted is lost.
	for _, x := range []*process.Proc{conductors[0], schedulers[1]} {
		if err := x.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	ids = append(ids, boot(8, "half")...)
	for _, id := range ids {
		if _, _, err := admin.Do(ctx, "DELETE", "compute", "/servers/"+id, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range ids {
		if _, err := admin.WaitStatus(ctx, id, ""); err != nil {
			t.Fatal(err)
		}
	}
}

func waitHosts(t *testing.T, ctx context.Context, c *process.Client, n int) {
	t.Helper()
	for {
		var l struct {
			Hypervisors []struct{ State, Status string }
		}
		if _, _, err := c.Do(ctx, "GET", "compute", "/os-hypervisors", nil, &l); err != nil {
			t.Fatal(err)
		}
		up := 0
		for _, h := range l.Hypervisors {
			if h.State == "up" {
				up++
			}
		}
		if up == n {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%d of %d hosts are up", up, n)
		}
	}
}

// One process, no root: it starts, writes the client files for the owner only, keeps secrets out of its log, and ends well on SIGTERM.
func TestUpWithTheFakeDriver(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	p := process.Program{Path: build(t), Dir: filepath.Join(t.TempDir(), "state")}
	for round := range 2 {
		x, err := p.Start(ctx, "up", "--listen", "127.0.0.1:0", "--compute-driver", "fake", "--set", "DEFAULT.log_level=debug", "--set", "identity.bcrypt_cost=4")
		if err != nil {
			t.Fatal(err)
		}
		c, err := process.Login(ctx, x.URL, p.Dir, "demo")
		if err != nil {
			t.Fatal(err)
		}
		if code, _, err := c.Do(ctx, "GET", "compute", "/servers", nil, nil); err != nil || code != 200 {
			t.Fatal(code, err)
		}
		if err := x.Stop(); err != nil {
			t.Fatal(err)
		}
		checkSecrets(t, p.Dir, x.Output(), round)
	}
}

func checkSecrets(t *testing.T, dir, log string, round int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "secrets", "*"))
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
	keys, err := filepath.Glob(filepath.Join(dir, "fernet-keys", "*"))
	if err != nil || len(keys) == 0 {
		t.Fatal(keys, err)
	}
	for _, f := range append(append(files, keys...), filepath.Join(dir, "clouds.yaml"), filepath.Join(dir, "openrc")) {
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s can be read by others: %s", f, st.Mode())
		}
		if filepath.Base(filepath.Dir(f)) != "secrets" {
			continue
		}
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(log, strings.TrimSpace(string(b))) {
			t.Errorf("round %d: the log holds the secret %s", round, filepath.Base(f))
		}
	}
}

// A compute API that knows identity and placement only by their URLs: tokens are verified and claims made over REST, as with OpenStack's own services.
func TestServicesByURL(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	p := process.Program{Path: build(t), Dir: filepath.Join(t.TempDir(), "state")}
	nats, first, second := freePort(t), freePort(t), freePort(t)
	url := fmt.Sprintf("http://127.0.0.1:%d", first)
	shared := []string{"--set", "api.public_url=" + url, "--set", "compute.driver=fake", "--set", "identity.bcrypt_cost=4", "--set", "compute.report_interval=1s"}
	one, err := p.Start(ctx, append([]string{"run", "identity", "image", "placement", "network", "--listen", fmt.Sprintf("127.0.0.1:%d", first),
		"--set", fmt.Sprintf("bus.listen=127.0.0.1:%d", nats)}, shared...)...)
	if err != nil {
		t.Fatal(err)
	}
	two, err := p.Start(ctx, append([]string{"run", "compute-api", "conductor", "scheduler", "agent", "--listen", fmt.Sprintf("127.0.0.1:%d", second),
		"--set", fmt.Sprintf("bus.url=nats://127.0.0.1:%d", nats), "--set", "api.identity_url=" + url + "/identity", "--set", "placement.url=" + url + "/placement",
		"--set", "image.url=" + url + "/image"}, shared...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, x := range []*process.Proc{two, one} {
			if err := x.Stop(); err != nil {
				t.Error(err)
			}
			if t.Failed() {
				t.Logf("--- %s\n%s", x.Name, x.Output())
			}
		}
	})
	c, err := process.Login(ctx, url, p.Dir, "admin")
	if err != nil {
		t.Fatal(err)
	}
	c.Roots["compute"] = fmt.Sprintf("http://127.0.0.1:%d/compute/v2.1", second)
	ground, err := c.Prepare(ctx)
	if err != nil {
		t.Fatal(err)
	}
	waitHosts(t, ctx, c, 1)
	id, err := c.Boot(ctx, "far", ground)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.WaitStatus(ctx, id, "ACTIVE"); err != nil {
		t.Fatal(err)
	}
	var held struct{ Allocations map[string]any }
	if _, _, err := c.Do(ctx, "GET", "placement", "/allocations/"+id, nil, &held); err != nil || len(held.Allocations) != 1 {
		t.Fatal(held, err)
	}
	if _, _, err := c.Do(ctx, "DELETE", "compute", "/servers/"+id, nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.WaitStatus(ctx, id, ""); err != nil {
		t.Fatal(err)
	}
}
