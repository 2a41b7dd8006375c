package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"kilonova/internal/auth"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/image"
)

// The import methods.
const (
	GlanceDirect = "glance-direct" // from the staging area
	WebDownload  = "web-download"  // from a web address
	CopyImage    = "copy-image"    // of an active image into further stores
)

// Properties that tell how an import goes.
const (
	propImporting = Reserved + "importing_to_stores"
	propFailed    = Reserved + "failed_import"
	propTask      = Reserved + "import_task"
)

// ImportRequest is the body of POST /v2/images/{id}/import.
type ImportRequest struct {
	Method, URI    string
	Stores         []string // empty: the default store
	AllStores      bool
	AllMustSucceed bool // otherwise one store is enough
}

// taskInput is what a task needs to run again after a crash. The fields that clients see come first.
type taskInput struct {
	ImageID   string          `json:"image_id"`
	ImportReq json.RawMessage `json:"import_req"`
	Backend   []string        `json:"backend"`
	Method    string          `json:"method"`
	URI       string          `json:"uri,omitempty"`
	All       bool            `json:"all_stores_must_succeed"`
}

// Import accepts an import: the image is importing and a task will end it, whatever happens to this process. It fails with
// fault.Conflict for a wrong status and fault.Invalid for a wrong request.
func (s *Service) Import(ctx context.Context, c *auth.Caller, imageID string, q ImportRequest, raw json.RawMessage) (*Task, error) {
	return s.accept(ctx, c, TaskAPIImport, imageID, q, raw)
}

func (s *Service) accept(ctx context.Context, c *auth.Caller, kind, imageID string, q ImportRequest, raw any) (*Task, error) {
	targets, err := s.targets(q)
	if err != nil {
		return nil, err
	}
	req, err := json.Marshal(raw)
	if err != nil {
		return nil, fmt.Errorf("import request: %w", err)
	}
	t, err := newTask(c, kind, imageID, taskInput{ImageID: imageID, ImportReq: req, Backend: targets, Method: q.Method, URI: q.URI, All: q.AllMustSucceed})
	if err != nil {
		return nil, err
	}
	err = s.db.Write(ctx, func(tx *db.Tx) error {
		_, err := change(ctx, tx, imageID, func(r *Record) error { return s.startImport(r, q, t, targets) })
		if err != nil {
			return err
		}
		return s.insertTask(ctx, tx, t)
	})
	if err == nil || db.IsUncertain(err) { // it is there, or may be
		s.launch(t.ID)
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

// targets resolves the stores of a request.
func (s *Service) targets(q ImportRequest) ([]string, error) {
	if !slices.Contains(s.cfg.Methods, q.Method) {
		return nil, fault.New(fault.Invalid, "Unknown import method name '%.50s'. These are known: %s.", q.Method, strings.Join(s.cfg.Methods, ", "))
	}
	if q.AllStores && len(q.Stores) > 0 {
		return nil, fault.New(fault.Invalid, "all_stores parameter can't be used with x-image-meta-store header or stores parameter")
	}
	if q.Method == WebDownload {
		if _, err := s.cfg.Web.Check(q.URI); err != nil {
			return nil, err
		}
	}
	names := slices.Clone(q.Stores)
	if q.AllStores {
		for _, st := range s.stores {
			if !st.ReadOnly() {
				names = append(names, st.Name())
			}
		}
	}
	if len(names) == 0 {
		names = []string{s.stores[0].Name()}
	}
	for _, n := range names {
		if _, err := s.writable(n); err != nil {
			return nil, err
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// startImport judges the image and puts it into its new state.
func (s *Service) startImport(r *Record, q ImportRequest, t *Task, targets []string) error {
	switch q.Method {
	case GlanceDirect:
		if r.Status != image.Uploading || r.staged == "" {
			return fault.New(fault.Conflict, "Image needs to be staged before 'glance-direct' method can be used")
		}
		r.Status = image.Importing
	case WebDownload:
		if r.Status != image.Queued {
			return fault.New(fault.Conflict, "Image needs to be in 'queued' state to use 'web-download' method")
		}
		r.Status = image.Importing
	case CopyImage:
		if r.Status != image.Active {
			return fault.New(fault.Conflict, "Only images with status active can be targeted for copying")
		}
		if r.token != "" {
			return fault.New(fault.Conflict, "Image %s is being copied already.", r.ID)
		}
		if q.AllMustSucceed && !q.AllStores {
			for _, l := range r.Locations {
				if slices.Contains(targets, l.Store) {
					return fault.New(fault.Invalid, "Image is already present at store '%s'", l.Store)
				}
			}
		}
		targets = absent(r, targets)
	}
	if r.DiskFormat == "" || r.ContainerFormat == "" {
		return fault.New(fault.Invalid, "'disk_format' and 'container_format' need to be set before import")
	}
	if r.node != "" && r.node != s.node {
		return fault.New(fault.Unavailable, "Image %s was staged at another image service process; send the import there.", r.ID)
	}
	r.node, r.token = s.node, t.ID
	r.Properties[propImporting], r.Properties[propFailed], r.Properties[propTask] = strings.Join(targets, ","), "", t.ID
	return nil
}

// absent gives the stores that do not have the image yet.
func absent(r *Record, targets []string) []string {
	return slices.DeleteFunc(slices.Clone(targets), func(n string) bool {
		return slices.ContainsFunc(r.Locations, func(l Location) bool { return l.Store == n })
	})
}

// errStop is the end of the service in the middle of a task: the next start goes on.
var errStop = errors.New("the service is stopping")

// run does a task to its end. Every step may be repeated: what an earlier run stored without writing it down is swept. While the database is away the task waits.
func (s *Service) run(ctx context.Context, taskID string) error {
	var t *Task
	err := s.insist(ctx, func(ctx context.Context) (err error) { t, err = s.Task(ctx, taskID); return err })
	if errors.Is(err, fault.NotFound) || err == nil && (t.Status == TaskSuccess || t.Status == TaskFailure) {
		return nil // it was never accepted, or ended
	}
	if err != nil {
		return err
	}
	var in taskInput
	if err := json.Unmarshal(t.Input, &in); err != nil {
		return fmt.Errorf("task input: %w", err)
	}
	var r *Record
	err = s.insist(ctx, func(ctx context.Context) (err error) {
		if err = s.db.Write(ctx, func(tx *db.Tx) error { return setTask(ctx, tx, t.ID, TaskProcessing, "", nil) }); err == nil {
			r, err = s.Find(ctx, in.ImageID)
		}
		return err
	})
	if err == nil && r.token != t.ID {
		err = fault.New(fault.Conflict, "The image was changed by another request.")
	}
	if err == nil {
		if in.Method == CopyImage {
			err = s.copyTo(ctx, t, r, in)
		} else {
			err = s.importTo(ctx, t, r, in)
		}
	}
	if ctx.Err() != nil {
		return errStop
	}
	if err != nil {
		return s.failImport(ctx, t, in, err)
	}
	return nil
}

// importTo brings staged or downloaded data into the stores and makes the image active.
func (s *Service) importTo(ctx context.Context, t *Task, r *Record, in taskInput) error {
	var room int64
	err := s.insist(ctx, func(ctx context.Context) (err error) { room, err = s.room(ctx, r.Owner); return err })
	if err != nil {
		return err
	}
	if r.staged == "" {
		if r, err = s.download(ctx, r, in.URI, room); err != nil {
			return err
		}
	}
	var got content
	var done []Location
	var failed []string
	var why error
	for _, name := range in.Backend {
		c, err := s.importOne(ctx, r, name, room)
		if ctx.Err() != nil {
			return errStop
		}
		if err != nil {
			failed, why = append(failed, name), err
			if in.All {
				s.discard("", done...)
				return err
			}
			continue
		}
		got = c
		done = append(done, c.location)
	}
	if len(done) == 0 {
		return why
	}
	return s.finishImport(ctx, t, r, got, done, failed)
}

func (s *Service) importOne(ctx context.Context, r *Record, name string, room int64) (content, error) {
	st, err := s.writable(name)
	if err != nil {
		return content{}, err
	}
	data, _, err := s.stage.Open(ctx, r.staged, 0, -1)
	if err != nil {
		return content{}, err
	}
	defer func() { _ = data.Close() }()
	return s.put(ctx, st, r.ID, s.intake(data, r, room))
}

// download fetches the web address into the staging area.
func (s *Service) download(ctx context.Context, r *Record, uri string, room int64) (*Record, error) {
	data, _, err := s.web.Open(ctx, uri, 0, -1)
	if err != nil {
		return nil, err
	}
	defer func() { _ = data.Close() }()
	t := s.intake(data, r, room)
	key := r.ID + "." + id.Secret(4)
	n, err := s.stage.Put(ctx, key, t)
	if err != nil {
		return nil, err
	}
	var now *Record
	err = s.insist(ctx, func(ctx context.Context) (err error) {
		now, err = s.Change(ctx, r.ID, func(now *Record) error {
			if err := r.holds(now); err != nil {
				return err
			}
			now.staged, now.stagedSize = key, n
			return nil
		})
		return err
	})
	if err != nil && !db.IsUncertain(err) {
		s.discard(key)
	}
	return now, err
}

// finishImport writes image and task down together.
func (s *Service) finishImport(ctx context.Context, t *Task, r *Record, got content, done []Location, failed []string) error {
	var now *Record
	err := s.insist(ctx, func(ctx context.Context) error {
		return s.db.Write(ctx, func(tx *db.Tx) (err error) {
			now, err = change(ctx, tx, r.ID, func(now *Record) error {
				if now.names(done[0]) {
					return nil // an earlier try was committed
				}
				if err := r.holds(now); err != nil {
					return err
				}
				now.Status, now.node, now.token, now.staged, now.stagedSize = image.Active, "", "", "", 0
				now.take(got)
				now.Locations = done
				now.Properties[propImporting], now.Properties[propFailed] = "", strings.Join(failed, ",")
				return nil
			})
			if err != nil {
				return err
			}
			return setTask(ctx, tx, t.ID, TaskSuccess, "", map[string]string{"image_id": r.ID})
		})
	})
	if err != nil {
		if !db.IsUncertain(err) {
			s.discard("", done...)
		}
		return err
	}
	s.discard(r.staged)
	s.event("image.upload", nil, now)
	s.event("image.activate", nil, now)
	return nil
}

// copyTo brings an active image into further stores, one after the other; each that is done stays.
func (s *Service) copyTo(ctx context.Context, t *Task, r *Record, in taskInput) error {
	var failed []string
	var why error
	for _, name := range absent(r, in.Backend) {
		loc, err := s.copyOne(ctx, r, name)
		if ctx.Err() != nil {
			return errStop
		}
		if err != nil {
			failed, why = append(failed, name), err
			if in.All {
				return err
			}
		}
		err = s.insist(ctx, func(ctx context.Context) error {
			_, err := s.Change(ctx, r.ID, func(now *Record) error {
				if err := r.holds(now); err != nil {
					return err
				}
				if loc.Key != "" && !now.names(loc) {
					now.Locations = append(now.Locations, loc)
				}
				left := slices.DeleteFunc(strings.Split(now.Properties[propImporting], ","), func(n string) bool { return n == name })
				now.Properties[propImporting], now.Properties[propFailed] = strings.Join(left, ","), strings.Join(failed, ",")
				return nil
			})
			return err
		})
		if err != nil {
			if loc.Key != "" && !db.IsUncertain(err) {
				s.discard("", loc)
			}
			return err
		}
	}
	return s.insist(ctx, func(ctx context.Context) error {
		return s.db.Write(ctx, func(tx *db.Tx) error {
			if _, err := change(ctx, tx, r.ID, func(now *Record) error {
				if now.token == "" {
					return nil // an earlier try was committed
				}
				if err := r.holds(now); err != nil {
					return err
				}
				now.node, now.token = "", ""
				now.Properties[propImporting] = ""
				return nil
			}); err != nil {
				return err
			}
			message := ""
			if why != nil {
				message = fault.PublicText(why)
			}
			return setTask(ctx, tx, t.ID, TaskSuccess, message, map[string]string{"image_id": r.ID})
		})
	})
}

func (s *Service) copyOne(ctx context.Context, r *Record, name string) (Location, error) {
	st, err := s.writable(name)
	if err != nil {
		return Location{}, err
	}
	data, err := s.Data(ctx, r, 0, -1)
	if err != nil {
		return Location{}, err
	}
	defer func() { _ = data.Close() }()
	key := r.ID + "." + id.Secret(4)
	if _, err := st.Put(ctx, key, data); err != nil {
		return Location{}, err
	}
	return Location{Store: st.Name(), Key: key}, nil
}

// failImport writes down why a task failed. The image is queued again without its staged data, or, when it was being copied,
// active as before.
func (s *Service) failImport(ctx context.Context, t *Task, in taskInput, why error) error {
	var staged string
	err := s.insist(ctx, func(ctx context.Context) error {
		return s.db.Write(ctx, func(tx *db.Tx) error {
			_, err := change(ctx, tx, in.ImageID, func(now *Record) error {
				if now.token != t.ID {
					return fault.New(fault.Gone, "The image belongs to another request.")
				}
				staged = now.staged
				if in.Method != CopyImage {
					now.Status = image.Queued
				}
				now.node, now.token, now.staged, now.stagedSize = "", "", "", 0
				now.Properties[propFailed] = strings.Join(absent(now, in.Backend), ",")
				now.Properties[propImporting] = ""
				return nil
			})
			if err != nil && !errors.Is(err, fault.NotFound) && !errors.Is(err, fault.Gone) {
				return err
			}
			return setTask(ctx, tx, t.ID, TaskFailure, fault.PublicText(why), nil)
		})
	})
	if err != nil {
		return err
	}
	s.discard(staged)
	s.log.Info("image import failed", "image_id", in.ImageID, "task_id", t.ID, "method", in.Method, "error", why)
	return nil
}
