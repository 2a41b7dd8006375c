package api

import "kilonova/internal/policy"

// Rules are the default policies of the identity service. The roles mean: admin anywhere may do everything; a reader of the system
// sees everything; service users verify tokens and look at single projects and users; a reader or manager of a domain sees or keeps what is in
// it; everybody sees and keeps what is their own.
func Rules() []policy.Rule {
	const (
		admin    = "rule:admin_required"
		reader   = "rule:admin_required or rule:system_reader"
		service  = "rule:admin_required or rule:system_reader or role:service"
		anyToken = "" // every valid token
	)
	inDomain := func(role, key string) string {
		return " or (role:" + role + " and domain_id:%(" + key + ")s)"
	}
	rules := []policy.Rule{
		{Name: "admin_required", Check: "role:admin"},
		{Name: "system_reader", Check: "role:reader and system_scope:all"},
		{Name: "owner", Check: "user_id:%(user_id)s"},
		{Name: "domain_managed_target_role", Check: "'manager':%(target.role.name)s or 'member':%(target.role.name)s or 'reader':%(target.role.name)s"},

		{Name: "identity:get_domain", Check: reader + " or project_domain_id:%(target.domain.id)s or domain_id:%(target.domain.id)s"},
		{Name: "identity:list_domains", Check: reader}, {Name: "identity:create_domain", Check: admin},
		{Name: "identity:update_domain", Check: admin}, {Name: "identity:delete_domain", Check: admin},

		{Name: "identity:get_project", Check: service + inDomain("reader", "target.project.domain_id") + " or project_id:%(target.project.id)s"},
		{Name: "identity:list_projects", Check: reader + inDomain("reader", "target.domain_id")},
		{Name: "identity:list_user_projects", Check: reader + inDomain("reader", "target.user.domain_id") + " or user_id:%(target.user.id)s"},
		{Name: "identity:create_project", Check: admin + inDomain("manager", "target.project.domain_id")},
		{Name: "identity:update_project", Check: admin + inDomain("manager", "target.project.domain_id")},
		{Name: "identity:delete_project", Check: admin + inDomain("manager", "target.project.domain_id")},
		{Name: "identity:list_project_tags", Check: reader + inDomain("reader", "target.project.domain_id") + " or project_id:%(target.project.id)s"},
		{Name: "identity:update_project_tags", Check: admin + inDomain("manager", "target.project.domain_id")},

		{Name: "identity:get_user", Check: service + inDomain("reader", "target.user.domain_id") + " or user_id:%(target.user.id)s"},
		{Name: "identity:list_users", Check: reader + inDomain("reader", "target.domain_id")},
		{Name: "identity:create_user", Check: admin + inDomain("manager", "target.user.domain_id")},
		{Name: "identity:update_user", Check: admin + inDomain("manager", "target.user.domain_id")},
		{Name: "identity:delete_user", Check: admin + inDomain("manager", "target.user.domain_id")},

		{Name: "identity:get_group", Check: reader + inDomain("reader", "target.group.domain_id")},
		{Name: "identity:list_groups", Check: reader + inDomain("reader", "target.domain_id")},
		{Name: "identity:list_groups_for_user", Check: reader + inDomain("reader", "target.user.domain_id") + " or user_id:%(target.user.id)s"},
		{Name: "identity:list_users_in_group", Check: reader + inDomain("reader", "target.group.domain_id")},
		{Name: "identity:check_user_in_group", Check: reader + inDomain("reader", "target.group.domain_id")},
		{Name: "identity:add_user_to_group", Check: admin + inDomain("manager", "target.group.domain_id")},
		{Name: "identity:remove_user_from_group", Check: admin + inDomain("manager", "target.group.domain_id")},
		{Name: "identity:create_group", Check: admin + inDomain("manager", "target.group.domain_id")},
		{Name: "identity:update_group", Check: admin + inDomain("manager", "target.group.domain_id")},
		{Name: "identity:delete_group", Check: admin + inDomain("manager", "target.group.domain_id")},

		{Name: "identity:get_role", Check: reader + " or role:manager"}, {Name: "identity:list_roles", Check: reader + " or role:manager"},
		{Name: "identity:create_role", Check: admin}, {Name: "identity:update_role", Check: admin}, {Name: "identity:delete_role", Check: admin},
		{Name: "identity:list_implied_roles", Check: reader}, {Name: "identity:get_implied_role", Check: reader},
		{Name: "identity:create_implied_role", Check: admin}, {Name: "identity:delete_implied_role", Check: admin},
		{Name: "identity:list_role_inference_rules", Check: reader},

		{Name: "identity:list_role_assignments", Check: reader + inDomain("reader", "target.domain_id")},
		{Name: "identity:list_role_assignments_for_tree", Check: reader + " or (role:admin and project_id:%(target.project.id)s)"},

		{Name: "identity:get_region", Check: anyToken}, {Name: "identity:list_regions", Check: anyToken}, {Name: "identity:create_region", Check: admin},
		{Name: "identity:update_region", Check: admin}, {Name: "identity:delete_region", Check: admin},
		{Name: "identity:get_service", Check: service}, {Name: "identity:list_services", Check: service}, {Name: "identity:create_service", Check: admin},
		{Name: "identity:update_service", Check: admin}, {Name: "identity:delete_service", Check: admin},
		{Name: "identity:get_endpoint", Check: service}, {Name: "identity:list_endpoints", Check: service}, {Name: "identity:create_endpoint", Check: admin},
		{Name: "identity:update_endpoint", Check: admin}, {Name: "identity:delete_endpoint", Check: admin},
		{Name: "identity:endpoint_filter", Check: admin},
		{Name: "identity:get_auth_catalog", Check: anyToken}, {Name: "identity:get_auth_projects", Check: anyToken},
		{Name: "identity:get_auth_domains", Check: anyToken}, {Name: "identity:get_auth_system", Check: anyToken},

		{Name: "identity:validate_token", Check: service + " or user_id:%(target.token.user_id)s"},
		{Name: "identity:revoke_token", Check: admin + " or user_id:%(target.token.user_id)s"},

		{Name: "identity:get_credential", Check: reader + " or user_id:%(target.credential.user_id)s"},
		{Name: "identity:list_credentials", Check: anyToken}, // each caller is shown its own
		{Name: "identity:create_credential", Check: admin + " or user_id:%(target.credential.user_id)s"},
		{Name: "identity:update_credential", Check: admin + " or user_id:%(target.credential.user_id)s"},
		{Name: "identity:delete_credential", Check: admin + " or user_id:%(target.credential.user_id)s"},
		{Name: "identity:ec2_credentials", Check: admin + " or rule:owner"},

		{Name: "identity:read_application_credentials", Check: reader + " or rule:owner"},
		{Name: "identity:create_application_credential", Check: "rule:owner"},
		{Name: "identity:delete_application_credential", Check: admin + " or rule:owner"},

		{Name: "identity:get_registered_limit", Check: anyToken}, {Name: "identity:list_registered_limits", Check: anyToken},
		{Name: "identity:create_registered_limit", Check: admin}, {Name: "identity:update_registered_limit", Check: admin},
		{Name: "identity:delete_registered_limit", Check: admin}, {Name: "identity:get_limit_model", Check: anyToken},
		{Name: "identity:get_limit", Check: service + " or project_id:%(target.limit.project_id)s or domain_id:%(target.limit.domain_id)s"},
		{Name: "identity:list_limits", Check: anyToken}, {Name: "identity:create_limit", Check: admin},
		{Name: "identity:update_limit", Check: admin}, {Name: "identity:delete_limit", Check: admin},

		{Name: "identity:get_policy", Check: reader}, {Name: "identity:list_policies", Check: reader}, {Name: "identity:create_policy", Check: admin},
		{Name: "identity:update_policy", Check: admin}, {Name: "identity:delete_policy", Check: admin},

		{Name: "identity:create_trust", Check: "user_id:%(target.trust.trustor_user_id)s"},
		{Name: "identity:list_trusts", Check: reader + " or user_id:%(target.trust.trustor_user_id)s or user_id:%(target.trust.trustee_user_id)s"},
		{Name: "identity:get_trust", Check: reader + " or user_id:%(target.trust.trustor_user_id)s or user_id:%(target.trust.trustee_user_id)s"},
		{Name: "identity:delete_trust", Check: admin + " or user_id:%(target.trust.trustor_user_id)s"},

		{Name: "identity:get_consumer", Check: reader}, {Name: "identity:list_consumers", Check: reader}, {Name: "identity:create_consumer", Check: admin},
		{Name: "identity:update_consumer", Check: admin}, {Name: "identity:delete_consumer", Check: admin},
		{Name: "identity:get_endpoint_group", Check: reader}, {Name: "identity:list_endpoint_groups", Check: reader},
		{Name: "identity:create_endpoint_group", Check: admin}, {Name: "identity:update_endpoint_group", Check: admin},
		{Name: "identity:delete_endpoint_group", Check: admin},

		{Name: "identity:get_domain_config", Check: reader}, {Name: "identity:get_domain_config_default", Check: reader},
		{Name: "identity:change_domain_config", Check: admin},
	}
	return append(rules, grantRules(admin, reader)...)
}

// grantRules are those of role assignments. A domain's manager gives the roles manager, member and reader to the users and groups of
// the domain, on the domain and its projects.
func grantRules(admin, reader string) []policy.Rule {
	managed := " or (role:manager and rule:domain_managed_target_role and (domain_id:%(target.user.domain_id)s or domain_id:%(target.group.domain_id)s)" +
		" and (domain_id:%(target.project.domain_id)s or domain_id:%(target.domain.id)s))"
	seen := " or (role:reader and (domain_id:%(target.user.domain_id)s or domain_id:%(target.group.domain_id)s)" +
		" and (domain_id:%(target.project.domain_id)s or domain_id:%(target.domain.id)s))"
	return []policy.Rule{
		{Name: "identity:check_grant", Check: reader + seen}, {Name: "identity:list_grants", Check: reader + seen},
		{Name: "identity:create_grant", Check: admin + managed}, {Name: "identity:revoke_grant", Check: admin + managed},
		{Name: "identity:read_system_grants", Check: reader}, {Name: "identity:change_system_grants", Check: admin},
	}
}
