package local

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"kilonova/internal/auth"
	"kilonova/internal/clock"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/image"
)

// Task types and statuses.
const (
	TaskImport    = "import"           // POST /v2/tasks
	TaskAPIImport = "api_image_import" // POST /v2/images/{id}/import

	TaskPending    = "pending"
	TaskProcessing = "processing"
	TaskSuccess    = "success"
	TaskFailure    = "failure"
)

// taskLife is how long a finished task can be looked at.
const taskLife = 48 * time.Hour

// Task is work on an image that outlives its request.
type Task struct {
	ID, Type, Status, Owner, UserID, RequestID, ImageID string
	Input, Result                                       json.RawMessage
	Message                                             string
	Created, Updated, Expires                           time.Time
}

const taskColumns = "id, type, status, owner, user_id, request_id, image_id, input, result, message, created_at, updated_at, expires_at"

func scanTask(row scanner) (*Task, error) {
	var t Task
	var input, result string
	var created, updated, expires int64
	if err := row.Scan(&t.ID, &t.Type, &t.Status, &t.Owner, &t.UserID, &t.RequestID, &t.ImageID, &input, &result, &t.Message, &created, &updated, &expires); err != nil {
		return nil, err
	}
	t.Input, t.Result = json.RawMessage(input), json.RawMessage(result)
	t.Created, t.Updated, t.Expires = clock.FromMicros(created), clock.FromMicros(updated), clock.FromMicros(expires)
	return &t, nil
}

// Task gives a task by id.
func (s *Service) Task(ctx context.Context, taskID string) (*Task, error) {
	t, err := scanTask(s.db.QueryRow(ctx, "SELECT "+taskColumns+" FROM image_tasks WHERE id = ?", taskID))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fault.New(fault.NotFound, "No task found with ID %.100s", taskID)
	}
	if err != nil {
		return nil, fmt.Errorf("read task: %w", err)
	}
	return t, nil
}

// TaskQuery selects tasks; empty fields ask for nothing.
type TaskQuery struct {
	ImageID, Owner, Type, Status string
	SortKey                      string // created_at when empty
	Asc                          bool
	Marker                       string
	Limit                        int // 0 or less: no limit
}

// Tasks lists tasks, the newest first unless asked otherwise.
func (s *Service) Tasks(ctx context.Context, q TaskQuery) ([]*Task, error) {
	var w conditions
	for _, f := range []struct{ col, v string }{{"image_id", q.ImageID}, {"owner", q.Owner}, {"type", q.Type}, {"status", q.Status}} {
		if f.v != "" {
			w.add(f.col+" = ?", f.v)
		}
	}
	key := q.SortKey
	switch key {
	case "":
		key = "created_at"
	case "id", "type", "status", "created_at", "updated_at", "expires_at":
	default:
		return nil, fault.New(fault.Invalid, "Invalid sort key: %.50s", key)
	}
	p := page{key: key, desc: !q.Asc, limit: q.Limit, from: "SELECT " + taskColumns + " FROM image_tasks"}
	if q.Marker != "" {
		m, err := s.Task(ctx, q.Marker)
		if err != nil {
			return nil, fault.Wrap(err, fault.Invalid, "The marker %.50s is no task in the list.", q.Marker)
		}
		p.after = map[string]any{"id": m.ID, "type": m.Type, "status": m.Status, "created_at": clock.Micros(m.Created), "updated_at": clock.Micros(m.Updated),
			"expires_at": clock.Micros(m.Expires)}
	}
	return listPage(ctx, s.db, "tasks", p, w, scanTask)
}

func newTask(c *auth.Caller, kind, imageID string, input any) (*Task, error) {
	b, err := json.Marshal(input)
	if err != nil {
		return nil, fmt.Errorf("task input: %w", err)
	}
	t := &Task{ID: id.UUID(), Type: kind, Status: TaskPending, Owner: c.ProjectID, UserID: c.UserID, RequestID: c.RequestID, ImageID: imageID,
		Input: b, Result: json.RawMessage("null"), Created: clock.Now()}
	t.Updated = t.Created
	return t, nil
}

// insertTask writes a new task and drops those whose time is over.
func (s *Service) insertTask(ctx context.Context, tx *db.Tx, t *Task) error {
	if _, err := tx.Exec(ctx, "DELETE FROM image_tasks WHERE expires_at > 0 AND expires_at < ?", clock.Micros(t.Created)); err != nil {
		return fmt.Errorf("drop old tasks: %w", err)
	}
	_, err := tx.Exec(ctx, "INSERT INTO image_tasks ("+taskColumns+", node) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", t.ID, t.Type, t.Status, t.Owner, t.UserID,
		t.RequestID, t.ImageID, string(t.Input), string(t.Result), t.Message, clock.Micros(t.Created), clock.Micros(t.Updated), int64(0), s.node)
	return err
}

// setTask writes how a task goes. It is part of a transaction that also changes the image, so that both agree.
func setTask(ctx context.Context, tx *db.Tx, taskID, status, message string, result any) error {
	b, err := json.Marshal(result)
	if err != nil {
		return err
	}
	now, expires := clock.Now(), time.Time{}
	if status == TaskSuccess || status == TaskFailure {
		expires = now.Add(taskLife)
	}
	_, err = tx.Exec(ctx, "UPDATE image_tasks SET status = ?, message = ?, result = ?, updated_at = ?, expires_at = ? WHERE id = ?", status, message, string(b),
		clock.Micros(now), clock.Micros(expires), taskID)
	return err
}

// launch runs a task in the background; at most a few at once.
func (s *Service) launch(taskID string) {
	s.behind(func() {
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
		case <-s.ctx.Done():
			return
		}
		if err := s.run(s.ctx, taskID); err != nil && s.ctx.Err() == nil {
			s.log.Error("image task", "task_id", taskID, "error", err)
		}
	})
}

// resumeTasks starts again what the last process of this directory had accepted and not finished.
func (s *Service) resumeTasks(ctx context.Context) error {
	rows, err := s.db.Query(ctx, "SELECT id FROM image_tasks WHERE status IN (?, ?) AND node = ? ORDER BY created_at", TaskPending, TaskProcessing, s.node)
	if err != nil {
		return fmt.Errorf("list open tasks: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var taskID string
		if err := rows.Scan(&taskID); err != nil {
			return fmt.Errorf("list open tasks: %w", err)
		}
		s.launch(taskID)
	}
	return rows.Err()
}

// NewTask accepts a task of POST /v2/tasks. The only type is import: an image with the given properties is made from a web
// address. Input: import_from, import_from_format, image_properties.
func (s *Service) NewTask(ctx context.Context, c *auth.Caller, kind string, input map[string]any) (*Task, error) {
	if kind != TaskImport {
		return nil, fault.New(fault.Invalid, "Invalid task type: %.50s. The type import is known.", kind)
	}
	from, _ := input["import_from"].(string)
	format, _ := input["import_from_format"].(string)
	props, ok := input["image_properties"].(map[string]any)
	if from == "" || format == "" || !ok {
		return nil, fault.New(fault.Invalid, "Input does not contain import_from, import_from_format and image_properties.")
	}
	if _, err := s.cfg.Web.Check(from); err != nil {
		return nil, err
	}
	img := image.Image{Owner: c.ProjectID, DiskFormat: format, ContainerFormat: "bare", Properties: map[string]string{}}
	for k, v := range props {
		text := fmt.Sprint(v)
		switch k {
		case "name":
			img.Name = text
		case "disk_format":
			img.DiskFormat = text
		case "container_format":
			img.ContainerFormat = text
		case "visibility":
			img.Visibility = text
		default:
			img.Properties[k] = text
		}
	}
	r, err := s.Add(ctx, c, img)
	if err != nil {
		return nil, err
	}
	return s.accept(ctx, c, TaskImport, r.ID, ImportRequest{Method: WebDownload, URI: from, AllMustSucceed: true}, input)
}
