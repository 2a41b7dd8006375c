package api

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kilonova/internal/id"
)

// twin does everything to both clouds and wants the same status.
type twin struct{ ours, theirs *cloud }

func (w twin) do(t *rapid.T, minor int, method, path string, body any) (ours, theirs answer) {
	ours, theirs = w.ours.at(minor).do(method, path, body), w.theirs.at(minor).do(method, path, body)
	if ours.status != theirs.status {
		t.Fatalf("%s %s at 1.%d: %d, the other placement says %d\nours: %s\ntheirs: %s", method, path, minor, ours.status, theirs.status, ours.text, theirs.text)
	}
	return ours, theirs
}

// clear removes every provider and allocation.
func (c *cloud) clear() {
	c = c.at(newest)
	for {
		list, _ := c.must(200, "GET", "/resource_providers", nil).body["resource_providers"].([]any)
		if len(list) == 0 {
			return
		}
		for _, p := range list {
			rp := fmt.Sprint("/resource_providers/", dig(p, "uuid"))
			held, _ := c.do("GET", rp+"/allocations", nil).body["allocations"].(map[string]any)
			for consumer := range held {
				c.must(204, "DELETE", "/allocations/"+consumer, nil)
			}
			c.do("DELETE", rp, nil) // parents wait for their children
		}
	}
}

// plain is an answer without what may differ: order, and texts of errors.
func plain(a answer) any {
	list, _ := a.body["allocation_requests"].([]any)
	if list == nil {
		return a.body
	}
	out := make([]string, len(list))
	for i, r := range list {
		if m, ok := r.(map[string]any); ok {
			if l, ok := m["allocations"].([]any); ok {
				slices.SortFunc(l, func(a, b any) int { return strings.Compare(text(a), text(b)) })
			}
			if by, ok := m["mappings"].(map[string]any); ok {
				for _, l := range by {
					slices.SortFunc(l.([]any), func(a, b any) int { return strings.Compare(text(a), text(b)) })
				}
			}
		}
		out[i] = text(r)
	}
	slices.Sort(out)
	sums, _ := a.body["provider_summaries"].(map[string]any)
	for _, s := range sums {
		if traits, ok := dig(s, "traits").([]any); ok {
			slices.SortFunc(traits, func(a, b any) int { return strings.Compare(text(a), text(b)) })
		}
	}
	return map[string]any{"requests": out, "summaries": sums}
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// TestAgainstAnotherPlacement builds random clouds here and in the placement that KILONOVA_COMPARE_PLACEMENT names (its noauth2 token admin) and asks
// both the same questions.
func TestAgainstAnotherPlacement(t *testing.T) {
	there := os.Getenv("KILONOVA_COMPARE_PLACEMENT")
	if there == "" {
		t.Skip("KILONOVA_COMPARE_PLACEMENT names no placement to compare with")
	}
	w := twin{ours: start(t), theirs: &cloud{t: t, url: there, token: "admin"}}
	traits := []string{"HW_CPU_X86_AVX", "HW_CPU_X86_AVX2", "CUSTOM_T", "MISC_SHARES_VIA_AGGREGATE"}
	classes := []string{"VCPU", "MEMORY_MB", "CUSTOM_C"}
	for _, c := range []*cloud{w.ours.at(newest), w.theirs.at(newest)} {
		c.do("PUT", "/traits/CUSTOM_T", nil)
		c.do("PUT", "/resource_classes/CUSTOM_C", nil)
	}
	some := func(t *rapid.T, of []string, label string) []string {
		return slices.DeleteFunc(slices.Clone(of), func(s string) bool { return rapid.IntRange(0, 2).Draw(t, label+s) > 0 })
	}
	rapid.Check(t, func(t *rapid.T) {
		w.ours.clear()
		w.theirs.clear()
		aggs := []string{id.UUID(), id.UUID()}
		var rps, parents []string
		var consumers []string
		for i := range rapid.IntRange(1, 5).Draw(t, "providers") {
			uuid := id.UUID()
			body := o{"name": uuid, "uuid": uuid}
			parents = append(parents, "")
			if i > 0 && rapid.Bool().Draw(t, "child") {
				parents[i] = rapid.SampledFrom(rps).Draw(t, "parent")
				body["parent_provider_uuid"] = parents[i]
			}
			w.do(t, newest, "POST", "/resource_providers", body)
			rps = append(rps, uuid)
			inv := o{}
			for _, class := range some(t, classes, "has") {
				inv[class] = o{"total": rapid.IntRange(1, 8).Draw(t, "total"), "max_unit": rapid.IntRange(1, 8).Draw(t, "max"), "min_unit": rapid.IntRange(1, 2).Draw(t, "min"),
					"step_size": rapid.IntRange(1, 2).Draw(t, "step"), "allocation_ratio": rapid.SampledFrom([]float64{1, 1.5}).Draw(t, "ratio")}
			}
			rp := "/resource_providers/" + uuid
			w.do(t, newest, "PUT", rp+"/inventories", o{"resource_provider_generation": 0, "inventories": inv})
			w.do(t, newest, "PUT", rp+"/traits", o{"resource_provider_generation": 1, "traits": append([]string{}, some(t, traits, "trait")...)})
			w.do(t, newest, "PUT", rp+"/aggregates", o{"resource_provider_generation": 2, "aggregates": append([]string{}, some(t, aggs, "agg")...)})
		}
		for range rapid.IntRange(0, 3).Draw(t, "claims") {
			c := id.UUID()
			if len(consumers) > 0 && rapid.Bool().Draw(t, "again") {
				c = rapid.SampledFrom(consumers).Draw(t, "consumer")
			}
			alloc := o{}
			for _, rp := range rps {
				if class := rapid.SampledFrom(append([]string{""}, classes...)).Draw(t, "take"); class != "" {
					alloc[rp] = o{"resources": o{class: rapid.IntRange(1, 4).Draw(t, "amount")}}
				}
			}
			if len(alloc) == 0 {
				continue
			}
			if a, _ := w.do(t, 12, "PUT", "/allocations/"+c, o{"allocations": alloc, "project_id": "p", "user_id": "u"}); a.status == 204 && !slices.Contains(consumers, c) {
				consumers = append(consumers, c)
			}
		}
		for range 3 {
			minor := rapid.SampledFrom([]int{10, 12, 17, 24, 25, 27, 29, 33, 36, 39}).Draw(t, "minor")
			path := "/allocation_candidates?" + drawCandidates(t, minor, rps, aggs, traits, classes).Encode()
			ours, theirs := w.do(t, minor, "GET", path, nil)
			if d := cmp.Diff(plain(theirs), plain(ours)); ours.status == 200 && d != "" {
				q, _ := url.QueryUnescape(path)
				t.Fatalf("%s at 1.%d (-theirs +ours):\n%s", q, minor, d)
			}
		}
		w.lists(t, rps, aggs, traits, classes)
		for _, rp := range rps {
			for _, part := range []string{"", "/inventories", "/usages", "/allocations", "/traits", "/aggregates"} {
				ours, theirs := w.do(t, 14, "GET", "/resource_providers/"+rp+part, nil)
				for _, a := range []answer{ours, theirs} {
					delete(a.body, "links")
					for _, k := range []string{"traits", "aggregates"} {
						if l, ok := a.body[k].([]any); ok {
							slices.SortFunc(l, func(a, b any) int { return strings.Compare(text(a), text(b)) })
						}
					}
				}
				if d := cmp.Diff(theirs.body, ours.body); d != "" {
					t.Fatalf("%s (-theirs +ours):\n%s", part, d)
				}
			}
		}
		for _, c := range consumers {
			ours, theirs := w.do(t, 28, "GET", "/allocations/"+c, nil)
			if d := cmp.Diff(theirs.body, ours.body); d != "" {
				t.Fatalf("consumer (-theirs +ours):\n%s", d)
			}
			w.do(t, newest, "DELETE", "/allocations/"+c, nil)
		}
		slices.Reverse(rps)
		for _, rp := range rps {
			w.do(t, newest, "DELETE", "/resource_providers/"+rp, nil)
		}
	})
}

// lists compares provider lists under filters, and usages.
func (w twin) lists(t *rapid.T, rps, aggs, traits, classes []string) {
	for range 2 {
		q := url.Values{}
		maybe := func() bool { return rapid.IntRange(0, 2).Draw(t, "filter") == 0 }
		if maybe() {
			q.Set("resources", fmt.Sprintf("%s:%d", rapid.SampledFrom(classes).Draw(t, "class"), rapid.IntRange(1, 4).Draw(t, "n")))
		}
		if maybe() {
			q.Add("member_of", rapid.SampledFrom([]string{"", "!", "in:", "!in:"}).Draw(t, "how")+rapid.SampledFrom(aggs).Draw(t, "agg"))
		}
		if maybe() {
			q.Add("required", rapid.SampledFrom([]string{"", "!", "in:"}).Draw(t, "how")+rapid.SampledFrom(traits).Draw(t, "trait"))
		}
		if maybe() {
			q.Set("in_tree", rapid.SampledFrom(rps).Draw(t, "tree"))
		}
		ours, theirs := w.do(t, newest, "GET", "/resource_providers?"+q.Encode(), nil)
		found := func(a answer) []string {
			list, _ := a.body["resource_providers"].([]any)
			out := []string{}
			for _, p := range list {
				out = append(out, text([]any{dig(p, "uuid"), dig(p, "generation"), dig(p, "parent_provider_uuid"), dig(p, "root_provider_uuid")}))
			}
			slices.Sort(out)
			return out
		}
		if d := cmp.Diff(found(theirs), found(ours)); d != "" {
			t.Fatalf("providers with %s (-theirs +ours):\n%s", q.Encode(), d)
		}
	}
	for minor, path := range map[int]string{9: "/usages?project_id=p", 37: "/usages?project_id=p&user_id=u", 38: "/usages?project_id=p&consumer_type=all", 39: "/usages?project_id=p"} {
		ours, theirs := w.do(t, minor, "GET", path, nil)
		if d := cmp.Diff(theirs.body, ours.body); d != "" {
			t.Fatalf("%s at 1.%d (-theirs +ours):\n%s", path, minor, d)
		}
	}
}

func drawCandidates(t *rapid.T, minor int, rps, aggs, traits, classes []string) url.Values {
	q := url.Values{}
	suffixes := []string{""}
	if minor >= 25 {
		suffixes = []string{"", "1", "2"}[:rapid.IntRange(1, 3).Draw(t, "groups")]
		q.Set("group_policy", rapid.SampledFrom([]string{"none", "isolate"}).Draw(t, "policy"))
	}
	for _, s := range suffixes {
		var ask []string
		for _, class := range classes {
			if rapid.IntRange(0, 2).Draw(t, "ask") == 0 {
				ask = append(ask, fmt.Sprintf("%s:%d", class, rapid.IntRange(1, 4).Draw(t, "n")))
			}
		}
		if len(ask) == 0 {
			ask = []string{"VCPU:1"}
		}
		q.Set("resources"+s, strings.Join(ask, ","))
		one := func(of []string) string { return rapid.SampledFrom(of).Draw(t, "value") }
		rare := func() bool { return rapid.IntRange(0, 3).Draw(t, "rare") == 0 }
		if minor >= 17 && rare() {
			q.Add("required"+s, one(traits))
		}
		if minor >= 39 && rare() {
			q.Add("required"+s, "in:"+one(traits)+","+one(traits))
		}
		if minor >= 39 && rare() {
			q.Add("required"+s, "!"+one(traits))
		}
		if minor >= 24 && rare() {
			q.Add("member_of"+s, one(aggs))
		}
		if minor >= 33 && rare() {
			q.Add("member_of"+s, "!"+one(aggs))
		}
		if minor >= 33 && rare() {
			q.Set("in_tree"+s, one(rps))
		}
	}
	if minor >= 36 && rapid.IntRange(0, 3).Draw(t, "root") == 0 {
		q.Set("root_required", rapid.SampledFrom([]string{"", "!"}).Draw(t, "not")+rapid.SampledFrom(traits).Draw(t, "root trait"))
	}
	if minor >= 36 && len(suffixes) > 2 && rapid.Bool().Draw(t, "subtree") {
		q.Set("same_subtree", "1,2")
	}
	return q
}
