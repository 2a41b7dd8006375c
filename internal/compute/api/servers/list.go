package servers

import (
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/api/filter"
	"kilonova/internal/compute/api/view"
	"kilonova/internal/httpapi"
)

func (a api) index(r *httpapi.Request) (*httpapi.Reply, error) { return a.list(r, "index") }

func (a api) detail(r *httpapi.Request) (*httpapi.Reply, error) { return a.list(r, "detail") }

func (a api) list(r *httpapi.Request, kind string) (*httpapi.Reply, error) {
	q := r.Query()
	page, err := a.Page(q)
	if err != nil {
		return nil, err
	}
	f, none, err := filter.Servers(r, kind)
	if err != nil {
		return nil, err
	}
	f.Limit, f.Marker = page.Limit, page.Marker
	doc := view.ServerList{Links: backend.Links(r)}
	if !page.Zero && !none {
		if doc.Servers, err = a.Store.ListServers(r.Context(), a.DB(), f); err != nil {
			return nil, err
		}
	}
	if kind == "detail" {
		o, err := a.options(r, doc.Servers...)
		if err != nil {
			return nil, err
		}
		doc.Encoder = view.NewServerEncoder(view.Detail, o)
	}
	if n := len(doc.Servers); n > 0 && n == page.Limit {
		path := "/servers"
		if kind == "detail" {
			path += "/detail"
		}
		doc.Next = doc.Links.Next(path, q, doc.Servers[n-1].ID)
	}
	return &httpapi.Reply{Body: doc}, nil
}
