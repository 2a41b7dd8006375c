package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"kilonova/internal/auth"
	"kilonova/internal/clock"
	"kilonova/internal/fault"
	"kilonova/internal/id"
)

// variables are the names that path variables carry inside the mux, by position: routes that share a path may name them differently.
var variables = [...]string{"p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9"}

var (
	variablePattern = regexp.MustCompile(`\{[^{}]+\}`)
	projectPattern  = regexp.MustCompile(`^[0-9a-f-]{32,36}$`)
	requestPattern  = regexp.MustCompile(`^req-[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)
)

type contextKey struct{}

// RequestID gives the request id that Handler put into the context, "" when there is none.
func RequestID(ctx context.Context) string {
	if r, ok := ctx.Value(contextKey{}).(*Request); ok {
		return r.RequestID
	}
	return ""
}

// CallerOf gives who asks in the request that ctx belongs to; nil outside requests and before the token is verified.
func CallerOf(ctx context.Context) *auth.Caller {
	if r, ok := ctx.Value(contextKey{}).(*Request); ok {
		return r.Caller
	}
	return nil
}

// endpoint is all routes of one method and path.
type endpoint struct {
	method  string
	pattern string // as the mux has it
	routes  []*Route
	params  [][]string // names of the path variables, for each route
	actions bool       // at least one route is chosen by the body's key
}

// server is a Service made ready.
type server struct {
	*Service
	mux     *http.ServeMux
	log     *slog.Logger
	methods map[string][]string // by pattern
}

// Handler builds the handler of the service. It fails when routes contradict each other or a needed part is missing.
func (s *Service) Handler() (http.Handler, error) {
	if s.WriteError == nil {
		return nil, fmt.Errorf("httpapi: service %s has no WriteError", s.Name)
	}
	v := &server{Service: s, mux: http.NewServeMux(), log: s.Log, methods: map[string][]string{}}
	if v.log == nil {
		v.log = slog.Default()
	}
	ends := map[string]*endpoint{}
	var order []string
	for i := range s.Routes {
		rt := &s.Routes[i]
		if err := s.checkRoute(rt); err != nil {
			return nil, err
		}
		pattern, names, err := canonicalPath(rt.Path)
		if err != nil {
			return nil, fmt.Errorf("httpapi: %s %s: %w", rt.Method, rt.Path, err)
		}
		key := rt.Method + " " + pattern
		e := ends[key]
		if e == nil {
			e = &endpoint{method: rt.Method, pattern: pattern}
			v.methods[pattern] = append(v.methods[pattern], rt.Method)
			ends[key] = e
			order = append(order, key)
		}
		for _, o := range e.routes {
			if o.Action == rt.Action && overlap(o, rt) {
				return nil, fmt.Errorf("httpapi: two routes for %s %s %s in the same versions", rt.Method, rt.Path, rt.Action)
			}
		}
		e.routes = append(e.routes, rt)
		e.params = append(e.params, names)
		e.actions = e.actions || rt.Action != ""
	}
	for _, key := range order {
		if err := v.register(key, ends[key]); err != nil {
			return nil, err
		}
	}
	return v, nil
}

func (s *Service) checkRoute(rt *Route) error {
	switch {
	case rt.Handle == nil:
		return fmt.Errorf("httpapi: %s %s %s has no handler", rt.Method, rt.Path, rt.Action)
	case !rt.Public && s.Auth == nil:
		return fmt.Errorf("httpapi: %s %s needs a token but service %s has no authenticator", rt.Method, rt.Path, s.Name)
	case rt.Rule != "" && s.Policy == nil:
		return fmt.Errorf("httpapi: %s %s asks policy but service %s has none", rt.Method, rt.Path, s.Name)
	case s.Versions == nil && !(rt.Since.IsZero() && rt.Until.IsZero()):
		return fmt.Errorf("httpapi: %s %s has versions but service %s has none", rt.Method, rt.Path, s.Name)
	}
	return nil
}

// overlap tells whether some version has both routes.
func overlap(a, b *Route) bool {
	return (a.Until.IsZero() || a.Until.AtLeast(b.Since)) && (b.Until.IsZero() || b.Until.AtLeast(a.Since))
}

// canonicalPath renames the variables of a pattern by position and gives their own names.
func canonicalPath(path string) (string, []string, error) {
	var names []string
	var err error
	out := variablePattern.ReplaceAllStringFunc(path, func(m string) string {
		name := m[1 : len(m)-1]
		if name == "$" {
			return m
		}
		if len(names) == len(variables) {
			err = errors.New("more than 10 path variables")
			return m
		}
		v := variables[len(names)]
		if base, ok := strings.CutSuffix(name, "..."); ok {
			name, v = base, v+"..."
		}
		names = append(names, name)
		return "{" + v + "}"
	})
	if out = strings.TrimRight(out, "/"); out == "" { // requests lose their trailing slash before they are routed
		out = "/{$}"
	}
	return out, names, err
}

// register adds an endpoint to the mux; the mux panics on conflicting patterns, which becomes an error here.
func (v *server) register(key string, e *endpoint) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("httpapi: route %s: %v", key, p)
		}
	}()
	v.mux.HandleFunc(key, func(w http.ResponseWriter, r *http.Request) {
		x := w.(*exchange) //nolint:forcetypeassert // ServeHTTP below is the only caller
		x.routed = true
		x.req.HTTP = r
		reply, err := v.dispatch(x, e)
		v.finish(x, reply, err)
	})
	return nil
}

// ServeHTTP answers one request.
func (v *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := clock.Now()
	req := &Request{RequestID: id.Request(), service: v.Service}
	x := &exchange{ResponseWriter: w, req: req}
	ctx := context.WithValue(r.Context(), contextKey{}, req)
	req.HTTP = r.WithContext(ctx)
	req.Base = v.base(r)
	defer func() {
		if p := recover(); p != nil {
			v.panicked(x, p)
		}
		v.account(x, clock.Now().Sub(start))
	}()
	req.HTTP.URL = v.locate(req, r.URL)
	x.negotiated = v.negotiate(req)
	if !storable(req.HTTP.URL.Path) {
		x.routed = true
		v.finish(x, nil, fault.New(fault.Invalid, "Malformed request URL: the path is not UTF-8 encoded."))
		return
	}
	v.mux.ServeHTTP(x, req.HTTP)
	if !x.routed {
		reply, err := v.missed(x)
		v.finish(x, reply, err)
	}
}

// base is the absolute URL of the service's root as the client sees it.
func (v *server) base(r *http.Request) string {
	if v.PublicURL != nil {
		if u := v.PublicURL(r); u != "" {
			return strings.TrimRight(u, "/")
		}
	}
	scheme, host := "http", r.Host
	if r.TLS != nil {
		scheme = "https"
	}
	prefix := ""
	full, _, _ := strings.Cut(r.RequestURI, "?")
	if i := strings.Index(full, "://"); i >= 0 { // absolute form, as proxies send it
		if j := strings.IndexByte(full[i+3:], '/'); j >= 0 {
			full = full[i+3+j:]
		} else {
			full = "/"
		}
	}
	if p, ok := strings.CutSuffix(full, r.URL.EscapedPath()); ok {
		prefix = p
	}
	if v.TrustForwarded {
		if p := firstValue(r.Header.Get("X-Forwarded-Proto")); p == "http" || p == "https" {
			scheme = p
		}
		if h := firstValue(r.Header.Get("X-Forwarded-Host")); h != "" {
			host = h
		}
		if p := firstValue(r.Header.Get("X-Forwarded-Prefix")); strings.HasPrefix(p, "/") {
			prefix = strings.TrimRight(p, "/") + prefix
		}
	}
	return scheme + "://" + host + strings.TrimRight(prefix, "/")
}

func firstValue(s string) string {
	s, _, _ = strings.Cut(s, ",")
	return strings.TrimSpace(s)
}

// locate gives the URL that is routed: without trailing slash, legacy root and project segment, which go into req.
func (v *server) locate(req *Request, u *url.URL) *url.URL {
	path := u.EscapedPath()
	for len(path) > 1 && path[len(path)-1] == '/' {
		path = path[:len(path)-1]
	}
	if path == "" {
		path = "/"
	}
	if v.JSONSuffix && !strings.Contains(path, "/tags/") {
		path = strings.TrimSuffix(path, ".json")
	}
	if old, rest, ok := underRoot(path, v.LegacyRoots); ok && rest != "" {
		req.Legacy, req.Root = true, old
		path = v.LegacyRoots[old] + rest
	}
	for _, root := range v.ProjectSegment {
		rest, ok := strings.CutPrefix(path, root)
		if !ok || rest != "" && rest[0] != '/' {
			continue
		}
		if !req.Legacy {
			req.Root = root
		}
		if rest != "" {
			seg, after, more := strings.Cut(rest[1:], "/")
			if projectPattern.MatchString(seg) {
				req.Project = seg
				path = root
				if more {
					path += "/" + after
				}
			}
		}
		break
	}
	if v.StrictSlash && strings.HasSuffix(u.EscapedPath(), "/") && path != "/" && !slices.Contains(v.ProjectSegment, path) && v.LegacyRoots[path] == "" {
		path += "/" // matches nothing
	}
	plain, err := url.PathUnescape(path)
	if err != nil {
		plain = path
	}
	out := *u
	out.Path, out.RawPath = plain, path
	return &out
}

func underRoot(path string, roots map[string]string) (root, rest string, ok bool) {
	for old := range roots {
		if r, cut := strings.CutPrefix(path, old); cut && (r == "" || r[0] == '/') {
			return old, r, true
		}
	}
	return "", "", false
}

// dispatch does the steps of one routed request in their order.
func (v *server) dispatch(x *exchange, e *endpoint) (*Reply, error) {
	req := x.req
	public := true
	for _, rt := range e.routes {
		public = public && rt.Public
	}
	if err := v.authenticate(req, public); err != nil {
		return nil, err
	}
	if x.negotiated != nil {
		return nil, x.negotiated
	}
	if v.StrictTypes && req.HTTP.ContentLength > 0 && req.HTTP.Header.Get("Content-Type") == "" {
		return nil, fault.New(fault.Invalid, "content-type header required when content-length > 0: send application/json.")
	}
	if v.NoHead && req.HTTP.Method == http.MethodHead && e.method != http.MethodHead {
		return nil, v.notAllowed(req, strings.Join(v.methods[e.pattern], ", "))
	}
	if v.PolicyLast {
		if err := v.checkType(req.HTTP.Header.Get("Content-Type")); err != nil {
			return nil, err
		}
	}
	rt, names, err := v.choose(req, e)
	if err != nil {
		return nil, err
	}
	req.Route, req.params = rt, names
	if v.StrictTypes && e.method == http.MethodGet && !rt.AnyAccept && !acceptsJSON(req.HTTP) {
		return nil, fault.New(fault.NotAcceptable, "Only application/json is provided.")
	}
	if req.Caller == nil && !rt.Public {
		return nil, v.unauthorized(nil)
	}
	if req.Project != "" && req.Caller != nil && req.Caller.ProjectID != req.Project && !rt.Public {
		return nil, fault.New(fault.Invalid, "Malformed request URL: URL's project_id '%s' doesn't match Context's project_id '%s'.",
			req.Project, req.Caller.ProjectID)
	}
	steps := []func(*Request, *Route) error{coarse, v.readBody, validate}
	if v.PolicyLast {
		steps = []func(*Request, *Route) error{v.readBody, validate, coarse}
	}
	for _, step := range steps {
		if err := step(req, rt); err != nil {
			return nil, err
		}
	}
	return rt.Handle(req)
}

// coarse asks the route's own rule, about the caller's project and user.
func coarse(req *Request, rt *Route) error {
	if rt.Rule == "" {
		return nil
	}
	return req.Authorize(rt.Rule, req.Own())
}

// choose picks the route by version and, on action endpoints, by the body's single key.
func (v *server) choose(req *Request, e *endpoint) (*Route, []string, error) {
	action := ""
	if e.actions {
		if err := v.readJSON(req, JSONBody, v.maxBody(nil)); err != nil {
			return nil, nil, err
		}
		m, ok := req.doc.(map[string]any)
		if !ok || len(m) != 1 {
			return nil, nil, fault.New(fault.Invalid, "Malformed request body: it must be an object with exactly one key, the action.")
		}
		for k := range m {
			action = k
		}
	}
	known := false
	for i, rt := range e.routes {
		if rt.Action != "" && rt.Action != action {
			continue
		}
		known = true
		if v.Versions == nil || req.Version.In(rt.Since, rt.Until) {
			return rt, e.params[i], nil
		}
	}
	if !known {
		return nil, nil, fault.New(fault.Invalid, "There is no such action: %s", action)
	}
	return nil, nil, fault.New(fault.NotFound, "The resource could not be found.")
}

// authenticate verifies the token. On public routes a missing or bad token leaves the caller nil.
func (v *server) authenticate(req *Request, public bool) error {
	token := req.HTTP.Header.Get("X-Auth-Token")
	if v.Auth == nil || token == "" {
		if public || v.Auth == nil {
			return nil
		}
		return v.unauthorized(nil)
	}
	c, err := v.Auth.Authenticate(req.HTTP.Context(), token)
	if err == nil && c != nil && !v.may(c, req.HTTP) {
		err = fault.New(fault.Unauthorized, "The access rules of the application credential do not allow this request.")
	}
	switch {
	case err == nil && c != nil:
		own := *c
		own.RequestID = req.RequestID
		if g := req.HTTP.Header.Get("X-Openstack-Request-Id"); requestPattern.MatchString(g) {
			own.GlobalRequestID = g
		}
		req.Caller = &own
		return nil
	case public:
		return nil
	case err == nil || errors.Is(err, fault.Unauthorized):
		return v.unauthorized(err)
	}
	return err
}

// may holds a request against the caller's access rules. Everybody may have a token verified.
func (v *server) may(c *auth.Caller, r *http.Request) bool {
	if c.AccessRules == nil {
		return true
	}
	p := r.URL.EscapedPath()
	if v.Name == "identity" && p == "/v3/auth/tokens" && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		return true
	}
	full, _, _ := strings.Cut(r.RequestURI, "?")
	return c.May(v.Name, r.Method, p, full)
}

// unauthorized is the 401 of a missing or refused token.
func (v *server) unauthorized(cause error) *fault.Error {
	e := fault.New(fault.Unauthorized, "The request you have made requires authentication.")
	e.Cause = cause
	e.Header = map[string]string{"WWW-Authenticate": fmt.Sprintf("Keystone uri=%q", v.IdentityURL)}
	return e
}

// missed answers a request that no route took. Services whose every route needs a token ask for it here too.
func (v *server) missed(x *exchange) (*Reply, error) {
	req := x.req
	status, allow := x.status, x.scratch.Get("Allow")
	x.routed, x.status = true, 0
	if v.Fallback != nil && status != http.StatusMethodNotAllowed {
		if reply, err := v.Fallback(req); reply != nil || err != nil {
			return reply, err
		}
	}
	if v.Auth != nil && v.private() {
		if err := v.authenticate(req, false); err != nil {
			return nil, err
		}
	}
	if status == http.StatusMethodNotAllowed && !v.HideMethods {
		if v.NoHead {
			allow = strings.Replace(allow, ", HEAD", "", 1)
		}
		return nil, v.notAllowed(req, allow)
	}
	return nil, fault.New(fault.NotFound, "The resource could not be found.")
}

// notAllowed is the 405 of a path that has other methods.
func (v *server) notAllowed(req *Request, allow string) *fault.Error {
	e := fault.New(fault.NotAllowed, "The method %s is not allowed for this resource.", req.HTTP.Method)
	e.Header = map[string]string{"Allow": allow}
	return e
}

// private tells whether any route of the service needs a token.
func (v *server) private() bool {
	for i := range v.Routes {
		if !v.Routes[i].Public {
			return true
		}
	}
	return false
}

// panicked turns a panic into a 500 and a log line. A reply that has begun cannot be mended: the connection is cut.
func (v *server) panicked(x *exchange, p any) {
	if p == http.ErrAbortHandler { //nolint:errorlint // the sentinel itself is what net/http compares
		panic(p)
	}
	v.log.Error("request handler panicked", "service", v.Name, "request_id", x.req.RequestID, "method", x.req.HTTP.Method,
		"path", x.req.HTTP.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	if x.status != 0 && x.routed {
		panic(http.ErrAbortHandler)
	}
	x.routed = true
	v.finish(x, nil, fault.New(fault.Internal, internalText))
}

const internalText = "An unexpected error occurred. The service log has the cause under this request's id."

// account writes the access line and feeds the metrics.
func (v *server) account(x *exchange, took time.Duration) {
	req := x.req
	if v.Observe != nil {
		v.Observe(req, x.status, took)
	}
	ctx := req.HTTP.Context()
	if !v.log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	c := req.Caller
	if c == nil {
		c = &auth.Caller{}
	}
	v.log.LogAttrs(ctx, slog.LevelDebug, "request", slog.String("service", v.Name), slog.String("request_id", req.RequestID),
		slog.String("global_request_id", c.GlobalRequestID), slog.String("method", req.HTTP.Method), slog.String("path", req.HTTP.URL.Path),
		slog.String("version", req.Version.String()), slog.Int("status", x.status), slog.Int64("bytes", x.bytes),
		slog.Duration("took", took), slog.String("user_id", c.UserID), slog.String("project_id", c.ProjectID))
}
