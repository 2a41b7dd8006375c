package httpapi

import (
	"net/url"
	"strconv"

	"kilonova/internal/fault"
)

// Page is what limit and marker of a list request ask for.
type Page struct {
	Limit  int    // at most the service's maximum
	Marker string // id of the last item that the client has, "" for the first page
}

// ZeroLimit says what limit=0 means to a list.
type ZeroLimit bool

// The two readings: servers, migrations and instance actions give an empty list; offset-style lists give a full page.
const (
	ZeroIsEmpty ZeroLimit = false
	ZeroIsFull  ZeroLimit = true
)

// ParsePage reads limit and marker. Without a limit it is most; a greater one is cut to most. It fails with fault.Invalid for a limit
// that is not a whole number or negative.
func ParsePage(q url.Values, most int, zero ZeroLimit) (Page, error) {
	p := Page{Limit: most, Marker: q.Get("marker")}
	n, err := wholeNumber(q, "limit")
	if err != nil {
		return p, err
	}
	if q.Has("limit") && (n != 0 || zero == ZeroIsEmpty) {
		p.Limit = min(n, most)
	}
	return p, nil
}

// ParseOffset reads the offset of an offset-style list; 0 without one.
func ParseOffset(q url.Values) (int, error) { return wholeNumber(q, "offset") }

func wholeNumber(q url.Values, name string) (int, error) {
	if !q.Has(name) {
		return 0, nil
	}
	n, err := strconv.Atoi(q.Get(name))
	if err != nil {
		return 0, fault.New(fault.Invalid, "%s param must be an integer", name)
	}
	if n < 0 {
		return 0, fault.New(fault.Invalid, "%s param must be positive", name)
	}
	return n, nil
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
