package app

import (
	"context"
	"strings"

	"kilonova/internal/auth"
	identityremote "kilonova/internal/identity/remote"
	imageremote "kilonova/internal/image/remote"
	placementremote "kilonova/internal/placement/remote"
)

// servicePassword is the password of the user as which roles speak to services in other processes.
func (a *App) servicePassword() (string, error) {
	if p := a.cfg.Identity.Password; p != "" {
		return p, nil
	}
	return a.secrets.get("service_password")
}

// identityAt is the connection to the identity service at a URL; "" is that of this process. There is one for each URL, so that the service user logs in once.
func (a *App) identityAt(url string) (*identityremote.Identity, error) {
	if url == "" {
		url = a.URL() + "/identity"
	}
	if s := a.identities[url]; s != nil {
		return s, nil
	}
	password, err := a.servicePassword()
	if err != nil {
		return nil, err
	}
	s, err := identityremote.New(identityremote.Config{AuthURL: url, Username: a.cfg.Identity.Username, Password: password})
	if err != nil {
		return nil, err
	}
	if a.identities == nil {
		a.identities = map[string]*identityremote.Identity{}
	}
	a.identities[url] = s
	return s, nil
}

// tokens gives tokens of the service user at an identity service.
func (a *App) tokens(url string) (func(ctx context.Context, _ *auth.Caller, rejected string) (string, error), error) {
	s, err := a.identityAt(url)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, _ *auth.Caller, rejected string) (string, error) {
		return s.ServiceToken(ctx, rejected)
	}, nil
}

// remoteIdentity lets a Keystone, or ours in another process, verify tokens.
func (a *App) remoteIdentity() error {
	s, err := a.identityAt(a.cfg.API.Identity)
	if err != nil {
		return err
	}
	a.parts.auth, a.parts.projects = s, s
	return nil
}

// remotePlacement uses the Placement at [placement] url.
func (a *App) remotePlacement() error {
	t, err := a.tokens(a.cfg.API.Identity)
	if err != nil {
		return err
	}
	s, err := placementremote.New(placementremote.Config{Endpoint: a.cfg.Placement.URL, Token: t})
	if err != nil {
		return err
	}
	a.parts.placement = s
	return nil
}

// remoteImages uses the image service at [image] url.
func (a *App) remoteImages() error {
	identity := a.cfg.API.Identity
	if identity == "" {
		identity = strings.TrimSuffix(strings.TrimSuffix(a.cfg.Image.URL, "/"), "/image") + "/identity"
	}
	t, err := a.tokens(identity)
	if err != nil {
		return err
	}
	s, err := imageremote.New(imageremote.Config{Endpoint: a.cfg.Image.URL, Token: t})
	if err != nil {
		return err
	}
	a.parts.images = s
	return nil
}
