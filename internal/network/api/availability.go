package api

import (
	"math/big"
	"slices"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/network"
	"kilonova/internal/network/ipam"
	"kilonova/internal/network/local"
)

// availabilities counts the addresses of networks, for administrators (extension network-ip-availability).
func (a *API) availabilities(r *httpapi.Request, f local.Filter) ([]map[string]any, error) {
	if err := deny(newCall(r), "get_network_ip_availability", nil); err != nil {
		return nil, err
	}
	ns, err := a.svc.Networks(r.Context(), f)
	if err != nil {
		return nil, err
	}
	var ids []string
	for i := range ns {
		for k := range ns[i].Subnets {
			ids = append(ids, ns[i].Subnets[k].ID)
		}
	}
	used, err := a.svc.AddressesUsed(r.Context(), ids)
	if err != nil {
		return nil, err
	}
	version := r.Query().Get("ip_version")
	docs := []map[string]any{}
	for i := range ns {
		docs = append(docs, availability(&ns[i], used, version))
	}
	return docs, nil
}

func availability(n *network.Network, used map[string]int64, version string) map[string]any {
	total, sum := new(big.Int), int64(0)
	subs := []map[string]any{}
	for i := range n.Subnets {
		s := &n.Subnets[i]
		if version != "" && !equals(s.Version, version) {
			continue
		}
		size := ipam.PoolSize(s.Pools)
		total.Add(total, size)
		sum += used[s.ID]
		subs = append(subs, map[string]any{"subnet_id": s.ID, "subnet_name": s.Name, "ip_version": s.Version, "cidr": s.CIDR, "total_ips": size, "used_ips": used[s.ID]})
	}
	return map[string]any{"network_id": n.ID, "network_name": n.Name, "project_id": n.ProjectID, "tenant_id": n.ProjectID,
		"total_ips": total, "used_ips": sum, "subnet_ip_availability": subs}
}

func (a *API) listAvailabilities(r *httpapi.Request) (*httpapi.Reply, error) {
	f := local.Filter{Match: map[string][]string{}}
	for param, col := range map[string]string{"network_id": "id", "network_name": "name", "tenant_id": "project_id", "project_id": "project_id"} {
		if v := r.Query()[param]; len(v) > 0 {
			f.Match[col] = v
		}
	}
	docs, err := a.availabilities(r, f)
	if err != nil {
		return nil, err
	}
	return httpapi.OK(map[string]any{"network_ip_availabilities": docs}), nil
}

func (a *API) showAvailability(r *httpapi.Request) (*httpapi.Reply, error) {
	docs, err := a.availabilities(r, local.Filter{Match: map[string][]string{"id": {r.Path("id")}}})
	if err != nil {
		return nil, err
	}
	if len(docs) == 0 {
		return nil, fault.New(fault.NotFound, "Network %s could not be found.", r.Path("id")).WithCode("NetworkNotFound")
	}
	return httpapi.OK(map[string]any{"network_ip_availability": docs[0]}), nil
}

// The network that "give me a network" makes for a project.
const (
	topologyNetwork = "auto_allocated_network"
	topologyRouter  = "auto_allocated_router"
	topologySubnet4 = "auto_allocated_subnet_v4"
	topologySubnet6 = "auto_allocated_subnet_v6"
)

// showTopology is GET /auto-allocated-topology/{project}: the project's network with subnets from the default pools, joined by a router
// to the default external network. It is made at the first request. ?fields=dry-run only tells whether it could be made.
func (a *API) showTopology(r *httpapi.Request) (*httpapi.Reply, error) {
	q := newCall(r)
	project, err := topologyProject(q)
	if err != nil {
		return nil, err
	}
	have, err := a.svc.Networks(r.Context(), local.Filter{Match: map[string][]string{"project_id": {project}, "name": {topologyNetwork}}})
	if err != nil {
		return nil, err
	}
	dry := slices.Contains(r.Query()["fields"], "dry-run")
	if len(have) > 0 && !dry {
		return topologyReply(have[0].ID, project), nil
	}
	pools, external, err := a.topologyParts(r)
	if err != nil {
		return nil, err
	}
	if dry {
		return topologyReply("dry-run=pass", project), nil
	}
	var id string
	err = a.svc.Do(r.Context(), func(c *local.Change) (err error) {
		id, err = buildTopology(c, project, pools, external)
		return err
	})
	if err != nil {
		return nil, err
	}
	return topologyReply(id, project), nil
}

func topologyReply(id, project string) *httpapi.Reply {
	return httpapi.OK(map[string]any{"auto_allocated_topology": map[string]any{"id": id, "tenant_id": project, "project_id": project}})
}

func topologyProject(q *call) (string, error) {
	project := q.Request.Path("project")
	if project == "null" || project == "None" {
		project = q.Caller.ProjectID
	}
	t := q.Own()
	t["project_id"], t["tenant_id"] = project, project
	return project, deny(q, "get_auto_allocated_topology", t)
}

// topologyParts finds the default subnet pools and external network.
func (a *API) topologyParts(r *httpapi.Request) ([]network.SubnetPool, string, error) {
	problem := func(what string) error {
		return fault.New(fault.Conflict, "Deployment error: %s.", what).WithCode("AutoAllocationFailure").
			WithHint("An administrator sets is_default on an external network and on a subnet pool.")
	}
	nets, err := a.svc.Networks(r.Context(), local.Filter{Match: map[string][]string{"external": {"1"}}})
	if err != nil {
		return nil, "", err
	}
	i := slices.IndexFunc(nets, func(n network.Network) bool { return n.IsDefault })
	if i < 0 {
		return nil, "", problem("No default external network")
	}
	pools, err := a.svc.SubnetPools(r.Context(), local.Filter{})
	if err != nil {
		return nil, "", err
	}
	pools = slices.DeleteFunc(pools, func(p network.SubnetPool) bool { return !p.IsDefault })
	if len(pools) == 0 {
		return nil, "", problem("No default subnetpools defined")
	}
	return pools, nets[i].ID, nil
}

func buildTopology(c *local.Change, project string, pools []network.SubnetPool, external string) (string, error) {
	n := &network.Network{Name: topologyNetwork, ProjectID: project, AdminStateUp: true, PortSecurity: true}
	if err := c.CreateNetwork(n); err != nil {
		return "", err
	}
	router := &network.Router{Name: topologyRouter, ProjectID: project, AdminStateUp: true, Gateway: &network.RouterGateway{NetworkID: external, SNAT: true}}
	if err := c.CreateRouter(router); err != nil {
		return "", err
	}
	for i := range pools {
		name := topologySubnet4
		if pools[i].Version == 6 {
			name = topologySubnet6
		}
		s, err := c.CreateSubnet(&local.SubnetRequest{Subnet: network.Subnet{Name: name, ProjectID: project, NetworkID: n.ID, Version: pools[i].Version,
			SubnetPoolID: pools[i].ID, DHCP: true}})
		if err != nil {
			return "", err
		}
		if _, err := c.AddInterface(router.ID, s.ID, ""); err != nil {
			return "", err
		}
	}
	return n.ID, nil
}

// deleteTopology is DELETE /auto-allocated-topology/{project}; it fails while ports are on the network.
func (a *API) deleteTopology(r *httpapi.Request) (*httpapi.Reply, error) {
	q := newCall(r)
	project, err := topologyProject(q)
	if err != nil {
		return nil, err
	}
	f := func(name string) local.Filter {
		return local.Filter{Match: map[string][]string{"project_id": {project}, "name": {name}}}
	}
	nets, err := a.svc.Networks(r.Context(), f(topologyNetwork))
	if err != nil {
		return nil, err
	}
	routers, err := a.svc.Routers(r.Context(), f(topologyRouter))
	if err != nil {
		return nil, err
	}
	err = a.svc.Do(r.Context(), func(c *local.Change) error {
		for i := range routers {
			for k := range nets {
				for s := range nets[k].Subnets {
					if _, err := c.RemoveInterface(routers[i].ID, nets[k].Subnets[s].ID, ""); err != nil && fault.KindOf(err) != fault.NotFound {
						return err
					}
				}
			}
			if err := c.DeleteRouter(routers[i].ID); err != nil {
				return err
			}
		}
		for k := range nets {
			if err := c.DeleteNetwork(nets[k].ID); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return httpapi.NoContent(), nil
}
