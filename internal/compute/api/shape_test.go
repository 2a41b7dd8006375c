package api_test

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"sort"
	"strings"

	"kilonova/internal/compute/api"
)

// shape compares documents by what the description says of the places that may be null or have any keys.
type shape struct {
	nullable, free map[string]bool // by the last name of the place
}

func shapeOf(places []api.AnswerPlace) shape {
	s := shape{nullable: map[string]bool{}, free: map[string]bool{"metadata": true, "extra_specs": true, "properties": true, "addresses": true, "scheduler_hints": true}}
	for _, p := range places {
		name := lastName(p.Path)
		if p.Null {
			s.nullable[name] = true
		}
		if before, _, ok := strings.Cut(p.Path, "{"); ok {
			s.free[lastName(before)] = true
		}
	}
	return s
}

func lastName(path string) string {
	path = strings.TrimRight(regexp.MustCompile(`<[^>]*>|\[\d*\]`).ReplaceAllString(path, ""), ".")
	return path[strings.LastIndex(path, ".")+1:]
}

func (s shape) compare(at string, want, got any) []string {
	if want == nil || got == nil {
		if (want == nil) == (got == nil) || s.nullable[lastName(at)] {
			return nil
		}
		return []string{fmt.Sprintf("%s: %T, not %T", at, got, want)}
	}
	switch want := want.(type) {
	case map[string]any:
		got, ok := got.(map[string]any)
		if !ok {
			return []string{at + ": no object"}
		}
		return s.compareObjects(at, want, got)
	case []any:
		list, ok := got.([]any)
		if !ok {
			return []string{at + ": no list"}
		}
		var diff []string
		for _, w := range want {
			best := []string{at + "[]: the list is empty"}
			for i, g := range list {
				if d := s.compare(at, w, g); i == 0 || len(d) < len(best) {
					best = d
				}
			}
			diff = append(diff, best...)
		}
		return diff
	case string:
		text, ok := got.(string)
		if !ok {
			return []string{fmt.Sprintf("%s: %T, not text", at, got)}
		}
		if w, g := formatOf(want), formatOf(text); w != "" && w != g && !hostNames[lastName(at)] {
			return []string{fmt.Sprintf("%s: %q is no %s as %q", at, text, w, want)}
		}
		return nil
	}
	if w, g := fmt.Sprintf("%T", want), fmt.Sprintf("%T", got); w != g {
		return []string{fmt.Sprintf("%s: %s, not %s", at, g, w)}
	}
	return nil
}

func (s shape) compareObjects(at string, want, got map[string]any) []string {
	var diff []string
	free := s.free[lastName(at)]
	for k, w := range want {
		g, ok := got[k]
		switch {
		case ok:
			diff = append(diff, s.compare(at+"."+k, w, g)...)
		case !free:
			diff = append(diff, at+": no "+k)
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok && !free {
			diff = append(diff, at+": "+k+" is too much")
		}
	}
	sort.Strings(diff)
	return diff
}

// hostNames are places that hold the name of a host, which has no format: that of the published samples looks like an id.
var hostNames = map[string]bool{"host": true, "hosts": true, "host_name": true, "hosts_not_run": true, "OS-EXT-SRV-ATTR:host": true}

var formatPatterns = []struct {
	name string
	re   *regexp.Regexp
}{
	{"UUID", regexp.MustCompile(`^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$`)},
	{"request id", regexp.MustCompile(`^req-[0-9a-f-]{36}$`)},
	{"reservation id", regexp.MustCompile(`^r-[0-9a-z]{8}$`)},
	{"time with zone", regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`)},
	{"time without zone", regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?$`)},
	{"time with a blank", regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{6})?$`)},
	{"MAC address", regexp.MustCompile(`^([0-9a-f]{2}:){5}[0-9a-f]{2}$`)},
}

// formatOf names the format of a text; "" when it has none.
func formatOf(s string) string {
	for _, f := range formatPatterns {
		if f.re.MatchString(s) {
			return f.name
		}
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return "IP address"
	}
	if u, err := url.Parse(s); err == nil && (u.Scheme == "http" || u.Scheme == "https") {
		return "URL"
	}
	return ""
}
