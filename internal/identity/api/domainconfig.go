package api

import (
	"encoding/json"
	"net/http"
	"strings"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/identity/local"
	"kilonova/internal/policy"
)

// The options that a domain may have, with their defaults. They are kept for clients; the built-in service has one driver.
func defaultSettings() local.Settings {
	return local.Settings{
		"identity": {"driver": "sql", "list_limit": nil},
		"ldap": {"url": "ldap://localhost", "user": nil, "suffix": "cn=example,cn=com", "query_scope": "one", "page_size": 0, "user_tree_dn": nil,
			"user_filter": nil, "user_objectclass": "inetOrgPerson", "user_id_attribute": "cn", "user_name_attribute": "sn", "user_mail_attribute": "mail",
			"group_tree_dn": nil, "group_filter": nil, "group_objectclass": "groupOfNames", "group_id_attribute": "cn", "group_name_attribute": "ou",
			"group_member_attribute": "member", "use_tls": false, "tls_req_cert": "demand", "use_pool": true, "pool_size": 10},
	}
}

// domainConfig answers everything below /v3/domains/{id}/ that is about configuration:
//
//	/v3/domains/config[/{section}[/{option}]]/default   the defaults
//	/v3/domains/{id}/config[/{section}[/{option}]]      those of a domain
//
// One route serves both, because their patterns overlap.
func (a *api) domainConfig(r *httpapi.Request) (*httpapi.Reply, error) {
	rest := strings.Split(r.Path("rest"), "/")
	domain := r.Path("id")
	notFound := fault.New(fault.NotFound, "The resource could not be found.")
	if domain == "config" && rest[len(rest)-1] == "default" && len(rest) <= 3 && r.HTTP.Method == http.MethodGet {
		if err := authorize(r, "identity:get_domain_config_default", policy.Target{}); err != nil {
			return nil, err
		}
		return showSettings(defaultSettings(), rest[:len(rest)-1])
	}
	if rest[0] != "config" || len(rest) > 3 {
		return nil, notFound
	}
	rest = rest[1:]
	if r.HTTP.Method == http.MethodGet {
		if err := authorize(r, "identity:get_domain_config", policy.Target{}); err != nil {
			return nil, err
		}
		return a.showDomainConfig(r, domain, rest)
	}
	if err := authorize(r, "identity:change_domain_config", policy.Target{}); err != nil {
		return nil, err
	}
	switch r.HTTP.Method {
	case http.MethodDelete:
		section, option := "", ""
		if len(rest) > 0 {
			section = rest[0]
		}
		if len(rest) > 1 {
			option = rest[1]
		}
		if err := a.s.DropDomainSettings(r.Context(), domain, section, option); err != nil {
			return nil, err
		}
		return httpapi.NoContent(), nil
	case http.MethodPut:
		if len(rest) > 0 {
			return nil, notFound
		}
	}
	return a.changeDomainConfig(r, domain, rest)
}

func (a *api) showDomainConfig(r *httpapi.Request, domain string, path []string) (*httpapi.Reply, error) {
	set, err := a.s.DomainSettings(r.Context(), domain)
	if err != nil {
		return nil, err
	}
	if len(set) == 0 {
		return nil, fault.New(fault.NotFound, "Could not find domain configuration for domain %s.", domain)
	}
	return showSettings(set, path)
}

// showSettings answers with all settings, one section or one option.
func showSettings(set local.Settings, path []string) (*httpapi.Reply, error) {
	if len(path) == 0 {
		return httpapi.OK(document{"config": set}), nil
	}
	section, ok := set[path[0]]
	if !ok {
		return nil, fault.New(fault.NotFound, "Could not find group %s in the domain configuration.", path[0])
	}
	if len(path) == 1 {
		return httpapi.OK(document{"config": document{path[0]: section}}), nil
	}
	v, ok := section[path[1]]
	if !ok {
		return nil, fault.New(fault.NotFound, "Could not find option %s of group %s in the domain configuration.", path[1], path[0])
	}
	return httpapi.OK(document{"config": document{path[1]: v}}), nil
}

// changeDomainConfig stores the body: whole settings, one section ({"config": {section: {…}}}) or one option ({"config": {option: …}}).
func (a *api) changeDomainConfig(r *httpapi.Request, domain string, path []string) (*httpapi.Reply, error) {
	var b struct {
		Config map[string]json.RawMessage `json:"config"`
	}
	if err := r.Decode(&b); err != nil {
		return nil, err
	}
	if len(b.Config) == 0 {
		return nil, fault.New(fault.Invalid, "The request body has no object config.")
	}
	set := local.Settings{}
	for name, raw := range b.Config {
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, fault.Wrap(err, fault.Invalid, "Invalid input for field '%s'.", name)
		}
		if len(path) == 2 {
			set[path[0]] = map[string]any{name: v}
			continue
		}
		options, ok := v.(map[string]any)
		if !ok {
			return nil, fault.New(fault.Invalid, "Invalid input for group '%s': it must be an object of options.", name)
		}
		set[name] = options
	}
	known := defaultSettings()
	for section, options := range set {
		for option := range options {
			if _, ok := known[section][option]; !ok || len(path) > 0 && section != path[0] || len(path) > 1 && option != path[1] {
				return nil, fault.New(fault.Forbidden, "Option %s of group %s cannot be set here.", option, section)
			}
		}
	}
	before, err := a.s.DomainSettings(r.Context(), domain)
	if err != nil {
		return nil, err
	}
	put := r.HTTP.Method == http.MethodPut
	if !put && len(before) == 0 {
		return nil, fault.New(fault.NotFound, "Could not find domain configuration for domain %s.", domain)
	}
	if err := a.s.PutDomainSettings(r.Context(), domain, set, put); err != nil {
		return nil, err
	}
	after, err := a.s.DomainSettings(r.Context(), domain)
	if err != nil {
		return nil, err
	}
	if put && len(before) == 0 {
		return httpapi.Created(document{"config": after}), nil
	}
	return httpapi.OK(document{"config": after}), nil
}
