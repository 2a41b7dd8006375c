package httpapi

import "net/url"

// Last gives the value of a parameter of a query, "" when it is not there. Of a parameter that is given several times the last value counts.
func Last(q url.Values, name string) string {
	if v := q[name]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

// Page is what limit and marker of a list request ask for.
type Page struct {
	Limit  int    // at most the service's maximum
	Marker string // id of the last item that the client has, "" for the first page
}

// Link is a link of a document.
type Link struct {
	Rel  string `json:"rel"`
	Href string `json:"href"`
}

// NextLink is the content of <collection>_links when a full page was given: path is relative as for Request.Link, marker the id of the
// page's last item. The other query parameters stay, sorted by name. It is nil when the page is not full.
func (r *Request) NextLink(path string, p Page, given int, marker string) []Link {
	if given < p.Limit || given == 0 {
		return nil
	}
	q := make(url.Values, len(r.Query())+1)
	for k, v := range r.Query() {
		q[k] = v
	}
	q.Set("marker", marker)
	return []Link{{Rel: "next", Href: r.Link(path) + "?" + q.Encode()}}
}
