package api

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/id"
	"kilonova/internal/identity"
	"kilonova/internal/identity/local"
	"kilonova/internal/policy"
)

// document is a JSON object.
type document = map[string]any

// body is the inner object of a request: {"user": {…}}.
type body map[string]json.RawMessage

// resource is the REST face of one noun: list, show, create, update and delete.
type resource[T any, P local.Noun[T]] struct {
	one, many string // "user", "users": keys of documents and ends of policy names
	path      string // "/v3/users"
	coll      *local.Collection[T, P]

	fixed   []local.Filter                                       // filters that every list has
	belongs func(*T) bool                                        // false: this row is not one of the resource's
	own     bool                                                 // clients may choose the id
	secret  []string                                             // keys of bodies that are never kept as attributes
	create  func(r *httpapi.Request, t *T, b body) error         // before a row is made: defaults and checks
	change  func(r *httpapi.Request, t *T, b body) error         // before a row is changed, after b was put in; may run again
	finish  func(r *httpapi.Request, t *T, d document)           // after a document was made
	sieve   func(r *httpapi.Request, list []T) ([]T, error)      // after a list was read
	extra   func(r *httpapi.Request, t *T, target policy.Target) // more of the policy target
}

// get gives the row that the path names.
func (x *resource[T, P]) get(r *httpapi.Request, key string) (*T, error) {
	t, err := x.coll.Get(r.Context(), key)
	if err == nil && x.belongs != nil && !x.belongs(t) {
		return nil, fault.New(fault.NotFound, "Could not find %s: %s.", x.one, key)
	}
	return t, err
}

// policyTarget holds the text attributes of a row as target.<noun>.<attribute>.
func (x *resource[T, P]) policyTarget(r *httpapi.Request, t *T) policy.Target {
	out := policy.Target{}
	for _, f := range P(t).Fields() {
		if p, ok := f.Ptr.(*string); ok && !f.Has(identity.Private) && *p != "" {
			out["target."+x.one+"."+f.Name] = *p
		}
	}
	if x.extra != nil {
		x.extra(r, t, out)
	}
	return out
}

func (x *resource[T, P]) authorize(r *httpapi.Request, verb string, t *T) error {
	return authorize(r, "identity:"+verb+"_"+strings.ReplaceAll(x.one, " ", "_"), x.policyTarget(r, t))
}

// authorize is Request.Authorize in the words that identity clients know.
func authorize(r *httpapi.Request, rule string, t policy.Target) error {
	if r.Allowed(rule, t) {
		return nil
	}
	return fault.New(fault.Forbidden, "You are not authorized to perform the requested action: %s.", rule)
}

// view is the document of a row.
func (x *resource[T, P]) view(r *httpapi.Request, t *T) document {
	fields := P(t).Fields()
	d := make(document, len(fields)+2)
	var extra identity.Attrs
	for _, f := range fields {
		if f.Name == "extra" {
			extra = *f.Ptr.(*identity.Attrs)
		}
		if f.Has(identity.Private) {
			continue
		}
		v, empty := shown(f)
		if empty && f.Has(identity.Omit) {
			continue
		}
		d[f.Name] = v
	}
	for k, v := range extra {
		if _, taken := d[k]; !taken {
			d[k] = v
		}
	}
	d["links"] = document{"self": r.Base + x.path + "/" + *fields[0].Ptr.(*string)}
	if x.finish != nil {
		x.finish(r, t, d)
	}
	return d
}

// shown gives a field's value as documents have it, and whether it is empty.
func shown(f identity.Field) (any, bool) {
	switch p := f.Ptr.(type) {
	case *string:
		if *p == "" && f.Has(identity.Nullable) {
			return nil, true
		}
		return *p, *p == ""
	case *bool:
		return *p, false
	case *int64:
		return *p, false
	case *time.Time:
		if p.IsZero() {
			return nil, true
		}
		return p.Format(layout(f)), false
	case *[]string:
		if *p == nil {
			return []string{}, true
		}
		return *p, false
	case *identity.Attrs:
		if *p == nil {
			return document{}, true
		}
		return *p, false
	}
	return f.Ptr, false
}

func layout(f identity.Field) string {
	if f.Has(identity.Micros) {
		return clock.LayoutMicro
	}
	return clock.LayoutMicroZ
}

// assign puts a body into a row. Attributes that the noun does not have are kept as they are where the noun keeps such.
func (x *resource[T, P]) assign(t *T, b body, creating bool) error {
	fields := P(t).Fields()
	var extra *identity.Attrs
	byName := make(map[string]identity.Field, len(fields))
	for _, f := range fields {
		if f.Name == "extra" {
			extra = f.Ptr.(*identity.Attrs)
		}
		byName[f.Name] = f
	}
	for k, raw := range b {
		f, known := byName[k]
		switch {
		case slices.Contains(x.secret, k), k == "links", k == "extra":
		case known && (f.Has(identity.Private) || f.Has(identity.Managed)):
		case known:
			if err := x.put(f, raw, creating); err != nil {
				return err
			}
		case extra == nil:
		case string(raw) == "null" && !creating:
			delete(*extra, k)
		default:
			var v any
			if err := json.Unmarshal(raw, &v); err != nil {
				return fault.Wrap(err, fault.Invalid, "Invalid input for field '%s'.", k)
			}
			if *extra == nil {
				*extra = identity.Attrs{}
			}
			(*extra)[k] = v
		}
	}
	return nil
}

// put sets one field. The id is left alone unless clients may choose it; a fixed field may be given again but not changed.
func (x *resource[T, P]) put(f identity.Field, raw json.RawMessage, creating bool) error {
	if f.Name == "id" && creating && !x.own {
		return nil
	}
	if p, ok := f.Ptr.(*string); ok && !creating && f.Has(identity.Fixed) {
		var v *string
		if err := json.Unmarshal(raw, &v); err != nil || v == nil && *p != "" || v != nil && *v != *p {
			return fault.New(fault.Invalid, "The attribute %s of a %s cannot be changed.", f.Name, x.one)
		}
		return nil
	}
	if p, ok := f.Ptr.(*bool); ok && !creating && f.Has(identity.Fixed) {
		if strconv.FormatBool(*p) != string(raw) {
			return fault.New(fault.Invalid, "The attribute %s of a %s cannot be changed.", f.Name, x.one)
		}
		return nil
	}
	if err := set(f.Ptr, raw); err != nil {
		return fault.Wrap(err, fault.Invalid, "Invalid input for field '%s': %s is not of the right type.", f.Name, clip(raw))
	}
	return nil
}

func clip(raw json.RawMessage) string {
	if len(raw) > 64 {
		return string(raw[:64]) + "…"
	}
	return string(raw)
}

// set decodes a JSON value; null is the zero value. Maps of options are merged: an option that is null goes.
func set(ptr any, raw json.RawMessage) error {
	null := string(raw) == "null"
	switch p := ptr.(type) {
	case *string:
		if null {
			*p = ""
			return nil
		}
	case *time.Time:
		*p = time.Time{}
		var text string
		if null {
			return nil
		}
		if err := json.Unmarshal(raw, &text); err != nil {
			return err
		}
		at, err := httpapi.ParseTime(text)
		*p = at.UTC().Truncate(time.Microsecond)
		return err
	case *identity.Attrs:
		var in identity.Attrs
		if err := json.Unmarshal(raw, &in); err != nil {
			return err
		}
		merged := maps.Clone(*p)
		if merged == nil {
			merged = identity.Attrs{}
		}
		maps.Copy(merged, in)
		maps.DeleteFunc(merged, func(_ string, v any) bool { return v == nil })
		*p = merged
		return nil
	}
	return json.Unmarshal(raw, ptr)
}

// inner gives the object under the noun's key.
func inner(r *httpapi.Request, key string) (body, error) {
	var outer map[string]body
	if err := json.Unmarshal(r.Body(), &outer); err != nil || outer[key] == nil {
		return nil, fault.Wrap(err, fault.Invalid, "The request body has no object %s.", key)
	}
	return outer[key], nil
}

// handleShow answers GET of one.
func (x *resource[T, P]) handleShow(r *httpapi.Request) (*httpapi.Reply, error) {
	t, err := x.get(r, r.Path("id"))
	if err != nil {
		return nil, x.hide(r, "get", err)
	}
	if err := x.authorize(r, "get", t); err != nil {
		return nil, err
	}
	return httpapi.OK(document{x.one: x.view(r, t)}), nil
}

// hide turns "not found" into "forbidden" for callers who may not see the noun at all, so that ids cannot be tried out.
func (x *resource[T, P]) hide(r *httpapi.Request, verb string, err error) error {
	if errors.Is(err, fault.NotFound) {
		if e := authorize(r, "identity:"+verb+"_"+strings.ReplaceAll(x.one, " ", "_"), policy.Target{}); e != nil {
			return e
		}
	}
	return err
}

// handleCreate answers POST.
func (x *resource[T, P]) handleCreate(r *httpapi.Request) (*httpapi.Reply, error) {
	b, err := inner(r, x.one)
	if err != nil {
		return nil, err
	}
	t := new(T)
	if f := P(t).Fields()[0]; !x.own || b["id"] == nil || string(b["id"]) == `""` {
		*f.Ptr.(*string) = id.Hex()
		delete(b, "id")
	}
	for _, f := range P(t).Fields() {
		if p, ok := f.Ptr.(*bool); ok && f.Name == "enabled" {
			*p = true
		}
	}
	if err := x.assign(t, b, true); err != nil {
		return nil, err
	}
	if x.create != nil {
		if err := x.create(r, t, b); err != nil {
			if e := x.authorize(r, "create", t); e != nil { // who may not create does not learn what else is wrong
				return nil, e
			}
			return nil, err
		}
	}
	if err := x.authorize(r, "create", t); err != nil {
		return nil, err
	}
	if err := x.coll.Create(r.Context(), t); err != nil {
		return nil, err
	}
	return httpapi.Created(document{x.one: x.view(r, t)}), nil
}

// handleUpdate answers PATCH.
func (x *resource[T, P]) handleUpdate(r *httpapi.Request) (*httpapi.Reply, error) {
	b, err := inner(r, x.one)
	if err != nil {
		return nil, err
	}
	old, err := x.get(r, r.Path("id"))
	if err != nil {
		return nil, x.hide(r, "update", err)
	}
	if err := x.authorize(r, "update", old); err != nil {
		return nil, err
	}
	t, err := x.coll.Update(r.Context(), r.Path("id"), func(t *T) error {
		if err := x.assign(t, b, false); err != nil || x.change == nil {
			return err
		}
		return x.change(r, t, b)
	})
	if err != nil {
		return nil, err
	}
	return httpapi.OK(document{x.one: x.view(r, t)}), nil
}

// handleDelete answers DELETE.
func (x *resource[T, P]) handleDelete(r *httpapi.Request) (*httpapi.Reply, error) {
	t, err := x.get(r, r.Path("id"))
	if err != nil {
		return nil, x.hide(r, "delete", err)
	}
	if err := x.authorize(r, "delete", t); err != nil {
		return nil, err
	}
	if err := x.coll.Delete(r.Context(), r.Path("id")); err != nil {
		return nil, err
	}
	return httpapi.NoContent(), nil
}

// handleList answers GET of all. Who may only see one domain gets what is in it.
func (x *resource[T, P]) handleList(r *httpapi.Request) (*httpapi.Reply, error) {
	filters := append(x.filters(r), x.fixed...)
	rule := "identity:list_" + strings.ReplaceAll(x.many, " ", "_")
	target := policy.Target{}
	for _, f := range filters {
		if f.Op == "" {
			target["target."+x.one+"."+f.Field] = f.Value
		}
	}
	if !r.Allowed(rule, target) {
		limit := local.Filter{Field: "domain_id", Value: r.Caller.DomainID}
		if r.Caller.DomainID == "" || !r.Allowed(rule, policy.Target{"target.domain_id": limit.Value}) {
			return nil, authorize(r, rule, target)
		}
		filters = append(filters, limit)
	}
	list, err := x.coll.List(r.Context(), filters...)
	if err != nil {
		return nil, err
	}
	if x.sieve != nil {
		if list, err = x.sieve(r, list); err != nil {
			return nil, err
		}
	}
	return httpapi.OK(x.listing(r, list)), nil
}

// listing wraps rows as lists are wrapped. A limit in the query cuts it and says so.
func (x *resource[T, P]) listing(r *httpapi.Request, list []T) document {
	out := document{"links": listLinks(r)}
	if n, err := strconv.Atoi(r.Query().Get("limit")); err == nil && n > 0 && n < len(list) {
		list, out["truncated"] = list[:n], true
	}
	docs := make([]document, len(list))
	for i := range list {
		docs[i] = x.view(r, &list[i])
	}
	out[x.many] = docs
	return out
}

func listLinks(r *httpapi.Request) document {
	self := r.Base + r.HTTP.URL.Path
	if q := r.HTTP.URL.RawQuery; q != "" {
		self += "?" + q
	}
	return document{"self": self, "next": nil, "previous": nil}
}

// operators are the endings of filter names: name__contains, name__icontains, …
var operators = []string{"contains", "startswith", "endswith", "equals"}

// filters reads the query. What names no visible attribute is ignored.
func (x *resource[T, P]) filters(r *httpapi.Request) []local.Filter {
	var out []local.Filter
	fields := P(new(T)).Fields()
	for key, values := range r.Query() {
		name, op, hasOp := strings.Cut(key, "__")
		if !slices.ContainsFunc(fields, func(f identity.Field) bool { return f.Name == name && !f.Has(identity.Private) }) {
			continue
		}
		f := local.Filter{Field: name, Op: op, Value: values[len(values)-1]}
		if hasOp && !slices.Contains(operators, op) {
			f.Op, f.Fold = strings.CutPrefix(op, "i")
			if !f.Fold || !slices.Contains(operators, f.Op) {
				continue
			}
		}
		out = append(out, f)
	}
	return out
}

// flag tells whether a query parameter is set: present and neither 0 nor false.
func flag(r *httpapi.Request, name string) bool {
	v, ok := r.Query()[name]
	return ok && v[len(v)-1] != "0" && !strings.EqualFold(v[len(v)-1], "false")
}
