package notify

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/db"
	"kilonova/internal/fault"
)

// auditEvery is how often it is looked whether a period has ended.
const auditEvery = 10 * time.Second

// auditBatch is how many servers one transaction of the audit tells of.
const auditBatch = 100

// period is the length of an audit period and where it begins.
type period struct {
	unit   string // hour, day, month, year
	offset int    // minute, hour, day of the month, month
}

// parsePeriod reads UNIT or UNIT@OFFSET: an hour begins at the minute, a day at the hour, a month on the day, a year in the month that the offset names.
func parsePeriod(text string) (*period, error) {
	unit, at, given := strings.Cut(text, "@")
	bounds := map[string][2]int{"hour": {0, 59}, "day": {0, 23}, "month": {1, 28}, "year": {1, 12}}
	limit, ok := bounds[unit]
	p := &period{unit: unit, offset: limit[0]}
	if given {
		n, err := strconv.Atoi(at)
		if err != nil || n < limit[0] || n > limit[1] {
			ok = false
		}
		p.offset = n
	}
	if !ok {
		return nil, fault.New(fault.Invalid, "The audit period %q is none of hour[@0-59], day[@0-23], month[@1-28], year[@1-12].", text)
	}
	return p, nil
}

// last gives the last whole period that had ended at a time.
func (p *period) last(now time.Time) (begin, end time.Time) {
	now = now.UTC()
	y, m, d := now.Date()
	step := func(t time.Time, by int) time.Time { return t.AddDate(0, by, 0) }
	switch p.unit {
	case "hour":
		end = time.Date(y, m, d, now.Hour(), p.offset, 0, 0, time.UTC)
		step = func(t time.Time, by int) time.Time { return t.Add(time.Duration(by) * time.Hour) }
	case "day":
		end = time.Date(y, m, d, p.offset, 0, 0, 0, time.UTC)
		step = func(t time.Time, by int) time.Time { return t.AddDate(0, 0, by) }
	case "month":
		end = time.Date(y, m, p.offset, 0, 0, 0, 0, time.UTC)
	default:
		end = time.Date(y, time.Month(p.offset), 1, 0, 0, 0, 0, time.UTC)
		step = func(t time.Time, by int) time.Time { return t.AddDate(by, 0, 0) }
	}
	if end.After(now) {
		end = step(end, -1)
	}
	return step(end, -1), end
}

// bounds gives the last whole audit period; months when no audit is configured, as the payloads name one anyway.
func (n *Notifier) bounds(now time.Time) (begin, end time.Time) {
	p := n.period
	if p == nil {
		p = &period{unit: "month", offset: 1}
	}
	return p.last(now)
}

// current gives the bounds of the audit period that is going on, up to now.
func (n *Notifier) current() (begin, now time.Time) {
	now = clock.Now()
	_, begin = n.bounds(now)
	return begin, now
}

// audit tells once of each server that was there in the last whole period. Every batch is one transaction that remembers how far it got, so an audit that was
// interrupted goes on where it stopped.
func (n *Notifier) audit(ctx context.Context, now time.Time) error {
	begin, end := n.period.last(now)
	for {
		at := auditState{}
		err := n.cfg.DB.QueryRow(ctx, "SELECT done, lease_until, position FROM compute_notification_tasks WHERE name = 'audit'").Scan(&at.done, &at.end, &at.position)
		if err != nil {
			return fmt.Errorf("audit: %w", err)
		}
		if at.done >= clock.Micros(end) {
			return nil
		}
		after := at.position
		if at.end != clock.Micros(end) { // what was interrupted was the audit of an earlier period
			after = 0
		}
		servers, err := n.cfg.Store.ServersWithin(ctx, n.cfg.DB, begin, end, after, auditBatch)
		if err != nil {
			return err
		}
		if err := n.cfg.DB.Write(ctx, func(tx *db.Tx) error { return n.auditSome(ctx, tx, servers, at, begin, end) }); err != nil {
			return fmt.Errorf("audit: %w", err)
		}
	}
}

// auditState is how far the audit is: up to which end periods are told, and up to which server that of the period that ends at end is.
type auditState struct{ done, end, position int64 }

func (n *Notifier) auditSome(ctx context.Context, tx *db.Tx, servers []*compute.Server, at auditState, begin, end time.Time) error {
	next := auditState{done: at.done, end: clock.Micros(end)}
	for _, s := range servers {
		next.position = s.Number
		if err := n.add(ctx, tx, "instance.exists", n.cfg.Level, computeAt(s.Host, n.cfg.Host), n.exists(s, initiator{}, begin, end), initiator{}); err != nil {
			return err
		}
	}
	if len(servers) < auditBatch {
		next.done = next.end
	}
	changed, err := tx.Exec(ctx, "UPDATE compute_notification_tasks SET done = ?, lease_until = ?, position = ? WHERE name = 'audit' AND done = ? AND lease_until = ? AND position = ?",
		next.done, next.end, next.position, at.done, at.end, at.position)
	if err == nil && changed == 0 {
		return fault.New(fault.Conflict, "Another process audits at the same time.")
	}
	return err
}
