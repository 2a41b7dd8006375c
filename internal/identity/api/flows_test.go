package api_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// ok makes a request and fails unless the status is the one given.
func (s *site) ok(token string, status int, method, path, body string) map[string]any {
	s.t.Helper()
	code, doc := s.do(token, method, path, body)
	if code != status {
		s.t.Fatalf("%s %s %s: %d, want %d: %v", method, path, body, code, status, doc)
	}
	return doc
}

func TestGrantsOfEveryKind(t *testing.T) {
	s := newSite(t)
	group := s.want(201, "POST", "/v3/groups", `{"group": {"name": "g"}}`, "group")["id"].(string)
	user, role := s.ids["user:demo"], s.ids["role:manager"]
	for _, target := range []string{"/v3/projects/" + s.ids["project:service"], "/v3/domains/default", "/v3/system",
		"/v3/OS-INHERIT/projects/" + s.ids["project:service"], "/v3/OS-INHERIT/domains/default"} {
		for _, actor := range []string{"/users/" + user, "/groups/" + group} {
			list, end := target+actor+"/roles", ""
			if strings.Contains(target, "INHERIT") {
				list, end = list+"/inherited_to_projects", "/inherited_to_projects"
			}
			one := target + actor + "/roles/" + role + end
			s.want(404, "HEAD", one, "", "")
			s.want(204, "PUT", one, "", "")
			s.want(204, "PUT", one, "", "") // again
			s.want(204, "HEAD", one, "", "")
			s.want(204, "GET", one, "", "")
			if got := s.want(200, "GET", list, "", "")["roles"].([]any); len(got) != 1 || got[0].(map[string]any)["id"] != role {
				t.Errorf("GET %s: %v", list, got)
			}
			s.want(204, "DELETE", one, "", "")
			s.want(404, "DELETE", one, "", "")
		}
	}
}

func TestRoleAssignmentDocuments(t *testing.T) {
	s := newSite(t)
	demo, project := s.ids["user:demo"], s.ids["project:demo"]
	path := "/v3/role_assignments?user.id=" + demo + "&scope.project.id=" + project + "&role.id=" + s.ids["role:member"]
	link := "http://here/identity/v3/projects/" + project + "/users/" + demo + "/roles/" + s.ids["role:member"]
	plain := map[string]any{"role": map[string]any{"id": s.ids["role:member"]}, "user": map[string]any{"id": demo},
		"scope": map[string]any{"project": map[string]any{"id": project}}, "links": map[string]any{"assignment": link}}
	if d := cmp.Diff([]any{plain}, s.want(200, "GET", path, "", "")["role_assignments"]); d != "" {
		t.Error(d)
	}
	dom := map[string]any{"id": "default", "name": "Default"}
	named := map[string]any{"role": map[string]any{"id": s.ids["role:member"], "name": "member"}, "user": map[string]any{"id": demo, "name": "demo", "domain": dom},
		"scope": map[string]any{"project": map[string]any{"id": project, "name": "demo", "domain": dom}}, "links": map[string]any{"assignment": link}}
	if d := cmp.Diff([]any{named}, s.want(200, "GET", path+"&include_names", "", "")["role_assignments"]); d != "" {
		t.Error(d)
	}
	group := s.want(201, "POST", "/v3/groups", `{"group": {"name": "g"}}`, "group")["id"].(string)
	s.want(204, "PUT", "/v3/groups/"+group+"/users/"+demo, "", "")
	s.want(204, "PUT", "/v3/OS-INHERIT/domains/default/groups/"+group+"/roles/"+s.ids["role:manager"]+"/inherited_to_projects", "", "")
	effective := s.want(200, "GET", "/v3/role_assignments?effective&user.id="+demo+"&scope.project.id="+s.ids["project:service"]+"&role.id="+s.ids["role:manager"], "", "")
	want := []any{map[string]any{"role": map[string]any{"id": s.ids["role:manager"]}, "user": map[string]any{"id": demo},
		"scope": map[string]any{"project": map[string]any{"id": s.ids["project:service"]}},
		"links": map[string]any{"membership": "http://here/identity/v3/groups/" + group + "/users/" + demo,
			"assignment": "http://here/identity/v3/OS-INHERIT/domains/default/groups/" + group + "/roles/" + s.ids["role:manager"] + "/inherited_to_projects"}}}
	if d := cmp.Diff(want, effective["role_assignments"]); d != "" {
		t.Error(d)
	}
	for query, count := range map[string]int{"scope.system=all": 1, "scope.OS-INHERIT:inherited_to=projects": 1, "group.id=" + group: 1, "scope.domain.id=default": 1, "": 5} {
		if got := s.want(200, "GET", "/v3/role_assignments?"+query, "", "")["role_assignments"].([]any); len(got) != count {
			t.Errorf("?%s: %d assignments, want %d: %v", query, len(got), count, got)
		}
	}
	s.want(400, "GET", "/v3/role_assignments?effective&group.id="+group, "", "error")
}

func TestGroups(t *testing.T) {
	s := newSite(t)
	g := "/v3/groups/" + s.want(201, "POST", "/v3/groups", `{"group": {"name": "g"}}`, "group")["id"].(string)
	member := g + "/users/" + s.ids["user:demo"]
	s.want(404, "HEAD", member, "", "")
	s.want(204, "PUT", member, "", "")
	s.want(204, "HEAD", member, "", "")
	if users := s.want(200, "GET", g+"/users", "", "")["users"].([]any); len(users) != 1 || users[0].(map[string]any)["name"] != "demo" {
		t.Errorf("members %v", users)
	}
	groups := s.ok(s.demo, 200, "GET", "/v3/users/"+s.ids["user:demo"]+"/groups", "")["groups"].([]any)
	if len(groups) != 1 || keysOf(groups[0].(map[string]any)) != "description domain_id id links membership_expires_at name" {
		t.Errorf("groups of demo: %v", groups)
	}
	s.want(404, "PUT", g+"/users/absent", "", "error")
	s.want(204, "DELETE", member, "", "")
	s.want(404, "DELETE", member, "", "error")
}

func TestOwnPassword(t *testing.T) {
	s := newSite(t)
	path := "/v3/users/" + s.ids["user:demo"] + "/password"
	s.ok("", 401, "POST", path, `{"user": {"password": "new", "original_password": "wrong"}}`)
	s.ok("", 401, "POST", "/v3/users/absent/password", `{"user": {"password": "new", "original_password": "wrong"}}`)
	s.ok("", 204, "POST", path, `{"user": {"password": "new", "original_password": "demo-secret"}}`)
	s.ok(s.demo, 401, "GET", "/v3/auth/projects", "") // the old token went with the old password
	s.demo = s.login("demo", "new", "")
	if list := s.ok(s.demo, 200, "GET", "/v3/auth/projects", "")["projects"].([]any); len(list) != 1 || list[0].(map[string]any)["name"] != "demo" {
		t.Errorf("projects of demo: %v", list)
	}
	s.want(200, "PATCH", "/v3/users/"+s.ids["user:demo"], `{"user": {"password": "third"}}`, "user")
	s.ok(s.demo, 401, "GET", "/v3/auth/projects", "")
	s.login("demo", "third", "")
	s.want(200, "PATCH", "/v3/users/"+s.ids["user:demo"], `{"user": {"password": null}}`, "user")
	if w := s.raw("", "POST", "/v3/auth/tokens", loginBody("demo", "", ""), nil); w.Code != 401 {
		t.Errorf("a user without a password logs in with an empty one: %d", w.Code)
	}
}

func TestApplicationCredentialRoutes(t *testing.T) {
	s := newSite(t)
	base := "/v3/users/" + s.ids["user:demo"]
	made := s.ok(s.demo, 201, "POST", base+"/application_credentials", `{"application_credential": {"name": "a", "roles": [{"name": "reader"}], "expires_at": "2099-01-01T00:00:00",
		"access_rules": [{"service": "compute", "method": "GET", "path": "/v2.1/servers"}]}}`)["application_credential"].(map[string]any)
	const keys = "access_rules description expires_at id links name project_id roles unrestricted user_id"
	if got := keysOf(made); got != strings.Replace(keys, "roles ", "roles secret ", 1) {
		t.Errorf("keys %s", got)
	}
	if made["expires_at"] != "2099-01-01T00:00:00.000000" {
		t.Errorf("expires_at %v", made["expires_at"])
	}
	shown := s.ok(s.demo, 200, "GET", base+"/application_credentials/"+made["id"].(string), "")["application_credential"].(map[string]any)
	delete(made, "secret")
	if d := cmp.Diff(made, shown); d != "" {
		t.Error(d)
	}
	rule := shown["access_rules"].([]any)[0].(map[string]any)["id"].(string)
	s.ok(s.demo, 403, "DELETE", base+"/access_rules/"+rule, "") // in use
	s.ok(s.demo, 404, "GET", "/v3/users/"+s.ids["user:demo"]+"/access_rules/absent", "")
	s.ok(s.demo, 409, "POST", base+"/application_credentials", `{"application_credential": {"name": "a"}}`)
	s.ok(s.demo, 400, "POST", base+"/application_credentials", `{"application_credential": {"name": "b", "roles": [{"name": "admin"}]}}`)
	s.ok(s.demo, 400, "POST", base+"/application_credentials", `{"application_credential": {"name": "b", "expires_at": "2001-01-01T00:00:00"}}`)
	s.ok(s.demo, 400, "POST", base+"/application_credentials", `{"application_credential": {"name": "b", "access_rules": [{"service": "x"}]}}`)
	if list := s.ok(s.demo, 200, "GET", base+"/application_credentials?name=b", "")["application_credentials"].([]any); len(list) != 0 {
		t.Errorf("filtered list %v", list)
	}
	s.want(404, "GET", "/v3/users/"+s.ids["user:admin"]+"/application_credentials/"+made["id"].(string), "", "error") // another user's path
	s.ok(s.demo, 204, "DELETE", base+"/application_credentials/"+made["id"].(string), "")
	s.ok(s.demo, 204, "DELETE", base+"/access_rules/"+rule, "")
	if list := s.ok(s.demo, 200, "GET", base+"/access_rules", "")["access_rules"].([]any); len(list) != 0 {
		t.Errorf("rules left: %v", list)
	}

	// A restricted credential cannot make others.
	plain := s.ok(s.demo, 201, "POST", base+"/application_credentials", `{"application_credential": {"name": "c"}}`)["application_credential"].(map[string]any)
	w := s.raw("", "POST", "/v3/auth/tokens", `{"auth": {"identity": {"methods": ["application_credential"], "application_credential": {"id": "`+plain["id"].(string)+`", "secret": "`+plain["secret"].(string)+`"}}}}`, nil)
	if w.Code != 201 || !strings.Contains(w.Body.String(), `"restricted":true`) {
		t.Fatalf("login: %d %s", w.Code, w.Body)
	}
	robot := w.Header().Get("X-Subject-Token")
	s.ok(robot, 403, "POST", base+"/application_credentials", `{"application_credential": {"name": "d"}}`)
	s.ok(robot, 403, "POST", base+"/credentials/OS-EC2", `{"tenant_id": "`+s.ids["project:demo"]+`"}`)
	s.ok(robot, 200, "GET", base+"/application_credentials", "")
}

func TestEC2(t *testing.T) {
	s := newSite(t)
	base := "/v3/users/" + s.ids["user:demo"] + "/credentials/OS-EC2"
	c := s.ok(s.demo, 201, "POST", base, `{"tenant_id": "`+s.ids["project:demo"]+`"}`)["credential"].(map[string]any)
	if got := keysOf(c); got != "access links secret tenant_id trust_id user_id" {
		t.Errorf("keys %s", got)
	}
	one := base + "/" + c["access"].(string)
	if d := cmp.Diff(c, s.ok(s.demo, 200, "GET", one, "")["credential"]); d != "" {
		t.Error(d)
	}
	s.ok(s.demo, 403, "POST", base, `{"tenant_id": "`+s.ids["project:admin"]+`"}`) // no role there
	s.ok(s.demo, 403, "GET", "/v3/users/"+s.ids["user:admin"]+"/credentials/OS-EC2", "")
	s.ok(s.demo, 204, "DELETE", one, "")
	s.ok(s.demo, 404, "GET", one, "")
}

func TestTrustRoutes(t *testing.T) {
	s := newSite(t)
	const path = "/v3/OS-TRUST/trusts"
	body := `{"trust": {"trustor_user_id": "` + s.ids["user:demo"] + `", "trustee_user_id": "` + s.ids["user:admin"] + `", "project_id": "` + s.ids["project:demo"] +
		`", "impersonation": true, "roles": [{"name": "reader"}]}}`
	s.want(403, "POST", path, body, "error") // only the trustor
	made := s.ok(s.demo, 201, "POST", path, body)["trust"].(map[string]any)
	if got := keysOf(made); got != "deleted_at expires_at id impersonation links project_id redelegation_count remaining_uses roles roles_links trustee_user_id trustor_user_id" {
		t.Errorf("keys %s", got)
	}
	one := path + "/" + made["id"].(string)
	if d := cmp.Diff(made, s.ok(s.demo, 200, "GET", one, "")["trust"]); d != "" {
		t.Error(d)
	}
	s.ok(s.demo, 200, "GET", one+"/roles/"+s.ids["role:reader"], "")
	s.ok(s.demo, 404, "HEAD", one+"/roles/"+s.ids["role:member"], "")
	s.want(200, "GET", one, "", "trust")
	third := s.want(201, "POST", "/v3/users", `{"user": {"name": "third", "password": "pw"}}`, "user")["id"].(string)
	s.want(204, "PUT", "/v3/projects/"+s.ids["project:demo"]+"/users/"+third+"/roles/"+s.ids["role:member"], "", "")
	s.ok(s.login("third", "pw", ""), 404, "GET", one, "")
	w := s.raw("", "POST", "/v3/auth/tokens", loginBody("admin", "admin-secret", `{"OS-TRUST:trust": {"id": "`+made["id"].(string)+`"}}`), nil)
	if w.Code != 201 || !strings.Contains(w.Body.String(), `"OS-TRUST:trust":{"id":"`+made["id"].(string)+`","impersonation":true`) {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	lent := w.Header().Get("X-Subject-Token") // it is called demo, but may not look at or make demo's secrets
	s.ok(lent, 403, "GET", "/v3/users/"+s.ids["user:demo"]+"/credentials/OS-EC2", "")
	s.ok(lent, 403, "POST", "/v3/users/"+s.ids["user:demo"]+"/application_credentials", `{"application_credential": {"name": "x"}}`)
	s.ok(lent, 403, "POST", "/v3/credentials", `{"credential": {"type": "cert", "blob": "b"}}`)
	s.ok(lent, 403, "POST", "/v3/auth/tokens", `{"auth": {"identity": {"methods": ["token"], "token": {"id": "`+lent+`"}}}}`)
	s.ok(s.demo, 204, "DELETE", one, "")
	s.ok(s.demo, 404, "GET", one, "")
	s.ok(w.Header().Get("X-Subject-Token"), 401, "GET", "/v3/auth/projects", "")
	if list := s.want(200, "GET", path, "", "")["trusts"].([]any); len(list) != 0 {
		t.Errorf("deleted trusts are listed: %v", list)
	}
}

func TestTags(t *testing.T) {
	s := newSite(t)
	path := "/v3/projects/" + s.ids["project:demo"] + "/tags"
	s.want(201, "PUT", path+"/a", "", "")
	s.want(204, "HEAD", path+"/a", "", "")
	s.ok(s.demo, 204, "GET", path+"/a", "")
	s.ok(s.demo, 403, "PUT", path+"/b", "")
	tags := s.want(200, "PUT", path, `{"tags": ["x", "y"]}`, "")["tags"]
	if d := cmp.Diff([]any{"x", "y"}, tags); d != "" {
		t.Error(d)
	}
	s.want(404, "DELETE", path+"/a", "", "error")
	s.want(204, "DELETE", path+"/x", "", "")
	s.want(400, "PUT", path+"/a,b", "", "error")
	s.want(204, "DELETE", path, "", "")
	if d := cmp.Diff([]any{}, s.want(200, "GET", path, "", "")["tags"]); d != "" {
		t.Error(d)
	}
}

func TestImpliedRoleRoutes(t *testing.T) {
	s := newSite(t)
	path := "/v3/roles/" + s.ids["role:service"] + "/implies"
	one := path + "/" + s.ids["role:reader"]
	s.want(404, "GET", one, "", "error")
	made := s.want(201, "PUT", one, "", "role_inference")
	if d := cmp.Diff(made, s.want(200, "GET", one, "", "role_inference")); d != "" {
		t.Error(d)
	}
	if keysOf(made) != "implies prior_role" || keysOf(made["implies"].(map[string]any)) != "id links name" {
		t.Errorf("document %v", made)
	}
	s.want(204, "HEAD", one, "", "")
	if n := len(s.want(200, "GET", path, "", "role_inference")["implies"].([]any)); n != 1 {
		t.Errorf("%d implied roles", n)
	}
	if n := len(s.want(200, "GET", "/v3/role_inferences", "", "")["role_inferences"].([]any)); n != 4 {
		t.Errorf("%d roles imply others, want 4", n)
	}
	s.want(204, "DELETE", one, "", "")
	s.want(404, "DELETE", one, "", "error")
}

func TestLimitRoutes(t *testing.T) {
	s := newSite(t)
	service, project := s.ids["service:keystone"], s.ids["project:demo"]
	reg := s.want(201, "POST", "/v3/registered_limits", `{"registered_limits": [{"service_id": "`+service+`", "resource_name": "cores", "default_limit": 5}]}`, "")
	path := "/v3/registered_limits/" + reg["registered_limits"].([]any)[0].(map[string]any)["id"].(string)
	limit := s.want(201, "POST", "/v3/limits", `{"limits": [{"service_id": "`+service+`", "resource_name": "cores", "resource_limit": 7, "project_id": "`+project+`"}]}`, "")["limits"].([]any)[0].(map[string]any)
	if got := keysOf(limit); got != "description domain_id id links project_id region_id resource_limit resource_name service_id" {
		t.Errorf("keys %s", got)
	}
	s.want(403, "DELETE", path, "", "error") // a project's limit hangs on it
	s.want(409, "POST", "/v3/limits", `{"limits": [{"service_id": "`+service+`", "resource_name": "cores", "resource_limit": 8, "project_id": "`+project+`"}]}`, "error")
	s.want(200, "PATCH", "/v3/limits/"+limit["id"].(string), `{"limit": {"resource_limit": 9}}`, "limit")
	for token, count := range map[string]int{s.demo: 1, s.admin: 1} {
		if list := s.ok(token, 200, "GET", "/v3/limits", "")["limits"].([]any); len(list) != count {
			t.Errorf("limits %v", list)
		}
	}
	// All or nothing.
	s.want(409, "POST", "/v3/registered_limits", `{"registered_limits": [{"service_id": "`+service+`", "resource_name": "ram", "default_limit": 5},
		{"service_id": "`+service+`", "resource_name": "cores", "default_limit": 5}]}`, "error")
	if list := s.want(200, "GET", "/v3/registered_limits", "", "")["registered_limits"].([]any); len(list) != 1 {
		t.Errorf("registered limits %v", list)
	}
	s.want(204, "DELETE", "/v3/limits/"+limit["id"].(string), "", "")
	s.want(204, "DELETE", path, "", "")
}

func TestEndpointFilter(t *testing.T) {
	s := newSite(t)
	root, project := "/v3/OS-EP-FILTER", s.ids["project:demo"]
	endpoint := s.want(200, "GET", "/v3/endpoints?interface=public", "", "")["endpoints"].([]any)[0].(map[string]any)["id"].(string)
	group := s.want(201, "POST", root+"/endpoint_groups", `{"endpoint_group": {"name": "eg", "filters": {"interface": "admin"}}}`, "endpoint_group")["id"].(string)
	pick := root + "/projects/" + project + "/endpoints/" + endpoint
	pickGroup := root + "/endpoint_groups/" + group + "/projects/" + project
	s.want(404, "HEAD", pick, "", "")
	s.want(204, "PUT", pick, "", "")
	s.want(204, "HEAD", pick, "", "")
	s.want(204, "PUT", pickGroup, "", "")
	s.want(200, "GET", pickGroup, "", "endpoint_group")
	for path, key := range map[string]string{root + "/projects/" + project + "/endpoints": "endpoints", root + "/projects/" + project + "/endpoint_groups": "endpoint_groups",
		root + "/endpoints/" + endpoint + "/projects": "projects", root + "/endpoint_groups/" + group + "/projects": "projects", root + "/endpoint_groups/" + group + "/endpoints": "endpoints"} {
		if list := s.want(200, "GET", path, "", "")[key].([]any); len(list) != 1 {
			t.Errorf("GET %s: %v", path, list)
		}
	}
	catalog := s.ok(s.demo, 200, "GET", "/v3/auth/catalog", "")["catalog"].([]any)[0].(map[string]any)["endpoints"].([]any)
	if len(catalog) != 2 { // public by itself, admin by the group; internal is left out
		t.Errorf("catalog %v", catalog)
	}
	s.want(204, "DELETE", pick, "", "")
	s.want(204, "DELETE", pickGroup, "", "")
	s.want(404, "DELETE", pickGroup, "", "error")
}

func TestDomainConfig(t *testing.T) {
	s := newSite(t)
	path := "/v3/domains/" + s.want(201, "POST", "/v3/domains", `{"domain": {"name": "d"}}`, "domain")["id"].(string) + "/config"
	s.want(404, "GET", path, "", "error")
	s.want(404, "PATCH", path, `{"config": {"ldap": {"url": "u"}}}`, "error")
	set := map[string]any{"identity": map[string]any{"driver": "ldap"}, "ldap": map[string]any{"url": "ldap://x"}}
	if d := cmp.Diff(set, s.want(201, "PUT", path, `{"config": {"identity": {"driver": "ldap"}, "ldap": {"url": "ldap://x"}}}`, "config")); d != "" {
		t.Error(d)
	}
	got := s.want(200, "PATCH", path+"/ldap/url", `{"config": {"url": "ldap://y"}}`, "config")
	if got["ldap"].(map[string]any)["url"] != "ldap://y" {
		t.Errorf("after one option: %v", got)
	}
	if d := cmp.Diff(map[string]any{"url": "ldap://y"}, s.want(200, "GET", path+"/ldap/url", "", "config")); d != "" {
		t.Error(d)
	}
	s.want(403, "PATCH", path+"/ldap", `{"config": {"ldap": {"nonsense": 1}}}`, "error")
	s.want(403, "PATCH", path, `{"config": {"token": {"provider": "x"}}}`, "error")
	s.want(400, "PATCH", path, `{"config": {"ldap": 7}}`, "error")
	s.want(204, "DELETE", path+"/ldap/url", "", "")
	s.want(404, "GET", path+"/ldap/url", "", "error")
	s.want(204, "DELETE", path, "", "")
	s.want(404, "GET", path, "", "error")
	if d := cmp.Diff(map[string]any{"driver": "sql"}, s.want(200, "GET", "/v3/domains/config/identity/driver/default", "", "config")); d != "" {
		t.Error(d)
	}
	s.want(200, "GET", "/v3/domains/config/default", "", "config")
	s.want(404, "GET", "/v3/domains/config/token/default", "", "error")
	s.ok(s.demo, 403, "GET", path, "")
}

// A domain is also a project that acts as one.
func TestDomainAsProject(t *testing.T) {
	s := newSite(t)
	p := s.want(201, "POST", "/v3/projects", `{"project": {"name": "pd", "is_domain": true, "domain_id": null}}`, "project")
	d := s.want(200, "GET", "/v3/domains/"+p["id"].(string), "", "domain")
	if diff := cmp.Diff(p, d, cmpopts.IgnoreMapEntries(func(k string, _ any) bool {
		return k == "links" || k == "is_domain" || k == "domain_id" || k == "parent_id"
	})); diff != "" {
		t.Error(diff)
	}
	s.want(403, "DELETE", "/v3/domains/"+p["id"].(string), "", "error")
	s.want(200, "PATCH", "/v3/projects/"+p["id"].(string), `{"project": {"enabled": false}}`, "project")
	s.want(204, "DELETE", "/v3/domains/"+p["id"].(string), "", "")
}
