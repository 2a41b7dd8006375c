package notify

import (
	"context"
	"slices"
	"time"
)

// Audit does what is due of the audit.
func (n *Notifier) Audit(ctx context.Context, now time.Time) error { return n.audit(ctx, now) }

// Known is how many messages the notifier knows to be given to sinks.
func (n *Notifier) Known() (known int) {
	for _, sent := range n.sent {
		known += len(sent)
	}
	return known
}

// Events gives every event type that this package tells, sorted.
func Events() []string {
	out := []string{"instance.update", "instance.exists", "compute.exception"}
	for _, l := range Lines() {
		out = append(out, l.Event)
	}
	for _, list := range nouns() {
		for _, l := range list {
			out = append(out, l.event)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
