// Package filter reads what a request for a list of servers asks for: which servers, and in which order. Who may filter by what, and how each filter compares,
// is the API reference's "List Servers"; https://docs.openstack.org/api-ref/compute/.
package filter

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/store"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

// open are the filters that every caller may use, with the minor from which.
var open = map[string]int{"reservation_id": 1, "name": 1, "status": 1, "image": 1, "flavor": 1, "ip": 1, "ip6": 5, "changes-since": 1, "all_tenants": 1,
	"changes-before": 66, "tags": 26, "tags-any": 26, "not-tags": 26, "not-tags-any": 26, "locked": 73, "availability_zone": 83, "config_drive": 83, "key_name": 83,
	"created_at": 83, "launched_at": 83, "terminated_at": 83, "power_state": 83, "task_state": 83, "vm_state": 83, "progress": 83, "user_id": 83, "hostname": 90}

// exact are filters that compare a column with a text.
var exact = map[string]string{"image": "image_ref", "image_ref": "image_ref", "flavor": "flavor", "host": "host"}

// matched are filters that match a part of a column, as a regular expression.
var matched = map[string]string{"reservation_id": "reservation_id", "node": "node", "hostname": "hostname", "key_name": "key_name", "kernel_id": "kernel_id",
	"ramdisk_id": "ramdisk_id", "availability_zone": "availability_zone", "locked_by": "locked_by", "root_device_name": "root_device_name", "access_ip_v4": "access_ip_v4",
	"access_ip_v6": "access_ip_v6", "auto_disk_config": "auto_disk_config"}

// numbers are filters that compare a column with an integer; what is none is matched with its digits.
var numbers = map[string]string{"power_state": "power_state", "launch_index": "launch_index", "progress": "progress"}

// moments are filters that compare a column with a time; what is none is matched with its text.
var moments = map[string]string{"created_at": "created_at", "launched_at": "launched_at", "terminated_at": "terminated_at"}

// joined are names of parts of a server that are no filters and yet reach this far: they are refused from callers who may use all filters.
var joined = []string{"block_device_mapping", "services", "metadata", "system_metadata", "info_cache", "security_groups", "pci_devices"}

// Servers reads the filters and the order that a request for a list of servers names; kind is "index" or "detail", for the rules. none tells that nothing can
// match. It fails with fault.Invalid for what cannot be read and with fault.Forbidden for what the caller may not ask. What the caller may not filter by is
// passed over.
func Servers(r *httpapi.Request, kind string) (f store.ListFilter, none bool, err error) {
	q, admin := url.Values{}, r.Allowed(backend.Rule("servers:allow_all_filters"), r.Own())
	for k, v := range r.Query() {
		if admin && (slices.Contains(joined, k) || strings.HasPrefix(k, "_")) {
			return f, false, fault.New(fault.Invalid, "Invalid filter field: %s.", k)
		}
		if from, ok := open[k]; admin || ok && backend.Minor(r) >= from {
			q[k] = v
		}
	}
	if f.ProjectID, err = scope(r, kind, q); err != nil {
		return f, false, err
	}
	f.Equal = map[string][]any{}
	for k, col := range exact {
		if v := httpapi.Last(q, k); v != "" {
			f.Equal[col] = []any{v}
		}
	}
	f.Match = map[string]string{}
	for k, col := range matched {
		if v := httpapi.Last(q, k); v != "" {
			f.Match[col] = v
		}
	}
	if v := httpapi.Last(q, "uuid"); v != "" {
		f.IDs = []string{v}
	}
	f.Name, f.IP, f.IP6 = first(q, "name", "display_name"), httpapi.Last(q, "ip"), httpapi.Last(q, "ip6")
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
		if v := httpapi.Last(q, n); v != "" {
			return v
		}
	}
	return ""
}

// scope gives the project to list: the caller's own, or with all_tenants any.
func scope(r *httpapi.Request, kind string, q url.Values) (string, error) {
	all := false // a project may be named only together with all_tenants
	if v, given := q["all_tenants"]; given {
		all = true
		if v := v[len(v)-1]; v != "" {
			yes, ok := backend.ParseBool(v)
			if !ok {
				return "", fault.New(fault.Invalid, "Invalid value for all_tenants: %q is not a boolean.", v)
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
		if len(vms) == 1 && vms[0] == compute.VMDeleted {
			if !r.Caller.IsAdmin() {
				return false, fault.New(fault.Forbidden, "Only administrators may list deleted instances")
			}
			f.Deleted = &yes
		}
		f.VMStates, f.TaskStates = vms, tasks
	} else if v := q["vm_state"]; len(v) > 0 {
		f.VMStates = v
	}
	if v := q["task_state"]; len(v) > 0 && f.TaskStates == nil {
		for _, t := range v {
			if t == "None" || t == "null" {
				t = ""
			}
			f.TaskStates = append(f.TaskStates, t)
		}
	}
	if v := httpapi.Last(q, "deleted"); v != "" && f.Deleted == nil {
		is, _ := backend.ParseBool(v) // what is no boolean asks for what is there
		f.Deleted = &is
	}
	f.SoftDeleted = softDeleted(q, f)
	return false, nil
}

// softDeleted tells what becomes of servers that are soft deleted: a list of what is there leaves them out unless it asks for their state, one of what was
// deleted has them, and one of changes has whatever changed.
func softDeleted(q url.Values, f *store.ListFilter) *bool {
	changes := q.Has("changes-since") || q.Has("changes-before")
	switch is, ok := backend.ParseBool(httpapi.Last(q, "soft_deleted")); {
	case ok:
		return &is
	case f.Deleted != nil && *f.Deleted:
		return f.Deleted
	case f.Deleted == nil && changes, slices.Contains(f.VMStates, compute.VMSoftDeleted):
		return nil
	}
	return new(bool)
}

// typedOf reads the filters that are numbers and booleans.
func typedOf(_ *httpapi.Request, q url.Values, f *store.ListFilter) (bool, error) {
	for k, col := range numbers {
		v := httpapi.Last(q, k)
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			f.Equal[col] = []any{n}
		} else if v != "" {
			f.Match[col] = v
		}
	}
	if v := httpapi.Last(q, "config_drive"); v != "" {
		is, ok := backend.ParseBool(v)
		if !ok {
			return true, nil
		}
		f.Equal["config_drive"] = []any{is}
	}
	if v := httpapi.Last(q, "locked"); v != "" {
		is, ok := backend.ParseBool(v)
		if !ok {
			return false, fault.New(fault.Invalid, "Unrecognized value '%s' for locked; acceptable values are booleans.", v)
		}
		f.Locked = &is
	}
	f.UserID = httpapi.Last(q, "user_id")
	return false, nil
}

// timesOf reads the filters that are times.
func timesOf(_ *httpapi.Request, q url.Values, f *store.ListFilter) (bool, error) {
	f.Times = map[string][2]time.Time{}
	for k, col := range moments {
		v := httpapi.Last(q, k)
		if t, err := backend.Time(k, v); err == nil && len(v) > len(time.DateOnly) {
			t = t.Truncate(time.Second)
			f.Times[col] = [2]time.Time{t, t.Add(time.Second)}
		} else if v != "" {
			f.Match[col] = v
		}
	}
	for _, k := range []string{"changes-since", "changes-before"} {
		v := httpapi.Last(q, k)
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
	if !f.ChangesBefore.IsZero() {
		if f.ChangesBefore.Before(f.ChangesSince) {
			return false, fault.New(fault.Invalid, "The value of changes-since must be less than or equal to changes-before.")
		}
		f.ChangesBefore = backend.Through(f.ChangesBefore)
	}
	return false, nil
}

// labelsOf reads the filters on tags.
func labelsOf(_ *httpapi.Request, q url.Values, f *store.ListFilter) (bool, error) {
	for k, into := range map[string]*[]string{"tags": &f.Tags, "tags-any": &f.TagsAny, "not-tags": &f.NotTags, "not-tags-any": &f.NotTagsAny} {
		if v := httpapi.Last(q, k); v != "" {
			*into = strings.Split(v, ",")
		}
	}
	return false, nil
}

// unsorted are sort keys that are known and dropped.
var unsorted = []string{"architecture", "cell_name", "cleaned", "default_ephemeral_device", "default_swap_device", "deleted", "deleted_at", "disable_terminate", "ephemeral_gb",
	"ephemeral_key_uuid", "id", "key_data", "launched_on", "memory_mb", "os_type", "reservation_id", "root_gb", "shutdown_terminate", "user_data", "vcpus", "vm_mode"}

// sortOf reads sort_key and sort_dir. Directions belong to keys by their place; a key that has none takes the first one.
func sortOf(r *httpapi.Request, _ url.Values, f *store.ListFilter) (bool, error) {
	keys, dirs := slices.Clone(r.Query()["sort_key"]), slices.Clone(r.Query()["sort_dir"])
	if len(keys) == 0 {
		keys = []string{"created_at"}
	}
	for i := 0; i < len(keys); {
		keys[i] = strings.TrimSpace(keys[i])
		switch key := keys[i]; {
		case slices.Contains(unsorted, key), key == "locked" && backend.Minor(r) < 73:
			keys = slices.Delete(keys, i, i+1)
			if i < len(dirs) {
				dirs = slices.Delete(dirs, i, i+1)
			}
			continue
		case (key == "host" || key == "node") && !r.Caller.IsAdmin():
			return false, fault.New(fault.Forbidden, "Only administrators can sort servers by %s", key)
		}
		i++
	}
	if len(keys) == 0 && len(dirs) == 0 {
		return false, nil
	}
	if len(dirs) > max(len(keys), 1) {
		return false, fault.New(fault.Invalid, "Sort direction array size exceeds sort key array size")
	}
	for i, dir := range dirs {
		if dirs[i] = strings.TrimSpace(dir); dirs[i] != "asc" && dirs[i] != "desc" {
			return false, fault.New(fault.Invalid, "Unknown sort direction, must be 'desc' or 'asc'")
		}
	}
	for i, key := range keys {
		dir := "desc"
		switch {
		case i < len(dirs):
			dir = dirs[i]
		case len(dirs) > 0:
			dir = dirs[0]
		}
		f.Sort = append(f.Sort, store.SortKey{Key: key, Desc: dir == "desc"})
	}
	return false, nil
}
