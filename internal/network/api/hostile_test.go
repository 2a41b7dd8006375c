package api_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"testing"

	"pgregory.net/rapid"
)

// attributes of each resource, as a client that means no good knows them.
func attributes() map[string][]string {
	common := []string{"name", "description", "admin_state_up", "project_id", "tenant_id", "shared", "id", "tags", "status"}
	return map[string][]string{
		"network": append([]string{"router:external", "mtu", "provider:network_type", "provider:segmentation_id", "port_security_enabled", "dns_domain", "availability_zone_hints"}, common...),
		"subnet": append([]string{"network_id", "ip_version", "cidr", "gateway_ip", "allocation_pools", "dns_nameservers", "host_routes", "enable_dhcp", "ipv6_ra_mode", "ipv6_address_mode",
			"subnetpool_id", "use_default_subnetpool", "prefixlen", "service_types", "segment_id"}, common...),
		"port": append([]string{"network_id", "mac_address", "fixed_ips", "device_id", "device_owner", "security_groups", "allowed_address_pairs", "extra_dhcp_opts", "dns_name",
			"binding:host_id", "binding:profile", "binding:vnic_type", "port_security_enabled"}, common...),
		"security_group": common,
		"security_group_rule": append([]string{"security_group_id", "direction", "ethertype", "protocol", "port_range_min", "port_range_max", "remote_ip_prefix", "remote_group_id"},
			common...),
		"router":        append([]string{"external_gateway_info", "routes", "distributed"}, common...),
		"floatingip":    append([]string{"floating_network_id", "port_id", "fixed_ip_address", "floating_ip_address", "subnet_id", "dns_name"}, common...),
		"subnetpool":    append([]string{"prefixes", "min_prefixlen", "max_prefixlen", "default_prefixlen", "is_default", "address_scope_id", "default_quota"}, common...),
		"address_scope": append([]string{"ip_version"}, common...),
		"rbac_policy":   append([]string{"object_type", "object_id", "target_tenant", "action"}, common...),
	}
}

func paths() map[string]string {
	return map[string]string{"network": "networks", "subnet": "subnets", "port": "ports", "security_group": "security-groups", "security_group_rule": "security-group-rules",
		"router": "routers", "floatingip": "floatingips", "subnetpool": "subnetpools", "address_scope": "address-scopes", "rbac_policy": "rbac-policies"}
}

// anyValue is a JSON value: often one that means something somewhere.
func anyValue(ids []string) *rapid.Generator[any] {
	texts := append([]string{"", "x", "default", "10.0.0.0/24", "10.0.0.5", "2001:db8::/64", "2001:db8::5", "0.0.0.0/0", "::/0", "255.255.255.255/32", "fa:16:3e:00:00:01", "ingress", "egress",
		"tcp", "icmp", "IPv6", "slaac", "network", "network:router_interface", "access_as_shared", "*", "p2", "true", "-1", "999999999999999999999", "é\u0000\U0001F600"}, ids...)
	leaf := rapid.OneOf(rapid.Map(rapid.SampledFrom(texts), func(s string) any { return s }),
		rapid.Map(rapid.IntRange(-2, 70000), func(n int) any { return n }),
		rapid.SampledFrom([]any{nil, true, false, 1.5, 1e30}))
	object := rapid.Map(rapid.MapOfN(rapid.SampledFrom([]string{"subnet_id", "ip_address", "start", "end", "destination", "nexthop", "mac_address", "opt_name", "opt_value", "ip_version",
		"network_id", "enable_snat", "external_fixed_ips"}), leaf, 0, 3), func(m map[string]any) any { return m })
	list := rapid.Map(rapid.SliceOfN(rapid.OneOf(leaf, object), 0, 3), func(l []any) any { return l })
	return rapid.OneOf(leaf, leaf, leaf, object, list)
}

// Whatever comes in, the service answers with what the client did wrong, and never with a failure of its own.
func TestNoRequestBreaksTheService(t *testing.T) {
	c := start(t)
	admin, member := c.as("p1:admin"), c.as("p1:member")
	net, sub := member.lan("10.9.0.0/24")
	ext := admin.ok(201, "POST", "/v2.0/networks", `{"network": {"router:external": true}}`, "network")
	port := member.ok(201, "POST", "/v2.0/ports", fmt.Sprintf(`{"port": {"network_id": %q}}`, net), "port")
	group := member.ids("/v2.0/security-groups", "security_groups", "id")[0]
	values := anyValue([]string{net, sub, id(ext), id(port), group, "00000000-0000-4000-8000-000000000000"})
	made := map[string]string{"network": net, "subnet": sub, "port": id(port), "security_group": group}
	rapid.Check(t, func(rt *rapid.T) {
		kind := rapid.SampledFrom([]string{"network", "subnet", "port", "security_group", "security_group_rule", "router", "floatingip", "subnetpool", "address_scope", "rbac_policy"}).Draw(rt, "kind")
		attrs := rapid.MapOfN(rapid.SampledFrom(attributes()[kind]), values, 0, 6).Draw(rt, "attributes")
		for name, needed := range map[string]string{"network_id": net, "security_group_id": group, "floating_network_id": id(ext), "direction": "ingress"} {
			if _, ok := attrs[name]; !ok && rapid.Bool().Draw(rt, "with "+name) {
				for _, a := range attributes()[kind] {
					if a == name {
						attrs[name] = needed
					}
				}
			}
		}
		body, err := json.Marshal(map[string]any{kind: attrs})
		if err != nil {
			rt.Skip(err)
		}
		who := rapid.SampledFrom([]as{admin, member}).Draw(rt, "who")
		method, path := "POST", "/v2.0/"+paths()[kind]
		if id := made[kind]; id != "" && rapid.Bool().Draw(rt, "update") {
			method, path = "PUT", path+"/"+id
		}
		if status, doc := who.send(method, path, string(body)); status >= 500 {
			rt.Fatalf("%s %s %s: %d %v", method, path, body, status, doc)
		}
		query := url.Values{}
		for range rapid.IntRange(0, 3).Draw(rt, "filters") {
			name := rapid.SampledFrom(append([]string{"sort_key", "sort_dir", "limit", "marker", "fields", "page_reverse", "tags", "not-tags-any", "fixed_ips"}, attributes()[kind]...)).Draw(rt, "filter")
			query.Add(name, fmt.Sprint(values.Draw(rt, "value")))
		}
		if status, doc := who.send("GET", "/v2.0/"+paths()[kind]+"?"+query.Encode(), ""); status >= 500 {
			rt.Fatalf("GET %s?%s: %d %v", paths()[kind], query.Encode(), status, doc)
		}
	})
	for project := range map[string]bool{"p1": true, "p2": true} {
		recount(t, c, project)
	}
}

// recount compares what quotas say with what is there.
func recount(t *testing.T, c *cloud, project string) {
	t.Helper()
	admin := c.as("adm:admin")
	used := admin.ok(200, "GET", "/v2.0/quotas/"+project+"/details.json", "", "quota")
	for res, path := range map[string]string{"network": "networks", "subnet": "subnets", "port": "ports", "router": "routers", "floatingip": "floatingips",
		"security_group": "security-groups", "security_group_rule": "security-group-rules", "subnetpool": "subnetpools"} {
		plural := map[string]string{"security_group": "security_groups", "security_group_rule": "security_group_rules"}[res]
		if plural == "" {
			plural = path
		}
		there := len(admin.ids("/v2.0/"+path+"?project_id="+project, plural, "id"))
		u, _ := used[res].(map[string]any)
		if u["used"] != float64(there) {
			t.Errorf("%s of %s: quota counts %v, there are %d", res, project, u["used"], there)
		}
	}
}

// Who may do what: nobody without a token, a reader reads, another project finds nothing.
func TestEveryRouteForEveryCaller(t *testing.T) {
	c := start(t)
	admin, member := c.as("p1:admin"), c.as("p1:member")
	net, sub := member.lan("10.9.0.0/24")
	ids := map[string]string{"network": net, "subnet": sub, "security_group": member.ids("/v2.0/security-groups", "security_groups", "id")[0],
		"security_group_rule": member.ids("/v2.0/security-group-rules", "security_group_rules", "id")[0]}
	ext := admin.ok(201, "POST", "/v2.0/networks", `{"network": {"router:external": true, "project_id": "other"}}`, "network")
	admin.ok(201, "POST", "/v2.0/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 4, "cidr": "192.0.2.0/24"}}`, id(ext)), "subnet")
	for kind, body := range map[string]string{"port": fmt.Sprintf(`{"network_id": %q}`, net), "router": `{}`, "floatingip": fmt.Sprintf(`{"floating_network_id": %q}`, id(ext)),
		"subnetpool": `{"name": "x", "prefixes": ["10.0.0.0/8"]}`, "address_scope": `{"ip_version": 4}`,
		"rbac_policy": fmt.Sprintf(`{"object_type": "network", "object_id": %q, "action": "access_as_shared", "target_tenant": "p3"}`, net)} {
		ids[kind] = id(member.ok(201, "POST", "/v2.0/"+paths()[kind], fmt.Sprintf(`{%q: %s}`, kind, body), kind))
	}
	for kind, thing := range ids {
		path := "/v2.0/" + paths()[kind] + "/" + thing
		body := fmt.Sprintf(`{%q: {}}`, kind)
		for _, tc := range []struct {
			token       string
			get, put, d int
		}{{"", 401, 401, 401}, {"p2:member", 404, 404, 404}, {"p1:reader", 200, 403, 403}, {"p1:member", 200, 200, 0}, {"adm:admin", 200, 200, 0}} {
			who := c.as(tc.token)
			if got, _ := who.send("GET", path, ""); got != tc.get {
				t.Errorf("GET %s as %q: %d, want %d", paths()[kind], tc.token, got, tc.get)
			}
			if got, _ := who.send("PUT", path, body); kind != "security_group_rule" && got != tc.put {
				t.Errorf("PUT %s as %q: %d, want %d", paths()[kind], tc.token, got, tc.put)
			}
			if tc.d == 0 {
				continue
			}
			if got, _ := who.send("DELETE", path, ""); got != tc.d {
				t.Errorf("DELETE %s as %q: %d, want %d", paths()[kind], tc.token, got, tc.d)
			}
		}
	}
}
