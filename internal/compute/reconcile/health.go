package reconcile

import "context"

// Health tells of hosts that fell silent and of hosts that came back; what those owe is asked for at once. It changes nothing: the scheduler and the flows
// look for themselves how a host is, and evacuation is an operator's decision.
func (l *Loops) Health(ctx context.Context) error {
	hosts, err := l.cfg.Store.HostStates(ctx, l.cfg.Store.DB)
	if err != nil {
		return err
	}
	alive := l.cfg.Hosts.Living(hosts)
	now := make(map[string]bool, len(hosts))
	l.turn.Lock()
	defer l.turn.Unlock()
	for _, h := range hosts {
		_, known := l.up[h.Name]
		before := l.up[h.Name]
		now[h.Name] = alive[h.Name]
		switch {
		case known && before && !now[h.Name]:
			l.log.Error("a host is down", "host", h.Name, "last_seen", h.LastSeen, "forced", h.ForcedDown)
		case known && !before && now[h.Name]:
			l.log.Info("a host is back", "host", h.Name)
			l.Kick("debts")
		}
	}
	l.up = now
	return nil
}
