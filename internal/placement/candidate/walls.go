package candidate

import (
	"fmt"
	"strings"

	"kilonova/internal/placement"
)

// walls counts, for each constraint in the order of asking, the trees that ended at it and remembers the nearest miss.
type walls struct {
	list     []wall
	together int
}

type wall struct {
	text    string
	class   string // for a resource: what was asked
	amount  int64
	removed int
	best    *node
	free    int64
}

// groupWalls are the numbers of a group's constraints.
type groupWalls struct {
	tree, member, avoid, whole int
	class                      []int // parallel to the group's wants
	required, forbidden        []int
}

func (g *groupWalls) classOf(wants []want, name string) int {
	for i := range wants {
		if wants[i].name == name {
			return g.class[i]
		}
	}
	return g.whole
}

func (w *walls) add(text string) int {
	w.list = append(w.list, wall{text: text})
	return len(w.list) - 1
}

func (w *walls) addResource(label, class string, n int64) int {
	w.list = append(w.list, wall{text: fmt.Sprintf("%sresource %s: %d asked", label, class, n), class: class, amount: n})
	return len(w.list) - 1
}

// hit counts a tree against a constraint; n, when not nil, is the provider that may be its nearest miss.
func (w *walls) hit(i int, n *node) {
	w.list[i].removed++
	if n != nil {
		w.near(i, n)
	}
}

func (w *walls) near(i int, n *node) {
	l := &w.list[i]
	for k := range n.stock {
		if st := &n.stock[k]; st.name == l.class {
			if free := st.capacity - st.use; l.best == nil || free > l.free {
				l.best, l.free = n, free
			}
			return
		}
	}
}

// explain fills the answer's rejections.
func (s *search) explain() {
	for i := range s.walls.list {
		l := &s.walls.list[i]
		if l.removed == 0 {
			continue
		}
		s.out.Rejected = append(s.out.Rejected, placement.Rejection{Constraint: l.text, Removed: l.removed, Nearest: l.nearest()})
	}
}

func (l *wall) nearest() string {
	if l.best == nil {
		return ""
	}
	inv := l.best.Inventory[l.class]
	switch {
	case l.free < l.amount:
		return fmt.Sprintf("%s has %d of %d", l.best.Name, max(l.free, 0), l.amount)
	case l.amount > inv.MaxUnit:
		return fmt.Sprintf("%s gives at most %d at once", l.best.Name, inv.MaxUnit)
	case l.amount < inv.MinUnit:
		return fmt.Sprintf("%s gives at least %d at once", l.best.Name, inv.MinUnit)
	default:
		return fmt.Sprintf("%s gives multiples of %d", l.best.Name, inv.StepSize)
	}
}

func joinTerms(terms [][]string) string {
	parts := make([]string, len(terms))
	for i, t := range terms {
		parts[i] = strings.Join(t, " or ")
	}
	return strings.Join(parts, " and ")
}
