package api

import (
	"math/big"

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
