package local

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"kilonova/internal/auth"
	"kilonova/internal/clock"
	"kilonova/internal/db"
	"kilonova/internal/fault"
)

// Namespace is a metadata definition namespace: a named set of properties that images, flavors and the like may have.
type Namespace struct {
	Namespace, DisplayName, Description, Visibility, Owner string
	Protected                                              bool
	Created, Updated                                       time.Time
	key                                                    int64
}

// The kinds of items of a namespace.
const (
	KindObject      = "object"
	KindProperty    = "property"
	KindTag         = "tag"
	KindAssociation = "association" // of a resource type; the name is the resource type's
)

// Item is an object, property, tag or resource type association of a namespace.
type Item struct {
	Name             string
	Doc              json.RawMessage // the document without name and times
	Created, Updated time.Time
	Namespace        string // set in lists over several namespaces
}

// ResourceType is a kind of thing that properties may be defined for.
type ResourceType struct {
	Name             string
	Created, Updated time.Time
}

const nsColumns = "id, namespace, display_name, description, visibility, protected, owner, created_at, updated_at"

func scanNamespace(row scanner) (*Namespace, error) {
	var n Namespace
	var created, updated int64
	if err := row.Scan(&n.key, &n.Namespace, &n.DisplayName, &n.Description, &n.Visibility, &n.Protected, &n.Owner, &created, &updated); err != nil {
		return nil, err
	}
	n.Created, n.Updated = clock.FromMicros(created), clock.FromMicros(updated)
	return &n, nil
}

func readNamespace(ctx context.Context, q db.Querier, c *auth.Caller, name string) (*Namespace, error) {
	n, err := scanNamespace(q.QueryRow(ctx, "SELECT "+nsColumns+" FROM image_metadef_namespaces WHERE namespace = ?", name))
	if errors.Is(err, sql.ErrNoRows) || err == nil && n.Visibility != Public && !c.IsAdmin() && (c == nil || n.Owner != c.ProjectID) {
		return nil, fault.New(fault.NotFound, "Metadata definition namespace %.80s was not found.", name)
	}
	if err != nil {
		return nil, fmt.Errorf("read metadata namespace: %w", err)
	}
	return n, nil
}

// Namespace gives a namespace that the caller may see: public ones and those of his project.
func (s *Service) Namespace(ctx context.Context, c *auth.Caller, name string) (*Namespace, error) {
	return readNamespace(ctx, s.db, c, name)
}

// NamespaceQuery selects namespaces.
type NamespaceQuery struct {
	Visibility    string
	ResourceTypes []string // associated with any of them
	SortKey       string
	Desc          bool
	Marker        string
	Limit         int // 0: no limit
}

// Namespaces lists the namespaces that the caller may see.
func (s *Service) Namespaces(ctx context.Context, c *auth.Caller, q NamespaceQuery) ([]*Namespace, error) {
	var w conditions
	if !c.IsAdmin() {
		w.add("(visibility = ? OR owner = ?)", Public, c.ProjectID)
	}
	if q.Visibility != "" {
		w.add("visibility = ?", q.Visibility)
	}
	if len(q.ResourceTypes) > 0 {
		args := []any{KindAssociation}
		for _, t := range q.ResourceTypes {
			args = append(args, t)
		}
		w.add("EXISTS (SELECT 1 FROM image_metadef_items i WHERE i.namespace_id = image_metadef_namespaces.id AND i.kind = ? AND i.name IN ("+
			marks(len(q.ResourceTypes))+"))", args...)
	}
	key := q.SortKey
	switch key {
	case "":
		key = "created_at"
	case "namespace", "created_at", "updated_at":
	default:
		return nil, fault.New(fault.Invalid, "Invalid sort key: %.50s", key)
	}
	p := page{key: key, desc: q.Desc, limit: q.Limit, from: "SELECT " + nsColumns + " FROM image_metadef_namespaces"}
	if q.Marker != "" {
		m, err := s.Namespace(ctx, c, q.Marker)
		if err != nil {
			return nil, err
		}
		p.after = map[string]any{"id": m.key, "namespace": m.Namespace, "created_at": clock.Micros(m.Created), "updated_at": clock.Micros(m.Updated)}
	}
	return listPage(ctx, s.db, "metadata namespaces", p, w, scanNamespace)
}

func (n *Namespace) check() error {
	switch {
	case n.Namespace == "" || len(n.Namespace) > 80 || len(n.DisplayName) > 80:
		return fault.New(fault.Invalid, "The namespace has between 1 and 80 characters, its display_name up to 80.")
	case len(n.Description) > 500*4:
		return fault.New(fault.Invalid, "The description is longer than 500 characters.")
	case n.Visibility != Public && n.Visibility != Private:
		return fault.New(fault.Invalid, "The visibility of a namespace is public or private.")
	}
	return nil
}

// AddNamespace makes a namespace with its items (kind -> items). It fails with fault.Conflict when the name is in use.
func (s *Service) AddNamespace(ctx context.Context, n Namespace, items map[string][]Item) (*Namespace, error) {
	n.Created = clock.Now()
	n.Updated = n.Created
	if n.Visibility == "" {
		n.Visibility = Private
	}
	if err := n.check(); err != nil {
		return nil, err
	}
	err := s.db.Write(ctx, func(tx *db.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO image_metadef_namespaces (namespace, display_name, description, visibility, protected, owner, created_at, updated_at) "+
			"VALUES (?, ?, ?, ?, ?, ?, ?, ?)", n.Namespace, n.DisplayName, n.Description, n.Visibility, n.Protected, n.Owner, clock.Micros(n.Created), clock.Micros(n.Updated))
		if db.IsDuplicate(err) {
			return fault.New(fault.Conflict, "The metadata definition namespace %s already exists.", n.Namespace)
		}
		if err != nil {
			return fmt.Errorf("create metadata namespace: %w", err)
		}
		if err := tx.QueryRow(ctx, "SELECT id FROM image_metadef_namespaces WHERE namespace = ?", n.Namespace).Scan(&n.key); err != nil {
			return fmt.Errorf("create metadata namespace: %w", err)
		}
		for kind, list := range items {
			for _, it := range list {
				if err := insertItem(ctx, tx, n.key, kind, it); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return &n, err
}

// SetNamespace changes a namespace.
func (s *Service) SetNamespace(ctx context.Context, c *auth.Caller, name string, fn func(*Namespace) error) (*Namespace, error) {
	var n *Namespace
	err := s.db.Write(ctx, func(tx *db.Tx) (err error) {
		if n, err = readNamespace(ctx, tx, c, name); err != nil {
			return err
		}
		if err := fn(n); err != nil {
			return err
		}
		if err := n.check(); err != nil {
			return err
		}
		n.Updated = clock.Now()
		_, err = tx.Exec(ctx, "UPDATE image_metadef_namespaces SET namespace = ?, display_name = ?, description = ?, visibility = ?, protected = ?, owner = ?, updated_at = ? "+
			"WHERE id = ?", n.Namespace, n.DisplayName, n.Description, n.Visibility, n.Protected, n.Owner, clock.Micros(n.Updated), n.key)
		if db.IsDuplicate(err) {
			return fault.New(fault.Conflict, "The metadata definition namespace %s already exists.", n.Namespace)
		}
		return err
	})
	return n, err
}

// RemoveNamespace deletes a namespace with all that is in it. A protected one stays (fault.Forbidden).
func (s *Service) RemoveNamespace(ctx context.Context, c *auth.Caller, name string) error {
	return s.db.Write(ctx, func(tx *db.Tx) error {
		n, err := readNamespace(ctx, tx, c, name)
		if err != nil {
			return err
		}
		if n.Protected {
			return fault.New(fault.Forbidden, "Metadata definition namespace %s is protected and cannot be deleted.", name)
		}
		if _, err := tx.Exec(ctx, "DELETE FROM image_metadef_items WHERE namespace_id = ?", n.key); err != nil {
			return fmt.Errorf("delete metadata namespace: %w", err)
		}
		_, err = tx.Exec(ctx, "DELETE FROM image_metadef_namespaces WHERE id = ?", n.key)
		return err
	})
}

const itemColumns = "name, doc, created_at, updated_at"

func scanItem(row scanner, more ...any) (*Item, error) {
	var it Item
	var doc string
	var created, updated int64
	if err := row.Scan(append([]any{&it.Name, &doc, &created, &updated}, more...)...); err != nil {
		return nil, err
	}
	it.Doc, it.Created, it.Updated = json.RawMessage(doc), clock.FromMicros(created), clock.FromMicros(updated)
	return &it, nil
}

func insertItem(ctx context.Context, tx *db.Tx, ns int64, kind string, it Item) error {
	if it.Name == "" || len(it.Name) > 80 {
		return fault.New(fault.Invalid, "The name of a metadata definition %s has between 1 and 80 characters.", kind)
	}
	if kind == KindAssociation { // an unknown resource type is recorded with its first use
		now := clock.Micros(clock.Now())
		var n int
		if err := tx.QueryRow(ctx, "SELECT COUNT(*) FROM image_metadef_resource_types WHERE name = ?", it.Name).Scan(&n); err != nil {
			return fmt.Errorf("read resource type: %w", err)
		}
		if n == 0 {
			if _, err := tx.Exec(ctx, "INSERT INTO image_metadef_resource_types (name, protected, created_at, updated_at) VALUES (?, 0, ?, ?)", it.Name, now, now); err != nil {
				return fmt.Errorf("create resource type: %w", err)
			}
		}
	}
	if it.Doc == nil {
		it.Doc = json.RawMessage("{}")
	}
	if it.Created.IsZero() {
		it.Created = clock.Now()
		it.Updated = it.Created
	}
	_, err := tx.Exec(ctx, "INSERT INTO image_metadef_items (namespace_id, kind, name, doc, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?)", ns, kind, it.Name,
		string(it.Doc), clock.Micros(it.Created), clock.Micros(it.Updated))
	if db.IsDuplicate(err) {
		return fault.New(fault.Conflict, "A metadata definition %s named %s already exists in this namespace.", kind, it.Name)
	}
	return err
}

// Items lists the items of one kind, by name.
func (s *Service) Items(ctx context.Context, n *Namespace, kind string) ([]*Item, error) {
	rows, err := s.db.Query(ctx, "SELECT "+itemColumns+" FROM image_metadef_items WHERE namespace_id = ? AND kind = ? ORDER BY name", n.key, kind)
	if err != nil {
		return nil, fmt.Errorf("list metadata %ss: %w", kind, err)
	}
	defer func() { _ = rows.Close() }()
	var list []*Item
	for rows.Next() {
		it, err := scanItem(rows)
		if err != nil {
			return nil, fmt.Errorf("list metadata %ss: %w", kind, err)
		}
		list = append(list, it)
	}
	return list, rows.Err()
}

// Associations gives the resource type associations of several namespaces with one query.
func (s *Service) Associations(ctx context.Context, list []*Namespace) (map[string][]*Item, error) {
	out := map[string][]*Item{}
	if len(list) == 0 {
		return out, nil
	}
	args, names := []any{KindAssociation}, map[int64]string{}
	for _, n := range list {
		args = append(args, n.key)
		names[n.key] = n.Namespace
	}
	rows, err := s.db.Query(ctx, "SELECT "+itemColumns+", namespace_id FROM image_metadef_items WHERE kind = ? AND namespace_id IN ("+marks(len(list))+") ORDER BY name", args...)
	if err != nil {
		return nil, fmt.Errorf("list resource type associations: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var key int64
		it, err := scanItem(rows, &key)
		if err != nil {
			return nil, fmt.Errorf("list resource type associations: %w", err)
		}
		out[names[key]] = append(out[names[key]], it)
	}
	return out, rows.Err()
}

func readItem(ctx context.Context, q db.Querier, n *Namespace, kind, name string) (*Item, error) {
	it, err := scanItem(q.QueryRow(ctx, "SELECT "+itemColumns+" FROM image_metadef_items WHERE namespace_id = ? AND kind = ? AND name = ?", n.key, kind, name))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fault.New(fault.NotFound, "The metadata definition %s with name=%.80s was not found in namespace=%s.", kind, name, n.Namespace)
	}
	if err != nil {
		return nil, fmt.Errorf("read metadata %s: %w", kind, err)
	}
	return it, nil
}

// Item gives one item.
func (s *Service) Item(ctx context.Context, n *Namespace, kind, name string) (*Item, error) {
	return readItem(ctx, s.db, n, kind, name)
}

// AddItems makes items. With replace those that are there go first.
func (s *Service) AddItems(ctx context.Context, n *Namespace, kind string, items []Item, replace bool) error {
	return s.db.Write(ctx, func(tx *db.Tx) error {
		if replace {
			if _, err := tx.Exec(ctx, "DELETE FROM image_metadef_items WHERE namespace_id = ? AND kind = ?", n.key, kind); err != nil {
				return fmt.Errorf("replace metadata %ss: %w", kind, err)
			}
		}
		for _, it := range items {
			if err := insertItem(ctx, tx, n.key, kind, it); err != nil {
				return err
			}
		}
		return nil
	})
}

// SetItem replaces an item; its name may change.
func (s *Service) SetItem(ctx context.Context, n *Namespace, kind, name string, it Item) (*Item, error) {
	err := s.db.Write(ctx, func(tx *db.Tx) error {
		old, err := readItem(ctx, tx, n, kind, name)
		if err != nil {
			return err
		}
		it.Created, it.Updated = old.Created, clock.Now()
		if _, err := tx.Exec(ctx, "DELETE FROM image_metadef_items WHERE namespace_id = ? AND kind = ? AND name = ?", n.key, kind, name); err != nil {
			return fmt.Errorf("change metadata %s: %w", kind, err)
		}
		return insertItem(ctx, tx, n.key, kind, it)
	})
	return &it, err
}

// RemoveItem deletes an item.
func (s *Service) RemoveItem(ctx context.Context, n *Namespace, kind, name string) error {
	return s.db.Write(ctx, func(tx *db.Tx) error {
		if _, err := readItem(ctx, tx, n, kind, name); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "DELETE FROM image_metadef_items WHERE namespace_id = ? AND kind = ? AND name = ?", n.key, kind, name)
		return err
	})
}

// RemoveItems deletes all items of a kind.
func (s *Service) RemoveItems(ctx context.Context, n *Namespace, kind string) error {
	return s.AddItems(ctx, n, kind, nil, true)
}

// ResourceTypes lists the kinds of things that properties may be defined for.
func (s *Service) ResourceTypes(ctx context.Context) ([]ResourceType, error) {
	rows, err := s.db.Query(ctx, "SELECT name, created_at, updated_at FROM image_metadef_resource_types ORDER BY name")
	if err != nil {
		return nil, fmt.Errorf("list resource types: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var list []ResourceType
	for rows.Next() {
		var t ResourceType
		var created, updated int64
		if err := rows.Scan(&t.Name, &created, &updated); err != nil {
			return nil, fmt.Errorf("list resource types: %w", err)
		}
		t.Created, t.Updated = clock.FromMicros(created), clock.FromMicros(updated)
		list = append(list, t)
	}
	return list, rows.Err()
}
