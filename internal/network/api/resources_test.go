package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestVersionsAndExtensions(t *testing.T) {
	c := start(t)
	status, doc := c.as("").send("GET", "/", "")
	if diff := cmp.Diff(map[string]any{"versions": []any{map[string]any{"id": "v2.0", "status": "CURRENT",
		"links": []any{map[string]any{"rel": "self", "href": c.url + "/v2.0/"}}}}}, doc); status != 200 || diff != "" {
		t.Errorf("%d %s", status, diff)
	}
	if status, _ := c.as("").send("GET", "/v2.0/networks", ""); status != 401 {
		t.Errorf("without a token: %d", status)
	}
	member := c.as("p1:member")
	if names := member.ids("/v2.0", "resources", "name"); !slices.Contains(names, "port") {
		t.Errorf("resources %v", names)
	}
	for _, alias := range member.ids("/v2.0/extensions", "extensions", "alias") {
		if got := member.ok(200, "GET", "/v2.0/extensions/"+alias, "", "extension"); got["alias"] != alias {
			t.Errorf("extension %s: %v", alias, got)
		}
	}
	member.fails(404, "HTTPNotFound", "GET", "/v2.0/extensions/no-such", "")
}

func TestNetworkLifeAndVisibility(t *testing.T) {
	c := start(t)
	p1, p2, admin := c.as("p1:member"), c.as("p2:member"), c.as("adm:admin")
	n := p1.ok(201, "POST", "/v2.0/networks", `{"network": {"name": "n1", "admin_state_up": true}}`, "network")
	for k := range n {
		if strings.HasPrefix(k, "provider:") {
			t.Errorf("a member sees %s", k)
		}
	}
	want := map[string]any{"id": id(n), "name": "n1", "admin_state_up": true, "status": "ACTIVE", "subnets": []any{}, "shared": false, "router:external": false,
		"is_default": false, "mtu": 1500.0, "port_security_enabled": true, "dns_domain": "", "availability_zone_hints": []any{}, "availability_zones": []any{}, "l2_adjacency": true,
		"ipv4_address_scope": nil, "ipv6_address_scope": nil, "project_id": "p1", "tenant_id": "p1", "description": "", "tags": []any{}, "revision_number": 0.0,
		"created_at": n["created_at"], "updated_at": n["created_at"]}
	if diff := cmp.Diff(want, n); diff != "" {
		t.Error(diff)
	}
	path := "/v2.0/networks/" + id(n)
	if got := admin.ok(200, "GET", path, "", "network"); got["provider:network_type"] != "local" {
		t.Errorf("admin sees %v", got)
	}
	p2.fails(404, "NetworkNotFound", "GET", path, "")
	p2.fails(404, "NetworkNotFound", "PUT", path, `{"network": {"name": "x"}}`)
	p2.fails(404, "NetworkNotFound", "DELETE", path, "")
	p1.fails(403, "PolicyNotAuthorized", "PUT", path, `{"network": {"shared": true}}`)
	p1.fails(403, "PolicyNotAuthorized", "PUT", path, `{"network": {"shared": false}}`)
	c.as("p1:reader").fails(403, "PolicyNotAuthorized", "PUT", path, `{"network": {"name": "x"}}`)
	admin.ok(200, "PUT", path, `{"network": {"shared": true}}`, "network")
	if got := p2.ok(200, "GET", path, "", "network"); got["shared"] != true {
		t.Errorf("shared network: %v", got)
	}
	p2.fails(403, "PolicyNotAuthorized", "DELETE", path, "")
	p2.fails(403, "PolicyNotAuthorized", "POST", "/v2.0/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24"}}`, id(n)))
	for _, tc := range [][2]string{
		{`{"network": {"nam": "x"}}`, "HTTPBadRequest"}, {`{"network": {"name": 7}}`, "HTTPBadRequest"}, {`{"net": {}}`, "HTTPBadRequest"},
		{`{"network": {"admin_state_up": "maybe"}}`, "HTTPBadRequest"}, {`{"network": {"name": "` + strings.Repeat("x", 256) + `"}}`, "HTTPBadRequest"},
		{`{"network": {"mtu": 5}}`, "HTTPBadRequest"}} {
		p1.fails(400, tc[1], "POST", "/v2.0/networks", tc[0])
	}
	admin.fails(400, "InvalidInput", "POST", "/v2.0/networks", `{"network": {"provider:network_type": "gre"}}`)
	for _, body := range []string{`"provider:segmentation_id": 5`, `"provider:physical_network": "p", "provider:segmentation_id": 0`, `"provider:physical_network": "p", "provider:segmentation_id": 4095`} {
		admin.fails(400, "InvalidInput", "POST", "/v2.0/networks", `{"network": {"provider:network_type": "vlan", `+body+`}}`)
	}
	admin.fails(503, "NoNetworkAvailable", "POST", "/v2.0/networks", `{"network": {"provider:network_type": "vlan", "provider:physical_network": "p"}}`)
	vlan := `{"network": {"provider:network_type": "vlan", "provider:physical_network": "p", "provider:segmentation_id": 4094}}`
	if got := admin.ok(201, "POST", "/v2.0/networks", vlan, "network"); got["provider:segmentation_id"] != 4094.0 || got["provider:physical_network"] != "p" {
		t.Errorf("a VLAN: %v", got)
	}
	admin.fails(409, "VlanIdInUse", "POST", "/v2.0/networks", vlan)
	p1.ok(204, "DELETE", path, "", "")
	p1.fails(404, "NetworkNotFound", "GET", path, "")
}

// lan makes a network with a subnet and gives their ids.
func (a as) lan(cidr string) (network, subnet string) {
	a.t.Helper()
	n := a.ok(201, "POST", "/v2.0/networks", `{"network": {"name": "lan"}}`, "network")
	s := a.ok(201, "POST", "/v2.0/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 4, "cidr": %q}}`, id(n), cidr), "subnet")
	return id(n), id(s)
}

func TestDefaultsNeedNoPermission(t *testing.T) {
	c := start(t)
	p1 := c.as("p1:member")
	for _, tc := range []struct{ plural, name, body, own, more string }{
		{"networks", "network", `"name": "n"`, `"shared": false, "router:external": false, "is_default": false, "port_security_enabled": true`, `"shared": true`},
		{"networks", "network", `"name": "n"`, `"router:external": false`, `"router:external": true`},
		{"subnetpools", "subnetpool", `"name": "p", "prefixes": ["10.0.0.0/16"]`, `"shared": false, "is_default": false`, `"shared": true`},
		{"subnetpools", "subnetpool", `"name": "p", "prefixes": ["10.0.0.0/16"]`, `"is_default": false`, `"is_default": true`},
		{"address-scopes", "address_scope", `"name": "s", "ip_version": 4`, `"shared": false`, `"shared": true`},
	} {
		path := "/v2.0/" + tc.plural
		made := p1.ok(201, "POST", path, fmt.Sprintf(`{%q: {%s, %s}}`, tc.name, tc.body, tc.own), tc.name)
		p1.fails(403, "PolicyNotAuthorized", "POST", path, fmt.Sprintf(`{%q: {%s, %s}}`, tc.name, tc.body, tc.more))
		if _, has := made["shared"]; !has || made["shared"] != false {
			t.Errorf("%s: %v", tc.plural, made)
		}
		p1.ok(204, "DELETE", path+"/"+id(made), "", "")
	}
}

func TestSubnets(t *testing.T) {
	c := start(t)
	p1 := c.as("p1:member")
	net, sub := p1.lan("10.0.0.0/24")
	got := p1.ok(200, "GET", "/v2.0/subnets/"+sub+"?fields=cidr&fields=gateway_ip&fields=allocation_pools&fields=enable_dhcp", "", "subnet")
	want := map[string]any{"cidr": "10.0.0.0/24", "gateway_ip": "10.0.0.1", "enable_dhcp": true,
		"allocation_pools": []any{map[string]any{"start": "10.0.0.2", "end": "10.0.0.254"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	post := func(attrs string) string { return fmt.Sprintf(`{"subnet": {"network_id": %q, %s}}`, net, attrs) }
	for _, tc := range []struct {
		attrs  string
		status int
		kind   string
	}{
		{`"ip_version": 4, "cidr": "10.0.0.128/25"`, 400, "InvalidInput"},
		{`"ip_version": 6, "cidr": "10.1.0.0/24"`, 400, "InvalidInput"},
		{`"ip_version": 4, "cidr": "10.1.0.0/240"`, 400, "HTTPBadRequest"},
		{`"ip_version": 4`, 400, "BadRequest"},
		{`"cidr": "10.1.0.0/24"`, 400, "HTTPBadRequest"},
		{`"ip_version": 4, "cidr": "10.1.0.0/24", "allocation_pools": [{"start": "10.2.0.1", "end": "10.2.0.5"}]`, 400, "OutOfBoundsAllocationPool"},
		{`"ip_version": 4, "cidr": "10.1.0.0/24", "allocation_pools": [{"start": "10.1.0.9", "end": "10.1.0.5"}]`, 400, "InvalidAllocationPool"},
		{`"ip_version": 4, "cidr": "10.1.0.0/24", "allocation_pools": [{"start": "10.1.0.1", "end": "10.1.0.5"}]`, 409, "GatewayConflictWithAllocationPools"},
		{`"ip_version": 4, "cidr": "10.1.0.0/24", "allocation_pools": [{"start": "10.1.0.2", "end": "10.1.0.5"}, {"start": "10.1.0.4", "end": "10.1.0.9"}]`, 409, "OverlappingAllocationPools"},
		{`"ip_version": 4, "cidr": "10.1.0.0/24", "ipv6_ra_mode": "slaac"`, 400, "InvalidInput"},
		{`"ip_version": 6, "cidr": "2001:db8::/80", "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"`, 400, "InvalidInput"},
		{`"ip_version": 4, "cidr": "10.1.0.0/24", "segment_id": "x"`, 400, "HTTPBadRequest"},
	} {
		p1.fails(tc.status, tc.kind, "POST", "/v2.0/subnets", post(tc.attrs))
	}
	two := p1.ok(201, "POST", "/v2.0/subnets", post(`"ip_version": 4, "cidr": "10.1.0.0/24", "gateway_ip": null, "dns_nameservers": ["9.9.9.9"],
 "host_routes": [{"destination": "10.9.0.0/16", "nexthop": "10.1.0.7"}], "enable_dhcp": false`), "subnet")
	if two["gateway_ip"] != nil || two["enable_dhcp"] != false {
		t.Errorf("%v", two)
	}
	up := p1.ok(200, "PUT", "/v2.0/subnets/"+id(two), `{"subnet": {"gateway_ip": "10.1.0.1", "allocation_pools": [{"start": "10.1.0.10", "end": "10.1.0.11"}], "name": "two"}}`, "subnet")
	if up["gateway_ip"] != "10.1.0.1" || up["name"] != "two" || up["revision_number"] != 1.0 {
		t.Errorf("%v", up)
	}
	// Who owns the network says what its subnets are for.
	up = p1.ok(200, "PUT", "/v2.0/subnets/"+id(two), `{"subnet": {"service_types": ["compute:nova"]}}`, "subnet")
	three := p1.ok(201, "POST", "/v2.0/subnets", post(`"ip_version": 4, "cidr": "10.3.0.0/24", "service_types": ["network:router_gateway"]`), "subnet")
	if diff := cmp.Diff([]any{[]any{"compute:nova"}, []any{"network:router_gateway"}}, []any{up["service_types"], three["service_types"]}); diff != "" {
		t.Errorf("service types: %s", diff)
	}
	c.as("p2:member").fails(404, "SubnetNotFound", "PUT", "/v2.0/subnets/"+id(two), `{"subnet": {"service_types": []}}`)
	p1.ok(204, "DELETE", "/v2.0/subnets/"+id(three), "", "")
	p1.ok(201, "POST", "/v2.0/ports", fmt.Sprintf(`{"port": {"network_id": %q, "device_owner": "compute:nova", "fixed_ips": [{"subnet_id": %q}]}}`, net, id(two)), "port")
	p1.fails(409, "SubnetInUse", "DELETE", "/v2.0/subnets/"+id(two), "")
	p1.fails(409, "NetworkInUse", "DELETE", "/v2.0/networks/"+net, "")
	p1.ok(204, "DELETE", "/v2.0/subnets/"+sub, "", "")
}

func TestPortsFiltersAndPages(t *testing.T) {
	c := start(t)
	p1, p2, admin := c.as("p1:member"), c.as("p2:member"), c.as("adm:admin")
	net, sub := p1.lan("10.0.0.0/24")
	status, doc := p1.send("POST", "/v2.0/ports", fmt.Sprintf(`{"ports": [{"network_id": %[1]q, "name": "a"}, {"network_id": %[1]q, "name": "b", "device_id": "d1"}, {"network_id": %[1]q, "name": "c"}]}`, net))
	list, _ := doc["ports"].([]any)
	if status != 201 || len(list) != 3 {
		t.Fatalf("bulk: %d %v", status, doc)
	}
	for query, want := range map[string][]string{
		"": {"a", "b", "c"}, "?name=a&name=c": {"a", "c"}, "?device_id=d1": {"b"}, "?device_id=": {"a", "c"}, "?fixed_ips=ip_address=10.0.0.3": {"b"},
		"?fixed_ips=subnet_id=" + sub + "&fixed_ips=ip_address_substr=0.0.4": {"c"}, "?network_id=nope": {}, "?admin_state_up=False": {},
		"?status=DOWN&sort_key=name&sort_dir=desc": {"c", "b", "a"}, "?unknown=1&sort_key=name": {"a", "b", "c"},
	} {
		got := p1.ids("/v2.0/ports"+query, "ports", "name")
		if !strings.Contains(query, "sort") {
			slices.Sort(got)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", query, diff)
		}
	}
	// A walk with pages sees every port once, there and back.
	var seen []string
	next := "/v2.0/ports?limit=1&sort_key=name"
	for next != "" {
		_, doc := p1.send("GET", next, "")
		for _, e := range doc["ports"].([]any) {
			seen = append(seen, e.(map[string]any)["name"].(string))
		}
		next = ""
		links, _ := doc["ports_links"].([]any)
		for _, l := range links {
			if m := l.(map[string]any); m["rel"] == "next" {
				next = strings.TrimPrefix(m["href"].(string), c.url)
			}
		}
	}
	if diff := cmp.Diff([]string{"a", "b", "c"}, seen); diff != "" {
		t.Error(diff)
	}
	p1.fails(400, "HTTPBadRequest", "GET", "/v2.0/ports?limit=x", "")
	p1.fails(404, "PortNotFound", "GET", "/v2.0/ports?limit=1&marker=x", "")
	p1.fails(400, "HTTPBadRequest", "GET", "/v2.0/ports?sort_key=colour", "")
	if got := p2.ids("/v2.0/ports", "ports", "id"); len(got) != 0 {
		t.Errorf("another project sees %v", got)
	}
	p2.fails(404, "NetworkNotFound", "POST", "/v2.0/ports", fmt.Sprintf(`{"port": {"network_id": %q}}`, net))
	p1.fails(403, "PolicyNotAuthorized", "POST", "/v2.0/ports", fmt.Sprintf(`{"port": {"network_id": %q, "binding:host_id": "h"}}`, net))
	port := admin.ok(201, "POST", "/v2.0/ports", fmt.Sprintf(`{"port": {"network_id": %q, "project_id": "p1", "binding:host_id": "h", "binding:profile": {"x": 1}, "mac_address": "FA:16:3E:11:22:33"}}`, net), "port")
	if port["binding:vif_type"] != "bridge" || port["mac_address"] != "fa:16:3e:11:22:33" {
		t.Errorf("%v", port)
	}
	path := "/v2.0/ports/" + id(port)
	if got := p1.ok(200, "GET", path, "", "port"); got["binding:host_id"] != nil || got["binding:vnic_type"] != "normal" {
		t.Errorf("a member sees %v", got)
	}
	for mac, status := range map[string]int{"11:22:33:44:55:66": 201, "00:00:00:00:00:00": 400, "ff:ff:ff:ff:ff:ff": 400, "fa:16:3e:00:00": 400} {
		if got, doc := p1.send("POST", "/v2.0/ports", fmt.Sprintf(`{"port": {"network_id": %q, "mac_address": %q}}`, net, mac)); got != status {
			t.Errorf("%s: %d %v, want %d", mac, got, doc, status)
		}
	}
	p1.fails(409, "MacAddressInUse", "POST", "/v2.0/ports", fmt.Sprintf(`{"port": {"network_id": %q, "mac_address": "fa:16:3e:11:22:33"}}`, net))
	p1.fails(409, "IpAddressInUse", "POST", "/v2.0/ports", fmt.Sprintf(`{"port": {"network_id": %q, "fixed_ips": [{"ip_address": "10.0.0.2"}]}}`, net))
	got := p1.ok(200, "PUT", path, `{"port": {"fixed_ips": [{"subnet_id": "`+sub+`", "ip_address": "10.0.0.200"}], "extra_dhcp_opts": [{"opt_name": "mtu", "opt_value": "1400"}],
 "allowed_address_pairs": [{"ip_address": "10.5.0.0/16"}], "dns_name": "web"}}`, "port")
	if diff := cmp.Diff([]any{map[string]any{"hostname": "web", "ip_address": "10.0.0.200", "fqdn": "web.openstacklocal."}}, got["dns_assignment"]); diff != "" {
		t.Error(diff)
	}
	p1.fails(409, "PortSecurityAndIPRequiredForSecurityGroups", "PUT", path, `{"port": {"port_security_enabled": false}}`)
	p1.ok(200, "PUT", path, `{"port": {"port_security_enabled": false, "security_groups": [], "allowed_address_pairs": []}}`, "port")
	p1.ok(204, "DELETE", path, "", "")
	p1.fails(404, "PortNotFound", "DELETE", path, "")
}

// TestAddressesOfAPortAreInOrder: whatever the order in which they were asked for or came, a port shows its addresses in order of their texts.
func TestAddressesOfAPortAreInOrder(t *testing.T) {
	p1 := start(t).as("p1:member")
	net, sub := p1.lan("10.0.0.0/24")
	shown := func(port map[string]any) (list []string) {
		for _, f := range port["fixed_ips"].([]any) {
			list = append(list, f.(map[string]any)["ip_address"].(string))
		}
		return list
	}
	port := p1.ok(201, "POST", "/v2.0/ports", fmt.Sprintf(`{"port": {"network_id": %q, "mac_address": "fa:16:3e:11:22:33", "fixed_ips": [{"ip_address": "10.0.0.24"}, {"ip_address": "10.0.0.23"}]}}`, net), "port")
	if got, want := shown(port), []string{"10.0.0.23", "10.0.0.24"}; !slices.Equal(got, want) {
		t.Errorf("a new port has %v, want %v", got, want)
	}
	p1.ok(201, "POST", "/v2.0/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 6, "cidr": "0:0:7::/64", "ipv6_address_mode": "slaac", "ipv6_ra_mode": "slaac"}}`, net), "subnet")
	port = p1.ok(200, "GET", "/v2.0/ports/"+id(port), "", "port")
	if got, want := shown(port), []string{"10.0.0.23", "10.0.0.24", "::7:0:f816:3eff:fe11:2233"}; !slices.Equal(got, want) {
		t.Errorf("with an address that the guest makes it has %v, want %v", got, want)
	}
	port = p1.ok(200, "PUT", "/v2.0/ports/"+id(port), fmt.Sprintf(`{"port": {"fixed_ips": [{"ip_address": "10.0.0.24"}, {"subnet_id": %q, "ip_address": "10.0.0.9"}, {"ip_address": "10.0.0.105"}]}}`, sub), "port")
	if got, want := shown(port), []string{"10.0.0.105", "10.0.0.24", "10.0.0.9", "::7:0:f816:3eff:fe11:2233"}; !slices.Equal(got, want) {
		t.Errorf("changed it has %v, want %v", got, want)
	}
}

func TestSecurityGroups(t *testing.T) {
	c := start(t)
	p1, p2 := c.as("p1:member"), c.as("p2:member")
	if diff := cmp.Diff([]string{"default"}, p1.ids("/v2.0/security-groups", "security_groups", "name")); diff != "" {
		t.Error(diff)
	}
	if got := p1.ids("/v2.0/security-group-rules", "security_group_rules", "id"); len(got) != 4 {
		t.Errorf("default rules %v", got)
	}
	p1.fails(409, "SecurityGroupDefaultAlreadyExists", "POST", "/v2.0/security-groups", `{"security_group": {"name": "default"}}`)
	g := p1.ok(201, "POST", "/v2.0/security-groups", `{"security_group": {"name": "web"}}`, "security_group")
	if rs, _ := g["security_group_rules"].([]any); len(rs) != 2 {
		t.Errorf("new group %v", g)
	}
	rule := func(attrs string) string {
		return fmt.Sprintf(`{"security_group_rule": {"security_group_id": %q, "direction": "ingress"%s}}`, id(g), attrs)
	}
	for _, tc := range []struct {
		attrs  string
		status int
		kind   string
	}{
		{`, "protocol": "bad"`, 400, "SecurityGroupRuleInvalidProtocol"},
		{`, "protocol": 256`, 400, "SecurityGroupRuleInvalidProtocol"},
		{`, "ethertype": "bad"`, 400, "SecurityGroupRuleInvalidEtherType"},
		{`, "remote_ip_prefix": "192.168.1./24"`, 400, "HTTPBadRequest"},
		{`, "remote_ip_prefix": "fd00::/8"`, 400, "SecurityGroupRuleParameterConflict"},
		{`, "remote_ip_prefix": "10.0.0.0/8", "remote_group_id": "` + id(g) + `"`, 400, "SecurityGroupRemoteGroupAndRemoteIpPrefix"},
		{`, "remote_group_id": "11111111-1111-4111-8111-111111111111"`, 404, "SecurityGroupNotFound"},
		{`, "protocol": "tcp", "port_range_min": 80, "port_range_max": 22`, 400, "SecurityGroupInvalidPortRange"},
		{`, "protocol": "tcp", "port_range_min": -16384, "port_range_max": 65536`, 400, "SecurityGroupInvalidPortValue"},
		{`, "protocol": "tcp", "port_range_min": null, "port_range_max": 80`, 400, "SecurityGroupInvalidPortRange"},
		{`, "protocol": "icmp", "port_range_max": 1`, 400, "SecurityGroupMissingIcmpType"},
		{`, "protocol": "icmp", "port_range_min": 300`, 400, "SecurityGroupInvalidIcmpValue"},
		{`, "port_range_min": 1, "port_range_max": 2`, 400, "SecurityGroupProtocolRequiredWithPorts"},
		{`, "protocol": "gre", "port_range_min": 1, "port_range_max": 2`, 400, "SecurityGroupInvalidProtocolForPort"},
	} {
		p1.fails(tc.status, tc.kind, "POST", "/v2.0/security-group-rules", rule(tc.attrs))
	}
	ssh := rule(`, "protocol": "tcp", "port_range_min": 22, "port_range_max": 22`)
	p2.fails(404, "SecurityGroupNotFound", "POST", "/v2.0/security-group-rules", ssh)
	r := p1.ok(201, "POST", "/v2.0/security-group-rules", ssh, "security_group_rule")
	if r["ethertype"] != "IPv4" || r["port_range_min"] != 22.0 {
		t.Errorf("%v", r)
	}
	p1.fails(409, "SecurityGroupRuleExists", "POST", "/v2.0/security-group-rules", ssh)
	p1.fails(409, "SecurityGroupRuleExists", "POST", "/v2.0/security-group-rules", rule(`, "protocol": "6", "port_range_min": 22, "port_range_max": 22`))
	net, _ := p1.lan("10.0.0.0/24")
	port := p1.ok(201, "POST", "/v2.0/ports", fmt.Sprintf(`{"port": {"network_id": %q, "security_groups": [%q]}}`, net, id(g)), "port")
	p1.fails(409, "SecurityGroupInUse", "DELETE", "/v2.0/security-groups/"+id(g), "")
	p1.fails(409, "SecurityGroupInUse", "PUT", "/v2.0/security-groups/"+id(g), `{"security_group": {"stateful": false}}`)
	p1.ok(204, "DELETE", "/v2.0/ports/"+id(port), "", "")
	p1.ok(204, "DELETE", "/v2.0/security-group-rules/"+id(r), "", "")
	for _, stateful := range []bool{false, true} {
		body := fmt.Sprintf(`{"security_group": {"stateful": %v}}`, stateful)
		if got := p1.ok(200, "PUT", "/v2.0/security-groups/"+id(g), body, "security_group"); got["stateful"] != stateful {
			t.Errorf("%s: %v", body, got)
		}
		made := p1.ok(201, "POST", "/v2.0/security-groups", body, "security_group")
		if made["stateful"] != stateful {
			t.Errorf("%s: %v", body, made)
		}
		p1.ok(204, "DELETE", "/v2.0/security-groups/"+id(made), "", "")
	}
	p1.ok(204, "DELETE", "/v2.0/security-groups/"+id(g), "", "")
	def := p1.ids("/v2.0/security-groups?name=default", "security_groups", "id")[0]
	p1.fails(409, "SecurityGroupCannotRemoveDefault", "DELETE", "/v2.0/security-groups/"+def, "")
	p1.fails(409, "SecurityGroupCannotUpdateDefault", "PUT", "/v2.0/security-groups/"+def, `{"security_group": {"name": "x"}}`)
}

func TestRoutersAndFloatingIPs(t *testing.T) {
	c := start(t)
	p1, admin := c.as("p1:member"), c.as("adm:admin")
	ext := admin.ok(201, "POST", "/v2.0/networks", `{"network": {"name": "public", "router:external": true}}`, "network")
	admin.ok(201, "POST", "/v2.0/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 4, "cidr": "203.0.113.0/24"}}`, id(ext)), "subnet")
	net, sub := p1.lan("10.0.0.0/24")
	port := p1.ok(201, "POST", "/v2.0/ports", fmt.Sprintf(`{"port": {"network_id": %q}}`, net), "port")
	fip := p1.ok(201, "POST", "/v2.0/floatingips", fmt.Sprintf(`{"floatingip": {"floating_network_id": %q}}`, id(ext)), "floatingip")
	if fip["status"] != "DOWN" || fip["floating_ip_address"] != "203.0.113.2" || fip["port_details"] != nil {
		t.Errorf("%v", fip)
	}
	fpath := "/v2.0/floatingips/" + id(fip)
	bind := fmt.Sprintf(`{"floatingip": {"port_id": %q}}`, id(port))
	p1.fails(404, "ExternalGatewayForFloatingIPNotFound", "PUT", fpath, bind)
	p1.fails(400, "BadRequest", "POST", "/v2.0/floatingips", fmt.Sprintf(`{"floatingip": {"floating_network_id": %q}}`, net))
	p1.fails(400, "BadRequest", "POST", "/v2.0/routers", fmt.Sprintf(`{"router": {"external_gateway_info": {"network_id": %q}}}`, net))
	r := p1.ok(201, "POST", "/v2.0/routers", fmt.Sprintf(`{"router": {"name": "r", "external_gateway_info": {"network_id": %q}}}`, id(ext)), "router")
	gw, _ := r["external_gateway_info"].(map[string]any)
	if gw["enable_snat"] != true || gw["network_id"] != id(ext) {
		t.Errorf("%v", r)
	}
	rpath := "/v2.0/routers/" + id(r)
	p1.fails(403, "PolicyNotAuthorized", "PUT", rpath, fmt.Sprintf(`{"router": {"external_gateway_info": {"network_id": %q, "enable_snat": false}}}`, id(ext)))
	_, add := p1.send("PUT", rpath+"/add_router_interface", fmt.Sprintf(`{"subnet_id": %q}`, sub))
	if add["subnet_id"] != sub || add["id"] != id(r) {
		t.Errorf("%v", add)
	}
	p1.fails(400, "BadRequest", "PUT", rpath+"/add_router_interface", fmt.Sprintf(`{"subnet_id": %q}`, sub))
	p1.fails(409, "RouterInUse", "DELETE", rpath, "")
	p1.fails(409, "ServicePortInUse", "DELETE", fmt.Sprint("/v2.0/ports/", add["port_id"]), "")
	got := p1.ok(200, "PUT", fpath, bind, "floatingip")
	if got["status"] != "ACTIVE" || got["fixed_ip_address"] != "10.0.0.2" || got["router_id"] != id(r) {
		t.Errorf("%v", got)
	}
	p1.fails(409, "RouterInterfaceInUseByFloatingIP", "PUT", rpath+"/remove_router_interface", fmt.Sprintf(`{"subnet_id": %q}`, sub))
	p1.fails(409, "RouterExternalGatewayInUseByFloatingIp", "PUT", rpath, `{"router": {"external_gateway_info": null}}`)
	p1.fails(400, "InvalidRoutes", "PUT", rpath, `{"router": {"routes": [{"destination": "10.8.0.0/16", "nexthop": "172.16.0.1"}]}}`)
	p1.ok(200, "PUT", rpath, `{"router": {"routes": [{"destination": "10.8.0.0/16", "nexthop": "10.0.0.9"}]}}`, "router")
	p1.ok(204, "DELETE", "/v2.0/ports/"+id(port), "", "")
	if got := p1.ok(200, "GET", fpath, "", "floatingip"); got["status"] != "DOWN" || got["port_id"] != nil {
		t.Errorf("after its port is gone: %v", got)
	}
	p1.ok(200, "PUT", rpath, `{"router": {"routes": []}}`, "router")
	p1.ok(200, "PUT", rpath+"/remove_router_interface", fmt.Sprintf(`{"subnet_id": %q}`, sub), "")
	p1.ok(204, "DELETE", rpath, "", "")
	p1.ok(204, "DELETE", fpath, "", "")
	admin.ok(204, "DELETE", "/v2.0/networks/"+id(ext), "", "")
}

func TestQuotasTagsPoolsAndRBAC(t *testing.T) {
	c := start(t)
	p1, p2, admin := c.as("p1:member"), c.as("p2:member"), c.as("adm:admin")
	p1.fails(403, "PolicyNotAuthorized", "PUT", "/v2.0/quotas/p1", `{"quota": {"network": 1}}`)
	p1.fails(403, "PolicyNotAuthorized", "GET", "/v2.0/quotas/p2", "")
	admin.ok(200, "PUT", "/v2.0/quotas/p1", `{"quota": {"network": 1}}`, "quota")
	net, _ := p1.lan("10.0.0.0/24")
	p1.fails(409, "OverQuota", "POST", "/v2.0/networks", `{"network": {}}`)
	d := p1.ok(200, "GET", "/v2.0/quotas/p1/details.json", "", "quota")
	if diff := cmp.Diff(map[string]any{"limit": 1.0, "used": 1.0, "reserved": 0.0}, d["network"]); diff != "" {
		t.Error(diff)
	}
	admin.ok(204, "DELETE", "/v2.0/quotas/p1", "", "")
	if got := p1.ok(200, "GET", "/v2.0/quotas/p1", "", "quota"); got["network"] != 100.0 {
		t.Errorf("%v", got)
	}
	p1.ok(201, "PUT", "/v2.0/networks/"+net+"/tags/red", "", "")
	p1.ok(200, "PUT", "/v2.0/networks/"+net+"/tags", `{"tags": ["green", "blue"]}`, "")
	for query, n := range map[string]int{"?tags=green,blue": 1, "?tags=green,red": 0, "?tags-any=red,blue": 1, "?not-tags=green": 0, "?not-tags-any=red": 1} {
		if got := p1.ids("/v2.0/networks"+query, "networks", "id"); len(got) != n {
			t.Errorf("%s: %v", query, got)
		}
	}
	p1.fails(404, "TagNotFound", "GET", "/v2.0/networks/"+net+"/tags/red", "")
	rbac := p1.ok(201, "POST", "/v2.0/rbac-policies", fmt.Sprintf(`{"rbac_policy": {"object_type": "network", "object_id": %q, "action": "access_as_shared", "target_tenant": "p2"}}`, net), "rbac_policy")
	port := p2.ok(201, "POST", "/v2.0/ports", fmt.Sprintf(`{"port": {"network_id": %q}}`, net), "port")
	p1.fails(409, "RbacPolicyInUse", "DELETE", "/v2.0/rbac-policies/"+id(rbac), "")
	p2.ok(204, "DELETE", "/v2.0/ports/"+id(port), "", "")
	p1.ok(204, "DELETE", "/v2.0/rbac-policies/"+id(rbac), "", "")
	p2.fails(404, "NetworkNotFound", "GET", "/v2.0/networks/"+net, "")
	pool := p1.ok(201, "POST", "/v2.0/subnetpools", `{"subnetpool": {"name": "pool", "prefixes": ["10.10.0.0/16", "10.11.0.0/16"], "default_prefixlen": 26}}`, "subnetpool")
	if diff := cmp.Diff([]any{"10.10.0.0/15"}, pool["prefixes"]); diff != "" {
		t.Error(diff)
	}
	s := p1.ok(201, "POST", "/v2.0/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 4, "subnetpool_id": %q}}`, net, id(pool)), "subnet")
	if s["cidr"] != "10.10.0.0/26" {
		t.Errorf("%v", s)
	}
	p1.fails(409, "SubnetPoolInUse", "DELETE", "/v2.0/subnetpools/"+id(pool), "")
	scope := p1.ok(201, "POST", "/v2.0/address-scopes", `{"address_scope": {"name": "sc", "ip_version": 4}}`, "address_scope")
	p1.ok(200, "PUT", "/v2.0/subnetpools/"+id(pool), fmt.Sprintf(`{"subnetpool": {"address_scope_id": %q, "default_quota": 100}}`, id(scope)), "subnetpool")
	if got := p1.ok(200, "GET", "/v2.0/networks/"+net, "", "network"); got["ipv4_address_scope"] != id(scope) {
		t.Errorf("address scope of the network: %v", got)
	}
	p1.fails(409, "SubnetPoolQuotaExceeded", "POST", "/v2.0/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 4, "subnetpool_id": %q}}`, net, id(pool)))
	p1.fails(409, "AddressScopeInUse", "DELETE", "/v2.0/address-scopes/"+id(scope), "")
	_, doc := admin.send("GET", "/v2.0/network-ip-availabilities/"+net, "")
	av, _ := doc["network_ip_availability"].(map[string]any)
	if av["total_ips"] != 253.0+61 || av["used_ips"] != 0.0 {
		t.Errorf("%v", av)
	}
}

func TestAutoAllocatedTopology(t *testing.T) {
	c := start(t)
	p1, admin := c.as("p1:member"), c.as("adm:admin")
	p1.fails(409, "AutoAllocationFailure", "GET", "/v2.0/auto-allocated-topology/p1", "")
	ext := admin.ok(201, "POST", "/v2.0/networks", `{"network": {"router:external": true, "is_default": true}}`, "network")
	admin.ok(201, "POST", "/v2.0/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 4, "cidr": "203.0.113.0/24"}}`, id(ext)), "subnet")
	admin.ok(201, "POST", "/v2.0/subnetpools", `{"subnetpool": {"name": "d", "prefixes": ["10.0.0.0/8"], "default_prefixlen": 24, "is_default": true, "shared": true}}`, "subnetpool")
	first := p1.ok(200, "GET", "/v2.0/auto-allocated-topology/p1", "", "auto_allocated_topology")
	again := p1.ok(200, "GET", "/v2.0/auto-allocated-topology/p1", "", "auto_allocated_topology")
	if id(first) == "" || id(first) != id(again) {
		t.Errorf("%v, then %v", first, again)
	}
	p1.ok(204, "DELETE", "/v2.0/auto-allocated-topology/p1", "", "")
	if got := p1.ids("/v2.0/routers", "routers", "id"); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
}
