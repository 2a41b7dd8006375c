// Package doctor checks that what must always hold does hold: the invariants of the cloud, compared between the database, placement, the network service
// and what the hosts themselves see. `kilonova doctor` runs it against a running cloud, simulations and chaos runs call it after the faults are
// healed.
//
// It only reads. A finding names the invariant by its number in docs/guarantees.md, the object, what was seen and what to do. A cloud that works is
// never still: what looks wrong at one moment may be the middle of an operation. So findings are looked for several times, and only what stays counts.
//
// What one look cannot tell is left to the tests that watch a cloud over time: that moves between states were legal (9; here only that each state is a
// possible one), that clients see their own writes (13), that the data plane stood still (15).
package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"kilonova/internal/bus"
	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/owed"
	"kilonova/internal/compute/store"
	"kilonova/internal/compute/virt"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/network"
	"kilonova/internal/placement"
)

// Invariant is the number of a guarantee.
type Invariant int

// The invariants that one look can check.
const (
	NoLostAccept       Invariant = 1
	ExactlyOneEffect   Invariant = 2
	NoDoubleAllocation Invariant = 3
	NoOrphanAllocation Invariant = 4
	NoOrphanThing      Invariant = 5
	NoMissingThing     Invariant = 6
	NeverTwoGuests     Invariant = 7
	TaskStateIsHeld    Invariant = 8
	LegalState         Invariant = 9
	Fencing            Invariant = 10
	QuotaIsRight       Invariant = 11
	DeletedStays       Invariant = 12
	Bounded            Invariant = 14
)

var names = map[Invariant]string{NoLostAccept: "no lost accept", ExactlyOneEffect: "exactly one effect", NoDoubleAllocation: "no double allocation",
	NoOrphanAllocation: "no orphan allocation", NoOrphanThing: "no orphan thing", NoMissingThing: "no missing thing", NeverTwoGuests: "never two guests of one server",
	TaskStateIsHeld: "a task state has its operation", LegalState: "legal states only", Fencing: "fencing", QuotaIsRight: "quota equals a recount",
	DeletedStays: "deleted stays deleted", Bounded: "bounded"}

func (i Invariant) String() string { return fmt.Sprintf("%d %s", int(i), names[i]) }

// Finding is one way in which the cloud is not as it must be.
type Finding struct {
	Invariant Invariant `json:"invariant"`
	Object    string    `json:"object"` // id of what it is about
	Text      string    `json:"text"`
	Hint      string    `json:"hint,omitempty"`
}

func (f Finding) key() string { return fmt.Sprint(int(f.Invariant), " ", f.Object, " ", f.Text) }

func (f Finding) String() string {
	s := fmt.Sprintf("%s: %s: %s", f.Invariant, f.Object, f.Text)
	if f.Hint != "" {
		s += " " + f.Hint
	}
	return s
}

// Allocations reads who holds what; the built-in placement has it.
type Allocations interface {
	HeldOn(ctx context.Context, provider string) ([]placement.Holding, error)
	Providers(ctx context.Context, uuids ...string) ([]placement.Provider, error)
}

// Ports reads the ports of servers.
type Ports interface {
	// ServerPorts gives every port whose owner is compute.
	ServerPorts(ctx context.Context) ([]network.Port, error)
}

// Config is where the doctor looks. A part that is nil is not looked at, and the report says so.
type Config struct {
	DB          *db.DB
	Store       *store.Store
	Owed        *owed.Book
	Allocations Allocations
	Ports       Ports
	// Guests tells what a host sees; fault.Unavailable when it does not answer.
	Guests func(ctx context.Context, host string, expected []string) (Seen, error)
	// Silent is how long a host may be silent before its guests are not asked for; 0: 60 s.
	Silent time.Duration
	// Looks is how often findings are looked for until they count, Pause the time between; 0: 3 looks, 2 s.
	Looks int
	Pause time.Duration
	// Unled is how long an operation may be without anybody who carries it on; 0: 2 min.
	Unled time.Duration
}

// Seen is what a host sees. Complete says that Guests holds every guest of the host, and not only those that were asked for.
type Seen struct {
	Guests   map[string]virt.PowerState
	Complete bool
}

// Report is the result.
type Report struct {
	Findings []Finding        `json:"findings"`
	Notes    []string         `json:"notes"` // what could not be looked at, and waiting work that is no fault
	Counts   map[string]int64 `json:"counts"`
}

// Healthy tells whether nothing was found.
func (r *Report) Healthy() bool { return len(r.Findings) == 0 }

// Text is the report for a person.
func (r *Report) Text() string {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintln(&b, f)
	}
	for _, n := range r.Notes {
		fmt.Fprintln(&b, "note:", n)
	}
	keys := make([]string, 0, len(r.Counts))
	for k := range r.Counts {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		fmt.Fprintf(&b, "%s: %d\n", k, r.Counts[k])
	}
	if r.Healthy() {
		fmt.Fprintln(&b, "Every invariant that was checked holds.")
	}
	return b.String()
}

// Check looks until findings stay or are gone.
func Check(ctx context.Context, c Config) (*Report, error) {
	if c.Looks == 0 {
		c.Looks = 3
	}
	if c.Pause == 0 {
		c.Pause = 2 * time.Second
	}
	if c.Silent == 0 {
		c.Silent = time.Minute
	}
	if c.Unled == 0 {
		c.Unled = 2 * time.Minute
	}
	var last *Report
	for look := range c.Looks {
		if look > 0 {
			t := time.NewTimer(c.Pause)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return nil, ctx.Err()
			}
		}
		r, err := once(ctx, &c)
		if err != nil {
			return nil, err
		}
		if last != nil {
			before := map[string]bool{}
			for _, f := range last.Findings {
				before[f.key()] = true
			}
			r.Findings = slices.DeleteFunc(r.Findings, func(f Finding) bool { return !before[f.key()] })
		}
		if last = r; r.Healthy() {
			break
		}
	}
	return last, nil
}

// look is one look at everything.
type look struct {
	*Config
	ctx     context.Context
	report  *Report
	servers map[string]*compute.Server // not deleted
	open    map[string]op              // open operations by object
	moving  map[string]compute.Migration
	hosts   []compute.Host
	seen    map[string]Seen
}

func (l *look) say(i Invariant, object, hint, format string, args ...any) {
	l.report.Findings = append(l.report.Findings, Finding{Invariant: i, Object: object, Text: fmt.Sprintf(format, args...), Hint: hint})
}

func (l *look) note(format string, args ...any) {
	l.report.Notes = append(l.report.Notes, fmt.Sprintf(format, args...))
}

func once(ctx context.Context, c *Config) (*Report, error) {
	l := &look{Config: c, ctx: ctx, report: &Report{Findings: []Finding{}, Notes: []string{}, Counts: map[string]int64{}}, seen: map[string]Seen{}}
	for _, step := range []func() error{l.read, l.operations, l.states, l.quota, l.allocations, l.devices, l.ports, l.guests, l.debts, l.sizes} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("doctor: %w", err)
		}
	}
	slices.SortFunc(l.report.Findings, func(a, b Finding) int { return strings.Compare(a.key(), b.key()) })
	return l.report, nil
}

// AskAgents asks the agents over the bus.
func AskAgents(b bus.Bus) func(ctx context.Context, host string, expected []string) (Seen, error) {
	client := &command.Client{Bus: b}
	return func(ctx context.Context, host string, expected []string) (Seen, error) {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		out := Seen{Guests: map[string]virt.PowerState{}}
		var all []virt.GuestState
		err := client.Do(ctx, host, command.Command{Verb: command.QueryGuests}, nil, &all)
		if err == nil {
			for _, g := range all {
				out.Guests[g.ID] = g.Power
			}
			out.Complete = true
			return out, nil
		}
		if errors.Is(err, fault.Unavailable) {
			return out, err
		}
		// An agent of an older version has no list: it is asked for each guest that should be there.
		for _, id := range expected {
			var g virt.GuestState
			err := client.Do(ctx, host, command.Command{Server: id, Verb: command.QueryGuest}, json.RawMessage("{}"), &g)
			if errors.Is(err, fault.NotFound) {
				continue
			}
			if err != nil {
				return out, err
			}
			out.Guests[id] = g.Power
		}
		return out, nil
	}
}
