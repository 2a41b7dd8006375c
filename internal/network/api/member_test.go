package api_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRoutesComeAndGoOneByOne(t *testing.T) {
	c := start(t)
	p1 := c.as("p1:member")
	_, sub := p1.lan("10.0.0.0/24")
	path := "/v2.0/routers/" + id(p1.ok(201, "POST", "/v2.0/routers", `{"router": {}}`, "router"))
	p1.ok(200, "PUT", path+"/add_router_interface", fmt.Sprintf(`{"subnet_id": %q}`, sub), "")
	route := func(n int) map[string]any {
		return map[string]any{"destination": fmt.Sprintf("10.%d.0.0/16", n), "nexthop": "10.0.0.9"}
	}
	change := func(verb, routes string, want ...any) {
		t.Helper()
		r := p1.ok(200, "PUT", path+"/"+verb, `{"router": {"routes": [`+routes+`]}}`, "router")
		if d := cmp.Diff(append([]any{}, want...), r["routes"]); d != "" {
			t.Errorf("%s %s: %s", verb, routes, d)
		}
	}
	const r1, r2, r3 = `{"destination": "10.1.0.0/16", "nexthop": "10.0.0.9"}`, `{"destination": "10.2.0.0/16", "nexthop": "10.0.0.9"}`, `{"destination": "10.3.0.0/16", "nexthop": "10.0.0.9"}`
	change("add_extraroutes", r1+","+r2, route(1), route(2))
	change("add_extraroutes", r2+","+r3, route(1), route(2), route(3))
	change("remove_extraroutes", r1+","+r3, route(2))
	change("remove_extraroutes", r1, route(2))
	p1.fails(400, "InvalidRoutes", "PUT", path+"/add_extraroutes", `{"router": {"routes": [{"destination": "10.8.0.0/16", "nexthop": "172.16.0.1"}]}}`)
	_, refused := p1.send("PUT", path+"/add_extraroutes", `{"router": {"routes": [{"destination": "10.8.0.0/16", "nexthop": "172.16.0.1"}]}}`)
	const words = "Invalid format for routes: [{'destination': '10.2.0.0/16', 'nexthop': '10.0.0.9'}, {'destination': '10.8.0.0/16', 'nexthop': '172.16.0.1'}], "
	if text, _ := refused["NeutronError"].(map[string]any)["message"].(string); !strings.HasPrefix(text, words) {
		t.Errorf("a route that leads nowhere: %q", text)
	}
	p1.fails(400, "HTTPBadRequest", "PUT", path+"/add_extraroutes", `{"router": {"routes": [], "name": "x"}}`)
	c.as("p1:reader").fails(403, "PolicyNotAuthorized", "PUT", path+"/add_extraroutes", `{"router": {"routes": []}}`)
	c.as("p2:member").fails(404, "RouterNotFound", "PUT", path+"/remove_extraroutes", `{"router": {"routes": []}}`)
	change("remove_extraroutes", r2)
}

func TestPrefixesComeAndGoOneByOne(t *testing.T) {
	c := start(t)
	p1 := c.as("p1:member")
	net := id(p1.ok(201, "POST", "/v2.0/networks", `{"network": {}}`, "network"))
	pool := id(p1.ok(201, "POST", "/v2.0/subnetpools", `{"subnetpool": {"name": "pool", "prefixes": ["10.10.0.0/16"], "default_prefixlen": 26}}`, "subnetpool"))
	p1.ok(201, "POST", "/v2.0/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 4, "subnetpool_id": %q}}`, net, pool), "subnet")
	path := "/v2.0/subnetpools/" + pool
	change := func(verb, prefixes string, want ...any) {
		t.Helper()
		status, doc := p1.send("PUT", path+"/"+verb, `{"prefixes": [`+prefixes+`]}`)
		if d := cmp.Diff(want, doc["prefixes"]); status != 200 || d != "" {
			t.Errorf("%s %s: %d %v %s", verb, prefixes, status, doc, d)
		}
	}
	change("add_prefixes", `"10.20.0.0/16", "10.11.0.0/16"`, "10.10.0.0/15", "10.20.0.0/16")
	p1.fails(400, "IllegalSubnetPoolPrefixUpdate", "PUT", path+"/remove_prefixes", `{"prefixes": ["10.10.0.0/24"]}`)
	p1.fails(400, "IllegalSubnetPoolPrefixUpdate", "PUT", path+"/remove_prefixes", `{"prefixes": ["10.0.0.0/8"]}`)
	p1.fails(400, "PrefixVersionMismatch", "PUT", path+"/add_prefixes", `{"prefixes": ["2001:db8::/32"]}`)
	change("remove_prefixes", `"10.11.0.0/16"`, "10.10.0.0/16", "10.20.0.0/16")
	c.as("p1:reader").fails(403, "PolicyNotAuthorized", "PUT", path+"/add_prefixes", `{"prefixes": ["10.30.0.0/16"]}`)
	c.as("p2:member").fails(404, "SubnetPoolNotFound", "PUT", path+"/remove_prefixes", `{"prefixes": ["10.20.0.0/16"]}`)
}
