// Package local is the built-in network service over SQL: networks, subnets, ports and their addresses, security groups,
// routers, floating IPs and quotas. Package wiring reads from its tables what hosts should have.
//
// What it promises: an address belongs to at most one port of a network and a MAC to at most one port of a network, by unique
// constraints of the database; taking an address reads one row per pool, whatever the number of ports; quota is counted in
// the transaction that makes or removes the thing, so it never exceeds its limit and always equals a recount; a change and
// all that follows from it (rules of a group, addresses of a port, members of a bulk request) is one transaction.
//
// Whoever decides whether a caller may do a thing is the REST layer (package api) or, for the methods of network.Service,
// this package itself: things of other projects are not found.
package local

import (
	"context"
	"embed"
	"io/fs"
	"log/slog"
	"time"

	"kilonova/internal/bus"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/network"
	"kilonova/internal/network/agents"
	"kilonova/internal/network/documents"
	"kilonova/internal/network/quota"
	"kilonova/internal/network/secgroup"
	"kilonova/internal/network/segments"
	"kilonova/internal/network/wake"
	"kilonova/internal/network/wiring"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Config says how the service works.
type Config struct {
	DB         *db.DB
	Bus        bus.Bus          // nil: agents are not told of changes and find them at their next look
	DefaultMTU int              // of networks that do not name one, before what tunnels take; 0: 1500
	TenantType string           // network type of networks that do not name one, local or vxlan; "": local
	VNIs       []segments.Range // where the identifiers of such vxlan networks come from; empty: all
	VLANs      []segments.VLANs // where the VLANs of vlan networks come from that name none
	DNSDomain  string           // of ports whose network has none; "": openstacklocal
	Quotas     map[string]int64 // limits of projects without their own, over Neutron's defaults; -1: unlimited
	Zone       string           // availability zone of agents; "": nova
	Log        *slog.Logger
}

// Filter selects resources of a list.
type Filter = documents.Filter

// Service is the network service. It implements network.Service.
type Service struct {
	*quota.Book
	db      *db.DB
	cfg     Config
	log     *slog.Logger
	notify  *wake.Notifier
	present agents.Presence

	networks *documents.Table[network.Network]
	subnets  *documents.Table[network.Subnet]
	ports    *documents.Table[network.Port]
	groups   *documents.Table[network.Group]
	rules    *documents.Table[network.Rule]
	routers  *documents.Table[network.Router]
	floating *documents.Table[network.FloatingIP]
	pools    *documents.Table[network.SubnetPool]
	scopes   *documents.Table[network.AddressScope]
	rbac     *documents.Table[network.RBAC]
	segments *segments.Book
	wiring   wiring.Reader
	known    *db.Memo[[2]string, *network.Network] // networks as projects see them, by project and id
}

var _ network.Service = (*Service)(nil)

// New opens the service on a database and brings its tables to the newest version.
func New(ctx context.Context, cfg Config) (*Service, error) {
	if cfg.DefaultMTU == 0 {
		cfg.DefaultMTU = 1500
	}
	if cfg.TenantType == "" {
		cfg.TenantType = TypeLocal
	}
	if len(cfg.VNIs) == 0 {
		cfg.VNIs = segments.All()
	}
	if cfg.DNSDomain == "" {
		cfg.DNSDomain = "openstacklocal"
	}
	if cfg.Zone == "" {
		cfg.Zone = "nova"
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	if err := cfg.DB.Migrate(ctx, "network", files); err != nil {
		return nil, err
	}
	s := &Service{Book: quota.New(cfg.DB, cfg.Quotas), db: cfg.DB, cfg: cfg, log: cfg.Log}
	s.tables()
	s.wiring = wiring.Reader{DB: s.db, Networks: s.networks, Subnets: s.subnets, Ports: s.ports, Groups: s.groups, Rules: s.rules, Routers: s.routers, Floating: s.floating,
		Segments: s.segments, DNSDomain: cfg.DNSDomain}
	s.known = db.NewMemo[[2]string, *network.Network](s.db, 1000, "network_networks", "network_subnets", "network_parts", "network_rbac")
	s.notify = wake.New(s.db, cfg.Bus, cfg.Log)
	return s, nil
}

// Close ends the work in the background. Changes that agents have not been told of are found at their next look.
func (s *Service) Close() error {
	s.notify.Close()
	return nil
}

func (s *Service) tables() {
	s.networks = documents.New("network_networks", "Network", []string{"project_id", "name", "external"},
		func(n *network.Network) string { return n.ID }, func(n *network.Network) *network.Standard { return &n.Standard },
		func(n *network.Network) []any { return []any{n.ProjectID, n.Name, n.External} })
	s.subnets = documents.New("network_subnets", "Subnet", []string{"project_id", "name", "network_id", "subnetpool_id", "segment_id"},
		func(n *network.Subnet) string { return n.ID }, func(n *network.Subnet) *network.Standard { return &n.Standard },
		func(n *network.Subnet) []any {
			return []any{n.ProjectID, n.Name, n.NetworkID, n.SubnetPoolID, n.SegmentID}
		})
	s.ports = documents.New("network_ports", "Port", []string{"project_id", "name", "network_id", "mac_address", "device_id", "device_owner", "host", "status"},
		func(p *network.Port) string { return p.ID }, func(p *network.Port) *network.Standard { return &p.Standard },
		func(p *network.Port) []any {
			return []any{p.ProjectID, p.Name, p.NetworkID, p.MAC, p.DeviceID, p.DeviceOwner, p.HostID, p.Status}
		})
	s.segments = segments.NewBook(s.networks, s.subnets, s.ports)
	s.groups = documents.New("network_groups", "SecurityGroup", []string{"project_id", "name"},
		func(g *network.Group) string { return g.ID }, func(g *network.Group) *network.Standard { return &g.Standard },
		func(g *network.Group) []any { return []any{g.ProjectID, g.Name} })
	s.rules = documents.New("network_rules", "SecurityGroupRule", []string{"project_id", "group_id", "remote_group_id", "sig"},
		func(r *network.Rule) string { return r.ID }, func(r *network.Rule) *network.Standard { return &r.Standard },
		func(r *network.Rule) []any {
			return []any{r.ProjectID, r.GroupID, r.RemoteGroup, secgroup.Signature(r)}
		})
	s.routers = documents.New("network_routers", "Router", []string{"project_id", "name"},
		func(r *network.Router) string { return r.ID }, func(r *network.Router) *network.Standard { return &r.Standard },
		func(r *network.Router) []any { return []any{r.ProjectID, r.Name} })
	s.floating = documents.New("network_floatingips", "FloatingIP", []string{"project_id", "network_id", "address", "port_id", "router_id"},
		func(f *network.FloatingIP) string { return f.ID }, func(f *network.FloatingIP) *network.Standard { return &f.Standard },
		func(f *network.FloatingIP) []any {
			return []any{f.ProjectID, f.NetworkID, f.Address, f.PortID, f.RouterID}
		})
	s.pools = documents.New("network_subnetpools", "SubnetPool", []string{"project_id", "name", "shared"},
		func(p *network.SubnetPool) string { return p.ID }, func(p *network.SubnetPool) *network.Standard { return &p.Standard },
		func(p *network.SubnetPool) []any { return []any{p.ProjectID, p.Name, p.Shared} })
	s.scopes = documents.New("network_scopes", "AddressScope", []string{"project_id", "name", "shared"},
		func(p *network.AddressScope) string { return p.ID }, func(p *network.AddressScope) *network.Standard { return &p.Standard },
		func(p *network.AddressScope) []any { return []any{p.ProjectID, p.Name, p.Shared} })
	s.rbac = documents.New("network_rbac", "RbacPolicy", []string{"project_id", "object_type", "object_id", "target", "action"},
		func(r *network.RBAC) string { return r.ID }, func(r *network.RBAC) *network.Standard { return &r.Standard },
		func(r *network.RBAC) []any {
			return []any{r.ProjectID, r.ObjectType, r.ObjectID, r.Target, r.Action}
		})
}

// Change is one transaction of the service. What it does to the data plane is told to the agents after the commit.
type Change struct {
	*Service
	ctx   context.Context
	tx    *db.Tx
	dirty wake.Dirty
}

// use counts n more (or fewer) of a resource for a project.
func (c *Change) use(project, resource string, n int64) error {
	return c.Use(c.ctx, c.tx, project, resource, n)
}

// Do runs fn as one transaction. fn may run more than once and then starts from nothing each time.
func (s *Service) Do(ctx context.Context, fn func(c *Change) error) error {
	for attempt := 0; ; attempt++ {
		err := s.db.Write(ctx, func(tx *db.Tx) error {
			c := &Change{Service: s, ctx: ctx, tx: tx}
			if err := fn(c); err != nil {
				return err
			}
			if !c.dirty.Empty() {
				tx.AfterCommit(func() { s.notify.Add(&c.dirty) })
			}
			return nil
		})
		// Two transactions of a server database may look for the same MAC or default group and not see each other.
		if err == nil || !db.IsDuplicate(err) {
			return err
		}
		if attempt == 5 {
			return fault.Wrap(err, fault.Conflict, "Another request made the same thing at the same time.").WithHint("Look what is there and try again.")
		}
		time.Sleep(time.Duration(attempt+1) * 2 * time.Millisecond)
	}
}
