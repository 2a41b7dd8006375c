package api_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"kilonova/internal/compute/api"
	"kilonova/internal/compute/api/apitest"
)

// refusal is the answer of a route to a request that would succeed in a cloud with everything, and why this cloud gives it.
type refusal struct {
	status int
	reason string
	until  int // last version; 0: in all
}

// refusedHere are the routes that the cloud of these tests cannot serve.
var refusedHere = map[string]refusal{
	"GET /os-baremetal-nodes":                                {501, "there is no bare metal service", 0},
	"GET /os-baremetal-nodes/{id}":                           {501, "there is no bare metal service", 0},
	"POST /os-baremetal-nodes":                               {400, "compute has never passed it on", 0},
	"DELETE /os-baremetal-nodes/{id}":                        {400, "compute has never passed it on", 0},
	"POST /os-baremetal-nodes/{id}/action add_interface":     {400, "compute has never passed it on", 0},
	"POST /os-baremetal-nodes/{id}/action remove_interface":  {400, "compute has never passed it on", 0},
	"GET /os-hosts/{id}/reboot":                              {501, "no driver switches whole hosts", 0},
	"GET /os-hosts/{id}/shutdown":                            {501, "no driver switches whole hosts", 0},
	"GET /os-hosts/{id}/startup":                             {501, "no driver switches whole hosts", 0},
	"GET /os-console-auth-tokens/{id}":                       {400, "it was for RDP consoles alone", 30},
	"POST /os-volumes":                                       {400, "there is no volume service", 0},
	"GET /os-volumes/{id}":                                   {404, "there is no volume service", 0},
	"DELETE /os-volumes/{id}":                                {404, "there is no volume service", 0},
	"POST /os-snapshots":                                     {400, "there is no volume service", 0},
	"GET /os-snapshots/{id}":                                 {404, "there is no volume service", 0},
	"DELETE /os-snapshots/{id}":                              {404, "there is no volume service", 0},
	"POST /os-assisted-volume-snapshots":                     {400, "there is no volume service", 0},
	"DELETE /os-assisted-volume-snapshots/{id}":              {404, "there is no volume service", 0},
	"POST /servers/{server_id}/os-volume_attachments":        {400, "there is no volume service", 0},
	"PUT /servers/{server_id}/os-volume_attachments/{id}":    {400, "there is no volume service", 0},
	"DELETE /servers/{server_id}/os-volume_attachments/{id}": {404, "there is no volume service", 0},
	"POST /servers/{server_id}/shares":                       {400, "there is no shared file system service", 0},
	"GET /servers/{server_id}/shares/{id}":                   {404, "there is no shared file system service", 0},
	"DELETE /servers/{server_id}/shares/{id}":                {404, "there is no shared file system service", 0},
}

// may are the callers that a rule's default lets pass, in their own project.
var may = map[string][]string{
	"":                              {"admin", "manager", "member", "reader", "service", "none"},
	"@":                             {"admin", "manager", "member", "reader", "service", "none"},
	"rule:context_is_admin":         {"admin"},
	"rule:project_manager_or_admin": {"admin", "manager"},
	"rule:project_member_or_admin":  {"admin", "manager", "member"},
	"rule:project_reader_or_admin":  {"admin", "manager", "member", "reader"},
	"rule:service_or_admin":         {"admin", "service"},
	"(rule:context_is_admin) or user_id:%(user_id)s": {"admin", "manager", "member", "reader", "service", "none"},
}

// ruleOfHandler are the rules of routes whose handler chooses the rule by the request.
var ruleOfHandler = map[string]string{"GET /os-migrations": "rule:context_is_admin", "PUT /servers/{server_id}/os-volume_attachments/{id}": "rule:project_member_or_admin"}

// TestEveryRouteOfAWholeCloud asks every live route, at every version at which the description says that something of it changes, as every
// kind of caller: without token, of another project, and with each role of the own one. Who may gets the described status and exactly the
// described keys; who may not gets 403, and what another project has is not there for strangers. Another name of a route is held to all that is
// described of the route, and is no longer there after its last version.
func TestEveryRouteOfAWholeCloud(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	c.prepare(t)
	var answers apitest.Answers
	count := map[string]int{}
	refused := map[string]bool{}
	for _, name := range api.Routes() {
		f := api.FactsOf(t, name)
		key := f.Same
		rule := f.Rule
		if r, ok := ruleOfHandler[key]; ok {
			rule = r
		}
		allowed, ok := may[rule]
		if !ok {
			t.Fatalf("%s: unexpected rule %q", name, rule)
		}
		count["routes"]++
		if name != key {
			count["other names"]++
			after := f.Borders[len(f.Borders)-1] + 1
			method, path, body, _ := asked{c, t, after, "admin"}.request(key)
			if r := apitest.Call(c.h, "admin", method, "/v2.1"+f.Renamed(path), body, after); r.Code != 404 {
				t.Errorf("%s at 2.%d, after its end: %d %.300s", name, after, r.Code, r.Body)
			}
		}
		for _, minor := range f.Borders {
			count["versions of routes"]++
			for _, token := range []string{"", "none", "service", "reader", "member", "manager", "admin", "member@other"} {
				a := asked{c, t, minor, token}
				method, path, body, ok := a.request(key)
				if !ok {
					t.Fatalf("%s at 2.%d: nothing tells how to ask it", name, minor)
				}
				path = f.Renamed(path)
				r := apitest.Call(c.h, token, method, "/v2.1"+path, body, minor)
				count["requests"]++
				role, foreign := strings.CutSuffix(token, "@other")
				want := f.Status(minor)
				if no, ok := refusedHere[key]; ok && (no.until == 0 || minor <= no.until) {
					want = no.status
					refused[key] = true
				}
				switch {
				case f.Public:
					want = 200
				case token == "":
					want = 401
				case foreign && f.Object:
					want = 404
				case !slices.Contains(allowed, role):
					want = 403
				case foreign:
					count["of strangers"]++
					if bad := leak(c, r.Code, r.Body.Bytes(), path+body); bad != "" {
						t.Errorf("%s at 2.%d as %s: %s: %d %.300s", name, minor, token, bad, r.Code, r.Body)
					}
					continue
				}
				count[fmt.Sprint("status ", want)]++
				if r.Code != want {
					t.Errorf("%s at 2.%d as %s (%s): %d %.300s, want %d", name, minor, token, path, r.Code, r.Body, want)
					continue
				}
				if want >= 300 || notInDescription[key] != "" {
					continue
				}
				if !f.Answers {
					if r.Body.Len() > 0 {
						t.Errorf("%s at 2.%d as %s: an answer that is not described: %.300s", name, minor, token, r.Body)
					}
					count["answers without a body"]++
					continue
				}
				if r.Body.Len() == 0 && emptyAnswer(key, minor) {
					count["answers without a body"]++
					continue
				}
				if err := answers.Judge(key, minor, r.Body.Bytes()); err != nil {
					t.Errorf("%s at 2.%d as %s: %v in %.500s", name, minor, token, err, r.Body)
				}
				count["answers with the described keys"]++
			}
		}
	}
	for key := range refusedHere {
		if !refused[key] {
			t.Errorf("%s is said to be refused here, but there is no such route", key)
		}
	}
	if count["other names"] != 15 {
		t.Errorf("%d other names of routes were asked, the table has 15", count["other names"])
	}
	t.Logf("%v; %d routes are refused here for a reason", count, len(refusedHere))
	if bytes.Contains(c.log.Bytes(), []byte("request failed")) {
		t.Errorf("internal errors: %.2000s", &c.log)
	}
}

// emptyAnswer tells the versions in which a route that has an answer in others gives none.
func emptyAnswer(key string, minor int) bool {
	switch key {
	case "POST /servers/{id}/action evacuate":
		return minor >= 14
	case "POST /servers/{id}/action createImage", "POST /servers/{id}/action createBackup":
		return minor < 45
	case "POST /servers/{server_id}/os-volume_attachments":
		return minor >= 101
	}
	return false
}

// leak tells what is wrong with the answer that a member of another project got to a request about things of the first.
func leak(c *cloudOf, code int, body []byte, request string) string {
	if code >= 500 && code != 501 {
		return "an internal error"
	}
	for what, secret := range map[string]string{"the server": c.server, "the broken server": c.broken, "the group": c.group, "the image": c.image, "the project": apitest.Project, "the key": `"k"`} {
		if code < 300 && bytes.Contains(body, []byte(secret)) && !strings.Contains(request, secret) {
			return "it shows " + what + " of another project"
		}
	}
	return ""
}

// prepare adds what only these tests need.
func (c *cloudOf) prepare(t *testing.T) {
	t.Helper()
	c.table, c.facts = probes(), map[string]api.Facts{}
	c.places = api.AnswerPlaces(t)
	a := asked{c, t, 1, "admin"}
	a.compute("admin", "POST", "/os-aggregates", `{"aggregate":{"name":"first"}}`, 1)
	a.compute("admin", "POST", "/flavors/"+c.flavor+"/action", `{"addTenantAccess":{"tenant":"`+apitest.Project+`"}}`, 1)
	admin := func(method, path, body string) map[string]any {
		r := apitest.Call(c.nets, "admin", method, "/v2.0"+path, body, 0)
		if r.Code >= 300 {
			t.Fatal(r.Code, r.Body)
		}
		return decode(t, r.Body.Bytes())
	}
	admin("PUT", "/quotas/"+apitest.Project, `{"quota":{"security_group":-1,"security_group_rule":-1,"floatingip":-1,"port":-1}}`)
	a.compute("member", "POST", "/os-keypairs", `{"keypair":{"name":"k","public_key":"`+publicKey+`"}}`, 1)
	public := admin("POST", "/networks", `{"network":{"name":"public","router:external":true}}`)["network"].(map[string]any)["id"].(string)
	admin("POST", "/subnets", fmt.Sprintf(`{"subnet":{"network_id":%q,"ip_version":4,"cidr":"198.18.0.0/16"}}`, public))
	subnet := admin("GET", "/subnets?network_id="+c.private, "")["subnets"].([]any)[0].(map[string]any)["id"].(string)
	router := admin("POST", "/routers", fmt.Sprintf(`{"router":{"name":"r","external_gateway_info":{"network_id":%q}}}`, public))["router"].(map[string]any)["id"].(string)
	admin("PUT", "/routers/"+router+"/add_router_interface", fmt.Sprintf(`{"subnet_id":%q}`, subnet))
}
