package policy

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"kilonova/internal/auth"
)

// Enforcer is a set of rules made ready. It is immutable and safe for use by many goroutines.
type Enforcer struct {
	rules  map[string]check
	text   map[string]string
	scopes map[string][]Scope // of rules that have some
}

// New parses the default rules and the overrides of an operator (name to check), which replace defaults or add names. It fails on
// a rule that does not parse, on a reference to a rule that does not exist, and on rules that refer to each other in a circle.
func New(defaults []Rule, overrides map[string]string) (*Enforcer, error) {
	text := make(map[string]string, len(defaults)+len(overrides))
	scopes := map[string][]Scope{}
	for _, r := range defaults {
		if _, twice := text[r.Name]; twice {
			return nil, fmt.Errorf("policy: rule %s is defined twice", r.Name)
		}
		text[r.Name] = r.Check
		if len(r.Scopes) > 0 {
			scopes[r.Name] = r.Scopes
		}
	}
	for name, check := range overrides {
		text[name] = check
	}
	b := &builder{text: text, parsed: make(map[string]expr, len(text)), done: make(map[string]check, len(text))}
	names := make([]string, 0, len(text))
	for name := range text {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		if _, err := b.rule(name); err != nil {
			return nil, err
		}
	}
	return &Enforcer{rules: b.done, text: text, scopes: scopes}, nil
}

// Allowed tells whether the caller passes the rule for the target. A rule that does not exist is refused, as is a nil caller
// by every check but "@".
func (e *Enforcer) Allowed(rule string, c *auth.Caller, t Target) bool {
	check, ok := e.rules[rule]
	if !ok || !check.allowed(c, t) {
		return false
	}
	scopes := e.scopes[rule]
	return len(scopes) == 0 || slices.ContainsFunc(scopes, func(s Scope) bool { return s.has(c) })
}

// Check gives the text of a rule in force.
func (e *Enforcer) Check(rule string) (string, bool) {
	s, ok := e.text[rule]
	return s, ok
}

// Names lists all rules, sorted.
func (e *Enforcer) Names() []string {
	names := make([]string, 0, len(e.text))
	for name := range e.text {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// builder links parsed rules: a reference becomes the check it names, so that deciding needs no look-up.
type builder struct {
	text   map[string]string
	parsed map[string]expr
	done   map[string]check
	path   []string // rules being linked, to find circles
}

func (b *builder) rule(name string) (check, error) {
	if c, ok := b.done[name]; ok {
		return c, nil
	}
	text, ok := b.text[name]
	if !ok {
		// oslo.policy falls back to the rule "default" for a name that does not exist.
		if _, has := b.text["default"]; !has || name == "default" {
			return nil, fmt.Errorf("policy: rule %q is not defined", name)
		}
		return b.rule("default")
	}
	if i := slices.Index(b.path, name); i >= 0 {
		return nil, fmt.Errorf("policy: rules refer to each other in a circle: %s", strings.Join(append(b.path[i:], name), " -> "))
	}
	b.path = append(b.path, name)
	defer func() { b.path = b.path[:len(b.path)-1] }()
	e, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("policy: rule %s: %w", name, err)
	}
	c, err := b.link(e)
	if err != nil {
		return nil, fmt.Errorf("policy: rule %s: %w", name, err)
	}
	b.done[name] = c
	return c, nil
}

func (b *builder) link(e expr) (check, error) {
	switch e := e.(type) {
	case constant:
		return always(e), nil
	case negation:
		c, err := b.link(e.of)
		if err != nil {
			return nil, err
		}
		if k, ok := c.(always); ok {
			return always(!k), nil
		}
		return not{c}, nil
	case junction:
		return b.linkJunction(e)
	case atom:
		if e.kind == "rule" {
			return b.rule(e.match)
		}
		return newAtom(e)
	}
	return nil, fmt.Errorf("unknown expression %T", e)
}

func (b *builder) linkJunction(e junction) (check, error) {
	list := make([]check, 0, len(e.parts))
	for _, p := range e.parts {
		c, err := b.link(p)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	if len(list) == 1 {
		return list[0], nil
	}
	if e.and {
		return all(list), nil
	}
	return anyOf(list), nil
}
