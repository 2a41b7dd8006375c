package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"reflect"
	"strconv"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/network/local"
)

// decode reads a JSON object with its numbers as they were written.
func decode(r *httpapi.Request) (map[string]any, error) {
	var body map[string]any
	d := json.NewDecoder(bytes.NewReader(r.Body()))
	d.UseNumber()
	if err := d.Decode(&body); err != nil {
		return nil, badRequest("The request body is not a JSON object.")
	}
	return body, nil
}

// bodyOf gives the object under a resource's name.
func bodyOf(r *httpapi.Request, name string) (map[string]any, error) {
	body, err := decode(r)
	if err != nil {
		return nil, err
	}
	obj, ok := body[name].(map[string]any)
	if !ok {
		return nil, badRequest("Unable to find '%s' in request body", name)
	}
	return obj, nil
}

func (res *resource) handleList(r *httpapi.Request) (*httpapi.Reply, error) {
	q := newCall(r)
	if res.before != nil {
		if err := res.before(q); err != nil {
			return nil, err
		}
	}
	body, err := res.page(q)
	if err != nil {
		return nil, err
	}
	return httpapi.OK(body), nil
}

func (res *resource) handleShow(r *httpapi.Request) (*httpapi.Reply, error) {
	q := newCall(r)
	d, err := res.one(q, r.Path("id"))
	if err != nil {
		return nil, err
	}
	res.visible(q, []doc{d}, r.Query()["fields"])
	return httpapi.OK(map[string]any{res.name: d}), nil
}

// handleCreate makes one resource or, when the body has the plural, all of a list or none.
func (res *resource) handleCreate(r *httpapi.Request) (*httpapi.Reply, error) {
	q := newCall(r)
	body, err := decode(r)
	if err != nil {
		return nil, err
	}
	if list, ok := body[res.plural].([]any); ok {
		docs, err := res.createAll(q, list)
		if err != nil {
			return nil, err
		}
		return httpapi.Created(map[string]any{res.plural: docs}), nil
	}
	docs, err := res.createAll(q, []any{body[res.name]})
	if err != nil {
		return nil, err
	}
	return httpapi.Created(map[string]any{res.name: docs[0]}), nil
}

func (res *resource) createAll(q *call, list []any) ([]doc, error) {
	if len(list) == 0 {
		return nil, badRequest("Resources required")
	}
	inputs := make([]input, len(list))
	for i, item := range list {
		obj, ok := item.(map[string]any)
		if !ok {
			return nil, badRequest("Unable to find '%s' in request body", res.name)
		}
		if inner, ok := obj[res.name].(map[string]any); ok && len(obj) == 1 { // members of a bulk request may be wrapped
			obj = inner
		}
		in, err := res.prepare(q, obj)
		if err != nil {
			return nil, err
		}
		inputs[i] = in
	}
	var ids []string
	err := res.api.svc.Do(q.Context(), func(c *local.Change) error {
		ids = ids[:0]
		for _, in := range inputs {
			id, err := res.create(q, c, in)
			if err != nil {
				return err
			}
			ids = append(ids, id)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return res.fetch(q, ids)
}

// fetch reads resources that were just written, in order.
func (res *resource) fetch(q *call, ids []string) ([]doc, error) {
	docs, err := res.list(q, local.Filter{Match: map[string][]string{"id": ids}})
	if err != nil {
		return nil, err
	}
	at := map[string]doc{}
	for _, d := range docs {
		id, _ := d["id"].(string)
		at[id] = d
	}
	out := make([]doc, 0, len(ids))
	for _, id := range ids {
		if d := at[id]; d != nil {
			out = append(out, d)
		}
	}
	if len(out) != len(ids) {
		return nil, fault.New(fault.Conflict, "What was made has been removed again by another request.").WithCode("HTTPConflict")
	}
	res.visible(q, out, nil)
	return out, nil
}

// prepare verifies one new resource and asks policy about it.
func (res *resource) prepare(q *call, obj map[string]any) (input, error) {
	in, err := res.accept(obj, post)
	if err != nil {
		return nil, err
	}
	if in.str("project_id") == "" {
		in["project_id"] = q.Caller.ProjectID
	}
	if in.str("project_id") == "" {
		return nil, badRequest("The token has no project: name one as project_id.")
	}
	if err := res.authorize(q, "create", in, res.given(in, obj)); err != nil {
		return nil, err
	}
	if res.check != nil {
		return in, res.check(q, in, true)
	}
	return in, nil
}

// given keeps the attributes that the body had and that differ from the default: policy is not asked about what would be so anyway
// (clients send "shared": false of their own accord).
func (res *resource) given(in input, obj map[string]any) map[string]any {
	out := map[string]any{}
	for name, v := range in {
		if _, ok := obj[name]; !ok {
			continue
		}
		if a := res.attr(name); a == nil || a.def == nil || !reflect.DeepEqual(v, a.def) {
			out[name] = v
		}
	}
	return out
}

func (res *resource) handleUpdate(r *httpapi.Request) (*httpapi.Reply, error) {
	q := newCall(r)
	id := r.Path("id")
	obj, err := bodyOf(r, res.name)
	if err != nil {
		return nil, err
	}
	in, err := res.accept(obj, put)
	if err != nil {
		return nil, err
	}
	d, err := res.one(q, id)
	if err != nil {
		return nil, err
	}
	if reply := stale(r, d); reply != nil {
		return reply, nil
	}
	if err := res.authorize(q, "update", d, in); err != nil {
		return nil, err
	}
	if res.check != nil {
		if err := res.check(q, in, false); err != nil {
			return nil, err
		}
	}
	if err := res.api.svc.Do(q.Context(), func(c *local.Change) error { return res.update(q, c, id, in) }); err != nil {
		return nil, err
	}
	docs, err := res.fetch(q, []string{id})
	if err != nil {
		return nil, err
	}
	return httpapi.OK(map[string]any{res.name: docs[0]}), nil
}

// stale answers 412 when the request names another revision by If-Match: revision_number=N (extension revision-if-match).
func stale(r *httpapi.Request, d doc) *httpapi.Reply {
	want := r.HTTP.Header.Get("If-Match")
	n, _ := d["revision_number"].(int64)
	if want == "" || want == "revision_number="+strconv.FormatInt(n, 10) {
		return nil
	}
	return &httpapi.Reply{Status: http.StatusPreconditionFailed, Body: map[string]any{"NeutronError": map[string]any{
		"type": "RevisionNumberConstraintFailed", "message": "The current revision number is " + strconv.FormatInt(n, 10) + "; the request expects another one.", "detail": ""}}}
}

func (res *resource) handleDelete(r *httpapi.Request) (*httpapi.Reply, error) {
	q := newCall(r)
	id := r.Path("id")
	d, err := res.one(q, id)
	if err != nil {
		return nil, err
	}
	if reply := stale(r, d); reply != nil {
		return reply, nil
	}
	if err := res.authorize(q, "delete", d, nil); err != nil {
		return nil, err
	}
	if err := res.api.svc.Do(q.Context(), func(c *local.Change) error { return res.remove(q, c, id) }); err != nil {
		return nil, err
	}
	return &httpapi.Reply{Status: http.StatusNoContent}, nil
}
