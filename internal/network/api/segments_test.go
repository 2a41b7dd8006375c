package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/network"
)

// routed makes a network of two segments, each with a subnet; h1 and h2 are joined to the first, h3 to the second, h4 to both and h5 to none.
func (a as) routed() (net string, segments, subnets [2]string) {
	a.t.Helper()
	for host, physical := range map[string][]string{"h1": {"east"}, "h2": {"east"}, "h3": {"west"}, "h4": {"east", "west"}, "h5": nil} {
		if err := a.svc.SetPhysical(a.t.Context(), host, physical); err != nil {
			a.t.Fatal(err)
		}
	}
	n := a.ok(201, "POST", "/v2.0/networks", `{"network": {"name": "routed", "provider:network_type": "flat", "provider:physical_network": "east", "shared": true}}`, "network")
	net = id(n)
	segments[0] = a.ids("/v2.0/segments?network_id="+net, "segments", "id")[0]
	segments[1] = id(a.ok(201, "POST", "/v2.0/segments", fmt.Sprintf(`{"segment": {"network_id": %q, "network_type": "flat", "physical_network": "west", "name": "second"}}`, net), "segment"))
	for i, cidr := range []string{"10.1.0.0/24", "10.2.0.0/24"} {
		subnets[i] = id(a.ok(201, "POST", "/v2.0/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 4, "cidr": %q, "segment_id": %q}}`, net, cidr, segments[i]), "subnet"))
	}
	return net, segments, subnets
}

func TestSegments(t *testing.T) {
	c := start(t)
	admin, member := c.as("adm:admin"), c.as("p1:member")
	n := id(admin.ok(201, "POST", "/v2.0/networks", `{"network": {"name": "n", "provider:network_type": "flat", "provider:physical_network": "east"}}`, "network"))
	other := id(admin.ok(201, "POST", "/v2.0/networks", `{"network": {"name": "o"}}`, "network"))
	if got := len(admin.ids("/v2.0/segments", "segments", "id")); got != 2 {
		t.Errorf("%d segments of two networks", got)
	}
	if got := member.ids("/v2.0/segments", "segments", "id"); len(got) != 0 {
		t.Errorf("a member sees segments: %v", got)
	}
	first := admin.ids("/v2.0/segments?network_id="+n, "segments", "id")[0]
	path := "/v2.0/segments/" + first
	got := admin.ok(200, "GET", path, "", "segment")
	want := map[string]any{"id": first, "network_id": n, "network_type": "flat", "physical_network": "east", "segmentation_id": nil, "name": nil, "description": "",
		"revision_number": 0.0, "created_at": got["created_at"], "updated_at": got["updated_at"]}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	member.fails(404, "SegmentNotFound", "GET", path, "")
	member.fails(403, "PolicyNotAuthorized", "POST", "/v2.0/segments", fmt.Sprintf(`{"segment": {"network_id": %q, "network_type": "flat", "physical_network": "west"}}`, n))
	admin.fails(404, "SegmentNotFound", "GET", "/v2.0/segments/"+n, "")
	if got := admin.ok(200, "PUT", path, `{"segment": {"name": "rack 1", "description": "d"}}`, "segment"); got["name"] != "rack 1" || got["description"] != "d" || got["revision_number"] != 1.0 {
		t.Errorf("named: %v", got)
	}
	admin.fails(400, "HTTPBadRequest", "PUT", path, `{"segment": {"physical_network": "west"}}`)

	create := func(attributes string) string {
		return fmt.Sprintf(`{"segment": {"network_id": %q, %s}}`, n, attributes)
	}
	admin.fails(409, "FlatNetworkInUse", "POST", "/v2.0/segments", create(`"network_type": "flat", "physical_network": "east"`))
	admin.fails(400, "InvalidInput", "POST", "/v2.0/segments", create(`"network_type": "vxlan", "segmentation_id": 7`))
	admin.fails(400, "InvalidInput", "POST", "/v2.0/segments", create(`"network_type": "vlan", "physical_network": "west"`))
	admin.fails(400, "InvalidInput", "POST", "/v2.0/segments", create(`"network_type": "vlan", "segmentation_id": 7`))
	admin.fails(400, "InvalidInput", "POST", "/v2.0/segments", create(`"network_type": "gre", "segmentation_id": 7`))
	vlan := id(admin.ok(201, "POST", "/v2.0/segments", create(`"network_type": "vlan", "physical_network": "west", "segmentation_id": 7`), "segment"))
	admin.fails(409, "VlanIdInUse", "POST", "/v2.0/segments", create(`"network_type": "vlan", "physical_network": "west", "segmentation_id": 7`))
	admin.fails(409, "VlanIdInUse", "POST", "/v2.0/networks", `{"network": {"provider:network_type": "vlan", "provider:physical_network": "west", "provider:segmentation_id": 7}}`)
	admin.ok(204, "DELETE", "/v2.0/segments/"+vlan, "", "")
	admin.fails(400, "InvalidInput", "POST", "/v2.0/segments", create(`"network_type": "flat"`))
	admin.fails(400, "HTTPBadRequest", "POST", "/v2.0/segments", create(`"physical_network": "west"`))
	admin.fails(404, "NetworkNotFound", "POST", "/v2.0/segments", fmt.Sprintf(`{"segment": {"network_id": %q, "network_type": "flat", "physical_network": "west"}}`, first))
	admin.fails(400, "InvalidInput", "POST", "/v2.0/segments", fmt.Sprintf(`{"segment": {"network_id": %q, "network_type": "flat", "physical_network": "west"}}`, other))
	second := id(admin.ok(201, "POST", "/v2.0/segments", create(`"network_type": "flat", "physical_network": "west", "name": "rack 2"`), "segment"))
	if got := admin.ids("/v2.0/segments?network_id="+n, "segments", "id"); !slices.Equal(got, []string{first, second}) && !slices.Equal(got, []string{second, first}) {
		t.Errorf("segments of the network: %v", got)
	}
	if got := admin.ids("/v2.0/segments?physical_network=west", "segments", "id"); !slices.Equal(got, []string{second}) {
		t.Errorf("segments of west: %v", got)
	}

	// Several segments stand in the place of the provider attributes.
	doc := admin.ok(200, "GET", "/v2.0/networks/"+n, "", "network")
	part := func(physical string) any {
		return map[string]any{"provider:network_type": "flat", "provider:physical_network": physical, "provider:segmentation_id": nil}
	}
	if d := cmp.Diff([]any{part("east"), part("west")}, doc["segments"]); d != "" || doc["provider:network_type"] != nil {
		t.Errorf("network: %v %s", doc, d)
	}
	admin.fails(400, "HTTPBadRequest", "PUT", "/v2.0/networks/"+n, `{"network": {"provider:physical_network": "north"}}`)

	// Subnets.
	subnet := func(cidr, segment string) string {
		return fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 4, "cidr": %q, "segment_id": %s}}`, n, cidr, segment)
	}
	admin.fails(404, "SegmentNotFound", "POST", "/v2.0/subnets", subnet("10.1.0.0/24", `"`+n+`"`))
	third := admin.ids("/v2.0/segments?network_id="+other, "segments", "id")[0]
	admin.ok(200, "PUT", "/v2.0/segments/"+third, `{"segment": {"name": "x"}}`, "segment")
	admin.fails(400, "NetworkIdsDontMatch", "POST", "/v2.0/subnets", subnet("10.1.0.0/24", `"`+third+`"`))
	s := admin.ok(201, "POST", "/v2.0/subnets", subnet("10.1.0.0/24", `"`+first+`"`), "subnet")
	if s["segment_id"] != first {
		t.Errorf("subnet: %v", s)
	}
	admin.fails(400, "SubnetsNotAllAssociatedWithSegments", "POST", "/v2.0/subnets", subnet("10.2.0.0/24", "null"))
	admin.fails(400, "SubnetSegmentAssociationChangeNotAllowed", "PUT", "/v2.0/subnets/"+id(s), fmt.Sprintf(`{"subnet": {"segment_id": %q}}`, second))
	if doc := admin.ok(200, "GET", "/v2.0/networks/"+n, "", "network"); doc["l2_adjacency"] != false {
		t.Errorf("a routed network is said to be one broadcast domain: %v", doc)
	}
	admin.fails(409, "SegmentInUse", "DELETE", path, "")
	admin.ok(204, "DELETE", "/v2.0/subnets/"+id(s), "", "")
	admin.ok(204, "DELETE", path, "", "")
	if doc := admin.ok(200, "GET", "/v2.0/networks/"+n, "", "network"); doc["provider:physical_network"] != "west" || doc["segments"] != nil {
		t.Errorf("the network of one segment: %v", doc)
	}
	admin.fails(409, "SegmentInUse", "DELETE", "/v2.0/segments/"+second, "")
	admin.ok(204, "DELETE", "/v2.0/networks/"+n, "", "")
	if got := admin.ids("/v2.0/segments", "segments", "id"); !slices.Equal(got, []string{third}) {
		t.Errorf("segments left: %v", got)
	}
}

func TestNetworkOfSeveralSegments(t *testing.T) {
	admin := start(t).as("adm:admin")
	body := func(more string) string {
		return `{"network": {"name": "m", "segments": [{"provider:network_type": "flat", "provider:physical_network": "east"}, {"provider:network_type": "flat", "provider:physical_network": "west"}]` + more + `}}`
	}
	admin.fails(400, "HTTPBadRequest", "POST", "/v2.0/networks", body(`, "provider:network_type": "flat"`))
	admin.cloud.as("p1:member").fails(403, "PolicyNotAuthorized", "POST", "/v2.0/networks", body(""))
	admin.fails(400, "InvalidInput", "POST", "/v2.0/networks", strings.Replace(body(""), "flat", "vlan", 1))
	n := id(admin.ok(201, "POST", "/v2.0/networks", body(""), "network"))
	got := admin.ids("/v2.0/segments?network_id="+n, "segments", "physical_network")
	if slices.Sort(got); !slices.Equal(got, []string{"east", "west"}) {
		t.Errorf("segments on %v", got)
	}
	// Some clients send every attribute of a segment, also those that it has not.
	one := admin.ok(201, "POST", "/v2.0/networks", `{"network": {"segments": [{"provider:network_type": "local", "provider:physical_network": "", "provider:segmentation_id": 0}]}}`, "network")
	if one["provider:network_type"] != "local" || one["provider:physical_network"] != nil || one["provider:segmentation_id"] != nil {
		t.Errorf("a network of one segment: %v", one)
	}
}

// TestAddressesFollowTheSegment: a port of a routed network has an address of the segment of its host, and no other.
func TestAddressesFollowTheSegment(t *testing.T) {
	c := start(t)
	admin := c.as("adm:admin")
	net, segments, subnets := admin.routed()
	port := func(more string) string {
		return fmt.Sprintf(`{"port": {"network_id": %q, "device_owner": "compute:nova"%s}}`, net, more)
	}
	at := func(p map[string]any) string {
		l, _ := p["fixed_ips"].([]any)
		if len(l) == 0 {
			return ""
		}
		return l[0].(map[string]any)["subnet_id"].(string)
	}
	p := admin.ok(201, "POST", "/v2.0/ports", port(""), "port")
	if p["ip_allocation"] != "deferred" || at(p) != "" {
		t.Errorf("without a host: %v", p)
	}
	path := "/v2.0/ports/" + id(p)
	bind := func(host string) string { return fmt.Sprintf(`{"port": {"binding:host_id": %q}}`, host) }
	admin.fails(409, "HostNotConnectedToAnySegment", "PUT", path, bind("h5"))
	admin.fails(409, "HostConnectedToMultipleSegments", "PUT", path, bind("h4"))
	if got := admin.ok(200, "PUT", path, bind("h3"), "port"); at(got) != subnets[1] || got["ip_allocation"] != "immediate" {
		t.Errorf("on h3: %v", got)
	}
	admin.fails(409, "HostNotCompatibleWithFixedIps", "PUT", path, bind("h1"))
	admin.fails(409, "HostNotCompatibleWithFixedIps", "POST", path+"/bindings", `{"binding": {"host": "h1"}}`)
	if got := admin.ok(200, "PUT", path, bind(""), "port"); at(got) != subnets[1] {
		t.Errorf("taken from its host: %v", got)
	}
	admin.fails(409, "HostNotCompatibleWithFixedIps", "PUT", path, bind("h2"))
	// With other addresses it may go to the other segment.
	if got := admin.ok(200, "PUT", path, fmt.Sprintf(`{"port": {"binding:host_id": "h2", "fixed_ips": [{"subnet_id": %q}]}}`, subnets[0]), "port"); at(got) != subnets[0] {
		t.Errorf("on h2: %v", got)
	}
	if got := admin.ok(200, "PUT", path, bind("h1"), "port"); at(got) != subnets[0] {
		t.Errorf("on h1: %v", got)
	}
	if got := admin.ok(201, "POST", path+"/bindings", `{"binding": {"host": "h2"}}`, "binding"); got["host"] != "h2" {
		t.Errorf("binding: %v", got)
	}

	if got := admin.ok(201, "POST", "/v2.0/ports", port(`, "binding:host_id": "h1"`), "port"); at(got) != subnets[0] || got["ip_allocation"] != "immediate" {
		t.Errorf("made on h1: %v", got)
	}
	if got := admin.ok(201, "POST", "/v2.0/ports", port(`, "fixed_ips": []`), "port"); got["ip_allocation"] != "none" {
		t.Errorf("without addresses: %v", got)
	}
	named := admin.ok(201, "POST", "/v2.0/ports", port(fmt.Sprintf(`, "fixed_ips": [{"subnet_id": %q}]`, subnets[1])), "port")
	if at(named) != subnets[1] {
		t.Errorf("named subnet: %v", named)
	}
	admin.fails(409, "HostNotCompatibleWithFixedIps", "PUT", "/v2.0/ports/"+id(named), bind("h1"))
	admin.ok(200, "PUT", "/v2.0/ports/"+id(named), bind("h3"), "port")
	admin.fails(400, "FixedIpsSubnetsNotOnSameSegment", "POST", "/v2.0/ports", port(fmt.Sprintf(`, "fixed_ips": [{"subnet_id": %q}, {"subnet_id": %q}]`, subnets[0], subnets[1])))
	admin.fails(400, "InvalidInput", "POST", "/v2.0/ports", port(fmt.Sprintf(`, "binding:host_id": "h1", "fixed_ips": [{"subnet_id": %q}]`, subnets[1])))

	// What others are told of it.
	got, err := c.svc.RoutedSegments(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Each subnet has 253 addresses in its pool and that of its gateway; the gateway's and the DHCP server's are not for servers.
	want := []network.RoutedSegment{{ID: segments[0], Hosts: []string{"h1", "h2", "h4"}, IPv4Total: 254, IPv4Reserved: 2}, {ID: segments[1], Hosts: []string{"h3", "h4"}, IPv4Total: 254, IPv4Reserved: 2}}
	slices.SortFunc(want, func(a, b network.RoutedSegment) int { return strings.Compare(a.ID, b.ID) })
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	admin.ok(201, "POST", "/v2.0/ports", fmt.Sprintf(`{"port": {"network_id": %q, "fixed_ips": [{"subnet_id": %q}]}}`, net, subnets[1]), "port")
	if got, err = c.svc.RoutedSegments(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, s := range got {
		if s.ID == segments[1] && s.IPv4Reserved != 3 {
			t.Errorf("an address of a port that is no server's is not reserved: %v", s)
		}
	}
	for _, tc := range []struct {
		network, port, address string
		want                   []string
	}{{network: net, want: segments[:]}, {port: id(named), want: segments[1:]}, {network: id(p)}, {network: net, address: "10.1.0.9", want: segments[:1]}} {
		got, err := c.svc.SegmentsOf(t.Context(), tc.network, tc.port, tc.address)
		want := slices.Sorted(slices.Values(tc.want))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("segments of %v: %v %v", tc, got, err)
		}
	}
	// A router has no host.
	r := id(admin.ok(201, "POST", "/v2.0/routers", `{"router": {"name": "r"}}`, "router"))
	admin.ok(200, "PUT", "/v2.0/networks/"+net, `{"network": {"router:external": true}}`, "network")
	admin.fails(409, "IpAddressGenerationFailure", "PUT", "/v2.0/routers/"+r, fmt.Sprintf(`{"router": {"external_gateway_info": {"network_id": %q}}}`, net))
	admin.fails(409, "IpAddressGenerationFailure", "POST", "/v2.0/floatingips", fmt.Sprintf(`{"floatingip": {"floating_network_id": %q}}`, net))
}

// TestSubnetBecomesRouted: a network of one segment becomes a routed one, and the ports that are there keep their addresses.
func TestSubnetBecomesRouted(t *testing.T) {
	c := start(t)
	admin := c.as("adm:admin")
	if err := c.svc.SetPhysical(t.Context(), "h1", []string{"east"}); err != nil {
		t.Fatal(err)
	}
	n := id(admin.ok(201, "POST", "/v2.0/networks", `{"network": {"provider:network_type": "flat", "provider:physical_network": "east"}}`, "network"))
	s := id(admin.ok(201, "POST", "/v2.0/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 4, "cidr": "10.1.0.0/24"}}`, n), "subnet"))
	p := id(admin.ok(201, "POST", "/v2.0/ports", fmt.Sprintf(`{"port": {"network_id": %q}}`, n), "port"))
	segment := admin.ids("/v2.0/segments?network_id="+n, "segments", "id")[0]
	c.as("p1:member").fails(404, "SubnetNotFound", "PUT", "/v2.0/subnets/"+s, fmt.Sprintf(`{"subnet": {"segment_id": %q}}`, segment))
	if got := admin.ok(200, "PUT", "/v2.0/subnets/"+s, fmt.Sprintf(`{"subnet": {"segment_id": %q}}`, segment), "subnet"); got["segment_id"] != segment {
		t.Errorf("subnet: %v", got)
	}
	admin.fails(409, "HostNotCompatibleWithFixedIps", "PUT", "/v2.0/ports/"+p, `{"port": {"binding:host_id": "h2"}}`)
	admin.ok(200, "PUT", "/v2.0/ports/"+p, `{"port": {"binding:host_id": "h1"}}`, "port")
	// Now it can grow.
	admin.ok(201, "POST", "/v2.0/segments", fmt.Sprintf(`{"segment": {"network_id": %q, "network_type": "flat", "physical_network": "west"}}`, n), "segment")
}

// TestHostOfARoutedNetworkOfVLANs: the VLAN that a host wires is that of its own segment.
func TestHostOfARoutedNetworkOfVLANs(t *testing.T) {
	c := start(t)
	admin := c.as("adm:admin")
	n := id(admin.ok(201, "POST", "/v2.0/networks", `{"network": {"segments": [{"provider:network_type": "vlan", "provider:physical_network": "east", "provider:segmentation_id": 5},
		{"provider:network_type": "vlan", "provider:physical_network": "west", "provider:segmentation_id": 6}]}}`, "network"))
	for host, want := range map[string]struct {
		physical string
		vlan     int
	}{"h1": {"east", 5}, "h2": {"west", 6}} {
		if err := c.svc.SetPhysical(t.Context(), host, []string{want.physical}); err != nil {
			t.Fatal(err)
		}
		segment := admin.ids("/v2.0/segments?network_id="+n+"&physical_network="+want.physical, "segments", "id")[0]
		admin.ok(201, "POST", "/v2.0/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 4, "cidr": "10.%d.0.0/24", "segment_id": %q}}`, n, want.vlan, segment), "subnet")
		admin.ok(201, "POST", "/v2.0/ports", fmt.Sprintf(`{"port": {"network_id": %q, "device_id": "vm", "device_owner": "compute:nova", "binding:host_id": %q}}`, n, host), "port")
		st, err := c.svc.Host(t.Context(), host)
		if err != nil {
			t.Fatal(err)
		}
		if len(st.Networks) != 1 || st.Networks[0].Physical != want.physical || st.Networks[0].VLAN != want.vlan || len(st.Networks[0].Subnets) != 1 {
			t.Errorf("%s: %+v", host, st.Networks)
		}
	}
}

// TestHostOfARoutedNetwork: each host wires the physical network of its own segment, and serves its subnets.
func TestHostOfARoutedNetwork(t *testing.T) {
	c := start(t)
	admin := c.as("adm:admin")
	net, _, subnets := admin.routed()
	for host, want := range map[string]struct{ physical, subnet string }{"h1": {"east", subnets[0]}, "h3": {"west", subnets[1]}} {
		admin.ok(201, "POST", "/v2.0/ports", fmt.Sprintf(`{"port": {"network_id": %q, "device_id": "vm", "device_owner": "compute:nova", "binding:host_id": %q}}`, net, host), "port")
		st, err := c.svc.Host(t.Context(), host)
		if err != nil {
			t.Fatal(err)
		}
		if len(st.Networks) != 1 || st.Networks[0].Physical != want.physical || len(st.Networks[0].Subnets) != 1 || st.Networks[0].Subnets[0].ID != want.subnet || st.Networks[0].Gateway {
			t.Errorf("%s: %+v", host, st.Networks)
		}
	}
}
