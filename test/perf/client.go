package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// client speaks REST to the cloud, as any client would.
type client struct {
	url, password string
	http          *http.Client
	mu            sync.RWMutex
	token         string

	user, role, project    string // the caller's user, a role that it has, the token's project
	image, flavor, network string
}

func login(ctx context.Context, c *cloud) (*client, error) {
	b, err := os.ReadFile(filepath.Join(c.dir, "secrets", "admin_password"))
	if err != nil {
		return nil, err
	}
	cl := &client{url: c.url, password: strings.TrimSpace(string(b)), http: &http.Client{Timeout: time.Minute,
		Transport: &http.Transport{MaxIdleConns: 256, MaxIdleConnsPerHost: 256, DisableCompression: true}}}
	return cl, cl.authenticate(ctx)
}

func (c *client) authenticate(ctx context.Context) error {
	named := map[string]string{"name": "Default"}
	body := map[string]any{"auth": map[string]any{
		"identity": map[string]any{"methods": []string{"password"}, "password": map[string]any{"user": map[string]any{"name": "admin", "domain": named, "password": c.password}}},
		"scope":    map[string]any{"project": map[string]any{"name": "admin", "domain": named}}}}
	var h http.Header
	var t struct {
		Token struct {
			User, Project thing
			Roles         []thing
		}
	}
	if err := c.call(ctx, "POST", c.url+"/identity/v3/auth/tokens", body, &t, &h); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.user, c.project = t.Token.User.ID, t.Token.Project.ID
	if len(t.Token.Roles) > 0 {
		c.role = t.Token.Roles[0].ID
	}
	c.token = h.Get("X-Subject-Token")
	return nil
}

// do makes one request to a service at its newest microversion that matters here.
func (c *client) do(ctx context.Context, method, service, path string, body, out any) error {
	root := map[string]string{"compute": "/compute/v2.1", "image": "/image/v2", "network": "/network/v2.0", "placement": "/placement"}[service]
	return c.call(ctx, method, c.url+root+path, body, out, nil)
}

func (c *client) call(ctx context.Context, method, url string, body, out any, header *http.Header) error {
	var rd io.Reader
	kind := "application/json"
	switch b := body.(type) {
	case nil:
	case []byte:
		rd, kind = bytes.NewReader(b), "application/octet-stream"
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			return err
		}
		rd = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, rd)
	if err != nil {
		return err
	}
	c.mu.RLock()
	req.Header.Set("X-Auth-Token", c.token)
	c.mu.RUnlock()
	req.Header.Set("Content-Type", kind)
	if strings.Contains(url, "/placement") {
		req.Header.Set("OpenStack-API-Version", "placement 1.36")
	} else {
		req.Header.Set("OpenStack-API-Version", "compute 2.79")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	var answer bytes.Buffer
	answer.Grow(int(max(resp.ContentLength, 0)) + bytes.MinRead) // a buffer that grows while it is read would be measured, too
	if _, err := answer.ReadFrom(resp.Body); err != nil {
		return err
	}
	raw := answer.Bytes()
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %d %.400s", method, url, resp.StatusCode, raw)
	}
	if header != nil {
		*header = resp.Header
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(raw, out)
}

type thing struct {
	ID string `json:"id"`
}

// prepare registers an image, a flavor and a network.
func (c *client) prepare(ctx context.Context) error {
	var img thing
	if err := c.do(ctx, "POST", "image", "/images", map[string]any{"name": "perf", "disk_format": "raw", "container_format": "bare"}, &img); err != nil {
		return err
	}
	if err := c.do(ctx, "PUT", "image", "/images/"+img.ID+"/file", make([]byte, 1<<20), nil); err != nil {
		return err
	}
	var fl struct{ Flavor thing }
	if err := c.do(ctx, "POST", "compute", "/flavors", map[string]any{"flavor": map[string]any{"name": "perf", "ram": 64, "vcpus": 1, "disk": 1}}, &fl); err != nil {
		return err
	}
	var net struct{ Network thing }
	if err := c.do(ctx, "POST", "network", "/networks", map[string]any{"network": map[string]any{"name": "perf"}}, &net); err != nil {
		return err
	}
	if err := c.do(ctx, "POST", "network", "/subnets", map[string]any{"subnet": map[string]any{"network_id": net.Network.ID, "ip_version": 4, "cidr": "10.64.0.0/16"}}, nil); err != nil {
		return err
	}
	c.image, c.flavor, c.network = img.ID, fl.Flavor.ID, net.Network.ID
	return c.unlimitPorts(ctx)
}

// unlimitPorts lifts the quota of ports of the caller's project, which is 500 by default.
func (c *client) unlimitPorts(ctx context.Context) error {
	return c.do(ctx, "PUT", "network", "/quotas/"+c.project, map[string]any{"quota": map[string]any{"port": -1}}, nil)
}

func (c *client) create(ctx context.Context, name string) (string, error) {
	var s struct{ Server thing }
	err := c.do(ctx, "POST", "compute", "/servers", map[string]any{"server": map[string]any{"name": name, "imageRef": c.image, "flavorRef": c.flavor,
		"networks": []any{map[string]string{"uuid": c.network}}}}, &s)
	return s.Server.ID, err
}

type listed struct {
	Servers []struct {
		ID, Status string
	}
}

// count gives how many servers there are, in all and by status.
func (c *client) count(ctx context.Context) (int, map[string]int, error) {
	total, by, marker := 0, map[string]int{}, ""
	for {
		var l listed
		path := "/servers/detail?limit=1000"
		if marker != "" {
			path += "&marker=" + marker
		}
		if err := c.do(ctx, "GET", "compute", path, nil, &l); err != nil {
			return 0, nil, err
		}
		for _, s := range l.Servers {
			total++
			by[s.Status]++
			marker = s.ID
		}
		if len(l.Servers) < 1000 {
			return total, by, nil
		}
	}
}

func (c *client) waitActive(ctx context.Context, n int) error {
	for began := time.Now(); time.Since(began) < 5*time.Minute; time.Sleep(20 * time.Millisecond) {
		// A query that is cheap while many are still building.
		var l listed
		if err := c.do(ctx, "GET", "compute", "/servers?status=BUILD&limit=1", nil, &l); err != nil {
			return err
		}
		if len(l.Servers) > 0 {
			continue
		}
		total, by, err := c.count(ctx)
		if err != nil {
			return err
		}
		if by["ACTIVE"] == n && total == n {
			return nil
		}
		if by["ERROR"] > 0 {
			return fmt.Errorf("%d of %d servers are in ERROR", by["ERROR"], n)
		}
	}
	return errors.New("the servers did not become ACTIVE within five minutes")
}

func (c *client) waitGone(ctx context.Context) error {
	for began := time.Now(); time.Since(began) < 5*time.Minute; time.Sleep(20 * time.Millisecond) {
		var l listed
		if err := c.do(ctx, "GET", "compute", "/servers?limit=1", nil, &l); err != nil {
			return err
		}
		if len(l.Servers) == 0 {
			return nil
		}
	}
	return errors.New("the servers were not gone within five minutes")
}

// bootAndDelete makes and removes a few servers, so that caches are filled before anything is measured.
func (c *client) bootAndDelete(ctx context.Context, n, callers int) error {
	ids := make([]string, n)
	_, _, err := sample(n, callers, func(i int) (err error) { ids[i], err = c.create(ctx, "warm"); return err })
	if err != nil {
		return err
	}
	if err := c.waitActive(ctx, n); err != nil {
		return err
	}
	if _, _, err := sample(n, callers, func(i int) error { return c.do(ctx, "DELETE", "compute", "/servers/"+ids[i], nil, nil) }); err != nil {
		return err
	}
	return c.waitGone(ctx)
}
