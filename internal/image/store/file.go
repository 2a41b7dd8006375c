package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"syscall"

	"kilonova/internal/fault"
	"kilonova/internal/id"
)

const (
	dataDir  = "data"
	tempDir  = "tmp"
	lockName = ".lock"
	copySize = 256 << 10
)

// File keeps each key as one file of a directory. Data is written beside it, synced and renamed, so that a key either is not
// there or is whole.
type File struct {
	name string
	dir  string
	root *os.Root
	lock *os.File
}

// NewFile opens the store of a directory, which is made when it is not there. Only the owner may read it.
func NewFile(name, dir string) (*File, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("image store %s: %w", name, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("image store %s: %w", name, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("image store %s: %w", name, err)
	}
	f := &File{name: name, dir: dir, root: root}
	for _, sub := range []string{dataDir, tempDir} {
		if err := root.MkdirAll(sub, 0o700); err != nil {
			return nil, errors.Join(fmt.Errorf("image store %s: %w", name, err), root.Close())
		}
	}
	if f.lock, err = root.OpenFile(lockName, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("image store %s: %w", name, err), root.Close())
	}
	return f, nil
}

// Join registers this process as a user of the directory and tells whether it is the only one. When alone is true the
// directory stays reserved until Share is called: the time to sweep.
func (f *File) Join() (alone bool, err error) {
	err = syscall.Flock(int(f.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return true, nil
	}
	if !errors.Is(err, syscall.EWOULDBLOCK) {
		return false, fmt.Errorf("lock image store %s: %w", f.name, err)
	}
	return false, f.Share()
}

// Share lets other processes use the directory too.
func (f *File) Share() error {
	if err := syscall.Flock(int(f.lock.Fd()), syscall.LOCK_SH); err != nil {
		return fmt.Errorf("lock image store %s: %w", f.name, err)
	}
	return nil
}

// Close gives up the directory. Readers that are open stay so.
func (f *File) Close() error { return errors.Join(f.lock.Close(), f.root.Close()) }

// Name is the identifier that clients see.
func (f *File) Name() string { return f.name }

// Type is "file".
func (f *File) Type() string { return "file" }

// ReadOnly is false.
func (f *File) ReadOnly() bool { return false }

// URL is file:// and the path.
func (f *File) URL(key string) string {
	return (&url.URL{Scheme: "file", Path: filepath.Join(f.dir, dataDir, key)}).String()
}

// Put writes, syncs and renames; see Store.
func (f *File) Put(ctx context.Context, key string, r io.Reader) (int64, error) {
	if err := checkKey(key); err != nil {
		return 0, err
	}
	temp := filepath.Join(tempDir, key+"."+id.Secret(4))
	w, err := f.root.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, f.broken("create", err)
	}
	n, err := f.fill(ctx, w, r)
	if err == nil {
		if err = f.root.Rename(temp, filepath.Join(dataDir, key)); err != nil {
			err = f.broken("rename", err)
		} else if err = f.syncDir(dataDir); err != nil {
			_ = f.root.Remove(filepath.Join(dataDir, key)) // the error in hand says more
		}
	}
	if err != nil {
		_ = f.root.Remove(temp) // what stays is swept at the next start
		return 0, err
	}
	return n, nil
}

// fill copies and syncs; it tells r's failures from the disk's.
func (f *File) fill(ctx context.Context, w *os.File, r io.Reader) (int64, error) {
	in := &source{r: interrupted{ctx, r}}
	n, err := io.CopyBuffer(struct{ io.Writer }{w}, in, make([]byte, copySize))
	switch {
	case in.err != nil:
		return 0, errors.Join(in.err, w.Close())
	case err != nil:
		return 0, errors.Join(f.broken("write", err), w.Close())
	}
	if err := w.Sync(); err != nil {
		return 0, errors.Join(f.broken("sync", err), w.Close())
	}
	if err := w.Close(); err != nil {
		return 0, f.broken("close", err)
	}
	return n, nil
}

type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

func (f *File) syncDir(name string) error {
	d, err := f.root.Open(name)
	if err != nil {
		return f.broken("sync", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return f.broken("sync", err)
	}
	return nil
}

func (f *File) broken(what string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fault.Wrap(err, fault.TooLarge, "The image store %s has no room for the image.", f.name)
	}
	return fault.Wrap(fmt.Errorf("%s: %w", what, err), fault.Unavailable, "The image store %s could not be used. Try again later.", f.name)
}

// Open reads a part of a key.
func (f *File) Open(_ context.Context, key string, offset, length int64) (io.ReadCloser, int64, error) {
	if err := checkKey(key); err != nil {
		return nil, 0, err
	}
	r, err := f.root.Open(filepath.Join(dataDir, key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fault.Wrap(err, fault.NotFound, "The image data is not in the store %s.", f.name)
	}
	if err != nil {
		return nil, 0, f.broken("open", err)
	}
	st, err := r.Stat()
	if err == nil && offset > 0 {
		_, err = r.Seek(offset, io.SeekStart)
	}
	if err != nil {
		return nil, 0, errors.Join(f.broken("read", err), r.Close())
	}
	if length < 0 {
		return r, st.Size(), nil
	}
	return section{io.LimitReader(r, length), r}, st.Size(), nil
}

// Delete removes the file.
func (f *File) Delete(_ context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return nil //nolint:nilerr // such a key was never stored
	}
	if err := f.root.Remove(filepath.Join(dataDir, key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f.broken("delete", err)
	}
	return nil
}

// Sweep removes what a crash left: every unfinished file, and every key that keep does not want. It must only run while this
// process is alone in the directory (Join).
func (f *File) Sweep(keep func(key string) bool) (removed int, err error) {
	for _, sub := range []string{tempDir, dataDir} {
		d, e := f.root.Open(sub)
		if e != nil {
			return removed, f.broken("sweep", e)
		}
		names, e := d.Readdirnames(-1)
		if e = errors.Join(e, d.Close()); e != nil {
			return removed, f.broken("sweep", e)
		}
		for _, name := range names {
			if sub == dataDir && keep(name) {
				continue
			}
			if e := f.root.RemoveAll(filepath.Join(sub, name)); e != nil {
				return removed, f.broken("sweep", e)
			}
			removed++
		}
	}
	return removed, nil
}

// Keys lists every key.
func (f *File) Keys() ([]string, error) {
	d, err := f.root.Open(dataDir)
	if err != nil {
		return nil, f.broken("list", err)
	}
	names, err := d.Readdirnames(-1)
	if err = errors.Join(err, d.Close()); err != nil {
		return nil, f.broken("list", err)
	}
	return names, nil
}
