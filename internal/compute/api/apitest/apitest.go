// Package apitest is for tests of the compute API's handlers: it serves them behind the real table and default policy, and judges their
// answers by the description of the API.
package apitest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kilonova/internal/auth"
	"kilonova/internal/compute/api"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/policy"
)

// The projects of the callers. Tokens are "<role>" for Project and "<role>@other" for Other, with the roles admin, manager, member, reader,
// service and none; the user's id is the token.
const (
	Project = "0123456789abcdef0123456789abcdef"
	Other   = "fedcba9876543210fedcba9876543210"
)

type tokens struct{}

// Authenticate implements auth.Authenticator.
func (tokens) Authenticate(_ context.Context, token string) (*auth.Caller, error) {
	role, where, _ := strings.Cut(token, "@")
	roles := map[string][]string{"admin": {"admin", "manager", "member", "reader"}, "manager": {"manager", "member", "reader"},
		"member": {"member", "reader"}, "reader": {"reader"}, "service": {"service"}, "none": {}}
	own, ok := roles[role]
	if !ok {
		return nil, fault.New(fault.Unauthorized, "unknown token")
	}
	project := Project
	if where == "other" {
		project = Other
	}
	return &auth.Caller{UserID: token, UserName: token, ProjectID: project, Roles: own, Token: token}, nil
}

// Tokens is the authenticator of these tokens.
func Tokens() auth.Authenticator { return tokens{} }

// Handler serves handlers as the compute API does, at the root ("/v2.1/servers").
func Handler(t testing.TB, handlers map[string]api.Handler) http.Handler {
	t.Helper()
	return LoggedHandler(t, handlers, io.Discard)
}

// LoggedHandler is Handler with the service's log written to w.
func LoggedHandler(t testing.TB, handlers map[string]api.Handler, w io.Writer) http.Handler {
	t.Helper()
	return RuledHandler(t, handlers, w, nil)
}

// RuledHandler is LoggedHandler with rules of an operator's policy file: checks by the names of rules.
func RuledHandler(t testing.TB, handlers map[string]api.Handler, w io.Writer, rules map[string]string) http.Handler {
	t.Helper()
	p, err := policy.New(api.Rules(), rules)
	if err != nil {
		t.Fatal(err)
	}
	s := &httpapi.Service{Auth: tokens{}, Policy: p, IdentityURL: "http://identity/v3", Log: slog.New(slog.NewTextHandler(w, nil))}
	if err := api.Fill(s, handlers); err != nil {
		t.Fatal(err)
	}
	h, err := s.Handler()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// Call makes a request at microversion 2.<minor>; minor 0 sends no version.
func Call(h http.Handler, token, method, target, body string, minor int) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("X-Auth-Token", token)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if minor > 0 {
		r.Header.Set("OpenStack-API-Version", fmt.Sprintf("compute 2.%d", minor))
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// CheckAnswer reports where a body differs from what the description says about the answer of a route: key as in api.Keys, "GET /servers/{id}".
func CheckAnswer(t testing.TB, key string, minor int, body []byte) {
	t.Helper()
	if err := Judge(key, minor, body); err != nil {
		t.Errorf("%s at 2.%d: %v in %.2000s", key, minor, err, body)
	}
}

// Judge is CheckAnswer as an error.
func Judge(key string, minor int, body []byte) error {
	var a Answers
	return a.Judge(key, minor, body)
}

// Answers judges many answers; it keeps the schemas that it has read. The zero value is ready.
type Answers struct{ known map[string]httpapi.Schema }

// Judge tells where a body differs from what the description says about the answer of a route.
func (a *Answers) Judge(key string, minor int, body []byte) error {
	s, err := a.schema(key, minor)
	if err != nil {
		return err
	}
	doc, err := httpapi.DecodeJSON(body)
	if err != nil {
		return err
	}
	return s.Validate(doc)
}

// schema finds the description of an answer: the file of the route with the greatest version up to minor.
func (a *Answers) schema(key string, minor int) (httpapi.Schema, error) {
	f := strings.Fields(key)
	if len(f) < 2 {
		return nil, fmt.Errorf("%q is no key of the table", key)
	}
	name := strings.ToLower(f[0]) + strings.NewReplacer("/", "-", "{", "", "}", "").Replace(f[1])
	if len(f) > 2 {
		name += "-" + f[2]
	}
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(root, "internal", "compute", "api", "testdata", "responses")
	for m := minor; m > 0; m-- {
		file := filepath.Join(dir, fmt.Sprintf("%s.resp.2.%d.json", name, m))
		if s := a.known[file]; s != nil {
			return s, nil
		}
		b, err := os.ReadFile(file)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		s, err := httpapi.CompileSchema(filepath.Base(file), b)
		if err != nil {
			return nil, err
		}
		if a.known == nil {
			a.known = map[string]httpapi.Schema{}
		}
		a.known[file] = s
		return s, nil
	}
	return nil, errors.New("the description has no answer of it")
}

// moduleRoot is the folder of go.mod above the folder of the test that runs.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("there is no go.mod above the working folder")
		}
		dir = up
	}
}
