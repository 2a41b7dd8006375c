package api

import (
	"net/http"
	"slices"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/image"
	"kilonova/internal/image/local"
)

// location is one location of a request.
type location struct {
	url, checksum, algo, value string
	meta                       map[string]string
}

func parseLocation(v any) (l location, err error) {
	m, ok := v.(map[string]any)
	if ok {
		l.url, ok = m["url"].(string)
	}
	if !ok || l.url == "" {
		return l, fault.New(fault.Invalid, "A location is an object with url and metadata.")
	}
	l.meta = map[string]string{}
	if meta, has := m["metadata"]; has {
		object, ok := meta.(map[string]any)
		if !ok {
			return l, fault.New(fault.Invalid, "The metadata of a location is an object of strings.")
		}
		for k, v := range object {
			if l.meta[k], ok = v.(string); !ok {
				return l, fault.New(fault.Invalid, "The metadata of a location is an object of strings.")
			}
		}
	}
	if data, has := m["validation_data"]; has && data != nil {
		object, ok := data.(map[string]any)
		if !ok {
			return l, fault.New(fault.Invalid, "The validation_data of a location is an object.")
		}
		l.checksum, _ = object["checksum"].(string)
		l.algo, _ = object["os_hash_algo"].(string)
		l.value, _ = object["os_hash_value"].(string)
		if (l.algo == "") != (l.value == "") {
			return l, fault.New(fault.Invalid, "validation_data has os_hash_algo and os_hash_value together.")
		}
	}
	return l, nil
}

func parseLocations(v any) ([]location, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, fault.New(fault.Invalid, "Invalid locations: a list is expected.")
	}
	var out []location
	for _, v := range list {
		l, err := parseLocation(v)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(out, func(o location) bool { return o.url == l.url }) {
			return nil, fault.New(fault.Invalid, "A location stands twice.")
		}
		out = append(out, l)
	}
	return out, nil
}

// prepareLocations asks policy and finds the sizes of new addresses.
func (p *patch) prepareLocations(rec *local.Record, c change) error {
	if !p.a.s.ShowsLocations() {
		return errNoLocations()
	}
	rule := "set_image_location"
	if c.op == "remove" {
		rule = "delete_image_location"
		if local.Owns(p.r.Caller, rec) { // the owner may take away what he has set
			rule = "set_image_location"
		}
	}
	if err := authorize(p.r, rule, target(p.r.Caller, rec)); err != nil {
		return err
	}
	var list []location
	var err error
	switch {
	case c.op == "remove":
		return nil
	case len(c.path) == 2:
		var l location
		l, err = parseLocation(c.value)
		list = []location{l}
	default:
		list, err = parseLocations(c.value)
	}
	if err != nil {
		return err
	}
	return p.probe(rec, list)
}

func (p *patch) probe(rec *local.Record, list []location) error {
	for _, l := range list {
		if slices.ContainsFunc(rec.Locations, func(o local.Location) bool { return p.a.s.LocationURL(o) == l.url }) {
			continue
		}
		size, err := p.a.s.Probe(p.r.Context(), l.url)
		if err != nil {
			return err
		}
		if p.probed == nil {
			p.probed = map[string]int64{}
		}
		p.probed[l.url] = size
	}
	return nil
}

func (p *patch) applyLocations(rec *local.Record, c change) error {
	if c.op == "remove" {
		if len(c.path) == 1 {
			return fault.New(fault.Forbidden, "Property locations may not be removed.")
		}
		i, err := position(c.path[1], len(rec.Locations), false)
		if err != nil {
			return err
		}
		if len(rec.Locations) == 1 {
			return fault.New(fault.Forbidden, "Cannot delete last location of the image %s.", rec.ID)
		}
		if rec.Locations[i].Store != "http" {
			return fault.New(fault.Forbidden, "A copy in a store is removed with DELETE /v2/stores.")
		}
		rec.Locations = slices.Delete(rec.Locations, i, i+1)
		return nil
	}
	if len(c.path) == 2 {
		if c.op != "add" {
			return fault.New(fault.Invalid, "A single location can be added or removed.")
		}
		l, err := parseLocation(c.value)
		if err != nil {
			return err
		}
		i, err := position(c.path[1], len(rec.Locations), true)
		if err != nil {
			return err
		}
		return p.addLocation(rec, l, i)
	}
	list, err := parseLocations(c.value)
	if err != nil {
		return err
	}
	if len(rec.Locations) == 0 {
		for i, l := range list {
			if err := p.addLocation(rec, l, i); err != nil {
				return err
			}
		}
		return nil
	}
	return p.replaceLocations(rec, list)
}

// replaceLocations may change order and metadata of what is there, nothing else.
func (p *patch) replaceLocations(rec *local.Record, list []location) error {
	different := fault.New(fault.Invalid, "Original locations is not empty: its addresses can not be replaced.")
	if len(list) != len(rec.Locations) {
		return different
	}
	next := make([]local.Location, len(list))
	for i, l := range list {
		j := slices.IndexFunc(rec.Locations, func(o local.Location) bool { return p.a.s.LocationURL(o) == l.url })
		if j < 0 {
			return different
		}
		next[i] = rec.Locations[j]
		if next[i].Store != "http" {
			delete(l.meta, "store")
		}
		next[i].Metadata = l.meta
	}
	rec.Locations = next
	return nil
}

func (p *patch) addLocation(rec *local.Record, l location, at int) error {
	size, known := p.probed[l.url]
	if !known {
		return fault.New(fault.Invalid, "The location %.200s is there already.", l.url)
	}
	if rec.Status != image.Queued && rec.Status != image.Active {
		return fault.New(fault.Conflict, "Image %s has the status %s; locations are for queued and active images.", rec.ID, rec.Status)
	}
	if rec.Status == image.Queued {
		if rec.DiskFormat == "" || rec.ContainerFormat == "" {
			return fault.New(fault.Invalid, "Properties disk_format, container_format must be set prior to saving data.")
		}
		rec.Status, rec.Size = image.Active, size
		rec.Checksum, rec.HashAlgo, rec.HashValue = l.checksum, l.algo, l.value
	} else if l.checksum != "" && l.checksum != rec.Checksum || l.value != "" && (l.value != rec.HashValue || l.algo != rec.HashAlgo) {
		return fault.New(fault.Conflict, "The validation_data differ from what the image has.")
	}
	rec.Locations = slices.Insert(rec.Locations, at, local.Location{Store: "http", Key: l.url, Metadata: l.meta})
	return nil
}

// setLocations gives a new image its locations.
func (a *api) setLocations(r *httpapi.Request, rec *local.Record, list []any) (*local.Record, error) {
	p := &patch{a: a, r: r, changes: []change{{op: "add", path: []string{"locations"}, value: list}}}
	err := p.prepare(rec)
	if err == nil {
		rec, err = a.s.Edit(r.Context(), r.Caller, rec.ID, p.apply)
	}
	return rec, err
}

func (a *api) listLocations(r *httpapi.Request) (*httpapi.Reply, error) {
	rec, err := a.lookup(r, "fetch_image_location")
	if err != nil {
		return nil, err
	}
	if !a.s.ShowsLocations() {
		return nil, fault.New(fault.Forbidden, "Locations are not shown by this service.")
	}
	return httpapi.OK(a.locationDocs(rec)), nil
}

// addLocation is POST …/locations of version 2.17: the image becomes active with the address as its data.
func (a *api) addLocation(r *httpapi.Request) (*httpapi.Reply, error) {
	rec, err := a.lookup(r, "add_image_location")
	if err != nil {
		return nil, err
	}
	if !a.s.ShowsLocations() {
		return nil, errNoLocations()
	}
	if rec.Status != image.Queued {
		return nil, fault.New(fault.Conflict, "Image %s has the status %s; a location is given to a queued image.", rec.ID, rec.Status)
	}
	p := &patch{a: a, r: r, changes: []change{{op: "add", path: []string{"locations", "-"}, value: r.Document()}}}
	if err := p.prepare(rec); err != nil {
		return nil, err
	}
	rec, err = a.s.Edit(r.Context(), r.Caller, rec.ID, p.apply)
	if err != nil {
		return nil, err
	}
	return &httpapi.Reply{Status: http.StatusAccepted, Body: a.locationDocs(rec)}, nil
}

func (a *api) removeFromStore(r *httpapi.Request) (*httpapi.Reply, error) {
	rec, err := a.lookup(r, "delete_image_location")
	if err != nil {
		return nil, err
	}
	return noContent(a.s.RemoveLocation(r.Context(), r.Caller, rec.ID, r.Path("store")))
}
