// Package subresource holds the handlers of the compute API that are about what hangs below a server and is read and changed by itself: metadata, tags, instance actions, migrations,
// volumes and shares, and what its guest tells. One file per noun.
package subresource

import (
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/httpapi"
)

// api is the handlers' receiver.
type api struct{ *backend.Backend }

// Handlers gives the handlers by their key in the route table.
func Handlers(b *backend.Backend) map[string]backend.Handler {
	a := api{b}
	return map[string]backend.Handler{
		"GET /servers/{server_id}/metadata":                               a.listMetadata,
		"POST /servers/{server_id}/metadata":                              a.addMetadata,
		"PUT /servers/{server_id}/metadata":                               a.replaceMetadata,
		"GET /servers/{server_id}/metadata/{id}":                          a.showMetadata,
		"PUT /servers/{server_id}/metadata/{id}":                          a.setMetadata,
		"DELETE /servers/{server_id}/metadata/{id}":                       a.deleteMetadata,
		"GET /servers/{server_id}/tags":                                   a.listTags,
		"PUT /servers/{server_id}/tags":                                   a.replaceTags,
		"DELETE /servers/{server_id}/tags":                                a.deleteTags,
		"GET /servers/{server_id}/tags/{id}":                              a.showTag,
		"PUT /servers/{server_id}/tags/{id}":                              a.addTag,
		"DELETE /servers/{server_id}/tags/{id}":                           a.deleteTag,
		"GET /servers/{server_id}/os-instance-actions":                    a.listActions,
		"GET /servers/{server_id}/os-instance-actions/{id}":               a.showAction,
		"GET /servers/{server_id}/os-server-password":                     a.showPassword,
		"DELETE /servers/{server_id}/os-server-password":                  a.clearPassword,
		"GET /servers/{server_id}/diagnostics":                            a.diagnostics,
		"GET /servers/{server_id}/topology":                               a.topology,
		"GET /servers/{server_id}/migrations":                             a.listMigrations,
		"GET /servers/{server_id}/migrations/{id}":                        a.showMigration,
		"DELETE /servers/{server_id}/migrations/{id}":                     a.abortMigration,
		"GET /servers/{server_id}/os-volume_attachments":                  a.listVolumes,
		"POST /servers/{server_id}/os-volume_attachments":                 a.attachVolume,
		"GET /servers/{server_id}/os-volume_attachments/{id}":             a.showVolume,
		"PUT /servers/{server_id}/os-volume_attachments/{id}":             a.updateVolume,
		"DELETE /servers/{server_id}/os-volume_attachments/{id}":          a.detachVolume,
		"GET /servers/{server_id}/shares":                                 a.listShares,
		"POST /servers/{server_id}/shares":                                a.attachShare,
		"GET /servers/{server_id}/shares/{id}":                            a.noShare,
		"DELETE /servers/{server_id}/shares/{id}":                         a.noShare,
		"POST /servers/{server_id}/migrations/{id}/action force_complete": a.forceComplete,
	}
}

// empty is an answer without a body.
func empty() (*httpapi.Reply, error) { return &httpapi.Reply{}, nil }

// body is an answer with the usual status.
func body(v any) (*httpapi.Reply, error) { return &httpapi.Reply{Body: v}, nil }
