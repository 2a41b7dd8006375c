package api

import (
	"kilonova/internal/fault"
	"kilonova/internal/network"
	"kilonova/internal/network/local"
	"kilonova/internal/policy"
)

func subnets(a *API) *resource {
	modes := null(oneOf("slaac", "dhcpv6-stateful", "dhcpv6-stateless"))
	return &resource{api: a, name: "subnet", plural: "subnets", path: "subnets", kind: "Subnet",
		attrs: []attr{nameAttr(), descriptionAttr(), projectAttr(),
			{name: "network_id", when: required, kind: uuid},
			{name: "ip_version", when: post, kind: number(4, 6)},
			{name: "cidr", when: post, kind: null(prefix)},
			{name: "gateway_ip", when: both, kind: null(address)},
			{name: "allocation_pools", when: both, kind: poolList},
			{name: "dns_nameservers", when: both, kind: texts(address)},
			{name: "host_routes", when: both, kind: routeList},
			{name: "enable_dhcp", when: both, kind: boolean, def: true},
			{name: "ipv6_ra_mode", when: post, kind: modes},
			{name: "ipv6_address_mode", when: post, kind: modes},
			{name: "subnetpool_id", when: post, kind: null(text(36))},
			{name: "use_default_subnetpool", when: post, kind: boolean},
			{name: "prefixlen", when: post, kind: null(number(0, 128))},
			{name: "service_types", when: both, kind: texts(filled(255)), rule: true},
			{name: "segment_id", when: both, kind: null(uuid), rule: true, onlyIf: func(v any) bool { return v != nil }, hidden: true},
			{name: "shared", kind: boolean}},
		columns: map[string]string{"id": "id", "name": "name", "project_id": "project_id", "network_id": "network_id"},
		list:    a.subnetDocs, create: createSubnet, update: updateSubnet, target: a.networkOwner, check: a.checkSubnet,
		remove: func(_ *call, c *local.Change, id string) error { return c.DeleteSubnet(id) },
		retag: func(c *local.Change, id string, change func([]string) ([]string, error)) error {
			_, err := c.UpdateSubnet(id, func(s *network.Subnet) (err error) { s.Tags, err = change(s.Tags); return err })
			return err
		}}
}

// absent takes null only: an attribute that clients send without meaning it.
func absent(why string) kind {
	return func(v any) (any, string) {
		if v != nil {
			return nil, why
		}
		return nil, ""
	}
}

// networkOwner adds whose the network is to what policy sees. A network that the caller may not see is not found.
func (a *API) networkOwner(q *call, t policy.Target, d map[string]any) error {
	id, _ := d["network_id"].(string)
	n, err := a.svc.Network(q.Context(), q.project, id)
	if err != nil {
		return err
	}
	t["network:project_id"], t["network:tenant_id"] = n.ProjectID, n.ProjectID
	return nil
}

func (a *API) subnetDocs(q *call, f local.Filter) ([]doc, error) {
	ss, err := a.svc.Subnets(q.Context(), f)
	if err != nil {
		return nil, err
	}
	docs := make([]doc, len(ss))
	for i := range ss {
		docs[i] = subnetDoc(&ss[i])
	}
	return docs, nil
}

func subnetDoc(s *network.Subnet) doc {
	return standard(doc{"id": s.ID, "name": s.Name, "network_id": s.NetworkID, "ip_version": s.Version, "cidr": s.CIDR, "gateway_ip": orNull(s.Gateway),
		"allocation_pools": list(s.Pools), "dns_nameservers": list(s.DNS), "host_routes": list(s.Routes), "enable_dhcp": s.DHCP,
		"ipv6_ra_mode": orNull(s.IPv6RAMode), "ipv6_address_mode": orNull(s.IPv6AddressMode), "subnetpool_id": orNull(s.SubnetPoolID),
		"service_types": list(s.ServiceTypes), "segment_id": orNull(s.SegmentID)}, s.ProjectID, &s.Standard)
}

func createSubnet(_ *call, c *local.Change, in input) (string, error) {
	r := &local.SubnetRequest{Subnet: network.Subnet{ProjectID: in.str("project_id"), NetworkID: in.str("network_id"), CIDR: in.str("cidr"),
		IPv6RAMode: in.str("ipv6_ra_mode"), IPv6AddressMode: in.str("ipv6_address_mode"), SubnetPoolID: in.str("subnetpool_id")}}
	if v := in.num("ip_version"); v != nil {
		r.Version = *v
	}
	if n := in.num("prefixlen"); n != nil {
		r.PrefixLen = *n
	}
	_, r.GatewaySet = in["gateway_ip"]
	_, r.PoolsSet = in["allocation_pools"]
	setSubnet(&r.Subnet, in)
	s, err := c.CreateSubnet(r)
	if err != nil {
		return "", err
	}
	return s.ID, nil
}

// checkSubnet verifies where the prefix of a new subnet comes from: given, or cut from a pool that the caller may use.
func (a *API) checkSubnet(q *call, in input, create bool) error {
	if !create {
		return nil
	}
	bad := func(format string, args ...any) error {
		return fault.New(fault.Invalid, "Bad subnets request: "+format, args...).WithCode("BadRequest")
	}
	f := local.Filter{Project: q.project}
	version := in.num("ip_version")
	switch pool := in.str("subnetpool_id"); {
	case pool != "" && in.flag("use_default_subnetpool"):
		return bad("subnetpool_id and use_default_subnetpool cannot both be specified.")
	case pool != "" && in.str("cidr") != "" && in.num("prefixlen") != nil:
		return bad("cidr and prefixlen must not be supplied together.")
	case pool != "":
		f.Match = map[string][]string{"id": {pool}}
	case in.flag("use_default_subnetpool"):
	case in.str("cidr") == "":
		return bad("a subnetpool must be specified in the absence of a cidr.")
	case in.num("prefixlen") != nil:
		return bad("prefixlen needs a subnetpool.")
	case version == nil:
		return badRequest("Failed to parse request. Required attribute 'ip_version' not specified")
	default:
		return nil
	}
	pools, err := a.svc.SubnetPools(q.Context(), f)
	if err != nil {
		return err
	}
	for i := range pools {
		p := &pools[i]
		if f.Match == nil && (!p.IsDefault || version != nil && *version != p.Version) {
			continue
		}
		if version != nil && *version != p.Version {
			return bad("Cannot allocate IPv%d subnet from IPv%d subnet pool.", *version, p.Version)
		}
		in["subnetpool_id"] = p.ID
		return nil
	}
	if f.Match == nil {
		return fault.New(fault.NotFound, "No default subnetpool found.").WithCode("NotFound")
	}
	return fault.New(fault.NotFound, "Subnet pool %s could not be found.", in.str("subnetpool_id")).WithCode("SubnetPoolNotFound")
}

func updateSubnet(_ *call, c *local.Change, id string, in input) error {
	_, err := c.UpdateSubnet(id, func(s *network.Subnet) error {
		setSubnet(s, in)
		return nil
	})
	return err
}

func setSubnet(s *network.Subnet, in input) {
	in.set("name", &s.Name)
	in.set("description", &s.Description)
	in.set("gateway_ip", &s.Gateway)
	in.set("segment_id", &s.SegmentID)
	in.setFlag("enable_dhcp", &s.DHCP)
	if v, ok := in["allocation_pools"].([]network.Pool); ok {
		s.Pools = v
	}
	if v, ok := in["host_routes"].([]network.Route); ok {
		s.Routes = v
	}
	if in.has("dns_nameservers") {
		s.DNS = in.texts("dns_nameservers")
	}
	if in.has("service_types") {
		s.ServiceTypes = in.texts("service_types")
	}
}
