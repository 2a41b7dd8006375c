package notify

import (
	"context"
	"fmt"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/db"
	"kilonova/internal/fault"
)

// auditEvery is how often it is looked whether a period has ended.
const auditEvery = 10 * time.Second

// auditsKept is how many periods' results are kept.
const auditsKept = 100

// auditBatch is how many servers one transaction of the audit tells of.
const auditBatch = 100

// current gives the bounds of the audit period that is going on, up to now.
func (n *Notifier) current() (begin, now time.Time) {
	now = clock.Now()
	_, begin = n.period.Last(now)
	return begin, now
}

// audit tells once of each server that was there in the last whole period. Every batch is one transaction that remembers how far it got, so an audit that was
// interrupted goes on where it stopped.
func (n *Notifier) audit(ctx context.Context, now time.Time) error {
	begin, end := n.period.Last(now)
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
		if err := n.cfg.DB.Write(ctx, func(tx *db.Tx) error { return n.auditSome(ctx, tx, servers, at, begin, end, now) }); err != nil {
			return fmt.Errorf("audit: %w", err)
		}
	}
}

// auditState is how far the audit is: up to which end periods are told, and up to which server that of the period that ends at end is.
type auditState struct{ done, end, position int64 }

func (n *Notifier) auditSome(ctx context.Context, tx *db.Tx, servers []*compute.Server, at auditState, begin, end, now time.Time) error {
	next := auditState{done: at.done, end: clock.Micros(end)}
	found := map[string]int64{}
	for _, s := range servers {
		next.position = s.Number
		if s.Host != "" {
			found[s.Host]++
		}
		if err := n.add(ctx, tx, "instance.exists", n.cfg.Level, computeAt(s.Host, n.cfg.Host), n.exists(s, initiator{}, begin, end), initiator{}); err != nil {
			return err
		}
	}
	if err := n.cfg.Store.CountAudit(ctx, tx, end, found); err != nil {
		return err
	}
	if len(servers) < auditBatch {
		next.done = next.end
		if err := n.cfg.Store.EndAudit(ctx, tx, end, end.Add(-auditsKept*end.Sub(begin)), clock.Now().Sub(now)); err != nil {
			return err
		}
	}
	changed, err := tx.Exec(ctx, "UPDATE compute_notification_tasks SET done = ?, lease_until = ?, position = ? WHERE name = 'audit' AND done = ? AND lease_until = ? AND position = ?",
		next.done, next.end, next.position, at.done, at.end, at.position)
	if err == nil && changed == 0 {
		return fault.New(fault.Conflict, "Another process audits at the same time.")
	}
	return err
}
