// Package api is the network service's REST API: Neutron's v2.0 with the extensions that GET /v2.0/extensions lists, which are
// those that work.
//
// Each resource is a table of attributes (who may set and see them, which values they take, what they are when not given) and
// four functions. From it come validation, policy, filters, sorting, paging and field selection. What another project owns and
// does not share is not found; what a caller may see but not change is forbidden.
package api

import (
	"net/http"

	"kilonova/internal/auth"
	"kilonova/internal/httpapi"
	"kilonova/internal/network/local"
	"kilonova/internal/policy"
)

// Config is what the API stands on.
type Config struct {
	Service *local.Service
	Auth    auth.Authenticator
	Policy  policy.Checker // made of Rules and the operator's own
	// Zones names the availability zones that agents have besides the ones seen; "nova" when empty.
	Zones []string
}

// API answers the requests.
type API struct {
	svc       *local.Service
	zones     []string
	resources []*resource
}

// New gives the service's routes, for httpapi.
func New(cfg Config) *httpapi.Service {
	a := &API{svc: cfg.Service, zones: cfg.Zones}
	if len(a.zones) == 0 {
		a.zones = []string{"nova"}
	}
	a.resources = []*resource{networks(a), subnets(a), ports(a), groups(a), rules(a), routers(a), floatingIPs(a), subnetPools(a),
		addressScopes(a), rbacPolicies(a), agents(a), parts(a)}
	return &httpapi.Service{Name: "network", Auth: cfg.Auth, Policy: cfg.Policy, WriteError: httpapi.NetworkErrors, Routes: a.routes(), JSONSuffix: true}
}

func (a *API) routes() []httpapi.Route {
	const v = "/v2.0"
	routes := []httpapi.Route{
		{Method: http.MethodGet, Path: "/", Public: true, Handle: a.versions},
		{Method: http.MethodGet, Path: v, Handle: a.version},
		{Method: http.MethodGet, Path: v + "/extensions", Handle: a.extensions},
		{Method: http.MethodGet, Path: v + "/extensions/{alias}", Handle: a.extension},
		{Method: http.MethodGet, Path: v + "/quotas", Handle: a.listQuotas},
		{Method: http.MethodGet, Path: v + "/quotas/{project}", Handle: a.showQuota},
		{Method: http.MethodPut, Path: v + "/quotas/{project}", Handle: a.setQuota},
		{Method: http.MethodDelete, Path: v + "/quotas/{project}", Handle: a.resetQuota},
		{Method: http.MethodGet, Path: v + "/quotas/{project}/default", Handle: a.defaultQuota},
		{Method: http.MethodGet, Path: v + "/quotas/{project}/default.json", Handle: a.defaultQuota},
		{Method: http.MethodGet, Path: v + "/quotas/{project}/details", Handle: a.quotaDetails},
		{Method: http.MethodGet, Path: v + "/quotas/{project}/details.json", Handle: a.quotaDetails},
		{Method: http.MethodGet, Path: v + "/availability_zones", Handle: a.listZones},
		{Method: http.MethodGet, Path: v + "/service-providers", Handle: a.listProviders},
		{Method: http.MethodGet, Path: v + "/network-ip-availabilities", Handle: a.listAvailabilities},
		{Method: http.MethodGet, Path: v + "/network-ip-availabilities/{id}", Handle: a.showAvailability},
		{Method: http.MethodGet, Path: v + "/auto-allocated-topology/{project}", Handle: a.showTopology},
		{Method: http.MethodDelete, Path: v + "/auto-allocated-topology/{project}", Handle: a.deleteTopology},
		{Method: http.MethodPut, Path: v + "/routers/{id}/add_router_interface", Handle: a.addInterface},
		{Method: http.MethodPut, Path: v + "/routers/{id}/remove_router_interface", Handle: a.removeInterface},
		{Method: http.MethodPut, Path: v + "/routers/{id}/add_extraroutes", Handle: a.addRoutes},
		{Method: http.MethodPut, Path: v + "/routers/{id}/remove_extraroutes", Handle: a.removeRoutes},
		{Method: http.MethodPut, Path: v + "/subnetpools/{id}/add_prefixes", Handle: a.addPrefixes},
		{Method: http.MethodPut, Path: v + "/subnetpools/{id}/remove_prefixes", Handle: a.removePrefixes},
		{Method: http.MethodGet, Path: v + "/ports/{id}/bindings", Handle: a.listBindings},
		{Method: http.MethodPost, Path: v + "/ports/{id}/bindings", Handle: a.createBinding},
		{Method: http.MethodDelete, Path: v + "/ports/{id}/bindings/{host}", Handle: a.deleteBinding},
		{Method: http.MethodPut, Path: v + "/ports/{id}/bindings/{host}/activate", Handle: a.activateBinding},
	}
	for _, res := range a.resources {
		root := v + "/" + res.path
		routes = append(routes, httpapi.Route{Method: http.MethodGet, Path: root, Handle: res.handleList},
			httpapi.Route{Method: http.MethodGet, Path: root + "/{id}", Handle: res.handleShow})
		if res.create != nil {
			routes = append(routes, httpapi.Route{Method: http.MethodPost, Path: root, Handle: res.handleCreate})
		}
		if res.update != nil {
			routes = append(routes, httpapi.Route{Method: http.MethodPut, Path: root + "/{id}", Handle: res.handleUpdate})
		}
		if res.remove != nil {
			routes = append(routes, httpapi.Route{Method: http.MethodDelete, Path: root + "/{id}", Handle: res.handleDelete})
		}
		if res.retag != nil {
			routes = append(routes, tagRoutes(res, root)...)
		}
	}
	return routes
}
