package resources_test

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"kilonova/internal/compute/api/apitest"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/api/resources"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/operation"
)

// projects knows the two projects of apitest.
type projects struct{}

func (projects) ProjectExists(_ context.Context, id string) (bool, error) {
	return id == apitest.Project || id == apitest.Other, nil
}

type world struct {
	*testing.T
	h http.Handler
}

func newWorld(t *testing.T) *world {
	t.Helper()
	d, err := db.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "k.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	if _, err := operation.New(t.Context(), operation.Config{DB: d}); err != nil {
		t.Fatal(err)
	}
	s, err := store.New(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	b := backend.New(backend.Services{Store: s, Projects: projects{}}, backend.Options{Quota: store.Limits{"key_pairs": 4}})
	return &world{T: t, h: apitest.Handler(t, resources.Handlers(b))}
}

func (w *world) call(token, method, path, body string, minor, want int) []byte {
	w.Helper()
	out := apitest.Call(w.h, token, method, "/v2.1"+path, body, minor)
	if out.Code != want {
		w.Fatalf("%s %s at 2.%d: %d, want %d: %s", method, path, minor, out.Code, want, out.Body.String())
	}
	return bytes.Clone(out.Body.Bytes())
}

func (w *world) ask(token, method, path, body string, minor, want int) map[string]any {
	w.Helper()
	var m map[string]any
	if raw := w.call(token, method, path, body, minor, want); len(raw) > 0 {
		if err := json.Unmarshal(raw, &m); err != nil {
			w.Fatalf("%v in %s", err, raw)
		}
	}
	return m
}

func (w *world) refused(token, method, path, body string, minor, want int) string {
	w.Helper()
	for _, v := range w.ask(token, method, path, body, minor, want) {
		if m, ok := v.(map[string]any); ok {
			return fmt.Sprint(m["message"])
		}
	}
	return ""
}

var borders = []int{1, 6, 7, 54, 55, 60, 61, 74, 75, 85, 86, 101, 102, 104}

func TestFlavors(t *testing.T) {
	w := newWorld(t)
	for _, minor := range borders {
		body := fmt.Sprintf(`{"flavor":{"name":"f%d","id":"id%d","ram":"512","vcpus":1,"disk":10,"swap":"64","OS-FLV-EXT-DATA:ephemeral":2}}`, minor, minor)
		apitest.CheckAnswer(t, "POST /flavors", minor, w.call("admin", "POST", "/flavors", body, minor, 200))
		for _, token := range []string{"admin", "reader"} {
			apitest.CheckAnswer(t, "GET /flavors/{id}", minor, w.call(token, "GET", fmt.Sprint("/flavors/id", minor), "", minor, 200))
			apitest.CheckAnswer(t, "GET /flavors", minor, w.call(token, "GET", "/flavors", "", minor, 200))
			apitest.CheckAnswer(t, "GET /flavors/detail", minor, w.call(token, "GET", "/flavors/detail", "", minor, 200))
		}
	}
	apitest.CheckAnswer(t, "PUT /flavors/{id}", 61, w.call("admin", "PUT", "/flavors/id1", `{"flavor":{"description":"new"}}`, 61, 200))
	for body, want := range map[string]struct {
		minor, code int
		text        string
	}{
		`{"flavor":{"name":"f1","ram":1,"vcpus":1,"disk":1}}`:                         {1, 409, "Flavor with name f1 already exists."},
		`{"flavor":{"name":"n","id":"id1","ram":1,"vcpus":1,"disk":1}}`:               {1, 409, "Flavor with ID id1 already exists."},
		`{"flavor":{"name":"n","ram":0,"vcpus":1,"disk":1}}`:                          {1, 400, "ram"},
		`{"flavor":{"name":"n","ram":1,"vcpus":"x","disk":1}}`:                        {1, 400, "vcpus"},
		`{"flavor":{"name":"n","ram":1,"vcpus":1,"disk":1,"rxtx_factor":-1}}`:         {1, 400, "rxtx_factor"},
		`{"flavor":{"name":"n","ram":1,"vcpus":1,"disk":1,"rxtx_factor":1.5}}`:        {102, 400, "rxtx_factor"},
		`{"flavor":{"name":"n","ram":1,"vcpus":1,"disk":1,"description":"too soon"}}`: {54, 400, "description"},
	} {
		if got := w.refused("admin", "POST", "/flavors", body, want.minor, want.code); !strings.Contains(got, want.text) {
			t.Errorf("%s: %s", body, got)
		}
	}
	w.refused("member", "POST", "/flavors", `{"flavor":{"name":"n","ram":1,"vcpus":1,"disk":1}}`, 1, 403)
	made := w.ask("admin", "POST", "/flavors", `{"flavor":{"name":"auto","id":"auto","ram":1,"vcpus":1,"disk":0}}`, 1, 200)["flavor"].(map[string]any)
	if id := made["id"].(string); len(id) != 36 || made["swap"] != "" || made["rxtx_factor"] != 1.0 {
		t.Fatal(made)
	}
	w.call("admin", "DELETE", "/flavors/"+made["id"].(string), "", 1, 202)
	w.refused("admin", "DELETE", "/flavors/"+made["id"].(string), "", 1, 404)
	page := w.ask("reader", "GET", "/flavors?limit=2&sort_key=name&sort_dir=desc", "", 1, 200)
	if page["flavors_links"] == nil || len(page["flavors"].([]any)) != 2 {
		t.Fatal(page)
	}
	for q, code := range map[string]int{"?marker=none": 400, "?limit=-1": 400, "?minRam=x": 400, "?sort_key=nonsense": 400} {
		w.refused("reader", "GET", "/flavors"+q, "", 1, code)
	}
	if got := w.ask("reader", "GET", "/flavors?name=f7", "", 102, 200)["flavors"].([]any); len(got) != 1 {
		t.Fatal(got)
	}
}

func TestFlavorAccess(t *testing.T) {
	w := newWorld(t)
	w.call("admin@other", "POST", "/flavors", `{"flavor":{"name":"private","id":"p","ram":1,"vcpus":1,"disk":1,"os-flavor-access:is_public":"False"}}`, 1, 200)
	w.call("admin", "POST", "/flavors", `{"flavor":{"name":"public","id":"q","ram":1,"vcpus":1,"disk":1}}`, 1, 200)
	w.refused("reader", "GET", "/flavors/p", "", 1, 404)
	w.refused("reader@other", "GET", "/flavors/p", "", 1, 404) // not even its creator's project has access by itself
	add := `{"addTenantAccess":{"tenant":"` + apitest.Project + `"}}`
	apitest.CheckAnswer(t, "POST /flavors/{id}/action addTenantAccess", 1, w.call("admin", "POST", "/flavors/p/action", add, 1, 200))
	w.call("reader", "GET", "/flavors/p", "", 1, 200)
	w.refused("admin", "POST", "/flavors/p/action", add, 1, 409)
	w.refused("admin", "POST", "/flavors/q/action", add, 7, 409)
	w.refused("admin", "POST", "/flavors/p/action", `{"addTenantAccess":{"tenant":"nobody"}}`, 1, 400)
	w.refused("admin", "GET", "/flavors/q/os-flavor-access", "", 1, 404)
	got := w.ask("admin", "GET", "/flavors/p/os-flavor-access", "", 1, 200)
	want := map[string]any{"flavor_access": []any{map[string]any{"flavor_id": "p", "tenant_id": apitest.Project}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	remove := `{"removeTenantAccess":{"tenant":"` + apitest.Project + `"}}`
	w.call("admin", "POST", "/flavors/p/action", remove, 1, 200)
	w.refused("admin", "POST", "/flavors/p/action", remove, 1, 404)
	for query, n := range map[string]int{"": 1, "?is_public=None": 2, "?is_public=false": 1} {
		if got := w.ask("admin", "GET", "/flavors"+query, "", 1, 200)["flavors"].([]any); len(got) != n {
			t.Errorf("%s: %v", query, got)
		}
	}
}

func TestExtraSpecs(t *testing.T) {
	w := newWorld(t)
	w.call("admin", "POST", "/flavors", `{"flavor":{"name":"f","id":"f","ram":1,"vcpus":1,"disk":1}}`, 1, 200)
	p := "/flavors/f/os-extra_specs"
	w.call("admin", "POST", p, `{"extra_specs":{"hw:cpu_policy":"shared","odd":"1"}}`, 86, 200)
	w.call("admin", "PUT", p+"/hw:numa_nodes", `{"hw:numa_nodes":2}`, 86, 200)
	w.refused("admin", "PUT", p+"/a", `{"b":"1"}`, 1, 400)
	if diff := cmp.Diff(map[string]any{"extra_specs": map[string]any{"hw:cpu_policy": "shared", "odd": "1", "hw:numa_nodes": "2"}}, w.ask("reader", "GET", p, "", 1, 200)); diff != "" {
		t.Fatal(diff)
	}
	w.refused("reader", "GET", p+"/none", "", 1, 404)
	w.call("admin", "DELETE", p+"/odd", "", 1, 200)
	w.refused("admin", "DELETE", p+"/odd", "", 1, 404)
	for spec, ok := range map[string]bool{"hw:cpu_policy=shared": true, "hw:cpu_policy=sometimes": false, "hw:nonsense=1": false, "hw:cpu_realtime=yes": true, "hw:cpu_realtime=maybe": false, "hw:numa_nodes=0": false,
		"hw:numa_cpus.1=0-3,5": true, "hw:mem_page_size=large": true, "hw:mem_page_size=2MB": true, "hw:mem_page_size=huge": false, "quota:cpu_shares=5": true, "quota:cpu_bananas=5": false, "resources:VCPU=2": true,
		"resources1:CUSTOM_X=2": true, "resources:vcpu=1": false, "trait:HW_CPU_X86_AVX=required": true, "trait:HW_CPU_X86_AVX=maybe": false, "group_policy=isolate": true, "group_policy=none": true, "group_policy=x": false,
		"os:secure_boot=required": true, "os:secure_boot=1": false, "pci_passthrough:alias=gpu:1": true, "pci_passthrough:alias=gpu": false, "my:own=anything": true, "capabilities:x=<in> y": false, "capabilities:cpu_info:vendor=AMD": true, "trait:HW_NOT_KNOWN=required": false, "hw:numa_cpus.0=^1": true,
		"hw_rng:allowed=true": true, "hw_rng:what=1": false, "accel:device_profile=p": true, "aggregate_instance_extra_specs:ssd=true": true} {
		k, v, _ := strings.Cut(spec, "=")
		body := fmt.Sprintf(`{"extra_specs":{%q:%q}}`, k, v)
		want := map[bool]int{true: 200, false: 400}[ok]
		w.call("admin", "POST", p, body, 86, want)
		w.call("admin", "POST", p, body, 85, 200) // nothing is judged before
	}
}

func TestKeyPairs(t *testing.T) {
	w := newWorld(t)
	// Generated: the private key belongs to the public one and is shown once.
	made := w.ask("member", "POST", "/os-keypairs", `{"keypair":{"name":"made"}}`, 1, 200)["keypair"].(map[string]any)
	private, err := ssh.ParsePrivateKey([]byte(made["private_key"].(string)))
	if err != nil {
		t.Fatal(err)
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(made["public_key"].(string)))
	if err != nil || !bytes.Equal(public.Marshal(), private.PublicKey().Marshal()) || made["fingerprint"] != ssh.FingerprintLegacyMD5(public) {
		t.Fatal(made, err)
	}
	imported := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public)))
	body := `{"keypair":{"name":"imp","public_key":"` + imported + ` me@here"}}`
	raw := w.call("member", "POST", "/os-keypairs", body, 2, 201)
	apitest.CheckAnswer(t, "POST /os-keypairs", 2, raw)
	if strings.Contains(string(raw), "private_key") {
		t.Fatal("an imported key came with a private key")
	}
	if got := w.refused("member", "POST", "/os-keypairs", body, 2, 409); got != "Key pair 'imp' already exists." {
		t.Fatal(got)
	}
	cert := w.ask("member", "POST", "/os-keypairs", `{"keypair":{"name":"cert","type":"x509"}}`, 2, 201)["keypair"].(map[string]any)
	block, _ := pem.Decode([]byte(cert["public_key"].(string)))
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil || len(strings.Split(cert["fingerprint"].(string), ":")) != 20 {
		t.Fatal(cert, err)
	}
	keyBlock, _ := pem.Decode([]byte(cert["private_key"].(string)))
	if key, err := x509.ParsePKCS1PrivateKey(keyBlock.Bytes); err != nil || !key.PublicKey.Equal(c.PublicKey.(*rsa.PublicKey)) {
		t.Fatal(err)
	}
	for b, want := range map[string]struct{ minor, code int }{
		`{"keypair":{"name":"x","public_key":"ssh-rsa nonsense"}}`:                   {2, 400},
		`{"keypair":{"name":"x","type":"x509","public_key":"ssh-rsa AAAA"}}`:         {2, 400},
		`{"keypair":{"name":"x","type":"dsa"}}`:                                      {2, 400},
		`{"keypair":{"name":"x","public_key":" "}}`:                                  {2, 400},
		`{"keypair":{"name":"a/b"}}`:                                                 {2, 400},
		`{"keypair":{"name":"x"}}`:                                                   {92, 400},
		`{"keypair":{"name":"x@y","public_key":"` + imported + `"}}`:                 {91, 400},
		`{"keypair":{"name":"x","user_id":"reader"}}`:                                {10, 403},
		`{"keypair":{"name":"x","user_id":"member"}}`:                                {9, 400},
		`{"keypair":{"name":"","public_key":"` + imported + `"}}`:                    {2, 400},
		`{"keypair":{"name":"x","public_key":"` + imported + `\n` + imported + `"}}`: {2, 400},
	} {
		w.refused("member", "POST", "/os-keypairs", b, want.minor, want.code)
	}
	for _, minor := range []int{1, 2, 10, 35, 92} {
		apitest.CheckAnswer(t, "GET /os-keypairs", minor, w.call("member", "GET", "/os-keypairs", "", minor, 200))
		apitest.CheckAnswer(t, "GET /os-keypairs/{id}", minor, w.call("member", "GET", "/os-keypairs/imp", "", minor, 200))
	}
	w.call("member", "POST", "/os-keypairs", `{"keypair":{"name":"x@y.z","public_key":"`+imported+`"}}`, 92, 201)
	if got := w.refused("member", "POST", "/os-keypairs", `{"keypair":{"name":"fifth","public_key":"`+imported+`"}}`, 92, 403); got != "Quota exceeded, too many key pairs." {
		t.Fatal(got)
	}
	page := w.ask("member", "GET", "/os-keypairs?limit=1&marker=cert", "", 35, 200)
	if k := page["keypairs"].([]any)[0].(map[string]any)["keypair"].(map[string]any); k["name"] != "imp" || page["keypairs_links"] == nil {
		t.Fatal(page)
	}
	w.refused("member", "GET", "/os-keypairs?marker=none", "", 35, 400)
	w.refused("reader", "GET", "/os-keypairs/imp", "", 10, 404)                // another user's
	w.refused("reader", "GET", "/os-keypairs/imp?user_id=member", "", 10, 403) // and asking for it is not allowed
	w.call("admin", "GET", "/os-keypairs/imp?user_id=member", "", 10, 200)
	w.call("admin", "POST", "/os-keypairs", `{"keypair":{"name":"gift","user_id":"reader","public_key":"`+imported+`"}}`, 10, 201)
	w.call("reader", "GET", "/os-keypairs/gift", "", 10, 200)
	w.call("member", "DELETE", "/os-keypairs/imp", "", 2, 204)
	w.refused("member", "DELETE", "/os-keypairs/imp", "", 2, 404)
	w.call("member", "DELETE", "/os-keypairs/made", "", 1, 202)
}

func TestNoVolumeService(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"/os-volumes", "/os-volumes/detail", "/os-snapshots", "/os-snapshots/detail"} {
		apitest.CheckAnswer(t, "GET "+path, 1, w.call("reader", "GET", path, "", 1, 200))
		w.refused("reader", "GET", path, "", 36, 404)
	}
	w.refused("reader", "GET", "/os-volumes/x", "", 1, 404)
	if got := w.refused("member", "POST", "/os-volumes", `{"volume":{"size":1}}`, 1, 400); !strings.Contains(got, "no volume service") {
		t.Fatal(got)
	}
}
