package api

import (
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/identity"
	"kilonova/internal/identity/local"
	"kilonova/internal/policy"
)

// roleRef is a role as inference rules name it.
func (a *api) roleRef(r *httpapi.Request, x *identity.Role) document {
	return document{"id": x.ID, "name": x.Name, "links": document{"self": r.Base + "/v3/roles/" + x.ID}}
}

func (a *api) inference(r *httpapi.Request, inf local.Inference) document {
	implies := []document{}
	for i := range inf.Implies {
		implies = append(implies, a.roleRef(r, &inf.Implies[i]))
	}
	return document{"prior_role": a.roleRef(r, &inf.Prior), "implies": implies}
}

// listInferences answers GET /v3/role_inferences.
func (a *api) listInferences(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := authorize(r, "identity:list_role_inference_rules", policy.Target{}); err != nil {
		return nil, err
	}
	list, err := a.s.Inferences(r.Context(), "")
	if err != nil {
		return nil, err
	}
	docs := make([]document, len(list))
	for i := range list {
		docs[i] = a.inference(r, list[i])
	}
	return httpapi.OK(document{"role_inferences": docs, "links": listLinks(r)}), nil
}

// listImplied answers GET /v3/roles/{id}/implies.
func (a *api) listImplied(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := authorize(r, "identity:list_implied_roles", policy.Target{}); err != nil {
		return nil, err
	}
	list, err := a.s.Inferences(r.Context(), r.Path("id"))
	if err != nil {
		return nil, err
	}
	return httpapi.OK(document{"role_inference": a.inference(r, list[0]), "links": listLinks(r)}), nil
}

// implied gives the document of one inference rule.
func (a *api) implied(r *httpapi.Request) (document, error) {
	if err := authorize(r, "identity:get_implied_role", policy.Target{}); err != nil {
		return nil, err
	}
	list, err := a.s.Inferences(r.Context(), r.Path("id"))
	if err != nil {
		return nil, err
	}
	for i := range list[0].Implies {
		if x := &list[0].Implies[i]; x.ID == r.Path("implied") {
			return document{"role_inference": document{"prior_role": a.roleRef(r, &list[0].Prior), "implies": a.roleRef(r, x)}, "links": listLinks(r)}, nil
		}
	}
	return nil, fault.New(fault.NotFound, "%s does not imply %s", r.Path("id"), r.Path("implied"))
}

func (a *api) showImplied(r *httpapi.Request) (*httpapi.Reply, error) {
	d, err := a.implied(r)
	if err != nil {
		return nil, err
	}
	return httpapi.OK(d), nil
}

func (a *api) checkImplied(r *httpapi.Request) (*httpapi.Reply, error) {
	if _, err := a.implied(r); err != nil {
		return nil, err
	}
	return httpapi.NoContent(), nil
}

func (a *api) createImplied(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := authorize(r, "identity:create_implied_role", policy.Target{}); err != nil {
		return nil, err
	}
	if err := a.s.Imply(r.Context(), r.Path("id"), r.Path("implied")); err != nil {
		return nil, err
	}
	d, err := a.implied(r)
	if err != nil {
		return nil, err
	}
	return httpapi.Created(d), nil
}

func (a *api) deleteImplied(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := authorize(r, "identity:delete_implied_role", policy.Target{}); err != nil {
		return nil, err
	}
	if err := a.s.Unimply(r.Context(), r.Path("id"), r.Path("implied")); err != nil {
		return nil, err
	}
	return httpapi.NoContent(), nil
}
