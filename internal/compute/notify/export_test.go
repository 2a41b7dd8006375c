package notify

import (
	"context"
	"time"
)

// Audit does what is due of the audit.
func (n *Notifier) Audit(ctx context.Context, now time.Time) error { return n.audit(ctx, now) }
