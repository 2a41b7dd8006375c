// Package servers holds the handlers of the compute API that are about servers: the collection, one server, its actions, interfaces and consoles.
// One file per noun. What else hangs below a server is in package subresource.
package servers

import (
	"net/http"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/api/view"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

// api is the handlers' receiver.
type api struct{ *backend.Backend }

// Handlers gives the handlers by their key in the route table.
func Handlers(b *backend.Backend) map[string]backend.Handler {
	a := api{b}
	h := map[string]backend.Handler{
		"GET /servers":         a.index,
		"GET /servers/detail":  a.detail,
		"GET /servers/{id}":    a.show,
		"POST /servers":        a.create,
		"PUT /servers/{id}":    a.update,
		"DELETE /servers/{id}": a.delete,

		"GET /servers/{server_id}/ips":                  a.listIPs,
		"GET /servers/{server_id}/ips/{id}":             a.showIPs,
		"GET /servers/{server_id}/os-interface":         a.listInterfaces,
		"POST /servers/{server_id}/os-interface":        a.attachInterface,
		"GET /servers/{server_id}/os-interface/{id}":    a.showInterface,
		"DELETE /servers/{server_id}/os-interface/{id}": a.detachInterface,
		"POST /servers/{server_id}/remote-consoles":     a.remoteConsole,
		"GET /os-console-auth-tokens/{id}":              a.consoleToken,
		"POST /os-server-external-events":               a.externalEvents,
	}
	for name, handle := range a.actions() {
		h["POST /servers/{id}/action "+name] = handle
	}
	return h
}

// options are the view's options for a caller.
func (a api) options(r *httpapi.Request, servers ...*compute.Server) (view.ServerOptions, error) {
	own := r.Own()
	if len(servers) == 1 {
		own = backend.Target(servers[0].ProjectID, servers[0].UserID)
	}
	o := view.ServerOptions{Minor: backend.Minor(r), Links: backend.Links(r), Admin: r.Caller.IsAdmin()}
	o.Extended = r.Allowed(backend.Rule("os-extended-server-attributes"), own)
	if o.Minor >= 47 {
		o.ExtraSpecs = r.Allowed(backend.Rule("servers:show:flavor-extra-specs"), own)
	}
	if o.Minor >= 16 {
		switch {
		case r.Allowed(backend.Rule("servers:show:host_status"), own):
			o.HostStatus = view.FullHostStatus
		case r.Allowed(backend.Rule("servers:show:host_status:unknown-only"), own):
			o.HostStatus = view.UnknownHostStatus
		}
	}
	if o.HostStatus != view.NoHostStatus {
		statusOf, err := a.hostStatuses(r, servers)
		if err != nil {
			return o, err
		}
		o.StatusOf = statusOf
	}
	return o, nil
}

// hostStatuses reads the states of the hosts of all servers with one query.
func (a api) hostStatuses(r *httpapi.Request, servers []*compute.Server) (func(string) string, error) {
	seen := map[string]bool{"": true}
	var hosts []string
	for _, s := range servers {
		if !seen[s.Host] {
			seen[s.Host] = true
			hosts = append(hosts, s.Host)
		}
	}
	if len(hosts) == 0 {
		return nil, nil
	}
	if len(hosts) > 400 {
		hosts = nil
	}
	states, err := a.Store.HostStates(r.Context(), a.DB(), hosts...)
	if err != nil {
		return nil, err
	}
	status := make(map[string]string, len(states))
	for name, h := range states {
		status[name] = a.HostStatus(h)
	}
	return func(host string) string {
		if st, ok := status[host]; ok {
			return st
		}
		return "UNKNOWN"
	}, nil
}

func (a api) document(r *httpapi.Request, k view.Kind, s *compute.Server, adminPass string) (*httpapi.Reply, error) {
	o, err := a.options(r, s)
	if err != nil {
		return nil, err
	}
	o.AdminPass = adminPass
	if s.GroupID != "" && backend.Minor(r) >= 71 { // a group that was deleted is not shown
		if _, err := a.Store.Group(r.Context(), a.DB(), s.GroupID); fault.KindOf(err) == fault.NotFound {
			lone := *s
			lone.GroupID, s = "", &lone
		} else if err != nil {
			return nil, err
		}
	}
	return &httpapi.Reply{Body: view.ServerDocument{Encoder: view.NewServerEncoder(k, o), Server: s}}, nil
}

func (a api) show(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "id", backend.Rule("servers:show"))
	if err != nil {
		return nil, err
	}
	return a.document(r, view.Show, s, "")
}

// empty is an answer without a body.
func empty() (*httpapi.Reply, error) { return &httpapi.Reply{}, nil }

// body is an answer with the usual status.
func body(v any) (*httpapi.Reply, error) { return &httpapi.Reply{Body: v}, nil }

func status(code int, v any) (*httpapi.Reply, error) {
	return &httpapi.Reply{Status: code, Body: v}, nil
}

// asInvalid makes "not found" of something that the request's body names the request's fault.
func asInvalid(err error, format string, args ...any) error {
	if fault.KindOf(err) == fault.NotFound {
		return fault.Wrap(err, fault.Invalid, format, args...)
	}
	return err
}

// noBody is a reply of 202 without a body; some actions answer a header alone.
func located(url string) (*httpapi.Reply, error) {
	return (&httpapi.Reply{Status: http.StatusAccepted}).With("Location", url), nil
}
