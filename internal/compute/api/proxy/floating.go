package proxy

import (
	"net/url"
	"slices"

	"kilonova/internal/compute/api/backend"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

// floatDoc is a floating IP of the network API.
type floatDoc struct {
	ID      string  `json:"id"`
	Address string  `json:"floating_ip_address"`
	Network string  `json:"floating_network_id"`
	Fixed   *string `json:"fixed_ip_address"`
	Port    *string `json:"port_id"`
}

// portDoc is a port of the network API.
type portDoc struct {
	ID       string   `json:"id"`
	Device   string   `json:"device_id"`
	Groups   []string `json:"security_groups"`
	FixedIPs []struct {
		Address string `json:"ip_address"`
	} `json:"fixed_ips"`
}

// pools gives the external networks: what compute calls pools.
func (a api) pools(r *httpapi.Request) ([]netDoc, error) {
	var doc struct{ Networks []netDoc }
	err := a.Network.call(r, "GET", "/networks", url.Values{"router:external": {"true"}}, nil, &doc)
	return doc.Networks, err
}

func (a api) listPools(r *httpapi.Request) (*httpapi.Reply, error) {
	pools, err := a.pools(r)
	if err != nil {
		return nil, err
	}
	out := []document{}
	for _, p := range pools {
		out = append(out, document{"name": p.Name})
	}
	return reply("floating_ip_pools", out), nil
}

// floatingViews adds pool names and servers to floating IPs.
func (a api) floatingViews(r *httpapi.Request, list []floatDoc) ([]document, error) {
	out := []document{}
	if len(list) == 0 {
		return out, nil
	}
	pools, err := a.pools(r)
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, p := range pools {
		names[p.ID] = p.Name
	}
	var ports struct{ Ports []portDoc }
	if slices.ContainsFunc(list, func(f floatDoc) bool { return f.Port != nil }) {
		q := url.Values{}
		for _, f := range list {
			if f.Port != nil {
				q.Add("id", *f.Port)
			}
		}
		if err := a.Network.call(r, "GET", "/ports", q, nil, &ports); err != nil {
			return nil, err
		}
	}
	for _, f := range list {
		d := document{"id": f.ID, "ip": f.Address, "pool": names[f.Network], "fixed_ip": nil, "instance_id": nil}
		if f.Fixed != nil {
			d["fixed_ip"] = orNull(*f.Fixed)
		}
		for _, p := range ports.Ports {
			if f.Port != nil && p.ID == *f.Port {
				d["instance_id"] = orNull(p.Device)
			}
		}
		out = append(out, d)
	}
	return out, nil
}

func (a api) listFloatingIPs(r *httpapi.Request) (*httpapi.Reply, error) {
	var doc struct{ FloatingIPs []floatDoc }
	if err := a.Network.call(r, "GET", "/floatingips", own(r), nil, &doc); err != nil {
		return nil, err
	}
	views, err := a.floatingViews(r, doc.FloatingIPs)
	if err != nil {
		return nil, err
	}
	return reply("floating_ips", views), nil
}

func (a api) oneFloatingIP(r *httpapi.Request, f floatDoc) (*httpapi.Reply, error) {
	views, err := a.floatingViews(r, []floatDoc{f})
	if err != nil {
		return nil, err
	}
	return reply("floating_ip", views[0]), nil
}

func (a api) showFloatingIP(r *httpapi.Request) (*httpapi.Reply, error) {
	name, err := uuid(r, fault.NotFound, "Floating IP")
	if err != nil {
		return nil, err
	}
	var doc struct{ FloatingIP floatDoc }
	if err := a.Network.call(r, "GET", "/floatingips/"+name, nil, nil, &doc); err != nil {
		return nil, err
	}
	return a.oneFloatingIP(r, doc.FloatingIP)
}

func (a api) createFloatingIP(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct{ Pool string }
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	pools, err := a.pools(r)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(pools, func(p netDoc) bool { return in.Pool == "" || p.Name == in.Pool || p.ID == in.Pool })
	if i < 0 && in.Pool != "" {
		return nil, fault.New(fault.NotFound, "Floating IP pool %s not found.", in.Pool)
	}
	if i < 0 {
		return nil, fault.New(fault.NotFound, "Floating IP pool not found.")
	}
	var doc struct{ FloatingIP floatDoc }
	body := document{"floatingip": document{"floating_network_id": pools[i].ID}}
	if err := a.Network.call(r, "POST", "/floatingips", nil, body, &doc); err != nil {
		if fault.KindOf(err) == fault.Conflict {
			return nil, fault.Wrap(err, fault.NotFound, "No more floating IPs in pool %s.", pools[i].Name)
		}
		return nil, err
	}
	return a.oneFloatingIP(r, doc.FloatingIP)
}

func (a api) deleteFloatingIP(r *httpapi.Request) (*httpapi.Reply, error) {
	name, err := uuid(r, fault.NotFound, "Floating IP")
	if err != nil {
		return nil, err
	}
	return &httpapi.Reply{}, a.Network.call(r, "DELETE", "/floatingips/"+name, nil, nil, nil)
}

// addFloatingIP associates an address of the project with a port of the server.
func (a api) addFloatingIP(r *httpapi.Request) (*httpapi.Reply, error) {
	in, err := decode[struct {
		Address string `json:"address"`
		Fixed   string `json:"fixed_address"`
	}](r, "addFloatingIp")
	if err != nil {
		return nil, err
	}
	s, err := a.Server(r, "id", backend.Rule("os-floating-ips:add"))
	if err != nil {
		return nil, err
	}
	f, err := a.byAddress(r, in.Address)
	if err != nil {
		return nil, err
	}
	var doc struct{ Ports []portDoc }
	if err := a.Network.call(r, "GET", "/ports", url.Values{"device_id": {s.ID}}, nil, &doc); err != nil {
		return nil, err
	}
	for _, p := range doc.Ports {
		for _, ip := range p.FixedIPs {
			if in.Fixed != "" && ip.Address != in.Fixed || in.Fixed == "" && !isIPv4(ip.Address) {
				continue
			}
			body := document{"floatingip": document{"port_id": p.ID, "fixed_ip_address": ip.Address}}
			return &httpapi.Reply{}, conflictIsInvalid(a.Network.call(r, "PUT", "/floatingips/"+f.ID, nil, body, nil))
		}
	}
	if in.Fixed != "" {
		return nil, fault.New(fault.Invalid, "Specified fixed address not assigned to instance")
	}
	return nil, fault.New(fault.Invalid, "No fixed IPs associated to instance")
}

// removeFloatingIP takes an address off the server.
func (a api) removeFloatingIP(r *httpapi.Request) (*httpapi.Reply, error) {
	in, err := decode[struct {
		Address string `json:"address"`
	}](r, "removeFloatingIp")
	if err != nil {
		return nil, err
	}
	s, err := a.Server(r, "id", backend.Rule("os-floating-ips:remove"))
	if err != nil {
		return nil, err
	}
	f, err := a.byAddress(r, in.Address)
	if err != nil {
		return nil, err
	}
	var doc struct{ Port portDoc }
	if f.Port != nil {
		if err := a.Network.call(r, "GET", "/ports/"+*f.Port, nil, nil, &doc); err != nil && fault.KindOf(err) != fault.NotFound {
			return nil, err
		}
	}
	if doc.Port.Device != s.ID {
		return nil, fault.New(fault.Conflict, "Floating IP %s is not associated with instance %s.", in.Address, s.ID)
	}
	body := document{"floatingip": document{"port_id": nil}}
	return &httpapi.Reply{}, a.Network.call(r, "PUT", "/floatingips/"+f.ID, nil, body, nil)
}

func (a api) byAddress(r *httpapi.Request, address string) (floatDoc, error) {
	var doc struct{ FloatingIPs []floatDoc }
	q := own(r)
	q.Set("floating_ip_address", address)
	if err := a.Network.call(r, "GET", "/floatingips", q, nil, &doc); err != nil {
		return floatDoc{}, err
	}
	if len(doc.FloatingIPs) == 0 {
		return floatDoc{}, fault.New(fault.NotFound, "floating IP not found")
	}
	return doc.FloatingIPs[0], nil
}
