package proxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

// Network reaches the REST API of the network service with the caller's own token: what a caller may do there is that service's to say.
type Network struct {
	root string
	do   func(*http.Request) (*http.Response, error)
}

// InProcess reaches the API through its handler.
func InProcess(h http.Handler) *Network {
	return &Network{root: "http://network", do: func(r *http.Request) (*http.Response, error) {
		r.RequestURI = r.URL.RequestURI()
		w := &answer{header: http.Header{}}
		h.ServeHTTP(w, r)
		return &http.Response{StatusCode: max(w.status, http.StatusOK), Header: w.header, Body: io.NopCloser(&w.body)}, nil
	}}
}

// Remote reaches the API at its endpoint ("http://host:9696").
func Remote(endpoint string, c *http.Client) *Network {
	return &Network{root: strings.TrimRight(endpoint, "/"), do: c.Do}
}

// answer keeps what a handler writes.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

const longestAnswer = 64 << 20 // bytes

// call makes a request; in and out are JSON and may be nil. A refusal is a fault of the same kind with the service's own sentence.
func (n *Network) call(r *httpapi.Request, method, path string, query url.Values, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode network request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	target := n.root + "/v2.0" + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	q, err := http.NewRequestWithContext(r.Context(), method, target, body)
	if err != nil {
		return fmt.Errorf("network request: %w", err)
	}
	q.Header.Set("X-Auth-Token", r.HTTP.Header.Get("X-Auth-Token"))
	q.Header.Set("X-Openstack-Request-Id", r.RequestID)
	if in != nil {
		q.Header.Set("Content-Type", "application/json")
	}
	resp, err := n.do(q)
	if err != nil {
		return fault.Wrap(err, fault.Unavailable, "The network service does not answer. Try again later.")
	}
	defer func() { _ = resp.Body.Close() }() // read to its end below
	b, err := io.ReadAll(io.LimitReader(resp.Body, longestAnswer))
	if err != nil {
		return fault.Wrap(err, fault.Unavailable, "The network service broke off. Try again later.")
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return refusal(resp.StatusCode, b)
	}
	if out == nil || len(b) == 0 {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fault.Wrap(err, fault.Unavailable, "The network service gave an answer that cannot be read.")
	}
	return nil
}

// kinds are the faults of the statuses that the network API refuses with.
var kinds = map[int]fault.Kind{400: fault.Invalid, 401: fault.Unauthorized, 403: fault.Forbidden, 404: fault.NotFound, 409: fault.Conflict}

func refusal(status int, body []byte) error {
	var doc struct {
		NeutronError struct{ Type, Message string }
	}
	kind, ok := kinds[status]
	if err := json.Unmarshal(body, &doc); err != nil || !ok || doc.NeutronError.Message == "" {
		if !ok {
			kind = fault.Unavailable
		}
		return fault.New(kind, "The network service refused the request with status %d.", status)
	}
	if doc.NeutronError.Type == "OverQuota" {
		kind = fault.Forbidden
	}
	return fault.New(kind, "%s", doc.NeutronError.Message).WithCode(doc.NeutronError.Type)
}
