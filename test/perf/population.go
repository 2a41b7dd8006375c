package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"
)

const (
	tenants   = 500 // projects of the large cloud
	perTenant = 20  // servers of each
)

// measurePopulation measures in a cloud where 500 projects have 20 servers each what was measured in an empty one.
func measurePopulation(ctx context.Context, o options, out figures) (err error) {
	o.flags += " --set identity.bcrypt_cost=4"
	c, _, err := startCloud(o, filepath.Join(o.dir, "population"), 100)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	admin, err := login(ctx, c)
	if err != nil {
		return err
	}
	if err := admin.prepare(ctx); err != nil {
		return err
	}
	if err := admin.do(ctx, "PUT", "network", "/networks/"+admin.network, map[string]any{"network": map[string]any{"shared": true}}, nil); err != nil {
		return err
	}
	people := make([]*client, tenants)
	if _, _, err := sample(tenants, 4, func(i int) (err error) { people[i], err = admin.newTenant(ctx, fmt.Sprintf("tenant%d", i)); return err }); err != nil {
		return err
	}
	if _, _, err := sample(tenants, 8, func(i int) error {
		return people[i].do(ctx, "POST", "compute", "/servers", map[string]any{"server": map[string]any{"name": "p", "imageRef": admin.image, "flavorRef": admin.flavor,
			"networks": []any{map[string]string{"uuid": admin.network}}, "min_count": perTenant, "max_count": perTenant}}, nil)
	}); err != nil {
		return err
	}
	if err := admin.waitAllActive(ctx, tenants*perTenant); err != nil {
		return err
	}
	name := func(s string) string { return fmt.Sprintf("%d servers: %s", tenants*perTenant, s) }
	for _, r := range []struct {
		what, path string
		by         *client
		n, callers int
	}{
		{"GET /servers/detail of a project", "/servers/detail", people[7], 200, 1},
		{"GET /servers/detail?all_tenants=1&limit=1000", "/servers/detail?all_tenants=1&limit=1000", admin, 30, 1},
		{"GET /servers/detail?all_tenants=1&limit=100, 8 callers,", "/servers/detail?all_tenants=1&limit=100", admin, 400, 8},
		{"GET /servers?all_tenants=1&status=ERROR", "/servers?all_tenants=1&status=ERROR", admin, 30, 1},
		{"GET /os-simple-tenant-usage of a project", "/os-simple-tenant-usage/" + people[7].project, people[7], 100, 1},
		{"GET /limits", "/limits", people[7], 200, 1},
	} {
		t, wall, err := sample(r.n, r.callers, func(int) error { return r.by.do(ctx, "GET", "compute", r.path, nil, nil) })
		if err != nil {
			return err
		}
		out.latencies(name(r.what), t, wall)
	}
	for _, callers := range []int{1, 8} {
		ids := make([]string, 300)
		t, wall, err := sample(len(ids), callers, func(i int) (err error) { ids[i], err = admin.create(ctx, fmt.Sprintf("s%d", i)); return err })
		if err != nil {
			return err
		}
		out.latencies(name(fmt.Sprintf("POST /servers, %d callers,", callers)), t, wall)
		if err := admin.waitActive(ctx, len(ids)); err != nil {
			return err
		}
		if _, _, err := sample(len(ids), callers, func(i int) error { return admin.do(ctx, "DELETE", "compute", "/servers/"+ids[i], nil, nil) }); err != nil {
			return err
		}
		if err := admin.waitGone(ctx); err != nil {
			return err
		}
	}
	m, err := c.memory()
	if err != nil {
		return err
	}
	out.put(name("memory (PSS)"), m, "MiB")
	return nil
}

// waitAllActive waits until no project has a server that builds, and counts those that are ACTIVE.
func (c *client) waitAllActive(ctx context.Context, n int) error {
	for began := time.Now(); time.Since(began) < 10*time.Minute; time.Sleep(200 * time.Millisecond) {
		var l listed
		if err := c.do(ctx, "GET", "compute", "/servers?all_tenants=1&status=BUILD&limit=1", nil, &l); err != nil {
			return err
		}
		if len(l.Servers) == 0 {
			break
		}
	}
	total, marker := 0, ""
	for {
		var l listed
		if err := c.do(ctx, "GET", "compute", "/servers?all_tenants=1&status=ACTIVE&limit=1000"+marker, nil, &l); err != nil {
			return err
		}
		total += len(l.Servers)
		if len(l.Servers) < 1000 {
			break
		}
		marker = "&marker=" + l.Servers[999].ID
	}
	if total != n {
		return fmt.Errorf("%d of %d servers are ACTIVE", total, n)
	}
	return nil
}

// newTenant makes a project in which the caller is member, and gives a client of it.
func (c *client) newTenant(ctx context.Context, name string) (*client, error) {
	var p struct {
		Project thing `json:"project"`
	}
	if err := c.call(ctx, "POST", c.url+"/identity/v3/projects", map[string]any{"project": map[string]any{"name": name, "domain_id": "default"}}, &p, nil); err != nil {
		return nil, err
	}
	c.mu.RLock()
	token := c.token
	c.mu.RUnlock()
	if c.user == "" {
		return nil, errors.New("the caller's user is not known")
	}
	if err := c.call(ctx, "PUT", c.url+"/identity/v3/projects/"+p.Project.ID+"/users/"+c.user+"/roles/"+c.role, nil, nil, nil); err != nil {
		return nil, err
	}
	body := map[string]any{"auth": map[string]any{"identity": map[string]any{"methods": []string{"token"}, "token": map[string]string{"id": token}},
		"scope": map[string]any{"project": map[string]string{"id": p.Project.ID}}}}
	var h http.Header
	if err := c.call(ctx, "POST", c.url+"/identity/v3/auth/tokens", body, nil, &h); err != nil {
		return nil, err
	}
	return &client{url: c.url, http: c.http, token: h.Get("X-Subject-Token"), project: p.Project.ID}, c.do(ctx, "PUT", "network", "/quotas/"+p.Project.ID,
		map[string]any{"quota": map[string]any{"port": -1}}, nil)
}
