package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"kilonova/internal/identity/api"
	"kilonova/internal/policy"
)

func TestRulesParse(t *testing.T) {
	e, err := policy.New(api.Rules(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range api.Rules() {
		if _, ok := e.Check(r.Name); !ok {
			t.Errorf("rule %s is lost", r.Name)
		}
	}
}

// Who may do what, for every kind of caller.
func TestWhoMayDoWhat(t *testing.T) {
	s := newSite(t)
	d1 := s.want(201, "POST", "/v3/domains", `{"domain": {"name": "d1"}}`, "domain")["id"].(string)
	inside := s.want(201, "POST", "/v3/projects", `{"project": {"name": "in", "domain_id": "`+d1+`"}}`, "project")["id"].(string)
	mk := func(name, role, target string) string {
		u := s.want(201, "POST", "/v3/users", `{"user": {"name": "`+name+`", "password": "pw"}}`, "user")["id"].(string)
		s.ids["user:"+name] = u
		s.want(204, "PUT", "/v3"+target+"/users/"+u+"/roles/"+s.ids["role:"+role], "", "")
		scope := `{"system": {"all": true}}`
		if strings.HasPrefix(target, "/domains") {
			scope = `{"domain": {"id": "` + d1 + `"}}`
		} else if strings.HasPrefix(target, "/projects") {
			scope = `{"project": {"id": "` + inside + `"}}`
		}
		return s.login(name, "pw", scope)
	}
	callers := []string{"none", "member", "domain reader", "domain manager", "system reader", "service", "admin"}
	tokens := map[string]string{"none": "", "member": mk("m", "member", "/projects/"+inside), "domain reader": mk("dr", "reader", "/domains/"+d1),
		"domain manager": mk("dm", "manager", "/domains/"+d1), "system reader": mk("sr", "reader", "/system"), "service": mk("sv", "service", "/projects/"+inside), "admin": s.admin}
	other := s.want(201, "POST", "/v3/users", `{"user": {"name": "other", "domain_id": "`+d1+`"}}`, "user")["id"].(string)
	n := 0
	unique := func() string { n++; return fmt.Sprint("x", n) }
	cases := []struct {
		method, path string
		body         func() string
		want         string // one status for each of callers
	}{
		{"GET", "/v3/projects", nil, "401 403 200 200 200 403 200"},
		{"GET", "/v3/projects/" + inside, nil, "401 200 200 200 200 200 200"},
		{"GET", "/v3/projects/" + s.ids["project:demo"], nil, "401 403 403 403 200 200 200"},
		{"GET", "/v3/projects/absent", nil, "401 403 403 403 404 404 404"},
		{"POST", "/v3/projects", func() string { return `{"project": {"name": "` + unique() + `", "domain_id": "` + d1 + `"}}` }, "401 403 403 201 403 403 201"},
		{"POST", "/v3/projects", func() string { return `{"project": {"name": "` + unique() + `", "domain_id": "default"}}` }, "401 403 403 403 403 403 201"},
		{"GET", "/v3/users", nil, "401 403 200 200 200 403 200"},
		{"GET", "/v3/users/" + other, nil, "401 403 200 200 200 200 200"},
		{"GET", "/v3/users/" + s.ids["user:m"], nil, "401 200 403 403 200 200 200"},
		{"PATCH", "/v3/users/" + other, func() string { return `{"user": {"description": "x"}}` }, "401 403 403 200 403 403 200"},
		{"POST", "/v3/users", func() string { return `{"user": {"name": "` + unique() + `"}}` }, "401 403 403 201 403 403 201"},
		{"GET", "/v3/domains", nil, "401 403 403 403 200 403 200"},
		{"GET", "/v3/domains/" + d1, nil, "401 200 200 200 200 200 200"},
		{"POST", "/v3/domains", func() string { return `{"domain": {"name": "` + unique() + `"}}` }, "401 403 403 403 403 403 201"},
		{"GET", "/v3/roles", nil, "401 403 403 200 200 403 200"},
		{"GET", "/v3/regions", nil, "401 200 200 200 200 200 200"},
		{"GET", "/v3/endpoints", nil, "401 403 403 403 200 200 200"},
		{"POST", "/v3/services", func() string { return `{"service": {"type": "t"}}` }, "401 403 403 403 403 403 201"},
		{"GET", "/v3/role_assignments", nil, "401 403 403 403 200 403 200"},
		{"GET", "/v3/role_assignments?scope.domain.id=" + d1, nil, "401 403 200 200 200 403 200"},
		{"PUT", "/v3/projects/" + inside + "/users/" + other + "/roles/" + s.ids["role:member"], nil, "401 403 403 204 403 403 204"},
		{"PUT", "/v3/projects/" + inside + "/users/" + other + "/roles/" + s.ids["role:admin"], nil, "401 403 403 403 403 403 204"},
		{"PUT", "/v3/projects/" + s.ids["project:demo"] + "/users/" + other + "/roles/" + s.ids["role:member"], nil, "401 403 403 403 403 403 204"},
		{"PUT", "/v3/system/users/" + other + "/roles/" + s.ids["role:reader"], nil, "401 403 403 403 403 403 204"},
		{"GET", "/v3/users/" + s.ids["user:m"] + "/credentials/OS-EC2", nil, "401 200 403 403 403 403 200"},
		{"GET", "/v3/users/" + s.ids["user:m"] + "/application_credentials", nil, "401 200 403 403 200 403 200"},
		{"POST", "/v3/users/" + s.ids["user:m"] + "/application_credentials", func() string { return `{"application_credential": {"name": "` + unique() + `"}}` }, "401 201 403 403 403 403 403"},
		{"GET", "/v3/OS-TRUST/trusts", nil, "401 403 403 403 200 403 200"},
		{"GET", "/v3/OS-TRUST/trusts?trustor_user_id=" + s.ids["user:m"], nil, "401 200 403 403 200 403 200"},
		{"GET", "/v3/auth/catalog", nil, "401 200 200 200 200 200 200"},
		{"GET", "/v3/limits/model", nil, "401 200 200 200 200 200 200"},
	}
	for _, c := range cases {
		want := strings.Fields(c.want)
		for i, who := range callers {
			body := ""
			if c.body != nil {
				body = c.body()
			}
			if got, doc := s.do(tokens[who], c.method, c.path, body); fmt.Sprint(got) != want[i] {
				t.Errorf("%s %s by %s: %d, want %s (%v)", c.method, c.path, who, got, want[i], doc["error"])
			}
		}
	}
	// A domain's reader is shown its domain only.
	_, doc := s.do(tokens["domain reader"], http.MethodGet, "/v3/users", "")
	for _, u := range doc["users"].([]any) {
		if u.(map[string]any)["domain_id"] != d1 {
			t.Errorf("the reader of d1 sees %v", u)
		}
	}
	// Credentials: each sees its own.
	s.want(201, "POST", "/v3/credentials", `{"credential": {"type": "cert", "blob": "b", "user_id": "`+s.ids["user:m"]+`"}}`, "credential")
	s.want(201, "POST", "/v3/credentials", `{"credential": {"type": "cert", "blob": "b"}}`, "credential")
	for who, count := range map[string]int{"member": 1, "domain manager": 0, "system reader": 2, "admin": 2} {
		if _, doc := s.do(tokens[who], "GET", "/v3/credentials", ""); len(doc["credentials"].([]any)) != count {
			t.Errorf("%s sees %v", who, doc)
		}
	}
}
