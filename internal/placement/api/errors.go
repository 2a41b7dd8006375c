package api

import (
	"errors"
	"fmt"
	"strings"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

// prefixed puts words before the public text of an error of one kind.
func prefixed(err error, kind fault.Kind, format string, args ...any) error {
	var e *fault.Error
	if !errors.As(err, &e) || e.Kind != kind {
		return err
	}
	out := *e
	out.Text = fmt.Sprintf(format, args...) + e.Text
	return &out
}

// conflicting refuses a request group that requires and forbids the same traits.
func conflicting(required [][]string, forbidden []string, suffix string) error {
	no := map[string]bool{}
	for _, t := range forbidden {
		no[t] = true
	}
	for _, choice := range required {
		possible := false
		for _, t := range choice {
			possible = possible || !no[t]
		}
		if !possible {
			return fault.New(fault.Invalid, "Conflicting required and forbidden traits found in the following traits keys: required%s: (%s)",
				suffix, strings.Join(choice, ", "))
		}
	}
	return nil
}

// writeError is httpapi.PlacementErrors with the beginnings of sentences that placement's clients look for.
func writeError(r *httpapi.Request, e *fault.Error) *httpapi.Reply {
	out := *e
	switch rest, malformed := strings.CutPrefix(e.Text, "Malformed request body: "); {
	case malformed:
		out.Text = "Malformed JSON: " + rest
	case e.Kind == fault.NotAcceptable && strings.HasPrefix(e.Text, "Version "):
		out.Text = "Unacceptable version header: " + strings.TrimPrefix(e.Text, "Version ")
	}
	return httpapi.PlacementErrors(r, &out)
}
