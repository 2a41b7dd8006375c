package policy_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kilonova/internal/auth"
	"kilonova/internal/policy"
)

var (
	admin  = &auth.Caller{UserID: "a", ProjectID: "ops", Roles: []string{"admin", "manager", "member", "reader"}}
	member = &auth.Caller{UserID: "m", ProjectID: "p1", Roles: []string{"member", "reader"}, UserDomainID: "d1"}
	reader = &auth.Caller{UserID: "r", ProjectID: "p1", Roles: []string{"Reader"}}
	system = &auth.Caller{UserID: "s", System: true, Roles: []string{"reader"}}
	domain = &auth.Caller{UserID: "d", DomainID: "d1", Roles: []string{"member"}}
)

func allowed(t *testing.T, check string, c *auth.Caller, target policy.Target) bool {
	t.Helper()
	e, err := policy.New([]policy.Rule{{Name: "context_is_admin", Check: "role:admin"}, {Name: "x", Check: check}}, nil)
	if err != nil {
		t.Fatalf("%s: %v", check, err)
	}
	return e.Allowed("x", c, target)
}

func TestLanguage(t *testing.T) {
	own := policy.Target{"project_id": "p1", "user_id": "m"}
	for _, c := range []struct {
		check  string
		caller *auth.Caller
		target policy.Target
		want   bool
	}{
		{"", nil, nil, true},
		{"@", nil, nil, true},
		{"!", admin, nil, false},
		{"not !", nil, nil, true},
		{"not not @", nil, nil, true},
		{"NOT @", nil, nil, false},
		{"role:member", member, nil, true},
		{"role:MEMBER", member, nil, true},
		{"role:reader", reader, nil, true},
		{"role:admin", member, nil, false},
		{"role:admin", nil, nil, false},
		{"role:%(role.name)s", member, policy.Target{"role.name": "member"}, true},
		{"role:%(role.name)s", member, policy.Target{}, false},
		{"rule:context_is_admin", admin, nil, true},
		{"rule:context_is_admin", member, nil, false},
		{"is_admin:True", admin, nil, true},
		{"is_admin:1", admin, nil, true},
		{"is_admin:True", member, nil, false},
		{"is_admin:False", member, nil, true},
		{"is_admin:perhaps", admin, nil, false},
		{"is_admin_project:True", member, nil, true},
		{"project_id:%(project_id)s", member, own, true},
		{"tenant_id:%(tenant_id)s", member, own, true},
		{"project_id:%(project_id)s", member, policy.Target{"project_id": "p2"}, false},
		{"project_id:%(project_id)s", member, nil, false},
		{"project_id:%(project_id)s", system, policy.Target{"project_id": ""}, false},
		{"project_id:p1", member, nil, true},
		{"user_id:%(user_id)s", member, own, true},
		{"user_id:%(target.user_id)s", member, own, true},
		{"user_domain_id:d1", member, nil, true},
		{"domain_id:%(domain_id)s", domain, policy.Target{"domain_id": "d1"}, true},
		{"system_scope:all", system, nil, true},
		{"system_scope:all", member, nil, false},
		{"no_such_attribute:x", admin, nil, false},
		{"'member':%(role.name)s", nil, policy.Target{"role.name": "member"}, true},
		{"\"member\":%(role.name)s", nil, policy.Target{"role.name": "guest"}, false},
		{"True:%(enabled)s", nil, policy.Target{"enabled": "True"}, true},
		{"None:%(owner)s", nil, policy.Target{"owner": "None"}, true},
		{"7:%(count)s", nil, policy.Target{"count": "7"}, true},
		{"-7:%(count)s", nil, policy.Target{"count": "7"}, false},
		{"user_id:pre-%(a)s-%(b)s", &auth.Caller{UserID: "pre-1-2"}, policy.Target{"a": "1", "b": "2"}, true},
		{"user_id:100%%", &auth.Caller{UserID: "100%"}, nil, true},
		{"role:a or role:b and role:c", &auth.Caller{Roles: []string{"a"}}, nil, true},
		{"(role:a or role:b) and role:c", &auth.Caller{Roles: []string{"a"}}, nil, false},
		{"(role:a or role:b) and not role:c", &auth.Caller{Roles: []string{"b"}}, nil, true},
		{"((role:a))", &auth.Caller{Roles: []string{"a"}}, nil, true},
		{"( role:a )", &auth.Caller{Roles: []string{"a"}}, nil, true},
		{"(project_id:%(project_id)s)", member, own, true},
		{"(role:member and (project_id:%(project_id)s or project_id:%(owner)s))", member, own, true},
		{"role:a\n or\trole:member", member, nil, true},
	} {
		if got := allowed(t, c.check, c.caller, c.target); got != c.want {
			t.Errorf("%q for %+v on %v: got %v", c.check, c.caller, c.target, got)
		}
	}
}

func TestErrors(t *testing.T) {
	for check, want := range map[string]string{
		"role":                       "kind:match",
		":x":                         "kind:match",
		"'member'":                   "kind:match",
		"role:a role:b":              "out of place",
		"role:a or":                  "ends where a check",
		"and role:a":                 "check is expected",
		"(role:a":                    "not closed",
		"role:a)":                    "out of place",
		"'a:b":                       "quote is not closed",
		"rule:nowhere":               `"nowhere" is not defined`,
		"http://policy.example/":     "asks another server",
		"https://p.example/":         "asks another server",
		"user_id:%(user_id":          "substitution",
		"user_id:%d":                 "substitution",
		"rule:x":                     "circle: x -> x",
		"field:networks:shared=True": "Neutron",
		strings.Repeat("(", 300) + "@" + strings.Repeat(")", 300): "nested",
	} {
		_, err := policy.New([]policy.Rule{{Name: "x", Check: check}}, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, want %q", check, err, want)
		}
	}
	if _, err := policy.New([]policy.Rule{{Name: "a", Check: "rule:b"}, {Name: "b", Check: "not rule:c"}, {Name: "c", Check: "@ and rule:a"}}, nil); err == nil ||
		!strings.Contains(err.Error(), "a -> b -> c -> a") {
		t.Errorf("circle: %v", err)
	}
	if _, err := policy.New([]policy.Rule{{Name: "a", Check: "@"}, {Name: "a", Check: "!"}}, nil); err == nil {
		t.Error("a rule defined twice was accepted")
	}
}

func TestOverridesAndUnknownRules(t *testing.T) {
	defaults := []policy.Rule{{Name: "base", Check: "role:admin"}, {Name: "use", Check: "rule:base"}}
	e, err := policy.New(defaults, map[string]string{"base": "role:member", "extra": "@"})
	if err != nil {
		t.Fatal(err)
	}
	if !e.Allowed("use", member, nil) || !e.Allowed("extra", nil, nil) {
		t.Error("the override does not reach the rule that refers to it")
	}
	if e.Allowed("unknown", admin, nil) {
		t.Error("an unknown rule was allowed")
	}
	if s, ok := e.Check("base"); !ok || s != "role:member" {
		t.Error(s)
	}
	if d := cmp.Diff([]string{"base", "extra", "use"}, e.Names()); d != "" {
		t.Error(d)
	}
	e, err = policy.New([]policy.Rule{{Name: "default", Check: "role:reader"}, {Name: "a", Check: "rule:gone"}}, nil)
	if err != nil || !e.Allowed("a", member, nil) {
		t.Errorf("a reference to an unknown rule does not fall back to the rule default: %v", err)
	}
}

func TestFiles(t *testing.T) {
	for _, c := range []struct {
		name, file string
		want       map[string]string
	}{
		{"empty", " \n", map[string]string{}},
		{"json", `{"a": "role:x", "b": ""}`, map[string]string{"a": "role:x", "b": ""}},
		{"yaml", "# comment\n\"a\": \"role:x\"\n'b': '@'\n", map[string]string{"a": "role:x", "b": "@"}},
		{"lists", `{"all": [], "or": [["role:a"], ["role:b", "rule:c"]], "plain": ["role:a", "role:b"], "none": [[]]}`, map[string]string{
			"all": "", "or": "((role:a)) or ((role:b) and (rule:c))", "plain": "(role:a) or (role:b)", "none": "!"}},
		{"null", "a:\n", map[string]string{"a": ""}},
	} {
		got, err := policy.ParseFile([]byte(c.file))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
	for _, bad := range []string{"[1]", "a: 7", "a: [7]", "a: [[7]]", `a: "role"`, "\t{"} {
		if m, err := policy.ParseFile([]byte(bad)); err == nil {
			t.Errorf("%q: accepted as %v", bad, m)
		}
	}
}

// formula is a random rule together with its value.
type formula struct {
	text  string
	value bool
}

// TestAlgebra compares random formulas with their value computed while they are made.
func TestAlgebra(t *testing.T) {
	var build func(*rapid.T, int) formula
	build = func(t *rapid.T, depth int) formula {
		n := 5
		if depth == 0 {
			n = 2
		}
		switch rapid.IntRange(0, n-1).Draw(t, "kind") {
		case 0:
			role := rapid.SampledFrom([]string{"member", "reader", "other"}).Draw(t, "role")
			return formula{"role:" + role, role != "other"}
		case 1:
			v := rapid.Bool().Draw(t, "constant")
			return formula{map[bool]string{true: "@", false: "!"}[v], v}
		case 2:
			f := build(t, depth-1)
			return formula{"not (" + f.text + ")", !f.value}
		case 3:
			a, b := build(t, depth-1), build(t, depth-1)
			return formula{"(" + a.text + " and " + b.text + ")", a.value && b.value}
		}
		a, b := build(t, depth-1), build(t, depth-1)
		return formula{"(" + a.text + " or " + b.text + ")", a.value || b.value}
	}
	rapid.Check(t, func(rt *rapid.T) {
		f := build(rt, 5)
		e, err := policy.New([]policy.Rule{{Name: "x", Check: f.text}}, nil)
		if err != nil {
			rt.Fatalf("%s: %v", f.text, err)
		}
		if got := e.Allowed("x", member, nil); got != f.value {
			rt.Fatalf("%s is %v", f.text, got)
		}
	})
}

// FuzzRule feeds anything to the parser: it may refuse, never panic, and what it takes can be decided.
func FuzzRule(f *testing.F) {
	for _, s := range []string{"", "@", "role:a and (not rule:b or 'x':%(y)s)", "((((", "%(", "not", "a:%(b)s%%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, check string) {
		e, err := policy.New([]policy.Rule{{Name: "x", Check: check}}, nil)
		if err != nil {
			return
		}
		e.Allowed("x", member, policy.Target{"b": "1"})
		e.Allowed("x", nil, nil)
	})
}

// FuzzFile feeds anything to the file reader.
func FuzzFile(f *testing.F) {
	f.Add([]byte(`{"a": [["role:x"]]}`))
	f.Add([]byte("a: b:c\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := policy.ParseFile(data)
		if err == nil {
			_, _ = policy.New(nil, m) // may refuse unknown references
		}
	})
}

func TestCommonChecksDoNotAllocate(t *testing.T) {
	e, err := policy.New([]policy.Rule{{Name: "admin", Check: "role:admin"}, {Name: "own", Check: "role:member and project_id:%(project_id)s"},
		{Name: "x", Check: "rule:admin or rule:own"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	target := policy.Target{"project_id": "p1"}
	if n := testing.AllocsPerRun(100, func() { e.Allowed("x", member, target) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func BenchmarkAllowed(b *testing.B) {
	e, err := policy.New([]policy.Rule{{Name: "admin", Check: "role:admin"}, {Name: "own", Check: "role:member and project_id:%(project_id)s"},
		{Name: "x", Check: "rule:admin or rule:own"}}, nil)
	if err != nil {
		b.Fatal(err)
	}
	target := policy.Target{"project_id": "p1"}
	b.ReportAllocs()
	for b.Loop() {
		e.Allowed("x", member, target)
	}
}

// A rule with scopes refuses tokens for anything else, whatever the check says; those for nothing count as a project's.
func TestScopes(t *testing.T) {
	unscoped, internal := &auth.Caller{UserID: "n"}, auth.Internal("req")
	for _, c := range []struct {
		scopes []policy.Scope
		want   []*auth.Caller
	}{
		{nil, []*auth.Caller{nil, member, system, domain, unscoped, internal}},
		{[]policy.Scope{policy.ProjectScope}, []*auth.Caller{member, unscoped, internal}},
		{[]policy.Scope{policy.SystemScope}, []*auth.Caller{system, internal}},
		{[]policy.Scope{policy.DomainScope}, []*auth.Caller{domain}},
		{[]policy.Scope{policy.SystemScope, policy.DomainScope}, []*auth.Caller{system, domain, internal}},
	} {
		for _, overrides := range []map[string]string{nil, {"x": "@"}} {
			e, err := policy.New([]policy.Rule{{Name: "x", Check: "@", Scopes: c.scopes}}, overrides)
			if err != nil {
				t.Fatal(err)
			}
			for _, caller := range []*auth.Caller{nil, member, system, domain, unscoped, internal} {
				if got, want := e.Allowed("x", caller, nil), slices.Contains(c.want, caller); got != want {
					t.Errorf("%v, caller %+v: %v, want %v", c.scopes, caller, got, want)
				}
			}
		}
	}
}

func TestForProjects(t *testing.T) {
	in := []policy.Rule{{Name: "a", Check: "@"}, {Name: "b", Check: "@", Scopes: []policy.Scope{policy.SystemScope}}}
	want := []policy.Rule{{Name: "a", Check: "@", Scopes: []policy.Scope{policy.ProjectScope}}, in[1]}
	if d := cmp.Diff(want, policy.ForProjects(in)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if in[0].Scopes != nil {
		t.Error("what was given has changed")
	}
}
