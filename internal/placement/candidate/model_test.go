package candidate

import (
	"encoding/json"
	"slices"

	"kilonova/internal/placement"
)

// model answers a query the slow and obvious way: every assignment of providers to demands is tried and judged as a whole.
type model struct {
	all   map[string]placement.Provider
	names []string
	q     placement.Query
}

type demand struct {
	group placement.Group
	class string // of the unsuffixed group; suffixed groups are one demand
}

func (m *model) demands() []demand {
	var out []demand
	for _, g := range m.q.Groups {
		if g.Suffix != "" {
			out = append(out, demand{group: g})
			continue
		}
		for c := range g.Resources {
			out = append(out, demand{g, c})
		}
	}
	return out
}

// answer gives the canonical text of each distinct candidate.
func (m *model) answer() []string {
	found := map[string]bool{}
	for _, root := range m.names {
		if m.all[root].Parent != "" || !m.rootPasses(m.all[root]) {
			continue
		}
		d := m.demands()
		pick := make([]string, len(d))
		var try func(i int)
		try = func(i int) {
			if i == len(d) {
				if c, ok := m.judge(root, d, pick); ok {
					found[canonical(c)] = true
				}
				return
			}
			for _, p := range m.names {
				pick[i] = p
				try(i + 1)
			}
		}
		try(0)
	}
	out := make([]string, 0, len(found))
	for c := range found {
		out = append(out, c)
	}
	slices.Sort(out)
	return out
}

func (m *model) rootPasses(p placement.Provider) bool {
	for _, t := range m.q.RootRequired {
		if !slices.Contains(p.Traits, t) {
			return false
		}
	}
	for _, t := range m.q.RootForbidden {
		if slices.Contains(p.Traits, t) {
			return false
		}
	}
	for _, g := range m.q.Groups { // an unsuffixed group without resources speaks of the root
		if g.Suffix != "" || len(g.Resources) > 0 {
			continue
		}
		in := !slices.ContainsFunc(g.MemberOf, func(choice []string) bool { return !overlap(p.Aggregates, choice) })
		has := !slices.ContainsFunc(g.Required, func(choice []string) bool { return !overlap(p.Traits, choice) })
		if !in || !has || overlap(p.Aggregates, g.NotMemberOf) || overlap(p.Traits, g.Forbidden) || g.InTree != "" && m.all[g.InTree].Root != p.UUID {
			return false
		}
	}
	return true
}

// sharesWith tells whether p is of another tree and shares with root's.
func (m *model) sharesWith(p, root string) bool {
	if m.all[p].Root == root || !slices.Contains(m.all[p].Traits, placement.SharesViaAggregate) {
		return false
	}
	for _, n := range m.names {
		if m.all[n].Root == root && overlap(m.all[n].Aggregates, m.all[p].Aggregates) {
			return true
		}
	}
	return false
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

func (m *model) judge(root string, d []demand, pick []string) (placement.Candidate, bool) {
	c := placement.Candidate{Root: root, Allocations: placement.Allocations{}, Mappings: map[string][]string{}}
	anchor := m.all[root]
	unsuffixed := map[string]bool{}
	bySuffix := map[string]string{}
	for i, want := range d {
		p, g := m.all[pick[i]], want.group
		shared := m.sharesWith(p.UUID, root)
		if p.Root != root && !shared {
			return c, false
		}
		if g.InTree != "" && (p.Root != m.all[g.InTree].Root || g.Suffix == "" && shared) {
			return c, false
		}
		in := func(x placement.Provider) bool {
			return !slices.ContainsFunc(g.MemberOf, func(choice []string) bool { return !overlap(x.Aggregates, choice) })
		}
		if !in(p) && (g.Suffix != "" || shared || !in(anchor)) {
			return c, false
		}
		if overlap(p.Aggregates, g.NotMemberOf) || g.Suffix == "" && overlap(anchor.Aggregates, g.NotMemberOf) {
			return c, false
		}
		if overlap(p.Traits, g.Forbidden) {
			return c, false
		}
		resources := g.Resources
		if g.Suffix == "" {
			resources = placement.Resources{want.class: g.Resources[want.class]}
			unsuffixed[p.UUID] = true
		} else {
			bySuffix[g.Suffix] = p.UUID
			if slices.ContainsFunc(g.Required, func(choice []string) bool { return !overlap(p.Traits, choice) }) {
				return c, false
			}
		}
		for class, n := range resources {
			inv, ok := p.Inventory[class]
			if !ok || !inv.Fits(n, p.Used[class]) {
				return c, false
			}
			if c.Allocations[p.UUID] == nil {
				c.Allocations[p.UUID] = placement.Resources{}
			}
			c.Allocations[p.UUID][class] += n
		}
		if !slices.Contains(c.Mappings[g.Suffix], p.UUID) {
			c.Mappings[g.Suffix] = append(c.Mappings[g.Suffix], p.UUID)
		}
	}
	for uuid, r := range c.Allocations { // sums over groups
		for class, n := range r {
			inv := m.all[uuid].Inventory[class]
			if n > inv.MaxUnit || m.all[uuid].Used[class]+n > inv.Capacity() {
				return c, false
			}
		}
	}
	for _, g := range m.q.Groups {
		if g.Suffix == "" && len(g.Resources) > 0 {
			var union []string
			for p := range unsuffixed {
				union = append(union, m.all[p].Traits...)
			}
			if slices.ContainsFunc(g.Required, func(choice []string) bool { return !overlap(union, choice) }) {
				return c, false
			}
		}
	}
	return c, m.policies(c, bySuffix)
}

func (m *model) policies(c placement.Candidate, bySuffix map[string]string) bool {
	if m.q.GroupPolicy == "isolate" {
		seen := map[string]bool{}
		for _, p := range bySuffix {
			if seen[p] {
				return false
			}
			seen[p] = true
		}
	}
	for _, set := range m.q.SameSubtree {
		ok := false
		for _, top := range set {
			all := true
			for _, s := range set {
				all = all && m.isBelow(bySuffix[s], bySuffix[top])
			}
			ok = ok || all
		}
		if !ok {
			return false
		}
	}
	if m.q.Flat {
		roots := map[string]bool{}
		for p := range c.Allocations {
			if roots[m.all[p].Root] {
				return false
			}
			roots[m.all[p].Root] = true
		}
	}
	return true
}

func (m *model) isBelow(p, top string) bool {
	for p != "" {
		if p == top {
			return true
		}
		p = m.all[p].Parent
	}
	return false
}

func canonical(c placement.Candidate) string {
	for _, list := range c.Mappings {
		slices.Sort(list)
	}
	b, err := json.Marshal(struct {
		A placement.Allocations
		M map[string][]string
	}{c.Allocations, c.Mappings})
	if err != nil {
		panic(err)
	}
	return string(b)
}
