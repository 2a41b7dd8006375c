package store

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
)

// Aggregates gives all aggregates with their hosts.
func (s *Store) Aggregates(ctx context.Context, q db.Querier) ([]compute.Aggregate, error) {
	return s.aggregates(ctx, q, "", nil)
}

// Aggregate gives one. It fails with fault.NotFound.
func (s *Store) Aggregate(ctx context.Context, q db.Querier, number int64) (*compute.Aggregate, error) {
	as, err := s.aggregates(ctx, q, " WHERE a.id = ?", []any{number})
	if err != nil {
		return nil, err
	}
	if len(as) == 0 {
		return nil, fault.New(fault.NotFound, "Aggregate %d could not be found.", number)
	}
	return &as[0], nil
}

func (s *Store) aggregates(ctx context.Context, q db.Querier, cond string, args []any) ([]compute.Aggregate, error) {
	var out []compute.Aggregate
	err := scan(ctx, q, "SELECT a.id, a.uuid, a.name, a.metadata, a.created_at, a.updated_at, COALESCE(h.host, '') FROM compute_aggregates a"+
		" LEFT JOIN compute_aggregate_hosts h ON h.aggregate_id = a.id"+cond+" ORDER BY a.id, h.host", args, func(scan func(...any) error) error {
		var a compute.Aggregate
		var meta, host string
		var created, updated int64
		if err := scan(&a.ID, &a.UUID, &a.Name, &meta, &created, &updated, &host); err != nil {
			return err
		}
		if n := len(out); n == 0 || out[n-1].ID != a.ID {
			a.Created, a.Updated = clock.FromMicros(created), clock.FromMicros(updated)
			a.Metadata = map[string]string{}
			if err := decode(meta, &a.Metadata); err != nil {
				return err
			}
			out = append(out, a)
		}
		if host != "" {
			last := &out[len(out)-1]
			last.Hosts = append(last.Hosts, host)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read aggregates: %w", err)
	}
	return out, nil
}

// InsertAggregate makes an aggregate and sets its ID and UUID. It fails with fault.Conflict when the name is taken.
func (s *Store) InsertAggregate(ctx context.Context, tx *db.Tx, a *compute.Aggregate) error {
	if a.UUID == "" {
		a.UUID = id.UUID()
	}
	if err := s.aggregateNameFree(ctx, tx, a.Name, 0); err != nil {
		return err
	}
	a.Created = clock.Now()
	if a.Metadata == nil {
		a.Metadata = map[string]string{}
	}
	if _, err := tx.Exec(ctx, "INSERT INTO compute_aggregates (uuid, name, metadata, created_at, updated_at) VALUES (?, ?, ?, ?, 0)", a.UUID, a.Name, encode(a.Metadata), clock.Micros(a.Created)); err != nil {
		return aggregateError(err, a.Name)
	}
	if err := tx.QueryRow(ctx, "SELECT id FROM compute_aggregates WHERE name = ?", a.Name).Scan(&a.ID); err != nil {
		return err
	}
	return s.tell(ctx, tx, AggregateCreated, nil, a)
}

func (s *Store) aggregateNameFree(ctx context.Context, tx *db.Tx, name string, own int64) error {
	var n int
	if err := tx.QueryRow(ctx, "SELECT COUNT(*) FROM compute_aggregates WHERE name = ? AND id <> ?", name, own).Scan(&n); err != nil {
		return err
	}
	if n > 0 {
		return fault.New(fault.Conflict, "Aggregate %s already exists.", name)
	}
	return nil
}

func aggregateError(err error, name string) error {
	if db.IsDuplicate(err) {
		return fault.Wrap(err, fault.Conflict, "Aggregate %s already exists.", name)
	}
	return err
}

// UpdateAggregate reads an aggregate, lets change alter name and metadata, and writes it. Hosts are changed by AddAggregateHost and RemoveAggregateHost.
func (s *Store) UpdateAggregate(ctx context.Context, tx *db.Tx, number int64, change func(*compute.Aggregate) error) (*compute.Aggregate, error) {
	a, err := s.Aggregate(ctx, tx, number)
	if err != nil {
		return nil, err
	}
	old, before := a.Name, *a
	before.Metadata = maps.Clone(a.Metadata)
	if err := change(a); err != nil {
		return nil, err
	}
	if a.Name != old {
		if err := s.aggregateNameFree(ctx, tx, a.Name, number); err != nil {
			return nil, err
		}
	}
	a.Updated = clock.Now()
	if _, err := tx.Exec(ctx, "UPDATE compute_aggregates SET name = ?, metadata = ?, updated_at = ? WHERE id = ?", a.Name, encode(a.Metadata), clock.Micros(a.Updated), number); err != nil {
		return nil, aggregateError(err, a.Name)
	}
	if a.Name != old {
		if err := s.tell(ctx, tx, AggregateRenamed, &before, a); err != nil {
			return nil, err
		}
	}
	if !maps.Equal(before.Metadata, a.Metadata) {
		if err := s.tell(ctx, tx, AggregateMetadata, &before, a); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// DeleteAggregate removes an aggregate. It fails with fault.NotFound, and with fault.Invalid while it has hosts.
func (s *Store) DeleteAggregate(ctx context.Context, tx *db.Tx, number int64) error {
	a, err := s.Aggregate(ctx, tx, number)
	if err != nil {
		return err
	}
	if len(a.Hosts) > 0 {
		return fault.New(fault.Invalid, "Cannot remove host aggregate %d: it is not empty. Remove its hosts first.", number)
	}
	if _, err = tx.Exec(ctx, "DELETE FROM compute_aggregates WHERE id = ?", number); err != nil {
		return err
	}
	return s.tell(ctx, tx, AggregateDeleted, a, nil)
}

// AddAggregateHost puts a host into an aggregate. It fails with fault.Conflict when it is in there.
func (s *Store) AddAggregateHost(ctx context.Context, tx *db.Tx, number int64, host string) error {
	var n int
	if err := tx.QueryRow(ctx, "SELECT COUNT(*) FROM compute_aggregate_hosts WHERE host = ? AND aggregate_id = ?", host, number).Scan(&n); err != nil {
		return err
	}
	if n > 0 {
		return fault.New(fault.Conflict, "Aggregate %d already has host %s.", number, host)
	}
	if _, err := tx.Exec(ctx, "INSERT INTO compute_aggregate_hosts (host, aggregate_id) VALUES (?, ?)", host, number); err != nil {
		return err
	}
	if err := touchAggregate(ctx, tx, number); err != nil {
		return err
	}
	if err := s.followZone(ctx, tx, host); err != nil {
		return err
	}
	return s.tellHost(ctx, tx, AggregateHostIn, number, host)
}

// tellHost tells of a host that went into or out of an aggregate.
func (s *Store) tellHost(ctx context.Context, tx *db.Tx, what What, number int64, host string) error {
	if !s.wants(what) {
		return nil
	}
	now, err := s.Aggregate(ctx, tx, number)
	if err != nil {
		return err
	}
	before := *now
	if what == AggregateHostIn {
		before.Hosts = slices.DeleteFunc(slices.Clone(now.Hosts), func(h string) bool { return h == host })
	} else {
		before.Hosts = append(slices.Clone(now.Hosts), host)
	}
	return s.tell(ctx, tx, what, &before, now)
}

// RemoveAggregateHost takes a host out. It fails with fault.NotFound when it is not in there.
func (s *Store) RemoveAggregateHost(ctx context.Context, tx *db.Tx, number int64, host string) error {
	n, err := tx.Exec(ctx, "DELETE FROM compute_aggregate_hosts WHERE host = ? AND aggregate_id = ?", host, number)
	if err := one(n, err, "Aggregate %d has no host %s.", number, host); err != nil {
		return err
	}
	if err := touchAggregate(ctx, tx, number); err != nil {
		return err
	}
	if err := s.followZone(ctx, tx, host); err != nil {
		return err
	}
	return s.tellHost(ctx, tx, AggregateHostOut, number, host)
}

// followZone gives the servers on a host the zone that the host has now.
func (s *Store) followZone(ctx context.Context, tx *db.Tx, host string) error {
	servers, err := s.ServersOnHost(ctx, tx, host)
	if err != nil || len(servers) == 0 {
		return err
	}
	zones, err := s.Zones(ctx, tx)
	if err != nil {
		return err
	}
	zone := s.zoneOf(zones, host, ComputeBinary)
	for _, v := range servers {
		if v.AvailabilityZone == zone {
			continue
		}
		if err := s.UpdateServer(ctx, tx, v.ID, func(v *compute.Server) error { v.AvailabilityZone = zone; return nil }); err != nil {
			return err
		}
	}
	return nil
}

func touchAggregate(ctx context.Context, tx *db.Tx, number int64) error {
	_, err := tx.Exec(ctx, "UPDATE compute_aggregates SET updated_at = ? WHERE id = ?", clock.Micros(clock.Now()), number)
	return err
}
