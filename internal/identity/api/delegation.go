package api

import (
	"encoding/json"
	"net/http"
	"time"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/identity"
	"kilonova/internal/identity/local"
	"kilonova/internal/policy"
)

// ownPath authorizes a request below /v3/users/{id}: the user itself, and whom the rule lets in besides.
func ownPath(r *httpapi.Request, rule string) error {
	return authorize(r, rule, policy.Target{"user_id": r.Path("id")})
}

// appCredDocument is an application credential with its roles and rules.
func (a *api) appCredDocument(r *httpapi.Request, c *identity.AppCred, roles []identity.Role, rules []identity.AccessRule) document {
	d := a.appCreds.view(r, c)
	d["links"] = document{"self": r.Base + "/v3/users/" + c.UserID + "/application_credentials/" + c.ID}
	list := []document{}
	for _, x := range roles {
		var domain any
		if x.DomainID != "" {
			domain = x.DomainID
		}
		list = append(list, document{"id": x.ID, "name": x.Name, "domain_id": domain})
	}
	d["roles"] = list
	if len(rules) > 0 {
		docs := make([]document, len(rules))
		for i := range rules {
			docs[i] = a.ruleDocument(&rules[i])
		}
		d["access_rules"] = docs
	}
	return d
}

func (a *api) ruleDocument(x *identity.AccessRule) document {
	return document{"id": x.ID, "service": x.Service, "method": x.Method, "path": x.Path}
}

// createAppCred answers POST /v3/users/{id}/application_credentials.
func (a *api) createAppCred(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := ownPath(r, "identity:create_application_credential"); err != nil {
		return nil, err
	}
	tok, err := a.token(r)
	if err != nil {
		return nil, err
	}
	b, err := inner(r, "application_credential")
	if err != nil {
		return nil, err
	}
	var c identity.AppCred
	if err := a.appCreds.assign(&c, b, true); err != nil {
		return nil, err
	}
	if !c.ExpiresAt.IsZero() && !c.ExpiresAt.After(time.Now()) {
		return nil, fault.New(fault.Invalid, "The application credential would expire in the past: give a later expires_at.")
	}
	var in struct {
		Secret string                `json:"secret"`
		Roles  []identity.Ref        `json:"roles"`
		Rules  []identity.AccessRule `json:"access_rules"`
	}
	text, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &in); err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "The application credential's roles or access rules are malformed.")
	}
	secret, rules, err := a.s.CreateAppCred(r.Context(), &c, in.Roles, in.Rules, tok, in.Secret)
	if err != nil {
		return nil, err
	}
	roles, err := a.s.Roles.Many(r.Context(), c.RoleIDs)
	if err != nil {
		return nil, err
	}
	d := a.appCredDocument(r, &c, roles, rules)
	d["secret"] = secret
	return httpapi.Created(document{"application_credential": d}), nil
}

// undelegated refuses tokens of trusts and of restricted application credentials: what was lent must not make itself lasting.
func (a *api) undelegated(r *httpapi.Request) error {
	tok, err := a.token(r)
	if err != nil {
		return err
	}
	if tok.Trust != nil || tok.AppCred != nil && !tok.AppCred.Unrestricted {
		return fault.New(fault.Forbidden, "A token of a trust or a restricted application credential cannot manage secrets. Log in with a password.")
	}
	return nil
}

// guarded puts undelegated before the handlers of the routes.
func (a *api) guarded(routes []httpapi.Route) []httpapi.Route {
	for i, rt := range routes {
		routes[i].Handle = func(r *httpapi.Request) (*httpapi.Reply, error) {
			if err := a.undelegated(r); err != nil {
				return nil, err
			}
			return rt.Handle(r)
		}
	}
	return routes
}

// appCred gives the application credential of the path.
func (a *api) appCred(r *httpapi.Request) (*identity.AppCred, error) {
	c, err := a.s.AppCreds.Get(r.Context(), r.Path("cred"))
	if err == nil && c.UserID != r.Path("id") {
		return nil, fault.New(fault.NotFound, "Could not find application credential: %s.", r.Path("cred"))
	}
	return c, err
}

func (a *api) showAppCred(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := ownPath(r, "identity:read_application_credentials"); err != nil {
		return nil, err
	}
	c, err := a.appCred(r)
	if err != nil {
		return nil, err
	}
	docs, err := a.appCredDocuments(r, []identity.AppCred{*c})
	if err != nil {
		return nil, err
	}
	return httpapi.OK(document{"application_credential": docs[0]}), nil
}

func (a *api) listAppCreds(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := ownPath(r, "identity:read_application_credentials"); err != nil {
		return nil, err
	}
	list, err := a.s.AppCreds.List(r.Context(), append(a.appCreds.filters(r), local.Filter{Field: "user_id", Value: r.Path("id")})...)
	if err != nil {
		return nil, err
	}
	docs, err := a.appCredDocuments(r, list)
	if err != nil {
		return nil, err
	}
	return httpapi.OK(document{"application_credentials": docs, "links": listLinks(r)}), nil
}

func (a *api) appCredDocuments(r *httpapi.Request, list []identity.AppCred) ([]document, error) {
	roleIDs, ruleIDs := map[string]bool{}, map[string]bool{}
	for _, c := range list {
		for _, x := range c.RoleIDs {
			roleIDs[x] = true
		}
		for _, x := range c.RuleIDs {
			ruleIDs[x] = true
		}
	}
	roles, err := a.s.Roles.Many(r.Context(), keys(roleIDs))
	if err != nil {
		return nil, err
	}
	rules, err := a.s.AccessRules.Many(r.Context(), keys(ruleIDs))
	if err != nil {
		return nil, err
	}
	docs := make([]document, len(list))
	for i := range list {
		c := &list[i]
		docs[i] = a.appCredDocument(r, c, pick(roles, c.RoleIDs, func(x identity.Role) string { return x.ID }),
			pick(rules, c.RuleIDs, func(x identity.AccessRule) string { return x.ID }))
	}
	return docs, nil
}

// pick gives those of the rows that the ids name, in their order.
func pick[T any](rows []T, ids []string, key func(T) string) []T {
	var out []T
	for _, want := range ids {
		for _, row := range rows {
			if key(row) == want {
				out = append(out, row)
			}
		}
	}
	return out
}

func (a *api) deleteAppCred(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := ownPath(r, "identity:delete_application_credential"); err != nil {
		return nil, err
	}
	c, err := a.appCred(r)
	if err != nil {
		return nil, err
	}
	if err := a.s.AppCreds.Delete(r.Context(), c.ID); err != nil {
		return nil, err
	}
	return httpapi.NoContent(), nil
}

// accessRule answers GET and DELETE of one access rule.
func (a *api) accessRule(r *httpapi.Request) (*httpapi.Reply, error) {
	rule := "identity:read_application_credentials"
	if r.HTTP.Method == http.MethodDelete {
		rule = "identity:delete_application_credential"
	}
	if err := ownPath(r, rule); err != nil {
		return nil, err
	}
	x, err := a.s.AccessRules.Get(r.Context(), r.Path("rule"))
	if err == nil && x.UserID != r.Path("id") {
		err = fault.New(fault.NotFound, "Could not find access rule: %s.", r.Path("rule"))
	}
	if err != nil {
		return nil, err
	}
	if r.HTTP.Method == http.MethodDelete {
		if err := a.s.AccessRules.Delete(r.Context(), x.ID); err != nil {
			return nil, err
		}
		return httpapi.NoContent(), nil
	}
	d := a.ruleDocument(x)
	d["links"] = document{"self": r.Base + "/v3/users/" + x.UserID + "/access_rules/" + x.ID}
	return httpapi.OK(document{"access_rule": d}), nil
}

func (a *api) listAccessRules(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := ownPath(r, "identity:read_application_credentials"); err != nil {
		return nil, err
	}
	list, err := a.s.AccessRules.List(r.Context(), append(a.accessRules.filters(r), local.Filter{Field: "user_id", Value: r.Path("id")})...)
	if err != nil {
		return nil, err
	}
	docs := make([]document, len(list))
	for i := range list {
		docs[i] = a.ruleDocument(&list[i])
		docs[i]["links"] = document{"self": r.Base + "/v3/users/" + list[i].UserID + "/access_rules/" + list[i].ID}
	}
	return httpapi.OK(document{"access_rules": docs, "links": listLinks(r)}), nil
}

// trustDocument is a trust; with its roles unless it stands in a list.
func (a *api) trustDocument(r *httpapi.Request, t *identity.Trust, full bool) (document, error) {
	d := a.trusts.view(r, t)
	d["deleted_at"], d["remaining_uses"] = nil, nil
	if t.RemainingUses >= 0 {
		d["remaining_uses"] = t.RemainingUses
	}
	if !full {
		return d, nil
	}
	roles, err := a.s.Roles.Many(r.Context(), t.RoleIDs)
	if err != nil {
		return nil, err
	}
	docs := a.roles.listing(r, roles)
	d["roles"] = docs["roles"]
	d["roles_links"] = document{"self": r.Base + "/v3/OS-TRUST/trusts/" + t.ID + "/roles", "next": nil, "previous": nil}
	return d, nil
}

// createTrust answers POST /v3/OS-TRUST/trusts.
func (a *api) createTrust(r *httpapi.Request) (*httpapi.Reply, error) {
	b, err := inner(r, "trust")
	if err != nil {
		return nil, err
	}
	t := identity.Trust{RemainingUses: -1}
	if err := a.trusts.assign(&t, b, true); err != nil {
		return nil, err
	}
	if raw := b["remaining_uses"]; raw != nil && string(raw) != "null" {
		if err := set(&t.RemainingUses, raw); err != nil || t.RemainingUses < 1 {
			return nil, fault.New(fault.Invalid, "Invalid input for field 'remaining_uses': it must be a whole number of at least 1.")
		}
	}
	if err := a.trusts.authorize(r, "create", &t); err != nil {
		return nil, err
	}
	var roles []identity.Ref
	if raw := b["roles"]; raw != nil {
		if err := set(&roles, raw); err != nil {
			return nil, fault.Wrap(err, fault.Invalid, "Invalid input for field 'roles'.")
		}
	}
	tok, err := a.token(r)
	if err != nil {
		return nil, err
	}
	if err := a.s.CreateTrust(r.Context(), &t, roles, tok); err != nil {
		return nil, err
	}
	d, err := a.trustDocument(r, &t, true)
	if err != nil {
		return nil, err
	}
	return httpapi.Created(document{"trust": d}), nil
}

// trust gives the trust of the path. To those whom it does not concern it is not there.
func (a *api) trust(r *httpapi.Request, verb string) (*identity.Trust, error) {
	t, err := a.trusts.get(r, r.Path("id"))
	if err != nil {
		return nil, err
	}
	if a.trusts.authorize(r, verb, t) != nil {
		if verb != "get" && a.trusts.authorize(r, "get", t) == nil { // the trustee sees it but may not end it
			return nil, a.trusts.authorize(r, verb, t)
		}
		return nil, fault.New(fault.NotFound, "Could not find trust: %s.", t.ID)
	}
	return t, nil
}

func (a *api) showTrust(r *httpapi.Request) (*httpapi.Reply, error) {
	t, err := a.trust(r, "get")
	if err != nil {
		return nil, err
	}
	d, err := a.trustDocument(r, t, true)
	if err != nil {
		return nil, err
	}
	return httpapi.OK(document{"trust": d}), nil
}

func (a *api) deleteTrust(r *httpapi.Request) (*httpapi.Reply, error) {
	t, err := a.trust(r, "delete")
	if err != nil {
		return nil, err
	}
	if err := a.s.EndTrust(r.Context(), t.ID); err != nil {
		return nil, err
	}
	return httpapi.NoContent(), nil
}

func (a *api) listTrusts(r *httpapi.Request) (*httpapi.Reply, error) {
	filters := a.trusts.filters(r)
	target := policy.Target{}
	for _, f := range filters {
		target["target.trust."+f.Field] = f.Value
	}
	if err := authorize(r, "identity:list_trusts", target); err != nil {
		return nil, err
	}
	list, err := a.s.Trusts.List(r.Context(), filters...)
	if err != nil {
		return nil, err
	}
	docs := []document{}
	for i := range list {
		d, err := a.trustDocument(r, &list[i], false)
		if err != nil {
			return nil, err
		}
		docs = append(docs, d)
	}
	return httpapi.OK(document{"trusts": docs, "links": listLinks(r)}), nil
}

// trustRoles answers GET of the roles of a trust, all or the one in the path.
func (a *api) trustRoles(r *httpapi.Request) (*httpapi.Reply, error) {
	t, err := a.trust(r, "get")
	if err != nil {
		return nil, err
	}
	roles, err := a.s.Roles.Many(r.Context(), t.RoleIDs)
	if err != nil {
		return nil, err
	}
	want := r.Path("role")
	if want == "" {
		return httpapi.OK(a.roles.listing(r, roles)), nil
	}
	for i := range roles {
		if roles[i].ID == want {
			return httpapi.OK(document{"role": a.roles.view(r, &roles[i])}), nil
		}
	}
	return nil, fault.New(fault.NotFound, "Could not find role: %s.", want)
}
