package api

import (
	"mime"
	"slices"
	"strconv"
	"strings"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/image"
	"kilonova/internal/image/local"
)

// The media types of PATCH. The older one writes the operation's name as the key of its path.
const (
	patchV21 = "application/openstack-images-v2.1-json-patch"
	patchV20 = "application/openstack-images-v2.0-json-patch"
)

// change is one operation of a JSON patch (RFC 6902).
type change struct {
	op    string
	path  []string
	from  []string
	value any
	old   bool // of the older media type: add does not replace
}

func (a *api) patchImage(r *httpapi.Request) (*httpapi.Reply, error) {
	changes, err := parsePatch(r)
	if err != nil {
		return nil, err
	}
	rec, err := a.lookup(r, "modify_image")
	if err != nil {
		return nil, err
	}
	p := &patch{a: a, r: r, changes: changes}
	if err := p.prepare(rec); err != nil {
		return nil, err
	}
	if len(changes) > 0 {
		if rec, err = a.s.Edit(r.Context(), r.Caller, rec.ID, p.apply); err != nil {
			return nil, err
		}
	}
	return httpapi.OK(a.view(r, rec)), nil
}

func parsePatch(r *httpapi.Request) ([]change, error) {
	kind, _, err := mime.ParseMediaType(r.HTTP.Header.Get("Content-Type"))
	if err != nil || kind != patchV20 && kind != patchV21 {
		e := fault.New(fault.UnsupportedMedia, "The media type of an image change is %s.", patchV21)
		e.Header = map[string]string{"Accept-Patch": patchV20 + ", " + patchV21}
		return nil, e
	}
	list, ok := r.Document().([]any)
	if !ok {
		return nil, fault.New(fault.Invalid, "Request body must be a JSON array of operation objects.")
	}
	var changes []change
	for _, v := range list {
		m, ok := v.(map[string]any)
		if !ok {
			return nil, fault.New(fault.Invalid, "Operations must be JSON objects.")
		}
		c, err := parseChange(m, kind == patchV20)
		if err != nil {
			return nil, err
		}
		changes = append(changes, c)
	}
	return changes, nil
}

func parseChange(m map[string]any, old bool) (c change, err error) {
	path := ""
	if old {
		for _, op := range []string{"add", "replace", "remove"} {
			if v, has := m[op]; has {
				if c.op != "" {
					return c, fault.New(fault.Invalid, "Operation objects must contain only one member named \"add\", \"remove\", or \"replace\".")
				}
				c.op, c.old = op, true
				path, _ = v.(string)
			}
		}
	} else {
		c.op, _ = m["op"].(string)
		path, _ = m["path"].(string)
	}
	if !slices.Contains([]string{"add", "replace", "remove", "move", "copy", "test"}, c.op) {
		return c, fault.New(fault.Invalid, "Operations must be one of \"add\", \"replace\", \"remove\", \"move\", \"copy\" and \"test\".")
	}
	if c.path, err = pointer(path); err != nil {
		return c, err
	}
	switch c.op {
	case "add", "replace", "test":
		v, has := m["value"]
		if !has {
			return c, fault.New(fault.Invalid, "Operation \"%s\" requires a member named \"value\".", c.op)
		}
		c.value = v
	case "move", "copy":
		from, _ := m["from"].(string)
		if c.from, err = pointer(from); err != nil {
			return c, err
		}
	}
	return c, nil
}

// pointer reads a JSON pointer (RFC 6901): one attribute, or one member of tags or locations.
func pointer(s string) ([]string, error) {
	rest, ok := strings.CutPrefix(s, "/")
	if !ok || rest == "" {
		return nil, fault.New(fault.Invalid, "Pointer %.100q does not start with \"/\" and a name.", s)
	}
	parts := strings.Split(rest, "/")
	for i, p := range parts {
		if p == "" || strings.HasSuffix(p, "~") || strings.Contains(strings.NewReplacer("~0", "", "~1", "").Replace(p), "~") {
			return nil, fault.New(fault.Invalid, "Pointer %.100q is not a JSON pointer.", s)
		}
		parts[i] = strings.ReplaceAll(strings.ReplaceAll(p, "~1", "/"), "~0", "~")
	}
	if len(parts) > 2 || len(parts) == 2 && parts[0] != "locations" && parts[0] != "tags" {
		return nil, fault.New(fault.Invalid, "Invalid JSON pointer for this resource: %.100q", s)
	}
	return parts, nil
}

// patch applies changes to a record.
type patch struct {
	a       *api
	r       *httpapi.Request
	changes []change
	probed  map[string]int64 // sizes of web addresses that become locations
}

// prepare does what cannot be done inside a transaction: it asks policy and the web.
func (p *patch) prepare(rec *local.Record) error {
	t := target(p.r.Caller, rec)
	for _, c := range p.changes {
		name := c.path[0]
		if err := forbidName(name); err != nil {
			return err
		}
		switch {
		case name == "id":
			return fault.New(fault.Forbidden, "Attribute 'id' is read-only.")
		case name == "visibility":
			if v, ok := c.value.(string); ok && v != rec.Visibility {
				if err := mayPublish(p.r, v, t); err != nil {
					return err
				}
			}
		case name == "owner" && !p.r.Caller.IsAdmin() && c.value != rec.Owner:
			return fault.New(fault.Forbidden, "Only an administrator may give an image to another project.")
		case name == "locations":
			if err := p.prepareLocations(rec, c); err != nil {
				return err
			}
		}
		if c.from != nil && (forbidName(c.from[0]) != nil || attribute(c.from[0])) {
			return fault.New(fault.Forbidden, "Property %s may not be moved or copied.", c.from[0])
		}
	}
	return nil
}

// attribute tells attributes of every image from properties.
func attribute(name string) bool {
	return slices.Contains([]string{"id", "name", "visibility", "owner", "disk_format", "container_format", "min_disk", "min_ram", "protected", "os_hidden",
		"tags", "locations"}, name)
}

func (p *patch) apply(rec *local.Record) error {
	for _, c := range p.changes {
		var err error
		switch {
		case c.path[0] == "locations":
			err = p.applyLocations(rec, c)
		case c.path[0] == "tags":
			err = applyTags(rec, c)
		case attribute(c.path[0]):
			err = applyAttribute(rec, c)
		default:
			err = applyProperty(rec, c)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func applyAttribute(rec *local.Record, c change) error {
	name := c.path[0]
	switch c.op {
	case "remove", "move":
		return fault.New(fault.Forbidden, "Property %s may not be removed.", name)
	case "copy":
		return fault.New(fault.Forbidden, "Property %s may not be copied to.", name)
	case "test":
		return fault.New(fault.Invalid, "Operation \"test\" is for properties only.")
	}
	if c.op == "add" && c.old {
		return fault.New(fault.Conflict, "Property %s already present.", name)
	}
	next := image.Image{}
	if err := setAttribute(&next, name, c.value); err != nil {
		return err
	}
	differs := name == "disk_format" && next.DiskFormat != rec.DiskFormat || name == "container_format" && next.ContainerFormat != rec.ContainerFormat
	if differs && rec.Status != image.Queued {
		return fault.New(fault.Forbidden, "Attribute %s can be only replaced for a queued image.", name)
	}
	return setAttribute(&rec.Image, name, c.value)
}

func applyProperty(rec *local.Record, c change) error {
	name := c.path[0]
	_, there := rec.Properties[name]
	absent := fault.New(fault.Conflict, "Property %s does not exist.", name)
	switch c.op {
	case "remove":
		if !there {
			return absent
		}
		delete(rec.Properties, name)
		return nil
	case "replace":
		if !there {
			return absent
		}
	case "add":
		if there && c.old {
			return fault.New(fault.Conflict, "Property %s already present.", name)
		}
	case "test":
		if v, ok := c.value.(string); !there || !ok || v != rec.Properties[name] {
			return fault.New(fault.Conflict, "Property %s does not have the value that was tested for.", name)
		}
		return nil
	case "move", "copy":
		v, ok := rec.Properties[c.from[0]]
		if !ok {
			return fault.New(fault.Conflict, "Property %s does not exist.", c.from[0])
		}
		if c.op == "move" {
			delete(rec.Properties, c.from[0])
		}
		rec.Properties[name] = v
		return nil
	}
	return setAttribute(&rec.Image, name, c.value)
}

// applyTags changes the list as a whole or one member of it.
func applyTags(rec *local.Record, c change) error {
	if len(c.path) == 1 {
		if c.op != "add" && c.op != "replace" {
			return fault.New(fault.Forbidden, "Property tags may not be removed.")
		}
		tags, err := tagList(c.value)
		rec.Tags = tags
		return err
	}
	i, err := position(c.path[1], len(rec.Tags), c.op == "add")
	if err != nil {
		return err
	}
	tag, isText := c.value.(string)
	if c.op != "remove" && !isText {
		return wrongType("tags", "a list of strings")
	}
	switch c.op {
	case "remove":
		rec.Tags = slices.Delete(rec.Tags, i, i+1)
	case "replace":
		rec.Tags[i] = tag
	case "add":
		rec.Tags = slices.Insert(rec.Tags, i, tag)
	default:
		return fault.New(fault.Invalid, "Operation %q is for properties only.", c.op)
	}
	return nil
}

// position reads an index of a list of n; with end also "-" and n.
func position(s string, n int, end bool) (int, error) {
	if s == "-" && end {
		return n, nil
	}
	i, err := strconv.Atoi(s)
	if err != nil || i < 0 || i > n || i == n && !end || strconv.Itoa(i) != s {
		return 0, fault.New(fault.Invalid, "Invalid position %.20q in a list of %d.", s, n)
	}
	return i, nil
}
