package local_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kilonova/internal/auth"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/image"
	"kilonova/internal/image/local"
)

func me() *auth.Caller {
	return &auth.Caller{ProjectID: "p1", UserID: "u1", Roles: []string{"member", "reader"}, RequestID: "req-1"}
}

// place is a database and a directory that outlive services.
type place struct {
	t      *testing.T
	db     *db.DB
	dir    string
	path   string // of the database
	mu     sync.Mutex
	events []string
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{t: t, dir: filepath.Join(t.TempDir(), "images")}
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	p.path = filepath.Join(t.TempDir(), "t.db")
	d, err := db.Open(t.Context(), "sqlite:"+p.path)
	if err != nil {
		t.Fatal(err)
	}
	p.db = d
	t.Cleanup(func() { _ = d.Close() })
	return p
}

func (p *place) open() *local.Service {
	p.t.Helper()
	s, err := local.New(context.Background(), local.Config{DB: p.db, Dir: p.dir, Events: func(e local.Event) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.events = append(p.events, e.Type)
	}})
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

func (p *place) files() (names []string) {
	p.t.Helper()
	for _, sub := range []string{"file/data", "file/tmp", "staging/data", "staging/tmp"} {
		list, err := os.ReadDir(filepath.Join(p.dir, sub))
		if err != nil {
			p.t.Fatal(err)
		}
		for _, e := range list {
			names = append(names, sub+"/"+e.Name())
		}
	}
	return names
}

func (p *place) create(s *local.Service) string {
	p.t.Helper()
	img, err := s.Create(p.t.Context(), me(), image.Image{Name: "i", DiskFormat: "raw", ContainerFormat: "bare"})
	if err != nil {
		p.t.Fatal(err)
	}
	return img.ID
}

func (p *place) status(s *local.Service, id string) string {
	p.t.Helper()
	img, err := s.Get(p.t.Context(), me(), id)
	if err != nil {
		p.t.Fatal(err)
	}
	return img.Status
}

// stuck is a reader that gives some bytes and then waits until it is released, with an error.
type stuck struct {
	first   io.Reader
	reached chan struct{}
	release chan struct{}
	once    sync.Once
}

func newStuck(b []byte) *stuck {
	return &stuck{first: bytes.NewReader(b), reached: make(chan struct{}), release: make(chan struct{})}
}

func (r *stuck) Read(p []byte) (int, error) {
	if n, err := r.first.Read(p); err == nil {
		return n, nil
	}
	r.once.Do(func() { close(r.reached) })
	<-r.release
	return 0, errors.New("the connection broke")
}

// snapshot copies the place as a crash at this instant would leave it: the database as committed, the files as they are.
func (p *place) snapshot() *place {
	p.t.Helper()
	q := newPlace(p.t)
	if err := os.CopyFS(filepath.Join(q.dir, "copy"), os.DirFS(p.dir)); err != nil {
		p.t.Fatal(err)
	}
	q.dir = filepath.Join(q.dir, "copy")
	path := filepath.Join(p.t.TempDir(), "copy.db")
	if err := q.db.Close(); err != nil {
		p.t.Fatal(err)
	}
	raw, err := sql.Open("sqlite", "file:"+p.path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = raw.Close() }()
	if _, err := raw.ExecContext(p.t.Context(), "VACUUM INTO ?", path); err != nil {
		p.t.Fatal(err)
	}
	d, err := db.Open(p.t.Context(), "sqlite:"+path)
	if err != nil {
		p.t.Fatal(err)
	}
	q.db = d
	p.t.Cleanup(func() { _ = d.Close() })
	return q
}

func TestCrashDuringUpload(t *testing.T) {
	p := newPlace(t)
	s := p.open()
	keep, cut, staging := p.create(s), p.create(s), p.create(s)
	data := bytes.Repeat([]byte("k"), 100_000)
	if err := s.Upload(t.Context(), me(), keep, bytes.NewReader(data), -1); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	readers := []*stuck{newStuck(data), newStuck(data)}
	wg.Go(func() { _ = s.Upload(t.Context(), me(), cut, readers[0], -1) })
	wg.Go(func() { _ = s.Stage(t.Context(), me(), staging, readers[1], -1) })
	for _, r := range readers {
		<-r.reached
	}
	if got := p.status(s, cut) + " " + p.status(s, staging); got != "saving uploading" {
		t.Fatal(got)
	}
	// A second process of the same directory must not disturb the first.
	second := p.open()
	if got := p.status(second, cut); got != image.Saving {
		t.Fatalf("a second process made a running upload %s", got)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	after := p.snapshot()
	if n := len(after.files()); n != 3 {
		t.Fatalf("the crash leaves %v", after.files())
	}
	orphan := filepath.Join(after.dir, "file/data", "0b1c1c2e-7f47-4c5c-9b60-6d2d0cbe3c11.aa")
	if err := os.WriteFile(orphan, []byte("stored, but its record was never written"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := after.open()
	defer func() { _ = again.Close() }()
	if got := after.status(again, keep) + " " + after.status(again, cut) + " " + after.status(again, staging); got != "active queued queued" {
		t.Fatal(got)
	}
	if left := after.files(); len(left) != 1 || !strings.Contains(left[0], keep) {
		t.Fatalf("left: %v", left)
	}
	if err := again.Upload(t.Context(), me(), cut, bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal("an interrupted image can not be uploaded again: ", err)
	}
	for _, r := range readers {
		close(r.release)
	}
	wg.Wait()
	if got := p.status(s, cut) + " " + p.status(s, staging); got != "queued queued" {
		t.Fatalf("after broken connections: %s", got)
	}
	if left := p.files(); len(left) != 1 {
		t.Fatalf("left: %v", left)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestDeleteDuringUpload(t *testing.T) {
	p := newPlace(t)
	s := p.open()
	defer func() { _ = s.Close() }()
	id := p.create(s)
	pr, pw := io.Pipe()
	errs := make(chan error, 1)
	go func() { errs <- s.Upload(context.Background(), me(), id, pr, -1) }()
	if _, err := pw.Write(make([]byte, 300_000)); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), me(), id); err != nil {
		t.Fatal(err)
	}
	_ = pw.Close()
	if err := <-errs; !errors.Is(err, fault.Gone) {
		t.Fatalf("want gone, got %v", err)
	}
	if left := p.files(); len(left) != 0 {
		t.Fatalf("left: %v", left)
	}
	if _, err := s.Get(t.Context(), me(), id); !errors.Is(err, fault.NotFound) {
		t.Fatal("a deleted image came back: ", err)
	}
}

func TestOnlyOneOfManyUploadsWins(t *testing.T) {
	p := newPlace(t)
	s := p.open()
	defer func() { _ = s.Close() }()
	id := p.create(s)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() {
			errs[i] = s.Upload(t.Context(), me(), id, bytes.NewReader(bytes.Repeat([]byte{byte(i)}, 50_000)), 50_000)
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, fault.Conflict) {
			t.Errorf("a loser got %v", err)
		}
	}
	if won != 1 || len(p.files()) != 1 {
		t.Fatalf("%d uploads won, files %v", won, p.files())
	}
}

func TestAcceptedImportSurvivesCrash(t *testing.T) {
	p := newPlace(t)
	s := p.open()
	id := p.create(s)
	data := bytes.Repeat([]byte("imported"), 20_000)
	if err := s.Stage(t.Context(), me(), id, bytes.NewReader(data), -1); err != nil {
		t.Fatal(err)
	}
	// The service stops before it can work on what it accepts: the task stays in the database.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	task, err := s.Import(t.Context(), me(), id, local.ImportRequest{Method: local.GlanceDirect, AllMustSucceed: true}, []byte(`{"method":{"name":"glance-direct"}}`))
	if err != nil {
		t.Fatal(err)
	}
	again := p.open()
	defer func() { _ = again.Close() }()
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if got, err := again.Task(t.Context(), task.ID); err != nil {
			t.Fatal(err)
		} else if got.Status == local.TaskSuccess {
			break
		}
	}
	if got := p.status(again, id); got != image.Active {
		t.Fatal(got)
	}
	_, r, err := again.Download(t.Context(), me(), id)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatal(len(got), err)
	}
	_ = r.Close()
	left := p.files()
	for end := time.Now().Add(5 * time.Minute); len(left) != 1 && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		left = p.files() // what was staged goes after the task has succeeded
	}
	if len(left) != 1 {
		t.Fatalf("left: %v", left)
	}
}

func TestUnknownDirectoryIsNotSwept(t *testing.T) {
	p := newPlace(t)
	s := p.open()
	id := p.create(s)
	if err := s.Upload(t.Context(), me(), id, strings.NewReader("data"), -1); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before := p.files()
	wrong := newPlace(t) // an empty database, by mistake, over the directory of another
	wrong.dir = p.dir
	s2 := wrong.open()
	if err := s2.Close(); err != nil {
		t.Fatal(err)
	}
	if after := p.files(); !slices.Equal(before, after) {
		t.Fatalf("files of another database were swept: %v, now %v", before, after)
	}
}

func TestCorruptDataIsNotGiven(t *testing.T) {
	p := newPlace(t)
	s := p.open()
	defer func() { _ = s.Close() }()
	for name, damage := range map[string]func([]byte) []byte{
		"bit": func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, "short": func(b []byte) []byte { return b[:len(b)-1] },
		"long": func(b []byte) []byte { return append(b, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			id := p.create(s)
			data := bytes.Repeat([]byte("x"), 200_000)
			if err := s.Upload(t.Context(), me(), id, bytes.NewReader(data), -1); err != nil {
				t.Fatal(err)
			}
			for _, f := range p.files() {
				if strings.Contains(f, id) {
					if err := os.WriteFile(filepath.Join(p.dir, f), damage(bytes.Clone(data)), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			_, r, err := s.Download(t.Context(), me(), id)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = r.Close() }()
			got, err := io.ReadAll(r)
			if err == nil || len(got) >= len(data) {
				t.Fatalf("%d damaged bytes were given as good: %v", len(got), err)
			}
		})
	}
}

func TestEventsComeInOrder(t *testing.T) {
	p := newPlace(t)
	s := p.open()
	id := p.create(s)
	if err := s.Upload(t.Context(), me(), id, strings.NewReader("data"), -1); err != nil {
		t.Fatal(err)
	}
	if err := s.Upload(t.Context(), me(), id, strings.NewReader("data"), -1); err == nil {
		t.Fatal("a second upload was taken")
	}
	if err := s.Delete(t.Context(), me(), id); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	want := []string{"image.create", "image.prepare", "image.upload", "image.activate", "image.delete"}
	if !slices.Equal(p.events, want) {
		t.Fatal(p.events)
	}
}
