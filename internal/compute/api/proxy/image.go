package proxy

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"kilonova/internal/clock"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/image"
)

// statuses are compute's names of image states; progress is how far an image in that state is.
var statuses = map[string]struct {
	name     string
	progress int
}{
	image.Queued: {"SAVING", 25}, image.Saving: {"SAVING", 50}, image.Importing: {"SAVING", 50}, image.Uploading: {"SAVING", 50},
	image.Active: {"ACTIVE", 100}, image.Killed: {"ERROR", 0}, image.Deleted: {"DELETED", 0},
}

func statusOf(i *image.Image) (string, int) {
	if s, ok := statuses[i.Status]; ok {
		return s.name, s.progress
	}
	return "UNKNOWN", 0
}

func (a api) imageLinks(r *httpapi.Request, imageID string) []document {
	path := "/images/" + url.PathEscape(imageID)
	root := a.ImageURL
	if root == "" {
		root = r.Base
	}
	return []document{{"rel": "self", "href": r.Link(path)}, {"rel": "bookmark", "href": r.Bookmark(path)},
		{"rel": "alternate", "type": "application/vnd.openstack.image", "href": strings.TrimRight(root, "/") + path}}
}

func (a api) imageView(r *httpapi.Request, i *image.Image) document {
	status, progress := statusOf(i)
	metadata := i.Properties
	if metadata == nil {
		metadata = map[string]string{}
	}
	d := document{"id": i.ID, "name": orNull(i.Name), "links": a.imageLinks(r, i.ID), "status": status, "progress": progress, "metadata": metadata,
		"minDisk": i.MinDisk, "minRam": i.MinRAM, "OS-EXT-IMG-SIZE:size": max(i.Size, 0),
		"created": i.Created.UTC().Format(clock.LayoutZ), "updated": i.Updated.UTC().Format(clock.LayoutZ)}
	if s := i.Properties["instance_uuid"]; s != "" {
		path := "/servers/" + url.PathEscape(s)
		d["server"] = document{"id": s, "links": []document{{"rel": "self", "href": r.Link(path)}, {"rel": "bookmark", "href": r.Bookmark(path)}}}
	}
	if text, ok := i.Properties["auto_disk_config"]; ok {
		d["OS-DCF:diskConfig"] = "MANUAL"
		if v, _ := backend.ParseBool(text); v {
			d["OS-DCF:diskConfig"] = "AUTO"
		}
	}
	return d
}

func (a api) listImages(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.images(r, "/images", func(i *image.Image) document {
		return document{"id": i.ID, "name": orNull(i.Name), "links": a.imageLinks(r, i.ID)}
	})
}

func (a api) detailImages(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.images(r, "/images/detail", func(i *image.Image) document { return a.imageView(r, i) })
}

func (a api) images(r *httpapi.Request, path string, view func(*image.Image) document) (*httpapi.Reply, error) {
	page, err := a.Page(r.Query())
	if err != nil {
		return nil, err
	}
	keep, err := imageFilter(r.Query())
	if err != nil {
		return nil, err
	}
	list, err := a.Images.List(r.Context(), r.Caller, nil)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(i image.Image) bool { return !keep(&i) })
	if page.Marker != "" {
		n := slices.IndexFunc(list, func(i image.Image) bool { return i.ID == page.Marker })
		if n < 0 {
			return nil, fault.New(fault.Invalid, "marker [%s] not found", page.Marker)
		}
		list = list[n+1:]
	}
	list = list[:min(len(list), page.Limit)]
	out := make([]document, len(list))
	for i := range list {
		out[i] = view(&list[i])
	}
	doc := document{"images": out}
	if n := len(list); n > 0 && n == page.Limit {
		doc["images_links"] = r.NextLink(path, httpapi.Page{Limit: n}, n, list[n-1].ID)
	}
	return &httpapi.Reply{Body: doc}, nil
}

// imageFilter reads the query of an image list.
func imageFilter(q url.Values) (func(*image.Image) bool, error) {
	var tests []func(*image.Image) bool
	add := func(name string, test func(i *image.Image, want string) bool) {
		if want := httpapi.Last(q, name); want != "" {
			tests = append(tests, func(i *image.Image) bool { return test(i, want) })
		}
	}
	add("name", func(i *image.Image, want string) bool { return i.Name == want })
	add("status", func(i *image.Image, want string) bool { s, _ := statusOf(i); return strings.EqualFold(s, want) })
	add("type", func(i *image.Image, want string) bool { return i.Properties["image_type"] == want })
	add("server", func(i *image.Image, want string) bool {
		return i.Properties["instance_uuid"] == want[strings.LastIndexByte(want, '/')+1:]
	})
	for name, value := range map[string]func(*image.Image) int64{"minRam": func(i *image.Image) int64 { return i.MinRAM }, "minDisk": func(i *image.Image) int64 { return i.MinDisk }} {
		if text := httpapi.Last(q, name); text != "" {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return nil, fault.New(fault.Invalid, "Invalid %s filter [%s]", name, text)
			}
			tests = append(tests, func(i *image.Image) bool { return value(i) >= n })
		}
	}
	if text := httpapi.Last(q, "changes-since"); text != "" {
		since, err := backend.Time("changes-since", text)
		if err != nil {
			return nil, err
		}
		tests = append(tests, func(i *image.Image) bool { return !i.Updated.Before(since) })
	}
	for name := range q {
		if key, ok := strings.CutPrefix(name, "property-"); ok {
			add(name, func(i *image.Image, want string) bool { return i.Properties[key] == want })
		}
	}
	return func(i *image.Image) bool {
		for _, test := range tests {
			if !test(i) {
				return false
			}
		}
		return true
	}, nil
}

// image reads the image of a path variable.
func (a api) image(r *httpapi.Request, variable string) (*image.Image, error) {
	i, err := a.Images.Get(r.Context(), r.Caller, r.Path(variable))
	if fault.KindOf(err) == fault.NotFound && err != nil {
		return nil, fault.Wrap(err, fault.NotFound, "Image not found.")
	}
	return i, err
}

func (a api) showImage(r *httpapi.Request) (*httpapi.Reply, error) {
	i, err := a.image(r, "id")
	if err != nil {
		return nil, err
	}
	return reply("image", a.imageView(r, i)), nil
}

func (a api) deleteImage(r *httpapi.Request) (*httpapi.Reply, error) {
	i, err := a.image(r, "id")
	if err != nil {
		return nil, err
	}
	return &httpapi.Reply{}, a.Images.Delete(r.Context(), r.Caller, i.ID)
}

func (a api) imageMetadata(r *httpapi.Request) (*httpapi.Reply, error) {
	i, err := a.image(r, "image_id")
	if err != nil {
		return nil, err
	}
	return reply("metadata", i.Properties), nil
}

func (a api) imageMeta(r *httpapi.Request) (*httpapi.Reply, error) {
	i, err := a.image(r, "image_id")
	if err != nil {
		return nil, err
	}
	key := r.Path("id")
	value, ok := i.Properties[key]
	if !ok {
		return nil, fault.New(fault.NotFound, "Metadata key was not found")
	}
	return reply("meta", map[string]string{key: value}), nil
}

func (a api) addImageMetadata(r *httpapi.Request) (*httpapi.Reply, error) {
	in, err := decode[map[string]string](r, "metadata")
	if err != nil {
		return nil, err
	}
	return a.changeMetadata(r, "metadata", func(have map[string]string) (map[string]string, map[string]string) {
		for k, v := range in {
			have[k] = v
		}
		return have, have
	})
}

func (a api) replaceImageMetadata(r *httpapi.Request) (*httpapi.Reply, error) {
	in, err := decode[map[string]string](r, "metadata")
	if err != nil {
		return nil, err
	}
	return a.changeMetadata(r, "metadata", func(map[string]string) (map[string]string, map[string]string) { return in, in })
}

func (a api) setImageMeta(r *httpapi.Request) (*httpapi.Reply, error) {
	in, err := decode[map[string]string](r, "meta")
	if err != nil {
		return nil, err
	}
	value, ok := in[r.Path("id")]
	if !ok {
		return nil, fault.New(fault.Invalid, "Request body and URI mismatch")
	}
	return a.changeMetadata(r, "meta", func(have map[string]string) (map[string]string, map[string]string) {
		have[r.Path("id")] = value
		return have, in
	})
}

// changeMetadata writes an image's properties within the quota and answers what change gives second.
func (a api) changeMetadata(r *httpapi.Request, key string, change func(map[string]string) (all, shown map[string]string)) (*httpapi.Reply, error) {
	i, err := a.image(r, "image_id")
	if err != nil {
		return nil, err
	}
	if i.Properties == nil {
		i.Properties = map[string]string{}
	}
	all, shown := change(i.Properties)
	limits, err := a.Store.Limits(r.Context(), a.DB(), a.Quota, r.Caller.ProjectID, "")
	if err != nil {
		return nil, err
	}
	if most := limits.Of("metadata_items"); most >= 0 && int64(len(all)) > most {
		return nil, fault.New(fault.Forbidden, "Image metadata limit exceeded")
	}
	i.Properties = all
	if _, err := a.Images.Update(r.Context(), r.Caller, *i); err != nil {
		return nil, err
	}
	return reply(key, shown), nil
}

func (a api) deleteImageMeta(r *httpapi.Request) (*httpapi.Reply, error) {
	i, err := a.image(r, "image_id")
	if err != nil {
		return nil, err
	}
	if _, ok := i.Properties[r.Path("id")]; !ok {
		return nil, fault.New(fault.NotFound, "Invalid metadata key")
	}
	delete(i.Properties, r.Path("id"))
	_, err = a.Images.Update(r.Context(), r.Caller, *i)
	return &httpapi.Reply{}, err
}
