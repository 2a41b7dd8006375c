package servers_test

import (
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api/apitest"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/id"
)

const publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBtQZuvL9JHB0CaQ8Q7lIfXPZ5RKvMG4Nn4y4q1YlGqk x"

// rush calls n times at once and counts the answers by status.
func rush(n int, call func(i int) int) map[int]int {
	var wg sync.WaitGroup
	var mu sync.Mutex
	count := map[int]int{}
	for i := range n {
		wg.Go(func() {
			code := call(i)
			mu.Lock()
			defer mu.Unlock()
			count[code]++
		})
	}
	wg.Wait()
	return count
}

// exact demands that the counters are what the rows say.
func (w *world) exact() {
	w.Helper()
	counted, err1 := w.store.Counted(w.Context(), w.store.DB)
	recount, err2 := w.store.Recount(w.Context(), w.store.DB)
	if diff := cmp.Diff(recount, counted); diff != "" || err1 != nil || err2 != nil {
		w.Fatal(diff, err1, err2)
	}
}

// TestQuotasUnderLoad: 200 callers at once get exactly what is left of each kind of quota.
func TestQuotasUnderLoad(t *testing.T) {
	w := newWorld(t, func(o *backend.Options) {
		o.Quota = store.Limits{"server_groups": 7, "key_pairs": 9, "metadata_items": 5, "server_group_members": 3, "instances": -1, "cores": -1, "ram": -1}
	})
	group := &compute.ServerGroup{ID: id.UUID(), Name: "g", ProjectID: apitest.Project, UserID: "member", Policy: "soft-affinity"}
	w.write(func(tx *db.Tx) error { return w.store.InsertGroup(t.Context(), tx, group) })
	s := w.boot()
	post := func(path, body string) int { return apitest.Call(w.h, "member", "POST", "/v2.1"+path, body, 37).Code }
	for _, c := range []struct {
		name string
		call func(i int) int
		want map[int]int
	}{
		{"server groups", func(i int) int {
			return post("/os-server-groups", fmt.Sprintf(`{"server_group":{"name":"g%d","policies":["affinity"]}}`, i))
		}, map[int]int{200: 6, 403: 194}},
		{"key pairs", func(i int) int {
			return post("/os-keypairs", fmt.Sprintf(`{"keypair":{"name":"k%d","public_key":%q}}`, i, publicKey))
		}, map[int]int{201: 9, 403: 191}},
		{"metadata", func(i int) int {
			return post("/servers/"+s.ID+"/metadata", fmt.Sprintf(`{"metadata":{"key%d":"v"}}`, i))
		}, map[int]int{200: 4, 403: 196}},
		{"members", func(int) int {
			return post("/servers", strings.TrimSuffix(create(onA), "}")+`,"os:scheduler_hints":{"group":"`+group.ID+`"}}`)
		}, map[int]int{202: 3, 403: 197}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := rush(200, c.call)
			if !maps.Equal(got, c.want) {
				t.Errorf("answers %v, want %v", got, c.want)
			}
			w.exact()
		})
	}
}

// TestServersUnderLoad: 200 callers at once get exactly as many servers as there is room for, whatever sets the bound: the project's number, virtual CPUs or memory, the class of
// those that set nothing, or one user's share.
func TestServersUnderLoad(t *testing.T) {
	none := store.Limits{"instances": -1, "cores": -1, "ram": -1}
	for _, c := range []struct {
		name, set, body string
		configured      store.Limits
		tokens          []string
		servers         int
		each            int // of one accepted request
	}{
		{"as configured", "", "", store.Limits{"instances": 7, "cores": -1, "ram": -1}, []string{"member"}, 7, 1},
		{"project's servers", "/os-quota-sets/" + apitest.Project, `{"quota_set":{"instances":9}}`, none, []string{"member", "manager", "admin"}, 9, 1},
		{"project's CPUs", "/os-quota-sets/" + apitest.Project, `{"quota_set":{"cores":11}}`, none, []string{"member", "admin"}, 11, 1},
		{"project's memory", "/os-quota-sets/" + apitest.Project, `{"quota_set":{"ram":4097}}`, none, []string{"member", "admin"}, 8, 1},
		{"class", "/os-quota-class-sets/default", `{"quota_class_set":{"instances":6}}`, none, []string{"member", "manager"}, 6, 1},
		{"one user's", "/os-quota-sets/" + apitest.Project + "?user_id=member", `{"quota_set":{"instances":5}}`, none, []string{"member"}, 5, 1},
		{"several at once", "/os-quota-sets/" + apitest.Project, `{"quota_set":{"instances":10}}`, none, []string{"member", "admin"}, 9, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, func(o *backend.Options) { o.Quota = c.configured })
			if c.set != "" {
				w.ask("admin", "PUT", c.set, c.body, 37, 200)
			}
			request := create(onA, fmt.Sprintf(`"min_count":%d,"max_count":%d`, c.each, c.each))
			got := rush(200, func(i int) int {
				return apitest.Call(w.h, c.tokens[i%len(c.tokens)], "POST", "/v2.1/servers", request, 37).Code
			})
			accepted := c.servers / c.each
			if want := map[int]int{202: accepted, 403: 200 - accepted}; !maps.Equal(got, want) {
				t.Errorf("answers %v, want %v", got, want)
			}
			if n := w.accepted(); n != c.servers {
				t.Errorf("%d servers, want %d", n, c.servers)
			}
			w.exact()
		})
	}
}

// TestRacingResizes: of many resizes at once only those are accepted that the quota has room for, and what is accepted counts until it ends.
func TestRacingResizes(t *testing.T) {
	w := newWorld(t, func(o *backend.Options) { o.Quota = store.Limits{"cores": 25, "ram": -1, "instances": -1} })
	var servers []*compute.Server
	for range 20 {
		servers = append(servers, w.boot())
	}
	got := rush(20, func(i int) int {
		return apitest.Call(w.h, "member", "POST", "/v2.1/servers/"+servers[i].ID+"/action", `{"resize":{"flavorRef":"2"}}`, 1).Code
	})
	if got[202] != 5 || got[403] != 15 {
		t.Fatalf("answers %v, want 5 accepted", got)
	}
	w.exact()
	u, err := w.store.Usage(t.Context(), w.store.DB, apitest.Project, "")
	if err != nil || u.Cores != 25 {
		t.Fatalf("use %+v (%v)", u, err)
	}
	if code := apitest.Call(w.h, "member", "POST", "/v2.1/servers", create(onA), 37).Code; code != 403 {
		t.Errorf("a server was accepted over what the resizes hold: %d", code)
	}
}

// TestRevertOfASmallerFlavorNeedsQuota: what a resize gave up must be there again for its revert.
func TestRevertOfASmallerFlavorNeedsQuota(t *testing.T) {
	w := newWorld(t, func(o *backend.Options) { o.Quota = store.Limits{"cores": 2, "ram": -1, "instances": -1} })
	s := w.boot(func(s *compute.Server) {
		s.VMState, s.OldFlavor = compute.VMResized, &compute.Flavor{ID: 2, FlavorID: "2", Name: "m1.small", VCPUs: 2, RAMMB: 2048, RootGB: 20}
	})
	other := w.boot()
	revert := func(want int) {
		t.Helper()
		if code := apitest.Call(w.h, "member", "POST", "/v2.1/servers/"+s.ID+"/action", `{"revertResize":null}`, 1).Code; code != want {
			t.Fatalf("revert answered %d, want %d", code, want)
		}
	}
	revert(403)
	w.write(func(tx *db.Tx) error { return w.store.DeleteServer(t.Context(), tx, other.ID) })
	revert(202)
	if cores, ram := w.server(s.ID).HeldQuota(); cores != 1 || ram != 1536 {
		t.Errorf("held %d cores, %d MB", cores, ram)
	}
	w.exact()
}

// TestSoftDeletedQuota: what is soft deleted leaves room for others, and comes back only when there is room; restoring counts from the moment it is accepted.
func TestSoftDeletedQuota(t *testing.T) {
	w := newWorld(t, func(o *backend.Options) { o.Quota = store.Limits{"instances": 2} })
	soft := func(s *compute.Server) { s.VMState = compute.VMSoftDeleted }
	a, b := w.boot(soft), w.boot(soft)
	w.exact()
	w.create("member", create(onA), 37) // of two that are allowed
	codes := rush(8, func(i int) int {
		return apitest.Call(w.h, "member", "POST", "/v2.1/servers/"+[]string{a.ID, b.ID}[i%2]+"/action", `{"restore":null}`, 1).Code
	})
	if codes[202] != 1 || codes[202]+codes[403]+codes[409] != 8 {
		t.Fatal(codes)
	}
	w.exact()
	w.refused("member", "POST", "/servers", create(onA), 37, 403)
	for _, s := range []*compute.Server{a, b} {
		w.write(func(tx *db.Tx) error { return w.store.DeleteServer(w.Context(), tx, s.ID) })
	}
	w.exact()
	w.create("member", create(onA), 37)
	used, err := w.store.Usage(w.Context(), w.store.DB, apitest.Project, "")
	if err != nil || used.Instances != 2 {
		t.Fatal(used, err)
	}
}
