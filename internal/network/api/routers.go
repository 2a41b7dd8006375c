package api

import (
	"fmt"
	"slices"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/network"
	"kilonova/internal/network/local"
)

func routers(a *API) *resource {
	return &resource{api: a, name: "router", plural: "routers", path: "routers", kind: "Router",
		attrs: []attr{nameAttr(), descriptionAttr(), adminStateAttr(), projectAttr(), hintsAttr(),
			{name: "external_gateway_info", when: both, kind: null(gatewayInfo)},
			{name: "routes", when: put, kind: routeList}},
		columns: map[string]string{"id": "id", "name": "name", "project_id": "project_id"},
		list:    a.routerDocs, create: createRouter, update: updateRouter, check: a.checkRouter,
		remove: func(_ *call, c *local.Change, id string) error { return c.DeleteRouter(id) },
		retag: func(c *local.Change, id string, change func([]string) ([]string, error)) error {
			_, err := c.UpdateRouter(id, func(r *network.Router) (err error) { r.Tags, err = change(r.Tags); return err })
			return err
		}}
}

// gateway is external_gateway_info as given.
type gateway struct {
	network.RouterGateway
	snatSet, addressed bool
}

func gatewayInfo(v any) (any, string) {
	m, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Sprintf("'%s' is not a dictionary.", show(v))
	}
	if len(m) == 0 {
		return nil, "" // as null: no gateway
	}
	in, problem := record(m, map[string]kind{"network_id": uuid, "enable_snat": boolean, "external_fixed_ips": fixedIPs}, nil)
	if problem != "" {
		return nil, problem
	}
	if in.str("network_id") == "" {
		return nil, "Expected keys not found: network_id."
	}
	g := &gateway{RouterGateway: network.RouterGateway{NetworkID: in.str("network_id"), SNAT: true}, snatSet: in.has("enable_snat")}
	in.setFlag("enable_snat", &g.SNAT)
	g.FixedIPs, _ = in["external_fixed_ips"].([]network.FixedIP)
	g.addressed = namesAddress(g.FixedIPs)
	return g, ""
}

// checkRouter asks policy about the parts of a gateway and verifies that the caller sees its network.
func (a *API) checkRouter(q *call, in input, create bool) error {
	g, ok := in["external_gateway_info"].(*gateway)
	if !ok {
		return nil
	}
	rule := "update_router:external_gateway_info"
	if create {
		rule = "create_router:external_gateway_info"
	}
	if g.snatSet {
		if err := deny(q, rule+":enable_snat", q.Own()); err != nil {
			return err
		}
	}
	if g.addressed {
		if err := deny(q, rule+":external_fixed_ips", q.Own()); err != nil {
			return err
		}
	}
	_, err := a.svc.Network(q.Context(), q.project, g.NetworkID)
	return err
}

func (a *API) routerDocs(q *call, f local.Filter) ([]doc, error) {
	rs, err := a.svc.Routers(q.Context(), f)
	if err != nil {
		return nil, err
	}
	docs := make([]doc, len(rs))
	for i := range rs {
		docs[i] = a.routerDoc(&rs[i])
	}
	return docs, nil
}

func (a *API) routerDoc(r *network.Router) doc {
	var gw any
	if g := r.Gateway; g != nil {
		gw = map[string]any{"network_id": g.NetworkID, "enable_snat": g.SNAT, "external_fixed_ips": list(g.FixedIPs)}
	}
	return standard(doc{"id": r.ID, "name": r.Name, "admin_state_up": r.AdminStateUp, "status": "ACTIVE", "external_gateway_info": gw,
		"routes": list(r.Routes), "availability_zone_hints": list(r.ZoneHints), "availability_zones": a.zones}, r.ProjectID, &r.Standard)
}

func createRouter(_ *call, c *local.Change, in input) (string, error) {
	r := &network.Router{ProjectID: in.str("project_id")}
	setRouter(r, in)
	err := c.CreateRouter(r)
	return r.ID, err
}

func updateRouter(_ *call, c *local.Change, id string, in input) error {
	_, err := c.UpdateRouter(id, func(r *network.Router) error {
		setRouter(r, in)
		return nil
	})
	return err
}

func setRouter(r *network.Router, in input) {
	in.set("name", &r.Name)
	in.set("description", &r.Description)
	in.setFlag("admin_state_up", &r.AdminStateUp)
	if in.has("availability_zone_hints") {
		r.ZoneHints = in.texts("availability_zone_hints")
	}
	if v, ok := in["routes"].([]network.Route); ok {
		r.Routes = v
	}
	if !in.has("external_gateway_info") {
		return
	}
	g, ok := in["external_gateway_info"].(*gateway)
	if !ok {
		r.Gateway = nil
		return
	}
	want := g.RouterGateway
	want.FixedIPs = slices.Clone(g.FixedIPs)
	if !g.snatSet && r.Gateway != nil && r.Gateway.NetworkID == want.NetworkID {
		want.SNAT = r.Gateway.SNAT
	}
	r.Gateway = &want
}

// addInterface is PUT /routers/{id}/add_router_interface.
func (a *API) addInterface(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.changeInterface(r, "add_router_interface", true, (*local.Change).AddInterface)
}

// removeInterface is PUT /routers/{id}/remove_router_interface.
func (a *API) removeInterface(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.changeInterface(r, "remove_router_interface", false, (*local.Change).RemoveInterface)
}

func (a *API) changeInterface(r *httpapi.Request, rule string, adding bool, act func(c *local.Change, router, subnet, port string) (*local.Interface, error)) (*httpapi.Reply, error) {
	q := newCall(r)
	body, err := decode(r)
	if err != nil {
		return nil, err
	}
	in, problem := record(body, map[string]kind{"subnet_id": uuid, "port_id": uuid}, nil)
	if problem != "" {
		return nil, badRequest("Invalid input for router interface. Reason: %s", problem)
	}
	subnet, port := in.str("subnet_id"), in.str("port_id")
	if subnet == "" && port == "" {
		return nil, fault.New(fault.Invalid, "Bad router request: Either subnet_id or port_id must be specified.").WithCode("BadRequest")
	}
	if adding && subnet != "" && port != "" {
		return nil, fault.New(fault.Invalid, "Bad router request: Cannot specify both subnet-id and port-id.").WithCode("BadRequest")
	}
	d, err := routers(a).mine(q, r.Path("id"), rule)
	if err != nil {
		return nil, err
	}
	project, _ := d["project_id"].(string)
	if adding {
		if err := a.interfaceVisible(q, subnet, port); err != nil {
			return nil, err
		}
	}
	var got *local.Interface
	err = a.svc.Do(q.Context(), func(c *local.Change) (err error) {
		got, err = act(c, r.Path("id"), subnet, port)
		return err
	})
	if err != nil {
		return nil, err
	}
	return httpapi.OK(map[string]any{"id": got.Router.ID, "tenant_id": project, "project_id": project, "port_id": got.Port.ID,
		"network_id": got.Port.NetworkID, "subnet_id": got.Subnet, "subnet_ids": []string{got.Subnet}, "tags": list(got.Router.Tags)}), nil
}

// interfaceVisible verifies that the caller sees the subnet or port that shall join a router.
func (a *API) interfaceVisible(q *call, subnet, port string) error {
	f := local.Filter{Project: q.project}
	if port != "" {
		f.Match = map[string][]string{"id": {port}}
		ps, err := a.svc.Ports(q.Context(), f)
		if err == nil && len(ps) == 0 {
			return fault.New(fault.NotFound, "Port %s could not be found.", port).WithCode("PortNotFound")
		}
		return err
	}
	f.Match = map[string][]string{"id": {subnet}}
	ss, err := a.svc.Subnets(q.Context(), f)
	if err == nil && len(ss) == 0 {
		return fault.New(fault.NotFound, "Subnet %s could not be found.", subnet).WithCode("SubnetNotFound")
	}
	return err
}
