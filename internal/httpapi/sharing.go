package httpapi

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Sharing lets web pages of other origins use services from a browser: the CORS protocol of https://fetch.spec.whatwg.org, with the options of
// OpenStack's middleware. Without Origins nothing is shared.
type Sharing struct {
	Origins     []string // "https://dashboard.example.com", without a slash at the end; "*": any
	Credentials bool     // pages may send cookies and the like; not for "*"
	Expose      []string // headers of answers that pages may read beside the plain ones
	MaxAge      int      // seconds that a browser may remember the answer to its question; 0: not told
	Methods     []string // that pages may use
	Headers     []string // that pages may send beside the plain ones
}

// plainHeaders may be sent by every page.
var plainHeaders = []string{"Accept", "Accept-Language", "Content-Type", "Cache-Control", "Content-Language", "Expires", "Last-Modified", "Pragma"}

// Handler puts the headers of the protocol on the answers of h, and answers OPTIONS, by which browsers ask, itself.
func (s Sharing) Handler(h http.Handler) http.Handler {
	if len(s.Origins) == 0 {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin := s.origin(r.Header.Get("Origin"))
		if r.Method == http.MethodOptions {
			if origin != "" && s.may(r) {
				s.permit(w.Header(), r, origin)
			}
			w.WriteHeader(http.StatusOK)
			return
		}
		if origin != "" {
			s.allow(w.Header(), origin)
			if len(s.Expose) > 0 {
				w.Header().Set("Access-Control-Expose-Headers", strings.Join(s.Expose, ","))
			}
		}
		h.ServeHTTP(w, r)
	})
}

// origin is what to answer to an origin: itself, "*", or nothing.
func (s Sharing) origin(asked string) string {
	switch {
	case asked == "":
		return ""
	case slices.Contains(s.Origins, asked):
		return asked
	case slices.Contains(s.Origins, "*"):
		return "*"
	}
	return ""
}

// may tells whether the request that a browser asks about is one that pages may make.
func (s Sharing) may(r *http.Request) bool {
	if !slices.Contains(s.Methods, r.Header.Get("Access-Control-Request-Method")) {
		return false
	}
	for _, name := range wanted(r) {
		same := func(h string) bool { return strings.EqualFold(h, name) }
		if !slices.ContainsFunc(plainHeaders, same) && !slices.ContainsFunc(s.Headers, same) {
			return false
		}
	}
	return true
}

// wanted are the headers that a browser asks about.
func wanted(r *http.Request) (names []string) {
	for name := range strings.SplitSeq(r.Header.Get("Access-Control-Request-Headers"), ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

func (s Sharing) permit(h http.Header, r *http.Request, origin string) {
	s.allow(h, origin)
	if s.MaxAge > 0 {
		h.Set("Access-Control-Max-Age", strconv.Itoa(s.MaxAge))
	}
	h.Set("Access-Control-Allow-Methods", r.Header.Get("Access-Control-Request-Method"))
	if names := wanted(r); len(names) > 0 {
		h.Set("Access-Control-Allow-Headers", strings.Join(names, ","))
	}
}

func (s Sharing) allow(h http.Header, origin string) {
	h.Add("Vary", "Origin")
	h.Set("Access-Control-Allow-Origin", origin)
	if s.Credentials && origin != "*" {
		h.Set("Access-Control-Allow-Credentials", "true")
	}
}
