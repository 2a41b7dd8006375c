package remote

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"kilonova/internal/fault"
	"kilonova/internal/placement"
)

// Candidates implements placement.Service.
func (s *Service) Candidates(ctx context.Context, q placement.Query) (*placement.Candidates, error) {
	var doc struct {
		Requests []struct {
			Allocations map[string]resources `json:"allocations"`
			Mappings    map[string][]string  `json:"mappings"`
		} `json:"allocation_requests"`
		Summaries map[string]summary `json:"provider_summaries"`
	}
	limit := q.Limit
	roots, err := s.bareRoots(ctx, q)
	if err != nil {
		return nil, err
	}
	if roots != nil {
		q.Limit = 0 // what is left of the answer is not known before
	}
	params := encodeQuery(q)
	err = s.call(ctx, newest, http.MethodGet, "/allocation_candidates?"+params.Encode(), nil, &doc)
	if errors.Is(err, fault.Invalid) { // a class or trait that placement does not know: nobody has it
		return &placement.Candidates{Summaries: map[string]*placement.Provider{}, Rejected: []placement.Rejection{{Constraint: fault.PublicText(err)}}}, nil
	}
	if err != nil {
		return nil, err
	}
	out := &placement.Candidates{Candidates: make([]placement.Candidate, 0, len(doc.Requests)), Summaries: make(map[string]*placement.Provider, len(doc.Summaries))}
	for uuid, p := range doc.Summaries {
		one := p.provider(uuid)
		out.Summaries[uuid] = &one
	}
	for _, r := range doc.Requests {
		c := placement.Candidate{Allocations: make(placement.Allocations, len(r.Allocations)), Mappings: r.Mappings}
		for uuid, res := range r.Allocations {
			c.Allocations[uuid] = res.Resources
		}
		c.Root = anchor(&c, out.Summaries)
		if q.Flat && !flat(&c, out.Summaries) || roots != nil && !roots[c.Root] {
			continue
		}
		if limit > 0 && len(out.Candidates) == limit {
			break
		}
		out.Candidates = append(out.Candidates, c)
	}
	if len(out.Candidates) == 0 {
		text, _ := url.QueryUnescape(params.Encode())
		out.Rejected = []placement.Rejection{{Constraint: "placement, asked for " + text}}
	}
	return out, nil
}

// bareRoots gives the providers that pass what an unsuffixed group without resources asks; nil when nothing is asked so. The API has no words
// for it in a question about candidates.
func (s *Service) bareRoots(ctx context.Context, q placement.Query) (map[string]bool, error) {
	i := slices.IndexFunc(q.Groups, func(g placement.Group) bool { return g.Suffix == "" && len(g.Resources) == 0 })
	if i < 0 {
		return nil, nil //nolint:nilnil // nothing asked
	}
	v := url.Values{}
	constraints(v, &q.Groups[i])
	if len(v) == 0 {
		return nil, nil //nolint:nilnil // nothing asked
	}
	var list struct {
		Providers []head `json:"resource_providers"`
	}
	out := map[string]bool{}
	if err := s.call(ctx, newest, http.MethodGet, "/resource_providers?"+v.Encode(), nil, &list); errors.Is(err, fault.Invalid) {
		return out, nil // a trait that placement does not know: nobody has it
	} else if err != nil {
		return nil, err
	}
	for _, p := range list.Providers {
		out[p.UUID] = p.Parent == ""
	}
	return out, nil
}

// anchor finds the tree that a candidate belongs to: that of a provider which does not share. The API does not say it.
func anchor(c *placement.Candidate, all map[string]*placement.Provider) string {
	root := ""
	for uuid := range c.Allocations {
		p := all[uuid]
		if !slices.Contains(p.Traits, placement.SharesViaAggregate) {
			return p.Root
		}
		root = p.Root
	}
	for _, list := range c.Mappings {
		for _, uuid := range list {
			if p, ok := all[uuid]; ok && !slices.Contains(p.Traits, placement.SharesViaAggregate) {
				return p.Root
			}
		}
	}
	return root
}

func flat(c *placement.Candidate, all map[string]*placement.Provider) bool {
	roots := map[string]bool{}
	for uuid := range c.Allocations {
		if roots[all[uuid].Root] {
			return false
		}
		roots[all[uuid].Root] = true
	}
	return true
}

// summary is a provider as candidates describe it: capacities instead of inventories.
type summary struct {
	Resources map[string]struct {
		Capacity int64 `json:"capacity"`
		Used     int64 `json:"used"`
	} `json:"resources"`
	Traits []string `json:"traits"`
	Parent string   `json:"parent_provider_uuid"`
	Root   string   `json:"root_provider_uuid"`
}

func (p *summary) provider(uuid string) placement.Provider {
	out := placement.Provider{UUID: uuid, Parent: p.Parent, Root: p.Root, Traits: p.Traits, Inventory: map[string]placement.Inventory{}, Used: map[string]int64{}}
	for class, r := range p.Resources {
		out.Inventory[class] = placement.Inventory{Total: r.Capacity}.WithDefaults()
		out.Used[class] = r.Used
	}
	return out
}

// encodeQuery writes a query as parameters.
func encodeQuery(q placement.Query) url.Values {
	v := url.Values{}
	for _, g := range q.Groups {
		if g.Suffix == "" && len(g.Resources) == 0 {
			continue
		}
		if len(g.Resources) > 0 {
			parts := make([]string, 0, len(g.Resources))
			for class, n := range g.Resources {
				parts = append(parts, class+":"+strconv.FormatInt(n, 10))
			}
			slices.Sort(parts)
			v.Set("resources"+g.Suffix, strings.Join(parts, ","))
		}
		constraints(v, &g)
	}
	var root []string
	root = append(root, q.RootRequired...)
	for _, t := range q.RootForbidden {
		root = append(root, "!"+t)
	}
	if len(root) > 0 {
		v.Set("root_required", strings.Join(root, ","))
	}
	for _, set := range q.SameSubtree {
		v.Add("same_subtree", strings.Join(set, ","))
	}
	if q.GroupPolicy != "" {
		v.Set("group_policy", q.GroupPolicy)
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return v
}

// constraints writes what a group asks besides resources.
func constraints(v url.Values, g *placement.Group) {
	for _, choice := range g.Required {
		value := choice[0]
		if len(choice) > 1 {
			value = "in:" + strings.Join(choice, ",")
		}
		v.Add("required"+g.Suffix, value)
	}
	for _, t := range g.Forbidden {
		v.Add("required"+g.Suffix, "!"+t)
	}
	for _, choice := range g.MemberOf {
		v.Add("member_of"+g.Suffix, "in:"+strings.Join(choice, ","))
	}
	if len(g.NotMemberOf) > 0 {
		v.Add("member_of"+g.Suffix, "!in:"+strings.Join(g.NotMemberOf, ","))
	}
	if g.InTree != "" {
		v.Set("in_tree"+g.Suffix, g.InTree)
	}
}
