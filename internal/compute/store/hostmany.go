package store

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/db"
	"kilonova/internal/id"
)

// manyNames bounds the names in one statement.
const manyNames = 500

// HostsByName gives those of the compute hosts that have a record, in the order they first reported.
func (s *Store) HostsByName(ctx context.Context, q db.Querier, names ...string) ([]compute.Host, error) {
	var out []compute.Host
	for part := range slices.Chunk(names, manyNames) {
		hs, err := s.hosts(ctx, q, selectHost+" WHERE service_binary = ? AND host IN ("+db.In(len(part))+") ORDER BY number", append([]any{ComputeBinary}, db.Args(part)...)...)
		if err != nil {
			return nil, err
		}
		out = append(out, hs...)
	}
	return out, nil
}

// SaveHosts is SaveHost for many compute hosts, by few statements where they are new or only their times are; nodeNames has a name for each. It gives the records in any order.
func (s *Store) SaveHosts(ctx context.Context, tx *db.Tx, hosts []compute.Host, nodeNames []string) ([]compute.Host, error) {
	names := make([]string, len(hosts))
	for i, h := range hosts {
		names[i] = h.Name
	}
	there, err := s.HostsByName(ctx, tx, names...)
	if err != nil {
		return nil, err
	}
	old := make(map[string]*compute.Host, len(there))
	for i := range there {
		old[there[i].Name] = &there[i]
	}
	var out []compute.Host
	var made []string
	same := map[time.Time][]string{} // by when they were heard of
	var rows []any
	now := clock.Micros(clock.Now())
	for i := range hosts {
		h := hosts[i]
		switch o := old[h.Name]; {
		case o != nil && o.NodeID == h.NodeID && o.Version == h.Version && bytes.Equal(o.Info, h.Info):
			o.LastSeen = h.LastSeen
			same[h.LastSeen] = append(same[h.LastSeen], h.Name)
			out = append(out, *o)
			if err := s.tell(ctx, tx, HostReported, nil, o); err != nil {
				return nil, err
			}
			continue
		case o != nil:
			if err := s.SaveHost(ctx, tx, &h, nodeNames[i]); err != nil {
				return nil, err
			}
			out = append(out, h)
			continue
		}
		if h.ServiceID == "" {
			h.ServiceID = id.UUID()
		}
		made = append(made, h.Name)
		rows = append(rows, h.ServiceID, h.Name, ComputeBinary, h.Disabled, h.DisabledReason, 0, clock.Micros(h.LastSeen), h.Version, h.NodeID, nodeNames[i], now, now, string(h.Info))
	}
	for seen, names := range same {
		if err := s.Heartbeats(ctx, tx, names, seen); err != nil {
			return nil, err
		}
	}
	if len(made) == 0 {
		return out, nil
	}
	if err := tx.Insert(ctx, "compute_services", []string{"id", "host", "service_binary", "disabled", "disabled_reason", "forced_down", "last_seen", "version", "node_id", "node_name",
		"created_at", "updated_at", "info"}, rows...); err != nil {
		return nil, fmt.Errorf("save hosts: %w", err)
	}
	fresh, err := s.HostsByName(ctx, tx, made...)
	if err != nil {
		return nil, err
	}
	for i := range fresh {
		for _, what := range []What{ServiceCreated, HostReported} {
			if err := s.tell(ctx, tx, what, nil, &fresh[i]); err != nil {
				return nil, err
			}
		}
	}
	return append(out, fresh...), nil
}

// Heartbeats notes that compute hosts were heard of at the same moment. Hosts without a record are passed over.
func (s *Store) Heartbeats(ctx context.Context, tx *db.Tx, hosts []string, seen time.Time) error {
	for part := range slices.Chunk(hosts, manyNames) {
		if _, err := tx.Exec(ctx, "UPDATE compute_services SET last_seen = ? WHERE service_binary = ? AND host IN ("+db.In(len(part))+")",
			append([]any{clock.Micros(seen), ComputeBinary}, db.Args(part)...)...); err != nil {
			return fmt.Errorf("heartbeats: %w", err)
		}
	}
	return nil
}

// HostsWithServers gives those of the hosts that servers live on.
func (s *Store) HostsWithServers(ctx context.Context, q db.Querier, hosts ...string) (map[string]bool, error) {
	out := map[string]bool{}
	for part := range slices.Chunk(hosts, manyNames) {
		err := scan(ctx, q, "SELECT DISTINCT host FROM compute_servers WHERE deleted = 0 AND host > '' AND host IN ("+db.In(len(part))+")", db.Args(part), func(scan func(...any) error) error {
			var host string
			err := scan(&host)
			out[host] = true
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("hosts with servers: %w", err)
		}
	}
	return out, nil
}
