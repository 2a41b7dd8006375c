package doctor

import (
	"fmt"
	"slices"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
)

// op is an open operation.
type op struct {
	id, kind, state, task, cause string
	epoch                        int64
	lease, due                   time.Time
	holds                        bool
}

// ends are the states of migrations that are over.
var ends = []string{"completed", "confirmed", "reverted", "error", "failed", "cancelled", "done"}

func (l *look) read() error {
	l.servers, l.open, l.moving = map[string]*compute.Server{}, map[string]op{}, map[string]compute.Migration{}
	no := false
	ss, err := l.Store.ListServers(l.ctx, l.DB, store.ListFilter{Deleted: &no})
	if err != nil {
		return err
	}
	for _, s := range ss {
		l.servers[s.ID] = s
	}
	ms, err := l.Store.Migrations(l.ctx, l.DB, store.MigrationFilter{})
	if err != nil {
		return err
	}
	for _, m := range ms {
		if !slices.Contains(ends, m.Status) {
			l.moving[m.UUID] = m
		}
	}
	if l.hosts, err = l.Store.Hosts(l.ctx, l.DB); err != nil {
		return err
	}
	rows, err := l.DB.Query(l.ctx, "SELECT id, kind, state, task_state, cause, object, COALESCE(holds, ''), epoch, lease_until, due FROM operations WHERE finished = 0")
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var o op
		var object, holds string
		var lease, due int64
		if err := rows.Scan(&o.id, &o.kind, &o.state, &o.task, &o.cause, &object, &holds, &o.epoch, &lease, &due); err != nil {
			return err
		}
		o.lease, o.due, o.holds = clock.FromMicros(lease), clock.FromMicros(due), holds != ""
		if o.holds || l.open[object].id == "" {
			l.open[object] = o
		}
		l.judgeOpen(object, o)
	}
	l.report.Counts["servers"], l.report.Counts["open operations"] = int64(len(l.servers)), int64(len(l.open))
	return rows.Err()
}

// judgeOpen looks at one open operation (1).
func (l *look) judgeOpen(object string, o op) {
	late := o.due
	if o.lease.After(late) {
		late = o.lease
	}
	switch {
	case o.state == "attention":
		l.say(NoLostAccept, o.id, fmt.Sprintf("Repair the cause, then `kilonova operation retry %s`.", o.id), "operation %s of %s needs attention: %s", o.kind, object, o.cause)
	case time.Since(late) > l.Unled:
		l.say(NoLostAccept, o.id, "Is a conductor running?", "operation %s of %s is carried on by nobody since %s", o.kind, object, late.Format(clock.LayoutZ))
	}
}

// operations checks the journal: one holder for each object, none for what is gone, no step ahead of its operation's epoch (1, 8, 10, 12).
func (l *look) operations() error {
	for object, o := range l.open {
		if !o.holds {
			continue
		}
		if l.servers[object] == nil && o.kind != compute.OpDelete {
			l.say(DeletedStays, object, "", "operation %s (%s) holds a server that is deleted or was never there", o.id, o.kind)
		}
	}
	for _, c := range []struct {
		inv   Invariant
		query string
		text  string
	}{
		{Fencing, "SELECT o.id FROM operation_steps s JOIN operations o ON o.id = s.operation WHERE s.epoch > o.epoch AND o.state <> 'superseded'", "a step was journalled with an epoch that the operation never had"},
		{NoLostAccept, "SELECT id FROM operations WHERE finished <> 0 AND state NOT IN ('done', 'undone', 'superseded')", "the operation has an end and yet is in no final state"},
		{NoLostAccept, "SELECT id FROM operations WHERE finished = 0 AND state IN ('done', 'undone', 'superseded')", "the operation is in a final state and yet has no end"},
		{TaskStateIsHeld, "SELECT id FROM operations WHERE finished <> 0 AND holds IS NOT NULL", "an operation that has ended still holds its object"},
	} {
		ids, err := l.column(c.query)
		if err != nil {
			return err
		}
		for _, id := range ids {
			l.say(c.inv, id, "", "%s", c.text)
		}
	}
	return nil
}

func (l *look) column(query string, args ...any) (out []string, err error) {
	rows, err := l.DB.Query(l.ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, rows.Err()
}

// hosted are the states in which a server has a host, and those in which it has none. ERROR may be either, and so may those that were deleted for now.
var (
	hosted   = []string{compute.VMActive, compute.VMPaused, compute.VMSuspended, compute.VMStopped, compute.VMRescued, compute.VMResized, compute.VMShelved}
	homeless = []string{compute.VMShelvedOffloaded}
	either   = []string{compute.VMError, compute.VMBuilding, compute.VMSoftDeleted}
)

// powers are the power states that a settled server of a state may have on record; states that are not named may have any.
var powers = map[string][]int{
	compute.VMActive:    {compute.PowerRunning, compute.PowerNone, compute.PowerPaused},
	compute.VMStopped:   {compute.PowerShutdown, compute.PowerCrashed, compute.PowerNone},
	compute.VMPaused:    {compute.PowerPaused, compute.PowerNone, compute.PowerRunning},
	compute.VMSuspended: {compute.PowerSuspended, compute.PowerShutdown, compute.PowerNone},
}

// states checks that every server is in a state that can be (1, 8, 9).
func (l *look) states() error {
	for id, s := range l.servers {
		o, held := l.open[id]
		held = held && o.holds
		switch {
		case slices.Contains(hosted, s.VMState):
			if s.Host == "" && !held {
				l.say(LegalState, id, "", "the server is %s and on no host", s.VMState)
			}
		case slices.Contains(homeless, s.VMState):
			if s.Host != "" && !held {
				l.say(LegalState, id, "", "the server is %s and on host %s", s.VMState, s.Host)
			}
		case !slices.Contains(either, s.VMState):
			l.say(LegalState, id, "", "the server is in the unknown state %q", s.VMState)
		}
		if s.VMState == compute.VMBuilding && !held && time.Since(s.Updated) > l.Unled {
			l.say(NoLostAccept, id, "", "the server is being built by no operation")
		}
		if s.TaskState != "" && !held {
			l.say(TaskStateIsHeld, id, "", "the server has the task state %s and no open operation", s.TaskState)
		}
		if ok, known := powers[s.VMState]; known && !held && !slices.Contains(ok, s.PowerState) && time.Since(s.Updated) > l.Unled {
			l.say(LegalState, id, "", "the server is %s with power state %d", s.VMState, s.PowerState)
		}
		if (s.VMState == compute.VMResized) != (s.OldFlavor != nil) && !held && s.VMState != compute.VMError {
			l.say(LegalState, id, "", "the server is %s, and what it was resized from does not fit to that", s.VMState)
		}
	}
	return nil
}

// quota compares the counters with a recount (11).
func (l *look) quota() error {
	counted, err := l.Store.Counted(l.ctx, l.DB)
	if err != nil {
		return err
	}
	recount, err := l.Store.Recount(l.ctx, l.DB)
	if err != nil {
		return err
	}
	for k, v := range recount {
		if counted[k] != v {
			l.say(QuotaIsRight, k[0]+"/"+k[1], "", "counted %+v, recount %+v", counted[k], v)
		}
	}
	for k, v := range counted {
		if _, ok := recount[k]; !ok && v != (store.Usage{}) {
			l.say(QuotaIsRight, k[0]+"/"+k[1], "", "counted %+v, recount nothing", v)
		}
	}
	return nil
}

// debts notes what hosts owe, and finds debts of hosts that are up (5).
func (l *look) debts() error {
	if l.Owed == nil {
		return nil
	}
	all, err := l.Owed.All(l.ctx, l.DB)
	if err != nil {
		return err
	}
	up := map[string]bool{}
	for _, h := range l.hosts {
		up[h.Name] = l.alive(&h)
	}
	for _, d := range all {
		if up[d.Host] && time.Since(d.Since) > 10*time.Minute {
			l.say(NoOrphanThing, d.Server, "The log of the host's agent tells why.", "host %s is up and owes %s since %s", d.Host, d.Verb, d.Since.Format(clock.LayoutZ))
			continue
		}
		l.note("host %s owes %s of %s since %s: %s", d.Host, d.Verb, d.Server, d.Since.Format(clock.LayoutZ), d.Reason)
	}
	l.report.Counts["debts of hosts"] = int64(len(all))
	return nil
}

func (l *look) alive(h *compute.Host) bool {
	return !h.ForcedDown && time.Since(h.LastSeen) <= l.Silent
}

// sizes counts what must return to its base line (14).
func (l *look) sizes() error {
	for name, query := range map[string]string{
		"operations on record":      "SELECT COUNT(*) FROM operations",
		"operation steps on record": "SELECT COUNT(*) FROM operation_steps",
		"deleted servers on record": "SELECT COUNT(*) FROM compute_servers WHERE deleted = 1",
	} {
		var n int64
		if err := l.DB.QueryRow(l.ctx, query).Scan(&n); err != nil {
			return err
		}
		l.report.Counts[name] = n
	}
	lost, err := l.column("SELECT DISTINCT s.operation FROM operation_steps s LEFT JOIN operations o ON o.id = s.operation WHERE o.id IS NULL")
	if err != nil && !db.IsNoRows(err) {
		return err
	}
	for _, id := range lost {
		l.say(Bounded, id, "", "steps are left of an operation that is gone")
	}
	return nil
}
