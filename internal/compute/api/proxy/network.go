package proxy

import (
	"net/url"

	"kilonova/internal/httpapi"
)

// netDoc is a network of the network API.
type netDoc struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// nothing are the keys that networks had when compute made them itself; the network service has none of it here.
var nothing = []string{"broadcast", "cidr", "cidr_v6", "dns1", "dns2", "gateway", "gateway_v6", "netmask", "netmask_v6"}

// nothingForAdmins are those that administrators saw besides.
var nothingForAdmins = []string{"bridge", "bridge_interface", "created_at", "deleted", "deleted_at", "dhcp_server", "dhcp_start", "enable_dhcp", "host", "injected",
	"mtu", "multi_host", "priority", "project_id", "rxtx_base", "share_address", "updated_at", "vlan", "vpn_private_address", "vpn_public_address", "vpn_public_port"}

func networkView(r *httpapi.Request, n netDoc) document {
	d := document{"id": n.ID, "label": n.Name}
	for _, k := range nothing {
		d[k] = nil
	}
	if r.Caller.IsAdmin() {
		for _, k := range nothingForAdmins {
			d[k] = nil
		}
	}
	return d
}

func tenantView(_ *httpapi.Request, n netDoc) document {
	return document{"id": n.ID, "label": n.Name, "cidr": "None"}
}

func (a api) listNetworks(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.networks(r, networkView)
}

func (a api) listTenantNetworks(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.networks(r, tenantView)
}

// networks lists the project's own networks and the shared ones; all of them to administrators.
func (a api) networks(r *httpapi.Request, view func(*httpapi.Request, netDoc) document) (*httpapi.Reply, error) {
	out, seen := []document{}, map[string]bool{}
	queries := []url.Values{own(r), {"shared": {"true"}}}
	if r.Caller.IsAdmin() {
		queries = []url.Values{nil}
	}
	for _, q := range queries {
		var doc struct{ Networks []netDoc }
		if err := a.Network.call(r, "GET", "/networks", q, nil, &doc); err != nil {
			return nil, err
		}
		for _, n := range doc.Networks {
			if !seen[n.ID] {
				out, seen[n.ID] = append(out, view(r, n)), true
			}
		}
	}
	return reply("networks", out), nil
}

func (a api) showNetwork(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.network(r, networkView)
}

func (a api) showTenantNetwork(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.network(r, tenantView)
}

func (a api) network(r *httpapi.Request, view func(*httpapi.Request, netDoc) document) (*httpapi.Reply, error) {
	var doc struct{ Network netDoc }
	if err := a.Network.call(r, "GET", "/networks/"+url.PathEscape(r.Path("id")), nil, nil, &doc); err != nil {
		return nil, err
	}
	return reply("network", view(r, doc.Network)), nil
}
