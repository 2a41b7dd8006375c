package local

import (
	"context"

	"kilonova/internal/clock"
	"kilonova/internal/fault"
	"kilonova/internal/network/agents"
	"kilonova/internal/network/documents"
	"kilonova/internal/network/wake"
)

// SetTunnel implements network.Service.
func (s *Service) SetTunnel(ctx context.Context, host, address string) error {
	return s.Do(ctx, func(c *Change) error {
		a, err := agents.Get(ctx, c.tx, agents.ID(host))
		if fault.KindOf(err) == fault.NotFound {
			if address == "" {
				return nil
			}
			a, err = agents.New(host, s.cfg.Zone, clock.Now()), nil
		}
		if err != nil {
			return err
		}
		if agents.Tunnel(a) == address {
			return nil
		}
		agents.SetTunnel(a, address)
		nets, err := documents.Strings(ctx, c.tx, "SELECT DISTINCT network_id FROM network_ports WHERE host IN (%)", []string{host})
		if err != nil {
			return err
		}
		wake.Mark(&c.dirty.Hosts, host)
		wake.Mark(&c.dirty.Networks, nets...)
		return agents.Put(ctx, c.tx, a)
	})
}
