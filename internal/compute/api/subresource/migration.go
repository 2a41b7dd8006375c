package subresource

import (
	"slices"
	"strconv"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/store"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

// The kinds of the operations that act on a live migration under way; they run beside it.
const (
	opAbortLive = "live-migration-abort"
	opForceLive = "live-migration-force"
)

// moving are the states in which a live migration is listed below its server.
var moving = []string{"queued", "preparing", "running", "post-migrating"}

// migrations gives the live migrations of a server that are under way.
func (a api) migrations(r *httpapi.Request, rule string) (*compute.Server, []compute.Migration, error) {
	s, err := a.Server(r, "server_id", backend.Rule("servers:migrations:"+rule))
	if err != nil {
		return nil, nil, err
	}
	ms, err := a.Store.Migrations(r.Context(), a.DB(), store.MigrationFilter{ServerID: s.ID, Type: "live-migration", Status: moving, Oldest: true})
	return s, ms, err
}

func migrationView(m *compute.Migration, minor int, hosts bool) map[string]any {
	v := map[string]any{"id": m.ID, "server_uuid": m.ServerID, "status": m.Status, "created_at": m.Created.Format(clock.LayoutMicro), "updated_at": m.Updated.Format(clock.LayoutMicro)}
	for k, where := range map[string]string{"source_compute": m.SourceHost, "source_node": m.SourceNode, "dest_compute": m.DestHost, "dest_node": m.DestNode, "dest_host": m.DestIP} {
		v[k] = nil
		if hosts && where != "" {
			v[k] = where
		}
	}
	for k, n := range map[string]int64{"memory_total_bytes": m.MemoryTotal, "memory_processed_bytes": m.MemoryProcessed, "memory_remaining_bytes": m.MemoryRemaining,
		"disk_total_bytes": m.DiskTotal, "disk_processed_bytes": m.DiskProcessed, "disk_remaining_bytes": m.DiskRemaining} {
		v[k] = nil // nothing is known before the first report
		if n > 0 {
			v[k] = n
		}
	}
	if minor >= 59 {
		v["uuid"] = m.UUID
	}
	if minor >= 80 {
		v["project_id"], v["user_id"] = m.ProjectID, m.UserID
	}
	return v
}

func (a api) seesHosts(r *httpapi.Request, s *compute.Server) bool {
	return r.Allowed(backend.Rule("servers:migrations:index:host"), backend.Target(s.ProjectID, s.UserID))
}

func (a api) listMigrations(r *httpapi.Request) (*httpapi.Reply, error) {
	s, ms, err := a.migrations(r, "index")
	if err != nil {
		return nil, err
	}
	list := []map[string]any{}
	for i := range ms {
		list = append(list, migrationView(&ms[i], backend.Minor(r), a.seesHosts(r, s)))
	}
	return body(map[string]any{"migrations": list})
}

// migration finds one migration of a server by its number.
func (a api) migration(r *httpapi.Request, rule string) (*compute.Server, *compute.Migration, error) {
	s, ms, err := a.migrations(r, rule)
	if err != nil {
		return nil, nil, err
	}
	n, err := strconv.ParseInt(r.Path("id"), 10, 64)
	at := slices.IndexFunc(ms, func(m compute.Migration) bool { return err == nil && m.ID == n })
	if at < 0 {
		return nil, nil, fault.New(fault.NotFound, "Migration %s not found for instance %s", r.Path("id"), s.ID)
	}
	return s, &ms[at], nil
}

func (a api) showMigration(r *httpapi.Request) (*httpapi.Reply, error) {
	_, m, err := a.migration(r, "show")
	if err != nil {
		return nil, err
	}
	return body(map[string]any{"migration": migrationView(m, backend.Minor(r), true)})
}

func (a api) abortMigration(r *httpapi.Request) (*httpapi.Reply, error) {
	s, m, err := a.migration(r, "delete")
	if err != nil {
		return nil, err
	}
	may := []string{"running"}
	if backend.Minor(r) >= 65 {
		may = []string{"running", "queued", "preparing"}
	}
	if err := a.Check(r, s, compute.DoAbort); err != nil {
		return nil, err
	}
	if !slices.Contains(may, m.Status) {
		return nil, fault.New(fault.Invalid, "Migration %d state of instance %s is %s. Cannot abort live migration while the migration is in this state.", m.ID, s.ID, m.Status)
	}
	if err := a.Accept(r, s, backend.Request{Op: compute.DoAbort, Kind: opAbortLive, Action: "live_migration_cancel", Shared: true}); err != nil {
		return nil, err
	}
	return empty()
}

func (a api) forceComplete(r *httpapi.Request) (*httpapi.Reply, error) {
	s, m, err := a.migration(r, "force_complete")
	if err != nil {
		return nil, err
	}
	if err := a.Check(r, s, compute.DoForceComplete); err != nil {
		return nil, err
	}
	if m.Status != "running" {
		return nil, fault.New(fault.Invalid, "Migration %d state of instance %s is %s. Cannot force_complete while the migration is in this state.", m.ID, s.ID, m.Status)
	}
	if err := a.Accept(r, s, backend.Request{Op: compute.DoForceComplete, Kind: opForceLive, Action: "live_migration_force_complete", Shared: true}); err != nil {
		return nil, err
	}
	return empty()
}
