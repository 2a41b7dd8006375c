package local

import (
	"context"
	"time"

	"kilonova/internal/db"
	"kilonova/internal/network"
)

// dirty is what a transaction did to the data plane of hosts.
type dirty struct {
	hosts    map[string]bool // these hosts themselves
	networks map[string]bool // every host with ports of these networks: leases or subnets changed
	groups   map[string]bool // every host with ports in these groups or in groups whose rules name them
}

func (d *dirty) empty() bool { return len(d.hosts)+len(d.networks)+len(d.groups) == 0 }

func mark(m *map[string]bool, keys ...string) {
	for _, k := range keys {
		if k == "" {
			continue
		}
		if *m == nil {
			*m = map[string]bool{}
		}
		(*m)[k] = true
	}
}

func (d *dirty) merge(o *dirty) {
	for _, p := range []struct{ to, from *map[string]bool }{{&d.hosts, &o.hosts}, {&d.networks, &o.networks}, {&d.groups, &o.groups}} {
		for k := range *p.from {
			mark(p.to, k)
		}
	}
}

// notifier tells agents that their data plane changed. Many changes become one message per host; looking for the hosts
// takes at most a small part of the time, however many changes there are.
type notifier struct {
	svc  *Service
	in   chan *dirty
	stop context.CancelFunc
	done chan struct{}
}

const notifyDelay = 20 * time.Millisecond

func newNotifier(s *Service) *notifier {
	ctx, cancel := context.WithCancel(context.Background())
	n := &notifier{svc: s, in: make(chan *dirty, 1024), stop: cancel, done: make(chan struct{})}
	go n.run(ctx)
	return n
}

func (n *notifier) close() {
	n.stop()
	<-n.done
}

// add never blocks: when the queue is full the message is lost, which the agents' own looks make good.
func (n *notifier) add(d *dirty) {
	if n.svc.cfg.Bus == nil {
		return
	}
	select {
	case n.in <- d:
	default:
	}
}

func (n *notifier) run(ctx context.Context) {
	defer close(n.done)
	for {
		var d dirty
		select {
		case <-ctx.Done():
			return
		case first := <-n.in:
			d.merge(first)
		}
		if !n.rest(ctx, notifyDelay) {
			return
		}
		for more := true; more; {
			select {
			case next := <-n.in:
				d.merge(next)
			default:
				more = false
			}
		}
		began := time.Now()
		if err := n.tell(ctx, &d); err != nil && ctx.Err() == nil {
			n.svc.log.Warn("tell agents of network changes", "error", err)
		}
		if !n.rest(ctx, 15*time.Since(began)) {
			return
		}
	}
}

func (n *notifier) rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func (n *notifier) tell(ctx context.Context, d *dirty) error {
	for _, q := range []struct {
		keys map[string]bool
		sql  string
	}{
		{d.networks, "SELECT DISTINCT host FROM network_ports WHERE network_id IN (%)"},
		{d.groups, "SELECT DISTINCT p.host FROM network_ports p JOIN network_port_groups g ON g.port_id = p.id WHERE g.group_id IN (%)"},
		{d.groups, "SELECT DISTINCT p.host FROM network_rules r JOIN network_port_groups g ON g.group_id = r.group_id JOIN network_ports p ON p.id = g.port_id WHERE r.remote_group_id IN (%)"},
	} {
		hosts, err := strings1(ctx, n.svc.db, q.sql, keys(q.keys))
		if err != nil {
			return err
		}
		mark(&d.hosts, hosts...)
	}
	for h := range d.hosts {
		if err := n.svc.cfg.Bus.Fanout(ctx, network.ChangedSubject, []byte(h)); err != nil {
			return err
		}
	}
	return nil
}

// touch notes what a port that came, went or changed means for hosts.
func (c *Change) touch(p *network.Port) {
	mark(&c.dirty.hosts, p.HostID)
	if len(p.FixedIPs) > 0 {
		mark(&c.dirty.networks, p.NetworkID)
		mark(&c.dirty.groups, p.SecurityGroups...)
	}
}

func keys(m map[string]bool) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}

// strings1 runs a query of one text column whose % becomes the marks of an IN list, a few hundred values at a time.
func strings1(ctx context.Context, q db.Querier, stmt string, values []string) ([]string, error) {
	return collect(ctx, q, stmt, values, func(scan func(...any) error) (string, error) {
		var v string
		err := scan(&v)
		return v, err
	})
}
