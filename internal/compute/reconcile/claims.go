package reconcile

import (
	"context"

	"kilonova/internal/db"
)

// Claims frees parts of hosts that nobody holds any more: of servers that are gone or elsewhere, and of migrations that ended.
func (l *Loops) Claims(ctx context.Context) error {
	lost, err := l.cfg.Store.LostClaims(ctx, l.cfg.Store.DB)
	if err != nil || len(lost) == 0 {
		return err
	}
	return l.cfg.Store.DB.Write(ctx, func(tx *db.Tx) error {
		lost, err := l.cfg.Store.LostClaims(ctx, tx) // again, where nothing changes meanwhile
		if err != nil || len(lost) == 0 {
			return err
		}
		l.log.Warn("parts of hosts that nobody holds are freed", "consumers", lost)
		return l.cfg.Store.DropClaims(ctx, tx, lost...)
	})
}
