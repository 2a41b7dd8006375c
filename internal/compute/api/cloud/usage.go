package cloud

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/store"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

// period is the time of a usage report.
type period struct{ start, stop time.Time }

// usageLayouts are the forms in which reports take times.
var usageLayouts = []string{"2006-01-02T15:04:05", "2006-01-02T15:04:05.999999", "2006-01-02 15:04:05.999999"}

func readPeriod(q url.Values) (period, error) {
	now := clock.Now()
	p := period{now, now}
	for name, into := range map[string]*time.Time{"start": &p.start, "end": &p.stop} {
		text := httpapi.Last(q, name)
		if text == "" {
			continue
		}
		ok := false
		for _, l := range usageLayouts {
			if t, err := time.Parse(l, text); err == nil {
				*into, ok = t, true
				break
			}
		}
		if !ok {
			return p, fault.New(fault.Invalid, "Datetime is in invalid format")
		}
	}
	if !p.start.Before(p.stop) && (httpapi.Last(q, "start") != "" || httpapi.Last(q, "end") != "") {
		return p, fault.New(fault.Invalid, "Invalid start time. The start time cannot occur after the end time.")
	}
	if p.stop.After(now) {
		p.stop = now
	}
	return p, nil
}

// hours is how long a server lived within the period, up to now when the period ends later.
func (p period) hours(s *compute.Server) float64 {
	start, stop := s.Launched, p.stop
	if now := clock.Now(); now.Before(stop) {
		stop = now
	}
	if start.Before(p.start) {
		start = p.start
	}
	if !s.Terminated.IsZero() && s.Terminated.Before(stop) {
		stop = s.Terminated
	}
	if start.IsZero() || !stop.After(start) {
		return 0
	}
	return stop.Sub(start).Hours()
}

// tenantUsage is the report of one project.
type tenantUsage struct {
	TenantID     string        `json:"tenant_id"`
	TotalHours   float64       `json:"total_hours"`
	TotalVCPUs   float64       `json:"total_vcpus_usage"`
	TotalMemory  float64       `json:"total_memory_mb_usage"`
	TotalLocalGB float64       `json:"total_local_gb_usage"`
	Start        any           `json:"start"`
	Stop         any           `json:"stop"`
	Servers      []serverUsage `json:"server_usages,omitempty"`
}

type serverUsage struct {
	InstanceID string  `json:"instance_id"`
	Name       string  `json:"name"`
	Hours      float64 `json:"hours"`
	Flavor     string  `json:"flavor"`
	VCPUs      int     `json:"vcpus"`
	MemoryMB   int64   `json:"memory_mb"`
	LocalGB    int64   `json:"local_gb"`
	TenantID   string  `json:"tenant_id"`
	State      string  `json:"state"`
	StartedAt  any     `json:"started_at"`
	EndedAt    any     `json:"ended_at"`
	Uptime     int64   `json:"uptime"` // seconds
}

func (u *tenantUsage) add(p period, s *compute.Server) {
	h := p.hours(s)
	v := serverUsage{InstanceID: s.ID, Name: s.Name, Hours: h, Flavor: s.Flavor.Name, VCPUs: s.Flavor.VCPUs, MemoryMB: s.Flavor.RAMMB,
		LocalGB: s.Flavor.RootGB + s.Flavor.EphemeralGB, TenantID: s.ProjectID, State: s.VMState, StartedAt: stamp(s.Launched)}
	until := clock.Now()
	if !s.Terminated.IsZero() {
		v.State, v.EndedAt, until = "terminated", stamp(s.Terminated), s.Terminated
	}
	v.Uptime = max(0, int64(until.Sub(s.Launched).Seconds()))
	u.TotalHours += h
	u.TotalVCPUs += h * float64(v.VCPUs)
	u.TotalMemory += h * float64(v.MemoryMB)
	u.TotalLocalGB += h * float64(v.LocalGB)
	u.Servers = append(u.Servers, v)
}

// usage reads the servers that lived within the period and adds them up by project. From 2.40 it is paged by servers.
func (a api) usage(r *httpapi.Request, project string) ([]*tenantUsage, period, backend.Page, string, error) {
	q, page := r.Query(), backend.Page{Limit: a.MaxLimit}
	p, err := readPeriod(q)
	if err != nil {
		return nil, p, page, "", err
	}
	if backend.Minor(r) >= 40 {
		if page, err = a.Page(q); err != nil || page.Zero {
			return nil, p, page, "", err
		}
	}
	f := store.ListFilter{ProjectID: project, TerminatedSince: p.start, LaunchedBefore: p.stop, Limit: page.Limit, Marker: page.Marker,
		Sort: []store.SortKey{{Key: "project_id"}, {Key: "uuid"}}}
	servers, err := a.Store.ListServers(r.Context(), a.DB(), f)
	if err != nil {
		return nil, p, page, "", err
	}
	var out []*tenantUsage
	last := ""
	for _, s := range servers {
		last = s.ID
		if s.Launched.IsZero() {
			continue
		}
		if len(out) == 0 || out[len(out)-1].TenantID != s.ProjectID {
			out = append(out, &tenantUsage{TenantID: s.ProjectID, Start: stamp(p.start), Stop: stamp(p.stop)})
		}
		out[len(out)-1].add(p, s)
	}
	if len(servers) < page.Limit {
		last = ""
	}
	return out, p, page, last, nil
}

func (a api) listUsage(r *httpapi.Request) (*httpapi.Reply, error) {
	list, _, page, last, err := a.usage(r, "")
	if err != nil {
		return nil, err
	}
	if httpapi.Last(r.Query(), "detailed") != "1" {
		for _, u := range list {
			u.Servers = nil
		}
	}
	slices.SortStableFunc(list, func(x, y *tenantUsage) int { return strings.Compare(x.TenantID, y.TenantID) })
	if list == nil {
		list = []*tenantUsage{}
	}
	doc := document{"tenant_usages": list}
	a.nextUsage(doc, r, "tenant_usages", "/os-simple-tenant-usage", page, last)
	return &httpapi.Reply{Body: doc}, nil
}

func (a api) showUsage(r *httpapi.Request) (*httpapi.Reply, error) {
	project := r.Path("id")
	if err := r.Authorize(backend.Rule("os-simple-tenant-usage:show"), backend.Target(project, "")); err != nil {
		return nil, err
	}
	list, _, page, last, err := a.usage(r, project)
	if err != nil {
		return nil, err
	}
	doc := document{"tenant_usage": document{}}
	if len(list) > 0 {
		doc["tenant_usage"] = list[0]
	}
	a.nextUsage(doc, r, "tenant_usage", "/os-simple-tenant-usage/"+url.PathEscape(project), page, last)
	return &httpapi.Reply{Body: doc}, nil
}

func (a api) nextUsage(doc document, r *httpapi.Request, key, path string, p backend.Page, last string) {
	if last != "" && backend.Minor(r) >= 40 {
		doc[key+"_links"] = r.NextLink(path, httpapi.Page{Limit: p.Limit}, p.Limit, last)
	}
}
