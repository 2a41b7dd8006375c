package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"kilonova/internal/bus"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/virt"
	"kilonova/internal/fault"
	"kilonova/internal/id"
)

const (
	together   = 500     // hosts that one message speaks of at most,
	manyGuests = 5000    // guests, unless they are one host's,
	mostBytes  = 4 << 20 // and its size, unless it is about one host
)

// errUnreached is the failure of reports that no conductor answered.
var errUnreached = errors.New("agent: the reports were not taken")

// Fleet is the agents of several simulated hosts in one process. Each host keeps its own journal, commands, guests and failures; what an agent does at its times -
// registering, the heartbeat, asking what is its own, pruning - they do in common messages from one goroutine, so that a process may play ten thousand.
type Fleet struct {
	cfg     Config
	start   string
	agents  []*Agent
	byToken map[string]*Agent // by the host's token in subjects
	again   chan struct{}
}

// NewFleet makes the agents of hosts. cfg is as for New, without what Host has. Hosts with a data plane of their own, or whose drivers watch them, want agents of their own.
// Drivers that are virt.Neighbour are neighbours of each other. Nothing happens before Run.
func NewFleet(cfg Config, hosts []Host) (*Fleet, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	if cfg.Plane != nil || len(hosts) == 0 {
		return nil, errors.New("agent: a fleet has hosts, and no data plane")
	}
	f := &Fleet{cfg: cfg, start: id.Secret(8), agents: make([]*Agent, len(hosts)), byToken: make(map[string]*Agent, len(hosts)), again: make(chan struct{}, 1)}
	all := make([]Agent, len(hosts))
	for i, h := range hosts {
		if _, watches := h.Driver.(virt.Watcher); watches {
			return nil, fmt.Errorf("agent: the driver of host %s watches it", h.Name)
		}
		a := &all[i]
		if err := a.init(&f.cfg, h, f.start); err != nil {
			return nil, err
		}
		token := bus.Token(h.Name)
		if token == h.Name {
			token = h.Name // one string, not two
		}
		if f.byToken[token] != nil {
			return nil, fmt.Errorf("agent: two hosts are called %s", h.Name)
		}
		f.agents[i], f.byToken[token] = a, a
	}
	return f, nil
}

// Agents gives the agents of the hosts, in their order.
func (f *Fleet) Agents() []*Agent { return f.agents }

// Reconnected makes the agents look at everything again; the bus calls it after a reconnection.
func (f *Fleet) Reconnected() {
	select {
	case f.again <- struct{}{}:
	default:
	}
}

// Run serves the hosts until ctx ends. Commands that are running then are cut off; their conductors ask again. ready is called once all hosts are registered.
func (f *Fleet) Run(ctx context.Context, ready func()) error {
	runCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var stops []func()
	defer func() {
		cancel()
		for _, s := range stops {
			s()
		}
		for _, a := range f.agents {
			a.wg.Wait()
		}
	}()
	for _, a := range f.agents {
		a.ctx = runCtx
	}
	if err := f.register(ctx); err != nil {
		return err
	}
	if err := f.sweep(); err != nil {
		return err
	}
	for _, a := range f.agents {
		a.joins(ctx)
	}
	f.warn(ctx, "asking what is mine", f.mine(ctx, f.agents))
	for _, s := range []struct {
		subject func(host string) string
		handler func(*Agent) bus.Handler
	}{
		{command.Subject, func(a *Agent) bus.Handler { return a.serve }},
		{transferSubject, func(a *Agent) bus.Handler { return a.receive }},
	} {
		subjects := make([]string, len(f.agents))
		for i, a := range f.agents {
			subjects[i] = s.subject(a.host)
		}
		stop, err := f.cfg.Bus.ServeEach(subjects, "agent", func(ctx context.Context, subject string, msg []byte) ([]byte, error) {
			a := f.byToken[hostToken(subject)]
			if a == nil {
				return nil, fault.New(fault.NotFound, "No host of this process is called by %s.", subject)
			}
			return s.handler(a)(ctx, subject, msg)
		})
		if err != nil {
			return fmt.Errorf("agents: %w", err)
		}
		stops = append(stops, stop)
	}
	if ready != nil {
		ready()
	}
	f.loop(ctx)
	return nil
}

// hostToken is the second token of a subject.
func hostToken(subject string) string {
	_, rest, _ := strings.Cut(subject, ".")
	token, _, _ := strings.Cut(rest, ".")
	return token
}

// loop has a part of the hosts do at each tick what is due: each host's reports come at their interval, and all hosts' spread evenly over it.
func (f *Fleet) loop(ctx context.Context) {
	parts := slices.Collect(slices.Chunk(f.agents, together))
	tick := time.NewTicker(max(min(f.cfg.Report, f.cfg.Look)/time.Duration(len(parts)), time.Millisecond))
	defer tick.Stop()
	began := time.Now()
	times := make([]struct {
		reported, looked, pruned time.Time
		n                        int
	}, len(parts))
	for i := range times {
		times[i].reported, times[i].looked, times[i].pruned = began, began, began
	}
	for i := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-f.again:
			apart(func() { f.lookAround(ctx, f.agents) })
		case now := <-tick.C:
			t, part := &times[i], parts[i]
			if due(&t.reported, now, f.cfg.Report) {
				t.n++
				apart(func() { f.warn(ctx, "report", f.report(ctx, part, t.n%6 == 0)) })
			}
			if due(&t.looked, now, f.cfg.Look) {
				apart(func() { f.warn(ctx, "asking what is mine", f.mine(ctx, part)) })
			}
			if due(&t.pruned, now, time.Hour) {
				apart(func() { f.prune(ctx, part) })
			}
			i = (i + 1) % len(parts)
		}
	}
}

func (f *Fleet) lookAround(ctx context.Context, part []*Agent) {
	f.warn(ctx, "report", f.report(ctx, part, true))
	f.warn(ctx, "asking what is mine", f.mine(ctx, part))
}

func (f *Fleet) warn(ctx context.Context, what string, err error) {
	if err != nil && ctx.Err() == nil {
		f.log().Warn(what+" failed; it is tried again", "error", err)
	}
}

func (f *Fleet) log() *slog.Logger { return f.cfg.Log.With("hosts", len(f.agents)) }

// sweep removes what is left of snapshots that were being made when this process was killed.
func (f *Fleet) sweep() error {
	if _, err := os.Stat(filepath.Dir(f.agents[0].snapshotsDir())); f.cfg.Dir == "" || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, a := range f.agents {
		if err := os.RemoveAll(a.snapshotsDir()); err != nil {
			return fmt.Errorf("agent %s: half-made snapshots: %w", a.host, err)
		}
	}
	return nil
}

func (f *Fleet) prune(ctx context.Context, part []*Agent) {
	names := make([]string, len(part))
	for i, a := range part {
		names[i] = a.host
		a.forgetIdle()
	}
	f.warn(ctx, "pruning the journal", prune(ctx, f.cfg.DB, names...))
	for _, a := range part {
		if a.cache != nil {
			f.warn(ctx, "pruning the image cache", a.pruneImages(ctx))
		}
	}
}

// register reports the hosts until a conductor has taken them all. It gives up only when ctx ends or another live agent has a name.
func (f *Fleet) register(ctx context.Context) error {
	left := f.agents
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		failed, err := f.reports(ctx, left, true)
		if len(failed) == 0 && err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, fault.Conflict) {
			return err
		}
		if !errors.Is(err, fault.Unavailable) {
			f.log().Warn("hosts could not be registered; it is tried again", "left", len(failed), "error", err)
		}
		left = failed
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// report is the heartbeat; full adds what the hosts have. A conductor that does not know a host is told at once what it has.
func (f *Fleet) report(ctx context.Context, part []*Agent, full bool) error {
	failed, err := f.reports(ctx, part, full)
	if full || len(failed) == 0 || errors.Is(err, errUnreached) {
		return err
	}
	_, err = f.reports(ctx, failed, true)
	return err
}

// reports sends the reports of some hosts, and gives the hosts of which no conductor has taken a whole one, with what was said.
func (f *Fleet) reports(ctx context.Context, agents []*Agent, full bool) (failed []*Agent, err error) {
	var errs []error
	for part := range slices.Chunk(agents, together) {
		bad, err := f.reportsOf(ctx, part, full)
		failed, errs = append(failed, bad...), append(errs, err)
	}
	return failed, errors.Join(errs...)
}

func (f *Fleet) reportsOf(ctx context.Context, part []*Agent, full bool) (failed []*Agent, err error) {
	msg := command.HostReports{Start: f.start, Hosts: make([]command.KindReport, 0, len(part))}
	kinds := map[string]int{}
	silent := map[*Agent]error{} // their hypervisors did not tell what they have
	for _, a := range part {
		r, err := a.looks(ctx, full)
		if err != nil {
			silent[a] = err
		}
		h := command.KindReport{Host: r.Host, NodeID: r.NodeID, Trouble: r.Trouble}
		if r.Info != nil {
			h.Kind = kindOf(&msg, kinds, &r)
			if r.Info.Hostname != r.Host {
				h.Hostname = r.Info.Hostname
			}
		}
		msg.Hosts = append(msg.Hosts, h)
	}
	text, err := json.Marshal(msg)
	if err != nil {
		return part, err
	}
	if len(text) > mostBytes && len(part) > 1 {
		a, e1 := f.reportsOf(ctx, part[:len(part)/2], full)
		b, e2 := f.reportsOf(ctx, part[len(part)/2:], full)
		return append(a, b...), errors.Join(e1, e2)
	}
	reply, err := f.send(ctx, text, len(msg.Kinds) > 0)
	if err != nil {
		return part, err
	}
	for _, a := range part {
		why := silent[a]
		if f := reply.Failed[a.host]; f != nil {
			why = errors.Join(why, f.Error())
		}
		if text := reply.Refused[a.host]; text != "" {
			why = fault.New(fault.Conflict, "%s", text)
		}
		if why == nil {
			continue
		}
		failed = append(failed, a)
		if err == nil || errors.Is(why, fault.Conflict) { // one is told: the others fail for the like
			err = fmt.Errorf("host %s: %w", a.host, why)
		}
	}
	return failed, err
}

// kindOf gives the number of the kind that a report describes, which may be a new one.
func kindOf(msg *command.HostReports, kinds map[string]int, r *command.HostReport) int {
	kind := command.HostKind{Info: *r.Info, Traits: r.Traits}
	kind.Info.Hostname = ""
	text, _ := json.Marshal(kind) // plain data: it can be encoded
	n := kinds[string(text)]
	if n == 0 {
		msg.Kinds = append(msg.Kinds, kind)
		n = len(msg.Kinds)
		kinds[string(text)] = n
	}
	return n
}

// send gives a conductor a message of reports.
func (f *Fleet) send(ctx context.Context, msg []byte, long bool) (reply command.ReportsReply, err error) {
	// A conductor that hangs must not cost the hosts their good names: the next try reaches another one.
	patience := 5 * time.Second
	if long {
		patience = 30 * time.Second // there is much to write
	}
	one, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := call(one, f.cfg.Bus, command.ReportsSubject, msg, &reply); err != nil {
		return reply, fmt.Errorf("%w: %w", errUnreached, err)
	}
	return reply, nil
}

// mine asks what becomes of the guests that are on some hosts, and does it.
func (f *Fleet) mine(ctx context.Context, agents []*Agent) error {
	var errs []error
	for part := range slices.Chunk(agents, together) {
		of, err := guestsOf(ctx, part)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for len(part) > 0 {
			n, guests := 0, 0
			for ; n < len(part) && (n == 0 || guests+len(of[part[n].host]) <= manyGuests); n++ {
				guests += len(of[part[n].host])
			}
			errs = append(errs, f.ask(ctx, part[:n], of))
			part = part[n:]
		}
	}
	return errors.Join(errs...)
}

func (f *Fleet) ask(ctx context.Context, part []*Agent, of map[string][]virt.GuestState) error {
	ask := make([]command.MineRequest, len(part))
	for i, a := range part {
		ask[i] = a.question(of[a.host])
	}
	var told []command.MineReply
	if err := call(ctx, f.cfg.Bus, command.MineManySubject, ask, &told); err != nil {
		return err
	}
	if len(told) != len(ask) {
		return fmt.Errorf("%d hosts asked and %d answers came", len(ask), len(told))
	}
	for i, a := range part {
		a.settle(&ask[i], &told[i])
	}
	return nil
}

// guestsOf lists the guests of some hosts, by one question where they are neighbours.
func guestsOf(ctx context.Context, part []*Agent) (map[string][]virt.GuestState, error) {
	if n, ok := part[0].driver.(virt.Neighbour); ok {
		names := make([]string, len(part))
		for i, a := range part {
			names[i] = a.host
		}
		of, err := n.GuestsOf(ctx, names)
		if err != nil {
			return nil, fmt.Errorf("list guests: %w", err)
		}
		return of, nil
	}
	of := map[string][]virt.GuestState{}
	for _, a := range part {
		guests, err := a.driver.Guests(ctx)
		if err != nil {
			return nil, fmt.Errorf("list guests of host %s: %w", a.host, err)
		}
		of[a.host] = guests
	}
	return of, nil
}
