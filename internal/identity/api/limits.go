package api

import (
	"encoding/json"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/id"
	"kilonova/internal/identity/local"
	"kilonova/internal/policy"
)

// limitModel answers GET /v3/limits/model: limits of projects are independent of each other.
func limitModel(r *httpapi.Request) (*httpapi.Reply, error) {
	return httpapi.OK(document{"model": document{"name": "flat", "description": "Each project is held to its own limits, wherever it stands in the tree."},
		"links": listLinks(r)}), nil
}

// createMany makes the POST handler of a noun whose requests hold a list: all of it is made, or what fails ends it and undoes the rest.
func createMany[T any, P local.Noun[T]](x *resource[T, P]) func(*httpapi.Request) (*httpapi.Reply, error) {
	return func(r *httpapi.Request) (*httpapi.Reply, error) {
		var outer map[string][]body
		if err := json.Unmarshal(r.Body(), &outer); err != nil {
			return nil, fault.Wrap(err, fault.Invalid, "The request body has no list %s.", x.many)
		}
		if err := authorize(r, "identity:create_"+x.one, policy.Target{}); err != nil {
			return nil, err
		}
		var made []T
		for _, b := range outer[x.many] {
			t := new(T)
			*P(t).Fields()[0].Ptr.(*string) = id.Hex()
			if err := x.assign(t, b, true); err != nil {
				return nil, err
			}
			made = append(made, *t)
		}
		if err := x.coll.CreateAll(r.Context(), made); err != nil {
			return nil, err
		}
		return httpapi.Created(x.listing(r, made)), nil
	}
}

func (a *api) createLimits(r *httpapi.Request) (*httpapi.Reply, error) {
	var outer map[string][]identityLimit
	if err := json.Unmarshal(r.Body(), &outer); err == nil {
		for _, l := range outer["limits"] {
			if (l.ProjectID == "") == (l.DomainID == "") {
				return nil, fault.New(fault.Invalid, "A limit is for one project or one domain: give exactly one of project_id and domain_id.")
			}
		}
	}
	return createMany(a.limits)(r)
}

type identityLimit struct {
	ProjectID string `json:"project_id"`
	DomainID  string `json:"domain_id"`
}
