package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"kilonova/internal/compute"
	"kilonova/internal/compute/virt"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/network"
)

// allocations checks capacities, and that each allocation has its server or its move (3, 4).
func (l *look) allocations() error {
	if l.Allocations == nil {
		l.note("allocations were not looked at")
		return nil
	}
	ps, err := l.Allocations.Providers(l.ctx)
	if err != nil {
		return err
	}
	holds := map[string]map[string]bool{} // consumer -> providers
	for _, p := range ps {
		held, err := l.Allocations.HeldOn(l.ctx, p.UUID)
		if err != nil {
			return err
		}
		sum := map[string]int64{}
		for _, h := range held {
			if holds[h.Consumer] == nil {
				holds[h.Consumer] = map[string]bool{}
			}
			holds[h.Consumer][p.UUID] = true
			for class, n := range h.Resources {
				sum[class] += n
			}
		}
		for class, n := range sum {
			if inv, ok := p.Inventory[class]; !ok || n > inv.Capacity() {
				l.say(NoDoubleAllocation, p.UUID, "", "provider %s: %d %s are allocated of %d", p.Name, n, class, inv.Capacity())
			}
		}
	}
	l.report.Counts["consumers"] = int64(len(holds))
	l.judgeConsumers(holds)
	return nil
}

func (l *look) judgeConsumers(holds map[string]map[string]bool) {
	owners := map[string]bool{} // migrations of servers or operations that live
	for uuid, m := range l.moving {
		if l.servers[m.ServerID] != nil || l.open[m.ServerID].id != "" {
			owners[uuid] = true
		}
	}
	for _, o := range l.open {
		owners[id.Derived(o.id, "migration")] = true
	}
	for consumer, on := range holds {
		if owners[consumer] {
			continue
		}
		s := l.servers[consumer]
		_, busy := l.open[consumer]
		switch {
		case busy:
		case s == nil && !l.isServer(consumer):
			// Somebody else's: other services and operators use placement too.
		case s == nil:
			l.say(NoOrphanAllocation, consumer, "", "the allocations on %s belong to no server and no operation", strings.Join(slices.Sorted(maps.Keys(on)), ", "))
		case s.ComputeID != "" && !on[s.ComputeID], s.ComputeID == "" && s.Host == "":
			l.say(NoOrphanAllocation, consumer, "Run kilonova heal allocations.", "the server is on %q (%s) and its allocations on %s", s.Host, s.ComputeID, strings.Join(slices.Sorted(maps.Keys(on)), ", "))
		}
	}
	for sid, s := range l.servers {
		if _, busy := l.open[sid]; !busy && s.Host != "" && holds[sid] == nil {
			l.say(NoMissingThing, sid, "Run kilonova heal allocations.", "the server is on %s and has no allocations", s.Host)
		}
	}
}

// isServer tells whether a consumer was ever a server or a migration of ours.
func (l *look) isServer(consumer string) bool {
	for _, q := range []string{"SELECT 1 FROM compute_servers WHERE id = ?", "SELECT 1 FROM compute_migrations WHERE uuid = ?"} {
		var one int
		if err := l.DB.QueryRow(l.ctx, q, consumer).Scan(&one); err == nil {
			return true
		}
	}
	return false
}

// ports checks that each port of compute has its server, and each interface its port, once (2, 5, 6).
func (l *look) ports() error {
	if l.Ports == nil {
		l.note("ports were not looked at")
		return nil
	}
	ports, err := l.Ports.ServerPorts(l.ctx)
	if err != nil {
		return err
	}
	byID := map[string]network.Port{}
	addresses := map[string]string{}
	for _, p := range ports {
		byID[p.ID] = p
		if _, busy := l.open[p.DeviceID]; !busy && l.servers[p.DeviceID] == nil {
			l.say(NoOrphanThing, p.ID, "", "the port belongs to server %s, which is not there", p.DeviceID)
		}
		for _, a := range p.FixedIPs {
			key := a.SubnetID + "/" + a.Address
			if other := addresses[key]; other != "" {
				l.say(ExactlyOneEffect, p.ID, "", "address %s is also that of port %s", a.Address, other)
			}
			addresses[key] = p.ID
		}
	}
	owner := map[string]string{}
	for sid, s := range l.servers {
		if _, busy := l.open[sid]; busy {
			continue
		}
		named := map[string]bool{}
		for _, v := range s.VIFs {
			named[v.PortID] = true
			if other := owner[v.PortID]; other != "" {
				l.say(ExactlyOneEffect, v.PortID, "", "two servers have the port: %s and %s", sid, other)
			}
			owner[v.PortID] = sid
			p, there := byID[v.PortID]
			switch {
			case !there:
				l.say(NoMissingThing, sid, "", "the server has the interface %s, whose port is not there or not the server's", v.PortID)
			case p.DeviceID != sid:
				l.say(NoMissingThing, sid, "", "the server has the interface %s, whose port belongs to %s", v.PortID, p.DeviceID)
			case p.HostID != s.Host:
				l.say(NoMissingThing, sid, "", "the server is on %q and its port %s bound on %q", s.Host, v.PortID, p.HostID)
			}
		}
	}
	l.report.Counts["ports of servers"] = int64(len(ports))
	return l.wires(ports)
}

// guests compares servers with what hosts see (5, 6, 7, 12).
func (l *look) guests() error {
	if l.Guests == nil {
		l.note("hosts were not asked for their guests")
		return nil
	}
	expected := l.expected()
	for i := range l.hosts {
		h := &l.hosts[i]
		if !l.alive(h) {
			l.note("host %s is down: its guests were not asked for", h.Name)
			continue
		}
		seen, err := l.Guests(l.ctx, h.Name, expected[h.Name])
		if errors.Is(err, fault.Unavailable) || errors.Is(err, context.DeadlineExceeded) {
			l.note("host %s does not answer: its guests were not asked for", h.Name)
			continue
		}
		if err != nil {
			return err
		}
		l.seen[h.Name] = seen
		if !seen.Complete {
			l.note("host %s could not be asked for guests that it should not have", h.Name)
		}
		l.report.Counts["guests"] += int64(len(seen.Guests))
	}
	owes := map[string]bool{}
	if l.Owed != nil {
		all, err := l.Owed.All(l.ctx, l.DB)
		if err != nil {
			return err
		}
		for _, d := range all {
			owes[d.Host+"/"+d.Server] = true
		}
	}
	l.judgeGuests(owes)
	l.judgeServers()
	return nil
}

// expected gives which guests each host should have.
func (l *look) expected() map[string][]string {
	out := map[string][]string{}
	for sid, s := range l.servers {
		if s.Host != "" {
			out[s.Host] = append(out[s.Host], sid)
		}
	}
	for _, m := range l.moving {
		if s := l.servers[m.ServerID]; s != nil && s.Host != m.SourceHost {
			out[m.SourceHost] = append(out[m.SourceHost], s.ID)
		}
	}
	return out
}

func (l *look) judgeGuests(owes map[string]bool) {
	runs := map[string]string{}
	for _, host := range slices.Sorted(maps.Keys(l.seen)) {
		for g, power := range l.seen[host].Guests {
			s, busy := l.servers[g], l.open[g].id != ""
			if busy || owes[host+"/"+g] {
				continue
			}
			switch {
			case s == nil:
				inv, text := NoOrphanThing, "a guest on %s belongs to no server"
				if l.isServer(g) {
					inv, text = DeletedStays, "a guest on %s belongs to a server that is deleted"
				}
				l.say(inv, g, "The agent leaves alone what the cloud does not know; remove it by hand if it is not wanted.", text, host)
			case s.Host != host && !l.wayBack(s, host):
				l.say(NoOrphanThing, g, "", "a guest on %s belongs to a server that is on %q", host, s.Host)
			case power == virt.Running && runs[g] != "":
				l.say(NeverTwoGuests, g, "", "the server runs on %s and on %s", runs[g], host)
			}
			if power == virt.Running {
				runs[g] = host
			}
		}
	}
}

// wayBack tells whether a host keeps the guest of a server that was resized away and not confirmed.
func (l *look) wayBack(s *compute.Server, host string) bool {
	m, ok := l.moving[s.System[compute.SysMigration]]
	return ok && m.SourceHost == host
}

func (l *look) judgeServers() {
	for sid, s := range l.servers {
		seen, asked := l.seen[s.Host]
		if _, busy := l.open[sid]; busy || !asked || !slices.Contains(hosted, s.VMState) || time.Since(s.Updated) < l.Pause {
			continue
		}
		power, there := seen.Guests[sid]
		switch {
		case !there:
			l.say(NoMissingThing, sid, "", "the server is %s and host %s has no guest of it", s.VMState, s.Host)
		case s.VMState == compute.VMActive && power != virt.Running && s.PowerState == compute.PowerRunning:
			l.say(NoMissingThing, sid, "", "the server is ACTIVE and its guest on %s in power state %d", s.Host, power)
		case s.VMState == compute.VMStopped && power == virt.Running:
			l.say(NoMissingThing, sid, "", "the server is stopped and its guest on %s runs", s.Host)
		}
	}
}

// PortTable reads ports from the tables of the built-in network service.
type PortTable struct{ DB *db.DB }

// ServerPorts implements Ports.
func (t PortTable) ServerPorts(ctx context.Context) ([]network.Port, error) {
	var out []network.Port
	err := t.each(ctx, "SELECT doc FROM network_ports WHERE device_owner LIKE 'compute:%'", func(doc []byte) error {
		var p network.Port
		err := json.Unmarshal(doc, &p)
		out = append(out, p)
		return err
	})
	return out, err
}
