package api

import (
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/id"
	"kilonova/internal/identity"
)

// putRegion answers PUT /v3/regions/{id}: a region whose id the client chose.
func (a *api) putRegion(r *httpapi.Request) (*httpapi.Reply, error) {
	b := body{}
	if len(r.Body()) > 0 {
		var err error
		if b, err = inner(r, "region"); err != nil {
			return nil, err
		}
	}
	if raw := b["id"]; raw != nil && string(raw) != `"`+r.Path("id")+`"` {
		return nil, fault.New(fault.Invalid, "The id in the body differs from the one in the path.")
	}
	x := identity.Region{}
	if err := a.regions.assign(&x, b, true); err != nil {
		return nil, err
	}
	x.ID = r.Path("id")
	if err := a.regions.authorize(r, "create", &x); err != nil {
		return nil, err
	}
	if err := a.s.Regions.Create(r.Context(), &x); err != nil {
		return nil, err
	}
	return httpapi.Created(document{"region": a.regions.view(r, &x)}), nil
}

// updateEndpoint answers PATCH /v3/endpoints/{id}; like on create, an old-style region is made when it is not there.
func (a *api) updateEndpoint(r *httpapi.Request) (*httpapi.Reply, error) {
	b, err := inner(r, "endpoint")
	if err != nil {
		return nil, err
	}
	region, err := oldRegion(b)
	if err != nil {
		return nil, err
	}
	if region != "" && r.Allowed("identity:create_region", nil) {
		if err := a.makeRegion(r, region); err != nil {
			return nil, err
		}
	}
	return a.endpoints.handleUpdate(r)
}

// createConsumer answers POST /v3/OS-OAUTH1/consumers.
func (a *api) createConsumer(r *httpapi.Request) (*httpapi.Reply, error) {
	b, err := inner(r, "consumer")
	if err != nil {
		return nil, err
	}
	c := identity.Consumer{ID: id.Hex(), Secret: id.Secret(32)}
	if err := a.consumers.assign(&c, b, true); err != nil {
		return nil, err
	}
	if err := a.consumers.authorize(r, "create", &c); err != nil {
		return nil, err
	}
	if err := a.s.Consumers.Create(r.Context(), &c); err != nil {
		return nil, err
	}
	d := a.consumers.view(r, &c)
	d["secret"] = c.Secret
	return httpapi.Created(document{"consumer": d}), nil
}
