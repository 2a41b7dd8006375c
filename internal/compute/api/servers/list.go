package servers

import (
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/api/view"
	"kilonova/internal/compute/store"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

func (a api) index(r *httpapi.Request) (*httpapi.Reply, error) { return a.list(r, "index") }

func (a api) detail(r *httpapi.Request) (*httpapi.Reply, error) { return a.list(r, "detail") }

func (a api) list(r *httpapi.Request, kind string) (*httpapi.Reply, error) {
	q := r.Query()
	page, err := a.Page(q)
	if err != nil {
		return nil, err
	}
	f, none, err := a.filter(r, kind)
	if err != nil {
		return nil, err
	}
	f.Limit, f.Marker = page.Limit, page.Marker
	doc := view.ServerList{Links: backend.Links(r)}
	if !page.Zero && !none {
		if doc.Servers, err = a.Store.ListServers(r.Context(), a.DB(), f); err != nil {
			return nil, err
		}
	}
	if kind == "detail" {
		o, err := a.options(r, doc.Servers...)
		if err != nil {
			return nil, err
		}
		doc.Encoder = view.NewServerEncoder(view.Detail, o)
	}
	if n := len(doc.Servers); n > 0 && n == page.Limit {
		path := "/servers"
		if kind == "detail" {
			path += "/detail"
		}
		doc.Next = doc.Links.Next(path, q, doc.Servers[n-1].ID)
	}
	return &httpapi.Reply{Body: doc}, nil
}

// open are the filters that every caller may use, with the minor from which.
var open = map[string]int{"reservation_id": 1, "name": 1, "display_name": 83, "status": 1, "image": 1, "flavor": 1, "ip": 1, "ip6": 5, "changes-since": 1, "all_tenants": 1,
	"changes-before": 66, "tags": 26, "tags-any": 26, "not-tags": 26, "not-tags-any": 26, "locked": 73, "availability_zone": 83, "config_drive": 83, "key_name": 83,
	"created_at": 83, "launched_at": 83, "terminated_at": 83, "power_state": 83, "task_state": 83, "vm_state": 83, "progress": 83, "user_id": 83}

// exact are filters that compare a column with a text.
var exact = map[string]string{"reservation_id": "reservation_id", "image": "image_ref", "image_ref": "image_ref", "flavor": "flavor", "host": "host", "node": "node",
	"hostname": "hostname", "key_name": "key_name", "kernel_id": "kernel_id", "ramdisk_id": "ramdisk_id", "availability_zone": "availability_zone", "locked_by": "locked_by",
	"root_device_name": "root_device_name", "access_ip_v4": "access_ip_v4", "access_ip_v6": "access_ip_v6", "auto_disk_config": "auto_disk_config", "user_id": "user_id"}

// numbers are filters that compare a column with an integer.
var numbers = map[string]string{"power_state": "power_state", "launch_index": "launch_index", "progress": "progress"}

// moments are filters that compare a column with a time.
var moments = map[string]string{"created_at": "created_at", "launched_at": "launched_at", "terminated_at": "terminated_at"}

// filter reads the query. none tells that nothing can match.
func (a api) filter(r *httpapi.Request, kind string) (f store.ListFilter, none bool, err error) {
	q, admin := url.Values{}, r.Allowed(backend.Rule("servers:allow_all_filters"), r.Own())
	for k, v := range r.Query() {
		if from, ok := open[k]; admin || ok && backend.Minor(r) >= from {
			q[k] = v
		}
	}
	if f.ProjectID, err = a.scope(r, kind, q); err != nil {
		return f, false, err
	}
	f.Equal = map[string][]any{}
	for k, col := range exact {
		if v := q.Get(k); v != "" {
			f.Equal[col] = []any{v}
		}
	}
	if v := q.Get("uuid"); v != "" {
		f.IDs = q["uuid"]
	}
	f.Name, f.IP, f.IP6 = first(q, "name", "display_name"), q.Get("ip"), q.Get("ip6")
	f.Description = first(q, "description", "display_description")
	for _, read := range []func(*httpapi.Request, url.Values, *store.ListFilter) (bool, error){statesOf, typedOf, timesOf, labelsOf, sortOf} {
		if none, err = read(r, q, &f); err != nil || none {
			return f, none, err
		}
	}
	return f, false, nil
}

func first(q url.Values, names ...string) string {
	for _, n := range names {
		if v := q.Get(n); v != "" {
			return v
		}
	}
	return ""
}

// scope gives the project to list: the caller's own, or with all_tenants any.
func (a api) scope(r *httpapi.Request, kind string, q url.Values) (string, error) {
	all := false // a project may be named only together with all_tenants
	if v, given := q["all_tenants"]; given {
		all = true
		if v[0] != "" {
			yes, ok := backend.ParseBool(v[0])
			if !ok {
				return "", fault.New(fault.Invalid, "Invalid value for all_tenants: %q is not a boolean.", v[0])
			}
			all = yes
		}
	}
	if !all {
		return r.Caller.ProjectID, nil
	}
	if err := r.Authorize(backend.Rule("servers:"+kind+":get_all_tenants"), r.Own()); err != nil {
		return "", err
	}
	return first(q, "tenant_id", "project_id"), nil
}

// statesOf reads status, vm_state, task_state and deleted.
func statesOf(r *httpapi.Request, q url.Values, f *store.ListFilter) (bool, error) {
	yes := true
	if names := q["status"]; len(names) > 0 {
		vms, tasks, known := compute.StatusFilter(names...)
		if !known {
			if backend.Minor(r) >= 38 {
				return false, fault.New(fault.Invalid, "Invalid status value")
			}
			return true, nil
		}
		if slices.Contains(vms, compute.VMDeleted) {
			if !r.Caller.IsAdmin() {
				return false, fault.New(fault.Forbidden, "Only administrators may list deleted instances")
			}
			if len(vms) == 1 {
				f.Deleted = &yes
			}
		}
		f.VMStates, f.TaskStates = vms, tasks
	}
	if v := q["vm_state"]; len(v) > 0 {
		f.VMStates = v
	}
	if v := q["task_state"]; len(v) > 0 {
		f.TaskStates = nil
		for _, t := range v {
			if t == "None" || t == "null" {
				t = ""
			}
			f.TaskStates = append(f.TaskStates, t)
		}
	}
	for _, key := range []string{"deleted", "soft_deleted"} {
		v := q.Get(key)
		if v == "" {
			continue
		}
		is, ok := backend.ParseBool(v)
		switch {
		case !ok:
			return false, fault.New(fault.Invalid, "Invalid value for %s: %q is not a boolean.", key, v)
		case key == "deleted":
			f.Deleted = &is
		case is:
			f.VMStates = []string{compute.VMSoftDeleted}
		}
	}
	return false, nil
}

// typedOf reads the filters that are numbers and booleans.
func typedOf(_ *httpapi.Request, q url.Values, f *store.ListFilter) (bool, error) {
	for k, col := range numbers {
		if v := q.Get(k); v != "" {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return false, fault.New(fault.Invalid, "Invalid filter %s: %q is not an integer.", k, v)
			}
			f.Equal[col] = []any{n}
		}
	}
	if v := q.Get("config_drive"); v != "" {
		is, ok := backend.ParseBool(v)
		if !ok {
			return false, fault.New(fault.Invalid, "Invalid filter config_drive: %q is not a boolean.", v)
		}
		f.Equal["config_drive"] = []any{is}
	}
	if v := q.Get("locked"); v != "" {
		is, ok := backend.ParseBool(v)
		if !ok {
			return false, fault.New(fault.Invalid, "Unrecognized value '%s' for locked; acceptable values are booleans.", v)
		}
		f.Locked = &is
	}
	if v := q.Get("user_id"); v != "" {
		f.UserID = v
	}
	return false, nil
}

// timesOf reads the filters that are times.
func timesOf(_ *httpapi.Request, q url.Values, f *store.ListFilter) (bool, error) {
	for k, col := range moments {
		if v := q.Get(k); v != "" {
			t, err := backend.Time(k, v)
			if err != nil {
				return false, err
			}
			f.Equal[col] = []any{t.UnixMicro()}
		}
	}
	for _, k := range []string{"changes-since", "changes-before"} {
		v := q.Get(k)
		if v == "" {
			continue
		}
		t, err := backend.Time(k, v)
		if err != nil {
			return false, err
		}
		if k == "changes-since" {
			f.ChangesSince = t
		} else {
			f.ChangesBefore = t
		}
	}
	if !f.ChangesBefore.IsZero() && f.ChangesBefore.Before(f.ChangesSince) {
		return false, fault.New(fault.Invalid, "The value of changes-since must be less than or equal to changes-before.")
	}
	return false, nil
}

// labelsOf reads the filters on tags and metadata.
func labelsOf(_ *httpapi.Request, q url.Values, f *store.ListFilter) (bool, error) {
	for k, into := range map[string]*[]string{"tags": &f.Tags, "tags-any": &f.TagsAny, "not-tags": &f.NotTags, "not-tags-any": &f.NotTagsAny} {
		if v := q.Get(k); v != "" {
			*into = strings.Split(v, ",")
		}
	}
	for _, text := range q["metadata"] {
		m := map[string]string{}
		if err := json.Unmarshal([]byte(strings.ReplaceAll(text, "'", `"`)), &m); err != nil {
			return false, fault.Wrap(err, fault.Invalid, "Invalid metadata filter: it must be a JSON object of strings.")
		}
		f.Metadata = m
	}
	return false, nil
}

// unsorted are sort keys of joined tables: they are dropped.
var unsorted = []string{"tenant_id", "project_id", "user_id", "metadata", "system_metadata", "info_cache", "security_groups", "pci_devices", "block_device_mapping", "services", "tags",
	"fault", "deleted", "deleted_at", "id", "internal_id", "cleaned", "shutdown_terminate", "disable_terminate", "cell_name", "default_swap_device", "default_ephemeral_device",
	"memory_mb", "vcpus", "root_gb", "ephemeral_gb", "architecture", "os_type", "vm_mode", "ephemeral_key_uuid", "user_data", "reservation_id", "migration_context", "key_data",
	"ec2_ids", "flavor", "old_flavor", "new_flavor", "keypairs", "device_metadata", "numa_topology", "pci_requests", "vcpu_model", "trusted_certs", "resources", "hidden", "launched_on"}

// sortOf reads sort_key and sort_dir.
func sortOf(r *httpapi.Request, _ url.Values, f *store.ListFilter) (bool, error) {
	q := r.Query()
	dirs := q["sort_dir"]
	for i, key := range q["sort_key"] {
		keep := key == "project_id" || key == "user_id"
		if slices.Contains(unsorted, key) && !keep {
			continue
		}
		if (key == "host" || key == "node") && !r.Caller.IsAdmin() {
			return false, fault.New(fault.Forbidden, "Only administrators can sort servers by %s", key)
		}
		dir := "desc"
		switch {
		case i < len(dirs):
			dir = dirs[i]
		case len(dirs) > 0:
			dir = dirs[0]
		}
		if dir != "asc" && dir != "desc" {
			return false, fault.New(fault.Invalid, "Unknown sort direction, must be 'desc' or 'asc'")
		}
		f.Sort = append(f.Sort, store.SortKey{Key: key, Desc: dir == "desc"})
	}
	if len(f.Sort) == 0 && len(dirs) > 0 && dirs[0] == "asc" {
		f.Sort = []store.SortKey{{Key: "created_at"}}
	}
	return false, nil
}
