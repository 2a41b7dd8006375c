package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/db"
	"kilonova/internal/fault"
)

// serverDoc is what the column doc holds: the server, and the row numbers of its flavors, which the API documents leave out.
type serverDoc struct {
	compute.Server
	FlavorRow    int64 `json:",omitempty"`
	OldFlavorRow int64 `json:",omitempty"`
}

// serverColumns stand beside the document, which is the truth, for filters and sorts.
var serverColumns = []string{"deleted", "project_id", "user_id", "name", "description", "hostname", "reservation_id", "launch_index", "vm_state",
	"power_state", "progress", "host", "node", "zone", "image_id", "kernel_id", "ramdisk_id", "root_device", "key_name", "config_drive", "disk_config",
	"access_ipv4", "access_ipv6", "locked_by", "group_id", "flavor_row", "flavor_id", "vcpus", "ram_mb", "disk_gb", "addresses", "created_at",
	"launched_at", "terminated_at", "deleted_at"}

var insertServer = "INSERT INTO compute_servers (" + strings.Join(serverColumns, ", ") + ", rev, updated_at, doc, id) VALUES (" + db.In(len(serverColumns)+4) + ")"

const (
	selectServer = "SELECT s.id, s.number, s.rev, s.updated_at, COALESCE(o.task_state, ''), s.doc FROM compute_servers s LEFT JOIN operations o ON o.holds = s.id"
	lockServer   = "SELECT s.id, s.number, s.rev, s.updated_at, COALESCE((SELECT o.task_state FROM operations o WHERE o.holds = s.id), ''), s.doc FROM compute_servers s WHERE s.id = ?"
)

// Server gives a server that is not deleted. It fails with fault.NotFound.
func (s *Store) Server(ctx context.Context, q db.Querier, id string) (*compute.Server, error) {
	v, _, err := readServer(q.QueryRow(ctx, selectServer+" WHERE s.id = ? AND s.deleted = 0", id).Scan)
	if db.IsNoRows(err) {
		return nil, noServer(id)
	}
	return v, err
}

// ServerAny gives a server, deleted ones too. It fails with fault.NotFound.
func (s *Store) ServerAny(ctx context.Context, q db.Querier, id string) (*compute.Server, error) {
	v, _, err := readServer(q.QueryRow(ctx, selectServer+" WHERE s.id = ?", id).Scan)
	if db.IsNoRows(err) {
		return nil, noServer(id)
	}
	return v, err
}

func noServer(id string) error {
	return fault.New(fault.NotFound, "Instance %s could not be found.", id)
}

func readServer(scan func(...any) error) (*compute.Server, int64, error) {
	var r serverRow
	if err := scan(r.into()...); err != nil {
		return nil, 0, err
	}
	v, err := decodeServer(r.doc)
	if err != nil {
		return nil, 0, fmt.Errorf("server %s: %w", r.id, err)
	}
	r.apply(v)
	return v, r.rev, nil
}

// serverRow is what selectServer gives.
type serverRow struct {
	id                   string
	number, rev, updated int64
	task                 string
	doc                  []byte
}

func (r *serverRow) into() []any {
	return []any{&r.id, &r.number, &r.rev, &r.updated, &r.task, &r.doc}
}

func (r *serverRow) apply(v *compute.Server) {
	v.ID, v.Number, v.Updated, v.TaskState = r.id, r.number, clock.FromMicros(r.updated), r.task
}

func decodeServer(doc []byte) (*compute.Server, error) {
	var d serverDoc
	if err := json.Unmarshal(doc, &d); err != nil {
		return nil, err
	}
	d.Flavor.ID = d.FlavorRow
	if d.OldFlavor != nil {
		d.OldFlavor.ID = d.OldFlavorRow
	}
	return &d.Server, nil
}

// restArgs are the values of what every change writes: rev, updated_at and doc; then the id.
func restArgs(v *compute.Server, rev int64) []any {
	d := serverDoc{Server: *v, FlavorRow: v.Flavor.ID}
	d.TaskState = ""
	if v.OldFlavor != nil {
		d.OldFlavorRow = v.OldFlavor.ID
	}
	return []any{rev, clock.Micros(v.Updated), encode(d), v.ID}
}

// columnArgs are the values of serverColumns.
func columnArgs(v *compute.Server) []any {
	var addr []string
	for _, f := range v.VIFs {
		for _, a := range f.FixedIPs {
			addr = append(addr, a.Address)
		}
		for _, a := range f.Floating {
			addr = append(addr, a.Address)
		}
	}
	var description any
	if v.Description != nil {
		description = *v.Description
	}
	cores, ram := v.HeldQuota()
	return []any{!v.Deleted.IsZero(), v.ProjectID, v.UserID, v.Name, description, v.Hostname, v.ReservationID, v.LaunchIndex, v.VMState,
		v.PowerState, v.Progress, v.Host, v.Node, v.AvailabilityZone, v.ImageID, v.KernelID, v.RamdiskID, v.RootDevice, v.KeyName, v.ConfigDrive, v.DiskConfig,
		v.AccessIPv4, v.AccessIPv6, v.LockedBy, v.GroupID, v.Flavor.ID, v.Flavor.FlavorID, int64(v.Flavor.VCPUs) + cores, v.Flavor.RAMMB + ram, v.Flavor.RootGB + v.Flavor.EphemeralGB,
		strings.Join(addr, " "), clock.Micros(v.Created), clock.Micros(v.Launched), clock.Micros(v.Terminated),
		clock.Micros(v.Deleted)}
}

// InsertServer writes a new server, counts it against its project and user (Reserve judges the limits), puts it into its group and sets v.Number.
func (s *Store) InsertServer(ctx context.Context, tx *db.Tx, v *compute.Server) error {
	if v.Created.IsZero() {
		v.Created = clock.Now()
	}
	if v.Updated.IsZero() {
		v.Updated = v.Created
	}
	if err := insertNumbered(ctx, tx, v); err != nil {
		return fmt.Errorf("insert server: %w", err)
	}
	if err := writeTags(ctx, tx, v.ID, nil, v); err != nil {
		return err
	}
	if v.GroupID != "" {
		if _, err := tx.Exec(ctx, "INSERT INTO compute_group_members (group_id, server_id, user_id) VALUES (?, ?, ?)", v.GroupID, v.ID, v.UserID); err != nil {
			return fmt.Errorf("insert server into group: %w", err)
		}
		if err := s.tellMember(ctx, tx, v); err != nil {
			return err
		}
	}
	return addUsage(ctx, tx, v.ProjectID, v.UserID, usageOf(v))
}

// insertNumbered writes the row and reads the number that it got.
func insertNumbered(ctx context.Context, tx *db.Tx, v *compute.Server) error {
	args := append(columnArgs(v), restArgs(v, 1)...)
	if tx.Dialect() != db.MySQL {
		return tx.QueryRow(ctx, insertServer+" RETURNING number", args...).Scan(&v.Number)
	}
	if _, err := tx.Exec(ctx, insertServer, args...); err != nil {
		return err
	}
	return tx.QueryRow(ctx, "SELECT number FROM compute_servers WHERE id = ?", v.ID).Scan(&v.Number)
}

// UpdateServer reads a server with its row locked, lets change alter it, and writes it with a new Updated time. Quota use follows the flavor. It
// also takes deleted servers; it fails with fault.NotFound, or with change's own error. TaskState and Number cannot be changed here.
func (s *Store) UpdateServer(ctx context.Context, tx *db.Tx, id string, change func(*compute.Server) error) error {
	v, rev, err := readServer(tx.QueryRow(ctx, lockServer+tx.ForUpdate(), id).Scan)
	if db.IsNoRows(err) {
		return noServer(id)
	} else if err != nil {
		return err
	}
	old, columns := usageOf(v), columnArgs(v)
	before := compute.Server{Tags: slices.Clone(v.Tags), ProjectID: v.ProjectID, UserID: v.UserID, VMState: v.VMState, Name: v.Name}
	if err := change(v); err != nil {
		return err
	}
	v.ID, v.Updated = id, clock.Now()
	set, args := db.Changed(serverColumns, columns, columnArgs(v))
	if set != "" {
		set += ", "
	}
	if _, err := tx.Exec(ctx, "UPDATE compute_servers SET "+set+"rev = ?, updated_at = ?, doc = ? WHERE id = ?", append(args, restArgs(v, rev+1)...)...); err != nil {
		return fmt.Errorf("update server: %w", err)
	}
	if err := writeTags(ctx, tx, id, &before, v); err != nil {
		return err
	}
	if err := addUsage(ctx, tx, v.ProjectID, v.UserID, usageOf(v).minus(old)); err != nil {
		return err
	}
	if !s.wants(ServerChanged) {
		return nil
	}
	was := before // a copy, so that nothing is allocated when nobody listens
	return s.tell(ctx, tx, ServerChanged, &was, v)
}

// DeleteServer marks a server deleted, gives its quota back and takes it out of its group. A server that is deleted already is success.
func (s *Store) DeleteServer(ctx context.Context, tx *db.Tx, id string) error {
	gone := false
	err := s.UpdateServer(ctx, tx, id, func(v *compute.Server) error {
		if !v.Deleted.IsZero() {
			gone = true
			return errStop
		}
		now := clock.Now()
		v.VMState, v.Deleted = compute.VMDeleted, now
		if v.Terminated.IsZero() {
			v.Terminated = now
		}
		return nil
	})
	if gone {
		return nil
	}
	if err != nil {
		return err
	}
	for _, q := range []string{"DELETE FROM compute_group_members WHERE server_id = ?", "DELETE FROM compute_console_tokens WHERE server_id = ?"} {
		if _, err := tx.Exec(ctx, q, id); err != nil {
			return fmt.Errorf("delete server: %w", err)
		}
	}
	return nil
}

// PurgeServers removes the records of at most limit servers that were deleted before a time, and gives how many it removed.
func (s *Store) PurgeServers(ctx context.Context, tx *db.Tx, before time.Time, limit int) (int, error) {
	var ids []string
	err := scan(ctx, tx, "SELECT id FROM compute_servers WHERE deleted = 1 AND deleted_at < ? ORDER BY deleted_at LIMIT ?", []any{clock.Micros(before), limit},
		func(scan func(...any) error) error {
			var id string
			err := scan(&id)
			ids = append(ids, id)
			return err
		})
	if err != nil || len(ids) == 0 {
		return 0, err
	}
	in := " IN (" + db.In(len(ids)) + ")"
	for _, q := range []string{"DELETE FROM compute_server_tags WHERE server_id",
		"DELETE FROM compute_migrations WHERE server_id", "DELETE FROM compute_servers WHERE id"} {
		if _, err := tx.Exec(ctx, q+in, db.Args(ids)...); err != nil {
			return 0, fmt.Errorf("purge servers: %w", err)
		}
	}
	return len(ids), nil
}

// ServersOnHost gives the servers, not deleted, whose host is given.
func (s *Store) ServersOnHost(ctx context.Context, q db.Querier, host string) ([]*compute.Server, error) {
	return s.servers(ctx, q, selectServer+" WHERE s.host = ? AND s.host > '' AND s.deleted = 0 ORDER BY s.number", host)
}

// ServersByID gives those of the servers that exist, deleted ones too, in no particular order.
func (s *Store) ServersByID(ctx context.Context, q db.Querier, ids ...string) ([]*compute.Server, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	return s.servers(ctx, q, selectServer+" WHERE s.id IN ("+db.In(len(ids))+")", db.Args(ids)...)
}

func (s *Store) servers(ctx context.Context, q db.Querier, query string, args ...any) ([]*compute.Server, error) {
	var out []*compute.Server
	err := scan(ctx, q, query, args, func(scan func(...any) error) error {
		v, _, err := readServer(scan)
		out = append(out, v)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read servers: %w", err)
	}
	return out, nil
}

// writeTags keeps the table by which tags are filtered in step with the document.
func writeTags(ctx context.Context, tx *db.Tx, id string, before, v *compute.Server) error {
	if before == nil {
		before = &compute.Server{}
	}
	if !slices.Equal(before.Tags, v.Tags) {
		if len(before.Tags) > 0 {
			if _, err := tx.Exec(ctx, "DELETE FROM compute_server_tags WHERE server_id = ?", id); err != nil {
				return fmt.Errorf("tags: %w", err)
			}
		}
		for _, t := range v.Tags {
			if _, err := tx.Exec(ctx, "INSERT INTO compute_server_tags (server_id, tag) VALUES (?, ?)", id, t); err != nil {
				return fmt.Errorf("tags: %w", err)
			}
		}
	}
	return nil
}

// serverCache keeps decoded documents for lists: a row whose revision is the cached one need not be decoded again.
type serverCache struct {
	mu sync.RWMutex
	m  map[string]cachedServer
}

type cachedServer struct {
	rev int64
	v   *compute.Server
}

const maxCached = 8192 // about 25 MB

func (c *serverCache) get(id string, rev int64) *compute.Server {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if e, ok := c.m[id]; ok && e.rev == rev {
		return e.v
	}
	return nil
}

func (c *serverCache) put(id string, rev int64, v *compute.Server) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[string]cachedServer{}
	}
	if len(c.m) >= maxCached {
		n := 0
		for k := range c.m { // any tenth goes: map order is random
			delete(c.m, k)
			if n++; n > maxCached/10 {
				break
			}
		}
	}
	c.m[id] = cachedServer{rev, v}
}
