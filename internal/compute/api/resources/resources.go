// Package resources holds the handlers of the compute API that are about what projects and users have besides servers: flavors with their extra specs
// and access lists, and key pairs. One file per noun.
package resources

import (
	"maps"

	"kilonova/internal/compute/api/backend"
	"kilonova/internal/httpapi"
)

// api is the handlers' receiver.
type api struct{ *backend.Backend }

// Handlers gives the handlers by their key in the route table.
func Handlers(b *backend.Backend) map[string]backend.Handler {
	a := api{b}
	h := map[string]backend.Handler{
		"GET /flavors":                                    a.listFlavors,
		"GET /flavors/detail":                             a.detailFlavors,
		"GET /flavors/{id}":                               a.showFlavor,
		"POST /flavors":                                   a.createFlavor,
		"PUT /flavors/{id}":                               a.updateFlavor,
		"DELETE /flavors/{id}":                            a.deleteFlavor,
		"POST /flavors/{id}/action addTenantAccess":       a.addAccess,
		"POST /flavors/{id}/action removeTenantAccess":    a.removeAccess,
		"GET /flavors/{flavor_id}/os-flavor-access":       a.listAccess,
		"GET /flavors/{flavor_id}/os-extra_specs":         a.listSpecs,
		"POST /flavors/{flavor_id}/os-extra_specs":        a.addSpecs,
		"GET /flavors/{flavor_id}/os-extra_specs/{id}":    a.showSpec,
		"PUT /flavors/{flavor_id}/os-extra_specs/{id}":    a.setSpec,
		"DELETE /flavors/{flavor_id}/os-extra_specs/{id}": a.deleteSpec,

		"GET /os-keypairs":         a.listKeys,
		"POST /os-keypairs":        a.createKey,
		"GET /os-keypairs/{id}":    a.showKey,
		"DELETE /os-keypairs/{id}": a.deleteKey,
	}
	maps.Copy(h, volumeHandlers())
	return h
}

func body(v any) (*httpapi.Reply, error) { return &httpapi.Reply{Body: v}, nil }

func empty() (*httpapi.Reply, error) { return &httpapi.Reply{}, nil }
