// Package fault holds the kinds of error that Kilonova tells apart, each with the HTTP status that
// the REST services answer with, a sentence that a user may read, and a private cause that only the log sees.
//
// An error of this package compares with errors.Is against its Kind:
//
//	if errors.Is(err, fault.NotFound) { … }
//
// The text of Error() holds the cause; Public() never does.
package fault

import (
	"errors"
	"fmt"
	"net/http"
)

// Kind is a class of error. It is itself an error, so that errors.Is(err, fault.Conflict) works.
type Kind int

// The kinds and their HTTP statuses.
const (
	Internal         Kind = iota // 500
	Invalid                      // 400: the request is malformed or breaks a rule that does not depend on state
	Unauthorized                 // 401
	Forbidden                    // 403: policy or quota
	NotFound                     // 404
	NotAllowed                   // 405: method
	NotAcceptable                // 406
	Conflict                     // 409: state, generation, duplicate
	Gone                         // 410
	TooLarge                     // 413
	UnsupportedMedia             // 415
	RangeInvalid                 // 416
	TooMany                      // 429
	NotImplemented               // 501
	Unavailable                  // 503: a part is down or slow; trying again later may work
)

var kinds = map[Kind]struct {
	status int
	name   string
}{
	Internal: {500, "internal error"}, Invalid: {400, "invalid request"}, Unauthorized: {401, "unauthorized"},
	Forbidden: {403, "forbidden"}, NotFound: {404, "not found"}, NotAllowed: {405, "method not allowed"},
	NotAcceptable: {406, "not acceptable"}, Conflict: {409, "conflict"}, Gone: {410, "gone"}, TooLarge: {413, "too large"},
	UnsupportedMedia: {415, "unsupported media type"}, RangeInvalid: {416, "range not satisfiable"}, TooMany: {429, "too many requests"},
	NotImplemented: {501, "not implemented"}, Unavailable: {503, "unavailable"},
}

// Error makes a Kind usable as the target of errors.Is.
func (k Kind) Error() string { return kinds[k].name }

// Status is the HTTP status of the kind.
func (k Kind) Status() int {
	if s := kinds[k].status; s != 0 {
		return s
	}
	return http.StatusInternalServerError
}

// Error is an error with a kind, a sentence for the user and a private cause.
type Error struct {
	Kind   Kind
	Code   string // machine-readable code where the service's wire format has one (Neutron type, placement code)
	Text   string // the public sentence
	Hint   string // what to do next; public, may be empty
	Cause  error  // private
	Header map[string]string
}

func (e *Error) Error() string {
	s := e.Public()
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Public is what a client may read.
func (e *Error) Public() string {
	s := e.Text
	if s == "" {
		s = e.Kind.Error()
	}
	if e.Hint != "" {
		s += " " + e.Hint
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Is tells whether target is the error's kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(Kind)
	return ok && k == e.Kind
}

// New makes an error of kind k with a public sentence.
func New(k Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Text: fmt.Sprintf(format, args...)}
}

// Wrap makes an error of kind k with a public sentence and the private cause err.
func Wrap(err error, k Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Text: fmt.Sprintf(format, args...), Cause: err}
}

// WithCode sets the machine-readable code and returns e.
func (e *Error) WithCode(code string) *Error { e.Code = code; return e }

// WithHint sets the hint and returns e.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// ErrAway is in the chain of errors that say that the database's server could not be reached, or was lost in the middle: what was being written is then there or not. Such an
// error is an Unavailable, and no outcome of what was tried. It keeps the mark on its way from one process to another.
var ErrAway = errors.New("the database's server is away")

// IsAway tells whether err is one of those.
func IsAway(err error) bool { return errors.Is(err, ErrAway) }

// KindOf gives the kind of the first Error in err's chain, Internal when there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	var k Kind
	if errors.As(err, &k) {
		return k
	}
	return Internal
}

// PublicText gives what a client may read of err. Errors that are no fault.Error show nothing of their cause.
func PublicText(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Public()
	}
	var k Kind
	if errors.As(err, &k) {
		return k.Error()
	}
	return "An unexpected error occurred. The service log has the cause under this request's id."
}
