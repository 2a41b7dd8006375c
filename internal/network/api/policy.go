package api

import "kilonova/internal/policy"

// Rules are the default rules, by Neutron's names. A network's owner may do with the ports on it what the ports' owners may.
func Rules() []policy.Rule {
	const (
		admin      = "rule:context_is_admin"
		member     = "rule:context_is_admin or (role:member and project_id:%(project_id)s)"
		reader     = "rule:context_is_admin or (role:reader and project_id:%(project_id)s)"
		netOwner   = "rule:context_is_admin or rule:network_owner"
		netMember  = "rule:context_is_admin or (role:member and project_id:%(project_id)s) or rule:network_owner"
		groupOwner = "rule:context_is_admin or (role:member and project_id:%(security_group:project_id)s)"
		anybody    = "@"
	)
	rules := []policy.Rule{
		{Name: "context_is_admin", Check: "role:admin", Description: "Who is an administrator of the network service."},
		{Name: "network_owner", Check: "role:member and project_id:%(network:project_id)s", Description: "Who owns the network that a subnet or port is on."},
		{Name: "admin_only", Check: admin}, {Name: "admin_or_owner", Check: member}, {Name: "share_object", Check: member, Description: "Share an object by an RBAC policy."},
		{Name: "create_subnet", Check: netOwner}, {Name: "update_subnet", Check: netMember}, {Name: "delete_subnet", Check: netMember},
		{Name: "create_subnet:service_types", Check: netOwner}, {Name: "update_subnet:service_types", Check: netMember},
		{Name: "create_port", Check: member}, {Name: "update_port", Check: member}, {Name: "delete_port", Check: netMember},
		{Name: "create_security_group_rule", Check: groupOwner}, {Name: "delete_security_group_rule", Check: groupOwner},
		{Name: "delete_default_security_group", Check: admin, Description: "Remove the group named default."},
		{Name: "add_router_interface", Check: member}, {Name: "remove_router_interface", Check: member},
		{Name: "add_extraroutes", Check: member}, {Name: "remove_extraroutes", Check: member}, {Name: "add_prefixes", Check: member}, {Name: "remove_prefixes", Check: member},
		{Name: "create_rbac_policy:target_tenant", Check: admin}, {Name: "update_rbac_policy:target_tenant", Check: admin},
		{Name: "get_quota", Check: reader}, {Name: "update_quota", Check: admin}, {Name: "delete_quota", Check: admin},
		{Name: "get_agent", Check: admin}, {Name: "update_agent", Check: admin}, {Name: "delete_agent", Check: admin},
		{Name: "get_segment", Check: admin}, {Name: "create_segment", Check: admin}, {Name: "update_segment", Check: admin}, {Name: "delete_segment", Check: admin},
		{Name: "create_subnet:segment_id", Check: admin}, {Name: "update_subnet:segment_id", Check: admin}, {Name: "get_subnet:segment_id", Check: admin},
		{Name: "create_network:segments", Check: admin}, {Name: "get_network:segments", Check: admin},
		{Name: "get_network_ip_availability", Check: admin}, {Name: "get_auto_allocated_topology", Check: reader},
		{Name: "get_port_binding", Check: admin}, {Name: "create_port_binding", Check: admin},
		{Name: "update_port_binding", Check: admin}, {Name: "delete_port_binding", Check: admin},
	}
	for _, res := range []string{"network", "security_group", "router", "floatingip", "subnetpool", "address_scope", "rbac_policy"} {
		for _, verb := range []string{"create", "update", "delete"} {
			rules = append(rules, policy.Rule{Name: verb + "_" + res, Check: member})
		}
	}
	// Attributes: who may set them when creating and updating, and who sees them.
	for attr, check := range map[string]string{
		"network:shared": admin, "network:router:external": admin, "network:is_default": admin, "network:provider:network_type": admin,
		"network:provider:physical_network": admin, "network:provider:segmentation_id": admin, "network:port_security_enabled": member,
		"port:mac_address": netOwner, "port:fixed_ips": netOwner, "port:device_owner": netOwner, "port:allowed_address_pairs": netOwner,
		"port:port_security_enabled": netOwner, "port:binding:host_id": admin, "port:binding:profile": admin,
		"subnetpool:shared": admin, "subnetpool:is_default": admin, "address_scope:shared": admin, "floatingip:floating_ip_address": admin,
		"router:external_gateway_info:enable_snat": admin, "router:external_gateway_info:external_fixed_ips": admin,
	} {
		create, update := check, check
		if attr == "port:mac_address" {
			update = admin
		}
		rules = append(rules, policy.Rule{Name: "create_" + attr, Check: create}, policy.Rule{Name: "update_" + attr, Check: update})
	}
	for _, attr := range []string{"network:provider:network_type", "network:provider:physical_network", "network:provider:segmentation_id",
		"port:binding:host_id", "port:binding:profile", "port:binding:vif_type", "port:binding:vif_details"} {
		rules = append(rules, policy.Rule{Name: "get_" + attr, Check: admin})
	}
	return append(rules, policy.Rule{Name: "get_extension", Check: anybody})
}
