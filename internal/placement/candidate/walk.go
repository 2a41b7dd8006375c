package candidate

import (
	"context"
	"maps"
	"slices"
	"strings"

	"kilonova/internal/placement"
)

// walk tries the combinations of providers of one tree and of those that share with it, depth first, and gives up a branch as soon as
// what is chosen so far cannot become a candidate.
type walk struct {
	*search
	ctx    context.Context
	anchor *slot
	yield  func(placement.Candidate) bool

	pool []*node // the tree's providers, then those that share with it
	from []place
	own  int // how many of pool are the tree's own

	options [][]int // by level: indexes into pool
	chosen  []int   // by level
	takes   []take
	steps   int
	stopped bool
	found   bool
}

// take is what the levels chosen so far have of one class of one provider.
type take struct {
	node   int
	class  int32
	amount int64
	levels int
}

func (w *walk) run() error {
	for i := range w.levels {
		o := w.choices(&w.levels[i])
		if len(o) == 0 {
			return nil
		}
		w.options = append(w.options, o)
	}
	for i := range w.groups {
		if g := &w.groups[i]; g.suffix == "" && !w.traitsInReach(i, g) {
			return nil
		}
	}
	w.chosen = make([]int, len(w.levels))
	if err := w.descend(0); err != nil {
		return err
	}
	if !w.found && !w.stopped {
		wall := w.walls.together
		if len(w.groups) == 1 {
			wall = w.groups[0].wall.whole
		}
		w.walls.hit(wall, nil)
	}
	return nil
}

// choices gives the providers that may serve a level, and blames the first constraint that leaves none.
func (w *walk) choices(l *level) []int {
	g := &w.groups[l.group]
	in := make([]int, 0, len(w.pool))
	for i := range w.pool {
		if w.inTreeOf(g, i) {
			in = append(in, i)
		}
	}
	if len(in) == 0 {
		w.walls.hit(g.wall.tree, nil)
		return nil
	}
	if in = keep(in, func(i int) bool { return w.inAggregates(g, i) }); len(in) == 0 {
		w.walls.hit(g.wall.member, nil)
		return nil
	}
	if in = keep(in, func(i int) bool { return !w.avoided(g, i) }); len(in) == 0 {
		w.walls.hit(g.wall.avoid, nil)
		return nil
	}
	for k := range l.wants {
		before := slices.Clone(in)
		if in = keep(in, func(i int) bool { st := w.pool[i].of(l.wants[k].class); return st != nil && st.fits(l.wants[k].amount) }); len(in) == 0 {
			wall := g.wall.classOf(g.wants, l.wants[k].name)
			w.walls.hit(wall, nil)
			for _, i := range before {
				w.walls.near(wall, w.pool[i])
			}
			return nil
		}
	}
	if g.suffix != "" {
		for k, choice := range g.required {
			if in = keep(in, func(i int) bool { return w.pool[i].traits.hasAny(choice) }); len(in) == 0 {
				w.walls.hit(g.wall.required[k], nil)
				return nil
			}
		}
	}
	for k, t := range g.forbidden {
		if in = keep(in, func(i int) bool { return !w.pool[i].traits.has(t) }); len(in) == 0 {
			w.walls.hit(g.wall.forbidden[k], nil)
			return nil
		}
	}
	return in
}

func keep(in []int, ok func(int) bool) []int {
	out := in[:0]
	for _, i := range in {
		if ok(i) {
			out = append(out, i)
		}
	}
	return out
}

func (w *walk) inTreeOf(g *group, i int) bool {
	if g.tree == "" {
		return true
	}
	if g.suffix == "" && i >= w.own {
		return false // in_tree keeps the unsuffixed group inside its tree
	}
	return w.pool[i].Root == g.tree
}

// inAggregates: an aggregate of the root spans its whole tree for the unsuffixed group; suffixed groups and sharing providers need to be
// members themselves.
func (w *walk) inAggregates(g *group, i int) bool {
	if len(g.memberOf) == 0 {
		return true
	}
	if memberOf(w.pool[i], g.memberOf) {
		return true
	}
	return g.suffix == "" && i < w.own && memberOf(w.pool[0], g.memberOf)
}

func (w *walk) avoided(g *group, i int) bool {
	if len(g.avoid) == 0 {
		return false
	}
	return anyOf(w.pool[i].aggs, g.avoid) || g.suffix == "" && anyOf(w.pool[0].aggs, g.avoid)
}

// traitsInReach tells whether each required trait of the unsuffixed group stands at some provider that may serve it.
func (w *walk) traitsInReach(index int, g *group) bool {
	for k, choice := range g.required {
		ok := false
		for l := range w.levels {
			if w.levels[l].group == index && slices.ContainsFunc(w.options[l], func(i int) bool { return w.pool[i].traits.hasAny(choice) }) {
				ok = true
				break
			}
		}
		if !ok {
			w.walls.hit(g.wall.required[k], nil)
			return false
		}
	}
	return true
}

func (w *walk) descend(l int) error {
	if w.steps++; w.steps%4096 == 0 && w.ctx.Err() != nil {
		return w.ctx.Err()
	}
	if l == len(w.levels) {
		w.emit()
		return nil
	}
	for _, i := range w.options[l] {
		if !w.allowed(l, i) {
			continue
		}
		w.chosen[l] = i
		if !w.take(l, i) {
			continue
		}
		if !w.levels[l].last || w.complete(l) {
			if err := w.descend(l + 1); err != nil {
				return err
			}
		}
		w.giveBack(l, i)
		if w.stopped {
			return nil
		}
	}
	return nil
}

// allowed applies what concerns two providers of a candidate: isolation of suffixed groups, and one provider of a tree when flat.
func (w *walk) allowed(l, i int) bool {
	for k := range l {
		j := w.chosen[k]
		if j == i {
			if w.isolate && w.groups[w.levels[k].group].suffix != "" && w.groups[w.levels[l].group].suffix != "" {
				return false
			}
			continue
		}
		if w.query.Flat && w.pool[i].Root == w.pool[j].Root && len(w.levels[l].wants) > 0 && len(w.levels[k].wants) > 0 {
			return false
		}
	}
	return true
}

// take adds a level's amounts; false, with nothing taken, when they are too much together with those of other levels.
func (w *walk) take(l, i int) bool {
	for k, want := range w.levels[l].wants {
		if !w.takeOne(i, want) {
			for _, done := range w.levels[l].wants[:k] {
				w.giveOne(i, done)
			}
			return false
		}
	}
	return true
}

func (w *walk) takeOne(i int, want want) bool {
	for k := range w.takes {
		t := &w.takes[k]
		if t.node != i || t.class != want.class || t.levels == 0 {
			continue
		}
		st := w.pool[i].of(want.class)
		if n := t.amount + want.amount; n > st.max || st.use+n > st.capacity {
			return false
		}
		t.amount += want.amount
		t.levels++
		return true
	}
	w.takes = append(w.takes, take{i, want.class, want.amount, 1})
	return true
}

func (w *walk) giveBack(l, i int) {
	for _, want := range w.levels[l].wants {
		w.giveOne(i, want)
	}
}

func (w *walk) giveOne(i int, want want) {
	for k := range w.takes {
		t := &w.takes[k]
		if t.node == i && t.class == want.class && t.levels > 0 {
			t.amount -= want.amount
			if t.levels--; t.levels == 0 {
				w.takes = slices.Delete(w.takes, k, k+1)
			}
			return
		}
	}
}

// complete judges a group whose providers are all chosen, and the same_subtree sets that it completes.
func (w *walk) complete(l int) bool {
	index := w.levels[l].group
	if g := &w.groups[index]; g.suffix == "" {
		for _, choice := range g.required {
			ok := false
			for k := 0; k <= l && !ok; k++ {
				ok = w.levels[k].group == index && w.pool[w.chosen[k]].traits.hasAny(choice)
			}
			if !ok {
				return false
			}
		}
		return true
	}
	for _, set := range w.subtrees {
		if slices.Contains(set, l) && slices.Max(set) == l && !w.oneSubtree(set) {
			return false
		}
	}
	return true
}

// oneSubtree tells whether one of the chosen providers is an ancestor of, or the same as, all others.
func (w *walk) oneSubtree(set []int) bool {
	for _, top := range set {
		if !slices.ContainsFunc(set, func(l int) bool { return !w.below(w.chosen[l], w.chosen[top]) }) {
			return true
		}
	}
	return false
}

func (w *walk) below(i, top int) bool {
	if w.from[i].slot != w.from[top].slot {
		return false
	}
	nodes := w.from[i].slot.tree.Load().nodes
	for k := w.from[i].index; k >= 0; k = nodes[k].parent {
		if k == w.from[top].index {
			return true
		}
	}
	return false
}

// emit yields the chosen combination.
func (w *walk) emit() {
	c := placement.Candidate{Root: w.pool[0].UUID, Allocations: placement.Allocations{}, Mappings: make(map[string][]string, len(w.groups))}
	for l := range w.levels {
		n, g := w.pool[w.chosen[l]], &w.groups[w.levels[l].group]
		if !slices.Contains(c.Mappings[g.suffix], n.UUID) {
			c.Mappings[g.suffix] = append(c.Mappings[g.suffix], n.UUID)
		}
		if len(w.levels[l].wants) == 0 {
			continue
		}
		if c.Allocations[n.UUID] == nil {
			c.Allocations[n.UUID] = placement.Resources{}
		}
		for _, want := range w.levels[l].wants {
			c.Allocations[n.UUID][want.name] += want.amount
		}
	}
	if w.view.shared && w.repeated(c) {
		w.found = true
		return
	}
	for l := range w.levels {
		if len(w.levels[l].wants) > 0 {
			w.used[w.from[w.chosen[l]].slot] = true
		}
	}
	w.found = true
	w.stopped = !w.yield(c)
}

// repeated tells whether a candidate that lies on sharing providers alone was found from another tree already.
func (w *walk) repeated(c placement.Candidate) bool {
	for _, i := range w.chosen {
		if !w.pool[i].sharing {
			return false
		}
	}
	var b strings.Builder
	for _, suffix := range slices.Sorted(maps.Keys(c.Mappings)) {
		b.WriteString(suffix)
		for _, p := range slices.Sorted(slices.Values(c.Mappings[suffix])) {
			b.WriteString(" " + p)
			for _, class := range sortedClasses(c.Allocations[p]) {
				b.WriteString(" " + class)
			}
		}
		b.WriteString(";")
	}
	key := b.String()
	if w.seen[key] {
		return true
	}
	w.seen[key] = true
	return false
}
