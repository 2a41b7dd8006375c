// Package api is the REST API of placement at microversions 1.0 to 1.39. Its table of routes (routes.go) says which versions, policy rule and
// schema each has; what a version changes inside a document stands in the functions that write it. Everything that is stored or decided is
// behind placement.Registry.
package api

import (
	"net/http"
	"net/url"
	"time"

	"kilonova/internal/auth"
	"kilonova/internal/clock"
	"kilonova/internal/httpapi"
	"kilonova/internal/placement"
	"kilonova/internal/policy"
)

// Config is what the API needs besides the service itself.
type Config struct {
	Auth        auth.Authenticator
	Policy      policy.Checker
	IdentityURL string // named in the WWW-Authenticate header of a 401
}

// minors of the newest version; the oldest is 1.0.
const newest = 39

// New makes the REST service. It fails only when a schema does not compile.
func New(svc placement.Registry, c Config) (*httpapi.Service, error) {
	s, err := compileSchemas()
	if err != nil {
		return nil, err
	}
	a := &api{svc: svc, schemas: s}
	return &httpapi.Service{
		Name: "placement", Auth: c.Auth, Policy: c.Policy, IdentityURL: c.IdentityURL, WriteError: writeError, StrictTypes: true, NoHead: true,
		MaxBody:  16 << 20, // the reshaper carries whole clouds
		Versions: &httpapi.Microversions{Type: "placement", Min: v(0), Max: v(newest), Default: v(0), Loose: true, Vary: "openstack-api-version"},
		Routes:   a.routes(),
	}, nil
}

type api struct {
	svc     placement.Registry
	schemas map[string]httpapi.Schema
}

// v is version 1.minor.
func v(minor int) httpapi.Version { return httpapi.Version{Major: 1, Minor: minor} }

// since tells whether the request's version is 1.minor or newer.
func since(r *httpapi.Request, minor int) bool { return r.Version.AtLeast(v(minor)) }

// stamped adds the caching headers of version 1.15. A zero time is now.
func stamped(r *httpapi.Request, p *httpapi.Reply, modified time.Time) *httpapi.Reply {
	if !since(r, 15) {
		return p
	}
	if modified.IsZero() {
		modified = clock.Now()
	}
	return p.With("Cache-Control", "no-cache").With("Last-Modified", modified.UTC().Format(http.TimeFormat))
}

// prefix is the path of the service's root, for links.
func prefix(r *httpapi.Request) string {
	u, err := url.Parse(r.Base)
	if err != nil {
		return ""
	}
	return u.Path
}

// located adds the Location header.
func located(r *httpapi.Request, p *httpapi.Reply, path string) *httpapi.Reply {
	return p.With("Location", r.Base+path)
}

// document is a JSON object whose keys depend on the version.
type document map[string]any

func (a *api) root(r *httpapi.Request) (*httpapi.Reply, error) {
	return stamped(r, httpapi.OK(document{"versions": []document{{"id": "v" + v(0).String(), "min_version": v(0).String(), "max_version": v(newest).String(),
		"status": "CURRENT", "links": []document{{"rel": "self", "href": ""}}}}}), time.Time{}), nil
}
