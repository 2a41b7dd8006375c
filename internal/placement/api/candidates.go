package api

import (
	"bytes"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/id"
	"kilonova/internal/placement"
)

func (a *api) candidates(r *httpapi.Request) (*httpapi.Reply, error) {
	q, err := candidateQuery(r)
	if err != nil {
		return nil, err
	}
	if err := a.checkNames(r, q); err != nil {
		return nil, err
	}
	found, err := a.svc.Candidates(r.Context(), q)
	if err != nil {
		return nil, err
	}
	w := &candidateWriter{r: r, found: found, asked: map[string]bool{}}
	for _, g := range q.Groups {
		for class := range g.Resources {
			w.asked[class] = true
		}
	}
	return stamped(r, httpapi.OK(w), time.Time{}).With("Content-Type", "application/json"), nil
}

// checkNames refuses classes and traits that do not exist.
func (a *api) checkNames(r *httpapi.Request, q placement.Query) error {
	var traits []string
	for _, g := range q.Groups {
		for class := range g.Resources {
			if _, err := a.svc.Class(r.Context(), class); fault.KindOf(err) == fault.NotFound {
				return fault.New(fault.Invalid, "Invalid resource class in resources parameter: No such resource class %s.", class)
			} else if err != nil {
				return err
			}
		}
		traits = append(traits, slices.Concat(g.Required...)...)
		traits = append(traits, g.Forbidden...)
	}
	traits = append(append(traits, q.RootRequired...), q.RootForbidden...)
	if len(traits) == 0 {
		return nil
	}
	have, err := a.svc.Traits(r.Context(), placement.TraitFilter{In: traits})
	if err != nil {
		return err
	}
	var missing []string
	for _, t := range traits {
		if !slices.ContainsFunc(have, func(n placement.Named) bool { return n.Name == t }) && !slices.Contains(missing, t) {
			missing = append(missing, t)
		}
	}
	if len(missing) > 0 {
		return fault.New(fault.Invalid, "No such trait(s): %s.", strings.Join(missing, ", "))
	}
	return nil
}

// candidateQuery reads the query parameters.
func candidateQuery(r *httpapi.Request) (q placement.Query, err error) {
	query := r.Query()
	q.Flat = !since(r, 29)
	groups := map[string]*placement.Group{}
	for _, key := range slices.Sorted(maps.Keys(query)) {
		ok, err := wide(r, &q, key, query[key])
		if err != nil {
			return q, err
		}
		if ok {
			continue
		}
		kind, suffix, ok := groupKey(r, key)
		if !ok {
			return q, invalidQuery("Additional properties are not allowed ('%s' was unexpected)", key)
		}
		g := groups[suffix]
		if g == nil {
			g = &placement.Group{Suffix: suffix}
			groups[suffix] = g
		}
		if err := groupPart(r, g, kind, query[key]); err != nil {
			return q, err
		}
	}
	for _, suffix := range slices.Sorted(maps.Keys(groups)) {
		q.Groups = append(q.Groups, *groups[suffix])
	}
	return q, judgeGroups(r, &q)
}

// wide reads a parameter that concerns the whole request.
func wide(r *httpapi.Request, q *placement.Query, key string, values []string) (bool, error) {
	value := values[0] // the first counts of limit and group_policy
	switch {
	case key == "limit" && since(r, 16):
		n, err := strconv.Atoi(values[0])
		if err != nil || n < 1 || values[0] != strconv.Itoa(n) { // the schema has judged the last value only
			return true, invalidQuery("'%s' does not match '^[1-9][0-9]*$'", values[0])
		}
		q.Limit = n
	case key == "group_policy" && since(r, 25):
		if value != "none" && value != "isolate" {
			return true, invalidQuery("'%s' is not one of ['none', 'isolate']", value)
		}
		q.GroupPolicy = value
	case key == "root_required" && since(r, 35):
		return true, rootRequired(r, q, values)
	case key == "same_subtree" && since(r, 36):
		for _, list := range values {
			var set []string
			for s := range strings.SplitSeq(list, ",") {
				s = strings.TrimSpace(s)
				if s == "" {
					return true, fault.New(fault.Invalid, "Empty string (unsuffixed group) can not be specified in `same_subtree` ").WithCode(placement.CodeBadValue)
				}
				if !slices.Contains(set, s) {
					set = append(set, s)
				}
			}
			q.SameSubtree = append(q.SameSubtree, set)
		}
	default:
		return false, nil
	}
	return true, nil
}

func rootRequired(r *httpapi.Request, q *placement.Query, values []string) error {
	if len(values) > 1 {
		return fault.New(fault.Invalid, "Query parameter 'root_required' may be specified only once.").WithCode(placement.CodeDuplicateKey)
	}
	if strings.HasPrefix(values[0], "in:") {
		return invalidQuery("The format 'in:HW_CPU_X86_VMX,CUSTOM_MAGIC' only supported since microversion 1.39. Got: %s", values[0])
	}
	required, forbidden, err := parseTraits(r, values)
	if err != nil {
		return err
	}
	var both []string
	for _, t := range required {
		q.RootRequired = append(q.RootRequired, t[0])
		if slices.Contains(forbidden, t[0]) {
			both = append(both, t[0])
		}
	}
	if len(both) > 0 {
		return fault.New(fault.Invalid, "Conflicting required and forbidden traits found in root_required: %s", strings.Join(both, ", ")).
			WithCode(placement.CodeBadValue)
	}
	q.RootForbidden = forbidden
	return nil
}

func groupPart(r *httpapi.Request, g *placement.Group, kind string, values []string) (err error) {
	switch kind {
	case "resources":
		g.Resources, err = parseResources(values[len(values)-1])
	case "required":
		g.Required, g.Forbidden, err = parseTraits(r, values)
	case "member_of":
		g.MemberOf, g.NotMemberOf, err = parseMemberOf(r, g.Suffix, values)
	case "in_tree":
		g.InTree = strings.TrimSpace(values[len(values)-1])
		if !id.IsUUID(g.InTree) {
			err = invalidQuery("Expected 'in_tree' parameter to be a format of uuid. Got: %s", g.InTree)
		}
	}
	return err
}

// judgeGroups applies the rules between the groups.
func judgeGroups(r *httpapi.Request, q *placement.Query) error {
	if since(r, 36) {
		if err := judgeSubtrees(q); err != nil {
			return err
		}
	} else if err := orphans(q.Groups); err != nil {
		return err
	}
	for _, g := range q.Groups {
		if err := conflicting(g.Required, g.Forbidden, g.Suffix); err != nil {
			return err
		}
	}
	suffixes := 0
	for _, g := range q.Groups {
		if g.Suffix != "" {
			suffixes++
		}
	}
	if suffixes > 1 && q.GroupPolicy == "" {
		return fault.New(fault.Invalid, "The \"group_policy\" parameter is required when specifying more than one \"resources{N}\" parameter.")
	}
	return nil
}

func judgeSubtrees(q *placement.Query) error {
	named := slices.Concat(q.SameSubtree...)
	var all, empty, bad []string
	for _, g := range q.Groups {
		all = append(all, g.Suffix)
		if len(g.Resources) > 0 {
			continue
		}
		empty = append(empty, g.Suffix)
		if !slices.Contains(named, g.Suffix) {
			bad = append(bad, g.Suffix)
		}
	}
	if len(empty) == len(all) {
		return fault.New(fault.Invalid, "There must be at least one resources or resources[$S] parameter.").WithCode(placement.CodeMissingValue)
	}
	if len(bad) > 0 {
		return fault.New(fault.Invalid, "Resourceless suffixed group request should be specified in `same_subtree` query param: bad group(s) - %s.",
			strings.Join(bad, ", ")).WithCode(placement.CodeBadValue)
	}
	for _, s := range named {
		if !slices.Contains(all, s) {
			return fault.New(fault.Invalid, "Real suffixes should be specified in `same_subtree`: %s not found in %s.", s, strings.Join(all, ", ")).
				WithCode(placement.CodeBadValue)
		}
	}
	return nil
}

func orphans(groups []placement.Group) error {
	var traits, members []string
	for _, g := range groups {
		switch {
		case len(g.Resources) > 0:
		case len(g.Required) > 0:
			traits = append(traits, "required"+g.Suffix)
		case len(g.MemberOf) > 0 || len(g.NotMemberOf) > 0:
			members = append(members, "member_of"+g.Suffix)
		default:
			return fault.New(fault.Invalid, "All request groups must specify resources.")
		}
	}
	switch {
	case len(traits) > 0:
		return fault.New(fault.Invalid, "All traits parameters must be associated with resources.  Found the following orphaned traits keys: %s", strings.Join(traits, ", "))
	case len(members) > 0:
		return fault.New(fault.Invalid, "All member_of parameters must be associated with resources. Found the following orphaned member_of keys: %s", strings.Join(members, ", "))
	case len(groups) == 0:
		return fault.New(fault.Invalid, "At least one request group (`resources` or `resources{$S}`) is required.")
	}
	return nil
}

// candidateWriter writes the answer piece by piece and without reflection: it may be megabytes.
type candidateWriter struct {
	r     *httpapi.Request
	found *placement.Candidates
	asked map[string]bool

	traits  []string // the list that was written last, and how: hosts of a kind share one
	written []byte
	rest    *bytes.Reader // what Read has not given yet

	stocked, taken []string // classes of the inventory and of the resources that were written last: most have the same, and to look up costs less than to walk
}

// same tells whether a map has exactly the keys; otherwise it gives those that it has, in order.
func same[V any](keys []string, m map[string]V) []string {
	if len(keys) == len(m) {
		whole := true
		for _, k := range keys {
			if _, whole = m[k]; !whole {
				break
			}
		}
		if whole {
			return keys
		}
	}
	return slices.Sorted(maps.Keys(m))
}

const piece = 64 << 10 // bytes written at once

var pieces = sync.Pool{New: func() any { b := make([]byte, 0, piece+piece/4); return &b }}

// WriteTo implements io.WriterTo. Nothing in the answer needs escaping: UUIDs, class and trait names and group suffixes are plain.
func (w *candidateWriter) WriteTo(out io.Writer) (n int64, err error) {
	pooled := pieces.Get().(*[]byte) //nolint:forcetypeassert // the pool holds nothing else
	b := (*pooled)[:0]
	defer func() { *pooled = b[:0]; pieces.Put(pooled) }()
	flush := func(atLeast int) {
		if err != nil || len(b) < atLeast {
			return
		}
		var k int
		k, err = out.Write(b)
		n += int64(k)
		b = b[:0]
	}
	asDict, mappings := since(w.r, 12), since(w.r, 34)
	b = append(b, `{"allocation_requests": [`...)
	for i, c := range w.found.Candidates {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = w.appendAllocations(b, &c, asDict)
		if mappings {
			b = append(b, `, "mappings": {`...)
			first := true
			if list, ok := c.Mappings[""]; ok && len(c.Mappings) == 1 {
				b = appendStrings(appendKey(b, "", &first), list)
			} else {
				for suffix, list := range c.Mappings {
					b = appendKey(b, suffix, &first)
					b = appendStrings(b, list)
				}
			}
			b = append(b, '}')
		}
		b = append(b, '}')
		flush(piece)
	}
	b = append(b, `], "provider_summaries": {`...)
	first := true
	for uuid, p := range w.found.Summaries {
		b = appendKey(b, uuid, &first)
		b = w.appendSummary(b, p)
		flush(piece)
	}
	b = append(b, "}}"...)
	flush(0)
	return n, err
}

// Read implements io.Reader for those who do not ask for WriteTo.
func (w *candidateWriter) Read(p []byte) (int, error) {
	if w.rest == nil {
		var all bytes.Buffer
		if _, err := w.WriteTo(&all); err != nil {
			return 0, err
		}
		w.rest = bytes.NewReader(all.Bytes())
	}
	return w.rest.Read(p)
}

// appendAllocations leaves the object open.
func (w *candidateWriter) appendAllocations(b []byte, c *placement.Candidate, asDict bool) []byte {
	first, a := true, c.Allocations
	if asDict {
		b = append(b, `{"allocations": {`...)
		if res, ok := a[c.Root]; ok && len(a) == 1 {
			b = w.appendResources(append(appendKey(b, c.Root, &first), `{"resources": `...), res)
			return append(b, "}}"...)
		}
		for uuid, res := range a {
			b = appendKey(b, uuid, &first)
			b = append(b, `{"resources": `...)
			b = append(w.appendResources(b, res), '}')
		}
		return append(b, '}')
	}
	b = append(b, `{"allocations": [`...)
	for uuid, res := range a {
		if !first {
			b = append(b, ", "...)
		}
		first = false
		b = append(b, `{"resource_provider": {"uuid": "`...)
		b = append(b, uuid...)
		b = append(b, `"}, "resources": `...)
		b = append(w.appendResources(b, res), '}')
	}
	return append(b, ']')
}

func (w *candidateWriter) appendResources(b []byte, res placement.Resources) []byte {
	b = append(b, '{')
	first := true
	w.taken = same(w.taken, res)
	for _, class := range w.taken {
		b = appendKey(b, class, &first)
		b = strconv.AppendInt(b, res[class], 10)
	}
	return append(b, '}')
}

func (w *candidateWriter) appendSummary(b []byte, p *placement.Provider) []byte {
	b = append(b, `{"resources": {`...)
	first := true
	w.stocked = same(w.stocked, p.Inventory)
	for _, class := range w.stocked {
		inv := p.Inventory[class]
		if !since(w.r, 27) && !w.asked[class] {
			continue
		}
		b = appendKey(b, class, &first)
		b = append(b, `{"capacity": `...)
		b = strconv.AppendInt(b, inv.Capacity(), 10)
		b = append(b, `, "used": `...)
		b = strconv.AppendInt(b, p.Used[class], 10)
		b = append(b, '}')
	}
	b = append(b, '}')
	if since(w.r, 17) {
		if len(p.Traits) == 0 || len(w.traits) != len(p.Traits) || &w.traits[0] != &p.Traits[0] {
			w.traits, w.written = p.Traits, appendStrings(append(w.written[:0], `, "traits": `...), p.Traits)
		}
		b = append(b, w.written...)
	}
	if since(w.r, 29) {
		b = append(b, `, "parent_provider_uuid": `...)
		if p.Parent == "" {
			b = append(b, "null"...)
		} else {
			b = append(append(append(b, '"'), p.Parent...), '"')
		}
		b = append(b, `, "root_provider_uuid": "`...)
		b = append(append(b, p.Root...), '"')
	}
	return append(b, '}')
}

func appendKey(b []byte, key string, first *bool) []byte {
	if !*first {
		b = append(b, ", "...)
	}
	*first = false
	b = append(append(b, '"'), key...)
	return append(b, `": `...)
}

func appendStrings(b []byte, list []string) []byte {
	b = append(b, '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(append(append(b, '"'), s...), '"')
	}
	return append(b, ']')
}
