package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"kilonova/internal/auth"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/image"
	"kilonova/internal/image/inspect"
)

// imageCache keeps verified image files under DIR/images/<id>.<format>. Images never change once active, so a file that is there is right.
type imageCache struct {
	dir    string
	images image.Service
	caller *auth.Caller
	flight singleflight.Group
	mu     sync.Mutex
	used   map[string]time.Time // by path
}

type cachedImage struct{ path, format string }

func newImageCache(dir string, images image.Service, caller *auth.Caller) *imageCache {
	return &imageCache{dir: filepath.Join(dir, "images"), images: images, caller: caller, used: map[string]time.Time{}}
}

// get gives an image's file, fetching it when it is not there. Callers who want the same image wait for one download.
func (c *imageCache) get(ctx context.Context, image string) (cachedImage, error) {
	if !id.IsUUID(image) {
		return cachedImage{}, fault.New(fault.Invalid, "%q is no image id.", image)
	}
	if f, ok := c.there(image); ok {
		c.touch(f.path)
		return f, nil
	}
	ch := c.flight.DoChan(image, func() (any, error) {
		if f, ok := c.there(image); ok { // another's download ended between the look above and this one
			return f, nil
		}
		return c.fetch(context.WithoutCancel(ctx), image)
	})
	select {
	case r := <-ch:
		if r.Err != nil {
			return cachedImage{}, r.Err
		}
		f := r.Val.(cachedImage)
		c.touch(f.path)
		return f, nil
	case <-ctx.Done():
		return cachedImage{}, ctx.Err()
	}
}

// there gives the file of an image that was fetched before.
func (c *imageCache) there(image string) (cachedImage, bool) {
	for _, format := range []string{"qcow2", "raw"} {
		f := cachedImage{filepath.Join(c.dir, image+"."+format), format}
		if _, err := os.Stat(f.path); err == nil {
			return f, true
		}
	}
	return cachedImage{}, false
}

func (c *imageCache) touch(path string) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.used[path]) > time.Minute {
		_ = os.Chtimes(path, now, time.Time{}) // the access time survives restarts; losing it only shortens the stay
	}
	c.used[path] = now
}

func (c *imageCache) fetch(ctx context.Context, image string) (cachedImage, error) {
	img, r, err := c.images.Download(ctx, c.caller, image)
	if err != nil {
		return cachedImage{}, fmt.Errorf("fetch image %s: %w", image, err)
	}
	defer func() { _ = r.Close() }()
	if img.DiskFormat != "qcow2" && img.DiskFormat != "raw" && img.DiskFormat != "iso" && img.DiskFormat != "ami" {
		return cachedImage{}, fault.New(fault.Invalid, "Image %s has the disk format %s, which this host cannot boot from: qcow2 and raw are possible.", image, img.DiskFormat)
	}
	if err := os.MkdirAll(c.dir, 0o711); err != nil {
		return cachedImage{}, fmt.Errorf("fetch image %s: %w", image, err)
	}
	tmp, err := os.CreateTemp(c.dir, ".fetch-*")
	if err != nil {
		return cachedImage{}, fmt.Errorf("fetch image %s: %w", image, err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	defer func() { _ = tmp.Close() }()
	size, err := io.Copy(tmp, r)
	if err != nil {
		return cachedImage{}, fmt.Errorf("fetch image %s: %w", image, err)
	}
	format := "raw"
	if img.DiskFormat == "qcow2" {
		format = "qcow2"
	}
	// The image service has looked already; this host believes only its own eyes, since a tool is about to open the file.
	if _, err := inspect.Check(tmp, size, inspect.Policy{Declared: img.DiskFormat}); err != nil {
		return cachedImage{}, fmt.Errorf("image %s: %w", image, err)
	}
	if err := errors.Join(tmp.Chmod(0o644), tmp.Sync()); err != nil {
		return cachedImage{}, fmt.Errorf("fetch image %s: %w", image, err)
	}
	path := filepath.Join(c.dir, image+"."+format)
	if err := os.Rename(tmp.Name(), path); err != nil {
		return cachedImage{}, fmt.Errorf("fetch image %s: %w", image, err)
	}
	return cachedImage{path, format}, nil
}

// pruneImages removes image files that no kept guest uses and nobody asked for within ImageAge, and what broken downloads left.
func (a *Agent) pruneImages(ctx context.Context) error {
	rows, err := a.cfg.DB.Query(ctx, "SELECT spec FROM agent_servers WHERE host = ? AND gone = 0", a.host)
	if err != nil {
		return fmt.Errorf("prune images: %w", err)
	}
	var specs strings.Builder
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			_ = rows.Close()
			return fmt.Errorf("prune images: %w", err)
		}
		specs.WriteString(s)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return fmt.Errorf("prune images: %w", err)
	}
	used := specs.String()
	files, err := os.ReadDir(a.cache.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("prune images: %w", err)
	}
	for _, f := range files {
		path := filepath.Join(a.cache.dir, f.Name())
		if strings.Contains(used, path) {
			_ = os.Chtimes(path, time.Time{}, time.Now()) // another host that shares the directory sees that it is in use
			continue
		}
		if a.cache.young(path, f, a.cfg.ImageAge) {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("prune images: %w", err)
		}
		a.log().Info("unused image removed from the cache", "file", f.Name())
	}
	return nil
}

func (c *imageCache) young(path string, f os.DirEntry, age time.Duration) bool {
	c.mu.Lock()
	t := c.used[path]
	c.mu.Unlock()
	if info, err := f.Info(); err == nil && info.ModTime().After(t) {
		t = info.ModTime()
	}
	return time.Since(t) < age
}
