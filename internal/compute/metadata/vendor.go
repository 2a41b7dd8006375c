package metadata

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"kilonova/internal/fault"
)

// VendorTarget is one address that gives vendor data for a server.
type VendorTarget struct {
	Name, URL string
}

// ParseVendorTargets reads entries of the form name@url. A name that came before is dropped, as the field does.
func ParseVendorTargets(list []string) ([]VendorTarget, error) {
	var out []VendorTarget
	seen := map[string]bool{"static": true}
	for _, s := range list {
		name, url, ok := strings.Cut(strings.TrimSpace(s), "@")
		if !ok || name == "" || url == "" {
			return nil, fault.New(fault.Invalid, "The vendor data target %q is not of the form name@url.", s)
		}
		if !seen[name] {
			seen[name] = true
			out = append(out, VendorTarget{name, url})
		}
	}
	return out, nil
}

// Vendor asks the targets of dynamic vendor data.
type Vendor struct {
	Targets []VendorTarget
	// Token gives a service token that the targets can check; nil: none is sent.
	Token func(ctx context.Context) (string, error)
	// Connect and Read are how long the connection to a target, and then its answer, may take; 0: 5 s.
	Connect, Read time.Duration
	// Fatal makes a failure of a target a failure of the whole; otherwise it counts as {}.
	Fatal bool
	Log   *slog.Logger
}

const maxVendorAnswer = 1 << 20

// Fetch asks every target about a server and gives the answers by target name. in needs no answers yet.
func (v *Vendor) Fetch(ctx context.Context, in Input, bootRoles []string) (map[string]json.RawMessage, error) {
	if len(v.Targets) == 0 {
		return nil, nil
	}
	body := encode(map[string]any{"project-id": in.ProjectID, "instance-id": in.ID, "image-id": in.ImageID, "user-data": in.UserData,
		"hostname": in.Hostname, "metadata": in.Metadata, "boot-roles": strings.Join(bootRoles, ",")})
	out := map[string]json.RawMessage{}
	for _, t := range v.Targets {
		answer, err := v.ask(ctx, t, body)
		if err != nil {
			if v.Fatal || ctx.Err() != nil {
				return nil, fault.Wrap(err, fault.Unavailable, "The vendor data target %s does not answer.", t.Name)
			}
			if v.Log != nil {
				v.Log.Warn("vendor data target failed", "target", t.Name, "server_id", in.ID, "error", err)
			}
			answer = json.RawMessage("{}")
		}
		out[t.Name] = answer
	}
	return out, nil
}

func (v *Vendor) ask(ctx context.Context, target VendorTarget, body []byte) (json.RawMessage, error) {
	limits := [2]time.Duration{v.Connect, v.Read}
	for i := range limits {
		if limits[i] == 0 {
			limits[i] = 5 * time.Second
		}
	}
	ctx, cancel := context.WithTimeout(ctx, limits[0]+limits[1])
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.URL, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	if v.Token != nil {
		token, err := v.Token(ctx)
		if err != nil {
			return nil, fmt.Errorf("service token: %w", err)
		}
		req.Header.Set("X-Auth-Token", token)
	}
	// A connection for each question: targets are asked seldom.
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: limits[0]}).DialContext, DisableKeepAlives: true}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxVendorAnswer))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 202 {
		return nil, fmt.Errorf("it answered %d", resp.StatusCode)
	}
	if !json.Valid(answer) {
		return nil, fmt.Errorf("its answer of %d bytes is not JSON", len(answer))
	}
	return answer, nil
}
