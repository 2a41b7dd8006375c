package cloud

import (
	"context"
	"encoding/json"
	"slices"

	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

// resource is a quota with the last minors of the documents that show it; 0: still shown.
type resource struct {
	name                  string
	setUntil              int // quota sets
	classSince, classLast int // quota classes
}

// resources are what quota documents show.
var resources = []resource{
	{"instances", 0, 0, 0}, {"cores", 0, 0, 0}, {"ram", 0, 0, 0}, {"metadata_items", 0, 0, 0}, {"key_pairs", 0, 0, 0},
	{"server_groups", 0, 50, 0}, {"server_group_members", 0, 50, 0},
	{"injected_files", 56, 0, 56}, {"injected_file_content_bytes", 56, 0, 56}, {"injected_file_path_bytes", 56, 0, 56},
	{"fixed_ips", 35, 0, 49}, {"floating_ips", 35, 0, 49}, {"security_groups", 35, 0, 49}, {"security_group_rules", 35, 0, 49},
}

// quotaNames are the resources that quota sets show at a version.
func quotaNames(minor int) []string {
	var out []string
	for _, r := range resources {
		if r.setUntil == 0 || minor <= r.setUntil {
			out = append(out, r.name)
		}
	}
	return out
}

// classNames are the resources that quota classes show at a version.
func classNames(minor int) []string {
	var out []string
	for _, r := range resources {
		if minor >= r.classSince && (r.classLast == 0 || minor <= r.classLast) {
			out = append(out, r.name)
		}
	}
	return out
}

func limitsView(l store.Limits, names []string) document {
	d := document{}
	for _, n := range names {
		d[n] = l.Of(n)
	}
	return d
}

// allowedQuota asks a quota rule about the project of the path, then whether the project exists.
func (a api) allowedQuota(r *httpapi.Request, rule string) (project string, err error) {
	project = r.Path("id")
	if err := r.Authorize(backend.Rule("os-quota-sets:"+rule), backend.Target(project, r.Caller.UserID)); err != nil {
		return "", err
	}
	return project, a.KnownProject(r.Context(), project)
}

func (a api) showQuota(r *httpapi.Request) (*httpapi.Reply, error) {
	project, err := a.allowedQuota(r, "show")
	if err != nil {
		return nil, err
	}
	l, err := a.Store.Limits(r.Context(), a.DB(), a.Quota, project, httpapi.Last(r.Query(), "user_id"))
	if err != nil {
		return nil, err
	}
	d := limitsView(l, quotaNames(backend.Minor(r)))
	d["id"] = project
	return reply("quota_set", d), nil
}

func (a api) defaultQuota(r *httpapi.Request) (*httpapi.Reply, error) {
	project, err := a.allowedQuota(r, "defaults")
	if err != nil {
		return nil, err
	}
	l, err := a.Store.ClassLimits(r.Context(), a.DB(), a.Quota, "default")
	if err != nil {
		return nil, err
	}
	d := limitsView(l, quotaNames(backend.Minor(r)))
	d["id"] = project
	return reply("quota_set", d), nil
}

func (a api) detailQuota(r *httpapi.Request) (*httpapi.Reply, error) {
	project, err := a.allowedQuota(r, "detail")
	if err != nil {
		return nil, err
	}
	user := httpapi.Last(r.Query(), "user_id")
	l, err := a.Store.Limits(r.Context(), a.DB(), a.Quota, project, user)
	if err != nil {
		return nil, err
	}
	used, err := a.Store.Usage(r.Context(), a.DB(), project, user)
	if err != nil {
		return nil, err
	}
	d := document{"id": project}
	for _, n := range quotaNames(backend.Minor(r)) {
		inUse := used.ByName(n)
		if n == "key_pairs" {
			inUse = 0 // key pairs belong to users, not to projects
		}
		d[n] = document{"limit": l.Of(n), "in_use": inUse, "reserved": 0}
	}
	return reply("quota_set", d), nil
}

// wanted reads the limits of a body, without what is no limit.
func wanted(r *httpapi.Request, key string) (limits store.Limits, force bool, err error) {
	raw, err := decode[map[string]json.RawMessage](r, key)
	if err != nil {
		return nil, false, err
	}
	limits = store.Limits{}
	for name, text := range raw {
		if name == "force" {
			var v backend.Bool
			if err := json.Unmarshal(text, &v); err != nil {
				return nil, false, err
			}
			force = bool(v)
			continue
		}
		var n backend.Int
		if err := json.Unmarshal(text, &n); err != nil {
			return nil, false, err
		}
		limits[name] = int64(n)
	}
	return limits, force, nil
}

// updateQuota sets limits of a project or of one user in it. Without force a limit below what is used is refused, and so is a user's limit
// above the project's, or a project's below a user's. Both hold when something is made, whatever their order.
func (a api) updateQuota(r *httpapi.Request) (*httpapi.Reply, error) {
	project, err := a.allowedQuota(r, "update")
	if err != nil {
		return nil, err
	}
	l, force, err := wanted(r, "quota_set")
	if err != nil {
		return nil, err
	}
	ctx, user := r.Context(), httpapi.Last(r.Query(), "user_id")
	var after store.Limits
	err = a.DB().Write(ctx, func(tx *db.Tx) error {
		low, high, err := a.bounds(ctx, tx, project, user, force)
		if err != nil {
			return err
		}
		for _, name := range sorted(l) {
			if n := l[name]; n != -1 && n < low.Of(name) {
				return fault.New(fault.Invalid, "Quota limit %d for %s must be greater than or equal to already used and reserved %d.", n, name, low.Of(name))
			}
			if n, most := l[name], high.Of(name); most != -1 && (n == -1 || n > most) {
				return fault.New(fault.Invalid, "Quota limit %d for %s must be less than or equal to %d.", n, name, most)
			}
		}
		if err := a.Store.SetLimits(ctx, tx, project, user, l); err != nil {
			return err
		}
		after, err = a.Store.Limits(ctx, tx, a.Quota, project, user)
		return err
	})
	if err != nil {
		return nil, err
	}
	return reply("quota_set", limitsView(after, quotaNames(backend.Minor(r)))), nil
}

// bounds gives what new limits must not fall below and not exceed.
func (a api) bounds(ctx context.Context, tx *db.Tx, project, user string, force bool) (low, high store.Limits, err error) {
	low, high = store.Limits{}, store.Limits{}
	if force {
		return low, high, nil
	}
	if user != "" {
		if high, err = a.Store.Limits(ctx, tx, a.Quota, project, ""); err != nil {
			return nil, nil, err
		}
	} else if low, err = a.Store.UserLimitsAbove(ctx, tx, project); err != nil {
		return nil, nil, err
	}
	used, err := a.Store.Usage(ctx, tx, project, user)
	if err != nil {
		return nil, nil, err
	}
	for _, r := range resources {
		if n := used.ByName(r.name); n > low.Of(r.name) {
			low[r.name] = n
		}
	}
	return low, high, nil
}

func sorted(l store.Limits) []string {
	var names []string
	for n := range l {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func (a api) deleteQuota(r *httpapi.Request) (*httpapi.Reply, error) {
	project := r.Path("id")
	if err := r.Authorize(backend.Rule("os-quota-sets:delete"), backend.Target(project, r.Caller.UserID)); err != nil {
		return nil, err
	}
	return &httpapi.Reply{}, a.DB().Write(r.Context(), func(tx *db.Tx) error {
		return a.Store.ResetLimits(r.Context(), tx, project, httpapi.Last(r.Query(), "user_id"))
	})
}

func (a api) showQuotaClass(r *httpapi.Request) (*httpapi.Reply, error) {
	l, err := a.Store.ClassLimits(r.Context(), a.DB(), a.Quota, r.Path("id"))
	if err != nil {
		return nil, err
	}
	d := limitsView(l, classNames(backend.Minor(r)))
	d["id"] = r.Path("id")
	return reply("quota_class_set", d), nil
}

// updateQuotaClass sets the limits of a class. Only the class "default" has an effect: it is what projects have that set nothing.
func (a api) updateQuotaClass(r *httpapi.Request) (*httpapi.Reply, error) {
	l, _, err := wanted(r, "quota_class_set")
	if err != nil {
		return nil, err
	}
	ctx, class := r.Context(), r.Path("id")
	var after store.Limits
	err = a.DB().Write(ctx, func(tx *db.Tx) error {
		if err := a.Store.SetClassLimits(ctx, tx, class, l); err != nil {
			return err
		}
		after, err = a.Store.ClassLimits(ctx, tx, a.Quota, class)
		return err
	})
	if err != nil {
		return nil, err
	}
	return reply("quota_class_set", limitsView(after, classNames(backend.Minor(r)))), nil
}

// absolute are the names of /limits: of limits, and of what is used, with their last minors.
var absolute = []struct {
	name, resource string
	used           bool
	until          int
}{
	{"maxTotalInstances", "instances", false, 0}, {"maxTotalCores", "cores", false, 0}, {"maxTotalRAMSize", "ram", false, 0},
	{"maxServerMeta", "metadata_items", false, 0}, {"maxImageMeta", "metadata_items", false, 38}, {"maxTotalKeypairs", "key_pairs", false, 0},
	{"maxServerGroups", "server_groups", false, 0}, {"maxServerGroupMembers", "server_group_members", false, 0},
	{"maxPersonality", "injected_files", false, 56}, {"maxPersonalitySize", "injected_file_content_bytes", false, 56},
	{"maxTotalFloatingIps", "floating_ips", false, 35}, {"maxSecurityGroups", "security_groups", false, 35},
	{"maxSecurityGroupRules", "security_group_rules", false, 35},
	{"totalInstancesUsed", "instances", true, 0}, {"totalCoresUsed", "cores", true, 0}, {"totalRAMUsed", "ram", true, 0},
	{"totalServerGroupsUsed", "server_groups", true, 0}, {"totalFloatingIpsUsed", "floating_ips", true, 35},
	{"totalSecurityGroupsUsed", "security_groups", true, 35},
}

// showLimits gives the caller's project's limits and use, or another project's to those who may see it.
func (a api) showLimits(r *httpapi.Request) (*httpapi.Reply, error) {
	project := r.Caller.ProjectID
	if other := httpapi.Last(r.Query(), "tenant_id"); other != "" && other != project {
		if err := r.Authorize(backend.Rule("limits:other_project"), backend.Target(other, "")); err != nil {
			return nil, err
		}
		project = other
	}
	l, err := a.Store.Limits(r.Context(), a.DB(), a.Quota, project, "")
	if err != nil {
		return nil, err
	}
	used, err := a.Store.Usage(r.Context(), a.DB(), project, "")
	if err != nil {
		return nil, err
	}
	d, minor := document{}, backend.Minor(r)
	for _, n := range absolute {
		switch {
		case n.until > 0 && minor > n.until:
		case n.used:
			d[n.name] = used.ByName(n.resource)
		default:
			d[n.name] = l.Of(n.resource)
		}
	}
	return reply("limits", document{"rate": []any{}, "absolute": d}), nil
}
