package view

import (
	"net/url"
	"slices"
	"strings"
)

// Link is one link of a document.
type Link struct {
	Rel  string `json:"rel"`
	Href string `json:"href"`
	Type string `json:"type,omitempty"`
}

// Links makes links below a service's root: Self is the root with the version and, when the request had it, the project; Bookmark is without version.
type Links struct{ Self, Bookmark string }

// To gives the self and bookmark links of a thing.
func (l Links) To(collection, id string) []Link {
	id = url.PathEscape(id)
	return []Link{{Rel: "self", Href: l.Self + "/" + collection + "/" + id}, {Rel: "bookmark", Href: l.Bookmark + "/" + collection + "/" + id}}
}

// Next gives the link to the page after the marker; the other query parameters are kept, sorted by name.
func (l Links) Next(path string, query url.Values, marker string) []Link {
	q := url.Values{}
	for k, v := range query {
		q[k] = slices.Clone(v)
	}
	q.Set("marker", marker)
	return []Link{{Rel: "next", Href: l.Self + path + "?" + q.Encode()}}
}

func (l Links) append(b []byte, collection, id string) []byte {
	b = append(b, `[{"rel":"self","href":"`...)
	b = append(b, l.Self...)
	b = appendPath(b, collection, id)
	b = append(b, `"},{"rel":"bookmark","href":"`...)
	b = append(b, l.Bookmark...)
	b = appendPath(b, collection, id)
	return append(b, `"}]`...)
}

func (l Links) appendBookmark(b []byte, collection, id string) []byte {
	b = append(b, `[{"rel":"bookmark","href":"`...)
	b = append(b, l.Bookmark...)
	b = appendPath(b, collection, id)
	return append(b, `"}]`...)
}

func appendPath(b []byte, collection, id string) []byte {
	b = append(b, '/')
	b = append(b, collection...)
	b = append(b, '/')
	if strings.ContainsAny(id, "\"\\ %?#") {
		id = url.PathEscape(id)
	}
	return append(b, id...)
}
