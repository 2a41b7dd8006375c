package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/http"
	"strconv"
	"strings"

	"kilonova/internal/fault"
)

// The error forms of the services, for Service.WriteError.
//
// A 401 for a missing or refused token has the same body everywhere, that of the identity service: clients take it as the sign
// to authenticate anew.

// computeNames are the keys of compute's error bodies by status; other statuses use computeFault.
var computeNames = map[int]string{400: "badRequest", 401: "unauthorized", 403: "forbidden", 404: "itemNotFound", 405: "badMethod",
	409: "conflictingRequest", 413: "overLimit", 415: "badMediaType", 429: "overLimit", 501: "notImplemented", 503: "serviceUnavailable"}

// ComputeErrors is {"<name>": {"code", "message"}}; the block storage service has the same form.
func ComputeErrors(_ *Request, e *fault.Error) *Reply {
	if fromToken(e) {
		return identityReply(e)
	}
	status := e.Kind.Status()
	name := computeNames[status]
	if name == "" {
		name = "computeFault"
	}
	inner := map[string]any{"code": status, "message": e.Public()}
	if after, err := strconv.Atoi(e.Header["Retry-After"]); err == nil && name == "overLimit" {
		inner["retryAfter"] = after
	}
	return &Reply{Status: status, Body: map[string]any{name: inner}}
}

// IdentityErrors is {"error": {"code", "title", "message"}}.
func IdentityErrors(_ *Request, e *fault.Error) *Reply {
	r := identityReply(e)
	if e.Kind == fault.Unauthorized && e.Header["WWW-Authenticate"] == "" {
		r.With("WWW-Authenticate", `Keystone uri=""`)
	}
	return r
}

func identityReply(e *fault.Error) *Reply {
	status := e.Kind.Status()
	return &Reply{Status: status, Body: map[string]any{"error": map[string]any{
		"code": status, "title": http.StatusText(status), "message": e.Public()}}}
}

// fromToken tells whether the error is about the token, not raised by a handler.
func fromToken(e *fault.Error) bool {
	return e.Kind == fault.Unauthorized && e.Header["WWW-Authenticate"] != ""
}

// ImageErrors is the image service's form: an HTML page whose body text is the message, or {"code", "title", "message"} for
// clients that accept JSON and not everything.
func ImageErrors(r *Request, e *fault.Error) *Reply {
	if fromToken(e) {
		return identityReply(e)
	}
	status := e.Kind.Status()
	title := http.StatusText(status)
	line := fmt.Sprintf("%d %s", status, title)
	if strings.Contains(r.HTTP.Header.Get("Accept"), "application/json") {
		return &Reply{Status: status, Body: map[string]any{"code": line, "title": title, "message": e.Public() + "<br /><br />\n\n\n"}}
	}
	page := fmt.Sprintf("<html>\n <head>\n  <title>%s</title>\n </head>\n <body>\n  <h1>%s</h1>\n  %s<br /><br />\n\n\n </body>\n</html>",
		line, line, html.EscapeString(e.Public()))
	return (&Reply{Status: status, Body: []byte(page)}).With("Content-Type", "text/html; charset=UTF-8")
}

// networkTypes are the type names of errors that carry no code of their own.
var networkTypes = map[fault.Kind]string{fault.Invalid: "HTTPBadRequest", fault.Unauthorized: "HTTPUnauthorized", fault.Forbidden: "PolicyNotAuthorized",
	fault.NotFound: "HTTPNotFound", fault.NotAllowed: "HTTPMethodNotAllowed", fault.Conflict: "HTTPConflict", fault.NotImplemented: "HTTPNotImplemented",
	fault.UnsupportedMedia: "HTTPUnsupportedMediaType", fault.TooLarge: "HTTPRequestEntityTooLarge", fault.Unavailable: "HTTPServiceUnavailable",
	fault.Internal: "HTTPInternalServerError"}

// NetworkErrors is {"NeutronError": {"type", "message", "detail"}}; the type is fault.Error.Code ("PortNotFound").
func NetworkErrors(_ *Request, e *fault.Error) *Reply {
	if fromToken(e) {
		return identityReply(e)
	}
	name := e.Code
	if name == "" {
		name = networkTypes[e.Kind]
	}
	if name == "" {
		name = "HTTPError"
	}
	return &Reply{Status: e.Kind.Status(), Body: map[string]any{"NeutronError": map[string]any{"type": name, "message": e.Public(), "detail": ""}}}
}

// PlacementErrors is {"errors": [{"status", "title", "detail", "request_id", "code"}]}; code is fault.Error.Code, sent since 1.23. A
// refused microversion also names the bounds.
func PlacementErrors(r *Request, e *fault.Error) *Reply {
	if fromToken(e) {
		return identityReply(e)
	}
	status := e.Kind.Status()
	item := map[string]any{"status": status, "title": http.StatusText(status), "detail": e.Public(), "request_id": r.RequestID}
	if r.Version.AtLeast(Version{1, 23}) {
		item["code"] = "placement.undefined_code"
		if e.Code != "" {
			item["code"] = e.Code
		}
	}
	if e.Kind == fault.NotAcceptable && r.service != nil && r.service.Versions != nil {
		item["min_version"], item["max_version"] = r.service.Versions.Min.String(), r.service.Versions.Max.String()
	}
	return &Reply{Status: status, Body: map[string]any{"errors": []any{item}}}
}

func jsonProblem(err error) string {
	var t *json.UnmarshalTypeError
	if errors.As(err, &t) {
		return fmt.Sprintf("%s must be %s, not %s.", t.Field, t.Type, t.Value)
	}
	return "it is not the JSON that was expected."
}
