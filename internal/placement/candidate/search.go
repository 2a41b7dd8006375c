package candidate

import (
	"context"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"

	"kilonova/internal/placement"
)

// Options are placement's settings for searches; the zero value is the default.
type Options struct {
	Randomize    bool // randomize_allocation_candidates: another order at each search, a random part of the whole under a limit
	Max          int  // max_allocation_candidates; 0: no bound
	BreadthFirst bool // allocation_candidates_generation_strategy: one candidate of each tree in turn
}

// Search finds candidates. It fails only when ctx ends.
func (v *View) Search(ctx context.Context, q placement.Query, o Options) (*placement.Candidates, error) {
	s := v.compile(q, o)
	trees := v.slots()
	if o.Randomize && len(trees) > 1 {
		trees = slices.Clone(trees)
		rand.Shuffle(len(trees), func(i, j int) { trees[i], trees[j] = trees[j], trees[i] })
	}
	s.out.Candidates = make([]placement.Candidate, 0, min(len(trees), s.most()))
	s.alike = make([]*node, 0, min(len(trees), s.most()))
	var err error
	if o.BreadthFirst {
		err = s.inTurn(ctx, trees)
	} else {
		err = s.oneByOne(ctx, trees)
	}
	if err != nil {
		return nil, err
	}
	s.summarize()
	s.explain()
	return s.out, nil
}

// search is one search on its way.
type search struct {
	view   *View
	query  placement.Query
	groups []group
	levels []level
	out    *placement.Candidates
	limit  int

	rootRequired, rootForbidden []trait
	walls                       walls
	bare                        *group // the unsuffixed group when it asks for no resources
	isolate                     bool
	subtrees                    [][]int // suffixed levels that must share a subtree
	used                        map[*slot]bool
	alike                       []*node // providers that are alone in their trees and have all of a candidate
	seen                        map[string]bool
}

// group is a request group with its names looked up.
type group struct {
	suffix    string
	wants     []want
	resources placement.Resources // shared by all candidates that take a whole group from one provider
	required  [][]int32
	forbidden []int32
	memberOf  [][]int32
	avoid     []int32
	tree      string
	wall      groupWalls
}

type want struct {
	name   string
	class  int32
	amount int64
}

// level is one choice of a provider: a class of the unsuffixed group, or a whole suffixed group.
type level struct {
	group int
	wants []want
	last  bool // the group is complete after this level
}

type trait struct {
	id   int32
	wall int
}

// compile looks up the names of a query.
func (v *View) compile(q placement.Query, o Options) *search {
	s := &search{view: v, query: q, out: &placement.Candidates{}, limit: q.Limit, used: map[*slot]bool{}, seen: map[string]bool{},
		isolate: q.GroupPolicy == "isolate"}
	if o.Max > 0 && (s.limit <= 0 || o.Max < s.limit) {
		s.limit = o.Max
	}
	for _, t := range q.RootRequired {
		s.rootRequired = append(s.rootRequired, trait{v.names.find(t), s.walls.add("root trait " + t)})
	}
	for _, t := range q.RootForbidden {
		s.rootForbidden = append(s.rootForbidden, trait{v.names.find(t), s.walls.add("root trait " + t + " forbidden")})
	}
	suffixed := map[string]int{}
	for _, in := range q.Groups {
		g := s.group(in)
		if in.InTree != "" {
			if p, ok := v.find(in.InTree); ok {
				g.tree = p.node().Root
			} else {
				g.tree = "none"
			}
		}
		if in.Suffix == "" && len(in.Resources) == 0 {
			s.bare = &g // it takes nothing; what else it asks concerns the tree's root
			continue
		}
		i := len(s.groups)
		s.groups = append(s.groups, g)
		if in.Suffix == "" {
			for k := range g.wants {
				s.levels = append(s.levels, level{i, g.wants[k : k+1], k == len(g.wants)-1})
			}
			continue
		}
		suffixed[in.Suffix] = len(s.levels)
		s.levels = append(s.levels, level{i, g.wants, true})
	}
	for _, names := range q.SameSubtree {
		var set []int
		for _, n := range names {
			if l, ok := suffixed[n]; ok {
				set = append(set, l)
			}
		}
		s.subtrees = append(s.subtrees, set)
	}
	s.walls.together = s.walls.add("all request groups together")
	return s
}

func (s *search) group(in placement.Group) group {
	find := s.view.names.find
	g := group{suffix: in.Suffix, resources: make(placement.Resources, len(in.Resources))}
	label := ""
	if in.Suffix != "" {
		label = "group " + in.Suffix + ": "
	}
	if in.InTree != "" {
		g.wall.tree = s.walls.add(label + "tree of provider " + in.InTree)
	}
	for _, choice := range in.MemberOf {
		g.memberOf = append(g.memberOf, ids(find, choice))
	}
	if len(in.MemberOf) > 0 {
		g.wall.member = s.walls.add(label + "aggregate " + joinTerms(in.MemberOf))
	}
	g.avoid = ids(find, in.NotMemberOf)
	if len(g.avoid) > 0 {
		g.wall.avoid = s.walls.add(label + "aggregate " + strings.Join(in.NotMemberOf, " or ") + " forbidden")
	}
	for _, class := range sortedClasses(in.Resources) {
		n := in.Resources[class]
		g.resources[class] = n
		g.wants = append(g.wants, want{class, find(class), n})
		g.wall.class = append(g.wall.class, s.walls.addResource(label, class, n))
	}
	for _, choice := range in.Required {
		g.required = append(g.required, ids(find, choice))
		g.wall.required = append(g.wall.required, s.walls.add(label+"trait "+strings.Join(choice, " or ")))
	}
	g.forbidden = ids(find, in.Forbidden)
	for _, t := range in.Forbidden {
		g.wall.forbidden = append(g.wall.forbidden, s.walls.add(label+"trait "+t+" forbidden"))
	}
	g.wall.whole = s.walls.add(label + "resources and traits together")
	return g
}

func ids(find func(string) int32, names []string) []int32 {
	out := make([]int32, len(names))
	for i, n := range names {
		out[i] = find(n)
	}
	return out
}

func sortedClasses(r placement.Resources) []string {
	out := make([]string, 0, len(r))
	for c := range r {
		out = append(out, c)
	}
	slices.Sort(out)
	return out
}

func (s *search) most() int {
	if s.limit > 0 {
		return s.limit
	}
	return len(s.view.slots())
}

func (s *search) full() bool { return s.limit > 0 && len(s.out.Candidates) >= s.limit }

func (s *search) oneByOne(ctx context.Context, trees []*slot) error {
	for i, t := range trees {
		if i%1024 == 1023 && ctx.Err() != nil {
			return ctx.Err()
		}
		err := s.tree(ctx, t, func(c placement.Candidate) bool {
			s.out.Candidates = append(s.out.Candidates, c)
			return !s.full()
		})
		if err != nil {
			return err
		}
		if s.full() {
			return nil
		}
	}
	return nil
}

func (s *search) inTurn(ctx context.Context, trees []*slot) error {
	var first error
	type source struct {
		next func() (placement.Candidate, bool)
		stop func()
	}
	var running []source
	defer func() {
		for _, r := range running {
			r.stop()
		}
	}()
	for _, t := range trees {
		next, stop := iter.Pull(func(yield func(placement.Candidate) bool) {
			if err := s.tree(ctx, t, yield); err != nil {
				first = err
			}
		})
		running = append(running, source{next, stop})
	}
	for turn := running; len(turn) > 0; {
		var still []source
		for _, r := range turn {
			c, ok := r.next()
			if first != nil {
				return first
			}
			if !ok {
				continue
			}
			s.out.Candidates = append(s.out.Candidates, c)
			if s.full() {
				return nil
			}
			still = append(still, r)
		}
		turn = still
	}
	return nil
}

// tree yields the candidates whose anchor is t.
func (s *search) tree(ctx context.Context, t *slot, yield func(placement.Candidate) bool) error {
	tr := t.tree.Load()
	root := tr.nodes[0]
	for _, r := range s.rootRequired {
		if !root.traits.has(r.id) {
			s.walls.hit(r.wall, nil)
			return nil
		}
	}
	for _, r := range s.rootForbidden {
		if root.traits.has(r.id) {
			s.walls.hit(r.wall, nil)
			return nil
		}
	}
	if s.bare != nil && !s.alone(s.bare, root) {
		return nil
	}
	if len(tr.nodes) == 1 && len(t.sharers) == 0 && !root.sharing && len(s.groups) == 1 && s.groups[0].suffix == "" {
		if s.alone(&s.groups[0], root) {
			s.alike = append(s.alike, root)
			yield(t.whole(root.UUID, s.groups[0].resources))
		}
		return nil
	}
	w := &walk{search: s, ctx: ctx, anchor: t, yield: yield}
	w.pool = append(w.pool, tr.nodes...)
	for i := range tr.nodes {
		w.from = append(w.from, place{t, i})
	}
	for _, p := range t.sharers {
		w.pool = append(w.pool, p.node())
		w.from = append(w.from, p)
	}
	w.own = len(tr.nodes)
	return w.run()
}

// alone judges whether one provider has all that a group asks. It is the most frequent case: a tree of one provider, nothing shared, only the
// unsuffixed group.
func (s *search) alone(g *group, n *node) bool {
	switch {
	case g.tree != "" && g.tree != n.Root:
		s.walls.hit(g.wall.tree, nil)
	case !memberOf(n, g.memberOf):
		s.walls.hit(g.wall.member, nil)
	case anyOf(n.aggs, g.avoid):
		s.walls.hit(g.wall.avoid, nil)
	default:
		for i := range g.wants {
			w := &g.wants[i]
			if st := n.of(w.class); st == nil || !st.fits(w.amount) {
				s.walls.hit(g.wall.class[i], n)
				return false
			}
		}
		for i, choice := range g.required {
			if !n.traits.hasAny(choice) {
				s.walls.hit(g.wall.required[i], nil)
				return false
			}
		}
		for i, t := range g.forbidden {
			if n.traits.has(t) {
				s.walls.hit(g.wall.forbidden[i], nil)
				return false
			}
		}
		return true
	}
	return false
}

// memberOf tells whether the provider is in an aggregate of each term.
func memberOf(n *node, terms [][]int32) bool {
	for _, choice := range terms {
		if !anyOf(n.aggs, choice) {
			return false
		}
	}
	return true
}

func anyOf(have, want []int32) bool {
	for _, h := range have {
		if slices.Contains(want, h) {
			return true
		}
	}
	return false
}

// summarize adds the state of every provider of the trees that candidates use.
func (s *search) summarize() {
	s.out.Summaries = make(map[string]*placement.Provider, len(s.used)+len(s.alike))
	if s.query.Flat {
		for _, c := range s.out.Candidates {
			for uuid := range c.Allocations {
				if p, ok := s.view.find(uuid); ok {
					s.out.Summaries[uuid] = &p.node().Provider
				}
			}
		}
		return
	}
	for t := range s.used {
		for _, n := range t.tree.Load().nodes {
			s.out.Summaries[n.UUID] = &n.Provider
		}
	}
	for _, n := range s.alike {
		s.out.Summaries[n.UUID] = &n.Provider
	}
}
