// Package policy is the oslo.policy rule language and the decisions made with it. It is pure: no database, no clock, no network.
package policy

import (
	"slices"

	"kilonova/internal/auth"
)

// Target is what a rule may compare the caller with: attributes of the object that is asked for ("project_id", "user_id", …).
type Target map[string]string

// Rule is one default rule.
type Rule struct {
	Name        string // "os_compute_api:servers:create"
	Check       string // in the oslo.policy language: "rule:project_member_or_admin"
	Description string
	// Scopes are the scopes of tokens that may ask at all, whatever Check says; empty: any. An operator's own check does not widen them.
	Scopes []Scope
}

// Scope is what a token is for.
type Scope string

// The scopes. A token without any counts as one for a project.
const (
	ProjectScope Scope = "project"
	DomainScope  Scope = "domain"
	SystemScope  Scope = "system"
)

// ForProjects gives the rules, those without scopes limited to tokens of projects: what OpenStack's services do that keep everything in projects.
func ForProjects(rules []Rule) []Rule {
	out := slices.Clone(rules)
	for i := range out {
		if len(out[i].Scopes) == 0 {
			out[i].Scopes = []Scope{ProjectScope}
		}
	}
	return out
}

// has tells whether a caller's token is of the scope. Callers inside the program are of a project and the system.
func (s Scope) has(c *auth.Caller) bool {
	switch {
	case c == nil:
		return false
	case s == SystemScope:
		return c.System
	case s == DomainScope:
		return c.DomainID != ""
	}
	return c.ProjectID != "" || !c.System && c.DomainID == ""
}

// Checker decides. Enforcer is the real one; tests may give their own.
type Checker interface {
	// Allowed tells whether the caller passes the rule for the target. An unknown rule is refused.
	Allowed(rule string, c *auth.Caller, t Target) bool
}
