package api

import (
	"strings"
	"time"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/placement"
)

func class(root, name string) document {
	return document{"name": name, "links": []document{{"rel": "self", "href": root + "/resource_classes/" + name}}}
}

func (a *api) listClasses(r *httpapi.Request) (*httpapi.Reply, error) {
	list, err := a.svc.Classes(r.Context())
	if err != nil {
		return nil, err
	}
	root := prefix(r)
	out := make([]document, len(list))
	for i, n := range list {
		out[i] = class(root, n.Name)
	}
	return stamped(r, httpapi.OK(document{"resource_classes": out}), newestName(list)), nil
}

func newestName(list []placement.Named) (t time.Time) {
	for _, n := range list {
		if n.CreatedAt.After(t) {
			t = n.CreatedAt
		}
	}
	return t
}

func (a *api) createClass(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Name string `json:"name"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if err := a.svc.CreateClass(r.Context(), in.Name); err != nil {
		return nil, err
	}
	return located(r, &httpapi.Reply{Status: 201}, "/resource_classes/"+in.Name), nil
}

func (a *api) showClass(r *httpapi.Request) (*httpapi.Reply, error) {
	n, err := a.svc.Class(r.Context(), r.Path("name"))
	if err != nil {
		return nil, err
	}
	return stamped(r, httpapi.OK(class(prefix(r), n.Name)), n.CreatedAt), nil
}

func (a *api) renameClass(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Name string `json:"name"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if err := a.svc.RenameClass(r.Context(), r.Path("name"), in.Name); err != nil {
		return nil, err
	}
	return httpapi.OK(class(prefix(r), in.Name)), nil
}

func (a *api) ensureClass(r *httpapi.Request) (*httpapi.Reply, error) {
	name := r.Path("name")
	if err := a.schemas["class"].Validate(map[string]any{"name": name}); err != nil {
		return nil, err
	}
	status := 204
	if _, err := a.svc.Class(r.Context(), name); fault.KindOf(err) == fault.NotFound {
		switch err := a.svc.CreateClass(r.Context(), name); {
		case err == nil:
			status = 201
		case fault.KindOf(err) != fault.Conflict: // somebody made it just now
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	return located(r, &httpapi.Reply{Status: status}, "/resource_classes/"+name), nil
}

func (a *api) deleteClass(r *httpapi.Request) (*httpapi.Reply, error) {
	err := a.svc.DeleteClass(r.Context(), r.Path("name"))
	if err != nil {
		err = prefixed(err, fault.Invalid, "Error in delete resource class: ")
		return nil, prefixed(err, fault.Conflict, "Error in delete resource class: ")
	}
	return httpapi.NoContent(), nil
}

func (a *api) listTraits(r *httpapi.Request) (*httpapi.Reply, error) {
	q := r.Query()
	var f placement.TraitFilter
	if q.Has("name") {
		op, value, ok := strings.Cut(httpapi.Last(q, "name"), ":")
		switch {
		case !ok:
			return nil, fault.New(fault.Invalid, "Badly formatted name parameter. Expected name query string parameter in form: "+
				"?name=[in|startswith]:[name1,name2|prefix]. Got: \"%s\"", httpapi.Last(q, "name"))
		case op == "in":
			f.In = strings.Split(value, ",")
		case op == "startswith":
			f.Prefix = value
		}
	}
	if q.Has("associated") {
		yes := strings.EqualFold(httpapi.Last(q, "associated"), "true")
		if !yes && !strings.EqualFold(httpapi.Last(q, "associated"), "false") {
			return nil, fault.New(fault.Invalid, "The query parameter \"associated\" only accepts \"true\" or \"false\"")
		}
		f.Associated = &yes
	}
	list, err := a.svc.Traits(r.Context(), f)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(list))
	for i, n := range list {
		names[i] = n.Name
	}
	return stamped(r, httpapi.OK(document{"traits": names}), newestName(list)), nil
}

// trait finds one, or fails with fault.NotFound.
func (a *api) trait(r *httpapi.Request) (*placement.Named, error) {
	list, err := a.svc.Traits(r.Context(), placement.TraitFilter{In: []string{r.Path("name")}})
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fault.New(fault.NotFound, "No such trait %s.", r.Path("name"))
	}
	return &list[0], nil
}

func (a *api) showTrait(r *httpapi.Request) (*httpapi.Reply, error) {
	t, err := a.trait(r)
	if err != nil {
		return nil, err
	}
	return stamped(r, httpapi.NoContent(), t.CreatedAt), nil
}

func (a *api) createTrait(r *httpapi.Request) (*httpapi.Reply, error) {
	name := r.Path("name")
	if !placement.IsCustom(name) {
		return nil, fault.New(fault.Invalid, "The trait is invalid. A valid trait must be no longer than 255 characters, start with the prefix \"CUSTOM_\" "+
			"and use following characters: \"A\"-\"Z\", \"0\"-\"9\" and \"_\"")
	}
	made, err := a.svc.CreateTrait(r.Context(), name)
	if err != nil {
		return nil, err
	}
	t, err := a.trait(r)
	if err != nil {
		return nil, err
	}
	reply := httpapi.NoContent()
	if made {
		reply.Status = 201
	}
	return located(r, stamped(r, reply, t.CreatedAt), "/traits/"+name), nil
}

func (a *api) deleteTrait(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := a.svc.DeleteTrait(r.Context(), r.Path("name")); err != nil {
		return nil, err
	}
	return httpapi.NoContent(), nil
}

func traits(r *httpapi.Request, p *placement.Provider) *httpapi.Reply {
	return stamped(r, httpapi.OK(document{"traits": orEmpty(p.Traits), "resource_provider_generation": p.Generation}), p.UpdatedAt)
}

func (a *api) providerTraits(r *httpapi.Request) (*httpapi.Reply, error) {
	p, err := a.svc.Provider(r.Context(), r.Path("uuid"))
	if err != nil {
		return nil, err
	}
	return traits(r, p), nil
}

func (a *api) setTraits(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Generation *int64   `json:"resource_provider_generation"`
		Traits     []string `json:"traits"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	p, err := a.svc.SetTraits(r.Context(), r.Path("uuid"), in.Generation, in.Traits)
	if err != nil {
		return nil, err
	}
	return traits(r, p), nil
}

func (a *api) deleteTraits(r *httpapi.Request) (*httpapi.Reply, error) {
	if _, err := a.svc.SetTraits(r.Context(), r.Path("uuid"), nil, nil); err != nil {
		return nil, err
	}
	return httpapi.NoContent(), nil
}
