package subresource

import (
	"maps"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

type metadataBody struct {
	Metadata map[string]string `json:"metadata"`
}

type metaBody struct {
	Meta map[string]string `json:"meta"`
}

func (a api) listMetadata(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "server_id", backend.Rule("server-metadata:index"))
	if err != nil {
		return nil, err
	}
	return metadataReply(s.Metadata)
}

func metadataReply(m map[string]string) (*httpapi.Reply, error) {
	if m == nil {
		m = map[string]string{}
	}
	return body(map[string]any{"metadata": m})
}

func (a api) showMetadata(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "server_id", backend.Rule("server-metadata:show"))
	if err != nil {
		return nil, err
	}
	key := r.Path("id")
	v, ok := s.Metadata[key]
	if !ok {
		return nil, fault.New(fault.NotFound, "Metadata item was not found")
	}
	return body(map[string]any{"meta": map[string]string{key: v}})
}

func (a api) addMetadata(r *httpapi.Request) (*httpapi.Reply, error) {
	var in metadataBody
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	m, err := a.changeMetadata(r, "create", compute.DoUpdateMetadata, func(m map[string]string) error { maps.Copy(m, in.Metadata); return nil })
	if err != nil {
		return nil, err
	}
	return metadataReply(m)
}

func (a api) replaceMetadata(r *httpapi.Request) (*httpapi.Reply, error) {
	var in metadataBody
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	m, err := a.changeMetadata(r, "update_all", compute.DoUpdateMetadata, func(m map[string]string) error {
		clear(m)
		maps.Copy(m, in.Metadata)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return metadataReply(m)
}

func (a api) setMetadata(r *httpapi.Request) (*httpapi.Reply, error) {
	var in metaBody
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	key := r.Path("id")
	_, err := a.changeMetadata(r, "update", compute.DoUpdateMetadata, func(m map[string]string) error {
		if _, ok := in.Meta[key]; !ok || len(in.Meta) != 1 {
			return fault.New(fault.Invalid, "Request body and URI mismatch")
		}
		m[key] = in.Meta[key]
		return nil
	})
	if err != nil {
		return nil, err
	}
	return body(map[string]any{"meta": in.Meta})
}

func (a api) deleteMetadata(r *httpapi.Request) (*httpapi.Reply, error) {
	key := r.Path("id")
	_, err := a.changeMetadata(r, "delete", compute.DoDeleteMetadata, func(m map[string]string) error {
		if _, ok := m[key]; !ok {
			return fault.New(fault.NotFound, "Metadata item was not found")
		}
		delete(m, key)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return empty()
}

// changeMetadata changes a copy of the metadata, judges the result by the quota and gives it.
func (a api) changeMetadata(r *httpapi.Request, rule, op string, change func(map[string]string) error) (map[string]string, error) {
	s, err := a.Server(r, "server_id", backend.Rule("server-metadata:"+rule))
	if err != nil {
		return nil, err
	}
	limits, err := a.Store.Limits(r.Context(), a.DB(), a.Quota, s.ProjectID, s.UserID)
	if err != nil {
		return nil, err
	}
	var out map[string]string
	err = a.DB().Write(r.Context(), func(tx *db.Tx) error {
		return a.Store.UpdateServer(r.Context(), tx, s.ID, func(now *compute.Server) error {
			if !now.Deleted.IsZero() {
				return fault.New(fault.NotFound, "Instance %s could not be found.", s.ID)
			}
			if err := a.Check(r, now, op); err != nil {
				return err
			}
			out = maps.Clone(now.Metadata)
			if out == nil {
				out = map[string]string{}
			}
			before := len(out)
			if err := change(out); err != nil {
				return err
			}
			if n := limits.Of("metadata_items"); n >= 0 && int64(len(out)) > n && len(out) > before {
				return fault.New(fault.Forbidden, "Maximum number of metadata items exceeds %d", n).WithCode("OverQuota")
			}
			now.Metadata = out
			return nil
		})
	})
	return out, err
}
