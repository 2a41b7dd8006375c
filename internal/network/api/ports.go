package api

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"kilonova/internal/fault"
	"kilonova/internal/network"
	"kilonova/internal/network/ipam"
	"kilonova/internal/network/local"
)

func ports(a *API) *resource {
	return &resource{api: a, name: "port", plural: "ports", path: "ports", kind: "Port",
		attrs: []attr{nameAttr(), descriptionAttr(), adminStateAttr(), projectAttr(),
			{name: "network_id", when: required, kind: uuid},
			{name: "mac_address", when: both, kind: null(macAddress), rule: true},
			{name: "fixed_ips", when: both, kind: fixedIPs, rule: true, onlyIf: namesAddress},
			{name: "device_id", when: both, kind: null(text(255))},
			{name: "device_owner", when: both, kind: null(text(255)), rule: true, onlyIf: ownedByNetwork},
			{name: "security_groups", when: both, kind: texts(uuid)},
			{name: "allowed_address_pairs", when: both, kind: pairList, rule: true},
			{name: "port_security_enabled", when: both, kind: boolean, rule: true},
			{name: "extra_dhcp_opts", when: both, kind: dhcpOptions},
			{name: "dns_name", when: both, kind: dnsName},
			{name: "binding:host_id", when: both, kind: null(text(255)), rule: true, hidden: true},
			{name: "binding:vnic_type", when: both, kind: oneOf("normal", "macvtap", "direct", "baremetal", "direct-physical", "virtio-forwarder", "smart-nic", "accelerator-direct", "accelerator-direct-physical", "remote-managed", "vdpa")},
			{name: "binding:profile", when: both, kind: null(object), rule: true, hidden: true},
			{name: "numa_affinity_policy", when: both, kind: null(oneOf("required", "preferred", "legacy", "socket"))},
			{name: "ip_allocation", kind: text(16)},
			{name: "binding:vif_type", kind: text(64), hidden: true},
			{name: "binding:vif_details", kind: object, hidden: true}},
		columns: map[string]string{"id": "id", "name": "name", "project_id": "project_id", "network_id": "network_id", "mac_address": "mac_address",
			"device_id": "device_id", "device_owner": "device_owner", "binding:host_id": "host", "status": "status"},
		list: a.portDocs, create: createPort, update: updatePort, check: a.checkPort, filter: portFilter, target: a.networkOwner,
		remove: func(_ *call, c *local.Change, id string) error {
			if err := c.Deletable(id); err != nil {
				return err
			}
			return c.DeletePort(id)
		},
		retag: func(c *local.Change, id string, change func([]string) ([]string, error)) error {
			_, err := c.UpdatePort(id, func(p *network.Port) (err error) { p.Tags, err = change(p.Tags); return err })
			return err
		}}
}

// namesAddress tells whether fixed IPs name addresses: whoever only names a subnet takes what he gets.
func namesAddress(v any) bool {
	l, _ := v.([]network.FixedIP)
	return slices.ContainsFunc(l, func(f network.FixedIP) bool { return f.Address != "" })
}

func ownedByNetwork(v any) bool {
	s, _ := v.(string)
	return strings.HasPrefix(s, "network:")
}

// dnsName takes host names (RFC 1123), empty for none.
func dnsName(v any) (any, string) {
	s, ok := v.(string)
	if !ok || len(s) > 63 {
		return nil, "'" + show(v) + "' is not a valid name of at most 63 characters."
	}
	for i, c := range []byte(s) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (c != '-' || i == 0 || i == len(s)-1) {
			return nil, "'" + s + "' not a valid PQDN or FQDN. Reason: a name holds letters, digits and inner hyphens."
		}
	}
	return strings.ToLower(s), ""
}

func (a *API) portDocs(q *call, f local.Filter) ([]doc, error) {
	ps, err := a.svc.Ports(q.Context(), f)
	if err != nil {
		return nil, err
	}
	domains, err := a.domains(q, ps)
	if err != nil {
		return nil, err
	}
	docs := make([]doc, len(ps))
	for i := range ps {
		docs[i] = a.portDoc(&ps[i], domains[ps[i].NetworkID])
	}
	return docs, nil
}

// domains gives the DNS domain of each network of the ports.
func (a *API) domains(q *call, ps []network.Port) (map[string]string, error) {
	var ids []string
	for i := range ps {
		if ps[i].DNSName != "" && !slices.Contains(ids, ps[i].NetworkID) {
			ids = append(ids, ps[i].NetworkID)
		}
	}
	out := map[string]string{}
	if len(ids) == 0 {
		return out, nil
	}
	ns, err := a.svc.Networks(q.Context(), local.Filter{Match: map[string][]string{"id": ids}})
	for i := range ns {
		out[ns[i].ID] = ns[i].DNSDomain
	}
	return out, err
}

func (a *API) portDoc(p *network.Port, domain string) doc {
	pairs := make([]map[string]string, len(p.AllowedPairs))
	for i, pair := range p.AllowedPairs {
		mac := pair.MAC
		if mac == "" {
			mac = p.MAC
		}
		pairs[i] = map[string]string{"ip_address": pair.IP, "mac_address": mac}
	}
	profile, details := p.Profile, map[string]any{}
	if profile == nil {
		profile = map[string]any{}
	}
	switch p.VIFType {
	case "bridge":
		details = map[string]any{"port_filter": true, "connectivity": "l2", "bridge_name": network.BridgeName(p.NetworkID)}
	case network.VIFHardware, network.VIFPhysical:
		details = deviceDetails()
	}
	var numa any
	if p.NUMAPolicy != "" {
		numa = p.NUMAPolicy
	}
	names := []map[string]string{}
	for _, f := range p.FixedIPs {
		h := ipam.Hostname(p, f.Address)
		names = append(names, map[string]string{"hostname": h, "ip_address": f.Address, "fqdn": a.svc.FQDN(h, domain)})
	}
	return standard(doc{"id": p.ID, "name": p.Name, "network_id": p.NetworkID, "mac_address": p.MAC, "admin_state_up": p.AdminStateUp, "status": p.Status,
		"fixed_ips": list(p.FixedIPs), "device_id": p.DeviceID, "device_owner": p.DeviceOwner, "security_groups": list(p.SecurityGroups),
		"allowed_address_pairs": pairs, "port_security_enabled": p.PortSecurity, "extra_dhcp_opts": list(p.ExtraDHCP), "dns_name": p.DNSName,
		"dns_assignment": names, "ip_allocation": cmp.Or(p.IPAllocation, "immediate"), "binding:host_id": p.HostID, "binding:vnic_type": p.VNICType, "binding:profile": profile,
		"binding:vif_type": p.VIFType, "binding:vif_details": details, "numa_affinity_policy": numa}, p.ProjectID, &p.Standard)
}

// deviceDetails are the details of a port that is a PCI device: nothing on the host looks at what passes.
func deviceDetails() map[string]any {
	return map[string]any{"port_filter": false, "connectivity": "l2"}
}

// checkPort gives a port the port security of its network when it asks for none, and verifies that the caller sees the groups.
func (a *API) checkPort(q *call, in input, create bool) error {
	if create && !in.has("port_security_enabled") {
		n, err := a.svc.Network(q.Context(), q.project, in.str("network_id"))
		if err != nil {
			return err
		}
		in["port_security_enabled"] = n.PortSecurity
	}
	want := in.texts("security_groups")
	if len(want) == 0 {
		return nil
	}
	seen, err := a.svc.Groups(q.Context(), local.Filter{Project: q.project, Match: map[string][]string{"id": want}})
	if err != nil {
		return err
	}
	for _, w := range want {
		if !slices.ContainsFunc(seen, func(g network.Group) bool { return g.ID == w }) {
			return fault.New(fault.NotFound, "Security group %s does not exist", w).WithCode("SecurityGroupNotFound")
		}
	}
	return nil
}

func createPort(_ *call, c *local.Change, in input) (string, error) {
	r := &local.PortInput{Port: network.Port{ProjectID: in.str("project_id"), NetworkID: in.str("network_id")}}
	_, r.FixedSet = in["fixed_ips"]
	_, r.GroupsSet = in["security_groups"]
	setPort(&r.Port, in)
	p, err := c.CreatePort(r)
	if err != nil {
		return "", err
	}
	return p.ID, nil
}

func updatePort(_ *call, c *local.Change, id string, in input) error {
	_, err := c.UpdatePort(id, func(p *network.Port) error {
		setPort(p, in)
		return nil
	})
	return err
}

func setPort(p *network.Port, in input) {
	in.set("name", &p.Name)
	in.set("description", &p.Description)
	in.set("device_id", &p.DeviceID)
	in.set("device_owner", &p.DeviceOwner)
	in.set("dns_name", &p.DNSName)
	in.set("binding:host_id", &p.HostID)
	in.set("binding:vnic_type", &p.VNICType)
	if in.has("numa_affinity_policy") {
		p.NUMAPolicy = in.str("numa_affinity_policy")
	}
	in.setFlag("admin_state_up", &p.AdminStateUp)
	in.setFlag("port_security_enabled", &p.PortSecurity)
	if mac := in.str("mac_address"); mac != "" {
		p.MAC = mac
	}
	if v, ok := in["fixed_ips"].([]network.FixedIP); ok {
		p.FixedIPs = slices.Clone(v)
	}
	if v, ok := in["allowed_address_pairs"].([]network.AddressPair); ok {
		p.AllowedPairs = v
	}
	if in.has("binding:profile") {
		p.Profile, _ = in["binding:profile"].(map[string]any)
	}
	if v, ok := in["extra_dhcp_opts"].([]network.DHCPOption); ok {
		p.ExtraDHCP = mergeOptions(p.ExtraDHCP, v)
	}
	if in.has("security_groups") {
		p.SecurityGroups = slices.Clone(in.texts("security_groups"))
	}
}

// mergeOptions replaces options of the same name and version, and removes those whose new value is empty.
func mergeOptions(have, want []network.DHCPOption) []network.DHCPOption {
	out := slices.Clone(have)
	for _, w := range want {
		out = slices.DeleteFunc(out, func(o network.DHCPOption) bool { return o.Name == w.Name && o.Version == w.Version })
		if w.Value != "" {
			out = append(out, w)
		}
	}
	return out
}

// portFilter knows fixed_ips=subnet_id=X, ip_address=X, ip_address_substr=X, and security_groups=X.
func portFilter(_ *call, name string, values []string) (func(doc) bool, bool, error) {
	switch name {
	case "security_groups", "security_group_ids":
		return func(d doc) bool {
			have, _ := d["security_groups"].([]string)
			return slices.ContainsFunc(values, func(v string) bool { return slices.Contains(have, v) })
		}, true, nil
	case "fixed_ips":
	default:
		return nil, false, nil
	}
	type want struct{ key, value string }
	var wants []want
	for _, v := range values {
		k, val, ok := strings.Cut(v, "=")
		if !ok || k != "subnet_id" && k != "ip_address" && k != "ip_address_substr" {
			return nil, true, badRequest("Invalid input for fixed_ips. Reason: '%s' is none of subnet_id=, ip_address= and ip_address_substr=.", v)
		}
		wants = append(wants, want{k, val})
	}
	holds := func(f network.FixedIP, w want) bool {
		switch w.key {
		case "subnet_id":
			return f.SubnetID == w.value
		case "ip_address":
			a, e1 := netip.ParseAddr(f.Address)
			b, e2 := netip.ParseAddr(w.value)
			return e1 == nil && e2 == nil && a == b
		}
		return strings.Contains(f.Address, w.value)
	}
	return func(d doc) bool {
		have, _ := d["fixed_ips"].([]network.FixedIP)
		// Values of one key are alternatives, the keys must all hold for one address.
		return slices.ContainsFunc(have, func(f network.FixedIP) bool {
			judged, held := map[string]bool{}, map[string]bool{}
			for _, w := range wants {
				judged[w.key] = true
				held[w.key] = held[w.key] || holds(f, w)
			}
			return len(judged) == count(held)
		})
	}, true, nil
}

func count(m map[string]bool) int {
	n := 0
	for _, v := range m {
		if v {
			n++
		}
	}
	return n
}
