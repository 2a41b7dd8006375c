package api

import (
	"errors"
	"time"

	"github.com/google/uuid"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/id"
	"kilonova/internal/placement"
)

// provider writes a provider.
func provider(r *httpapi.Request, root string, p *placement.Provider) document {
	self := root + "/resource_providers/" + p.UUID
	links := []document{{"rel": "self", "href": self}}
	add := func(minor int, rel string) {
		if since(r, minor) {
			links = append(links, document{"rel": rel, "href": self + "/" + rel})
		}
	}
	add(0, "inventories")
	add(0, "usages")
	add(1, "aggregates")
	add(6, "traits")
	add(11, "allocations")
	d := document{"uuid": p.UUID, "name": p.Name, "generation": p.Generation, "links": links}
	if since(r, 14) {
		d["parent_provider_uuid"], d["root_provider_uuid"] = orNull(p.Parent), p.Root
	}
	return d
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func (a *api) listProviders(r *httpapi.Request) (*httpapi.Reply, error) {
	f, err := providerFilter(r)
	if err != nil {
		return nil, err
	}
	list, err := a.svc.List(r.Context(), f)
	if err != nil {
		return nil, err
	}
	root := prefix(r)
	out := make([]document, len(list))
	var modified time.Time
	for i := range list {
		out[i] = provider(r, root, &list[i])
		if list[i].UpdatedAt.After(modified) {
			modified = list[i].UpdatedAt
		}
	}
	return stamped(r, httpapi.OK(document{"resource_providers": out}), modified), nil
}

func providerFilter(r *httpapi.Request) (f placement.Filter, err error) {
	q := r.Query()
	f.Name, f.UUID, f.InTree = httpapi.Last(q, "name"), httpapi.Last(q, "uuid"), httpapi.Last(q, "in_tree")
	if f.MemberOf, f.NotMemberOf, err = parseMemberOf(r, "", q["member_of"]); err != nil {
		return f, err
	}
	if f.Required, f.Forbidden, err = parseTraits(r, q["required"]); err != nil {
		return f, err
	}
	if err := conflicting(f.Required, f.Forbidden, ""); err != nil {
		return f, err
	}
	if q.Has("resources") {
		f.Resources, err = parseResources(httpapi.Last(q, "resources"))
	}
	return f, err
}

func (a *api) createProvider(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Name   string  `json:"name"`
		UUID   *string `json:"uuid"`
		Parent *string `json:"parent_provider_uuid"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	p := placement.Provider{Name: in.Name, UUID: id.UUID()}
	if in.UUID != nil {
		p.UUID = dashed(*in.UUID)
	}
	if in.Parent != nil {
		p.Parent = dashed(*in.Parent)
		if p.Parent == p.UUID {
			return nil, fault.New(fault.Invalid, "Unable to create resource provider \"%s\", %s: parent provider UUID cannot be same as UUID.", p.Name, p.UUID)
		}
	}
	made, err := a.svc.CreateProvider(r.Context(), p)
	if err != nil {
		return nil, err
	}
	path := "/resource_providers/" + made.UUID
	if !since(r, 20) {
		return located(r, &httpapi.Reply{Status: 201}, path), nil
	}
	return located(r, stamped(r, httpapi.OK(provider(r, prefix(r), made)), made.UpdatedAt), path), nil
}

// dashed is a UUID in its usual form.
func dashed(s string) string {
	u, err := uuid.Parse(s)
	if err != nil {
		return s
	}
	return u.String()
}

func (a *api) showProvider(r *httpapi.Request) (*httpapi.Reply, error) {
	p, err := a.svc.Provider(r.Context(), r.Path("uuid"))
	if err != nil {
		return nil, err
	}
	return stamped(r, httpapi.OK(provider(r, prefix(r), p)), p.UpdatedAt), nil
}

func (a *api) updateProvider(r *httpapi.Request) (*httpapi.Reply, error) {
	var in map[string]*string
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	var parent *string
	if value, named := in["parent_provider_uuid"]; named {
		parent = new(string)
		if value != nil {
			*parent = dashed(*value)
		}
	}
	p, err := a.svc.UpdateProvider(r.Context(), r.Path("uuid"), *in["name"], parent, since(r, 37))
	if err != nil {
		return nil, prefixed(err, fault.Invalid, "Unable to save resource provider %s: ", r.Path("uuid"))
	}
	return stamped(r, httpapi.OK(provider(r, prefix(r), p)), p.UpdatedAt), nil
}

func (a *api) deleteProvider(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := a.svc.DeleteProvider(r.Context(), r.Path("uuid")); err != nil {
		if errors.Is(err, fault.NotFound) {
			return nil, fault.Wrap(err, fault.NotFound, "No resource provider with uuid %s found for delete.", r.Path("uuid")).WithCode(placement.CodeProviderNotFound)
		}
		return nil, err
	}
	return httpapi.NoContent(), nil
}

func (a *api) providerUsages(r *httpapi.Request) (*httpapi.Reply, error) {
	p, err := a.svc.Provider(r.Context(), r.Path("uuid"))
	if err != nil {
		return nil, err
	}
	return stamped(r, httpapi.OK(document{"usages": p.Used, "resource_provider_generation": p.Generation}), time.Time{}), nil
}

func aggregates(r *httpapi.Request, p *placement.Provider) *httpapi.Reply {
	d := document{"aggregates": orEmpty(p.Aggregates)}
	if since(r, 19) {
		d["resource_provider_generation"] = p.Generation
	}
	return stamped(r, httpapi.OK(d), time.Time{})
}

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func (a *api) listAggregates(r *httpapi.Request) (*httpapi.Reply, error) {
	p, err := a.svc.Provider(r.Context(), r.Path("uuid"))
	if err != nil {
		return nil, err
	}
	return aggregates(r, p), nil
}

// setAggregates takes a bare list before 1.19 and an object with the generation since then. Unlike other UUIDs those of aggregates stay as
// they are written, with or without dashes: who made them compares them with what comes back.
func (a *api) setAggregates(r *httpapi.Request) (*httpapi.Reply, error) {
	if _, err := a.svc.Provider(r.Context(), r.Path("uuid")); err != nil {
		return nil, err
	}
	doc, err := a.anyBody(r, a.newestOf("aggregates")(r.Version))
	if err != nil {
		return nil, err
	}
	var in struct {
		Aggregates []string `json:"aggregates"`
		Generation *int64   `json:"resource_provider_generation"`
	}
	if _, isList := doc.([]any); isList {
		err = r.Decode(&in.Aggregates)
	} else {
		err = r.Decode(&in)
	}
	if err != nil {
		return nil, err
	}
	p, err := a.svc.ReplaceAggregates(r.Context(), r.Path("uuid"), in.Generation, in.Aggregates)
	if err != nil {
		return nil, err
	}
	p.Aggregates = in.Aggregates // in the caller's order
	return aggregates(r, p), nil
}

// anyBody decodes and validates a body that need not be an object.
func (a *api) anyBody(r *httpapi.Request, s httpapi.Schema) (any, error) {
	if r.HTTP.Header.Get("Content-Type") != "application/json" {
		return nil, fault.New(fault.UnsupportedMedia, "The media type %s is not supported, use application/json", orNone(r.HTTP.Header.Get("Content-Type")))
	}
	doc, err := httpapi.DecodeJSON(r.Body())
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "Malformed JSON: %s.", err)
	}
	return doc, s.Validate(doc)
}

func orNone(s string) string {
	if s == "" {
		return "None"
	}
	return s
}
