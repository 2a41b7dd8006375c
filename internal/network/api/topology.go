package api

import (
	"slices"

	"kilonova/internal/httpapi"
)

// showTopology is GET /auto-allocated-topology/{project}: the project's network with subnets from the default pools, joined by a router
// to the default external network. It is made at the first request. ?fields=dry-run only tells whether it could be made.
func (a *API) showTopology(r *httpapi.Request) (*httpapi.Reply, error) {
	project, err := topologyProject(newCall(r))
	if err != nil {
		return nil, err
	}
	var id string
	if slices.Contains(r.Query()["fields"], "dry-run") {
		id, err = "dry-run=pass", a.svc.TopologyPossible(r.Context())
	} else {
		id, err = a.svc.Topology(r.Context(), project)
	}
	if err != nil {
		return nil, err
	}
	return httpapi.OK(map[string]any{"auto_allocated_topology": map[string]any{"id": id, "tenant_id": project, "project_id": project}}), nil
}

func topologyProject(q *call) (string, error) {
	project := q.Request.Path("project")
	if project == "null" || project == "None" {
		project = q.Caller.ProjectID
	}
	t := q.Own()
	t["project_id"], t["tenant_id"] = project, project
	return project, deny(q, "get_auto_allocated_topology", t)
}

// deleteTopology is DELETE /auto-allocated-topology/{project}; it fails while ports are on the network.
func (a *API) deleteTopology(r *httpapi.Request) (*httpapi.Reply, error) {
	project, err := topologyProject(newCall(r))
	if err != nil {
		return nil, err
	}
	if err := a.svc.DeleteTopology(r.Context(), project); err != nil {
		return nil, err
	}
	return httpapi.NoContent(), nil
}
