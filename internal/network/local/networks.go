package local

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/network"
	"kilonova/internal/network/documents"
	"kilonova/internal/network/wake"
)

// sharedNetworks is the condition for networks that others share with a project, or that are external for it.
const sharedNetworks = "id IN (SELECT object_id FROM network_rbac WHERE object_type = 'network' AND target IN ('*', ?))"

// Networks lists networks with their subnets. A project sees its own, those shared with it, and external ones.
func (s *Service) Networks(ctx context.Context, f Filter) ([]network.Network, error) {
	nets, err := s.networks.Find(ctx, s.db, f, sharedNetworks, f.Project)
	if err != nil {
		return nil, err
	}
	return nets, s.complete(ctx, s.db, nets, f.Project)
}

// Network gives one network with its subnets, as seen by a project ("": by an administrator); fault.NotFound for what that
// project may not see.
func (s *Service) Network(ctx context.Context, project, networkID string) (*network.Network, error) {
	shared, err := s.known.Get(s.db, [2]string{project, networkID}, func() (*network.Network, error) { return s.network(ctx, project, networkID) })
	if err != nil {
		return nil, err
	}
	n := *shared
	n.Tags, n.ZoneHints, n.Subnets, n.Segments = slices.Clone(n.Tags), slices.Clone(n.ZoneHints), slices.Clone(n.Subnets), slices.Clone(n.Segments)
	return &n, nil
}

func (s *Service) network(ctx context.Context, project, networkID string) (*network.Network, error) {
	nets, err := s.Networks(ctx, Filter{Project: project, Match: map[string][]string{"id": {networkID}}})
	if err != nil {
		return nil, err
	}
	if len(nets) == 0 {
		return nil, documents.NotFound("Network", networkID)
	}
	return &nets[0], nil
}

// complete fills in what is not in the documents: subnets, bridge, and whether the network is shared with the project.
func (s *Service) complete(ctx context.Context, q db.Querier, nets []network.Network, project string) error {
	ids := make([]string, len(nets))
	at := make(map[string]*network.Network, len(nets))
	for i := range nets {
		n := &nets[i]
		ids[i], at[n.ID] = n.ID, n
		n.Bridge, n.Shared = network.BridgeName(n.ID), false
	}
	subs, err := s.subnets.In(ctx, q, "network_id", ids)
	if err != nil {
		return err
	}
	slices.SortFunc(subs, func(a, b network.Subnet) int { return a.Created.Compare(b.Created) })
	for _, sub := range subs {
		n := at[sub.NetworkID]
		n.Subnets = append(n.Subnets, sub)
	}
	if err := s.segments.Complete(ctx, q, nets); err != nil {
		return err
	}
	type share struct{ object, target string }
	shares, err := documents.Collect(ctx, q, "SELECT object_id, target FROM network_rbac WHERE action = 'access_as_shared' AND object_id IN (%)", ids,
		func(scan func(...any) error) (v share, err error) { return v, scan(&v.object, &v.target) })
	if err != nil {
		return err
	}
	for _, sh := range shares {
		if sh.target == "*" || project != "" && sh.target == project && at[sh.object].ProjectID != project {
			at[sh.object].Shared = true
		}
	}
	return nil
}

// CreateNetwork makes a network. An empty id is made; MTU 0 is the default.
func (c *Change) CreateNetwork(n *network.Network) error {
	if n.ID == "" {
		n.ID = id.UUID()
	}
	if n.ProviderType == "" {
		n.ProviderType = c.cfg.TenantType
	}
	if n.MTU == 0 {
		n.MTU = c.defaultMTU(n.ProviderType)
	}
	if err := c.use(n.ProjectID, "network", 1); err != nil {
		return err
	}
	if err := c.segments.Start(c.ctx, c.tx, n); err != nil {
		return err
	}
	if err := c.segment(n, nil); err != nil {
		return err
	}
	if err := c.networks.Insert(c.ctx, c.tx, n); err != nil {
		return err
	}
	if n.Segmented {
		if err := c.segments.TakePhysical(c.ctx, c.tx, n.ID); err != nil {
			return err
		}
	}
	if err := c.share(n.ID, n.ProjectID, "access_as_shared", n.Shared); err != nil {
		return err
	}
	n.Bridge = network.BridgeName(n.ID)
	return c.share(n.ID, n.ProjectID, "access_as_external", n.External)
}

// share makes or removes the entry that lets everybody use a network.
func (c *Change) share(networkID, project, action string, on bool) error {
	has, err := documents.Exists(c.ctx, c.tx, "SELECT 1 FROM network_rbac WHERE object_id = ? AND action = ? AND target = '*'", networkID, action)
	if err != nil || has == on {
		return err
	}
	if !on {
		_, err := c.tx.Exec(c.ctx, "DELETE FROM network_rbac WHERE object_id = ? AND action = ? AND target = '*'", networkID, action)
		return err
	}
	return c.rbac.Insert(c.ctx, c.tx, &network.RBAC{ID: id.UUID(), ProjectID: project, ObjectType: "network", ObjectID: networkID, Target: "*", Action: action})
}

// UpdateNetwork changes a network. A network in use by others cannot be unshared.
func (c *Change) UpdateNetwork(networkID string, change func(n *network.Network) error) (*network.Network, error) {
	n, err := c.networks.Lock(c.ctx, c.tx, networkID)
	if err != nil {
		return nil, err
	}
	one := []network.Network{*n}
	if err := c.complete(c.ctx, c.tx, one, ""); err != nil {
		return nil, err
	}
	n = &one[0]
	shared, external, before := n.Shared, n.External, *n
	if err := change(n); err != nil {
		return nil, err
	}
	if err := c.segment(n, &before); err != nil {
		return nil, err
	}
	if shared && !n.Shared {
		if err := c.unshareable(n); err != nil {
			return nil, err
		}
	}
	if external && !n.External {
		used, err := documents.Exists(c.ctx, c.tx, "SELECT 1 FROM network_ports WHERE network_id = ? AND device_owner IN (?, ?) LIMIT 1", n.ID, network.OwnerRouterGateway, network.OwnerFloatingIP)
		if err != nil {
			return nil, err
		}
		if used {
			return nil, fault.New(fault.Conflict, "External network %s cannot be updated to be made non-external, since it has existing gateway ports.", n.ID).WithCode("ExternalNetworkInUse")
		}
	}
	if err := c.share(n.ID, n.ProjectID, "access_as_shared", n.Shared); err != nil {
		return nil, err
	}
	if err := c.share(n.ID, n.ProjectID, "access_as_external", n.External); err != nil {
		return nil, err
	}
	wake.Mark(&c.dirty.Networks, n.ID)
	return n, c.networks.Update(c.ctx, c.tx, n)
}

// unshareable fails when projects that are neither the owner nor named by another entry have ports on the network.
func (c *Change) unshareable(n *network.Network) error {
	used, err := documents.Exists(c.ctx, c.tx, `SELECT 1 FROM network_ports WHERE network_id = ? AND project_id <> ? AND project_id <> ''
 AND project_id NOT IN (SELECT target FROM network_rbac WHERE object_id = ? AND action = 'access_as_shared') LIMIT 1`, n.ID, n.ProjectID, n.ID)
	if err != nil || !used {
		return err
	}
	return fault.New(fault.Conflict, "Unable to reconfigure sharing settings for network %s. Multiple tenants are using it.", n.ID).WithCode("InvalidSharedSetting")
}

// DeleteNetwork removes a network with its subnets; fault.Conflict NetworkInUse while ports are on it.
func (c *Change) DeleteNetwork(networkID string) error {
	n, err := c.networks.Lock(c.ctx, c.tx, networkID)
	if err != nil {
		return err
	}
	// Floating IPs that stand for nothing go with their network.
	idle, err := c.floating.List(c.ctx, c.tx, "network_id = ? AND port_id = ''", networkID)
	if err != nil {
		return err
	}
	for i := range idle {
		if err := c.DeleteFloatingIP(idle[i].ID); err != nil {
			return err
		}
	}
	used, err := documents.Exists(c.ctx, c.tx, "SELECT 1 FROM network_ports WHERE network_id = ? LIMIT 1", networkID)
	if err != nil {
		return err
	}
	if used {
		return fault.New(fault.Conflict, "Unable to complete operation on network %s. There are one or more ports still in use on the network.", networkID).WithCode("NetworkInUse")
	}
	subs, err := c.subnets.List(c.ctx, c.tx, "network_id = ?", networkID)
	if err != nil {
		return err
	}
	for i := range subs {
		if err := c.removeSubnet(&subs[i]); err != nil {
			return err
		}
	}
	if err := c.dropRBAC(networkID); err != nil {
		return err
	}
	if err := c.use(n.ProjectID, "network", -1); err != nil {
		return err
	}
	if err := c.releaseSegment(n); err != nil {
		return err
	}
	if n.Segmented {
		if err := c.segments.DeleteOf(c.ctx, c.tx, networkID); err != nil {
			return err
		}
	}
	return c.networks.Delete(c.ctx, c.tx, networkID)
}

func (c *Change) dropRBAC(objectID string) error {
	entries, err := c.rbac.List(c.ctx, c.tx, "object_id = ?", objectID)
	if err != nil {
		return err
	}
	for i := range entries {
		if countedRBAC(&entries[i]) {
			if err := c.use(entries[i].ProjectID, "rbac_policy", -1); err != nil {
				return err
			}
		}
	}
	if _, err := c.tx.Exec(c.ctx, "DELETE FROM network_rbac WHERE object_id = ?", objectID); err != nil {
		return fmt.Errorf("remove rbac entries: %w", err)
	}
	return nil
}

// FQDN is a name in the name service of a network with a domain, "" for the service's own.
func (s *Service) FQDN(hostname, domain string) string {
	if domain == "" {
		domain = s.cfg.DNSDomain
	}
	if hostname == "" {
		return ""
	}
	return hostname + "." + strings.TrimSuffix(domain, ".") + "."
}
