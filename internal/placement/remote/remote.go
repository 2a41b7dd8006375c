// Package remote is placement spoken to over HTTP: a real Placement, or ours in another process. It needs microversion 1.39.
//
// It keeps the promises of placement.Service as far as the API lets it: a claim that is there already succeeds, conflicts between writers
// are retried, reports and names are repeated on stale generations. What the API cannot do is refused: ReleaseTx is no part of a caller's
// transaction. Of what removed hosts the API tells only that nothing was found; Candidates then names the request as a whole.
package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"kilonova/internal/auth"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/placement"
)

// TokenSource gives a token of the service's own user. rejected is a token that placement has just refused, for which another is asked; it
// is empty otherwise.
type TokenSource func(ctx context.Context, c *auth.Caller, rejected string) (string, error)

// Config says where placement is.
type Config struct {
	Endpoint string // what the catalog has
	Token    TokenSource
	HTTP     *http.Client // nil: one of its own with a limit of a minute
}

// Service implements placement.Service.
type Service struct {
	root  string
	token TokenSource
	http  *http.Client
}

var _ placement.Service = (*Service)(nil)

// New makes a Service. It fails with fault.Invalid when the endpoint is no absolute URL.
func New(c Config) (*Service, error) {
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Host == "" || c.Token == nil {
		return nil, fault.New(fault.Invalid, "The placement endpoint %q is not an absolute URL, or no token source is given.", c.Endpoint)
	}
	s := &Service{root: strings.TrimRight(c.Endpoint, "/"), token: c.Token, http: c.HTTP}
	if s.http == nil {
		s.http = &http.Client{Timeout: time.Minute, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 16, IdleConnTimeout: 90 * time.Second}}
	}
	return s, nil
}

const (
	newest   = "1.39"
	untyped  = "1.37"    // the last version without consumer types
	tries    = 10        // of a write that lost a race
	maxReply = 256 << 20 // bytes: candidates of a whole cloud
)

// call asks once, and once more with a new token when the first was refused. out may be nil.
func (s *Service) call(ctx context.Context, version, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("encode request of placement: %w", err)
		}
	}
	rejected := ""
	for {
		token, err := s.token(ctx, auth.Internal(""), rejected)
		if err != nil {
			return err
		}
		err = s.once(ctx, version, method, path, token, body, out)
		if !errors.Is(err, fault.Unauthorized) || rejected != "" {
			return err
		}
		rejected = token
	}
}

func (s *Service) once(ctx context.Context, version, method, path, token string, body []byte, out any) error {
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.root+path, r)
	if err != nil {
		return fmt.Errorf("ask placement: %w", err)
	}
	req.Header.Set("X-Auth-Token", token)
	req.Header.Set("OpenStack-API-Version", "placement "+version)
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := s.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fault.Wrap(err, fault.Unavailable, "The placement service does not answer.")
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return fault.Wrap(err, fault.Unavailable, "The placement service broke off its answer.")
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return refusal(resp.StatusCode, raw)
	}
	if out == nil || len(raw) == 0 {
		return nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fault.Wrap(err, fault.Unavailable, "The placement service gave an answer that is not understood.")
	}
	return nil
}

// refusal turns an error answer into the kind that package placement promises.
func refusal(status int, raw []byte) error {
	var doc struct {
		Errors []struct{ Detail, Code string } `json:"errors"`
	}
	_ = json.Unmarshal(raw, &doc) // proxies answer in their own forms: the status says enough
	detail, code := http.StatusText(status), ""
	if len(doc.Errors) > 0 {
		detail, code = strings.TrimSpace(doc.Errors[0].Detail), doc.Errors[0].Code
	}
	kinds := map[int]fault.Kind{400: fault.Invalid, 401: fault.Unauthorized, 403: fault.Forbidden, 404: fault.NotFound, 409: fault.Conflict}
	kind, ok := kinds[status]
	if !ok {
		kind = fault.Unavailable
	}
	return fault.New(kind, "Placement: %s", detail).WithCode(code)
}

func isRace(err error) bool {
	var e *fault.Error
	return errors.As(err, &e) && e.Kind == fault.Conflict && e.Code == placement.CodeConcurrentUpdate
}

// again repeats a read-change-write until its write does not lose a race.
func again(ctx context.Context, f func() error) error {
	for try := 1; ; try++ {
		err := f()
		if !isRace(err) || try == tries {
			return err
		}
		t := time.NewTimer(time.Duration(try) * 5 * time.Millisecond)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
}

// ReleaseTx cannot be: placement's tables are elsewhere.
func (s *Service) ReleaseTx(context.Context, *db.Tx, string) error {
	return fault.New(fault.NotImplemented, "Allocations of a placement service in another process cannot be released inside a database transaction; release them in a step of their own.")
}
