package api

import (
	_ "embed"
	"net/http"

	"kilonova/internal/httpapi"
)

const (
	versionRoot = "/v2.1"
	legacyRoot  = "/v2"
)

//go:embed openapi.json
var openAPIDocument []byte

// Newest is the highest microversion.
func Newest() httpapi.Version { return httpapi.V(104) }

// Fill makes s the compute service: its routes (Table with the handlers, the version documents, openapi.json), error form, microversions
// and roots. The caller has set Auth, Policy (with at least Rules) and what else the deployment decides: IdentityURL, PublicURL, Log.
func Fill(s *httpapi.Service, handlers map[string]Handler) error {
	routes, err := Table(withDocuments(handlers))
	if err != nil {
		return err
	}
	s.Name = "compute"
	s.Routes = append(routes, unversioned()...)
	s.WriteError = httpapi.ComputeErrors
	s.Versions = &httpapi.Microversions{Type: "compute", Legacy: "X-OpenStack-Nova-API-Version",
		Min: httpapi.V(1), Max: Newest(), Default: httpapi.V(1)}
	s.ProjectSegment = []string{versionRoot}
	s.Fallback = multipleChoices
	s.StrictSlash, s.PolicyLast, s.HideMethods = true, true, true
	s.LegacyRoots = map[string]string{legacyRoot: versionRoot}
	return nil
}

// withDocuments adds the handlers that belong to the framework: they need nothing but the table.
func withDocuments(handlers map[string]Handler) map[string]Handler {
	all := map[string]Handler{
		"GET /":              showVersion,
		"GET /versions/{id}": showNamedVersion,
	}
	for k, h := range handlers {
		all[k] = h
	}
	return all
}

// unversioned are the routes outside /v2.1.
func unversioned() []httpapi.Route {
	route := func(path string, h Handler) httpapi.Route {
		return httpapi.Route{Method: http.MethodGet, Path: path, Public: true, Handle: h}
	}
	return []httpapi.Route{
		route("/", listVersions),
		route(legacyRoot, showLegacyVersion),
		route("/openapi.json", func(*httpapi.Request) (*httpapi.Reply, error) { return httpapi.OK(openAPIDocument), nil }),
	}
}
