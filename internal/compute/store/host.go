package store

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
)

// The binaries of services, and the zones of those that no aggregate names: DefaultZone unless Store.Zone says otherwise.
const (
	ComputeBinary = "nova-compute"
	DefaultZone   = "nova"
	InternalZone  = "internal"
)

const selectHost = "SELECT number, id, host, service_binary, disabled, disabled_reason, forced_down, last_seen, version, node_id, created_at, failed_builds, info FROM compute_services"

func (s *Store) hosts(ctx context.Context, q db.Querier, query string, args ...any) ([]compute.Host, error) {
	var out []compute.Host
	err := scan(ctx, q, query, args, func(scan func(...any) error) error {
		var h compute.Host
		var seen, created int64
		var disabled, forced int
		var info string
		if err := scan(&h.ServiceNumber, &h.ServiceID, &h.Name, &h.Binary, &disabled, &h.DisabledReason, &forced, &seen, &h.Version, &h.NodeID, &created, &h.FailedBuilds, &info); err != nil {
			return err
		}
		h.Disabled, h.ForcedDown, h.NodeNumber = disabled != 0, forced != 0, h.ServiceNumber
		h.LastSeen, h.Created, h.Info = clock.FromMicros(seen), clock.FromMicros(created), []byte(info)
		out = append(out, h)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read hosts: %w", err)
	}
	if len(out) == 0 {
		return nil, nil
	}
	zones, err := s.Zones(ctx, q)
	if err != nil {
		return nil, err
	}
	for i := range out {
		out[i].Zone = s.zoneOf(zones, out[i].Name, out[i].Binary)
	}
	return out, nil
}

func (s *Store) zoneOf(zones map[string]string, host, binary string) string {
	if binary != ComputeBinary {
		return InternalZone
	}
	if z := zones[host]; z != "" {
		return z
	}
	return cmp.Or(s.Zone, DefaultZone)
}

// Zones gives the availability zone of each host that an aggregate puts into one.
func (s *Store) Zones(ctx context.Context, q db.Querier) (map[string]string, error) {
	out := map[string]string{}
	err := scan(ctx, q, "SELECT h.host, a.metadata FROM compute_aggregate_hosts h JOIN compute_aggregates a ON a.id = h.aggregate_id", nil, func(scan func(...any) error) error {
		var host, meta string
		if err := scan(&host, &meta); err != nil {
			return err
		}
		var m map[string]string
		if err := decode(meta, &m); err != nil {
			return err
		}
		if z := m["availability_zone"]; z != "" {
			out[host] = z
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read zones: %w", err)
	}
	return out, nil
}

// Hosts gives all compute hosts, in the order they first reported.
func (s *Store) Hosts(ctx context.Context, q db.Querier) ([]compute.Host, error) {
	return s.hosts(ctx, q, selectHost+" WHERE service_binary = ? ORDER BY number", ComputeBinary)
}

// Services gives all services of all binaries.
func (s *Store) Services(ctx context.Context, q db.Querier) ([]compute.Host, error) {
	return s.hosts(ctx, q, selectHost+" ORDER BY number")
}

// Host gives a compute host by name. It fails with fault.NotFound.
func (s *Store) Host(ctx context.Context, q db.Querier, name string) (*compute.Host, error) {
	return s.oneHost(ctx, q, "Compute host "+name+" could not be found.", " WHERE host = ? AND service_binary = ?", name, ComputeBinary)
}

// Service gives a service by its id. It fails with fault.NotFound.
func (s *Store) Service(ctx context.Context, q db.Querier, serviceID string) (*compute.Host, error) {
	return s.oneHost(ctx, q, "Service "+serviceID+" could not be found.", " WHERE id = ?", serviceID)
}

func (s *Store) oneHost(ctx context.Context, q db.Querier, text, cond string, args ...any) (*compute.Host, error) {
	hs, err := s.hosts(ctx, q, selectHost+cond, args...)
	if err != nil {
		return nil, err
	}
	if len(hs) == 0 {
		return nil, fault.New(fault.NotFound, "%s", text)
	}
	return &hs[0], nil
}

// SaveHost writes what a service reports of itself: version, node, description and the time. Its first report makes the record (h.ServiceID is
// kept when set). What operators decide (disabled, forced down) is left as it is. h.Binary "" is nova-compute.
func (s *Store) SaveHost(ctx context.Context, tx *db.Tx, h *compute.Host, nodeName string) error {
	if h.Binary == "" {
		h.Binary = ComputeBinary
	}
	if h.LastSeen.IsZero() {
		h.LastSeen = clock.Now()
	}
	now, info := clock.Micros(clock.Now()), string(h.Info)
	n, err := tx.Exec(ctx, "UPDATE compute_services SET last_seen = ?, version = ?, node_id = ?, node_name = ?, info = ? WHERE host = ? AND service_binary = ?",
		clock.Micros(h.LastSeen), h.Version, h.NodeID, nodeName, info, h.Name, h.Binary)
	if err != nil {
		return fmt.Errorf("save host %s: %w", h.Name, err)
	}
	if n == 0 {
		if h.ServiceID == "" {
			h.ServiceID = id.UUID()
		}
		if _, err := tx.Exec(ctx, "INSERT INTO compute_services (id, host, service_binary, disabled, disabled_reason, forced_down, last_seen, version, node_id, node_name, created_at, updated_at, info)"+
			" VALUES (?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?)", h.ServiceID, h.Name, h.Binary, h.Disabled, h.DisabledReason, clock.Micros(h.LastSeen), h.Version, h.NodeID, nodeName, now, now, info); err != nil {
			return fmt.Errorf("save host %s: %w", h.Name, err)
		}
	}
	got, err := s.oneHost(ctx, tx, "Host "+h.Name+" is gone.", " WHERE host = ? AND service_binary = ?", h.Name, h.Binary)
	if err != nil {
		return err
	}
	*h = *got
	if n == 0 {
		if err := s.tell(ctx, tx, ServiceCreated, nil, h); err != nil {
			return err
		}
	}
	return s.tell(ctx, tx, HostReported, nil, h)
}

// Heartbeat notes that a service was heard of. It fails with fault.NotFound when the service has no record yet: SaveHost makes it.
func (s *Store) Heartbeat(ctx context.Context, tx *db.Tx, host, binary string, seen time.Time) error {
	n, err := tx.Exec(ctx, "UPDATE compute_services SET last_seen = ? WHERE host = ? AND service_binary = ?", clock.Micros(seen), host, binary)
	return one(n, err, "Service %s on host %s has no record.", binary, host)
}

// CountBuild counts a build that failed on a compute host, or forgets those that did because one succeeded. A host without a record has nothing to count.
func (s *Store) CountBuild(ctx context.Context, tx *db.Tx, host string, ok bool) error {
	query := "UPDATE compute_services SET failed_builds = failed_builds + 1 WHERE host = ? AND service_binary = ?"
	if ok {
		query = "UPDATE compute_services SET failed_builds = 0 WHERE host = ? AND service_binary = ?"
	}
	if _, err := tx.Exec(ctx, query, host, ComputeBinary); err != nil {
		return fmt.Errorf("count a build on host %s: %w", host, err)
	}
	return nil
}

// SetServiceState writes what an operator decides of a service; nil leaves a part as it is.
func (s *Store) SetServiceState(ctx context.Context, tx *db.Tx, serviceID string, disabled *bool, reason *string, forcedDown *bool) error {
	h, err := s.Service(ctx, tx, serviceID)
	if err != nil {
		return err
	}
	if disabled != nil {
		h.Disabled = *disabled
	}
	if reason != nil {
		h.DisabledReason = *reason
	}
	if forcedDown != nil {
		h.ForcedDown = *forcedDown
	}
	_, err = tx.Exec(ctx, "UPDATE compute_services SET disabled = ?, disabled_reason = ?, forced_down = ?, updated_at = ? WHERE id = ?", flag(h.Disabled), h.DisabledReason,
		flag(h.ForcedDown), clock.Micros(clock.Now()), serviceID)
	if err != nil {
		return err
	}
	return s.tell(ctx, tx, ServiceChanged, nil, h)
}

// DeleteHost removes a service's record, and the host from its aggregates when it is a compute host. It fails with fault.Conflict while servers are on the host.
func (s *Store) DeleteHost(ctx context.Context, tx *db.Tx, serviceID string) error {
	h, err := s.Service(ctx, tx, serviceID)
	if err != nil {
		return err
	}
	if h.Binary == ComputeBinary {
		var n int
		if err := tx.QueryRow(ctx, "SELECT COUNT(*) FROM compute_servers WHERE host = ? AND host > '' AND deleted = 0", h.Name).Scan(&n); err != nil {
			return err
		}
		if n > 0 {
			return fault.New(fault.Conflict, "Unable to delete compute service that is hosting instances. Migrate or delete the instances first.")
		}
		if _, err := tx.Exec(ctx, "DELETE FROM compute_aggregate_hosts WHERE host = ?", h.Name); err != nil {
			return err
		}
	}
	if _, err = tx.Exec(ctx, "DELETE FROM compute_services WHERE id = ?", serviceID); err != nil {
		return err
	}
	return s.tell(ctx, tx, ServiceDeleted, h, nil)
}

// HostLoad is what the records say is on a host.
type HostLoad struct {
	Servers, VCPUs, RAMMB, DiskGB int64
	Busy                          int64 // servers that an operation holds
	IO                            int64 // of them, those that are being built, moved, copied or rescued
}

// ioKinds are the operations that load a host's disks and network.
const ioKinds = "'create', 'resize', 'revert-resize', 'rebuild', 'snapshot', 'backup', 'rescue', 'unrescue', 'shelve', 'unshelve', 'live-migrate', 'evacuate'"

// HostLoads gives the load of every host that has servers, by one query.
func (s *Store) HostLoads(ctx context.Context, q db.Querier) (map[string]HostLoad, error) {
	out := map[string]HostLoad{}
	err := scan(ctx, q, "SELECT s.host, COUNT(*), SUM(s.vcpus), SUM(s.ram_mb), SUM(s.disk_gb), COUNT(o.id), SUM(CASE WHEN o.kind IN ("+ioKinds+") THEN 1 ELSE 0 END)"+
		" FROM compute_servers s LEFT JOIN operations o ON o.holds = s.id"+
		" WHERE s.deleted = 0 AND s.host > '' GROUP BY s.host", nil, func(scan func(...any) error) error {
		var host string
		var l HostLoad
		err := scan(&host, &l.Servers, &l.VCPUs, &l.RAMMB, &l.DiskGB, &l.Busy, &l.IO)
		out[host] = l
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("host loads: %w", err)
	}
	return out, nil
}

// ServerRef names a server on a host.
type ServerRef struct{ ID, Name, Host string }

// ServerRefs gives the servers of the hosts (all hosts when none is named), ordered by host and age.
func (s *Store) ServerRefs(ctx context.Context, q db.Querier, hosts ...string) ([]ServerRef, error) {
	query, args := "SELECT id, name, host FROM compute_servers WHERE deleted = 0 AND host > ''", []any(nil)
	if len(hosts) > 0 {
		query, args = "SELECT id, name, host FROM compute_servers WHERE deleted = 0 AND host > '' AND host IN ("+db.In(len(hosts))+")", db.Args(hosts)
	}
	var out []ServerRef
	err := scan(ctx, q, query+" ORDER BY host, number", args, func(scan func(...any) error) error {
		var r ServerRef
		err := scan(&r.ID, &r.Name, &r.Host)
		out = append(out, r)
		return err
	})
	return out, err
}

// ServerImage is a server on a host with the properties of its image.
type ServerImage struct {
	ServerRef
	ImageProps map[string]string
}

// ServerImages gives the servers of all hosts with the properties of their images.
func (s *Store) ServerImages(ctx context.Context, q db.Querier) ([]ServerImage, error) {
	var out []ServerImage
	err := scan(ctx, q, "SELECT id, name, host, doc FROM compute_servers WHERE deleted = 0 AND host > '' ORDER BY host, number", nil, func(scan func(...any) error) error {
		var r ServerImage
		var doc string
		if err := scan(&r.ID, &r.Name, &r.Host, &doc); err != nil {
			return err
		}
		var d struct{ ImageProps map[string]string }
		err := decode(doc, &d)
		r.ImageProps = d.ImageProps
		out = append(out, r)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("servers with their images: %w", err)
	}
	return out, nil
}

// HostStates gives the operational state of compute hosts (all when none is named) by name, without their description and zone.
func (s *Store) HostStates(ctx context.Context, q db.Querier, hosts ...string) (map[string]*compute.Host, error) {
	query, args := "SELECT host, node_id, disabled, forced_down, last_seen FROM compute_services WHERE service_binary = ?", []any{ComputeBinary}
	if len(hosts) > 0 {
		query, args = query+" AND host IN ("+db.In(len(hosts))+")", append(args, db.Args(hosts)...)
	}
	out := map[string]*compute.Host{}
	err := scan(ctx, q, query, args, func(scan func(...any) error) error {
		h := &compute.Host{Binary: ComputeBinary}
		var disabled, forced int
		var seen int64
		err := scan(&h.Name, &h.NodeID, &disabled, &forced, &seen)
		h.Disabled, h.ForcedDown, h.LastSeen = disabled != 0, forced != 0, clock.FromMicros(seen)
		out[h.Name] = h
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read host states: %w", err)
	}
	return out, nil
}
