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
	imageremote "kilonova/internal/image/remote"
)

// remoteImages makes the image service of this process the one at [image] url, spoken to as the user kilonova.
func (a *App) remoteImages() error {
	password := a.cfg.Identity.Password
	if password == "" {
		var err error
		if password, err = a.secrets.get("service_password"); err != nil {
			return err
		}
	}
	identity := a.cfg.API.Identity
	if identity == "" {
		identity = strings.TrimSuffix(strings.TrimSuffix(a.cfg.Image.URL, "/"), "/image") + "/identity"
	}
	t := &serviceToken{url: strings.TrimSuffix(strings.TrimSuffix(identity, "/"), "/v3") + "/v3/auth/tokens?nocatalog", password: password,
		client: &http.Client{Timeout: 30 * time.Second}}
	s, err := imageremote.New(imageremote.Config{Endpoint: a.cfg.Image.URL, Token: t.get})
	if err != nil {
		return err
	}
	a.parts.images = s
	return nil
}

// serviceToken keeps a token of the user kilonova.
type serviceToken struct {
	url, password string
	client        *http.Client
	mu            sync.Mutex
	token         string
	expires       time.Time
}

func (s *serviceToken) get(ctx context.Context, _ *auth.Caller, rejected string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token != "" && s.token != rejected && time.Until(s.expires) > time.Minute {
		return s.token, nil
	}
	body, err := json.Marshal(map[string]any{"auth": map[string]any{
		"identity": map[string]any{"methods": []string{"password"}, "password": map[string]any{"user": map[string]any{"name": "kilonova", "domain": map[string]string{"id": "default"}, "password": s.password}}},
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
		return "", fault.New(fault.Unavailable, "The identity service refused the user kilonova (%d): is service_password the same everywhere?", resp.StatusCode)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&out); err != nil {
		return "", fmt.Errorf("token of the user kilonova: %w", err)
	}
	s.token, s.expires = resp.Header.Get("X-Subject-Token"), out.Token.Expires
	return s.token, nil
}
