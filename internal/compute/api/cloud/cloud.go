package cloud

import (
	"encoding/json"
	"strconv"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

// api is the handlers' receiver.
type api struct{ *backend.Backend }

// Handlers gives the handlers by their key in the route table.
func Handlers(b *backend.Backend) map[string]backend.Handler {
	a := api{b}
	return map[string]backend.Handler{
		"GET /extensions":      a.listExtensions,
		"GET /extensions/{id}": a.showExtension,

		"GET /os-aggregates":                           a.listAggregates,
		"POST /os-aggregates":                          a.createAggregate,
		"GET /os-aggregates/{id}":                      a.showAggregate,
		"PUT /os-aggregates/{id}":                      a.updateAggregate,
		"DELETE /os-aggregates/{id}":                   a.deleteAggregate,
		"POST /os-aggregates/{id}/action add_host":     a.addAggregateHost,
		"POST /os-aggregates/{id}/action remove_host":  a.removeAggregateHost,
		"POST /os-aggregates/{id}/action set_metadata": a.setAggregateMetadata,
		"POST /os-aggregates/{id}/images":              a.cacheImages,

		"GET /os-availability-zone":        a.listZones,
		"GET /os-availability-zone/detail": a.detailZones,

		"GET /os-hypervisors":              a.listHypervisors,
		"GET /os-hypervisors/detail":       a.detailHypervisors,
		"GET /os-hypervisors/statistics":   a.hypervisorStatistics,
		"GET /os-hypervisors/{id}":         a.showHypervisor,
		"GET /os-hypervisors/{id}/search":  a.searchHypervisors,
		"GET /os-hypervisors/{id}/servers": a.hypervisorServers,
		"GET /os-hypervisors/{id}/uptime":  a.hypervisorUptime,

		"GET /os-hosts":               a.listHosts,
		"GET /os-hosts/{id}":          a.showHost,
		"PUT /os-hosts/{id}":          a.updateHost,
		"GET /os-hosts/{id}/reboot":   a.powerHost,
		"GET /os-hosts/{id}/shutdown": a.powerHost,
		"GET /os-hosts/{id}/startup":  a.powerHost,

		"GET /os-services":         a.listServices,
		"PUT /os-services/{id}":    a.updateService,
		"DELETE /os-services/{id}": a.deleteService,

		"GET /os-server-groups":         a.listGroups,
		"POST /os-server-groups":        a.createGroup,
		"GET /os-server-groups/{id}":    a.showGroup,
		"DELETE /os-server-groups/{id}": a.deleteGroup,

		"GET /os-migrations": a.listMigrations,

		"GET /limits":                      a.showLimits,
		"GET /os-quota-sets/{id}":          a.showQuota,
		"PUT /os-quota-sets/{id}":          a.updateQuota,
		"DELETE /os-quota-sets/{id}":       a.deleteQuota,
		"GET /os-quota-sets/{id}/detail":   a.detailQuota,
		"GET /os-quota-sets/{id}/defaults": a.defaultQuota,
		"GET /os-quota-class-sets/{id}":    a.showQuotaClass,
		"PUT /os-quota-class-sets/{id}":    a.updateQuotaClass,

		"GET /os-simple-tenant-usage":           a.listUsage,
		"GET /os-simple-tenant-usage/{id}":      a.showUsage,
		"GET /os-instance_usage_audit_log":      a.listAudit,
		"GET /os-instance_usage_audit_log/{id}": a.showAudit,
	}
}

// document is a JSON object whose keys depend on the version.
type document = map[string]any

// reply is a document with the table's own success status.
func reply(key string, body any) *httpapi.Reply {
	return &httpapi.Reply{Body: document{key: body}}
}

// stamp is a time as administrators' documents write it, nil for none.
func stamp(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format(clock.LayoutMicro)
}

// orNull is nil for the empty text.
func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// number reads a numeric id of the path. It fails with fault.Invalid.
func number(r *httpapi.Request, what string) (int64, error) {
	n, err := strconv.ParseInt(r.Path("id"), 10, 64)
	if err != nil {
		return 0, fault.New(fault.Invalid, "Invalid %s id '%s': it must be an integer.", what, r.Path("id"))
	}
	return n, nil
}

// links adds the next link to a paged document when the page is full.
func links(doc document, r *httpapi.Request, key, path string, p backend.Page, given int, marker string) {
	if given > 0 && given >= p.Limit {
		doc[key+"_links"] = r.NextLink(path, httpapi.Page{Limit: p.Limit}, given, marker)
	}
}

// decode reads the body's single object key.
func decode[T any](r *httpapi.Request, key string) (T, error) {
	var outer map[string]json.RawMessage
	var v T
	if err := r.Decode(&outer); err != nil {
		return v, err
	}
	raw, ok := outer[key]
	if !ok {
		return v, fault.New(fault.Invalid, "'%s' is a required property", key)
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, fault.Wrap(err, fault.Invalid, "The content of %s does not fit: %s", key, fault.PublicText(err))
	}
	return v, nil
}
