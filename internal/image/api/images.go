package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"kilonova/internal/auth"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/image"
	"kilonova/internal/image/local"
	"kilonova/internal/policy"
)

// readOnly are the attributes that only the service sets.
func readOnly(name string) bool {
	return slices.Contains([]string{"created_at", "updated_at", "status", "checksum", "size", "virtual_size", "direct_url", "self", "file", "schema",
		"os_hash_algo", "os_hash_value", "stores"}, name)
}

// reserved are names that cannot be attributes or properties.
func reserved(name string) bool {
	return slices.Contains([]string{"deleted", "deleted_at", "location"}, name) || strings.HasPrefix(name, local.Reserved)
}

func forbidName(name string) error {
	switch {
	case readOnly(name):
		return fault.New(fault.Forbidden, "Attribute '%s' is read-only.", name)
	case reserved(name):
		return fault.New(fault.Forbidden, "Attribute '%s' is reserved.", name)
	}
	return nil
}

func (a *api) view(r *httpapi.Request, rec *local.Record) imageView {
	return imageView{a: a, r: rec, locations: a.s.ShowsLocations() && r.Allowed("get_image_location", target(r.Caller, rec))}
}

func (a *api) listImages(r *httpapi.Request) (*httpapi.Reply, error) {
	if emptyID(r) {
		return nil, fault.New(fault.NotFound, "The resource could not be found.")
	}
	if err := authorize(r, "get_images", policy.Target{"project_id": r.Caller.ProjectID}); err != nil {
		return nil, err
	}
	q := r.Query()
	query, err := a.parseList(q)
	if err != nil {
		return nil, err
	}
	list, err := a.s.Select(r.Context(), r.Caller, query)
	if err != nil {
		return nil, err
	}
	v := listView{first: pageLink("/v2/images", q, "")}
	for _, rec := range list {
		v.images = append(v.images, a.view(r, rec))
	}
	if len(list) > 0 && len(list) == query.Limit {
		v.next = pageLink("/v2/images", q, list[len(list)-1].ID)
	}
	return httpapi.OK(v), nil
}

// pageLink is the address of a page relative to the service's root, which is how the field's clients expect it.
func pageLink(path string, q url.Values, marker string) string {
	next := url.Values{}
	for k, v := range q {
		next[k] = v
	}
	next.Del("marker")
	if marker != "" {
		next.Set("marker", marker)
	}
	if len(next) == 0 {
		return path
	}
	return path + "?" + next.Encode()
}

func (a *api) showImage(r *httpapi.Request) (*httpapi.Reply, error) {
	rec, err := a.lookup(r)
	if err != nil {
		return nil, err
	}
	return httpapi.OK(a.view(r, rec)), nil
}

func (a *api) createImage(r *httpapi.Request) (*httpapi.Reply, error) {
	doc, _ := r.Document().(map[string]any)
	img := image.Image{Owner: r.Caller.ProjectID, Properties: map[string]string{}}
	var locations any
	for name, v := range doc {
		if err := forbidName(name); err != nil {
			return nil, err
		}
		if name == "locations" {
			locations = v
			continue
		}
		if err := setAttribute(&img, name, v); err != nil {
			return nil, err
		}
	}
	if img.Visibility == "" {
		img.Visibility = local.Shared
	}
	t := policy.Target{"project_id": img.Owner, "owner": img.Owner, "visibility": img.Visibility, "tenant": img.Owner}
	if err := authorize(r, "add_image", t); err != nil {
		return nil, err
	}
	if err := mayPublish(r, img.Visibility, t); err != nil {
		return nil, err
	}
	if list, ok := locations.([]any); locations != nil && (!ok || len(list) > 0) && !a.s.ShowsLocations() {
		return nil, errNoLocations()
	}
	rec, err := a.s.Add(r.Context(), r.Caller, img)
	if err != nil {
		return nil, err
	}
	if list, ok := locations.([]any); ok && len(list) > 0 {
		if rec, err = a.setLocations(r, rec, list); err != nil {
			return nil, err
		}
	}
	return a.created(r, rec), nil
}

// created is the answer to a new image: where it is and how data can come.
func (a *api) created(r *httpapi.Request, rec *local.Record) *httpapi.Reply {
	reply := httpapi.Created(a.view(r, rec)).With("Location", r.Base+"/v2/images/"+rec.ID)
	if methods := a.s.Methods(); len(methods) > 0 {
		reply.With("OpenStack-image-import-methods", strings.Join(methods, ","))
	}
	var stores []string
	for _, st := range a.s.Stores() {
		if !st.ReadOnly {
			stores = append(stores, st.ID)
		}
	}
	return reply.With("OpenStack-image-store-ids", strings.Join(stores, ","))
}

// mayPublish asks for the right to a visibility that reaches beyond the project.
func mayPublish(r *httpapi.Request, visibility string, t policy.Target) error {
	switch visibility {
	case local.Public:
		return authorize(r, "publicize_image", t)
	case local.Community:
		return authorize(r, "communitize_image", t)
	}
	return nil
}

// setAttribute puts one JSON value of a request into an image. What is no attribute is a property and must be a string.
func setAttribute(img *image.Image, name string, v any) error {
	var err error
	switch name {
	case "id":
		err = setText(&img.ID, name, v)
	case "name":
		err = setOrNull(&img.Name, name, v)
	case "visibility":
		err = setText(&img.Visibility, name, v)
	case "owner":
		err = setOrNull(&img.Owner, name, v)
	case "disk_format":
		err = setOrNull(&img.DiskFormat, name, v)
	case "container_format":
		err = setOrNull(&img.ContainerFormat, name, v)
	case "min_disk":
		err = setNumber(&img.MinDisk, name, v)
	case "min_ram":
		err = setNumber(&img.MinRAM, name, v)
	case "protected":
		err = setFlag(&img.Protected, name, v)
	case "os_hidden":
		err = setFlag(&img.Hidden, name, v)
	case "tags":
		img.Tags, err = tagList(v)
	default:
		text, ok := v.(string)
		if !ok {
			return fault.New(fault.Invalid, "Provided object does not match schema 'image': property %.100q must be a string.", name)
		}
		if img.Properties == nil {
			img.Properties = map[string]string{}
		}
		img.Properties[name] = text
	}
	return err
}

func wrongType(name, want string) error {
	return fault.New(fault.Invalid, "Provided object does not match schema 'image': %s must be %s.", name, want)
}

func setText(p *string, name string, v any) error {
	s, ok := v.(string)
	if !ok || s == "" && name == "id" {
		return wrongType(name, "a string")
	}
	*p = s
	return nil
}

func setOrNull(p *string, name string, v any) error {
	if v == nil {
		*p = ""
		return nil
	}
	return setText(p, name, v)
}

func setNumber(p *int64, name string, v any) error {
	n, ok := v.(json.Number)
	if ok {
		i, err := n.Int64()
		if err == nil {
			*p = i
			return nil
		}
	}
	return wrongType(name, "an integer")
}

func setFlag(p *bool, name string, v any) error {
	b, ok := v.(bool)
	if !ok {
		return wrongType(name, "true or false")
	}
	*p = b
	return nil
}

// tagList reads tags; one that stands twice is taken once.
func tagList(v any) ([]string, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, wrongType("tags", "a list of strings")
	}
	tags := []string{}
	for _, v := range list {
		s, ok := v.(string)
		if !ok {
			return nil, wrongType("tags", "a list of strings")
		}
		if !slices.Contains(tags, s) {
			tags = append(tags, s)
		}
	}
	return tags, nil
}

func (a *api) deleteImage(r *httpapi.Request) (*httpapi.Reply, error) {
	rec, err := a.lookup(r, "delete_image")
	if err != nil {
		return nil, err
	}
	return nil, a.s.Remove(r.Context(), r.Caller, rec.ID)
}

func (a *api) deactivate(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.flip(r, "deactivate", a.s.Deactivate)
}

func (a *api) reactivate(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.flip(r, "reactivate", a.s.Reactivate)
}

func (a *api) addTag(r *httpapi.Request) (*httpapi.Reply, error) {
	rec, err := a.lookup(r, "modify_image")
	if err != nil {
		return nil, err
	}
	tag := r.Path("tag")
	_, err = a.s.Edit(r.Context(), r.Caller, rec.ID, func(rec *local.Record) error {
		if !slices.Contains(rec.Tags, tag) {
			rec.Tags = append(rec.Tags, tag)
		}
		return nil
	})
	return nil, err
}

func (a *api) removeTag(r *httpapi.Request) (*httpapi.Reply, error) {
	rec, err := a.lookup(r, "modify_image")
	if err != nil {
		return nil, err
	}
	tag := r.Path("tag")
	_, err = a.s.Edit(r.Context(), r.Caller, rec.ID, func(rec *local.Record) error {
		i := slices.Index(rec.Tags, tag)
		if i < 0 {
			return fault.New(fault.NotFound, "The image %s has no tag %.255s.", rec.ID, tag)
		}
		rec.Tags = slices.Delete(rec.Tags, i, i+1)
		return nil
	})
	return nil, err
}

func (a *api) infoImport(*httpapi.Request) (*httpapi.Reply, error) {
	return httpapi.OK(map[string]any{"import-methods": map[string]any{"description": "Import methods available.", "type": "array", "value": a.s.Methods()}}), nil
}

func (a *api) infoStores(*httpapi.Request) (*httpapi.Reply, error) {
	return httpapi.OK(map[string]any{"stores": a.stores(false)}), nil
}

func (a *api) infoStoresDetail(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := authorize(r, "stores_info_detail", r.Own()); err != nil {
		return nil, err
	}
	return httpapi.OK(map[string]any{"stores": a.stores(true)}), nil
}

func (a *api) stores(detail bool) []map[string]any {
	list := []map[string]any{}
	for _, st := range a.s.Stores() {
		m := map[string]any{"id": st.ID}
		if st.Default {
			m["default"] = "true"
		}
		if st.ReadOnly {
			m["read-only"] = "true"
		}
		if detail {
			m["type"], m["weight"], m["properties"] = st.Type, 0, map[string]any{}
		}
		list = append(list, m)
	}
	return list
}

func (a *api) infoUsage(r *httpapi.Request) (*httpapi.Reply, error) {
	u, err := a.s.Usage(r.Context(), r.Caller.ProjectID)
	if err != nil {
		return nil, err
	}
	const mib = 1 << 20
	item := func(used, limit, unit int64) map[string]int64 {
		if limit > 0 {
			limit /= unit
		}
		return map[string]int64{"usage": used / unit, "limit": limit}
	}
	return httpapi.OK(map[string]any{"usage": map[string]any{
		"image_size_total": item(u.Bytes, u.LimitBytes, mib), "image_count_total": item(u.Images, u.LimitImages, 1),
		"image_stage_total": item(u.Staged, u.LimitStaged, mib), "image_count_uploading": item(u.Uploading, u.LimitUploading, 1)}}), nil
}

func errNoLocations() error {
	return fault.New(fault.Forbidden, "It's not allowed to add locations if locations are invisible.")
}

func noContent(err error) (*httpapi.Reply, error) {
	if err != nil {
		return nil, err
	}
	return &httpapi.Reply{Status: http.StatusNoContent}, nil
}

// flip is deactivate and reactivate: the same with another rule.
func (a *api) flip(r *httpapi.Request, rule string, do func(context.Context, *auth.Caller, string) error) (*httpapi.Reply, error) {
	rec, err := a.lookup(r, rule)
	if err != nil {
		return nil, err
	}
	return noContent(do(r.Context(), r.Caller, rec.ID))
}
