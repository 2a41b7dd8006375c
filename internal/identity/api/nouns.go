package api

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"kilonova/internal/clock"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/identity"
	"kilonova/internal/identity/local"
	"kilonova/internal/policy"
)

// resources describes each noun: what is special about it beside its fields.
func (a *api) resources() {
	s := a.s
	a.projects = &resource[identity.Project, *identity.Project]{one: "project", many: "projects", path: "/v3/projects", coll: s.Projects,
		create: a.createProject, change: changeProject, sieve: sieveProjects}
	a.domains = &resource[identity.Project, *identity.Project]{one: "domain", many: "domains", path: "/v3/domains", coll: s.Projects,
		fixed: []local.Filter{{Field: "is_domain", Value: "true"}}, belongs: func(p *identity.Project) bool { return p.IsDomain },
		create: createDomain, change: changeProject, finish: finishDomain, own: false}
	a.users = &resource[identity.User, *identity.User]{one: "user", many: "users", path: "/v3/users", coll: s.Users,
		secret: []string{"password", "original_password"}, create: a.createUser}
	a.groups = &resource[identity.Group, *identity.Group]{one: "group", many: "groups", path: "/v3/groups", coll: s.Groups,
		create: func(r *httpapi.Request, g *identity.Group, _ body) error { return ownDomain(r, &g.DomainID) }}
	a.roles = &resource[identity.Role, *identity.Role]{one: "role", many: "roles", path: "/v3/roles", coll: s.Roles, sieve: sieveRoles}
	a.regions = &resource[identity.Region, *identity.Region]{one: "region", many: "regions", path: "/v3/regions", coll: s.Regions, own: true}
	a.services = &resource[identity.Service, *identity.Service]{one: "service", many: "services", path: "/v3/services", coll: s.Services}
	a.endpoints = &resource[identity.Endpoint, *identity.Endpoint]{one: "endpoint", many: "endpoints", path: "/v3/endpoints", coll: s.Endpoints,
		secret: []string{"region"}, create: a.createEndpoint, change: a.changeEndpoint, finish: finishEndpoint}
	a.credentials = &resource[identity.Credential, *identity.Credential]{one: "credential", many: "credentials", path: "/v3/credentials", coll: s.Credentials,
		create: a.createCredential, change: a.changeCredential, finish: a.finishCredential, sieve: sieveCredentials}
	a.policies = &resource[identity.Policy, *identity.Policy]{one: "policy", many: "policies", path: "/v3/policies", coll: s.Policies}
	a.registeredLimits = &resource[identity.RegisteredLimit, *identity.RegisteredLimit]{one: "registered_limit", many: "registered_limits",
		path: "/v3/registered_limits", coll: s.RegisteredLimits}
	a.limits = &resource[identity.Limit, *identity.Limit]{one: "limit", many: "limits", path: "/v3/limits", coll: s.Limits, sieve: sieveLimits}
	a.consumers = &resource[identity.Consumer, *identity.Consumer]{one: "consumer", many: "consumers", path: "/v3/OS-OAUTH1/consumers", coll: s.Consumers,
		secret: []string{"secret"}}
	a.endpointGroups = &resource[identity.EndpointGroup, *identity.EndpointGroup]{one: "endpoint_group", many: "endpoint_groups",
		path: "/v3/OS-EP-FILTER/endpoint_groups", coll: s.EndpointGroups}
	a.appCreds = &resource[identity.AppCred, *identity.AppCred]{one: "application_credential", many: "application_credentials", coll: s.AppCreds}
	a.accessRules = &resource[identity.AccessRule, *identity.AccessRule]{one: "access_rule", many: "access_rules", coll: s.AccessRules}
	a.trusts = &resource[identity.Trust, *identity.Trust]{one: "trust", many: "trusts", path: "/v3/OS-TRUST/trusts", coll: s.Trusts}
}

// ownDomain fills a missing domain from the caller's scope.
func ownDomain(r *httpapi.Request, domain *string) error {
	for _, d := range []string{r.Caller.DomainID, r.Caller.ProjectDomainID, r.Caller.UserDomainID} {
		if *domain == "" {
			*domain = d
		}
	}
	return nil
}

func (a *api) createProject(r *httpapi.Request, p *identity.Project, _ body) error {
	if p.IsDomain || p.DomainID != "" {
		return nil
	}
	if p.ParentID != "" {
		parent, err := a.s.Projects.Get(r.Context(), p.ParentID)
		if err != nil {
			return err
		}
		p.DomainID = parent.DomainID
		if parent.IsDomain {
			p.DomainID = parent.ID
		}
		return nil
	}
	return ownDomain(r, &p.DomainID)
}

func changeProject(_ *httpapi.Request, p *identity.Project, _ body) error {
	if len(p.Tags) > maxTags {
		return tooManyTags()
	}
	return nil
}

// sieveProjects leaves out domains unless they were asked for, and applies the four filters on tags.
func sieveProjects(r *httpapi.Request, list []identity.Project) ([]identity.Project, error) {
	q := r.Query()
	tags := func(name string) []string {
		if q.Get(name) == "" {
			return nil
		}
		return strings.Split(q.Get(name), ",")
	}
	all, some, notAll, none := tags("tags"), tags("tags-any"), tags("not-tags"), tags("not-tags-any")
	return slices.DeleteFunc(list, func(p identity.Project) bool {
		count := func(want []string) (n int) {
			for _, t := range want {
				if slices.Contains(p.Tags, t) {
					n++
				}
			}
			return n
		}
		return !q.Has("is_domain") && p.IsDomain || all != nil && count(all) < len(all) || some != nil && count(some) == 0 ||
			notAll != nil && count(notAll) == len(notAll) || none != nil && count(none) > 0
	}), nil
}

func createDomain(_ *httpapi.Request, p *identity.Project, b body) error {
	p.IsDomain, p.DomainID, p.ParentID = true, "", ""
	if raw := b["explicit_domain_id"]; raw != nil {
		delete(p.Extra, "explicit_domain_id")
		if err := json.Unmarshal(raw, &p.ID); err != nil {
			return fault.Wrap(err, fault.Invalid, "Invalid input for field 'explicit_domain_id'.")
		}
	}
	return nil
}

func finishDomain(_ *httpapi.Request, _ *identity.Project, d document) {
	delete(d, "is_domain")
	delete(d, "domain_id")
	delete(d, "parent_id")
}

func (a *api) createUser(r *httpapi.Request, u *identity.User, b body) error {
	if err := ownDomain(r, &u.DomainID); err != nil {
		return err
	}
	u.CreatedAt = clock.Now()
	// Who may not create users must not make the service hash passwords.
	if err := a.users.authorize(r, "create", u); err != nil {
		return err
	}
	hash, ok, err := a.hashOf(r, b)
	if ok {
		a.s.PutHash(u, hash)
	}
	return err
}

// hashOf hashes the password of a body; false when the body has none.
func (a *api) hashOf(r *httpapi.Request, b body) (string, bool, error) {
	raw, ok := b["password"]
	if !ok || string(raw) == "null" {
		return "", ok, nil
	}
	var password string
	if err := json.Unmarshal(raw, &password); err != nil {
		return "", false, fault.New(fault.Invalid, "Invalid input for field 'password': it must be a string.")
	}
	h, err := a.s.HashPassword(r.Context(), password)
	return h, true, err
}

func sieveRoles(r *httpapi.Request, list []identity.Role) ([]identity.Role, error) {
	if r.Query().Has("domain_id") {
		return list, nil
	}
	return slices.DeleteFunc(list, func(x identity.Role) bool { return x.DomainID != "" }), nil
}

// createEndpoint takes the old attribute "region" too, which names a region that is made when it is not there.
func (a *api) createEndpoint(r *httpapi.Request, e *identity.Endpoint, b body) error {
	region, err := oldRegion(b)
	if err != nil || region == "" {
		return err
	}
	e.RegionID = region
	if err := a.endpoints.authorize(r, "create", e); err != nil {
		return err
	}
	return a.makeRegion(r, region)
}

func oldRegion(b body) (string, error) {
	var region string
	if raw := b["region"]; raw != nil && b["region_id"] == nil {
		if err := set(&region, raw); err != nil {
			return "", fault.Wrap(err, fault.Invalid, "Invalid input for field 'region'.")
		}
	}
	return region, nil
}

func (a *api) makeRegion(r *httpapi.Request, region string) error {
	_, err := a.s.Regions.Get(r.Context(), region)
	if !errors.Is(err, fault.NotFound) {
		return err
	}
	err = a.s.Regions.Create(r.Context(), &identity.Region{ID: region})
	if errors.Is(err, fault.Conflict) {
		return nil
	}
	return err
}

func (a *api) changeEndpoint(_ *httpapi.Request, e *identity.Endpoint, b body) error {
	region, err := oldRegion(b)
	if region != "" {
		e.RegionID = region
	}
	return err
}

func finishEndpoint(_ *httpapi.Request, _ *identity.Endpoint, d document) {
	d["region"] = d["region_id"]
}

func (a *api) createCredential(r *httpapi.Request, c *identity.Credential, _ body) error {
	if c.UserID == "" {
		c.UserID = r.Caller.UserID
	}
	if c.Type == local.TypeEC2 {
		if c.ProjectID == "" {
			return fault.New(fault.Invalid, "Invalid input for field 'project_id': a credential of type ec2 needs a project.")
		}
		var blob local.EC2Blob
		if err := json.Unmarshal([]byte(c.Blob), &blob); err != nil || blob.Access == "" {
			return fault.New(fault.Invalid, "Invalid input for field 'blob': it must be JSON with the keys access and secret.")
		}
		c.ID = local.EC2CredentialID(blob.Access)
	}
	return a.s.SealBlob(c)
}

func (a *api) changeCredential(_ *httpapi.Request, c *identity.Credential, b body) error {
	if b["blob"] == nil {
		return nil
	}
	return a.s.SealBlob(c)
}

func (a *api) finishCredential(_ *httpapi.Request, c *identity.Credential, d document) {
	open := *c
	if a.s.OpenBlob(&open) != nil {
		d["blob"] = nil // its key was lost; the row can still be deleted
		return
	}
	d["blob"] = open.Blob
}

// sieveCredentials leaves each caller what policy lets it see.
func sieveCredentials(r *httpapi.Request, list []identity.Credential) ([]identity.Credential, error) {
	return slices.DeleteFunc(list, func(c identity.Credential) bool {
		return !r.Allowed("identity:get_credential", policy.Target{"target.credential.user_id": c.UserID})
	}), nil
}

// sieveLimits leaves the limits of the caller's own project or domain to those who are no readers of everything.
func sieveLimits(r *httpapi.Request, list []identity.Limit) ([]identity.Limit, error) {
	return slices.DeleteFunc(list, func(l identity.Limit) bool {
		return !r.Allowed("identity:get_limit", policy.Target{"target.limit.project_id": l.ProjectID, "target.limit.domain_id": l.DomainID})
	}), nil
}
