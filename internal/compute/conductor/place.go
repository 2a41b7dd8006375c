package conductor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"kilonova/internal/auth"
	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/flow"
	"kilonova/internal/compute/scheduler"
	"kilonova/internal/fault"
	"kilonova/internal/placement"
)

// Place implements flow.Placer: placement offers candidates, the scheduler ranks their hosts, and the best is claimed where the rows are. A claim that comes
// too late goes to the next host, and when the best are taken the whole question is asked again.
func (c *Conductor) Place(ctx context.Context, w flow.Want) (*flow.Place, error) {
	if w.Migration != "" {
		if p, err := c.moved(ctx, w); p != nil || err != nil {
			return p, err
		}
	}
	req, err := c.request(ctx, w)
	if err != nil {
		return nil, err
	}
	needs, err := scheduler.Needs(req)
	if err != nil {
		return nil, err
	}
	if needs && w.Migration == "" {
		if p, err := c.claimed(ctx, w.Server.ID); p != nil || err != nil {
			return p, err
		}
	}
	for round, tried := 0, 0; ; round++ {
		plan, err := c.plan(ctx, req)
		if round == 0 && (hopeless(err) || err == nil && len(plan.Hosts) == 0) {
			// Perhaps the hosts or aggregates that would do have only just come.
			if err := errors.Join(c.rec.SyncAll(ctx), c.hosts.load(ctx)); err != nil {
				return nil, err
			}
			if req, err = c.request(ctx, w); err != nil {
				return nil, err
			}
			plan, err = c.plan(ctx, req)
		}
		if err != nil {
			return nil, err
		}
		if len(plan.Hosts) == 0 {
			return nil, plan.Explanation.NoValidHost()
		}
		for _, r := range plan.Hosts {
			p, err := c.claim(ctx, w, req, r)
			if p != nil || err != nil {
				return p, err
			}
		}
		if needs {
			if err := c.hosts.load(ctx); err != nil { // to see what others claimed
				return nil, err
			}
		}
		if tried += len(plan.Hosts); tried >= 4*plan.Fit {
			return nil, flow.NoValidHost(fmt.Sprintf("No valid host was found. %d hosts would have done, but others took their room first.", plan.Fit))
		}
	}
}

// hopeless tells whether a plan failed because no host can do.
func hopeless(err error) bool {
	var e *fault.Error
	return errors.As(err, &e) && e.Code == flow.CodeNoValidHost
}

// mostClaimed is how many hosts of a plan are claimed, one after the other, before the whole question is asked again.
const mostClaimed = 16

// plan asks placement, ranks, and gives the best hosts.
func (c *Conductor) plan(ctx context.Context, req *scheduler.Request) (*scheduler.Plan, error) {
	if err := c.hosts.fresh(ctx); err != nil {
		return nil, err
	}
	cloud, signature := c.hosts.cloud()
	if err := c.tellPlacement(ctx, signature); err != nil {
		return nil, err
	}
	return c.ask(ctx, req, cloud, mostClaimed)
}

// ask asks placement, ranks what it offers, and gives the best hosts.
func (c *Conductor) ask(ctx context.Context, req *scheduler.Request, cloud *scheduler.Cloud, most int) (*scheduler.Plan, error) {
	queries, err := scheduler.Queries(c.planner.Config(), req, cloud)
	if err != nil {
		return nil, err
	}
	known, err := c.knownServers(ctx, req)
	if err != nil {
		return nil, err
	}
	// What placement offers, and what is known of the hosts that it offers, is much. No more of it is held at a time than the processors can soon judge.
	leave, err := enter(ctx, c.hosts.asking)
	if err != nil {
		return nil, err
	}
	defer leave()
	all, err := c.candidates(ctx, queries)
	if err != nil {
		return nil, err
	}
	if leave, err = enter(ctx, c.hosts.judging); err != nil {
		return nil, err
	}
	defer leave()
	room := c.hosts.spare.Get().(*judged)
	defer c.hosts.spare.Put(room)
	states, total := c.hosts.states(all, room)
	tellServers(states, known)
	plan, err := c.planner.Plan(req, states, all)
	if err != nil {
		return nil, err
	}
	plan.Explanation.Total = total
	return plan.Best(most), nil
}

// enter takes one of the places that a channel has, and gives the function that leaves it.
func enter(ctx context.Context, places chan struct{}) (leave func(), err error) {
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// candidates puts queries to placement and joins the answers.
func (c *Conductor) candidates(ctx context.Context, queries []placement.Query) (*placement.Candidates, error) {
	all := &placement.Candidates{Summaries: map[string]*placement.Provider{}}
	for i, q := range queries {
		got, err := c.cfg.Placement.Candidates(ctx, q)
		if err != nil || len(queries) == 1 {
			return got, err
		}
		all.Candidates = append(all.Candidates, got.Candidates...)
		maps.Copy(all.Summaries, got.Summaries)
		if i == 0 {
			all.Rejected = got.Rejected
		}
	}
	return all, nil
}

// tellPlacement brings placement in line when aggregates or states of hosts changed: it has to know before it is asked. Requests at the same moment wait for one
// of them to do it.
func (c *Conductor) tellPlacement(ctx context.Context, signature string) error {
	if !c.hosts.changed(signature) {
		return nil
	}
	c.hosts.syncing.Lock()
	defer c.hosts.syncing.Unlock()
	if !c.hosts.changed(signature) {
		return nil
	}
	if err := c.rec.SyncAll(ctx); err != nil {
		return err
	}
	c.hosts.synced(signature)
	return nil
}

// request makes the scheduler's request of a want.
func (c *Conductor) request(ctx context.Context, w flow.Want) (*scheduler.Request, error) {
	s := w.Server
	req := &scheduler.Request{ServerID: s.ID, ProjectID: s.ProjectID, Flavor: w.Flavor, Image: scheduler.Image{ID: s.ImageID, Props: w.ImageProps}, FromVolume: s.ImageID == "",
		Zone: w.Zone, Hints: s.Hints, ForceHost: w.ForceHost, ForceNode: w.ForceNode, Host: w.Host, Node: w.Node, Ignore: slices.Clone(w.Exclude)}
	policy, err := compute.PCIPolicy(w.Flavor.ExtraSpecs, w.ImageProps)
	if err != nil {
		return nil, err
	}
	wants, err := compute.PCIWants(c.cfg.PCIAliases, w.Flavor.ExtraSpecs, policy)
	if err != nil {
		return nil, err
	}
	ports := w.Ports
	for i := range s.VIFs {
		if p := compute.DeviceOf(&s.VIFs[i]); p != nil {
			ports = append(ports, *p)
		}
	}
	if w.Running {
		for i := range wants {
			wants[i].Running()
		}
	}
	req.PCI = append(scheduler.PCIRequests(s.ID, wants, c.planner.Config().PCIInPlacement), scheduler.PortRequests(ports, policy)...)
	for _, p := range ports {
		req.Ports = append(req.Ports, scheduler.Port{ID: p.PortID, VNICType: p.VNICType})
	}
	if err := c.routed(ctx, w, req); err != nil {
		return nil, err
	}
	if s.LaunchedOn != "" || len(w.Exclude) > 0 {
		debts, err := c.owed.OfServer(ctx, c.cfg.DB, s.ID)
		if err != nil {
			return nil, err
		}
		for _, d := range debts { // what is left of the server there must go first
			req.Ignore = append(req.Ignore, d.Host)
		}
	}
	if c.planner.Config().QueryPlacementForImageTypeSupport && s.ImageID != "" && c.cfg.Image != nil {
		img, err := c.cfg.Image.Get(ctx, auth.Internal(""), s.ImageID)
		if fault.IsAway(err) {
			return nil, err
		}
		if err == nil {
			req.Image.DiskFormat = img.DiskFormat
		}
	}
	if s.GroupID == "" {
		return req, nil
	}
	g, err := c.cfg.Store.Group(ctx, c.cfg.DB, s.GroupID)
	if errors.Is(err, fault.NotFound) {
		return req, nil // the group was deleted; its servers live on without it
	}
	if err != nil {
		return nil, err
	}
	places, err := c.cfg.Store.GroupPlaces(ctx, c.cfg.DB, g.ID, g.Policy)
	if err != nil {
		return nil, err
	}
	req.Group = scheduler.GroupOf(g, places, s.ID, s.Host)
	return req, nil
}

// claim takes a host's first candidate that still has room; nil without an error when none has.
func (c *Conductor) claim(ctx context.Context, w flow.Want, req *scheduler.Request, r scheduler.Ranked) (*flow.Place, error) {
	done := c.hosts.pending(r.Host.Host, req)
	defer done()
	for _, way := range scheduler.Ways(req, &r) {
		one := r
		one.Candidates = way.Candidates
		if p, err := c.claimWay(ctx, w, way.Request, one); p != nil || err != nil {
			return p, err
		}
	}
	return nil, nil
}

// claimWay is claim for candidates that give the server the same parts of the host.
func (c *Conductor) claimWay(ctx context.Context, w flow.Want, req *scheduler.Request, r scheduler.Ranked) (*flow.Place, error) {
	parts, had, err := c.takeParts(ctx, w, req, r.Host)
	if errors.Is(err, errNoParts) {
		return nil, nil //nolint:nilnil // others were quicker: the next host
	}
	if err != nil {
		return nil, err
	}
	p, err := c.claimAmounts(ctx, w, r, parts)
	// An error leaves open whether the amounts are claimed. Both are then found by the next try, or given back with what the operation undoes.
	if p == nil && err == nil && had {
		if err := c.leaveParts(ctx, w); err != nil {
			c.log.Warn("a claim of parts of a host is left behind; it is looked for", "server", w.Server.ID, "error", err)
		}
	}
	if p != nil && err == nil {
		c.hosts.change(p.Host, func(h *host) { h.busy++ }) // until the hosts are read again
	}
	if p != nil && p.Host == r.Host.Host && p.Claim == nil {
		p.Claim = parts
	}
	return p, err
}

// claimAmounts is the part of claim that placement judges.
func (c *Conductor) claimAmounts(ctx context.Context, w flow.Want, r scheduler.Ranked, parts *compute.Claim) (*flow.Place, error) {
	devices := c.hosts.deviceProviders(r.Host.Host)
	for _, cand := range r.Candidates {
		err := c.take(ctx, w, scheduler.WithDevices(cand.Allocations, parts, devices))
		if err == nil {
			return &flow.Place{Host: r.Host.Host, Node: r.Host.Node, Provider: r.Host.Provider, Zone: r.Host.Zone}, nil
		}
		if !errors.Is(err, fault.Conflict) {
			return nil, err
		}
		if w.Migration != "" {
			if p, err := c.moved(ctx, w); p != nil || err != nil {
				return p, err
			}
			continue
		}
		// A claim of the server's own that is there already was made by this step before it was interrupted.
		if p, err := c.where(ctx, w.Server.ID); p != nil || err != nil {
			return p, err
		}
	}
	return nil, nil
}

// take claims an allocation for the server. A server that moves hands what it has to the migration in the same transaction.
func (c *Conductor) take(ctx context.Context, w flow.Want, a placement.Allocations) error {
	s := w.Server
	me := placement.Consumer{UUID: s.ID, ProjectID: s.ProjectID, UserID: s.UserID, Type: "INSTANCE"}
	if w.Migration == "" {
		return c.cfg.Placement.Claim(ctx, me, a)
	}
	held, own, err := c.cfg.Placement.Of(ctx, s.ID)
	if err != nil {
		return err
	}
	if own == nil { // it has lost what it had, by an operator's hand: it moves with what it gets
		return c.cfg.Placement.Claim(ctx, me, a)
	}
	mover := placement.Consumer{UUID: w.Migration, ProjectID: s.ProjectID, UserID: s.UserID, Type: "MIGRATION"}
	return c.cfg.Placement.ClaimAll(ctx, []placement.Consumer{mover, *own}, []placement.Allocations{held, a})
}

// moved finds the claim that a move made before it was interrupted.
func (c *Conductor) moved(ctx context.Context, w flow.Want) (*flow.Place, error) {
	held, _, err := c.cfg.Placement.Of(ctx, w.Migration)
	if err != nil || len(held) == 0 {
		return nil, err
	}
	return c.where(ctx, w.Server.ID)
}

// claimed finds the claim that this step made before it was interrupted, of a server that holds parts of its host: the amounts, and the parts that were chosen with them. Amounts
// whose parts are not there are let go of.
func (c *Conductor) claimed(ctx context.Context, server string) (*flow.Place, error) {
	p, err := c.where(ctx, server)
	if p == nil || err != nil || p.Claim != nil {
		return p, err
	}
	return nil, c.cfg.Placement.Release(ctx, server)
}

// where tells on which host a consumer has allocations; nil: on none.
func (c *Conductor) where(ctx context.Context, consumer string) (*flow.Place, error) {
	held, _, err := c.cfg.Placement.Of(ctx, consumer)
	if err != nil {
		return nil, err
	}
	for provider := range held {
		if h, ok := c.hosts.byProvider(provider); ok {
			p := &flow.Place{Host: h.Name, Node: nodeName(&h), Provider: h.NodeID, Zone: h.Zone}
			p.Claim, err = c.partsOn(ctx, consumer, h.Name)
			return p, err
		}
	}
	return nil, nil
}

// Check implements flow.Placer.
func (c *Conductor) Check(ctx context.Context, w flow.Want, name string) error {
	req, err := c.request(ctx, w)
	if err != nil {
		return err
	}
	req.Rebuild, req.Host, req.Ignore = true, name, nil
	if w.Server.System[compute.SysClaim] != "" || compute.NeedsClaim(&w.Flavor, w.ImageProps) {
		now, err := c.cfg.Store.Server(ctx, c.cfg.DB, w.Server.ID)
		if err != nil {
			return err
		}
		if err := sameTopology(req, now); err != nil {
			return err
		}
	}
	if err := c.hosts.fresh(ctx); err != nil {
		return err
	}
	h, ok := c.hosts.get(name)
	if !ok {
		return fault.New(fault.Conflict, "Host %s of instance %s is unknown.", name, w.Server.ID)
	}
	if err := c.checkTraits(ctx, w, req); err != nil {
		return err
	}
	plan, err := c.planner.Plan(req, []*scheduler.HostState{c.hosts.state(&h, nil)}, nil)
	if err != nil {
		return err
	}
	if len(plan.Hosts) == 0 {
		return plan.Explanation.NoValidHost()
	}
	return nil
}

// knownServers gives the servers that the request's hints name.
func (c *Conductor) knownServers(ctx context.Context, req *scheduler.Request) ([]*compute.Server, error) {
	var ids []string
	for _, hint := range []string{"same_host", "different_host"} {
		ids = append(ids, req.HintList(hint)...)
	}
	if len(ids) == 0 {
		return nil, nil
	}
	return c.cfg.Store.ServersByID(ctx, c.cfg.DB, ids...)
}

// tellServers puts servers into the states of their hosts.
func tellServers(states []*scheduler.HostState, servers []*compute.Server) {
	for _, s := range servers {
		for _, h := range states {
			if s.Deleted.IsZero() && h.Host == s.Host {
				h.Servers = maps.Clone(h.Servers) // that of the table is shared
				if h.Servers == nil {
					h.Servers = map[string]scheduler.ServerOn{}
				}
				h.Servers[s.ID] = scheduler.ServerOn{ImageProps: s.ImageProps}
			}
		}
	}
}

// state makes the scheduler's view of a host; p is its provider with what is used, nil when that does not matter.
func (t *hostTable) state(h *host, p *placement.Provider) *scheduler.HostState {
	s := &scheduler.HostState{}
	t.fill(s, h, p, clock.Now())
	return s
}

// fill is state in a place that is there.
func (t *hostTable) fill(s *scheduler.HostState, h *host, p *placement.Provider, now time.Time) {
	*s = h.base
	s.Up, s.IOOps, s.FailedBuilds, s.Updated = t.alive(h, now), h.busy+int(h.load.IO), int(h.FailedBuilds), h.seen
	if t.track {
		s.NumServers = h.busy + int(h.load.Servers)
	}
	switch {
	case h.ForcedDown:
		s.Down = "forced down"
	case !s.Up:
		s.Down = "not heard of since " + h.seen.Format(clock.LayoutZ)
	case h.Disabled:
		s.Down = "disabled"
		if h.DisabledReason != "" {
			s.Down += ": " + h.DisabledReason
		}
	}
	if p == nil {
		return
	}
	cpu, ram, disk := p.Inventory["VCPU"], p.Inventory["MEMORY_MB"], p.Inventory["DISK_GB"]
	s.VCPUsUsed = p.Used["VCPU"] + cpu.Reserved + p.Used["PCPU"] + h.pendVCPU
	s.MemoryUsedMB = p.Used["MEMORY_MB"] + ram.Reserved + h.pendRAM
	s.DiskUsedGB = p.Used["DISK_GB"] + disk.Reserved + h.pendDisk
	s.CPURatio, s.RAMRatio, s.DiskRatio = cpu.AllocationRatio, ram.AllocationRatio, disk.AllocationRatio
	if s.NUMA != nil {
		n := *s.NUMA
		n.CPURatio, n.RAMRatio = cpu.AllocationRatio, ram.AllocationRatio
		s.NUMA = &n
	}
}

func nodeName(h *host) string {
	if h.info != nil && h.info.Hostname != "" {
		return h.info.Hostname
	}
	return h.Name
}

// judged is room for what the scheduler sees of the hosts that placement offered, which is needed no longer than it takes to rank them.
type judged struct {
	all    []scheduler.HostState
	states []*scheduler.HostState
	seen   map[*host]bool
}

// states gives the hosts that placement offered, in room, and how many there are in all.
func (t *hostTable) states(c *placement.Candidates, room *judged) (out []*scheduler.HostState, total int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if len(room.all) < len(c.Candidates) {
		room.all = make([]scheduler.HostState, len(c.Candidates))
		room.states = make([]*scheduler.HostState, 0, len(c.Candidates))
		room.seen = make(map[*host]bool, len(c.Candidates))
	}
	clear(room.seen)
	out = room.states[:0]
	now := clock.Now()
	for i := range c.Candidates {
		root := c.Candidates[i].Root
		h := t.byNode[root]
		if h == nil || room.seen[h] {
			continue
		}
		room.seen[h] = true
		t.fill(&room.all[i], h, c.Summaries[root], now)
		out = append(out, &room.all[i])
	}
	return out, len(t.byName)
}

// cloud gives what request filters need, and a signature of what placement must have been told before it is asked.
func (t *hostTable) cloud() (*scheduler.Cloud, string) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return &scheduler.Cloud{Aggregates: t.pure, Provider: func(name, node string) string {
		t.mu.RLock()
		defer t.mu.RUnlock()
		if h := t.byName[name]; h != nil {
			return h.NodeID
		}
		for _, h := range t.byName {
			if name == "" && node != "" && nodeName(h) == node {
				return h.NodeID
			}
		}
		return ""
	}}, t.signature
}

func (t *hostTable) changed(signature string) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.told != signature
}

func (t *hostTable) synced(signature string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.told = signature
}

// pending counts a claim in the making, so that requests at the same moment do not all go to the host that was best before any of them.
func (t *hostTable) pending(name string, r *scheduler.Request) (done func()) {
	add := func(sign int64) {
		t.change(name, func(h *host) {
			h.pendVCPU += sign * int64(r.Flavor.VCPUs)
			h.pendRAM += sign * r.Flavor.RAMMB
			h.pendDisk += sign * r.DiskGB()
		})
	}
	add(1)
	return func() { add(-1) }
}

func (t *hostTable) byProvider(uuid string) (host, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if h := t.byNode[uuid]; h != nil {
		return *h, true
	}
	return host{}, false
}

// pureAggregates are the scheduler's nouns for compute's.
func pureAggregates(in []compute.Aggregate) []*scheduler.Aggregate {
	out := make([]*scheduler.Aggregate, len(in))
	for i, a := range in {
		out[i] = &scheduler.Aggregate{UUID: a.UUID, Name: a.Name, Metadata: a.Metadata}
	}
	return out
}
