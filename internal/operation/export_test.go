package operation

import "context"

// Renew prolongs the engine's leases, as Run does at its times.
func (e *Engine) Renew(ctx context.Context) { e.renew(ctx) }
