package api

import (
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/image"
	"kilonova/internal/image/local"
)

// FuzzPatch applies any document as a change: it either changes the image into one that is well formed or says what is wrong.
func FuzzPatch(f *testing.F) {
	for _, seed := range []string{`[{"op": "add", "path": "/a", "value": "b"}]`, `[{"op": "remove", "path": "/tags/0"}]`, `[{"op": "move", "from": "/p", "path": "/q"}]`,
		`[{"op": "add", "path": "/tags/-", "value": "x"}]`, `[{"replace": "/name", "value": null}]`, `[{"op": "add", "path": "/~1~0", "value": ""}]`} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, body []byte, old bool) {
		doc, err := httpapi.DecodeJSON(body)
		list, ok := doc.([]any)
		if err != nil || !ok {
			return
		}
		rec := &local.Record{Image: image.Image{ID: "i", Status: image.Queued, Visibility: "private", Tags: []string{"a", "b"}, Properties: map[string]string{"p": "v"}}}
		p := &patch{a: &api{}}
		for _, v := range list {
			m, ok := v.(map[string]any)
			if !ok {
				return
			}
			c, err := parseChange(m, old)
			if err == nil && c.path[0] == "locations" {
				return // needs a service
			}
			if err == nil {
				p.changes = []change{c}
				err = p.apply(rec)
			}
			var e *fault.Error
			if err != nil && !errors.As(err, &e) {
				t.Fatalf("an error without a kind: %v", err)
			}
			if err != nil {
				return
			}
		}
		b, err := imageView{a: p.a, r: rec}.AppendJSON(nil)
		if err != nil || !json.Valid(b) {
			t.Fatalf("the image is no longer a document: %s %v", b, err)
		}
	})
}

// FuzzQuery reads any query of an image list.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"name=in:a,%22b,c%22&limit=3", "sort=name:asc,id", "sort_key=a&sort_dir=asc", "created_at=gte:2020-01-01", "size_min=-1&protected=x&tag=a&tag=b"} {
		f.Add(seed)
	}
	a := &api{Config: Config{DefaultLimit: 25, MaxLimit: 1000}}
	f.Fuzz(func(t *testing.T, raw string) {
		v, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		q, err := a.parseList(v)
		if err != nil {
			if !errors.Is(err, fault.Invalid) {
				t.Fatalf("not a 400: %v", err)
			}
			return
		}
		if q.Limit < 0 || q.Limit > 1000 {
			t.Fatalf("limit %d", q.Limit)
		}
		for _, r := range q.Ranges {
			if strings.ContainsAny(r.Column+r.Op, " ;'\"") {
				t.Fatalf("%q %q goes into SQL", r.Column, r.Op)
			}
		}
	})
}
