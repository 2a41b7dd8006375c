// Package wiring reads what is to be wired: the data plane that a host should have, and the interfaces of guests. It only reads; the number of its queries does not grow with
// the number of ports.
package wiring

import (
	"context"
	"slices"

	"kilonova/internal/db"
	"kilonova/internal/network"
	"kilonova/internal/network/documents"
	"kilonova/internal/network/segments"
)

// Reader reads from the tables of the network service.
type Reader struct {
	DB        *db.DB
	Networks  *documents.Table[network.Network]
	Subnets   *documents.Table[network.Subnet]
	Ports     *documents.Table[network.Port]
	Groups    *documents.Table[network.Group]
	Rules     *documents.Table[network.Rule]
	Routers   *documents.Table[network.Router]
	Floating  *documents.Table[network.FloatingIP]
	Segments  *segments.Book
	DNSDomain string // of networks that have none
}

// around is what ports refer to, read with one query per kind.
type around struct {
	networks map[string]*network.Network
	subnets  map[string]*network.Subnet
	floating map[string][]network.FloatingIP // by port
}

func (r *Reader) around(ctx context.Context, ports []network.Port) (*around, error) {
	var nets, ids []string
	for i := range ports {
		ids = append(ids, ports[i].ID)
		if !slices.Contains(nets, ports[i].NetworkID) {
			nets = append(nets, ports[i].NetworkID)
		}
	}
	a := &around{networks: map[string]*network.Network{}, subnets: map[string]*network.Subnet{}, floating: map[string][]network.FloatingIP{}}
	ns, err := r.Networks.In(ctx, r.DB, "id", nets)
	if err != nil {
		return nil, err
	}
	for i := range ns {
		ns[i].Bridge = network.BridgeName(ns[i].ID)
		a.networks[ns[i].ID] = &ns[i]
	}
	subs, err := r.Subnets.In(ctx, r.DB, "network_id", nets)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(subs, func(x, y network.Subnet) int { return x.Created.Compare(y.Created) })
	for i := range subs {
		a.subnets[subs[i].ID] = &subs[i]
		if n := a.networks[subs[i].NetworkID]; n != nil {
			n.Subnets = append(n.Subnets, subs[i])
		}
	}
	fs, err := r.Floating.In(ctx, r.DB, "port_id", ids)
	if err != nil {
		return nil, err
	}
	for _, f := range fs {
		a.floating[f.PortID] = append(a.floating[f.PortID], f)
	}
	return a, nil
}
