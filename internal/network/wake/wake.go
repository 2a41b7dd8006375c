// Package wake tells agents that the data plane of their hosts has changed.
//
// It promises little, because agents look for themselves too: a message may be lost or come twice. Many changes become one message
// per host, and looking for the hosts takes at most a small part of the time, however many changes there are.
package wake

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"kilonova/internal/bus"
	"kilonova/internal/db"
	"kilonova/internal/network"
)

// Dirty is what a transaction did to the data plane of hosts.
type Dirty struct {
	Hosts    map[string]bool // these hosts themselves
	Networks map[string]bool // every host with ports of these networks: leases or subnets changed
	Groups   map[string]bool // every host with ports in these groups or in groups whose rules name them
	Segments bool            // segments with subnets, or the hosts joined to them: nothing for agents, but for who mirrors them
}

// Empty tells that nothing changed.
func (d *Dirty) Empty() bool { return len(d.Hosts)+len(d.Networks)+len(d.Groups) == 0 && !d.Segments }

// Mark adds keys to one of the sets of a Dirty; empty keys are left out.
func Mark(m *map[string]bool, keys ...string) {
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

func (d *Dirty) merge(o *Dirty) {
	d.Segments = d.Segments || o.Segments
	for _, p := range []struct{ to, from *map[string]bool }{{&d.Hosts, &o.Hosts}, {&d.Networks, &o.Networks}, {&d.Groups, &o.Groups}} {
		for k := range *p.from {
			Mark(p.to, k)
		}
	}
}

// Notifier gathers changes and tells agents of them.
type Notifier struct {
	db   db.Querier
	bus  bus.Bus
	log  *slog.Logger
	in   chan *Dirty
	stop context.CancelFunc
	done chan struct{}
}

const notifyDelay = 20 * time.Millisecond

// New starts a notifier; a nil bus makes one that does nothing.
func New(q db.Querier, b bus.Bus, log *slog.Logger) *Notifier {
	ctx, cancel := context.WithCancel(context.Background())
	n := &Notifier{db: q, bus: b, log: log, in: make(chan *Dirty, 1024), stop: cancel, done: make(chan struct{})}
	go n.run(ctx)
	return n
}

// Close ends it; what has not been told is lost.
func (n *Notifier) Close() {
	n.stop()
	<-n.done
}

// Add never blocks: when the queue is full the message is lost, which the agents' own looks make good.
func (n *Notifier) Add(d *Dirty) {
	if n.bus == nil {
		return
	}
	select {
	case n.in <- d:
	default:
	}
}

func (n *Notifier) run(ctx context.Context) {
	defer close(n.done)
	for {
		var d Dirty
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
			n.log.Warn("tell agents of network changes", "error", err)
		}
		if !n.rest(ctx, 15*time.Since(began)) {
			return
		}
	}
}

func (n *Notifier) rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func (n *Notifier) tell(ctx context.Context, d *Dirty) error {
	for _, q := range []struct {
		keys map[string]bool
		sql  string
	}{
		{d.Networks, "SELECT DISTINCT host FROM network_ports WHERE network_id IN (%)"},
		// A host routes to all networks of a router when it has a port of one of them.
		{d.Networks, `SELECT DISTINCT p.host FROM network_ports i JOIN network_ports j ON j.device_id = i.device_id JOIN network_ports p ON p.network_id = j.network_id
 WHERE i.network_id IN (%) AND i.device_owner = 'network:router_interface' AND j.device_owner = 'network:router_interface'`},
		{d.Groups, "SELECT DISTINCT p.host FROM network_ports p JOIN network_port_groups g ON g.port_id = p.id WHERE g.group_id IN (%)"},
		{d.Groups, "SELECT DISTINCT p.host FROM network_rules r JOIN network_port_groups g ON g.group_id = r.group_id JOIN network_ports p ON p.id = g.port_id WHERE r.remote_group_id IN (%)"},
	} {
		found, err := hosts(ctx, n.db, q.sql, keys(q.keys))
		if err != nil {
			return err
		}
		Mark(&d.Hosts, found...)
	}
	if d.Segments {
		if err := n.bus.Fanout(ctx, network.SegmentsSubject, nil); err != nil {
			return err
		}
	}
	for h := range d.Hosts {
		if err := n.bus.Fanout(ctx, network.ChangedSubject, []byte(h)); err != nil {
			return err
		}
	}
	return nil
}

func keys(m map[string]bool) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}

// hosts runs a query of host names whose % becomes the marks of an IN list, a few hundred values at a time.
func hosts(ctx context.Context, q db.Querier, stmt string, values []string) ([]string, error) {
	var out []string
	for part := range slices.Chunk(values, 500) {
		got, err := hostsOf(ctx, q, strings.Replace(stmt, "%", db.In(len(part)), 1), part)
		if err != nil {
			return nil, err
		}
		out = append(out, got...)
	}
	return out, nil
}

func hostsOf(ctx context.Context, q db.Querier, stmt string, part []string) ([]string, error) {
	rows, err := q.Query(ctx, stmt, db.Args(part)...)
	if err != nil {
		return nil, fmt.Errorf("look for hosts: %w", err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var h string
		if err := rows.Scan(&h); err != nil {
			return nil, fmt.Errorf("look for hosts: %w", err)
		}
		out = append(out, h)
	}
	return out, rows.Err()
}
