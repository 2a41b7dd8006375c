package process_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"kilonova/test/process"
)

type tokenKey struct {
	Number int
	State  string
	Since  time.Time
}

// tokenKeys runs `kilonova key ARGS` and gives what it prints.
func tokenKeys(t *testing.T, ctx context.Context, p process.Program, args ...string) []tokenKey {
	t.Helper()
	var out, problems bytes.Buffer
	cmd := exec.CommandContext(ctx, p.Path, append(append([]string{"key"}, args...), "-f", "json", "--state-dir", p.Dir)...)
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		t.Fatalf("key %v: %v %s", args, err, &problems)
	}
	var keys []tokenKey
	if err := json.Unmarshal(out.Bytes(), &keys); err != nil {
		t.Fatalf("key %v: %v: %s", args, err, &out)
	}
	return keys
}

// An operator rotates the token keys beside two processes: tokens from before and after hold in both, until their keys are dropped.
func TestKeysAreRotatedByCommand(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	p := process.Program{Path: build(t), Dir: filepath.Join(t.TempDir(), "state")}
	nats, first, second := freePort(t), freePort(t), freePort(t)
	url := fmt.Sprintf("http://127.0.0.1:%d", first)
	// No verified token is believed unseen, so that each is opened every time.
	shared := []string{"--set", "api.public_url=" + url, "--set", "compute.driver=fake", "--set", "identity.bcrypt_cost=4", "--set", "identity.cache_ttl=1ns"}
	for _, args := range [][]string{
		{"run", "identity", "image", "placement", "network", "--listen", fmt.Sprintf("127.0.0.1:%d", first), "--set", fmt.Sprintf("bus.listen=127.0.0.1:%d", nats)},
		{"compute-api", "--listen", fmt.Sprintf("127.0.0.1:%d", second), "--set", fmt.Sprintf("bus.url=nats://127.0.0.1:%d", nats)},
	} {
		begin(ctx, t, p, append(args, shared...)...)
	}
	login := func() *process.Client {
		t.Helper()
		c, err := process.Login(ctx, url, p.Dir, "demo")
		if err != nil {
			t.Fatal(err)
		}
		c.Roots["compute"] = fmt.Sprintf("http://127.0.0.1:%d/compute/v2.1", second)
		return c
	}
	var clients []*process.Client
	for n := range 3 {
		clients = append(clients, login())
		keys := tokenKeys(t, ctx, p, "rotate")
		if len(keys) != n+3 || keys[0].Number != n+2 || keys[0].State != "primary" || keys[len(keys)-1].State != "staged" {
			t.Errorf("after %d rotations: %v", n+1, keys)
		}
		for i, c := range append(clients, login()) {
			for service, path := range map[string]string{"compute": "/servers", "image": "/images"} {
				if code, _, err := c.Do(ctx, http.MethodGet, service, path, nil, nil); err != nil {
					t.Errorf("after %d rotations token %d: %s: %d %v", n+1, i, service, code, err)
				}
			}
		}
	}
	if keys := tokenKeys(t, ctx, p, "rotate", "--keep", "0s"); len(keys) != 2 {
		t.Error(keys)
	}
	for i, c := range clients {
		if code, _, err := c.Do(ctx, http.MethodGet, "compute", "/servers", nil, nil); code != http.StatusUnauthorized {
			t.Errorf("token %d of a dropped key: %d %v", i, code, err)
		}
	}
	if code, _, err := login().Do(ctx, http.MethodGet, "compute", "/servers", nil, nil); err != nil {
		t.Error(code, err)
	}
	if got, want := tokenKeys(t, ctx, p, "list"), 5; got[0].Number != want || len(got) != 2 {
		t.Error(got)
	}
}

// With an interval the keys are rotated without anybody's doing, and a client that is logged in goes on.
func TestKeysAreRotatedByThemselves(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	p := process.Program{Path: build(t), Dir: filepath.Join(t.TempDir(), "state")}
	x, err := p.Start(ctx, "up", "--listen", "127.0.0.1:0", "--compute-driver", "fake", "--set", "identity.bcrypt_cost=4", "--set", "identity.cache_ttl=1ns",
		"--set", "identity.key_rotation_interval=1s")
	if err != nil {
		t.Fatal(err)
	}
	c, err := process.Login(ctx, x.URL, p.Dir, "demo")
	if err != nil {
		t.Fatal(err)
	}
	for keys := tokenKeys(t, ctx, p, "list"); keys[0].Number < 4; keys = tokenKeys(t, ctx, p, "list") {
		select {
		case <-ctx.Done():
			t.Fatalf("still %v\n%s", keys, x.Output())
		case <-time.After(100 * time.Millisecond):
		}
	}
	if code, _, err := c.Do(ctx, http.MethodGet, "compute", "/servers", nil, nil); err != nil {
		t.Error(code, err)
	}
	if err := x.Stop(); err != nil {
		t.Error(err)
	}
}
