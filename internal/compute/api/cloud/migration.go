package cloud

import (
	"net/url"
	"slices"
	"strconv"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/store"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

// migrationView shows a migration; hosts are null for callers who may not see them.
func migrationView(r *httpapi.Request, m *compute.Migration, hosts bool) document {
	minor := backend.Minor(r)
	seen := func(s string) any {
		if !hosts {
			return nil
		}
		return orNull(s)
	}
	flavor := func(n int64) any {
		if n == 0 {
			return nil
		}
		return n
	}
	d := document{"id": m.ID, "instance_uuid": m.ServerID, "status": m.Status, "created_at": stamp(m.Created), "updated_at": stamp(m.Updated),
		"source_compute": seen(m.SourceHost), "source_node": seen(m.SourceNode), "dest_compute": seen(m.DestHost), "dest_node": seen(m.DestNode),
		"dest_host": seen(m.DestIP), "old_instance_type_id": flavor(m.OldFlavorID), "new_instance_type_id": flavor(m.NewFlavorID)}
	if minor >= 23 {
		d["migration_type"] = m.Type
		if inProgress(m) {
			path := "/servers/" + m.ServerID + "/migrations/" + strconv.FormatInt(m.ID, 10)
			d["links"] = []httpapi.Link{{Rel: "self", Href: r.Link(path)}, {Rel: "bookmark", Href: r.Bookmark(path)}}
		}
	}
	if minor >= 59 {
		d["uuid"] = m.UUID
	}
	if minor >= 80 {
		d["user_id"], d["project_id"] = m.UserID, m.ProjectID
	}
	return d
}

// listMigrations gives everybody's migrations to those who may see all, and to others those of their own project when they ask for just these.
func (a api) listMigrations(r *httpapi.Request) (*httpapi.Reply, error) {
	f, err := migrationFilter(r.Query(), backend.Minor(r))
	if err != nil {
		return nil, err
	}
	if f.ProjectID != r.Caller.ProjectID {
		if err := r.Authorize(backend.Rule("os-migrations:index:all_projects"), r.Own()); err != nil {
			return nil, err
		}
	}
	page := backend.Page{Limit: 1 << 30}
	if backend.Minor(r) >= 59 {
		if page, err = a.Page(r.Query()); err != nil {
			return nil, err
		}
		f.Limit, f.Marker = page.Limit, page.Marker
	}
	var list []compute.Migration
	if hidden, _ := backend.ParseBool(httpapi.Last(r.Query(), "hidden")); !page.Zero && !hidden { // none is ever hidden
		if list, err = a.Store.Migrations(r.Context(), a.DB(), f); err != nil {
			return nil, err
		}
	}
	hosts := r.Allowed(backend.Rule("os-migrations:index:host"), r.Own())
	out := make([]document, len(list))
	for i := range list {
		out[i] = migrationView(r, &list[i], hosts)
	}
	doc := document{"migrations": out}
	if n := len(list); n > 0 {
		links(doc, r, "migrations", "/os-migrations", page, n, list[n-1].UUID)
	}
	return &httpapi.Reply{Body: doc}, nil
}

// migrationFilter reads the query parameters that exist at a version.
func migrationFilter(q url.Values, minor int) (store.MigrationFilter, error) {
	f := store.MigrationFilter{ServerID: httpapi.Last(q, "instance_uuid"), Host: httpapi.Last(q, "host"), SourceHost: httpapi.Last(q, "source_compute"), Type: httpapi.Last(q, "migration_type"), Oldest: minor < 59,
		ProjectID: httpapi.Last(q, "project_id"), UserID: httpapi.Last(q, "user_id")} // the schema says in which versions there are these two
	if s := httpapi.Last(q, "status"); s != "" {
		f.Status = []string{s}
	}
	var err error
	if text := httpapi.Last(q, "changes-since"); text != "" && minor >= 59 {
		if f.ChangesSince, err = backend.Time("changes-since", text); err != nil {
			return f, err
		}
	}
	if text := httpapi.Last(q, "changes-before"); text != "" && minor >= 66 {
		if f.ChangesBefore, err = backend.Time("changes-before", text); err != nil {
			return f, err
		}
		if f.ChangesSince.After(f.ChangesBefore) {
			return f, fault.New(fault.Invalid, "The value of changes-since must be less than or equal to changes-before.")
		}
		f.ChangesBefore = backend.Through(f.ChangesBefore)
	}
	return f, nil
}

// liveInProgress are the states in which a live migration has links to its own routes.
var liveInProgress = []string{"queued", "preparing", "running", "post-migrating"}

func inProgress(m *compute.Migration) bool {
	return m.Type == "live-migration" && slices.Contains(liveInProgress, m.Status)
}
