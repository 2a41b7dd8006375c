package local

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"kilonova/internal/auth"
	"kilonova/internal/clock"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/image"
)

// The visibilities.
const (
	Public    = "public"
	Private   = "private"
	Shared    = "shared"
	Community = "community"
)

// Reserved is the prefix of properties that only the service sets.
const Reserved = "os_glance_"

// DiskFormats and ContainerFormats are the values that images may have.
func DiskFormats() []string {
	return []string{"ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop"}
}

// ContainerFormats lists the container formats.
func ContainerFormats() []string {
	return []string{"ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"}
}

func (s *Service) check(r *Record) error {
	switch {
	case !slices.Contains([]string{Public, Private, Shared, Community}, r.Visibility):
		return fault.New(fault.Invalid, "Visibility must be public, private, shared or community, not %.50q.", r.Visibility)
	case utf8.RuneCountInString(r.Name) > 255:
		return fault.New(fault.Invalid, "The image name is longer than 255 characters.")
	case len(r.Owner) > 255:
		return fault.New(fault.Invalid, "The owner is longer than 255 characters.")
	case r.DiskFormat != "" && !slices.Contains(DiskFormats(), r.DiskFormat):
		return fault.New(fault.Invalid, "Invalid disk format '%.50s' for image. These are known: %s.", r.DiskFormat, strings.Join(DiskFormats(), ", "))
	case r.ContainerFormat != "" && !slices.Contains(ContainerFormats(), r.ContainerFormat):
		return fault.New(fault.Invalid, "Invalid container format '%.50s' for image. These are known: %s.", r.ContainerFormat,
			strings.Join(ContainerFormats(), ", "))
	case r.MinDisk < 0 || r.MinRAM < 0 || r.MinDisk > 1<<31-1 || r.MinRAM > 1<<31-1:
		return fault.New(fault.Invalid, "min_disk and min_ram must be between 0 and 2147483647.")
	case s.cfg.MaxTags > 0 && len(r.Tags) > s.cfg.MaxTags:
		return fault.New(fault.TooLarge, "The limit has been exceeded on the number of allowed image tags. Attempted: %d, Maximum: %d", len(r.Tags), s.cfg.MaxTags)
	case s.cfg.MaxLocations > 0 && len(r.Locations) > s.cfg.MaxLocations:
		return fault.New(fault.TooLarge, "The limit has been exceeded on the number of allowed image locations. Attempted: %d, Maximum: %d",
			len(r.Locations), s.cfg.MaxLocations)
	}
	return s.checkTexts(r)
}

func (s *Service) checkTexts(r *Record) error {
	own := 0
	for k, v := range r.Properties {
		if !strings.HasPrefix(k, Reserved) {
			own++
		}
		if k == "" || utf8.RuneCountInString(k) > 255 || len(v) > 65535 {
			return fault.New(fault.Invalid, "The property %.50q is too long: names have up to 255 characters, values up to 65535 bytes.", k)
		}
	}
	if s.cfg.MaxProperties > 0 && own > s.cfg.MaxProperties {
		return fault.New(fault.TooLarge, "The limit has been exceeded on the number of allowed image properties. Attempted: %d, Maximum: %d",
			own, s.cfg.MaxProperties)
	}
	seen := map[string]bool{}
	for _, t := range r.Tags {
		if t == "" || utf8.RuneCountInString(t) > 255 {
			return fault.New(fault.Invalid, "A tag has between 1 and 255 characters.")
		}
		if seen[t] {
			return fault.New(fault.Invalid, "The tag %.100q stands twice.", t)
		}
		seen[t] = true
	}
	for _, text := range []string{r.Name, r.Owner, r.ID} {
		if strings.ContainsRune(text, 0) || !utf8.ValidString(text) {
			return fault.New(fault.Invalid, "A value holds characters that are not allowed.")
		}
	}
	return nil
}

// Add records a queued image. Empty ID and Visibility are filled in; the owner stays as given. It fails with
// fault.Conflict when the ID is in use.
func (s *Service) Add(ctx context.Context, c *auth.Caller, img image.Image) (*Record, error) {
	r := &Record{Image: img}
	if r.ID == "" {
		r.ID = id.UUID()
	}
	if !id.IsUUID(r.ID) || len(r.ID) != 36 {
		return nil, fault.New(fault.Invalid, "The image id must be a UUID in the usual form with dashes.")
	}
	if r.Visibility == "" {
		r.Visibility = Shared
	}
	r.Status, r.Size, r.VirtualSize = image.Queued, -1, -1
	r.Checksum, r.HashAlgo, r.HashValue = "", "", ""
	r.Properties, r.Tags = maps.Clone(img.Properties), slices.Clone(img.Tags)
	r.Created = clock.Now()
	r.Updated = r.Created
	if err := s.check(r); err != nil {
		return nil, err
	}
	err := s.db.Write(ctx, func(tx *db.Tx) error {
		if s.cfg.QuotaImages > 0 {
			var n int64
			if err := tx.QueryRow(ctx, "SELECT COUNT(*) FROM image_images WHERE owner = ?", r.Owner).Scan(&n); err != nil {
				return fmt.Errorf("count images: %w", err)
			}
			if n >= s.cfg.QuotaImages {
				return overQuota("image_count_total", s.cfg.QuotaImages, n, 1)
			}
		}
		return insert(ctx, tx, r)
	})
	if db.IsDuplicate(err) {
		return nil, fault.New(fault.Conflict, "Image ID %s already exists!", r.ID)
	}
	if err != nil {
		return nil, err
	}
	s.event("image.create", c, r)
	return r, nil
}

func overQuota(what string, limit, used, asked int64) error {
	return fault.New(fault.TooLarge, "Resource %s is over limit of %d due to current usage %d and delta %d", what, limit, used, asked)
}

// Lookup gives an image that the caller may see: any for admin; public and community ones, the project's own, and those
// shared with the project for others. For all else it fails as if the image were not there.
func (s *Service) Lookup(ctx context.Context, c *auth.Caller, imageID string) (*Record, error) {
	r, err := s.Find(ctx, imageID)
	if err != nil {
		return nil, err
	}
	ok, err := s.sees(ctx, c, r)
	if err == nil && !ok {
		err = missing(imageID)
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (s *Service) sees(ctx context.Context, c *auth.Caller, r *Record) (bool, error) {
	switch {
	case c.IsAdmin(), r.Visibility == Public, r.Visibility == Community, Owns(c, r):
		return true, nil
	case r.Visibility != Shared || c == nil || c.ProjectID == "":
		return false, nil
	}
	_, err := s.Member(ctx, r.ID, c.ProjectID)
	if errors.Is(err, fault.NotFound) {
		return false, nil
	}
	return err == nil, err
}

// Owns tells whether the image is the caller's project's.
func Owns(c *auth.Caller, r *Record) bool {
	return c != nil && c.ProjectID != "" && c.ProjectID == r.Owner
}

// mine is Lookup for those who may also change the image.
func (s *Service) mine(ctx context.Context, c *auth.Caller, imageID string) (*Record, error) {
	r, err := s.Lookup(ctx, c, imageID)
	if err != nil {
		return nil, err
	}
	if !c.IsAdmin() && !Owns(c, r) {
		return nil, fault.New(fault.Forbidden, "The image %s belongs to another project.", imageID)
	}
	return r, nil
}

// Get implements image.Service.
func (s *Service) Get(ctx context.Context, c *auth.Caller, imageID string) (*image.Image, error) {
	r, err := s.Lookup(ctx, c, imageID)
	if err != nil {
		return nil, err
	}
	return &r.Image, nil
}

// Create implements image.Service.
func (s *Service) Create(ctx context.Context, c *auth.Caller, img image.Image) (*image.Image, error) {
	if img.Owner == "" || !c.IsAdmin() {
		img.Owner = c.ProjectID
	}
	if img.Visibility == Public && !c.IsAdmin() {
		return nil, fault.New(fault.Forbidden, "Only an administrator may make an image public.")
	}
	r, err := s.Add(ctx, c, img)
	if errors.Is(err, fault.Conflict) {
		old, ferr := s.Find(ctx, img.ID)
		if ferr == nil && old.Owner == img.Owner {
			return &old.Image, nil
		}
	}
	if err != nil {
		return nil, err
	}
	return &r.Image, nil
}

// Update implements image.Service.
func (s *Service) Update(ctx context.Context, c *auth.Caller, img image.Image) (*image.Image, error) {
	old, err := s.mine(ctx, c, img.ID)
	if err != nil {
		return nil, err
	}
	if img.Visibility == Public && old.Visibility != Public && !c.IsAdmin() {
		return nil, fault.New(fault.Forbidden, "Only an administrator may make an image public.")
	}
	r, err := s.Edit(ctx, c, img.ID, func(r *Record) error {
		r.Name, r.MinDisk, r.MinRAM, r.Protected = img.Name, img.MinDisk, img.MinRAM, img.Protected
		if img.Visibility != "" {
			r.Visibility = img.Visibility
		}
		r.Tags = slices.Clone(img.Tags)
		props := maps.Clone(img.Properties)
		if props == nil {
			props = map[string]string{}
		}
		for k := range props {
			if strings.HasPrefix(k, Reserved) {
				delete(props, k)
			}
		}
		for k, v := range r.Properties {
			if strings.HasPrefix(k, Reserved) {
				props[k] = v
			}
		}
		r.Properties = props
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &r.Image, nil
}

// Edit is Change with the checks of a user's update.
func (s *Service) Edit(ctx context.Context, c *auth.Caller, imageID string, fn func(*Record) error) (*Record, error) {
	r, err := s.Change(ctx, imageID, func(r *Record) error {
		if err := fn(r); err != nil {
			return err
		}
		return s.check(r)
	})
	if err != nil {
		return nil, err
	}
	s.event("image.update", c, r)
	return r, nil
}

// Delete implements image.Service.
func (s *Service) Delete(ctx context.Context, c *auth.Caller, imageID string) error {
	if _, err := s.mine(ctx, c, imageID); err != nil {
		return err
	}
	return s.Remove(ctx, c, imageID)
}

// Remove deletes an image and its data. It fails with fault.Forbidden for a protected one. An upload that is under way ends
// with fault.Gone and leaves nothing.
func (s *Service) Remove(ctx context.Context, c *auth.Caller, imageID string) error {
	var r *Record
	err := s.db.Write(ctx, func(tx *db.Tx) (err error) {
		if r, err = read(ctx, tx, imageID, tx.ForUpdate()); err != nil {
			return err
		}
		if r.Protected {
			return fault.New(fault.Forbidden, "Image %s is protected and cannot be deleted.", imageID)
		}
		for _, q := range []string{"DELETE FROM image_tags WHERE image_id = ?", "DELETE FROM image_properties WHERE image_id = ?",
			"DELETE FROM image_members WHERE image_id = ?", "DELETE FROM image_images WHERE id = ?"} {
			if _, err := tx.Exec(ctx, q, imageID); err != nil {
				return fmt.Errorf("delete image: %w", err)
			}
		}
		return nil
	})
	deleted := func() {
		r.Status = image.Deleted
		s.event("image.delete", c, r)
	}
	if db.IsUncertain(err) && r != nil {
		s.unclaimed(imageID, r.staged, r.Locations, deleted)
	}
	if err != nil {
		return err
	}
	s.discard(r.staged, r.Locations...)
	deleted()
	return nil
}

// discard removes data that no record names any more. What cannot be removed now is swept at the next start.
func (s *Service) discard(staged string, locations ...Location) {
	ctx := context.WithoutCancel(s.ctx)
	if staged != "" {
		if err := s.stage.Delete(ctx, staged); err != nil {
			s.log.Warn("remove staged image data", "key", staged, "error", err)
		}
	}
	for _, l := range locations {
		if st := s.store(l.Store); st != nil {
			if err := st.Delete(ctx, l.Key); err != nil {
				s.log.Warn("remove image data", "store", l.Store, "key", l.Key, "error", err)
			}
		}
	}
}

// Deactivate forbids downloads of an active image to all but admin; doing it twice is harmless.
func (s *Service) Deactivate(ctx context.Context, c *auth.Caller, imageID string) error {
	return s.flip(ctx, c, imageID, image.Active, image.Deactivated, "image.deactivate")
}

// Reactivate allows downloads again.
func (s *Service) Reactivate(ctx context.Context, c *auth.Caller, imageID string) error {
	return s.flip(ctx, c, imageID, image.Deactivated, image.Active, "image.reactivate")
}

func (s *Service) flip(ctx context.Context, c *auth.Caller, imageID, from, to, event string) error {
	r, err := s.Change(ctx, imageID, func(r *Record) error {
		if r.Status != from && r.Status != to {
			return fault.New(fault.Invalid, "Not allowed to change the status of image %s from %s to %s.", imageID, r.Status, to)
		}
		r.Status = to
		return nil
	})
	if err == nil {
		s.event(event, c, r)
	}
	return err
}
