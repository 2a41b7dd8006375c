// Package store keeps the bytes of images: a small interface, files in a directory, and read-only web addresses.
//
// What it promises: a Put that returned nil is on the disk, whole, and survives the loss of power; a Put that failed left
// nothing that is ever read; nothing outside the store's directory is reachable by any key; and no method holds an image in memory.
package store

import (
	"context"
	"io"
	"regexp"

	"kilonova/internal/fault"
)

// Store is one place for image data.
type Store interface {
	Name() string // the identifier that clients see
	Type() string // "file", "http"
	ReadOnly() bool
	// Put stores what r gives until its end under a key that is not in use and tells the number of bytes. It fails with r's
	// error when r fails, with fault.Forbidden on a read-only store, with fault.Unavailable when the place is full or broken.
	Put(ctx context.Context, key string, r io.Reader) (int64, error)
	// Open reads length bytes from offset on (length -1: to the end) and tells the size of the whole. It fails with fault.NotFound.
	Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, int64, error)
	// Delete removes a key; one that is not there is success.
	Delete(ctx context.Context, key string) error
	// URL is the address of a key as image locations show it.
	URL(key string) string
}

var keyPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

func checkKey(key string) error {
	if !keyPattern.MatchString(key) {
		return fault.New(fault.NotFound, "There is no image data under this name.")
	}
	return nil
}

// section is a reader of a part with the closer of the whole.
type section struct {
	io.Reader
	io.Closer
}

// interrupted makes r fail once ctx is done.
type interrupted struct {
	ctx context.Context
	r   io.Reader
}

func (i interrupted) Read(p []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	return i.r.Read(p)
}
