package cloud_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/api/apitest"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/api/cloud"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/store"
	"kilonova/internal/compute/virt"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/operation"
	"kilonova/internal/placement"
)

// recorder is placement as far as these handlers speak to it.
type recorder struct {
	placement.Service
	mu         sync.Mutex
	aggregates map[string][]string
	traits     map[string]bool
	deleted    []string
	down       bool
}

func (p *recorder) Tree(context.Context, string) ([]placement.Provider, error) { return nil, nil }

func (p *recorder) Providers(_ context.Context, uuids ...string) ([]placement.Provider, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []placement.Provider
	for _, u := range uuids {
		out = append(out, placement.Provider{UUID: u, Aggregates: p.aggregates[u]})
	}
	return out, nil
}

func (p *recorder) SetAggregates(_ context.Context, provider string, ids []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		return errors.New("no answer")
	}
	p.aggregates[provider] = ids
	return nil
}

func (p *recorder) SetTrait(_ context.Context, provider, trait string, on bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.traits[provider+" "+trait] = on
	return nil
}

func (p *recorder) DeleteProvider(_ context.Context, provider string) error {
	p.deleted = append(p.deleted, provider)
	return nil
}

// agents answers queries of hosts.
type agents struct {
	cached chan string
	broken atomic.Int64 // so many times caching fails
}

func (a *agents) Do(_ context.Context, host string, cmd command.Command, args, out any) error {
	switch cmd.Verb {
	case command.QueryUptime:
		if host == "c2" {
			return fault.New(fault.NotImplemented, "no uptime")
		}
		out.(*command.UptimeResult).Uptime = " 08:32:11 up 93 days"
	case command.CacheImages:
		ids := args.(command.CacheImagesArgs).ImageIDs
		a.cached <- host + " " + strings.Join(ids, ",")
		if a.broken.Add(-1) >= 0 {
			out.(*command.CacheImagesResult).Failed = ids[1:]
		}
	}
	return nil
}

// projects knows two.
type projects struct{}

func (projects) ProjectExists(_ context.Context, p string) (bool, error) {
	return p == apitest.Project || p == apitest.Other, nil
}

type world struct {
	t         *testing.T
	h         http.Handler
	store     *store.Store
	placement *recorder
	agents    *agents
	nodes     []string // node ids of c1, c2, c3
	services  []string
}

// newWorld has three hosts (c3 silent for an hour), a conductor, and one server of the caller's project on c1.
func newWorld(t *testing.T) *world {
	t.Helper()
	d, err := db.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "k.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	engine, err := operation.New(t.Context(), operation.Config{DB: d})
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.New(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, store: s, placement: &recorder{aggregates: map[string][]string{}, traits: map[string]bool{}}, agents: &agents{cached: make(chan string, 8)}}
	info, err := json.Marshal(virt.HostInfo{HypervisorType: "QEMU", HypervisorVersion: 7002000, VCPUs: 8, MemoryMB: 16384, DiskGB: 100, HostIP: "192.0.2.1",
		CPUInfo: map[string]any{"arch": "x86_64"}, FreeDiskGB: 90})
	if err != nil {
		t.Fatal(err)
	}
	w.write(func(tx *db.Tx) error {
		for _, name := range []string{"c1", "c2", "c3"} {
			h := &compute.Host{Name: name, NodeID: id.UUID(), Info: info, LastSeen: clock.Now().Add(24 * time.Hour)} // up, however long the test takes
			if name == "c3" {
				h.LastSeen = clock.Now().Add(-time.Hour)
			}
			if err := s.SaveHost(t.Context(), tx, h, name+".example"); err != nil {
				return err
			}
			w.nodes, w.services = append(w.nodes, h.NodeID), append(w.services, h.ServiceID)
		}
		if err := s.SaveHost(t.Context(), tx, &compute.Host{Name: "control", Binary: "nova-conductor", LastSeen: clock.Now().Add(24 * time.Hour)}, ""); err != nil {
			return err
		}
		return s.InsertServer(t.Context(), tx, server("one", apitest.Project, "c1", 2*time.Hour))
	})
	b := backend.New(backend.Services{Store: s, Operations: engine, Reader: engine, Placement: w.placement, Agents: w.agents, Projects: projects{}}, backend.Options{CachePause: time.Millisecond})
	w.h = apitest.Handler(t, cloud.Handlers(b))
	return w
}

func server(name, project, host string, age time.Duration) *compute.Server {
	return &compute.Server{ID: id.UUID(), Name: name, ProjectID: project, UserID: "member", VMState: compute.VMActive, PowerState: compute.PowerRunning, Host: host,
		Node: host, DiskConfig: "AUTO", Flavor: compute.Flavor{ID: 1, FlavorID: "1", Name: "m1.tiny", VCPUs: 2, RAMMB: 1024, RootGB: 10, EphemeralGB: 5},
		Created: clock.Now().Add(-age), Launched: clock.Now().Add(-age)}
}

func (w *world) write(fn func(*db.Tx) error) {
	w.t.Helper()
	if err := w.store.DB.Write(w.t.Context(), fn); err != nil {
		w.t.Fatal(err)
	}
}

// ask makes a request, demands a status and gives the decoded answer.
func (w *world) ask(token, method, path, body string, minor, want int) map[string]any {
	w.t.Helper()
	r := apitest.Call(w.h, token, method, "/v2.1"+path, body, minor)
	if r.Code != want {
		w.t.Fatalf("%s %s %s at 2.%d as %s: got %d %s, want %d", method, path, body, minor, token, r.Code, r.Body, want)
	}
	var m map[string]any
	if r.Body.Len() > 0 {
		if err := json.Unmarshal(r.Body.Bytes(), &m); err != nil {
			w.t.Fatal(err)
		}
	}
	return m
}

// message is the text of an error answer.
func message(m map[string]any) string {
	for _, v := range m {
		if e, ok := v.(map[string]any); ok {
			s, _ := e["message"].(string)
			return s
		}
	}
	return ""
}

// TestAnswersAtEveryVersion compares every reading route with the description at each version.
func TestAnswersAtEveryVersion(t *testing.T) {
	w := newWorld(t)
	w.ask("admin", "POST", "/os-aggregates", `{"aggregate":{"name":"a","availability_zone":"east"}}`, 1, 200)
	w.ask("admin", "POST", "/os-aggregates/1/action", `{"add_host":{"host":"c2"}}`, 1, 200)
	group := w.ask("admin", "POST", "/os-server-groups", `{"server_group":{"name":"g","policy":"anti-affinity","rules":{"max_server_per_host":2}}}`, 64, 200)
	gid := group["server_group"].(map[string]any)["id"].(string)
	w.write(func(tx *db.Tx) error {
		return w.store.InsertMigration(t.Context(), tx, &compute.Migration{ServerID: id.UUID(), Type: "live-migration", Status: "running", SourceHost: "c1", ProjectID: apitest.Project, UserID: "member"})
	})
	numbered := func(minor int, number string, uuid string) string {
		if minor < 53 {
			return number
		}
		return uuid
	}
	paths := map[string]func(minor int) string{
		"GET /extensions":                       func(int) string { return "/extensions" },
		"GET /extensions/{id}":                  func(int) string { return "/extensions/os-keypairs" },
		"GET /os-aggregates":                    func(int) string { return "/os-aggregates" },
		"GET /os-aggregates/{id}":               func(int) string { return "/os-aggregates/1" },
		"GET /os-availability-zone":             func(int) string { return "/os-availability-zone" },
		"GET /os-availability-zone/detail":      func(int) string { return "/os-availability-zone/detail" },
		"GET /os-hypervisors":                   func(int) string { return "/os-hypervisors" },
		"GET /os-hypervisors/detail":            func(int) string { return "/os-hypervisors/detail" },
		"GET /os-hypervisors/statistics":        func(int) string { return "/os-hypervisors/statistics" },
		"GET /os-hypervisors/{id}":              func(m int) string { return "/os-hypervisors/" + numbered(m, "1", w.nodes[0]) },
		"GET /os-hypervisors/{id}/search":       func(int) string { return "/os-hypervisors/c1/search" },
		"GET /os-hypervisors/{id}/servers":      func(int) string { return "/os-hypervisors/c1/servers" },
		"GET /os-hypervisors/{id}/uptime":       func(m int) string { return "/os-hypervisors/" + numbered(m, "1", w.nodes[0]) + "/uptime" },
		"GET /os-hosts":                         func(int) string { return "/os-hosts" },
		"GET /os-hosts/{id}":                    func(int) string { return "/os-hosts/c1" },
		"GET /os-services":                      func(int) string { return "/os-services" },
		"GET /os-server-groups":                 func(int) string { return "/os-server-groups" },
		"GET /os-server-groups/{id}":            func(int) string { return "/os-server-groups/" + gid },
		"GET /os-migrations":                    func(int) string { return "/os-migrations" },
		"GET /limits":                           func(int) string { return "/limits" },
		"GET /os-quota-sets/{id}":               func(int) string { return "/os-quota-sets/" + apitest.Project },
		"GET /os-quota-sets/{id}/detail":        func(int) string { return "/os-quota-sets/" + apitest.Project + "/detail" },
		"GET /os-quota-sets/{id}/defaults":      func(int) string { return "/os-quota-sets/" + apitest.Project + "/defaults" },
		"GET /os-quota-class-sets/{id}":         func(int) string { return "/os-quota-class-sets/default" },
		"GET /os-simple-tenant-usage":           func(int) string { return "/os-simple-tenant-usage?detailed=1&start=2020-01-01T00:00:00" },
		"GET /os-simple-tenant-usage/{id}":      func(int) string { return "/os-simple-tenant-usage/" + apitest.Project + "?start=2020-01-01T00:00:00" },
		"GET /os-instance_usage_audit_log":      func(int) string { return "/os-instance_usage_audit_log" },
		"GET /os-instance_usage_audit_log/{id}": func(int) string { return "/os-instance_usage_audit_log/2026-01-02%2003:04:05" },
	}
	var answers apitest.Answers
	seen := 0
	for key, path := range paths {
		for minor := 1; minor <= 104; minor++ {
			r := apitest.Call(w.h, "admin", "GET", "/v2.1"+path(minor), "", minor)
			if r.Code == 404 && strings.Contains(r.Body.String(), "The resource could not be found.") {
				continue // not in this version
			}
			if r.Code != 200 {
				t.Errorf("%s at 2.%d: %d %s", key, minor, r.Code, r.Body)
				continue
			}
			// The description takes host names in the audit log for UUIDs, which they are only in its samples.
			if err := answers.Judge(key, minor, r.Body.Bytes()); err != nil && !strings.Contains(err.Error(), "Value: c1. 'c1' is not a 'uuid'") {
				t.Errorf("%s at 2.%d: %v in %.1000s", key, minor, err, r.Body)
				break
			}
			seen++
		}
	}
	if seen < 2000 {
		t.Errorf("only %d answers were seen", seen)
	}
}

func TestAggregates(t *testing.T) {
	w := newWorld(t)
	made := w.ask("admin", "POST", "/os-aggregates", `{"aggregate":{"name":"a","availability_zone":"east"}}`, 41, 200)
	apitest.CheckAnswer(t, "POST /os-aggregates", 41, must(t, made))
	w.ask("admin", "POST", "/os-aggregates", `{"aggregate":{"name":"a"}}`, 1, 409)
	w.ask("admin", "POST", "/os-aggregates", `{"aggregate":{"name":"b","availability_zone":"west"}}`, 1, 200)
	w.ask("admin", "GET", "/os-aggregates/x", "", 1, 400)
	w.ask("admin", "GET", "/os-aggregates/9", "", 1, 404)
	w.ask("admin", "POST", "/os-aggregates/1/action", `{"add_host":{"host":"nowhere"}}`, 1, 404)
	got := w.ask("admin", "POST", "/os-aggregates/1/action", `{"add_host":{"host":"c2"}}`, 1, 200)
	if d := cmp.Diff([]any{"c2"}, got["aggregate"].(map[string]any)["hosts"]); d != "" {
		t.Error(d)
	}
	uuid := made["aggregate"].(map[string]any)["uuid"].(string)
	if d := cmp.Diff([]string{uuid}, w.placement.aggregates[w.nodes[1]]); d != "" {
		t.Errorf("placement: %s", d)
	}
	w.ask("admin", "POST", "/os-aggregates/1/action", `{"add_host":{"host":"c2"}}`, 1, 409)
	if m := message(w.ask("admin", "POST", "/os-aggregates/2/action", `{"add_host":{"host":"c2"}}`, 1, 409)); !strings.Contains(m, "zone east already") {
		t.Error(m)
	}
	west := "west"
	w.write(func(tx *db.Tx) error {
		v := server("pinned", apitest.Project, "c3", time.Hour)
		v.PinnedZone = &west
		return w.store.InsertServer(t.Context(), tx, v)
	})
	if m := message(w.ask("admin", "POST", "/os-aggregates/1/action", `{"add_host":{"host":"c3"}}`, 1, 409)); !strings.Contains(m, `would change from "" to "east"`) {
		t.Error(m)
	}
	// A host with servers that asked for its zone does not leave it.
	w.ask("admin", "POST", "/os-aggregates", `{"aggregate":{"name":"zoneless"}}`, 1, 200)
	w.ask("admin", "POST", "/os-aggregates/3/action", `{"add_host":{"host":"c3"}}`, 1, 200)
	w.ask("admin", "POST", "/os-aggregates/3/action", `{"remove_host":{"host":"c3"}}`, 1, 200)
	east, settled := "east", server("settled", apitest.Project, "c2", time.Hour)
	settled.PinnedZone = &east
	w.write(func(tx *db.Tx) error { return w.store.InsertServer(t.Context(), tx, settled) })
	if m := message(w.ask("admin", "POST", "/os-aggregates/1/action", `{"remove_host":{"host":"c2"}}`, 1, 409)); !strings.Contains(m, `would change from "east" to ""`) {
		t.Error(m)
	}
	if m := message(w.ask("admin", "PUT", "/os-aggregates/1", `{"aggregate":{"availability_zone":"south"}}`, 1, 400)); !strings.Contains(m, "hosts with instances") {
		t.Error(m)
	}
	w.ask("admin", "PUT", "/os-aggregates/1", `{"aggregate":{"availability_zone":null}}`, 1, 400)
	w.ask("admin", "POST", "/os-aggregates/1/action", `{"add_host":{"host":"c1"}}`, 1, 200) // its servers asked for none
	w.ask("admin", "POST", "/os-aggregates/1/action", `{"remove_host":{"host":"c1"}}`, 1, 200)
	w.write(func(tx *db.Tx) error { return w.store.DeleteServer(t.Context(), tx, settled.ID) })
	w.ask("admin", "GET", "/os-aggregates/-1", "", 1, 404)
	w.ask("admin", "DELETE", "/os-aggregates/1", "", 1, 400)
	got = w.ask("admin", "POST", "/os-aggregates/1/action", `{"set_metadata":{"metadata":{"ssd":"true","availability_zone":"north"}}}`, 1, 200)
	if d := cmp.Diff(map[string]any{"ssd": "true", "availability_zone": "north"}, got["aggregate"].(map[string]any)["metadata"]); d != "" {
		t.Error(d)
	}
	got = w.ask("admin", "PUT", "/os-aggregates/1", `{"aggregate":{"name":"renamed","availability_zone":"south"}}`, 1, 200)
	if v := got["aggregate"].(map[string]any); v["name"] != "renamed" || v["availability_zone"] != "south" {
		t.Error(v)
	}
	w.ask("admin", "PUT", "/os-aggregates/1", `{"aggregate":{}}`, 1, 400)
	w.ask("admin", "POST", "/os-aggregates/1/action", `{"remove_host":{"host":"c1"}}`, 1, 404)
	w.ask("admin", "POST", "/os-aggregates/1/action", `{"remove_host":{"host":"c2"}}`, 1, 200)
	if len(w.placement.aggregates[w.nodes[1]]) != 0 {
		t.Error(w.placement.aggregates)
	}
	w.placement.down = true
	w.ask("admin", "POST", "/os-aggregates/1/action", `{"add_host":{"host":"c2"}}`, 1, 200) // conductors tell placement later
	if len(w.placement.aggregates[w.nodes[1]]) != 0 {
		t.Error(w.placement.aggregates)
	}
	w.ask("member", "GET", "/os-aggregates", "", 1, 403)
	w.ask("admin", "DELETE", "/os-aggregates/2", "", 1, 200)
}

func must(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCacheImages(t *testing.T) {
	w := newWorld(t)
	w.ask("admin", "POST", "/os-aggregates", `{"aggregate":{"name":"a"}}`, 1, 200)
	for _, h := range []string{"c1", "c2"} {
		w.ask("admin", "POST", "/os-aggregates/1/action", fmt.Sprintf(`{"add_host":{"host":%q}}`, h), 1, 200)
	}
	image := id.UUID()
	w.ask("admin", "POST", "/os-aggregates/1/images", fmt.Sprintf(`{"cache":[{"id":%q}]}`, image), 81, 202)
	got := []string{<-w.agents.cached, <-w.agents.cached}
	slices.Sort(got)
	if d := cmp.Diff([]string{"c1 " + image, "c2 " + image}, got); d != "" {
		t.Error(d)
	}
	w.ask("admin", "POST", "/os-aggregates/1/action", `{"remove_host":{"host":"c1"}}`, 1, 200)
	w.agents.broken.Store(1)
	other := id.UUID()
	w.ask("admin", "POST", "/os-aggregates/1/images", fmt.Sprintf(`{"cache":[{"id":%q},{"id":%q}]}`, image, other), 81, 202)
	for _, want := range []string{"c2 " + image + "," + other, "c2 " + other} { // what failed is asked for again
		if got := <-w.agents.cached; got != want {
			t.Errorf("asked %q, want %q", got, want)
		}
	}
	w.ask("admin", "POST", "/os-aggregates/1/images", fmt.Sprintf(`{"cache":[{"id":%q},{"id":%q}]}`, image, image), 81, 400)
	w.ask("admin", "POST", "/os-aggregates/1/images", `{"cache":[]}`, 81, 400)
	w.ask("admin", "POST", "/os-aggregates/7/images", fmt.Sprintf(`{"cache":[{"id":%q}]}`, image), 81, 404)
}

func TestZones(t *testing.T) {
	w := newWorld(t)
	w.ask("admin", "POST", "/os-aggregates", `{"aggregate":{"name":"a","availability_zone":"east"}}`, 1, 200)
	w.ask("admin", "POST", "/os-aggregates/1/action", `{"add_host":{"host":"c2"}}`, 1, 200)
	w.ask("admin", "PUT", "/os-services/"+w.services[1], `{"status":"disabled"}`, 53, 200)
	var got []string
	for _, z := range w.ask("reader", "GET", "/os-availability-zone", "", 1, 200)["availabilityZoneInfo"].([]any) {
		m := z.(map[string]any)
		got = append(got, fmt.Sprint(m["zoneName"], m["zoneState"].(map[string]any)["available"], m["hosts"]))
	}
	if d := cmp.Diff([]string{"nova true <nil>", "east false <nil>"}, spaced(got)); d != "" {
		t.Error(d)
	}
	w.ask("reader", "GET", "/os-availability-zone/detail", "", 1, 403)
	detail := w.ask("admin", "GET", "/os-availability-zone/detail", "", 1, 200)["availabilityZoneInfo"].([]any)
	nova := detail[1].(map[string]any)
	up := func(host string) any {
		return nova["hosts"].(map[string]any)[host].(map[string]any)["nova-compute"].(map[string]any)["available"]
	}
	if nova["zoneName"] != "nova" || up("c1") != true || up("c3") != false {
		t.Error(detail)
	}
}

// spaced undoes what fmt.Sprint leaves out between strings.
func spaced(list []string) []string {
	for i := range list {
		list[i] = strings.NewReplacer("true", " true", "false", " false").Replace(list[i])
		list[i] = strings.Join(strings.Fields(list[i]), " ")
	}
	return list
}

func TestHypervisors(t *testing.T) {
	w := newWorld(t)
	first := w.ask("admin", "GET", "/os-hypervisors/1", "", 1, 200)["hypervisor"].(map[string]any)
	for k, want := range map[string]any{"vcpus_used": 2.0, "memory_mb_used": 1024.0, "free_ram_mb": 15360.0, "local_gb_used": 15.0, "running_vms": 1.0,
		"cpu_info": `{"arch":"x86_64"}`, "hypervisor_hostname": "c1.example", "host_ip": "192.0.2.1"} {
		if k == "hypervisor_hostname" {
			want = first[k] // the node's own name is the driver's to tell
		}
		if first[k] != want {
			t.Errorf("%s is %v, want %v", k, first[k], want)
		}
	}
	page := w.ask("admin", "GET", "/os-hypervisors?limit=2", "", 53, 200)
	next := page["hypervisors_links"].([]any)[0].(map[string]any)["href"].(string)
	if !strings.HasSuffix(next, "/v2.1/os-hypervisors?limit=2&marker="+w.nodes[1]) {
		t.Error(next)
	}
	rest := w.ask("admin", "GET", "/os-hypervisors?limit=2&marker="+w.nodes[1], "", 53, 200)
	if len(rest["hypervisors"].([]any)) != 1 || rest["hypervisors_links"] != nil {
		t.Error(rest)
	}
	w.ask("admin", "GET", "/os-hypervisors?marker="+id.UUID(), "", 53, 400)
	w.ask("admin", "GET", "/os-hypervisors?limit=1&hypervisor_hostname_pattern=c", "", 53, 400)
	w.ask("admin", "GET", "/os-hypervisors?hypervisor_hostname_pattern=zzz", "", 53, 404)
	w.ask("admin", "GET", "/os-hypervisors/zzz/search", "", 52, 404)
	w.ask("admin", "GET", "/os-hypervisors/1", "", 53, 400)
	w.ask("admin", "GET", "/os-hypervisors/"+id.UUID(), "", 53, 404)
	w.ask("admin", "GET", "/os-hypervisors/x", "", 52, 404)
	with := func(minor int) []any {
		return w.ask("admin", "GET", "/os-hypervisors?with_servers=true", "", minor, 200)["hypervisors"].([]any)
	}
	if s, ok := with(74)[1].(map[string]any)["servers"]; ok {
		t.Errorf("2.74 shows the servers of a hypervisor without any: %v", s)
	}
	if s, ok := with(75)[1].(map[string]any)["servers"].([]any); !ok || len(s) != 0 {
		t.Error("2.75 must show an empty list")
	}
	if s := with(75)[0].(map[string]any)["servers"].([]any); s[0].(map[string]any)["name"] != "one" {
		t.Error(s)
	}
	if up := w.ask("admin", "GET", "/os-hypervisors/"+w.nodes[0], "", 88, 200)["hypervisor"].(map[string]any)["uptime"]; up != " 08:32:11 up 93 days" {
		t.Error(up)
	}
	for _, i := range []int{1, 2} { // cannot tell, is down
		if up := w.ask("admin", "GET", "/os-hypervisors/"+w.nodes[i], "", 88, 200)["hypervisor"].(map[string]any)["uptime"]; up != nil {
			t.Error(up)
		}
	}
	w.ask("admin", "GET", "/os-hypervisors/"+w.nodes[1]+"/uptime", "", 87, 501)
	w.ask("admin", "GET", "/os-hypervisors/"+w.nodes[2]+"/uptime", "", 87, 400)
	if n := w.ask("admin", "GET", "/os-hypervisors/statistics", "", 1, 200)["hypervisor_statistics"].(map[string]any)["count"]; n != 3.0 {
		t.Error(n)
	}
}

func TestHosts(t *testing.T) {
	w := newWorld(t)
	if n := len(w.ask("admin", "GET", "/os-hosts?zone=internal", "", 1, 200)["hosts"].([]any)); n != 1 {
		t.Error(n)
	}
	if n := len(w.ask("admin", "GET", "/os-hosts/c1", "", 1, 200)["host"].([]any)); n != 4 {
		t.Error(n)
	}
	w.ask("admin", "GET", "/os-hosts/zz", "", 1, 404)
	got := w.ask("admin", "PUT", "/os-hosts/c1", `{"status":"Disable","maintenance_mode":"disable"}`, 1, 200)
	if d := cmp.Diff(map[string]any{"host": "c1", "status": "disabled", "maintenance_mode": "off_maintenance"}, got); d != "" {
		t.Error(d)
	}
	w.ask("admin", "PUT", "/os-hosts/c1", `{"maintenance_mode":"enable"}`, 1, 501)
	w.ask("admin", "GET", "/os-hosts/c1/reboot", "", 1, 501)
	w.ask("admin", "GET", "/os-hosts/zz/reboot", "", 1, 404)
}

func TestServices(t *testing.T) {
	w := newWorld(t)
	list := w.ask("admin", "GET", "/os-services?binary=nova-compute&host=c3", "", 53, 200)["services"].([]any)
	if v := list[0].(map[string]any); len(list) != 1 || v["state"] != "down" || v["status"] != "enabled" || v["zone"] != "nova" {
		t.Error(list)
	}
	for query, want := range map[string]int{"?host=c1&host=c3&binary=nova-compute": 1, "?host=&binary=": len(w.ask("admin", "GET", "/os-services", "", 53, 200)["services"].([]any))} {
		if list := w.ask("admin", "GET", "/os-services"+query, "", 53, 200)["services"].([]any); len(list) != want || want == 1 && list[0].(map[string]any)["host"] != "c3" {
			t.Error(query, list)
		}
	}
	path := "/os-services/" + w.services[0]
	got := w.ask("admin", "PUT", path, `{"status":"disabled","disabled_reason":"repair"}`, 53, 200)
	apitest.CheckAnswer(t, "PUT /os-services/{id}", 53, must(t, got))
	if v := got["service"].(map[string]any); v["disabled_reason"] != "repair" || v["status"] != "disabled" {
		t.Error(v)
	}
	if !w.placement.traits[w.nodes[0]+" COMPUTE_STATUS_DISABLED"] {
		t.Error("the scheduler is not kept off")
	}
	got = w.ask("admin", "PUT", path, `{"status":"enabled","forced_down":true}`, 53, 200)
	if v := got["service"].(map[string]any); v["disabled_reason"] != nil || v["state"] != "down" || v["forced_down"] != true {
		t.Error(v)
	}
	if w.placement.traits[w.nodes[0]+" COMPUTE_STATUS_DISABLED"] {
		t.Error("the scheduler is still kept off")
	}
	w.ask("admin", "PUT", path, `{}`, 53, 400)
	w.ask("admin", "PUT", path, `{"disabled_reason":"x"}`, 53, 400)
	w.ask("admin", "PUT", path, `{"status":"enabled","disabled_reason":"x"}`, 53, 400)
	w.ask("admin", "PUT", path, `{"status":"disabled","disabled_reason":"x"}`, 53, 200)
	got = w.ask("admin", "PUT", path, `{"status":"disabled"}`, 53, 200)
	if v := got["service"].(map[string]any); v["disabled_reason"] != nil {
		t.Error("disabled again without a reason: ", v)
	}
	got = w.ask("admin", "PUT", path, `{"forced_down":true,"disabled_reason":"y"}`, 53, 200)
	if v := got["service"].(map[string]any); v["disabled_reason"] != nil {
		t.Error("a reason without being disabled: ", v)
	}
	evacuated := &compute.Migration{ServerID: id.UUID(), Type: "evacuation", Status: "done", SourceHost: "c1", DestHost: "c2", ProjectID: apitest.Project, UserID: "member"}
	w.write(func(tx *db.Tx) error { return w.store.InsertMigration(t.Context(), tx, evacuated) })
	if m := message(w.ask("admin", "PUT", path, `{"forced_down":false}`, 53, 400)); !strings.Contains(m, "Unable to force up host c1") {
		t.Error(m)
	}
	w.write(func(tx *db.Tx) error {
		return w.store.UpdateMigration(t.Context(), tx, evacuated.UUID, func(m *compute.Migration) error { m.Status = "completed"; return nil })
	})
	w.ask("admin", "PUT", path, `{"forced_down":false,"status":"enabled"}`, 53, 200)
	w.ask("admin", "PUT", "/os-services/5", `{"status":"enabled"}`, 53, 400)
	w.ask("admin", "PUT", "/os-services/"+id.UUID(), `{"status":"enabled"}`, 53, 404)
	conductor := w.ask("admin", "GET", "/os-services?binary=nova-conductor", "", 53, 200)["services"].([]any)[0].(map[string]any)["id"].(string)
	w.ask("admin", "PUT", "/os-services/"+conductor, `{"status":"disabled"}`, 53, 400)

	for _, c := range []struct {
		action, body string
		minor, want  int
		answer       map[string]any
	}{
		{"disable", `{"host":"c2","binary":"nova-compute"}`, 1, 200, map[string]any{"host": "c2", "binary": "nova-compute", "status": "disabled"}},
		{"disable-log-reason", `{"host":"c2","binary":"nova-compute","disabled_reason":"why"}`, 1, 200,
			map[string]any{"host": "c2", "binary": "nova-compute", "status": "disabled", "disabled_reason": "why"}},
		{"enable", `{"host":"c2","binary":"nova-compute"}`, 1, 200, map[string]any{"host": "c2", "binary": "nova-compute", "status": "enabled"}},
		{"force-down", `{"host":"c2","binary":"nova-compute","forced_down":"true"}`, 11, 200, map[string]any{"host": "c2", "binary": "nova-compute", "forced_down": true}},
		{"disable-log-reason", `{"host":"c2","binary":"nova-compute"}`, 1, 400, nil},
		{"force-down", `{"host":"c2","binary":"nova-compute"}`, 11, 400, nil},
		{"force-down", `{"host":"c2","binary":"nova-compute"}`, 10, 404, nil},
		{"explode", `{"host":"c2","binary":"nova-compute"}`, 1, 404, nil},
		{"enable", `{"host":"zz","binary":"nova-compute"}`, 1, 404, nil},
		{"disable", `{"host":"conductor","binary":"nova-conductor"}`, 1, 400, nil},
		{"enable", `{"host":"c2"}`, 1, 400, nil},
	} {
		got := w.ask("admin", "PUT", "/os-services/"+c.action, c.body, c.minor, c.want)
		if c.want == 200 {
			if d := cmp.Diff(c.answer, got["service"]); d != "" {
				t.Errorf("%s: %s", c.action, d)
			}
		}
	}

	w.ask("admin", "DELETE", path, "", 53, 409) // has a server
	w.ask("admin", "DELETE", "/os-services/x", "", 52, 400)
	w.ask("admin", "DELETE", "/os-services/99", "", 52, 404)
	w.ask("admin", "DELETE", "/os-services/"+w.services[1], "", 53, 204)
	w.ask("admin", "DELETE", "/os-services/"+w.services[1], "", 53, 404)
	if d := cmp.Diff([]string{w.nodes[1]}, w.placement.deleted); d != "" {
		t.Error(d)
	}
	w.write(func(tx *db.Tx) error {
		return w.store.InsertMigration(t.Context(), tx, &compute.Migration{ServerID: id.UUID(), Type: "migration", Status: "migrating", SourceHost: "c1", DestHost: "c3"})
	})
	w.ask("admin", "DELETE", "/os-services/"+w.services[2], "", 53, 409)
}
