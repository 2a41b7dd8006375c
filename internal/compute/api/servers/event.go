package servers

import (
	"net/http"
	"strings"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

// externalEvent is one entry of POST /os-server-external-events.
type externalEvent struct {
	Name   string  `json:"name"`
	Server string  `json:"server_uuid"`
	Status string  `json:"status"`
	Tag    *string `json:"tag,omitempty"`
	Code   int     `json:"code"`
}

// The codes of single events.
const (
	eventDone     = 200
	eventInvalid  = 400
	eventNoServer = 404
	eventNoHost   = 422
)

// externalEvents takes the word of other services. Nothing waits for these events here: the network part reports by itself and conductors look at the
// truth. What remains is to bring the record of the server's interfaces up to date, and to start or stop a server whose power another service changed.
func (a api) externalEvents(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Events []externalEvent `json:"events"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	good := 0
	for i := range in.Events {
		e := &in.Events[i]
		if e.Status == "" {
			e.Status = "completed"
		}
		code, err := a.externalEvent(r, e)
		if err != nil {
			return nil, err
		}
		if e.Code = code; code == eventDone {
			good++
		} else {
			e.Status = "failed"
		}
	}
	if good < len(in.Events) {
		return status(http.StatusMultiStatus, map[string]any{"events": in.Events})
	}
	return status(http.StatusOK, map[string]any{"events": in.Events})
}

// needsTag tells whether an event says nothing without its tag.
func needsTag(name string) bool {
	return name == "volume-extended" || name == "power-update" || name == "accelerator-request-bound"
}

func (a api) externalEvent(r *httpapi.Request, e *externalEvent) (int, error) {
	s, err := a.Store.Server(r.Context(), a.DB(), e.Server)
	if fault.KindOf(err) == fault.NotFound && err != nil {
		return eventNoServer, nil
	} else if err != nil {
		return 0, err
	}
	switch {
	case e.Tag == nil && needsTag(e.Name):
		return eventInvalid, nil
	case s.Host == "":
		return eventNoHost, nil
	case e.Name == "power-update":
		return eventDone, a.powerUpdate(r, s, *e.Tag)
	case strings.HasPrefix(e.Name, "network-"):
		return eventDone, a.refreshVIFs(r, s)
	}
	return eventDone, nil
}

// powerUpdate follows a guest whose power was changed from outside. A server that is doing something else, or a tag that says neither on nor
// off, leaves nothing to follow.
func (a api) powerUpdate(r *httpapi.Request, s *compute.Server, tag string) error {
	q := backend.Request{Op: compute.OpStart, Action: "start", TaskState: compute.TaskPoweringOn}
	switch tag {
	case "POWER_ON":
	case "POWER_OFF":
		q = backend.Request{Op: compute.OpStop, Action: "stop", TaskState: compute.TaskPoweringOff}
	default:
		return nil
	}
	if err := a.Accept(r, s, q); err != nil && fault.KindOf(err) != fault.Conflict {
		return err
	}
	return nil
}
