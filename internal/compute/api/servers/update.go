package servers

import (
	"strings"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/api/view"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

// updateBody is the body of PUT /servers/{id}.
type updateBody struct {
	Server struct {
		Name        *string                  `json:"name"`
		DiskConfig  *string                  `json:"OS-DCF:diskConfig"`
		AccessIPv4  *string                  `json:"accessIPv4"`
		AccessIPv6  *string                  `json:"accessIPv6"`
		Description backend.Optional[string] `json:"description"`
		Hostname    *string                  `json:"hostname"`
		PinnedZone  backend.Optional[string] `json:"pinned_availability_zone"`
	} `json:"server"`
}

func (a api) update(r *httpapi.Request) (*httpapi.Reply, error) {
	var in updateBody
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	s, err := a.Server(r, "id", backend.Rule("servers:update"))
	if err != nil {
		return nil, err
	}
	err = a.DB().Write(r.Context(), func(tx *db.Tx) error {
		return a.Store.UpdateServer(r.Context(), tx, s.ID, func(now *compute.Server) error {
			if !now.Deleted.IsZero() {
				return fault.New(fault.NotFound, "Instance %s could not be found.", s.ID)
			}
			if err := in.apply(now); err != nil {
				return err
			}
			task := s.TaskState
			s, s.TaskState = now, task
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return a.document(r, view.Update, s, "")
}

func (in *updateBody) apply(s *compute.Server) error {
	v := &in.Server
	if v.Name != nil {
		s.Name = strings.TrimSpace(*v.Name)
	}
	for _, f := range []struct {
		from *string
		to   *string
	}{{v.DiskConfig, &s.DiskConfig}, {v.AccessIPv4, &s.AccessIPv4}, {v.AccessIPv6, &s.AccessIPv6}, {v.Hostname, &s.Hostname}} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	s.AccessIPv4, s.AccessIPv6 = canonical(s.AccessIPv4), canonical(s.AccessIPv6)
	if v.Description.Given {
		s.Description = v.Description.Value
	}
	if v.PinnedZone.Given {
		return pin(s, v.PinnedZone.Value)
	}
	return nil
}

// pin binds a server to the zone it is in, or lets it go. A server that is bound is let go before it can be bound elsewhere.
func pin(s *compute.Server, zone *string) error {
	switch {
	case zone == nil:
		s.PinnedZone = nil
		return nil
	case s.PinnedZone != nil && *s.PinnedZone != *zone:
		return fault.New(fault.Conflict, "Cannot change pinned availability zone directly. Unpin first by setting pinned_availability_zone to null.")
	case s.PinnedZone == nil && (s.AvailabilityZone == "" || *zone != s.AvailabilityZone):
		return fault.New(fault.Conflict, "Server can only be pinned to its current availability zone '%s', but '%s' was requested.", s.AvailabilityZone, *zone)
	}
	s.PinnedZone = zone
	return nil
}

// delete accepts the deletion of a server in any state. It takes over whatever holds the server.
func (a api) delete(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "id", backend.Rule("servers:delete"))
	if err != nil {
		return nil, err
	}
	if a.ReclaimInterval > 0 && !s.Launched.IsZero() && s.VMState != compute.VMSoftDeleted && s.VMState != compute.VMError {
		err := a.Accept(r, s, backend.Request{Op: compute.OpSoftDelete, Action: "delete", TaskState: compute.TaskSoftDeleting, TakeOver: true, Yields: []string{compute.OpDelete}})
		if err != nil {
			return nil, err
		}
		return empty()
	}
	if err := a.Accept(r, s, backend.Request{Op: compute.DoDelete, Kind: compute.OpDelete, Action: "delete", TaskState: compute.TaskDeleting, TakeOver: true}); err != nil {
		return nil, err
	}
	return empty()
}

func (a api) forceDelete(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "id", backend.Rule("os-deferred-delete:force"))
	if err != nil {
		return nil, err
	}
	if err := a.Accept(r, s, backend.Request{Op: compute.DoForceDelete, Kind: compute.OpDelete, Action: "delete", TaskState: compute.TaskDeleting, TakeOver: true}); err != nil {
		return nil, err
	}
	return empty()
}
