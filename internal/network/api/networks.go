package api

import (
	"errors"

	"kilonova/internal/fault"
	"kilonova/internal/network"
	"kilonova/internal/network/local"
	"kilonova/internal/network/segments"
)

func networks(a *API) *resource {
	return &resource{api: a, name: "network", plural: "networks", path: "networks", kind: "Network",
		attrs: []attr{nameAttr(), descriptionAttr(), adminStateAttr(), projectAttr(), hintsAttr(),
			{name: "shared", when: both, kind: boolean, def: false, rule: true},
			{name: "router:external", when: both, kind: boolean, def: false, rule: true},
			{name: "is_default", when: both, kind: boolean, def: false, rule: true},
			{name: "provider:network_type", when: both, kind: null(filled(32)), rule: true, hidden: true},
			{name: "provider:physical_network", when: both, kind: null(text(64)), rule: true, hidden: true},
			{name: "provider:segmentation_id", when: both, kind: null(number(0, 1<<24)), rule: true, hidden: true},
			{name: "segments", when: post, kind: null(partList), rule: true, hidden: true},
			{name: "l2_adjacency", kind: boolean},
			{name: "mtu", when: both, kind: null(number(0, 65535))},
			{name: "port_security_enabled", when: both, kind: boolean, def: true, rule: true},
			{name: "dns_domain", when: both, kind: text(255)}},
		columns: map[string]string{"id": "id", "name": "name", "project_id": "project_id"},
		list:    a.networkDocs, create: createNetwork, update: updateNetwork,
		remove: func(_ *call, c *local.Change, id string) error { return c.DeleteNetwork(id) },
		retag: func(c *local.Change, id string, change func([]string) ([]string, error)) error {
			_, err := c.UpdateNetwork(id, func(n *network.Network) (err error) { n.Tags, err = change(n.Tags); return err })
			return err
		}}
}

func (a *API) networkDocs(q *call, f local.Filter) ([]doc, error) {
	ns, err := a.svc.Networks(q.Context(), f)
	if err != nil {
		return nil, err
	}
	scopes, err := a.scopesOf(q, ns)
	if err != nil {
		return nil, err
	}
	docs := make([]doc, len(ns))
	for i := range ns {
		docs[i] = a.networkDoc(&ns[i])
		for k := range ns[i].Subnets {
			s := &ns[i].Subnets[k]
			if scope := scopes[s.SubnetPoolID]; scope != "" {
				docs[i][map[int]string{4: "ipv4_address_scope", 6: "ipv6_address_scope"}[s.Version]] = scope
			}
		}
	}
	return docs, nil
}

// scopesOf gives the address scope of each subnet pool that subnets of the networks were cut from.
func (a *API) scopesOf(q *call, ns []network.Network) (map[string]string, error) {
	cut := false
	for i := range ns {
		for k := range ns[i].Subnets {
			cut = cut || ns[i].Subnets[k].SubnetPoolID != ""
		}
	}
	if !cut {
		return nil, nil
	}
	pools, err := a.svc.SubnetPools(q.Context(), local.Filter{})
	out := map[string]string{}
	for i := range pools {
		out[pools[i].ID] = pools[i].ScopeID
	}
	return out, err
}

func (a *API) networkDoc(n *network.Network) doc {
	ids := make([]string, len(n.Subnets))
	for i := range n.Subnets {
		ids[i] = n.Subnets[i].ID
	}
	zones := []string{}
	if len(ids) > 0 {
		zones = a.zones
	}
	d := standard(doc{"id": n.ID, "name": n.Name, "admin_state_up": n.AdminStateUp, "status": "ACTIVE", "subnets": ids, "shared": n.Shared,
		"router:external": n.External, "is_default": n.IsDefault, "mtu": n.MTU, "port_security_enabled": n.PortSecurity, "dns_domain": n.DNSDomain,
		"availability_zone_hints": list(n.ZoneHints), "availability_zones": zones, "ipv4_address_scope": nil, "ipv6_address_scope": nil,
		"provider:network_type": n.ProviderType, "provider:physical_network": orNull(n.ProviderPhysical), "provider:segmentation_id": numOrNull(n.SegmentationID),
	}, n.ProjectID, &n.Standard)
	showSegments(d, n)
	return d
}

func createNetwork(_ *call, c *local.Change, in input) (string, error) {
	n := &network.Network{ProjectID: in.str("project_id")}
	if err := setNetwork(n, in); err != nil {
		return "", err
	}
	if err := setSegments(n, in); err != nil {
		return "", err
	}
	if err := checkProvider(n); err != nil {
		return "", err
	}
	err := c.CreateNetwork(n)
	return n.ID, err
}

func updateNetwork(_ *call, c *local.Change, id string, in input) error {
	_, err := c.UpdateNetwork(id, func(n *network.Network) error {
		if err := errors.Join(sameProvider(n, in), setNetwork(n, in)); err != nil || n.Segmented {
			return err
		}
		return checkProvider(n)
	})
	return err
}

func setNetwork(n *network.Network, in input) error {
	in.set("name", &n.Name)
	in.set("description", &n.Description)
	in.set("dns_domain", &n.DNSDomain)
	in.setFlag("admin_state_up", &n.AdminStateUp)
	in.setFlag("shared", &n.Shared)
	in.setFlag("router:external", &n.External)
	in.setFlag("is_default", &n.IsDefault)
	in.setFlag("port_security_enabled", &n.PortSecurity)
	in.set("provider:network_type", &n.ProviderType)
	in.set("provider:physical_network", &n.ProviderPhysical)
	if in.has("provider:segmentation_id") {
		n.SegmentationID = in.num("provider:segmentation_id")
	}
	if in.has("availability_zone_hints") {
		n.ZoneHints = in.texts("availability_zone_hints")
	}
	if mtu := in.num("mtu"); mtu != nil {
		if *mtu != 0 && *mtu < 68 {
			return badRequest("Invalid input for mtu. Reason: '%d' is below the least of 68 octets that IPv4 needs.", *mtu)
		}
		n.MTU = *mtu
	}
	return nil
}

// checkProvider allows what hosts can do: a bridge of its own for each network, which may be carried between hosts by VXLAN, or one joined to a
// physical network as it is or to a VLAN of it.
func checkProvider(n *network.Network) error {
	bad := func(format string, args ...any) error {
		return fault.New(fault.Invalid, "Invalid input for operation: "+format, args...).WithCode("InvalidInput")
	}
	if n.SegmentationID != nil && *n.SegmentationID == 0 && n.ProviderType != "vlan" && n.ProviderType != "vxlan" {
		n.SegmentationID = nil // clients that always send a number mean none
	}
	switch n.ProviderType {
	case "", "local":
		if n.ProviderPhysical != "" || n.SegmentationID != nil {
			return bad("provider:physical_network and provider:segmentation_id are prohibited for local provider network.")
		}
	case "flat":
		if n.ProviderPhysical == "" {
			return bad("physical_network required for flat provider network.")
		}
		if n.SegmentationID != nil {
			return bad("provider:segmentation_id is prohibited for flat provider network.")
		}
	case "vlan":
		if n.SegmentationID != nil && n.ProviderPhysical == "" {
			return bad("segmentation_id requires physical_network for VLAN provider network.")
		}
		if n.SegmentationID != nil && (*n.SegmentationID < 1 || *n.SegmentationID > segments.MaxVLAN) {
			return bad("segmentation_id out of range (1 through %d).", segments.MaxVLAN)
		}
	case "vxlan":
		if n.ProviderPhysical != "" {
			return bad("provider:physical_network is prohibited for vxlan provider network.")
		}
		if n.SegmentationID != nil && (*n.SegmentationID < 1 || *n.SegmentationID > segments.MaxVNI) {
			return bad("segmentation_id out of range (1 through %d).", segments.MaxVNI)
		}
	default:
		return bad("network_type value '%s' not supported. Supported are local, vxlan, flat and vlan.", n.ProviderType)
	}
	return nil
}
