package resources

import (
	"context"
	"net/url"
	"strconv"
	"strings"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/api/view"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/id"
)

// flavorField is one line of the table of the flavor document.
type flavorField struct {
	name         string
	since, until int
	value        func(*compute.Flavor) any
}

var flavorFields = []flavorField{
	{"id", 1, 0, func(f *compute.Flavor) any { return f.FlavorID }},
	{"name", 1, 0, func(f *compute.Flavor) any { return f.Name }},
	{"ram", 1, 0, func(f *compute.Flavor) any { return f.RAMMB }},
	{"disk", 1, 0, func(f *compute.Flavor) any { return f.RootGB }},
	{"vcpus", 1, 0, func(f *compute.Flavor) any { return f.VCPUs }},
	{"swap", 1, 74, func(f *compute.Flavor) any {
		if f.SwapMB == 0 {
			return ""
		}
		return f.SwapMB
	}},
	{"swap", 75, 0, func(f *compute.Flavor) any { return f.SwapMB }},
	{"OS-FLV-EXT-DATA:ephemeral", 1, 0, func(f *compute.Flavor) any { return f.EphemeralGB }},
	{"os-flavor-access:is_public", 1, 0, func(f *compute.Flavor) any { return f.Public }},
	{"OS-FLV-DISABLED:disabled", 1, 101, func(f *compute.Flavor) any { return f.Disabled }},
	{"rxtx_factor", 1, 101, func(f *compute.Flavor) any { return f.RXTX }},
	{"description", 55, 0, func(f *compute.Flavor) any { return f.Description }},
}

func flavorView(f *compute.Flavor, minor int, links view.Links, specs bool) map[string]any {
	m := map[string]any{"links": links.To("flavors", f.FlavorID)}
	for _, x := range flavorFields {
		if minor >= x.since && (x.until == 0 || minor <= x.until) {
			m[x.name] = x.value(f)
		}
	}
	if minor >= 61 && specs {
		m["extra_specs"] = orEmpty(f.ExtraSpecs)
	}
	return m
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

func (a api) flavorReply(r *httpapi.Request, f *compute.Flavor) (*httpapi.Reply, error) {
	return body(map[string]any{"flavor": flavorView(f, backend.Minor(r), backend.Links(r), a.seesSpecs(r))})
}

func (a api) seesSpecs(r *httpapi.Request) bool {
	return r.Allowed(backend.Rule("os-flavor-extra-specs:index"), r.Own())
}

// visible is the project whose private flavors the caller sees: "" for admins, who see all.
func visible(r *httpapi.Request) string {
	if r.Caller.IsAdmin() {
		return ""
	}
	return r.Caller.ProjectID
}

func (a api) listFlavors(r *httpapi.Request) (*httpapi.Reply, error) {
	links, minor := backend.Links(r), backend.Minor(r)
	return a.flavors(r, "/flavors", func(f *compute.Flavor) map[string]any {
		m := map[string]any{"id": f.FlavorID, "name": f.Name, "links": links.To("flavors", f.FlavorID)}
		if minor >= 55 {
			m["description"] = f.Description
		}
		return m
	})
}

func (a api) detailFlavors(r *httpapi.Request) (*httpapi.Reply, error) {
	links, minor, specs := backend.Links(r), backend.Minor(r), a.seesSpecs(r)
	return a.flavors(r, "/flavors/detail", func(f *compute.Flavor) map[string]any { return flavorView(f, minor, links, specs) })
}

func (a api) flavors(r *httpapi.Request, path string, doc func(*compute.Flavor) map[string]any) (*httpapi.Reply, error) {
	q := r.Query()
	page, err := a.Page(q)
	if err != nil {
		return nil, err
	}
	f, err := flavorFilter(r, q)
	if err != nil {
		return nil, err
	}
	f.Limit, f.Marker = page.Limit, page.Marker
	list := []map[string]any{}
	var flavors []compute.Flavor
	if !page.Zero {
		if flavors, err = a.Store.Flavors(r.Context(), a.DB(), f); err != nil {
			return nil, err
		}
	}
	for i := range flavors {
		list = append(list, doc(&flavors[i]))
	}
	out := map[string]any{"flavors": list}
	if n := len(flavors); n > 0 && n == page.Limit {
		out["flavors_links"] = backend.Links(r).Next(path, q, flavors[n-1].FlavorID)
	}
	return body(out)
}

func flavorFilter(r *httpapi.Request, q url.Values) (store.FlavorFilter, error) {
	yes := true
	f := store.FlavorFilter{Project: r.Caller.ProjectID}
	if r.Caller.IsAdmin() {
		f.All, f.Public = true, &yes
		if v := httpapi.Last(q, "is_public"); strings.EqualFold(v, "none") {
			f.Public = nil
		} else if v != "" {
			is, ok := backend.ParseBool(v)
			if !ok {
				return f, fault.New(fault.Invalid, "Invalid is_public filter [%s]", v)
			}
			f.Public = &is
		}
	}
	for name, into := range map[string]*int64{"minRam": &f.MinRAM, "minDisk": &f.MinDisk} {
		if v := httpapi.Last(q, name); v != "" {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return f, fault.New(fault.Invalid, "Invalid %s filter [%s]", name, v)
			}
			*into = n
		}
	}
	if backend.Minor(r) >= 102 {
		f.Name = httpapi.Last(q, "name")
	}
	if key := httpapi.Last(q, "sort_key"); key != "" || httpapi.Last(q, "sort_dir") != "" {
		if key == "" {
			key = "flavorid"
		}
		f.Sort = []store.SortKey{{Key: key, Desc: httpapi.Last(q, "sort_dir") == "desc"}}
	}
	return f, nil
}

func (a api) showFlavor(r *httpapi.Request) (*httpapi.Reply, error) {
	f, err := a.Store.Flavor(r.Context(), a.DB(), r.Path("id"), visible(r))
	if err != nil {
		return nil, err
	}
	return a.flavorReply(r, f)
}

func (a api) createFlavor(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Flavor struct {
			Name        string        `json:"name"`
			ID          *backend.Text `json:"id"`
			RAM         backend.Int   `json:"ram"`
			VCPUs       backend.Int   `json:"vcpus"`
			Disk        backend.Int   `json:"disk"`
			Ephemeral   backend.Int   `json:"OS-FLV-EXT-DATA:ephemeral"`
			Swap        backend.Int   `json:"swap"`
			RXTX        backend.Text  `json:"rxtx_factor"`
			Public      *backend.Bool `json:"os-flavor-access:is_public"`
			Description *string       `json:"description"`
		} `json:"flavor"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	v := in.Flavor
	f := compute.Flavor{Name: strings.TrimSpace(v.Name), RAMMB: int64(v.RAM), VCPUs: int(v.VCPUs), RootGB: int64(v.Disk), EphemeralGB: int64(v.Ephemeral), SwapMB: int64(v.Swap), RXTX: 1,
		Public: v.Public == nil || bool(*v.Public), Description: v.Description}
	if v.ID != nil && *v.ID != "auto" {
		f.FlavorID = strings.TrimSpace(string(*v.ID))
	}
	if f.FlavorID == "" {
		f.FlavorID = id.UUID()
	}
	if v.RXTX != "" {
		n, err := strconv.ParseFloat(string(v.RXTX), 64)
		if err != nil || n < 0 || n > 3.40282e38 {
			return nil, fault.New(fault.Invalid, "'rxtx_factor' argument must be a float between 0 and 3.40282e+38")
		}
		f.RXTX = n
	}
	if err := a.DB().Write(r.Context(), func(tx *db.Tx) error { return a.Store.InsertFlavor(r.Context(), tx, &f) }); err != nil {
		return nil, err
	}
	return a.flavorReply(r, &f)
}

func (a api) updateFlavor(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Flavor struct {
			Description *string `json:"description"`
		} `json:"flavor"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	f, err := a.changeFlavor(r.Context(), r.Path("id"), func(f *compute.Flavor) error { f.Description = in.Flavor.Description; return nil })
	if err != nil {
		return nil, err
	}
	return a.flavorReply(r, f)
}

func (a api) changeFlavor(ctx context.Context, flavor string, change func(*compute.Flavor) error) (f *compute.Flavor, err error) {
	err = a.DB().Write(ctx, func(tx *db.Tx) error {
		f, err = a.Store.UpdateFlavor(ctx, tx, flavor, change)
		return err
	})
	return f, err
}

func (a api) deleteFlavor(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := a.DB().Write(r.Context(), func(tx *db.Tx) error { return a.Store.DeleteFlavor(r.Context(), tx, r.Path("id")) }); err != nil {
		return nil, err
	}
	return empty()
}

// accessReply lists the projects that have access to a private flavor.
func (a api) accessReply(r *httpapi.Request, f *compute.Flavor) (*httpapi.Reply, error) {
	projects, err := a.Store.FlavorAccess(r.Context(), a.DB(), f.ID)
	if err != nil {
		return nil, err
	}
	list := []map[string]string{}
	for _, p := range projects {
		list = append(list, map[string]string{"flavor_id": f.FlavorID, "tenant_id": p})
	}
	return body(map[string]any{"flavor_access": list})
}

func (a api) listAccess(r *httpapi.Request) (*httpapi.Reply, error) {
	f, err := a.Store.Flavor(r.Context(), a.DB(), r.Path("flavor_id"), "")
	if err != nil {
		return nil, err
	}
	if f.Public {
		return nil, fault.New(fault.NotFound, "Access list not available for public flavors.")
	}
	return a.accessReply(r, f)
}

func (a api) addAccess(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.changeAccess(r, "addTenantAccess", func(tx *db.Tx, f *compute.Flavor, project string) error {
		if f.Public && backend.Minor(r) >= 7 {
			return fault.New(fault.Conflict, "Can not add access to a public flavor.")
		}
		return a.Store.AddFlavorAccess(r.Context(), tx, f, project)
	})
}

func (a api) removeAccess(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.changeAccess(r, "removeTenantAccess", func(tx *db.Tx, f *compute.Flavor, project string) error {
		return a.Store.RemoveFlavorAccess(r.Context(), tx, f, project)
	})
}

func (a api) changeAccess(r *httpapi.Request, action string, change func(*db.Tx, *compute.Flavor, string) error) (*httpapi.Reply, error) {
	var in map[string]struct {
		Tenant string `json:"tenant"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	project := in[action].Tenant
	if action == "addTenantAccess" { // what a project had may be taken away when the project is gone
		if err := a.KnownProject(r.Context(), project); err != nil {
			return nil, err
		}
	}
	f, err := a.Store.Flavor(r.Context(), a.DB(), r.Path("id"), "")
	if err != nil {
		return nil, err
	}
	if err := a.DB().Write(r.Context(), func(tx *db.Tx) error { return change(tx, f, project) }); err != nil {
		return nil, err
	}
	return a.accessReply(r, f)
}
