package proxy

import (
	"encoding/json"
	"net/url"

	"kilonova/internal/compute/api/backend"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/id"
)

// Options are the other services' doors.
type Options struct {
	Network  *Network
	ImageURL string // public endpoint of the image service, for the links of images
}

// api is the handlers' receiver.
type api struct {
	*backend.Backend
	Options
}

// Handlers gives the handlers by their key in the route table.
func Handlers(b *backend.Backend, o Options) map[string]backend.Handler {
	a := api{b, o}
	h := map[string]backend.Handler{
		"GET /images":                             a.listImages,
		"GET /images/detail":                      a.detailImages,
		"GET /images/{id}":                        a.showImage,
		"DELETE /images/{id}":                     a.deleteImage,
		"GET /images/{image_id}/metadata":         a.imageMetadata,
		"POST /images/{image_id}/metadata":        a.addImageMetadata,
		"PUT /images/{image_id}/metadata":         a.replaceImageMetadata,
		"GET /images/{image_id}/metadata/{id}":    a.imageMeta,
		"PUT /images/{image_id}/metadata/{id}":    a.setImageMeta,
		"DELETE /images/{image_id}/metadata/{id}": a.deleteImageMeta,

		"GET /os-baremetal-nodes":                               a.noIronic,
		"GET /os-baremetal-nodes/{id}":                          a.noIronic,
		"POST /os-baremetal-nodes":                              a.useIronic,
		"DELETE /os-baremetal-nodes/{id}":                       a.useIronic,
		"POST /os-baremetal-nodes/{id}/action add_interface":    a.useIronic,
		"POST /os-baremetal-nodes/{id}/action remove_interface": a.useIronic,
	}
	if o.Network == nil {
		return h
	}
	for k, v := range map[string]backend.Handler{
		"GET /os-networks":             a.listNetworks,
		"GET /os-networks/{id}":        a.showNetwork,
		"GET /os-tenant-networks":      a.listTenantNetworks,
		"GET /os-tenant-networks/{id}": a.showTenantNetwork,

		"GET /os-floating-ip-pools":    a.listPools,
		"GET /os-floating-ips":         a.listFloatingIPs,
		"POST /os-floating-ips":        a.createFloatingIP,
		"GET /os-floating-ips/{id}":    a.showFloatingIP,
		"DELETE /os-floating-ips/{id}": a.deleteFloatingIP,

		"POST /servers/{id}/action addFloatingIp":    a.addFloatingIP,
		"POST /servers/{id}/action removeFloatingIp": a.removeFloatingIP,

		"GET /servers/{server_id}/os-security-groups": a.listServerGroups,

		"GET /os-security-groups":              a.listGroups,
		"POST /os-security-groups":             a.createGroup,
		"GET /os-security-groups/{id}":         a.showGroup,
		"PUT /os-security-groups/{id}":         a.updateGroup,
		"DELETE /os-security-groups/{id}":      a.deleteGroup,
		"POST /os-security-group-rules":        a.createRule,
		"DELETE /os-security-group-rules/{id}": a.deleteRule,
	} {
		h[k] = v
	}
	return h
}

// document is a JSON object.
type document = map[string]any

func reply(key string, body any) *httpapi.Reply {
	return &httpapi.Reply{Body: document{key: body}}
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// own is the query for what belongs to the caller's project.
func own(r *httpapi.Request) url.Values { return url.Values{"project_id": {r.Caller.ProjectID}} }

// uuid reads the id of the path; what is no UUID cannot be known.
func uuid(r *httpapi.Request, kind fault.Kind, what string) (string, error) {
	if s := r.Path("id"); id.IsUUID(s) {
		return s, nil
	}
	return "", fault.New(kind, "%s with id %s is not found: it is not a UUID.", what, r.Path("id"))
}

// decode reads the body's single object key.
func decode[T any](r *httpapi.Request, key string) (T, error) {
	var outer map[string]json.RawMessage
	var v T
	if err := r.Decode(&outer); err != nil {
		return v, err
	}
	if err := json.Unmarshal(outer[key], &v); err != nil {
		return v, fault.Wrap(err, fault.Invalid, "The content of %s does not fit.", key)
	}
	return v, nil
}

// noIronic answers the reading half of what useIronic answers: a cloud with a bare metal service would be asked for its nodes.
func (a api) noIronic(*httpapi.Request) (*httpapi.Reply, error) {
	return nil, fault.New(fault.NotImplemented, "This cloud has no bare metal service whose nodes could be shown.")
}

// useIronic answers the calls by which compute once managed bare metal.
func (a api) useIronic(*httpapi.Request) (*httpapi.Reply, error) {
	return nil, fault.New(fault.Invalid, "Bare metal nodes are not managed here. Use the bare metal service.")
}
