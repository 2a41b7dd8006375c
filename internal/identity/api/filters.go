package api

import (
	"context"

	"kilonova/internal/httpapi"
	"kilonova/internal/policy"
)

// picked makes the PUT, DELETE and HEAD handlers of OS-EP-FILTER.
func picked(do func(ctx context.Context, project, object string) error) func(*httpapi.Request) (*httpapi.Reply, error) {
	return func(r *httpapi.Request) (*httpapi.Reply, error) {
		if err := authorize(r, "identity:endpoint_filter", policy.Target{}); err != nil {
			return nil, err
		}
		if err := do(r.Context(), r.Path("project"), r.Path("object")); err != nil {
			return nil, err
		}
		return httpapi.NoContent(), nil
	}
}

// showPickedGroup answers GET of an endpoint group of a project.
func (a *api) showPickedGroup(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := authorize(r, "identity:endpoint_filter", policy.Target{}); err != nil {
		return nil, err
	}
	if err := a.s.Picked(r.Context(), r.Path("project"), r.Path("object")); err != nil {
		return nil, err
	}
	g, err := a.s.EndpointGroups.Get(r.Context(), r.Path("object"))
	if err != nil {
		return nil, err
	}
	return httpapi.OK(document{"endpoint_group": a.endpointGroups.view(r, g)}), nil
}

// projectEndpoints answers GET of the endpoints picked for a project; projectGroups of the endpoint groups.
func (a *api) projectEndpoints(r *httpapi.Request) (*httpapi.Reply, error) {
	ids, err := a.picksOf(r, false)
	if err != nil {
		return nil, err
	}
	list, err := a.s.Endpoints.Many(r.Context(), ids)
	if err != nil {
		return nil, err
	}
	return httpapi.OK(a.endpoints.listing(r, list)), nil
}

func (a *api) projectGroups(r *httpapi.Request) (*httpapi.Reply, error) {
	ids, err := a.picksOf(r, true)
	if err != nil {
		return nil, err
	}
	list, err := a.s.EndpointGroups.Many(r.Context(), ids)
	if err != nil {
		return nil, err
	}
	return httpapi.OK(a.endpointGroups.listing(r, list)), nil
}

func (a *api) picksOf(r *httpapi.Request, groups bool) ([]string, error) {
	if err := authorize(r, "identity:endpoint_filter", policy.Target{}); err != nil {
		return nil, err
	}
	if _, err := a.s.Projects.Get(r.Context(), r.Path("project")); err != nil {
		return nil, err
	}
	return a.s.PicksOf(r.Context(), r.Path("project"), groups)
}

// pickedBy answers GET of the projects for which an endpoint or endpoint group was picked.
func (a *api) pickedBy(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := authorize(r, "identity:endpoint_filter", policy.Target{}); err != nil {
		return nil, err
	}
	ids, err := a.s.PickedBy(r.Context(), r.Path("object"))
	if err != nil {
		return nil, err
	}
	list, err := a.s.Projects.Many(r.Context(), ids)
	if err != nil {
		return nil, err
	}
	return httpapi.OK(a.projects.listing(r, list)), nil
}

// groupEndpoints answers GET of the endpoints that an endpoint group picks.
func (a *api) groupEndpoints(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := authorize(r, "identity:endpoint_filter", policy.Target{}); err != nil {
		return nil, err
	}
	list, err := a.s.GroupEndpoints(r.Context(), r.Path("object"))
	if err != nil {
		return nil, err
	}
	return httpapi.OK(a.endpoints.listing(r, list)), nil
}
