// Package image is the image service's nouns and the interface through which the other parts of Kilonova use it.
package image

import (
	"context"
	"io"
	"time"

	"kilonova/internal/auth"
)

// Status of an image (Glance v2).
const (
	Queued      = "queued"
	Saving      = "saving"
	Importing   = "importing"
	Uploading   = "uploading"
	Active      = "active"
	Killed      = "killed"
	Deactivated = "deactivated"
	Deleted     = "deleted"
)

// Image is one image record.
type Image struct {
	ID, Name, Status, Visibility, Owner string
	DiskFormat, ContainerFormat         string
	Checksum, HashAlgo, HashValue       string // md5; sha512 and its value
	Size, VirtualSize                   int64  // bytes; -1: not known yet
	MinDisk, MinRAM                     int64  // GB, MB
	Protected, Hidden                   bool
	Tags                                []string
	Properties                          map[string]string
	Created, Updated                    time.Time
}

// Service is what compute needs of the image service. Errors: fault.NotFound for an image the caller cannot see, fault.Forbidden for one that
// it may not change, fault.Conflict for a wrong status.
type Service interface {
	Get(ctx context.Context, c *auth.Caller, id string) (*Image, error)
	List(ctx context.Context, c *auth.Caller, filters map[string]string) ([]Image, error)
	// Create records a queued image (ID is honoured when set; creating the same ID for the same owner again gives the record
	// that is there, so that a repeated step is harmless).
	Create(ctx context.Context, c *auth.Caller, img Image) (*Image, error)
	// Update replaces name, visibility, properties, tags, min_disk, min_ram and protected.
	Update(ctx context.Context, c *auth.Caller, img Image) (*Image, error)
	// Upload stores the data; the image becomes active. size -1: not known.
	Upload(ctx context.Context, c *auth.Caller, id string, r io.Reader, size int64) error
	// Download gives the whole data. The reader fails when the data does not have the recorded checksum.
	Download(ctx context.Context, c *auth.Caller, id string) (*Image, io.ReadCloser, error)
	Delete(ctx context.Context, c *auth.Caller, id string) error
}
