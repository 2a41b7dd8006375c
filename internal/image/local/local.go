// Package local is the built-in image service: metadata in SQL, data in stores.
//
// What it promises. An image is active exactly when its data is whole in a store, with the checksums that its record shows.
// A crash at any instant leaves an image either as it was before the request or with the request done: at the next start an
// image that was being uploaded is queued again, an import that was accepted is run again to its end, and every file that no
// record names is removed. Data is never held in memory as a whole. Nobody learns that an image exists which he may not see.
//
// What it does not promise: that two service processes which do not share a directory can serve each other's file stores.
package local

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"kilonova/internal/auth"
	"kilonova/internal/clock"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/image"
	"kilonova/internal/image/store"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Config says how a Service is made. The zero value of a limit means the default that is named; a negative one means none.
type Config struct {
	DB  *db.DB
	Dir string // holds the default store "file" and the staging area; used by any number of processes of one machine

	MaxSize        int64 // bytes of one image; default 1 TiB
	MaxVirtual     int64 // bytes of the disk that a guest sees; default 16 TiB
	MaxProperties  int   // default 128
	MaxTags        int   // default 128
	MaxMembers     int   // default 128
	MaxLocations   int   // default 10
	QuotaBytes     int64 // of all images of a project; default none
	QuotaImages    int64 // default none
	QuotaStaged    int64 // bytes in the staging area; default none
	QuotaUploading int64 // images that are being written at once; default none

	// AnyFormat switches off the comparison of content and disk_format (never the refusal of dangerous images).
	AnyFormat bool

	// Stores are further places for data beside the default store "file".
	Stores []store.Store
	// Web says which addresses web-download may read.
	Web store.Guard
	// Locations lets clients see and set where data lies; with it web addresses become the read-only store "http".
	Locations bool
	// Methods are the import methods offered; nil: glance-direct, web-download, copy-image.
	Methods []string

	// Events is told of each change after it is durable; may be nil. It must not block.
	Events func(Event)
	Log    *slog.Logger
}

// Event is a change of an image, named as the field's notifications are: image.create, image.update, image.delete,
// image.prepare (an upload begins), image.upload, image.activate, image.member.create, …
type Event struct {
	Type   string
	Image  image.Image
	Caller auth.Caller // empty for changes of the service itself
}

// Service is the image service. It implements image.Service; its further methods are for the REST API, which asks policy
// itself: they check states and limits, not rights, unless they say so.
type Service struct {
	cfg    Config
	db     *db.DB
	known  *db.Memo[string, *Record]
	log    *slog.Logger
	node   string // identity of Dir: what an interrupted upload belongs to
	file   *store.File
	stage  *store.File
	web    *store.Web
	stores []store.Store // default first

	ctx     context.Context // of background work
	stop    context.CancelFunc
	closing sync.Mutex // held to begin background work, and to end the context
	work    sync.WaitGroup
	slots   chan struct{} // of background tasks
}

var _ image.Service = (*Service)(nil)

// New opens the service: it brings the tables up to date, removes what a crash left, and goes on with imports that were
// accepted. Close ends it.
func New(ctx context.Context, cfg Config) (*Service, error) {
	setDefaults(&cfg)
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	if err := cfg.DB.Migrate(ctx, "image", sub); err != nil {
		return nil, err
	}
	s := &Service{slots: make(chan struct{}, 4), cfg: cfg, db: cfg.DB, known: db.NewMemo[string, *Record](cfg.DB, 1000, "image_images"), log: cfg.Log, web: store.NewWeb("http", cfg.Web)}
	if s.file, err = store.NewFile("file", filepath.Join(cfg.Dir, "file")); err != nil {
		return nil, err
	}
	if s.stage, err = store.NewFile("staging", filepath.Join(cfg.Dir, "staging")); err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	s.stores = append([]store.Store{s.file}, cfg.Stores...)
	if cfg.Locations {
		s.stores = append(s.stores, s.web)
	}
	s.ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	if s.node, err = nodeID(cfg.Dir); err == nil {
		err = s.start(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func setDefaults(c *Config) {
	for _, d := range []struct {
		v   *int64
		def int64
	}{{&c.MaxSize, 1 << 40}, {&c.MaxVirtual, 16 << 40}} {
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	for _, d := range []struct {
		v   *int
		def int
	}{{&c.MaxProperties, 128}, {&c.MaxTags, 128}, {&c.MaxMembers, 128}, {&c.MaxLocations, 10}} {
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	if c.Methods == nil {
		c.Methods = []string{GlanceDirect, WebDownload, CopyImage}
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
}

// nodeID reads the identity of a directory, making it at the first use. Two processes that start at once agree.
func nodeID(dir string) (string, error) {
	path := filepath.Join(dir, "node")
	for {
		b, err := os.ReadFile(path)
		if err == nil && len(b) > 0 {
			return strings.TrimSpace(string(b)), nil
		}
		temp := path + "." + id.Secret(4)
		if err := os.WriteFile(temp, []byte(id.UUID()+"\n"), 0o600); err != nil {
			return "", fmt.Errorf("image service: %w", err)
		}
		err = os.Link(temp, path) // fails when another was first
		_ = os.Remove(temp)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("image service: %w", err)
		}
	}
}

// Close stops background work and leaves the directory. Imports that are under way go on at the next start.
func (s *Service) Close() error {
	s.closing.Lock()
	s.stop()
	s.closing.Unlock()
	s.work.Wait()
	return errors.Join(s.file.Close(), s.stage.Close())
}

// directory is a store whose leavings after a crash can be told from what is owned.
type directory interface {
	Join() (alone bool, err error)
	Share() error
	Sweep(keep func(key string) bool) (removed int, err error)
}

// start recovers from a crash when this process is the first of the directory.
func (s *Service) start(ctx context.Context) error {
	dirs := map[string]directory{"": s.stage}
	for _, st := range s.stores {
		if d, ok := st.(directory); ok {
			dirs[st.Name()] = d
		}
	}
	alone := true
	for _, d := range dirs {
		first, err := d.Join()
		if err != nil {
			return err
		}
		alone = alone && first
	}
	if alone {
		if err := s.recover(ctx, dirs); err != nil {
			return err
		}
	}
	for _, d := range dirs {
		if err := d.Share(); err != nil {
			return err
		}
	}
	return nil
}

// recover resets interrupted uploads, sweeps the directories, and starts the open imports again.
func (s *Service) recover(ctx context.Context, dirs map[string]directory) error {
	if err := s.resetUploads(ctx); err != nil {
		return fmt.Errorf("reset interrupted uploads: %w", err)
	}
	owned, err := s.referenced(ctx)
	if err != nil {
		return fmt.Errorf("list image files: %w", err)
	}
	known, err := s.knowsDirectory(ctx)
	if err != nil {
		return err
	}
	total := 0
	for name, d := range dirs {
		if !known {
			continue // the files may belong to another database: a wrong setting must not cost them
		}
		n, err := d.Sweep(func(key string) bool { return owned[[2]string{name, key}] })
		if err != nil {
			return err
		}
		total += n
	}
	if total > 0 {
		s.log.Info("removed image files that no image owns", "files", total)
	}
	return s.resumeTasks(ctx)
}

// resetUploads makes images queued again whose upload or staging the last process of this directory did not finish.
func (s *Service) resetUploads(ctx context.Context) error {
	return s.db.Write(ctx, func(tx *db.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE image_images SET status = ?, token = '', node = '', size = -1, virtual_size = -1 WHERE node = ? AND token <> '' AND status IN (?, ?)",
			image.Queued, s.node, image.Saving, image.Uploading)
		return err
	})
}

// knowsDirectory tells whether this database has met the directory before, and notes it.
func (s *Service) knowsDirectory(ctx context.Context) (bool, error) {
	known := false
	err := s.db.Write(ctx, func(tx *db.Tx) error {
		var n int
		if err := tx.QueryRow(ctx, "SELECT COUNT(*) FROM image_directories WHERE node = ?", s.node).Scan(&n); err != nil {
			return fmt.Errorf("read image directories: %w", err)
		}
		if known = n > 0; known {
			return nil
		}
		_, err := tx.Exec(ctx, "INSERT INTO image_directories (node, created_at) VALUES (?, ?)", s.node, clock.Micros(clock.Now()))
		return err
	})
	return known, err
}

// referenced gives the pairs of store and key that records name; the staging area is the store "".
func (s *Service) referenced(ctx context.Context) (map[[2]string]bool, error) {
	owned := map[[2]string]bool{}
	rows, err := s.db.Query(ctx, "SELECT staged, doc FROM image_images")
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var key, text string
		if err := rows.Scan(&key, &text); err != nil {
			return nil, err
		}
		if key != "" {
			owned[[2]string{"", key}] = true
		}
		var d document
		if err := d.parse(text); err != nil {
			return nil, err
		}
		for _, l := range d.Locations {
			owned[[2]string{l.Store, l.Key}] = true
		}
	}
	return owned, rows.Err()
}

// StoreInfo is one place for data as clients see it.
type StoreInfo struct {
	ID, Type          string
	Default, ReadOnly bool
}

// Stores lists the places for data, the default one first.
func (s *Service) Stores() []StoreInfo {
	list := make([]StoreInfo, len(s.stores))
	for i, st := range s.stores {
		list[i] = StoreInfo{ID: st.Name(), Type: st.Type(), Default: i == 0, ReadOnly: st.ReadOnly()}
	}
	return list
}

// Methods are the import methods offered.
func (s *Service) Methods() []string { return s.cfg.Methods }

// ShowsLocations tells whether clients may see and set locations.
func (s *Service) ShowsLocations() bool { return s.cfg.Locations }

// LocationURL is the address of a location.
func (s *Service) LocationURL(l Location) string {
	if st := s.store(l.Store); st != nil {
		return st.URL(l.Key)
	}
	return l.Key
}

func (s *Service) store(name string) store.Store {
	for _, st := range s.stores {
		if st.Name() == name {
			return st
		}
	}
	return nil
}

// writable resolves the name of a store that data may be put into; "" is the default.
func (s *Service) writable(name string) (store.Store, error) {
	if name == "" {
		return s.stores[0], nil
	}
	st := s.store(name)
	if st == nil {
		return nil, fault.New(fault.Invalid, "There is no store with the identifier %s.", name)
	}
	if st.ReadOnly() {
		return nil, fault.New(fault.Invalid, "The store %s is read-only.", name)
	}
	return st, nil
}

func (s *Service) event(kind string, c *auth.Caller, r *Record) {
	if s.cfg.Events == nil {
		return
	}
	e := Event{Type: kind, Image: r.Image}
	if c != nil {
		e.Caller = *c
		e.Caller.Token = ""
	}
	s.cfg.Events(e)
}
