package api

import (
	"maps"
	"slices"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/network/local"
	"kilonova/internal/policy"
)

// doc is a resource as the API shows it.
type doc map[string]any

// input is a request's attributes, verified and brought to Go types.
type input map[string]any

func (in input) has(name string) bool { _, ok := in[name]; return ok }

// str gives a text attribute; "" when it is absent or null.
func (in input) str(name string) string { s, _ := in[name].(string); return s }

func (in input) flag(name string) bool { b, _ := in[name].(bool); return b }

// num gives a number; nil when it is absent or null.
func (in input) num(name string) *int {
	if n, ok := in[name].(int); ok {
		return &n
	}
	return nil
}

func (in input) texts(name string) []string { l, _ := in[name].([]string); return l }

// set copies a text attribute to where it belongs when the request has it.
func (in input) set(name string, to *string) {
	if in.has(name) {
		*to = in.str(name)
	}
}

func (in input) setFlag(name string, to *bool) {
	if in.has(name) {
		*to = in.flag(name)
	}
}

// attr is one attribute of a resource.
type attr struct {
	name string
	when moment
	kind kind
	def  any  // when a POST lacks it; nil: stays absent
	rule bool // policy is asked about it by <action>_<resource>:<name> when a request has it and, in a POST, not as its default
	// onlyIf limits rule to values that need it ("network:" as device_owner); nil: all.
	onlyIf func(v any) bool
	hidden bool // shown only to whom the policy rule get_<resource>:<name> allows
}

// moment is when an attribute may be given.
type moment int

const (
	never    moment = 0
	post     moment = 1
	put      moment = 2
	both            = post | put
	required        = post | 4
)

// resource is one kind of thing of the API.
type resource struct {
	api                *API
	name, plural, path string
	kind               string // "Network": NetworkNotFound
	attrs              []attr
	columns            map[string]string // filters that SQL can apply: attribute -> column
	list               func(q *call, f local.Filter) ([]doc, error)
	create             func(q *call, c *local.Change, in input) (string, error) // gives the new id
	update             func(q *call, c *local.Change, id string, in input) error
	remove             func(q *call, c *local.Change, id string) error
	retag              func(c *local.Change, id string, change func(tags []string) ([]string, error)) error
	// target adds what policy may ask about beyond the resource's own project; in is nil outside of POST.
	target func(q *call, t policy.Target, d map[string]any) error
	// check verifies, ahead of the transaction, what the attributes refer to; it may add attributes.
	check func(q *call, in input, create bool) error
	// before runs ahead of listing (the default group is made at its first use).
	before func(q *call) error
	// filter judges query parameters that are no plain attribute; ok is false for those it does not know.
	filter func(q *call, name string, values []string) (match func(doc) bool, ok bool, err error)
}

// call is a request as the resources see it.
type call struct {
	*httpapi.Request
	admin   bool
	project string // whose things the caller sees; "" for administrators
}

func newCall(r *httpapi.Request) *call {
	q := &call{Request: r, admin: r.Allowed("context_is_admin", r.Own())}
	if !q.admin {
		if q.project = r.Caller.ProjectID; q.project == "" {
			q.project = "-" // no project: sees only what everybody sees
		}
	}
	return q
}

func (res *resource) attr(name string) *attr {
	for i := range res.attrs {
		if res.attrs[i].name == name {
			return &res.attrs[i]
		}
	}
	return nil
}

func badRequest(format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, format, args...).WithCode("HTTPBadRequest")
}

// accept verifies the attributes of a request body. In a POST, defaults are filled in.
func (res *resource) accept(body map[string]any, m moment) (input, error) {
	if t, ok := body["tenant_id"]; ok {
		if p, ok := body["project_id"]; ok && show(p) != show(t) {
			return nil, badRequest("'project_id' and 'tenant_id' do not match")
		}
		body = maps.Clone(body)
		delete(body, "tenant_id")
		body["project_id"] = t
	}
	var unknown []string
	for name := range body {
		if res.attr(name) == nil {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return nil, badRequest("Unrecognized attribute(s) '%s'", joinWords(unknown))
	}
	in := input{}
	for i := range res.attrs {
		a := &res.attrs[i]
		v, given := body[a.name]
		switch {
		case given && a.when&m == 0:
			verb := "PUT"
			if m == post {
				verb = "POST"
			}
			return nil, badRequest("Attribute '%s' not allowed in %s", a.name, verb)
		case given:
			got, problem := a.kind(v)
			if problem != "" {
				return nil, badRequest("Invalid input for %s. Reason: %s", a.name, problem)
			}
			in[a.name] = got
		case m == post && a.when&required == required:
			return nil, badRequest("Failed to parse request. Required attribute '%s' not specified", a.name)
		case m == post && a.def != nil:
			in[a.name] = a.def
		}
	}
	return in, nil
}

func joinWords(words []string) string {
	out := ""
	for i, w := range words {
		if i > 0 {
			out += ", "
		}
		out += w
	}
	return out
}

// authorize asks policy about an action on a resource and about each attribute that the caller sets and that has a rule.
func (res *resource) authorize(q *call, action string, d map[string]any, given map[string]any) error {
	project, _ := d["project_id"].(string)
	id, _ := d["id"].(string)
	t := policy.Target{"project_id": project, "tenant_id": project, "id": id, "user_id": q.Caller.UserID}
	if res.target != nil {
		if err := res.target(q, t, d); err != nil {
			return err
		}
	}
	rule := action + "_" + res.name
	if err := deny(q, rule, t); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		a := res.attr(name)
		if a == nil || !a.rule || a.onlyIf != nil && !a.onlyIf(given[name]) {
			continue
		}
		if err := deny(q, rule+":"+name, t); err != nil {
			return err
		}
	}
	return nil
}

func deny(q *call, rule string, t policy.Target) error {
	if q.Allowed(rule, t) {
		return nil
	}
	return fault.New(fault.Forbidden, "rule:%s is disallowed by policy", rule).WithCode("PolicyNotAuthorized")
}

// visible removes the attributes that the caller may not see, and those that were not asked for.
func (res *resource) visible(q *call, docs []doc, fields []string) {
	var drop []string
	for i := range res.attrs {
		a := &res.attrs[i]
		if a.hidden && !q.Allowed("get_"+res.name+":"+a.name, q.Own()) {
			drop = append(drop, a.name)
		}
	}
	for _, d := range docs {
		for _, name := range drop {
			delete(d, name)
		}
		if len(fields) > 0 {
			maps.DeleteFunc(d, func(k string, _ any) bool { return !slices.Contains(fields, k) })
		}
	}
}

func (res *resource) notFound(id string) error {
	return fault.New(fault.NotFound, "%s %s could not be found.", res.kind, id).WithCode(res.kind + "NotFound")
}

// one reads one resource as the caller sees it.
func (res *resource) one(q *call, id string) (doc, error) {
	docs, err := res.list(q, local.Filter{Project: q.project, Match: map[string][]string{"id": {id}}})
	if err != nil {
		return nil, err
	}
	for _, d := range docs {
		if d["id"] == id {
			return d, nil
		}
	}
	return nil, res.notFound(id)
}
