package policy

import (
	"fmt"
	"strconv"
	"strings"

	"kilonova/internal/auth"
)

// check is a linked rule. Deciding allocates nothing unless a substitution mixes text and attributes.
type check interface {
	allowed(c *auth.Caller, t Target) bool
}

type always bool

func (a always) allowed(*auth.Caller, Target) bool { return bool(a) }

type not struct{ of check }

func (n not) allowed(c *auth.Caller, t Target) bool { return !n.of.allowed(c, t) }

type all []check

func (a all) allowed(c *auth.Caller, t Target) bool {
	for _, p := range a {
		if !p.allowed(c, t) {
			return false
		}
	}
	return true
}

type anyOf []check

func (a anyOf) allowed(c *auth.Caller, t Target) bool {
	for _, p := range a {
		if p.allowed(c, t) {
			return true
		}
	}
	return false
}

// role is role:<name>; names compare without case.
type role string

func (r role) allowed(c *auth.Caller, _ Target) bool {
	if c == nil {
		return false
	}
	for _, have := range c.Roles {
		if strings.EqualFold(have, string(r)) {
			return true
		}
	}
	return false
}

// roleOf is role:%(x)s.
type roleOf struct{ name value }

func (r roleOf) allowed(c *auth.Caller, t Target) bool {
	want, ok := r.name.of(t)
	return ok && role(want).allowed(c, t)
}

// attribute compares an attribute of the caller with a value: user_id:%(user_id)s.
type attribute struct {
	get  func(*auth.Caller) (string, bool)
	want value
}

func (a attribute) allowed(c *auth.Caller, t Target) bool {
	if c == nil {
		return false
	}
	have, ok := a.get(c)
	if !ok {
		return false
	}
	want, ok := a.want.of(t)
	return ok && have == want
}

// literal compares a quoted text, number or boolean with a value: 'member':%(role.name)s.
type literal struct {
	have string
	want value
}

func (l literal) allowed(_ *auth.Caller, t Target) bool {
	want, ok := l.want.of(t)
	return ok && l.have == want
}

// truth is is_admin:True and its like.
type truth struct {
	get  func(*auth.Caller) bool
	want value
}

func (b truth) allowed(c *auth.Caller, t Target) bool {
	want, ok := b.want.of(t)
	if !ok {
		return false
	}
	w, err := strconv.ParseBool(want)
	return err == nil && (c != nil && b.get(c)) == w
}

// attributes are the texts of a caller that checks may name. An empty one is as good as absent: a token without a project never
// equals a target without one.
var attributes = map[string]func(*auth.Caller) string{
	"user_id":             func(c *auth.Caller) string { return c.UserID },
	"user":                func(c *auth.Caller) string { return c.UserID },
	"user_name":           func(c *auth.Caller) string { return c.UserName },
	"user_domain_id":      func(c *auth.Caller) string { return c.UserDomainID },
	"user_domain_name":    func(c *auth.Caller) string { return c.UserDomainName },
	"project_id":          func(c *auth.Caller) string { return c.ProjectID },
	"tenant_id":           func(c *auth.Caller) string { return c.ProjectID },
	"tenant":              func(c *auth.Caller) string { return c.ProjectID },
	"project_name":        func(c *auth.Caller) string { return c.ProjectName },
	"project_domain_id":   func(c *auth.Caller) string { return c.ProjectDomainID },
	"project_domain_name": func(c *auth.Caller) string { return c.ProjectDomainName },
	"domain_id":           func(c *auth.Caller) string { return c.DomainID },
	"domain_name":         func(c *auth.Caller) string { return c.DomainName },
	"request_id":          func(c *auth.Caller) string { return c.RequestID },
}

// newAtom makes the check of kind:match.
func newAtom(a atom) (check, error) {
	want, err := parseValue(a.match)
	if err != nil {
		return nil, err
	}
	if a.literal {
		return literal{a.kind, want}, nil
	}
	switch a.kind {
	case "role":
		if want.simple() {
			return role(want.text), nil
		}
		return roleOf{want}, nil
	case "http", "https":
		return nil, fmt.Errorf("the check %s:%s asks another server, which is not supported: write the rule out", a.kind, a.match)
	case "field":
		return nil, fmt.Errorf("the check field:%s is Neutron's own and not supported here", a.match)
	case "is_admin":
		return truth{(*auth.Caller).IsAdmin, want}, nil
	case "is_admin_project":
		return truth{func(*auth.Caller) bool { return true }, want}, nil
	case "system_scope", "system":
		return attribute{systemScope, want}, nil
	}
	if get, ok := attributes[a.kind]; ok {
		return attribute{func(c *auth.Caller) (string, bool) { s := get(c); return s, s != "" }, want}, nil
	}
	return attribute{func(*auth.Caller) (string, bool) { return "", false }, want}, nil // an attribute that no token has
}

func systemScope(c *auth.Caller) (string, bool) {
	if c.System {
		return "all", true
	}
	return "", false
}

// value is the right side of a check: text, or text with %(name)s taken from the target.
type value struct {
	text  string // when names is empty
	parts []string
	names []string // between parts: parts[0] names[0] parts[1] …
}

func (v value) simple() bool { return len(v.names) == 0 }

// of gives the value for a target; false when an attribute is absent.
func (v value) of(t Target) (string, bool) {
	switch {
	case v.simple():
		return v.text, true
	case len(v.names) == 1 && v.parts[0] == "" && v.parts[1] == "":
		s, ok := t.lookup(v.names[0])
		return s, ok
	}
	var b strings.Builder
	for i, name := range v.names {
		s, ok := t.lookup(name)
		if !ok {
			return "", false
		}
		b.WriteString(v.parts[i])
		b.WriteString(s)
	}
	b.WriteString(v.parts[len(v.names)])
	return b.String(), true
}

// lookup finds an attribute; project_id and tenant_id are the same, and the names may have a leading "target.".
func (t Target) lookup(name string) (string, bool) {
	if s, ok := t[name]; ok {
		return s, true
	}
	switch name {
	case "tenant_id":
		s, ok := t["project_id"]
		return s, ok
	case "project_id":
		s, ok := t["tenant_id"]
		return s, ok
	}
	if rest, ok := strings.CutPrefix(name, "target."); ok {
		return t.lookup(rest)
	}
	return "", false
}

func parseValue(s string) (value, error) {
	v := value{text: s}
	rest, plain := s, strings.Builder{}
	for {
		i := strings.IndexByte(rest, '%')
		if i < 0 {
			break
		}
		plain.WriteString(rest[:i])
		rest = rest[i:]
		switch {
		case strings.HasPrefix(rest, "%%"):
			plain.WriteByte('%')
			rest = rest[2:]
		case strings.HasPrefix(rest, "%("):
			end := strings.Index(rest, ")s")
			if end < 0 {
				return v, fmt.Errorf("%q: a substitution has the form %%(name)s", s)
			}
			v.parts, v.names = append(v.parts, plain.String()), append(v.names, rest[2:end])
			plain.Reset()
			rest = rest[end+2:]
		default:
			return v, fmt.Errorf("%q: a substitution has the form %%(name)s", s)
		}
	}
	plain.WriteString(rest)
	if v.simple() {
		v.text = plain.String()
		return v, nil
	}
	v.parts = append(v.parts, plain.String())
	return v, nil
}
