package api

import (
	"slices"

	"kilonova/internal/httpapi"
	"kilonova/internal/network"
	"kilonova/internal/network/local"
)

// mine gives an object that the caller may change by a rule; it fails with fault.NotFound or fault.Forbidden.
func (res *resource) mine(q *call, id, rule string) (doc, error) {
	d, err := res.one(q, id)
	if err != nil {
		return nil, err
	}
	project, _ := d["project_id"].(string)
	t := q.Own()
	t["project_id"], t["tenant_id"] = project, project
	return d, deny(q, rule, t)
}

// addRoutes is PUT /routers/{id}/add_extraroutes: routes that are there already stay as they are.
func (a *API) addRoutes(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.changeRoutes(r, "add_extraroutes", func(have, given []network.Route) []network.Route {
		for _, x := range given {
			if !slices.Contains(have, x) {
				have = append(have, x)
			}
		}
		return have
	})
}

// removeRoutes is PUT /routers/{id}/remove_extraroutes: routes that are not there are gone already.
func (a *API) removeRoutes(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.changeRoutes(r, "remove_extraroutes", func(have, given []network.Route) []network.Route {
		return slices.DeleteFunc(have, func(x network.Route) bool { return slices.Contains(given, x) })
	})
}

func (a *API) changeRoutes(r *httpapi.Request, rule string, change func(have, given []network.Route) []network.Route) (*httpapi.Reply, error) {
	q, id, res := newCall(r), r.Path("id"), routers(a)
	obj, err := bodyOf(r, res.name)
	if err != nil {
		return nil, err
	}
	in, problem := record(obj, map[string]kind{"routes": routeList}, []string{"routes"})
	if problem != "" {
		return nil, badRequest("Invalid input for routes. Reason: %s", problem)
	}
	given, _ := in["routes"].([]network.Route)
	if _, err := res.mine(q, id, rule); err != nil {
		return nil, err
	}
	err = a.svc.Do(q.Context(), func(c *local.Change) error {
		_, err := c.UpdateRouter(id, func(router *network.Router) error {
			router.Routes = change(slices.Clone(router.Routes), given)
			return nil
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	docs, err := res.fetch(q, []string{id})
	if err != nil {
		return nil, err
	}
	return httpapi.OK(map[string]any{res.name: docs[0]}), nil
}

// addPrefixes is PUT /subnetpools/{id}/add_prefixes.
func (a *API) addPrefixes(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.changePrefixes(r, "add_prefixes", func(c *local.Change, id string, given []string) (*network.SubnetPool, error) {
		return c.UpdateSubnetPool(id, func(p *network.SubnetPool) error {
			p.Prefixes = append(slices.Clone(p.Prefixes), given...)
			return nil
		})
	})
}

// removePrefixes is PUT /subnetpools/{id}/remove_prefixes.
func (a *API) removePrefixes(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.changePrefixes(r, "remove_prefixes", (*local.Change).RemovePoolPrefixes)
}

func (a *API) changePrefixes(r *httpapi.Request, rule string, change func(c *local.Change, id string, given []string) (*network.SubnetPool, error)) (*httpapi.Reply, error) {
	q, id := newCall(r), r.Path("id")
	body, err := decode(r)
	if err != nil {
		return nil, err
	}
	in, problem := record(body, map[string]kind{"prefixes": texts(prefix)}, []string{"prefixes"})
	if problem != "" {
		return nil, badRequest("Invalid input for prefixes. Reason: %s", problem)
	}
	if _, err := subnetPools(a).mine(q, id, rule); err != nil {
		return nil, err
	}
	var p *network.SubnetPool
	err = a.svc.Do(q.Context(), func(c *local.Change) (err error) {
		p, err = change(c, id, in.texts("prefixes"))
		return err
	})
	if err != nil {
		return nil, err
	}
	return httpapi.OK(map[string]any{"prefixes": list(p.Prefixes)}), nil
}
