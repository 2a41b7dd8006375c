package local

import (
	"context"
	"crypto/md5" //nolint:gosec // the API's checksum is MD5; integrity rests on SHA-512
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"kilonova/internal/auth"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/image"
	"kilonova/internal/image/inspect"
	"kilonova/internal/image/store"
)

const hashAlgo = "sha512"

// intake reads the data of an image on its way into a store: it counts, hashes, inspects and stops what must not come in.
type intake struct {
	r     io.Reader
	max   int64 // bytes; negative: no limit
	over  error // what to say when there are more
	sum   hash.Hash
	sha   hash.Hash
	look  inspect.Stream
	rules *inspect.Policy // nil: the content is not looked at
}

func (t *intake) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if n > 0 {
		t.take(p[:n])
		if t.max >= 0 && t.look.Size() > t.max {
			return 0, t.over
		}
		if t.rules != nil {
			if e := t.look.Early(*t.rules); e != nil {
				return 0, e
			}
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		var known *fault.Error
		if !errors.As(err, &known) {
			err = fault.Wrap(err, fault.Invalid, "The image data ended before its end. Send it again.")
		}
	}
	return n, err
}

// parallelFrom is the size from which the two hashes of a piece are worth two processors.
const parallelFrom = 16 << 10

// take hashes and inspects a piece.
func (t *intake) take(p []byte) {
	if len(p) < parallelFrom {
		_, _ = t.sha.Write(p)
	} else {
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = t.sha.Write(p)
		}()
		defer func() { <-done }()
	}
	_, _ = t.sum.Write(p)
	_, _ = t.look.Write(p)
}

// content is what an intake learned.
type content struct {
	size, virtual  int64
	checksum, hash string
	location       Location
}

func (s *Service) intake(r io.Reader, rec *Record, room int64) *intake {
	t := &intake{r: r, max: s.cfg.MaxSize, sum: md5.New(), sha: sha512.New(), rules: s.rules(rec)} //nolint:gosec // see the import
	t.over = fault.New(fault.TooLarge, "Image exceeds the storage limit of %d bytes for one image.", s.cfg.MaxSize)
	if room >= 0 && (t.max < 0 || room < t.max) {
		t.max = room
		t.over = fault.New(fault.TooLarge, "Image exceeds the storage quota of its project: %d bytes are left.", room)
	}
	return t
}

func (s *Service) rules(r *Record) *inspect.Policy {
	// Archives are not disks: what is in them is judged by whoever unpacks them.
	wrapped := !slices.Contains([]string{"bare", "ami", "ari", "aki"}, r.ContainerFormat)
	return &inspect.Policy{Declared: r.DiskFormat, MaxVirtual: max(s.cfg.MaxVirtual, 0), Wrapped: wrapped || s.cfg.AnyFormat}
}

// put streams data into a store under a new key and gives what it learned. When it fails nothing is kept.
func (s *Service) put(ctx context.Context, st store.Store, imageID string, t *intake) (content, error) {
	key := imageID + "." + id.Secret(4)
	n, err := st.Put(ctx, key, t)
	if err != nil {
		return content{}, err
	}
	c := content{size: n, checksum: hex.EncodeToString(t.sum.Sum(nil)), hash: hex.EncodeToString(t.sha.Sum(nil)), location: Location{Store: st.Name(), Key: key}}
	if t.rules != nil {
		info, err := t.look.Check(*t.rules)
		if err != nil {
			s.discard("", c.location)
			return content{}, err
		}
		c.virtual = info.VirtualSize
	}
	return c, nil
}

// room is how many bytes the image may have by its project's quota; -1: any number.
func (s *Service) room(ctx context.Context, owner string) (int64, error) {
	if s.cfg.QuotaBytes <= 0 {
		return -1, nil
	}
	u, err := s.Usage(ctx, owner)
	return max(0, s.cfg.QuotaBytes-u.Bytes), err
}

// UploadOptions says more about data that is sent.
type UploadOptions struct {
	Size  int64  // bytes that must come; negative: not known
	Store string // "" is the default
}

// Upload implements image.Service.
func (s *Service) Upload(ctx context.Context, c *auth.Caller, imageID string, r io.Reader, size int64) error {
	if _, err := s.mine(ctx, c, imageID); err != nil {
		return err
	}
	return s.Save(ctx, c, imageID, r, UploadOptions{Size: size})
}

// begin reserves a queued image for one writer and gives the token that the end must show.
func (s *Service) begin(ctx context.Context, c *auth.Caller, imageID, status string, o UploadOptions) (*Record, int64, error) {
	if s.cfg.MaxSize > 0 && o.Size > s.cfg.MaxSize {
		return nil, 0, fault.New(fault.TooLarge, "Image exceeds the storage limit of %d bytes for one image.", s.cfg.MaxSize)
	}
	token := id.Secret(8)
	r, err := s.Change(ctx, imageID, func(r *Record) error {
		if r.Status != image.Queued || len(r.Locations) > 0 {
			return fault.New(fault.Conflict, "Image %s has the status %s; data is only taken for a queued image.", imageID, r.Status)
		}
		if r.DiskFormat == "" || r.ContainerFormat == "" {
			return fault.New(fault.Invalid, "Properties disk_format, container_format must be set prior to saving data.")
		}
		r.Status, r.node, r.token = status, s.node, token
		return nil
	})
	if db.IsUncertain(err) {
		s.abandon(&Record{Image: image.Image{ID: imageID}, token: token})
	}
	if err != nil {
		return nil, 0, err
	}
	room, err := s.room(ctx, r.Owner)
	if err == nil && room >= 0 && o.Size > room {
		err = fault.New(fault.TooLarge, "Image exceeds the storage quota of its project: %d bytes are left.", room)
	}
	if err == nil && s.cfg.QuotaUploading > 0 {
		var u Usage
		if u, err = s.Usage(ctx, r.Owner); err == nil && u.Uploading > s.cfg.QuotaUploading {
			err = overQuota("image_count_uploading", s.cfg.QuotaUploading, u.Uploading-1, 1)
		}
	}
	if err != nil {
		s.abandon(r)
		return nil, 0, err
	}
	if status == image.Saving {
		s.event("image.prepare", c, r)
	}
	return r, room, nil
}

// holds tells whether the upload that r began still owns the image.
func (r *Record) holds(now *Record) error {
	if now.token != r.token {
		return fault.New(fault.Gone, "The image %s was changed by another request during the upload; the data is dropped.", r.ID)
	}
	return nil
}

// Save stores the data of a queued image, which becomes active. It fails with fault.Conflict for another status, fault.Invalid
// for content that is refused, fault.TooLarge for too much, fault.Gone when the image was deleted meanwhile; the image is
// then queued as before and nothing of the data is kept.
func (s *Service) Save(ctx context.Context, c *auth.Caller, imageID string, data io.Reader, o UploadOptions) error {
	st, err := s.writable(o.Store)
	if err != nil {
		return err
	}
	r, room, err := s.begin(ctx, c, imageID, image.Saving, o)
	if err != nil {
		return err
	}
	got, err := s.put(ctx, st, imageID, s.intake(data, r, room))
	if err == nil && o.Size >= 0 && got.size != o.Size {
		s.discard("", got.location)
		err = fault.New(fault.Invalid, "%d bytes came although %d were announced.", got.size, o.Size)
	}
	if err != nil {
		s.abandon(r)
		return err
	}
	done, err := s.activate(r, got)
	if err != nil {
		return err
	}
	s.event("image.upload", c, done)
	s.event("image.activate", c, done)
	return nil
}

// activate writes down that the data is there. The caller may have gone: what is stored is kept all the same.
func (s *Service) activate(r *Record, got content) (done *Record, err error) {
	err = s.settle(func(ctx context.Context) (err error) {
		done, err = s.Change(ctx, r.ID, func(now *Record) error {
			if now.names(got.location) {
				return nil // an earlier try was committed
			}
			if err := r.holds(now); err != nil {
				return err
			}
			now.Status, now.node, now.token = image.Active, "", ""
			now.take(got)
			now.Locations = []Location{got.location}
			return nil
		})
		return err
	}, func() {
		s.discard("", got.location)
		s.abandon(r)
	})
	if errors.Is(err, fault.NotFound) {
		err = fault.New(fault.Gone, "The image %s was deleted during the upload; the data is dropped.", r.ID)
	}
	return done, err
}

func (r *Record) take(got content) {
	r.Size, r.VirtualSize, r.Checksum, r.HashAlgo, r.HashValue = got.size, got.virtual, got.checksum, hashAlgo, got.hash
}

// Stage keeps the data of a queued image for an import; its status becomes uploading.
func (s *Service) Stage(ctx context.Context, c *auth.Caller, imageID string, data io.Reader, size int64) error {
	r, room, err := s.begin(ctx, c, imageID, image.Uploading, UploadOptions{Size: size})
	if err != nil {
		return err
	}
	if s.cfg.QuotaStaged > 0 {
		u, err := s.Usage(ctx, r.Owner)
		if err != nil || u.Staged >= s.cfg.QuotaStaged {
			s.abandon(r)
			return errors.Join(err, overQuota("image_stage_total", s.cfg.QuotaStaged, u.Staged, max(size, 1)))
		}
	}
	if err := s.fillStage(ctx, r, data, room); err != nil {
		s.abandon(r)
		return err
	}
	return nil
}

// fillStage writes the staging file and its name into the record.
func (s *Service) fillStage(ctx context.Context, r *Record, data io.Reader, room int64) error {
	t := s.intake(data, r, room)
	t.rules = nil // judged by the import, which can tell the user in the task
	key := r.ID + "." + id.Secret(4)
	n, err := s.stage.Put(ctx, key, t)
	if err != nil {
		return err
	}
	err = s.settle(func(ctx context.Context) error {
		_, err := s.Change(ctx, r.ID, func(now *Record) error {
			if now.staged == key {
				return nil // an earlier try was committed
			}
			if err := r.holds(now); err != nil {
				return err
			}
			now.staged, now.stagedSize, now.token = key, n, "" // the node stays: only it can reach the file
			return nil
		})
		return err
	}, func() { s.discard(key) })
	if errors.Is(err, fault.NotFound) {
		err = fault.New(fault.Gone, "The image %s was deleted during the upload; the data is dropped.", r.ID)
	}
	return err
}

// Download implements image.Service.
func (s *Service) Download(ctx context.Context, c *auth.Caller, imageID string) (*image.Image, io.ReadCloser, error) {
	r, err := s.Lookup(ctx, c, imageID)
	if err != nil {
		return nil, nil, err
	}
	if r.Status == image.Deactivated && !c.IsAdmin() {
		return nil, nil, fault.New(fault.Forbidden, "The image %s is deactivated.", imageID)
	}
	if len(r.Locations) == 0 {
		return nil, nil, fault.New(fault.Conflict, "The image %s has no data yet: its status is %s.", imageID, r.Status)
	}
	data, err := s.Data(ctx, r, 0, -1)
	return &r.Image, data, err
}

// Data opens the data of an image from offset on, length bytes of it (-1: all). The whole is checked against the recorded
// hash: its last bytes are only given when it is right.
func (s *Service) Data(ctx context.Context, r *Record, offset, length int64) (io.ReadCloser, error) {
	err := error(fault.New(fault.NotFound, "No image data could be found"))
	for _, l := range r.Locations {
		st := s.store(l.Store)
		if st == nil {
			err = fault.New(fault.Unavailable, "The store %s of image %s is not configured here.", l.Store, r.ID)
			continue
		}
		var data io.ReadCloser
		if data, _, err = st.Open(ctx, l.Key, offset, length); err != nil {
			s.log.Warn("open image data", "image_id", r.ID, "store", l.Store, "error", err)
			continue
		}
		if offset == 0 && length < 0 && r.HashAlgo == hashAlgo && r.HashValue != "" && r.Size >= 0 {
			return &verified{ReadCloser: data, left: r.Size, sum: sha512.New(), want: r.HashValue, id: r.ID}, nil
		}
		return data, nil
	}
	return nil, err
}

// verified checks size and hash on the way.
type verified struct {
	io.ReadCloser
	left int64
	sum  hash.Hash
	want string
	id   string
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	_, _ = v.sum.Write(p[:n])
	v.left -= int64(n)
	end := errors.Is(err, io.EOF)
	if v.left < 0 || end && v.left > 0 || v.left == 0 && n > 0 && hex.EncodeToString(v.sum.Sum(nil)) != v.want {
		return 0, fmt.Errorf("image %s: %w", v.id, errCorrupt)
	}
	return n, err
}

var errCorrupt = errors.New("the stored data does not have the recorded size and checksum")

// RemoveLocation takes one copy of an image away; the last one cannot go.
func (s *Service) RemoveLocation(ctx context.Context, c *auth.Caller, imageID, storeName string) error {
	if s.store(storeName) == nil {
		return fault.New(fault.NotFound, "There is no store with the identifier %.100s.", storeName)
	}
	var gone []Location
	r, err := s.Change(ctx, imageID, func(r *Record) error {
		keep := slices.DeleteFunc(slices.Clone(r.Locations), func(l Location) bool { return l.Store == storeName })
		switch {
		case len(keep) == len(r.Locations):
			return fault.New(fault.NotFound, "Image %s is not stored in store %s.", imageID, storeName)
		case len(keep) == 0:
			return fault.New(fault.Forbidden, "Image %s has its only copy in store %s. Delete the image instead.", imageID, storeName)
		}
		gone = slices.DeleteFunc(slices.Clone(r.Locations), func(l Location) bool { return l.Store != storeName })
		r.Locations = keep
		return nil
	})
	if db.IsUncertain(err) {
		s.unclaimed(imageID, "", gone, func() {})
	}
	if err != nil {
		return err
	}
	s.discard("", gone...)
	s.event("image.update", c, r)
	return nil
}

// Probe judges a web address that shall become a location and gives its size (-1: the server does not tell). The data is not
// inspected: whoever reads it must.
func (s *Service) Probe(ctx context.Context, url string) (int64, error) {
	data, size, err := s.web.Open(ctx, url, 0, -1)
	if err != nil {
		if errors.Is(err, fault.Unavailable) || errors.Is(err, fault.NotFound) {
			err = fault.Wrap(err, fault.Invalid, "The location %.200s can not be read.", url)
		}
		return 0, err
	}
	return size, data.Close()
}
