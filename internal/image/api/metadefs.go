package api

import (
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strings"

	"kilonova/internal/clock"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/image/local"
	"kilonova/internal/policy"
)

func (a *api) metadefRoutes() []httpapi.Route {
	const ns = "/v2/metadefs/namespaces"
	one := ns + "/{ns}"
	routes := []httpapi.Route{
		{Method: "GET", Path: "/v2/metadefs/resource_types", Handle: a.listResourceTypes},
		{Method: "GET", Path: ns, Handle: a.listNamespaces},
		{Method: "POST", Path: ns, Handle: a.createNamespace},
		{Method: "GET", Path: one, Handle: a.showNamespace},
		{Method: "PUT", Path: one, Handle: a.setNamespace},
		{Method: "DELETE", Path: one, Handle: a.deleteNamespace},
		{Method: "GET", Path: one + "/resource_types", Handle: a.listAssociations},
		{Method: "POST", Path: one + "/resource_types", Handle: a.associate},
		{Method: "DELETE", Path: one + "/resource_types/{name}", Handle: a.deleteItem(local.KindAssociation, "remove_metadef_resource_type_association")},
		{Method: "GET", Path: one + "/tags", Handle: a.listTags},
		{Method: "POST", Path: one + "/tags", Handle: a.createTags},
		{Method: "DELETE", Path: one + "/tags", Handle: a.clearItems(local.KindTag, "delete_metadef_tags")},
		{Method: "POST", Path: one + "/tags/{name}", Body: httpapi.NoBody, Handle: a.createTag},
		{Method: "GET", Path: one + "/tags/{name}", Handle: a.showItem(local.KindTag, "get_metadef_tag")},
		{Method: "PUT", Path: one + "/tags/{name}", Handle: a.setItem(local.KindTag, "modify_metadef_tag")},
		{Method: "DELETE", Path: one + "/tags/{name}", Handle: a.deleteItem(local.KindTag, "delete_metadef_tag")},
	}
	for _, k := range []struct{ kind, path, list, get, add, set, remove, clear string }{
		{local.KindObject, "/objects", "get_metadef_objects", "get_metadef_object", "add_metadef_object", "modify_metadef_object", "delete_metadef_object", "delete_metadef_object"},
		{local.KindProperty, "/properties", "get_metadef_properties", "get_metadef_property", "add_metadef_property", "modify_metadef_property", "remove_metadef_property", "remove_metadef_property"},
	} {
		routes = append(routes,
			httpapi.Route{Method: "GET", Path: one + k.path, Handle: a.listItems(k.kind, k.list)},
			httpapi.Route{Method: "POST", Path: one + k.path, Handle: a.createItem(k.kind, k.add)},
			httpapi.Route{Method: "DELETE", Path: one + k.path, Handle: a.clearItems(k.kind, k.clear)},
			httpapi.Route{Method: "GET", Path: one + k.path + "/{name}", Handle: a.showItem(k.kind, k.get)},
			httpapi.Route{Method: "PUT", Path: one + k.path + "/{name}", Handle: a.setItem(k.kind, k.set)},
			httpapi.Route{Method: "DELETE", Path: one + k.path + "/{name}", Handle: a.deleteItem(k.kind, k.remove)})
	}
	return routes
}

// namespace finds the namespace of the path and asks policy.
func (a *api) namespace(r *httpapi.Request, rule string) (*local.Namespace, error) {
	n, err := a.s.Namespace(r.Context(), r.Caller, r.Path("ns"))
	if err != nil {
		return nil, err
	}
	return n, authorize(r, rule, policy.Target{"project_id": n.Owner, "owner": n.Owner, "visibility": n.Visibility, "namespace": n.Namespace})
}

func nsPath(n *local.Namespace) string {
	return "/v2/metadefs/namespaces/" + url.PathEscape(n.Namespace)
}

func namespaceView(n *local.Namespace, associations []*local.Item) map[string]any {
	m := map[string]any{"namespace": n.Namespace, "visibility": n.Visibility, "protected": n.Protected, "owner": n.Owner, "created_at": stamp(n.Created),
		"updated_at": stamp(n.Updated), "self": nsPath(n), "schema": "/v2/schemas/metadefs/namespace"}
	if n.DisplayName != "" {
		m["display_name"] = n.DisplayName
	}
	if n.Description != "" {
		m["description"] = n.Description
	}
	if len(associations) > 0 {
		list := []any{}
		for _, it := range associations {
			list = append(list, itemView(nil, local.KindAssociation, it))
		}
		m["resource_type_associations"] = list
	}
	return m
}

// itemView is one object, property, tag or association. Properties have no times in the field's documents.
func itemView(n *local.Namespace, kind string, it *local.Item) map[string]any {
	m := map[string]any{}
	_ = json.Unmarshal(it.Doc, &m) // written by this package
	m["name"] = it.Name
	if kind != local.KindProperty {
		m["created_at"], m["updated_at"] = it.Created.Format(clock.LayoutZ), it.Updated.Format(clock.LayoutZ)
	}
	if n != nil && kind == local.KindObject {
		m["self"], m["schema"] = nsPath(n)+"/objects/"+url.PathEscape(it.Name), "/v2/schemas/metadefs/object"
	}
	return m
}

// newItem takes an item from a request: everything but what the service sets is the document.
func newItem(doc map[string]any, kind string) (local.Item, error) {
	name, _ := doc["name"].(string)
	if name == "" {
		return local.Item{}, fault.New(fault.Invalid, "Provided object does not match schema '%s': name is required and a string.", kind)
	}
	if kind == local.KindProperty {
		if err := checkProperty(doc, name); err != nil {
			return local.Item{}, err
		}
	}
	if kind == local.KindObject {
		props, ok := doc["properties"].(map[string]any)
		if doc["properties"] != nil && !ok {
			return local.Item{}, fault.New(fault.Invalid, "Provided object does not match schema 'object': properties must be an object.")
		}
		for k, v := range props {
			p, _ := v.(map[string]any)
			if err := checkProperty(p, k); err != nil {
				return local.Item{}, err
			}
		}
	}
	keep := maps.Clone(doc)
	for _, k := range []string{"name", "created_at", "updated_at", "self", "schema"} {
		delete(keep, k)
	}
	b, err := json.Marshal(keep)
	return local.Item{Name: name, Doc: b}, err
}

// checkProperty asks for what a property definition must have.
func checkProperty(doc map[string]any, name string) error {
	kind, _ := doc["type"].(string)
	if title, _ := doc["title"].(string); title == "" || !slices.Contains([]string{"array", "boolean", "integer", "number", "object", "string"}, kind) {
		return fault.New(fault.Invalid, "Provided object does not match schema 'property': %.80s needs a title and a type.", name)
	}
	return nil
}

func (a *api) listResourceTypes(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := authorize(r, "list_metadef_resource_types", r.Own()); err != nil {
		return nil, err
	}
	types, err := a.s.ResourceTypes(r.Context())
	if err != nil {
		return nil, err
	}
	list := []any{}
	for _, t := range types {
		list = append(list, map[string]any{"name": t.Name, "created_at": stamp(t.Created), "updated_at": stamp(t.Updated)})
	}
	return httpapi.OK(map[string]any{"resource_types": list}), nil
}

func (a *api) listNamespaces(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := authorize(r, "get_metadef_namespaces", r.Own()); err != nil {
		return nil, err
	}
	v := r.Query()
	limit, err := a.limit(v)
	if err != nil {
		return nil, err
	}
	q := local.NamespaceQuery{Visibility: v.Get("visibility"), SortKey: v.Get("sort_key"), Desc: v.Get("sort_dir") != "asc", Marker: v.Get("marker"), Limit: limit}
	if t := v.Get("resource_types"); t != "" {
		q.ResourceTypes = strings.Split(t, ",")
	}
	var spaces []*local.Namespace
	if limit > 0 {
		if spaces, err = a.s.Namespaces(r.Context(), r.Caller, q); err != nil {
			return nil, err
		}
	}
	links, err := a.s.Associations(r.Context(), spaces)
	if err != nil {
		return nil, err
	}
	list := []any{}
	for _, n := range spaces {
		list = append(list, namespaceView(n, links[n.Namespace]))
	}
	const path = "/v2/metadefs/namespaces"
	out := map[string]any{"namespaces": list, "first": pageLink(path, v, ""), "schema": "/v2/schemas/metadefs/namespaces"}
	if len(spaces) > 0 && len(spaces) == limit {
		out["next"] = pageLink(path, v, spaces[len(spaces)-1].Namespace)
	}
	return httpapi.OK(out), nil
}

// namespaceBody is what a request says of a namespace.
type namespaceBody struct {
	Namespace   string           `json:"namespace"`
	DisplayName string           `json:"display_name"`
	Description string           `json:"description"`
	Visibility  string           `json:"visibility"`
	Protected   bool             `json:"protected"`
	Owner       string           `json:"owner"`
	Types       []map[string]any `json:"resource_type_associations"`
	Objects     []map[string]any `json:"objects"`
	Tags        []map[string]any `json:"tags"`
	Properties  map[string]any   `json:"properties"`
}

// items gives the items that come with a new namespace.
func (b *namespaceBody) items() (map[string][]local.Item, error) {
	out := map[string][]local.Item{}
	for kind, docs := range map[string][]map[string]any{local.KindAssociation: b.Types, local.KindObject: b.Objects, local.KindTag: b.Tags} {
		for _, doc := range docs {
			it, err := newItem(doc, kind)
			if err != nil {
				return nil, err
			}
			out[kind] = append(out[kind], it)
		}
	}
	for name, v := range b.Properties {
		doc, _ := v.(map[string]any)
		if doc == nil {
			doc = map[string]any{}
		}
		doc["name"] = name
		it, err := newItem(doc, local.KindProperty)
		if err != nil {
			return nil, err
		}
		out[local.KindProperty] = append(out[local.KindProperty], it)
	}
	return out, nil
}

func (a *api) createNamespace(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := authorize(r, "add_metadef_namespace", r.Own()); err != nil {
		return nil, err
	}
	var b namespaceBody
	if err := r.Decode(&b); err != nil {
		return nil, err
	}
	items, err := b.items()
	if err != nil {
		return nil, err
	}
	owner := r.Caller.ProjectID
	if b.Owner != "" && r.Caller.IsAdmin() {
		owner = b.Owner
	}
	n, err := a.s.AddNamespace(r.Context(), local.Namespace{Namespace: b.Namespace, DisplayName: b.DisplayName, Description: b.Description,
		Visibility: b.Visibility, Protected: b.Protected, Owner: owner}, items)
	if err != nil {
		return nil, err
	}
	doc, err := a.wholeNamespace(r, n)
	if err != nil {
		return nil, err
	}
	return httpapi.Created(doc).With("Location", r.Base+nsPath(n)), nil
}

// wholeNamespace is the document of one namespace with all that is in it.
func (a *api) wholeNamespace(r *httpapi.Request, n *local.Namespace) (map[string]any, error) {
	links, err := a.s.Items(r.Context(), n, local.KindAssociation)
	if err != nil {
		return nil, err
	}
	doc := namespaceView(n, links)
	for kind, key := range map[string]string{local.KindObject: "objects", local.KindTag: "tags"} {
		items, err := a.s.Items(r.Context(), n, kind)
		if err != nil {
			return nil, err
		}
		if len(items) > 0 {
			list := []any{}
			for _, it := range items {
				list = append(list, itemView(n, kind, it))
			}
			doc[key] = list
		}
	}
	props, err := a.s.Items(r.Context(), n, local.KindProperty)
	if err != nil {
		return nil, err
	}
	if len(props) > 0 {
		m := map[string]any{}
		for _, it := range props {
			v := itemView(n, local.KindProperty, it)
			delete(v, "name")
			m[it.Name] = v
		}
		doc["properties"] = m
	}
	return doc, nil
}

func (a *api) showNamespace(r *httpapi.Request) (*httpapi.Reply, error) {
	n, err := a.namespace(r, "get_metadef_namespace")
	if err != nil {
		return nil, err
	}
	doc, err := a.wholeNamespace(r, n)
	if err != nil {
		return nil, err
	}
	if t := r.Query().Get("resource_type"); t != "" {
		prefixProperties(doc, t)
	}
	return httpapi.OK(doc), nil
}

// prefixProperties gives the properties the names that they have on a kind of resource.
func prefixProperties(doc map[string]any, resource string) {
	links, _ := doc["resource_type_associations"].([]any)
	prefix := ""
	for _, l := range links {
		if m, _ := l.(map[string]any); m["name"] == resource {
			prefix, _ = m["prefix"].(string)
		}
	}
	if prefix == "" {
		return
	}
	rename := func(v any) any {
		m, _ := v.(map[string]any)
		out := map[string]any{}
		for k, p := range m {
			out[prefix+k] = p
		}
		return out
	}
	if doc["properties"] != nil {
		doc["properties"] = rename(doc["properties"])
	}
	objects, _ := doc["objects"].([]any)
	for _, o := range objects {
		if m, _ := o.(map[string]any); m["properties"] != nil {
			m["properties"] = rename(m["properties"])
		}
	}
}

func (a *api) setNamespace(r *httpapi.Request) (*httpapi.Reply, error) {
	if _, err := a.namespace(r, "modify_metadef_namespace"); err != nil {
		return nil, err
	}
	var b namespaceBody
	if err := r.Decode(&b); err != nil {
		return nil, err
	}
	n, err := a.s.SetNamespace(r.Context(), r.Caller, r.Path("ns"), func(n *local.Namespace) error {
		n.Namespace, n.DisplayName, n.Description, n.Protected = b.Namespace, b.DisplayName, b.Description, b.Protected
		if b.Visibility != "" {
			n.Visibility = b.Visibility
		}
		if b.Owner != "" && r.Caller.IsAdmin() {
			n.Owner = b.Owner
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return httpapi.OK(namespaceView(n, nil)), nil
}

func (a *api) deleteNamespace(r *httpapi.Request) (*httpapi.Reply, error) {
	if _, err := a.namespace(r, "delete_metadef_namespace"); err != nil {
		return nil, err
	}
	return noContent(a.s.RemoveNamespace(r.Context(), r.Caller, r.Path("ns")))
}
