package proxy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/auth"
	"kilonova/internal/compute"
	"kilonova/internal/compute/api/apitest"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/api/proxy"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/id"
	"kilonova/internal/image"
	imagelocal "kilonova/internal/image/local"
	networkapi "kilonova/internal/network/api"
	networklocal "kilonova/internal/network/local"
	"kilonova/internal/operation"
	"kilonova/internal/policy"
)

type world struct {
	t      *testing.T
	h      http.Handler
	images *imagelocal.Service
	net    http.Handler
	store  *store.Store
}

// newWorld has real image and network services behind the proxies.
func newWorld(t *testing.T) *world {
	t.Helper()
	ctx := t.Context()
	d, err := db.Open(ctx, "sqlite:"+filepath.Join(t.TempDir(), "k.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	engine, err := operation.New(ctx, operation.Config{DB: d})
	check(err)
	s, err := store.New(ctx, d)
	check(err)
	images, err := imagelocal.New(ctx, imagelocal.Config{DB: d, Dir: t.TempDir()})
	check(err)
	t.Cleanup(func() { images.Close() })
	nets, err := networklocal.New(ctx, networklocal.Config{DB: d})
	check(err)
	t.Cleanup(func() { _ = nets.Close() })
	rules, err := policy.New(networkapi.Rules(), nil)
	check(err)
	nh, err := networkapi.New(networkapi.Config{Service: nets, Auth: apitest.Tokens(), Policy: rules}).Handler()
	check(err)
	b := backend.New(backend.Services{Store: s, Operations: engine, Reader: engine, Images: images, Network: nets}, backend.Options{})
	return &world{t: t, h: apitest.Handler(t, proxy.Handlers(b, proxy.Options{Network: proxy.InProcess(nh), ImageURL: "http://images"})), images: images, net: nh, store: s}
}

func (w *world) ask(token, method, path, body string, minor, want int) map[string]any {
	w.t.Helper()
	r := apitest.Call(w.h, token, method, "/v2.1"+path, body, minor)
	return w.decoded(r, method+" "+path+" "+body, want)
}

// ask the network API itself.
func (w *world) network(token, method, path, body string, want int) map[string]any {
	w.t.Helper()
	return w.decoded(apitest.Call(w.net, token, method, "/v2.0"+path, body, 0), method+" "+path+" "+body, want)
}

func (w *world) decoded(r *httptest.ResponseRecorder, what string, want int) map[string]any {
	w.t.Helper()
	if r.Code != want {
		w.t.Fatalf("%s: got %d %s, want %d", what, r.Code, r.Body, want)
	}
	var m map[string]any
	if r.Body.Len() > 0 {
		if err := json.Unmarshal(r.Body.Bytes(), &m); err != nil {
			w.t.Fatal(err)
		}
	}
	return m
}

func (w *world) conforms(key, path string) {
	w.t.Helper()
	for _, minor := range []int{1, 35} {
		r := apitest.Call(w.h, "admin", "GET", "/v2.1"+path, "", minor)
		if r.Code != 200 {
			w.t.Fatalf("%s at 2.%d: %d %s", path, minor, r.Code, r.Body)
		}
		apitest.CheckAnswer(w.t, key, minor, r.Body.Bytes())
	}
	if r := apitest.Call(w.h, "admin", "GET", "/v2.1"+path, "", 36); r.Code != 404 {
		w.t.Errorf("%s at 2.36: %d", path, r.Code)
	}
}

func inner(m map[string]any, key string) map[string]any { return m[key].(map[string]any) }

func TestImages(t *testing.T) {
	w := newWorld(t)
	owner := &auth.Caller{UserID: "member", ProjectID: apitest.Project, Roles: []string{"member", "reader"}}
	var ids []string
	for i, name := range []string{"one", "two", "three"} {
		img := image.Image{Name: name, Owner: apitest.Project, Visibility: "private", DiskFormat: "raw", ContainerFormat: "bare", MinRAM: int64(i) * 100,
			Properties: map[string]string{"os": name}}
		if name == "three" {
			img.Properties["instance_uuid"], img.Properties["auto_disk_config"], img.Properties["image_type"] = id.UUID(), "True", "snapshot"
		}
		made, err := w.images.Create(t.Context(), owner, img)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, made.ID)
	}
	if err := w.images.Upload(t.Context(), owner, ids[0], strings.NewReader("data"), 4); err != nil {
		t.Fatal(err)
	}
	w.conforms("GET /images", "/images?limit=2")
	w.conforms("GET /images/detail", "/images/detail")
	w.conforms("GET /images/{id}", "/images/"+ids[2])
	one := inner(w.ask("reader", "GET", "/images/"+ids[0], "", 1, 200), "image")
	if one["status"] != "ACTIVE" || one["progress"] != 100.0 || one["OS-EXT-IMG-SIZE:size"] != 4.0 {
		t.Error(one)
	}
	if alt := one["links"].([]any)[2].(map[string]any)["href"]; alt != "http://images/images/"+ids[0] {
		t.Error(alt)
	}
	for query, want := range map[string]int{"": 3, "name=two": 1, "status=ACTIVE": 1, "status=saving": 2, "minRam=100": 2, "type=snapshot": 1, "property-os=one": 1,
		"changes-since=2020-01-01T00:00:00Z": 3, "limit=2": 2, "minDisk=1": 0} {
		if n := len(w.ask("reader", "GET", "/images?"+query, "", 1, 200)["images"].([]any)); n != want {
			t.Errorf("%s: %d, want %d", query, n, want)
		}
	}
	w.ask("reader", "GET", "/images?minRam=x", "", 1, 400)
	w.ask("reader", "GET", "/images?marker="+id.UUID(), "", 1, 400)
	w.ask("reader@other", "GET", "/images/"+ids[0], "", 1, 404)

	meta := "/images/" + ids[1] + "/metadata"
	if d := cmp.Diff(map[string]any{"os": "two"}, inner(w.ask("member", "GET", meta, "", 38, 200), "metadata")); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]any{"os": "two", "a": "b"}, inner(w.ask("member", "POST", meta, `{"metadata":{"a":"b"}}`, 1, 200), "metadata")); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]any{"c": "d"}, inner(w.ask("member", "PUT", meta, `{"metadata":{"c":"d"}}`, 1, 200), "metadata")); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]any{"e": "f"}, inner(w.ask("member", "PUT", meta+"/e", `{"meta":{"e":"f"}}`, 1, 200), "meta")); d != "" {
		t.Error(d)
	}
	w.ask("member", "PUT", meta+"/e", `{"meta":{"x":"f"}}`, 1, 400)
	w.ask("member", "GET", meta+"/e", "", 1, 200)
	w.ask("member", "DELETE", meta+"/e", "", 1, 204)
	w.ask("member", "GET", meta+"/e", "", 1, 404)
	w.ask("member", "DELETE", meta+"/e", "", 1, 404)
	w.ask("member", "GET", meta, "", 39, 404)
	many := map[string]string{}
	for i := range 129 {
		many[fmt.Sprint("key", i)] = "v"
	}
	b, err := json.Marshal(map[string]any{"metadata": many})
	if err != nil {
		t.Fatal(err)
	}
	w.ask("member", "PUT", meta, string(b), 1, 403)
	w.ask("member", "DELETE", "/images/"+ids[1], "", 1, 204)
	w.ask("member", "DELETE", "/images/"+ids[1], "", 1, 404)
}

// external makes an external network and a private one with a router between them.
func (w *world) networks() (public, private string) {
	public = inner(w.network("admin", "POST", "/networks", `{"network":{"name":"public","router:external":true}}`, 201), "network")["id"].(string)
	w.network("admin", "POST", "/subnets", fmt.Sprintf(`{"subnet":{"network_id":%q,"ip_version":4,"cidr":"198.51.100.0/29"}}`, public), 201)
	private = inner(w.network("member", "POST", "/networks", `{"network":{"name":"private"}}`, 201), "network")["id"].(string)
	subnet := inner(w.network("member", "POST", "/subnets", fmt.Sprintf(`{"subnet":{"network_id":%q,"ip_version":4,"cidr":"10.0.0.0/24"}}`, private), 201), "subnet")["id"].(string)
	router := inner(w.network("member", "POST", "/routers", fmt.Sprintf(`{"router":{"name":"r","external_gateway_info":{"network_id":%q}}}`, public), 201), "router")["id"].(string)
	w.network("member", "PUT", "/routers/"+router+"/add_router_interface", fmt.Sprintf(`{"subnet_id":%q}`, subnet), 200)
	return public, private
}

func TestNetworks(t *testing.T) {
	w := newWorld(t)
	_, private := w.networks()
	w.network("admin@other", "POST", "/networks", `{"network":{"name":"shared","shared":true}}`, 201)
	w.network("admin@other", "POST", "/networks", `{"network":{"name":"foreign"}}`, 201)
	for path, key := range map[string]string{"/os-networks": "GET /os-networks", "/os-tenant-networks": "GET /os-tenant-networks"} {
		w.conforms(key, path)
		w.conforms(key+"/{id}", path+"/"+private)
		var labels []string
		for _, n := range w.ask("reader", "GET", path, "", 1, 200)["networks"].([]any) {
			labels = append(labels, n.(map[string]any)["label"].(string))
		}
		if s := strings.Join(labels, " "); !strings.Contains(s, "private") || !strings.Contains(s, "shared") || strings.Contains(s, "foreign") {
			t.Errorf("%s: %s", path, s)
		}
		w.ask("reader", "GET", path+"/"+id.UUID(), "", 1, 404)
	}
}

func TestFloatingIPs(t *testing.T) {
	w := newWorld(t)
	_, private := w.networks()
	w.conforms("GET /os-floating-ip-pools", "/os-floating-ip-pools")
	w.ask("member", "POST", "/os-floating-ips", `{"pool":"nowhere"}`, 1, 404)
	made := inner(w.ask("member", "POST", "/os-floating-ips", `{"pool":"public"}`, 1, 200), "floating_ip")
	if made["pool"] != "public" || made["instance_id"] != nil {
		t.Error(made)
	}
	path := "/os-floating-ips/" + made["id"].(string)
	server := &compute.Server{ID: id.UUID(), Name: "s", ProjectID: apitest.Project, UserID: "member", VMState: compute.VMActive, DiskConfig: "AUTO"}
	if err := w.store.DB.Write(t.Context(), func(tx *db.Tx) error { return w.store.InsertServer(t.Context(), tx, server) }); err != nil {
		t.Fatal(err)
	}
	w.network("member", "POST", "/ports", fmt.Sprintf(`{"port":{"network_id":%q,"device_id":%q,"device_owner":"compute:nova"}}`, private, server.ID), 201)
	action := "/servers/" + server.ID + "/action"
	address := func(extra string) string { return fmt.Sprintf(`{"address":%q%s}`, made["ip"], extra) }
	w.ask("member", "POST", action, `{"removeFloatingIp":`+address("")+`}`, 1, 409)
	w.ask("member", "POST", action, `{"addFloatingIp":{"address":"203.0.113.9"}}`, 1, 404)
	w.ask("member", "POST", action, `{"addFloatingIp":`+address(`,"fixed_address":"10.9.9.9"`)+`}`, 1, 400)
	w.ask("member", "POST", action, `{"addFloatingIp":`+address("")+`}`, 1, 202)
	if got := inner(w.ask("reader", "GET", path, "", 1, 200), "floating_ip"); got["instance_id"] != server.ID || !strings.HasPrefix(got["fixed_ip"].(string), "10.0.0.") {
		t.Error(got)
	}
	w.conforms("GET /os-floating-ips", "/os-floating-ips")
	w.conforms("GET /os-floating-ips/{id}", path)
	w.ask("member", "POST", action, `{"removeFloatingIp":`+address("")+`}`, 1, 202)
	w.ask("member", "POST", action, `{"addFloatingIp":`+address("")+`}`, 44, 404)
	two := []any{made["ip"], inner(w.ask("member", "POST", "/os-floating-ips", `{}`, 1, 200), "floating_ip")["ip"]}
	for i, want := range []int{202, 400} { // one fixed address has one floating address
		w.ask("member", "POST", action, fmt.Sprintf(`{"addFloatingIp":{"address":%q}}`, two[i]), 1, want)
	}
	w.ask("member", "DELETE", path, "", 1, 202)
	w.ask("member", "GET", path, "", 1, 404)
	w.ask("member", "GET", "/os-floating-ips/x", "", 1, 404)
	for range 8 { // the pool has four addresses left at most
		if r := apitest.Call(w.h, "member", "POST", "/v2.1/os-floating-ips", `{}`, 1); r.Code != 200 {
			if r.Code != 404 || !strings.Contains(r.Body.String(), "No more floating IPs in pool public.") {
				t.Error(r.Code, r.Body)
			}
			return
		}
	}
	t.Error("the pool never ends")
}

func TestSecurityGroups(t *testing.T) {
	w := newWorld(t)
	made := inner(w.ask("member", "POST", "/os-security-groups", `{"security_group":{"name":" web ","description":"d"}}`, 1, 200), "security_group")
	if made["name"] != " web " || made["tenant_id"] != apitest.Project || len(made["rules"].([]any)) != 0 {
		t.Error(made)
	}
	group := made["id"].(string)
	path := "/os-security-groups/" + group
	for _, bad := range []string{`{"security_group":{"name":"","description":""}}`, `{"security_group":{"name":"x"}}`, `{"security_group":{"name":"` + strings.Repeat("x", 256) + `","description":""}}`} {
		w.ask("member", "POST", "/os-security-groups", bad, 1, 400)
	}
	renamed := inner(w.ask("member", "PUT", path, `{"security_group":{"name":"www","description":"e"}}`, 1, 200), "security_group")
	if renamed["name"] != "www" || renamed["description"] != "e" {
		t.Error(renamed)
	}
	rule := func(fields string) string {
		return fmt.Sprintf(`{"security_group_rule":{"parent_group_id":%q,%s}}`, group, fields)
	}
	for _, c := range []struct {
		name, fields string
		want         int
		view         map[string]any
	}{
		{"tcp", `"ip_protocol":"TCP","from_port":"22","to_port":22,"cidr":"10.0.0.0/8"`, 200, map[string]any{"ip_protocol": "tcp", "from_port": 22.0, "to_port": 22.0, "ip_range": map[string]any{"cidr": "10.0.0.0/8"}, "group": map[string]any{}}},
		{"twice", `"ip_protocol":"tcp","from_port":22,"to_port":22,"cidr":"10.0.0.0/8"`, 400, nil},
		{"icmp", `"ip_protocol":"icmp","from_port":-1,"to_port":-1`, 200, map[string]any{"ip_protocol": "icmp", "from_port": -1.0, "to_port": -1.0, "ip_range": map[string]any{"cidr": "0.0.0.0/0"}, "group": map[string]any{}}},
		{"group", fmt.Sprintf(`"group_id":%q`, group), 200, map[string]any{"ip_protocol": nil, "from_port": nil, "to_port": nil, "ip_range": map[string]any{}, "group": map[string]any{"name": "www", "tenant_id": apitest.Project}}},
		{"group, all tcp", fmt.Sprintf(`"ip_protocol":"tcp","group_id":%q`, group), 200, map[string]any{"ip_protocol": "tcp", "from_port": 1.0, "to_port": 65535.0, "ip_range": map[string]any{}, "group": map[string]any{"name": "www", "tenant_id": apitest.Project}}},
		{"no protocol", `"from_port":1,"to_port":2`, 400, nil},
		{"unknown protocol", `"ip_protocol":"sctp","from_port":1,"to_port":2`, 400, nil},
		{"turned ports", `"ip_protocol":"tcp","from_port":3,"to_port":2`, 400, nil},
		{"large port", `"ip_protocol":"tcp","from_port":3,"to_port":65536`, 400, nil},
		{"no ports", `"ip_protocol":"udp"`, 400, nil},
		{"no number", `"ip_protocol":"tcp","from_port":"x","to_port":2`, 400, nil},
		{"bad cidr", `"ip_protocol":"tcp","from_port":1,"to_port":2,"cidr":"2.3.4"`, 400, nil},
	} {
		got := w.ask("member", "POST", "/os-security-group-rules", rule(c.fields), 1, c.want)
		if c.view == nil {
			continue
		}
		view := inner(got, "security_group_rule")
		apitest.CheckAnswer(t, "POST /os-security-group-rules", 1, mustJSON(t, got))
		c.view["id"], c.view["parent_group_id"] = view["id"], group
		if d := cmp.Diff(c.view, view); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
	w.ask("member", "POST", "/os-security-group-rules", fmt.Sprintf(`{"security_group_rule":{"parent_group_id":%q,"ip_protocol":"tcp","from_port":1,"to_port":2}}`, id.UUID()), 1, 404)
	w.conforms("GET /os-security-groups", "/os-security-groups?all_tenants=1")
	w.conforms("GET /os-security-groups/{id}", path)
	rules := inner(w.ask("reader", "GET", path, "", 1, 200), "security_group")["rules"].([]any)
	if len(rules) != 4 {
		t.Error(rules)
	}
	one := "/os-security-group-rules/" + rules[0].(map[string]any)["id"].(string)
	w.ask("member", "DELETE", one, "", 1, 202)
	w.ask("member", "DELETE", one, "", 1, 404)
	w.ask("member", "DELETE", "/os-security-group-rules/x", "", 1, 400)
	if n := len(w.ask("reader", "GET", "/os-security-groups?limit=1", "", 1, 200)["security_groups"].([]any)); n != 1 {
		t.Error(n)
	}
	w.ask("member@other", "GET", path, "", 1, 404)
	w.ask("reader", "GET", "/os-security-groups/x", "", 1, 400)
	w.ask("member", "DELETE", path, "", 1, 202)
	w.ask("member", "DELETE", path, "", 1, 404)
}

func TestServerSecurityGroups(t *testing.T) {
	w := newWorld(t)
	_, private := w.networks()
	server := &compute.Server{ID: id.UUID(), Name: "s", ProjectID: apitest.Project, UserID: "member", VMState: compute.VMActive, DiskConfig: "AUTO"}
	if err := w.store.DB.Write(t.Context(), func(tx *db.Tx) error { return w.store.InsertServer(t.Context(), tx, server) }); err != nil {
		t.Fatal(err)
	}
	path := "/servers/" + server.ID + "/os-security-groups"
	if n := len(w.ask("reader", "GET", path, "", 1, 200)["security_groups"].([]any)); n != 0 {
		t.Error(n)
	}
	for range 2 {
		w.network("member", "POST", "/ports", fmt.Sprintf(`{"port":{"network_id":%q,"device_id":%q}}`, private, server.ID), 201)
	}
	r := apitest.Call(w.h, "reader", "GET", "/v2.1"+path, "", 104)
	apitest.CheckAnswer(t, "GET /servers/{server_id}/os-security-groups", 104, r.Body.Bytes())
	list := w.decoded(r, path, 200)["security_groups"].([]any)
	if len(list) != 1 || list[0].(map[string]any)["name"] != "default" {
		t.Error(list)
	}
	w.ask("reader@other", "GET", path, "", 1, 404)
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestNetworkServiceTrouble(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   int
	}{
		"over quota": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(409)
			_, _ = w.Write([]byte(`{"NeutronError":{"type":"OverQuota","message":"Quota exceeded for resources: ['security_group'].","detail":""}}`))
		}, 403},
		"failure":  {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, 503},
		"no JSON":  {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }, 503},
		"no token": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, 401},
	} {
		h := apitest.Handler(t, proxy.Handlers(backend.New(backend.Services{}, backend.Options{}), proxy.Options{Network: proxy.InProcess(c.answer)}))
		if r := apitest.Call(h, "member", "POST", "/v2.1/os-security-groups", `{"security_group":{"name":"x","description":""}}`, 1); r.Code != c.want {
			t.Errorf("%s: %d %s", name, r.Code, r.Body)
		}
	}
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2.0/networks" || r.Header.Get("X-Auth-Token") != "reader" || !strings.HasPrefix(r.Header.Get("X-Openstack-Request-Id"), "req-") {
			t.Errorf("%s %v", r.URL, r.Header)
		}
		_, _ = w.Write([]byte(`{"networks":[{"id":"n","name":"far"}]}`))
	}))
	h := apitest.Handler(t, proxy.Handlers(backend.New(backend.Services{}, backend.Options{}), proxy.Options{Network: proxy.Remote(far.URL, far.Client())}))
	if r := apitest.Call(h, "reader", "GET", "/v2.1/os-floating-ip-pools", "", 1); r.Body.String() != `{"floating_ip_pools":[{"name":"far"}]}` {
		t.Error(r.Body)
	}
	far.Close()
	if r := apitest.Call(h, "reader", "GET", "/v2.1/os-floating-ip-pools", "", 1); r.Code != 503 {
		t.Error(r.Code, r.Body)
	}
}

func TestBareMetal(t *testing.T) {
	w := newWorld(t)
	w.ask("admin", "POST", "/os-baremetal-nodes", "", 1, 400)
	for _, path := range []string{"/os-baremetal-nodes", "/os-baremetal-nodes/x"} {
		w.ask("admin", "GET", path, "", 35, 501)
		w.ask("admin", "GET", path, "", 36, 404)
		w.ask("member", "GET", path, "", 35, 403)
	}
}
