package notify

import (
	"context"
	"fmt"
	"strings"
	"time"

	"kilonova/internal/bus"
	"kilonova/internal/clock"
	"kilonova/internal/db"
)

// Sink publishes messages.
type Sink interface {
	// Send publishes messages in order and gives how many were taken for good; fewer than all only with an error.
	Send(ctx context.Context, messages []Message) (int, error)
	// Name is that of the sink in the log.
	Name() string
}

// BusSink publishes on the bus, under the subjects notifications.TOPIC.PRIORITY. The bus keeps nothing: who does not listen misses it.
type BusSink struct{ Bus bus.Bus }

// Name implements Sink.
func (BusSink) Name() string { return "bus" }

// Send implements Sink.
func (s BusSink) Send(ctx context.Context, messages []Message) (int, error) {
	for i, m := range messages {
		if err := s.Bus.Fanout(ctx, Subject(m.Routing), m.Body); err != nil {
			return i, fmt.Errorf("publish on the bus: %w", err)
		}
	}
	return len(messages), nil
}

// Subject is where the messages of a topic and priority ("versioned_notifications.info") are on the bus.
func Subject(routing string) string { return "notifications." + routing }

// batch is how many messages are read and removed at once.
const batch = 200

// together is how long a message waits for others.
const together = 20 * time.Millisecond

// Run publishes, and makes what is due by the clock, until ctx ends. Of several processes one does it at a time.
func (n *Notifier) Run(ctx context.Context) error {
	tick := time.NewTicker(n.cfg.Poll)
	defer tick.Stop()
	var until, audited time.Time
	failed := ""
	for {
		now := clock.Now()
		if now.After(until) {
			mine, err := n.lease(ctx, now.Add(n.cfg.Lease))
			if err != nil && ctx.Err() == nil {
				n.cfg.Log.Warn("the lease of the publisher of notifications could not be taken", "error", err)
			}
			until = time.Time{}
			if mine {
				until = now.Add(n.cfg.Lease / 3)
			} else {
				n.forget()
			}
		}
		if !until.IsZero() {
			if n.cfg.Audit != "" && now.Sub(audited) > auditEvery {
				audited = now
				if err := n.audit(ctx, now); err != nil && ctx.Err() == nil {
					n.cfg.Log.Warn("the audit of servers was interrupted", "error", err)
				}
			}
			more, err := n.Publish(ctx)
			if text := fmt.Sprint(err); err != nil && ctx.Err() == nil && text != failed {
				n.cfg.Log.Warn("notifications wait: they could not be published", "error", err)
				failed = text
			} else if err == nil && failed != "" {
				failed = ""
				n.cfg.Log.Info("notifications are published again")
			}
			if more && err == nil {
				continue
			}
		}
		wake := n.wake
		if failed != "" {
			wake = nil // not at every new message, while nobody takes them
		}
		select {
		case <-ctx.Done():
			n.release(!until.IsZero())
			return ctx.Err()
		case <-wake:
			n.collect(ctx)
		case <-tick.C:
		}
	}
}

// collect waits a moment for what is told at the same time: removing many messages costs as much as removing one.
func (n *Notifier) collect(ctx context.Context) {
	t := time.NewTimer(together)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// lease takes or keeps the right to publish.
func (n *Notifier) lease(ctx context.Context, until time.Time) (mine bool, err error) {
	err = n.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		c, err := tx.Exec(ctx, "UPDATE compute_notification_tasks SET owner = ?, lease_until = ? WHERE name = 'publish' AND (owner = ? OR lease_until < ?)", n.owner,
			clock.Micros(until), n.owner, clock.Micros(clock.Now()))
		mine = c > 0
		return err
	})
	return mine && err == nil, err
}

// release publishes what the last operations told and gives the right to publish back, at the end of the process.
func (n *Notifier) release(mine bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for mine {
		more, err := n.Publish(ctx)
		if err != nil {
			n.cfg.Log.Info("notifications wait for the next publisher", "error", err)
		}
		mine = more && err == nil
	}
	err := n.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE compute_notification_tasks SET owner = '', lease_until = 0 WHERE name = 'publish' AND owner = ?", n.owner)
		return err
	})
	if err != nil {
		n.cfg.Log.Warn("the lease of the publisher of notifications runs out by itself", "error", err)
	}
}

// forget drops what is known of half published messages: another process publishes now.
func (n *Notifier) forget() {
	for _, s := range n.sent {
		clear(s)
	}
}

// gone drops what is known of messages that are not there any more: their removal was committed, though the database was lost before it could say so.
func (n *Notifier) gone(left []row) {
	for _, sent := range n.sent {
		for id := range sent {
			if len(left) == 0 || id < left[0].id {
				delete(sent, id)
			}
		}
	}
}

type row struct {
	id      int64
	created int64
	Message
	priority, inner string
}

// Publish gives the oldest messages to every sink and removes those that all have taken. It tells whether there may be more, and fails when a sink did not take
// all; the others have got theirs then and do not get them again from this process.
func (n *Notifier) Publish(ctx context.Context) (more bool, err error) {
	rows, err := n.oldest(ctx)
	if err != nil {
		return false, err
	}
	n.gone(rows)
	if len(rows) == 0 {
		return false, nil
	}
	var refused error
	for i, s := range n.cfg.Sinks {
		if e := n.give(ctx, s, n.sent[i], rows); e != nil {
			refused = fmt.Errorf("%s: %w", s.Name(), e)
		}
	}
	var done []int64
	old := clock.Micros(clock.Now().Add(-n.cfg.Retention))
	dropped := 0
	for _, r := range rows {
		all := true
		for _, sent := range n.sent {
			all = all && sent[r.id]
		}
		if !all && r.created < old {
			all = true
			dropped++
		}
		if all {
			done = append(done, r.id)
		}
	}
	if dropped > 0 {
		n.cfg.Log.Error("notifications were given up: nobody took them in time", "number", dropped, "retention", n.cfg.Retention)
	}
	if len(done) > 0 {
		if e := n.cfg.DB.Write(ctx, func(tx *db.Tx) error {
			_, err := tx.Exec(ctx, "DELETE FROM compute_notifications WHERE id IN ("+db.In(len(done))+")", db.Args(done)...)
			return err
		}); e != nil {
			return false, fmt.Errorf("remove published notifications: %w", e)
		}
		for _, id := range done {
			for _, sent := range n.sent {
				delete(sent, id)
			}
		}
	}
	return len(rows) == batch, refused
}

// give sends a sink those of the rows that it has not got.
func (n *Notifier) give(ctx context.Context, s Sink, sent map[int64]bool, rows []row) error {
	var out []Message
	var ids []int64
	for _, r := range rows {
		if sent[r.id] {
			continue
		}
		for _, topic := range n.cfg.Topics {
			m := r.Message
			m.Routing = bus.Token(topic) + "." + strings.ToLower(r.priority)
			out = append(out, m)
			ids = append(ids, r.id)
		}
	}
	if len(out) == 0 {
		return nil
	}
	taken, err := s.Send(ctx, out)
	for i := range taken {
		if i+1 == len(out) || ids[i+1] != ids[i] { // under its last topic
			sent[ids[i]] = true
		}
	}
	return err
}

func (n *Notifier) oldest(ctx context.Context) ([]row, error) {
	rows, err := n.cfg.DB.Query(ctx, "SELECT id, message_id, event_type, priority, body, created_at FROM compute_notifications ORDER BY id LIMIT ?", batch)
	if err != nil {
		return nil, fmt.Errorf("read notifications: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var out []row
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.id, &r.ID, &r.Event, &r.priority, &r.inner, &r.created); err != nil {
			return nil, fmt.Errorf("read notifications: %w", err)
		}
		if r.Body, err = envelope(r.inner); err != nil {
			return nil, fmt.Errorf("notification %s: %w", r.ID, err)
		}
		out = append(out, r)
	}
	return out, rows.Err()
}
