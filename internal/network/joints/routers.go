package joints

import (
	"context"
	"slices"
	"strings"

	"kilonova/internal/db"
	"kilonova/internal/network"
	"kilonova/internal/network/documents"
)

// Routers is what routers do for networks, by network.
type Routers struct {
	Peers  map[string][]string        // the other networks that the same routers join
	SNAT   map[string]bool            // there is a router; it hides the network behind its gateway
	Routes map[string][]network.Route // static routes
}

// FindRouters finds what routers do for the networks whose router interfaces are among the given ports.
func FindRouters(ctx context.Context, q db.Querier, table *documents.Table[network.Router], ports *documents.Table[network.Port], members []network.Port) (*Routers, error) {
	out := &Routers{Peers: map[string][]string{}, SNAT: map[string]bool{}, Routes: map[string][]network.Route{}}
	var routerIDs []string
	for i := range members {
		if members[i].DeviceOwner == network.OwnerRouterInterface && !slices.Contains(routerIDs, members[i].DeviceID) {
			routerIDs = append(routerIDs, members[i].DeviceID)
		}
	}
	if len(routerIDs) == 0 {
		return out, nil
	}
	routers, err := table.In(ctx, q, "id", routerIDs)
	if err != nil {
		return nil, err
	}
	ifs, err := ports.In(ctx, q, "device_id", routerIDs)
	if err != nil {
		return nil, err
	}
	nets := map[string][]string{} // router -> networks
	for i := range ifs {
		if ifs[i].DeviceOwner == network.OwnerRouterInterface {
			nets[ifs[i].DeviceID] = append(nets[ifs[i].DeviceID], ifs[i].NetworkID)
		}
	}
	slices.SortFunc(routers, func(a, b network.Router) int { return strings.Compare(a.ID, b.ID) })
	for i := range routers {
		r := &routers[i]
		if !r.AdminStateUp {
			for _, n := range nets[r.ID] {
				if _, known := out.SNAT[n]; !known {
					out.SNAT[n] = false // joined to a router, so that nothing else leads out
				}
			}
			continue
		}
		for _, n := range nets[r.ID] {
			out.SNAT[n] = out.SNAT[n] || r.Gateway != nil && r.Gateway.SNAT
			out.Routes[n] = append(out.Routes[n], r.Routes...)
			for _, o := range nets[r.ID] {
				if o != n {
					out.Peers[n] = append(out.Peers[n], o)
				}
			}
		}
	}
	for n := range out.Peers {
		slices.Sort(out.Peers[n])
		out.Peers[n] = slices.Compact(out.Peers[n])
	}
	return out, nil
}
