package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/image/local"
)

// encoder appends JSON without reflection: image lists are long.
type encoder struct {
	b     []byte
	comma bool
}

func (e *encoder) key(name string) {
	if e.comma {
		e.b = append(e.b, ',')
	}
	e.comma = true
	e.quote(name)
	e.b = append(e.b, ':')
}

// quote appends a JSON string. Anything but plain ASCII goes the slow way.
func (e *encoder) quote(s string) {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			b, _ := json.Marshal(s) // a string always encodes
			e.b = append(e.b, b...)
			return
		}
	}
	e.b = append(append(append(e.b, '"'), s...), '"')
}

func (e *encoder) text(name, v string) {
	e.key(name)
	e.quote(v)
}

// orNull writes null for an empty text.
func (e *encoder) orNull(name, v string) {
	if v == "" {
		e.key(name)
		e.b = append(e.b, "null"...)
		return
	}
	e.text(name, v)
}

func (e *encoder) number(name string, v int64) {
	e.key(name)
	e.b = strconv.AppendInt(e.b, v, 10)
}

// sizeOrNull writes null for a size that is not known.
func (e *encoder) sizeOrNull(name string, v int64) {
	if v < 0 {
		e.key(name)
		e.b = append(e.b, "null"...)
		return
	}
	e.number(name, v)
}

func (e *encoder) flag(name string, v bool) {
	e.key(name)
	e.b = strconv.AppendBool(e.b, v)
}

func (e *encoder) time(name string, t time.Time) {
	e.key(name)
	e.b = append(t.UTC().AppendFormat(append(e.b, '"'), clock.LayoutZ), '"')
}

func (e *encoder) open(c byte)  { e.b, e.comma = append(e.b, c), false }
func (e *encoder) close(c byte) { e.b, e.comma = append(e.b, c), true }

// imageView is one image document.
type imageView struct {
	a *api
	r *local.Record
	// locations tells whether the caller may see where the data lies.
	locations bool
}

// AppendJSON implements httpapi.Appender.
func (v imageView) AppendJSON(b []byte) ([]byte, error) {
	e := &encoder{b: b}
	err := v.append(e)
	return e.b, err
}

func (v imageView) append(e *encoder) error {
	r := v.r
	e.open('{')
	for _, k := range slices.Sorted(maps.Keys(r.Properties)) {
		e.text(k, r.Properties[k])
	}
	e.text("id", r.ID)
	e.orNull("name", r.Name)
	e.text("status", r.Status)
	e.text("visibility", r.Visibility)
	e.orNull("owner", r.Owner)
	e.sizeOrNull("size", r.Size)
	e.sizeOrNull("virtual_size", r.VirtualSize)
	e.orNull("checksum", r.Checksum)
	e.orNull("os_hash_algo", r.HashAlgo)
	e.orNull("os_hash_value", r.HashValue)
	e.orNull("container_format", r.ContainerFormat)
	e.orNull("disk_format", r.DiskFormat)
	e.number("min_disk", r.MinDisk)
	e.number("min_ram", r.MinRAM)
	e.flag("protected", r.Protected)
	e.flag("os_hidden", r.Hidden)
	e.key("tags")
	e.open('[')
	for _, t := range r.Tags {
		if e.comma {
			e.b = append(e.b, ',')
		}
		e.comma = true
		e.quote(t)
	}
	e.close(']')
	e.time("created_at", r.Created)
	e.time("updated_at", r.Updated)
	self := "/v2/images/" + r.ID
	e.text("self", self)
	e.text("file", self+"/file")
	e.text("schema", "/v2/schemas/image")
	if len(r.Locations) > 0 {
		names := make([]string, len(r.Locations))
		for i, l := range r.Locations {
			names[i] = l.Store
		}
		slices.Sort(names)
		e.text("stores", strings.Join(slices.Compact(names), ","))
	}
	if v.locations {
		list, err := json.Marshal(v.a.locationDocs(r))
		if err != nil {
			return fmt.Errorf("encode locations: %w", err)
		}
		e.key("locations")
		e.b = append(e.b, list...)
		if len(r.Locations) > 0 {
			e.text("direct_url", v.a.s.LocationURL(r.Locations[0]))
		}
	}
	e.close('}')
	return nil
}

// locationDocs is the locations attribute.
func (a *api) locationDocs(r *local.Record) []any {
	list := []any{}
	for _, l := range r.Locations {
		meta := map[string]any{}
		for k, v := range l.Metadata {
			meta[k] = v
		}
		if l.Store != "http" {
			meta["store"] = l.Store
		}
		list = append(list, map[string]any{"url": a.s.LocationURL(l), "metadata": meta})
	}
	return list
}

// listView is a page of images.
type listView struct {
	images      []imageView
	first, next string
}

// AppendJSON implements httpapi.Appender.
func (v listView) AppendJSON(b []byte) ([]byte, error) {
	e := &encoder{b: b}
	e.open('{')
	e.key("images")
	e.open('[')
	for i, img := range v.images {
		if i > 0 {
			e.b = append(e.b, ',')
		}
		if err := img.append(e); err != nil {
			return nil, err
		}
	}
	e.close(']')
	e.text("first", v.first)
	if v.next != "" {
		e.text("next", v.next)
	}
	e.text("schema", "/v2/schemas/images")
	e.close('}')
	return e.b, nil
}
