package conductor

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/scheduler"
	"kilonova/internal/compute/store"
	"kilonova/internal/compute/virt"
	"kilonova/internal/db"
)

// beatEvery is how often heartbeats are written down: far less than service_down_time, far more than they come.
const beatEvery = 15 * time.Second

// host is one compute host in memory.
type host struct {
	compute.Host
	info      *virt.HostInfo
	base      scheduler.HostState // what of the scheduler\'s view does not change between readings
	pureAggs  []*scheduler.Aggregate
	load      store.HostLoad
	held      map[string][]compute.Claim    // what servers hold of it by name, by server
	servers   map[string]scheduler.ServerOn // only when a filter or weigher looks at them; never changed
	seen      time.Time                     // newest heartbeat, here or on record
	written   time.Time                     // newest on record
	infoPrint uint64                        // of the record that info was read from
	infoNew   bool                          // nobody else has info yet
	put       time.Time                     // when it was added or renewed without the others
	start     string                        // which process of the agent speaks for the host
	former    []string                      // processes that it took over from
	reported  string                        // what placement was told last
	devices   []scheduler.DeviceProvider    // those of its PCI devices that placement knows of
	divided   bool                          // it has or had devices of which servers have parts
	busy      int                           // claims of this conductor that the load does not show yet

	pendVCPU, pendRAM, pendDisk int64 // claims in the making
}

// hostTable holds all hosts in memory. The database is the truth; the table is read again when it is older than a few hundred milliseconds (longer when
// reading takes long, so that reading never takes more than a small part of the time).
type hostTable struct {
	store   *store.Store
	downFor time.Duration
	since   time.Time

	loading sync.Mutex
	syncing sync.Mutex
	mu      sync.RWMutex
	byName  map[string]*host
	byNode  map[string]*host
	pure    []*scheduler.Aggregate
	like    *host // the last that was read: others may be like it
	loaded  time.Time
	took    time.Duration
	gap     gap
	// signature names the aggregates and states that are read, told those that placement has been told.
	signature, told string
	needServers     bool          // a filter or weigher looks at the servers of hosts
	track           bool          // track_instance_changes
	asking, judging chan struct{} // places for plans that are being made, and for those of them that have placement's answer
	spare           sync.Pool     // of *judged
}

func newHostTable(s *store.Store, downFor time.Duration, since time.Time) *hostTable {
	return &hostTable{store: s, downFor: downFor, since: since, byName: map[string]*host{}, byNode: map[string]*host{},
		asking: make(chan struct{}, 16*runtime.GOMAXPROCS(0)), judging: make(chan struct{}, 4*runtime.GOMAXPROCS(0)), spare: sync.Pool{New: func() any { return &judged{} }}}
}

// load reads all hosts and aggregates.
func (t *hostTable) load(ctx context.Context) error {
	t.loading.Lock()
	defer t.loading.Unlock()
	return t.loadLocked(ctx)
}

func (t *hostTable) loadLocked(ctx context.Context) error {
	err := t.read(ctx)
	t.gap.tried(err, clock.Now())
	return err
}

func (t *hostTable) read(ctx context.Context) error {
	began := time.Now()
	rows, err := t.store.Hosts(ctx, t.store.DB)
	if err != nil {
		return err
	}
	aggs, err := t.store.Aggregates(ctx, t.store.DB)
	if err != nil {
		return err
	}
	loads, err := t.store.HostLoads(ctx, t.store.DB)
	if err != nil {
		return err
	}
	on := map[string]map[string]scheduler.ServerOn{}
	if t.needServers || t.track && slices.ContainsFunc(aggs, func(a compute.Aggregate) bool { return a.Metadata[imageWeight] != "" }) {
		if on, err = t.serversOn(ctx); err != nil {
			return err
		}
	}
	held, err := t.claims(ctx, rows)
	if err != nil {
		return err
	}
	t.replace(reading{began: began, rows: rows, aggregates: aggs, loads: loads, servers: on, held: held})
	return nil
}

// reading is what the database said of the hosts since began.
type reading struct {
	began      time.Time
	rows       []compute.Host
	aggregates []compute.Aggregate
	loads      map[string]store.HostLoad
	servers    map[string]map[string]scheduler.ServerOn
	held       map[string]map[string][]compute.Claim
}

// replace puts a reading in the place of what is there. A host that was put meanwhile may be newer than the reading, and missing in it: it stays.
func (t *hostTable) replace(r reading) {
	pure := pureAggregates(r.aggregates)
	in, sign := map[string][]*scheduler.Aggregate{}, fnv.New64a()
	for i, a := range r.aggregates {
		for _, h := range a.Hosts {
			in[h] = append(in[h], pure[i])
			fmt.Fprintf(sign, "%s %s\n", a.UUID, h)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	byName, byNode := make(map[string]*host, len(r.rows)), make(map[string]*host, len(r.rows))
	for _, row := range r.rows {
		h := t.byName[row.Name]
		if h == nil {
			h = &host{}
		}
		h.pureAggs, h.load, h.servers, h.busy = in[row.Name], r.loads[row.Name], r.servers[row.Name], 0
		h.held = r.held[row.Name]
		if h.put.Before(r.began) {
			h.take(row)
		} else {
			h.base.Aggregates, h.base.Servers = h.pureAggs, h.servers
			h.parts()
		}
		h.share(t.like)
		t.like = h
		fmt.Fprintf(sign, "%s %v\n", row.NodeID, row.Disabled)
		byName[row.Name], byNode[h.NodeID] = h, h
	}
	for name, h := range t.byName {
		if byName[name] == nil && !h.put.Before(r.began) {
			byName[name], byNode[h.NodeID] = h, h
		}
	}
	t.byName, t.byNode, t.pure, t.signature = byName, byNode, pure, strconv.FormatUint(sign.Sum64(), 36)
	t.loaded, t.took = time.Now(), time.Since(r.began)
}

// take puts a record that was just read into the host.
func (h *host) take(r compute.Host) {
	if print := fingerprintOf(r.Info); h.info == nil || h.infoPrint != print {
		h.info, h.infoPrint = &virt.HostInfo{}, print
		if len(r.Info) > 0 && json.Unmarshal(r.Info, h.info) != nil {
			h.info = &virt.HostInfo{} // a record that cannot be read has nothing to offer
		}
		h.info.Traits = nil // placement has them
		h.infoNew = true
	}
	h.Host, h.written = r, r.LastSeen
	h.Host.Info = nil // read above, and large
	if r.LastSeen.After(h.seen) {
		h.seen = r.LastSeen
	}
	h.base = scheduler.HostState{Host: h.Name, Node: nodeName(h), Provider: h.NodeID, ServiceID: h.ServiceID, ID: h.NodeNumber, Zone: h.Zone, HostIP: h.info.HostIP,
		Aggregates: h.pureAggs, Enabled: !h.Disabled, ForcedDown: h.ForcedDown, HypervisorType: h.info.HypervisorType,
		HypervisorVersion: h.info.HypervisorVersion, Supported: h.info.Supported, CPUInfo: h.info.CPUInfo, Stats: h.info.Stats, Metrics: h.info.Metrics,
		VCPUs: int64(h.info.VCPUs), MemoryMB: h.info.MemoryMB, DiskGB: h.info.DiskGB, CPURatio: 1, RAMRatio: 1, DiskRatio: 1, Servers: h.servers}
	h.parts()
}

// deviceProviders gives the providers in placement that a host's PCI devices have.
func (t *hostTable) deviceProviders(name string) []scheduler.DeviceProvider {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if h := t.byName[name]; h != nil {
		return h.devices
	}
	return nil
}

func fingerprintOf(b []byte) uint64 {
	f := fnv.New64a()
	_, _ = f.Write(b) // a hash never fails
	return f.Sum64()
}

// share lets the host use what another one describes in the same words: hosts of a kind are alike.
func (h *host) share(like *host) {
	if like == nil || like.info == nil || h.info == like.info {
		h.infoNew = false
		return
	}
	type pair struct{ mine, its *string }
	words := []pair{{&h.Zone, &like.Zone}, {&h.Binary, &like.Binary}, {&h.DisabledReason, &like.DisabledReason}}
	if h.infoNew { // later others read it: copies of the host point to it
		h.infoNew = false
		if reflect.DeepEqual(h.info.CPUInfo, like.info.CPUInfo) {
			h.info.CPUInfo, h.base.CPUInfo = like.info.CPUInfo, like.info.CPUInfo
		}
		if slices.Equal(h.info.Supported, like.info.Supported) {
			h.info.Supported, h.base.Supported = like.info.Supported, like.info.Supported
		}
		if maps.Equal(h.info.Stats, like.info.Stats) {
			h.info.Stats, h.base.Stats = like.info.Stats, like.info.Stats
		}
		words = append(words, pair{&h.info.HypervisorType, &like.info.HypervisorType}, pair{&h.info.Uptime, &like.info.Uptime}, pair{&h.info.HostIP, &like.info.HostIP})
	}
	for _, s := range words {
		if *s.mine == *s.its {
			*s.mine = *s.its
		}
	}
	h.base.HypervisorType, h.base.HostIP, h.base.Zone = h.info.HypervisorType, h.info.HostIP, h.Zone
}

// put adds or renews one host whose record was just written, without reading the others.
func (t *hostTable) put(r compute.Host) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.byName[r.Name]
	if h == nil {
		h = &host{}
		t.byName[r.Name] = h
	} else if h.NodeID != r.NodeID {
		delete(t.byNode, h.NodeID)
	}
	h.take(r)
	h.put = time.Now()
	h.share(t.like)
	t.like = h
	t.byNode[r.NodeID] = h
}

// imageWeight is the key of aggregate metadata that has images weighed on some hosts.
const imageWeight = "image_props_weight_multiplier"

// serversOn lists the servers on each host with the properties of their images.
func (t *hostTable) serversOn(ctx context.Context) (map[string]map[string]scheduler.ServerOn, error) {
	refs, err := t.store.ServerImages(ctx, t.store.DB)
	if err != nil {
		return nil, err
	}
	on := map[string]map[string]scheduler.ServerOn{}
	for _, r := range refs {
		if on[r.Host] == nil {
			on[r.Host] = map[string]scheduler.ServerOn{}
		}
		on[r.Host][r.ID] = scheduler.ServerOn{ImageProps: r.ImageProps}
	}
	return on, nil
}

// fresh reads the table again when it is too old for a decision.
func (t *hostTable) fresh(ctx context.Context) error {
	if !t.stale() {
		return nil
	}
	if !t.loading.TryLock() {
		return nil // somebody else is reading it; what is there is only a moment older
	}
	defer t.loading.Unlock()
	if !t.stale() {
		return nil
	}
	return t.loadLocked(ctx)
}

func (t *hostTable) stale() bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return time.Since(t.loaded) > max(200*time.Millisecond, 50*t.took)
}

// get gives a copy of one host.
func (t *hostTable) get(name string) (host, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	h := t.byName[name]
	if h == nil {
		return host{}, false
	}
	return *h, true
}

// names gives all hosts in order.
func (t *hostTable) names() []string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make([]string, 0, len(t.byName))
	for n := range t.byName {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// change alters a host in memory, if it is there.
func (t *hostTable) change(name string, f func(h *host)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.byName[name]
	if h == nil {
		return false
	}
	f(h)
	return true
}

// alive tells whether a host may be given new work.
func (t *hostTable) alive(h *host, now time.Time) bool {
	return !h.ForcedDown && t.gap.silence(h.seen, now) <= t.downFor
}

// down tells whether a host is given up. A conductor that has just started may not have heard of a host that lives: it waits as long as for a
// heartbeat.
func (t *hostTable) down(h *host, now time.Time) bool {
	seen := h.seen
	if t.since.After(seen) {
		seen = t.since
	}
	return h.ForcedDown || t.gap.silence(seen, now) > t.downFor
}

// beat writes heartbeats down, many hosts in one transaction, until ctx ends.
func (t *hostTable) beat(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := t.writeBeats(ctx); err != nil && ctx.Err() == nil {
			log.Error("heartbeats could not be written", "error", err)
		}
	}
}

// writeBeats writes those that are due, by one statement for the hosts that were heard of at the same moment.
func (t *hostTable) writeBeats(ctx context.Context) error {
	due := map[time.Time][]string{}
	t.mu.RLock()
	for name, h := range t.byName {
		if h.seen.Sub(h.written) >= beatEvery {
			due[h.seen] = append(due[h.seen], name)
		}
	}
	t.mu.RUnlock()
	if len(due) == 0 {
		return nil
	}
	err := t.store.DB.Write(ctx, func(tx *db.Tx) error {
		for seen, names := range due {
			if err := t.store.Heartbeats(ctx, tx, names, seen); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for seen, names := range due {
		for _, name := range names {
			if h := t.byName[name]; h != nil {
				h.written = seen
			}
		}
	}
	return nil
}

// Down implements flow.Placer and reconcile.Hosts.
func (c *Conductor) Down(ctx context.Context, name string) bool {
	if err := c.hosts.fresh(ctx); err != nil {
		c.log.Warn("hosts could not be read", "error", err)
	}
	h, ok := c.hosts.get(name)
	if !ok || c.hosts.down(&h, clock.Now()) {
		return true
	}
	// What is remembered may be a moment older than an operator's word, on which the caller was let in.
	states, err := c.cfg.Store.HostStates(ctx, c.cfg.DB, name)
	if err != nil {
		c.log.Warn("a host could not be read", "host", name, "error", err)
		return false
	}
	if states[name] == nil || !states[name].ForcedDown {
		return false
	}
	c.hosts.change(name, func(h *host) { h.ForcedDown = true }) // until the hosts are read again
	return true
}

// Heard tells whether a host's agent has spoken lately, also when an operator has said that the host is down.
func (c *Conductor) Heard(ctx context.Context, name string) bool {
	if err := c.hosts.fresh(ctx); err != nil {
		c.log.Warn("hosts could not be read", "error", err)
	}
	h, ok := c.hosts.get(name)
	return ok && clock.Now().Sub(h.seen) <= c.hosts.downFor
}

// Living implements reconcile.Hosts: a host lives when its record or this conductor has heard of it lately.
func (c *Conductor) Living(records map[string]*compute.Host) map[string]bool {
	now, out := clock.Now(), make(map[string]bool, len(records))
	c.hosts.mu.RLock()
	defer c.hosts.mu.RUnlock()
	for name, r := range records {
		seen := r.LastSeen
		if h := c.hosts.byName[name]; h != nil && h.seen.After(seen) {
			seen = h.seen
		}
		if !r.ForcedDown && c.hosts.gap.silence(seen, now) <= c.hosts.downFor {
			out[name] = true
		}
	}
	return out
}

// Built implements flow.Placer. The count is on the host's record, where every conductor and scheduler reads it with the rest. A success is written only when
// it ends a row of failures, so that builds that go well cost nothing.
func (c *Conductor) Built(ctx context.Context, name string, ok bool) {
	if h, known := c.hosts.get(name); ok && known && h.FailedBuilds == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute) // a build that ran out of its time failed too
	defer cancel()
	err := c.cfg.DB.Write(ctx, func(tx *db.Tx) error { return c.cfg.Store.CountBuild(ctx, tx, name, ok) })
	if err != nil {
		c.log.Warn("the end of a build was not counted", "host", name, "error", err)
		return
	}
	c.hosts.change(name, func(h *host) { // until the hosts are read again
		if h.FailedBuilds++; ok {
			h.FailedBuilds = 0
		}
	})
}
