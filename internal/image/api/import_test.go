package api_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/image/local"
	"kilonova/internal/image/store"
)

// settled waits until the newest task of an image is over and gives it.
func (c *cloud) settled(id string) map[string]any {
	c.t.Helper()
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		list, _ := c.want(200, c.do("p1", "GET", "/v2/images/"+id+"/tasks", nil)).doc(c.t)["tasks"].([]any)
		if len(list) > 0 {
			task, _ := list[0].(map[string]any)
			if s := task["status"]; s == "success" || s == "failure" {
				return task
			}
		}
	}
	c.t.Fatal("the task does not end")
	return nil
}

// keeps waits until no more than n files are left: what was staged goes after its task is over.
func (c *cloud) keeps(n int) []string {
	left := c.files()
	for end := time.Now().Add(5 * time.Minute); len(left) > n && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		left = c.files()
	}
	return left
}

func TestGlanceDirect(t *testing.T) {
	c := start(t, nil)
	data := random(1 << 20)
	id, _ := c.create("p1", nil)["id"].(string)
	imp := "/v2/images/" + id + "/import"
	direct := `{"method": {"name": "glance-direct"}, "all_stores": true}`
	c.want(409, c.do("p1", "POST", imp, direct))
	c.want(204, c.do("p1", "PUT", "/v2/images/"+id+"/stage", data))
	if s := c.show("p1", id)["status"]; s != "uploading" {
		t.Fatalf("staged image is %v", s)
	}
	c.want(409, c.do("p1", "PUT", "/v2/images/"+id+"/file", data))
	c.want(409, c.do("p1", "PUT", "/v2/images/"+id+"/stage", data))
	for _, bad := range []string{`{}`, `{"method": {"name": "odd"}}`, `{"method": {"name": "glance-direct"}, "stores": ["odd"]}`,
		`{"method": {"name": "glance-direct"}, "stores": ["file"], "all_stores": true}`} {
		c.want(400, c.do("p1", "POST", imp, bad))
	}
	a := c.want(202, c.do("p1", "POST", imp, direct))
	task := c.settled(id)
	input, _ := task["input"].(map[string]any)
	req, _ := input["import_req"].(map[string]any)
	if task["status"] != "success" || task["request_id"] != a.header.Get("X-Openstack-Request-Id") ||
		cmp.Diff(map[string]any{"name": "glance-direct"}, req["method"]) != "" || task["image_id"] != id || task["type"] != "api_image_import" {
		t.Fatal(task)
	}
	got := c.show("p1", id)
	if got["status"] != "active" || got["stores"] != "file" || got["os_glance_importing_to_stores"] != "" || got["os_glance_failed_import"] != "" {
		t.Fatal(got)
	}
	if !bytes.Equal(c.do("p1", "GET", "/v2/images/"+id+"/file", nil).body, data) {
		t.Fatal("other data")
	}
	if left := c.keeps(1); len(left) != 1 || !strings.HasPrefix(left[0], "file/data/"+id) {
		t.Fatalf("files: %v", left)
	}
}

func TestImportRefusesBadContent(t *testing.T) {
	c := start(t, nil)
	id, _ := c.create("p1", map[string]any{"disk_format": "qcow2"})["id"].(string)
	c.want(204, c.do("p1", "PUT", "/v2/images/"+id+"/stage", random(5000)))
	c.want(202, c.do("p1", "POST", "/v2/images/"+id+"/import", `{"method": {"name": "glance-direct"}}`))
	task := c.settled(id)
	if text, _ := task["message"].(string); task["status"] != "failure" || !strings.Contains(text, "disk_format") {
		t.Fatal(task)
	}
	if got := c.show("p1", id); got["status"] != "queued" || got["os_glance_failed_import"] != "file" {
		t.Fatal(got)
	}
	if left := c.keeps(0); len(left) != 0 {
		t.Fatalf("left: %v", left)
	}
}

func TestWebDownload(t *testing.T) {
	data := random(300_000)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/image" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = w.Write(data)
	}))
	defer web.Close()
	u, _ := url.Parse(web.URL)
	port, _ := strconv.Atoi(u.Port())
	c := start(t, func(cfg *local.Config) {
		cfg.Web = store.Guard{Ports: []int{80, port}, Nets: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}
	})
	begin := func(uri string) (string, answer) {
		id, _ := c.create("p1", nil)["id"].(string)
		return id, c.do("p1", "POST", "/v2/images/"+id+"/import", map[string]any{"method": map[string]any{"name": "web-download", "uri": uri}})
	}
	for _, uri := range []string{"", "file:///etc/passwd", "http://10.0.0.1/x", "http://127.0.0.1:1/x", "http://169.254.169.254/"} {
		id, a := begin(uri)
		c.want(400, a)
		if s := c.show("p1", id)["status"]; s != "queued" {
			t.Fatal(s)
		}
	}
	id, a := begin(web.URL + "/image")
	c.want(202, a)
	if task := c.settled(id); task["status"] != "success" {
		t.Fatal(task)
	}
	if !bytes.Equal(c.do("p1", "GET", "/v2/images/"+id+"/file", nil).body, data) {
		t.Fatal("other data")
	}
	id, a = begin(web.URL + "/missing")
	c.want(202, a)
	if task := c.settled(id); task["status"] != "failure" || !strings.Contains(task["message"].(string), "404") {
		t.Fatal(task)
	}
	if got := c.show("p1", id); got["status"] != "queued" || got["os_glance_failed_import"] != "file" {
		t.Fatal(got)
	}
	// The older route for the same.
	body := map[string]any{"type": "import", "input": map[string]any{"import_from": web.URL + "/image", "import_from_format": "raw",
		"image_properties": map[string]any{"name": "by task"}}}
	c.want(403, c.do("p1", "POST", "/v2/tasks", body))
	task := c.want(201, c.do("admin", "POST", "/v2/tasks", body)).doc(t)
	path, _ := task["self"].(string)
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		task = c.want(200, c.do("admin", "GET", path, nil)).doc(t)
		if task["status"] == "success" || task["status"] == "failure" {
			break
		}
	}
	result, _ := task["result"].(map[string]any)
	image, _ := result["image_id"].(string)
	if task["status"] != "success" || c.show("admin", image)["name"] != "by task" {
		t.Fatal(task)
	}
	list, _ := c.want(200, c.do("admin", "GET", "/v2/tasks?type=import", nil)).doc(t)["tasks"].([]any)
	if len(list) != 1 {
		t.Fatal(list)
	}
	c.want(403, c.do("p1", "GET", "/v2/tasks", nil))
	c.want(404, c.do("admin", "GET", "/v2/tasks/nope", nil))
	c.want(400, c.do("admin", "POST", "/v2/tasks", map[string]any{"type": "export", "input": map[string]any{}}))
}

func TestCopyBetweenStores(t *testing.T) {
	var dir string
	c := start(t, func(cfg *local.Config) {
		dir = filepath.Join(cfg.Dir, "second")
		second, err := store.NewFile("second", dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = second.Close() })
		cfg.Stores = []store.Store{second}
	})
	data := random(100_000)
	id := c.active("p1", nil, data)
	body := `{"method": {"name": "copy-image"}, "all_stores": true, "all_stores_must_succeed": false}`
	c.want(403, c.do("p1", "POST", "/v2/images/"+id+"/import", body))
	c.want(202, c.do("admin", "POST", "/v2/images/"+id+"/import", body))
	if task := c.settled(id); task["status"] != "success" {
		t.Fatal(task)
	}
	got := c.show("p1", id)
	if got["stores"] != "file,second" || got["os_glance_importing_to_stores"] != "" || got["os_glance_failed_import"] != "" || got["status"] != "active" {
		t.Fatal(got)
	}
	c.want(403, c.do("p1", "DELETE", "/v2/stores/file/"+id, nil))
	c.want(404, c.do("admin", "DELETE", "/v2/stores/odd/"+id, nil))
	c.want(204, c.do("admin", "DELETE", "/v2/stores/file/"+id, nil))
	c.want(404, c.do("admin", "DELETE", "/v2/stores/file/"+id, nil))
	c.want(403, c.do("admin", "DELETE", "/v2/stores/second/"+id, nil))
	if !bytes.Equal(c.do("p1", "GET", "/v2/images/"+id+"/file", nil).body, data) || len(c.files()) != 0 {
		t.Fatal("the copy does not serve, or the original stays")
	}
	other, _ := c.create("p1", nil)["id"].(string)
	c.want(204, c.do("p1", "PUT", "/v2/images/"+other+"/file", data, "X-Image-Meta-Store", "second"))
	if s := c.show("p1", other)["stores"]; s != "second" {
		t.Fatal(s)
	}
}

func TestLocations(t *testing.T) {
	data := random(4000)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "x", time.Time{}, bytes.NewReader(data))
	}))
	defer web.Close()
	u, _ := url.Parse(web.URL)
	port, _ := strconv.Atoi(u.Port())
	c := start(t, func(cfg *local.Config) {
		cfg.Locations = true
		cfg.Web = store.Guard{Ports: []int{port}, Nets: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}
	})
	type op = map[string]any
	loc := func(path string, more op) op {
		l := op{"url": web.URL + path, "metadata": op{}}
		for k, v := range more {
			l[k] = v
		}
		return l
	}
	sums := op{"validation_data": op{"checksum": strings.Repeat("1", 32), "os_hash_algo": "sha256", "os_hash_value": strings.Repeat("ab", 64)}}
	doc := c.create("p1", nil)
	id, _ := doc["id"].(string)
	if d := cmp.Diff([]any{}, doc["locations"]); d != "" {
		t.Fatal(d)
	}
	c.want(400, c.patch("p1", id, []op{{"op": "add", "path": "/locations/-", "value": op{"url": "gopher://e.org", "metadata": op{}}}}))
	c.want(400, c.patch("p1", id, []op{{"op": "add", "path": "/locations/-", "value": op{"url": "file:///etc/passwd", "metadata": op{}}}}))
	c.want(200, c.patch("p1", id, []op{{"op": "add", "path": "/locations/-", "value": loc("/1", sums)}}))
	got := c.show("p1", id)
	if got["status"] != "active" || got["size"] != 4000.0 || got["checksum"] != strings.Repeat("1", 32) || got["direct_url"] != web.URL+"/1" {
		t.Fatal(got)
	}
	c.want(409, c.patch("p1", id, []op{{"op": "add", "path": "/locations/-", "value": loc("/2", op{"validation_data": op{"checksum": strings.Repeat("2", 32)}})}}))
	c.want(200, c.patch("p1", id, []op{{"op": "add", "path": "/locations/-", "value": loc("/2", sums)}}))
	c.want(200, c.patch("p1", id, []op{{"op": "replace", "path": "/locations", "value": []op{loc("/2", nil), loc("/1", op{"metadata": op{"a": "b"}})}}}))
	c.want(400, c.patch("p1", id, []op{{"op": "replace", "path": "/locations", "value": []op{loc("/2", nil)}}}))
	c.want(400, c.patch("p1", id, []op{{"op": "replace", "path": "/locations", "value": []op{loc("/2", nil), loc("/3", nil)}}}))
	c.want(200, c.patch("p1", id, []op{{"op": "remove", "path": "/locations/0"}}))
	c.want(403, c.patch("p1", id, []op{{"op": "remove", "path": "/locations/0"}}))
	want := []any{op{"url": web.URL + "/1", "metadata": op{"a": "b"}}}
	if d := cmp.Diff(want, c.show("p1", id)["locations"]); d != "" {
		t.Fatal(d)
	}
	if !bytes.Equal(c.want(206, c.do("p1", "GET", "/v2/images/"+id+"/file", nil, "Range", "bytes=10-19")).body, data[10:20]) {
		t.Fatal("a part of a web image")
	}
	other, _ := c.create("p1", nil)["id"].(string)
	c.want(202, c.do("p1", "POST", "/v2/images/"+other+"/locations", op{"url": web.URL + "/x"}))
	c.want(409, c.do("p1", "POST", "/v2/images/"+other+"/locations", op{"url": web.URL + "/y"}))
	c.want(403, c.do("p1", "GET", "/v2/images/"+other+"/locations", nil))
	c.want(200, c.do("admin", "GET", "/v2/images/"+other+"/locations", nil))
}
