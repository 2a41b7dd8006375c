package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"mime"
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
	if strings.Contains(r.HTTP.Header.Get("Accept"), "application/json") {
		title := http.StatusText(status)
		return &Reply{Status: status, Body: map[string]any{"code": fmt.Sprintf("%d %s", status, title), "title": title, "message": e.Public() + "<br /><br />\n\n\n"}}
	}
	return page(e)
}

// page is an error as HTML.
func page(e *fault.Error) *Reply {
	status := e.Kind.Status()
	line := fmt.Sprintf("%d %s", status, http.StatusText(status))
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
// refused microversion also names the bounds. Clients that take no JSON, or HTML rather, get a page or plain text.
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
	switch errorType(r.HTTP.Header.Get("Accept")) {
	case "text/html":
		return page(e)
	case "text/plain":
		return (&Reply{Status: status, Body: []byte(fmt.Sprintf("%d %s\n\n%s\n", status, http.StatusText(status), e.Public()))}).With("Content-Type", "text/plain; charset=UTF-8")
	}
	return &Reply{Status: status, Body: map[string]any{"errors": []any{item}}}
}

// errorType picks the media type of an error for an Accept header: JSON when there is none or it takes everything, otherwise what it likes
// best of HTML and JSON, and plain text when it takes neither.
func errorType(accept string) string {
	const page, document = "text/html", "application/json"
	if accept == "" || accept == "*/*" {
		return document
	}
	likes := func(offer string) (best float64) {
		group, _, _ := strings.Cut(offer, "/")
		for part := range strings.SplitSeq(accept, ",") {
			t, params, err := mime.ParseMediaType(strings.TrimSpace(part))
			if err != nil || t != offer && t != group+"/*" && t != "*/*" {
				continue
			}
			q, err := strconv.ParseFloat(params["q"], 64)
			if err != nil {
				q = 1
			}
			if t == offer { // what names it decides
				return q
			}
			best = max(best, q)
		}
		return best
	}
	switch html, data := likes(page), likes(document); {
	case html == 0 && data == 0:
		return "text/plain"
	case data > html:
		return document
	}
	return page
}

func jsonProblem(err error) string {
	var t *json.UnmarshalTypeError
	if errors.As(err, &t) {
		return fmt.Sprintf("%s must be %s, not %s.", t.Field, t.Type, t.Value)
	}
	return "it is not the JSON that was expected."
}
