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
	Name   string `json:"name"`
	Server string `json:"server_uuid"`
	Status string `json:"status"`
	Tag    string `json:"tag,omitempty"`
	Code   int    `json:"code"`
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
	switch {
	case good == len(in.Events):
		return status(http.StatusOK, map[string]any{"events": in.Events})
	case good == 0 && allCode(in.Events, eventNoServer):
		return nil, fault.New(fault.NotFound, "No instances found for any event")
	}
	return status(http.StatusMultiStatus, map[string]any{"events": in.Events})
}

func allCode(events []externalEvent, code int) bool {
	for _, e := range events {
		if e.Code != code {
			return false
		}
	}
	return true
}

func (a api) externalEvent(r *httpapi.Request, e *externalEvent) (int, error) {
	s, err := a.Store.Server(r.Context(), a.DB(), e.Server)
	if fault.KindOf(err) == fault.NotFound && err != nil {
		return eventNoServer, nil
	} else if err != nil {
		return 0, err
	}
	if s.Host == "" && !(e.Name == "network-vif-deleted" || e.Name == "network-changed") {
		return eventNoHost, nil
	}
	switch {
	case e.Name == "power-update":
		return a.powerUpdate(r, s, e.Tag)
	case strings.HasPrefix(e.Name, "network-"):
		return eventDone, a.refreshVIFs(r, s)
	}
	return eventDone, nil
}

// powerUpdate follows a guest whose power was changed from outside.
func (a api) powerUpdate(r *httpapi.Request, s *compute.Server, tag string) (int, error) {
	q := backend.Request{Op: compute.OpStart, Action: "start", TaskState: compute.TaskPoweringOn}
	switch tag {
	case "POWER_ON":
	case "POWER_OFF":
		q = backend.Request{Op: compute.OpStop, Action: "stop", TaskState: compute.TaskPoweringOff}
	default:
		return eventInvalid, nil
	}
	if err := a.Accept(r, s, q); fault.KindOf(err) == fault.Conflict && err != nil {
		return eventInvalid, nil
	} else if err != nil {
		return 0, err
	}
	return eventDone, nil
}
