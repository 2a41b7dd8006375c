package subresource

import (
	"net/http"
	"slices"
	"strings"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

// maxTagLength is how long a tag may be.
const maxTagLength = 60

func tagsReply(tags []string) (*httpapi.Reply, error) {
	if tags == nil {
		tags = []string{}
	}
	return body(map[string]any{"tags": tags})
}

func (a api) listTags(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "server_id", backend.Rule("os-server-tags:index"))
	if err != nil {
		return nil, err
	}
	return tagsReply(s.Tags)
}

func (a api) showTag(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "server_id", backend.Rule("os-server-tags:show"))
	if err != nil {
		return nil, err
	}
	if !slices.Contains(s.Tags, r.Path("id")) {
		return nil, noTag(s, r.Path("id"))
	}
	return empty()
}

func noTag(s *compute.Server, tag string) error {
	return fault.New(fault.NotFound, "Server %s has no tag '%s'", s.ID, tag)
}

func (a api) replaceTags(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Tags []string `json:"tags"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	tags := backend.SortedSet(in.Tags)
	err := a.changeTags(r, "update_all", func(s *compute.Server) error {
		if len(tags) > backend.MaxTags {
			return fault.New(fault.Invalid, "The number of tags exceeded the per-server limit %d", backend.MaxTags)
		}
		s.Tags = tags
		return nil
	})
	if err != nil {
		return nil, err
	}
	return tagsReply(tags)
}

func (a api) deleteTags(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := a.changeTags(r, "delete_all", func(s *compute.Server) error { s.Tags = nil; return nil }); err != nil {
		return nil, err
	}
	return empty()
}

func (a api) addTag(r *httpapi.Request) (*httpapi.Reply, error) {
	tag, code := r.Path("id"), http.StatusNoContent
	err := a.changeTags(r, "update", func(s *compute.Server) error {
		switch {
		case tag == "" || len([]rune(tag)) > maxTagLength:
			return fault.New(fault.Invalid, "Tag '%s' is invalid. It must be a string with 1 to %d characters.", tag, maxTagLength)
		case strings.ContainsAny(tag, ",/"):
			return fault.New(fault.Invalid, "Tag '%s' is invalid. It must be a string without characters '/' and ','. Validation error message: the tag does not match.", tag)
		}
		if slices.Contains(s.Tags, tag) {
			return nil
		}
		if len(s.Tags) >= backend.MaxTags {
			return fault.New(fault.Invalid, "The number of tags exceeded the per-server limit %d", backend.MaxTags)
		}
		s.Tags, code = backend.SortedSet(append(slices.Clone(s.Tags), tag)), http.StatusCreated
		return nil
	})
	if err != nil {
		return nil, err
	}
	reply := &httpapi.Reply{Status: code}
	if code == http.StatusCreated {
		reply.With("Location", backend.Links(r).Self+"/servers/"+r.Path("server_id")+"/tags/"+tag)
	}
	return reply, nil
}

func (a api) deleteTag(r *httpapi.Request) (*httpapi.Reply, error) {
	tag := r.Path("id")
	err := a.changeTags(r, "delete", func(s *compute.Server) error {
		i := slices.Index(s.Tags, tag)
		if i < 0 {
			return noTag(s, tag)
		}
		s.Tags = slices.Delete(slices.Clone(s.Tags), i, i+1)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return empty()
}

func (a api) changeTags(r *httpapi.Request, rule string, change func(*compute.Server) error) error {
	s, err := a.Server(r, "server_id", backend.Rule("os-server-tags:"+rule))
	if err != nil {
		return err
	}
	return a.DB().Write(r.Context(), func(tx *db.Tx) error {
		return a.Store.UpdateServer(r.Context(), tx, s.ID, func(now *compute.Server) error {
			if !now.Deleted.IsZero() {
				return fault.New(fault.NotFound, "Instance %s could not be found.", s.ID)
			}
			if err := a.Check(r, now, compute.DoTags); err != nil {
				return err
			}
			return change(now)
		})
	})
}
