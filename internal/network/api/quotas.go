package api

import (
	"maps"
	"slices"

	"kilonova/internal/auth"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/network/quota"
	"kilonova/internal/policy"
)

// quotaCaller asks policy about a project's quotas. Another project's are refused.
func quotaCaller(r *httpapi.Request, action string) (string, error) {
	project := r.Path("project")
	q := newCall(r)
	return project, deny(q, action+"_quota", policy.Target{"project_id": project, "tenant_id": project})
}

func limits(m map[string]quota.Usage) map[string]int64 {
	out := map[string]int64{}
	for r, u := range m {
		out[r] = u.Limit
	}
	return out
}

func (a *API) listQuotas(r *httpapi.Request) (*httpapi.Reply, error) {
	q := newCall(r)
	all, err := a.svc.QuotaProjects(r.Context())
	if err != nil {
		return nil, err
	}
	if err := deny(q, "get_quota", policy.Target{}); err != nil {
		return nil, err
	}
	out := []map[string]any{}
	for _, p := range slices.Sorted(maps.Keys(all)) {
		m := map[string]any{"project_id": p, "tenant_id": p}
		for res, l := range all[p] {
			m[res] = l
		}
		out = append(out, m)
	}
	return httpapi.OK(map[string]any{"quotas": out}), nil
}

func (a *API) showQuota(r *httpapi.Request) (*httpapi.Reply, error) {
	if p := r.Path("project"); p == "tenant" || p == "project" { // whose token is this
		return httpapi.OK(map[string]any{p: ownProject(r.Caller)}), nil
	}
	project, err := quotaCaller(r, "get")
	if err != nil {
		return nil, err
	}
	m, err := a.svc.Quotas(r.Context(), project)
	if err != nil {
		return nil, err
	}
	return httpapi.OK(map[string]any{"quota": limits(m)}), nil
}

func ownProject(c *auth.Caller) map[string]string {
	return map[string]string{"tenant_id": c.ProjectID, "project_id": c.ProjectID}
}

func (a *API) defaultQuota(r *httpapi.Request) (*httpapi.Reply, error) {
	if _, err := quotaCaller(r, "get"); err != nil {
		return nil, err
	}
	return httpapi.OK(map[string]any{"quota": a.svc.QuotaDefaults()}), nil
}

func (a *API) quotaDetails(r *httpapi.Request) (*httpapi.Reply, error) {
	project, err := quotaCaller(r, "get")
	if err != nil {
		return nil, err
	}
	m, err := a.svc.Quotas(r.Context(), project)
	if err != nil {
		return nil, err
	}
	out := map[string]any{}
	for res, u := range m {
		out[res] = map[string]int64{"limit": u.Limit, "used": u.Used, "reserved": 0}
	}
	return httpapi.OK(map[string]any{"quota": out}), nil
}

func (a *API) setQuota(r *httpapi.Request) (*httpapi.Reply, error) {
	project, err := quotaCaller(r, "update")
	if err != nil {
		return nil, err
	}
	obj, err := bodyOf(r, "quota")
	if err != nil {
		return nil, err
	}
	check, _ := boolean(obj["check_limit"])
	delete(obj, "check_limit")
	delete(obj, "force")
	delete(obj, "tenant_id")
	delete(obj, "project_id")
	set := map[string]int64{}
	for name, v := range obj {
		if !slices.Contains(quota.Resources(), name) {
			return nil, badRequest("Unrecognized attribute(s) '%s'", name)
		}
		n, problem := number(-1, 1<<31-1)(v)
		if problem != "" {
			return nil, badRequest("Invalid input for %s. Reason: %s", name, problem)
		}
		limit, _ := n.(int)
		set[name] = int64(limit)
	}
	if check == true {
		if err := a.notBelowUse(r, project, set); err != nil {
			return nil, err
		}
	}
	if err := a.svc.SetQuotas(r.Context(), project, set); err != nil {
		return nil, err
	}
	m, err := a.svc.Quotas(r.Context(), project)
	if err != nil {
		return nil, err
	}
	return httpapi.OK(map[string]any{"quota": limits(m)}), nil
}

func (a *API) notBelowUse(r *httpapi.Request, project string, set map[string]int64) error {
	m, err := a.svc.Quotas(r.Context(), project)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if set[name] >= 0 && m[name].Used > set[name] {
			return fault.New(fault.Invalid, "Quota limit %d of %s is below the %d in use.", set[name], name, m[name].Used).WithCode("QuotaException")
		}
	}
	return nil
}

func (a *API) resetQuota(r *httpapi.Request) (*httpapi.Reply, error) {
	project, err := quotaCaller(r, "delete")
	if err != nil {
		return nil, err
	}
	if err := a.svc.ResetQuotas(r.Context(), project); err != nil {
		return nil, err
	}
	return httpapi.NoContent(), nil
}
