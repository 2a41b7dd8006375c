package api

import (
	"encoding/json"
	"regexp"
	"slices"
	"unicode/utf8"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/identity"
	"kilonova/internal/policy"
)

const (
	maxTags    = 80
	maxTagSize = 255
)

var tagPattern = regexp.MustCompile(`^[^,/]+$`)

func tooManyTags() error {
	return fault.New(fault.Invalid, "A project can have %d tags at most.", maxTags)
}

// showProject answers GET /v3/projects/{id}, with the projects above and below it when asked.
func (a *api) showProject(r *httpapi.Request) (*httpapi.Reply, error) {
	p, err := a.projects.get(r, r.Path("id"))
	if err != nil {
		return nil, a.projects.hide(r, "get", err)
	}
	if err := a.projects.authorize(r, "get", p); err != nil {
		return nil, err
	}
	d := a.projects.view(r, p)
	q := r.Query()
	if q.Has("parents_as_list") && q.Has("parents_as_ids") || q.Has("subtree_as_list") && q.Has("subtree_as_ids") {
		return nil, fault.New(fault.Invalid, "Use either the list or the ids form of parents and subtree, not both.")
	}
	if q.Has("parents_as_list") || q.Has("parents_as_ids") {
		if err := a.addParents(r, p, d, q.Has("parents_as_list")); err != nil {
			return nil, err
		}
	}
	if q.Has("subtree_as_list") || q.Has("subtree_as_ids") {
		if err := a.addSubtree(r, p, d, q.Has("subtree_as_list")); err != nil {
			return nil, err
		}
	}
	return httpapi.OK(document{"project": d}), nil
}

// addParents adds the projects above: as a list of those that the caller may see, or as nested ids.
func (a *api) addParents(r *httpapi.Request, p *identity.Project, d document, list bool) error {
	above, err := a.s.Ancestors(r.Context(), p)
	if err != nil {
		return err
	}
	docs := []document{}
	var ids any
	for i := range above {
		if list && r.Allowed("identity:get_project", a.projects.policyTarget(r, &above[i])) {
			docs = append(docs, document{"project": a.projects.view(r, &above[i])})
		}
	}
	for i := len(above) - 1; i >= 0; i-- {
		ids = document{above[i].ID: ids}
	}
	d["parents"] = ids
	if list {
		d["parents"] = docs
	}
	return nil
}

// addSubtree adds the projects below in the same two forms.
func (a *api) addSubtree(r *httpapi.Request, p *identity.Project, d document, list bool) error {
	below, err := a.s.Subtree(r.Context(), p.ID)
	if err != nil {
		return err
	}
	docs := []document{}
	nodes := map[string]document{p.ID: {}}
	for i := range below {
		b := &below[i]
		nodes[b.ID] = document{}
		nodes[b.ParentID][b.ID] = nodes[b.ID]
		if list && r.Allowed("identity:get_project", a.projects.policyTarget(r, b)) {
			docs = append(docs, document{"project": a.projects.view(r, b)})
		}
	}
	d["subtree"] = leaves(nodes[p.ID])
	if list {
		d["subtree"] = docs
	}
	return nil
}

// leaves writes nodes without children as null.
func leaves(node document) any {
	if len(node) == 0 {
		return nil
	}
	for k, v := range node {
		node[k] = leaves(v.(document)) //nolint:forcetypeassert // addSubtree made it
	}
	return node
}

// tagged makes a handler about the tags of a project: it authorizes, and changes the tags when change is set.
func (a *api) tagged(change func(r *httpapi.Request, p *identity.Project) error, answer func(r *httpapi.Request, p *identity.Project) (*httpapi.Reply, error)) func(*httpapi.Request) (*httpapi.Reply, error) {
	rule := "identity:list_project_tags"
	if change != nil {
		rule = "identity:update_project_tags"
	}
	return func(r *httpapi.Request) (*httpapi.Reply, error) {
		p, err := a.s.Projects.Get(r.Context(), r.Path("id"))
		if err != nil {
			if e := authorize(r, rule, policy.Target{}); e != nil {
				return nil, e
			}
			return nil, err
		}
		if err := authorize(r, rule, a.projects.policyTarget(r, p)); err != nil {
			return nil, err
		}
		if change != nil {
			if p, err = a.s.Projects.Update(r.Context(), p.ID, func(p *identity.Project) error {
				if err := change(r, p); err != nil {
					return err
				}
				return changeProject(r, p, nil)
			}); err != nil {
				return nil, err
			}
		}
		return answer(r, p)
	}
}

func tagList(r *httpapi.Request, p *identity.Project) (*httpapi.Reply, error) {
	tags := p.Tags
	if tags == nil {
		tags = []string{}
	}
	return httpapi.OK(document{"tags": tags, "links": listLinks(r)}), nil
}

func tagExists(r *httpapi.Request, p *identity.Project) (*httpapi.Reply, error) {
	if !slices.Contains(p.Tags, r.Path("tag")) {
		return nil, fault.New(fault.NotFound, "Could not find project tag: %s.", r.Path("tag"))
	}
	return httpapi.NoContent(), nil
}

func putTags(r *httpapi.Request, p *identity.Project) error {
	var b struct {
		Tags []string `json:"tags"`
	}
	if err := json.Unmarshal(r.Body(), &b); err != nil {
		return fault.Wrap(err, fault.Invalid, "Invalid input for field 'tags': it must be a list of strings.")
	}
	p.Tags = b.Tags
	return nil
}

func addTag(r *httpapi.Request, p *identity.Project) error {
	tag := r.Path("tag")
	if !tagPattern.MatchString(tag) || utf8.RuneCountInString(tag) > maxTagSize {
		return fault.New(fault.Invalid, "Invalid tag %s: a tag has 1 to %d characters, none of them a comma or a slash.", tag, maxTagSize)
	}
	if !slices.Contains(p.Tags, tag) {
		p.Tags = append(p.Tags, tag)
	}
	return nil
}

func created(r *httpapi.Request, _ *identity.Project) (*httpapi.Reply, error) {
	return (&httpapi.Reply{Status: 201}).With("Location", r.Base+r.HTTP.URL.Path), nil
}

func removeTag(r *httpapi.Request, p *identity.Project) error {
	i := slices.Index(p.Tags, r.Path("tag"))
	if i < 0 {
		return fault.New(fault.NotFound, "Could not find project tag: %s.", r.Path("tag"))
	}
	p.Tags = slices.Delete(p.Tags, i, i+1)
	return nil
}

func removeTags(_ *httpapi.Request, p *identity.Project) error {
	p.Tags = nil
	return nil
}

func nothing(*httpapi.Request, *identity.Project) (*httpapi.Reply, error) {
	return httpapi.NoContent(), nil
}
