package api

import (
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/image/local"
)

// The handlers of what is in a namespace: the same five for each kind, with the kind's rule.

func (a *api) itemList(r *httpapi.Request, kind, rule string) (*local.Namespace, []*local.Item, error) {
	n, err := a.namespace(r, rule)
	if err != nil {
		return nil, nil, err
	}
	items, err := a.s.Items(r.Context(), n, kind)
	return n, items, err
}

// listItems is the list of objects, or the properties by their names.
func (a *api) listItems(kind, rule string) func(*httpapi.Request) (*httpapi.Reply, error) {
	return func(r *httpapi.Request) (*httpapi.Reply, error) {
		n, items, err := a.itemList(r, kind, rule)
		if err != nil {
			return nil, err
		}
		if kind == local.KindProperty {
			byName := map[string]any{}
			for _, it := range items {
				byName[it.Name] = itemView(n, kind, it)
			}
			return httpapi.OK(map[string]any{"properties": byName, "schema": "/v2/schemas/metadefs/properties"}), nil
		}
		list := []any{}
		for _, it := range items {
			list = append(list, itemView(n, kind, it))
		}
		return httpapi.OK(map[string]any{"objects": list, "first": nsPath(n) + "/objects", "schema": "/v2/schemas/metadefs/objects"}), nil
	}
}

// in answers with what f does in the namespace of the path, under a rule.
func (a *api) in(rule string, f func(*httpapi.Request, *local.Namespace) (*httpapi.Reply, error)) func(*httpapi.Request) (*httpapi.Reply, error) {
	return func(r *httpapi.Request) (*httpapi.Reply, error) {
		n, err := a.namespace(r, rule)
		if err != nil {
			return nil, err
		}
		return f(r, n)
	}
}

// readItem is the item that a request's body describes.
func readItem(r *httpapi.Request, kind string) (local.Item, error) {
	doc, _ := r.Document().(map[string]any)
	return newItem(doc, kind)
}

func (a *api) createItem(kind, rule string) func(*httpapi.Request) (*httpapi.Reply, error) {
	return a.in(rule, func(r *httpapi.Request, n *local.Namespace) (*httpapi.Reply, error) {
		it, err := readItem(r, kind)
		if err != nil {
			return nil, err
		}
		return a.addItem(r, n, kind, it)
	})
}

func (a *api) addItem(r *httpapi.Request, n *local.Namespace, kind string, it local.Item) (*httpapi.Reply, error) {
	if err := a.s.AddItems(r.Context(), n, kind, []local.Item{it}, false); err != nil {
		return nil, err
	}
	got, err := a.s.Item(r.Context(), n, kind, it.Name)
	if err != nil {
		return nil, err
	}
	return httpapi.Created(itemView(n, kind, got)), nil
}

func (a *api) showItem(kind, rule string) func(*httpapi.Request) (*httpapi.Reply, error) {
	return a.in(rule, func(r *httpapi.Request, n *local.Namespace) (*httpapi.Reply, error) {
		it, err := a.s.Item(r.Context(), n, kind, r.Path("name"))
		if err != nil {
			return nil, err
		}
		return httpapi.OK(itemView(n, kind, it)), nil
	})
}

func (a *api) setItem(kind, rule string) func(*httpapi.Request) (*httpapi.Reply, error) {
	return a.in(rule, func(r *httpapi.Request, n *local.Namespace) (*httpapi.Reply, error) {
		it, err := readItem(r, kind)
		if err != nil {
			return nil, err
		}
		got, err := a.s.SetItem(r.Context(), n, kind, r.Path("name"), it)
		if err != nil {
			return nil, err
		}
		return httpapi.OK(itemView(n, kind, got)), nil
	})
}

func (a *api) deleteItem(kind, rule string) func(*httpapi.Request) (*httpapi.Reply, error) {
	return a.in(rule, func(r *httpapi.Request, n *local.Namespace) (*httpapi.Reply, error) {
		return noContent(a.s.RemoveItem(r.Context(), n, kind, r.Path("name")))
	})
}

func (a *api) clearItems(kind, rule string) func(*httpapi.Request) (*httpapi.Reply, error) {
	return a.in(rule, func(r *httpapi.Request, n *local.Namespace) (*httpapi.Reply, error) {
		return noContent(a.s.RemoveItems(r.Context(), n, kind))
	})
}

func (a *api) listAssociations(r *httpapi.Request) (*httpapi.Reply, error) {
	_, items, err := a.itemList(r, local.KindAssociation, "get_metadef_resource_type")
	if err != nil {
		return nil, err
	}
	list := []any{}
	for _, it := range items {
		list = append(list, itemView(nil, local.KindAssociation, it))
	}
	return httpapi.OK(map[string]any{"resource_type_associations": list}), nil
}

func (a *api) associate(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.createItem(local.KindAssociation, "add_metadef_resource_type_association")(r)
}

func (a *api) listTags(r *httpapi.Request) (*httpapi.Reply, error) {
	n, items, err := a.itemList(r, local.KindTag, "get_metadef_tags")
	if err != nil {
		return nil, err
	}
	return httpapi.OK(tagsView(n, items)), nil
}

func tagsView(n *local.Namespace, items []*local.Item) map[string]any {
	list := []any{}
	for _, it := range items {
		list = append(list, map[string]any{"name": it.Name})
	}
	return map[string]any{"tags": list, "first": nsPath(n) + "/tags", "schema": "/v2/schemas/metadefs/tags"}
}

// createTags replaces the tags of a namespace, or adds to them when the header X-Openstack-Append says so.
func (a *api) createTags(r *httpapi.Request) (*httpapi.Reply, error) {
	n, err := a.namespace(r, "add_metadef_tags")
	if err != nil {
		return nil, err
	}
	var body struct {
		Tags []map[string]any `json:"tags"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if body.Tags == nil {
		return nil, fault.New(fault.Invalid, "Provided object does not match schema 'tags': tags is required.")
	}
	var items []local.Item
	for _, doc := range body.Tags {
		it, err := newItem(doc, local.KindTag)
		if err != nil {
			return nil, err
		}
		items = append(items, it)
	}
	replace := true
	if h := r.HTTP.Header.Get("X-Openstack-Append"); h != "" {
		add, err := parseBool("X-Openstack-Append", h)
		if err != nil {
			return nil, err
		}
		replace = !add
	}
	if err := a.s.AddItems(r.Context(), n, local.KindTag, items, replace); err != nil {
		return nil, err
	}
	got, err := a.s.Items(r.Context(), n, local.KindTag)
	if err != nil {
		return nil, err
	}
	return httpapi.Created(tagsView(n, got)), nil
}

func (a *api) createTag(r *httpapi.Request) (*httpapi.Reply, error) {
	n, err := a.namespace(r, "add_metadef_tag")
	if err != nil {
		return nil, err
	}
	return a.addItem(r, n, local.KindTag, local.Item{Name: r.Path("name")})
}
