package subresource

import (
	"slices"
	"strings"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/api/view"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/operation"
)

// visibleActions loads the server, deleted ones too from 2.21, and its actions, newest first.
func (a api) visibleActions(r *httpapi.Request, rule string) (*compute.Server, []operation.Record, error) {
	load := a.Server
	if backend.Minor(r) >= 21 {
		load = a.ServerAny
	}
	s, err := load(r, "server_id", backend.Rule("os-instance-actions:"+rule))
	if err != nil {
		return nil, nil, err
	}
	records, err := a.Reader.ByObject(r.Context(), s.ID)
	return s, records, err
}

func (a api) listActions(r *httpapi.Request) (*httpapi.Reply, error) {
	s, records, err := a.visibleActions(r, "list")
	if err != nil {
		return nil, err
	}
	minor, q := backend.Minor(r), r.Query()
	doc := map[string]any{}
	if minor >= 58 {
		page, err := a.Page(q)
		if err != nil {
			return nil, err
		}
		if records, err = between(records, httpapi.Last(q, "changes-since"), httpapi.Last(q, "changes-before")); err != nil {
			return nil, err
		}
		if page.Marker != "" {
			at := slices.IndexFunc(records, func(o operation.Record) bool { return o.RequestID == page.Marker })
			if at < 0 {
				return nil, fault.New(fault.Invalid, "Marker %s could not be found.", page.Marker)
			}
			records = records[at+1:]
		}
		if page.Zero {
			records = nil
		}
		if len(records) >= page.Limit && page.Limit > 0 {
			records = records[:page.Limit]
			doc["links"] = backend.Links(r).Next("/servers/"+s.ID+"/os-instance-actions", q, records[len(records)-1].RequestID)
		}
	}
	list := []map[string]any{}
	for i := range records {
		list = append(list, actionView(&records[i], minor))
	}
	doc["instanceActions"] = list
	return body(doc)
}

// between keeps the records that changed in a range of times. They are shown with their microseconds, so nothing is rounded.
func between(records []operation.Record, since, before string) ([]operation.Record, error) {
	var from, to time.Time
	var err error
	if since != "" {
		if from, err = backend.Time("changes-since", since); err != nil {
			return nil, err
		}
	}
	if before != "" {
		if to, err = backend.Time("changes-before", before); err != nil {
			return nil, err
		}
		if to.Before(from) {
			return nil, fault.New(fault.Invalid, "The value of changes-since must be less than or equal to changes-before.")
		}
	}
	return slices.DeleteFunc(records, func(o operation.Record) bool {
		return !from.IsZero() && o.Updated.Before(from) || !to.IsZero() && o.Updated.After(to)
	}), nil
}

func actionView(o *operation.Record, minor int) map[string]any {
	m := map[string]any{"action": o.Action, "instance_uuid": o.Object, "request_id": o.RequestID, "user_id": o.User, "project_id": o.Project,
		"start_time": o.Accepted.Format(clock.LayoutMicro), "message": nil}
	if o.State == operation.Undone || o.State == operation.Attention || o.State == operation.Undoing {
		m["message"] = "Error"
	}
	if minor >= 58 {
		m["updated_at"] = o.Updated.Format(clock.LayoutMicro)
	}
	return m
}

func (a api) showAction(r *httpapi.Request) (*httpapi.Reply, error) {
	s, records, err := a.visibleActions(r, "show")
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(records, func(o operation.Record) bool { return o.RequestID == r.Path("id") })
	if at < 0 {
		return nil, fault.New(fault.NotFound, "Action for request_id %s on instance %s not found", r.Path("id"), s.ID)
	}
	minor, target := backend.Minor(r), backend.Target(s.ProjectID, s.UserID)
	doc := actionView(&records[at], minor)
	all := r.Allowed(backend.Rule("os-instance-actions:events"), target)
	if all || minor >= 51 {
		full, err := a.Reader.Show(r.Context(), records[at].ID)
		if err != nil {
			return nil, err
		}
		e := eventView{minor: minor, project: s.ProjectID, all: all, details: r.Allowed(backend.Rule("os-instance-actions:events:details"), target)}
		events := []map[string]any{}
		for i := range full.Steps {
			if st := &full.Steps[i]; !st.Undo {
				for name := range strings.FieldsSeq(st.Event) {
					events = append(events, e.of(st, name))
				}
			}
		}
		slices.Reverse(events) // newest first
		doc["events"] = events
	}
	return body(map[string]any{"instanceAction": doc})
}

// eventView makes the documents of events for a caller.
type eventView struct {
	minor        int
	project      string
	all, details bool
}

func (e eventView) of(st *operation.StepRecord, name string) map[string]any {
	m := map[string]any{"event": name, "start_time": st.Started.Format(clock.LayoutMicro), "finish_time": nil, "result": nil}
	if !st.Finished.IsZero() {
		m["finish_time"] = st.Finished.Format(clock.LayoutMicro)
		m["result"] = map[bool]string{true: "Success", false: "Error"}[st.Succeeded]
	}
	if e.all {
		m["traceback"] = nil
		if st.Error != "" && !st.Finished.IsZero() {
			m["traceback"] = st.Error
		}
	}
	if e.minor >= 62 {
		m["hostId"] = view.HostID(e.project, st.Host)
		if e.all {
			m["host"] = st.Host
		}
	}
	if e.minor >= 84 && e.details {
		m["details"] = nil
		if st.Public != "" && !st.Finished.IsZero() && !st.Succeeded {
			m["details"] = st.Public
		}
	}
	return m
}
