package local

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"kilonova/internal/clock"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/image"
)

// Location is one copy of an image's data.
type Location struct {
	Store    string            `json:"store"`
	Key      string            `json:"key"` // in the store; the address itself in the store "http"
	Metadata map[string]string `json:"metadata,omitempty"`
}

// Record is an image with what only the service itself and its API need.
type Record struct {
	image.Image
	Locations []Location

	node, token string // whose upload is under way
	staged      string // key in the staging area
	stagedSize  int64
}

// document is the part of a record that is kept as JSON.
type document struct {
	Tags       []string          `json:"tags,omitempty"`
	Properties map[string]string `json:"properties,omitempty"`
	Locations  []Location        `json:"locations,omitempty"`
}

func (d *document) parse(text string) error {
	if err := json.Unmarshal([]byte(text), d); err != nil {
		return fmt.Errorf("image document: %w", err)
	}
	return nil
}

const columns = "id, name, status, visibility, owner, disk_format, container_format, checksum, hash_algo, hash_value, size, virtual_size, " +
	"min_disk, min_ram, protected, hidden, created_at, updated_at, node, token, staged, staged_size, doc"

type scanner interface{ Scan(dest ...any) error }

func scan(row scanner) (*Record, error) {
	var r Record
	var created, updated int64
	var text string
	err := row.Scan(&r.ID, &r.Name, &r.Status, &r.Visibility, &r.Owner, &r.DiskFormat, &r.ContainerFormat, &r.Checksum, &r.HashAlgo, &r.HashValue,
		&r.Size, &r.VirtualSize, &r.MinDisk, &r.MinRAM, &r.Protected, &r.Hidden, &created, &updated, &r.node, &r.token, &r.staged, &r.stagedSize, &text)
	if err != nil {
		return nil, err
	}
	r.Created, r.Updated = clock.FromMicros(created), clock.FromMicros(updated)
	var d document
	if err := d.parse(text); err != nil {
		return nil, err
	}
	r.Tags, r.Properties, r.Locations = d.Tags, d.Properties, d.Locations
	if r.Properties == nil {
		r.Properties = map[string]string{}
	}
	return &r, nil
}

func missing(id string) error {
	return fault.New(fault.NotFound, "Failed to find image %s", id)
}

// read gives a record by id, whoever asks.
func read(ctx context.Context, q db.Querier, id, lock string) (*Record, error) {
	r, err := scan(q.QueryRow(ctx, "SELECT "+columns+" FROM image_images WHERE id = ?"+lock, id))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, missing(id)
	}
	if err != nil {
		return nil, fmt.Errorf("read image: %w", err)
	}
	return r, nil
}

func (r *Record) values() ([]any, error) {
	text, err := json.Marshal(document{Tags: r.Tags, Properties: r.Properties, Locations: r.Locations})
	if err != nil {
		return nil, err
	}
	return []any{r.Name, r.Status, r.Visibility, r.Owner, r.DiskFormat, r.ContainerFormat, r.Checksum, r.HashAlgo, r.HashValue, r.Size, r.VirtualSize,
		r.MinDisk, r.MinRAM, r.Protected, r.Hidden, clock.Micros(r.Created), clock.Micros(r.Updated), r.node, r.token, r.staged, r.stagedSize, string(text)}, nil
}

func insert(ctx context.Context, tx *db.Tx, r *Record) error {
	v, err := r.values()
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "INSERT INTO image_images ("+columns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		append([]any{r.ID}, v...)...); err != nil {
		return err
	}
	return index(ctx, tx, r, nil, nil)
}

func update(ctx context.Context, tx *db.Tx, r *Record, oldTags []string, oldProps map[string]string) error {
	v, err := r.values()
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "UPDATE image_images SET name = ?, status = ?, visibility = ?, owner = ?, disk_format = ?, container_format = ?, checksum = ?, "+
		"hash_algo = ?, hash_value = ?, size = ?, virtual_size = ?, min_disk = ?, min_ram = ?, protected = ?, hidden = ?, created_at = ?, updated_at = ?, "+
		"node = ?, token = ?, staged = ?, staged_size = ?, doc = ? WHERE id = ?", append(v, r.ID)...); err != nil {
		return fmt.Errorf("update image: %w", err)
	}
	return index(ctx, tx, r, oldTags, oldProps)
}

// index brings the filter tables in line with the record.
func index(ctx context.Context, tx *db.Tx, r *Record, oldTags []string, oldProps map[string]string) error {
	for _, t := range oldTags {
		if !slices.Contains(r.Tags, t) {
			if _, err := tx.Exec(ctx, "DELETE FROM image_tags WHERE image_id = ? AND tag = ?", r.ID, t); err != nil {
				return err
			}
		}
	}
	for _, t := range r.Tags {
		if !slices.Contains(oldTags, t) {
			if _, err := tx.Exec(ctx, "INSERT INTO image_tags (image_id, tag) VALUES (?, ?)", r.ID, t); err != nil {
				return err
			}
		}
	}
	for k := range oldProps {
		if _, kept := r.Properties[k]; !kept {
			if _, err := tx.Exec(ctx, "DELETE FROM image_properties WHERE image_id = ? AND name = ?", r.ID, k); err != nil {
				return err
			}
		}
	}
	for k, v := range r.Properties {
		if old, had := oldProps[k]; had && old == v {
			continue
		}
		if _, err := tx.Exec(ctx, db.Upsert(tx.Dialect(), "image_properties", []string{"image_id", "name"}, []string{"value"}), r.ID, k, v); err != nil {
			return err
		}
	}
	return nil
}

// Find gives an image by id without asking who wants it.
func (s *Service) Find(ctx context.Context, id string) (*Record, error) {
	shared, err := s.known.Get(s.db, id, func() (*Record, error) { return read(ctx, s.db, id, "") })
	if err != nil {
		return nil, err
	}
	r := *shared
	r.Tags, r.Locations, r.Properties = slices.Clone(r.Tags), slices.Clone(r.Locations), maps.Clone(r.Properties)
	return &r, nil
}

// Change applies fn to an image in one transaction. fn may run more than once, must not have effects outside the record, and
// its error leaves everything as it was. The time of the last update is set.
func (s *Service) Change(ctx context.Context, id string, fn func(*Record) error) (*Record, error) {
	var r *Record
	err := s.db.Write(ctx, func(tx *db.Tx) (err error) {
		r, err = change(ctx, tx, id, fn)
		return err
	})
	return r, err
}

func change(ctx context.Context, tx *db.Tx, id string, fn func(*Record) error) (*Record, error) {
	r, err := read(ctx, tx, id, tx.ForUpdate())
	if err != nil {
		return nil, err
	}
	tags, props := slices.Clone(r.Tags), maps.Clone(r.Properties)
	if err := fn(r); err != nil {
		return nil, err
	}
	r.Updated = clock.Now()
	return r, update(ctx, tx, r, tags, props)
}
