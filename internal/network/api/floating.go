package api

import (
	"slices"

	"kilonova/internal/fault"
	"kilonova/internal/network"
	"kilonova/internal/network/local"
)

func floatingIPs(a *API) *resource {
	return &resource{api: a, name: "floatingip", plural: "floatingips", path: "floatingips", kind: "FloatingIP",
		attrs: []attr{descriptionAttr(), projectAttr(),
			{name: "floating_network_id", when: required, kind: uuid},
			{name: "floating_ip_address", when: post, kind: null(address), rule: true, onlyIf: func(v any) bool { return v != nil }},
			{name: "subnet_id", when: post, kind: null(uuid)},
			{name: "port_id", when: both, kind: null(uuid)},
			{name: "fixed_ip_address", when: both, kind: null(address)},
			{name: "dns_name", when: post, kind: dnsName},
			{name: "dns_domain", when: post, kind: text(255)},
			{name: "router_id", kind: uuid}},
		columns: map[string]string{"id": "id", "project_id": "project_id", "floating_network_id": "network_id", "floating_ip_address": "address",
			"port_id": "port_id", "router_id": "router_id"},
		list: a.floatingDocs, create: createFloating, update: updateFloating, check: a.checkFloating,
		remove: func(_ *call, c *local.Change, id string) error { return c.DeleteFloatingIP(id) },
		retag: func(c *local.Change, id string, change func([]string) ([]string, error)) error {
			_, err := c.UpdateFloatingIP(id, func(f *network.FloatingIP) (err error) { f.Tags, err = change(f.Tags); return err })
			return err
		}}
}

// checkFloating verifies that the caller sees the external network and owns the port.
func (a *API) checkFloating(q *call, in input, create bool) error {
	if create {
		if _, err := a.svc.Network(q.Context(), q.project, in.str("floating_network_id")); err != nil {
			return err
		}
	}
	if in.str("fixed_ip_address") != "" && in.str("port_id") == "" && (create || in.has("port_id")) {
		return fault.New(fault.Invalid, "Bad floatingip request: Cannot specify fixed_ip_address without a port_id.").WithCode("BadRequest")
	}
	port := in.str("port_id")
	if port == "" {
		return nil
	}
	ps, err := a.svc.Ports(q.Context(), local.Filter{Project: q.project, Match: map[string][]string{"id": {port}}})
	if err == nil && len(ps) == 0 {
		return fault.New(fault.NotFound, "Port %s could not be found.", port).WithCode("PortNotFound")
	}
	return err
}

func (a *API) floatingDocs(q *call, f local.Filter) ([]doc, error) {
	fs, err := a.svc.FloatingIPs(q.Context(), f)
	if err != nil {
		return nil, err
	}
	var ids []string
	for i := range fs {
		if p := fs[i].PortID; p != "" && !slices.Contains(ids, p) {
			ids = append(ids, p)
		}
	}
	at := map[string]*network.Port{}
	for part := range slices.Chunk(ids, 400) {
		ps, err := a.svc.Ports(q.Context(), local.Filter{Match: map[string][]string{"id": part}})
		if err != nil {
			return nil, err
		}
		for i := range ps {
			at[ps[i].ID] = &ps[i]
		}
	}
	docs := make([]doc, len(fs))
	for i := range fs {
		docs[i] = floatingDoc(&fs[i], at[fs[i].PortID])
	}
	return docs, nil
}

func floatingDoc(f *network.FloatingIP, p *network.Port) doc {
	var details any
	if p != nil {
		details = map[string]any{"name": p.Name, "network_id": p.NetworkID, "mac_address": p.MAC, "admin_state_up": p.AdminStateUp,
			"status": p.Status, "device_id": p.DeviceID, "device_owner": p.DeviceOwner}
	}
	return standard(doc{"id": f.ID, "floating_network_id": f.NetworkID, "floating_ip_address": f.Address, "port_id": orNull(f.PortID),
		"fixed_ip_address": orNull(f.FixedIP), "router_id": orNull(f.RouterID), "status": f.Status, "port_details": details,
		"dns_name": f.DNSName, "dns_domain": f.DNSDomain}, f.ProjectID, &f.Standard)
}

func createFloating(_ *call, c *local.Change, in input) (string, error) {
	r := &local.FloatingRequest{SubnetID: in.str("subnet_id"), FloatingIP: network.FloatingIP{ProjectID: in.str("project_id"),
		NetworkID: in.str("floating_network_id"), Address: in.str("floating_ip_address"), PortID: in.str("port_id"), FixedIP: in.str("fixed_ip_address"),
		DNSName: in.str("dns_name"), DNSDomain: in.str("dns_domain"), Standard: network.Standard{Description: in.str("description")}}}
	f, err := c.CreateFloatingIP(r)
	if err != nil {
		return "", err
	}
	return f.ID, nil
}

func updateFloating(_ *call, c *local.Change, id string, in input) error {
	_, err := c.UpdateFloatingIP(id, func(f *network.FloatingIP) error {
		in.set("description", &f.Description)
		if in.has("port_id") {
			f.PortID, f.FixedIP = in.str("port_id"), in.str("fixed_ip_address")
		} else if in.has("fixed_ip_address") {
			f.FixedIP = in.str("fixed_ip_address")
		}
		return nil
	})
	return err
}
