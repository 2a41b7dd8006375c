package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"kilonova/internal/auth"
	"kilonova/internal/fault"
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

// tokens gives tokens of that user. identity is the identity service's URL.
func (a *App) tokens(identity string) (*serviceToken, error) {
	password, err := a.servicePassword()
	if err != nil {
		return nil, err
	}
	if identity == "" {
		identity = a.URL() + "/identity"
	}
	return &serviceToken{url: strings.TrimSuffix(strings.TrimSuffix(identity, "/"), "/v3") + "/v3/auth/tokens?nocatalog", user: a.cfg.Identity.Username,
		password: password, client: &http.Client{Timeout: 30 * time.Second}}, nil
}

// remoteIdentity lets a Keystone, or ours in another process, verify tokens.
func (a *App) remoteIdentity() error {
	password, err := a.servicePassword()
	if err != nil {
		return err
	}
	s, err := identityremote.New(identityremote.Config{AuthURL: a.cfg.API.Identity, Username: a.cfg.Identity.Username, Password: password})
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
	s, err := placementremote.New(placementremote.Config{Endpoint: a.cfg.Placement.URL, Token: t.get})
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
	s, err := imageremote.New(imageremote.Config{Endpoint: a.cfg.Image.URL, Token: t.get})
	if err != nil {
		return err
	}
	a.parts.images = s
	return nil
}

// serviceToken keeps a token of the service user.
type serviceToken struct {
	url, user, password string
	client              *http.Client
	mu                  sync.Mutex
	token               string
	expires             time.Time
}

func (s *serviceToken) get(ctx context.Context, _ *auth.Caller, rejected string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token != "" && s.token != rejected && time.Until(s.expires) > time.Minute {
		return s.token, nil
	}
	body, err := json.Marshal(map[string]any{"auth": map[string]any{
		"identity": map[string]any{"methods": []string{"password"}, "password": map[string]any{"user": map[string]any{"name": s.user, "domain": map[string]string{"id": "default"}, "password": s.password}}},
		"scope":    map[string]any{"project": map[string]any{"name": "service", "domain": map[string]string{"id": "default"}}}}})
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return "", fault.Wrap(err, fault.Unavailable, "The identity service does not answer.")
	}
	defer func() { _ = resp.Body.Close() }()
	var out struct {
		Token struct {
			Expires time.Time `json:"expires_at"`
		} `json:"token"`
	}
	if resp.StatusCode != http.StatusCreated {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
		return "", fault.New(fault.Unavailable, "The identity service refused the user %s (%d): is service_password the same everywhere?", s.user, resp.StatusCode)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&out); err != nil {
		return "", fmt.Errorf("token of the service user: %w", err)
	}
	s.token, s.expires = resp.Header.Get("X-Subject-Token"), out.Token.Expires
	return s.token, nil
}
