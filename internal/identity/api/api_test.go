package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/db"
	"kilonova/internal/identity/api"
	"kilonova/internal/identity/local"
)

// site is a running identity service and tokens for it.
type site struct {
	t       testing.TB
	handler http.Handler
	svc     *local.Service
	admin   string // token of admin for project admin
	demo    string // token of demo (member, reader) for project demo
	ids     map[string]string
}

func newSite(t testing.TB) *site {
	t.Helper()
	dir := t.TempDir()
	d, err := db.Open(t.Context(), "sqlite:"+filepath.Join(dir, "identity.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	svc, err := local.New(t.Context(), local.Config{DB: d, KeyDir: filepath.Join(dir, "keys"), BcryptCost: 4})
	if err != nil {
		t.Fatal(err)
	}
	if err := svc.Bootstrap(t.Context(), local.BootstrapConfig{Users: local.StandardUsers("admin-secret", "demo-secret"),
		Endpoints: []local.BootstrapEndpoint{{Type: "identity", Name: "keystone", Public: "http://here/identity"}}}); err != nil {
		t.Fatal(err)
	}
	rest, err := api.New(svc, nil)
	if err != nil {
		t.Fatal(err)
	}
	h, err := rest.Handler()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, handler: http.StripPrefix("/identity", h), svc: svc, ids: map[string]string{}}
	s.admin = s.login("admin", "admin-secret", `{"project": {"name": "admin", "domain": {"id": "default"}}}`)
	s.demo = s.login("demo", "demo-secret", `{"project": {"name": "demo", "domain": {"id": "default"}}}`)
	for _, many := range []string{"projects", "users", "roles", "services"} {
		_, doc := s.do(s.admin, "GET", "/v3/"+many, "")
		for _, x := range doc[many].([]any) {
			m := x.(map[string]any)
			s.ids[strings.TrimSuffix(many, "s")+":"+m["name"].(string)] = m["id"].(string)
		}
	}
	return s
}

// do makes one request and gives the status and the JSON body.
func (s *site) do(token, method, path, body string) (int, map[string]any) {
	s.t.Helper()
	w := s.raw(token, method, path, body, nil)
	var doc map[string]any
	if w.Body.Len() > 0 && method != "HEAD" {
		if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
			s.t.Fatalf("%s %s: body is not JSON: %s", method, path, w.Body)
		}
	}
	return w.Code, doc
}

func (s *site) raw(token, method, path, body string, header map[string]string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://here/identity"+path, bytes.NewReader([]byte(body)))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("X-Auth-Token", token)
	}
	for k, v := range header {
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w
}

func (s *site) login(user, password, scope string) string {
	s.t.Helper()
	w := s.raw("", "POST", "/v3/auth/tokens", loginBody(user, password, scope), nil)
	if w.Code != 201 {
		s.t.Fatalf("login of %s: %d %s", user, w.Code, w.Body)
	}
	return w.Header().Get("X-Subject-Token")
}

func loginBody(user, password, scope string) string {
	if scope != "" {
		scope = `, "scope": ` + scope
	}
	return fmt.Sprintf(`{"auth": {"identity": {"methods": ["password"], "password": {"user": {"name": %q, "domain": {"id": "default"}, "password": %q}}}%s}}`, user, password, scope)
}

// want makes a request as admin and fails unless the status is the one given; it gives the object under key.
func (s *site) want(status int, method, path, body, key string) map[string]any {
	s.t.Helper()
	code, doc := s.do(s.admin, method, path, body)
	if code != status {
		s.t.Fatalf("%s %s %s: %d, want %d: %v", method, path, body, code, status, doc)
	}
	if key == "" {
		return doc
	}
	m, ok := doc[key].(map[string]any)
	if !ok {
		s.t.Fatalf("%s %s: no %s in %v", method, path, key, doc)
	}
	return m
}

func keysOf(m map[string]any) string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestDiscovery(t *testing.T) {
	s := newSite(t)
	for path, want := range map[string]int{"": 300, "/": 300, "/v3": 200, "/v3/": 200} {
		code, doc := s.do("", "GET", path, "")
		if code != want {
			t.Errorf("GET %q: %d, want %d", path, code, want)
		}
		v := doc["version"]
		if want == 300 {
			v = doc["versions"].(map[string]any)["values"].([]any)[0]
		}
		self := v.(map[string]any)["links"].([]any)[0].(map[string]any)["href"]
		if self != "http://here/identity/v3/" {
			t.Errorf("GET %q: self link %v", path, self)
		}
	}
}

func TestTokenDocument(t *testing.T) {
	s := newSite(t)
	cases := []struct{ name, scope, query, keys string }{
		{"project", `{"project": {"name": "admin", "domain": {"name": "Default"}}}`, "", "audit_ids catalog expires_at is_domain issued_at methods project roles user"},
		{"project without catalog", `{"project": {"id": "` + s.ids["project:admin"] + `"}}`, "?nocatalog", "audit_ids expires_at is_domain issued_at methods project roles user"},
		{"system", `{"system": {"all": true}}`, "", "audit_ids catalog expires_at issued_at methods roles system user"},
		{"unscoped", `"unscoped"`, "", "audit_ids expires_at issued_at methods user"},
		{"default", "", "", "audit_ids expires_at issued_at methods user"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := s.raw("", "POST", "/v3/auth/tokens"+c.query, loginBody("admin", "admin-secret", c.scope), nil)
			if w.Code != 201 {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			var doc map[string]map[string]any
			if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
				t.Fatal(err)
			}
			if got := keysOf(doc["token"]); got != c.keys {
				t.Errorf("keys %s\nwant %s", got, c.keys)
			}
			if got := keysOf(doc["token"]["user"].(map[string]any)); got != "domain id name password_expires_at" {
				t.Errorf("keys of user: %s", got)
			}
			// Validation gives the very same document.
			v := s.raw(s.admin, "GET", "/v3/auth/tokens"+c.query, "", map[string]string{"X-Subject-Token": w.Header().Get("X-Subject-Token")})
			if v.Code != 200 || v.Body.String() != w.Body.String() {
				t.Errorf("validated: %d %s", v.Code, v.Body)
			}
		})
	}
}

func TestTokenRequestsRefused(t *testing.T) {
	s := newSite(t)
	user := `"password": {"user": {"name": "demo", "domain": {"id": "default"}, "password": "demo-secret"}}`
	cases := map[string]struct {
		body string
		want int
	}{
		"nothing":           {``, 400},
		"not JSON":          {`{`, 400},
		"no auth":           {`{}`, 400},
		"no methods":        {`{"auth": {"identity": {}}}`, 400},
		"empty methods":     {`{"auth": {"identity": {"methods": []}}}`, 400},
		"method missing":    {`{"auth": {"identity": {"methods": ["password"]}}}`, 400},
		"wrong type":        {`{"auth": {"identity": {"methods": ["password"], "password": {"user": {"name": 7}}}}}`, 400},
		"unknown method":    {`{"auth": {"identity": {"methods": ["oauth7"], ` + user + `}}}`, 401},
		"two scopes":        {`{"auth": {"identity": {"methods": ["password"], ` + user + `}, "scope": {"system": {"all": true}, "domain": {"id": "default"}}}}`, 400},
		"project, no name":  {`{"auth": {"identity": {"methods": ["password"], ` + user + `}, "scope": {"project": {"name": "demo"}}}}`, 400},
		"other word":        {`{"auth": {"identity": {"methods": ["password"], ` + user + `}, "scope": "all"}}`, 400},
		"foreign project":   {`{"auth": {"identity": {"methods": ["password"], ` + user + `}, "scope": {"project": {"id": "` + s.ids["project:admin"] + `"}}}}`, 401},
		"bad token":         {`{"auth": {"identity": {"methods": ["token"], "token": {"id": "gAAAAABx"}}}}`, 404},
		"oversized":         {`{"auth": "` + strings.Repeat("x", 200<<10) + `"}`, 413},
		"password too long": {loginBody("demo", strings.Repeat("x", 5000), ""), 400},
		"wrong password":    {loginBody("demo", "x", ""), 401},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := s.raw("", "POST", "/v3/auth/tokens", c.body, nil)
			var doc struct {
				Error struct {
					Code           int
					Title, Message string
				}
			}
			if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || w.Code != c.want || doc.Error.Code != c.want || doc.Error.Title == "" || doc.Error.Message == "" {
				t.Errorf("%d %s, want %d", w.Code, w.Body, c.want)
			}
			if c.want == 401 && !strings.HasPrefix(w.Header().Get("WWW-Authenticate"), `Keystone uri="http://here/identity`) {
				t.Errorf("WWW-Authenticate: %q", w.Header().Get("WWW-Authenticate"))
			}
			if strings.Contains(w.Body.String(), "demo-secret") {
				t.Error("the answer repeats the password")
			}
		})
	}
}

func TestTokenValidationAndRevocation(t *testing.T) {
	s := newSite(t)
	subject := func(token, method, of string) int {
		return s.raw(token, method, "/v3/auth/tokens", "", map[string]string{"X-Subject-Token": of}).Code
	}
	second := s.login("demo", "demo-secret", "")
	steps := []struct {
		what              string
		token, method, of string
		want              int
	}{
		{"own", s.demo, "GET", s.demo, 200}, {"own by HEAD", s.demo, "HEAD", s.demo, 200}, {"own other", s.demo, "GET", second, 200},
		{"somebody else's", s.demo, "GET", s.admin, 403}, {"admin sees all", s.admin, "GET", s.demo, 200},
		{"nothing", s.admin, "GET", "", 400}, {"garbage", s.admin, "GET", "garbage", 404}, {"no token", "", "GET", s.demo, 401},
		{"garbage token", "garbage", "GET", s.demo, 401}, {"revoke somebody else's", s.demo, "DELETE", s.admin, 403},
		{"revoke", s.admin, "DELETE", s.demo, 204}, {"revoked", s.admin, "GET", s.demo, 404}, {"revoked, as caller", s.demo, "GET", second, 401},
		{"revoke again", s.admin, "DELETE", s.demo, 404}, {"the other lives", s.admin, "HEAD", second, 200},
	}
	for _, x := range steps {
		if got := subject(x.token, x.method, x.of); got != x.want {
			t.Errorf("%s: %d, want %d", x.what, got, x.want)
		}
	}
}

// Each noun goes through its life; the keys of its document are those that clients know.
func TestNouns(t *testing.T) {
	s := newSite(t)
	region := s.want(201, "POST", "/v3/regions", `{"region": {"id": "R9", "description": "d"}}`, "region")["id"]
	service := s.want(201, "POST", "/v3/services", `{"service": {"type": "t9", "name": "n9"}}`, "service")["id"].(string)
	cases := []struct {
		path, one, create, update string
		changed                   string // key that update changes
		keys                      string
		many                      bool // created by lists
	}{
		{"/v3/domains", "domain", `{"name": "d1"}`, `{"enabled": false}`, "enabled", "description enabled id links name options tags", false},
		{"/v3/projects", "project", `{"name": "p1"}`, `{"name": "p2"}`, "name", "description domain_id enabled id is_domain links name options parent_id tags", false},
		{"/v3/users", "user", `{"name": "u1", "password": "x", "email": "a@b"}`, `{"email": "c@d"}`, "email", "domain_id email enabled id links name options password_expires_at", false},
		{"/v3/groups", "group", `{"name": "g1"}`, `{"description": "x"}`, "description", "description domain_id id links name", false},
		{"/v3/roles", "role", `{"name": "r1"}`, `{"name": "r2"}`, "name", "description domain_id id links name options", false},
		{"/v3/regions", "region", `{"description": "x"}`, `{"parent_region_id": "R9"}`, "parent_region_id", "description id links parent_region_id", false},
		{"/v3/services", "service", `{"type": "t1"}`, `{"enabled": false}`, "enabled", "description enabled id links name type", false},
		{"/v3/endpoints", "endpoint", `{"interface": "public", "url": "http://x", "service_id": "` + service + `", "region": "New"}`, `{"region_id": "R9"}`, "region_id",
			"enabled id interface links region region_id service_id url", false},
		{"/v3/credentials", "credential", `{"type": "cert", "blob": "b"}`, `{"blob": "c"}`, "blob", "blob id links project_id type user_id", false},
		{"/v3/policies", "policy", `{"type": "t", "blob": "b"}`, `{"blob": "c"}`, "blob", "blob id links type", false},
		{"/v3/registered_limits", "registered_limit", `{"service_id": "` + service + `", "resource_name": "cores", "default_limit": 5}`, `{"default_limit": 6}`, "default_limit",
			"default_limit description id links region_id resource_name service_id", true},
		{"/v3/OS-OAUTH1/consumers", "consumer", `{"description": "x"}`, `{"description": "y"}`, "description", "description id links", false},
		{"/v3/OS-EP-FILTER/endpoint_groups", "endpoint_group", `{"name": "eg", "filters": {"interface": "public"}}`, `{"name": "eg2"}`, "name", "description filters id links name", false},
	}
	for _, c := range cases {
		t.Run(c.one, func(t *testing.T) {
			s := *s
			s.t = t
			many := c.one + "s"
			if c.one == "policy" {
				many = "policies"
			}
			body := `{"` + c.one + `": ` + c.create + `}`
			var made map[string]any
			if c.many {
				made = s.want(201, "POST", c.path, `{"`+many+`": [`+c.create+`]}`, "")[many].([]any)[0].(map[string]any)
			} else {
				made = s.want(201, "POST", c.path, body, c.one)
			}
			delete(made, "secret") // shown once
			if got := keysOf(made); got != c.keys {
				t.Errorf("keys %s\nwant %s", got, c.keys)
			}
			at := c.path + "/" + made["id"].(string)
			if self := made["links"].(map[string]any)["self"]; self != "http://here/identity"+at {
				t.Errorf("self link %v", self)
			}
			if d := cmp.Diff(made, s.want(200, "GET", at, "", c.one)); d != "" {
				t.Error("show differs from create:", d)
			}
			found := false
			list := s.want(200, "GET", c.path, "", "")
			for _, x := range list[many].([]any) {
				found = found || cmp.Equal(x, any(made))
			}
			if !found {
				t.Errorf("not in the list %v", list)
			}
			if d := cmp.Diff(map[string]any{"self": "http://here/identity" + c.path, "next": nil, "previous": nil}, list["links"]); d != "" {
				t.Error(d)
			}
			after := s.want(200, "PATCH", at, `{"`+c.one+`": `+c.update+`}`, c.one)
			if cmp.Equal(after[c.changed], made[c.changed]) {
				t.Errorf("%s is still %v", c.changed, after[c.changed])
			}
			if d := cmp.Diff(after, s.want(200, "GET", at, "", c.one)); d != "" {
				t.Error("show differs from update:", d)
			}
			s.want(400, "PATCH", at, `{}`, "error")
			s.want(400, "PATCH", at, `{"`+c.one+`": 7}`, "error")
			s.want(204, "DELETE", at, "", "")
			s.want(404, "GET", at, "", "error")
			s.want(404, "PATCH", at, `{"`+c.one+`": `+c.update+`}`, "error")
			s.want(404, "DELETE", at, "", "error")
		})
	}
	_ = region
}

func TestBadInput(t *testing.T) {
	s := newSite(t)
	demo := "/v3/users/" + s.ids["user:demo"]
	cases := []struct {
		method, path, body string
		want               int
	}{
		{"POST", "/v3/projects", `{"project": {"name": ""}}`, 400},
		{"POST", "/v3/projects", `{"project": {"name": "` + strings.Repeat("a", 65) + `"}}`, 400},
		{"POST", "/v3/projects", `{"project": {"name": " "}}`, 400},
		{"POST", "/v3/projects", `{"project": {}}`, 400},
		{"POST", "/v3/projects", `{"project": {"name": "x", "enabled": "yes"}}`, 400},
		{"POST", "/v3/projects", `{"project": {"name": "x", "tags": ["a", "a"]}}`, 400},
		{"POST", "/v3/projects", `{"project": {"name": "x", "tags": ["a/b"]}}`, 400},
		{"POST", "/v3/projects", `{"project": {"name": "x", "domain_id": "absent"}}`, 404},
		{"POST", "/v3/projects", `{"project": {"name": "x", "parent_id": "absent"}}`, 404},
		{"POST", "/v3/projects", `{"project": {"name": "x", "is_domain": true, "domain_id": "default"}}`, 400},
		{"POST", "/v3/projects", `{"project": {"name": "demo"}}`, 409},
		{"PATCH", "/v3/projects/" + s.ids["project:demo"], `{"project": {"domain_id": "other"}}`, 400},
		{"PATCH", "/v3/projects/" + s.ids["project:demo"], `{"project": {"is_domain": true}}`, 400},
		{"PUT", "/v3/projects/" + s.ids["project:demo"] + "/tags", `{"tags": "x"}`, 400},
		{"POST", "/v3/users", `{"user": {"name": "x", "domain_id": "absent"}}`, 404},
		{"POST", "/v3/users", `{"user": {"name": "demo"}}`, 409},
		{"POST", "/v3/users", `{"user": {"name": "x", "options": {"nonsense": 1}}}`, 400},
		{"POST", "/v3/users", `{"user": {"name": "x", "password": 7}}`, 400},
		{"PATCH", demo, `{"user": {"domain_id": "other"}}`, 400},
		{"PATCH", demo, `{"user": {"id": "other"}}`, 400},
		{"POST", demo + "/password", `{"user": {"password": "x"}}`, 400},
		{"POST", "/v3/endpoints", `{"endpoint": {"interface": "public", "url": "http://x", "service_id": "absent"}}`, 400},
		{"POST", "/v3/endpoints", `{"endpoint": {"interface": "private", "url": "http://x", "service_id": "` + s.ids["service:keystone"] + `"}}`, 400},
		{"POST", "/v3/endpoints", `{"endpoint": {"interface": "public", "url": "x", "service_id": "` + s.ids["service:keystone"] + `"}}`, 400},
		{"POST", "/v3/regions", `{"region": {"parent_region_id": "absent"}}`, 404},
		{"POST", "/v3/regions", `{"region": {"id": "RegionOne"}}`, 409},
		{"DELETE", "/v3/regions/RegionOne", "", 403},
		{"POST", "/v3/limits", `{"limits": [{"service_id": "` + s.ids["service:keystone"] + `", "resource_name": "x", "resource_limit": 1, "project_id": "` + s.ids["project:demo"] + `"}]}`, 403},
		{"POST", "/v3/limits", `{"limits": [{"service_id": "x", "resource_name": "x", "resource_limit": 1}]}`, 400},
		{"POST", "/v3/credentials", `{"credential": {"type": "ec2", "blob": "{}"}}`, 400},
		{"POST", "/v3/domains", `{"domain": {"name": "Default"}}`, 409},
		{"DELETE", "/v3/domains/default", "", 403},
		{"GET", "/v3/domains/" + s.ids["project:demo"], "", 404},
		{"DELETE", "/v3/roles/" + s.ids["role:admin"], "", 403},
		{"PUT", "/v3/roles/" + s.ids["role:reader"] + "/implies/" + s.ids["role:admin"], "", 403},
		{"PUT", "/v3/projects/absent/users/" + s.ids["user:demo"] + "/roles/" + s.ids["role:reader"], "", 404},
		{"DELETE", "/v3/projects/" + s.ids["project:demo"] + "/users/" + s.ids["user:demo"] + "/roles/" + s.ids["role:admin"], "", 404},
		{"HEAD", "/v3/projects/" + s.ids["project:demo"] + "/users/" + s.ids["user:demo"] + "/roles/" + s.ids["role:admin"], "", 404},
		{"POST", "/v3/OS-TRUST/trusts", `{"trust": {"trustor_user_id": "` + s.ids["user:admin"] + `", "trustee_user_id": "` + s.ids["user:demo"] + `", "impersonation": true, "expires_at": "bad.123Z"}}`, 400},
		{"GET", "/v3/OS-FEDERATION/identity_providers", "", 404},
		{"PUT", "/v3/auth/tokens", `{}`, 405},
		{"GET", "/v3/nothing", "", 404},
		{"POST", "/v3/users", `[1]`, 400},
		{"POST", "/v3/users", `{"user": {"name": "x"}} trailing`, 400},
	}
	for _, c := range cases {
		code, doc := s.do(s.admin, c.method, c.path, c.body)
		if code != c.want {
			t.Errorf("%s %s %s: %d, want %d: %v", c.method, c.path, c.body, code, c.want, doc)
		}
	}
}

// Attributes that only the service may set cannot be set from outside.
func TestPrivateAttributesCannotBeSet(t *testing.T) {
	s := newSite(t)
	before, err := s.svc.Users.Get(t.Context(), s.ids["user:demo"])
	if err != nil {
		t.Fatal(err)
	}
	s.want(200, "PATCH", "/v3/users/"+before.ID, `{"user": {"password_hash": "x", "failed_auths": 9, "extra": {"a": 1}, "password_expires_at": "2000-01-01", "links": 1, "note": "kept"}}`, "user")
	after, err := s.svc.Users.Get(t.Context(), before.ID)
	if err != nil {
		t.Fatal(err)
	}
	before.Extra = map[string]any{"note": "kept"}
	if d := cmp.Diff(before, after); d != "" {
		t.Error(d)
	}
	for _, q := range []string{"password_hash=" + after.PasswordHash, "password_hash__startswith=x"} {
		if n := len(s.want(200, "GET", "/v3/users?"+q, "", "")["users"].([]any)); n != 2 {
			t.Errorf("the list can be filtered by %s: %d users", q, n)
		}
	}
	user := s.want(201, "POST", "/v3/users", `{"user": {"name": "n", "password": "secret-7", "original_password": "secret-8"}}`, "user")
	if text := fmt.Sprint(user); strings.Contains(text, "secret-") {
		t.Errorf("the document shows the password: %s", text)
	}
}

func TestFilters(t *testing.T) {
	s := newSite(t)
	for _, n := range []string{"Alpha", "alpine", "beta"} {
		s.want(201, "POST", "/v3/projects", `{"project": {"name": "`+n+`", "tags": ["x", "`+n+`"], "enabled": `+fmt.Sprint(n != "beta")+`}}`, "project")
	}
	cases := map[string]string{
		"name=beta": "beta", "name__startswith=alp": "alpine", "name__istartswith=alp": "Alpha alpine", "name__contains=et": "beta", "name__icontains=LP": "Alpha alpine",
		"name__endswith=ta": "beta", "enabled=false": "beta", "enabled=0": "beta", "name=beta&enabled=true": "", "tags=x,beta": "beta", "tags-any=beta,Alpha": "Alpha beta",
		"name=beta&nonsense=1": "beta", "tags=x&not-tags=x,beta": "Alpha alpine", "tags=x&not-tags-any=Alpha,beta": "alpine", "is_domain=true": "Default", "name__nonsense=x&name=beta": "beta",
	}
	for q, want := range cases {
		var got []string
		for _, p := range s.want(200, "GET", "/v3/projects?"+q, "", "")["projects"].([]any) {
			got = append(got, p.(map[string]any)["name"].(string))
		}
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", q, got, want)
		}
	}
	doc := s.want(200, "GET", "/v3/projects?limit=2", "", "")
	if len(doc["projects"].([]any)) != 2 || doc["truncated"] != true {
		t.Errorf("limit=2: %v", doc)
	}
}

func TestProjectTree(t *testing.T) {
	s := newSite(t)
	top := s.want(201, "POST", "/v3/projects", `{"project": {"name": "top"}}`, "project")["id"].(string)
	mid := s.want(201, "POST", "/v3/projects", `{"project": {"name": "mid", "parent_id": "`+top+`"}}`, "project")["id"].(string)
	leaf := s.want(201, "POST", "/v3/projects", `{"project": {"name": "leaf", "parent_id": "`+mid+`"}}`, "project")["id"].(string)
	got := s.want(200, "GET", "/v3/projects/"+mid+"?parents_as_ids&subtree_as_ids", "", "project")
	if d := cmp.Diff(map[string]any{top: map[string]any{"default": nil}}, got["parents"]); d != "" {
		t.Error("parents:", d)
	}
	if d := cmp.Diff(map[string]any{leaf: nil}, got["subtree"]); d != "" {
		t.Error("subtree:", d)
	}
	got = s.want(200, "GET", "/v3/projects/"+top+"?subtree_as_list", "", "project")
	if n := len(got["subtree"].([]any)); n != 2 {
		t.Errorf("%d projects below top, want 2", n)
	}
	s.want(400, "GET", "/v3/projects/"+mid+"?parents_as_ids&parents_as_list", "", "error")
}
