package api

import (
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

// extension is what clients ask for to know what works.
type extension struct{ alias, name, description string }

// extensionList names what works, and nothing else.
func extensionList() []extension {
	return []extension{
		{"address-scope", "Address scope", "Sets of subnet pools without overlaps."},
		{"agent", "agent", "The hosts' network agents."},
		{"allowed-address-pairs", "Allowed Address Pairs", "Further addresses that a port may use."},
		{"auto-allocated-topology", "Auto Allocated Topology Services", "A ready network for a project that has none."},
		{"availability_zone", "Availability Zone", "Availability zones of agents."},
		{"binding", "Port Binding", "The host of a port and how it is wired there."},
		{"binding-extended", "Port Bindings Extended", "Several bindings of one port, one of them active."},
		{"default-subnetpools", "Default Subnetpools", "Subnet pools that subnets are cut from when none is named."},
		{"dns-integration", "DNS Integration", "Names of ports."},
		{"empty-string-filtering", "Empty String Filtering Extension", "Filters for the empty text."},
		{"ext-gw-mode", "Neutron L3 Configurable external gateway mode", "Source NAT of a router's gateway can be switched off."},
		{"external-net", "Neutron external network", "Networks that routers have their gateways on."},
		{"extra_dhcp_opt", "Neutron Extra DHCP options", "Further DHCP options of ports."},
		{"extraroute", "Neutron Extra Route", "Static routes of routers."},
		{"extraroute-atomic", "Atomically add/remove extra routes", "Static routes of routers, added and removed one by one."},
		{"fip-port-details", "Floating IP Port Details Extension", "The port behind a floating IP."},
		{"ip_allocation", "IP Allocation", "Whether a port has its addresses at once or when it comes to a host."},
		{"ip-substring-filtering", "IP address substring filtering", "Filters for parts of addresses."},
		{"l2_adjacency", "L2 Adjacency", "Whether a network is one broadcast domain."},
		{"multi-provider", "Multi Provider Network", "Networks of several segments."},
		{"net-mtu", "Network MTU", "The MTU of networks."},
		{"net-mtu-writable", "Network MTU (writable)", "The MTU of networks can be set."},
		{"network-ip-availability", "Network IP Availability", "How many addresses are left."},
		{"network_availability_zone", "Network Availability Zone", "Availability zones of networks."},
		{"pagination", "Pagination support", "Lists in pages."},
		{"port-mac-override", "Port MAC address override", "The MAC of a port can be changed."},
		{"port-numa-affinity-policy", "Port NUMA affinity policy", "How near a port's device must be to its server's NUMA nodes."},
		{"port-numa-affinity-policy-socket", "Port NUMA affinity policy socket", "The policy socket."},
		{"port-security", "Port Security", "Anti-spoofing can be switched off."},
		{"port-security-groups-filtering", "Port filtering on security groups", "Ports of a security group."},
		{"project-id", "project_id field enabled", "project_id stands beside tenant_id."},
		{"provider", "Provider Network", "How networks are built on the hosts."},
		{"quotas", "Quota management support", "Limits of projects."},
		{"quota_details", "Quota details management support", "What is used of the limits."},
		{"rbac-policies", "RBAC Policies", "Networks shared with single projects."},
		{"rbac-security-groups", "Add security_group type to network RBAC", "Security groups shared with single projects."},
		{"revision-if-match", "If-Match constraints based on revision_number", "Changes that depend on the revision."},
		{"router", "Neutron L3 Router", "Routers and floating IPs."},
		{"router_availability_zone", "Router Availability Zone", "Availability zones of routers."},
		{"security-group", "security-group", "Security groups and their rules."},
		{"stateful-security-group", "Stateful security group", "Security groups whose connections are not followed."},
		{"segment", "Segment", "The segments of networks, and subnets on them."},
		{"service-type", "Neutron Service Type Management", "Providers of services."},
		{"sorting", "Sorting support", "Sorted lists."},
		{"standard-attr-description", "standard-attr-description", "Descriptions."},
		{"standard-attr-revisions", "Resource revision numbers", "Revisions count the changes."},
		{"standard-attr-segment", "standard-attr-segment", "Descriptions, times and revisions of segments."},
		{"standard-attr-tag", "Tag support for resources with standard attribute", "Tags."},
		{"standard-attr-timestamp", "Resource timestamps", "When things were made and changed."},
		{"subnet-service-types", "Subnet service types", "Subnets for the ports of certain owners."},
		{"subnet-segmentid-writable", "Subnet SegmentID (writable)", "A subnet without a segment can be put on one."},
		{"subnetpool-prefix-ops", "Subnet Pool Prefix Operations", "Prefixes of subnet pools, added and removed one by one."},
		{"subnet_allocation", "Subnet Allocation", "Subnets cut from pools."},
	}
}

func (e extension) doc() map[string]any {
	return map[string]any{"alias": e.alias, "name": e.name, "description": e.description, "updated": "2026-01-01T00:00:00-00:00", "links": []any{}}
}

func (a *API) extensions(*httpapi.Request) (*httpapi.Reply, error) {
	docs := []map[string]any{}
	for _, e := range extensionList() {
		docs = append(docs, e.doc())
	}
	return httpapi.OK(map[string]any{"extensions": docs}), nil
}

func (a *API) extension(r *httpapi.Request) (*httpapi.Reply, error) {
	for _, e := range extensionList() {
		if e.alias == r.Path("alias") {
			return httpapi.OK(map[string]any{"extension": e.doc()}), nil
		}
	}
	return nil, fault.New(fault.NotFound, "Extension with alias %s does not exist", r.Path("alias")).WithCode("HTTPNotFound")
}

// versions is GET /: the one version there is.
func (a *API) versions(r *httpapi.Request) (*httpapi.Reply, error) {
	return httpapi.OK(map[string]any{"versions": []any{map[string]any{"id": "v2.0", "status": "CURRENT",
		"links": []any{map[string]string{"rel": "self", "href": r.Base + "/v2.0/"}}}}}), nil
}

// version is GET /v2.0: the resources.
func (a *API) version(r *httpapi.Request) (*httpapi.Reply, error) {
	docs := []map[string]any{}
	for _, res := range a.resources {
		docs = append(docs, map[string]any{"name": res.name, "collection": res.plural,
			"links": []any{map[string]string{"rel": "self", "href": r.Base + "/v2.0/" + res.path}}})
	}
	return httpapi.OK(map[string]any{"resources": docs}), nil
}
