// Package candidate finds allocation candidates in a view of all providers that is kept in memory. It is pure: it reads no database and
// no clock.
//
// A View may be searched by any number of goroutines while one other applies changes to it (SetUsed, Apply). A search sees each
// provider as it is at some moment between the search's begin and end; it promises nothing about several providers at one instant,
// because the claim decides in any case.
package candidate

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"kilonova/internal/placement"
)

// Record is one provider and the version of its row. Its maps and slices belong to the view from then on.
type Record struct {
	placement.Provider
	Version int64
}

// View is every provider, arranged in trees.
type View struct {
	roots  atomic.Pointer[[]*slot] // one for each root
	mu     sync.RWMutex            // of where
	where  map[string]place
	names  *names
	shared bool // some provider shares its inventory
	// lists holds each different list of traits once: hosts of a kind have the same. Only the goroutine that applies changes uses it, and like.
	lists map[string][]string
	like  *node // the provider that was arranged last: the next may have the same
}

const mostLists = 4096

// once gives the list that all providers with the same traits share.
func (v *View) once(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	key := strings.Join(list, " ")
	if l, ok := v.lists[key]; ok {
		return l
	}
	if len(v.lists) >= mostLists {
		clear(v.lists)
	}
	v.lists[key] = list
	return list
}

func (v *View) slots() []*slot { return *v.roots.Load() }

func (v *View) find(uuid string) (place, bool) {
	v.mu.RLock()
	p, ok := v.where[uuid]
	v.mu.RUnlock()
	return p, ok
}

type place struct {
	slot  *slot
	index int
}

// slot holds the newest state of one tree.
type slot struct {
	tree    atomic.Pointer[tree]
	sharers []place // providers of other trees that share with this one
	last    atomic.Pointer[placement.Candidate]
}

// whole gives the candidate that takes all from the root, for the unsuffixed group. Requests of one flavor follow each other, so the last is kept.
func (s *slot) whole(root string, r placement.Resources) placement.Candidate {
	if c := s.last.Load(); c != nil && c.Root == root && maps.Equal(c.Allocations[root], r) {
		return *c
	}
	c := placement.Candidate{Root: root, Allocations: placement.Allocations{root: r}, Mappings: map[string][]string{"": {root}}}
	s.last.Store(&c)
	return c
}

// Rest lets go of what was kept for requests like those before.
func (v *View) Rest() {
	for _, s := range v.slots() {
		s.last.Store(nil)
	}
}

type tree struct{ nodes []*node } // the root first

type node struct {
	Record
	parent  int // index in the tree, -1 for the root
	stock   []stock
	traits  bits
	aggs    []int32
	sharing bool
}

// stock is the inventory and usage of one class in the form that a search compares.
type stock struct {
	name                          string
	class                         int32
	min, max, step, capacity, use int64
}

func (s *stock) fits(n int64) bool {
	return n >= s.min && n <= s.max && (s.step <= 1 || n%s.step == 0) && s.use+n <= s.capacity
}

func (n *node) of(class int32) *stock {
	for i := range n.stock {
		if n.stock[i].class == class {
			return &n.stock[i]
		}
	}
	return nil
}

// Build arranges providers into a view. A provider whose parent or root is missing is left out.
func Build(records []Record) *View {
	v := &View{where: make(map[string]place, len(records)), names: newNames(), lists: map[string][]string{}}
	var slots []*slot
	byRoot := make(map[string][]Record, len(records))
	for _, r := range records {
		byRoot[r.Root] = append(byRoot[r.Root], r)
	}
	for _, root := range slices.Sorted(maps.Keys(byRoot)) {
		t := v.arrange(root, byRoot[root])
		if t == nil {
			continue
		}
		s := &slot{}
		s.tree.Store(t)
		slots = append(slots, s)
		for i, n := range t.nodes {
			v.where[n.UUID] = place{s, i}
		}
	}
	v.roots.Store(&slots)
	v.connect()
	v.names.sealed = true
	return v
}

// arrange puts a tree's records parents first.
func (v *View) arrange(root string, records []Record) *tree {
	children := map[string][]Record{}
	var queue []Record
	for _, r := range records {
		if r.UUID == root {
			queue = []Record{r}
		} else {
			children[r.Parent] = append(children[r.Parent], r)
		}
	}
	t := &tree{}
	index := map[string]int{}
	for len(queue) > 0 {
		r := queue[0]
		queue = queue[1:]
		parent := -1
		if i, ok := index[r.Parent]; ok {
			parent = i
		}
		index[r.UUID] = len(t.nodes)
		t.nodes = append(t.nodes, v.node(r, parent))
		below := children[r.UUID]
		slices.SortFunc(below, func(a, b Record) int { return cmp.Compare(a.UUID, b.UUID) })
		queue = append(queue, below...)
	}
	if len(t.nodes) == 0 {
		return nil
	}
	return t
}

func (v *View) node(r Record, parent int) *node {
	r.Traits = v.once(r.Traits)
	if r.Root == r.UUID {
		r.Root = r.UUID // one string, not two
	}
	n := &node{Record: r, parent: parent}
	for _, a := range r.Aggregates {
		n.aggs = append(n.aggs, v.names.id(a))
	}
	n.sharing = slices.Contains(r.Traits, placement.SharesViaAggregate)
	alike := v.like
	v.like = n
	same := alike != nil && maps.Equal(r.Inventory, alike.Inventory)
	if same {
		n.Inventory = alike.Inventory
		if maps.Equal(r.Used, alike.Used) {
			n.Used = alike.Used
		}
	}
	if alike != nil && slices.Equal(r.Traits, alike.Traits) {
		n.traits = alike.traits
	} else {
		for _, t := range r.Traits {
			n.traits.set(v.names.id(t))
		}
	}
	if same && maps.Equal(r.Used, alike.Used) && len(alike.stock) == len(r.Inventory) {
		n.stock = alike.stock
		return n
	}
	for _, class := range slices.Sorted(maps.Keys(r.Inventory)) {
		inv := r.Inventory[class]
		n.stock = append(n.stock, stock{name: class, class: v.names.id(class), min: inv.MinUnit, max: inv.MaxUnit, step: inv.StepSize,
			capacity: inv.Capacity(), use: r.Used[class]})
	}
	return n
}

// connect finds, for each tree, the providers of other trees that share with it through an aggregate.
func (v *View) connect() {
	var sharing []place
	for _, s := range v.slots() {
		for i, n := range s.tree.Load().nodes {
			if n.sharing && len(n.aggs) > 0 {
				sharing = append(sharing, place{s, i})
			}
		}
	}
	v.shared = len(sharing) > 0
	if !v.shared {
		return
	}
	members := map[int32][]*slot{}
	for _, s := range v.slots() {
		for _, n := range s.tree.Load().nodes {
			for _, a := range n.aggs {
				members[a] = append(members[a], s)
			}
		}
	}
	for _, p := range sharing {
		seen := map[*slot]bool{p.slot: true}
		for _, a := range p.node().aggs {
			for _, s := range members[a] {
				if !seen[s] {
					seen[s] = true
					s.sharers = append(s.sharers, p)
				}
			}
		}
	}
}

func (p place) node() *node { return p.slot.tree.Load().nodes[p.index] }

// Len is the number of providers.
func (v *View) Len() int {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return len(v.where)
}

// Get gives a provider's record.
func (v *View) Get(uuid string) (Record, bool) {
	p, ok := v.find(uuid)
	if !ok {
		return Record{}, false
	}
	return p.node().Record, true
}

// Each calls f for every provider, parents before children.
func (v *View) Each(f func(Record)) {
	for _, s := range v.slots() {
		for _, n := range s.tree.Load().nodes {
			f(n.Record)
		}
	}
}

// SetUsed takes over the usage and generation of a provider when version is newer than what the view has. It tells false when the
// provider is unknown or versions between were missed, so that more than usage may have changed.
func (v *View) SetUsed(uuid string, version, generation int64, used map[string]int64) bool {
	p, ok := v.find(uuid)
	if !ok {
		return false
	}
	old := p.node()
	if version <= old.Version {
		return true
	}
	n := *old
	n.Used, n.Generation = used, generation
	n.stock = slices.Clone(old.stock)
	for i := range n.stock {
		n.stock[i].use = used[n.stock[i].name]
	}
	whole := version == old.Version+1
	if whole {
		n.Version = version
	}
	p.put(&n)
	return whole
}

// Apply takes over the newest records of some providers and the end of others. What concerns one provider is changed in place; a change of who
// belongs to or shares with whom makes a new view, arranged anew from what the old one knows. It gives the view that is to be used from then on.
func (v *View) Apply(changed []Record, gone []string) *View {
	whole := true
	for _, r := range changed {
		whole = (v.replace(r) || v.insert(r)) && whole
	}
	for _, uuid := range gone {
		whole = v.remove(uuid) && whole
	}
	if whole {
		return v
	}
	byUUID := make(map[string]Record, v.Len()+len(changed))
	v.Each(func(r Record) { byUUID[r.UUID] = r })
	for _, r := range changed {
		if old, ok := byUUID[r.UUID]; !ok || old.Version <= r.Version {
			byUUID[r.UUID] = r
		}
	}
	for _, uuid := range gone {
		delete(byUUID, uuid)
	}
	return Build(slices.Collect(maps.Values(byUUID)))
}

// replace exchanges a provider that stays where it is.
func (v *View) replace(r Record) bool {
	p, ok := v.find(r.UUID)
	if !ok {
		return false
	}
	old := p.node()
	if r.Version < old.Version {
		return true
	}
	n := v.node(r, old.parent)
	if r.Parent != old.Parent || r.Root != old.Root || n.sharing != old.sharing || (n.sharing || v.shared) && !slices.Equal(n.aggs, old.aggs) {
		return false
	}
	p.put(n)
	return true
}

// insert adds a new root where nobody shares.
func (v *View) insert(r Record) bool {
	if _, known := v.find(r.UUID); known || r.Parent != "" || r.Root != r.UUID || v.shared {
		return false
	}
	n := v.node(r, -1)
	if n.sharing {
		return false
	}
	s := &slot{}
	s.tree.Store(&tree{nodes: []*node{n}})
	slots := append(v.slots(), s) // readers of the shorter slice do not see what lies beyond its end
	v.roots.Store(&slots)
	v.mu.Lock()
	v.where[r.UUID] = place{s, 0}
	v.mu.Unlock()
	return true
}

// remove takes out a root without children where nobody shares.
func (v *View) remove(uuid string) bool {
	p, ok := v.find(uuid)
	if !ok {
		return true
	}
	if v.shared || len(p.slot.tree.Load().nodes) != 1 {
		return false
	}
	slots := slices.DeleteFunc(slices.Clone(v.slots()), func(s *slot) bool { return s == p.slot })
	v.roots.Store(&slots)
	v.mu.Lock()
	delete(v.where, uuid)
	v.mu.Unlock()
	return true
}

func (p place) put(n *node) {
	t := &tree{nodes: slices.Clone(p.slot.tree.Load().nodes)}
	t.nodes[p.index] = n
	p.slot.tree.Store(t)
}

// names gives each class, trait and aggregate a small number. One goroutine adds, any number look up.
type names struct {
	m      atomic.Pointer[map[string]int32]
	sealed bool // others may be looking: a new name makes a new map
}

func newNames() *names {
	n := &names{}
	n.m.Store(&map[string]int32{})
	return n
}

func (n *names) id(s string) int32 {
	m := *n.m.Load()
	if i, ok := m[s]; ok {
		return i
	}
	grown := m
	if n.sealed {
		grown = maps.Clone(m)
	}
	grown[s] = int32(len(m))
	n.m.Store(&grown)
	return grown[s]
}

// find gives -1 for a name that no provider has.
func (n *names) find(s string) int32 {
	if i, ok := (*n.m.Load())[s]; ok {
		return i
	}
	return -1
}

// bits is a set of small numbers.
type bits []uint64

func (b *bits) set(i int32) {
	for int(i)/64 >= len(*b) {
		*b = append(*b, 0)
	}
	(*b)[i/64] |= 1 << (i % 64)
}

func (b bits) has(i int32) bool {
	return i >= 0 && int(i)/64 < len(b) && b[i/64]&(1<<(i%64)) != 0
}

func (b bits) hasAny(ids []int32) bool {
	for _, i := range ids {
		if b.has(i) {
			return true
		}
	}
	return false
}
