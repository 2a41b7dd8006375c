package servers_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/api/apitest"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/db"
	"kilonova/internal/id"
)

// borders are microversions around which documents change.
var borders = []int{1, 2, 3, 8, 9, 13, 15, 16, 18, 19, 20, 21, 22, 23, 25, 26, 35, 36, 37, 38, 44, 45, 46, 47, 50, 51, 53, 54, 56, 57, 58, 61, 62, 63, 68, 69, 70, 71, 72, 73, 74, 75, 78, 79, 80, 83, 84,
	89, 90, 93, 94, 95, 96, 97, 98, 99, 100, 101, 102, 103, 104}

// TestDocumentsAreAsDescribed judges the documents of servers at every border, for an admin and a reader, in several states.
func TestDocumentsAreAsDescribed(t *testing.T) {
	w := newWorld(t)
	group := id.UUID()
	reason := "mine"
	zone := "nova"
	for name, change := range map[string]func(*compute.Server){
		"plain": func(*compute.Server) {},
		"error": func(s *compute.Server) {
			s.VMState, s.Fault = compute.VMError, &compute.Fault{Code: 500, Message: "no host", Details: "trace", Created: clock.Now()}
		},
		"building": func(s *compute.Server) {
			s.VMState, s.Host, s.Node, s.VIFs, s.Launched, s.SecurityGroups = compute.VMBuilding, "", "", nil, time.Time{}, []string{"default"}
		},
		"everything": func(s *compute.Server) {
			s.LockedReason, s.Locked, s.LockedBy, s.PinnedZone, s.UserData = &reason, true, "owner", &zone, "YWJj"
			s.TrustedCerts, s.Hints, s.ConfigDrive = []string{"c1"}, map[string]any{"same_host": []string{id.UUID()}}, true
			s.BlockDevices = []compute.BlockDevice{{ID: id.UUID(), VolumeID: id.UUID(), DestinationType: "volume", AttachmentID: id.UUID(), Device: "/dev/vdb"}}
			s.AccessIPv4, s.AccessIPv6 = "192.0.2.1", "2001:db8::1"
			s.GroupID = group
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := w.boot(change)
			for _, token := range []string{"admin", "reader"} {
				for i, minor := range borders {
					if name != "everything" && i%5 != 0 { // the other states have few fields of their own
						continue
					}
					for key, path := range map[string]string{"GET /servers/{id}": "/servers/" + s.ID, "GET /servers/detail": "/servers/detail", "GET /servers": "/servers",
						"GET /servers/{server_id}/ips": "/servers/" + s.ID + "/ips", "GET /servers/{server_id}/os-interface": "/servers/" + s.ID + "/os-interface",
						"GET /servers/{server_id}/os-volume_attachments": "/servers/" + s.ID + "/os-volume_attachments", "GET /servers/{server_id}/metadata": "/servers/" + s.ID + "/metadata"} {
						apitest.CheckAnswer(t, key, minor, w.call(token, "GET", path, "", minor, 200))
					}
				}
			}
		})
	}
}

// TestFieldsAppear counts on which side of a border a field is.
func TestFieldsAppear(t *testing.T) {
	w := newWorld(t)
	s := w.boot()
	for _, c := range []struct {
		token, field string
		minor        int
		want         bool
	}{
		{"admin", "OS-EXT-SRV-ATTR:host", 1, true}, {"reader", "OS-EXT-SRV-ATTR:host", 104, false}, {"reader", "OS-EXT-SRV-ATTR:hostname", 89, false},
		{"reader", "OS-EXT-SRV-ATTR:hostname", 90, true}, {"reader", "locked", 8, false}, {"reader", "locked", 9, true}, {"admin", "host_status", 15, false}, {"admin", "host_status", 16, true},
		{"reader", "host_status", 16, false}, {"reader", "tags", 25, false}, {"reader", "tags", 26, true}, {"reader", "server_groups", 70, false}, {"reader", "server_groups", 71, true},
		{"reader", "scheduler_hints", 99, false}, {"reader", "scheduler_hints", 100, true}, {"reader", "fault", 1, false}, {"reader", "progress", 1, true},
	} {
		doc := w.ask(c.token, "GET", "/servers/"+s.ID, "", c.minor, 200)["server"].(map[string]any)
		if _, has := doc[c.field]; has != c.want {
			t.Errorf("%s at 2.%d for %s: %v", c.field, c.minor, c.token, has)
		}
	}
	doc := w.ask("admin", "GET", "/servers/"+s.ID, "", 104, 200)["server"].(map[string]any)
	if doc["host_status"] != "UP" || doc["OS-EXT-SRV-ATTR:instance_name"] != fmt.Sprintf("instance-%08x", s.Number) {
		t.Error(doc["host_status"], doc["OS-EXT-SRV-ATTR:instance_name"])
	}
	addr := doc["addresses"].(map[string]any)["a"].([]any)
	want := []any{map[string]any{"addr": "10.0.0.5", "version": 4.0, "OS-EXT-IPS:type": "fixed", "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:00:00:01"},
		map[string]any{"addr": "203.0.113.7", "version": 4.0, "OS-EXT-IPS:type": "floating", "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:00:00:01"}}
	if diff := cmp.Diff(want, addr); diff != "" {
		t.Error(diff)
	}
}

// TestBehaviourByVersion: what changed at a version without a change of any schema.
func TestBehaviourByVersion(t *testing.T) {
	w := newWorld(t)
	w.boot()
	for _, c := range []struct {
		token, query string
		minor, code  int
		found        bool
	}{
		{"reader", "?ip6=2001:db8:ffff", 4, 200, true}, {"reader", "?ip6=2001:db8:ffff", 5, 200, false}, {"admin", "?ip6=2001:db8:ffff", 4, 200, false}, // read for everybody from 2.5 on
		{"reader", "?status=nonsense", 37, 200, false}, {"reader", "?status=nonsense", 38, 400, false}, {"reader", "?status=ACTIVE", 38, 200, true},
		{"reader", "?locked=true", 72, 200, true}, {"reader", "?locked=true", 73, 200, false}, {"reader", "?locked=false", 73, 200, true},
		{"reader", "?changes-before=2020-01-01T00:00:00Z", 65, 200, true}, {"reader", "?changes-before=2020-01-01T00:00:00Z", 66, 200, false},
		{"reader", "?no_such_filter=1", 74, 200, true}, {"reader", "?no_such_filter=1", 75, 400, false},
		{"reader", "?tags=none", 25, 200, true}, {"reader", "?tags=none", 26, 200, false},
	} {
		doc := w.ask(c.token, "GET", "/servers"+c.query, "", c.minor, c.code)
		if list, _ := doc["servers"].([]any); (len(list) > 0) != c.found {
			t.Errorf("%s at 2.%d for %s: %d servers", c.query, c.minor, c.token, len(list))
		}
	}
}

// TestOthersDoNotExist: a server of another project is not found, whatever is asked of it.
func TestOthersDoNotExist(t *testing.T) {
	w := newWorld(t)
	s := w.boot()
	p := "/servers/" + s.ID
	for _, c := range [][3]string{{"GET", p, ""}, {"PUT", p, `{"server":{"name":"x"}}`}, {"DELETE", p, ""}, {"POST", p + "/action", `{"os-stop":null}`}, {"POST", p + "/action", `{"reboot":{"type":"HARD"}}`},
		{"POST", p + "/action", `{"createImage":{"name":"x"}}`}, {"POST", p + "/action", `{"lock":null}`}, {"POST", p + "/action", `{"rebuild":{"imageRef":"` + imageID + `"}}`},
		{"POST", p + "/action", `{"resize":{"flavorRef":"2"}}`}, {"GET", p + "/metadata", ""}, {"PUT", p + "/metadata", `{"metadata":{}}`}, {"GET", p + "/tags", ""}, {"PUT", p + "/tags/x", ""},
		{"GET", p + "/os-interface", ""}, {"POST", p + "/os-interface", `{"interfaceAttachment":{}}`}, {"GET", p + "/ips", ""}, {"GET", p + "/os-instance-actions", ""}, {"GET", p + "/os-server-password", ""},
		{"GET", p + "/topology", ""}, {"POST", p + "/remote-consoles", `{"remote_console":{"protocol":"vnc","type":"novnc"}}`}, {"POST", p + "/action", `{"os-getConsoleOutput":{}}`},
		{"GET", p + "/os-volume_attachments", ""}, {"POST", p + "/action", `{"addSecurityGroup":{"name":"default"}}`}} {
		if got := w.refused("member@other", c[0], c[1], c[2], 80, 404); strings.Contains(got, apitest.Project) {
			t.Error(got)
		}
	}
	if w.accepted() != 0 {
		t.Fatal("something was accepted")
	}
	if n := len(w.ask("member@other", "GET", "/servers", "", 80, 200)["servers"].([]any)); n != 0 {
		t.Fatal(n)
	}
	w.ask("admin@other", "GET", p, "", 80, 200)
	w.refused("reader", "DELETE", p, "", 80, 403)
}

func TestListFiltersAndPages(t *testing.T) {
	w := newWorld(t)
	var ids []string
	for i := range 5 {
		s := w.boot(func(s *compute.Server) {
			s.Name, s.Created = fmt.Sprintf("s%d", i), clock.Now().Add(time.Duration(i)*time.Second)
			switch i {
			case 1:
				s.VMState = compute.VMStopped
			case 2:
				s.Locked, s.LockedBy = true, "owner"
			case 3:
				s.Host = "c2"
			case 4:
				s.ProjectID = apitest.Other
			}
		})
		ids = append(ids, s.ID)
	}
	gone := w.boot(func(s *compute.Server) { s.Name = "gone" })
	w.write(func(tx *db.Tx) error { return w.store.DeleteServer(w.Context(), tx, gone.ID) })
	for _, c := range []struct {
		token, query string
		minor        int
		want         string
	}{
		{"reader", "", 1, "s3 s2 s1 s0"}, {"reader", "?name=s[12]", 1, "s2 s1"}, {"reader", "?status=SHUTOFF", 1, "s1"}, {"reader", "?status=shutoff&status=active", 1, "s3 s2 s1 s0"},
		{"reader", "?status=nonsense", 37, ""}, {"reader", "?locked=true", 73, "s2"}, {"reader", "?host=c2", 1, "s3 s2 s1 s0"}, {"admin", "?host=c2", 1, "s3"},
		{"admin", "?all_tenants=1", 1, "s4 s3 s2 s1 s0"}, {"admin", "?all_tenants", 1, "s4 s3 s2 s1 s0"}, {"admin", "?all_tenants=0", 1, "s3 s2 s1 s0"},
		{"admin", "?tenant_id=" + apitest.Other, 1, "s3 s2 s1 s0"}, {"admin", "?all_tenants=&tenant_id=" + apitest.Other, 1, "s4"}, {"admin", "?all_tenants=1&project_id=" + apitest.Other, 1, "s4"}, {"admin", "?deleted=true", 1, "gone"}, {"admin", "?status=deleted", 1, "gone"},
		{"reader", "?deleted=true", 1, "s3 s2 s1 s0"}, {"reader", "?changes-since=2020-01-01T00:00:00Z", 1, "s3 s2 s1 gone s0"}, {"reader", "?limit=2", 1, "s3 s2"}, {"reader", "?limit=0", 1, ""},
		{"reader", "?limit=2&marker=" + ids[2], 1, "s1 s0"}, {"reader", "?sort_key=display_name&sort_dir=asc", 1, "s0 s1 s2 s3"}, {"reader", "?ip=10.0.0", 1, "s3 s2 s1 s0"},
		{"reader", "?ip=10.0.1", 1, ""}, {"reader", "?tags=blue", 26, "s3 s2 s1 s0"}, {"reader", "?not-tags=blue", 26, ""}, {"reader", "?image=" + imageID, 1, "s3 s2 s1 s0"}, {"reader", "?flavor=2", 1, ""},
		{"reader", "?vm_state=stopped", 82, "s3 s2 s1 s0"}, {"reader", "?vm_state=stopped", 83, "s1"}, {"reader", "?reservation_id=r-2", 1, ""}, {"reader", "?metadata=x&_internal=y", 1, "s3 s2 s1 s0"},
		{"admin", "?power_state=4", 1, ""}, {"admin", "?uuid=" + ids[0], 1, "s0"},
	} {
		got := list(w.ask(c.token, "GET", "/servers"+c.query, "", c.minor, 200), "servers", "name")
		if got != c.want {
			t.Errorf("%s %s at 2.%d: %q, want %q", c.token, c.query, c.minor, got, c.want)
		}
	}
	for query, code := range map[string]int{"?all_tenants=1": 403, "?marker=nobody": 400, "?limit=-1": 400, "?limit=x": 400, "?changes-since=yesterday": 400, "?status=nonsense": 400, "?status=deleted": 403,
		"?name=(": 400, "?sort_key=host": 403, "?sort_key=nonsense": 400, "?marker=" + ids[4]: 400} {
		w.refused("reader", "GET", "/servers/detail"+query, "", 38, code)
	}
	for query, text := range map[string]string{"?metadata=x": "Invalid filter field: metadata.", "?_internal=x": "Invalid filter field: _internal.",
		"?sort_dir=up": "Unknown sort direction, must be 'desc' or 'asc'", "?sort_key=uuid&sort_dir=asc&sort_dir=asc": "Sort direction array size exceeds sort key array size"} {
		if got := w.refused("admin", "GET", "/servers"+query, "", 1, 400); got != text {
			t.Errorf("%s: %q", query, got)
		}
	}
	// What is shown as changed at a second was changed by that second, and not by the one before.
	shown := w.ask("reader", "GET", "/servers/"+ids[0], "", 66, 200)["server"].(map[string]any)["updated"].(string)
	at, err := time.Parse(time.RFC3339, shown)
	if err != nil {
		t.Fatal(err)
	}
	for before, want := range map[string]bool{shown: true, at.Add(-time.Second).Format(time.RFC3339): false} {
		got := list(w.ask("reader", "GET", "/servers?changes-before="+before, "", 66, 200), "servers", "id")
		if strings.Contains(got, ids[0]) != want {
			t.Errorf("changes-before=%s of a server changed at %s: %s", before, shown, got)
		}
	}
	next := w.ask("reader", "GET", "/servers/detail?limit=2&name=s", "", 1, 200)["servers_links"].([]any)[0].(map[string]any)
	if href := next["href"].(string); !strings.HasSuffix(href, "/v2.1/servers/detail?limit=2&marker="+ids[2]+"&name=s") || next["rel"] != "next" {
		t.Error(next)
	}
}

// TestListMatchesParts: most filters match a part of a text, as regular expressions; a time is matched to its second or by what is written of it.
func TestListMatchesParts(t *testing.T) {
	w := newWorld(t)
	at := time.Date(2026, 3, 4, 5, 6, 7, 800_000_000, time.UTC)
	for i := range 3 {
		w.boot(func(s *compute.Server) {
			s.Name, s.Hostname, s.KeyName, s.Created = fmt.Sprintf("s%d", i), fmt.Sprintf("host-%d.example", i), fmt.Sprintf("key%d", i), at.AddDate(0, 0, i)
			if i == 2 {
				s.VMState = compute.VMSoftDeleted
			}
		})
	}
	for _, c := range []struct {
		token, query string
		minor        int
		want         string
	}{
		{"reader", "?key_name=KEY[01]", 83, "s1 s0"}, {"reader", "?key_name=1$", 83, "s1"}, {"reader", "?hostname=t-1.ex", 89, "s1 s0"}, {"reader", "?hostname=t-1.ex", 90, "s1"},
		{"reader", "?availability_zone=nov", 83, "s1 s0"}, {"admin", "?created_at=2026-03-05", 1, "s1"}, {"admin", "?created_at=2026-03-05T05:06:07Z", 1, "s1"},
		{"admin", "?created_at=2026-03-05T06:06:07%2B01:00", 1, "s1"}, {"admin", "?created_at=2026-03-05T05:06:08Z", 1, ""}, {"admin", "?power_state=x", 1, ""},
		{"reader", "?display_name=s1", 83, "s1 s0"}, {"admin", "?display_name=s1", 1, "s1"}, {"admin", "?config_drive=perhaps", 1, ""}, {"reader", "?ip=0.0.5", 1, "s1 s0"},
		{"reader", "?limit=2&limit=1", 1, "s1"}, {"reader", "?sort_key=vcpus&sort_key=display_name&sort_dir=asc", 74, "s1 s0"}, {"reader", "?sort_key=display_name&sort_key=uuid&sort_dir=asc", 1, "s0 s1"},
		{"reader", "?status=deleted&status=active", 1, "s1 s0"}, {"reader", "?status=soft_deleted", 1, "s2"}, {"admin", "?deleted=perhaps", 1, "s1 s0"}, {"admin", "?soft_deleted=true", 1, "s2 s1 s0"},
		{"admin", "?deleted=true", 1, "s2"}, {"admin", "?deleted=true&soft_deleted=false", 1, ""}, {"reader", "?changes-since=2020-01-01T00:00:00Z", 1, "s2 s1 s0"},
	} {
		if got := list(w.ask(c.token, "GET", "/servers"+c.query, "", c.minor, 200), "servers", "name"); got != c.want {
			t.Errorf("%s %s at 2.%d: %q, want %q", c.token, c.query, c.minor, got, c.want)
		}
	}
}

func TestUpdate(t *testing.T) {
	w := newWorld(t)
	s := w.boot()
	p := "/servers/" + s.ID
	for _, minor := range borders {
		apitest.CheckAnswer(t, "PUT /servers/{id}", minor, w.call("member", "PUT", p, `{"server":{"name":"new name"}}`, minor, 200))
	}
	if got := w.server(s.ID); got.Name != "new name" {
		t.Fatalf("%q", got.Name)
	}
	w.call("member", "PUT", p, `{"server":{"description":null,"accessIPv4":"192.0.2.9","accessIPv6":"0000:0000:0000:0000:0000:babe:220.12.22.2","OS-DCF:diskConfig":"AUTO"}}`, 19, 200)
	if got := w.server(s.ID); got.Description != nil || got.AccessIPv4 != "192.0.2.9" || got.AccessIPv6 != "::babe:dc0c:1602" || got.DiskConfig != "AUTO" || got.Name != "new name" {
		t.Fatal(got)
	}
	w.refused("member", "PUT", p, `{"server":{"name":""}}`, 1, 400)
	w.refused("member", "PUT", p, `{"server":{"unknown":1}}`, 1, 400)
	w.refused("member", "PUT", p, `{"server":{"description":"x"}}`, 18, 400)
	w.refused("member", "PUT", p, `{"server":{"pinned_availability_zone":"elsewhere"}}`, 104, 409)
	w.call("member", "PUT", p, `{"server":{"pinned_availability_zone":"nova"}}`, 104, 200)
	if got := w.server(s.ID); got.PinnedZone == nil || *got.PinnedZone != "nova" {
		t.Fatal(got.PinnedZone)
	}
	w.call("member", "PUT", p, `{"server":{"pinned_availability_zone":"nova"}}`, 104, 200) // again
	if got := w.refused("member", "PUT", p, `{"server":{"pinned_availability_zone":"elsewhere"}}`, 104, 409); !strings.HasPrefix(got, "Cannot change pinned availability zone directly.") {
		t.Fatal(got)
	}
	w.call("member", "PUT", p, `{"server":{"pinned_availability_zone":null}}`, 104, 200)
	if got := w.server(s.ID); got.PinnedZone != nil {
		t.Fatal(*got.PinnedZone)
	}
	w.refused("member", "PUT", "/servers/"+id.UUID(), `{"server":{"name":"x"}}`, 1, 404)
}

func TestDelete(t *testing.T) {
	w := newWorld(t)
	s := w.boot()
	w.call("member", "POST", "/servers/"+s.ID+"/action", `{"reboot":{"type":"SOFT"}}`, 1, 202)
	w.call("member", "DELETE", "/servers/"+s.ID, "", 1, 204) // takes over
	if got := w.last(); got.Kind != compute.OpDelete || !got.TakeOver || got.Action != "delete" || w.server(s.ID).TaskState != "deleting" {
		t.Fatal(got, w.server(s.ID).TaskState)
	}
	w.call("member", "DELETE", "/servers/"+s.ID, "", 1, 204) // again
	w.write(func(tx *db.Tx) error { return w.store.DeleteServer(w.Context(), tx, s.ID) })
	w.refused("member", "DELETE", "/servers/"+s.ID, "", 1, 404)
	w.refused("member", "GET", "/servers/"+s.ID, "", 1, 404)
	locked := w.boot(func(s *compute.Server) { s.Locked, s.LockedBy = true, "owner" })
	if got := w.refused("member", "DELETE", "/servers/"+locked.ID, "", 1, 409); got != "Instance "+locked.ID+" is locked" {
		t.Fatal(got)
	}
	w.call("admin", "DELETE", "/servers/"+locked.ID, "", 1, 204)
}

func TestSoftDelete(t *testing.T) {
	w := newWorld(t, func(o *backend.Options) { o.ReclaimInterval = time.Hour })
	s := w.boot()
	w.call("member", "DELETE", "/servers/"+s.ID, "", 1, 204)
	if got := w.last(); got.Kind != compute.OpSoftDelete || got.TaskState != "soft-deleting" || !got.TakeOver || !slices.Equal(got.Yields, []string{compute.OpDelete}) {
		t.Fatal(got)
	}
	soft := w.boot(func(s *compute.Server) { s.VMState = compute.VMSoftDeleted })
	w.call("member", "POST", "/servers/"+soft.ID+"/action", `{"restore":null}`, 1, 202)
	if got := w.last(); got.Kind != compute.OpRestore || got.TaskState != "restoring" {
		t.Fatal(got)
	}
	again := w.boot(func(s *compute.Server) { s.VMState = compute.VMSoftDeleted })
	w.call("member", "DELETE", "/servers/"+again.ID, "", 1, 204)
	if got := w.last(); got.Kind != compute.OpDelete {
		t.Fatal(got)
	}
	w.call("member", "POST", "/servers/"+w.boot().ID+"/action", `{"forceDelete":""}`, 1, 202)
	if got := w.last(); got.Kind != compute.OpDelete {
		t.Fatal(got)
	}
	young := w.boot(func(s *compute.Server) { s.Launched = time.Time{} })
	w.call("member", "DELETE", "/servers/"+young.ID, "", 1, 204)
	if got := w.last(); got.Kind != compute.OpDelete {
		t.Fatal(got)
	}
}
