package api_test

import (
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/image/local"
)

func TestListFilters(t *testing.T) {
	c := start(t, nil)
	ids := map[string]string{}
	add := func(key, token string, doc map[string]any, data int) {
		if data > 0 {
			ids[key] = c.active(token, doc, random(data))
			return
		}
		ids[key], _ = c.create(token, doc)["id"].(string)
	}
	type m = map[string]any
	add("a", "p1", m{"name": "alpha", "tags": []string{"x", "y"}, "os_distro": "debian"}, 1000)
	add("b", "p1", m{"name": "beta, two", "tags": []string{"x"}, "min_ram": 512, "protected": true}, 2000)
	add("c", "p1", m{"name": "gamma", "disk_format": "iso", "visibility": "private"}, 0)
	add("hidden", "p1", m{"name": "h", "os_hidden": true}, 0)
	add("other", "p2", m{"name": "alpha", "visibility": "private"}, 500)
	add("public", "admin", m{"name": "pub", "visibility": "public"}, 3000)
	add("community", "p2", m{"name": "com", "visibility": "community"}, 0)
	name := func(got []string) (out []string) {
		for _, id := range got {
			for k, v := range ids {
				if v == id {
					out = append(out, k)
				}
			}
		}
		slices.Sort(out)
		return out
	}
	for query, want := range map[string]string{
		"": "a b c public", "?limit=0": "", "?name=alpha": "a", "?name=in:alpha,gamma": "a c", `?name=in:"beta, two",gamma`: "b c", "?tag=x": "a b",
		"?tag=x&tag=y": "a", "?os_distro=debian": "a", "?os_distro=x": "", "?status=queued": "c", "?status=in:queued,active": "a b c public", "?size_min=1500": "b public",
		"?size_max=1500": "a", "?size=2000": "b", "?min_ram=512": "b", "?protected=true": "b", "?protected=False&status=active": "a public", "?os_hidden=True": "hidden",
		"?visibility=private": "c", "?visibility=public": "public", "?visibility=community": "community", "?visibility=shared": "a b", "?visibility=all": "a b c community public",
		"?owner=p1": "a b c", "?owner=p2": "", "?disk_format=iso": "c", "?container_format=bare": "a b c public", "?id=" + ids["a"]: "a",
		"?id=in:" + ids["a"] + "," + ids["other"]: "a", "?created_at=gt:2020-01-01T00:00:00Z": "a b c public", "?created_at=lt:2020-01-01T00:00:00Z": "", "?unknown=1": "",
	} {
		base, raw, _ := strings.Cut(query, "?")
		if v, err := url.ParseQuery(raw); err == nil && raw != "" {
			query = base + "?" + v.Encode()
		}
		if got := strings.Join(name(c.ids("p1", query)), " "); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	if got := strings.Join(name(c.ids("admin", "")), " "); got != "a b c other public" {
		t.Errorf("admin sees %q", got)
	}
	for _, query := range []string{"?limit=x", "?limit=-1", "?sort_key=nope", "?sort=name:up", "?sort=name&sort_key=id", "?visibility=odd", "?member_status=odd", "?marker=nope",
		"?size_min=x", "?protected=maybe", "?created_at=gt:never", "?name=in:%22a", "?sort_dir=sideways", "?marker=" + ids["other"]} {
		if a := c.do("p1", "GET", "/v2/images"+query, nil); a.status != 400 {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
}

func TestListOrderAndPages(t *testing.T) {
	c := start(t, nil)
	var all []string
	for i := range 7 {
		id, _ := c.create("p1", map[string]any{"name": string(rune('a' + i%3)), "min_ram": i % 2})["id"].(string)
		all = append(all, id)
	}
	names := func(query string) (out []string) {
		list, _ := c.want(200, c.do("p1", "GET", "/v2/images"+query, nil)).doc(t)["images"].([]any)
		for _, v := range list {
			s, _ := v.(map[string]any)["name"].(string)
			out = append(out, s)
		}
		return out
	}
	if d := cmp.Diff([]string{"a", "a", "a", "b", "b", "c", "c"}, names("?sort=name:asc")); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"c", "c", "b", "b", "a", "a", "a"}, names("?sort_key=name&sort_dir=desc")); d != "" {
		t.Error(d)
	}
	slices.Reverse(all)
	if d := cmp.Diff(all, c.ids("p1", "")); d != "" {
		t.Error("the newest come first: ", d)
	}
	for _, order := range []string{"", "&sort=name:asc,min_ram:desc", "&sort=name:desc", "&sort=size:asc", "&sort=id:asc"} {
		whole := c.ids("p1", "?limit=100"+order)
		var walked []string
		path := "/v2/images?limit=2" + order
		for range 10 {
			doc := c.want(200, c.do("p1", "GET", path, nil)).doc(t)
			list, _ := doc["images"].([]any)
			for _, v := range list {
				id, _ := v.(map[string]any)["id"].(string)
				walked = append(walked, id)
			}
			if first, _ := doc["first"].(string); strings.Contains(first, "marker") || !strings.HasPrefix(first, "/v2/images?limit=2") {
				t.Errorf("first is %s", first)
			}
			next, more := doc["next"].(string)
			if !more {
				break
			}
			path = next
		}
		if d := cmp.Diff(whole, walked); d != "" {
			t.Errorf("order %q: %s", order, d)
		}
	}
}

func TestSharing(t *testing.T) {
	c := start(t, func(cfg *local.Config) { cfg.MaxMembers = 2 })
	id := c.active("p1", nil, []byte("data"))
	path := "/v2/images/" + id + "/members"
	c.want(404, c.do("p2", "GET", "/v2/images/"+id, nil))
	m := c.want(200, c.do("p1", "POST", path, `{"member": "p2"}`)).doc(t)
	if m["status"] != "pending" || m["member_id"] != "p2" || m["image_id"] != id || m["schema"] != "/v2/schemas/member" {
		t.Fatal(m)
	}
	c.want(409, c.do("p1", "POST", path, `{"member": "p2"}`))
	c.want(400, c.do("p1", "POST", path, `{"member": ""}`))
	c.want(400, c.do("p1", "POST", path, `{"member": 7}`))
	c.want(403, c.do("p2", "POST", path, `{"member": "p3"}`))
	c.want(404, c.do("p3", "POST", path, `{"member": "p3"}`))
	if got := c.ids("p2", ""); len(got) != 0 {
		t.Fatal("a pending image is in the list")
	}
	if got := c.ids("p2", "?visibility=shared&member_status=pending"); !slices.Equal(got, []string{id}) {
		t.Fatal(got)
	}
	c.want(200, c.do("p2", "GET", "/v2/images/"+id, nil)) // a member may look before he decides
	c.want(403, c.do("p1", "PUT", path+"/p2", `{"status": "accepted"}`))
	c.want(400, c.do("p2", "PUT", path+"/p2", `{"status": "maybe"}`))
	c.want(404, c.do("p3", "PUT", path+"/p2", `{"status": "accepted"}`))
	if got := c.want(200, c.do("p2", "PUT", path+"/p2", `{"status": "accepted"}`)).doc(t); got["status"] != "accepted" {
		t.Fatal(got)
	}
	if got := c.ids("p2", ""); !slices.Equal(got, []string{id}) {
		t.Fatal(got)
	}
	c.want(200, c.do("p2", "GET", "/v2/images/"+id+"/file", nil))
	c.want(403, c.do("p2", "DELETE", "/v2/images/"+id, nil))
	c.want(403, c.patch("p2", id, []map[string]any{{"op": "replace", "path": "/name", "value": "stolen"}}))
	c.want(200, c.do("p1", "POST", path, `{"member": "p3"}`))
	c.want(413, c.do("p1", "POST", path, `{"member": "p4"}`))
	count := func(token string) int {
		list, _ := c.want(200, c.do(token, "GET", path, nil)).doc(t)["members"].([]any)
		return len(list)
	}
	if count("p1") != 2 || count("p2") != 1 {
		t.Fatal("the owner sees all members, a member himself")
	}
	c.want(404, c.do("p2", "GET", path+"/p3", nil))
	c.want(200, c.do("p2", "GET", path+"/p2", nil))
	c.want(403, c.do("p2", "DELETE", path+"/p2", nil))
	c.want(204, c.do("p1", "DELETE", path+"/p2", nil))
	c.want(404, c.do("p1", "DELETE", path+"/p2", nil))
	c.want(404, c.do("p2", "GET", "/v2/images/"+id, nil))
	private, _ := c.create("p1", map[string]any{"visibility": "private"})["id"].(string)
	c.want(403, c.do("p1", "POST", "/v2/images/"+private+"/members", `{"member": "p2"}`))
}

func TestDeactivate(t *testing.T) {
	c := start(t, nil)
	id := c.active("p1", nil, []byte("data"))
	c.want(404, c.do("p2", "POST", "/v2/images/"+id+"/actions/deactivate", nil))
	for range 2 {
		c.want(204, c.do("p1", "POST", "/v2/images/"+id+"/actions/deactivate", nil))
	}
	if c.show("p1", id)["status"] != "deactivated" {
		t.Fatal("still active")
	}
	c.want(403, c.do("p1", "GET", "/v2/images/"+id+"/file", nil))
	c.want(200, c.do("admin", "GET", "/v2/images/"+id+"/file", nil))
	c.want(204, c.do("p1", "POST", "/v2/images/"+id+"/actions/reactivate", nil))
	c.want(200, c.do("p1", "GET", "/v2/images/"+id+"/file", nil))
	queued, _ := c.create("p1", nil)["id"].(string)
	c.want(400, c.do("p1", "POST", "/v2/images/"+queued+"/actions/deactivate", nil))
}

func TestTags(t *testing.T) {
	c := start(t, nil)
	id, _ := c.create("p1", nil)["id"].(string)
	for range 2 {
		c.want(204, c.do("p1", "PUT", "/v2/images/"+id+"/tags/one%20two", nil))
	}
	if d := cmp.Diff([]any{"one two"}, c.show("p1", id)["tags"]); d != "" {
		t.Fatal(d)
	}
	c.want(204, c.do("p1", "DELETE", "/v2/images/"+id+"/tags/one%20two", nil))
	c.want(404, c.do("p1", "DELETE", "/v2/images/"+id+"/tags/one%20two", nil))
	c.want(404, c.do("p2", "PUT", "/v2/images/"+id+"/tags/x", nil))
	c.want(400, c.do("p1", "PUT", "/v2/images/"+id+"/tags/"+strings.Repeat("x", 256), nil))
}

func TestSchemasAndInfo(t *testing.T) {
	c := start(t, nil)
	for path, name := range map[string]string{"image": "image", "images": "images", "member": "member", "members": "members", "task": "task", "tasks": "tasks",
		"metadefs/namespace": "namespace", "metadefs/namespaces": "namespaces", "metadefs/object": "object", "metadefs/objects": "objects", "metadefs/property": "property",
		"metadefs/properties": "properties", "metadefs/tag": "tag", "metadefs/tags": "tags", "metadefs/resource_type": "resource_type_association",
		"metadefs/resource_types": "resource_type_associations"} {
		if got := c.want(200, c.do("p1", "GET", "/v2/schemas/"+path, nil)).doc(t)["name"]; got != name {
			t.Errorf("%s is %v", path, got)
		}
	}
	c.want(404, c.do("p1", "GET", "/v2/schemas/nope", nil))
	c.want(404, c.do("admin", "GET", "/v2/cache", nil))
	want := map[string]any{"import-methods": map[string]any{"description": "Import methods available.", "type": "array",
		"value": []any{"glance-direct", "web-download", "copy-image"}}}
	if d := cmp.Diff(want, c.want(200, c.do("p1", "GET", "/v2/info/import", nil)).doc(t)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]any{"stores": []any{map[string]any{"id": "file", "default": "true"}}}, c.want(200, c.do("p1", "GET", "/v2/info/stores", nil)).doc(t)); d != "" {
		t.Error(d)
	}
	c.want(403, c.do("p1", "GET", "/v2/info/stores/detail", nil))
	c.want(200, c.do("admin", "GET", "/v2/info/stores/detail", nil))
	c.active("p1", nil, random(3<<20))
	usage, _ := c.want(200, c.do("p1", "GET", "/v2/info/usage", nil)).doc(t)["usage"].(map[string]any)
	if d := cmp.Diff(map[string]any{"usage": 3.0, "limit": -1.0}, usage["image_size_total"]); d != "" {
		t.Error(d)
	}
}

func TestMetadefs(t *testing.T) {
	c := start(t, nil)
	const ns = "/v2/metadefs/namespaces"
	types, _ := c.want(200, c.do("p1", "GET", "/v2/metadefs/resource_types", nil)).doc(t)["resource_types"].([]any)
	if len(types) < 5 {
		t.Fatal(types)
	}
	body := `{"namespace": "N::A", "display_name": "A", "description": "d", "visibility": "public", "protected": true,
		"resource_type_associations": [{"name": "OS::Glance::Image", "prefix": "hw_"}], "tags": [{"name": "t1"}],
		"properties": {"speed": {"title": "Speed", "type": "integer"}}, "objects": [{"name": "o1", "properties": {"x": {"title": "X", "type": "string"}}}]}`
	c.want(403, c.do("p1", "POST", ns, body))
	c.want(201, c.do("admin", "POST", ns, body))
	c.want(409, c.do("admin", "POST", ns, body))
	for _, bad := range []string{`{}`, `{"namespace": ""}`, `{"namespace": "x", "visibility": "odd"}`, `{"namespace": "x", "properties": {"p": {"type": "string"}}}`,
		`{"namespace": "` + strings.Repeat("x", 81) + `"}`, `{"namespace": "x", "tags": [{}]}`} {
		c.want(400, c.do("admin", "POST", ns, bad))
	}
	doc := c.want(200, c.do("p1", "GET", ns+"/N::A?resource_type=OS::Glance::Image", nil)).doc(t)
	props, _ := doc["properties"].(map[string]any)
	if d := cmp.Diff(map[string]any{"title": "Speed", "type": "integer"}, props["hw_speed"]); d != "" {
		t.Error(d)
	}
	list, _ := c.want(200, c.do("p1", "GET", ns+"?resource_types=OS::Glance::Image", nil)).doc(t)["namespaces"].([]any)
	if len(list) != 1 {
		t.Fatal(list)
	}
	list, _ = c.want(200, c.do("p1", "GET", ns+"?resource_types=OS::Nova::Server", nil)).doc(t)["namespaces"].([]any)
	if len(list) != 0 {
		t.Fatal(list)
	}
	c.want(403, c.do("admin", "DELETE", ns+"/N::A", nil))
	got := c.want(200, c.do("admin", "PUT", ns+"/N::A", `{"namespace": "N::A", "visibility": "private", "protected": false}`)).doc(t)
	if got["visibility"] != "private" || got["protected"] != false {
		t.Fatal(got)
	}
	c.want(404, c.do("p1", "GET", ns+"/N::A", nil))
	for _, kind := range []struct{ path, one, two string }{{"/objects", `{"name": "n1"}`, `{"name": "n2"}`},
		{"/properties", `{"name": "n1", "title": "T", "type": "string"}`, `{"name": "n2", "title": "T2", "type": "string"}`}} {
		p := ns + "/N::A" + kind.path
		c.want(201, c.do("admin", "POST", p, kind.one))
		c.want(409, c.do("admin", "POST", p, kind.one))
		c.want(200, c.do("admin", "PUT", p+"/n1", kind.two))
		c.want(404, c.do("admin", "GET", p+"/n1", nil))
		if got := c.want(200, c.do("admin", "GET", p+"/n2", nil)).doc(t); got["name"] != "n2" {
			t.Error(got)
		}
		switch items := c.want(200, c.do("admin", "GET", p, nil)).doc(t)[kind.path[1:]].(type) {
		case []any: // objects
			if len(items) != 2 {
				t.Errorf("%s: %v", kind.path, items)
			}
		case map[string]any: // properties, by name
			if d := cmp.Diff([]string{"n2", "speed"}, slices.Sorted(maps.Keys(items))); d != "" {
				t.Errorf("%s: %s", kind.path, d)
			}
		default:
			t.Errorf("%s: %T", kind.path, items)
		}
		c.want(204, c.do("admin", "DELETE", p+"/n2", nil))
		c.want(404, c.do("admin", "DELETE", p+"/n2", nil))
		c.want(204, c.do("admin", "DELETE", p, nil))
	}
	tags := ns + "/N::A/tags"
	c.want(201, c.do("admin", "POST", tags, `{"tags": [{"name": "a"}, {"name": "b"}]}`))
	c.want(201, c.do("admin", "POST", tags, `{"tags": [{"name": "c"}]}`, "X-Openstack-Append", "true"))
	c.want(201, c.do("admin", "POST", tags+"/d", nil))
	c.want(200, c.do("admin", "PUT", tags+"/d", `{"name": "e"}`))
	var names []string
	items, _ := c.want(200, c.do("admin", "GET", tags, nil)).doc(t)["tags"].([]any)
	for _, v := range items {
		s, _ := v.(map[string]any)["name"].(string)
		names = append(names, s)
	}
	if d := cmp.Diff([]string{"a", "b", "c", "e"}, names); d != "" {
		t.Error(d)
	}
	c.want(204, c.do("admin", "DELETE", tags+"/a", nil))
	c.want(204, c.do("admin", "DELETE", tags, nil))
	rt := ns + "/N::A/resource_types"
	c.want(201, c.do("admin", "POST", rt, `{"name": "OS::Nova::Flavor"}`))
	c.want(204, c.do("admin", "DELETE", rt+"/OS::Nova::Flavor", nil))
	c.want(204, c.do("admin", "DELETE", ns+"/N::A", nil))
	c.want(404, c.do("admin", "GET", ns+"/N::A", nil))
}

func TestDocumentsAreJSON(t *testing.T) {
	c := start(t, nil)
	odd := "\"\\/\b\f\n\r\t\u2028<é&\U0001F600>\x7f"
	id, _ := c.create("p1", map[string]any{"name": odd, "prop " + odd: odd, "tags": []string{odd}})["id"].(string)
	got := c.show("p1", id)
	if got["name"] != odd || got["prop "+odd] != odd {
		t.Fatal(got)
	}
	if !json.Valid(c.do("p1", "GET", "/v2/images", nil).body) {
		t.Fatal("the list is not JSON")
	}
}
