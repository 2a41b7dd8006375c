package servers_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/api/apitest"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/store"
	"kilonova/internal/compute/virt"
	"kilonova/internal/db"
	"kilonova/internal/fault"
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
				for _, minor := range borders {
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
		{"admin", "?tenant_id=" + apitest.Other, 1, "s4"}, {"admin", "?all_tenants=1&project_id=" + apitest.Other, 1, "s4"}, {"admin", "?deleted=true", 1, "gone"}, {"admin", "?status=deleted", 1, "gone"},
		{"reader", "?deleted=true", 1, "s3 s2 s1 s0"}, {"reader", "?changes-since=2020-01-01T00:00:00Z", 1, "s3 s2 s1 gone s0"}, {"reader", "?limit=2", 1, "s3 s2"}, {"reader", "?limit=0", 1, ""},
		{"reader", "?limit=2&marker=" + ids[2], 1, "s1 s0"}, {"reader", "?sort_key=display_name&sort_dir=asc", 1, "s0 s1 s2 s3"}, {"reader", "?ip=10.0.0", 1, "s3 s2 s1 s0"},
		{"reader", "?ip=10.0.1", 1, ""}, {"reader", "?tags=blue", 26, "s3 s2 s1 s0"}, {"reader", "?not-tags=blue", 26, ""}, {"reader", "?image=" + imageID, 1, "s3 s2 s1 s0"}, {"reader", "?flavor=2", 1, ""},
		{"reader", "?vm_state=stopped", 82, "s3 s2 s1 s0"}, {"reader", "?vm_state=stopped", 83, "s1"}, {"reader", "?reservation_id=r-2", 1, ""}, {"admin", `?metadata={"a":"b"}`, 1, "s3 s2 s1 s0"},
		{"admin", "?power_state=4", 1, ""}, {"admin", "?uuid=" + ids[0], 1, "s0"},
	} {
		got := list(w.ask(c.token, "GET", "/servers"+strings.ReplaceAll(c.query, `"`, "%22"), "", c.minor, 200), "servers", "name")
		if got != c.want {
			t.Errorf("%s %s at 2.%d: %q, want %q", c.token, c.query, c.minor, got, c.want)
		}
	}
	for query, code := range map[string]int{"?all_tenants=1": 403, "?marker=nobody": 400, "?limit=-1": 400, "?limit=x": 400, "?changes-since=yesterday": 400, "?status=nonsense": 400, "?status=deleted": 403,
		"?name=(": 400, "?sort_key=host": 403, "?sort_key=nonsense": 400, "?marker=" + ids[4]: 400} {
		w.refused("reader", "GET", "/servers/detail"+query, "", 38, code)
	}
	next := w.ask("reader", "GET", "/servers/detail?limit=2&name=s", "", 1, 200)["servers_links"].([]any)[0].(map[string]any)
	if href := next["href"].(string); !strings.HasSuffix(href, "/v2.1/servers/detail?limit=2&marker="+ids[2]+"&name=s") || next["rel"] != "next" {
		t.Error(next)
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
	w.call("member", "PUT", p, `{"server":{"description":null,"accessIPv4":"192.0.2.9","OS-DCF:diskConfig":"AUTO"}}`, 19, 200)
	if got := w.server(s.ID); got.Description != nil || got.AccessIPv4 != "192.0.2.9" || got.DiskConfig != "AUTO" || got.Name != "new name" {
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
	if got := w.last(); got.Kind != compute.OpSoftDelete || got.TaskState != "soft-deleting" {
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

// TestActions accepts each action in a state that allows it and looks at the operation that was recorded.
func TestActions(t *testing.T) {
	w := newWorld(t)
	in := func(vm string) func(*compute.Server) { return func(s *compute.Server) { s.VMState = vm } }
	yes := true
	for name, c := range map[string]struct {
		state  string
		body   string
		minor  int
		token  string
		code   int
		kind   string
		action string
		task   string
		input  any
	}{
		"start":        {"stopped", `{"os-start":null}`, 1, "member", 202, compute.OpStart, "start", "powering-on", nil},
		"stop":         {"active", `{"os-stop":null}`, 1, "member", 202, compute.OpStop, "stop", "powering-off", nil},
		"soft":         {"active", `{"reboot":{"type":"soft"}}`, 1, "member", 202, compute.OpReboot, "reboot", "rebooting", compute.RebootInput{}},
		"hard":         {"stopped", `{"reboot":{"type":"HARD"}}`, 1, "member", 202, compute.OpReboot, "reboot", "rebooting_hard", compute.RebootInput{Hard: true}},
		"pause":        {"active", `{"pause":null}`, 1, "member", 202, compute.OpPause, "pause", "pausing", nil},
		"unpause":      {"paused", `{"unpause":null}`, 1, "member", 202, compute.OpUnpause, "unpause", "unpausing", nil},
		"suspend":      {"active", `{"suspend":null}`, 1, "member", 202, compute.OpSuspend, "suspend", "suspending", nil},
		"resume":       {"suspended", `{"resume":null}`, 1, "member", 202, compute.OpResume, "resume", "resuming", nil},
		"confirm":      {"resized", `{"confirmResize":null}`, 1, "member", 204, compute.OpConfirmResize, "confirmResize", "", nil},
		"revert":       {"resized", `{"revertResize":null}`, 1, "member", 202, compute.OpRevertResize, "revertResize", "resize_reverting", nil},
		"unrescue":     {"rescued", `{"unrescue":null}`, 1, "member", 202, compute.OpUnrescue, "unrescue", "unrescuing", nil},
		"offload":      {"shelved", `{"shelveOffload":null}`, 1, "admin", 202, compute.OpShelveOffload, "shelveOffload", "shelving_offloading", nil},
		"crash dump":   {"active", `{"trigger_crash_dump":null}`, 17, "member", 202, compute.OpCrashDump, "trigger_crash_dump", "", nil},
		"password":     {"active", `{"changePassword":{"adminPass":"x"}}`, 1, "member", 202, compute.OpPassword, "changePassword", "updating_password", compute.PasswordInput{Password: "x"}},
		"migrate":      {"active", `{"migrate":null}`, 1, "manager", 202, compute.OpResize, "migrate", "resize_prep", compute.ResizeInput{Flavor: flavorOf(w), Migrate: true}},
		"migrate to":   {"active", `{"migrate":{"host":"c2"}}`, 56, "admin", 202, compute.OpResize, "migrate", "resize_prep", compute.ResizeInput{Flavor: flavorOf(w), Migrate: true, Host: "c2"}},
		"live, old":    {"active", `{"os-migrateLive":{"host":"c2","block_migration":true,"disk_over_commit":"True"}}`, 1, "admin", 202, compute.OpLiveMigrate, "live-migration", "migrating", compute.LiveMigrateInput{Host: "c2", Block: &yes, OverCommit: true}},
		"live, auto":   {"paused", `{"os-migrateLive":{"host":null,"block_migration":"auto"}}`, 25, "manager", 202, compute.OpLiveMigrate, "live-migration", "migrating", compute.LiveMigrateInput{}},
		"unshelve":     {"shelved", `{"unshelve":null}`, 1, "member", 202, compute.OpUnshelve, "unshelve", "unshelving", compute.UnshelveInput{}},
		"unshelve, az": {"shelved_offloaded", `{"unshelve":{"availability_zone":"nova"}}`, 77, "member", 202, compute.OpUnshelve, "unshelve", "unshelving", compute.UnshelveInput{Zone: ptr("nova")}},
		"unpin":        {"shelved_offloaded", `{"unshelve":{"availability_zone":null,"host":"c1"}}`, 91, "admin", 202, compute.OpUnshelve, "unshelve", "unshelving", compute.UnshelveInput{Unpin: true, Host: "c1"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := w.boot(in(c.state))
			w.call(c.token, "POST", "/servers/"+s.ID+"/action", c.body, c.minor, c.code)
			got := w.last()
			if got.Kind != c.kind || got.Action != c.action || got.TaskState != c.task || got.Object != s.ID || got.Project != s.ProjectID || got.User != c.token || !strings.HasPrefix(got.RequestID, "req-") {
				t.Fatalf("%+v", got)
			}
			if diff := cmp.Diff(c.input, got.Input); diff != "" {
				t.Fatal(diff)
			}
			if w.server(s.ID).TaskState != c.task {
				t.Fatal(w.server(s.ID).TaskState)
			}
			if c.task == "" {
				return
			}
			if got := w.refused("member", "POST", "/servers/"+s.ID+"/action", `{"createImage":{"name":"x"}}`, 1, 409); !strings.Contains(got, "instance "+s.ID+" while it is in ") {
				t.Fatal(got)
			}
		})
	}
}

func ptr[T any](v T) *T { return &v }

func flavorOf(*world) compute.Flavor {
	return compute.Flavor{ID: 1, FlavorID: "1", Name: "m1.tiny", VCPUs: 1, RAMMB: 512, RootGB: 1, ExtraSpecs: map[string]string{"hw:cpu_policy": "shared"}}
}

// TestActionRefusals: the right status and the sentences that clients match on.
func TestActionRefusals(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		change func(*compute.Server)
		body   string
		minor  int
		token  string
		code   int
		text   string
	}{
		"start active":       {nil, `{"os-start":null}`, 1, "member", 409, "Cannot 'start' instance ID while it is in vm_state active"},
		"resize to same":     {nil, `{"resize":{"flavorRef":"1"}}`, 1, "member", 400, "When resizing, instances must change flavor!"},
		"resize to nothing":  {nil, `{"resize":{"flavorRef":"nope"}}`, 1, "member", 400, "Flavor nope could not be found."},
		"resize to zero":     {nil, `{"resize":{"flavorRef":"0"}}`, 1, "member", 400, "Resize to zero disk flavor is not allowed."},
		"resize to secret":   {nil, `{"resize":{"flavorRef":"secret"}}`, 1, "member", 400, "Flavor secret could not be found."},
		"resize, host down":  {func(s *compute.Server) { s.Host = "nowhere" }, `{"resize":{"flavorRef":"2"}}`, 1, "member", 409, "down"},
		"two actions":        {nil, `{"os-start":null,"os-stop":null}`, 1, "member", 400, ""},
		"unknown action":     {nil, `{"fly":null}`, 1, "member", 400, "There is no such action: fly"},
		"vnc action gone":    {nil, `{"os-getVNCConsole":{"type":"novnc"}}`, 6, "member", 404, ""},
		"migrate, member":    {nil, `{"migrate":null}`, 1, "member", 403, ""},
		"migrate to same":    {nil, `{"migrate":{"host":"c1"}}`, 56, "admin", 400, "The target host can't be the same one."},
		"migrate to nothing": {nil, `{"migrate":{"host":"c9"}}`, 56, "admin", 400, "Compute host c9 could not be found."},
		"rebuild, no image":  {nil, `{"rebuild":{"imageRef":"` + id.UUID() + `"}}`, 1, "member", 400, "Can not find requested image"},
		"rebuild, too big":   {nil, `{"rebuild":{"imageRef":"` + bigID + `"}}`, 1, "member", 400, "Flavor's memory is too small for requested image."},
		"evacuate, host up":  {nil, `{"evacuate":{}}`, 14, "admin", 400, "Compute service of c1 is still in use."},
		"evacuate to same":   {nil, `{"evacuate":{"host":"c1"}}`, 14, "admin", 400, "The target host can't be the same one."},
		"unlock admin's":     {func(s *compute.Server) { s.Locked, s.LockedBy = true, "admin" }, `{"unlock":null}`, 1, "member", 403, ""},
		"image of building":  {func(s *compute.Server) { s.VMState = "building" }, `{"createImage":{"name":"x"}}`, 1, "member", 409, "Cannot 'createImage' instance ID while it is in vm_state building"},
		"unshelve active":    {nil, `{"unshelve":null}`, 1, "member", 409, "Cannot 'unshelve' instance ID while it is in vm_state active"},
		"unshelve, az":       {func(s *compute.Server) { s.VMState = "shelved" }, `{"unshelve":{"availability_zone":"nova"}}`, 77, "member", 409, ""},
		"backup, no type":    {nil, `{"createBackup":{"name":"x","rotation":1}}`, 1, "member", 400, ""},
		"fixed ip":           {nil, `{"removeFixedIp":{"address":"10.9.9.9"}}`, 1, "member", 400, ""},
		"group absent":       {nil, `{"addSecurityGroup":{"name":"absent"}}`, 1, "member", 404, ""},
		"group not had":      {nil, `{"removeSecurityGroup":{"name":"other"}}`, 1, "member", 404, ""},
		"reset, reader":      {nil, `{"os-resetState":{"state":"error"}}`, 1, "member", 403, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if c.change == nil {
				c.change = func(*compute.Server) {}
			}
			s := w.boot(c.change)
			before := w.accepted()
			got := w.refused(c.token, "POST", "/servers/"+s.ID+"/action", c.body, c.minor, c.code)
			if !strings.Contains(got, strings.ReplaceAll(c.text, "ID", s.ID)) {
				t.Fatal(got)
			}
			if w.accepted() != before {
				t.Fatal("accepted all the same")
			}
		})
	}
}

func TestResizeReservesTheDifference(t *testing.T) {
	w := newWorld(t, func(o *backend.Options) { o.Quota = store.Limits{"cores": 1} })
	s := w.boot()
	if got := w.refused("member", "POST", "/servers/"+s.ID+"/action", `{"resize":{"flavorRef":"2"}}`, 1, 403); got != "Quota exceeded for cores: Requested 1, but already used 1 of 1 cores" {
		t.Fatal(got)
	}
}

func TestLocking(t *testing.T) {
	w := newWorld(t)
	s := w.boot()
	a := "/servers/" + s.ID + "/action"
	w.call("member", "POST", a, `{"lock":{"locked_reason":"why"}}`, 73, 202)
	got := w.server(s.ID)
	if !got.Locked || got.LockedBy != "owner" || *got.LockedReason != "why" || got.TaskState != "" {
		t.Fatal(got)
	}
	if op := w.last(); op.Action != "lock" || !op.Finished {
		t.Fatal(op)
	}
	w.refused("member", "POST", a, `{"os-stop":null}`, 1, 409)
	w.call("member", "POST", a, `{"unlock":null}`, 1, 202)
	if got := w.server(s.ID); got.Locked || got.LockedBy != "" || got.LockedReason != nil {
		t.Fatal(got)
	}
	w.call("admin@other", "POST", a, `{"lock":null}`, 1, 202)
	if got := w.server(s.ID); got.LockedBy != "admin" {
		t.Fatal(got.LockedBy)
	}
	w.call("admin", "POST", a, `{"unlock":null}`, 1, 202)
	w.call("admin", "POST", a, `{"os-resetState":{"state":"error"}}`, 1, 202)
	if w.server(s.ID).VMState != compute.VMError {
		t.Fatal("not reset")
	}
}

func TestImagesOfServers(t *testing.T) {
	w := newWorld(t)
	s := w.boot()
	out := apitest.Call(w.h, "member", "POST", "/v2.1/servers/"+s.ID+"/action", `{"createImage":{"name":"snap","metadata":{"k":"v"}}}`, 44)
	if out.Code != 202 || out.Body.Len() != 0 {
		t.Fatal(out.Code, out.Body.String())
	}
	in := w.last().Input.(compute.SnapshotInput)
	if !strings.HasSuffix(out.Header().Get("Location"), "/images/"+in.ImageID) || in.Name != "snap" {
		t.Fatal(out.Header().Get("Location"), in)
	}
	img := w.images.m[in.ImageID]
	if img.Status != "queued" || img.MinDisk != 1 || img.DiskFormat != "qcow2" || img.Properties["instance_uuid"] != s.ID || img.Properties["k"] != "v" || img.Properties["image_type"] != "snapshot" ||
		img.Properties["hw_disk_bus"] != "virtio" || img.Properties["base_image_ref"] != imageID {
		t.Fatal(img)
	}
	s = w.boot()
	doc := w.call("member", "POST", "/servers/"+s.ID+"/action", `{"createBackup":{"name":"b","backup_type":"daily","rotation":"2"}}`, 45, 202)
	apitest.CheckAnswer(t, "POST /servers/{id}/action createBackup", 45, doc)
	in = w.last().Input.(compute.SnapshotInput)
	if in.Rotation != 2 || in.BackupType != "daily" || w.images.m[in.ImageID].Properties["backup_type"] != "daily" {
		t.Fatal(in)
	}
	// A refusal leaves no image behind.
	n := len(w.images.m)
	w.refused("member", "POST", "/servers/"+s.ID+"/action", `{"createImage":{"name":"x"}}`, 45, 409)
	if len(w.images.m) != n {
		t.Fatal("a queued image was left")
	}
	s = w.boot()
	w.call("member", "POST", "/servers/"+s.ID+"/action", `{"shelve":null}`, 1, 202)
	shelf := w.last().Input.(compute.ShelveInput)
	if !shelf.Offload || w.images.m[shelf.ImageID].Name != "vm-shelved" {
		t.Fatal(shelf)
	}
	s = w.boot()
	rescue := w.ask("member", "POST", "/servers/"+s.ID+"/action", `{"rescue":{"adminPass":"secret"}}`, 1, 200)
	if rescue["adminPass"] != "secret" || w.last().Input.(compute.RescueInput).ImageID != imageID {
		t.Fatal(rescue)
	}
}

func TestRebuild(t *testing.T) {
	w := newWorld(t)
	for _, minor := range borders {
		s := w.boot()
		raw := w.call("member", "POST", "/servers/"+s.ID+"/action", `{"rebuild":{"imageRef":"`+imageID+`","name":"again","metadata":{"x":"y"},"adminPass":"pw"}}`, minor, 202)
		apitest.CheckAnswer(t, "POST /servers/{id}/action rebuild", minor, raw)
		if !strings.Contains(string(raw), `"status":"REBUILD"`) || !strings.Contains(string(raw), `"adminPass":"pw"`) {
			t.Fatalf("%s", raw)
		}
	}
	s := w.boot(func(s *compute.Server) { s.ImageID = queuedID })
	w.write(func(tx *db.Tx) error {
		return w.store.InsertKeyPair(w.Context(), tx, &compute.KeyPair{Name: "new", UserID: "member", Type: "ssh", PublicKey: "ssh-rsa A"}, -1)
	})
	w.call("member", "POST", "/servers/"+s.ID+"/action", `{"rebuild":{"imageRef":"`+imageID+`","key_name":"new","user_data":"YQ==","description":"d"}}`, 57, 202)
	got, in := w.server(s.ID), w.last().Input.(compute.RebuildInput)
	if got.KeyName != "new" || got.PublicKey != "ssh-rsa A" || got.UserData != "YQ==" || *got.Description != "d" || got.ImageID != queuedID || !in.NewImage || in.ImageID != imageID || len(in.AdminPass) != 12 {
		t.Fatal(got, in)
	}
}

func TestEvacuate(t *testing.T) {
	w := newWorld(t)
	s := w.boot(func(s *compute.Server) { s.Host = "c3" })
	w.write(func(tx *db.Tx) error {
		return w.store.SaveHost(w.Context(), tx, &compute.Host{Name: "c3", NodeID: id.UUID(), LastSeen: clock.Now().Add(-time.Hour)}, "c3")
	})
	doc := w.ask("admin", "POST", "/servers/"+s.ID+"/action", `{"evacuate":{"host":"c1","onSharedStorage":"False","adminPass":"p"}}`, 1, 200)
	if doc["adminPass"] != "p" {
		t.Fatal(doc)
	}
	if diff := cmp.Diff(compute.EvacuateInput{Host: "c1", AdminPass: "p"}, w.last().Input); diff != "" || w.last().TaskState != "rebuilding" {
		t.Fatal(diff)
	}
	s = w.boot(func(s *compute.Server) { s.Host = "c3" })
	if raw := w.call("admin", "POST", "/servers/"+s.ID+"/action", `{"evacuate":{}}`, 95, 200); len(raw) != 0 || !w.last().Input.(compute.EvacuateInput).Stop {
		t.Fatalf("%s", raw)
	}
}

func TestMetadataAndTags(t *testing.T) {
	w := newWorld(t, func(o *backend.Options) { o.Quota = store.Limits{"metadata_items": 3} })
	s := w.boot()
	m := "/servers/" + s.ID + "/metadata"
	w.call("member", "POST", m, `{"metadata":{"c":"d"}}`, 1, 200)
	w.call("member", "PUT", m+"/c", `{"meta":{"c":"e"}}`, 1, 200)
	w.refused("member", "PUT", m+"/c", `{"meta":{"d":"e"}}`, 1, 400)
	if diff := cmp.Diff(map[string]any{"metadata": map[string]any{"a": "b", "c": "e"}}, w.ask("reader", "GET", m, "", 1, 200)); diff != "" {
		t.Fatal(diff)
	}
	w.refused("reader", "GET", m+"/zz", "", 1, 404)
	w.refused("member", "DELETE", m+"/zz", "", 1, 404)
	w.call("member", "DELETE", m+"/a", "", 1, 204)
	if got := w.refused("member", "POST", m, `{"metadata":{"1":"","2":"","3":""}}`, 1, 403); got != "Maximum number of metadata items exceeds 3" {
		t.Fatal(got)
	}
	w.call("member", "PUT", m, `{"metadata":{"only":"one"}}`, 1, 200)
	if diff := cmp.Diff(map[string]string{"only": "one"}, w.server(s.ID).Metadata); diff != "" {
		t.Fatal(diff)
	}
	g := "/servers/" + s.ID + "/tags"
	w.call("member", "PUT", g+"/green", "", 26, 201)
	w.call("member", "PUT", g+"/green", "", 26, 204)
	w.call("reader", "GET", g+"/green", "", 26, 204)
	w.refused("reader", "GET", g+"/red", "", 26, 404)
	w.call("member", "DELETE", g+"/green", "", 26, 204)
	w.refused("member", "DELETE", g+"/green", "", 26, 404)
	w.refused("member", "PUT", g+"/"+strings.Repeat("x", 61), "", 26, 400)
	w.refused("member", "PUT", g+"/a,b", "", 26, 400)
	w.call("member", "PUT", g, `{"tags":["z","a","a"]}`, 26, 200)
	if diff := cmp.Diff(map[string]any{"tags": []any{"a", "z"}}, w.ask("reader", "GET", g, "", 26, 200)); diff != "" {
		t.Fatal(diff)
	}
	w.call("member", "DELETE", g, "", 26, 204)
	w.refused("reader", "GET", g, "", 25, 404)
	building := w.boot(func(s *compute.Server) { s.VMState = compute.VMBuilding })
	w.refused("member", "PUT", "/servers/"+building.ID+"/tags", `{"tags":[]}`, 26, 409)
}

func TestInterfaces(t *testing.T) {
	w := newWorld(t)
	s := w.boot()
	p := "/servers/" + s.ID + "/os-interface"
	for _, c := range []struct {
		body string
		code int
	}{{`{"interfaceAttachment":{"net_id":"` + netA + `","port_id":"` + portFree + `"}}`, 400}, {`{"interfaceAttachment":{"port_id":"` + portUsed + `"}}`, 409}, {`{"interfaceAttachment":{"port_id":"` + id.UUID() + `"}}`, 400},
		{`{"interfaceAttachment":{"net_id":"` + netBare + `"}}`, 400}, {`{"interfaceAttachment":{"fixed_ips":[{"ip_address":"10.0.0.3"}]}}`, 400},
		{`{"interfaceAttachment":{"net_id":"` + netA + `","fixed_ips":[{"ip_address":"10.0.0.9"}]}}`, 400}, {`{"interfaceAttachment":{}}`, 409}, {`{"interfaceAttachment":{"net_id":"` + netOut + `"}}`, 403}} {
		w.refused("member", "POST", p, c.body, 1, c.code)
	}
	raw := w.call("member", "POST", p, `{"interfaceAttachment":{"net_id":"`+netB+`","tag":"x"}}`, 70, 200)
	apitest.CheckAnswer(t, "POST /servers/{server_id}/os-interface", 70, raw)
	in := w.last().Input.(compute.NICInput)
	if in.NewPortID == "" || in.NetworkID != netB || in.Tag != "x" || w.net.ports[in.NewPortID].DeviceID != s.ID {
		t.Fatal(in)
	}
	// The server is held now: a second attachment leaves no port behind.
	n := len(w.net.ports)
	w.refused("member", "POST", p, `{"interfaceAttachment":{"net_id":"`+netB+`"}}`, 1, 409)
	if len(w.net.ports) != n {
		t.Fatal("a port was left")
	}
	s = w.boot()
	p = "/servers/" + s.ID + "/os-interface"
	apitest.CheckAnswer(t, "GET /servers/{server_id}/os-interface/{id}", 70, w.call("reader", "GET", p+"/"+s.VIFs[0].PortID, "", 70, 200))
	w.refused("reader", "GET", p+"/"+portUsed, "", 1, 404)
	w.refused("member", "DELETE", p+"/"+portUsed, "", 1, 404)
	w.call("member", "DELETE", p+"/"+s.VIFs[0].PortID, "", 1, 202)
	if got := w.last(); got.Kind != compute.OpDetachNIC || got.Input.(compute.NICInput).PortID != s.VIFs[0].PortID {
		t.Fatal(got)
	}
	s = w.boot()
	w.call("member", "POST", "/servers/"+s.ID+"/action", `{"addSecurityGroup":{"name":"web"}}`, 1, 202)
	if diff := cmp.Diff([]string{"id-of-default", "id-of-web"}, w.net.ports[s.VIFs[0].PortID].SecurityGroups); diff != "" {
		t.Fatal(diff)
	}
	w.call("member", "POST", "/servers/"+s.ID+"/action", `{"removeSecurityGroup":{"name":"web"}}`, 1, 202)
	w.call("member", "POST", "/servers/"+s.ID+"/action", `{"removeFixedIp":{"address":"10.0.0.5"}}`, 1, 202)
	w.refused("reader", "GET", "/servers/"+s.ID+"/ips/nowhere", "", 1, 404)
}

func TestInstanceActions(t *testing.T) {
	w := newWorld(t)
	s := w.boot()
	out := apitest.Call(w.h, "member", "POST", "/v2.1/servers/"+s.ID+"/action", `{"os-stop":null}`, 1)
	req := out.Header().Get("X-Compute-Request-Id")
	w.call("admin", "POST", "/servers/"+s.ID+"/action", `{"lock":null}`, 1, 202)
	for _, minor := range borders {
		for _, token := range []string{"reader", "admin"} {
			raw := w.call(token, "GET", "/servers/"+s.ID+"/os-instance-actions", "", minor, 200)
			apitest.CheckAnswer(t, "GET /servers/{server_id}/os-instance-actions", minor, raw)
			apitest.CheckAnswer(t, "GET /servers/{server_id}/os-instance-actions/{id}", minor, w.call(token, "GET", "/servers/"+s.ID+"/os-instance-actions/"+req, "", minor, 200))
		}
	}
	path := "/servers/" + s.ID + "/os-instance-actions"
	if got := list(w.ask("reader", "GET", path, "", 1, 200), "instanceActions", "action"); got != "lock stop" {
		t.Fatal(got)
	}
	page := w.ask("reader", "GET", path+"?limit=1", "", 58, 200)
	if list(page, "instanceActions", "action") != "lock" || page["links"] == nil {
		t.Fatal(page)
	}
	w.refused("reader", "GET", path+"?marker=req-none", "", 58, 400)
	w.refused("reader", "GET", path+"/req-none", "", 58, 404)
	w.write(func(tx *db.Tx) error { return w.store.DeleteServer(w.Context(), tx, s.ID) })
	w.refused("reader", "GET", path, "", 20, 404)
	w.call("reader", "GET", path, "", 21, 200)
}

func TestConsoles(t *testing.T) {
	w := newWorld(t)
	s := w.boot()
	w.agents.answer[command.QueryConsoleLog] = command.ConsoleLogResult{Output: "boot\x1b[0m\x00ed\n"}
	w.agents.answer[command.QueryConsole] = virt.ConsoleEndpoint{Kind: "vnc", Host: "127.0.0.1", Port: 5901}
	a := "/servers/" + s.ID + "/action"
	if got := w.ask("member", "POST", a, `{"os-getConsoleOutput":{"length":"10"}}`, 1, 200)["output"]; got != "boot[0med\n" {
		t.Fatalf("%q", got)
	}
	w.ask("member", "POST", a, `{"os-getConsoleOutput":{}}`, 1, 200)
	old := w.ask("member", "POST", a, `{"os-getVNCConsole":{"type":"novnc"}}`, 1, 200)["console"].(map[string]any)
	if !strings.HasPrefix(old["url"].(string), "http://console/vnc.html?path=websockify%3Ftoken%3D") {
		t.Fatal(old)
	}
	raw := w.call("member", "POST", "/servers/"+s.ID+"/remote-consoles", `{"remote_console":{"protocol":"vnc","type":"novnc"}}`, 8, 200)
	apitest.CheckAnswer(t, "POST /servers/{server_id}/remote-consoles", 8, raw)
	token := string(raw)[strings.Index(string(raw), "token%3D")+8:][:36]
	doc := w.call("admin", "GET", "/os-console-auth-tokens/"+token, "", 99, 200)
	apitest.CheckAnswer(t, "GET /os-console-auth-tokens/{id}", 99, doc)
	w.refused("admin", "GET", "/os-console-auth-tokens/"+id.UUID(), "", 31, 404)
	for _, c := range []struct {
		body string
		code int
	}{{`{"protocol":"vnc","type":"serial"}`, 400}, {`{"protocol":"spice","type":"spice-html5"}`, 400}} {
		w.refused("member", "POST", "/servers/"+s.ID+"/remote-consoles", `{"remote_console":`+c.body+`}`, 8, c.code)
	}
	w.agents.fail = fault.New(fault.NotImplemented, "no consoles")
	w.refused("member", "POST", a, `{"os-getConsoleOutput":{}}`, 1, 501)
	w.agents.fail = fault.New(fault.Unavailable, "silent")
	w.refused("member", "POST", a, `{"os-getConsoleOutput":{}}`, 1, 409)
	homeless := w.boot(func(s *compute.Server) { s.Host = "" })
	if got := w.refused("member", "POST", "/servers/"+homeless.ID+"/action", `{"os-getConsoleOutput":{}}`, 1, 409); got != "Instance "+homeless.ID+" is not ready" {
		t.Fatal(got)
	}
}

func TestDiagnosticsPasswordTopology(t *testing.T) {
	w := newWorld(t)
	s := w.boot(func(s *compute.Server) { s.System = map[string]string{"password_0": "ab", "password_1": "cd"} })
	n := int64(5)
	w.agents.answer[command.QueryDiagnostics] = virt.Diagnostics{State: "running", Driver: "libvirt", Hypervisor: "kvm", Uptime: &n, CPUs: []virt.CPUDiag{{Time: &n}}, Legacy: map[string]any{"cpu0_time": 5}}
	d := w.call("admin", "GET", "/servers/"+s.ID+"/diagnostics", "", 48, 200)
	apitest.CheckAnswer(t, "GET /servers/{server_id}/diagnostics", 48, d)
	if got := w.ask("admin", "GET", "/servers/"+s.ID+"/diagnostics", "", 47, 200); got["cpu0_time"] != 5.0 {
		t.Fatal(got)
	}
	if got := w.ask("reader", "GET", "/servers/"+s.ID+"/os-server-password", "", 1, 200)["password"]; got != "abcd" {
		t.Fatal(got)
	}
	w.call("member", "DELETE", "/servers/"+s.ID+"/os-server-password", "", 1, 204)
	if got := w.ask("reader", "GET", "/servers/"+s.ID+"/os-server-password", "", 1, 200)["password"]; got != "" {
		t.Fatal(got)
	}
	apitest.CheckAnswer(t, "GET /servers/{server_id}/topology", 78, w.call("reader", "GET", "/servers/"+s.ID+"/topology", "", 78, 200))
}

func TestLiveMigrationsOfServer(t *testing.T) {
	w := newWorld(t)
	s := w.boot()
	w.call("manager", "POST", "/servers/"+s.ID+"/action", `{"os-migrateLive":{"host":null,"block_migration":"auto"}}`, 30, 202)
	m := &compute.Migration{ServerID: s.ID, Type: "live-migration", Status: "running", SourceHost: "c1", DestHost: "c2", ProjectID: s.ProjectID, UserID: "member"}
	done := &compute.Migration{ServerID: s.ID, Type: "live-migration", Status: "completed"}
	w.write(func(tx *db.Tx) error {
		return errors.Join(w.store.InsertMigration(w.Context(), tx, m), w.store.InsertMigration(w.Context(), tx, done))
	})
	p := "/servers/" + s.ID + "/migrations"
	for _, minor := range []int{23, 58, 59, 79, 80, 104} {
		apitest.CheckAnswer(t, "GET /servers/{server_id}/migrations", minor, w.call("manager", "GET", p, "", minor, 200))
		apitest.CheckAnswer(t, "GET /servers/{server_id}/migrations/{id}", minor, w.call("admin", "GET", fmt.Sprint(p, "/", m.ID), "", minor, 200))
	}
	if got := list(w.ask("manager", "GET", p, "", 23, 200), "migrations", "status"); got != "running" {
		t.Fatal(got)
	}
	w.refused("admin", "GET", fmt.Sprint(p, "/", done.ID), "", 23, 404)
	w.call("manager", "POST", fmt.Sprint(p, "/", m.ID, "/action"), `{"force_complete":null}`, 22, 202)
	if got := w.last(); got.Kind != "live-migration-force" || !got.Shared {
		t.Fatal(got)
	}
	w.call("manager", "DELETE", fmt.Sprint(p, "/", m.ID), "", 24, 202)
	if got := w.last(); got.Kind != "live-migration-abort" || !got.Shared {
		t.Fatal(got)
	}
	w.write(func(tx *db.Tx) error {
		return w.store.UpdateMigration(w.Context(), tx, m.UUID, func(m *compute.Migration) error { m.Status = "preparing"; return nil })
	})
	w.refused("manager", "DELETE", fmt.Sprint(p, "/", m.ID), "", 64, 400)
	w.call("manager", "DELETE", fmt.Sprint(p, "/", m.ID), "", 65, 202)
}

func TestExternalEvents(t *testing.T) {
	w := newWorld(t)
	s, bare := w.boot(), w.boot(func(s *compute.Server) { s.Host = "" })
	raw := w.call("admin", "POST", "/os-server-external-events", `{"events":[{"name":"network-changed","server_uuid":"`+s.ID+`"}]}`, 1, 200)
	apitest.CheckAnswer(t, "POST /os-server-external-events", 1, raw)
	raw = w.call("service", "POST", "/os-server-external-events", `{"events":[{"name":"network-vif-plugged","server_uuid":"`+s.ID+`","tag":"x","status":"completed"},{"name":"network-vif-plugged","server_uuid":"`+
		bare.ID+`"},{"name":"network-changed","server_uuid":"`+id.UUID()+`"},{"name":"power-update","server_uuid":"`+s.ID+`","tag":"POWER_OFF"}]}`, 76, 207)
	apitest.CheckAnswer(t, "POST /os-server-external-events", 76, raw)
	var doc struct{ Events []struct{ Code int } }
	if err := json.Unmarshal(raw, &doc); err != nil || fmt.Sprint(doc.Events) != "[{200} {422} {404} {200}]" {
		t.Fatalf("%s", raw)
	}
	if got := w.last(); got.Kind != compute.OpStop {
		t.Fatal(got)
	}
	w.refused("admin", "POST", "/os-server-external-events", `{"events":[{"name":"network-changed","server_uuid":"`+id.UUID()+`"}]}`, 1, 404)
	w.refused("member", "POST", "/os-server-external-events", `{"events":[]}`, 1, 403)
}

func TestVolumesNeedAService(t *testing.T) {
	w := newWorld(t)
	s := w.boot()
	p := "/servers/" + s.ID + "/os-volume_attachments"
	if got := w.refused("member", "POST", p, `{"volumeAttachment":{"volumeId":"`+id.UUID()+`"}}`, 1, 400); !strings.Contains(got, "no volume service") {
		t.Fatal(got)
	}
	w.refused("member", "DELETE", p+"/"+id.UUID(), "", 1, 404)
	w.refused("reader", "GET", p+"/"+id.UUID(), "", 1, 404)
	apitest.CheckAnswer(t, "GET /servers/{server_id}/shares", 97, w.call("reader", "GET", "/servers/"+s.ID+"/shares", "", 97, 200))
	if got := w.refused("member", "POST", "/servers/"+w.boot(func(s *compute.Server) { s.VMState = compute.VMStopped }).ID+"/shares", `{"share":{"share_id":"`+id.UUID()+`"}}`, 97, 400); !strings.Contains(got, "no shared file system service") {
		t.Fatal(got)
	}
}
