package cloud_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/api/apitest"
	"kilonova/internal/db"
	"kilonova/internal/id"
)

func TestGroups(t *testing.T) {
	w := newWorld(t)
	made := w.ask("member", "POST", "/os-server-groups", `{"server_group":{"name":"old","policies":["affinity"]}}`, 1, 200)["server_group"].(map[string]any)
	if d := cmp.Diff(map[string]any{"id": made["id"], "name": "old", "policies": []any{"affinity"}, "metadata": map[string]any{}, "members": []any{}}, made); d != "" {
		t.Error(d)
	}
	w.ask("member", "POST", "/os-server-groups", `{"server_group":{"name":"x","policies":["soft-affinity"]}}`, 14, 400)
	w.ask("member", "POST", "/os-server-groups", `{"server_group":{"name":"x","policies":["soft-affinity"]}}`, 15, 200)
	w.ask("member", "POST", "/os-server-groups", `{"server_group":{"name":"x","policy":"affinity","rules":{"max_server_per_host":3}}}`, 64, 400)
	made = w.ask("member", "POST", "/os-server-groups", `{"server_group":{"name":"x","policy":"anti-affinity","rules":{"max_server_per_host":"3"}}}`, 64, 200)["server_group"].(map[string]any)
	if d := cmp.Diff(map[string]any{"max_server_per_host": 3.0}, made["rules"]); d != "" {
		t.Error(d)
	}
	path := "/os-server-groups/" + made["id"].(string)
	w.ask("reader", "GET", path, "", 64, 200)
	w.ask("member@other", "GET", path, "", 64, 404)
	w.ask("admin@other", "GET", path, "", 64, 200)
	w.ask("reader", "DELETE", path, "", 64, 403)
	w.ask("member@other", "DELETE", path, "", 64, 404)
	count := func(token, query string) int {
		return len(w.ask(token, "GET", "/os-server-groups"+query, "", 64, 200)["server_groups"].([]any))
	}
	for _, c := range []struct {
		token, query string
		want         int
	}{{"reader", "", 3}, {"reader", "?limit=2", 2}, {"reader", "?limit=2&offset=2", 1}, {"reader", "?limit=0", 3}, {"reader@other", "", 0},
		{"reader@other", "?all_projects=1", 0}, {"admin@other", "?all_projects=1", 3}} {
		if n := count(c.token, c.query); n != c.want {
			t.Errorf("%s %s: %d", c.token, c.query, n)
		}
	}
	w.ask("member", "DELETE", path, "", 64, 204)
	w.ask("member", "DELETE", path, "", 64, 404)
	w.ask("admin", "PUT", "/os-quota-sets/"+apitest.Project, `{"quota_set":{"server_groups":2}}`, 1, 200)
	m := w.ask("member", "POST", "/os-server-groups", `{"server_group":{"name":"one too many","policies":["affinity"]}}`, 1, 403)
	if message(m) != "Quota exceeded, too many server groups." {
		t.Error(m)
	}
}

func TestMigrations(t *testing.T) {
	w := newWorld(t)
	var uuids []string
	for i := range 3 {
		m := &compute.Migration{ServerID: id.UUID(), Type: "migration", Status: "finished", SourceHost: "c1", SourceNode: "n1", DestHost: "c2", ProjectID: apitest.Project, UserID: "member"}
		if i == 2 {
			m.ProjectID, m.Type, m.Status = apitest.Other, "live-migration", "running"
		}
		w.write(func(tx *db.Tx) error { return w.store.InsertMigration(t.Context(), tx, m) })
		uuids = append(uuids, m.UUID)
	}
	list := func(token, query string, minor int) []any {
		return w.ask(token, "GET", "/os-migrations"+query, "", minor, 200)["migrations"].([]any)
	}
	w.ask("member", "GET", "/os-migrations", "", 1, 403)
	w.ask("manager", "GET", "/os-migrations", "", 80, 403) // of all projects
	mine := list("manager", "?project_id="+apitest.Project, 80)
	if len(list("manager", "?project_id="+apitest.Project, 1)) != len(mine) {
		t.Error("the filter is as old as the route")
	}
	w.ask("manager", "GET", "/os-migrations?project_id="+apitest.Project, "", 59, 400) // unknown until 2.80
	if len(mine) != 2 || mine[0].(map[string]any)["source_compute"] != nil {
		t.Errorf("a manager sees %v", mine)
	}
	all := list("admin", "", 80)
	if len(all) != 3 || all[0].(map[string]any)["uuid"] != uuids[2] || all[0].(map[string]any)["source_compute"] != "c1" || all[0].(map[string]any)["links"] == nil {
		t.Errorf("an admin sees %v", all)
	}
	if old := list("admin", "", 1); old[0].(map[string]any)["id"] != 1.0 || old[0].(map[string]any)["uuid"] != nil {
		t.Errorf("2.1 must list the oldest first: %v", old)
	}
	for query, want := range map[string]int{"?status=running": 1, "?migration_type=migration": 2, "?host=c2": 3, "?source_compute=c2": 0, "?project_id=" + apitest.Other: 1,
		"?user_id=nobody": 0, "?limit=1": 1, "?limit=0": 0, "?hidden=1": 0, "?hidden=0": 3, "?marker=" + uuids[1]: 1, "?changes-since=2020-01-01T00:00:00Z": 3, "?changes-before=2020-01-01T00:00:00Z": 0} {
		if n := len(list("admin", query, 80)); n != want {
			t.Errorf("%s: %d, want %d", query, n, want)
		}
	}
	if shown := all[0].(map[string]any)["updated_at"].(string); len(list("admin", "?changes-before="+shown[:len("2006-01-02T15:04:05")], 80)) == 0 {
		t.Errorf("nothing changed before %s, the second of the newest", shown)
	}
	next := w.ask("admin", "GET", "/os-migrations?limit=1", "", 59, 200)["migrations_links"].([]any)[0].(map[string]any)["href"].(string)
	if !strings.HasSuffix(next, "/v2.1/os-migrations?limit=1&marker="+uuids[2]) {
		t.Error(next)
	}
	w.ask("admin", "GET", "/os-migrations?marker="+id.UUID(), "", 59, 400)
	w.ask("admin", "GET", "/os-migrations?unknown=1", "", 59, 400)
	w.ask("admin", "GET", "/os-migrations?changes-since=2021-01-01T00:00:00Z&changes-before=2020-01-01T00:00:00Z", "", 66, 400)
	w.ask("manager", "GET", "/os-migrations?project_id="+apitest.Other, "", 80, 403)
}

func TestQuotas(t *testing.T) {
	w := newWorld(t)
	own, other := "/os-quota-sets/"+apitest.Project, "/os-quota-sets/"+apitest.Other
	set := func(m map[string]any) map[string]any { return m["quota_set"].(map[string]any) }
	w.ask("reader", "GET", other, "", 1, 403)
	w.ask("reader", "GET", other+"/defaults", "", 1, 200)
	w.ask("admin", "GET", "/os-quota-sets/unknown", "", 1, 400)
	w.ask("member", "PUT", own, `{"quota_set":{"cores":1}}`, 1, 403)
	got := set(w.ask("admin", "PUT", own, `{"quota_set":{"cores":"45"}}`, 1, 200))
	if got["cores"] != 45.0 || got["instances"] != 10.0 || got["id"] != nil || got["fixed_ips"] != -1.0 {
		t.Error(got)
	}
	detail := set(w.ask("reader", "GET", own+"/detail", "", 57, 200))
	if d := cmp.Diff(map[string]any{"limit": 45.0, "in_use": 2.0, "reserved": 0.0}, detail["cores"]); d != "" {
		t.Error(d)
	}
	if m := message(w.ask("admin", "PUT", own, `{"quota_set":{"cores":1}}`, 1, 400)); !strings.Contains(m, "already used and reserved 2") {
		t.Error(m)
	}
	if got := set(w.ask("admin", "PUT", own, `{"quota_set":{"cores":1,"force":"True"}}`, 1, 200)); got["cores"] != 1.0 {
		t.Error(got)
	}
	w.ask("admin", "PUT", own, `{"quota_set":{"cores":20}}`, 1, 200)
	for body, want := range map[string]int{`{"quota_set":{"cores":-2}}`: 400, `{"quota_set":{"colour":1}}`: 400, `{"quota_set":{"cores":2147483648}}`: 400,
		`{"quota_set":{"fixed_ips":5}}`: 200, `{}`: 400} {
		w.ask("admin", "PUT", own, body, 35, want)
	}
	w.ask("admin", "PUT", own, `{"quota_set":{"fixed_ips":5}}`, 36, 400)

	user := own + "?user_id=member"
	if m := message(w.ask("admin", "PUT", user, `{"quota_set":{"cores":21}}`, 1, 400)); !strings.Contains(m, "less than or equal to 20") {
		t.Error(m)
	}
	w.ask("admin", "PUT", user, `{"quota_set":{"cores":15}}`, 1, 200)
	if got := set(w.ask("reader", "GET", user, "", 1, 200)); got["cores"] != 15.0 {
		t.Error(got)
	}
	w.ask("admin", "PUT", own, `{"quota_set":{"cores":14}}`, 1, 400) // below the user's
	w.ask("admin", "PUT", own, `{"quota_set":{"cores":14,"force":true}}`, 1, 200)
	w.ask("admin", "PUT", user, `{"quota_set":{"cores":21,"force":true}}`, 1, 200)
	w.ask("admin", "PUT", own, `{"quota_set":{"cores":20,"force":true}}`, 1, 200)
	w.ask("admin", "DELETE", user, "", 1, 202)
	if got := set(w.ask("reader", "GET", user, "", 1, 200)); got["cores"] != 20.0 {
		t.Error(got)
	}
	w.ask("admin", "PUT", "/os-quota-class-sets/default", `{"quota_class_set":{"ram":1000}}`, 50, 200)
	w.ask("admin", "DELETE", own, "", 1, 202)
	if got := set(w.ask("reader", "GET", own, "", 1, 200)); got["cores"] != 20.0 || got["ram"] != 1000.0 {
		t.Error(got)
	}
	if got := w.ask("admin", "GET", "/os-quota-class-sets/other", "", 1, 200)["quota_class_set"].(map[string]any); got["ram"] != 51200.0 || got["id"] != "other" || got["server_groups"] != nil {
		t.Error(got)
	}
	w.ask("member", "GET", "/os-quota-class-sets/default", "", 1, 403)
}

func TestLimits(t *testing.T) {
	w := newWorld(t)
	own := w.ask("reader", "GET", "/limits?reserved=1", "", 1, 200)["limits"].(map[string]any)["absolute"].(map[string]any)
	for k, want := range map[string]any{"totalInstancesUsed": 1.0, "totalCoresUsed": 2.0, "totalRAMUsed": 1024.0, "maxTotalCores": 20.0, "maxPersonality": 5.0} {
		if own[k] != want {
			t.Errorf("%s is %v", k, own[k])
		}
	}
	w.ask("reader", "GET", "/limits?tenant_id="+apitest.Other, "", 1, 403)
	other := w.ask("admin@other", "GET", "/limits?tenant_id="+apitest.Project, "", 57, 200)["limits"].(map[string]any)["absolute"].(map[string]any)
	if other["totalInstancesUsed"] != 1.0 || other["maxPersonality"] != nil {
		t.Error(other)
	}
}

func TestUsage(t *testing.T) {
	w := newWorld(t)
	gone := server("two", apitest.Other, "c1", 10*time.Hour)
	w.write(func(tx *db.Tx) error {
		if err := w.store.InsertServer(t.Context(), tx, gone); err != nil {
			return err
		}
		return w.store.UpdateServer(t.Context(), tx, gone.ID, func(s *compute.Server) error {
			s.Terminated = s.Launched.Add(time.Hour)
			return nil
		})
	})
	span := url.Values{"start": {clock.Now().Add(-24 * time.Hour).Format("2006-01-02T15:04:05")}, "end": {clock.Now().Format("2006-01-02T15:04:05.000000")}}.Encode()
	mine := w.ask("reader", "GET", "/os-simple-tenant-usage/"+apitest.Project+"?"+span, "", 1, 200)["tenant_usage"].(map[string]any)
	if h := mine["total_hours"].(float64); h < 1.9 || h > 2.1 {
		t.Error(mine)
	}
	future := w.ask("reader", "GET", "/os-simple-tenant-usage/"+apitest.Project+"?start=2020-01-01T00:00:00&end=2100-01-01T00:00:00", "", 1, 200)["tenant_usage"].(map[string]any)
	if h := future["total_hours"].(float64); h > 2.1 {
		t.Errorf("hours that have not passed are counted: %v", h)
	}
	if v := mine["total_vcpus_usage"].(float64); v < 3.8 || v > 4.2 {
		t.Error(mine)
	}
	if s := mine["server_usages"].([]any)[0].(map[string]any); s["local_gb"] != 15.0 || s["state"] != "active" || s["ended_at"] != nil {
		t.Error(s)
	}
	w.ask("reader", "GET", "/os-simple-tenant-usage/"+apitest.Other+"?"+span, "", 1, 403)
	w.ask("reader", "GET", "/os-simple-tenant-usage?"+span, "", 1, 403)
	all := w.ask("admin", "GET", "/os-simple-tenant-usage?"+span, "", 1, 200)["tenant_usages"].([]any)
	if len(all) != 2 || all[0].(map[string]any)["server_usages"] != nil {
		t.Fatal(all)
	}
	detailed := w.ask("admin", "GET", "/os-simple-tenant-usage?detailed=1&"+span, "", 1, 200)["tenant_usages"].([]any)
	theirs := detailed[1].(map[string]any)
	if s := theirs["server_usages"].([]any)[0].(map[string]any); theirs["total_hours"] != 1.0 || s["state"] != "terminated" || s["uptime"] != 3600.0 {
		t.Error(theirs)
	}
	page := w.ask("admin", "GET", "/os-simple-tenant-usage?limit=1&"+span, "", 40, 200)
	if len(page["tenant_usages"].([]any)) != 1 || !strings.Contains(fmt.Sprint(page["tenant_usages_links"]), "marker=") {
		t.Error(page)
	}
	if none := w.ask("admin", "GET", "/os-simple-tenant-usage/"+id.Hex()+"?"+span, "", 40, 200)["tenant_usage"].(map[string]any); len(none) != 0 {
		t.Error(none)
	}
	w.ask("admin", "GET", "/os-simple-tenant-usage?start=soon", "", 1, 400)
	w.ask("admin", "GET", "/os-simple-tenant-usage?start=2030-01-01T00:00:00&end=2029-01-01T00:00:00", "", 1, 400)
}

func TestAuditAndExtensions(t *testing.T) {
	w := newWorld(t)
	log := w.ask("admin", "GET", "/os-instance_usage_audit_log/2026-03-15%2000:00:00", "", 1, 200)["instance_usage_audit_log"].(map[string]any)
	if log["period_beginning"] != "2026-02-01 00:00:00" || log["period_ending"] != "2026-03-01 00:00:00" || log["num_hosts_not_run"] != 3.0 {
		t.Error(log)
	}
	end := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	hosts := log["hosts_not_run"].([]any)
	first := hosts[0].(string)
	show := func() map[string]any {
		return w.ask("admin", "GET", "/os-instance_usage_audit_log/2026-03-15%2000:00:00", "", 1, 200)["instance_usage_audit_log"].(map[string]any)
	}
	for range 2 {
		w.write(func(tx *db.Tx) error { return w.store.CountAudit(t.Context(), tx, end, map[string]int64{first: 3}) })
	}
	log = show()
	entry := log["log"].(map[string]any)[first].(map[string]any)
	if entry["instances"] != 6.0 || entry["state"] != "RUNNING" || log["num_hosts_running"] != 1.0 || log["num_hosts_not_run"] != 2.0 || log["overall_status"] != "0 of 3 hosts done. 0 errors." {
		t.Error(log)
	}
	w.write(func(tx *db.Tx) error {
		return w.store.EndAudit(t.Context(), tx, end, end.AddDate(-1, 0, 0), 1500*time.Millisecond)
	})
	log = show()
	want := map[string]any{"instances": 6.0, "errors": 0.0, "state": "DONE", "message": "Instance usage audit ran for host " + first + ", 6 instances in 1.50 seconds."}
	if diff := cmp.Diff(want, log["log"].(map[string]any)[first]); diff != "" || log["num_hosts_done"] != 3.0 || log["overall_status"] != "ALL hosts done. 0 errors." || log["total_instances"] != 6.0 {
		t.Error(diff, log)
	}
	w.write(func(tx *db.Tx) error {
		return w.store.EndAudit(t.Context(), tx, end.AddDate(9, 0, 0), end.AddDate(8, 0, 0), 0)
	})
	if log = show(); log["num_hosts_not_run"] != 3.0 {
		t.Error("an old audit is kept for ever", log)
	}
	w.ask("admin", "GET", "/os-instance_usage_audit_log/yesterday", "", 1, 400)
	if n := len(w.ask("none", "GET", "/extensions", "", 1, 200)["extensions"].([]any)); n != 99 {
		t.Error(n)
	}
	w.ask("none", "GET", "/extensions/os-nothing", "", 1, 404)
	w.ask("none", "GET", "/extensions/OS-EXT-VIF-NET", "", 1, 404)
	if r := apitest.Call(w.h, "none", "GET", "/v2/extensions/OS-EXT-VIF-NET", "", 0); r.Code != 200 { // clients of the legacy root look for it
		t.Error(r.Code)
	}
}
