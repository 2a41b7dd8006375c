// Package api is the REST interface of the built-in identity service: the Identity API v3 as Keystone's clients use it.
//
// One table (routes.go) holds every route; Rules holds the default policy in the names that Keystone's policy files use. Bodies are judged
// by the JSON Schemas in schemas/. What is not built answers so: federation (404), the OAuth 1.0a token dance beyond its consumers (404),
// and EC2 signatures at /v3/ec2tokens (404).
package api

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"path"
	"strings"

	"kilonova/internal/auth"
	"kilonova/internal/httpapi"
	"kilonova/internal/identity"
	"kilonova/internal/identity/local"
	"kilonova/internal/policy"
)

//go:embed schemas/*.json
var schemaFiles embed.FS

// maxBody is how many bytes a request may have; the documents are small.
const maxBody = 112 << 10

// api holds what the handlers share.
type api struct {
	s       *local.Service
	schemas map[string]httpapi.Schema

	projects         *resource[identity.Project, *identity.Project]
	domains          *resource[identity.Project, *identity.Project]
	users            *resource[identity.User, *identity.User]
	groups           *resource[identity.Group, *identity.Group]
	roles            *resource[identity.Role, *identity.Role]
	regions          *resource[identity.Region, *identity.Region]
	services         *resource[identity.Service, *identity.Service]
	endpoints        *resource[identity.Endpoint, *identity.Endpoint]
	credentials      *resource[identity.Credential, *identity.Credential]
	policies         *resource[identity.Policy, *identity.Policy]
	registeredLimits *resource[identity.RegisteredLimit, *identity.RegisteredLimit]
	limits           *resource[identity.Limit, *identity.Limit]
	consumers        *resource[identity.Consumer, *identity.Consumer]
	endpointGroups   *resource[identity.EndpointGroup, *identity.EndpointGroup]
	appCreds         *resource[identity.AppCred, *identity.AppCred]
	accessRules      *resource[identity.AccessRule, *identity.AccessRule]
	trusts           *resource[identity.Trust, *identity.Trust]
}

// New gives the REST service. checker decides with the rules of Rules; nil takes these as they are.
func New(s *local.Service, checker policy.Checker) (*httpapi.Service, error) {
	if checker == nil {
		e, err := policy.New(Rules(), nil)
		if err != nil {
			return nil, fmt.Errorf("identity policy: %w", err)
		}
		checker = e
	}
	a := &api{s: s, schemas: map[string]httpapi.Schema{}}
	if err := a.loadSchemas(); err != nil {
		return nil, err
	}
	a.resources()
	routes := a.routes()
	for i := range routes {
		if routes[i].Method == http.MethodPut && routes[i].Schema == nil && routes[i].Body == httpapi.AutoBody {
			routes[i].Body = httpapi.NoBody // a PUT without a schema says all in its path
		}
	}
	return &httpapi.Service{Name: "identity", Routes: routes, Auth: auth.Authenticator(s), Policy: checker, WriteError: httpapi.IdentityErrors, MaxBody: maxBody}, nil
}

// loadSchemas compiles every schema. A file holds several, by name; the definitions of defs.json are known to all.
func (a *api) loadSchemas() error {
	var defs map[string]any
	b, err := schemaFiles.ReadFile("schemas/defs.json")
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &defs); err != nil {
		return fmt.Errorf("schemas/defs.json: %w", err)
	}
	names, err := fs.Glob(schemaFiles, "schemas/*.json")
	if err != nil {
		return err
	}
	for _, file := range names {
		noun := strings.TrimSuffix(path.Base(file), ".json")
		if noun == "defs" {
			continue
		}
		b, err := schemaFiles.ReadFile(file)
		if err != nil {
			return err
		}
		var parts map[string]map[string]any
		if err := json.Unmarshal(b, &parts); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		for kind, doc := range parts {
			doc = maps.Clone(doc)
			doc["$defs"] = defs
			text, err := json.Marshal(doc)
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			name := noun + "." + kind
			if a.schemas[name], err = httpapi.CompileSchema(name, text); err != nil {
				return err
			}
		}
	}
	return nil
}

// schema gives a Route's Schema by name. A name that does not exist is a mistake in the route table.
func (a *api) schema(name string) func(httpapi.Version) httpapi.Schema {
	s, ok := a.schemas[name]
	if !ok {
		panic("identity: no schema " + name)
	}
	return func(httpapi.Version) httpapi.Schema { return s }
}
