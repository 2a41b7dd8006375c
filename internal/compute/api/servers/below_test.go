package servers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api/apitest"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/store"
	"kilonova/internal/compute/virt"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/operation"
)

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
	locked := w.ask("admin", "GET", path, "", 84, 200)["instanceActions"].([]any)[0].(map[string]any)["request_id"].(string)
	doc := w.ask("admin", "GET", path+"/"+locked, "", 84, 200)["instanceAction"].(map[string]any)
	if event, ok := doc["events"].([]any)[0].(map[string]any); !ok || len(doc["events"].([]any)) != 1 || event["event"] != "api_lock" || event["result"] != "Success" || event["finish_time"] == nil {
		t.Errorf("events of a lock: %v", doc["events"])
	}
	newest := w.ask("reader", "GET", path, "", 66, 200)["instanceActions"].([]any)[0].(map[string]any)["updated_at"].(string)
	at, err := time.Parse("2006-01-02T15:04:05.000000", newest)
	if err != nil {
		t.Fatal(err)
	}
	// An action changed by the moment that is shown, and not by the one before.
	for before, want := range map[time.Time]bool{at: true, at.Add(-time.Microsecond): false} {
		query := "?changes-before=" + before.Format("2006-01-02T15:04:05.000000")
		if got := list(w.ask("reader", "GET", path+query, "", 66, 200), "instanceActions", "action"); strings.Contains(got, "lock") != want {
			t.Errorf("%s of an action that changed at %s: %q", query, newest, got)
		}
	}
	if got := list(w.ask("reader", "GET", path, "", 1, 200), "instanceActions", "action"); got != "lock stop" {
		t.Fatal(got)
	}
	page := w.ask("reader", "GET", path+"?limit=1", "", 58, 200)
	if list(page, "instanceActions", "action") != "lock" || page["links"] == nil {
		t.Fatal(page)
	}
	w.refused("reader", "GET", path+"?marker=req-none", "", 58, 400)
	w.refused("reader", "GET", path+"/req-none", "", 58, 404)
	// A step may stand for several events, and the newest event comes first.
	w.write(func(tx *db.Tx) error {
		for i, event := range []string{"outer inner", "later"} {
			_, err := tx.Exec(w.Context(), "INSERT INTO operation_steps (operation, name, event, is_undo, attempt, epoch, host, started, finished, succeeded, error, public) "+
				"SELECT id, 'x', ?, ?, 1, 1, '', ?, 1, ?, '', '' FROM operations WHERE request_id = ?", event, false, i+1, true, req)
			if err != nil {
				return err
			}
		}
		return nil
	})
	doc = w.ask("admin", "GET", path+"/"+req, "", 84, 200)["instanceAction"].(map[string]any)
	if got := list(doc, "events", "event"); got != "later inner outer" {
		t.Fatal(got)
	}
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
	if !strings.HasPrefix(old["url"].(string), "http://console/vnc.html?path=websocket%3Ftoken%3D") {
		t.Fatal(old)
	}
	raw := w.call("member", "POST", "/servers/"+s.ID+"/remote-consoles", `{"remote_console":{"protocol":"vnc","type":"novnc"}}`, 8, 200)
	apitest.CheckAnswer(t, "POST /servers/{server_id}/remote-consoles", 8, raw)
	token := string(raw)[strings.Index(string(raw), "token%3D")+8:][:36]
	doc := w.call("admin", "GET", "/os-console-auth-tokens/"+token, "", 99, 200)
	apitest.CheckAnswer(t, "GET /os-console-auth-tokens/{id}", 99, doc)
	w.refused("admin", "GET", "/os-console-auth-tokens/"+id.UUID(), "", 31, 404)
	w.refused("admin", "GET", "/os-console-auth-tokens/"+token, "", 30, 400)
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

// That the database was away is no word of the host: it passes.
func TestConsolesWhileTheDatabaseIsAway(t *testing.T) {
	w := newWorld(t)
	s := w.boot()
	for _, c := range []struct {
		err  error
		want int
	}{
		{fault.New(fault.Unavailable, "The compute service on host c1 does not answer."), 409},
		{fault.Wrap(fault.ErrAway, fault.Unavailable, "The database cannot be reached. Try again."), 503},
	} {
		w.agents.fail = c.err
		w.refused("member", "POST", "/servers/"+s.ID+"/remote-consoles", `{"remote_console":{"protocol":"vnc","type":"novnc"}}`, 6, c.want)
	}
}

func TestDiagnosticsPasswordTopology(t *testing.T) {
	w := newWorld(t)
	s := w.boot(func(s *compute.Server) { s.System = map[string]string{"password_0": "ab", "password_1": "cd"} })
	n := int64(5)
	w.agents.answer[command.QueryDiagnostics] = virt.Diagnostics{State: "running", Driver: "fake", Hypervisor: "fake", Uptime: &n, CPUs: []virt.CPUDiag{{Time: &n}}, Legacy: map[string]any{"cpu0_time": 5}}
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
	for body, code := range map[string]string{`"name":"network-changed","server_uuid":"` + id.UUID() + `"`: `"code":404`, `"name":"network-changed","server_uuid":"` + bare.ID + `"`: `"code":422`,
		`"name":"volume-extended","server_uuid":"` + s.ID + `"`: `"code":400`, `"name":"power-update","tag":"SIDEWAYS","server_uuid":"` + s.ID + `"`: `"code":200`} {
		want := 207
		if code == `"code":200` {
			want = 200
		}
		if raw := w.call("admin", "POST", "/os-server-external-events", `{"events":[{`+body+`}]}`, 76, want); !strings.Contains(string(raw), code) {
			t.Errorf("%s: %s", body, raw)
		}
	}
	w.refused("member", "POST", "/os-server-external-events", `{"events":[]}`, 1, 400)
	w.refused("member", "POST", "/os-server-external-events", `{"events":[{"name":"network-changed","server_uuid":"`+s.ID+`"}]}`, 1, 403)
}

// TestForeignServersComeBeforeBodies: what another project has is not there, however wrong the rest of the request is.
func TestForeignServersComeBeforeBodies(t *testing.T) {
	w := newWorld(t)
	s := w.boot()
	for path, body := range map[string]string{"/metadata/a": `{"meta":{"b":"c"}}`, "/tags/" + strings.Repeat("x", 61): ""} {
		w.refused("member", "PUT", "/servers/"+s.ID+path, body, 26, 400)
		w.refused("member@other", "PUT", "/servers/"+s.ID+path, body, 26, 404)
	}
	many := make([]string, 51)
	for i := range many {
		many[i] = fmt.Sprint("t", i)
	}
	b, err := json.Marshal(map[string]any{"tags": many})
	if err != nil {
		t.Fatal(err)
	}
	w.refused("member", "PUT", "/servers/"+s.ID+"/tags", string(b), 26, 400)
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

// Clients ask for one interface after the other to be detached, without looking whether the first is gone.
func TestDetachingWaitsItsTurn(t *testing.T) {
	w := newWorld(t, func(o *backend.Options) { o.AnswerWait = time.Minute })
	s := w.boot()
	var order []string
	began, release := make(chan struct{}, 1), make(chan struct{})
	w.ops.Register(operation.Flow{Kind: compute.OpDetachNIC, Steps: []operation.Step{{Name: "unplug", Event: "compute_detach_interface", Do: func(ctx context.Context, r *operation.Run) error {
		began <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
			return ctx.Err()
		}
		order = append(order, "detached")
		return nil
	}}}})
	w.ops.held = sync.OnceFunc(func() { close(release) }) // the second request has been refused: from now on it waits
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.ops.Run(ctx) }()
	path := "/servers/" + s.ID + "/os-interface/" + s.VIFs[0].PortID
	w.call("member", "DELETE", path, "", 1, 202)
	<-began
	w.call("member", "DELETE", path, "", 1, 202)
	<-began // the second one runs as well
	stop()
	<-ended
	if len(order) == 0 {
		t.Error("the second request was accepted beside the first")
	}
}

func TestAttachingAnInterfaceAnswersWhenItIsDone(t *testing.T) {
	w := newWorld(t, func(o *backend.Options) { o.AnswerWait = time.Minute })
	s := w.boot()
	var plugged atomic.Int32
	var failure error
	w.ops.Register(operation.Flow{Kind: compute.OpAttachNIC, Steps: []operation.Step{{Name: "plug", Event: "compute_attach_interface", Do: func(context.Context, *operation.Run) error {
		plugged.Add(1)
		return failure
	}}}})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.ops.Run(ctx) }()
	defer func() {
		stop()
		<-ended
	}()
	path := "/servers/" + s.ID + "/os-interface"
	w.ask("member", "POST", path, `{"interfaceAttachment":{"net_id":"`+netA+`"}}`, 1, 200)
	if plugged.Load() != 1 {
		t.Fatal("the answer came before the interface")
	}
	failure = fault.New(fault.Conflict, "The guest refuses the device.")
	raw := w.call("member", "POST", path, `{"interfaceAttachment":{"net_id":"`+netA+`"}}`, 1, 500)
	if !strings.Contains(string(raw), "The guest refuses the device.") || plugged.Load() != 2 {
		t.Fatalf("%d: %s", plugged.Load(), raw)
	}
}
