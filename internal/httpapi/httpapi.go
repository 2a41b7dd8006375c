// Package httpapi is what all REST services share: routing by table, authentication, microversions, JSON Schema validation, policy,
// paging, request ids and error bodies. A service is a value: its table of routes and how it writes errors.
package httpapi

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"kilonova/internal/auth"
	"kilonova/internal/fault"
	"kilonova/internal/policy"
)

// Route is one line of a service's table. Several routes may share a method and path when their version ranges or actions differ.
type Route struct {
	Method string
	Path   string // pattern of http.ServeMux below the service's root: "/v2.1/servers/{id}"
	Action string // for POST …/action routes: the single key of the body that selects this route

	Since, Until Version // microversion range, both ends included; zero: open

	Public bool // no token needed; Caller is nil when none came
	// AnyAccept answers whatever the Accept header says, also with Service.StrictTypes.
	AnyAccept bool
	Rule      string // policy rule asked before Handle with the caller's own project and user as target; "" when Handle asks itself

	Body    BodyKind
	MaxBody int64 // bytes; 0: the service's default
	// Schema gives the validator of the JSON body at a microversion; nil: not validated. Query likewise validates the query
	// parameters as an object of arrays of strings.
	Schema func(Version) Schema
	Query  func(Version) Schema

	Handle func(*Request) (*Reply, error)
}

// BodyKind says what a route does with the request body.
type BodyKind int

// The kinds. AutoBody is JSONBody for POST, PUT and PATCH and NoBody for the rest.
const (
	AutoBody     BodyKind = iota
	NoBody                // ignored
	JSONBody              // must be a JSON object (415 for another content type, 400 when it does not parse)
	OptionalJSON          // JSON object, null or empty
	AnyJSON               // any JSON value, any content type (placement aggregates, image PATCH)
	RawBody               // Handle reads Request.HTTP.Body itself
)

// Schema validates a decoded JSON value (as encoding/json gives it, numbers as json.Number). The error is a fault.Invalid
// with a sentence that names the place and the rule.
type Schema interface {
	Validate(doc any) error
}

// Request is what a handler gets.
type Request struct {
	HTTP    *http.Request
	Caller  *auth.Caller // nil on public routes without a token
	Version Version      // the microversion in force; zero for services without
	Route   *Route
	Legacy  bool // compute's /v2 root: unknown body keys are dropped, microversions are not negotiated

	RequestID string
	Base      string // absolute URL of the service's root without trailing slash: links are made from it
	Root      string // the entry of Service.ProjectSegment below which the request came ("/v2.1"), "" when none
	Project   string // the project id that stood in the URL after Root, "" when none
	body      []byte
	doc       any // the decoded body of JSON routes
	params    []string
	service   *Service
	query     url.Values
}

// Context is the request's context; it carries the request id for logs.
func (r *Request) Context() context.Context { return r.HTTP.Context() }

// Path gives a variable of the route's pattern.
func (r *Request) Path(name string) string {
	for i, p := range r.params {
		if p == name {
			return r.HTTP.PathValue(variables[i])
		}
	}
	return r.HTTP.PathValue(name)
}

// Link is the absolute URL of a path below the root that the request came by, with the project segment when the request had one:
// Link("/servers/7") is "http://host/compute/v2.1/servers/7".
func (r *Request) Link(path string) string {
	if r.Project != "" {
		return r.Base + r.Root + "/" + r.Project + path
	}
	return r.Base + r.Root + path
}

// Bookmark is Link without the version root, the form of links with rel "bookmark".
func (r *Request) Bookmark(path string) string {
	if r.Project != "" {
		return r.Base + "/" + r.Project + path
	}
	return r.Base + path
}

// Query gives the query parameters, parsed once.
func (r *Request) Query() url.Values {
	if r.query == nil {
		r.query = r.HTTP.URL.Query()
	}
	return r.query
}

// Body is the whole body of JSON routes, already validated.
func (r *Request) Body() []byte { return r.body }

// Document is the decoded body of JSON routes: maps, slices, strings, json.Number, bool and nil. It must not be changed.
func (r *Request) Document() any { return r.doc }

// Decode fills v from the JSON body. Keys that v does not have are ignored: the schema has judged them.
func (r *Request) Decode(v any) error {
	if len(r.body) == 0 {
		return nil
	}
	if err := json.Unmarshal(r.body, v); err != nil {
		return fault.Wrap(err, fault.Invalid, "The request body does not fit: %s", jsonProblem(err))
	}
	return nil
}

// Allowed asks policy about a target.
func (r *Request) Allowed(rule string, t policy.Target) bool {
	return r.service.Policy.Allowed(rule, r.Caller, t)
}

// Authorize is Allowed as an error: fault.Forbidden that names the rule.
func (r *Request) Authorize(rule string, t policy.Target) error {
	if r.Allowed(rule, t) {
		return nil
	}
	return fault.New(fault.Forbidden, "Policy doesn't allow %s to be performed.", rule)
}

// Own is the policy target of the caller's own project and user.
func (r *Request) Own() policy.Target {
	if r.Caller == nil {
		return policy.Target{}
	}
	return policy.Target{"project_id": r.Caller.ProjectID, "user_id": r.Caller.UserID, "domain_id": r.Caller.DomainID}
}

// Reply is what a handler gives back. Body is encoded as JSON unless it is nil, []byte (sent as it is), an Appender (writes its own
// JSON) or an io.Reader (streamed, and closed when it is an io.Closer).
type Reply struct {
	Status int // 0: 200 with a body, 204 without
	Header http.Header
	Body   any
}

// Appender is a body that writes its own JSON after dst: for hot lists, which should not pay for reflection.
type Appender interface {
	AppendJSON(dst []byte) ([]byte, error)
}

// OK is 200 with a body.
func OK(body any) *Reply { return &Reply{Status: http.StatusOK, Body: body} }

// Created is 201 with a body.
func Created(body any) *Reply { return &Reply{Status: http.StatusCreated, Body: body} }

// NoContent is 204.
func NoContent() *Reply { return &Reply{Status: http.StatusNoContent} }

// With adds a header and returns the reply.
func (p *Reply) With(key, value string) *Reply {
	if p.Header == nil {
		p.Header = http.Header{}
	}
	p.Header.Set(key, value)
	return p
}

// Service is one REST service.
type Service struct {
	Name     string // "compute"
	Routes   []Route
	Auth     auth.Authenticator
	Policy   policy.Checker
	Versions *Microversions // nil: the service has none
	// WriteError gives the status and body of an error in the service's own form.
	WriteError func(r *Request, e *fault.Error) *Reply
	MaxBody    int64 // default bytes of a JSON body; 0: 1 MiB
	// ProjectSegment lists path roots ("/v2.1", "/v2") below which an optional project id may stand; it is cut off before
	// routing and must be the token's own project (400 otherwise).
	ProjectSegment []string
	// LegacyRoots maps an older root to the one whose routes it shares ({"/v2": "/v2.1"}). Requests below it are Legacy: no
	// microversions, and unknown keys of a JSON body are dropped. The root itself ("/v2", "/v2/") is not mapped.
	LegacyRoots map[string]string
	// IdentityURL is named in the WWW-Authenticate header of a 401.
	IdentityURL string

	// PublicURL gives the absolute root URL of the service (no trailing slash) when the configuration fixes it. Nil or an
	// answer of "": made from the request's Host and the prefix that http.StripPrefix cut off.
	PublicURL func(*http.Request) string
	// TrustForwarded lets X-Forwarded-Proto, -Host and -Prefix speak for the request; set it only behind a proxy that writes them.
	TrustForwarded bool

	// Fallback, when set, may answer a request that no route matches, before a token is asked; a nil reply without error leaves it
	// to the usual 404.
	Fallback func(*Request) (*Reply, error)

	// JSONSuffix lets every path also be asked for with ".json" at its end, as older clients of the network service do ("/v2.0/routers/ID.json"). The
	// last element of a path with /tags/ in it is a name of the caller's and stays whole.
	JSONSuffix bool
	// StrictSlash makes a trailing slash after anything but the service's root, an entry of ProjectSegment or LegacyRoots, or a
	// project segment a 404: "/servers/" is a server without id. Without it trailing slashes are dropped.
	StrictSlash bool
	// StrictTypes asks more of headers: JSON bodies need the Content-Type application/json, other bodies any, and a GET whose Accept excludes
	// application/json is 406.
	StrictTypes bool
	// NoHead makes HEAD a method like others: 405 where no route has it. Without it GET routes answer HEAD too.
	NoHead bool
	// PolicyLast is the order of compute and block storage: the media type of every request, then query and body, then Route.Rule, so
	// that a body that does not fit is told as such to everybody who has a token. Without it Route.Rule is asked before the body is read.
	PolicyLast bool
	// HideMethods answers a method that a path does not have as if there were no such path: 404, not 405.
	HideMethods bool
	// Log receives panics, internal errors and, at debug level, one line for each request. Nil: slog.Default().
	Log *slog.Logger
	// Observe, when set, is told of every finished request (metrics). r.Route is nil when none matched.
	Observe func(r *Request, status int, took time.Duration)
}
