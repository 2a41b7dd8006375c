package api

import (
	"kilonova/internal/clock"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/image/local"
	"kilonova/internal/policy"
)

func memberView(m local.Member) map[string]any {
	return map[string]any{"image_id": m.ImageID, "member_id": m.Member, "status": m.Status, "created_at": m.Created.Format(clock.LayoutZ),
		"updated_at": m.Updated.Format(clock.LayoutZ), "schema": "/v2/schemas/member"}
}

// manages tells whether the caller decides about the members of an image.
func manages(r *httpapi.Request, rec *local.Record) bool {
	return r.Caller.IsAdmin() || local.Owns(r.Caller, rec)
}

func (a *api) listMembers(r *httpapi.Request) (*httpapi.Reply, error) {
	rec, err := a.lookup(r, "get_members")
	if err != nil {
		return nil, err
	}
	all, err := a.s.Members(r.Context(), rec.ID)
	if err != nil {
		return nil, err
	}
	list := []any{}
	for _, m := range all {
		if manages(r, rec) || m.Member == r.Caller.ProjectID {
			list = append(list, memberView(m))
		}
	}
	return httpapi.OK(map[string]any{"members": list, "schema": "/v2/schemas/members"}), nil
}

func (a *api) addMember(r *httpapi.Request) (*httpapi.Reply, error) {
	rec, err := a.lookup(r, "add_member")
	if err != nil {
		return nil, err
	}
	var body struct {
		Member any `json:"member"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	name, ok := body.Member.(string)
	if !ok {
		return nil, fault.New(fault.Invalid, "Expected a member in the form: {\"member\": \"project_id\"}")
	}
	m, err := a.s.AddMember(r.Context(), r.Caller, rec.ID, name)
	if err != nil {
		return nil, err
	}
	return httpapi.OK(memberView(*m)), nil
}

// member finds image and member of the path. Only those who manage the image see other members than themselves.
func (a *api) member(r *httpapi.Request, rules ...string) (*local.Record, *local.Member, error) {
	rec, err := a.lookup(r)
	if err != nil {
		return nil, nil, err
	}
	name := r.Path("member")
	if !manages(r, rec) && name != r.Caller.ProjectID {
		return nil, nil, fault.New(fault.NotFound, "%.100s not found in the member list of the image %s.", name, rec.ID)
	}
	m, err := a.s.Member(r.Context(), rec.ID, name)
	if err != nil {
		return nil, nil, err
	}
	t := policy.Target{"project_id": rec.Owner, "owner": rec.Owner, "member_id": m.Member, "visibility": rec.Visibility, "image_id": rec.ID}
	for _, rule := range rules {
		if err := authorize(r, rule, t); err != nil {
			return nil, nil, err
		}
	}
	return rec, m, nil
}

func (a *api) showMember(r *httpapi.Request) (*httpapi.Reply, error) {
	_, m, err := a.member(r, "get_member")
	if err != nil {
		return nil, err
	}
	return httpapi.OK(memberView(*m)), nil
}

func (a *api) setMember(r *httpapi.Request) (*httpapi.Reply, error) {
	var body struct {
		Status any `json:"status"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	status, ok := body.Status.(string)
	if !ok {
		return nil, fault.New(fault.Invalid, "Expected a status in the form: {\"status\": \"status\"}")
	}
	rec, m, err := a.member(r, "modify_member")
	if err != nil {
		return nil, err
	}
	if m, err = a.s.SetMember(r.Context(), r.Caller, rec.ID, m.Member, status); err != nil {
		return nil, err
	}
	return httpapi.OK(memberView(*m)), nil
}

func (a *api) removeMember(r *httpapi.Request) (*httpapi.Reply, error) {
	rec, m, err := a.member(r, "delete_member")
	if err != nil {
		return nil, err
	}
	return noContent(a.s.RemoveMember(r.Context(), r.Caller, rec.ID, m.Member))
}
