package scheduler

import (
	"fmt"
	"strings"

	"kilonova/internal/fault"
	"kilonova/internal/placement"
)

const mostNamed = 20 // hosts that an explanation lists by name

// Removal is one constraint and what it removed.
type Removal struct {
	Constraint string   // the filter's name
	Removed    int      // hosts
	Hosts      []string // the first of them
	Nearest    string   // the nearest miss: "compute-3: 2 of 4 allowed servers"
}

// Explanation tells what became of the hosts.
type Explanation struct {
	Total   int // hosts known
	Offered int // of them, those that placement offered
	// OfferedHosts are their names, when Request.Explain asks for them.
	OfferedHosts []string
	Placement    []placement.Rejection // what placement removed, by root provider
	Removed      []Removal             // what the filters removed, in their order
}

// Text is one sentence for each constraint.
func (x *Explanation) Text() string {
	var parts []string
	add := func(constraint string, n int, nearest string) {
		s := fmt.Sprintf("%s removed %d", constraint, n)
		if nearest != "" {
			s += " (nearest: " + nearest + ")"
		}
		parts = append(parts, s)
	}
	for _, r := range x.Placement {
		add(r.Constraint, r.Removed, r.Nearest)
	}
	for _, r := range x.Removed {
		add(r.Constraint, r.Removed, r.Nearest)
	}
	if len(parts) == 0 {
		if x.Total == 0 {
			return "There is no compute host."
		}
		if x.Offered > 0 {
			return fmt.Sprintf("Of %d hosts placement offered %d, and all of them will do.", x.Total, x.Offered)
		}
		return fmt.Sprintf("Of %d hosts placement offered none.", x.Total)
	}
	return fmt.Sprintf("Of %d hosts: %s.", x.Total, strings.Join(parts, "; "))
}

// NoValidHost is the error for a request that found no host.
func (x *Explanation) NoValidHost() error {
	return fault.New(fault.Internal, "No valid host was found. There are not enough hosts available. %s", x.Text()).WithCode("no-valid-host")
}

// Verdict is what one constraint says of one host.
type Verdict struct {
	Constraint string
	Pass       bool
	Why        string // when it does not pass
}

// Weight is what one weigher says of one host: the raw value, and what it adds to the sum.
type Weight struct {
	Weigher    string
	Raw        float64
	Normalised float64
	Multiplier float64
}

// Verdicts judges one host by every constraint of the request, not stopping at the first that refuses.
func (p *Planner) Verdicts(r *Request, h *HostState) ([]Verdict, error) {
	stages, err := p.compile(r)
	if err != nil {
		return nil, err
	}
	out := make([]Verdict, 0, len(stages))
	for _, s := range stages {
		v := Verdict{Constraint: s.name, Pass: s.Pass(h)}
		if !v.Pass && s.Why != nil {
			v.Why = s.Why(h)
		}
		out = append(out, v)
	}
	return out, nil
}

// Weights breaks the sum of a host down, among the hosts that it is compared with.
func (p *Planner) Weights(r *Request, h *HostState, among []*HostState) []Weight {
	var out []Weight
	raw := make([]float64, len(among)+1)
	hosts := append([]*HostState{h}, among...)
	for _, w := range p.weighers {
		value := w.Compile(&p.config, r)
		if value == nil {
			continue
		}
		scale(w.Weigher, raw, hosts, value)
		out = append(out, Weight{Weigher: w.name, Raw: value(h), Normalised: raw[0], Multiplier: override(h, w.Key, w.Multiplier(&p.config))})
	}
	return out
}
