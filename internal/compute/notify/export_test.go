package notify

import (
	"context"
	"time"
)

// LastPeriod is the last whole audit period before a time.
func LastPeriod(unit string, now time.Time) (begin, end time.Time) {
	p, err := parsePeriod(unit)
	if err != nil {
		panic(err)
	}
	return p.last(now)
}

// Audit does what is due of the audit.
func (n *Notifier) Audit(ctx context.Context, now time.Time) error { return n.audit(ctx, now) }
