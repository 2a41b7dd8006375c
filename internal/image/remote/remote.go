// Package remote is the image service spoken to over HTTP: a Glance v2 endpoint, ours in another process or a real one.
//
// It keeps the promises of image.Service: a Create that is repeated gives the record that is there, and the reader of Download
// fails when the data is not what the record says. Data is streamed.
package remote

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // what older services record
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"kilonova/internal/auth"
	"kilonova/internal/fault"
	"kilonova/internal/image"
)

// TokenSource gives a token for a caller: the caller's own, or the service's. rejected is a token that the service has just
// refused, for which another is asked; it is empty otherwise.
type TokenSource func(ctx context.Context, c *auth.Caller, rejected string) (string, error)

// Config says where the service is.
type Config struct {
	Endpoint string // the service's root or its /v2: what the catalog has
	Token    TokenSource
	HTTP     *http.Client // nil: a client of its own without a total time limit, because images are large
}

// Service implements image.Service.
type Service struct {
	root  string
	token TokenSource
	http  *http.Client
}

var _ image.Service = (*Service)(nil)

// New makes a Service. It fails with fault.Invalid when the endpoint is no absolute URL.
func New(c Config) (*Service, error) {
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Host == "" || c.Token == nil {
		return nil, fault.New(fault.Invalid, "The image endpoint %q is not an absolute URL, or no token source is given.", c.Endpoint)
	}
	s := &Service{root: strings.TrimSuffix(strings.TrimRight(c.Endpoint, "/"), "/v2"), token: c.Token, http: c.HTTP}
	if s.http == nil {
		s.http = &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 16, IdleConnTimeout: 90 * time.Second,
			TLSHandshakeTimeout: 20 * time.Second, ExpectContinueTimeout: 5 * time.Second, DisableCompression: true}}
	}
	return s, nil
}

const maxReply = 32 << 20 // bytes of a JSON answer

// Get implements image.Service.
func (s *Service) Get(ctx context.Context, c *auth.Caller, id string) (*image.Image, error) {
	var d document
	if err := s.json(ctx, c, http.MethodGet, "/v2/images/"+url.PathEscape(id), nil, "", &d); err != nil {
		return nil, err
	}
	return d.image()
}

// List implements image.Service. It walks all pages.
func (s *Service) List(ctx context.Context, c *auth.Caller, filters map[string]string) ([]image.Image, error) {
	q := url.Values{"limit": {"1000"}}
	for k, v := range filters {
		q.Set(k, v)
	}
	var list []image.Image
	for path := "/v2/images?" + q.Encode(); path != ""; {
		var page struct {
			Images []document `json:"images"`
			Next   string     `json:"next"`
		}
		if err := s.json(ctx, c, http.MethodGet, path, nil, "", &page); err != nil {
			return nil, err
		}
		for _, d := range page.Images {
			img, err := d.image()
			if err != nil {
				return nil, err
			}
			list = append(list, *img)
		}
		if path = ""; page.Next != "" {
			if i := strings.Index(page.Next, "/v2/"); i >= 0 {
				path = page.Next[i:]
			}
		}
	}
	return list, nil
}

// Create implements image.Service.
func (s *Service) Create(ctx context.Context, c *auth.Caller, img image.Image) (*image.Image, error) {
	doc := attributes(img)
	if img.ID != "" {
		doc["id"] = img.ID
	}
	for k, v := range map[string]string{"disk_format": img.DiskFormat, "container_format": img.ContainerFormat, "owner": img.Owner} {
		if v != "" {
			doc[k] = v
		}
	}
	if doc["visibility"] == "" {
		delete(doc, "visibility")
	}
	body, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	var d document
	err = s.json(ctx, c, http.MethodPost, "/v2/images", body, "application/json", &d)
	if errors.Is(err, fault.Conflict) && img.ID != "" {
		old, gerr := s.Get(ctx, c, img.ID)
		owner := img.Owner
		if owner == "" {
			owner = c.ProjectID
		}
		if gerr == nil && old.Owner == owner {
			return old, nil
		}
	}
	if err != nil {
		return nil, err
	}
	return d.image()
}

// attributes are what Create and Update both send.
func attributes(img image.Image) map[string]any {
	tags := img.Tags
	if tags == nil {
		tags = []string{}
	}
	doc := map[string]any{"name": img.Name, "visibility": img.Visibility, "min_disk": img.MinDisk, "min_ram": img.MinRAM, "protected": img.Protected, "tags": tags}
	for k, v := range img.Properties {
		if !strings.HasPrefix(k, "os_glance_") {
			doc[k] = v
		}
	}
	return doc
}

type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// Update implements image.Service: it sends what differs.
func (s *Service) Update(ctx context.Context, c *auth.Caller, img image.Image) (*image.Image, error) {
	old, err := s.Get(ctx, c, img.ID)
	if err != nil {
		return nil, err
	}
	if img.Visibility == "" {
		img.Visibility = old.Visibility
	}
	was, want := attributes(*old), attributes(img)
	var ops []operation
	for k, v := range want {
		o, had := was[k]
		if had && fmt.Sprint(o) == fmt.Sprint(v) {
			continue
		}
		op := operation{Op: "add", Path: pointer(k), Value: v}
		if had {
			op.Op = "replace"
		}
		ops = append(ops, op)
	}
	for k := range was {
		if _, kept := want[k]; !kept {
			ops = append(ops, operation{Op: "remove", Path: pointer(k)})
		}
	}
	if len(ops) == 0 {
		return old, nil
	}
	sort.Slice(ops, func(i, j int) bool { return ops[i].Path < ops[j].Path })
	body, err := json.Marshal(ops)
	if err != nil {
		return nil, err
	}
	var d document
	if err := s.json(ctx, c, http.MethodPatch, "/v2/images/"+url.PathEscape(img.ID), body, "application/openstack-images-v2.1-json-patch", &d); err != nil {
		return nil, err
	}
	return d.image()
}

func pointer(name string) string {
	return "/" + strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
}

// Upload implements image.Service.
func (s *Service) Upload(ctx context.Context, c *auth.Caller, id string, r io.Reader, size int64) error {
	resp, err := s.do(ctx, c, request{method: http.MethodPut, path: "/v2/images/" + url.PathEscape(id) + "/file", kind: "application/octet-stream", stream: r, size: size})
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Download implements image.Service.
func (s *Service) Download(ctx context.Context, c *auth.Caller, id string) (*image.Image, io.ReadCloser, error) {
	img, err := s.Get(ctx, c, id)
	if err != nil {
		return nil, nil, err
	}
	if img.Status != image.Active && img.Status != image.Deactivated {
		return nil, nil, fault.New(fault.Conflict, "The image %s has no data yet: its status is %s.", id, img.Status)
	}
	resp, err := s.do(ctx, c, request{method: http.MethodGet, path: "/v2/images/" + url.PathEscape(id) + "/file"})
	if err != nil {
		return nil, nil, err
	}
	if resp.StatusCode == http.StatusNoContent {
		return nil, nil, errors.Join(fault.New(fault.Conflict, "The image %s has no data.", id), resp.Body.Close())
	}
	return img, check(resp.Body, img), nil
}

// Delete implements image.Service.
func (s *Service) Delete(ctx context.Context, c *auth.Caller, id string) error {
	resp, err := s.do(ctx, c, request{method: http.MethodDelete, path: "/v2/images/" + url.PathEscape(id)})
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// verified checks size and hash on the way; the last bytes are only given when both are right.
type verified struct {
	io.ReadCloser
	left int64 // negative: not known
	sum  hash.Hash
	want string
	id   string
	n    int64
}

func check(r io.ReadCloser, img *image.Image) io.ReadCloser {
	v := &verified{ReadCloser: r, left: img.Size, id: img.ID}
	switch {
	case img.HashValue != "" && img.HashAlgo == "sha512":
		v.sum, v.want = sha512.New(), img.HashValue
	case img.HashValue != "" && img.HashAlgo == "sha256":
		v.sum, v.want = sha256.New(), img.HashValue
	case img.Checksum != "":
		v.sum, v.want = md5.New(), img.Checksum //nolint:gosec // see the import
	default:
		return r
	}
	return v
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	_, _ = v.sum.Write(p[:n])
	v.n += int64(n)
	end := errors.Is(err, io.EOF) || v.left >= 0 && v.n >= v.left && n > 0
	if v.left >= 0 && (v.n > v.left || errors.Is(err, io.EOF) && v.n < v.left) || end && hex.EncodeToString(v.sum.Sum(nil)) != v.want {
		return 0, fmt.Errorf("download image %s: %w", v.id, errors.New("the data does not have the recorded size and checksum"))
	}
	return n, err
}

type request struct {
	method, path, kind string
	body               []byte
	stream             io.Reader
	size               int64
}

// json sends a request and reads the JSON answer into out.
func (s *Service) json(ctx context.Context, c *auth.Caller, method, path string, body []byte, kind string, out any) error {
	resp, err := s.do(ctx, c, request{method: method, path: path, kind: kind, body: body})
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxReply)).Decode(out); err != nil {
		return fault.Wrap(err, fault.Unavailable, "The image service gave an answer that can not be read.")
	}
	return nil
}

// do sends a request, once more with another token when the first is refused, and turns bad answers into faults.
func (s *Service) do(ctx context.Context, c *auth.Caller, q request) (*http.Response, error) {
	token, err := s.token(ctx, c, "")
	if err != nil {
		return nil, err
	}
	resp, err := s.send(ctx, c, q, token)
	if err == nil && resp.StatusCode == http.StatusUnauthorized && q.stream == nil {
		_ = resp.Body.Close()
		if token, err = s.token(ctx, c, token); err != nil {
			return nil, err
		}
		resp, err = s.send(ctx, c, q, token)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fault.Wrap(err, fault.Unavailable, "The image service does not answer. Try again later.")
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	return nil, answered(resp.StatusCode, text)
}

func (s *Service) send(ctx context.Context, c *auth.Caller, q request, token string) (*http.Response, error) {
	body := q.stream
	if body == nil && q.body != nil {
		body = bytes.NewReader(q.body)
	}
	req, err := http.NewRequestWithContext(ctx, q.method, s.root+q.path, body)
	if err != nil {
		return nil, err
	}
	if q.stream != nil && q.size >= 0 {
		req.ContentLength = q.size
		if q.size == 0 {
			req.Body = http.NoBody
		}
	}
	if q.stream != nil {
		req.Header.Set("Expect", "100-continue") // a refusal comes before the data goes
	}
	if q.kind != "" {
		req.Header.Set("Content-Type", q.kind)
	}
	req.Header.Set("Accept", "application/json, */*;q=0.5")
	req.Header.Set("X-Auth-Token", token)
	if c != nil && c.RequestID != "" {
		req.Header.Set("X-Openstack-Request-Id", c.RequestID)
	}
	return s.http.Do(req)
}

var tags = regexp.MustCompile(`(?s)<title>.*?</title>|<h1>.*?</h1>|<[^>]*>`)

// answered makes a fault of a bad answer: the service's own sentence under the kind of its status.
func answered(status int, body []byte) error {
	text := string(body)
	var doc struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &doc) == nil && doc.Message != "" {
		text = doc.Message
	}
	text = strings.Join(strings.Fields(html.UnescapeString(tags.ReplaceAllString(text, " "))), " ")
	if len(text) > 500 {
		text = text[:500]
	}
	kinds := []fault.Kind{fault.Invalid, fault.Unauthorized, fault.Forbidden, fault.NotFound, fault.NotAllowed, fault.NotAcceptable, fault.Conflict, fault.Gone,
		fault.TooLarge, fault.UnsupportedMedia, fault.RangeInvalid, fault.TooMany, fault.NotImplemented, fault.Unavailable}
	kind := fault.Unavailable
	if i := slices.IndexFunc(kinds, func(k fault.Kind) bool { return k.Status() == status }); i >= 0 {
		kind = kinds[i]
	}
	if text == "" {
		text = "The image service answered " + strconv.Itoa(status) + "."
	}
	return fault.New(kind, "%s", text)
}
