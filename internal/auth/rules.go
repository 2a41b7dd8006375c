package auth

import (
	"path"
	"regexp"
	"strings"
)

// AccessRule is one kind of request that an application credential may make: a method of the paths of a service (its type in the catalog).
// In a path * and {name} stand for one segment, ** for anything, as in Keystone's API reference.
type AccessRule struct{ Service, Method, Path string }

// May tells whether the caller's access rules let a request through; paths are the ways to write its path (with and without the service's prefix).
// A caller without rules may do whatever his roles allow.
func (c *Caller) May(service, method string, paths ...string) bool {
	if c.AccessRules == nil {
		return true
	}
	for _, r := range c.AccessRules {
		if r.Service != service || r.Method != method {
			continue
		}
		for _, p := range paths {
			if r.matches(p) {
				return true
			}
		}
	}
	return false
}

var ruleToken = regexp.MustCompile(`\{[^}]*\}|\*\*|\*|[^{*]+|\{`)

// matches holds a path against the rule's. Paths that are not in their plain form match nothing, so that no pattern is got round with dots.
func (r AccessRule) matches(p string) bool {
	if p == "" || path.Clean(p) != p && path.Clean(p)+"/" != p {
		return false
	}
	var re strings.Builder
	re.WriteString(`\A`)
	for _, t := range ruleToken.FindAllString(r.Path, -1) {
		switch {
		case t == "**":
			re.WriteString(`.*`)
		case t == "*" || len(t) > 1 && t[0] == '{':
			re.WriteString(`[^/]+`)
		default:
			re.WriteString(regexp.QuoteMeta(t))
		}
	}
	re.WriteString(`\z`)
	ok, err := regexp.MatchString(re.String(), p)
	return err == nil && ok
}
