package scheduler

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"kilonova/internal/fault"
	"kilonova/internal/placement"
)

// Check is a filter made ready for one request.
type Check struct {
	// Pass judges a host.
	Pass func(h *HostState) bool
	// Why says in a few words why a host does not pass; nil: the filter's name says it all.
	Why func(h *HostState) string
	// Near tells how far from passing a host is (0 is nearest), to find the nearest miss; nil: the first counts.
	Near func(h *HostState) float64
}

// Filter is a host filter.
type Filter struct {
	// Compile looks at the request once. A nil Check passes every host. An error refuses the request as a whole.
	Compile   func(c *Config, r *Request) (*Check, error)
	OnRebuild bool // also asked when a server is rebuilt with another image
}

// Weigher is a host weigher.
type Weigher struct {
	Multiplier func(c *Config) float64
	Key        string // of aggregate metadata that overrides the multiplier for a host
	// Min and Max fix the ends of the scale, and values beyond count as the end; nil: the least and greatest of the hosts at hand.
	Min, Max *float64
	// Compile gives the raw value of a host; nil: the weigher has nothing to say about this request.
	Compile func(c *Config, r *Request) func(h *HostState) float64
}

// Planner ranks hosts by a configuration. It may be used by many goroutines.
type Planner struct {
	config   Config
	filters  []namedFilter
	always   []namedFilter // asked when the request needs what they guard, whatever is enabled
	weighers []namedWeigher
}

type namedFilter struct {
	name string
	Filter
}

type namedWeigher struct {
	name string
	Weigher
}

// New makes a Planner of the registries (filter.All, weigher.All). It fails when the configuration names a filter or weigher that is not there.
func New(c Config, filters map[string]Filter, weighers map[string]Weigher) (*Planner, error) {
	p := &Planner{config: c}
	for _, n := range c.EnabledFilters {
		f, ok := filters[n]
		if !ok {
			return nil, fault.New(fault.Invalid, "enabled_filters names %s, which is no filter. Known are: %s.", n, known(filters))
		}
		p.filters = append(p.filters, namedFilter{n, f})
	}
	for _, n := range []string{"NUMATopologyFilter", "PciPassthroughFilter"} {
		if f, ok := filters[n]; ok && !slices.Contains(c.EnabledFilters, n) {
			p.always = append(p.always, namedFilter{n, f})
		}
	}
	names := c.WeightClasses
	if names == nil {
		for n := range weighers {
			names = append(names, n)
		}
		slices.Sort(names)
	}
	for _, n := range names {
		w, ok := weighers[n]
		if !ok {
			return nil, fault.New(fault.Invalid, "weight_classes names %s, which is no weigher. Known are: %s.", n, known(weighers))
		}
		p.weighers = append(p.weighers, namedWeigher{n, w})
	}
	return p, nil
}

func known[T any](m map[string]T) string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// Config gives the planner's configuration.
func (p *Planner) Config() *Config { return &p.config }

// Ranked is one host that will do.
type Ranked struct {
	Host   *HostState
	Weight float64
	// Candidates are what placement offers on the host; empty without placement's answer.
	Candidates []placement.Candidate
}

// Plan is the answer to a request.
type Plan struct {
	Hosts       []Ranked // best first
	Fit         int      // how many hosts will do
	Explanation *Explanation
}

// Plan filters and ranks. candidates is placement's answer: only its hosts are looked at; nil looks at all hosts given.
func (p *Planner) Plan(r *Request, hosts []*HostState, candidates *placement.Candidates) (*Plan, error) {
	x := &Explanation{Total: len(hosts)}
	var offers map[string][]placement.Candidate
	if candidates != nil {
		x.Placement = candidates.Rejected
		offers = byRoot(candidates.Candidates)
		left := make([]*HostState, 0, min(len(hosts), len(offers)))
		for _, h := range hosts {
			if len(offers[h.Provider]) > 0 {
				left = append(left, h)
			}
		}
		x.Offered, hosts = len(left), left
	} else {
		x.Offered = len(hosts)
	}
	if r.Explain {
		for _, h := range hosts {
			x.OfferedHosts = append(x.OfferedHosts, h.Host)
		}
	}
	checks, err := p.compile(r)
	if err != nil {
		return nil, err
	}
	if candidates != nil && r.inPlacement() {
		hosts = offered(hosts, offers)
	}
	for i := range checks {
		hosts = checks[i].apply(x, hosts)
	}
	ranked := p.weigh(r, hosts)
	for i := range ranked {
		ranked[i].Candidates = offers[ranked[i].Host.Provider]
	}
	p.choose(ranked)
	return &Plan{Hosts: ranked, Fit: len(ranked), Explanation: x}, nil
}

// byRoot gives the candidates of each root provider. Those that follow each other, as most do, stay in the array where they are.
func byRoot(all []placement.Candidate) map[string][]placement.Candidate {
	out := make(map[string][]placement.Candidate, len(all))
	for len(all) > 0 {
		root, n := all[0].Root, 1
		for n < len(all) && all[n].Root == root {
			n++
		}
		if had := out[root]; had != nil {
			out[root] = append(had, all[:n]...)
		} else {
			out[root] = all[:n:n]
		}
		all = all[n:]
	}
	return out
}

// Best gives the plan with no more than n hosts, which hold on to nothing that was judged to find them: a plan may have to wait until its hosts can be claimed, and many wait at
// a time.
func (p *Plan) Best(n int) *Plan {
	n = min(n, len(p.Hosts))
	hosts, ranked := make([]HostState, n), make([]Ranked, n)
	for i := range ranked {
		hosts[i] = *p.Hosts[i].Host
		ranked[i] = Ranked{Host: &hosts[i], Weight: p.Hosts[i].Weight, Candidates: slices.Clone(p.Hosts[i].Candidates)}
	}
	return &Plan{Hosts: ranked, Fit: p.Fit, Explanation: p.Explanation}
}

// offered gives the hosts with what placement offers on them.
func offered(hosts []*HostState, offers map[string][]placement.Candidate) []*HostState {
	out := make([]*HostState, len(hosts))
	for i, h := range hosts {
		one := *h
		one.Offers = offers[h.Provider]
		out[i] = &one
	}
	return out
}

// stage is one compiled constraint.
type stage struct {
	name string
	*Check
}

// compile makes the constraints of a request ready, in their order.
func (p *Planner) compile(r *Request) ([]stage, error) {
	stages := destinations(r)
	forced := r.ForceHost != "" || r.ForceNode != ""
	for _, f := range slices.Concat(p.filters, p.always) {
		guard := f.name == "NUMATopologyFilter" || f.name == "PciPassthroughFilter"
		if forced && !guard || r.Rebuild && !f.OnRebuild {
			continue
		}
		c, err := f.Compile(&p.config, r)
		if err != nil {
			return nil, err
		}
		if c != nil {
			stages = append(stages, stage{f.name, c})
		}
	}
	return stages, nil
}

// destinations are the constraints that name hosts.
func destinations(r *Request) []stage {
	var out []stage
	only := func(name, host, node string) {
		if host != "" || node != "" {
			out = append(out, stage{name, &Check{Pass: func(h *HostState) bool {
				return (host == "" || h.Host == host) && (node == "" || h.Node == node)
			}}})
		}
	}
	if len(r.Ignore) > 0 {
		out = append(out, stage{"ignored hosts", &Check{Pass: func(h *HostState) bool { return !slices.Contains(r.Ignore, h.Host) },
			Why: func(*HostState) string { return "left or failed before" }}})
	}
	only("forced host", r.ForceHost, r.ForceNode)
	only("requested host", r.Host, r.Node)
	return out
}

func (s *stage) apply(x *Explanation, hosts []*HostState) []*HostState {
	left := hosts[:0:0]
	var out []*HostState
	for i, h := range hosts {
		if s.Pass(h) {
			if out != nil {
				left = append(left, h)
			}
			continue
		}
		if out == nil {
			left = append(make([]*HostState, 0, len(hosts)), hosts[:i]...)
		}
		out = append(out, h)
	}
	if out == nil {
		return hosts
	}
	x.Removed = append(x.Removed, s.removal(out))
	return left
}

func (s *stage) removal(out []*HostState) Removal {
	r := Removal{Constraint: s.name, Removed: len(out)}
	nearest, best := out[0], 0.0
	for i, h := range out {
		if i < mostNamed {
			r.Hosts = append(r.Hosts, h.Host)
		}
		if s.Near == nil {
			continue
		}
		if d := s.Near(h); i == 0 || d < best {
			nearest, best = h, d
		}
	}
	if s.Why != nil {
		r.Nearest = nearest.Host + ": " + s.Why(nearest)
	}
	return r
}

// weigh sums the normalised weights and ranks; hosts of equal weight keep their order.
func (p *Planner) weigh(r *Request, hosts []*HostState) []Ranked {
	type key struct {
		weight float64
		index  int
	}
	keys := make([]key, len(hosts))
	for i := range keys {
		keys[i].index = i
	}
	raw := make([]float64, len(hosts))
	for _, w := range p.weighers {
		multiplier := w.Multiplier(&p.config)
		value := w.Compile(&p.config, r)
		if value == nil || len(hosts) < 2 || !scale(w.Weigher, raw, hosts, value) {
			continue
		}
		for i, h := range hosts {
			m := multiplier
			if len(h.Aggregates) > 0 {
				m = override(h, w.Key, multiplier)
			}
			keys[i].weight += raw[i] * m
		}
	}
	slices.SortFunc(keys, func(a, b key) int {
		if a.weight != b.weight {
			if a.weight > b.weight {
				return -1
			}
			return 1
		}
		return a.index - b.index
	})
	ranked := make([]Ranked, len(hosts))
	for i, k := range keys {
		ranked[i] = Ranked{Host: hosts[k.index], Weight: k.weight}
	}
	return ranked
}

// scale brings the raw values to 0..1; false, when all are the same: then the weigher does not tell the hosts apart.
func scale(w Weigher, raw []float64, hosts []*HostState, value func(*HostState) float64) bool {
	low, high := math.Inf(1), math.Inf(-1)
	for i, h := range hosts {
		v := value(h)
		if w.Min != nil && v < *w.Min {
			v = *w.Min
		}
		if w.Max != nil && v > *w.Max {
			v = *w.Max
		}
		raw[i] = v
		low, high = min(low, v), max(high, v)
	}
	if w.Min != nil {
		low = *w.Min
	}
	if w.Max != nil {
		high = *w.Max
	}
	if !(low < high) {
		clear(raw)
		return false
	}
	span := 1 / (high - low)
	for i := range raw {
		raw[i] = (raw[i] - low) * span
	}
	return true
}

// override gives the multiplier that the host's aggregates set: the smallest, when several do.
func override(h *HostState, key string, multiplier float64) float64 {
	found := false
	for _, a := range h.Aggregates {
		v, ok := a.Metadata[key]
		if !ok {
			continue
		}
		var f float64
		if _, err := fmt.Sscan(v, &f); err == nil && (!found || f < multiplier) {
			multiplier, found = f, true
		}
	}
	return multiplier
}

// choose applies shuffle_best_same_weighed_hosts and host_subset_size: the first of the ranking is drawn from the best.
func (p *Planner) choose(ranked []Ranked) {
	if len(ranked) < 2 {
		return
	}
	if p.config.ShuffleBest {
		n := 1
		for n < len(ranked) && ranked[n].Weight == ranked[0].Weight {
			n++
		}
		rand.Shuffle(n, func(i, j int) { ranked[i], ranked[j] = ranked[j], ranked[i] })
	}
	if n := min(p.config.HostSubsetSize, len(ranked)); n > 1 {
		i := rand.IntN(n)
		picked := ranked[i]
		copy(ranked[1:i+1], ranked[:i])
		ranked[0] = picked
	}
}
