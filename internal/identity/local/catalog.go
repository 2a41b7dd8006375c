package local

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/identity"
)

// catalogTable is the whole catalog as it is stored.
type catalogTable struct {
	services  []identity.Service
	endpoints []identity.Endpoint
	groups    map[string]identity.EndpointGroup
	picked    map[string][]pick // by project
}

type pick struct{ kind, object string }

// The kinds of identity_project_endpoints.
const (
	pickEndpoint = "endpoint"
	pickGroup    = "group"
)

func (s *Service) catalogTable(ctx context.Context) (*catalogTable, error) {
	if t := s.catalog.Load(); t != nil {
		return t, nil
	}
	version := s.tokens.begin()
	t := &catalogTable{groups: map[string]identity.EndpointGroup{}, picked: map[string][]pick{}}
	var err error
	if t.services, err = s.Services.List(ctx); err != nil {
		return nil, err
	}
	if t.endpoints, err = s.Endpoints.List(ctx); err != nil {
		return nil, err
	}
	groups, err := s.EndpointGroups.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		t.groups[g.ID] = g
	}
	rows, err := s.db.Query(ctx, "SELECT project_id, kind, object_id FROM identity_project_endpoints")
	if err != nil {
		return nil, fmt.Errorf("read endpoint filters: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var project string
		var p pick
		if err := rows.Scan(&project, &p.kind, &p.object); err != nil {
			return nil, fmt.Errorf("read endpoint filters: %w", err)
		}
		t.picked[project] = append(t.picked[project], p)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read endpoint filters: %w", err)
	}
	slices.SortFunc(t.services, func(a, b identity.Service) int { return strings.Compare(a.Type+a.ID, b.Type+b.ID) })
	s.tokens.unless(version, func() { s.catalog.Store(t) })
	return t, nil
}

// Catalog gives the enabled services and endpoints for a token, with its ids put into the URLs. A project for which endpoints were
// picked (OS-EP-FILTER) sees only those.
func (s *Service) Catalog(ctx context.Context, tok *identity.Token) ([]identity.CatalogEntry, error) {
	t, err := s.catalogTable(ctx)
	if err != nil {
		return nil, err
	}
	project := ""
	if tok.Project != nil {
		project = tok.Project.ID
	}
	fill := strings.NewReplacer("%(tenant_id)s", project, "%(project_id)s", project, "$(tenant_id)s", project, "$(project_id)s", project,
		"%(user_id)s", tok.User.ID, "$(user_id)s", tok.User.ID)
	out := []identity.CatalogEntry{}
	for _, sv := range t.services {
		if !sv.Enabled {
			continue
		}
		e := identity.CatalogEntry{ID: sv.ID, Type: sv.Type, Name: sv.Name, Endpoints: []identity.CatalogEndpoint{}}
		for _, ep := range t.endpoints {
			if ep.ServiceID != sv.ID || !ep.Enabled || !t.shows(project, ep) || project == "" && strings.Contains(ep.URL, "_id)s") {
				continue
			}
			var region *string
			if ep.RegionID != "" {
				region = &ep.RegionID
			}
			e.Endpoints = append(e.Endpoints, identity.CatalogEndpoint{ID: ep.ID, Interface: ep.Interface, Region: region, RegionID: region, URL: fill.Replace(ep.URL)})
		}
		out = append(out, e)
	}
	return out, nil
}

func (t *catalogTable) shows(project string, ep identity.Endpoint) bool {
	picks := t.picked[project]
	if project == "" || len(picks) == 0 {
		return true
	}
	return slices.ContainsFunc(picks, func(p pick) bool {
		if p.kind == pickEndpoint {
			return p.object == ep.ID
		}
		g, ok := t.groups[p.object]
		return ok && inGroup(g, ep)
	})
}

func inGroup(g identity.EndpointGroup, ep identity.Endpoint) bool {
	have := map[string]string{"service_id": ep.ServiceID, "region_id": ep.RegionID, "interface": ep.Interface}
	for k, v := range g.Filters {
		if have[k] != v {
			return false
		}
	}
	return true
}

// GroupEndpoints gives the endpoints that an endpoint group picks.
func (s *Service) GroupEndpoints(ctx context.Context, group string) ([]identity.Endpoint, error) {
	g, err := s.EndpointGroups.Get(ctx, group)
	if err != nil {
		return nil, err
	}
	all, err := s.Endpoints.List(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(e identity.Endpoint) bool { return !inGroup(*g, e) }), nil
}

// PickEndpoint adds an endpoint to what a project sees; PickGroup adds an endpoint group.
func (s *Service) PickEndpoint(ctx context.Context, project, endpoint string) error {
	if _, err := s.Endpoints.Get(ctx, endpoint); err != nil {
		return err
	}
	return s.pick(ctx, project, pickEndpoint, endpoint)
}

// PickGroup adds what an endpoint group picks to what a project sees.
func (s *Service) PickGroup(ctx context.Context, project, group string) error {
	if _, err := s.EndpointGroups.Get(ctx, group); err != nil {
		return err
	}
	return s.pick(ctx, project, pickGroup, group)
}

func (s *Service) pick(ctx context.Context, project, kind, object string) error {
	return s.db.Write(ctx, func(tx *db.Tx) error {
		if _, err := s.Projects.get(ctx, tx, project); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, db.Upsert(tx.Dialect(), "identity_project_endpoints", []string{"project_id", "kind", "object_id"}, nil), project, kind, object); err != nil {
			return fmt.Errorf("pick endpoint: %w", err)
		}
		return s.note(ctx, tx, changeCatalog, "")
	})
}

// Unpick takes an endpoint or endpoint group away from a project. It fails with fault.NotFound when it was not picked.
func (s *Service) Unpick(ctx context.Context, project, object string) error {
	return s.db.Write(ctx, func(tx *db.Tx) error {
		n, err := tx.Exec(ctx, "DELETE FROM identity_project_endpoints WHERE project_id = ? AND object_id = ?", project, object)
		if err != nil {
			return fmt.Errorf("unpick endpoint: %w", err)
		}
		if n == 0 {
			return notPicked(project, object)
		}
		return s.note(ctx, tx, changeCatalog, "")
	})
}

func notPicked(project, object string) error {
	return fault.New(fault.NotFound, "Endpoint or endpoint group %s is not associated with project %s.", object, project)
}

// Picked fails with fault.NotFound unless the object was picked for the project.
func (s *Service) Picked(ctx context.Context, project, object string) error {
	ok, err := s.exists(ctx, "SELECT COUNT(*) FROM identity_project_endpoints WHERE project_id = ? AND object_id = ?", project, object)
	if err == nil && !ok {
		return notPicked(project, object)
	}
	return err
}

// PicksOf gives the ids of the endpoints or endpoint groups (groups true) that were picked for a project.
func (s *Service) PicksOf(ctx context.Context, project string, groups bool) ([]string, error) {
	kind := pickEndpoint
	if groups {
		kind = pickGroup
	}
	return texts(ctx, s.db, "SELECT object_id FROM identity_project_endpoints WHERE project_id = ? AND kind = ? ORDER BY object_id", project, kind)
}

// PickedBy gives the ids of the projects for which an endpoint or endpoint group was picked.
func (s *Service) PickedBy(ctx context.Context, object string) ([]string, error) {
	return texts(ctx, s.db, "SELECT project_id FROM identity_project_endpoints WHERE object_id = ? ORDER BY project_id", object)
}
