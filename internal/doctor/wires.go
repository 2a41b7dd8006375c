package doctor

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"kilonova/internal/network"
)

// Wiring is what a look at the ways between hosts needs.
type Wiring struct {
	Carried  map[string]bool   // networks that hosts carry to each other
	Tunnels  map[string]string // by host with a data plane of ours: where its tunnels end, "" for nowhere
	Reserved []network.Binding // ports that are about to move, and where to
}

// Wires is Ports that also knows the ways between hosts.
type Wires interface {
	Wiring(ctx context.Context) (*Wiring, error)
}

// wires checks that hosts which have ports of one network reach each other (6), and that no port is kept for a host to which nothing moves (5).
func (l *look) wires(ports []network.Port) error {
	source, ok := l.Ports.(Wires)
	if !ok {
		return nil
	}
	w, err := source.Wiring(l.ctx)
	if err != nil {
		return err
	}
	hosts, owner := map[string][]string{}, map[string]string{}
	for _, p := range ports {
		owner[p.ID] = p.DeviceID
		if _, ours := w.Tunnels[p.HostID]; ours && w.Carried[p.NetworkID] && !slices.Contains(hosts[p.NetworkID], p.HostID) {
			hosts[p.NetworkID] = append(hosts[p.NetworkID], p.HostID)
		}
	}
	for n, on := range hosts {
		if len(on) < 2 {
			continue
		}
		slices.Sort(on)
		ends := map[string]string{}
		for _, h := range on {
			ip := w.Tunnels[h]
			switch other := ends[ip]; {
			case ip == "":
				l.say(NoMissingThing, n, "Set [network] local_ip or [compute] my_ip there and restart its agent.",
					"the network has servers on %s, and host %s has no address for tunnels: they do not reach each other", strings.Join(on, ", "), h)
			case other != "":
				l.say(NoMissingThing, n, "Give each host an address of its own.", "hosts %s and %s of the network both end their tunnels at %s", other, h, ip)
			default:
				ends[ip] = h
			}
		}
	}
	for _, b := range w.Reserved {
		if server, known := owner[b.PortID]; known {
			if _, busy := l.open[server]; !busy {
				l.say(NoOrphanThing, b.PortID, "", "the port is kept ready on host %s, and its server %s does not move", b.Host, server)
			}
		}
	}
	return nil
}

// Wiring implements Wires.
func (t PortTable) Wiring(ctx context.Context) (*Wiring, error) {
	w := &Wiring{Carried: map[string]bool{}, Tunnels: map[string]string{}}
	err := t.each(ctx, "SELECT doc FROM network_networks", func(doc []byte) error {
		var n network.Network
		err := json.Unmarshal(doc, &n)
		if n.ProviderType == "vxlan" {
			w.Carried[n.ID] = true
		}
		return err
	})
	if err == nil {
		err = t.each(ctx, "SELECT doc FROM network_agents", func(doc []byte) error {
			var a network.Agent
			err := json.Unmarshal(doc, &a)
			w.Tunnels[a.Host], _ = a.Configurations["tunneling_ip"].(string)
			return err
		})
	}
	if err == nil {
		err = t.each(ctx, "SELECT doc FROM network_bindings", func(doc []byte) error {
			var b network.Binding
			err := json.Unmarshal(doc, &b)
			w.Reserved = append(w.Reserved, b)
			return err
		})
	}
	return w, err
}

func (t PortTable) each(ctx context.Context, query string, f func(doc []byte) error) error {
	rows, err := t.DB.Query(ctx, query)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var doc string
		if err := rows.Scan(&doc); err != nil {
			return err
		}
		if err := f([]byte(doc)); err != nil {
			return err
		}
	}
	return rows.Err()
}
