package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api"
	"kilonova/internal/compute/api/apitest"
	"kilonova/internal/id"
)

// TestEveryRouteAsksItsRule: with an operator's policy that forbids everything every route refuses an administrator, by the rule that the description has of it.
func TestEveryRouteAsksItsRule(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	c.prepare(t)
	nothing := map[string]string{}
	for _, r := range api.Rules() {
		if strings.Contains(r.Name, ":") {
			nothing[r.Name] = "!"
		}
	}
	strict := apitest.RuledHandler(t, c.handlers, &c.log, nothing)
	asks, rules := 0, map[string]bool{}
	for _, key := range api.Keys() {
		f := api.FactsOf(t, key)
		if f.Public || f.RuleName == "" { // the description has no rule of it
			continue
		}
		for _, minor := range slices.Compact([]int{f.Borders[0], f.Borders[len(f.Borders)-1]}) {
			method, path, body, ok := asked{c, t, minor, "admin"}.request(key)
			if !ok {
				t.Fatalf("%s at 2.%d: nothing tells how to ask it", key, minor)
			}
			r := apitest.Call(strict, "admin", method, "/v2.1"+path, body, minor)
			if r.Code != 403 || !strings.Contains(r.Body.String(), f.RuleName) {
				t.Errorf("%s at 2.%d (%s): %d %.300s, want 403 by %s", key, minor, path, r.Code, r.Body, f.RuleName)
			}
			asks++
			rules[f.RuleName] = true
		}
	}
	for _, r := range api.Rules() {
		if _, ok := furtherRules()[r.Name]; strings.Contains(r.Name, ":") && rules[r.Name] == (ok || withoutEffect[r.Name] != "") {
			t.Errorf("the rule %s: asked of a route %v, in the list of further rules %v, excused %q", r.Name, rules[r.Name], ok, withoutEffect[r.Name])
		}
	}
	t.Log(fmt.Sprintf("%d requests, %d rules", asks, len(rules)))
	if len(rules) < 140 {
		t.Errorf("only %d rules", len(rules))
	}
}

// withoutEffect are the rules of what this cloud cannot do.
var withoutEffect = map[string]string{
	"compute:servers:resize:cross_cell":                       "there is one cell",
	"os_compute_api:servers:create_image:allow_volume_backed": "there is no volume service",
	"os_compute_api:os-volumes-attachments:swap":              "there is no volume service",
	"os_compute_api:os-volumes-attachments:update":            "there is no volume service",
}

// further is a request whose answer a rule changes that is not its route's: with the rule the asker gets one thing, without it another.
type further struct {
	token   string
	minor   int
	request func(a asked) (method, path, body string)
	with    string // stands in the answer with the rule; begins with a digit: the status
	without string // the same without it; empty: with does not stand there
}

// furtherRules are the rules that are asked within routes.
func furtherRules() map[string]further {
	get := func(path string) func(a asked) (string, string, string) {
		return func(a asked) (string, string, string) { return "GET", a.named(path), "" }
	}
	act := func(body string, change ...func(*compute.Server)) func(a asked) (string, string, string) {
		return func(a asked) (string, string, string) {
			return "POST", "/servers/" + a.boot(change...).ID + "/action", strings.ReplaceAll(a.named(body), "HOST", a.newHost(false).Name)
		}
	}
	create := func(more string) func(a asked) (string, string, string) {
		return func(a asked) (string, string, string) {
			return "POST", "/servers", strings.NewReplacer("PRIVATE", a.private, "EXTERNAL", a.external(), "HOST", a.newHost(false).Name).Replace(fmt.Sprintf(`{"server":{"name":"n","imageRef":%q,"flavorRef":%q,%s}}`, a.image, a.newFlavor(), more))
		}
	}
	state := func(vm string) func(*compute.Server) {
		return func(s *compute.Server) { s.VMState = vm; s.Host, s.Node = "", "" }
	}
	return map[string]further{
		"os_compute_api:os-extended-server-attributes":         {"member", 89, get("/servers/SERVER"), "OS-EXT-SRV-ATTR:host", ""},
		"os_compute_api:os-instance-actions:events":            {"member", 62, get("/servers/SERVER/os-instance-actions/REQUEST"), `"traceback"`, ""},
		"os_compute_api:os-instance-actions:events:details":    {"member", 84, get("/servers/SERVER/os-instance-actions/REQUEST"), `"details"`, ""},
		"os_compute_api:limits:other_project":                  {"admin", 90, get("/limits?tenant_id=" + apitest.Other), "200", "403"},
		"os_compute_api:os-lock-server:unlock:unlock_override": {"member", 90, act(`{"unlock":null}`, func(s *compute.Server) { s.Locked, s.LockedBy = true, "admin" }), "202", "403"},
		"os_compute_api:os-migrate-server:migrate:host":        {"admin", 90, act(`{"migrate":{"host":"HOST"}}`), "202", "403"},
		"os_compute_api:os-migrate-server:migrate_live:host":   {"admin", 90, act(`{"os-migrateLive":{"host":"HOST","block_migration":"auto"}}`), "202", "403"},
		"os_compute_api:os-migrations:index:all_projects":      {"admin", 90, get("/os-migrations"), "200", "403"},
		"os_compute_api:os-migrations:index:host":              {"admin", 90, get("/os-migrations"), `"source_compute":"c1"`, ""},
		"os_compute_api:os-server-groups:index:all_projects":   {"admin", 90, get("/os-server-groups?all_projects=1"), "200", "403"},
		"compute:server:topology:host:index":                   {"member", 90, get("/servers/SERVER/topology"), "host_node", ""},
		"os_compute_api:servers:index:get_all_tenants":         {"admin", 90, get("/servers?all_tenants=1"), "200", "403"},
		"os_compute_api:servers:detail:get_all_tenants":        {"admin", 90, get("/servers/detail?all_tenants=1"), "200", "403"},
		"os_compute_api:servers:allow_all_filters":             {"admin", 90, get("/servers?host=nowhere"), `{"servers":[]}`, "SERVER"},
		"os_compute_api:servers:show:flavor-extra-specs":       {"member", 90, get("/servers/SERVER"), "extra_specs", ""},
		"os_compute_api:servers:show:host_status":              {"member", 90, get("/servers/SERVER"), `"host_status":"UP"`, ""},
		"os_compute_api:servers:show:host_status:unknown-only": {"member", 90, func(a asked) (string, string, string) {
			h := a.newHost(true)
			return "GET", "/servers/" + a.boot(func(s *compute.Server) { s.Host = h.Name }).ID, ""
		}, `"host_status":"UNKNOWN"`, ""},
		"os_compute_api:servers:create:forced_host":    {"admin", 90, create(`"networks":"none","availability_zone":"nova:c1"`), "202", "403"},
		"compute:servers:create:requested_destination": {"admin", 90, create(`"networks":"none","host":"HOST"`), "202", "403"},
		"os_compute_api:servers:create:attach_network": {"member", 90, create(`"networks":[{"uuid":"PRIVATE"}]`), "202", "403"},
		"os_compute_api:servers:create:attach_volume":  {"member", 90, create(`"networks":"none","block_device_mapping_v2":[{"boot_index":0,"source_type":"image","destination_type":"local","uuid":"` + id.UUID() + `"}]`), "400", "403"},
		"os_compute_api:servers:create:trusted_certs":  {"member", 90, create(`"networks":"none","trusted_image_certificates":["` + id.UUID() + `"]`), "202", "403"},
		"os_compute_api:servers:rebuild:trusted_certs": {"member", 90, act(`{"rebuild":{"imageRef":"IMAGE","trusted_image_certificates":["` + id.UUID() + `"]}}`), "202", "403"},
		"network:attach_external_network":              {"admin", 90, create(`"networks":[{"uuid":"EXTERNAL"}]`), "202", "403"},
		"os_compute_api:servers:create:zero_disk_flavor": {"admin", 90, func(a asked) (string, string, string) {
			f := a.compute("admin", "POST", "/flavors", fmt.Sprintf(`{"flavor":{"name":%q,"ram":64,"vcpus":1,"disk":0}}`, id.Hex()), 1, "flavor", "id")
			return "POST", "/servers", fmt.Sprintf(`{"server":{"name":"n","imageRef":%q,"flavorRef":%q,"networks":"none"}}`, a.image, f)
		}, "202", "403"},
		"os_compute_api:servers:migrations:index:host": {"admin", 90, get("/servers/SERVER/migrations"), `"source_compute":"c1"`, ""},
		"os_compute_api:os-shelve:unshelve_to_host":    {"admin", 91, act(`{"unshelve":{"host":"HOST"}}`, state("shelved_offloaded")), "202", "403"},
	}
}

// TestRulesWithinRoutes asks each request twice, with a policy that gives the rule to everybody and with one that gives it to nobody.
func TestRulesWithinRoutes(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	c.prepare(t)
	c.populate(t)
	for name, f := range furtherRules() {
		for check, want := range map[string]string{"@": f.with, "!": f.without} {
			rules := map[string]string{name: check}
			if strings.HasSuffix(name, ":host_status") {
				rules[name+":unknown-only"] = "!"
			}
			h := apitest.RuledHandler(t, c.handlers, &c.log, rules)
			a := asked{c, t, f.minor, f.token}
			method, path, body := f.request(a)
			path = strings.ReplaceAll(path, "REQUEST", c.request)
			r := apitest.Call(h, f.token, method, "/v2.1"+path, body, f.minor)
			text := r.Body.String()
			ok := strings.Contains(text, a.named(want))
			switch {
			case want == "":
				ok = r.Code < 300 && !strings.Contains(text, f.with)
			case want[0] >= '0' && want[0] <= '9':
				ok = fmt.Sprint(r.Code) == want
			}
			if !ok {
				t.Errorf("%s as %q: %s %s: %d %.400s, want %q", name, check, method, path, r.Code, text, want)
			}
		}
	}
}

// external is a network that only an administrator may plug servers into.
func (c *cloudOf) external() string {
	r := apitest.Call(c.nets, "admin", "GET", "/v2.0/networks?name=public", "", 0)
	return uuids.FindString(r.Body.String())
}

// TestEveryRouteUnderEachRoot asks every route with the project in its path, and those of 2.1 under the older root: the status is the same, and a project of others is refused.
func TestEveryRouteUnderEachRoot(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	c.prepare(t)
	var answers apitest.Answers
	asks := map[string]int{}
	for _, key := range api.Keys() {
		f := api.FactsOf(t, key)
		if f.Public {
			continue
		}
		for _, minor := range slices.Compact([]int{f.Borders[0], f.Borders[len(f.Borders)-1]}) {
			for _, root := range []string{"/v2.1", "/v2.1/" + apitest.Project, "/v2.1/" + apitest.Other, "/v2", "/v2/" + apitest.Project} {
				if strings.HasPrefix(root, "/v2/") || root == "/v2" {
					if minor > 1 {
						continue
					}
				}
				method, path, body, ok := asked{c, t, minor, "admin"}.request(key)
				if !ok {
					t.Fatalf("%s at 2.%d: nothing tells how to ask it", key, minor)
				}
				r := apitest.Call(c.h, "admin", method, root+path, body, minor)
				want := f.Status(minor)
				if no, ok := refusedHere[key]; ok && (no.until == 0 || minor <= no.until) {
					want = no.status
				}
				if strings.HasSuffix(root, apitest.Other) {
					want = 400
				}
				if r.Code != want {
					t.Errorf("%s at 2.%d as %s%s: %d %.300s, want %d", key, minor, root, path, r.Code, r.Body, want)
					continue
				}
				asks[root]++
				if want < 300 && f.Answers && r.Body.Len() > 0 && notInDescription[key] == "" {
					if err := answers.Judge(key, minor, r.Body.Bytes()); err != nil {
						t.Errorf("%s at 2.%d under %s: %v", key, minor, root, err)
					}
				}
			}
		}
	}
	t.Log(asks)
	if asks["/v2"] < 100 || asks["/v2.1/"+apitest.Project] < 300 {
		t.Errorf("only %v", asks)
	}
}
