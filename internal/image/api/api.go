// Package api is the REST API of the image service: Glance v2 as its clients use it, up to version 2.18.
//
// What it promises: policy is asked for every request, with the rule names and defaults that operators of the field know; image
// data is streamed both ways and never whole in memory; an image that a caller may not see answers as one that is not there.
// Requests to move data between stores are answered 202 once they are durable.
package api

import (
	"net/http"
	"strings"

	"kilonova/internal/auth"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/image/local"
	"kilonova/internal/policy"
)

// Config is what the API stands on.
type Config struct {
	Images *local.Service
	Auth   auth.Authenticator
	Policy policy.Checker // made with DefaultRules
	// IdentityURL is named to clients that come without a token.
	IdentityURL string
	// DefaultLimit and MaxLimit are the lengths of list pages; 0: 25 and 1,000.
	DefaultLimit, MaxLimit int
}

type api struct {
	Config
	s       *local.Service
	schemas map[string][]byte
}

// New makes the service.
func New(c Config) (*httpapi.Service, error) {
	if c.DefaultLimit <= 0 {
		c.DefaultLimit = 25
	}
	if c.MaxLimit <= 0 {
		c.MaxLimit = 1000
	}
	schemas, err := loadSchemas()
	if err != nil {
		return nil, err
	}
	a := &api{Config: c, s: c.Images, schemas: schemas}
	return &httpapi.Service{Name: "image", Routes: a.routes(), Auth: c.Auth, Policy: c.Policy, WriteError: httpapi.ImageErrors, IdentityURL: c.IdentityURL}, nil
}

func (a *api) routes() []httpapi.Route {
	type h = func(*httpapi.Request) (*httpapi.Reply, error)
	var list []httpapi.Route
	add := func(method, path string, body httpapi.BodyKind, handle h) {
		list = append(list, httpapi.Route{Method: method, Path: path, Body: body, Handle: handle})
	}
	const auto, raw, none, any = httpapi.AutoBody, httpapi.RawBody, httpapi.NoBody, httpapi.AnyJSON
	for _, path := range []string{"/", "/versions", "/v2"} {
		list = append(list, httpapi.Route{Method: http.MethodGet, Path: path, Public: true, Handle: a.versions})
	}
	add("GET", "/v2/images", auto, a.listImages)
	add("POST", "/v2/images", auto, a.createImage)
	add("DELETE", "/v2/images", none, noImage)
	add("GET", "/v2/images/{id}", auto, a.showImage)
	add("PATCH", "/v2/images/{id}", any, a.patchImage)
	add("DELETE", "/v2/images/{id}", auto, a.deleteImage)
	add("PUT", "/v2/images/{id}/file", raw, a.upload)
	add("GET", "/v2/images/{id}/file", auto, a.download)
	add("PUT", "/v2/images/{id}/stage", raw, a.stage)
	add("POST", "/v2/images/{id}/import", auto, a.importImage)
	add("POST", "/v2/images/{id}/actions/deactivate", none, a.deactivate)
	add("POST", "/v2/images/{id}/actions/reactivate", none, a.reactivate)
	add("PUT", "/v2/images/{id}/tags/{tag}", none, a.addTag)
	add("DELETE", "/v2/images/{id}/tags/{tag}", none, a.removeTag)
	add("GET", "/v2/images/{id}/members", auto, a.listMembers)
	add("POST", "/v2/images/{id}/members", auto, a.addMember)
	add("GET", "/v2/images/{id}/members/{member}", auto, a.showMember)
	add("PUT", "/v2/images/{id}/members/{member}", auto, a.setMember)
	add("DELETE", "/v2/images/{id}/members/{member}", auto, a.removeMember)
	add("GET", "/v2/images/{id}/tasks", auto, a.imageTasks)
	add("GET", "/v2/images/{id}/locations", auto, a.listLocations)
	add("POST", "/v2/images/{id}/locations", auto, a.addLocation)
	add("DELETE", "/v2/stores/{store}/{id}", auto, a.removeFromStore)
	add("GET", "/v2/tasks", auto, a.listTasks)
	add("POST", "/v2/tasks", auto, a.createTask)
	add("GET", "/v2/tasks/{id}", auto, a.showTask)
	add("GET", "/v2/info/import", auto, a.infoImport)
	add("GET", "/v2/info/stores", auto, a.infoStores)
	add("GET", "/v2/info/stores/detail", auto, a.infoStoresDetail)
	add("GET", "/v2/info/usage", auto, a.infoUsage)
	add("GET", "/v2/schemas/{name}", auto, a.schema)
	add("GET", "/v2/schemas/metadefs/{name}", auto, a.metadefSchema)
	for _, path := range []string{"/v2/cache", "/v2/cache/{id}"} {
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			add(method, path, none, noCache)
		}
	}
	return append(list, a.metadefRoutes()...)
}

// noCache answers for the image cache, which this service does not need: data lies in its own stores.
func noCache(*httpapi.Request) (*httpapi.Reply, error) {
	return nil, fault.New(fault.NotFound, "Caching via API is not supported at this site.")
}

// emptyID tells a request for /v2/images/ (an image with an empty id) from one for /v2/images.
func emptyID(r *httpapi.Request) bool {
	path, _, _ := strings.Cut(r.HTTP.RequestURI, "?")
	return strings.HasSuffix(path, "/")
}

func noImage(r *httpapi.Request) (*httpapi.Reply, error) {
	if emptyID(r) {
		return nil, fault.New(fault.NotFound, "The resource could not be found.")
	}
	return nil, fault.New(fault.NotAllowed, "The method DELETE is not allowed for this resource.")
}

// target is an image as policy sees it.
func target(c *auth.Caller, r *local.Record) policy.Target {
	t := policy.Target{"project_id": r.Owner, "owner": r.Owner, "tenant": r.Owner, "image_id": r.ID, "visibility": r.Visibility, "status": r.Status}
	if r.Visibility == local.Shared && c != nil && !local.Owns(c, r) {
		t["member_id"] = c.ProjectID // Lookup has found the membership
	}
	return t
}

// lookup finds the image of the path that the caller may see and asks policy about it.
func (a *api) lookup(r *httpapi.Request, rules ...string) (*local.Record, error) {
	rec, err := a.s.Lookup(r.Context(), r.Caller, r.Path("id"))
	if err != nil {
		return nil, err
	}
	t := target(r.Caller, rec)
	if !r.Allowed("get_image", t) {
		return nil, fault.New(fault.NotFound, "Failed to find image %s", rec.ID)
	}
	for _, rule := range rules {
		if err := authorize(r, rule, t); err != nil {
			return nil, err
		}
	}
	return rec, nil
}

// authorize asks a rule with the field's sentence for a refusal.
func authorize(r *httpapi.Request, rule string, t policy.Target) error {
	if r.Allowed(rule, t) {
		return nil
	}
	return fault.New(fault.Forbidden, "You are not authorized to complete %s action.", rule)
}

// versions is the list of API versions. Its status is 300 as in the field, but 200 for who asks for /versions by name: the glance command does so, and
// takes 300 for an error where the service is not at the root of its host.
func (a *api) versions(r *httpapi.Request) (*httpapi.Reply, error) {
	type link struct {
		Rel  string `json:"rel"`
		Href string `json:"href"`
	}
	type version struct {
		ID     string `json:"id"`
		Status string `json:"status"`
		Links  []link `json:"links"`
	}
	var list []version
	for _, minor := range []string{"18", "17", "16", "15", "14", "13", "12", "11", "10", "9", "8", "7", "6", "5", "4", "3", "2", "1", "0"} {
		v := version{ID: "v2." + minor, Status: "SUPPORTED", Links: []link{{"self", r.Base + "/v2/"}}}
		if len(list) == 0 {
			v.Status = "CURRENT"
		}
		list = append(list, v)
	}
	status := http.StatusMultipleChoices
	if r.HTTP.URL.Path == "/versions" {
		status = http.StatusOK
	}
	return &httpapi.Reply{Status: status, Body: map[string]any{"versions": list}}, nil
}
