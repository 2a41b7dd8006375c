package api

import (
	"net/http"
	"slices"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/network/local"
)

const (
	maxTags   = 50
	maxTagLen = 255
)

// tagRoutes are the routes below a resource's tags (extensions standard-attr-tag and tag).
func tagRoutes(res *resource, root string) []httpapi.Route {
	one := func(r *httpapi.Request, f func(tags []string) ([]string, error)) error {
		return res.changeTags(r, f)
	}
	return []httpapi.Route{
		{Method: http.MethodGet, Path: root + "/{id}/tags", Handle: res.listTags},
		{Method: http.MethodPut, Path: root + "/{id}/tags", Handle: res.replaceTags},
		{Method: http.MethodDelete, Path: root + "/{id}/tags", Handle: func(r *httpapi.Request) (*httpapi.Reply, error) {
			return httpapi.NoContent(), one(r, func([]string) ([]string, error) { return nil, nil })
		}},
		{Method: http.MethodGet, Path: root + "/{id}/tags/{tag}", Handle: res.hasTag},
		{Method: http.MethodPut, Path: root + "/{id}/tags/{tag}", Body: httpapi.NoBody, Handle: func(r *httpapi.Request) (*httpapi.Reply, error) {
			return &httpapi.Reply{Status: http.StatusCreated}, one(r, func(tags []string) ([]string, error) { return checkTags(append(slices.Clone(tags), r.Path("tag"))) })
		}},
		{Method: http.MethodDelete, Path: root + "/{id}/tags/{tag}", Handle: func(r *httpapi.Request) (*httpapi.Reply, error) {
			return httpapi.NoContent(), one(r, func(tags []string) ([]string, error) {
				i := slices.Index(tags, r.Path("tag"))
				if i < 0 {
					return nil, tagMissing(r.Path("tag"))
				}
				return slices.Delete(slices.Clone(tags), i, i+1), nil
			})
		}},
	}
}

func tagMissing(tag string) error {
	return fault.New(fault.NotFound, "Tag %s could not be found.", tag).WithCode("TagNotFound")
}

// checkTags sorts tags, drops repeats and refuses too many or too long ones.
func checkTags(tags []string) ([]string, error) {
	slices.Sort(tags)
	tags = slices.Compact(tags)
	if len(tags) > maxTags {
		return nil, badRequest("Invalid input for tags. Reason: a resource can have %d tags at most.", maxTags)
	}
	for _, t := range tags {
		if t == "" || len(t) > maxTagLen {
			return nil, badRequest("Invalid input for tags. Reason: '%s' is not of 1 to %d characters.", t, maxTagLen)
		}
	}
	return tags, nil
}

func (res *resource) tagsOf(r *httpapi.Request) (*call, []string, doc, error) {
	q := newCall(r)
	d, err := res.one(q, r.Path("id"))
	if err != nil {
		return nil, nil, nil, err
	}
	tags, _ := d["tags"].([]string)
	return q, tags, d, nil
}

func (res *resource) listTags(r *httpapi.Request) (*httpapi.Reply, error) {
	_, tags, _, err := res.tagsOf(r)
	if err != nil {
		return nil, err
	}
	return httpapi.OK(map[string]any{"tags": tags}), nil
}

func (res *resource) hasTag(r *httpapi.Request) (*httpapi.Reply, error) {
	_, tags, _, err := res.tagsOf(r)
	if err == nil && !slices.Contains(tags, r.Path("tag")) {
		err = tagMissing(r.Path("tag"))
	}
	if err != nil {
		return nil, err
	}
	return httpapi.NoContent(), nil
}

func (res *resource) replaceTags(r *httpapi.Request) (*httpapi.Reply, error) {
	body, err := decode(r)
	if err != nil {
		return nil, err
	}
	in, problem := record(body, map[string]kind{"tags": texts(text(maxTagLen))}, []string{"tags"})
	if problem != "" {
		return nil, badRequest("Invalid input for tags. Reason: %s", problem)
	}
	tags, err := checkTags(slices.Clone(in.texts("tags")))
	if err != nil {
		return nil, err
	}
	if err := res.changeTags(r, func([]string) ([]string, error) { return tags, nil }); err != nil {
		return nil, err
	}
	return httpapi.OK(map[string]any{"tags": tags}), nil
}

func (res *resource) changeTags(r *httpapi.Request, f func(tags []string) ([]string, error)) error {
	q, _, d, err := res.tagsOf(r)
	if err != nil {
		return err
	}
	if err := res.authorize(q, "update", d, nil); err != nil {
		return err
	}
	return res.api.svc.Do(q.Context(), func(c *local.Change) error { return res.retag(c, r.Path("id"), f) })
}
