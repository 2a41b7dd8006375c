package api

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/image"
	"kilonova/internal/image/local"
)

// drainLimit is how much of a refused upload is still read, so that the client, which sends first and reads after, sees why.
const drainLimit = 32 << 20

// dataBody checks the headers of a request with image data and gives its size, -1 when it does not tell.
func dataBody(r *httpapi.Request) (int64, error) {
	kind, _, err := mime.ParseMediaType(r.HTTP.Header.Get("Content-Type"))
	if err != nil || kind != "application/octet-stream" {
		return 0, fault.New(fault.UnsupportedMedia, "Image data is sent as application/octet-stream.")
	}
	size := r.HTTP.ContentLength
	if h := r.HTTP.Header.Get("X-Openstack-Image-Size"); h != "" {
		n, err := strconv.ParseInt(h, 10, 64)
		if err != nil || n < 0 || size >= 0 && size != n {
			return 0, fault.New(fault.Invalid, "The header x-openstack-image-size does not fit the data.")
		}
		size = n
	}
	return size, nil
}

func (a *api) upload(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.receive(r, func(rec *local.Record, size int64) error {
		return a.s.Save(r.Context(), r.Caller, rec.ID, r.HTTP.Body, local.UploadOptions{Size: size, Store: r.HTTP.Header.Get("X-Image-Meta-Store")})
	})
}

func (a *api) stage(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.receive(r, func(rec *local.Record, size int64) error {
		return a.s.Stage(r.Context(), r.Caller, rec.ID, r.HTTP.Body, size)
	})
}

func (a *api) receive(r *httpapi.Request, keep func(rec *local.Record, size int64) error) (*httpapi.Reply, error) {
	err := func() error {
		size, err := dataBody(r)
		if err != nil {
			return err
		}
		rec, err := a.lookup(r, "upload_image")
		if err != nil {
			return err
		}
		return keep(rec, size)
	}()
	if err != nil {
		_, _ = io.CopyN(io.Discard, r.HTTP.Body, drainLimit) // a courtesy: the answer stands
	}
	return noContent(err)
}

func (a *api) download(r *httpapi.Request) (*httpapi.Reply, error) {
	rec, err := a.lookup(r, "download_image")
	if err != nil {
		return nil, err
	}
	if rec.Status == image.Deactivated && !r.Caller.IsAdmin() {
		return nil, fault.New(fault.Forbidden, "The requested image has been deactivated. Image data download is forbidden.")
	}
	if len(rec.Locations) == 0 {
		return noContent(nil)
	}
	offset, length, partial, err := byteRange(r.HTTP.Header.Get("Range"), rec.Size)
	if err != nil {
		return nil, err
	}
	reply := &httpapi.Reply{Status: http.StatusOK, Header: http.Header{}}
	want := int64(-1)
	if partial {
		reply.Status, want = http.StatusPartialContent, length
		reply.With("Content-Range", fmt.Sprintf("bytes %d-%d/%d", offset, offset+length-1, rec.Size))
		reply.With("Content-Length", strconv.FormatInt(length, 10))
	} else {
		if rec.Size >= 0 {
			reply.With("Content-Length", strconv.FormatInt(rec.Size, 10))
		}
		if rec.Checksum != "" {
			reply.With("Content-MD5", rec.Checksum)
		}
		if sum, err := hex.DecodeString(rec.HashValue); err == nil && rec.HashAlgo == "sha512" {
			reply.With("Repr-Digest", "sha-512=:"+base64.StdEncoding.EncodeToString(sum)+":")
		}
		reply.With("Accept-Ranges", "bytes")
	}
	data, err := a.s.Data(r.Context(), rec, offset, want)
	if err != nil {
		return nil, err
	}
	reply.Body = data
	return reply.With("Content-Type", "application/octet-stream"), nil
}

// byteRange reads a Range header with one range (RFC 9110). What it cannot read is ignored, as the RFC asks; a range that lies
// behind the end is a fault.RangeInvalid.
func byteRange(h string, size int64) (offset, length int64, partial bool, err error) {
	spec, ok := strings.CutPrefix(h, "bytes=")
	first, last, dash := strings.Cut(spec, "-")
	if !ok || !dash || size < 0 || strings.Contains(spec, ",") {
		return 0, size, false, nil
	}
	bad := func() error {
		e := fault.New(fault.RangeInvalid, "The range %.50s is not within the image of %d bytes.", h, size)
		e.Header = map[string]string{"Content-Range": fmt.Sprintf("bytes */%d", size)}
		return e
	}
	from, e1 := strconv.ParseUint(first, 10, 63)
	to, e2 := strconv.ParseUint(last, 10, 63)
	switch {
	case first == "" && e2 == nil: // the last bytes
		n := min(int64(to), size)
		if n == 0 {
			return 0, 0, false, bad()
		}
		return size - n, n, true, nil
	case e1 != nil || last != "" && e2 != nil || last != "" && to < from:
		return 0, size, false, nil
	case int64(from) >= size:
		return 0, 0, false, bad()
	}
	end := size - 1
	if last != "" {
		end = min(int64(to), end)
	}
	return int64(from), end - int64(from) + 1, true, nil
}
