package resources

import (
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

// The routes that speak for the volume service end at 2.35. No volume service is configured in this cloud: there are no volumes and no snapshots, and none
// can be made.

const noVolumes = "This cloud has no volume service configured: volumes and snapshots of volumes cannot be used."

func none(key string) backend.Handler {
	return func(*httpapi.Request) (*httpapi.Reply, error) { return body(map[string]any{key: []any{}}) }
}

func unknown(what string) backend.Handler {
	return func(r *httpapi.Request) (*httpapi.Reply, error) {
		return nil, fault.New(fault.NotFound, "%s %s could not be found.", what, r.Path("id"))
	}
}

func refuseVolumes(*httpapi.Request) (*httpapi.Reply, error) {
	return nil, fault.New(fault.Invalid, noVolumes)
}

func volumeHandlers() map[string]backend.Handler {
	return map[string]backend.Handler{
		"GET /os-volumes": none("volumes"), "GET /os-volumes/detail": none("volumes"), "GET /os-volumes/{id}": unknown("Volume"), "DELETE /os-volumes/{id}": unknown("Volume"),
		"POST /os-volumes": refuseVolumes, "GET /os-snapshots": none("snapshots"), "GET /os-snapshots/detail": none("snapshots"), "GET /os-snapshots/{id}": unknown("Snapshot"),
		"DELETE /os-snapshots/{id}": unknown("Snapshot"), "POST /os-snapshots": refuseVolumes, "POST /os-assisted-volume-snapshots": refuseVolumes,
		"DELETE /os-assisted-volume-snapshots/{id}": unknown("Snapshot"),
	}
}
