package conductor

import (
	"context"
	"slices"

	"kilonova/internal/compute"
	"kilonova/internal/compute/flow"
	"kilonova/internal/compute/reconcile"
	"kilonova/internal/compute/scheduler"
	"kilonova/internal/network"
)

// routed adds to a request the aggregates of the segments on one of which the host must be, for each port on a routed network: a server that moves keeps its addresses, so its
// host is one of the same segment; a new server may be on any segment that the network has, unless it asks for an address or brings a port with one.
func (c *Conductor) routed(ctx context.Context, w flow.Want, req *scheduler.Request) error {
	s, ok := c.cfg.Network.(network.Segmenter)
	if !ok || !c.planner.Config().QueryPlacementForRoutedNetworkAggregate {
		return nil
	}
	nics := w.NICs
	for _, v := range w.Server.VIFs {
		nics = append(slices.Clip(nics), compute.NICRequest{NetworkID: v.NetworkID, PortID: v.PortID})
	}
	if len(nics) == 0 {
		return nil
	}
	cloud, _ := c.hosts.cloud()
	for _, n := range nics {
		ids, err := s.SegmentsOf(ctx, n.NetworkID, n.PortID, n.FixedIP)
		if err != nil {
			return err
		}
		if len(ids) == 0 {
			continue
		}
		p := scheduler.Port{Segments: true}
		for _, id := range ids {
			for _, a := range cloud.Aggregates {
				if a.Name == reconcile.SegmentAggregate(id) {
					p.Aggregates = append(p.Aggregates, a.UUID)
				}
			}
		}
		slices.Sort(p.Aggregates)
		req.Ports = append(req.Ports, p)
	}
	return nil
}
