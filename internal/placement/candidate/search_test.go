package candidate

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kilonova/internal/placement"
)

var (
	someClasses = []string{"VCPU", "MEMORY_MB", "CUSTOM_X"}
	someTraits  = []string{"HW_A", "HW_B", "CUSTOM_C", placement.SharesViaAggregate}
	someAggs    = []string{"agg1", "agg2"}
)

func subset(t *rapid.T, of []string, label string) []string {
	var out []string
	for _, s := range of {
		if rapid.Bool().Draw(t, label+s) {
			out = append(out, s)
		}
	}
	return out
}

func drawRecord(t *rapid.T, i int, before []Record) Record {
	r := Record{Provider: placement.Provider{UUID: fmt.Sprintf("p%d", i), Name: fmt.Sprintf("host%d", i), Inventory: map[string]placement.Inventory{},
		Used: map[string]int64{}}}
	r.Root = r.UUID
	if len(before) > 0 && rapid.Bool().Draw(t, "child") {
		up := rapid.SampledFrom(before).Draw(t, "parent")
		r.Parent, r.Root = up.UUID, up.Root
	}
	drawContent(t, &r)
	return r
}

func drawContent(t *rapid.T, r *Record) {
	r.Inventory, r.Used = map[string]placement.Inventory{}, map[string]int64{}
	for _, c := range subset(t, someClasses, "class") {
		r.Inventory[c] = placement.Inventory{Total: rapid.Int64Range(1, 6).Draw(t, "total"), Reserved: rapid.Int64Range(0, 1).Draw(t, "reserved"),
			MinUnit: rapid.Int64Range(1, 2).Draw(t, "min"), MaxUnit: rapid.Int64Range(1, 6).Draw(t, "max"), StepSize: rapid.Int64Range(1, 2).Draw(t, "step"),
			AllocationRatio: rapid.SampledFrom([]float64{1, 1.5}).Draw(t, "ratio")}
		r.Used[c] = rapid.Int64Range(0, 3).Draw(t, "used")
	}
	r.Traits, r.Aggregates = subset(t, someTraits, "trait"), subset(t, someAggs, "agg")
}

func drawQuery(t *rapid.T, names []string) placement.Query {
	q := placement.Query{GroupPolicy: rapid.SampledFrom([]string{"", "none", "isolate"}).Draw(t, "policy"), Flat: rapid.IntRange(0, 4).Draw(t, "flat") == 0}
	suffixes := []string{"", "1", "_N"}[:rapid.IntRange(1, 3).Draw(t, "groups")]
	var suffixed []string
	for _, s := range suffixes {
		g := placement.Group{Suffix: s, Resources: placement.Resources{}}
		for _, c := range subset(t, someClasses, "ask") {
			g.Resources[c] = rapid.Int64Range(1, 4).Draw(t, "amount")
		}
		if s == "" && len(g.Resources) == 0 && len(suffixes) == 1 {
			g.Resources["VCPU"] = 1
		}
		for range max(0, rapid.IntRange(-3, 2).Draw(t, "traits")) { // every term has to hold
			g.Required = append(g.Required, rapid.SliceOfNDistinct(rapid.SampledFrom(someTraits), 1, 2, rapid.ID).Draw(t, "required"))
		}
		for range max(0, rapid.IntRange(-4, 2).Draw(t, "forbids")) {
			g.Forbidden = append(g.Forbidden, rapid.SampledFrom(someTraits).Draw(t, "forbidden"))
		}
		for range max(0, rapid.IntRange(-4, 2).Draw(t, "members")) {
			g.MemberOf = append(g.MemberOf, rapid.SliceOfNDistinct(rapid.SampledFrom(someAggs), 1, 2, rapid.ID).Draw(t, "member"))
		}
		for range max(0, rapid.IntRange(-5, 2).Draw(t, "avoids")) {
			g.NotMemberOf = append(g.NotMemberOf, rapid.SampledFrom(someAggs).Draw(t, "avoid"))
		}
		if rapid.IntRange(0, 4).Draw(t, "tree?") == 0 {
			g.InTree = rapid.SampledFrom(names).Draw(t, "tree")
		}
		if s != "" {
			suffixed = append(suffixed, s)
		}
		q.Groups = append(q.Groups, g)
	}
	if len(suffixed) > 1 && rapid.Bool().Draw(t, "subtree?") {
		q.SameSubtree = [][]string{suffixed, suffixed[:1]}
	}
	if rapid.IntRange(0, 4).Draw(t, "root?") == 0 {
		q.RootRequired = []string{rapid.SampledFrom(someTraits).Draw(t, "root")}
	}
	if rapid.IntRange(0, 4).Draw(t, "noroot?") == 0 {
		q.RootForbidden = []string{rapid.SampledFrom(someTraits).Draw(t, "noroot")}
	}
	return q
}

func answer(t *rapid.T, v *View, q placement.Query, o Options) []string {
	got, err := v.Search(t.Context(), q, o)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]string, 0, len(got.Candidates))
	for _, c := range got.Candidates {
		out = append(out, canonical(c))
		for p := range c.Allocations {
			if _, ok := got.Summaries[p]; !ok {
				t.Fatalf("no summary of %s", p)
			}
		}
	}
	slices.Sort(out)
	return out
}

// TestDrawnQueriesAskForEverything: the queries that the search is compared on use every part of a query, and every part twice where it is a list.
func TestDrawnQueriesAskForEverything(t *testing.T) {
	seen := map[string]bool{}
	rapid.Check(t, func(t *rapid.T) {
		q := drawQuery(t, []string{"p0", "p1"})
		list := func(name string, n int) {
			seen[name], seen[name+" twice"] = seen[name] || n > 0, seen[name+" twice"] || n > 1
		}
		list("same_subtree", len(q.SameSubtree))
		list("root_required", 2*len(q.RootRequired))
		list("root forbidden", 2*len(q.RootForbidden))
		seen["flat"] = seen["flat"] || q.Flat
		seen["group_policy "+q.GroupPolicy] = true
		for _, g := range q.Groups {
			list("required", len(g.Required))
			list("forbidden", len(g.Forbidden))
			list("member_of", len(g.MemberOf))
			list("not member_of", len(g.NotMemberOf))
			seen["in_tree"] = seen["in_tree"] || g.InTree != ""
			seen["suffix "+g.Suffix] = true
			seen["no resources"] = seen["no resources"] || g.Suffix != "" && len(g.Resources) == 0
			for _, choice := range append(slices.Clone(g.Required), g.MemberOf...) {
				seen["any of several"] = seen["any of several"] || len(choice) > 1
			}
		}
	})
	for _, want := range []string{"same_subtree", "same_subtree twice", "root_required", "root forbidden", "flat", "group_policy ", "group_policy none", "group_policy isolate", "required", "required twice",
		"forbidden", "forbidden twice", "member_of", "member_of twice", "not member_of", "not member_of twice", "in_tree", "suffix ", "suffix 1", "suffix _N", "no resources", "any of several"} {
		if !seen[want] {
			t.Errorf("no query was drawn with %s", want)
		}
	}
}

// The search gives exactly what trying every assignment gives, at first and after changes to the view.
func TestSearchAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var records []Record
		m := &model{all: map[string]placement.Provider{}}
		for i := range rapid.IntRange(1, 5).Draw(t, "providers") {
			r := drawRecord(t, i, records)
			records = append(records, r)
			m.all[r.UUID] = r.Provider
			m.names = append(m.names, r.UUID)
		}
		v := Build(records)
		m.q = drawQuery(t, m.names)
		want := m.answer()
		if d := cmp.Diff(want, answer(t, v, m.q, Options{})); d != "" {
			t.Fatalf("candidates (-model +search):\n%s", d)
		}
		if d := cmp.Diff(want, answer(t, v, m.q, Options{BreadthFirst: true, Randomize: true})); d != "" {
			t.Fatalf("breadth first (-model +search):\n%s", d)
		}
		some := answer(t, v, m.q, Options{Max: 2})
		if len(some) != min(2, len(want)) || slices.ContainsFunc(some, func(c string) bool { return !slices.Contains(want, c) }) {
			t.Fatalf("limited to 2 of %d: %v", len(want), some)
		}

		changed := rapid.SampledFrom(records).Draw(t, "changed")
		if rapid.Bool().Draw(t, "usage only") {
			changed.Used = maps.Clone(changed.Used)
			for c := range changed.Used {
				changed.Used[c] = rapid.Int64Range(0, 4).Draw(t, "used now")
			}
			if !v.SetUsed(changed.UUID, 1, 5, changed.Used) {
				t.Fatal("the next version of a usage was refused")
			}
		} else {
			drawContent(t, &changed)
			changed.Version = 1
			v = v.Apply([]Record{changed}, nil)
		}
		m.all[changed.UUID] = changed.Provider
		if d := cmp.Diff(m.answer(), answer(t, v, m.q, Options{})); d != "" {
			t.Fatalf("after the change (-model +search):\n%s", d)
		}

		added := drawRecord(t, len(records), records)
		var gone []string
		for _, name := range m.names {
			if leaf := !slices.ContainsFunc(m.names, func(n string) bool { return m.all[n].Parent == name }); leaf && added.Parent != name && rapid.Bool().Draw(t, "gone") {
				gone = append(gone, name)
			}
		}
		v = v.Apply([]Record{added}, gone)
		m.all[added.UUID] = added.Provider
		m.names = append(slices.DeleteFunc(slices.Clone(m.names), func(n string) bool { return slices.Contains(gone, n) }), added.UUID)
		for i := range m.q.Groups {
			if slices.Contains(gone, m.q.Groups[i].InTree) {
				m.q.Groups[i].InTree = added.UUID
			}
		}
		if v.Len() != len(m.names) {
			t.Fatalf("%d providers, want %d", v.Len(), len(m.names))
		}
		if d := cmp.Diff(m.answer(), answer(t, v, m.q, Options{})); d != "" {
			t.Fatalf("after arrivals and departures (-model +search):\n%s", d)
		}
	})
}

// Without candidates every root is accounted for exactly once.
func TestRejectionsCountEveryRoot(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var records []Record
		var names []string
		roots := 0
		for i := range rapid.IntRange(1, 5).Draw(t, "providers") {
			r := drawRecord(t, i, records)
			records = append(records, r)
			names = append(names, r.UUID)
			if r.Parent == "" {
				roots++
			}
		}
		got, err := Build(records).Search(t.Context(), drawQuery(t, names), Options{})
		if err != nil {
			t.Fatal(err)
		}
		sum := 0
		for _, r := range got.Rejected {
			sum += r.Removed
		}
		if len(got.Candidates) == 0 && sum != roots {
			t.Fatalf("%d of %d roots explained: %v", sum, roots, got.Rejected)
		}
	})
}

func host(name string, vcpu, used int64, traits ...string) Record {
	return Record{Provider: placement.Provider{UUID: name, Root: name, Name: name, Traits: traits, Used: map[string]int64{"VCPU": used},
		Inventory: map[string]placement.Inventory{"VCPU": placement.Inventory{Total: vcpu}.WithDefaults()}}}
}

func TestRejectedNamesTheConstraint(t *testing.T) {
	limited := host("d", 64, 0)
	limited.Inventory["VCPU"] = placement.Inventory{Total: 64, MaxUnit: 4}.WithDefaults()
	cases := []struct {
		name  string
		hosts []Record
		query placement.Query
		want  []placement.Rejection
	}{
		{"resource", []Record{host("a", 8, 6), host("b", 8, 3)},
			placement.Query{Groups: []placement.Group{{Resources: placement.Resources{"VCPU": 6}}}},
			[]placement.Rejection{{Constraint: "resource VCPU: 6 asked", Removed: 2, Nearest: "b has 5 of 6"}}},
		{"trait", []Record{host("a", 8, 0), host("b", 2, 0, "HW_A")},
			placement.Query{Groups: []placement.Group{{Resources: placement.Resources{"VCPU": 6}, Required: [][]string{{"HW_A", "HW_B"}}}}},
			[]placement.Rejection{{Constraint: "resource VCPU: 6 asked", Removed: 1, Nearest: "b has 2 of 6"}, {Constraint: "trait HW_A or HW_B", Removed: 1}}},
		{"root", []Record{host("a", 8, 0, "COMPUTE_STATUS_DISABLED")},
			placement.Query{Groups: []placement.Group{{Resources: placement.Resources{"VCPU": 6}}}, RootForbidden: []string{"COMPUTE_STATUS_DISABLED"}},
			[]placement.Rejection{{Constraint: "root trait COMPUTE_STATUS_DISABLED forbidden", Removed: 1}}},
		{"unit", []Record{limited}, placement.Query{Groups: []placement.Group{{Resources: placement.Resources{"VCPU": 6}}}},
			[]placement.Rejection{{Constraint: "resource VCPU: 6 asked", Removed: 1, Nearest: "d gives at most 4 at once"}}},
		{"aggregate", []Record{host("a", 8, 0)},
			placement.Query{Groups: []placement.Group{{Resources: placement.Resources{"VCPU": 1}, MemberOf: [][]string{{"x", "y"}, {"z"}}}}},
			[]placement.Rejection{{Constraint: "aggregate x or y and z", Removed: 1}}},
		{"isolation", []Record{host("a", 8, 0)},
			placement.Query{GroupPolicy: "isolate", Groups: []placement.Group{{Suffix: "1", Resources: placement.Resources{"VCPU": 1}},
				{Suffix: "2", Resources: placement.Resources{"VCPU": 1}}}},
			[]placement.Rejection{{Constraint: "all request groups together", Removed: 1}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := Build(c.hosts).Search(t.Context(), c.query, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Candidates) > 0 {
				t.Fatalf("found %v", got.Candidates)
			}
			if d := cmp.Diff(c.want, got.Rejected); d != "" {
				t.Fatalf("rejected (-want +got):\n%s", d)
			}
		})
	}
}

func TestSetUsedOrder(t *testing.T) {
	v := Build([]Record{host("a", 8, 0)})
	if !v.SetUsed("a", 1, 1, map[string]int64{"VCPU": 2}) {
		t.Fatal("next version refused")
	}
	if !v.SetUsed("a", 1, 1, map[string]int64{"VCPU": 7}) {
		t.Fatal("old version not taken as known")
	}
	if r, _ := v.Get("a"); r.Used["VCPU"] != 2 {
		t.Fatalf("an old version changed the usage to %d", r.Used["VCPU"])
	}
	if v.SetUsed("a", 3, 3, map[string]int64{"VCPU": 4}) {
		t.Fatal("a gap between versions went unnoticed")
	}
	if v.SetUsed("b", 1, 1, nil) {
		t.Fatal("an unknown provider was taken")
	}
}

func cloud(n int) *View {
	records := make([]Record, n)
	for i := range records {
		id := fmt.Sprintf("%08d-0000-4000-8000-000000000000", i)
		records[i] = Record{Provider: placement.Provider{UUID: id, Root: id, Name: fmt.Sprintf("compute-%d", i), Traits: placement.StandardTraits()[:80],
			Aggregates: []string{fmt.Sprintf("zone-%d", i%3)}, Used: map[string]int64{"VCPU": int64(i % 16), "MEMORY_MB": 4096, "DISK_GB": 20},
			Inventory: map[string]placement.Inventory{
				"VCPU":      {Total: 16, MinUnit: 1, MaxUnit: 16, StepSize: 1, AllocationRatio: 4},
				"MEMORY_MB": {Total: 65536, Reserved: 512, MinUnit: 1, MaxUnit: 65536, StepSize: 1, AllocationRatio: 1},
				"DISK_GB":   {Total: 1000, MinUnit: 1, MaxUnit: 1000, StepSize: 1, AllocationRatio: 1}}}}
	}
	return Build(records)
}

func BenchmarkSearch(b *testing.B) {
	q := placement.Query{Groups: []placement.Group{{Resources: placement.Resources{"VCPU": 2, "MEMORY_MB": 2048, "DISK_GB": 20}}},
		RootForbidden: []string{"COMPUTE_STATUS_DISABLED"}}
	for _, n := range []int{1000, 5000, 10000} {
		v := cloud(n)
		for _, limit := range []int{0, 10, 1000} {
			q.Limit = limit
			b.Run(fmt.Sprintf("hosts=%d/limit=%d", n, limit), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := v.Search(b.Context(), q, Options{}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// With a bound, breadth first gives one candidate of each host before the second of any, depth first all of one host before the next.
func TestStrategies(t *testing.T) {
	var records []Record
	for _, host := range []string{"a", "b", "c"} {
		records = append(records, Record{Provider: placement.Provider{UUID: host, Name: host, Root: host}})
		for i := range 3 {
			name := fmt.Sprint(host, i)
			records = append(records, Record{Provider: placement.Provider{UUID: name, Name: name, Root: host, Parent: host,
				Inventory: map[string]placement.Inventory{"VGPU": placement.Inventory{Total: 1}.WithDefaults()}}})
		}
	}
	v := Build(records)
	q := placement.Query{Groups: []placement.Group{{Resources: placement.Resources{"VGPU": 1}}}}
	for _, c := range []struct {
		o     Options
		limit int
		want  []int // candidates of each host, fewest first
	}{
		{Options{}, 0, []int{3, 3, 3}}, {Options{BreadthFirst: true}, 0, []int{3, 3, 3}},
		{Options{}, 4, []int{1, 3}}, {Options{BreadthFirst: true}, 4, []int{1, 1, 2}},
		{Options{Max: 3}, 0, []int{3}}, {Options{Max: 3, BreadthFirst: true}, 0, []int{1, 1, 1}}, {Options{Max: 3, BreadthFirst: true}, 2, []int{1, 1}}, {Options{Max: 2}, 3, []int{2}},
	} {
		q.Limit = c.limit
		found, err := v.Search(t.Context(), q, c.o)
		if err != nil {
			t.Fatal(err)
		}
		of := map[string]int{}
		for _, one := range found.Candidates {
			of[one.Root]++
		}
		if got := slices.Sorted(maps.Values(of)); !slices.Equal(got, c.want) {
			t.Errorf("%+v, limit %d: %v of each host, want %v", c.o, c.limit, got, c.want)
		}
	}
}
