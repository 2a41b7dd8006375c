package api

import (
	"fmt"
	"log/slog"
	"maps"

	"kilonova/internal/auth"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/api/cloud"
	"kilonova/internal/compute/api/proxy"
	"kilonova/internal/compute/api/resources"
	"kilonova/internal/compute/api/servers"
	"kilonova/internal/compute/api/subresource"
	"kilonova/internal/httpapi"
	"kilonova/internal/policy"
)

// Config is what the compute API works with.
type Config struct {
	backend.Services
	backend.Options
	Proxy       proxy.Options // the doors to the image and network services for the routes that end at 2.35; the zero value leaves most of them out
	Auth        auth.Authenticator
	Policy      policy.Checker // with at least Rules
	IdentityURL string
	Log         *slog.Logger
}

// New makes the compute service with all its handlers. The caller may still set what belongs to its listener (PublicURL, TrustForwarded, Observe).
func New(c Config) (*httpapi.Service, error) {
	if c.Options.Log == nil {
		c.Options.Log = c.Log
	}
	s := &httpapi.Service{Auth: c.Auth, Policy: c.Policy, IdentityURL: c.IdentityURL, Log: c.Log}
	handlers, err := Handlers(backend.New(c.Services, c.Options), c.Proxy)
	if err != nil {
		return nil, err
	}
	if err := Fill(s, handlers); err != nil {
		return nil, err
	}
	return s, nil
}

// Handlers joins the handlers of all rooms. It fails when two of them claim one route.
func Handlers(b *backend.Backend, p proxy.Options) (map[string]Handler, error) {
	all := map[string]Handler{}
	for _, room := range []map[string]Handler{servers.Handlers(b), subresource.Handlers(b), resources.Handlers(b), cloud.Handlers(b), proxy.Handlers(b, p)} {
		for k := range room {
			if all[k] != nil {
				return nil, fmt.Errorf("compute api: two handlers for %q", k)
			}
		}
		maps.Copy(all, room)
	}
	return all, nil
}
