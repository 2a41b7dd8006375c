package process_test

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"kilonova/test/process"
)

// Two compute APIs share a database, and both write all the while: what one has answered to have changed, the other gives from then on, also of what each of them remembers.
func TestWhatOneProcessChangesAnotherGives(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	p := process.Program{Path: build(t), Dir: filepath.Join(t.TempDir(), "state")}
	var ports [4]int // NATS, identity, the two
	for i := range ports {
		ports[i] = freePort(t)
	}
	url := func(i int) string { return fmt.Sprintf("http://127.0.0.1:%d", ports[i]) }
	shared := []string{"--set", "api.public_url=" + url(1), "--set", "compute.driver=fake", "--set", "identity.bcrypt_cost=4"}
	start := func(args ...string) {
		t.Helper()
		begin(ctx, t, p, append(args, shared...)...)
	}
	start("run", "identity", "image", "placement", "network", "--listen", fmt.Sprintf("127.0.0.1:%d", ports[1]), "--set", fmt.Sprintf("bus.listen=127.0.0.1:%d", ports[0]))
	var apis [2]*process.Client
	for i := range apis {
		start("compute-api", "--listen", fmt.Sprintf("127.0.0.1:%d", ports[2+i]), "--set", fmt.Sprintf("bus.url=nats://127.0.0.1:%d", ports[0]))
		var err error
		if apis[i], err = process.Login(ctx, url(1), p.Dir, "admin"); err != nil {
			t.Fatal(err)
		}
		apis[i].Roots["compute"] = url(2+i) + "/compute/v2.1"
	}
	var made struct{ Flavor process.Thing }
	if _, _, err := apis[0].Do(ctx, http.MethodPost, "compute", "/flavors", map[string]any{"flavor": map[string]any{"name": "f", "ram": 64, "vcpus": 1, "disk": 1}}, &made); err != nil {
		t.Fatal(err)
	}
	specs := "/flavors/" + made.Flavor.ID + "/os-extra_specs"

	// Each writes to a table of which nothing is remembered, and looks at the flavor meanwhile.
	busy, calm := context.WithCancel(ctx)
	var wg sync.WaitGroup
	t.Cleanup(func() { calm(); wg.Wait() })
	for i, c := range apis {
		var a struct{ Aggregate struct{ ID int } }
		if _, _, err := c.Do(ctx, http.MethodPost, "compute", "/os-aggregates", map[string]any{"aggregate": map[string]any{"name": fmt.Sprintf("a%d", i)}}, &a); err != nil {
			t.Fatal(err)
		}
		for _, ask := range []func(n int) error{
			func(n int) error {
				_, _, err := c.Do(busy, http.MethodPut, "compute", fmt.Sprintf("/os-aggregates/%d", a.Aggregate.ID), map[string]any{"aggregate": map[string]any{"name": fmt.Sprintf("a%d-%d", i, n)}}, nil)
				return err
			},
			func(int) error {
				_, _, err := c.Do(busy, http.MethodGet, "compute", specs, nil, nil)
				return err
			},
		} {
			wg.Go(func() {
				for n := 0; busy.Err() == nil; n++ {
					if err := ask(n); err != nil && busy.Err() == nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	for n := range 200 {
		want := strconv.Itoa(n)
		if _, _, err := apis[n%2].Do(ctx, http.MethodPost, "compute", specs, map[string]any{"extra_specs": map[string]string{"turn": want}}, nil); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			var got struct {
				Specs map[string]string `json:"extra_specs"`
			}
			if _, _, err := apis[(n+1)%2].Do(ctx, http.MethodGet, "compute", specs, nil, &got); err != nil {
				t.Fatal(err)
			}
			if got.Specs["turn"] != want {
				t.Fatalf("one API changed it to %s, the other gives %s", want, got.Specs["turn"])
			}
		}
	}
}
