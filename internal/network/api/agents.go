package api

import (
	"slices"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/network"
	"kilonova/internal/network/local"
	"kilonova/internal/policy"
)

// agents are the hosts' network parts; only administrators see them.
func agents(a *API) *resource {
	return &resource{api: a, name: "agent", plural: "agents", path: "agents", kind: "Agent",
		attrs: []attr{adminPut("admin_state_up", boolean), adminPut("description", text(255)),
			{name: "agent_type", kind: text(255)}, {name: "alive", kind: boolean}, {name: "host", kind: text(255)},
			{name: "binary", kind: text(255)}, {name: "topic", kind: text(255)}, {name: "availability_zone", kind: text(255)}},
		list: func(q *call, _ local.Filter) ([]doc, error) {
			if !q.Allowed("get_agent", q.Own()) { // for others there are none
				return nil, nil
			}
			as, err := a.svc.Agents(q.Context())
			docs := make([]doc, len(as))
			for i := range as {
				docs[i] = agentDoc(&as[i], clock.Now())
			}
			return docs, err
		},
		update: func(_ *call, c *local.Change, id string, in input) error {
			_, err := c.UpdateAgent(id, func(ag *network.Agent) error {
				in.setFlag("admin_state_up", &ag.AdminStateUp)
				in.set("description", &ag.Description)
				return nil
			})
			return err
		},
		remove: func(_ *call, c *local.Change, id string) error { return c.DeleteAgent(id) }}
}

func adminPut(name string, k kind) attr { return attr{name: name, when: put, kind: k} }

const agentTime = "2006-01-02 15:04:05"

func agentDoc(ag *network.Agent, now time.Time) doc {
	at := func(us int64) string { return clock.FromMicros(us).Format(agentTime) }
	conf := ag.Configurations
	if conf == nil {
		conf = map[string]any{}
	}
	return doc{"id": ag.ID, "agent_type": ag.Type, "binary": ag.Binary, "host": ag.Host, "topic": network.ChangedSubject, "admin_state_up": ag.AdminStateUp,
		"alive": now.Sub(clock.FromMicros(ag.Heartbeat)) < local.AgentDown, "availability_zone": ag.Zone, "description": ag.Description,
		"created_at": at(ag.Created), "started_at": at(ag.Started), "heartbeat_timestamp": at(ag.Heartbeat), "configurations": conf,
		"resource_versions": map[string]any{}, "resources_synced": nil}
}

// listZones is GET /availability_zones: the zones of networks and routers.
func (a *API) listZones(r *httpapi.Request) (*httpapi.Reply, error) {
	as, err := a.svc.Agents(r.Context())
	if err != nil {
		return nil, err
	}
	names := slices.Clone(a.zones)
	for i := range as {
		if !slices.Contains(names, as[i].Zone) {
			names = append(names, as[i].Zone)
		}
	}
	zones := []map[string]string{}
	for _, n := range names {
		for _, res := range []string{"network", "router"} {
			zones = append(zones, map[string]string{"name": n, "resource": res, "state": "available"})
		}
	}
	return httpapi.OK(map[string]any{"availability_zones": zones}), nil
}

// listProviders is GET /service-providers: routers have one kind of provider, which has no name here.
func (a *API) listProviders(*httpapi.Request) (*httpapi.Reply, error) {
	return httpapi.OK(map[string]any{"service_providers": []any{}}), nil
}

// portForBinding finds a port whose bindings an administrator works on.
func (a *API) portForBinding(r *httpapi.Request, action string) (*call, *network.Port, error) {
	q := newCall(r)
	ps, err := a.svc.Ports(r.Context(), local.Filter{Project: q.project, Match: map[string][]string{"id": {r.Path("id")}}})
	if err != nil {
		return nil, nil, err
	}
	if len(ps) == 0 {
		return nil, nil, fault.New(fault.NotFound, "Port %s could not be found.", r.Path("id")).WithCode("PortNotFound")
	}
	return q, &ps[0], deny(q, action+"_port_binding", policy.Target{"project_id": ps[0].ProjectID, "tenant_id": ps[0].ProjectID})
}

func bindingDoc(b *network.Binding) map[string]any {
	profile, details := b.Profile, map[string]any{}
	if profile == nil {
		profile = map[string]any{}
	}
	switch b.VIFType {
	case "bridge":
		details = map[string]any{"port_filter": true, "connectivity": "l2"}
	case network.VIFHardware, network.VIFPhysical:
		details = deviceDetails()
	}
	return map[string]any{"host": b.Host, "status": b.Status, "vif_type": b.VIFType, "vnic_type": b.VNICType, "profile": profile, "vif_details": details}
}

func (a *API) listBindings(r *httpapi.Request) (*httpapi.Reply, error) {
	_, p, err := a.portForBinding(r, "get")
	if err != nil {
		return nil, err
	}
	bs, err := a.svc.Bindings(r.Context(), p)
	if err != nil {
		return nil, err
	}
	docs := []map[string]any{}
	for i := range bs {
		docs = append(docs, bindingDoc(&bs[i]))
	}
	return httpapi.OK(map[string]any{"bindings": docs}), nil
}

func (a *API) createBinding(r *httpapi.Request) (*httpapi.Reply, error) {
	_, p, err := a.portForBinding(r, "create")
	if err != nil {
		return nil, err
	}
	obj, err := bodyOf(r, "binding")
	if err != nil {
		return nil, err
	}
	in, problem := record(obj, map[string]kind{"host": filled(255), "vnic_type": text(64), "profile": null(object)}, []string{"host"})
	if problem != "" {
		return nil, badRequest("Invalid input for binding. Reason: %s", problem)
	}
	b := &network.Binding{Host: in.str("host"), VNICType: in.str("vnic_type")}
	b.Profile, _ = in["profile"].(map[string]any)
	if err := a.svc.Do(r.Context(), func(c *local.Change) error { return c.AddBinding(p, b) }); err != nil {
		return nil, err
	}
	return httpapi.Created(map[string]any{"binding": bindingDoc(b)}), nil
}

func (a *API) deleteBinding(r *httpapi.Request) (*httpapi.Reply, error) {
	_, p, err := a.portForBinding(r, "delete")
	if err != nil {
		return nil, err
	}
	if err := a.svc.Do(r.Context(), func(c *local.Change) error { return c.DeleteBinding(p.ID, r.Path("host")) }); err != nil {
		return nil, err
	}
	return httpapi.NoContent(), nil
}

func (a *API) activateBinding(r *httpapi.Request) (*httpapi.Reply, error) {
	_, p, err := a.portForBinding(r, "update")
	if err != nil {
		return nil, err
	}
	var b *network.Binding
	err = a.svc.Do(r.Context(), func(c *local.Change) (err error) {
		b, err = c.ActivateBinding(p.ID, r.Path("host"))
		return err
	})
	if err != nil {
		return nil, err
	}
	return httpapi.OK(map[string]any{"binding": bindingDoc(b)}), nil
}
