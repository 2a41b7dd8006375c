// Package agents keeps the records of the hosts' network agents.
package agents

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/db"
	"kilonova/internal/id"
	"kilonova/internal/network"
	"kilonova/internal/network/documents"
)

// Down is how long an agent may be silent before it counts as dead.
const Down = 75 * time.Second

const every = 30 * time.Second

// Presence remembers when hosts were last recorded as alive, so that not every question of an agent is a write.
type Presence struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// Due tells whether the host is to be recorded again, and takes it as recorded.
func (p *Presence) Due(host string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.last[host]) < every {
		return false
	}
	if p.last == nil {
		p.last = map[string]time.Time{}
	}
	p.last[host] = now
	return true
}

// Forget takes back that the host was recorded: it was not, or nobody knows.
func (p *Presence) Forget(host string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.last, host)
}

// Knows tells whether the host was recorded by this process.
func (p *Presence) Knows(host string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.last[host].IsZero()
}

// ID is the id of a host's agent.
func ID(host string) string { return id.Derived("network-agent", host) }

// New is the record of a host's agent that is heard of for the first time.
func New(host, zone string, now time.Time) *network.Agent {
	at := clock.Micros(now)
	return &network.Agent{ID: ID(host), Host: host, Type: "Linux bridge agent", Binary: "kilonova-agent", Zone: zone, AdminStateUp: true,
		Created: at, Started: at, Heartbeat: at}
}

// Put writes an agent's record.
func Put(ctx context.Context, tx *db.Tx, a *network.Agent) error {
	doc, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode agent: %w", err)
	}
	q := db.Upsert(tx.Dialect(), "network_agents", []string{"id"}, []string{"host", "heartbeat", "doc"})
	if _, err := tx.Exec(ctx, q, a.ID, a.Host, a.Heartbeat, string(doc)); err != nil {
		return fmt.Errorf("store agent: %w", err)
	}
	return nil
}

// Get reads an agent's record; fault.NotFound when there is none.
func Get(ctx context.Context, q db.Querier, agentID string) (*network.Agent, error) {
	var doc []byte
	err := q.QueryRow(ctx, "SELECT doc FROM network_agents WHERE id = ?", agentID).Scan(&doc)
	if db.IsNoRows(err) {
		return nil, documents.NotFound("Agent", agentID)
	}
	if err != nil {
		return nil, fmt.Errorf("read agent: %w", err)
	}
	a := &network.Agent{}
	if err := json.Unmarshal(doc, a); err != nil {
		return nil, fmt.Errorf("decode agent %s: %w", agentID, err)
	}
	return a, nil
}

// List gives all of them.
func List(ctx context.Context, q db.Querier) ([]network.Agent, error) {
	rows, err := q.Query(ctx, "SELECT doc FROM network_agents ORDER BY host")
	if err != nil {
		return nil, fmt.Errorf("list agents: %w", err)
	}
	defer rows.Close()
	var out []network.Agent
	for rows.Next() {
		var doc []byte
		var a network.Agent
		if err := rows.Scan(&doc); err != nil {
			return nil, fmt.Errorf("list agents: %w", err)
		}
		if err := json.Unmarshal(doc, &a); err != nil {
			return nil, fmt.Errorf("decode agent: %w", err)
		}
		out = append(out, a)
	}
	return out, rows.Err()
}

// tunnelKey is where a record has the address of the host's tunnels, under the name that Neutron's agents use.
const tunnelKey = "tunneling_ip"

// Tunnel is the address at which the tunnels of an agent's host end; "" for a host without.
func Tunnel(a *network.Agent) string {
	ip, _ := a.Configurations[tunnelKey].(string)
	return ip
}

// SetTunnel puts that address into a record.
func SetTunnel(a *network.Agent, address string) {
	a.Configurations = nil
	if address != "" {
		a.Configurations = map[string]any{tunnelKey: address, "tunnel_types": []string{"vxlan"}}
	}
}

// Tunnels gives the addresses of those hosts that have one.
func Tunnels(ctx context.Context, q db.Querier, hosts map[string]bool) (map[string]string, error) {
	ids := make([]string, 0, len(hosts))
	for h := range hosts {
		ids = append(ids, ID(h))
	}
	docs, err := documents.Strings(ctx, q, "SELECT doc FROM network_agents WHERE id IN (%)", ids)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, doc := range docs {
		var a network.Agent
		if err := json.Unmarshal([]byte(doc), &a); err != nil {
			return nil, fmt.Errorf("decode agent: %w", err)
		}
		if ip := Tunnel(&a); ip != "" {
			out[a.Host] = ip
		}
	}
	return out, nil
}
