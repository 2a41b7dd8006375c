package api

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

// Handler answers one route of the table. What the framework has done before it runs: token, microversion, the schemas of query and body,
// and the policy rule of the route with the caller's own project and user as target, unless the rule is about a server or server group.
// What is left to it: the rules about the object (Backend.Server, or r.Authorize with the object's project_id and user_id), decoding, the
// work, the view.
//
// A Reply whose Status is 0 gets the success status that the table has for the route and microversion, so most handlers return
// &httpapi.Reply{Body: …} or &httpapi.Reply{}.
type Handler = func(*httpapi.Request) (*httpapi.Reply, error)

// Table makes the service's routes from the handlers. A handler's key is "METHOD /path", for actions followed by " action":
//
//	"GET /servers/{id}"
//	"POST /servers/{id}/action os-stop"
//	"PUT /servers/{server_id}/metadata/{id}"
//	"GET /flavors/{flavor_id}/os-extra_specs"
//
// Paths are relative to /v2.1. Variables have one rule: r.Path("id") is the thing that the path names last (a server, a metadata key,
// a volume …), and its parents are r.Path("server_id"), r.Path("flavor_id"), r.Path("image_id"), r.Path("domain_id"). On
// "POST /servers/{id}/action …" the server is r.Path("id"). Keys lists every key that a handler may have.
//
// Entries that are gone answer 410 (RDP consoles 400), entries without a handler 501, and /os-volumes_boot uses the handlers of /servers: none of the three
// takes a handler. An unknown key is an error.
func Table(handlers map[string]Handler) ([]httpapi.Route, error) {
	if err := known(handlers); err != nil {
		return nil, err
	}
	schemas := newSchemas()
	var routes []httpapi.Route
	for _, e := range entries() {
		rt, err := e.route(handlers, schemas)
		if err != nil {
			return nil, err
		}
		routes = append(routes, rt)
	}
	return routes, nil
}

// Keys lists the keys of all live entries that take a handler, sorted.
func Keys() []string {
	var keys []string
	for _, e := range entries() {
		if !e.Gone && e.AliasOf == "" {
			keys = append(keys, e.key())
		}
	}
	sort.Strings(keys)
	return keys
}

func known(handlers map[string]Handler) error {
	keys := Keys()
	for k, h := range handlers {
		if _, ok := slices.BinarySearch(keys, k); !ok {
			return fmt.Errorf("compute api: %q is not a key of the table", k)
		}
		if h == nil {
			return fmt.Errorf("compute api: the handler of %q is nil", k)
		}
	}
	return nil
}

// entry is one line of the generated table in routes.go.
type entry struct {
	Method, Path, Action string
	Since, Until         int // minors; Until 0: still there
	Gone                 bool
	AliasOf              string    // key of the entry whose handler and schemas are used
	Rule                 string    // asked before the handler
	Object               bool      // the handler asks Rule about the server or group, after it was found
	Public               bool      // no token needed
	NoBody               bool      // POST or PUT without a body
	Optional             bool      // a POST or PUT whose body may be left out
	Success              []success // by version, oldest first; several of one version: the first is the usual one
	Body, Query          []int     // minors from which a schema holds, oldest first; nil: not validated
}

// success is the status of an answer from a minor on.
type success struct{ Since, Status int }

func (e entry) key() string {
	k := e.Method + " " + e.Path
	if e.Action != "" {
		k += " " + e.Action
	}
	return k
}

// status is the usual success status at a minor.
func (e entry) status(minor int) int {
	status := 0
	for _, s := range e.Success {
		if s.Since <= minor {
			status = s.Status
		}
	}
	return status
}

func (e entry) route(handlers map[string]Handler, schemas *schemas) (httpapi.Route, error) {
	rt := httpapi.Route{Method: e.Method, Path: strings.TrimSuffix(versionRoot+e.Path, "/"), Action: e.Action, Public: e.Public}
	if !e.Object {
		rt.Rule = e.Rule
	}
	if e.Since > 1 {
		rt.Since = httpapi.V(e.Since)
	}
	if e.Until > 0 {
		rt.Until = httpapi.V(e.Until)
	}
	switch {
	case e.NoBody:
		rt.Body = httpapi.NoBody
	case e.Optional:
		rt.Body = httpapi.OptionalJSON
	}
	key := e.key()
	source := e
	if e.AliasOf != "" {
		target, err := find(e.AliasOf)
		if err != nil {
			return rt, err
		}
		key, source = e.AliasOf, target
	}
	if e.Gone {
		rt.Handle = gone
		if e.Action == "os-getRDPConsole" {
			rt.Handle = noRDP
		}
		return rt, nil
	}
	rt.Schema = schemas.choose(source, "body", source.Body)
	rt.Query = schemas.choose(source, "query", source.Query)
	h := handlers[key]
	if h == nil {
		rt.Handle = absent(key)
		return rt, nil
	}
	rt.Handle = func(r *httpapi.Request) (*httpapi.Reply, error) {
		reply, err := h(r)
		if err == nil && reply != nil && reply.Status == 0 {
			reply.Status = source.status(r.Version.Minor)
		}
		return reply, err
	}
	return rt, nil
}

func find(key string) (entry, error) {
	for _, e := range entries() {
		if e.key() == key {
			return e, nil
		}
	}
	return entry{}, fmt.Errorf("compute api: no entry %q", key)
}

// gone answers the routes that compute has given up for good.
func gone(*httpapi.Request) (*httpapi.Reply, error) {
	return nil, fault.New(fault.Gone, "This resource is no longer available. No forwarding address is given.") // clients look for these words
}

// noRDP answers the one action whose removal is told as a console that is not there: 400, which clients take as "try another kind".
func noRDP(*httpapi.Request) (*httpapi.Reply, error) {
	return nil, fault.New(fault.Invalid, "No hypervisor here has RDP consoles: ask for a VNC, SPICE or serial console.")
}

// absent answers a live route without a handler.
func absent(key string) Handler {
	return func(*httpapi.Request) (*httpapi.Reply, error) {
		return nil, fault.New(fault.NotImplemented, "This cloud does not offer %s.", key)
	}
}
