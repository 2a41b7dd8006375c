package api_test

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // the API's checksum
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/auth"
	"kilonova/internal/db/dbtest"
	"kilonova/internal/fault"
	"kilonova/internal/image/api"
	"kilonova/internal/image/local"
	"kilonova/internal/policy"
)

// tokens maps tokens to callers: "admin", and "<project>" or "<project>-reader".
type tokens struct{}

func (tokens) Authenticate(_ context.Context, token string) (*auth.Caller, error) {
	if token == "bad" {
		return nil, fault.New(fault.Unauthorized, "no")
	}
	project, reader := strings.CutSuffix(token, "-reader")
	c := &auth.Caller{ProjectID: project, UserID: "u-" + project, Roles: []string{"reader"}}
	if !reader {
		c.Roles = append(c.Roles, "member")
	}
	if token == "admin" {
		c.Roles = []string{"admin", "manager", "member", "reader"}
	}
	return c, nil
}

// cloud is a running image service.
type cloud struct {
	t   testing.TB
	dir string
	url string
	svc *local.Service
}

func start(t testing.TB, edit func(*local.Config)) *cloud {
	t.Helper()
	c := &cloud{t: t, dir: t.TempDir()}
	d := dbtest.Open(t)
	var err error
	cfg := local.Config{DB: d, Dir: filepath.Join(c.dir, "images")}
	if err := os.Mkdir(cfg.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(&cfg)
	}
	if c.svc, err = local.New(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	rules, err := policy.New(api.DefaultRules(), nil)
	if err != nil {
		t.Fatal(err)
	}
	service, err := api.New(api.Config{Images: c.svc, Auth: tokens{}, Policy: rules})
	if err != nil {
		t.Fatal(err)
	}
	h, err := service.Handler()
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.StripPrefix("/image", h))
	c.url = srv.URL + "/image"
	t.Cleanup(func() {
		srv.Close()
		if err := c.svc.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) doc(t testing.TB) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(a.body, &m); err != nil {
		t.Fatalf("%s: %v", a.body, err)
	}
	return m
}

// do sends a request; body may be nil, a string, []byte, an io.Reader or a value for JSON.
func (c *cloud) do(token, method, path string, body any, headers ...string) answer {
	c.t.Helper()
	var r io.Reader
	kind := "application/json"
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	case []byte:
		r, kind = bytes.NewReader(b), "application/octet-stream"
	case io.Reader:
		r, kind = b, "application/octet-stream"
	default:
		j, err := json.Marshal(b)
		if err != nil {
			c.t.Fatal(err)
		}
		r = bytes.NewReader(j)
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, r)
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	if token != "" {
		req.Header.Set("X-Auth-Token", token)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, b}
}

// want fails the test unless the status is the given one.
func (c *cloud) want(status int, a answer) answer {
	c.t.Helper()
	if a.status != status {
		c.t.Fatalf("status %d, want %d: %.300s", a.status, status, a.body)
	}
	return a
}

const patchType = "application/openstack-images-v2.1-json-patch"

func (c *cloud) patch(token, id string, ops any) answer {
	c.t.Helper()
	return c.do(token, "PATCH", "/v2/images/"+id, ops, "Content-Type", patchType)
}

func (c *cloud) create(token string, doc map[string]any) map[string]any {
	c.t.Helper()
	all := map[string]any{"name": "img", "disk_format": "raw", "container_format": "bare"}
	for k, v := range doc {
		all[k] = v
	}
	return c.want(201, c.do(token, "POST", "/v2/images", all)).doc(c.t)
}

// active makes an image with data.
func (c *cloud) active(token string, doc map[string]any, data []byte) string {
	c.t.Helper()
	id, _ := c.create(token, doc)["id"].(string)
	c.want(204, c.do(token, "PUT", "/v2/images/"+id+"/file", data))
	return id
}

func (c *cloud) show(token, id string) map[string]any {
	c.t.Helper()
	return c.want(200, c.do(token, "GET", "/v2/images/"+id, nil)).doc(c.t)
}

func (c *cloud) ids(token, query string) []string {
	c.t.Helper()
	var out []string
	list, _ := c.want(200, c.do(token, "GET", "/v2/images"+query, nil)).doc(c.t)["images"].([]any)
	for _, v := range list {
		id, _ := v.(map[string]any)["id"].(string)
		out = append(out, id)
	}
	return out
}

// files lists every data file of the service.
func (c *cloud) files() (names []string) {
	c.t.Helper()
	for _, dir := range []string{"file", "staging"} {
		for _, sub := range []string{"data", "tmp"} {
			list, err := os.ReadDir(filepath.Join(c.dir, "images", dir, sub))
			if err != nil {
				c.t.Fatal(err)
			}
			for _, e := range list {
				names = append(names, dir+"/"+sub+"/"+e.Name())
			}
		}
	}
	return names
}

func random(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), 7})
	_, _ = r.Read(b)
	return b
}

func TestVersions(t *testing.T) {
	c := start(t, nil)
	for path, status := range map[string]int{"": 300, "/": 300, "/versions": 200, "/versions/": 200} {
		doc := c.want(status, c.do("", "GET", path, nil)).doc(t)
		list, _ := doc["versions"].([]any)
		want := map[string]any{"id": "v2.18", "status": "CURRENT", "links": []any{map[string]any{"rel": "self", "href": c.url + "/v2/"}}}
		if len(list) < 10 || cmp.Diff(want, list[0]) != "" {
			t.Fatalf("%s: %s", path, cmp.Diff(want, list[0]))
		}
	}
	c.want(401, c.do("", "GET", "/v2/images", nil))
	c.want(401, c.do("bad", "GET", "/v2/images", nil))
}

func TestCreateDocument(t *testing.T) {
	c := start(t, nil)
	const id = "0b1c1c2e-7f47-4c5c-9b60-6d2d0cbe3c11"
	a := c.want(201, c.do("p1", "POST", "/v2/images", map[string]any{"id": id, "name": "a \"b\" é", "disk_format": "qcow2", "container_format": "bare",
		"min_disk": 3, "min_ram": 256, "tags": []string{"x", "x", "y"}, "protected": true, "os_hidden": true, "os_distro": "debian", "hw_a": "1"}))
	got := a.doc(t)
	for _, k := range []string{"created_at", "updated_at"} {
		if s, _ := got[k].(string); len(s) != 20 || !strings.HasSuffix(s, "Z") {
			t.Errorf("%s is %v", k, got[k])
		}
		delete(got, k)
	}
	want := map[string]any{"id": id, "name": "a \"b\" é", "status": "queued", "visibility": "shared", "owner": "p1", "size": nil, "virtual_size": nil, "checksum": nil,
		"os_hash_algo": nil, "os_hash_value": nil, "container_format": "bare", "disk_format": "qcow2", "min_disk": 3.0, "min_ram": 256.0, "protected": true,
		"os_hidden": true, "tags": []any{"x", "y"}, "self": "/v2/images/" + id, "file": "/v2/images/" + id + "/file", "schema": "/v2/schemas/image",
		"os_distro": "debian", "hw_a": "1"}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
	if l := a.header.Get("Location"); l != c.url+"/v2/images/"+id {
		t.Errorf("location %s", l)
	}
	if m := a.header.Get("OpenStack-image-import-methods"); m != "glance-direct,web-download,copy-image" {
		t.Errorf("import methods %q", m)
	}
	c.want(409, c.do("p2", "POST", "/v2/images", map[string]any{"id": id}))
}

func TestCreateRefused(t *testing.T) {
	c := start(t, nil)
	for _, x := range []struct {
		status int
		token  string
		body   any
	}{
		{400, "p1", `{"name": 7}`}, {400, "p1", `{"name": "a"`}, {400, "p1", `[]`}, {400, "p1", `{"disk_format": "wrong"}`},
		{400, "p1", `{"container_format": "wrong"}`}, {400, "p1", `{"id": "x"}`},
		{400, "p1", `{"min_disk": -1}`}, {400, "p1", `{"min_ram": "1"}`}, {400, "p1", `{"min_ram": 1.5}`}, {400, "p1", `{"protected": "yes"}`},
		{400, "p1", `{"visibility": "secret"}`}, {400, "p1", `{"tags": "a"}`}, {400, "p1", `{"tags": [""]}`}, {400, "p1", `{"a_property": 1}`},
		{400, "p1", `{"a_property": null}`}, {400, "p1", map[string]any{"name": strings.Repeat("n", 256)}}, {403, "p1", `{"status": "active"}`},
		{403, "p1", `{"size": 1}`}, {403, "p1", `{"checksum": "x"}`}, {403, "p1", `{"os_glance_x": "y"}`}, {403, "p1", `{"deleted": "y"}`},
		{403, "p1", `{"visibility": "public"}`}, {403, "p1", `{"owner": "p2"}`}, {403, "p1-reader", `{"name": "a"}`},
		{403, "p1", `{"locations": [{"url": "http://x/", "metadata": {}}]}`}, {201, "admin", `{"owner": "p2", "visibility": "public"}`},
	} {
		if a := c.do(x.token, "POST", "/v2/images", x.body); a.status != x.status {
			t.Errorf("%v: %d, want %d: %.200s", x.body, a.status, x.status, a.body)
		}
	}
	c.want(415, c.do("p1", "POST", "/v2/images", `{}`, "Content-Type", "text/plain"))
	if n := len(c.ids("admin", "?limit=1000")); n != 1 {
		t.Fatalf("%d images after refusals", n)
	}
}

func TestUploadStreamsAndHashes(t *testing.T) {
	c := start(t, nil)
	id, _ := c.create("p1", nil)["id"].(string)
	path := "/v2/images/" + id + "/file"
	if a := c.want(204, c.do("p1", "GET", path, nil)); len(a.body) != 0 {
		t.Fatal("an image without data has bytes")
	}
	data := random(9<<20 + 123)
	c.want(204, c.do("p1", "PUT", path, io.MultiReader(bytes.NewReader(data)))) // chunked: the length is not known
	got := c.show("p1", id)
	sum, sha := md5.Sum(data), sha512.Sum512(data) //nolint:gosec // the API's checksum
	for k, want := range map[string]any{"status": "active", "size": float64(len(data)), "virtual_size": float64(len(data)), "checksum": hex.EncodeToString(sum[:]),
		"os_hash_algo": "sha512", "os_hash_value": hex.EncodeToString(sha[:]), "stores": "file"} {
		if got[k] != want {
			t.Errorf("%s is %v, want %v", k, got[k], want)
		}
	}
	a := c.want(200, c.do("p1", "GET", path, nil))
	if !bytes.Equal(a.body, data) || a.header.Get("Content-MD5") != hex.EncodeToString(sum[:]) || a.header.Get("Content-Length") != fmt.Sprint(len(data)) ||
		a.header.Get("Content-Type") != "application/octet-stream" {
		t.Fatalf("%d bytes, %v", len(a.body), a.header)
	}
	c.want(409, c.do("p1", "PUT", path, data))
	size := len(data)
	for _, x := range []struct {
		h        string
		from, to int // to exclusive
		status   int
	}{{"bytes=0-9", 0, 10, 206}, {"bytes=100-", 100, size, 206}, {"bytes=-7", size - 7, size, 206}, {"bytes=5-99999999999", 5, size, 206},
		{"bytes=99999999-", 0, 0, 416}, {"bytes=-0", 0, 0, 416}, {"bytes=9-5", 0, size, 200}, {"lines=1-2", 0, size, 200}, {"bytes=0-1,5-6", 0, size, 200}} {
		a := c.want(x.status, c.do("p1", "GET", path, nil, "Range", x.h))
		if x.status == 416 {
			if a.header.Get("Content-Range") != fmt.Sprintf("bytes */%d", size) {
				t.Errorf("%s: %v", x.h, a.header)
			}
			continue
		}
		if !bytes.Equal(a.body, data[x.from:x.to]) {
			t.Errorf("%s: %d bytes", x.h, len(a.body))
		}
		if x.status == 206 && a.header.Get("Content-Range") != fmt.Sprintf("bytes %d-%d/%d", x.from, x.to-1, size) {
			t.Errorf("%s: %s", x.h, a.header.Get("Content-Range"))
		}
	}
	c.want(204, c.do("p1", "DELETE", "/v2/images/"+id, nil))
	c.want(404, c.do("p1", "GET", path, nil))
	if left := c.files(); len(left) != 0 {
		t.Fatalf("left: %v", left)
	}
}

func TestUploadRefusedLeavesQueuedAndNothing(t *testing.T) {
	c := start(t, func(cfg *local.Config) { cfg.MaxSize, cfg.QuotaBytes = 3<<20, 4<<20 })
	qcow := make([]byte, 1<<17)
	copy(qcow, "QFI\xfb\x00\x00\x00\x03")
	qcow[15] = 1 // a backing file
	c.active("p1", nil, random(2<<20))
	for name, x := range map[string]struct {
		status int
		format string
		data   any
		header []string
		text   string
	}{
		"lie":          {400, "raw", qcow, nil, "backing file"},
		"wrong format": {400, "qcow2", random(5000), nil, "disk_format says qcow2"},
		"too large":    {413, "raw", random(3<<20 + 1), nil, "storage limit"},
		"too large 2":  {413, "raw", io.MultiReader(bytes.NewReader(random(3<<20 + 1))), nil, "exceeds"},
		"over quota":   {413, "raw", io.MultiReader(bytes.NewReader(random(5 << 19))), nil, "quota"},
		"media type":   {415, "raw", "x", []string{"Content-Type", "text/plain"}, "octet-stream"},
		"size header":  {400, "raw", io.MultiReader(strings.NewReader("abc")), []string{"X-Openstack-Image-Size", "4"}, "announced"},
		"store":        {400, "raw", random(10), []string{"X-Image-Meta-Store", "nowhere"}, "nowhere"},
		"reader":       {403, "raw", random(10), []string{"X-Auth-Token", "p1-reader"}, "upload_image"},
		"stranger":     {404, "raw", random(10), []string{"X-Auth-Token", "p2"}, "Failed to find"},
	} {
		t.Run(name, func(t *testing.T) {
			c.t = t
			id, _ := c.create("p1", map[string]any{"disk_format": x.format})["id"].(string)
			a := c.want(x.status, c.do("p1", "PUT", "/v2/images/"+id+"/file", x.data, x.header...))
			if !strings.Contains(string(a.body), x.text) {
				t.Errorf("the answer does not speak of %q: %s", x.text, a.body)
			}
			if got := c.show("p1", id); got["status"] != "queued" || got["size"] != nil || got["checksum"] != nil {
				t.Errorf("image is %v", got)
			}
			if left := c.files(); len(left) != 1 { // the first image's
				t.Errorf("files: %v", left)
			}
		})
	}
	c.t = t
	id, _ := c.want(201, c.do("p1", "POST", "/v2/images", `{"name": "no formats"}`)).doc(t)["id"].(string)
	c.want(400, c.do("p1", "PUT", "/v2/images/"+id+"/file", []byte("x")))
}

func TestPatch(t *testing.T) {
	c := start(t, nil)
	type op = map[string]any
	for name, x := range map[string]struct {
		ops    any
		status int
		check  map[string]any
	}{
		"name":             {[]op{{"op": "replace", "path": "/name", "value": "n2"}}, 200, op{"name": "n2"}},
		"add property":     {[]op{{"op": "add", "path": "/a~1b~0c", "value": "v"}}, 200, op{"a/b~c": "v"}},
		"add again":        {[]op{{"op": "add", "path": "/os_distro", "value": "v"}}, 200, op{"os_distro": "v"}},
		"remove property":  {[]op{{"op": "remove", "path": "/os_distro"}}, 200, op{"os_distro": nil}},
		"move":             {[]op{{"op": "move", "from": "/os_distro", "path": "/os_x"}}, 200, op{"os_x": "debian", "os_distro": nil}},
		"copy":             {[]op{{"op": "copy", "from": "/os_distro", "path": "/os_x"}}, 200, op{"os_x": "debian", "os_distro": "debian"}},
		"test":             {[]op{{"op": "test", "path": "/os_distro", "value": "other"}}, 409, nil},
		"tags":             {[]op{{"op": "replace", "path": "/tags", "value": []string{"b", "c"}}}, 200, op{"tags": []any{"b", "c"}}},
		"one tag":          {[]op{{"op": "add", "path": "/tags/-", "value": "z"}, {"op": "remove", "path": "/tags/0"}}, 200, op{"tags": []any{"z"}}},
		"booleans":         {[]op{{"op": "replace", "path": "/protected", "value": true}, {"op": "replace", "path": "/os_hidden", "value": true}}, 200, op{"protected": true, "os_hidden": true}},
		"min":              {[]op{{"op": "replace", "path": "/min_disk", "value": 5}}, 200, op{"min_disk": 5.0}},
		"community":        {[]op{{"op": "replace", "path": "/visibility", "value": "community"}}, 200, op{"visibility": "community"}},
		"public":           {[]op{{"op": "replace", "path": "/visibility", "value": "public"}}, 403, nil},
		"owner":            {[]op{{"op": "replace", "path": "/owner", "value": "p9"}}, 403, nil},
		"format":           {[]op{{"op": "replace", "path": "/disk_format", "value": "qcow2"}}, 200, op{"disk_format": "qcow2"}},
		"nothing":          {[]op{}, 200, op{"name": "img"}},
		"missing":          {[]op{{"op": "replace", "path": "/nope", "value": "x"}}, 409, nil},
		"remove missing":   {[]op{{"op": "remove", "path": "/nope"}}, 409, nil},
		"remove attribute": {[]op{{"op": "remove", "path": "/name"}}, 403, nil},
		"read-only":        {[]op{{"op": "replace", "path": "/status", "value": "active"}}, 403, nil},
		"id":               {[]op{{"op": "replace", "path": "/id", "value": "x"}}, 403, nil},
		"reserved":         {[]op{{"op": "add", "path": "/os_glance_foo", "value": "x"}}, 403, nil},
		"locations":        {[]op{{"op": "add", "path": "/locations/-", "value": op{"url": "http://e.org/", "metadata": op{}}}}, 403, nil},
		"number property":  {[]op{{"op": "add", "path": "/x", "value": 1}}, 400, nil},
		"deep":             {[]op{{"op": "add", "path": "/x/y", "value": "1"}}, 400, nil},
		"bad pointer":      {[]op{{"op": "add", "path": "x", "value": "1"}}, 400, nil},
		"bad escape":       {[]op{{"op": "add", "path": "/a~2", "value": "1"}}, 400, nil},
		"bad op":           {[]op{{"op": "frob", "path": "/x", "value": "1"}}, 400, nil},
		"no value":         {[]op{{"op": "add", "path": "/x"}}, 400, nil},
		"not a list":       {op{"op": "add"}, 400, nil},
		"not an object":    {[]int{1}, 400, nil},
		"all or nothing":   {[]op{{"op": "add", "path": "/first", "value": "1"}, {"op": "remove", "path": "/nope"}}, 409, op{"first": nil}},
		"index":            {[]op{{"op": "remove", "path": "/tags/7"}}, 400, nil},
		"too many tags": {[]op{{"op": "replace", "path": "/tags", "value": slices.Collect(func(y func(string) bool) {
			for i := range 200 {
				if !y(fmt.Sprint(i)) {
					return
				}
			}
		})}}, 413, nil},
		"long name refused": {[]op{{"op": "replace", "path": "/name", "value": strings.Repeat("x", 300)}}, 400, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c.t = t
			id, _ := c.create("p1", map[string]any{"os_distro": "debian", "tags": []string{"a"}})["id"].(string)
			a := c.want(x.status, c.patch("p1", id, x.ops))
			got := c.show("p1", id)
			if x.status == 200 {
				if d := cmp.Diff(a.doc(t), got); d != "" {
					t.Fatalf("the answer is not what is there: %s", d)
				}
			}
			for k, v := range x.check {
				if d := cmp.Diff(v, got[k]); d != "" {
					t.Errorf("%s: %s", k, d)
				}
			}
		})
	}
	c.t = t
	id := c.active("p1", nil, []byte("data"))
	c.want(403, c.patch("p1", id, []op{{"op": "replace", "path": "/disk_format", "value": "qcow2"}}))
	c.want(200, c.patch("p1", id, []op{{"op": "replace", "path": "/disk_format", "value": "raw"}}))
	c.want(404, c.patch("p2", id, []op{{"op": "replace", "path": "/name", "value": "x"}}))
	c.want(403, c.patch("p1-reader", id, []op{{"op": "replace", "path": "/name", "value": "x"}}))
	a := c.want(415, c.do("p1", "PATCH", "/v2/images/"+id, []op{}, "Content-Type", "application/json"))
	if !strings.Contains(a.header.Get("Accept-Patch"), patchType) {
		t.Error("415 does not tell the media type")
	}
	old := func(ops any) answer {
		return c.do("p1", "PATCH", "/v2/images/"+id, ops, "Content-Type", "application/openstack-images-v2.0-json-patch")
	}
	c.want(200, old([]op{{"replace": "/name", "value": "old style"}, {"add": "/p", "value": "1"}}))
	c.want(409, old([]op{{"add": "/p", "value": "2"}}))
	c.want(400, old([]op{{"add": "/p", "remove": "/p", "value": "2"}}))
	if got := c.show("p1", id); got["name"] != "old style" || got["p"] != "1" {
		t.Fatal(got)
	}
}

func TestDeleteRules(t *testing.T) {
	c := start(t, nil)
	id, _ := c.create("p1", map[string]any{"protected": true})["id"].(string)
	c.want(403, c.do("p1", "DELETE", "/v2/images/"+id, nil))
	c.want(404, c.do("p2", "DELETE", "/v2/images/"+id, nil))
	c.want(200, c.patch("p1", id, []map[string]any{{"op": "replace", "path": "/protected", "value": false}}))
	c.want(204, c.do("p1", "DELETE", "/v2/images/"+id, nil))
	c.want(404, c.do("p1", "DELETE", "/v2/images/"+id, nil))
	for _, path := range []string{"/v2/images/", "/v2/images/0b1c1c2e-7f47-4c5c-9b60-6d2d0cbe3c11"} {
		c.want(404, c.do("p1", "GET", path, nil))
		c.want(404, c.do("p1", "DELETE", path, nil))
	}
	c.want(405, c.do("p1", "DELETE", "/v2/images", nil))
}
