package servers_test

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/api/apitest"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/id"
)

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
		"start":          {"stopped", `{"os-start":null}`, 1, "member", 202, compute.OpStart, "start", "powering-on", nil},
		"stop":           {"active", `{"os-stop":null}`, 1, "member", 202, compute.OpStop, "stop", "powering-off", nil},
		"soft":           {"active", `{"reboot":{"type":"soft"}}`, 1, "member", 202, compute.OpReboot, "reboot", "rebooting", compute.RebootInput{}},
		"hard":           {"stopped", `{"reboot":{"type":"HARD"}}`, 1, "member", 202, compute.OpReboot, "reboot", "rebooting_hard", compute.RebootInput{Hard: true}},
		"pause":          {"active", `{"pause":null}`, 1, "member", 202, compute.OpPause, "pause", "pausing", nil},
		"unpause":        {"paused", `{"unpause":null}`, 1, "member", 202, compute.OpUnpause, "unpause", "unpausing", nil},
		"suspend":        {"active", `{"suspend":null}`, 1, "member", 202, compute.OpSuspend, "suspend", "suspending", nil},
		"resume":         {"suspended", `{"resume":null}`, 1, "member", 202, compute.OpResume, "resume", "resuming", nil},
		"confirm":        {"resized", `{"confirmResize":null}`, 1, "member", 204, compute.OpConfirmResize, "confirmResize", "", nil},
		"revert":         {"resized", `{"revertResize":null}`, 1, "member", 202, compute.OpRevertResize, "revertResize", "resize_reverting", nil},
		"unrescue":       {"rescued", `{"unrescue":null}`, 1, "member", 202, compute.OpUnrescue, "unrescue", "unrescuing", nil},
		"offload":        {"shelved", `{"shelveOffload":null}`, 1, "admin", 202, compute.OpShelveOffload, "shelveOffload", "shelving_offloading", nil},
		"crash dump":     {"active", `{"trigger_crash_dump":null}`, 17, "member", 202, compute.OpCrashDump, "trigger_crash_dump", "", nil},
		"password":       {"active", `{"changePassword":{"adminPass":"x"}}`, 1, "member", 202, compute.OpPassword, "changePassword", "updating_password", compute.PasswordInput{Password: "x"}},
		"migrate":        {"active", `{"migrate":null}`, 1, "manager", 202, compute.OpResize, "migrate", "resize_prep", compute.ResizeInput{Flavor: flavorOf(w), Migrate: true}},
		"migrate to":     {"active", `{"migrate":{"host":"c2"}}`, 56, "admin", 202, compute.OpResize, "migrate", "resize_prep", compute.ResizeInput{Flavor: flavorOf(w), Migrate: true, Host: "c2"}},
		"live, old":      {"active", `{"os-migrateLive":{"host":"c2","block_migration":true,"disk_over_commit":"True"}}`, 1, "admin", 202, compute.OpLiveMigrate, "live-migration", "migrating", compute.LiveMigrateInput{Host: "c2", Block: &yes, OverCommit: true, Force: true}},
		"live, unjudged": {"active", `{"os-migrateLive":{"host":"c2","block_migration":"auto"}}`, 29, "admin", 202, compute.OpLiveMigrate, "live-migration", "migrating", compute.LiveMigrateInput{Host: "c2", Force: true}},
		"live, judged":   {"active", `{"os-migrateLive":{"host":"c2","block_migration":"auto"}}`, 30, "admin", 202, compute.OpLiveMigrate, "live-migration", "migrating", compute.LiveMigrateInput{Host: "c2"}},
		"live, auto":     {"paused", `{"os-migrateLive":{"host":null,"block_migration":"auto"}}`, 25, "manager", 202, compute.OpLiveMigrate, "live-migration", "migrating", compute.LiveMigrateInput{}},
		"unshelve":       {"shelved", `{"unshelve":null}`, 1, "member", 202, compute.OpUnshelve, "unshelve", "unshelving", compute.UnshelveInput{}},
		"unshelve, az":   {"shelved_offloaded", `{"unshelve":{"availability_zone":"nova"}}`, 77, "member", 202, compute.OpUnshelve, "unshelve", "unshelving", compute.UnshelveInput{Zone: ptr("nova")}},
		"unpin":          {"shelved_offloaded", `{"unshelve":{"availability_zone":null,"host":"c1"}}`, 91, "admin", 202, compute.OpUnshelve, "unshelve", "unshelving", compute.UnshelveInput{Unpin: true, Host: "c1"}},
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
		"resize below image": {func(s *compute.Server) { s.ImageID, s.Flavor.RAMMB = bigID, 1<<21 }, `{"resize":{"flavorRef":"2"}}`, 1, "member", 400, "Flavor's memory is too small for requested image."},
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
		"evacuate to none":   {nil, `{"evacuate":{"host":"c9"}}`, 14, "admin", 404, "Compute host c9 not found."},
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
	n := w.accepted()
	w.call("member", "POST", a, `{"lock":{"locked_reason":"mine"}}`, 73, 202) // changes nothing: an administrator's lock cannot be made one's own
	if got := w.server(s.ID); got.LockedBy != "admin" || got.LockedReason != nil || w.accepted() != n {
		t.Fatal(got.LockedBy, got.LockedReason)
	}
	w.refused("member", "POST", a, `{"unlock":null}`, 1, 403)
	w.call("admin", "POST", a, `{"unlock":null}`, 1, 202)
	w.call("member", "POST", a, `{"lock":{"locked_reason":"first"}}`, 73, 202)
	w.call("member", "POST", a, `{"lock":{"locked_reason":"second"}}`, 73, 202)
	w.call("admin@other", "POST", a, `{"lock":{}}`, 73, 202) // an administrator's replaces an owner's, and its reason stays without another
	if got := w.server(s.ID); got.LockedBy != "admin" || *got.LockedReason != "first" {
		t.Fatal(got.LockedBy, *got.LockedReason)
	}
	w.call("admin@other", "POST", a, `{"unlock":null}`, 1, 202)
	w.call("admin", "POST", a, `{"os-resetState":{"state":"error"}}`, 1, 202)
	if w.server(s.ID).VMState != compute.VMError {
		t.Fatal("not reset")
	}
	if op := w.last(); op.Kind != "resetState" || !op.Finished {
		t.Fatal(op)
	}
	// What waited to be confirmed or reverted cannot be any more: it is confirmed.
	resized := w.boot(func(s *compute.Server) { s.VMState, s.OldFlavor = compute.VMResized, &s.Flavor })
	w.call("admin", "POST", "/servers/"+resized.ID+"/action", `{"os-resetState":{"state":"active"}}`, 1, 202)
	if op := w.last(); op.Kind != compute.OpConfirmResize || op.Object != resized.ID || op.Finished || w.server(resized.ID).VMState != compute.VMActive {
		t.Fatal(op)
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
	// One whose request may have been accepted stays: the operation that fills it may be there.
	s = w.boot()
	w.ops.lost = true
	for i, body := range []string{`{"createImage":{"name":"x"}}`, `{"shelve":null}`} {
		w.refused("member", "POST", "/servers/"+s.ID+"/action", body, 45, 503)
		if len(w.images.m) != n+i+1 {
			t.Fatalf("%s: the image of an operation that may be there is gone", body)
		}
	}
	w.ops.lost = false
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
	if diff := cmp.Diff(compute.EvacuateInput{Host: "c1", AdminPass: "p", Force: true}, w.last().Input); diff != "" || w.last().TaskState != "rebuilding" {
		t.Fatal(diff)
	}
	for minor, forced := range map[int]bool{28: true, 29: false, 68: false, 104: false} {
		s = w.boot(func(s *compute.Server) { s.Host = "c3" })
		w.call("admin", "POST", "/servers/"+s.ID+"/action", `{"evacuate":{"host":"c1"}}`, minor, 200)
		if in := w.last().Input.(compute.EvacuateInput); in.Force != forced || in.Stop != (minor >= 95) {
			t.Errorf("at 2.%d: %+v", minor, in)
		}
	}
	s = w.boot(func(s *compute.Server) { s.Host = "c3" })
	if doc := w.ask("admin", "POST", "/servers/"+s.ID+"/action", `{"evacuate":{"onSharedStorage":"True"}}`, 1, 200); doc["adminPass"] != nil || len(doc) != 1 {
		t.Fatal(doc)
	}
	s = w.boot(func(s *compute.Server) { s.Host = "c3" })
	if raw := w.call("admin", "POST", "/servers/"+s.ID+"/action", `{"evacuate":{}}`, 95, 200); len(raw) != 0 || !w.last().Input.(compute.EvacuateInput).Stop {
		t.Fatalf("%s", raw)
	}
}

// TestHypervisorLacks: what a host's driver does not have is refused at once, each operation with its own status.
func TestHypervisorLacks(t *testing.T) {
	w := newWorld(t)
	w.host.traits = []string{"COMPUTE_NODE"}
	for _, c := range []struct {
		state, token, path, body string
		minor, code              int
	}{
		{"active", "member", "/action", `{"pause":null}`, 1, 501}, {"paused", "member", "/action", `{"unpause":null}`, 1, 501}, {"active", "member", "/action", `{"suspend":null}`, 1, 409},
		{"suspended", "member", "/action", `{"resume":null}`, 1, 409}, {"active", "member", "/action", `{"rescue":null}`, 1, 501}, {"rescued", "member", "/action", `{"unrescue":null}`, 1, 501},
		{"active", "member", "/action", `{"changePassword":{"adminPass":"x"}}`, 1, 501}, {"active", "member", "/action", `{"trigger_crash_dump":null}`, 17, 400},
		{"active", "member", "/action", `{"createImage":{"name":"x"}}`, 1, 409}, {"active", "member", "/action", `{"shelve":null}`, 1, 409}, {"active", "member", "/action", `{"resize":{"flavorRef":"2"}}`, 1, 409},
		{"active", "manager", "/action", `{"migrate":null}`, 1, 409}, {"active", "member", "/os-interface", `{"interfaceAttachment":{"net_id":"` + netA + `"}}`, 1, 501},
	} {
		s := w.boot(func(s *compute.Server) { s.VMState = c.state })
		if got := w.refused(c.token, "POST", "/servers/"+s.ID+c.path, c.body, c.minor, c.code); !strings.HasPrefix(got, "The hypervisor of instance "+s.ID+" cannot ") {
			t.Errorf("%s: %s", c.body, got)
		}
	}
	if w.accepted() != 0 || len(w.images.m) != 3 || len(w.net.ports) != 2+13 {
		t.Fatal("something was left behind", w.accepted(), len(w.images.m), len(w.net.ports))
	}
	w.host.traits = append(w.host.traits, "CUSTOM_KILONOVA_PAUSE")
	w.call("member", "POST", "/servers/"+w.boot().ID+"/action", `{"pause":null}`, 1, 202)
	w.host.traits = nil // not described yet
	w.call("member", "POST", "/servers/"+w.boot().ID+"/action", `{"suspend":null}`, 1, 202)
}

// TestRevertAgainstTheGroup: a revert that would part a server from its group is refused at once, with what to do.
func TestRevertAgainstTheGroup(t *testing.T) {
	w := newWorld(t)
	const group, migration = "77777777-2222-4333-8444-555555555556", "77777777-2222-4333-8444-555555555557"
	w.write(func(tx *db.Tx) error {
		return w.store.InsertGroup(t.Context(), tx, &compute.ServerGroup{ID: group, Name: "g", ProjectID: apitest.Project, UserID: "member", Policy: "affinity"})
	})
	s := w.boot(func(s *compute.Server) {
		s.VMState, s.OldFlavor, s.GroupID, s.System = compute.VMResized, &s.Flavor, group, map[string]string{compute.SysMigration: migration}
	})
	w.write(func(tx *db.Tx) error {
		return w.store.InsertMigration(t.Context(), tx, &compute.Migration{UUID: migration, ServerID: s.ID, Type: "resize", Status: "finished", SourceHost: "before", DestHost: s.Host})
	})
	other := w.boot(func(s *compute.Server) { s.GroupID = group })
	revert := func() *httptest.ResponseRecorder {
		return apitest.Call(w.h, "member", "POST", "/v2.1/servers/"+s.ID+"/action", `{"revertResize":null}`, 1)
	}
	want := "Instance " + s.ID + " cannot go back to host before, because of other members of its server group: Affinity instance group policy was violated."
	if r := revert(); r.Code != 409 || !strings.Contains(r.Body.String(), want) || !strings.Contains(r.Body.String(), "Confirm the resize") {
		t.Fatalf("%d %s", r.Code, r.Body)
	}
	w.write(func(tx *db.Tx) error { return w.store.DeleteServer(t.Context(), tx, other.ID) })
	if r := revert(); r.Code != 202 {
		t.Fatalf("%d %s", r.Code, r.Body)
	}
}
