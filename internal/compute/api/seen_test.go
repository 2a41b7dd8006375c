package api_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"kilonova/internal/compute/api"
	"kilonova/internal/compute/api/apitest"
)

// neverSeen are places of answers that are described, but that no answer here has, with the reason. A place stands for all below it.
var neverSeen = map[string]string{
	"GET /extensions extensions[].links":                            "it is always empty",
	"GET /extensions/{id} extension.links":                          "it is always empty",
	"GET /limits limits.rate":                                       "it is always empty: rate limits went long ago",
	"GET /os-hypervisors/detail hypervisors[].disk_available_least": "2.88 took it away; the description leaves it open",
	"GET /os-hypervisors/{id} hypervisor.disk_available_least":      "2.88 took it away; the description leaves it open",
	"GET /os-hypervisors/{id}/uptime hypervisor.servers":            "it is of the list and the show route, which share their description with this one",
	"GET /os-snapshots snapshots":                                   "there is no volume service",
	"GET /os-snapshots/detail snapshots":                            "there is no volume service",
	"GET /os-volumes volumes":                                       "there is no volume service",
	"GET /os-volumes/detail volumes":                                "there is no volume service",
	"GET /servers servers[].status":                                 "it is of servers in cells that are down",
	"GET /servers/{server_id}/shares shares":                        "there is no shared file system service",
}

// seenIn collects the places of an answer, with the description's names for them.
func seenIn(v any, at string, out map[string]bool) {
	out[at] = true
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			seenIn(x, strings.TrimPrefix(at+"."+k, "."), out)
		}
	case []any:
		for _, x := range v {
			seenIn(x, at+"[]", out)
		}
	}
}

// TestEveryDescribedKeyIsSeen asks every reading route, at each version that changes it, in all ways that are known, until every place that the
// description has was in an answer: a key that may be left out is not left out always.
func TestEveryDescribedKeyIsSeen(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	c.prepare(t)
	c.populate(t)
	numbered, alternative := regexp.MustCompile(`\[\d+\]`), regexp.MustCompile(`<[^>]*>`)
	var answers apitest.Answers
	places, excepted := 0, map[string]bool{}
	for _, key := range api.Keys() {
		f := api.FactsOf(t, key)
		if no, ok := refusedHere[key]; ok && no.until == 0 || !strings.HasPrefix(key, "GET ") {
			continue
		}
		for _, minor := range f.Borders {
			if no, ok := refusedHere[key]; ok && minor <= no.until {
				continue
			}
			seen := map[string]bool{}
			a := asked{c, t, minor, "admin"}
			for _, variant := range append([]string{""}, variants[key]...) {
				_, path, _, _ := a.request(key)
				switch {
				case strings.HasPrefix(variant, "^"):
					continue
				case strings.HasPrefix(variant, "/"):
					path = a.named(variant)
				default:
					path += variant
				}
				r := apitest.Call(c.h, "admin", "GET", "/v2.1"+path, "", minor)
				var doc any
				if r.Code < 300 && json.Unmarshal(r.Body.Bytes(), &doc) == nil {
					seenIn(doc, "", seen)
					if err := answers.Judge(key, minor, r.Body.Bytes()); err != nil && notInDescription[key] == "" {
						t.Errorf("%s at 2.%d (%s): %v in %.500s", key, minor, path, err, r.Body)
					}
				}
			}
			for _, p := range c.places(key, minor) {
				path := numbered.ReplaceAllString(alternative.ReplaceAllString(p.Path, ""), "[]")
				if path == "$" || strings.Contains(path, "{") || strings.Contains(path, "scheduler_hints.") {
					continue
				}
				places++
				if seen[path] {
					continue
				}
				known := false
				for place := range neverSeen {
					if rest, ok := strings.CutPrefix(fmt.Sprint(key, " ", path), place); ok && (rest == "" || rest[0] == '.' || rest[0] == '[') {
						known, excepted[place] = true, true
					}
				}
				if !known {
					t.Errorf("%s at 2.%d: no answer had %s", key, minor, path)
				}
			}
		}
	}
	for place, why := range neverSeen {
		if !excepted[place] {
			t.Errorf("%s (%s) was seen in every answer", place, why)
		}
	}
	t.Logf("%d places of answers", places)
	if places < 5000 {
		t.Errorf("only %d places", places)
	}
}
