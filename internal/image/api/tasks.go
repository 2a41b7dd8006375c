package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/image/local"
	"kilonova/internal/policy"
)

func stamp(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.Format(clock.LayoutZ)
}

// taskView is a task document; lists leave input, result and message out.
func taskView(t *local.Task, whole bool) (map[string]any, error) {
	m := map[string]any{"id": t.ID, "type": t.Type, "status": t.Status, "owner": t.Owner, "created_at": stamp(t.Created), "updated_at": stamp(t.Updated),
		"expires_at": stamp(t.Expires), "self": "/v2/tasks/" + t.ID, "schema": "/v2/schemas/task", "image_id": t.ImageID, "request_id": t.RequestID,
		"user_id": t.UserID}
	if !whole {
		return m, nil
	}
	var in map[string]json.RawMessage
	if err := json.Unmarshal(t.Input, &in); err != nil {
		return nil, fmt.Errorf("task input: %w", err)
	}
	if m["input"] = any(in["import_req"]); t.Type == local.TaskAPIImport {
		m["input"] = map[string]any{"image_id": in["image_id"], "import_req": in["import_req"], "backend": in["backend"]}
	}
	m["result"], m["message"] = t.Result, t.Message
	return m, nil
}

func (a *api) importImage(r *httpapi.Request) (*httpapi.Reply, error) {
	var body struct {
		Method struct {
			Name string `json:"name"`
			URI  string `json:"uri"`
		} `json:"method"`
		Stores    []string `json:"stores"`
		AllStores bool     `json:"all_stores"`
		All       *bool    `json:"all_stores_must_succeed"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if body.Method.Name == "" {
		return nil, fault.New(fault.Invalid, "Specify the import method: {\"method\": {\"name\": \"glance-direct\"}}.")
	}
	rule := "modify_image"
	if body.Method.Name == local.CopyImage {
		rule = "copy_image"
	}
	rec, err := a.lookup(r, rule)
	if err != nil {
		return nil, err
	}
	q := local.ImportRequest{Method: body.Method.Name, URI: body.Method.URI, Stores: body.Stores, AllStores: body.AllStores, AllMustSucceed: body.All == nil || *body.All}
	if h := r.HTTP.Header.Get("X-Image-Meta-Store"); h != "" {
		if len(q.Stores) > 0 || q.AllStores {
			return nil, fault.New(fault.Invalid, "Stores parameter and x-image-meta-store header can't be both specified")
		}
		q.Stores = []string{h}
	}
	if _, err := a.s.Import(r.Context(), r.Caller, rec.ID, q, r.Body()); err != nil {
		return nil, err
	}
	return &httpapi.Reply{Status: http.StatusAccepted, Body: []byte{}}, nil
}

func (a *api) imageTasks(r *httpapi.Request) (*httpapi.Reply, error) {
	rec, err := a.lookup(r)
	if err != nil {
		return nil, err
	}
	if !manages(r, rec) {
		return nil, fault.New(fault.Forbidden, "The tasks of image %s are its owner's.", rec.ID)
	}
	tasks, err := a.s.Tasks(r.Context(), local.TaskQuery{ImageID: rec.ID})
	if err != nil {
		return nil, err
	}
	list := []any{}
	for _, t := range tasks {
		v, err := taskView(t, true)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return httpapi.OK(map[string]any{"tasks": list}), nil
}

func (a *api) listTasks(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := authorize(r, "get_tasks", r.Own()); err != nil {
		return nil, err
	}
	v := r.Query()
	limit, err := a.limit(v)
	if err != nil {
		return nil, err
	}
	q := local.TaskQuery{Type: v.Get("type"), Status: v.Get("status"), SortKey: v.Get("sort_key"), Asc: v.Get("sort_dir") == "asc", Marker: v.Get("marker"), Limit: limit}
	if !r.Caller.IsAdmin() {
		q.Owner = r.Caller.ProjectID
	}
	list := []any{}
	var tasks []*local.Task
	if limit > 0 {
		if tasks, err = a.s.Tasks(r.Context(), q); err != nil {
			return nil, err
		}
	}
	for _, t := range tasks {
		doc, err := taskView(t, false)
		if err != nil {
			return nil, err
		}
		list = append(list, doc)
	}
	out := map[string]any{"tasks": list, "first": pageLink("/v2/tasks", v, ""), "schema": "/v2/schemas/tasks"}
	if len(tasks) > 0 && len(tasks) == limit {
		out["next"] = pageLink("/v2/tasks", v, tasks[len(tasks)-1].ID)
	}
	return httpapi.OK(out), nil
}

func (a *api) showTask(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := authorize(r, "get_task", r.Own()); err != nil {
		return nil, err
	}
	t, err := a.s.Task(r.Context(), r.Path("id"))
	if err != nil {
		return nil, err
	}
	if !r.Caller.IsAdmin() && t.Owner != r.Caller.ProjectID {
		return nil, fault.New(fault.NotFound, "No task found with ID %.100s", r.Path("id"))
	}
	v, err := taskView(t, true)
	return httpapi.OK(v), err
}

func (a *api) createTask(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := authorize(r, "add_task", r.Own()); err != nil {
		return nil, err
	}
	var body struct {
		Type  string         `json:"type"`
		Input map[string]any `json:"input"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if props, ok := body.Input["image_properties"].(map[string]any); ok {
		if v, _ := props["visibility"].(string); v != "" {
			if err := mayPublish(r, v, policy.Target{"project_id": r.Caller.ProjectID}); err != nil {
				return nil, err
			}
		}
		for name := range props {
			if err := forbidName(name); err != nil {
				return nil, err
			}
		}
	}
	t, err := a.s.NewTask(r.Context(), r.Caller, body.Type, body.Input)
	if err != nil {
		return nil, err
	}
	v, err := taskView(t, true)
	if err != nil {
		return nil, err
	}
	return httpapi.Created(v).With("Location", r.Base+"/v2/tasks/"+t.ID), nil
}
